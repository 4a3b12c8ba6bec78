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
		require.True(t, b.claimed[5].NotBefore.After(b.Now()), "the rows are asked whether the time has come")
	}, 110*time.Minute)
	b.at(2*time.Hour, campaign.UpdateDecide, approve(manager, 1))
	b.at(3*time.Hour, campaign.UpdateDecide, approve(finance, 2))
	b.run()
	require.Equal(t, campaign.StageClosed, b.status().Stage)
}

// A wave whose signatures do not hold fails with the reason, and no further one begins
// before a person has looked.
func TestARefusedDispatchStopsTheCampaign(t *testing.T) {
	b := newBench(t)
	words := "wave 1 may not be dispatched by call: the signature of Finance at level 2 does not hold"
	b.OnActivity(string(campaign.ActivityCreateContacts), anything).Return(campaign.ContactBatch{},
		temporal.NewNonRetryableApplicationError(words, string(campaign.CodeDispatchRefused), nil)).Once()
	b.approved()
	b.RegisterDelayedCallback(func() {
		s := b.status()
		require.Equal(t, words, s.Waves[0].Failure)
		require.Equal(t, words, s.Problem)
		require.Equal(t, campaign.CodeDispatchRefused, s.ProblemCode)
	}, days(1))
	b.RegisterDelayedCallback(func() { require.False(t, b.status().Waves[1].Begun, "the second wave waits") }, days(40))
	b.at(days(41), campaign.UpdateResume, campaign.ChangeHold{Command: command(operator, "resume"), Reason: "signed again"})
	b.run()
	for _, chunk := range b.chunks {
		require.Equal(t, 2, chunk.Wave)
	}
	require.Equal(t, campaign.StageClosed, b.status().Stage)
	require.True(t, b.status().Waves[1].Begun)
}
