package workflows_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/musterhq/muster/campaign"
)

// parallelRoute lets finance and two of the managers sign side by side, in working time.
func parallelRoute() []campaign.ApprovalLevel {
	return []campaign.ApprovalLevel{
		{Level: 1, Stage: 1, Name: "marketing manager", Action: campaign.ActApprovalManager, DueAfter: 2 * day},
		{Level: 2, Stage: 2, Name: "finance", Action: campaign.ActApprovalFinance, DueAfter: 4 * day},
		{Level: 3, Stage: 2, Name: "managers", Action: campaign.ActApprovalManager, Required: 2, DueAfter: 2 * day, OnExpiry: campaign.ExpiryReject},
	}
}

var second, third = campaign.Actor{UserID: "m2", Login: "second", Name: "M2"}, campaign.Actor{UserID: "m3", Login: "third", Name: "M3"}

func TestLevelsOfAStageWaitSideBySide(t *testing.T) {
	b := newBench(t)
	b.route = parallelRoute()
	b.at(time.Hour, campaign.UpdateSubmit, submitCmd())
	early := b.at(90*time.Minute, campaign.UpdateDecide, approve(finance, 2))
	first := b.at(2*time.Hour, campaign.UpdateDecide, approve(manager, 1))
	one := b.at(3*time.Hour, campaign.UpdateDecide, approve(second, 3))
	two := b.at(4*time.Hour, campaign.UpdateDecide, approve(finance, 2))
	again := b.at(5*time.Hour, campaign.UpdateDecide, approve(manager, 3))
	last := b.at(6*time.Hour, campaign.UpdateDecide, approve(third, 3))
	b.run()
	require.Equal(t, campaign.CodeStateConflict, code(early.err), "its stage has not begun")
	require.Len(t, first.status.Approval.Waiting, 2)
	require.Equal(t, "finance", first.status.WaitingOn)
	require.Len(t, one.status.Approval.Waiting, 2, "one of two signatures")
	require.Len(t, two.status.Approval.Waiting, 1)
	require.Equal(t, "managers", two.status.WaitingOn)
	require.Equal(t, campaign.CodeSameActor, code(again.err))
	require.NoError(t, last.err)
	require.Equal(t, "completed", b.status().Ended)
	require.Equal(t, 1, b.reminded, "of the review alone")

	require.Len(t, b.rounds, 1, "the frozen route is a row")
	require.Equal(t, parallelRoute(), b.rounds[0].Route)
	require.Equal(t, planner.UserID, b.rounds[0].Requester)
	p := testPlan()
	require.Equal(t, p.Digest(), b.rounds[0].Digest)
}

// Each level has its own clock: the one beside it neither reminds nor expires for it.
func TestEachLevelHasItsOwnClock(t *testing.T) {
	b := newBench(t)
	b.route = parallelRoute()
	b.at(time.Hour, campaign.UpdateSubmit, submitCmd())
	b.at(2*time.Hour, campaign.UpdateDecide, approve(manager, 1))
	from := 2 * time.Hour
	seen := map[string]campaign.Status{}
	look := func(name string, at time.Duration) {
		b.RegisterDelayedCallback(func() { seen[name] = b.status() }, from+at)
	}
	reminded := map[string]int{}
	count := func(name string, at time.Duration) {
		b.RegisterDelayedCallback(func() { reminded[name] = b.reminded }, from+at)
	}
	count("half of level 3", 25*time.Hour)
	look("level 3 overdue", 49*time.Hour)
	count("half of level 2", 49*time.Hour)
	b.run()
	require.Equal(t, 1, reminded["half of level 3"])
	require.Equal(t, 3, reminded["half of level 2"], "level 3 again when it was overdue, level 2 at its half")
	waiting := seen["level 3 overdue"].Approval.Waiting
	require.False(t, waiting[0].Escalated)
	require.True(t, waiting[1].Escalated)
	a := b.status().Approval
	require.Equal(t, campaign.ApprovalRejected, a.Result, "the level that expired first says what becomes of the plan")
	require.Equal(t, 3, a.Expired)
	require.Equal(t, "rejected", b.status().Ended)
}

func TestDueTimesFollowTheCalendar(t *testing.T) {
	b := newBench(t)
	office := []campaign.Window{{From: "09:00", To: "17:00"}}
	b.calendar = &campaign.Calendar{Name: "office", Zone: "UTC", Week: campaign.Week{Monday: office, Tuesday: office, Wednesday: office, Thursday: office, Friday: office}}
	b.route = testRoute()[:1]
	b.route[0].DueAfter = 16 * 3600
	b.SetStartTime(time.Date(2026, 11, 27, 8, 0, 0, 0, time.UTC)) // a Friday
	b.at(time.Hour, campaign.UpdateSubmit, submitCmd())
	var sunday, tuesday campaign.Status
	b.RegisterDelayedCallback(func() { sunday = b.status() }, 2*24*time.Hour)
	b.RegisterDelayedCallback(func() { tuesday = b.status() }, 4*24*time.Hour+time.Hour)
	b.at(4*24*time.Hour+2*time.Hour, campaign.UpdateStop, campaign.ChangeHold{Command: command(operator, "stop"), Reason: "late"})
	b.run()
	require.Equal(t, time.Date(2026, 11, 30, 17, 0, 0, 0, time.UTC), sunday.DueAt.UTC(), "two working days")
	require.False(t, sunday.Approval.Waiting[0].Escalated)
	require.True(t, tuesday.Approval.Waiting[0].Escalated)
	require.Equal(t, time.Date(2026, 12, 2, 17, 0, 0, 0, time.UTC), tuesday.DueAt.UTC())
}

func TestAPlanIsWithdrawnChangedAndSubmittedAgain(t *testing.T) {
	b := newBench(t)
	early := b.at(30*time.Minute, campaign.UpdateWithdraw, campaign.Withdraw{Command: command(planner, "w0"), Words: "too early"})
	b.at(time.Hour, campaign.UpdateSubmit, submitCmd())
	b.at(2*time.Hour, campaign.UpdateDecide, approve(manager, 1))
	mute := b.at(3*time.Hour, campaign.UpdateWithdraw, campaign.Withdraw{Command: command(planner, "w1")})
	taken := b.at(4*time.Hour, campaign.UpdateWithdraw, campaign.Withdraw{Command: command(planner, "w2"), Words: "the price is wrong"})
	var draft campaign.Status
	b.RegisterDelayedCallback(func() { draft = b.status() }, 4*time.Hour+time.Minute)
	late := b.at(5*time.Hour, campaign.UpdateDecide, approve(finance, 2))
	second := submitCmd()
	second.UpdateID = "submit-again"
	again := b.at(6*time.Hour, campaign.UpdateSubmit, second)
	// The manager's signature of the first round stands neither for nor against one in the second.
	manager2 := approve(manager, 1)
	manager2.UpdateID = "approve-again"
	signed := b.at(7*time.Hour, campaign.UpdateDecide, manager2)
	b.at(8*time.Hour, campaign.UpdateDecide, approve(finance, 2))
	b.run()
	require.Equal(t, campaign.CodeStateConflict, code(early.err))
	require.Equal(t, campaign.CodeReasonRequired, code(mute.err))
	require.NoError(t, taken.err)
	require.Equal(t, campaign.StageDraft, draft.Stage)
	require.Equal(t, campaign.ApprovalWithdrawn, draft.Approval.Result)
	require.Equal(t, "the price is wrong", draft.Approval.Words)
	require.Equal(t, campaign.CodeStateConflict, code(late.err), "a signature after the withdrawal counts for nothing")
	require.NoError(t, again.err)
	require.Equal(t, 2, again.status.Approval.Round)
	require.NoError(t, signed.err)
	require.Equal(t, "completed", b.status().Ended)
	require.Len(t, b.rounds, 2)
}

func TestAWithdrawnAmendmentLeavesThePlanInForce(t *testing.T) {
	b := newBench(t)
	b.approved()
	dearer := testPlan()
	dearer.Budget[0].Amount *= 2
	b.plans[2] = dearer
	amended := b.at(days(10), campaign.UpdateAmend, campaign.Amend{Command: command(planner, "amend"), Revision: 2, Digest: dearer.Digest(), Reason: "more calls"})
	taken := b.at(days(11), campaign.UpdateWithdraw, campaign.Withdraw{Command: command(planner, "w"), Words: "fewer after all"})
	var after campaign.Status
	b.RegisterDelayedCallback(func() { after = b.status() }, days(12))
	b.run()
	require.NoError(t, amended.err)
	require.NoError(t, taken.err)
	require.Equal(t, campaign.StageRunning, after.Stage)
	require.Equal(t, 1, after.Revision)
	require.Equal(t, "completed", b.status().Ended)
}

// What came back is with the planner, at the field that it is about.
func TestAReturnSaysWhatIsToChange(t *testing.T) {
	b := newBench(t)
	b.at(time.Hour, campaign.UpdateSubmit, submitCmd())
	back := approve(manager, 1)
	back.Decision, back.Words = campaign.DecisionReturn, "too dear"
	back.Fields = []campaign.FieldNote{{Field: "budget[0].amount", Words: "half of it"}}
	returned := b.at(2*time.Hour, campaign.UpdateDecide, back)
	var draft campaign.Status
	b.RegisterDelayedCallback(func() { draft = b.status() }, 3*time.Hour)
	b.at(4*time.Hour, campaign.UpdateStop, campaign.ChangeHold{Command: command(operator, "stop"), Reason: "enough"})
	b.run()
	require.NoError(t, returned.err)
	require.Equal(t, campaign.StageDraft, draft.Stage)
	require.Equal(t, back.Fields, draft.Approval.Signatures[0].Fields)
	require.Equal(t, "too dear", draft.Approval.Signatures[0].Words)
}

// A campaign of the same requester came to count between the choice of the route and the
// opening of the round: the route is chosen again.
func TestARouteThatIsOutdatedIsChosenAgain(t *testing.T) {
	b := newBench(t)
	routed := 0
	b.OnActivity(string(campaign.ActivityRouteApproval), anything).Return(func(r campaign.RouteRequest) (campaign.RoutedApproval, error) {
		if routed++; routed == 2 {
			b.route = parallelRoute()
		}
		l, err := b.loaded(r.Revision)
		return b.routed(l), err
	})
	b.OnActivity(string(campaign.ActivityOpenRound), anything).Return(func(r campaign.Round) error {
		if len(r.Route) == 2 {
			return temporal.NewNonRetryableApplicationError("another campaign counts", string(campaign.CodeRouteOutdated), nil)
		}
		return nil
	})
	submitted := b.at(time.Hour, campaign.UpdateSubmit, submitCmd())
	b.at(2*time.Hour, campaign.UpdateStop, campaign.ChangeHold{Command: command(operator, "stop"), Reason: "enough"})
	b.run()
	require.NoError(t, submitted.err)
	require.Equal(t, parallelRoute(), submitted.status.Approval.Route)
	require.Equal(t, 2, routed)
}
