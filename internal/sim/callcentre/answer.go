package callcentre

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"sync"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/dataset"
	"github.com/musterhq/muster/internal/sim/market"
)

// Call is how one attempt to call a customer went.
type Call struct {
	// Outcome is ordered, declined or no_answer.
	Outcome campaign.OutcomeKind
	Seconds int // of talk; 0 when nobody answered
}

// Answerer says how the attempt that a task asks for goes. It is a function of the task
// alone, so that a repeated attempt goes as it went before. False means that it knows
// nothing of the customer.
type Answerer func(client.Task) (Call, bool, error)

// Recorded answers with what a bank's call centre recorded: nobody answers until the
// recorded number of attempts, and then the call goes as it went.
func Recorded(bank *dataset.Bank) Answerer {
	return func(t client.Task) (Call, bool, error) {
		r, known := bank.Recorded(t.Customer.ExternalID)
		if !known {
			return Call{}, false, nil
		}
		c := r.Attempt(t.Attempt)
		return Call{Outcome: campaign.OutcomeKind(c.Outcome), Seconds: c.DurationSeconds}, true, nil
	}
}

// Market answers for any population by a known ground truth: each attempt is picked up
// with probability pickUp, and who picks up orders if the market says so. The campaign's
// id is the market's salt, as it is for everything else that asks the same market.
func Market(truth market.Truth, pickUp float64) (Answerer, error) {
	if _, err := market.New(truth, ""); err != nil {
		return nil, err
	}
	if !(pickUp >= 0 && pickUp <= 1) {
		return nil, fmt.Errorf("callcentre: pick-up rate %v is not between 0 and 1", pickUp)
	}
	var markets sync.Map // campaign id → *market.Market
	return func(t client.Task) (Call, bool, error) {
		if draw(truth.Seed, "pick up", t.CampaignID, t.Customer.ID, t.Attempt) >= pickUp {
			return Call{Outcome: campaign.OutcomeNoAnswer}, true, nil
		}
		m, known := markets.Load(t.CampaignID)
		if !known {
			made, err := market.New(truth, t.CampaignID)
			if err != nil {
				return Call{}, false, err
			}
			m, _ = markets.LoadOrStore(t.CampaignID, made)
		}
		a, err := m.(*market.Market).Responds(t.Customer.ID, string(t.Tier), []string{string(campaign.ChannelCall)})
		if err != nil {
			return Call{}, false, err
		}
		call := Call{Outcome: campaign.OutcomeDeclined, Seconds: 20 + int(100*draw(truth.Seed, "seconds", t.CampaignID, t.Customer.ID, t.Attempt))}
		if a.Responds {
			call.Outcome = campaign.OutcomeOrdered
			call.Seconds *= 3
		}
		return call, true, nil
	}, nil
}

// FirstOf asks one after another until one knows the customer.
func FirstOf(answerers ...Answerer) Answerer {
	return func(t client.Task) (Call, bool, error) {
		for _, answer := range answerers {
			if c, known, err := answer(t); known || err != nil {
				return c, known, err
			}
		}
		return Call{}, false, nil
	}
}

// draw returns a number in [0, 1) that depends on nothing but its arguments.
func draw(seed uint64, purpose, campaignID, customerID string, attempt int) float64 {
	h := fnv.New64a()
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, seed))
	_, _ = fmt.Fprintf(h, "%s|%s|%s|%d", purpose, campaignID, customerID, attempt)
	// FNV leaves the high bits of similar inputs alike; this mixes them (the finalizer
	// of SplitMix64).
	x := h.Sum64()
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	x ^= x >> 31
	return float64(x>>11) / (1 << 53)
}
