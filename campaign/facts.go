package campaign

import "slices"

// Facts are what decides who must sign for a plan.
type Facts struct {
	Amount   int64     `json:"amount"` // minor units that the plan may spend
	Currency string    `json:"currency"`
	Credit   int64     `json:"credit,omitempty"` // of Amount, prepaid credit
	Audience int64     `json:"audience"`         // most customers that it may reach
	Type     Type      `json:"type"`
	Channels []Channel `json:"channels"`
	Unit     OrgUnit   `json:"unit"`
	// Owner is the user who owns the programme that the plan is inside of; empty outside.
	Owner    string     `json:"owner,omitempty"`
	Together []Together `json:"together,omitempty"`
	// Alone means that the campaigns of Together are told and not counted: nobody could sign
	// for the whole, and the campaign is simulated.
	Alone bool `json:"alone,omitempty"`
}

// Together is another campaign whose money counts with a plan's when a route is chosen,
// so that one plan cut in pieces needs the signatures of the whole.
type Together struct {
	CampaignID string     `json:"campaign_id"`
	Number     int64      `json:"number"`
	Amount     int64      `json:"amount"` // minor units
	Why        WhyCounted `json:"why"`
}

// WhyCounted says what joins two campaigns.
type WhyCounted string

// The reasons.
const (
	SameRequester WhyCounted = "same_requester"
	SameAudience  WhyCounted = "same_audience"
)

// FactsOf returns what a plan itself says; Audience is the limit it sets, 0 for none.
// It fails with CodeAmountOutOfRange when the budget overflows.
func FactsOf(p *Plan) (Facts, error) {
	f := Facts{Currency: p.Currency, Audience: p.Audience.MaximumTargets, Type: p.Type, Unit: p.Unit}
	var err error
	if f.Amount, err = p.BudgetTotal(); err != nil {
		return f, err
	}
	for _, l := range p.Budget {
		if l.Category == CategoryPrepaid {
			f.Credit += l.Amount // no more than the total
		}
	}
	for _, c := range p.Channels {
		f.Channels = append(f.Channels, c.Channel)
	}
	slices.Sort(f.Channels)
	return f, nil
}

// Counted is the amount that chooses the route: the plan's own and that of the campaigns
// counted together with it, or CodeAmountOutOfRange.
func (f Facts) Counted() (int64, error) {
	sum := f.Amount
	if f.Alone {
		return sum, nil
	}
	for _, t := range f.Together {
		var err error
		if sum, err = AddMinor(sum, t.Amount); err != nil {
			return 0, err
		}
	}
	return sum, nil
}
