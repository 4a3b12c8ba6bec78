package activities

import (
	"context"
	"sync/atomic"

	"github.com/musterhq/muster/audience"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
	"github.com/musterhq/muster/targeting"
)

// SelectionStep does one step of the selection of a plan revision's targets, once, and
// returns what has been counted so far. Nobody is selected for a revision that was not
// signed by those who must. A rule's refusal is recorded.
func (a *Activities) SelectionStep(ctx context.Context, in campaign.SelectionStepInput) (campaign.TargetCount, error) {
	var count campaign.TargetCount
	var buckets atomic.Int64
	err := aliveAt(ctx, buckets.Load, func() (err error) {
		count, err = a.selectionStep(ctx, in, func(done int) { buckets.Store(int64(done)) })
		return err
	})
	if rule := ruleOf(err); rule != nil && rule.Code != campaign.CodeSelectionLost {
		told := a.tellRefused(ctx, "selection:"+callKey(ctx), in.CampaignID, "selection.refused", rule, map[string]any{"revision": in.Revision, "step": in.Step})
		if told != nil {
			err = told
		}
	}
	return count, failure(ctx, err)
}

func (a *Activities) selectionStep(ctx context.Context, in campaign.SelectionStepInput, progress func(buckets int)) (campaign.TargetCount, error) {
	plan, err := a.Store.LoadPlan(ctx, campaign.PlanRef{CampaignID: in.CampaignID, Revision: in.Revision})
	if err != nil {
		return campaign.TargetCount{}, err
	}
	run, frozen, err := a.Store.SelectionRun(ctx, in.SelectionInput)
	if err != nil {
		return campaign.TargetCount{}, err
	}
	if frozen != nil {
		return *frozen, nil
	}
	sel, policy, err := a.selection(ctx, in.CampaignID, plan, run)
	if err != nil {
		return campaign.TargetCount{}, err
	}
	switch in.Step {
	case campaign.StepCount:
		holdout := policy.Holdout
		if !holdout.Covers(plan.Plan.Type.Purpose()) {
			holdout.Share = 0
		}
		return run.Count(ctx, sel, holdout, a.authoriseSigned)
	case campaign.StepFilter:
		return run.Filter(ctx, sel)
	case campaign.StepControl:
		return run.Control(ctx, sel)
	case campaign.StepChannel:
		return run.Channel(ctx, sel)
	case campaign.StepReserve:
		return run.Reserve(ctx, plan.Plan, policy, progress)
	case campaign.StepFreeze:
		return run.Freeze(ctx, store.Snapshot{Selection: sel, Policy: policy}, a.authoriseSigned)
	}
	return campaign.TargetCount{}, campaign.Errorf(campaign.CodeInvalidParameter, "a selection has no step %q", in.Step)
}

// selection compiles the audience of a plan under the contact policy in force, for waves that
// begin as planned after the run did.
func (a *Activities) selection(ctx context.Context, campaignID string, plan campaign.LoadedPlan, run store.SelectionRun) (targeting.Selection, targeting.ContactPolicy, error) {
	words, err := audience.Load(ctx, a.Store, plan.Plan.Unit.Tenant())
	if err != nil {
		return targeting.Selection{}, targeting.ContactPolicy{}, err
	}
	sel, err := audience.Selection(words, campaignID, plan)
	if err != nil {
		return sel, targeting.ContactPolicy{}, err
	}
	policy, err := a.Store.ContactPolicy(ctx, plan.Plan.Unit)
	if err != nil {
		return sel, policy, err
	}
	return audience.Under(sel, campaignID, plan.Plan, policy, run.BeganAt, audience.Decided), policy, nil
}
