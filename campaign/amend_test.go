package campaign_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

func TestOnlyMoneyIsSignedForByItsDifference(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*campaign.Plan)
		added  int64
		only   bool
	}{
		"nothing":                  {func(*campaign.Plan) {}, 0, false},
		"less":                     {func(p *campaign.Plan) { p.Budget[0].Amount-- }, 0, false},
		"a higher line":            {func(p *campaign.Plan) { p.Budget[0].Amount += 7 }, 7, true},
		"a higher contingency":     {func(p *campaign.Plan) { p.Contingency += 5 }, 5, true},
		"both":                     {func(p *campaign.Plan) { p.Budget[0].Amount += 7; p.Contingency += 5 }, 12, true},
		"moved from line to line":  {func(p *campaign.Plan) { p.Budget[0].Amount += 7; p.Budget[1].Amount -= 7 }, 7, true},
		"and a shorter run":        {func(p *campaign.Plan) { p.Budget[0].Amount += 7; p.Schedule.RunFor-- }, 7, true},
		"and a longer run":         {func(p *campaign.Plan) { p.Budget[0].Amount += 7; p.Schedule.RunFor++ }, 0, false},
		"and another text":         {func(p *campaign.Plan) { p.Budget[0].Amount += 7; p.Channels[0].Text += "!" }, 0, false},
		"and a lower price":        {func(p *campaign.Plan) { p.Budget[0].Amount += 7; p.Budget[0].UnitCost-- }, 0, false},
		"and another audience":     {func(p *campaign.Plan) { p.Budget[0].Amount += 7; p.Audience.Filter = "true" }, 0, false},
		"a new line":               {func(p *campaign.Plan) { p.Budget = append(p.Budget, campaign.BudgetLine{Line: "more", Amount: 1}) }, 0, false},
		"more than there is money": {func(p *campaign.Plan) { p.Budget[0].Amount = 1<<63 - 1; p.Contingency = 1<<63 - 1 }, 0, false},
	} {
		now, next := validPlan(), validPlan()
		c.change(&next)
		added, only := campaign.Added(&now, &next)
		require.Equal(t, c.only, only, name)
		if only {
			require.Equal(t, c.added, added, name)
		}
		require.Equal(t, validPlan(), now, "%s: the plan in force is only read", name)
	}
	now, next := validPlan(), validPlan()
	now.Budget[0].Category = campaign.CategoryPrepaid
	next.Budget[0].Category = campaign.CategoryPrepaid
	next.Budget[0].Amount++
	_, only := campaign.Added(&now, &next)
	require.False(t, only, "prepaid credit takes its own route")
}

func TestTheDifferenceNamesFieldsAsTheValidatorDoes(t *testing.T) {
	now, next := validPlan(), validPlan()
	next.Name = "Summer"
	next.Budget[0].Amount += 7
	next.Contingency = 5
	next.Budget = append(next.Budget, campaign.BudgetLine{Line: "more", Category: campaign.CategoryMedia, Driver: campaign.DriverFixed, Amount: 1})
	next.Waves[0].Channels = next.Waves[0].Channels[:1]
	got := map[string][2]string{}
	changes, err := campaign.Difference(&now, &next)
	require.NoError(t, err)
	for _, c := range changes {
		got[c.Path] = [2]string{string(c.Before), string(c.After)}
	}
	text := func(v any) string {
		b, err := json.Marshal(v)
		require.NoError(t, err)
		return string(b)
	}
	last := len(now.Budget)
	require.JSONEq(t, text(next.Budget[last]), got[field("budget", last)][1])
	require.Empty(t, got[field("budget", last)][0], "it was not there")
	delete(got, field("budget", last))
	require.Equal(t, map[string][2]string{
		"name":                 {text(now.Name), `"Summer"`},
		"budget[0].amount":     {text(now.Budget[0].Amount), text(next.Budget[0].Amount)},
		"contingency":          {"", "5"},
		"waves[0].channels[1]": {text(now.Waves[0].Channels[1]), ""},
	}, got)
	same, err := campaign.Difference(&now, &now)
	require.NoError(t, err)
	require.Empty(t, same)
}

func field(name string, i int) string { return name + "[" + string(rune('0'+i)) + "]" }
