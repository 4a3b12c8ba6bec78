package ledger

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/campaign"
)

// modelLine is what a budget line should be.
type modelLine struct {
	opened                        bool // something was allocated
	allocated, captured, released int64
	rest                          int64 // held
	everHeld, holdOpen            bool
}

func (m *modelLine) available() int64 { return m.allocated - m.captured - m.rest }

// request is one call of the ledger.
type request struct {
	kind, line string
	amount     int64
}

// apply says how the call must end and makes the model follow.
func (m *modelLine) apply(r request) campaign.Code {
	if r.kind == "allocate" {
		m.opened = true
		m.allocated += r.amount
		return ""
	}
	if !m.opened {
		return campaign.CodeNotFound
	}
	if r.kind == "reserve" {
		if r.amount > m.available() {
			return campaign.CodeBudgetInsufficient
		}
		m.rest += r.amount
		m.everHeld, m.holdOpen = true, true
		return ""
	}
	switch {
	case !m.everHeld:
		return campaign.CodeNotFound
	case !m.holdOpen:
		return campaign.CodeHoldClosed
	case r.kind != "close" && r.amount > m.rest:
		return campaign.CodeHoldExceeded
	}
	switch r.kind {
	case "capture":
		m.rest -= r.amount
		m.captured += r.amount
	case "release":
		m.rest -= r.amount
		m.released += r.amount
	case "close":
		m.released += m.rest
		m.rest, m.holdOpen = 0, false
	}
	return ""
}

func (r request) call(ctx context.Context, l *Ledger, key, id string) (Entry, error) {
	switch r.kind {
	case "allocate":
		return l.Allocate(ctx, key, id, r.line, cny(r.amount))
	case "reserve":
		return l.Reserve(ctx, key, id, r.line, cny(r.amount))
	case "capture":
		return l.Capture(ctx, key, id, r.line, cny(r.amount))
	case "release":
		return l.Release(ctx, key, id, r.line, cny(r.amount))
	}
	return l.Close(ctx, key, id, r.line, "CNY")
}

// Any order of calls, with repetitions and reused keys among them, leaves the ledger
// where a few lines of arithmetic say.
func TestLedgerFollowsItsModel(t *testing.T) {
	l, ctx := open(t), context.Background()
	lines := []string{"calls", "sms"}
	steps := 0
	rapid.Check(t, func(rt *rapid.T) {
		id := newCampaign(rt, l, "operator/north")
		model := map[string]*modelLine{"calls": {}, "sms": {}}
		done := map[string]request{}
		var keys []string
		for i := range rapid.IntRange(1, 40).Draw(rt, "steps") {
			steps++
			r := request{
				kind:   rapid.SampledFrom([]string{"allocate", "allocate", "reserve", "reserve", "capture", "capture", "capture", "release", "close"}).Draw(rt, "kind"),
				line:   rapid.SampledFrom(lines).Draw(rt, "line"),
				amount: rapid.Int64Range(1, 100).Draw(rt, "amount"),
			}
			if r.kind == "close" {
				r.amount = 0
			}
			key := fmt.Sprintf("%s/%d", id, i)
			known := false
			if len(keys) > 0 && rapid.IntRange(0, 3).Draw(rt, "old key") == 0 {
				key, known = rapid.SampledFrom(keys).Draw(rt, "key"), true
				if rapid.Bool().Draw(rt, "same request") {
					r = done[key]
				}
			}
			entry, err := r.call(ctx, l, key, id)
			switch {
			case known && r == done[key]:
				require.NoError(rt, err)
				require.True(rt, entry.Replayed)
			case known && model[r.line].opened:
				require.Equal(rt, campaign.CodeKeyReused, campaign.CodeOf(err), "%+v", r)
			case known && r.kind != "allocate":
				require.Equal(rt, campaign.CodeNotFound, campaign.CodeOf(err), "%+v", r)
			case known:
				require.Equal(rt, campaign.CodeKeyReused, campaign.CodeOf(err), "%+v", r)
			default:
				want := model[r.line].apply(r)
				require.Equal(rt, want, campaign.CodeOf(err), "%+v: %v", r, err)
				if want == "" {
					require.False(rt, entry.Replayed)
					done[key] = r
					keys = append(keys, key)
				}
			}
			got, err := l.Balances(ctx, id)
			require.NoError(rt, err)
			var want []LineBalance
			for _, line := range lines {
				if m := model[line]; m.opened {
					want = append(want, LineBalance{
						Line: line, Currency: "CNY", Allocated: m.allocated, Held: m.rest,
						Captured: m.captured, Released: m.released, Available: m.available(),
					})
				}
			}
			require.True(rt, slices.Equal(want, got), "after %+v: want %+v, got %+v", r, want, got)
		}
	})
	t.Logf("%d steps", steps)
	requireSound(t, l)
}
