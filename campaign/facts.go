package campaign

import (
	"math"
	"slices"
)

// Facts are what decides who must sign for a plan.
type Facts struct {
	Amount   int64     `json:"amount"` // minor units that are asked for: what the plan may spend, see Base
	Currency string    `json:"currency"`
	Credit   int64     `json:"credit,omitempty"` // of Amount, prepaid credit
	Audience int64     `json:"audience"`         // most customers that it may reach
	Type     Type      `json:"type"`
	Channels []Channel `json:"channels"`
	Unit     OrgUnit   `json:"unit"`
	// Owner is the user who owns the programme that the plan is inside of; empty outside.
	Owner string `json:"owner,omitempty"`
	// Base is the revision that an amendment of nothing but money adds Added minor units to,
	// 0 for a whole plan. Amount is then what this amendment and the approved ones of the last
	// 30 days add to the campaign, so that slices do not slip under a limit, and Total is what
	// the whole plan may spend.
	Base  int   `json:"base,omitempty"`
	Added int64 `json:"added,omitempty"`
	Total int64 `json:"total,omitempty"`
	// Whole means that Total chooses the route of such an amendment, as if the whole plan were
	// new: nobody has signed yet for as much as now counts together.
	Whole    bool       `json:"whole,omitempty"`
	Together []Together `json:"together,omitempty"`
	// Uses are what the filters name, in the versions that the audience was counted with and
	// is selected with; nil in rounds from before they were kept, whose filters take what is
	// newest.
	Uses []FilterUse `json:"uses,omitzero"`
	// Alone means that the campaigns of Together are told and not counted: nobody could sign
	// for the whole, and the campaign is simulated.
	Alone bool `json:"alone,omitempty"`
}

// FilterUse is a thing of its own that a filter names, as it was when the filter was compiled.
type FilterUse struct {
	Kind    string `json:"kind"` // the function that names it: segment, in_list, campaign; or control_list
	ID      string `json:"id"`
	Name    string `json:"name"`
	Version int    `json:"version,omitempty"`
	Digest  string `json:"digest,omitempty"` // SHA-256 of a segment's text or of a list's members
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
	// NotCompared means that there were too many campaigns to compare the audiences of all:
	// what was not looked at counts.
	NotCompared WhyCounted = "not_compared"
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

// AddTo makes the facts of a plan those of an amendment that adds so many minor units to
// base, after lately were added to the campaign by others. Prepaid credit is never added
// that way.
func (f *Facts) AddTo(base int, added, lately int64) error {
	f.Base, f.Added, f.Total, f.Credit = base, added, f.Amount, 0
	var err error
	f.Amount, err = AddMinor(added, lately)
	return err
}

// countTolerance is by how many percent the number of targets may differ from what the
// signers were told, where the plan does not say: customers come and go every day.
const countTolerance = 5

// Holds returns nil when so many targets are what the signers were told, give or take
// tolerance percent of it, 0 for the usual 5; and otherwise CodeAudienceGrown or
// CodeAudienceShrunk.
func (f Facts) Holds(targets int64, tolerance float64) error {
	if tolerance == 0 {
		tolerance = countTolerance
	}
	// In basis points, which every tolerance of a valid plan is a whole number of.
	share := int64(math.Round(tolerance * 100))
	part := f.Audience/10_000*share + f.Audience%10_000*share/10_000
	told := func(code Code, more string) error {
		return Errorf(code, "%d customers would be targeted, %s than the %d that those who signed were told of; they are asked again", targets, more, f.Audience).
			With("targets", targets).With("signed", f.Audience)
	}
	switch {
	case targets > f.Audience+part:
		return told(CodeAudienceGrown, "more")
	case targets < f.Audience-part-1: // what was told and what is found may each be rounded
		return told(CodeAudienceShrunk, "fewer")
	}
	return nil
}

// Counted is the amount that chooses the route: the plan's own and that of the campaigns
// counted together with it, or CodeAmountOutOfRange.
func (f Facts) Counted() (int64, error) {
	sum := f.Amount
	if f.Whole {
		sum = f.Total
	}
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
