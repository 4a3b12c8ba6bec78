package workflows_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/workflows"
)

// terminatedOnce lets somebody terminate the first run of a stage after d; later runs
// do their work.
func terminatedOnce[In any](name campaign.Workflow[In], d time.Duration, work func(workflow.Context, In) error) func(*bench) {
	return func(b *bench) {
		runs := 0
		b.RegisterWorkflowWithOptions(func(ctx workflow.Context, in In) error {
			if runs++; runs > 1 {
				return work(ctx, in)
			}
			if err := workflow.Sleep(ctx, d); err != nil {
				return err
			}
			return &temporal.TerminatedError{}
		}, workflow.RegisterOptions{Name: string(name), DisableAlreadyRegisteredCheck: true})
	}
}

// TestAStageThatIsTerminatedCountsAsFailed: a stage that was ended by hand cannot report,
// and the campaign must not wait for it.
func TestAStageThatIsTerminatedCountsAsFailed(t *testing.T) {
	for name, test := range map[string]struct {
		terminate func(*bench)
		resume    bool     // the campaign waits for a person
		events    []string // of the way, in this order
	}{
		"selection": {
			terminatedOnce(campaign.WorkflowSelection, time.Minute, workflows.Selection), true,
			[]string{"stage.targeting", "campaign.problem", "campaign.resumed", "selection.frozen", "stage.closed"},
		},
		"wave": {
			terminatedOnce(campaign.WorkflowWave, time.Hour, workflows.Wave), false,
			[]string{"wave.begun", "wave.failed", "review.begun", "wave.begun", "wave.done", "stage.closed"},
		},
		"review": {
			terminatedOnce(campaign.WorkflowReview, time.Hour, workflows.Review), false,
			[]string{"review.begun", "review.failed", "wave.begun", "stage.closed"},
		},
		"settlement": {
			terminatedOnce(campaign.WorkflowSettlement, time.Hour, workflows.Settlement), true,
			[]string{"stage.settlement", "campaign.problem", "campaign.resumed", "stage.evaluation", "stage.closed"},
		},
		"evaluation": {
			terminatedOnce(campaign.WorkflowEvaluation, time.Minute, workflows.Evaluation), true,
			[]string{"stage.evaluation", "campaign.problem", "campaign.resumed", "stage.closed"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, test.terminate)
			b.approved()
			if test.resume {
				b.at(days(100), campaign.UpdateResume, campaign.ChangeHold{Command: command(operator, "resume"), Reason: "a mistake"})
			}
			b.run()
			require.Equal(t, "completed", b.status().Ended)
			if !test.resume { // there the campaign's problem says it
				require.Len(t, b.reasons, 1)
				require.Contains(t, b.reasons[0], "was ended from outside")
			}
			left := test.events
			for _, e := range b.events {
				if len(left) > 0 && e == left[0] {
					left = left[1:]
				}
			}
			require.Empty(t, left, "in this order: %v", b.events)
		})
	}
}

// TestARoundWhoseClockIsTerminatedExpires, and the plan can be submitted again.
func TestARoundWhoseClockIsTerminatedExpires(t *testing.T) {
	b := newBench(t, terminatedOnce(campaign.WorkflowApproval, time.Hour, workflows.Approval))
	b.at(time.Hour, campaign.UpdateSubmit, submitCmd())
	late := b.at(3*time.Hour, campaign.UpdateDecide, approve(manager, 1))
	second := submitCmd()
	second.UpdateID = "submit-again"
	again := b.at(4*time.Hour, campaign.UpdateSubmit, second)
	b.at(5*time.Hour, campaign.UpdateDecide, approve(manager, 1))
	b.at(6*time.Hour, campaign.UpdateDecide, approve(finance, 2))
	b.run()
	require.Equal(t, campaign.CodeStateConflict, code(late.err))
	require.NoError(t, again.err)
	require.Contains(t, b.events, "approval.expired")
	require.Len(t, b.reasons, 1)
	require.Contains(t, b.reasons[0], "was ended from outside")
	require.Equal(t, "completed", b.status().Ended)
}

// TestAClockThatIsCancelledHasNotRunOut: cancelling a review must not apply the plan's
// default before its time, nor cancelling an approval remind, escalate or expire.
func TestAClockThatIsCancelledHasNotRunOut(t *testing.T) {
	b := newBench(t)
	b.SetStartWorkflowOptions(clientStartOptions{ID: campaign.ReviewWorkflowID(campaignID, 1), TaskQueue: campaign.QueueWorkflows})
	b.RegisterDelayedCallback(b.CancelWorkflow, 12*time.Hour)
	b.ExecuteWorkflow(string(campaign.WorkflowReview), campaign.ReviewInput{CampaignID: campaignID, Review: 1, DecideWithin: 2 * day})
	require.ErrorContains(t, b.GetWorkflowError(), "canceled")
	require.Equal(t, []campaign.ReportKind{campaign.ReportReviewOpen, campaign.ReportFailed}, b.reported)

	b = newBench(t)
	b.SetStartWorkflowOptions(clientStartOptions{ID: campaign.ApprovalWorkflowID(campaignID, 1, 1), TaskQueue: campaign.QueueWorkflows})
	b.RegisterDelayedCallback(b.CancelWorkflow, 12*time.Hour)
	b.ExecuteWorkflow(string(campaign.WorkflowApproval), campaign.ApprovalInput{
		CampaignID: campaignID, Revision: 1, Round: 1, Route: testRoute(), Waiting: []campaign.Waiting{{Level: 1, Since: b.Now()}},
	})
	require.ErrorContains(t, b.GetWorkflowError(), "canceled")
	require.Equal(t, []campaign.ReportKind{campaign.ReportFailed}, b.reported)
	require.Zero(t, b.reminded)
}

// TestAStageOfAnEarlierRunIsAttended: a continued campaign does not hear of the end of
// the stages that it began before, so it asks after them.
func TestAStageOfAnEarlierRunIsAttended(t *testing.T) {
	for name, ended := range map[string]bool{"it runs": false, "it was terminated": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			asked := 0
			wave := campaign.WaveWorkflowID(campaignID, 1)
			b.attended = func(id string) error {
				require.Equal(t, wave, id)
				if asked++; ended && asked == 3 {
					return &temporal.UnknownExternalWorkflowExecutionError{}
				}
				return nil
			}
			plan := testPlan()
			plan.Waves = plan.Waves[:1]
			state := &campaign.State{
				CampaignID: campaignID, Stage: campaign.StageRunning, Hold: campaign.HoldNone, Revision: 1, Plan: plan,
				Selection: &campaign.TargetCount{Snapshot: 1}, RunningAt: b.Now(), RunEndsAt: b.Now().Add(days(70)),
				Waves:   []campaign.WaveRun{{Number: 1, Begun: true, Channels: plan.Waves[0].Channels}},
				Reviews: []campaign.ReviewRun{{Number: 1, Begun: true, Decision: campaign.ReviewKeep}},
			}
			b.RegisterDelayedCallback(func() {
				b.SignalWorkflow(campaign.SignalReport, campaign.StageReport{Kind: campaign.ReportWaveDone, Number: 1, WorkflowID: wave})
			}, days(10))
			b.ExecuteWorkflow(string(campaign.WorkflowCampaign), campaign.Start{CampaignID: campaignID, State: state})
			require.NoError(t, b.GetWorkflowError())
			require.Equal(t, "completed", b.status().Ended)
			if ended {
				require.Equal(t, 3, asked)
				require.Contains(t, b.status().Waves[0].Failure, wave)
				require.Less(t, b.Now().Sub(state.RunningAt), days(10))
			} else {
				require.Greater(t, asked, 3)
				require.Less(t, asked, 100)
				require.Empty(t, b.status().Waves[0].Failure)
			}
		})
	}
}
