// Package audience says whom a plan is for: it compiles a plan's filters over the
// attributes that customers have now.
package audience

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
	"github.com/musterhq/muster/targeting"
)

// Signed compiles the audience of a campaign's plan as it was submitted: with the segments,
// lists and campaigns that its signers were told of. One that never was is compiled with the
// words of this moment, see Selection.
func Signed(ctx context.Context, st *store.Store, campaignID string, loaded campaign.LoadedPlan) (targeting.Selection, error) {
	words, err := Load(ctx, st, loaded.Plan.Unit.Tenant())
	if err != nil {
		return targeting.Selection{}, err
	}
	uses, err := st.SubmittedUses(ctx, campaignID, loaded.Plan.Digests().Audience)
	if err != nil {
		return targeting.Selection{}, err
	}
	if words, err = words.Pinned(ctx, st, uses); err != nil {
		return targeting.Selection{}, err
	}
	return Selection(words, campaignID, loaded)
}

func added(all []campaign.FilterUse, more ...campaign.FilterUse) []campaign.FilterUse {
	for _, u := range more {
		if !slices.Contains(all, u) {
			all = append(all, u)
		}
	}
	return all
}

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
		sel.Uses = added(sel.Uses, p.Uses...)
		return p
	}
	sel.Uses = []campaign.FilterUse{}
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
	if list, ok := words.Names.Lists[plan.Audience.ControlList]; ok {
		sel.Uses = added(sel.Uses, campaign.FilterUse{Kind: targeting.UseControlList, ID: list.ID, Name: plan.Audience.ControlList, Version: list.Version, Digest: list.Digest})
	}
	if faults = append(faults, unknown...); len(faults) > 0 {
		return sel, &campaign.Error{Code: campaign.CodeInvalidFilter, Message: "the audience's filters do not fit the customers' attributes", Fields: faults}
	}
	return sel, nil
}
