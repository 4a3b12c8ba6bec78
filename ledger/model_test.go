package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/campaign"
)

// scene is a programme and a pool with a campaign of two lines: calls, paid by the
// campaign, and gift, which is credit of the pool.
type scene struct{ programme, pool, campaign string }

func newScene(t failer, l *Ledger) scene {
	ctx := context.Background()
	s := scene{programme: uuid.NewString(), pool: uuid.NewString(), campaign: newCampaign(t, l, "operator/north")}
	require.NoError(t, l.OpenProgramme(ctx, "operator", s.programme, "CNY"))
	require.NoError(t, l.OpenPool(ctx, "operator", s.pool, "CNY"))
	require.NoError(t, l.OpenCampaign(ctx, s.campaign, s.programme, "CNY"))
	require.NoError(t, l.OpenLine(ctx, s.campaign, "calls", campaign.CategoryContact, ""))
	require.NoError(t, l.OpenLine(ctx, s.campaign, "gift", campaign.CategoryPrepaid, s.pool))
	return s
}

// places are the names of the accounts that can be allocated to, in the model.
var places = []string{"programme", "credit_pool", "campaign", "calls", "gift"}

var above = map[string]string{"programme": "source", "credit_pool": "source", "campaign": "programme", "calls": "campaign", "gift": "credit_pool"}

var payee = map[string]string{"calls": "channel_payable calls", "gift": "credit_outstanding gift"}

func (s scene) account(place string) Account {
	switch place {
	case "programme":
		return Account{Kind: KindProgramme, Owner: s.programme}
	case "credit_pool":
		return Account{Kind: KindPool, Owner: s.pool}
	case "campaign":
		return Account{Kind: KindCampaign, Owner: s.campaign}
	}
	return Line(s.campaign, place)
}

// request is one call of the ledger.
type request struct {
	kind, place string
	amount      int64
	journal     int64 // to reverse
}

// kinds are the calls, some of them more often than others.
var kinds = []string{
	"allocate", "reserve", "capture", "credit_used", "release", "return", "reverse", "draw", "expire", "credit_expired", "credit_clawed_back",
	"allocate", "reserve", "capture", "reserve", "capture", "reserve", "capture", "reverse", "close", "close all", "finish",
}

func drawRequest(t *rapid.T, journals []int64) request {
	r := request{
		kind:   kinds[rapid.IntRange(0, len(kinds)-1).Draw(t, "kind")],
		place:  rapid.SampledFrom(places[3:]).Draw(t, "line"),
		amount: rapid.Int64Range(1, 100).Draw(t, "amount"),
	}
	switch r.kind {
	case "allocate":
		r.place = rapid.SampledFrom(places).Draw(t, "place")
	case "return":
		r.place = rapid.SampledFrom(places).Draw(t, "place")
	case "close":
		r.amount = 0
	case "reverse":
		r.place, r.amount = "", 0
		if len(journals) > 0 {
			r.journal = rapid.SampledFrom(journals).Draw(t, "journal")
		}
	case "finish", "close all":
		r.place, r.amount = "", 0
	}
	return r
}

func (r request) call(ctx context.Context, l *Ledger, key string, s scene) (Entry, error) {
	switch r.kind {
	case "allocate":
		return l.Allocate(ctx, key, s.account(r.place), cny(r.amount))
	case "return":
		return l.Return(ctx, key, s.account(r.place), cny(r.amount))
	case "reserve":
		return l.Reserve(ctx, key, s.campaign, r.place, cny(r.amount))
	case "capture":
		return l.Capture(ctx, key, s.campaign, r.place, cny(r.amount))
	case "release":
		return l.Release(ctx, key, s.campaign, r.place, cny(r.amount))
	case "expire":
		return l.Expire(ctx, key, s.campaign, r.place, cny(r.amount))
	case "close":
		return l.Close(ctx, key, s.campaign, r.place, "CNY")
	case "draw":
		return l.DrawContingency(ctx, key, s.campaign, r.place, cny(r.amount))
	case "reverse":
		return l.Reverse(ctx, key, r.journal)
	case "finish":
		_, err := l.Finish(ctx, s.campaign)
		return Entry{}, err
	case "close all":
		return Entry{}, l.CloseAll(ctx, s.campaign)
	}
	return l.EndCredit(ctx, key, s.campaign, r.place, Kind(r.kind), cny(r.amount))
}

// modelAccount is what an account should be.
type modelAccount struct{ Posted, Held, Reserved, Captured, Released, Returned int64 }

type modelJournal struct {
	kind, from, to string
	amount         int64
	reversed       bool
}

// model is a few lines of arithmetic that say what the ledger should do.
type model struct {
	accounts map[string]*modelAccount
	open     map[string]bool // lines with an open hold
	journals map[int64]*modelJournal
}

func newModel() *model {
	m := &model{accounts: map[string]*modelAccount{}, open: map[string]bool{}, journals: map[int64]*modelJournal{}}
	for _, name := range append([]string{"source", "channel_payable calls", "credit_outstanding gift", "credit_used gift", "credit_expired gift", "credit_clawed_back gift"}, places...) {
		m.accounts[name] = &modelAccount{}
	}
	return m
}

func (m *model) available(name string) int64 {
	if name == "source" {
		return 1 << 60
	}
	return m.accounts[name].Posted - m.accounts[name].Held
}

func (m *model) move(from, to string, amount int64) {
	m.accounts[from].Posted -= amount
	m.accounts[to].Posted += amount
}

// apply says how a call must end and makes the model follow. kept is what the journal
// then holds that can be reversed, if anything.
func (m *model) apply(r request) (code campaign.Code, kept *modelJournal) {
	line := m.accounts[r.place]
	switch r.kind {
	case "allocate", "draw":
		if r.kind == "draw" && r.place == "gift" {
			return campaign.CodeStateConflict, nil
		}
		if m.available(above[r.place]) < r.amount {
			return campaign.CodeBudgetInsufficient, nil
		}
		m.move(above[r.place], r.place, r.amount)
		if r.kind == "draw" {
			line.Held, line.Reserved, m.open[r.place] = line.Held+r.amount, line.Reserved+r.amount, true
		}
		return "", &modelJournal{kind: "allocate", from: above[r.place], to: r.place, amount: r.amount}
	case "return":
		if m.available(r.place) < r.amount {
			return campaign.CodeBudgetInsufficient, nil
		}
		m.move(r.place, above[r.place], r.amount)
		line.Returned += r.amount
		return "", &modelJournal{kind: "return", from: r.place, to: above[r.place], amount: r.amount}
	case "reserve":
		if m.available(r.place) < r.amount {
			return campaign.CodeBudgetInsufficient, nil
		}
		line.Held, line.Reserved, m.open[r.place] = line.Held+r.amount, line.Reserved+r.amount, true
		return "", nil
	case "capture", "release", "expire", "close":
		switch {
		case line.Reserved == 0:
			return campaign.CodeNotFound, nil
		case !m.open[r.place]:
			return campaign.CodeHoldClosed, nil
		case line.Held < r.amount:
			return campaign.CodeHoldExceeded, nil
		}
		if r.kind == "close" {
			r.amount, m.open[r.place] = line.Held, false
		}
		line.Held -= r.amount
		if r.kind == "capture" {
			line.Captured += r.amount
			m.move(r.place, payee[r.place], r.amount)
			return "", &modelJournal{kind: "capture", from: r.place, to: payee[r.place], amount: r.amount}
		}
		line.Released += r.amount
		return "", nil
	case "reverse":
		return m.reverse(r.journal), nil
	case "close all":
		for _, name := range places[3:] {
			a := m.accounts[name]
			a.Released, a.Held, m.open[name] = a.Released+a.Held, 0, false
		}
		return "", nil
	case "finish":
		for _, name := range []string{"calls", "gift", "campaign"} {
			free := m.available(name)
			m.move(name, above[name], free)
			m.accounts[name].Returned += free
		}
		return "", nil
	}
	if r.place != "gift" {
		return campaign.CodeNotFound, nil
	}
	if m.available("credit_outstanding gift") < r.amount {
		return campaign.CodeBudgetInsufficient, nil
	}
	m.move("credit_outstanding gift", r.kind+" gift", r.amount)
	return "", &modelJournal{kind: r.kind, from: "credit_outstanding gift", to: r.kind + " gift", amount: r.amount}
}

func (m *model) reverse(journal int64) campaign.Code {
	j := m.journals[journal]
	switch {
	case j == nil:
		return campaign.CodeNotFound
	case j.reversed:
		return campaign.CodeAlreadyReversed
	case m.available(j.to) < j.amount:
		return campaign.CodeBudgetInsufficient
	}
	m.move(j.to, j.from, j.amount)
	j.reversed = true
	switch a := m.accounts[j.from]; j.kind {
	case "capture":
		a.Captured, a.Released = a.Captured-j.amount, a.Released+j.amount
	case "return":
		a.Returned -= j.amount
	}
	return ""
}

// read returns the scene's accounts as they are in the database.
func (s scene) read(t failer, l *Ledger) map[string]modelAccount {
	rows, err := l.pool.Query(context.Background(), `
		SELECT CASE WHEN line = '' THEN kind WHEN kind = 'line' THEN line ELSE kind || ' ' || line END, posted, held, reserved, captured, released, returned
		FROM ledger_account WHERE owner IN ($1, $2, $3)`, s.programme, s.pool, s.campaign)
	require.NoError(t, err)
	defer rows.Close()
	found := map[string]modelAccount{}
	for rows.Next() {
		var name string
		var a modelAccount
		require.NoError(t, rows.Scan(&name, &a.Posted, &a.Held, &a.Reserved, &a.Captured, &a.Released, &a.Returned))
		found[name] = a
	}
	require.NoError(t, rows.Err())
	return found
}

// Any order of calls, with repetitions and reused keys among them, leaves the ledger
// where a few lines of arithmetic say.
func TestLedgerFollowsItsModel(t *testing.T) {
	l, ctx := open(t), context.Background()
	ends := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		s, m := newScene(rt, l), newModel()
		done := map[string]request{}
		var keys []string
		var journals []int64
		for i, place := range places {
			r := request{kind: "allocate", place: place, amount: []int64{1000, 800, 600, 400, 400}[i]}
			_, _ = m.apply(r)
			_, err := r.call(ctx, l, s.campaign+place, s)
			require.NoError(rt, err)
		}
		for i := range rapid.IntRange(1, 60).Draw(rt, "steps") {
			r := drawRequest(rt, journals)
			key, known := fmt.Sprintf("%s/%d", s.campaign, i), false
			if len(keys) > 0 && rapid.IntRange(0, 5).Draw(rt, "old key") == 0 && r.kind != "finish" && r.kind != "close all" {
				key, known = rapid.SampledFrom(keys).Draw(rt, "key"), true
				if rapid.Bool().Draw(rt, "same request") {
					r = done[key]
				}
			}
			entry, err := r.call(ctx, l, key, s)
			code := campaign.CodeOf(err)
			switch {
			case known && r == done[key]:
				require.NoError(rt, err)
				require.True(rt, entry.Replayed)
				code = "replayed"
			case known:
				require.Contains(rt, []campaign.Code{campaign.CodeKeyReused, campaign.CodeNotFound, campaign.CodeStateConflict, campaign.CodeAlreadyReversed}, code, "%+v: %v", r, err)
			default:
				want, kept := m.apply(r)
				require.Equal(rt, want, code, "%+v: %v", r, err)
				if want != "" || r.kind == "finish" || r.kind == "close all" {
					break
				}
				require.False(rt, entry.Replayed)
				done[key] = r
				keys = append(keys, key)
				if kept != nil {
					m.journals[entry.Journal] = kept
					journals = append(journals, entry.Journal)
				}
			}
			ends[r.kind+" "+string(code)]++
			want := map[string]modelAccount{}
			for name, a := range m.accounts {
				if name != "source" {
					want[name] = *a
				}
			}
			require.Equal(rt, want, s.read(rt, l), "after %+v", r)
		}
	})
	for _, kind := range []string{"allocate", "return", "reserve", "capture", "release", "expire", "close", "draw", "credit_used", "reverse", "finish"} {
		require.Positive(t, ends[kind+" "], "%s never succeeded: %v", kind, ends)
	}
	t.Log(ends)
	requireSound(t, l)
}

// The same calls, at the same time and each of them twice, keep the ledger sound, and
// each is done once or refused twice.
func TestConcurrentCallsKeepTheLedgerSound(t *testing.T) {
	const writers = 6
	l, ctx := open(t), context.Background()
	rapid.Check(t, func(rt *rapid.T) {
		s := newScene(rt, l)
		for i, place := range places {
			_, err := l.Allocate(ctx, fmt.Sprint(s.campaign, "/", place), s.account(place), cny([]int64{4000, 2000, 2000, 1000, 1000}[i]))
			require.NoError(rt, err)
		}
		var journals []int64
		for range rapid.IntRange(1, 5).Draw(rt, "captures") {
			_, err := l.Reserve(ctx, uuid.NewString(), s.campaign, "gift", cny(50))
			require.NoError(rt, err)
			entry, err := l.Capture(ctx, uuid.NewString(), s.campaign, "gift", cny(50))
			require.NoError(rt, err)
			journals = append(journals, entry.Journal)
		}
		requests := make([]request, rapid.IntRange(1, 30).Draw(rt, "calls"))
		for i := range requests {
			requests[i] = drawRequest(rt, journals)
		}
		var mu sync.Mutex
		var faults []error
		fresh := make([]int, len(requests))
		var all sync.WaitGroup
		for w := range writers {
			all.Go(func() {
				for i, r := range requests {
					if i%(writers/2) != w%(writers/2) {
						continue
					}
					entry, err := r.call(ctx, l, fmt.Sprintf("%s/%d", s.campaign, i), s)
					mu.Lock()
					switch {
					case campaign.CodeOf(err) == campaign.CodeInternal:
						faults = append(faults, err)
					case err == nil && entry.Journal != 0 && !entry.Replayed:
						fresh[i]++
					}
					mu.Unlock()
				}
			})
		}
		all.Wait()
		require.NoError(rt, errors.Join(faults...))
		for i, n := range fresh {
			require.LessOrEqual(rt, n, 1, "%+v", requests[i])
		}
	})
	requireSound(t, l)
}
