package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/musterhq/muster/campaign"
)

const (
	// creditTurns bounds the history of one run of a release.
	creditTurns = 200
	// creditAgain is how long a release waits after a refusal, which a person may have to mend.
	creditAgain = time.Hour
)

// CreditRelease grants a campaign's prepaid credit by its schedules. It begins with running
// and outlives the campaign: customers get what they were promised, however long ago the
// campaign was settled and closed. So nothing that it meets ends it but that there is nothing
// left to grant and nothing to expire.
func CreditRelease(ctx workflow.Context, in campaign.CreditInput) error {
	for range creditTurns {
		done, err := do(bulk(ctx), campaign.ActivityReleaseCredit, in)
		wait := campaign.Seconds(done.Wait)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			workflow.GetLogger(ctx).Error("credit was not released", "error", err)
			wait = creditAgain
		case wait == 0:
			return nil
		}
		if err := workflow.Sleep(ctx, wait); err != nil {
			return err
		}
		if workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
			break
		}
	}
	return continueAsNew(ctx, campaign.WorkflowCredit, in)
}

// startCredit begins the release of the plan's prepaid credit, once. The campaign does not
// wait for it.
func (c *entity) startCredit(ctx workflow.Context) {
	s := c.state
	if s.CreditBegun || !s.Plan.PaysCredit() {
		return
	}
	child := start(stage(ctx, campaign.CreditWorkflowID(s.CampaignID)), campaign.WorkflowCredit, campaign.CreditInput{CampaignID: s.CampaignID})
	if err := child.GetChildWorkflowExecution().Get(ctx, nil); err != nil && !temporal.IsWorkflowExecutionAlreadyStartedError(err) {
		c.fail(ctx, err)
		return
	}
	s.CreditBegun = true
}
