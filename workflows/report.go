package workflows

import (
	"go.temporal.io/sdk/workflow"

	"github.com/musterhq/muster/campaign"
)

// report tells the campaign about its stage. It goes out even when the stage is being
// cancelled. A campaign that has ended meanwhile needs no report.
func report(ctx workflow.Context, campaignID string, r campaign.StageReport) {
	r.WorkflowID = workflow.GetInfo(ctx).WorkflowExecution.ID
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	err := workflow.SignalExternalWorkflow(ctx, campaign.CampaignWorkflowID(campaignID), "", campaign.SignalReport, r).Get(ctx, nil)
	if err != nil {
		workflow.GetLogger(ctx).Warn("the campaign did not take a report", "kind", r.Kind, "error", err)
	}
}

// finish reports how a stage ended and returns its error.
func finish(ctx workflow.Context, campaignID string, done campaign.StageReport, err error) error {
	if err != nil {
		code, words := fault(err)
		report(ctx, campaignID, campaign.StageReport{Kind: campaign.ReportFailed, Number: done.Number, Channels: done.Channels, Code: code, Message: words})
		return refusal(err)
	}
	report(ctx, campaignID, done)
	return nil
}
