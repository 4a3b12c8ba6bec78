package activities

import (
	"context"
	"sync/atomic"

	"github.com/musterhq/muster/audience"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
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
	run, frozen, err := a.Store.SelectionRun(ctx, in)
	if err != nil {
		return campaign.TargetCount{}, err
	}
	if frozen != nil {
		return *frozen, nil
	}
	count, err := a.runStep(ctx, in.Step, plan, run, progress)
	if rule := ruleOf(err); rule != nil && rule.Code != campaign.CodeSelectionLost {
		if refused := run.Refuse(ctx, rule, count.Targets); refused != nil {
			return count, refused
		}
	}
	return count, err
}

func (a *Activities) runStep(
	ctx context.Context, step campaign.SelectionStep, plan campaign.LoadedPlan, run store.SelectionRun, progress func(buckets int),
) (campaign.TargetCount, error) {
	sel, err := audience.Signed(ctx, a.Store, run.CampaignID, plan)
	if err != nil {
		return campaign.TargetCount{}, err
	}
	// Waves begin as planned after the run did.
	sel = audience.Under(sel, run.CampaignID, plan.Plan, run.Policy, run.BeganAt, audience.Decided)
	switch step {
	case campaign.StepCount:
		holdout := run.Policy.Holdout
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
		return run.Reserve(ctx, plan.Plan, progress)
	case campaign.StepFreeze:
		return run.Freeze(ctx, sel, a.authoriseSigned)
	}
	return campaign.TargetCount{}, campaign.Errorf(campaign.CodeInvalidParameter, "a selection has no step %q", step)
}
