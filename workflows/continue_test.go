package workflows_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"github.com/musterhq/muster/campaign"
)

// continued returns the state that the next run gets, or nil when the run ended.
func (b *bench) continued(name string, into any) bool {
	require.True(b.t, b.IsWorkflowCompleted())
	var next *workflow.ContinueAsNewError
	if !errors.As(b.GetWorkflowError(), &next) {
		require.NoError(b.t, b.GetWorkflowError())
		return false
	}
	require.Equal(b.t, name, next.WorkflowType.Name)
	require.NoError(b.t, converter.GetDefaultDataConverter().FromPayloads(next.Input, into))
	return true
}

// TestCampaignContinuesAsNewWithEverything lets the server ask for a new run after each
// update and carries the state on, run after run: nothing is lost, nothing is applied
// twice, and a stage that was begun in an earlier run still counts.
func TestCampaignContinuesAsNewWithEverything(t *testing.T) {
	in := campaign.Start{CampaignID: campaignID}
	hold := campaign.ChangeHold{Command: command(operator, "pause-once"), Reason: "check"}
	var holds []campaign.Hold
	steps := []struct {
		name string
		arg  any
	}{
		{campaign.UpdateSubmit, submitCmd()},
		{campaign.UpdateDecide, approve(manager, 1)},
		{campaign.UpdatePause, hold},
		{campaign.UpdatePause, hold}, // the caller's retry reaches the next run
	}
	for i, s := range steps {
		b := newBench(t)
		a := b.at(time.Minute, s.name, s.arg)
		b.RegisterDelayedCallback(func() { b.SetContinueAsNewSuggested(true) }, 30*time.Second)
		// Something else wakes the campaign: a repeated update changes nothing and does not.
		b.RegisterDelayedCallback(func() {
			b.SignalWorkflow(campaign.SignalReport, campaign.StageReport{Kind: campaign.ReportWaveDone, Number: 99})
		}, 2*time.Minute)
		b.ExecuteWorkflow(string(campaign.WorkflowCampaign), in)
		var next campaign.Start
		require.True(t, b.continued(string(campaign.WorkflowCampaign), &next), "step %d", i)
		require.NoError(t, a.err, "step %d", i)
		require.NotNil(t, next.State)
		holds = append(holds, b.holds...)
		in = next
	}
	require.Equal(t, []campaign.Hold{campaign.HoldPaused}, holds)
	require.Equal(t, campaign.StageApproval, in.State.Stage)
	require.Equal(t, campaign.HoldPaused, in.State.Hold)
	require.Len(t, in.State.Approval.Signatures, 1)
	require.Equal(t, []string{"submit", "approve-1-manager", "pause-once"}, appliedIDs(in.State))
	due := in.State.Approval.DueAt()

	// The last run goes to the end.
	b := newBench(t)
	b.SetStartTime(due.Add(-time.Hour))
	b.at(time.Minute, campaign.UpdateResume, campaign.ChangeHold{Command: command(operator, "resume")})
	b.at(2*time.Minute, campaign.UpdateDecide, approve(finance, 2))
	b.ExecuteWorkflow(string(campaign.WorkflowCampaign), in)
	require.False(t, b.continued(string(campaign.WorkflowCampaign), nil))
	require.Equal(t, "completed", b.status().Ended)
}

func appliedIDs(s *campaign.State) (ids []string) {
	for _, a := range s.Applied {
		ids = append(ids, a.ID)
	}
	return ids
}

// TestReportsThatArriveWhileContinuingAreKept sends a stage's report in the same moment
// in which the run is continued: it is either applied before or waits for the next run.
func TestReportsThatArriveWhileContinuingAreKept(t *testing.T) {
	state := &campaign.State{
		CampaignID: campaignID, Stage: campaign.StageRunning, Hold: campaign.HoldNone, Revision: 1, Plan: testPlan(),
		Selection: &campaign.TargetCount{Snapshot: 1},
	}
	b := newBench(t)
	state.RunningAt = b.Now()
	state.RunEndsAt = b.Now().Add(days(70))
	for n := 1; n <= 40; n++ {
		state.Waves = append(state.Waves, campaign.WaveRun{Number: n, Begun: true})
	}
	state.Reviews = []campaign.ReviewRun{{Number: 1, Begun: true, Open: true, DueAt: b.Now().Add(days(5))}}
	b.RegisterDelayedCallback(func() {
		b.SetContinueAsNewSuggested(true)
		for n := 1; n <= 40; n++ {
			b.SignalWorkflow(campaign.SignalReport, campaign.StageReport{
				Kind: campaign.ReportWaveDone, Number: n, WorkflowID: campaign.WaveWorkflowID(campaignID, n),
			})
		}
	}, time.Minute)
	b.ExecuteWorkflow(string(campaign.WorkflowCampaign), campaign.Start{CampaignID: campaignID, State: state})
	var next campaign.Start
	require.True(t, b.continued(string(campaign.WorkflowCampaign), &next))
	for _, w := range next.State.Waves {
		require.True(t, w.Done, "the report of wave %d was lost", w.Number)
	}
}

// TestUpdatesWhileDraining lets updates come while the run waits for a handler that is
// still busy before it continues as new: they are refused with the code that tells the
// caller to try again, and the next run takes them.
func TestUpdatesWhileDraining(t *testing.T) {
	b := newBench(t)
	b.OnActivity(string(campaign.ActivityVerify), anything).After(20 * time.Second).Return(nil)
	b.at(60*time.Second, campaign.UpdateSubmit, submitCmd())
	b.RegisterDelayedCallback(func() {
		b.SetContinueAsNewSuggested(true)
		b.SignalWorkflow(campaign.SignalReport, campaign.StageReport{Kind: campaign.ReportWaveDone, Number: 99})
	}, 65*time.Second)
	// The root is next after the submission, and this one after the root.
	pause := b.at(70*time.Second, campaign.UpdatePause, campaign.ChangeHold{Command: command(operator, "pause"), Reason: "check"})
	stop := campaign.ChangeHold{Command: command(operator, "stop"), Reason: "wrong"}
	late := b.at(90*time.Second, campaign.UpdateStop, stop)
	b.ExecuteWorkflow(string(campaign.WorkflowCampaign), campaign.Start{CampaignID: campaignID})
	var next campaign.Start
	require.True(t, b.continued(string(campaign.WorkflowCampaign), &next))
	require.True(t, late.rejected)
	require.Equal(t, campaign.CodeDraining, code(late.err))
	require.NoError(t, pause.err)
	require.Equal(t, campaign.StageApproval, next.State.Stage)
	require.Equal(t, campaign.HoldPaused, next.State.Hold, "the update that was being worked on is in the state")

	b = newBench(t)
	again := b.at(time.Minute, campaign.UpdateStop, stop)
	b.ExecuteWorkflow(string(campaign.WorkflowCampaign), next)
	require.False(t, b.continued(string(campaign.WorkflowCampaign), nil))
	require.NoError(t, again.err)
	require.Equal(t, "withdrawn", b.status().Ended)
}

func shardInput() campaign.ShardInput {
	return campaign.ShardInput{
		CampaignID: campaignID, Wave: 1, Revision: 1, Channel: campaign.ChannelSMS, Shard: 7, NextSeq: 1, LastSeq: 500_001,
		Hold: campaign.HoldNone,
	}
}

// TestShardContinuesAsNewAtItsCursor walks a shard over several runs: each contact is
// in exactly one chunk.
func TestShardContinuesAsNewAtItsCursor(t *testing.T) {
	in := shardInput()
	next, runs := int64(1), 0
	for {
		b := newBench(t)
		b.ExecuteWorkflow(string(campaign.WorkflowShard), in)
		for _, c := range b.chunks {
			require.Equal(t, next, c.FromSeq)
			require.LessOrEqual(t, c.ToSeq-c.FromSeq, int64(1999))
			next = c.ToSeq + 1
		}
		runs++
		if !b.continued(string(campaign.WorkflowShard), &in) {
			break
		}
	}
	require.Equal(t, int64(500_002), next)
	require.Equal(t, 2, runs)
}

// TestHeldShardGoesOnWhereItWas pauses a shard in the middle of a chunk and resumes it.
func TestHeldShardGoesOnWhereItWas(t *testing.T) {
	b := newBench(t)
	in := shardInput()
	in.LastSeq = 5_000
	held := true
	var asked []int64
	b.OnActivity(string(campaign.ActivityDispatchChunk), anything).Return(func(c campaign.ChunkInput) (campaign.ChunkResult, error) {
		asked = append(asked, c.FromSeq)
		return campaign.ChunkResult{Held: held && c.FromSeq > 1}, nil
	})
	b.RegisterDelayedCallback(func() { b.SignalWorkflow(campaign.SignalHold, campaign.HoldChange{Hold: campaign.HoldPaused}) }, 500*time.Millisecond)
	b.RegisterDelayedCallback(func() {
		held = false
		b.SignalWorkflow(campaign.SignalHold, campaign.HoldChange{Hold: campaign.HoldNone})
	}, days(3))
	b.ExecuteWorkflow(string(campaign.WorkflowShard), in)
	require.False(t, b.continued(string(campaign.WorkflowShard), nil))
	require.Equal(t, []int64{1, 2001, 2001, 4001}, asked)
}

// TestStoppedShardEnds leaves the rest of a stopped shard untouched.
func TestStoppedShardEnds(t *testing.T) {
	b := newBench(t)
	in := shardInput()
	in.Hold = campaign.HoldPaused
	b.RegisterDelayedCallback(func() { b.SignalWorkflow(campaign.SignalHold, campaign.HoldChange{Hold: campaign.HoldStopped}) }, days(1))
	b.ExecuteWorkflow(string(campaign.WorkflowShard), in)
	require.False(t, b.continued(string(campaign.WorkflowShard), nil))
	require.Empty(t, b.chunks)
}

// TestWindowClosesOnUnansweredCalls lets a channel's window run out: what is open
// expires, and the wait asked a bounded number of times.
func TestWindowClosesOnUnansweredCalls(t *testing.T) {
	b := newBench(t)
	polls := 0
	var closed campaign.CloseChannel
	b.OnActivity(string(campaign.ActivityProgress), anything).Return(func(campaign.ChannelRef) (campaign.ChannelProgress, error) {
		polls++
		return campaign.ChannelProgress{Contacts: 9000, Open: 3}, nil
	})
	b.OnActivity(string(campaign.ActivityCloseChannel), anything).Return(func(c campaign.CloseChannel) (campaign.ChannelProgress, error) {
		closed = c
		return campaign.ChannelProgress{}, nil
	})
	b.ExecuteWorkflow(string(campaign.WorkflowDispatch), campaign.DispatchInput{
		CampaignID: campaignID, Wave: 1, Snapshot: 1, Revision: 1, Channel: campaign.ChannelCall,
		ClosesAt: b.Now().Add(days(7)), Hold: campaign.HoldNone,
	})
	require.False(t, b.continued(string(campaign.WorkflowDispatch), nil))
	require.Equal(t, campaign.ContactExpired, closed.State)
	require.Equal(t, "window_closed", closed.Reason)
	require.Less(t, polls, 100)
}
