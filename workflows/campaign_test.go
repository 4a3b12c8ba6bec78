package workflows_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/musterhq/muster/campaign"
)

const campaignID = "0190a000-0000-7000-8000-000000000001"

var (
	planner  = campaign.Actor{UserID: "u-planner", Login: "planner", Name: "Planner"}
	manager  = campaign.Actor{UserID: "u-manager", Login: "manager", Name: "Manager"}
	finance  = campaign.Actor{UserID: "u-finance", Login: "finance", Name: "Finance"}
	operator = campaign.Actor{UserID: "u-operator", Login: "operator", Name: "Operator"}
	reviewer = campaign.Actor{UserID: "u-reviewer", Login: "reviewer", Name: "Reviewer"}
)

func testPlan() campaign.Plan {
	return campaign.Plan{
		Name: "Autumn deposits", Type: campaign.TypeAcquisition, Unit: "bank", Currency: "EUR",
		Goal: campaign.Goal{Metric: "subscriptions", Outcome: campaign.OutcomeOrdered, Target: 100, UnitBenefit: 12_000},
		Budget: []campaign.BudgetLine{
			{Line: "calls", Category: campaign.CategoryContact, Driver: campaign.DriverPerContact, Channel: campaign.ChannelCall, UnitCost: 250, Amount: 2_000_000},
			{Line: "messages", Category: campaign.CategoryContact, Driver: campaign.DriverPerContact, Channel: campaign.ChannelSMS, UnitCost: 5, Amount: 50_000},
		},
		Audience: campaign.Audience{
			Filter: "true", ControlPercent: 10,
			Tiers: []campaign.TierRule{{Tier: campaign.TierCore, Filter: "age > 60"}, {Tier: campaign.TierGeneral, Filter: "true"}},
		},
		Offer: campaign.Offer{Name: "Term deposit", Product: "deposit"},
		Channels: []campaign.ChannelPlan{
			{Channel: campaign.ChannelCall, Text: "Good day", MaximumAttempts: 3, RetryAfter: 60, SuccessRate: .1},
			{Channel: campaign.ChannelSMS, Text: "A deposit for you", Sender: "10086", SuccessRate: .01},
		},
		Waves: []campaign.WavePlan{
			{Number: 1, Tiers: []campaign.Tier{campaign.TierCore}, Channels: []campaign.Channel{campaign.ChannelCall, campaign.ChannelSMS}, ChannelWindow: 7 * day},
			{Number: 2, Tiers: []campaign.Tier{campaign.TierGeneral}, StartAfter: 28 * day, Channels: []campaign.Channel{campaign.ChannelCall, campaign.ChannelSMS}, ChannelWindow: 7 * day},
		},
		Review:      campaign.ReviewPlan{After: 21 * day, DecideWithin: 2 * day, Default: campaign.ReviewDefaultKeep},
		Schedule:    campaign.Schedule{RunFor: 70 * day, SettleFor: 3 * day},
		Measurement: campaign.Measurement{Coverage: campaign.CoverageContacted, Source: "recorded calls"},
	}
}

const day = 24 * 3600

func testRoute() []campaign.ApprovalLevel {
	return []campaign.ApprovalLevel{
		{Level: 1, Name: "marketing manager", Action: campaign.ActApprovalManager, DueAfter: 2 * day, EscalateTo: campaign.ActApprovalFinance},
		{Level: 2, Name: "finance", Action: campaign.ActApprovalFinance, DueAfter: 2 * day},
	}
}

func command(by campaign.Actor, id string) campaign.Command {
	return campaign.Command{UpdateID: id, Actor: by, PolicyVersion: "p1"}
}

func submitCmd() campaign.Submit {
	p := testPlan()
	return campaign.Submit{Command: command(planner, "submit"), Revision: 1, Digest: p.Digest()}
}

func approve(by campaign.Actor, level int) campaign.Decide {
	p := testPlan()
	return campaign.Decide{
		Command: command(by, fmt.Sprintf("approve-%d-%s", level, by.Login)), SignOffID: fmt.Sprintf("s-%d-%s", level, by.Login),
		Revision: 1, Digest: p.Digest(), Level: level, Decision: campaign.DecisionApprove,
	}
}

func code(err error) campaign.Code {
	var app *temporal.ApplicationError
	if errors.As(err, &app) {
		return campaign.Code(app.Type())
	}
	return ""
}

func (b *bench) run() {
	b.ExecuteWorkflow(string(campaign.WorkflowCampaign), campaign.Start{CampaignID: campaignID})
	require.True(b.t, b.IsWorkflowCompleted())
	require.NoError(b.t, b.GetWorkflowError())
}

func (b *bench) status() campaign.Status {
	v, err := b.QueryWorkflow(campaign.QueryStatus)
	require.NoError(b.t, err)
	var s campaign.Status
	require.NoError(b.t, v.Get(&s))
	return s
}

func (b *bench) approved() {
	b.at(time.Hour, campaign.UpdateSubmit, submitCmd())
	b.at(2*time.Hour, campaign.UpdateDecide, approve(manager, 1))
	b.at(3*time.Hour, campaign.UpdateDecide, approve(finance, 2))
}

func days(n int) time.Duration { return time.Duration(n) * day * time.Second }

func TestWholeLoop(t *testing.T) {
	b := newBench(t)
	b.approved()
	review := b.at(days(22), campaign.UpdateRecordReview, campaign.RecordReview{
		Command: command(reviewer, "review"), Review: 1, Decision: campaign.ReviewAccept,
	})
	b.run()
	require.NoError(t, review.err)
	s := b.status()
	require.Equal(t, campaign.StageClosed, s.Stage)
	require.Equal(t, "completed", s.Ended)
	require.Equal(t, 2, s.Revision)
	require.Equal(t, []campaign.Channel{campaign.ChannelCall, campaign.ChannelSMS}, s.Waves[0].Channels)
	require.Equal(t, []campaign.Channel{campaign.ChannelSMS}, s.Waves[1].Channels, "the accepted recommendation changed the wave to come")
	// Wave 1: two channels, wave 2: one; each two shards of 4,500 contacts in three chunks.
	require.Len(t, b.chunks, 3*2*3)
	require.Equal(t, []campaign.ReviewOutcome{{CampaignID: campaignID, Review: 1, Decision: campaign.ReviewAccept, Actor: reviewer, Revision: 2,
		Command: &campaign.RecordReview{Command: command(reviewer, "review"), Review: 1, Decision: campaign.ReviewAccept}}}, b.reviews)
	require.Equal(t, []string{
		"campaign.submitted", "approval.approve", "approval.approve", "stage.preparation", "stage.targeting", "selection.frozen",
		"stage.running", "wave.begun", "wave.done", "review.begun", "review.open", "review.accept", "wave.begun", "wave.done",
		"stage.settlement", "stage.evaluation", "stage.closed",
	}, b.events)
	require.Zero(t, b.reminded)
}

func TestApprovalRefusals(t *testing.T) {
	b := newBench(t)
	early := b.at(30*time.Minute, campaign.UpdateDecide, approve(manager, 1))
	b.at(time.Hour, campaign.UpdateSubmit, submitCmd())
	own := b.at(2*time.Hour, campaign.UpdateDecide, approve(planner, 1))
	stale := approve(manager, 1)
	stale.Digest = "old"
	edited := b.at(2*time.Hour, campaign.UpdateDecide, stale)
	forged := approve(manager, 1)
	forged.SignOffID = "forged"
	fake := b.at(2*time.Hour, campaign.UpdateDecide, forged)
	ok := b.at(3*time.Hour, campaign.UpdateDecide, approve(manager, 1))
	twice := b.at(4*time.Hour, campaign.UpdateDecide, approve(manager, 2))
	mute := approve(finance, 2)
	mute.Decision = campaign.DecisionReject
	silent := b.at(5*time.Hour, campaign.UpdateDecide, mute)
	no := mute
	no.Words = "too dear"
	rejected := b.at(6*time.Hour, campaign.UpdateDecide, no)
	b.run()
	require.Equal(t, campaign.CodeStateConflict, code(early.err))
	require.False(t, own.rejected, "who gave it is looked at first")
	require.Equal(t, campaign.CodeSelfApproval, code(own.err))
	require.Equal(t, campaign.CodeVersionChanged, code(edited.err))
	require.Equal(t, campaign.CodeAssertionMismatch, code(fake.err))
	require.NoError(t, ok.err)
	require.Equal(t, 2, ok.status.Approval.Waiting[0].Level)
	require.Equal(t, campaign.CodeSameActor, code(twice.err))
	require.Equal(t, campaign.CodeReasonRequired, code(silent.err))
	require.NoError(t, rejected.err)
	require.Equal(t, campaign.StageRejected, b.status().Stage)
	require.Equal(t, "rejected", b.status().Ended)
}

func TestReturnedPlanIsSubmittedAgain(t *testing.T) {
	b := newBench(t)
	b.at(time.Hour, campaign.UpdateSubmit, submitCmd())
	back := approve(manager, 1)
	back.Decision, back.Words = campaign.DecisionReturn, "fewer calls"
	returned := b.at(2*time.Hour, campaign.UpdateDecide, back)
	second := testPlan()
	second.Name = "Autumn deposits, fewer calls"
	b.plans[2] = second
	again := b.at(3*time.Hour, campaign.UpdateSubmit, campaign.Submit{Command: command(planner, "submit-2"), Revision: 2, Digest: second.Digest()})
	wrong := b.at(3*time.Hour+time.Minute, campaign.UpdateSubmit, campaign.Submit{Command: command(planner, "submit-3"), Revision: 2, Digest: second.Digest()})
	stop := b.at(4*time.Hour, campaign.UpdateStop, campaign.ChangeHold{Command: command(operator, "stop"), Reason: "not needed"})
	b.run()
	require.NoError(t, returned.err)
	require.NoError(t, again.err)
	require.Equal(t, 2, again.status.Approval.Revision)
	require.Equal(t, campaign.CodeStateConflict, code(wrong.err))
	require.NoError(t, stop.err)
	require.Equal(t, "withdrawn", b.status().Ended)
}

func TestOverdueApprovalEscalatesAndExpires(t *testing.T) {
	b := newBench(t)
	b.at(time.Hour, campaign.UpdateSubmit, submitCmd())
	var escalated, expired campaign.Status
	b.RegisterDelayedCallback(func() { escalated = b.status() }, time.Hour+days(3))
	b.RegisterDelayedCallback(func() { expired = b.status() }, time.Hour+days(5))
	b.at(days(6), campaign.UpdateStop, campaign.ChangeHold{Command: command(operator, "stop"), Reason: "late"})
	b.run()
	require.True(t, escalated.Approval.Waiting[0].Escalated)
	require.Equal(t, campaign.StageApproval, escalated.Stage)
	require.Equal(t, campaign.StageDraft, expired.Stage, "an expired round sends the plan back; it never approves")
	require.Equal(t, 2, b.reminded)
}

func TestUndecidedReviewTakesTheDefault(t *testing.T) {
	for _, c := range []struct {
		def      campaign.ReviewDefault
		revision int
		decision campaign.ReviewDecision
	}{{campaign.ReviewDefaultKeep, 1, campaign.ReviewKeep}, {campaign.ReviewDefaultAccept, 2, campaign.ReviewAccept}} {
		t.Run(string(c.def), func(t *testing.T) {
			b := newBench(t)
			p := testPlan()
			p.Review.Default = c.def
			b.plans[1] = p
			b.at(time.Hour, campaign.UpdateSubmit, campaign.Submit{Command: command(planner, "s"), Revision: 1, Digest: p.Digest()})
			for i, by := range []campaign.Actor{manager, finance} {
				d := approve(by, i+1)
				d.Digest = p.Digest()
				b.at(time.Duration(i+2)*time.Hour, campaign.UpdateDecide, d)
			}
			late := b.at(days(27), campaign.UpdateRecordReview, campaign.RecordReview{Command: command(reviewer, "r"), Review: 1, Decision: campaign.ReviewKeep})
			b.run()
			require.Equal(t, campaign.CodeStateConflict, code(late.err))
			require.Equal(t, c.revision, b.status().Revision)
			require.Len(t, b.reviews, 1)
			require.True(t, b.reviews[0].ByDefault)
			require.Equal(t, c.decision, b.reviews[0].Decision)
			require.Equal(t, 1, b.reminded)
		})
	}
}

func TestPauseHoldsTheNextWaveAndResumeLetsItGo(t *testing.T) {
	b := newBench(t)
	b.approved()
	b.at(days(10), campaign.UpdatePause, campaign.ChangeHold{Command: command(operator, "p"), Reason: "complaints"})
	twice := b.at(days(11), campaign.UpdatePause, campaign.ChangeHold{Command: command(operator, "p2"), Reason: "complaints"})
	var paused campaign.Status
	b.RegisterDelayedCallback(func() { paused = b.status() }, days(35))
	b.at(days(40), campaign.UpdateResume, campaign.ChangeHold{Command: command(operator, "r"), Reason: "settled"})
	b.run()
	require.Equal(t, campaign.CodeStateConflict, code(twice.err))
	require.Equal(t, campaign.HoldPaused, paused.Hold)
	require.False(t, paused.Waves[1].Begun)
	require.True(t, b.status().Waves[1].Done)
	require.Equal(t, []campaign.Hold{campaign.HoldPaused, campaign.HoldNone}, b.holds)
}

func TestStopSettlesAndEvaluatesWhatThereIs(t *testing.T) {
	b := newBench(t)
	b.approved()
	intruder := campaign.Actor{UserID: "u-x", Login: "intruder"}
	denied := b.at(days(9), campaign.UpdateStop, campaign.ChangeHold{Command: command(intruder, "x"), Reason: "fun"})
	mute := b.at(days(9), campaign.UpdateStop, campaign.ChangeHold{Command: command(operator, "m")})
	b.at(days(10), campaign.UpdateStop, campaign.ChangeHold{Command: command(operator, "s"), Reason: "wrong price"})
	b.run()
	require.Equal(t, campaign.CodeForbidden, code(denied.err))
	require.Equal(t, campaign.CodeReasonRequired, code(mute.err))
	s := b.status()
	require.Equal(t, "stopped", s.Ended)
	require.Equal(t, campaign.StageClosed, s.Stage)
	require.False(t, s.Waves[1].Begun)
}

func TestEmptySelectionWaitsForAnAmendment(t *testing.T) {
	b := newBench(t)
	p := testPlan()
	p.Audience.Filter = "false"
	b.plans[1] = p
	fixed := testPlan()
	b.plans[2] = fixed
	b.at(time.Hour, campaign.UpdateSubmit, campaign.Submit{Command: command(planner, "s"), Revision: 1, Digest: p.Digest()})
	sign := func(at time.Duration, by campaign.Actor, level, revision int, digest string) *answer {
		d := approve(by, level)
		d.UpdateID, d.SignOffID = fmt.Sprintf("%s-%d", d.UpdateID, revision), fmt.Sprintf("%s-%d", d.SignOffID, revision)
		d.Revision, d.Digest = revision, digest
		return b.at(at, campaign.UpdateDecide, d)
	}
	sign(2*time.Hour, manager, 1, 1, p.Digest())
	sign(3*time.Hour, finance, 2, 1, p.Digest())
	var stuck campaign.Status
	b.RegisterDelayedCallback(func() { stuck = b.status() }, 4*time.Hour)
	amended := b.at(5*time.Hour, campaign.UpdateAmend, campaign.Amend{Command: command(planner, "a"), Revision: 2, Digest: fixed.Digest(), Reason: "nobody matched"})
	first := sign(6*time.Hour, manager, 1, 2, fixed.Digest())
	second := sign(7*time.Hour, finance, 2, 2, fixed.Digest())
	b.run()
	require.Equal(t, campaign.CodeEmptySelection, stuck.ProblemCode)
	require.Equal(t, campaign.StageTargeting, stuck.Stage)
	require.NoError(t, amended.err)
	require.NotNil(t, amended.status.Approval, "other people are reached, so they are signed for again")
	require.NoError(t, first.err)
	require.NoError(t, second.err)
	require.Equal(t, 2, b.status().Revision)
	require.Equal(t, "completed", b.status().Ended)
}

func TestAmendmentThatCostsMoreNeedsApproval(t *testing.T) {
	b := newBench(t)
	b.approved()
	dearer := testPlan()
	dearer.Budget[0].Amount *= 2
	b.plans[2] = dearer
	touched := testPlan()
	touched.Audience.Filter = "age > 20"
	b.plans[3] = touched
	cheaper := testPlan()
	cheaper.Waves[1].Channels = []campaign.Channel{campaign.ChannelSMS}
	b.plans[4] = cheaper
	frozen := b.at(days(2), campaign.UpdateAmend, campaign.Amend{Command: command(planner, "a3"), Revision: 3, Digest: touched.Digest(), Reason: "wider"})
	free := b.at(days(2), campaign.UpdateAmend, campaign.Amend{Command: command(planner, "a4"), Revision: 4, Digest: cheaper.Digest(), Reason: "cheaper"})
	asked := b.at(days(3), campaign.UpdateAmend, campaign.Amend{Command: command(planner, "a2"), Revision: 2, Digest: dearer.Digest(), Reason: "more calls"})
	no := campaign.Decide{Command: command(manager, "no"), SignOffID: "s-no", Revision: 2, Digest: dearer.Digest(), Level: 1, Decision: campaign.DecisionReject, Words: "no"}
	refused := b.at(days(4), campaign.UpdateDecide, no)
	b.run()
	require.Equal(t, campaign.CodeInvalidPlan, code(frozen.err))
	require.NoError(t, free.err)
	require.Equal(t, 4, free.status.Revision)
	require.NoError(t, asked.err)
	require.Equal(t, campaign.StageRunning, asked.status.Stage, "running goes on while people decide")
	require.NoError(t, refused.err)
	require.Equal(t, "completed", b.status().Ended)
	require.Equal(t, 4, b.status().Revision)
}

func TestSameUpdateIDAppliesOnce(t *testing.T) {
	b := newBench(t)
	b.approved()
	hold := campaign.ChangeHold{Command: command(operator, "same"), Reason: "check"}
	b.atWithID(days(1), "t-1", campaign.UpdatePause, hold)
	again := b.atWithID(days(1)+time.Minute, "t-2", campaign.UpdatePause, hold)
	b.at(days(2), campaign.UpdateResume, campaign.ChangeHold{Command: command(operator, "r")})
	b.run()
	require.NoError(t, again.err, "the same id is answered, not refused and not applied")
	require.Equal(t, []campaign.Hold{campaign.HoldPaused, campaign.HoldNone}, b.holds)
}

func TestUpdateWithoutActorIsRefused(t *testing.T) {
	b := newBench(t)
	anonymous := b.at(time.Hour, campaign.UpdateSubmit, campaign.Submit{Revision: 1, Digest: "d"})
	b.at(2*time.Hour, campaign.UpdateStop, campaign.ChangeHold{Command: command(operator, "s"), Reason: "end"})
	b.run()
	require.True(t, anonymous.rejected)
}

func TestFailedWaveDoesNotHangTheCampaign(t *testing.T) {
	b := newBench(t)
	b.approved()
	b.OnActivity(string(campaign.ActivityCreateContacts), anything).Return(campaign.ContactBatch{},
		temporal.NewNonRetryableApplicationError("no template", string(campaign.CodeInvalidPlan), nil))
	b.run()
	s := b.status()
	require.Equal(t, campaign.StageClosed, s.Stage)
	require.Contains(t, s.Waves[0].Failure, "no template")
}

// TestARuleThatSaysNoIsAskedOnce: a rule's refusal is the outermost application error,
// not retryable and with its code and details, from the activity to the caller of the
// update. Wrapped in another error it would be retried and lose its code.
func TestARuleThatSaysNoIsAskedOnce(t *testing.T) {
	b := newBench(t)
	asked := 0
	b.OnActivity(string(campaign.ActivityVerify), anything).Return(func(campaign.Claim) error {
		asked++
		return temporal.NewApplicationErrorWithOptions("beyond your limit", string(campaign.CodeLimitExceeded), temporal.ApplicationErrorOptions{
			NonRetryable: true, Details: []any{[]campaign.FieldError{{Field: "amount"}}, map[string]any{"limit": 7}},
		})
	})
	refused := b.at(time.Hour, campaign.UpdateSubmit, submitCmd())
	b.RegisterDelayedCallback(b.CancelWorkflow, 2*time.Hour)
	b.ExecuteWorkflow(string(campaign.WorkflowCampaign), campaign.Start{CampaignID: campaignID})
	require.Equal(t, 1, asked)
	app, outermost := refused.err.(*temporal.ApplicationError) //nolint:errorlint // that nothing is around it is the point
	require.True(t, outermost)
	require.True(t, app.NonRetryable())
	require.Equal(t, string(campaign.CodeLimitExceeded), app.Type())
	var fields []campaign.FieldError
	var details map[string]any
	require.NoError(t, app.Details(&fields, &details))
	require.Equal(t, "amount", fields[0].Field)
	require.EqualValues(t, 7, details["limit"])
}

// TestAStopDuringAFailingSelectionStillSettles: nobody waits for the targets of a
// stopped campaign, so their failing must not keep it from its end.
func TestAStopDuringAFailingSelectionStillSettles(t *testing.T) {
	b := newBench(t)
	b.approved()
	b.OnActivity(string(campaign.ActivitySelectionStep), anything).After(time.Hour).Return(campaign.TargetCount{},
		temporal.NewNonRetryableApplicationError("nobody matches", string(campaign.CodeEmptySelection), nil))
	stop := b.at(3*time.Hour+time.Minute, campaign.UpdateStop, campaign.ChangeHold{Command: command(operator, "s"), Reason: "wrong"})
	b.run()
	require.NoError(t, stop.err)
	require.Equal(t, "stopped", b.status().Ended)
}

// TestAFailedSettlementOfAStoppedCampaignCanBeTriedAgain by resuming, which does not let
// it run again.
func TestAFailedSettlementOfAStoppedCampaignCanBeTriedAgain(t *testing.T) {
	b := newBench(t)
	b.approved()
	tries := 0
	b.OnActivity(string(campaign.ActivitySettle), anything).Return(func(campaign.PlanRef) error {
		if tries++; tries == 1 {
			return temporal.NewNonRetryableApplicationError("a rule said no", string(campaign.CodeHoldClosed), nil)
		}
		return nil
	})
	b.at(days(1), campaign.UpdateStop, campaign.ChangeHold{Command: command(operator, "s"), Reason: "wrong"})
	again := b.at(days(10), campaign.UpdateResume, campaign.ChangeHold{Command: command(operator, "r"), Reason: "mended"})
	b.run()
	require.NoError(t, again.err)
	require.Equal(t, "stopped", b.status().Ended)
	require.Equal(t, []campaign.Hold{campaign.HoldStopped}, b.holds)
}

// TestNoSignatureCountsAfterAStop: money reserved after the end would never be released.
func TestNoSignatureCountsAfterAStop(t *testing.T) {
	b := newBench(t)
	b.approved()
	dearer := testPlan()
	dearer.Budget[0].Amount *= 2
	b.plans[2] = dearer
	asked := b.at(days(2), campaign.UpdateAmend, campaign.Amend{Command: command(planner, "a2"), Revision: 2, Digest: dearer.Digest(), Reason: "more calls"})
	b.at(days(3), campaign.UpdateStop, campaign.ChangeHold{Command: command(operator, "s"), Reason: "wrong"})
	late := b.at(days(3)+time.Minute, campaign.UpdateDecide, campaign.Decide{
		Command: command(manager, "late"), SignOffID: "late", Revision: 2, Digest: dearer.Digest(), Level: 1, Decision: campaign.DecisionApprove,
	})
	b.run()
	require.NoError(t, asked.err)
	require.Equal(t, campaign.CodeStateConflict, code(late.err))
	require.Equal(t, campaign.ApprovalWithdrawn, b.status().Approval.Result)
	require.Equal(t, 1, b.status().Revision)
}

// TestAnAmendmentThatCannotBeReservedLeavesTheCampaignRunning on the plan in force.
func TestAnAmendmentThatCannotBeReservedLeavesTheCampaignRunning(t *testing.T) {
	b := newBench(t)
	b.approved()
	dearer := testPlan()
	dearer.Budget[0].Amount *= 2
	b.plans[2] = dearer
	b.OnActivity(string(campaign.ActivityReserve), anything).Return(func(p campaign.PlanRef) error {
		if p.Revision == 2 {
			return temporal.NewNonRetryableApplicationError("no money", string(campaign.CodeBudgetInsufficient), nil)
		}
		return nil
	})
	b.at(days(2), campaign.UpdateAmend, campaign.Amend{Command: command(planner, "a2"), Revision: 2, Digest: dearer.Digest(), Reason: "more calls"})
	for i, by := range []campaign.Actor{manager, finance} {
		d := approve(by, i+1)
		d.UpdateID, d.SignOffID, d.Revision, d.Digest = d.UpdateID+"-2", d.SignOffID+"-2", 2, dearer.Digest()
		b.at(days(3+i), campaign.UpdateDecide, d)
	}
	b.run()
	require.Equal(t, "completed", b.status().Ended)
	require.Equal(t, 1, b.status().Revision)
	require.Contains(t, b.events, "campaign.amendment_refused")
}
