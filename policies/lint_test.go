package policies

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

// without leaves the rows of the standard out that begin with start.
func without(t *testing.T, starts ...string) string {
	t.Helper()
	var kept []string
	for _, line := range strings.Split(policyText, "\n") {
		if !slices.ContainsFunc(starts, func(start string) bool { return strings.HasPrefix(line, start) }) {
			kept = append(kept, line)
		}
	}
	require.NotEqual(t, len(strings.Split(policyText, "\n")), len(kept), "the standard has no row %q", starts)
	return strings.Join(kept, "\n")
}

// holders lists the beginnings of the rows that allow an action.
func holders(act campaign.Action) (starts []string) {
	for _, role := range campaign.Roles() {
		starts = append(starts, "p, role:"+string(role)+", "+string(act)+",")
	}
	return starts
}

func TestLintRefuses(t *testing.T) {
	rows := strings.Count(strings.TrimRight(policyText, "\n"), "\n") + 1
	const level = `{"name": "f", "action": "approval.finance", "due_after_seconds": 1}`
	routes := func(levels string) string {
		return `{"rules": [{"name": "r", "when": {}, "levels": [` + levels + `]}]}`
	}
	const policy, at = "policy", "routes"
	for name, c := range map[string]struct {
		policy, routes string
		code           campaign.Code
		field          string
		line           int
		says           string
	}{
		"nothing":                   {"", routesText, campaign.CodeEmptyPolicy, policy, 0, "is empty"},
		"comments only":             {"# p, role:planner, campaign.read, *, allow\n\n", routesText, campaign.CodeEmptyPolicy, policy, 0, "is empty"},
		"any subject":               {policyText + "p, *, *, *, allow\n", routesText, campaign.CodePolicyRejected, policy, rows + 1, "unknown role"},
		"any role":                  {policyText + "p, role:*, campaign.read, *, allow\n", routesText, campaign.CodePolicyRejected, policy, rows + 1, "unknown role"},
		"a person":                  {policyText + "p, user:ada, campaign.read, *, allow\n", routesText, campaign.CodePolicyRejected, policy, rows + 1, "unknown role"},
		"machines":                  {policyText + "p, role:service, campaign.read, *, allow\n", routesText, campaign.CodePolicyRejected, policy, rows + 1, "unknown role"},
		"unprefixed role":           {policyText + "p, planner, campaign.read, *, allow\n", routesText, campaign.CodePolicyRejected, policy, rows + 1, "unknown role"},
		"unknown role":              {policyText + "p, role:boss, campaign.read, *, allow\n", routesText, campaign.CodePolicyRejected, policy, rows + 1, "unknown role"},
		"any action":                {policyText + "p, role:agent, *, *, allow\n", routesText, campaign.CodePolicyRejected, policy, rows + 1, "unknown action"},
		"an action pattern":         {policyText + "p, role:agent, campaign.*, *, allow\n", routesText, campaign.CodePolicyRejected, policy, rows + 1, "unknown action"},
		"unknown action":            {policyText + "p, role:agent, campaign.fly, *, allow\n", routesText, campaign.CodePolicyRejected, policy, rows + 1, "unknown action"},
		"an expression":             {policyText + `p, "eval(1 == 1)", campaign.read, *, allow` + "\n", routesText, campaign.CodePolicyRejected, policy, rows + 1, "unknown role"},
		"an expression as action":   {policyText + "p, role:agent, eval(r.sub), *, allow\n", routesText, campaign.CodePolicyRejected, policy, rows + 1, "unknown action"},
		"unknown effect":            {policyText + "p, role:agent, campaign.read, *, Allow\n", routesText, campaign.CodePolicyRejected, policy, rows + 1, "effect"},
		"no effect":                 {policyText + "p, role:agent, campaign.read, *\n", routesText, campaign.CodePolicyRejected, policy, rows + 1, "cannot be read"},
		"one column more":           {policyText + "p, role:agent, campaign.read, *, allow, x\n", routesText, campaign.CodePolicyRejected, policy, rows + 1, "cannot be read"},
		"an open quote":             {policyText + "p, role:agent, \"campaign.read, *, allow\n", routesText, campaign.CodePolicyRejected, policy, rows + 1, "cannot be read"},
		"limit with decimals":       {policyText + "p, role:agent, campaign.read, 1.5, allow\n", routesText, campaign.CodePolicyRejected, policy, rows + 1, "limit"},
		"negative limit":            {policyText + "p, role:agent, campaign.read, -1, allow\n", routesText, campaign.CodePolicyRejected, policy, rows + 1, "limit"},
		"limit too large":           {policyText + "p, role:agent, campaign.read, 9223372036854775808, allow\n", routesText, campaign.CodePolicyRejected, policy, rows + 1, "limit"},
		"denial with a limit":       {policyText + "p, role:agent, campaign.read, 5, deny\n", routesText, campaign.CodePolicyRejected, policy, rows + 1, "denial"},
		"a grant":                   {policyText + "g, user:x, role:planner, operator, \n", routesText, campaign.CodePolicyRejected, policy, rows + 1, "instead of p"},
		"said twice":                {policyText + "p, role:planner, campaign.read, 5, allow\n", routesText, campaign.CodePolicyRejected, policy, rows + 1, "repeats"},
		"allowed and denied":        {policyText + "p, role:administrator, approval.manager, *, allow\n", routesText, campaign.CodePolicyRejected, policy, rows + 1, "repeats"},
		"bad before good":           {"p, role:agent\n" + policyText, routesText, campaign.CodePolicyRejected, policy, 1, "cannot be read"},
		"too many rows":             {strings.Repeat("p, role:agent\n", maxPermissions+1) + policyText, routesText, campaign.CodePolicyRejected, policy, 1, "cannot be read"},
		"administrators may sign":   {without(t, "p, role:administrator, approval.credit"), routesText, campaign.CodePolicyRejected, policy, 0, "approval.credit"},
		"nobody reads policies":     {without(t, holders(campaign.ActPolicyRead)...), routesText, campaign.CodePolicyRejected, policy, 0, "policy.read"},
		"nobody proposes policies":  {without(t, holders(campaign.ActPolicyPropose)...), routesText, campaign.CodePolicyRejected, policy, 0, "policy.propose"},
		"nobody decides policies":   {without(t, holders(campaign.ActPolicyDecide)...), routesText, campaign.CodePolicyRejected, policy, 0, "policy.decide"},
		"nobody gives roles":        {without(t, holders(campaign.ActUserAdminister)...), routesText, campaign.CodePolicyRejected, policy, 0, "user.administer"},
		"nobody could sign":         {without(t, "p, role:finance, approval.finance"), routes(level), campaign.CodePolicyRejected, "routes.rules[0].levels[0].action", 0, "nobody"},
		"no routes":                 {policyText, "", campaign.CodePolicyRejected, at, 0, "cannot be read"},
		"no rule":                   {policyText, `{"rules": []}`, campaign.CodeEmptyPolicy, at, 0, "no approval route"},
		"routes without a level":    {policyText, routes(""), campaign.CodePolicyRejected, "routes.rules[0].levels", 0, "nobody"},
		"routes nobody understands": {policyText, `{"rulez": []}`, campaign.CodePolicyRejected, at, 0, "unknown field"},
		"a level that signs nothing": {
			policyText, routes(`{"name": "f", "action": "campaign.read", "due_after_seconds": 1}`), campaign.CodePolicyRejected, "routes.rules[0].levels[0].action", 0, "one of",
		},
		"too many rules": {policyText, `{"rules": [` + strings.TrimSuffix(strings.Repeat("{},", maxRules+1), ",") + `]}`, campaign.CodePolicyRejected, at, 0, "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Lint(c.policy, c.routes)
			require.Equal(t, c.code, campaign.CodeOf(err), "%v", err)
			var fault *campaign.Error
			require.True(t, errors.As(err, &fault))
			require.LessOrEqual(t, len(fault.Fields), maxFaults)
			require.Equal(t, c.field, fault.Fields[0].Field)
			require.Equal(t, c.line, fault.Fields[0].Line)
			require.Contains(t, fault.Fields[0].Message, c.says)
		})
	}
}

func TestLintNamesEveryFault(t *testing.T) {
	err := Lint("p, *, campaign.read, *, allow\n"+policyText+"p, role:agent, *, *, allow\n", `{"rules": [{"name": "", "when": {}, "levels": []}]}`)
	var fault *campaign.Error
	require.True(t, errors.As(err, &fault))
	var fields []string
	for _, f := range fault.Fields {
		fields = append(fields, f.Field)
	}
	require.Equal(t, []string{"policy", "policy", "routes.rules[0].name", "routes.rules[0].levels"}, fields)
}

func TestLintTakes(t *testing.T) {
	require.NoError(t, Lint(Standard().Policy, Standard().Routes))
	// What nobody may sign needs no denial: such is a document from before there was that
	// signature.
	older := without(t, append(holders(campaign.ActApprovalProgramme), "p, role:administrator, approval.programme")...)
	require.NoError(t, Lint(older, `{"rules": [{"name": "r", "when": {}, "levels": [`+financeLevel+`]}]}`))
	// That nobody holds a role is no fault of the policy.
	require.NoError(t, Lint(without(t, "p, role:agent"), routesText))
}

func TestDiff(t *testing.T) {
	routes := func(rules ...string) string {
		return `{"calendars": [{"name": "c", "zone": "UTC", "week": {}}], "rules": [` + strings.Join(rules, ",") + `]}`
	}
	rule := func(name, when string) string {
		return `{"name": "` + name + `", "when": ` + when + `, "levels": [` + financeLevel + `]}`
	}
	retention, small, rest := rule("retention", `{"types": ["retention"]}`), rule("small", `{"audience_up_to": 10}`), rule("rest", `{}`)
	before := written(1, "", policyText, routes(retention, small, rest))
	after := written(2, "operator",
		strings.Replace(policyText, "approval.manager, 5000000000", "approval.manager, 6000000000", 1), strings.Replace(routes(small, retention, rule("rest", `{"credit_up_to": 0, "currency": "CNY"}`)), "UTC", "Asia/Shanghai", 1))
	d, err := Diff(before, after)
	require.NoError(t, err)
	require.Equal(t, Difference{
		PermissionsAdded:   []string{"role:manager, approval.manager, 6000000000, allow"},
		PermissionsRemoved: []string{"role:manager, approval.manager, 5000000000, allow"},
		Rules:              []Change{{"rest", Changed}, {"small", Moved}, {"retention", Moved}},
		Calendars:          []Change{{"c", Changed}},
	}, d)
	d, err = Diff(before, before)
	require.NoError(t, err)
	require.Zero(t, d)
	d, err = Diff(written(1, "", policyText, routes(retention, rest)), written(2, "", policyText, routes(small, rest)))
	require.NoError(t, err)
	require.Equal(t, []Change{{"small", Added}, {"retention", Removed}}, d.Rules)
	_, err = Diff(before, written(2, "", "", routesText))
	require.Equal(t, campaign.CodeEmptyPolicy, campaign.CodeOf(err))
}

// source gives documents and grants that change, and may be read while they do.
type source struct {
	documents []campaign.PolicyDocument
	grants    []campaign.Grant
}

func (s *source) start(t *testing.T) *Enforcer {
	t.Helper()
	e, err := New(context.Background(), func(context.Context) ([]campaign.Grant, error) { return s.grants, nil },
		func(context.Context) ([]campaign.PolicyDocument, error) { return s.documents, nil })
	require.NoError(t, err)
	return e
}

func TestATenantHasAPolicyOfItsOwn(t *testing.T) {
	own := without(t, "p, role:planner, campaign.create")
	s := &source{
		documents: []campaign.PolicyDocument{Standard()},
		grants: []campaign.Grant{
			{UserID: "u", Role: campaign.RolePlanner, Unit: "operator/north"}, {UserID: "u", Role: campaign.RolePlanner, Unit: "bank"},
			{UserID: "crm", Role: campaign.RoleService, Unit: "operator", Action: campaign.ActOutcomeRecord},
		},
	}
	e := s.start(t)
	require.Equal(t, []campaign.OrgUnit{"bank", "operator/north"}, e.Units("u", campaign.ActCampaignCreate))
	bank, operator := e.Version("bank"), e.Version("operator/north")

	s.documents = append(s.documents, written(2, "operator", own, `{"rules": [{"name": "r", "when": {}, "levels": [`+financeLevel+`]}]}`))
	require.NoError(t, e.Reload(t.Context()))
	require.NoError(t, e.Degraded())
	require.Equal(t, []campaign.OrgUnit{"bank"}, e.Units("u", campaign.ActCampaignCreate))
	require.True(t, allowed(t, e, "crm", campaign.ActOutcomeRecord, "operator", 0), "what machines may do is in their grants")
	require.Regexp(t, `^1-`, bank)
	require.Regexp(t, `^2-`, e.Version("operator/north"))
	require.NotEqual(t, operator, e.Version("operator/north"))
	f := cny(1)
	got, err := e.Route(f)
	require.NoError(t, err)
	require.Equal(t, "finance", names(got.Route))
	require.Equal(t, e.Version(f.Unit), got.PolicyVersion)
	f.Unit = "bank/lisbon"
	got, err = e.Route(f)
	require.NoError(t, err)
	require.Equal(t, "marketing manager", names(got.Route))
	require.Equal(t, e.Version("bank"), got.PolicyVersion)
}

// Whatever becomes of the rows of policies, an enforcer decides by documents that it found
// sound, and by the grants of this moment.
func TestReloadKeepsTheLastGoodDocument(t *testing.T) {
	strict := without(t, "p, role:planner, campaign.create")
	good := written(2, "operator", strict, routesText)
	edited := good
	edited.Policy = policyText
	for name, documents := range map[string][]campaign.PolicyDocument{
		"a wildcard":           {Standard(), written(3, "operator", policyText+"p, *, *, *, allow\n", routesText)},
		"an empty table":       {Standard(), written(3, "operator", "", routesText)},
		"an action from later": {Standard(), written(3, "operator", policyText+"p, role:agent, campaign.fly, *, allow\n", routesText)},
		"routes from later":    {Standard(), written(3, "operator", policyText, `{"rules": [], "stages": []}`)},
		"edited where it lies": {Standard(), edited},
		"edited with its digest": {
			Standard(), written(2, "operator", policyText, routesText),
		},
		"an older version":   {Standard(), written(1, "operator", policyText, routesText)},
		"gone":               {Standard()},
		"all gone":           {},
		"the standard alone": {written(1, "", policyText+"p, *, *, *, allow\n", routesText), good},
	} {
		t.Run(name, func(t *testing.T) {
			s := &source{documents: []campaign.PolicyDocument{Standard(), good}, grants: []campaign.Grant{
				{UserID: "u", Role: campaign.RolePlanner, Unit: "operator"}, {UserID: "v", Role: campaign.RolePlanner, Unit: "operator"},
				{UserID: "b", Role: campaign.RolePlanner, Unit: "bank"},
			}}
			e := s.start(t)
			version := e.Version("operator")
			require.True(t, allowed(t, e, "u", campaign.ActCampaignEdit, "operator", 0))
			require.False(t, allowed(t, e, "u", campaign.ActCampaignCreate, "operator", 0))

			s.documents = documents
			require.NoError(t, e.Reload(t.Context()))
			require.ErrorContains(t, e.Degraded(), "version")
			require.Equal(t, version, e.Version("operator"))
			require.True(t, allowed(t, e, "u", campaign.ActCampaignEdit, "operator", 0))
			require.True(t, allowed(t, e, "b", campaign.ActCampaignCreate, "bank", 0))
			for _, act := range []campaign.Action{campaign.ActCampaignCreate, campaign.ActUserAdminister} {
				require.False(t, allowed(t, e, "u", act, "operator", 0))
				require.False(t, allowed(t, e, "stranger", act, "operator", 0))
			}

			s.grants = s.grants[1:]
			require.NoError(t, e.Reload(t.Context()))
			require.False(t, allowed(t, e, "u", campaign.ActCampaignEdit, "operator", 0))
			require.True(t, allowed(t, e, "v", campaign.ActCampaignEdit, "operator", 0))

			s.documents = []campaign.PolicyDocument{Standard(), written(4, "operator", policyText, routesText)}
			require.NoError(t, e.Reload(t.Context()))
			require.NoError(t, e.Degraded())
			require.True(t, allowed(t, e, "v", campaign.ActCampaignCreate, "operator", 0))
		})
	}
}
