package workflows_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/musterhq/muster/campaign"
)

// A command that nobody signed does nothing; a genuine one is verified with the digest of
// all that it carries.
func TestForgedCommandsDoNothing(t *testing.T) {
	b := newBench(t)
	b.approved()
	forged := campaign.Command{UpdateID: "forged", Actor: operator, Assertion: "forged"}
	var answers []*answer
	for name, in := range map[string]any{
		campaign.UpdatePause: campaign.ChangeHold{Command: forged, Reason: "x"},
		campaign.UpdateStop:  campaign.ChangeHold{Command: forged, Reason: "x"},
		campaign.UpdateAmend: campaign.Amend{Command: forged, Revision: 1, Digest: "x", Reason: "x"},
	} {
		answers = append(answers, b.at(days(2), name, in))
	}
	pause := campaign.ChangeHold{Command: command(operator, "pause"), Reason: "storm"}
	good := b.at(days(3), campaign.UpdatePause, pause)
	b.at(days(4), campaign.UpdateResume, campaign.ChangeHold{Command: command(operator, "resume")})
	b.run()
	for _, a := range answers {
		require.Equal(t, campaign.CodeForgedDecision, code(a.err))
		require.False(t, a.rejected, "it was looked at, so that it leaves a trace")
	}
	require.NoError(t, good.err)
	require.Equal(t, []campaign.Hold{campaign.HoldPaused, campaign.HoldNone}, b.holds)
	digest, err := campaign.PayloadDigest(&pause)
	require.NoError(t, err)
	require.Contains(t, b.given, campaign.CommandClaim{CampaignID: campaignID, Name: campaign.UpdatePause, Command: pause.Command, Digest: digest})
}

func TestAForgedDecisionIsNotCounted(t *testing.T) {
	b := newBench(t)
	b.at(time.Hour, campaign.UpdateSubmit, submitCmd())
	forged := approve(manager, 1)
	forged.Assertion = "forged"
	first := b.at(2*time.Hour, campaign.UpdateDecide, forged)
	b.at(3*time.Hour, campaign.UpdateStop, campaign.ChangeHold{Command: command(operator, "stop"), Reason: "over"})
	b.run()
	require.Equal(t, campaign.CodeForgedDecision, code(first.err))
	require.Empty(t, b.status().Approval.Signatures)
}

// A report is believed only when the rows bear it out.
func TestForgedReportsChangeNothing(t *testing.T) {
	b := newBench(t)
	b.at(time.Hour, campaign.UpdateSubmit, submitCmd())
	for _, kind := range []campaign.ReportKind{
		campaign.ReportSelected, campaign.ReportWaveDone, campaign.ReportReviewOpen, campaign.ReportSettled, campaign.ReportEvaluated,
	} {
		b.RegisterDelayedCallback(func() {
			b.SignalWorkflow(campaign.SignalReport, campaign.StageReport{Kind: kind, WorkflowID: "forged", Number: 1, Selection: &campaign.TargetCount{Targets: 1}})
		}, 90*time.Minute)
	}
	b.RegisterDelayedCallback(func() {
		s := b.status()
		require.Equal(t, campaign.StageApproval, s.Stage)
		require.Zero(t, s.Targets)
		require.Len(t, b.claimed, 5)
		b.SignalWorkflow(campaign.SignalReport, campaign.StageReport{Kind: campaign.ReportApprovalExpired, WorkflowID: "forged", Number: 1, Round: 1})
	}, 100*time.Minute)
	b.RegisterDelayedCallback(func() {
		require.True(t, b.status().Approval.Open())
		require.Len(t, b.claimed, 6)
		require.True(t, b.claimed[5].NotBefore.After(b.Now()))
		require.True(t, b.claimed[5].Early, "it has not come by the campaign's own clock")
	}, 110*time.Minute)
	b.at(2*time.Hour, campaign.UpdateDecide, approve(manager, 1))
	b.at(3*time.Hour, campaign.UpdateDecide, approve(finance, 2))
	b.run()
	require.Equal(t, campaign.StageClosed, b.status().Stage)
}

// A wave whose signatures do not hold fails with the reason, and none begins before a
// person has looked. Then it begins anew, for nobody was contacted.
func TestARefusedDispatchStopsTheCampaign(t *testing.T) {
	b := newBench(t)
	words := "wave 1 may not be dispatched by call: the signature of Finance at level 2 does not hold"
	b.OnActivity(string(campaign.ActivityCreateContacts), anything).Return(campaign.ContactBatch{},
		temporal.NewNonRetryableApplicationError(words, string(campaign.CodeDispatchRefused), nil)).Once()
	b.OnActivity(string(campaign.ActivityCreateContacts), anything).Return(campaign.ContactBatch{Contacts: 9_000, Shards: []int64{9_000}}, nil)
	b.approved()
	b.RegisterDelayedCallback(func() {
		s := b.status()
		require.Equal(t, words, s.Waves[0].Failure)
		require.False(t, s.Waves[0].Done)
		require.Equal(t, words, s.Problem)
		require.Equal(t, campaign.CodeDispatchRefused, s.ProblemCode)
	}, days(1))
	b.RegisterDelayedCallback(func() { require.False(t, b.status().Waves[1].Begun, "the second wave waits") }, days(40))
	b.at(days(41), campaign.UpdateResume, campaign.ChangeHold{Command: command(operator, "resume"), Reason: "signed again"})
	b.run()
	waves := map[int]int{}
	for _, chunk := range b.chunks {
		waves[chunk.Wave]++
	}
	require.Len(t, waves, 2)
	require.Equal(t, waves[1], waves[2], "the first wave is not lost")
	require.Equal(t, campaign.StageClosed, b.status().Stage)
	for _, w := range b.status().Waves {
		require.True(t, w.Done)
		require.Empty(t, w.Failure)
	}
	require.Contains(t, b.events, "wave.refused")
}

// What was refused when some had been contacted already is over: they would be contacted
// again.
func TestALaterChannelThatIsRefusedEndsItsWave(t *testing.T) {
	b := newBench(t)
	refused := temporal.NewNonRetryableApplicationError("not signed any more", string(campaign.CodeDispatchRefused), nil)
	b.OnActivity(string(campaign.ActivityCreateContacts), anything).Return(func(in campaign.DispatchInput) (campaign.ContactBatch, error) {
		if in.Wave == 1 && len(in.After) > 0 {
			return campaign.ContactBatch{}, refused
		}
		return campaign.ContactBatch{Contacts: 9_000, Shards: []int64{9_000}}, nil
	})
	b.approved()
	b.at(days(41), campaign.UpdateResume, campaign.ChangeHold{Command: command(operator, "resume"), Reason: "signed again"})
	b.run()
	require.Equal(t, campaign.StageClosed, b.status().Stage)
	require.True(t, b.status().Waves[0].Done)
	require.Equal(t, "not signed any more", b.status().Waves[0].Failure)
	require.NotContains(t, b.events, "wave.refused")
}

// A stage whose report nobody believed is over all the same: a person has to look.
func TestAStageThatEndsUnconfirmedIsAProblem(t *testing.T) {
	b := newBench(t)
	believed := false
	b.OnActivity(string(campaign.ActivityConfirmReport), anything).Return(func(c campaign.ReportClaim) (campaign.Confirmation, error) {
		return campaign.Confirmation{True: c.Report.Kind != campaign.ReportSelected || believed}, nil
	})
	b.approved()
	b.RegisterDelayedCallback(func() {
		s := b.status()
		require.Equal(t, campaign.StageTargeting, s.Stage)
		require.Contains(t, s.Problem, "do not bear out")
		believed = true
	}, days(2))
	b.at(days(3), campaign.UpdateStop, campaign.ChangeHold{Command: command(operator, "stop"), Reason: "over"})
	b.run()
	require.Equal(t, campaign.StageClosed, b.status().Stage)
}

// The rows are asked about a failure too, so that it leaves an event.
func TestAForgedFailureIsTold(t *testing.T) {
	b := newBench(t)
	b.at(time.Hour, campaign.UpdateSubmit, submitCmd())
	b.RegisterDelayedCallback(func() {
		b.SignalWorkflow(campaign.SignalReport, campaign.StageReport{Kind: campaign.ReportFailed, WorkflowID: "anything", Message: "x"})
	}, 90*time.Minute)
	b.at(2*time.Hour, campaign.UpdateStop, campaign.ChangeHold{Command: command(operator, "stop"), Reason: "over"})
	b.run()
	require.Len(t, b.claimed, 1)
	require.Equal(t, campaign.ReportFailed, b.claimed[0].Report.Kind)
}

// A command is looked at wherever the campaign stands, so that a forged one leaves a trace
// also where a genuine one would be refused.
func TestACommandOutOfPlaceIsAuthenticatedFirst(t *testing.T) {
	b := newBench(t)
	forged := campaign.Command{UpdateID: "forged", Actor: operator, Assertion: "forged"}
	early := b.at(time.Minute, campaign.UpdateDecide, campaign.Decide{Command: forged, SignOffID: "x", Level: 1, Decision: campaign.DecisionApprove})
	genuine := b.at(2*time.Minute, campaign.UpdateDecide, approve(manager, 1))
	b.at(time.Hour, campaign.UpdateStop, campaign.ChangeHold{Command: command(operator, "stop"), Reason: "over"})
	b.run()
	require.Equal(t, campaign.CodeForgedDecision, code(early.err))
	require.Equal(t, campaign.CodeStateConflict, code(genuine.err))
	require.Len(t, b.given, 3)
}

// A workflow under another id than its campaign's would act in the campaign's name.
func TestACampaignHasOneWorkflow(t *testing.T) {
	for name, start := range map[string]campaign.Start{
		"another id":             {CampaignID: "0190a000-0000-7000-8000-000000000002"},
		"another campaign's own": {CampaignID: campaignID, State: &campaign.State{CampaignID: "0190a000-0000-7000-8000-000000000002"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.ExecuteWorkflow(string(campaign.WorkflowCampaign), start)
			var app *temporal.ApplicationError
			require.ErrorAs(t, b.GetWorkflowError(), &app)
			require.Equal(t, string(campaign.CodeInvalidParameter), app.Type())
			require.True(t, app.NonRetryable())
			require.Empty(t, b.events)
		})
	}
}
