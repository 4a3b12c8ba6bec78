package campaign_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

func spring() campaign.ProgrammeTerms {
	return campaign.ProgrammeTerms{
		Name: "Spring", Unit: "operator/north", Owner: "olga", Currency: "CNY", Ceiling: 1_000_000, CampaignCeiling: 300_000,
		Types: []campaign.Type{campaign.TypeUpsell}, Channels: []campaign.Channel{campaign.ChannelSMS}, MaximumAudience: 1000, From: "2026-03-01", Until: "2026-05-31",
	}
}

func TestProgrammeTermsAreChecked(t *testing.T) {
	require.NoError(t, spring().Validate())
	open := spring()
	open.Types, open.Channels, open.MaximumAudience = nil, nil, 0
	require.NoError(t, open.Validate(), "what is left out does not matter")
	for field, c := range map[string]struct {
		change func(*campaign.ProgrammeTerms)
		code   campaign.Code
	}{
		"name":             {func(p *campaign.ProgrammeTerms) { p.Name = " " }, campaign.CodeInvalidText},
		"unit":             {func(p *campaign.ProgrammeTerms) { p.Unit = "Operator" }, campaign.CodeInvalidParameter},
		"currency":         {func(p *campaign.ProgrammeTerms) { p.Currency = "XXX" }, campaign.CodeInvalidParameter},
		"ceiling":          {func(p *campaign.ProgrammeTerms) { p.Ceiling, p.CampaignCeiling = 1_000_000_000_000_001, 1 }, campaign.CodeAmountOutOfRange},
		"campaign_ceiling": {func(p *campaign.ProgrammeTerms) { p.CampaignCeiling = p.Ceiling + 1 }, campaign.CodeAmountOutOfRange},
		"types[0]":         {func(p *campaign.ProgrammeTerms) { p.Types = []campaign.Type{"lottery"} }, campaign.CodeInvalidParameter},
		"channels[1]":      {func(p *campaign.ProgrammeTerms) { p.Channels = []campaign.Channel{campaign.ChannelSMS, "pigeon"} }, campaign.CodeInvalidParameter},
		"maximum_audience": {func(p *campaign.ProgrammeTerms) { p.MaximumAudience = -1 }, campaign.CodeInvalidParameter},
		"from":             {func(p *campaign.ProgrammeTerms) { p.From = "2026-02-30" }, campaign.CodeInvalidParameter},
		"until":            {func(p *campaign.ProgrammeTerms) { p.Until = "2026-02-28" }, campaign.CodeInvalidParameter},
	} {
		terms := spring()
		c.change(&terms)
		var fault *campaign.Error
		require.ErrorAs(t, terms.Validate(), &fault, field)
		require.Equal(t, c.code, fault.Code, field)
		require.Equal(t, field, fault.Fields[0].Field)
		require.Len(t, fault.Fields, 1, field)
	}
}

func TestAProgrammeAdmitsWhatItsTermsAllow(t *testing.T) {
	plan := func(change func(*campaign.Plan)) *campaign.Plan {
		p := &campaign.Plan{
			Unit: "operator/north/harbin", Currency: "CNY", Type: campaign.TypeUpsell, Contingency: 50_000,
			Budget:   []campaign.BudgetLine{{Line: "messages", Amount: 250_000}},
			Channels: []campaign.ChannelPlan{{Channel: campaign.ChannelSMS}}, Audience: campaign.Audience{MaximumTargets: 1000},
		}
		if change != nil {
			change(p)
		}
		return p
	}
	approved := campaign.Programme{ID: "p", Number: 7, State: campaign.ProgrammeApproved, ProgrammeTerms: spring()}
	anything := approved
	anything.Types, anything.Channels, anything.MaximumAudience = nil, nil, 0
	in := func(state campaign.ProgrammeState) campaign.Programme {
		p := approved
		p.State = state
		return p
	}
	for name, c := range map[string]struct {
		programme campaign.Programme
		plan      *campaign.Plan
		today     campaign.Date
		code      campaign.Code
		fields    []string
	}{
		"all it may":                 {approved, plan(nil), "2026-04-01", "", nil},
		"its first day":              {approved, plan(nil), "2026-03-01", "", nil},
		"its last day":               {approved, plan(nil), "2026-05-31", "", nil},
		"its own unit":               {approved, plan(func(p *campaign.Plan) { p.Unit = "operator/north" }), "2026-04-01", "", nil},
		"a day too early":            {approved, plan(nil), "2026-02-28", campaign.CodeProgrammeClosed, nil},
		"a day too late":             {approved, plan(nil), "2026-06-01", campaign.CodeProgrammeClosed, nil},
		"not approved yet":           {in(campaign.ProgrammeProposed), plan(nil), "2026-04-01", campaign.CodeProgrammeClosed, nil},
		"rejected":                   {in(campaign.ProgrammeRejected), plan(nil), "2026-04-01", campaign.CodeProgrammeClosed, nil},
		"closed":                     {in(campaign.ProgrammeClosed), plan(nil), "2026-04-01", campaign.CodeProgrammeClosed, nil},
		"a unit above":               {approved, plan(func(p *campaign.Plan) { p.Unit = "operator" }), "2026-04-01", campaign.CodeProgrammeNotAllowed, []string{"unit"}},
		"a unit of the same letters": {approved, plan(func(p *campaign.Plan) { p.Unit = "operator/north-east" }), "2026-04-01", campaign.CodeProgrammeNotAllowed, []string{"unit"}},
		"another currency":           {approved, plan(func(p *campaign.Plan) { p.Currency = "EUR" }), "2026-04-01", campaign.CodeProgrammeNotAllowed, []string{"currency"}},
		"another type and channel": {approved, plan(func(p *campaign.Plan) {
			p.Type, p.Channels = campaign.TypeRetention, append(p.Channels, campaign.ChannelPlan{Channel: campaign.ChannelCall})
		}),
			"2026-04-01", campaign.CodeProgrammeNotAllowed, []string{"type", "channels[1].channel"}},
		"no limit of the audience": {approved, plan(func(p *campaign.Plan) { p.Audience.MaximumTargets = 0 }), "2026-04-01", campaign.CodeProgrammeNotAllowed, []string{"audience.maximum_targets"}},
		"a higher one":             {approved, plan(func(p *campaign.Plan) { p.Audience.MaximumTargets = 1001 }), "2026-04-01", campaign.CodeProgrammeNotAllowed, []string{"audience.maximum_targets"}},
		"a unit of money too much": {approved, plan(func(p *campaign.Plan) { p.Contingency++ }), "2026-04-01", campaign.CodeProgrammeCeiling, nil},
		"every type, channel, number": {anything, plan(func(p *campaign.Plan) {
			p.Type, p.Channels[0].Channel, p.Audience.MaximumTargets = campaign.TypeRetention, campaign.ChannelCall, 0
		}), "2026-04-01", "", nil},
	} {
		err := c.programme.Admits(c.plan, c.today)
		require.Equal(t, c.code, campaign.CodeOf(err), name)
		if c.code == "" {
			continue
		}
		var fault *campaign.Error
		require.ErrorAs(t, err, &fault, name)
		var fields []string
		for _, f := range fault.Fields {
			fields = append(fields, f.Field)
			require.Equal(t, c.code, f.Code)
		}
		require.Equal(t, c.fields, fields, name)
		if c.code == campaign.CodeProgrammeCeiling {
			require.Equal(t, map[string]any{"ceiling": int64(300_000), "wanted": int64(300_001)}, fault.Details)
		}
	}
}

func TestAProgrammeIsRoutedForEachTypeItAllows(t *testing.T) {
	one := spring().RoutedAs()
	require.Equal(t, []campaign.Facts{{Amount: 1_000_000, Currency: "CNY", Audience: 1000, Type: campaign.TypeUpsell, Channels: []campaign.Channel{campaign.ChannelSMS}, Unit: "operator/north"}}, one)
	open := spring()
	open.Types, open.Channels, open.MaximumAudience = nil, nil, 0
	all := open.RoutedAs()
	require.Len(t, all, len(campaign.Types()))
	for _, f := range all {
		require.Empty(t, f.Owner, "its budget is signed for by the rules outside of programmes")
		require.ElementsMatch(t, campaign.Channels(), f.Channels)
		require.Greater(t, f.Audience, int64(1_000_000_000), "no limit is above any")
	}
}

func TestTheOwnerDoesNotSignForTheBudget(t *testing.T) {
	decide := func(user, actingFor string, decision campaign.Decision) campaign.Decide {
		return campaign.Decide{Command: campaign.Command{Actor: campaign.Actor{UserID: user}}, ActingFor: actingFor, Decision: decision}
	}
	require.NoError(t, spring().CheckSigner(decide("max", "", campaign.DecisionApprove)))
	require.NoError(t, spring().CheckSigner(decide("max", "mia", campaign.DecisionReject)))
	require.Equal(t, campaign.CodeSelfApproval, campaign.CodeOf(spring().CheckSigner(decide("olga", "", campaign.DecisionReject))))
	require.Equal(t, campaign.CodeSelfApproval, campaign.CodeOf(spring().CheckSigner(decide("max", "olga", campaign.DecisionApprove))))
	require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(spring().CheckSigner(decide("max", "", campaign.DecisionReturn))))
}
