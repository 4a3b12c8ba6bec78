package ledger

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/pgtest"
	"github.com/musterhq/muster/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// open returns the ledger of a new database with the schema in place.
func open(t testing.TB) *Ledger {
	t.Helper()
	url := pgtest.NewDatabase(t, pgtest.WithTemplate("muster", func(ctx context.Context, url string) error {
		s, err := store.Open(ctx, url)
		if err != nil {
			return err
		}
		defer s.Close()
		_, err = s.Migrate(ctx)
		return err
	}))
	pool, err := pgxpool.New(context.Background(), url)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return New(pool)
}

type failer interface {
	Errorf(format string, args ...any)
	FailNow()
}

// newCampaign inserts a campaign that the ledger's rows can refer to.
func newCampaign(t failer, l *Ledger, unit campaign.OrgUnit) string {
	ctx := context.Background()
	id, planner := uuid.NewString(), uuid.NewString()
	_, err := l.pool.Exec(ctx, `INSERT INTO org_unit (path, name) VALUES ($1, $1) ON CONFLICT DO NOTHING`, unit)
	require.NoError(t, err)
	_, err = l.pool.Exec(ctx, `INSERT INTO app_user (id, login, name, password_hash) VALUES ($1, $2, 'Planner', '')`, planner, "p-"+planner)
	require.NoError(t, err)
	_, err = l.pool.Exec(ctx, `INSERT INTO campaign (id, name, unit, planner_id, draft_revision, simulated) VALUES ($1, 'Test', $2, $3, 1, true)`, id, unit, planner)
	require.NoError(t, err)
	return id
}

func cny(minor int64) campaign.Money { return campaign.Money{Minor: minor, Currency: "CNY"} }

func requireSound(t testing.TB, l *Ledger) {
	t.Helper()
	found, err := l.Check(context.Background())
	require.NoError(t, err)
	require.Empty(t, found)
}

func requireCode(t testing.TB, code campaign.Code, err error) *campaign.Error {
	t.Helper()
	var e *campaign.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, code, e.Code, "%v", err)
	require.NotContains(t, e.Message, "SQLSTATE")
	return e
}

func TestMoneyPassesFourSteps(t *testing.T) {
	l, ctx := open(t), context.Background()
	id := newCampaign(t, l, "operator/north")
	balance := func() LineBalance {
		all, err := l.Balances(ctx, id)
		require.NoError(t, err)
		require.Len(t, all, 1)
		return all[0]
	}
	none, err := l.Balances(ctx, id)
	require.NoError(t, err)
	require.Empty(t, none)

	_, err = l.Allocate(ctx, "a", id, "calls", cny(1000))
	require.NoError(t, err)
	require.Equal(t, LineBalance{Line: "calls", Currency: "CNY", Allocated: 1000, Available: 1000}, balance())

	_, err = l.Reserve(ctx, "r", id, "calls", cny(700))
	require.NoError(t, err)
	require.Equal(t, LineBalance{Line: "calls", Currency: "CNY", Allocated: 1000, Held: 700, Available: 300}, balance())

	_, err = l.Capture(ctx, "c", id, "calls", cny(200))
	require.NoError(t, err)
	require.Equal(t, LineBalance{Line: "calls", Currency: "CNY", Allocated: 1000, Held: 500, Captured: 200, Available: 300}, balance())

	_, err = l.Release(ctx, "l", id, "calls", cny(100))
	require.NoError(t, err)
	require.Equal(t, LineBalance{Line: "calls", Currency: "CNY", Allocated: 1000, Held: 400, Captured: 200, Released: 100, Available: 400}, balance())

	_, err = l.Close(ctx, "x", id, "calls", "CNY")
	require.NoError(t, err)
	require.Equal(t, LineBalance{Line: "calls", Currency: "CNY", Allocated: 1000, Captured: 200, Released: 500, Available: 800}, balance())
	requireSound(t, l)

	// What is left may be reserved again, and nothing is held when it is spent.
	_, err = l.Reserve(ctx, "r2", id, "calls", cny(800))
	require.NoError(t, err)
	_, err = l.Capture(ctx, "c2", id, "calls", cny(800))
	require.NoError(t, err)
	_, err = l.Close(ctx, "x2", id, "calls", "CNY")
	require.NoError(t, err, "a hold that is used up can be closed")
	require.Equal(t, LineBalance{Line: "calls", Currency: "CNY", Allocated: 1000, Captured: 1000, Released: 500}, balance())
	requireSound(t, l)
}

func TestRefusals(t *testing.T) {
	l, ctx := open(t), context.Background()
	id := newCampaign(t, l, "operator/north")
	_, err := l.Allocate(ctx, "a", id, "calls", cny(1000))
	require.NoError(t, err)

	_, err = l.Capture(ctx, "k", id, "calls", cny(1))
	requireCode(t, campaign.CodeNotFound, err)
	_, err = l.Close(ctx, "k", id, "calls", "CNY")
	requireCode(t, campaign.CodeNotFound, err)
	_, err = l.Reserve(ctx, "k", id, "calls", cny(1001))
	require.Equal(t, map[string]any{"line": "calls", "available": 1000.0, "wanted": 1001.0}, requireCode(t, campaign.CodeBudgetInsufficient, err).Details)

	_, err = l.Reserve(ctx, "r", id, "calls", cny(1000))
	require.NoError(t, err)
	_, err = l.Reserve(ctx, "k", id, "calls", cny(1))
	requireCode(t, campaign.CodeBudgetInsufficient, err)
	_, err = l.Capture(ctx, "k", id, "calls", cny(1001))
	require.Equal(t, map[string]any{"line": "calls", "reserved": 1000.0, "wanted": 1001.0}, requireCode(t, campaign.CodeHoldExceeded, err).Details)
	_, err = l.Release(ctx, "k", id, "calls", cny(1001))
	requireCode(t, campaign.CodeHoldExceeded, err)

	for _, step := range []func(context.Context, string, string, string, campaign.Money) (Entry, error){l.Allocate, l.Reserve, l.Capture, l.Release} {
		for _, amount := range []int64{0, -1, 1_000_000_000_000_001, math.MaxInt64, math.MinInt64} {
			_, err = step(ctx, "k", id, "calls", cny(amount))
			requireCode(t, campaign.CodeAmountOutOfRange, err)
		}
		_, err = step(ctx, "k", id, "calls", campaign.Money{Minor: 1, Currency: "EUR"})
		requireCode(t, campaign.CodeCurrencyMismatch, err)
		_, err = step(ctx, "k", uuid.NewString(), "calls", cny(1))
		requireCode(t, campaign.CodeNotFound, err)
		_, err = step(ctx, "k", "no uuid", "calls", cny(1))
		requireCode(t, campaign.CodeInvalidParameter, err)
	}
	_, err = l.Close(ctx, "x", id, "calls", "CNY")
	require.NoError(t, err)
	_, err = l.Capture(ctx, "k", id, "calls", cny(1))
	requireCode(t, campaign.CodeHoldClosed, err)
	_, err = l.Release(ctx, "k", id, "calls", cny(1))
	requireCode(t, campaign.CodeHoldClosed, err)
	_, err = l.Close(ctx, "k", id, "calls", "CNY")
	requireCode(t, campaign.CodeHoldClosed, err)

	// A refused request leaves its key free.
	entry, err := l.Reserve(ctx, "k", id, "calls", cny(1000))
	require.NoError(t, err)
	require.False(t, entry.Replayed)
	requireSound(t, l)
}

func TestKeys(t *testing.T) {
	l, ctx := open(t), context.Background()
	id, other, foreign := newCampaign(t, l, "operator/north"), newCampaign(t, l, "operator/south"), newCampaign(t, l, "rival")
	first, err := l.Allocate(ctx, "k", id, "calls", cny(1000))
	require.NoError(t, err)
	require.False(t, first.Replayed)

	again, err := l.Allocate(ctx, "k", id, "calls", cny(1000))
	require.NoError(t, err)
	require.Equal(t, Entry{Journal: first.Journal, Replayed: true}, again)

	_, err = l.Allocate(ctx, "k", id, "calls", cny(1001))
	requireCode(t, campaign.CodeKeyReused, err)
	_, err = l.Allocate(ctx, "k", id, "sms", cny(1000))
	requireCode(t, campaign.CodeKeyReused, err)
	_, err = l.Allocate(ctx, "k", other, "calls", cny(1000))
	requireCode(t, campaign.CodeKeyReused, err)
	_, err = l.Reserve(ctx, "k", id, "calls", cny(1000))
	requireCode(t, campaign.CodeKeyReused, err)

	own, err := l.Allocate(ctx, "k", foreign, "calls", cny(1000))
	require.NoError(t, err, "another tenant's keys are its own")
	require.False(t, own.Replayed)

	_, err = l.Reserve(ctx, "r", id, "calls", cny(10))
	require.NoError(t, err)
	_, err = l.Capture(ctx, "c", id, "calls", cny(4))
	require.NoError(t, err)
	_, err = l.Close(ctx, "x", id, "calls", "CNY")
	require.NoError(t, err)
	late, err := l.Capture(ctx, "c", id, "calls", cny(4))
	require.NoError(t, err, "a repetition is answered also when the hold has been closed since")
	require.True(t, late.Replayed)
	requireSound(t, l)
}

func TestReserveAll(t *testing.T) {
	l, ctx := open(t), context.Background()
	id := newCampaign(t, l, "operator/north")
	lines := []Ceiling{{"sms", 300}, {"calls", 1000}}
	added, err := l.ReserveAll(ctx, id, "CNY", lines)
	require.NoError(t, err)
	require.EqualValues(t, 1300, added)
	added, err = l.ReserveAll(ctx, id, "CNY", lines)
	require.NoError(t, err)
	require.Zero(t, added, "a repetition must reserve nothing")

	_, err = l.Capture(ctx, "c", id, "sms", cny(100))
	require.NoError(t, err)
	added, err = l.ReserveAll(ctx, id, "CNY", []Ceiling{{"calls", 400}, {"gifts", 50}, {"sms", 500}})
	require.NoError(t, err)
	require.EqualValues(t, 250, added)
	balances, err := l.Balances(ctx, id)
	require.NoError(t, err)
	require.Equal(t, []LineBalance{
		{Line: "calls", Currency: "CNY", Allocated: 1000, Held: 1000},
		{Line: "gifts", Currency: "CNY", Allocated: 50, Held: 50},
		{Line: "sms", Currency: "CNY", Allocated: 500, Held: 400, Captured: 100},
	}, balances)

	_, err = l.ReserveAll(ctx, id, "CNY", []Ceiling{{"calls", 2000}, {"zero", 0}})
	requireCode(t, campaign.CodeAmountOutOfRange, err)
	_, err = l.ReserveAll(ctx, id, "EUR", []Ceiling{{"calls", 2000}})
	requireCode(t, campaign.CodeCurrencyMismatch, err)
	after, err := l.Balances(ctx, id)
	require.NoError(t, err)
	require.Equal(t, balances, after, "all lines or none")

	require.NoError(t, l.CloseAll(ctx, id))
	require.NoError(t, l.CloseAll(ctx, id))
	balances, err = l.Balances(ctx, id)
	require.NoError(t, err)
	require.Equal(t, []LineBalance{
		{Line: "calls", Currency: "CNY", Allocated: 1000, Released: 1000, Available: 1000},
		{Line: "gifts", Currency: "CNY", Allocated: 50, Released: 50, Available: 50},
		{Line: "sms", Currency: "CNY", Allocated: 500, Captured: 100, Released: 400, Available: 400},
	}, balances)
	added, err = l.ReserveAll(ctx, id, "CNY", []Ceiling{{"calls", 1000}, {"gifts", 50}, {"sms", 500}})
	require.NoError(t, err)
	require.Zero(t, added, "a late repetition must not reserve what settlement set free")
	requireSound(t, l)
}

func TestHistoryCannotBeChanged(t *testing.T) {
	l, ctx := open(t), context.Background()
	id := newCampaign(t, l, "operator/north")
	_, err := l.ReserveAll(ctx, id, "CNY", []Ceiling{{"calls", 1000}})
	require.NoError(t, err)
	_, err = l.Capture(ctx, "c", id, "calls", cny(1))
	require.NoError(t, err)
	for _, c := range []struct{ sql, state string }{
		{`UPDATE ledger_journal SET key = 'other'`, "55000"},
		{`DELETE FROM ledger_journal`, "55000"},
		{`UPDATE ledger_posting SET amount = amount + 1`, "55000"},
		{`DELETE FROM ledger_posting`, "55000"},
		{`TRUNCATE ledger_posting`, "55000"},
		{`UPDATE ledger_hold_event SET amount = amount + 1`, "55000"},
		{`DELETE FROM ledger_hold_event`, "55000"},
		{`DELETE FROM ledger_hold`, "55000"},
		{`DELETE FROM ledger_account`, "55000"},
		{`TRUNCATE ledger_account CASCADE`, "55000"},
		{`INSERT INTO ledger_posting (journal_id, account_id, amount)
		  SELECT (SELECT id FROM ledger_journal WHERE kind = 'reserve'), id, 5 FROM ledger_account WHERE kind = 'line'`, "55000"},
		{`INSERT INTO ledger_hold_event (journal_id, hold_id, kind, amount)
		  SELECT (SELECT id FROM ledger_journal WHERE kind = 'allocate'), id, 'release', 5 FROM ledger_hold`, "55000"},
		{`INSERT INTO ledger_journal (tenant, key, fingerprint, kind, campaign_id) SELECT 'operator', 'k', '', 'allocate', id FROM campaign`, "23514"},
		{`WITH j AS (INSERT INTO ledger_journal (tenant, key, fingerprint, kind, campaign_id)
		             SELECT 'operator', 'k', '', 'reserve', id FROM campaign RETURNING id)
		  SELECT id FROM j`, ""}, // sound by itself; L9 finds that its event is missing
		{`UPDATE ledger_account SET posted = held - 1 WHERE kind = 'line'`, "23514"},
		{`UPDATE ledger_account SET held = -1 WHERE kind = 'line'`, "23514"},
		{`UPDATE ledger_hold SET captured = amount + 1`, "23514"},
	} {
		_, err := l.pool.Exec(ctx, c.sql)
		var pg *pgconn.PgError
		if c.state == "" {
			require.NoError(t, err, c.sql)
			continue
		}
		require.ErrorAs(t, err, &pg, c.sql)
		require.Equal(t, c.state, pg.Code, c.sql)
	}
	found, err := l.Check(ctx)
	require.NoError(t, err)
	require.Len(t, found, 1, "%v", found)
	require.Equal(t, "L9", found[0].Invariant)
}

// Many writers at the limit: exactly as much is reserved and captured as there is,
// and a request that arrives twice at once counts once.
func TestConcurrentWriters(t *testing.T) {
	const (
		writers  = 8
		captures = 40 // each by each writer
		unit     = 7
		budget   = writers*captures*unit - 1 // one minor unit short of everybody's wish
	)
	l, ctx := open(t), context.Background()
	id := newCampaign(t, l, "operator/north")
	_, err := l.Allocate(ctx, "a", id, "calls", cny(budget))
	require.NoError(t, err)

	var reserved, refused, captured, replayed, wrong atomic.Int64
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range captures {
				key := fmt.Sprintf("%d/%d", w, i)
				switch _, err := l.Reserve(ctx, "r"+key, id, "calls", cny(unit)); campaign.CodeOf(err) {
				case "":
					reserved.Add(1)
				case campaign.CodeBudgetInsufficient:
					refused.Add(1)
					continue
				default:
					wrong.Add(1)
					t.Log(err)
				}
				var twice sync.WaitGroup
				for range 2 {
					twice.Go(func() {
						entry, err := l.Capture(ctx, "c"+key, id, "calls", cny(unit))
						switch {
						case err != nil:
							wrong.Add(1)
							t.Log(err)
						case entry.Replayed:
							replayed.Add(1)
						default:
							captured.Add(1)
						}
					})
				}
				twice.Wait()
			}
		})
	}
	all.Wait()
	require.Zero(t, wrong.Load())
	require.EqualValues(t, budget/unit, reserved.Load())
	require.EqualValues(t, 1, refused.Load())
	require.EqualValues(t, budget/unit, captured.Load())
	require.EqualValues(t, budget/unit, replayed.Load())
	balances, err := l.Balances(ctx, id)
	require.NoError(t, err)
	require.Equal(t, []LineBalance{{Line: "calls", Currency: "CNY", Allocated: budget, Captured: budget / unit * unit, Available: budget % unit}}, balances)
	requireSound(t, l)
}

// Campaigns of one tenant share its source account, and the lines of one campaign
// are asked for in any order; nobody may end up waiting in a circle.
func TestConcurrentReservationsDoNotDeadlock(t *testing.T) {
	l, ctx := open(t), context.Background()
	ids := []string{newCampaign(t, l, "operator/north"), newCampaign(t, l, "operator/south")}
	var added atomic.Int64
	var faults []error
	var mu sync.Mutex
	var all sync.WaitGroup
	fail := func(err error) {
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			faults = append(faults, err)
		}
	}
	for w := range 8 {
		all.Go(func() {
			for i := range 20 {
				lines := []Ceiling{{"a", int64(i + 1)}, {"b", int64(i + 1)}, {"c", int64(i + 1)}}
				lines[0], lines[w%3] = lines[w%3], lines[0]
				n, err := l.ReserveAll(ctx, ids[w%2], "CNY", lines)
				fail(err)
				added.Add(n)
				_, err = l.Allocate(ctx, fmt.Sprintf("%d/%d", w, i), ids[w/2%2], string(rune('c'-w%3)), cny(1))
				fail(err)
			}
		})
	}
	all.Wait()
	require.NoError(t, errors.Join(faults...))
	require.EqualValues(t, 2*3*20, added.Load())
	requireSound(t, l)
}

func BenchmarkCapture(b *testing.B) {
	l, ctx := open(b), context.Background()
	id := newCampaign(b, l, "operator/north")
	_, err := l.ReserveAll(ctx, id, "CNY", []Ceiling{{"calls", 1_000_000_000_000}})
	require.NoError(b, err)
	for i := 0; b.Loop(); i++ {
		if _, err := l.Capture(ctx, fmt.Sprint(i), id, "calls", cny(2000)); err != nil {
			b.Fatal(err)
		}
	}
}
