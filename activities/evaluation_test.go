package activities_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/activities"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/evaluation"
	"github.com/musterhq/muster/store"
)

func (f *fixture) report() activities.Report {
	f.t.Helper()
	e, err := f.Store.Evaluation(f.ctx, f.id)
	require.NoError(f.t, err)
	var r activities.Report
	require.NoError(f.t, json.Unmarshal(e.Report, &r))
	return r
}

// finish runs wave 2 by SMS, lets every n-th treated customer and, when control is
// true, every twentieth of the control group buy, and settles.
func (f *fixture) finish(n int, control bool) {
	f.t.Helper()
	batch := f.create(2, campaign.ChannelSMS)
	_, err := f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, batch))
	require.NoError(f.t, err)
	rows, err := f.Store.Contacts(f.ctx, f.id, store.ContactFilter{Limit: 500})
	require.NoError(f.t, err)
	for i, c := range rows {
		if i%n == 0 {
			_, err := f.Store.RecordOutcomes(f.ctx, f.id, true, []store.Outcome{{CustomerID: c.CustomerID, Kind: campaign.OutcomeOrdered, At: time.Now(), Source: "shop", SourceID: c.ID}})
			require.NoError(f.t, err)
		}
	}
	if control {
		f.exec(`INSERT INTO outcome (id, campaign_id, customer_id, kind, at, source, source_id, simulated)
			SELECT gen_random_uuid(), $1, customer_id, 'ordered', now(), 'shop', customer_id::text, true FROM campaign_target WHERE arm = 'control' LIMIT 2`, f.id)
	}
	require.NoError(f.t, f.CloseContacts(f.ctx, f.ref()))
	require.NoError(f.t, f.Settle(f.ctx, f.ref()))
	require.NoError(f.t, f.Evaluate(f.ctx, campaign.EvaluationInput{CampaignID: f.id, Revision: 1}))
}

func TestEvaluationWithoutControlOutcomesEstimatesNothing(t *testing.T) {
	f := newFixture(t, nil)
	count := f.run()
	f.finish(6, false)
	r := f.report()
	require.True(t, r.Simulated)
	require.Equal(t, "not_estimable", r.Control.IncrementalEffect)
	require.Equal(t, evaluation.ReasonControlOutcomesNotObserved, r.Control.Reason)
	require.False(t, r.Control.Effect.Incremental.Estimable)
	require.Nil(t, r.Control.Effect.Incremental.Value)
	require.Equal(t, evaluation.VerdictNotEstimable, r.Economics.Verdict)
	require.Equal(t, count.Targets-count.Control, r.Control.Treated)
	require.Equal(t, count.Control, r.Control.Control)
	require.Zero(t, r.Control.ControlContacted)
	require.True(t, r.Control.SampleRatio.Estimable)
	require.False(t, r.Control.SampleRatio.Mismatched)

	require.True(t, r.Targets.AddsUp)
	require.Equal(t, count.Targets, r.Targets.Frozen)
	require.Equal(t, count.Control, r.Targets.Places["control"])
	require.Equal(t, count.Waves[0].Treated, r.Targets.Places["not_contacted"], "wave 1 never began")
	require.Equal(t, count.Waves[1].Treated, r.Targets.Places["sent"])

	sent := count.Waves[1].Treated
	won := (sent + 5) / 6
	require.Equal(t, won, r.Goal.Actual)
	require.Equal(t, won >= 20, r.Goal.Reached)
	require.Equal(t, map[string]int64{"ordered": won}, r.Outcomes)
	require.Len(t, r.Funnel.Rows, 1)
	require.Equal(t, evaluation.FunnelCounts{Planned: sent, Sent: sent, Positive: won}, r.Funnel.Rows[0].FunnelCounts)
	cost := 10*sent + 2_000*won + 30_000
	require.Equal(t, cost, r.Budget.Total.Actual)
	require.Empty(t, r.Budget.Exceeded)
	require.Equal(t, cost, r.Economics.Cost)
	require.Equal(t, 10_000*won-cost, *r.Economics.Net.Minor)

	// The first report stands.
	before, err := f.Store.Evaluation(f.ctx, f.id)
	require.NoError(t, err)
	f.exec(`DELETE FROM outcome`)
	require.NoError(t, f.Evaluate(f.ctx, campaign.EvaluationInput{CampaignID: f.id, Revision: 1}))
	after, err := f.Store.Evaluation(f.ctx, f.id)
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM evaluation WHERE digest = encode(sha256(convert_to(report::text, 'UTF8')), 'hex')`))
	f.sound()
}

func TestEvaluationWithOutcomesOfEveryone(t *testing.T) {
	f := newFixture(t, func(p *campaign.Plan) { p.Measurement.Coverage = campaign.CoverageEveryone })
	f.run()
	f.finish(3, true)
	r := f.report()
	require.Equal(t, "estimated", r.Control.IncrementalEffect)
	require.EqualValues(t, 2, r.Control.ControlSuccesses)
	e := r.Control.Effect
	require.True(t, e.Incremental.Estimable)
	d := float64(r.Control.TreatedSuccesses)/float64(r.Control.Treated) - 2/float64(r.Control.Control)
	require.InDelta(t, d, *e.Difference.Value, 1e-12)
	require.InDelta(t, d*float64(r.Control.Treated), *e.Incremental.Value, 1e-9)
}

func TestEvaluationWithoutControlGroup(t *testing.T) {
	f := newFixture(t, func(p *campaign.Plan) {
		p.Measurement.Coverage, p.Audience.ControlPercent = campaign.CoverageEveryone, 0
	})
	f.run()
	f.finish(3, false)
	r := f.report()
	require.Equal(t, "not_estimable", r.Control.IncrementalEffect)
	require.Equal(t, evaluation.ReasonEmptyArm, r.Control.Reason)
}

func TestReviewRecommendsAnotherSeriesAndAppliesItOnce(t *testing.T) {
	f := newFixture(t, func(p *campaign.Plan) {
		p.Channels[0].SuccessRate = 0.5
		p.Waves[1].Channels = []campaign.Channel{campaign.ChannelCall, campaign.ChannelSMS}
	})
	f.run()
	batch := f.create(1, campaign.ChannelCall)
	_, err := f.DispatchChunk(f.ctx, f.chunk(1, campaign.ChannelCall, batch))
	require.NoError(t, err)
	in := campaign.ReviewInput{CampaignID: f.id, Review: 1, Revision: 1, DecideWithin: 60, DoneWaves: []int{1}, OpenWaves: []int{2}}
	_, err = f.ApplyRecommendation(f.ctx, campaign.ReviewRef{CampaignID: f.id, Review: 1})
	require.Equal(t, campaign.CodeNotFound, code(t, err))

	// Every task is worked without any success: forty expected, none came.
	tasks, err := f.Store.ClaimTasks(f.ctx, store.TaskClaim{AgentID: f.users["agent"].UserID, Units: []campaign.OrgUnit{"operator"}, Channel: campaign.ChannelCall, Limit: 200, Lease: time.Minute})
	require.NoError(t, err)
	require.Len(t, tasks, int(batch.Contacts))
	var reports []store.TaskReport
	for _, task := range tasks {
		reports = append(reports, store.TaskReport{TaskID: task.ID, Result: campaign.OutcomeConnected, Seconds: 10})
	}
	done, err := f.Store.CompleteTasks(f.ctx, f.users["agent"].UserID, []campaign.OrgUnit{"operator"}, "key", reports)
	require.NoError(t, err)
	for _, d := range done {
		require.NoError(t, d.Fault)
	}
	measured, err := f.Measure(f.ctx, in)
	require.NoError(t, err)
	require.True(t, measured.Recommends)
	require.Contains(t, measured.Summary, "wave 2 should use sms")
	again, err := f.Measure(f.ctx, in)
	require.NoError(t, err)
	require.Equal(t, measured, again)
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM review`))

	ref := campaign.ReviewRef{CampaignID: f.id, Review: 1, Actor: f.users["reviewer"]}
	next, err := f.ApplyRecommendation(f.ctx, ref)
	require.NoError(t, err)
	require.Equal(t, 2, next.Revision)
	require.Equal(t, next.Plan.Digest(), next.Digest)
	require.Equal(t, f.users["reviewer"].UserID, next.EditorID)
	require.Equal(t, f.plan.Waves[0], next.Plan.Waves[0], "a wave that has begun keeps its channels")
	require.Equal(t, []campaign.Channel{campaign.ChannelSMS}, next.Plan.Waves[1].Channels)
	require.Equal(t, f.plan.Budget, next.Plan.Budget)
	same, err := f.ApplyRecommendation(f.ctx, ref)
	require.NoError(t, err)
	require.Equal(t, next, same)
	require.EqualValues(t, 2, f.count(`SELECT count(*) FROM plan_revision`))

	require.NoError(t, f.CloseReview(f.ctx, f.decides("reviewer", campaign.ReviewAccept)))
	require.NoError(t, f.CloseReview(f.ctx, f.decides("reviewer", campaign.ReviewKeep)))
	reviews, err := f.Store.Reviews(f.ctx, f.id)
	require.NoError(t, err)
	require.Equal(t, campaign.ReviewAccept, reviews[0].Decision, "decided once")
	require.Equal(t, "reviewer", reviews[0].Decider.Name)
	require.NoError(t, f.CaptureChannel(f.ctx, campaign.ChannelRef{CampaignID: f.id, Wave: 1, Revision: 1, Channel: campaign.ChannelCall}))
	require.Equal(t, 500*batch.Contacts, f.balance("calls").Captured)
	f.sound()
}

func TestReviewWithoutEvidenceRecommendsNothing(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	m, err := f.Measure(f.ctx, campaign.ReviewInput{CampaignID: f.id, Review: 1, Revision: 1, DecideWithin: 60, OpenWaves: []int{1, 2}})
	require.NoError(t, err)
	require.False(t, m.Recommends)
	_, err = f.ApplyRecommendation(f.ctx, campaign.ReviewRef{CampaignID: f.id, Review: 1})
	require.Equal(t, campaign.CodeRecommendationMissing, code(t, err))
}
