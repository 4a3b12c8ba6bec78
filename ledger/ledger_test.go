package ledger

import (
	"context"
	"math"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/pgtest"
	"github.com/musterhq/muster/store"
)

// open returns the ledger of a new database with the schema in place.
func open(t testing.TB) *Ledger {
	t.Helper()
	url := pgtest.NewDatabase(t, pgtest.WithTemplate("muster", func(ctx context.Context, url string) error {
		s, err := store.Open(ctx, url, store.AsOwner())
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

// fund opens a budget line of a campaign with money on it, of the campaign's account and
// so of the tenant's source.
func fund(t testing.TB, l *Ledger, id, line string, minor int64) {
	t.Helper()
	ctx := context.Background()
	require.NoError(t, l.OpenCampaign(ctx, id, "", "CNY"))
	require.NoError(t, l.OpenLine(ctx, id, line, campaign.CategoryContact, ""))
	for _, account := range []Account{{Kind: KindCampaign, Owner: id}, Line(id, line)} {
		_, err := l.Allocate(ctx, uuid.NewString(), account, cny(minor))
		require.NoError(t, err)
	}
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

	fund(t, l, id, "calls", 1000)
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
	fund(t, l, id, "calls", 1000)

	_, err := l.Capture(ctx, "k", id, "calls", cny(1))
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

	for _, step := range []func(context.Context, string, string, string, campaign.Money) (Entry, error){l.Reserve, l.Capture, l.Release, l.Expire, l.DrawContingency,
		func(ctx context.Context, key, id, line string, money campaign.Money) (Entry, error) {
			return l.Allocate(ctx, key, Line(id, line), money)
		},
		func(ctx context.Context, key, id, line string, money campaign.Money) (Entry, error) {
			return l.Return(ctx, key, Line(id, line), money)
		},
		func(ctx context.Context, key, id, line string, money campaign.Money) (Entry, error) {
			return l.EndCredit(ctx, key, id, line, KindUsed, money)
		},
	} {
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
	for _, key := range []string{"", "~mine", strings.Repeat("k", 201)} {
		_, err = l.Reserve(ctx, key, id, "calls", cny(1))
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
	for _, c := range []string{id, other, foreign} {
		fund(t, l, c, "calls", 5000)
		fund(t, l, c, "sms", 5000)
	}
	first, err := l.Reserve(ctx, "k", id, "calls", cny(1000))
	require.NoError(t, err)
	require.False(t, first.Replayed)

	again, err := l.By(uuid.NewString(), "once more").Reserve(ctx, "k", id, "calls", cny(1000))
	require.NoError(t, err)
	require.Equal(t, Entry{Journal: first.Journal, Replayed: true}, again)

	for name, call := range map[string]func() (Entry, error){
		"amount":   func() (Entry, error) { return l.Reserve(ctx, "k", id, "calls", cny(1001)) },
		"line":     func() (Entry, error) { return l.Reserve(ctx, "k", id, "sms", cny(1000)) },
		"campaign": func() (Entry, error) { return l.Reserve(ctx, "k", other, "calls", cny(1000)) },
		"step":     func() (Entry, error) { return l.Capture(ctx, "k", id, "calls", cny(1000)) },
		"allocate": func() (Entry, error) { return l.Allocate(ctx, "k", Line(id, "calls"), cny(1000)) },
		"return":   func() (Entry, error) { return l.Return(ctx, "k", Line(id, "calls"), cny(1000)) },
		"expire":   func() (Entry, error) { return l.Expire(ctx, "k", id, "calls", cny(1000)) },
		"close":    func() (Entry, error) { return l.CloseAccount(ctx, "k", Line(id, "calls")) },
		"draw":     func() (Entry, error) { return l.DrawContingency(ctx, "k", id, "calls", cny(1000)) },
	} {
		_, err = call()
		require.Equal(t, campaign.CodeKeyReused, requireCode(t, campaign.CodeKeyReused, err).Code, name)
	}

	own, err := l.Reserve(ctx, "k", foreign, "calls", cny(1000))
	require.NoError(t, err, "another tenant's keys are its own")
	require.False(t, own.Replayed)

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
	lines := []Ceiling{{Line: "sms", Amount: 300}, {Line: "calls", Amount: 1000}}
	added, err := l.ReserveAll(ctx, Budget{CampaignID: id, Currency: "CNY", Lines: lines})
	require.NoError(t, err)
	require.EqualValues(t, 1300, added)
	added, err = l.ReserveAll(ctx, Budget{CampaignID: id, Currency: "CNY", Lines: lines})
	require.NoError(t, err)
	require.Zero(t, added, "a repetition must reserve nothing")

	_, err = l.Capture(ctx, "c", id, "sms", cny(100))
	require.NoError(t, err)
	added, err = l.ReserveAll(ctx, Budget{CampaignID: id, Currency: "CNY", Lines: []Ceiling{{Line: "calls", Amount: 400}, {Line: "gifts", Amount: 50}, {Line: "sms", Amount: 500}}})
	require.NoError(t, err)
	require.EqualValues(t, 250, added)
	balances, err := l.Balances(ctx, id)
	require.NoError(t, err)
	require.Equal(t, []LineBalance{
		{Line: "calls", Currency: "CNY", Allocated: 1000, Held: 400, Released: 600, Returned: 600},
		{Line: "gifts", Currency: "CNY", Allocated: 50, Held: 50},
		{Line: "sms", Currency: "CNY", Allocated: 500, Held: 400, Captured: 100},
	}, balances)

	_, err = l.ReserveAll(ctx, Budget{CampaignID: id, Currency: "CNY", Lines: []Ceiling{{Line: "calls", Amount: 2000}, {Line: "zero", Amount: 0}}})
	requireCode(t, campaign.CodeAmountOutOfRange, err)
	_, err = l.ReserveAll(ctx, Budget{CampaignID: id, Currency: "EUR", Lines: []Ceiling{{Line: "calls", Amount: 2000}}})
	requireCode(t, campaign.CodeCurrencyMismatch, err)
	after, err := l.Balances(ctx, id)
	require.NoError(t, err)
	require.Equal(t, balances, after, "all lines or none")

	require.NoError(t, l.CloseAll(ctx, id))
	require.NoError(t, l.CloseAll(ctx, id))
	balances, err = l.Balances(ctx, id)
	require.NoError(t, err)
	require.Equal(t, []LineBalance{
		{Line: "calls", Currency: "CNY", Allocated: 1000, Released: 1000, Returned: 600, Available: 400},
		{Line: "gifts", Currency: "CNY", Allocated: 50, Released: 50, Available: 50},
		{Line: "sms", Currency: "CNY", Allocated: 500, Captured: 100, Released: 400, Available: 400},
	}, balances)
	added, err = l.ReserveAll(ctx, Budget{CampaignID: id, Currency: "CNY", Lines: []Ceiling{{Line: "calls", Amount: 400}, {Line: "gifts", Amount: 50}, {Line: "sms", Amount: 500}}})
	require.NoError(t, err)
	require.Zero(t, added, "a late repetition must not reserve what settlement set free")
	requireSound(t, l)
}

func TestHistoryCannotBeChanged(t *testing.T) {
	l, ctx := open(t), context.Background()
	id := newCampaign(t, l, "operator/north")
	_, err := l.ReserveAll(ctx, Budget{CampaignID: id, Currency: "CNY", Lines: []Ceiling{{Line: "calls", Amount: 1000}}})
	require.NoError(t, err)
	_, err = l.Capture(ctx, "c", id, "calls", cny(1))
	require.NoError(t, err)
	for _, c := range []struct{ sql, state string }{
		{`UPDATE ledger_journal SET key = 'other'`, "55000"},
		{`DELETE FROM ledger_journal`, "55000"},
		{`TRUNCATE ledger_journal CASCADE`, "55000"},
		{`UPDATE ledger_posting SET amount = amount + 1`, "55000"},
		{`DELETE FROM ledger_posting`, "55000"},
		{`INSERT INTO ledger_posting (journal_id, account_id, amount) SELECT id, from_id, 5 FROM ledger_journal LIMIT 1`, "55000"},
		{`DELETE FROM ledger_account`, "55000"},
		{`TRUNCATE ledger_account CASCADE`, "55000"},
		{`INSERT INTO ledger_journal (tenant, key, fingerprint, kind, from_id, amount) SELECT 'operator', 'k', '', 'capture', id, 5 FROM ledger_account WHERE kind = 'line'`, "23514"},
		{`INSERT INTO ledger_journal (tenant, key, fingerprint, kind, from_id, to_id, amount) SELECT 'operator', 'k', '', 'return', id, id, 5 FROM ledger_account WHERE kind = 'line'`, "23514"},
		{`INSERT INTO ledger_journal (tenant, key, fingerprint, kind, from_id, amount) SELECT 'operator', 'k', '', 'reserve', id, 0 FROM ledger_account WHERE kind = 'line'`, "23514"},
		{`INSERT INTO ledger_journal (tenant, key, fingerprint, kind, from_id, amount) SELECT 'operator', 'k', '', 'reserve', id, 5 FROM ledger_account WHERE kind = 'line'`, ""}, // sound by itself; L5 finds that the account knows nothing of it
		{`UPDATE ledger_account SET posted = held - 1 WHERE kind = 'line'`, "23514"},
		{`UPDATE ledger_account SET held = -1 WHERE kind = 'line'`, "23514"},
		{`UPDATE ledger_account SET captured = captured + 1 WHERE kind = 'line'`, "23514"},
		{`UPDATE ledger_account SET hold_open = false WHERE kind = 'line'`, "23514"},
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
	require.NotEmpty(t, found)
	require.Equal(t, "L5", found[0].Invariant, "%v", found)
}
