package evaluation

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestPosteriorFixtures(t *testing.T) {
	p := prior{a: 5, mean: 1}
	for _, tc := range []struct {
		y, e        float64
		mean, below string
	}{
		{12, 25, "0.5667", "0.9437"},
		{30, 25, "1.1667", "0.0206"},
		{3, 10, "0.5333", "0.9105"},
	} {
		mean, below := p.posterior(tc.y, tc.e)
		printed(t, tc.mean, &mean)
		probability := below(0.8)
		printed(t, tc.below, &probability)
	}
}

func TestExcessEvidenceFixtures(t *testing.T) {
	for _, tc := range []struct {
		events, trials int64
		want           string
	}{
		{2, 1000, "-0.463095"}, {10, 1000, "6.042485"}, {12, 2000, "4.075976"}, {60, 20000, "3.107490"}, {70, 20000, "7.797152"},
	} {
		got := ExcessEvidence(tc.events, tc.trials, 0.002)
		printed(t, tc.want, &got)
	}
}

// Looked at every day for 70 days, evidence under a rate at its limit seldom reaches ln 20.
func TestExcessEvidenceKeepsItsLevelUnderDailyLooks(t *testing.T) {
	const campaigns, days, perDay, limit = 400, 70, 300, 0.01
	random := rand.New(rand.NewPCG(7, 42))
	alarms := 0
	for range campaigns {
		var events, trials int64
		for range days {
			for range perDay {
				if random.Float64() < limit {
					events++
				}
			}
			trials += perDay
			if ExcessEvidence(events, trials, limit) >= -math.Log(complaintAlpha) {
				alarms++
				break
			}
		}
	}
	// 5 % and three standard errors.
	require.LessOrEqual(t, alarms, 33)
}

func TestPriorByMomentsNeedsFourChannels(t *testing.T) {
	channel := func(positive int64) ChannelResult {
		return ChannelResult{Contacts: 1000, Positive: positive, PlannedRate: 0.1}
	}
	require.Equal(t, prior{a: 5, mean: 1}, priorOf(nil))
	require.Equal(t, prior{a: 5, mean: 0.9}, priorOf([]ChannelResult{channel(80), channel(100)}))
	// Σ(y−E)² = 2·(40²)+2·(20²) = 4000, less ΣE = 400, over ΣE² = 40000: Var .09, a = 1/.09.
	p := priorOf([]ChannelResult{channel(60), channel(140), channel(80), channel(120)})
	require.InDelta(t, 1, p.mean, 1e-12)
	require.InDelta(t, 1/0.09, p.a, 1e-9)
	// No more spread than chance gives: all channels are taken as alike.
	require.Equal(t, 200.0, priorOf([]ChannelResult{channel(100), channel(101), channel(99), channel(100)}).a)
	require.Positive(t, priorOf([]ChannelResult{channel(0)}).mean)
}

func TestReview(t *testing.T) {
	mix := []ChannelShare{{"call", 4000}, {"sms", 6000}}
	good := ChannelResult{Channel: "sms", Contacts: 10_000, Reached: 9000, Positive: 110, Cost: 10_000 * 10, PlannedRate: 0.01}
	codes := func(r Recommendation) map[string][]FindingCode {
		m := map[string][]FindingCode{}
		for _, f := range r.Findings {
			m[f.Channel] = append(m[f.Channel], f.Code)
		}
		return m
	}
	for _, tc := range []struct {
		name     string
		call     ChannelResult
		findings []FindingCode
		decision Decision
		mix      []MixEntry
	}{
		{
			"on plan", ChannelResult{Contacts: 1000, Positive: 98, Cost: 1000 * 800, PlannedRate: 0.1},
			[]FindingCode{FindingOnPlan}, DecisionKeep,
			[]MixEntry{
				{"call", 4000, 4000, ActionKeep, []FindingCode{FindingOnPlan}},
				{"sms", 6000, 6000, ActionKeep, []FindingCode{FindingOnPlan}},
			},
		},
		{
			"too early", ChannelResult{Contacts: 190, Positive: 0, Cost: 190 * 800, PlannedRate: 0.1},
			[]FindingCode{FindingCollecting}, DecisionKeep,
			[]MixEntry{
				{"call", 4000, 4000, ActionKeep, []FindingCode{FindingCollecting}},
				{"sms", 6000, 6000, ActionKeep, []FindingCode{FindingOnPlan}},
			},
		},
		{
			"below plan, still worth it", ChannelResult{Contacts: 1000, Positive: 50, Cost: 1000 * 100, PlannedRate: 0.1},
			[]FindingCode{FindingUnderPlan}, DecisionChange,
			[]MixEntry{
				{"sms", 8000, 6000, ActionKeep, []FindingCode{FindingOnPlan}},
				{"call", 2000, 4000, ActionReduce, []FindingCode{FindingUnderPlan}},
			},
		},
		{
			"loses money", ChannelResult{Contacts: 1000, Positive: 50, Cost: 1000 * 1500, PlannedRate: 0.1},
			[]FindingCode{FindingLoss, FindingUnderPlan}, DecisionChange,
			[]MixEntry{
				{"sms", 10000, 6000, ActionKeep, []FindingCode{FindingOnPlan}},
				{"call", 0, 4000, ActionDrop, []FindingCode{FindingLoss, FindingUnderPlan}},
			},
		},
		{
			"breaks even, so a loss is not proven", ChannelResult{Contacts: 1000, Positive: 98, Cost: 1000 * 2000, PlannedRate: 0.1},
			[]FindingCode{FindingOnPlan}, DecisionKeep,
			[]MixEntry{
				{"call", 4000, 4000, ActionKeep, []FindingCode{FindingOnPlan}},
				{"sms", 6000, 6000, ActionKeep, []FindingCode{FindingOnPlan}},
			},
		},
		{
			"complaints", ChannelResult{Contacts: 1000, Positive: 98, Complaints: 10, Cost: 1000 * 800, PlannedRate: 0.1},
			[]FindingCode{FindingComplaints}, DecisionChange,
			[]MixEntry{
				{"sms", 10000, 6000, ActionKeep, []FindingCode{FindingOnPlan}},
				{"call", 0, 4000, ActionDrop, []FindingCode{FindingComplaints}},
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.call.Channel = "call"
			// A success is worth 200.00, so a call at plan is worth 20.00 and a message 2.00.
			r := Review([]ChannelResult{tc.call, good}, mix, 200_00, 0.002)
			require.Equal(t, tc.findings, codes(r)["call"])
			require.Equal(t, tc.decision, r.Decision)
			require.Equal(t, tc.mix, r.Mix)
			_, err := json.Marshal(r)
			require.NoError(t, err)
		})
	}
}

func TestReviewOfASeriesReordersWithoutShares(t *testing.T) {
	r := Review([]ChannelResult{
		{Channel: "call", Contacts: 1000, Positive: 50, Cost: 1000 * 100, PlannedRate: 0.1},
		{Channel: "sms", Contacts: 10_000, Positive: 110, Cost: 10_000 * 10, PlannedRate: 0.01},
	}, []ChannelShare{{"call", 0}, {"sms", 0}}, 200_00, 0)
	require.Equal(t, DecisionChange, r.Decision)
	require.Equal(t, "sms", r.Mix[0].Channel)
	require.Zero(t, r.Mix[0].Share+r.Mix[1].Share)
}

func TestReviewStopsWhenNoChannelIsLeft(t *testing.T) {
	r := Review([]ChannelResult{{Channel: "call", Contacts: 1000, Positive: 10, Cost: 1000 * 5000, PlannedRate: 0.1}},
		[]ChannelShare{{"call", 10_000}}, 200_00, 0)
	require.Equal(t, DecisionStop, r.Decision)
	require.Zero(t, r.Mix[0].Share)
}

func TestReviewOfNothing(t *testing.T) {
	r := Review(nil, []ChannelShare{{"call", 10_000}}, 200_00, 0)
	require.Equal(t, DecisionKeep, r.Decision)
	require.Equal(t, []MixEntry{{"call", 10_000, 10_000, ActionKeep, []FindingCode{FindingNotContacted}}}, r.Mix)
	require.Equal(t, DecisionKeep, Review(nil, nil, 0, 0).Decision)
}

// Whatever happened, shares add up to what they were unless every channel is dropped, every
// figure is finite, and nothing changes unless some channel is reduced or dropped.
func TestReviewKeepsTheShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var results []ChannelResult
		var mix []ChannelShare
		left := 10_000
		for i := range rapid.IntRange(1, 5).Draw(t, "channels") {
			name := string(rune('a' + i))
			share := rapid.IntRange(0, left).Draw(t, "share")
			left -= share
			mix = append(mix, ChannelShare{name, share})
			contacts := rapid.Int64Range(0, 5000).Draw(t, "contacts")
			results = append(results, ChannelResult{
				Channel: name, Contacts: contacts, Positive: rapid.Int64Range(0, contacts).Draw(t, "positive"),
				Complaints: rapid.Int64Range(0, contacts/100).Draw(t, "complaints"),
				Cost:       rapid.Int64Range(0, 10_000_000).Draw(t, "cost"), PlannedRate: rapid.Float64Range(0, 1).Draw(t, "rate"),
			})
		}
		r := Review(results, mix, rapid.Int64Range(0, 100_000).Draw(t, "benefit"), rapid.Float64Range(0, 0.1).Draw(t, "limit"))
		before, after, kept := 0, 0, 0
		against := false
		for _, m := range r.Mix {
			before += m.Previous
			after += m.Share
			require.GreaterOrEqual(t, m.Share, 0)
			require.NotEmpty(t, m.Reasons)
			if m.Action != ActionDrop {
				kept += m.Previous
			}
			against = against || m.Action != ActionKeep
		}
		require.Len(t, r.Mix, len(mix))
		if kept > 0 {
			require.Equal(t, before, after)
		}
		require.True(t, against || r.Decision == DecisionKeep)
		for _, f := range r.Findings {
			for name, v := range f.Figures {
				require.False(t, math.IsNaN(v) || math.IsInf(v, 0), "%s of %s", name, f.Code)
			}
		}
	})
}
