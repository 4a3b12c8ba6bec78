package campaign_test

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

func TestDigestsSayWhichPartOfAPlanChanged(t *testing.T) {
	plan := validPlan()
	base := plan.Digests()
	body, err := json.Marshal(plan)
	require.NoError(t, err)
	var back campaign.Plan
	require.NoError(t, json.Unmarshal(body, &back))
	require.Equal(t, base, back.Digests(), "the digests survive storage")
	for name, tt := range map[string]struct {
		change                    func(*campaign.Plan)
		content, audience, budget bool
	}{
		"nothing":              {func(*campaign.Plan) {}, false, false, false},
		"name":                 {func(p *campaign.Plan) { p.Name = "Other" }, false, false, false},
		"run":                  {func(p *campaign.Plan) { p.Schedule.RunFor++ }, false, false, false},
		"wave start":           {func(p *campaign.Plan) { p.Waves[1].StartAfter++ }, false, false, false},
		"offer":                {func(p *campaign.Plan) { p.Offer.Description = "half price" }, true, false, false},
		"text":                 {func(p *campaign.Plan) { p.Channels[1].Text += "!" }, true, false, false},
		"sender":               {func(p *campaign.Plan) { p.Channels[1].Sender = "10010" }, true, false, false},
		"text moved to sender": {func(p *campaign.Plan) { p.Channels[1].Text, p.Channels[1].Sender = "", p.Channels[1].Text }, true, false, false},
		"attempts":             {func(p *campaign.Plan) { p.Channels[0].MaximumAttempts++ }, false, false, true},
		"minutes":              {func(p *campaign.Plan) { p.Channels[0].MaximumMinutes++ }, false, false, true},
		"contingency":          {func(p *campaign.Plan) { p.Contingency++ }, false, false, true},
		"unit":                 {func(p *campaign.Plan) { p.Unit = "bank" }, false, true, false},
		"filter":               {func(p *campaign.Plan) { p.Audience.Filter = "true" }, false, true, false},
		"tier":                 {func(p *campaign.Plan) { p.Audience.Tiers[0].Filter = "age > 50" }, false, true, false},
		"control":              {func(p *campaign.Plan) { p.Audience.ControlPercent = 5 }, false, true, false},
		"maximum":              {func(p *campaign.Plan) { p.Audience.MaximumTargets = 9 }, false, true, false},
		"wave tiers":           {func(p *campaign.Plan) { p.Waves[0].Tiers, p.Waves[1].Tiers = p.Waves[1].Tiers, p.Waves[0].Tiers }, false, true, false},
		"amount":               {func(p *campaign.Plan) { p.Budget[0].Amount++ }, false, false, true},
		"unit cost":            {func(p *campaign.Plan) { p.Budget[0].UnitCost++ }, false, false, true},
		"line":                 {func(p *campaign.Plan) { p.Budget = p.Budget[:3] }, false, false, true},
		"currency":             {func(p *campaign.Plan) { p.Currency = "CNY" }, false, false, true},
		"unit benefit":         {func(p *campaign.Plan) { p.Goal.UnitBenefit++ }, false, false, true},
	} {
		p := validPlan()
		tt.change(&p)
		d := p.Digests()
		require.Equal(t, tt.content, d.Content != base.Content, "%s: content", name)
		require.Equal(t, tt.audience, d.Audience != base.Audience, "%s: audience", name)
		require.Equal(t, tt.budget, d.Budget != base.Budget, "%s: budget", name)
	}
	for _, d := range []string{base.Content, base.Audience, base.Budget} {
		require.Len(t, d, 64)
	}
}

func TestDigestOf(t *testing.T) {
	got, err := campaign.DigestOf("")
	require.NoError(t, err)
	require.Equal(t, "12ae32cb1ec02d01eda3581b127c1fee3b0dc53572ed6baf239721a03d82e126", got)
	p := validPlan()
	got, err = campaign.DigestOf(&p)
	require.NoError(t, err)
	require.Equal(t, p.Digest(), got)
	_, err = campaign.DigestOf(math.Inf(1))
	require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(err))
}
