package activities

import (
	"context"

	"github.com/musterhq/muster/audience"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
	"github.com/musterhq/muster/targeting"
)

// SelectTargets selects and freezes the targets of a plan revision, once, if it was signed
// by those who must. A rule's refusal is recorded.
func (a *Activities) SelectTargets(ctx context.Context, in campaign.SelectionInput) (campaign.TargetCount, error) {
	var count campaign.TargetCount
	err := alive(ctx, func() error {
		plan, err := a.Store.LoadPlan(ctx, campaign.PlanRef{CampaignID: in.CampaignID, Revision: in.Revision})
		if err != nil {
			return err
		}
		attributes, err := a.Store.CustomerAttributes(ctx)
		if err != nil {
			return err
		}
		sel, err := audience.Selection(attributes, in.CampaignID, plan)
		if err != nil {
			return err
		}
		freeze := store.Freeze{
			CampaignID: in.CampaignID, Revision: in.Revision, Salt: sel.Salt, Authorise: a.authoriseSigned,
			Tally: func(steps []store.CountStep) campaign.TargetCount { return tally(sel, steps) },
			Insert: func(table string, shards int) (string, []any) {
				sel.Shards = shards
				return sel.SQL(table)
			},
		}
		freeze.Count, freeze.CountArgs = sel.CountsSQL()
		count, err = a.Store.FreezeTargets(ctx, freeze)
		return err
	})
	if rule := ruleOf(err); rule != nil {
		if told := a.tellRefused(ctx, "selection:"+callKey(ctx), in.CampaignID, "selection.refused", rule, map[string]any{"revision": in.Revision}); told != nil {
			err = told
		}
	}
	return count, failure(ctx, err)
}

func tally(sel targeting.Selection, steps []store.CountStep) campaign.TargetCount {
	counts := make([]targeting.Count, len(steps))
	for i, s := range steps {
		counts[i] = targeting.Count{Kind: targeting.CountKind(s.Kind), Code: s.Code, Customers: s.Customers}
	}
	w := sel.Waterfall(counts)
	count := campaign.TargetCount{Considered: w.InUnit, Matching: w.Matching - w.NoTier}
	for _, s := range w.Suppressed {
		count.Suppressed += s.Customers
	}
	return count
}
