package workflows_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/musterhq/muster/campaign"
)

// Counting a large audience takes its time: whoever stops the campaign meanwhile does not
// wait for it, and what was to be submitted is refused.
func TestAStopDoesNotWaitForARoute(t *testing.T) {
	b := newBench(t)
	b.OnActivity(string(campaign.ActivityRouteApproval), anything).After(time.Hour).Return(func(in campaign.RouteRequest) (campaign.RoutedApproval, error) {
		l, err := b.loaded(in.Revision)
		return b.routed(l), err
	})
	submitted := b.at(time.Hour, campaign.UpdateSubmit, submitCmd())
	var stopped campaign.Status
	b.at(time.Hour+time.Minute, campaign.UpdateStop, campaign.ChangeHold{Command: command(operator, "stop"), Reason: "wrong"})
	b.RegisterDelayedCallback(func() { stopped = b.status() }, time.Hour+2*time.Minute)
	b.run()
	require.Equal(t, campaign.StageRejected, stopped.Stage)
	require.Equal(t, campaign.CodeStateConflict, code(submitted.err))
	require.Empty(t, b.rounds)
	require.Equal(t, "withdrawn", b.status().Ended)
}

// A route that cannot be found out, whatever is tried, is a refusal and no campaign that
// hangs.
func TestARouteThatFailsIsGivenUp(t *testing.T) {
	b := newBench(t)
	asked := 0
	b.OnActivity(string(campaign.ActivityRouteApproval), anything).Return(func(campaign.RouteRequest) (campaign.RoutedApproval, error) {
		asked++
		return campaign.RoutedApproval{}, errors.New("too slow")
	})
	submitted := b.at(time.Hour, campaign.UpdateSubmit, submitCmd())
	stopped := b.at(2*time.Hour, campaign.UpdateStop, campaign.ChangeHold{Command: command(operator, "stop"), Reason: "wrong"})
	b.run()
	require.Error(t, submitted.err)
	require.Equal(t, 3, asked)
	require.NoError(t, stopped.err)
}

// Two submissions while the audience is counted open one round.
func TestOfTwoSubmissionsOneOpensARound(t *testing.T) {
	b := newBench(t)
	b.OnActivity(string(campaign.ActivityRouteApproval), anything).After(time.Minute).Return(func(in campaign.RouteRequest) (campaign.RoutedApproval, error) {
		l, err := b.loaded(in.Revision)
		return b.routed(l), err
	})
	second := submitCmd()
	second.UpdateID = "second"
	one, two := b.at(time.Hour, campaign.UpdateSubmit, submitCmd()), b.at(time.Hour+time.Second, campaign.UpdateSubmit, second)
	b.at(2*time.Hour, campaign.UpdateStop, campaign.ChangeHold{Command: command(operator, "stop"), Reason: "enough"})
	b.run()
	require.NoError(t, one.err)
	require.Equal(t, campaign.CodeStateConflict, code(two.err))
	require.Len(t, b.rounds, 1)
}

// An amendment that everybody signed and that no money is left for says so.
func TestAnAmendmentWithoutMoneySaysWhy(t *testing.T) {
	b := newBench(t)
	var why string
	b.OnActivity(string(campaign.ActivityReserve), anything).Return(func(ref campaign.PlanRef) error {
		if ref.Revision == 2 {
			return temporal.NewNonRetryableApplicationError("the budget lacks 7", string(campaign.CodeBudgetInsufficient), nil)
		}
		return nil
	})
	b.OnActivity(string(campaign.ActivityProject), anything).Return(func(p campaign.Projection) error {
		if p.Event == "campaign.amendment_refused" {
			why = p.Reason
		}
		return nil
	})
	b.approved()
	dearer := testPlan()
	dearer.Budget[0].Amount++
	b.plans[2] = dearer
	amend := campaign.Amend{Command: command(planner, "amend"), Revision: 2, Digest: dearer.Digest(), Reason: "more"}
	b.at(days(20), campaign.UpdateAmend, amend)
	b.at(days(20)+time.Hour, campaign.UpdateDecide, signing(amend, manager, 1))
	b.at(days(20)+2*time.Hour, campaign.UpdateDecide, signing(amend, finance, 2))
	var after campaign.Status
	b.RegisterDelayedCallback(func() { after = b.status() }, days(20)+3*time.Hour)
	b.run()
	require.Equal(t, campaign.ApprovalUnfunded, after.Approval.Result)
	require.Contains(t, after.Approval.Words, "the budget lacks 7")
	require.Contains(t, why, "the budget lacks 7")
	require.Equal(t, 1, after.Revision, "the plan in force goes on")
}
