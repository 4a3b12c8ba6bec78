package workflows

import (
	"errors"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/musterhq/muster/campaign"
)

// attendEvery is how often a stage that an earlier run of the campaign started is asked
// whether it is still there. Each time costs some events on both sides.
const attendEvery = 6 * time.Hour

// watch waits for the end of a stage that this run starts. A stage reports before it
// ends, also when it fails or is cancelled. One that was terminated by hand cannot, and one
// whose report the rows did not bear out was not believed: it is taken as failed, lest the
// campaign wait for its report for ever.
func (c *entity) watch(ctx workflow.Context, id string, child workflow.ChildWorkflowFuture) {
	workflow.Go(ctx, func(ctx workflow.Context) {
		err := child.Get(ctx, nil)
		how := "was ended from outside"
		if said := (*temporal.ApplicationError)(nil); err == nil || errors.As(err, &said) {
			how = "ended, and the rows do not bear out what it reported"
		}
		if ctx.Err() == nil {
			c.lose(ctx, id, how)
		}
	})
}

// attend does the same for the stages that earlier runs started: their ends are told to
// those runs and not to this one. A signal cannot be delivered to a workflow that has
// ended; that is all that this one is for, nobody receives it.
func (c *entity) attend(ctx workflow.Context) {
	inherited := c.unreported()
	if len(inherited) == 0 {
		return
	}
	workflow.Go(ctx, func(ctx workflow.Context) {
		for {
			if workflow.Sleep(ctx, attendEvery) != nil {
				return
			}
			inherited = slices.DeleteFunc(inherited, func(id string) bool { return !slices.Contains(c.unreported(), id) })
			if len(inherited) == 0 {
				return
			}
			for _, id := range inherited {
				err := workflow.SignalExternalWorkflow(ctx, id, "", campaign.SignalAttend, nil).Get(ctx, nil)
				var gone *temporal.UnknownExternalWorkflowExecutionError
				if errors.As(err, &gone) {
					c.lose(ctx, id, "was ended from outside")
				}
			}
		}
	})
}

// lose hands the end of a stage to the root, which takes it after the reports that came
// before it.
func (c *entity) lose(ctx workflow.Context, id, how string) {
	c.lost.Send(ctx, campaign.StageReport{
		Kind: campaign.ReportFailed, WorkflowID: id, Code: campaign.CodeInternal, Message: "workflow " + id + " " + how,
	})
}

// unreported lists the workflow ids of the stages whose last report is still to come.
func (c *entity) unreported() []string {
	s := c.state
	var ids []string
	if s.Begun != "" {
		ids = append(ids, s.Begun)
	}
	if s.Approval.Open() {
		ids = append(ids, c.clockID())
	}
	for _, w := range s.Waves {
		if w.Begun && !w.Done {
			ids = append(ids, campaign.WaveWorkflowID(s.CampaignID, w.Number))
		}
	}
	for _, r := range s.Reviews {
		if r.Begun && r.Decision == "" {
			ids = append(ids, campaign.ReviewWorkflowID(s.CampaignID, r.Number))
		}
	}
	return ids
}
