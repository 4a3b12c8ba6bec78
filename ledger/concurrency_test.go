package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

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
	fund(t, l, id, "calls", budget)

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

// Campaigns of one tenant share its source account, those of a programme the programme,
// and the lines of one campaign are asked for in any order; nobody may end up waiting in
// a circle, whatever else is done at the same time.
func TestConcurrentStepsDoNotDeadlock(t *testing.T) {
	const writers, rounds = 8, 15
	l, ctx := open(t), context.Background()
	programme, pool := uuid.NewString(), uuid.NewString()
	require.NoError(t, l.OpenProgramme(ctx, "operator", programme, "CNY"))
	require.NoError(t, l.OpenPool(ctx, "operator", pool, "CNY"))
	for _, fund := range []Account{{Kind: KindProgramme, Owner: programme}, {Kind: KindPool, Owner: pool}} {
		_, err := l.Allocate(ctx, uuid.NewString(), fund, cny(1_000_000))
		require.NoError(t, err)
	}
	ids := []string{newCampaign(t, l, "operator/north"), newCampaign(t, l, "operator/south")}
	var added atomic.Int64
	var faults []error
	var mu sync.Mutex
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			id := ids[w%2]
			do := func(err error) {
				switch code := campaign.CodeOf(err); code {
				case "", campaign.CodeBudgetInsufficient, campaign.CodeHoldExceeded, campaign.CodeHoldClosed, campaign.CodeAlreadyReversed:
				default:
					mu.Lock()
					defer mu.Unlock()
					faults = append(faults, err)
				}
			}
			for i := range rounds {
				key := func(what string) string { return fmt.Sprintf("%s/%d/%d", what, w/4, i) } // shared by some writers
				lines := []Ceiling{{Line: "a", Amount: int64(i + 1)}, {Line: "b", Amount: int64(i + 1)},
					{Line: "c", Amount: int64(i + 1), Category: campaign.CategoryPrepaid, Pool: pool}}
				lines[0], lines[w%3] = lines[w%3], lines[0]
				n, err := l.ReserveAll(ctx, Budget{CampaignID: id, Currency: "CNY", Programme: programme, Contingency: int64(i), Lines: lines})
				do(err)
				added.Add(n)
				line := string(rune('c' - w%3))
				entry, err := l.Allocate(ctx, key("allocate"+id+line), Line(id, line), cny(1))
				do(err)
				if err == nil {
					_, err = l.Reverse(ctx, key("reverse"+id+line), entry.Journal)
					do(err)
				}
				_, err = l.Allocate(ctx, key("programme"), Account{Kind: KindProgramme, Owner: programme}, cny(1))
				do(err)
				_, err = l.DrawContingency(ctx, key("draw"+id), id, "a", cny(1))
				do(err)
				entry, err = l.Capture(ctx, key("capture"+id+line), id, line, cny(1))
				do(err)
				if err == nil && i%3 == 0 {
					_, err = l.Reverse(ctx, key("back"+id+line), entry.Journal)
					do(err)
				}
				_, err = l.EndCredit(ctx, key("end"+id), id, "c", KindUsed, cny(1))
				do(err)
				if i%5 == 4 {
					do(l.CloseAll(ctx, id))
					_, err = l.Finish(ctx, id)
					do(err)
				}
			}
		})
	}
	all.Wait()
	require.NoError(t, errors.Join(faults...))
	// Whoever is behind lowers what others have raised, and it is reserved again.
	var asked int64
	require.NoError(t, l.pool.QueryRow(ctx, `SELECT sum(ceiling + lowered) FROM ledger_account WHERE kind = 'line' AND owner = ANY($1)`, ids).Scan(&asked))
	require.GreaterOrEqual(t, asked, int64(2*3*rounds))
	require.Equal(t, asked, added.Load())
	requireSound(t, l)
}

func BenchmarkCapture(b *testing.B) {
	l, ctx := open(b), context.Background()
	id := newCampaign(b, l, "operator/north")
	_, err := l.ReserveAll(ctx, Budget{CampaignID: id, Currency: "CNY", Lines: []Ceiling{{Line: "calls", Amount: 1_000_000_000_000}}})
	require.NoError(b, err)
	for i := 0; b.Loop(); i++ {
		if _, err := l.Capture(ctx, fmt.Sprint(i), id, "calls", cny(2000)); err != nil {
			b.Fatal(err)
		}
	}
}
