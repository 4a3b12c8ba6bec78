// Package market simulates how customers answer to a campaign, with a ground
// truth that is known: what share converts without being contacted, and what
// each channel adds. An evaluation of the simulated campaign can be checked
// against that truth.
//
// The model is additive on probability. A customer of tier t who was contacted
// by the set S of channels converts with probability
//
//	p(t, S) = base(t) + Σ effect(c, t) over the channels c in S
//
// where effects are not negative and a truth is valid only if p(t, all
// channels) is at most 1, so that nothing is ever clipped and effects add up
// exactly. How often a channel was used does not matter.
//
// A customer's answers under every possible treatment are coupled by one
// uniform draw u: the answer is yes if and only if u < p(t, S). So a customer
// who would have converted anyway still does when contacted, further contacts
// never undo a conversion, and the customers whose conversion a campaign
// caused can be named one by one.
package market

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"time"
)

// Market answers for every customer in one campaign. It holds no state: the
// answer is a function of the truth, the campaign's salt, the customer's id,
// the tier and the channels. It may be used by many goroutines at once.
type Market struct {
	truth  Truth
	prefix string
}

// New returns the market of one campaign. Campaigns with different salts get
// independent answers from the same customer.
func New(truth Truth, salt string) (*Market, error) {
	if errs := truth.check(nil); len(errs) > 0 {
		return nil, errs
	}
	return &Market{
		truth: truth.clone(),
		// The leading words keep these draws independent of any other that
		// hashes a salt and a customer's id, the control group's above all:
		// with a shared draw the control group would be those who respond.
		prefix: "muster market\x00" + strconv.FormatUint(truth.Seed, 10) + "\x00" + salt + "\x00",
	}, nil
}

// Answer is what a customer does.
type Answer struct {
	Responds bool
	// Incremental says that the customer would not have responded without
	// contact: ground truth that no measurement of one campaign could see.
	Incremental bool
	// After is the time from the customer's first contact (for customers who
	// were not contacted: from the start of the campaign) to the response. It
	// does not depend on the channels, and is 0 for who does not respond.
	After time.Duration
}

// Responds returns the answer of a customer who was contacted by the given
// channels, in any order and number. An unknown tier or channel is an error.
func (m *Market) Responds(customerID, tier string, contactedBy []string) (Answer, error) {
	base, p, err := m.truth.probability(tier, contactedBy)
	if err != nil {
		return Answer{}, err
	}
	return m.answer(customerID, base, p), nil
}

func (m *Market) answer(customerID string, base, p float64) Answer {
	digest := sha256.Sum256([]byte(m.prefix + customerID))
	u := unit(digest[:8])
	if u >= p {
		return Answer{}
	}
	return Answer{Responds: true, Incremental: u >= base, After: m.truth.ResponseDelay.at(unit(digest[8:16]))}
}

// unit returns the first 53 bits of b as a number in [0, 1), exactly.
func unit(b []byte) float64 {
	return float64(binary.BigEndian.Uint64(b)>>11) / (1 << 53)
}

// Treated is one customer of an assignment.
type Treated struct {
	CustomerID  string
	Tier        string
	ContactedBy []string // empty for who was not contacted
}

// Effect is the truth about an assignment of customers to channels.
type Effect struct {
	Customers int
	// Expected is the mean over all possible draws: what an unbiased estimate
	// of many such campaigns centres on.
	ExpectedResponses   float64
	ExpectedIncremental float64
	// Realised is what happened in this draw, and how much of it would not
	// have happened without contact.
	RealisedResponses   int
	RealisedIncremental int
}

// TrueEffect returns the effect that the contacts of an assignment had,
// against contacting none of these customers.
func (m *Market) TrueEffect(assignment iter.Seq[Treated]) (Effect, error) {
	var e Effect
	for t := range assignment {
		base, p, err := m.truth.probability(t.Tier, t.ContactedBy)
		if err != nil {
			return Effect{}, fmt.Errorf("customer %s: %w", t.CustomerID, err)
		}
		a := m.answer(t.CustomerID, base, p)
		e.Customers++
		e.ExpectedResponses += p
		e.ExpectedIncremental += p - base
		if a.Responds {
			e.RealisedResponses++
		}
		if a.Incremental {
			e.RealisedIncremental++
		}
	}
	return e, nil
}

// probability returns p(tier, nothing) and p(tier, contactedBy). The channels
// are added up in the order of their names: sums of floating-point numbers
// depend on the order, answers must not.
func (t Truth) probability(tier string, contactedBy []string) (base, p float64, err error) {
	base, ok := t.BaseRate[tier]
	if !ok {
		return 0, 0, fmt.Errorf("market: tier %q is not in the truth", tier)
	}
	channels := contactedBy
	if len(channels) > 1 {
		channels = slices.Compact(slices.Sorted(slices.Values(channels)))
	}
	p = base
	for _, c := range channels {
		effect, ok := t.Effect[c]
		if !ok {
			return 0, 0, fmt.Errorf("market: channel %q is not in the truth", c)
		}
		p += effect[tier]
	}
	return base, p, nil
}

// at returns the delay at rank v of an exponential distribution that is cut
// off at Max: Mean is its mean before the cut.
func (d Delay) at(v float64) time.Duration {
	if d.Mean == 0 {
		return 0
	}
	mean, most := float64(d.Mean), float64(d.Max)
	x := -mean * math.Log1p(v*math.Expm1(-most/mean))
	return time.Duration(min(x, most)).Truncate(time.Millisecond)
}
