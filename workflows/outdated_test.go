package workflows_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

// bases says which revision each amendment was made from.
type bases struct {
	*bench
	of map[int]int
}

func withBases(b *bench) bases {
	all := bases{b, map[int]int{}}
	b.OnActivity(string(campaign.ActivityRouteApproval), anything).Return(func(r campaign.RouteRequest) (campaign.RoutedApproval, error) {
		l, err := b.loaded(r.Revision)
		l.Base = all.of[r.Revision]
		return b.routed(l), err
	})
	return all
}

// amendment is a dearer plan than testPlan, as revision, made from base. mixed takes over
// what the review of this bench recommends.
func (b bases) amendment(revision, base int, mixed bool) campaign.Amend {
	p := testPlan()
	p.Budget[0].Amount *= 2
	if mixed {
		p.Waves[1].Channels = []campaign.Channel{campaign.ChannelSMS}
	}
	b.plans[revision], b.of[revision] = p, base
	return campaign.Amend{Command: command(planner, fmt.Sprintf("amend-%d", revision)), Revision: revision, Digest: p.Digest(), Reason: "more calls"}
}

func signing(a campaign.Amend, by campaign.Actor, level int) campaign.Decide {
	id := a.UpdateID + by.Login
	return campaign.Decide{Command: command(by, id), SignOffID: id, Revision: a.Revision, Digest: a.Digest, Level: level, Decision: campaign.DecisionApprove}
}

func acceptReview() campaign.RecordReview {
	return campaign.RecordReview{Command: command(reviewer, "accept"), Review: 1, Decision: campaign.ReviewAccept}
}

// A recommendation that is accepted while an amendment waits for its approval stays in
// force: the amendment was made from the plan before it and cannot be signed any more.
func TestAnAmendmentDoesNotUndoAnAcceptedReview(t *testing.T) {
	b := withBases(newBench(t))
	b.approved()
	outdated, stale, again := b.amendment(3, 1, false), b.amendment(4, 1, false), b.amendment(5, 2, true)
	pending := b.at(days(20), campaign.UpdateAmend, outdated)
	b.at(days(20)+time.Hour, campaign.UpdateDecide, signing(outdated, manager, 1))
	accepted := b.at(days(22), campaign.UpdateRecordReview, acceptReview())
	late := b.at(days(22)+time.Hour, campaign.UpdateDecide, signing(outdated, finance, 2))
	refused := b.at(days(22)+2*time.Hour, campaign.UpdateAmend, stale)
	renewed := b.at(days(22)+3*time.Hour, campaign.UpdateAmend, again)
	b.at(days(22)+4*time.Hour, campaign.UpdateDecide, signing(again, manager, 1))
	b.at(days(22)+5*time.Hour, campaign.UpdateDecide, signing(again, finance, 2))
	b.run()

	require.NoError(t, pending.err)
	require.Equal(t, 3, pending.status.Approval.Revision)
	require.NoError(t, accepted.err)
	require.Equal(t, 2, accepted.status.Revision)
	require.Equal(t, campaign.ApprovalOutdated, accepted.status.Approval.Result)
	require.Equal(t, campaign.CodeAmendmentOutdated, code(late.err))
	require.Equal(t, campaign.CodeAmendmentOutdated, code(refused.err))
	require.NoError(t, renewed.err, "one that is made from the plan in force is taken")
	require.Equal(t, 5, b.status().Revision)
	require.Equal(t, []campaign.Channel{campaign.ChannelSMS}, b.status().Waves[1].Channels)
	require.Contains(t, b.events, "campaign.amendment_outdated")
	require.Equal(t, "completed", b.status().Ended)
}

// A campaign that was approved while there was a route for its money may do less without
// one; it needs the route again for more.
func TestAnAmendmentThatNeedsNoSignatureNeedsNoRoute(t *testing.T) {
	b := newBench(t)
	gone := false
	b.OnActivity(string(campaign.ActivityRouteApproval), anything).Return(func(in campaign.RouteRequest) (campaign.RoutedApproval, error) {
		l, err := b.loaded(in.Revision)
		routed := b.routed(l)
		if gone {
			routed.Route = nil
			routed.NoRoute = campaign.Errorf(campaign.CodeNoRoute, "no approval route is in USD").With("currency", "USD")
		}
		return routed, err
	})
	amend := func(at time.Duration, revision int, change int64) *answer {
		p := testPlan()
		p.Budget[0].Amount += change
		b.plans[revision] = p
		return b.at(at, campaign.UpdateAmend, campaign.Amend{
			Command: command(planner, fmt.Sprintf("amend-%d", revision)), Revision: revision, Digest: p.Digest(), Reason: "other figures",
		})
	}
	b.approved()
	b.RegisterDelayedCallback(func() { gone = true }, days(10))
	dearer, cheaper := amend(days(20), 2, 1), amend(days(21), 3, -1)
	b.run()
	require.Equal(t, campaign.CodeNoRoute, code(dearer.err))
	require.ErrorContains(t, dearer.err, "no approval route is in USD")
	require.NoError(t, cheaper.err)
	require.Equal(t, 3, cheaper.status.Revision)
	require.Equal(t, "completed", b.status().Ended)

	b = newBench(t)
	b.OnActivity(string(campaign.ActivityRouteApproval), anything).Return(func(in campaign.RouteRequest) (campaign.RoutedApproval, error) {
		l, err := b.loaded(in.Revision)
		return campaign.RoutedApproval{LoadedPlan: l, NoRoute: campaign.Errorf(campaign.CodeNoRoute, "none")}, err
	})
	submitted := b.at(time.Hour, campaign.UpdateSubmit, submitCmd())
	b.at(days(1), campaign.UpdateStop, campaign.ChangeHold{Command: command(operator, "stop"), Reason: "no way"})
	b.run()
	require.Equal(t, campaign.CodeNoRoute, code(submitted.err))
	require.Equal(t, "withdrawn", b.status().Ended)
}

func TestWaveEventsNameTheirWave(t *testing.T) {
	b := newBench(t)
	var told []campaign.Projection
	b.OnActivity(string(campaign.ActivityProject), anything).Return(func(p campaign.Projection) error {
		if p.Event == "wave.begun" || p.Event == "wave.done" {
			told = append(told, campaign.Projection{Event: p.Event, Wave: p.Wave})
		} else if p.Wave != 0 {
			t.Errorf("%s is about wave %d", p.Event, p.Wave)
		}
		return nil
	})
	b.approved()
	b.run()
	require.Equal(t, []campaign.Projection{
		{Event: "wave.begun", Wave: 1}, {Event: "wave.done", Wave: 1}, {Event: "wave.begun", Wave: 2}, {Event: "wave.done", Wave: 2},
	}, told)
}
