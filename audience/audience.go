// Package audience says whom a plan is for: it compiles a plan's filters over the
// attributes that customers have now.
package audience

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/targeting"
)

// Selection compiles the audience of a campaign's plan with the words of this moment. A filter
// that does not compile is CodeInvalidFilter with its field, line and column.
func Selection(words *Words, campaignID string, loaded campaign.LoadedPlan) (targeting.Selection, error) {
	plan := loaded.Plan
	catalogue, err := words.approved()
	if err != nil {
		return targeting.Selection{}, err
	}
	sel := targeting.Selection{
		CampaignID: campaignID, Snapshot: loaded.Revision, Unit: string(plan.Unit), Salt: plan.Audience.ControlSalt,
		Suppressions: []targeting.Suppression{targeting.OptedOut()},
		ControlShare: int(math.Round(plan.Audience.ControlPercent * 100)), Limit: plan.Audience.MaximumTargets, Shards: 1,
	}
	if sel.Salt == "" {
		sel.Salt = campaignID
	}
	var faults []campaign.FieldError
	compile := func(field, text string) targeting.Predicate {
		p, err := catalogue.Compile(text)
		var fault *targeting.FilterError
		if errors.As(err, &fault) {
			faults = append(faults, campaign.FieldError{
				Field: field, Code: campaign.CodeInvalidFilter, Message: fault.Error(), Line: fault.Line, Column: fault.Column,
			})
		}
		return p
	}
	sel.Filter = compile("audience.filter", plan.Audience.Filter)
	for i, t := range plan.Audience.Tiers {
		rule := compile(fmt.Sprintf("audience.tiers[%d].filter", i), t.Filter)
		tier := targeting.Tier{Name: string(t.Tier), Rule: rule}
		for _, w := range plan.Waves {
			switch {
			case !slices.Contains(w.Tiers, t.Tier):
			case tier.Wave == 0:
				tier.Wave = w.Number
			default:
				tier.Further = append(tier.Further, targeting.WaveShare{Wave: w.Number, Share: int(math.Round(w.Share * 100))})
			}
		}
		sel.Tiers = append(sel.Tiers, tier)
	}
	var unknown []campaign.FieldError
	sel.Control, unknown = words.control(plan.Audience)
	if faults = append(faults, unknown...); len(faults) > 0 {
		return sel, &campaign.Error{Code: campaign.CodeInvalidFilter, Message: "the audience's filters do not fit the customers' attributes", Fields: faults}
	}
	return sel, nil
}
