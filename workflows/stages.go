package workflows

import (
	"go.temporal.io/sdk/workflow"

	"github.com/musterhq/muster/campaign"
)

// Selection finds and freezes the targets of a plan revision, step by step.
func Selection(ctx workflow.Context, in campaign.SelectionInput) error {
	count, err := selectTargets(ctx, in)
	return finish(ctx, in.CampaignID, campaign.StageReport{Kind: campaign.ReportSelected, Selection: &count}, err)
}

// selectionAttempts bounds how often a selection begins anew because its tables are gone.
const selectionAttempts = 10

func selectTargets(ctx workflow.Context, in campaign.SelectionInput) (count campaign.TargetCount, err error) {
	for range selectionAttempts {
		for _, step := range campaign.SelectionSteps() {
			count, err = do(bulk(ctx), campaign.ActivitySelectionStep, campaign.SelectionStepInput{SelectionInput: in, Step: step})
			if err != nil {
				break
			}
		}
		if err == nil {
			return count, nil
		}
		if code, _ := fault(err); code != campaign.CodeSelectionLost {
			return count, err
		}
	}
	return count, err
}

// Review measures a campaign in mid-course, publishes findings and a recommendation,
// and waits for the decision until its deadline. The campaign records the decision; at
// the deadline it applies the plan's default.
func Review(ctx workflow.Context, in campaign.ReviewInput) error {
	if _, err := do(bulk(ctx), campaign.ActivityMeasure, in); err != nil {
		return finish(ctx, in.CampaignID, campaign.StageReport{Number: in.Review}, err)
	}
	allowed := campaign.Seconds(in.DecideWithin)
	due := workflow.Now(ctx).Add(allowed)
	report(ctx, in.CampaignID, campaign.StageReport{Kind: campaign.ReportReviewOpen, Number: in.Review, DueAt: due})

	decided := workflow.GetSignalChannel(ctx, campaign.SignalDecided)
	if _, ok := receiveUntil[campaign.Decided](ctx, decided, due.Add(-allowed/2)); ok {
		return nil
	}
	remind(ctx, in.CampaignID, "review", in.Review, due, false)
	if _, ok := receiveUntil[campaign.Decided](ctx, decided, due); ok {
		return nil
	}
	if ctx.Err() != nil {
		return finish(ctx, in.CampaignID, campaign.StageReport{Number: in.Review}, ctx.Err())
	}
	report(ctx, in.CampaignID, campaign.StageReport{Kind: campaign.ReportReviewLapsed, Number: in.Review})
	return nil
}

// Settlement gives every contact a final state, lets late outcomes come in until the
// window closes, and closes the money.
func Settlement(ctx workflow.Context, in campaign.SettlementInput) error {
	return finish(ctx, in.CampaignID, campaign.StageReport{Kind: campaign.ReportSettled}, settle(ctx, in))
}

func settle(ctx workflow.Context, in campaign.SettlementInput) error {
	plan := campaign.PlanRef{CampaignID: in.CampaignID, Revision: in.Revision}
	if err := act(bulk(ctx), campaign.ActivityCloseContacts, plan); err != nil {
		return err
	}
	if wait := in.SettleAt.Sub(workflow.Now(ctx)); wait > 0 {
		if err := workflow.Sleep(ctx, wait); err != nil {
			return err
		}
	}
	return act(bulk(ctx), campaign.ActivitySettle, plan)
}

// Evaluation writes the final report.
func Evaluation(ctx workflow.Context, in campaign.EvaluationInput) error {
	err := act(bulk(ctx), campaign.ActivityEvaluate, in)
	return finish(ctx, in.CampaignID, campaign.StageReport{Kind: campaign.ReportEvaluated}, err)
}

// Archive copies the histories of all of a campaign's workflows into the archive. The
// activity retries until the campaign itself has closed.
func Archive(ctx workflow.Context, in campaign.ArchiveInput) (campaign.Archived, error) {
	done, err := do(evidence(ctx), campaign.ActivityArchive, in)
	return done, refusal(err)
}

// Replay runs a campaign's archived histories against the code of the worker that
// takes it.
func Replay(ctx workflow.Context, in campaign.ReplayInput) (campaign.ReplayReport, error) {
	done, err := do(evidence(ctx), campaign.ActivityReplay, in)
	return done, refusal(err)
}
