package campaign_test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/campaign"
)

func validPlan() campaign.Plan {
	return campaign.Plan{
		Name: "Autumn deposits", Type: campaign.TypeAcquisition, Unit: "bank/north", Currency: "EUR",
		Goal: campaign.Goal{Metric: "subscriptions", Outcome: campaign.OutcomeOrdered, Target: 100, UnitBenefit: 12_000},
		Budget: []campaign.BudgetLine{
			{Line: "calls", Category: campaign.CategoryContact, Driver: campaign.DriverPerContact, Channel: campaign.ChannelCall, UnitCost: 250, Amount: 2_000_000},
			{Line: "messages", Category: campaign.CategoryContact, Driver: campaign.DriverPerContact, Channel: campaign.ChannelSMS, UnitCost: 5, Amount: 50_000},
			{Line: "incentive", Category: campaign.CategoryIncentive, Driver: campaign.DriverPerOrder, UnitCost: 500, Amount: 50_000},
			{Line: "posters", Category: campaign.CategoryMedia, Driver: campaign.DriverFixed, Amount: 10_000},
		},
		Audience: campaign.Audience{
			Filter: "age > 18", ControlPercent: 10,
			Tiers: []campaign.TierRule{{Tier: campaign.TierCore, Filter: "age > 60"}, {Tier: campaign.TierGeneral, Filter: "true"}},
		},
		Offer: campaign.Offer{Name: "Term deposit", Product: "deposit"},
		Channels: []campaign.ChannelPlan{
			{Channel: campaign.ChannelCall, Text: "Good day", MaximumAttempts: 3, SuccessRate: .1},
			{Channel: campaign.ChannelSMS, Text: "A deposit for you", SuccessRate: .01},
		},
		Waves: []campaign.WavePlan{
			{Number: 1, Tiers: []campaign.Tier{campaign.TierCore}, Channels: []campaign.Channel{campaign.ChannelCall, campaign.ChannelSMS}, ChannelWindow: 60},
			{Number: 2, Tiers: []campaign.Tier{campaign.TierGeneral}, StartAfter: 30, Channels: []campaign.Channel{campaign.ChannelSMS}, ChannelWindow: 60},
		},
		Review:      campaign.ReviewPlan{After: 20, DecideWithin: 10, Default: campaign.ReviewDefaultKeep},
		Schedule:    campaign.Schedule{RunFor: 100, SettleFor: 3},
		Measurement: campaign.Measurement{Coverage: campaign.CoverageContacted, Source: "recorded calls"},
	}
}

func TestValidPlanPasses(t *testing.T) {
	p := validPlan()
	require.NoError(t, p.Validate())
}

func TestEachFaultIsNamedAtItsField(t *testing.T) {
	cases := []struct {
		field string
		code  campaign.Code
		spoil func(*campaign.Plan)
	}{
		{"name", campaign.CodeInvalidText, func(p *campaign.Plan) { p.Name = " " }},
		{"name", campaign.CodeInvalidText, func(p *campaign.Plan) { p.Name = "safe\u202Eevil" }},
		{"name", campaign.CodeInvalidText, func(p *campaign.Plan) { p.Name = "a\x00b" }},
		{"name", campaign.CodeInvalidText, func(p *campaign.Plan) { p.Name = "\xff" }},
		{"type", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Type = "spam" }},
		{"unit", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Unit = "bank//north" }},
		{"currency", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Currency = "eur" }},
		{"currency", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Currency = "ABC" }},
		{"currency", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Currency = "DEM" }}, // withdrawn
		{"currency", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Currency = "XAU" }}, // no minor unit
		{"goal.target", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Goal.Target = 0 }},
		{"goal.unit_benefit", campaign.CodeAmountOutOfRange, func(p *campaign.Plan) { p.Goal.UnitBenefit = -1 }},
		{"goal.outcome", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Goal.Outcome = "bought" }},
		{"budget", campaign.CodeInvalidPlan, func(p *campaign.Plan) { p.Budget = nil }},
		{"budget[0].amount", campaign.CodeAmountOutOfRange, func(p *campaign.Plan) { p.Budget[0].Amount = 0 }},
		{"budget[0].amount", campaign.CodeAmountOutOfRange, func(p *campaign.Plan) { p.Budget[0].Amount = math.MaxInt64 }},
		{"budget[1].line", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Budget[1].Line = "calls" }},
		{"budget[1].line", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Budget[1].Line = "x'; drop" }},
		{"budget[1].channel", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Budget[1].Channel = "call" }},
		{"budget[2].channel", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Budget[2].Channel = "sms" }},
		{"budget[3].unit_cost", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Budget[3].UnitCost = 1 }},
		{"audience.filter", campaign.CodeInvalidFilter, func(p *campaign.Plan) { p.Audience.Filter = "" }},
		{"audience.tiers", campaign.CodeInvalidPlan, func(p *campaign.Plan) { p.Audience.Tiers = nil }},
		{"audience.tiers[1].tier", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Audience.Tiers[1].Tier = "core" }},
		{"audience.control_percent", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Audience.ControlPercent = math.NaN() }},
		{"audience.control_percent", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Audience.ControlPercent = 10.005 }},
		{"audience.control_percent", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Audience.ControlPercent = 50.01 }},
		{"channels[0].maximum_attempts", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Channels[0].MaximumAttempts = 0 }},
		{"channels[1].maximum_attempts", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Channels[1].MaximumAttempts = 2 }},
		{"channels[1].channel", campaign.CodeInvalidPlan, func(p *campaign.Plan) { p.Budget = append(p.Budget[:1], p.Budget[2:]...) }},
		{"waves[1].number", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Waves[1].Number = 3 }},
		{"waves[1].tiers", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Waves[1].Tiers = []campaign.Tier{"core", "general"} }},
		{"waves[1].channels", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Waves[1].Channels = []campaign.Channel{"sms", "sms"} }},
		{"waves[1].channels", campaign.CodeInvalidPlan, func(p *campaign.Plan) { p.Waves[1].Channels = nil }},
		{"waves", campaign.CodeInvalidPlan, func(p *campaign.Plan) { p.Waves = p.Waves[:1] }},
		{"review.after_seconds", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Review.After = 100 }},
		{"review.default", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Review.Default = "maybe" }},
		{"measurement.coverage", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Measurement.Coverage = "" }},
	}
	for _, c := range cases {
		p := validPlan()
		c.spoil(&p)
		err := p.Validate()
		require.Equal(t, campaign.CodeInvalidPlan, campaign.CodeOf(err), c.field)
		var e *campaign.Error
		require.ErrorAs(t, err, &e)
		require.Contains(t, fields(e), c.field+" "+string(c.code))
	}
}

func fields(e *campaign.Error) (names []string) {
	for _, f := range e.Fields {
		names = append(names, f.Field+" "+string(f.Code))
	}
	return names
}

func TestDigestSeesEveryField(t *testing.T) {
	p := validPlan()
	base := p.Digest()
	require.Len(t, base, 64)
	body, err := json.Marshal(p)
	require.NoError(t, err)
	var back campaign.Plan
	require.NoError(t, json.Unmarshal(body, &back))
	require.Equal(t, base, back.Digest(), "the digest survives storage")
	p.Waves[1].Channels[0] = campaign.ChannelCall
	require.NotEqual(t, base, p.Digest())
}

func TestMoneyArithmeticNeverWraps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Int64().Draw(t, "a"), rapid.Int64().Draw(t, "b")
		sum, err := campaign.AddMinor(a, b)
		wraps := (b > 0 && a > math.MaxInt64-b) || (b < 0 && a < math.MinInt64-b)
		require.Equal(t, wraps, err != nil)
		if !wraps {
			require.Equal(t, a+b, sum)
		}
		product, err := campaign.MulMinor(a, b)
		switch {
		case a < 0 || b < 0 || (a != 0 && b > math.MaxInt64/a):
			require.Equal(t, campaign.CodeAmountOutOfRange, campaign.CodeOf(err))
		default:
			require.NoError(t, err)
			require.Equal(t, a*b, product)
		}
	})
	require.Equal(t, "-12.05 CNY", campaign.Money{Minor: -1205, Currency: "CNY"}.String())
	require.Equal(t, "-92233720368547758.08 CNY", campaign.Money{Minor: math.MinInt64, Currency: "CNY"}.String())
	require.Equal(t, "-0.05 EUR", campaign.Money{Minor: -5, Currency: "EUR"}.String())
	require.Equal(t, "0 JPY", campaign.Money{Currency: "JPY"}.String())
	require.Equal(t, "-1205 JPY", campaign.Money{Minor: -1205, Currency: "JPY"}.String())
	require.Equal(t, "0.012 KWD", campaign.Money{Minor: 12, Currency: "KWD"}.String())
	require.Equal(t, "12.3456 CLF", campaign.Money{Minor: 123456, Currency: "CLF"}.String())
	_, err := campaign.Money{Minor: 1, Currency: "CNY"}.Add(campaign.Money{Minor: 1, Currency: "EUR"})
	require.Equal(t, campaign.CodeCurrencyMismatch, campaign.CodeOf(err))
}

func TestEveryStageLeadsToAnEnd(t *testing.T) {
	for _, s := range campaign.Stages() {
		reached := map[campaign.Stage]bool{s: true}
		for grown := true; grown; {
			grown = false
			for _, from := range campaign.Stages() {
				for _, to := range campaign.Stages() {
					if reached[from] && from.CanFollow(to) && !reached[to] {
						reached[to], grown = true, true
					}
				}
			}
		}
		require.True(t, reached[campaign.StageClosed] || reached[campaign.StageRejected], "from %s", s)
		require.False(t, s.CanFollow(s))
	}
	require.False(t, campaign.StageRunning.CanFollow(campaign.StageTargeting), "frozen targets stay frozen")
	require.True(t, campaign.StageClosed.Final())
	require.True(t, campaign.StageRejected.Final())
}

// TestNothingThatMayHaveLeftIsPlannedAgain is the rule behind "never twice".
func TestNothingThatMayHaveLeftIsPlannedAgain(t *testing.T) {
	for _, s := range []campaign.ContactState{campaign.ContactSent, campaign.ContactDelivered, campaign.ContactUnknown, campaign.ContactFailed} {
		for _, again := range []campaign.ContactState{campaign.ContactPlanned, campaign.ContactClaimed, campaign.ContactSending} {
			require.False(t, s.CanFollow(again), "%s → %s", s, again)
		}
		require.True(t, s.Settled())
	}
	for _, s := range []campaign.ContactState{campaign.ContactPlanned, campaign.ContactClaimed, campaign.ContactSending} {
		require.False(t, s.Settled())
	}
}

func TestOrgUnits(t *testing.T) {
	require.True(t, campaign.OrgUnit("op/north").Within("op"))
	require.True(t, campaign.OrgUnit("op").Within("op"))
	require.False(t, campaign.OrgUnit("op/north10").Within("op/north1"), "a name that begins alike is not below")
	require.False(t, campaign.OrgUnit("op").Within("op/north"))
	require.Equal(t, []campaign.OrgUnit{"a/b/c", "a/b", "a"}, campaign.OrgUnit("a/b/c").Chain())
	require.Equal(t, campaign.OrgUnit("a"), campaign.OrgUnit("a/b/c").Tenant())
	for _, bad := range []campaign.OrgUnit{"", "/", "a/", "A", "a b", "a/../b", "a/b/c/d/e/f/g/h/i"} {
		require.False(t, bad.Valid(), string(bad))
	}
}

func TestACampaignThatEndedShowsNoHold(t *testing.T) {
	for _, stage := range campaign.Stages() {
		for _, hold := range []campaign.Hold{campaign.HoldNone, campaign.HoldPaused, campaign.HoldStopped} {
			s := campaign.State{Stage: stage, Hold: hold}
			if stage.Final() {
				hold = ""
			}
			require.Equal(t, hold, s.Status().Hold, stage)
		}
	}
}

func TestCurrencies(t *testing.T) {
	for code, want := range map[string]int{"CNY": 2, "EUR": 2, "USD": 2, "JPY": 0, "KWD": 3, "UYW": 4, "XCG": 2} {
		digits, known := campaign.MinorDigits(code)
		require.True(t, known, code)
		require.Equal(t, want, digits, code)
	}
	for _, code := range []string{"", "cny", "CNYX", "ABC", "DEM", "ZWL", "XXX", "XTS", "XAU"} {
		_, known := campaign.MinorDigits(code)
		require.False(t, known, code)
	}
}

func TestAmendmentsKeepWhatHasHappened(t *testing.T) {
	now := validPlan()
	waves := []campaign.WaveRun{{Number: 1, Begun: true}, {Number: 2}}
	cases := []struct {
		field string
		spoil func(*campaign.Plan)
	}{
		{"", func(p *campaign.Plan) { p.Waves[1].Channels = []campaign.Channel{campaign.ChannelCall} }},
		{"", func(p *campaign.Plan) { p.Budget[0].Amount++ }},
		{"unit", func(p *campaign.Plan) { p.Unit = "bank" }},
		{"audience", func(p *campaign.Plan) { p.Audience.ControlPercent = 0 }},
		{"waves[0]", func(p *campaign.Plan) { p.Waves[0].ChannelWindow++ }},
		{"waves[1].tiers", func(p *campaign.Plan) { p.Waves[1].Tiers = []campaign.Tier{campaign.TierBasic} }},
		{"waves", func(p *campaign.Plan) { p.Waves = p.Waves[:1] }},
		{"budget", func(p *campaign.Plan) { p.Budget = p.Budget[:3] }},
	}
	for _, c := range cases {
		next := validPlan()
		c.spoil(&next)
		err := campaign.CheckAmendment(&now, &next, true, waves)
		if c.field == "" {
			require.NoError(t, err)
			continue
		}
		var e *campaign.Error
		require.ErrorAs(t, err, &e, c.field)
		require.Contains(t, fields(e), c.field+" "+string(campaign.CodeStateConflict))
	}
}

func TestAppliedUpdatesAreRememberedWithinBounds(t *testing.T) {
	var s campaign.State
	for i := range 600 {
		s.MarkApplied(string(rune('a'+i%26))+time.Duration(i).String(), "Pause")
	}
	require.Len(t, s.Applied, 500)
	require.True(t, s.WasApplied(s.Applied[499].ID))
	require.False(t, s.WasApplied("never"))
}

// TestTheLargestPlanFitsAPayload fills every field of a plan to its limit. A payload
// above 2 MiB would make its activity run again and again.
func TestTheLargestPlanFitsAPayload(t *testing.T) {
	p := validPlan()
	long := strings.Repeat("界", 2000)
	p.Name, p.Offer.Description = long[:600], long
	p.Audience.Filter = strings.Repeat("x", 10_000)
	p.Audience.Tiers = []campaign.TierRule{{Tier: "core", Filter: p.Audience.Filter}, {Tier: "general", Filter: p.Audience.Filter}, {Tier: "basic", Filter: p.Audience.Filter}}
	p.Waves = nil
	for i, tier := range []campaign.Tier{"core", "general", "basic"} {
		p.Waves = append(p.Waves, campaign.WavePlan{Number: i + 1, Tiers: []campaign.Tier{tier}, Channels: campaign.Channels(), ChannelWindow: 60})
	}
	for i := range p.Channels {
		p.Channels[i].Text = long
	}
	for i := len(p.Budget); i < 50; i++ {
		p.Budget = append(p.Budget, campaign.BudgetLine{Line: fmt.Sprintf("line_%d", i), Category: campaign.CategoryMedia, Driver: campaign.DriverFixed, Amount: 1})
	}
	require.NoError(t, p.Validate())
	body, err := json.Marshal(campaign.Start{State: &campaign.State{Plan: p, Pending: &campaign.LoadedPlan{Plan: p}}})
	require.NoError(t, err)
	require.Less(t, len(body), 256<<10, "far below the 2 MiB of a payload, also as the state of a continued run")
}

// TestOnlyLessOfTheSameNeedsNoNewSignature changes every part of a plan: what was signed
// for is what is sent.
func TestOnlyLessOfTheSameNeedsNoNewSignature(t *testing.T) {
	cases := map[string]struct {
		change func(*campaign.Plan)
		needs  bool
	}{
		"nothing":              {func(*campaign.Plan) {}, false},
		"later wave":           {func(p *campaign.Plan) { p.Waves[1].StartAfter++ }, false},
		"shorter run":          {func(p *campaign.Plan) { p.Schedule.RunFor-- }, false},
		"lower budget line":    {func(p *campaign.Plan) { p.Budget[0].Amount-- }, false},
		"channel left out":     {func(p *campaign.Plan) { p.Waves[0].Channels = p.Waves[0].Channels[1:] }, false},
		"no channel":           {func(p *campaign.Plan) { p.Waves[0].Channels = nil }, true},
		"channels turned":      {func(p *campaign.Plan) { slices.Reverse(p.Waves[0].Channels) }, true},
		"other channel":        {func(p *campaign.Plan) { p.Waves[1].Channels = []campaign.Channel{campaign.ChannelCall} }, true},
		"earlier wave":         {func(p *campaign.Plan) { p.Waves[1].StartAfter-- }, true},
		"longer run":           {func(p *campaign.Plan) { p.Schedule.RunFor++ }, true},
		"higher budget line":   {func(p *campaign.Plan) { p.Budget[0].Amount++ }, true},
		"lower unit cost":      {func(p *campaign.Plan) { p.Budget[0].UnitCost-- }, true},
		"lower cost and line":  {func(p *campaign.Plan) { p.Budget[0].UnitCost--; p.Budget[0].Amount /= 2 }, false},
		"more attempts":        {func(p *campaign.Plan) { p.Channels[0].MaximumAttempts++ }, true},
		"other text":           {func(p *campaign.Plan) { p.Channels[1].Text += "!" }, true},
		"other sender":         {func(p *campaign.Plan) { p.Channels[1].Sender = "EVIL" }, true},
		"other offer":          {func(p *campaign.Plan) { p.Offer.Name += "!" }, true},
		"other benefit":        {func(p *campaign.Plan) { p.Goal.UnitBenefit++ }, true},
		"other audience":       {func(p *campaign.Plan) { p.Audience.Filter = "true" }, true},
		"smaller control":      {func(p *campaign.Plan) { p.Audience.ControlPercent = 1 }, true},
		"new budget line":      {func(p *campaign.Plan) { p.Budget = append(p.Budget, campaign.BudgetLine{Line: "more", Amount: 1}) }, true},
		"review default":       {func(p *campaign.Plan) { p.Review.Default = campaign.ReviewDefaultAccept }, true},
		"other coverage":       {func(p *campaign.Plan) { p.Measurement.Coverage = campaign.CoverageEveryone }, true},
		"longer channel hours": {func(p *campaign.Plan) { p.Waves[0].ChannelWindow++ }, true},
	}
	for name, c := range cases {
		now, next := validPlan(), validPlan()
		c.change(&next)
		require.Equal(t, c.needs, campaign.NeedsApproval(&now, &next), name)
	}
}
