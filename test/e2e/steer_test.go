package e2e_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/apiuser"
)

// continueSoon makes the embedded server suggest a new run to workflows after this many
// events instead of thousands, so that a campaign of minutes lives through what one of
// months does.
const continueSoon = "MUSTER_TEMPORAL_CONTINUE_AS_NEW_AT=60"

// TestPeopleSteerACampaign has people return a plan, pause, resume, amend and stop while
// messages leave and the campaign begins one run after the other. A hold takes effect
// when the API has answered, not some time later.
func TestPeopleSteerACampaign(t *testing.T) {
	t.Parallel()
	i, centre := newOperator(t, "9000", continueSoon)
	plan := smsPlan("A message under control")
	plan.Review = campaign.ReviewPlan{After: 800, DecideWithin: 10, Default: campaign.ReviewDefaultKeep}
	r, draft := i.people(t).create(t, plan)
	r.submit(t, draft)
	require.NoError(t, r.decide(t, r.manager, campaign.DecisionApprove, "Fine."))
	require.NoError(t, r.decide(t, r.finance, campaign.DecisionReturn, "Media are too dear."))
	require.Equal(t, campaign.StageDraft, r.detail(t).Status.Stage)

	plan.Budget[len(plan.Budget)-1].Amount -= 500_00
	revised := tell(t, r.planner, func(ctx context.Context, s *client.Session) (*client.PutPlanResponse, error) {
		return s.PutPlanWithResponse(ctx, r.id, &client.PutPlanParams{IfMatch: draft.Etag}, plan)
	}).JSON200
	r.submit(t, *revised)
	r.approve(t)
	contacts, shards := i.awaitDispatch(t, r)

	centre.awaitAccepted(t, contacts/20)
	r.crowd(t)
	centre.awaitAccepted(t, contacts/10)
	at := i.hold(t, func() {
		tell(t, r.operator, func(ctx context.Context, s *client.Session) (*client.PauseCampaignResponse, error) {
			return s.PauseCampaignWithResponse(ctx, r.id, nil, client.HoldReason{Reason: "The call centre is overrun."})
		})
	})
	paused := i.requireQuiet(t, r, centre, at, claimSize*shards)
	require.Less(t, int64(paused), contacts, "dispatch was over before the pause")

	// A cheaper plan needs no new signature, also while the campaign is paused.
	plan.Budget[len(plan.Budget)-1].Amount -= 500_00
	tell(t, r.planner, func(ctx context.Context, s *client.Session) (*client.AmendCampaignResponse, error) {
		return s.AmendCampaignWithResponse(ctx, r.id, nil, client.Amendment{Plan: plan, Reason: "Less for media."})
	})
	// A dearer one does, and for the little that it adds the manager's is enough.
	dearer := plan
	dearer.Budget = append([]campaign.BudgetLine(nil), plan.Budget...)
	dearer.Budget[len(dearer.Budget)-1].Amount += 100_00
	tell(t, r.planner, func(ctx context.Context, s *client.Session) (*client.AmendCampaignResponse, error) {
		return s.AmendCampaignWithResponse(ctx, r.id, nil, client.Amendment{Plan: dearer, Reason: "A little more for media."})
	})
	require.NoError(t, r.decide(t, r.manager, campaign.DecisionApprove, "Approved."))
	amended := r.await(t, "amended", func(d *client.CampaignDetail) bool { return d.Status.Revision == 4 })
	require.Equal(t, campaign.HoldPaused, amended.Status.Hold)
	require.Equal(t, paused, centre.accepted(t))

	tell(t, r.operator, func(ctx context.Context, s *client.Session) (*client.ResumeCampaignResponse, error) {
		return s.ResumeCampaignWithResponse(ctx, r.id, nil, client.HoldReason{Reason: "It is quiet again."})
	})
	centre.awaitAccepted(t, int64(paused)+contacts/10)
	at = i.hold(t, func() {
		tell(t, r.operator, func(ctx context.Context, s *client.Session) (*client.StopCampaignResponse, error) {
			return s.StopCampaignWithResponse(ctx, r.id, nil, client.HoldReason{Reason: "The offer was withdrawn."})
		})
	})
	stopped := i.requireQuiet(t, r, centre, at, claimSize*shards)

	detail := r.awaitArchive(t)
	require.Equal(t, campaign.StageClosed, detail.Status.Stage)
	require.Equal(t, "stopped", detail.Status.Ended)
	require.Equal(t, stopped, centre.accepted(t), "messages left after the stop")
	states := r.contacts(t)[waveChannel{1, campaign.ChannelSMS}]
	require.Equal(t, contacts, sum(states))
	require.Positive(t, states[campaign.ContactCancelled])
	require.GreaterOrEqual(t, states[campaign.ContactCancelled]+int64(stopped), contacts*9/10, "%v", states)
	i.requireAcceptedOnce(t, r, centre.read(t))
	i.requireSound(t, r)
	i.requireContinued(t, r)
	i.requireNoPeopleInTemporal(t, r)
	keepHistories(t, i, r, "continued")
	i.stop(t)
}

// crowd has the operator ask for more at once than Temporal lets be in flight: as many
// pauses as resumptions. Each is answered, and each that was said to be done was done
// once. The campaign runs afterwards.
func (r *running) crowd(t *testing.T) {
	t.Helper()
	const each = 12
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	reason := client.HoldReason{Reason: "Everybody calls at once."}
	refusals := make(chan error, 2*each)
	for range each {
		go func() {
			_, err := apiuser.Do(ctx, r.operator, "", func(ctx context.Context, s *client.Session) (*client.PauseCampaignResponse, error) {
				return s.PauseCampaignWithResponse(ctx, r.id, nil, reason)
			})
			refusals <- err
		}()
		go func() {
			_, err := apiuser.Do(ctx, r.operator, "", func(ctx context.Context, s *client.Session) (*client.ResumeCampaignResponse, error) {
				return s.ResumeCampaignWithResponse(ctx, r.id, nil, reason)
			})
			refusals <- err
		}()
	}
	done := 0
	for range 2 * each {
		if err := <-refusals; err != nil {
			require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(err), "%v", err)
		} else {
			done++
		}
	}
	require.Positive(t, done)
	recorded := 0
	for _, e := range r.history(t) {
		if e.Event == "campaign.paused" || e.Event == "campaign.resumed" {
			recorded++
		}
	}
	require.Equal(t, done, recorded)
	if r.detail(t).Status.Hold == campaign.HoldPaused {
		tell(t, r.operator, func(ctx context.Context, s *client.Session) (*client.ResumeCampaignResponse, error) {
			return s.ResumeCampaignWithResponse(ctx, r.id, nil, reason)
		})
	}
}

// hold asks for a hold and returns the database's time just after the answer.
func (i *instance) hold(t *testing.T, ask func()) (at time.Time) {
	t.Helper()
	st := i.open(t)
	ask()
	require.NoError(t, st.Pool().QueryRow(t.Context(), `SELECT now()`).Scan(&at))
	return at
}

// requireQuiet checks that nothing was begun after the hold: no intent, and at the SMS
// centre at most what was under way. It returns how many messages have left by then.
func (i *instance) requireQuiet(t *testing.T, r *running, centre *smsCentre, since time.Time, underWay int) int {
	t.Helper()
	before := centre.accepted(t)
	st := i.open(t)
	eventually(t, func() bool {
		var sending int
		err := st.Pool().QueryRow(t.Context(), `SELECT count(*) FROM contact WHERE campaign_id = $1 AND state = 'sending'`, r.id).Scan(&sending)
		return err == nil && sending == 0
	}, "what was under way ends")
	after := centre.accepted(t)
	require.LessOrEqual(t, after-before, underWay)
	// Long enough for every loop in muster to have had its turn.
	<-time.After(3 * time.Second)
	require.Equal(t, after, centre.accepted(t), "messages left after the hold")
	var late int
	require.NoError(t, st.Pool().QueryRow(t.Context(), `SELECT count(*) FROM contact_attempt WHERE campaign_id = $1 AND intent_at > $2`, r.id, since).Scan(&late))
	require.Zero(t, late, "intents after the hold")
	return after
}
