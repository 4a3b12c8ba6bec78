package demo

import (
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/channels"
	"github.com/musterhq/muster/evaluation"
	"github.com/musterhq/muster/internal/dataset"
	"github.com/musterhq/muster/internal/population"
	"github.com/musterhq/muster/policies"
	"github.com/musterhq/muster/targeting"
)

var kinds = []population.Kind{population.KindBank, population.KindOperator}

func set(t *testing.T, kind population.Kind) *dataset.Set {
	t.Helper()
	if kind == population.KindOperator {
		s, err := dataset.Operator(dataset.OperatorOptions{Size: population.GeneratedSize, Units: population.OperatorUnits})
		require.NoError(t, err)
		return s
	}
	bank, err := dataset.ParseBank([]byte(bankHeader))
	require.NoError(t, err)
	s, err := bank.Population(population.BankUnits)
	require.NoError(t, err)
	return s
}

const bankHeader = `"age";"job";"marital";"education";"default";"housing";"loan";"contact";"month";"day_of_week";"duration";"campaign";"pdays";"previous";"poutcome";"emp.var.rate";"cons.price.idx";"cons.conf.idx";"euribor3m";"nr.employed";"y"` + "\n"

func TestPlansAreValid(t *testing.T) {
	for _, kind := range kinds {
		p := Plan(kind)
		require.NoError(t, p.Validate(), kind)
		require.True(t, p.Simulated)
		require.NotEmpty(t, p.Digest())
	}
}

func TestFiltersCompile(t *testing.T) {
	types := map[dataset.Type]targeting.Type{
		dataset.Int: targeting.Int, dataset.Float: targeting.Float, dataset.Text: targeting.Text,
		dataset.Bool: targeting.Bool, dataset.Timestamp: targeting.Timestamp,
	}
	for _, kind := range kinds {
		var fields []targeting.Field
		for _, a := range set(t, kind).Attributes {
			if !a.PostContact && !a.PII { // the others are nobody's to select by
				fields = append(fields, targeting.Field{Name: a.Name, Column: "c." + a.Name, Type: types[a.Type], Nullable: true})
			}
		}
		if kind == population.KindBank {
			fields = append(fields, targeting.Field{Name: population.CohortAttribute, Column: "c.cohort", Type: targeting.Text, Nullable: true})
		}
		catalogue, err := targeting.NewCatalogue(fields)
		require.NoError(t, err)
		p := Plan(kind)
		_, err = catalogue.Compile(p.Audience.Filter)
		require.NoError(t, err, kind)
		for _, tier := range p.Audience.Tiers {
			_, err := catalogue.Compile(tier.Filter)
			require.NoError(t, err, "%s %s", kind, tier.Tier)
		}
	}
}

func TestBothManagerAndFinanceSign(t *testing.T) {
	e, err := policies.New(context.Background(), func(context.Context) ([]campaign.Grant, error) { return nil, nil }, policies.Fixed(policies.Standard()))
	require.NoError(t, err)
	for _, kind := range kinds {
		p := Plan(kind)
		facts, err := campaign.FactsOf(&p)
		require.NoError(t, err)
		routed, err := e.Route(facts)
		require.NoError(t, err)
		var actions []campaign.Action
		for _, l := range routed.Route {
			actions = append(actions, l.Action)
		}
		require.Equal(t, []campaign.Action{campaign.ActApprovalManager, campaign.ActApprovalFinance}, actions, kind)
	}
}

func TestTheReviewIsDecidedBeforeItsWaveBegins(t *testing.T) {
	for _, kind := range kinds {
		p := Plan(kind)
		require.Zero(t, p.Waves[0].StartAfter)
		require.GreaterOrEqual(t, p.Waves[1].StartAfter, p.Review.After+p.Review.DecideWithin)
		require.Less(t, p.Schedule.RunFor+p.Schedule.SettleFor, int64(180), "the slowest demo still closes within three minutes")
		for _, c := range p.Channels {
			if c.Channel == campaign.ChannelSMS {
				parts, _ := channels.Parts(c.Text)
				require.Equal(t, 1, parts, "one message is one part")
			}
		}
	}
}

func TestAReviewMayMoveEverybodyToCallsWithinTheBudget(t *testing.T) {
	p := Plan(population.KindBank)
	line, ok := p.ContactLine(campaign.ChannelCall)
	require.True(t, ok)
	calls, _ := p.Channel(campaign.ChannelCall)
	const mostTreated = 4_000
	require.GreaterOrEqual(t, line.Amount, line.UnitCost*int64(calls.MaximumAttempts)*mostTreated)
}

// audience is a customer of the bank plan's audience, by the plan's own rules written
// in Go.
type audience struct {
	dataset.Recorded
	core bool
}

func bankAudience(t *testing.T, s *dataset.Set, bank *dataset.Bank) (all []audience) {
	t.Helper()
	at := map[string]int{}
	for i, a := range s.Attributes {
		at[a.Name] = i
	}
	for rows := s.Stream(0, s.Size); rows.Next(); {
		c := rows.Customer()
		text := func(name string) string { return c.Values[at[name]].(string) }
		switch text("education") {
		case "university.degree", "high.school", "professional.course":
		default:
			continue
		}
		if text("in_default") != "no" || text("loan") != "no" || text("job") == "unemployed" || text("job") == "unknown" {
			continue
		}
		age := c.Values[at["age"]].(int64)
		r, ok := bank.Recorded(c.ExternalID)
		require.True(t, ok)
		all = append(all, audience{r, text("previous_outcome") == "success" || age >= 60 || age < 30})
	}
	return all
}

// TestTheRecordedFiguresLeadToARecommendation computes, from the published data, the
// rate that the plan takes from the history and what the review will say of wave 1.
func TestTheRecordedFiguresLeadToARecommendation(t *testing.T) {
	folder := os.Getenv("MUSTER_DATA")
	if folder == "" {
		t.Skip("MUSTER_DATA names no folder with the published data")
	}
	found, err := dataset.Locate(context.Background(), dataset.BankMarketing, dataset.LocateOptions{DataDir: folder})
	require.NoError(t, err)
	bank, err := dataset.ParseBank(found.Data)
	require.NoError(t, err)
	history, err := bank.History(population.BankUnits)
	require.NoError(t, err)
	ahead, err := bank.Population(population.BankUnits)
	require.NoError(t, err)
	past, targets := bankAudience(t, history, bank), bankAudience(t, ahead, bank)
	require.Len(t, targets, 4_442)

	p := Plan(population.KindBank)
	call, _ := p.Channel(campaign.ChannelCall)
	sms, _ := p.Channel(campaign.ChannelSMS)

	// The planned rate: the history's by tier, in the audience's proportion of tiers.
	var people, orders, wanted [2]float64
	tier := func(a audience) int {
		if a.core {
			return 0
		}
		return 1
	}
	for _, a := range past {
		people[tier(a)]++
		if a.Subscribed && a.Attempts <= call.MaximumAttempts {
			orders[tier(a)]++
		}
	}
	require.Equal(t, [2]float64{2_095, 11_938}, people)
	require.Equal(t, [2]float64{193, 532}, orders)
	for _, a := range targets {
		wanted[tier(a)]++
	}
	rate := (wanted[0]*orders[0]/people[0] + wanted[1]*orders[1]/people[1]) / (wanted[0] + wanted[1])
	require.InDelta(t, call.SuccessRate, rate, 0.0005)

	// Wave 1 as it was recorded, nine in ten of it treated: whom two calls did not reach
	// got an SMS, of which nothing is recorded.
	var called, attempts, ordered, texted int64
	n := 0
	for _, a := range targets {
		if !a.core {
			continue
		}
		if n++; n%10 == 0 {
			continue // the control group
		}
		called++
		attempts += int64(min(a.Attempts, call.MaximumAttempts))
		switch {
		case a.Attempts > call.MaximumAttempts:
			texted++
		case a.Subscribed:
			ordered++
		}
	}
	line := func(c campaign.Channel) int64 { l, _ := p.ContactLine(c); return l.UnitCost }
	results := []evaluation.ChannelResult{
		{Channel: "call", Contacts: called, Reached: called - texted, Positive: ordered, Cost: attempts * line(campaign.ChannelCall), PlannedRate: call.SuccessRate},
		// Some messages are refused or lost.
		{Channel: "sms", Contacts: texted * 95 / 100, Reached: texted * 90 / 100, Cost: texted * line(campaign.ChannelSMS), PlannedRate: sms.SuccessRate},
	}
	var mix []evaluation.ChannelShare
	for _, c := range p.Waves[1].Channels {
		mix = append(mix, evaluation.ChannelShare{Channel: string(c)})
	}
	advice := evaluation.Review(results, mix, p.Goal.UnitBenefit, 0.002)
	require.Equal(t, evaluation.DecisionChange, advice.Decision)
	require.Len(t, advice.Mix, 2)
	require.Equal(t, "call", advice.Mix[0].Channel)
	require.Equal(t, evaluation.ActionKeep, advice.Mix[0].Action)
	require.Equal(t, "sms", advice.Mix[1].Channel)
	require.Equal(t, evaluation.ActionReduce, advice.Mix[1].Action)
	t.Logf("wave 1: %d called with %d attempts, %d ordered, %d texted", called, attempts, ordered, texted)
}
