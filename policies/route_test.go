package policies

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

func cny(minor int64) campaign.Facts {
	return campaign.Facts{Amount: minor, Currency: "CNY", Audience: 1000, Type: campaign.TypeUpsell, Channels: []campaign.Channel{campaign.ChannelSMS}, Unit: "operator/north"}
}

// names gives a route in words: levels of a stage are joined by +, stages by commas.
func names(r []campaign.ApprovalLevel) (s string) {
	for i, l := range r {
		switch {
		case i == 0:
		case r[i-1].Stage == l.Stage:
			s += " + "
		default:
			s += ", "
		}
		s += l.Name
	}
	return s
}

func TestDefaultRoutes(t *testing.T) {
	e := start(t)
	const small, middle, large = "marketing manager", "marketing manager, finance", "marketing manager, finance + second marketing manager"
	for amount, want := range map[int64]string{
		0: small, 1: small, 2_000_000: small, 2_000_001: middle, 500_000_000: middle, 500_000_001: large, managerLimit: large,
		managerLimit + 1: "", math.MaxInt64: "", -1: "",
	} {
		got, err := e.Route(cny(amount))
		if want == "" {
			require.Equal(t, campaign.CodeNoRoute, campaign.CodeOf(err), "amount %d", amount)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, want, names(got.Route), "amount %d", amount)
		require.Equal(t, "Asia/Shanghai", got.Calendar.Zone)
		require.Equal(t, e.Version("operator"), got.PolicyVersion)
		for i, l := range got.Route {
			require.Equal(t, i+1, l.Level)
		}
	}

	withCredit := cny(2_000_001)
	withCredit.Credit = 5
	got, err := e.Route(withCredit)
	require.NoError(t, err)
	require.Equal(t, "marketing manager, finance, credit approver", names(got.Route))
	require.Equal(t, campaign.LevelCredit, got.Route[2].Kind)

	inside := cny(managerLimit + 1)
	inside.Owner = "owner"
	got, err = e.Route(inside)
	require.NoError(t, err)
	require.Equal(t, "programme owner", names(got.Route))
	require.Equal(t, "owner", got.Route[0].UserID, "nobody else signs")

	mine, err := e.Route(cny(1))
	require.NoError(t, err)
	mine.Route[0].Name, mine.Calendar.Name = "changed", "changed"
	again, err := e.Route(cny(1))
	require.NoError(t, err)
	require.Equal(t, small, names(again.Route), "a caller must not change the table")
	require.Equal(t, "Shanghai office hours", again.Calendar.Name)
}

func TestCampaignsTogetherTakeTheHigherBand(t *testing.T) {
	e := start(t)
	f := cny(1_800_000)
	f.Together = []campaign.Together{{Number: 7, Amount: 1_800_000, Why: campaign.SameRequester}}
	got, err := e.Route(f)
	require.NoError(t, err)
	require.Equal(t, "marketing manager, finance", names(got.Route))
	f.Together[0].Amount = managerLimit
	_, err = e.Route(f)
	require.Equal(t, campaign.CodeAggregateLimit, campaign.CodeOf(err))
	f.Together[0].Amount = math.MaxInt64
	_, err = e.Route(f)
	require.Equal(t, campaign.CodeAmountOutOfRange, campaign.CodeOf(err))
}

// Two million yen are no two million fen: a currency without routes of its own is refused.
func TestARouteIsInItsOwnCurrency(t *testing.T) {
	e := start(t)
	for _, currency := range []string{"JPY", "USD", "cny", ""} {
		for _, minor := range []int64{-1, 0, 1, managerLimit} {
			_, err := e.Route(campaign.Facts{Amount: minor, Currency: currency, Unit: "operator"})
			require.Equal(t, campaign.CodeNoRoute, campaign.CodeOf(err), "%d %s", minor, currency)
		}
	}
}

const financeLevel = `{"name": "finance", "action": "approval.finance", "due_after_seconds": 1}`

func withRoutes(t *testing.T, routes string) (*Enforcer, error) {
	t.Helper()
	return New(context.Background(), fixed(), Fixed(written(1, "", policyText, routes)))
}

func TestTheFirstRuleThatFitsWins(t *testing.T) {
	rule := func(name, when string) string {
		return `{"name": "` + name + `", "when": ` + when + `, "levels": [` + financeLevel + `]}`
	}
	e, err := withRoutes(t, `{"rules": [`+
		rule("retention", `{"types": ["retention"], "units": ["operator/north"]}`)+`,`+
		rule("calls", `{"channels_any": ["call"], "audience_up_to": 500}`)+`,`+
		`{"name": "credit", "when": {"currency": "CNY", "credit_up_to": 10}, "levels": [`+financeLevel+`], "credit_levels": [{"name": "credit", "action": "approval.credit", "due_after_seconds": 1}]},`+
		rule("programme", `{"programme": true}`)+`,`+
		rule("south", `{"units": ["operator/south"], "currency": "EUR", "amount_up_to": 10}`)+`]}`)
	require.NoError(t, err)
	base := campaign.Facts{Currency: "CNY", Amount: 50, Credit: 0, Audience: 1000, Type: campaign.TypeUpsell, Channels: []campaign.Channel{campaign.ChannelSMS}, Unit: "operator/north/harbin"}
	for name, c := range map[string]struct {
		change func(*campaign.Facts)
		want   string
	}{
		"type and unit":           {func(f *campaign.Facts) { f.Type = campaign.TypeRetention }, "retention"},
		"a unit that begins like": {func(f *campaign.Facts) { f.Type, f.Unit = campaign.TypeRetention, "operator/north-east" }, "credit"},
		"one of the channels": {func(f *campaign.Facts) {
			f.Audience, f.Channels = 500, []campaign.Channel{campaign.ChannelCall, campaign.ChannelSMS}
		}, "calls"},
		"too many people":       {func(f *campaign.Facts) { f.Audience, f.Channels = 501, []campaign.Channel{campaign.ChannelCall} }, "credit"},
		"credit":                {func(f *campaign.Facts) { f.Credit = 10 }, "credit"},
		"more credit":           {func(f *campaign.Facts) { f.Credit = 11 }, ""},
		"credit without levels": {func(f *campaign.Facts) { f.Credit, f.Type = 1, campaign.TypeRetention }, "credit"},
		"another currency":      {func(f *campaign.Facts) { f.Currency = "EUR" }, ""},
		"inside a programme":    {func(f *campaign.Facts) { f.Currency, f.Owner = "EUR", "u" }, "programme"},
		"the other unit":        {func(f *campaign.Facts) { f.Currency, f.Unit, f.Amount = "EUR", "operator/south", 10 }, "south"},
		"the other unit, more":  {func(f *campaign.Facts) { f.Currency, f.Unit, f.Amount = "EUR", "operator/south", 11 }, ""},
		"the whole tenant":      {func(f *campaign.Facts) { f.Currency, f.Unit, f.Amount = "EUR", "operator", 1 }, ""},
	} {
		f := base
		c.change(&f)
		got, err := e.Route(f)
		if c.want == "" {
			require.Equal(t, campaign.CodeNoRoute, campaign.CodeOf(err), name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, c.want, got.Rule, name)
	}
}

// A route that asks for a signature nobody may give would leave campaigns waiting
// for ever.
func TestEveryDefaultRouteCanBeSigned(t *testing.T) {
	var grants []campaign.Grant
	for _, role := range campaign.Roles() {
		grants = append(grants, campaign.Grant{UserID: string(role), Role: role, Unit: "operator"})
	}
	e := start(t, grants...)
	for _, r := range e.now.Load().of("operator").routes.Rules {
		var most int64
		if r.When.AmountUpTo != nil {
			most = *r.When.AmountUpTo
		}
		for _, l := range append(r.Levels, r.CreditLevels...) {
			signers := 0
			for _, role := range campaign.Roles() {
				if allowed(t, e, string(role), l.Action, "operator", most) {
					signers++
				}
			}
			require.Positive(t, signers, "%s cannot sign for %d", l.Name, most)
		}
	}
}

func TestRoutesAreReadStrictly(t *testing.T) {
	rule := func(when, levels string) string {
		return `{"name": "r", "when": ` + when + `, "levels": [` + levels + `]}`
	}
	routes := func(rules string) string { return `{"rules": [` + rules + `]}` }
	level := func(fields string) string {
		return routes(rule(`{}`, `{"name": "f", "action": "approval.finance", "due_after_seconds": 1, `+fields+`}`))
	}
	ok := rule(`{}`, financeLevel)
	for name, c := range map[string]struct {
		routes string
		code   campaign.Code
		field  string
	}{
		"nothing":             {``, campaign.CodeInvalidParameter, ""},
		"a list":              {`[]`, campaign.CodeInvalidParameter, ""},
		"no rule":             {`{"rules": []}`, campaign.CodeEmptyPolicy, ""},
		"text after":          {routes(ok) + ` {}`, campaign.CodeInvalidParameter, ""},
		"unknown field":       {routes(rule(`{"upto": 1}`, financeLevel)), campaign.CodeInvalidParameter, ""},
		"no level":            {routes(rule(`{}`, ``)), campaign.CodeInvalidParameter, "rules[0].levels"},
		"no name":             {routes(`{"levels": [` + financeLevel + `]}`), campaign.CodeInvalidParameter, "rules[0].name"},
		"the same name":       {routes(rule(`{"programme": true}`, financeLevel) + `,` + ok), campaign.CodeInvalidParameter, "rules[1].name"},
		"a shadowed rule":     {routes(rule(`{"currency": "CNY", "amount_up_to": 2}`, financeLevel) + `,{"name": "s", "when": {"currency": "CNY", "amount_up_to": 2, "types": ["upsell"]}, "levels": [` + financeLevel + `]}`), campaign.CodeInvalidParameter, "rules[1].when"},
		"negative":            {routes(rule(`{"currency": "CNY", "amount_up_to": -1}`, financeLevel)), campaign.CodeInvalidParameter, "rules[0].when.amount_up_to"},
		"too large":           {routes(rule(`{"currency": "CNY", "amount_up_to": 9223372036854775808}`, financeLevel)), campaign.CodeInvalidParameter, "rules.when.amount_up_to"},
		"not an integer":      {routes(rule(`{"currency": "CNY", "amount_up_to": 1.5}`, financeLevel)), campaign.CodeInvalidParameter, "rules.when.amount_up_to"},
		"no currency":         {routes(rule(`{"credit_up_to": 1}`, financeLevel)), campaign.CodeInvalidParameter, "rules[0].when.currency"},
		"unknown currency":    {routes(rule(`{"currency": "ABC"}`, financeLevel)), campaign.CodeInvalidParameter, "rules[0].when.currency"},
		"unknown type":        {routes(rule(`{"types": ["party"]}`, financeLevel)), campaign.CodeInvalidParameter, "rules[0].when.types[0]"},
		"unknown channel":     {routes(rule(`{"channels_any": ["fax"]}`, financeLevel)), campaign.CodeInvalidParameter, "rules[0].when.channels_any[0]"},
		"malformed unit":      {routes(rule(`{"units": ["operator/"]}`, financeLevel)), campaign.CodeInvalidParameter, "rules[0].when.units[0]"},
		"unknown calendar":    {routes(`{"name": "r", "levels": [` + financeLevel + `], "calendar": "c"}`), campaign.CodeInvalidParameter, "rules[0].calendar"},
		"malformed calendar":  {`{"calendars": [{"name": "c", "zone": "Nowhere", "week": {}}], "rules": [` + ok + `]}`, campaign.CodeInvalidParameter, "calendars[0].zone"},
		"calendars alike":     {`{"calendars": [{"name": "c", "zone": "UTC", "week": {}}, {"name": "c", "zone": "UTC", "week": {}}], "rules": [` + ok + `]}`, campaign.CodeInvalidParameter, "calendars[1].name"},
		"no level's name":     {routes(rule(`{}`, `{"action": "approval.finance", "due_after_seconds": 1}`)), campaign.CodeInvalidParameter, "rules[0].levels[0].name"},
		"no time":             {routes(rule(`{}`, `{"name": "f", "action": "approval.finance"}`)), campaign.CodeInvalidParameter, "rules[0].levels[0].due_after_seconds"},
		"signs nothing":       {routes(rule(`{}`, `{"name": "f", "action": "campaign.read", "due_after_seconds": 1}`)), campaign.CodeInvalidParameter, "rules[0].levels[0].action"},
		"credit for the plan": {routes(rule(`{}`, `{"name": "f", "action": "approval.credit", "due_after_seconds": 1}`)), campaign.CodeInvalidParameter, "rules[0].levels[0].action"},
		"plan for the credit": {routes(`{"name": "r", "levels": [` + financeLevel + `], "credit_levels": [` + financeLevel + `]}`), campaign.CodeInvalidParameter, "rules[0].credit_levels[0].action"},
		"escalates nowhere":   {level(`"escalate_to": "approval.finance"`), campaign.CodeInvalidParameter, "rules[0].levels[0].escalate_to"},
		"expiry approves":     {level(`"on_expiry": "approve"`), campaign.CodeInvalidParameter, "rules[0].levels[0].on_expiry"},
		"too many people":     {level(`"required": 21`), campaign.CodeInvalidParameter, "rules[0].levels[0].required"},
		"a stage left out":    {level(`"stage": 2`), campaign.CodeInvalidParameter, "rules[0].levels[0].stage"},
		"a person by name":    {level(`"user_id": "u"`), campaign.CodeInvalidParameter, "rules[0].levels[0].level"},
	} {
		_, err := ReadRoutes([]byte(c.routes))
		require.Equal(t, c.code, campaign.CodeOf(err), "%s: %v", name, err)
		if c.field != "" {
			var fault *campaign.Error
			require.True(t, errors.As(err, &fault))
			require.Len(t, fault.Fields, 1, "%s: %v", name, err)
			require.Equal(t, c.field, fault.Fields[0].Field, name)
		}
	}
	for _, good := range []string{level(`"required": 2, "on_expiry": "reject", "stage": 1`), routes(ok)} {
		_, err := withRoutes(t, good)
		require.NoError(t, err)
	}
}

func TestCreditLevelsMayWaitBesideTheOthers(t *testing.T) {
	e, err := withRoutes(t, `{"rules": [{"name": "r", "when": {}, "levels": [
		{"name": "a", "action": "approval.manager", "due_after_seconds": 1}, {"name": "b", "action": "approval.finance", "due_after_seconds": 1}
		], "credit_levels": [{"name": "c", "action": "approval.credit", "due_after_seconds": 1, "stage": 1}]}]}`)
	require.NoError(t, err)
	got, err := e.Route(campaign.Facts{Credit: 1, Amount: 1, Currency: "CNY"})
	require.NoError(t, err)
	require.Equal(t, "a + c, b", names(got.Route))
}
