package policies

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/campaign"
)

func fixed(grants ...campaign.Grant) func(context.Context) ([]campaign.Grant, error) {
	return func(context.Context) ([]campaign.Grant, error) { return grants, nil }
}

func start(t testing.TB, grants ...campaign.Grant) *Enforcer {
	t.Helper()
	e, err := New(context.Background(), fixed(grants...), Fixed(Standard()))
	require.NoError(t, err)
	return e
}

// written is a document that says this.
func written(version int64, tenant campaign.OrgUnit, policy, routes string) campaign.PolicyDocument {
	return campaign.PolicyDocument{Version: version, Tenant: tenant, Policy: policy, Routes: routes, Digest: campaign.PolicyDigest(policy, routes)}
}

// withTable starts an enforcer on a policy table of one's own.
func withTable(t testing.TB, policy string, grants ...campaign.Grant) *Enforcer {
	t.Helper()
	e, err := New(context.Background(), fixed(grants...), Fixed(written(1, "", policy, routesText)))
	require.NoError(t, err)
	return e
}

func allowed(t testing.TB, e *Enforcer, user string, act campaign.Action, unit campaign.OrgUnit, amount int64) bool {
	t.Helper()
	_, ok, err := e.Allow(user, act, unit, amount)
	require.NoError(t, err)
	return ok
}

// The table that the policy file must mean, cell by cell: a role's letters are in
// the order of the columns below. Y allowed, - not allowed, L allowed up to the
// limit, D denied even to holders of other roles.
var columns = []campaign.Role{
	campaign.RolePlanner, campaign.RoleManager, campaign.RoleFinance, campaign.RoleCredit, campaign.RoleOperator,
	campaign.RoleAgent, campaign.RoleReviewer, campaign.RoleAnalyst, campaign.RoleAuditor, campaign.RoleAdmin,
}

// planner manager finance credit operator agent reviewer analyst auditor administrator
var matrix = map[campaign.Action]string{
	campaign.ActCampaignRead:      "Y Y Y Y Y - Y Y Y Y",
	campaign.ActCampaignCreate:    "Y - - - - - - - - -",
	campaign.ActCampaignEdit:      "Y - - - - - - - - -",
	campaign.ActCampaignSubmit:    "Y - - - - - - - - -",
	campaign.ActCampaignWithdraw:  "Y - - - - - - - - -",
	campaign.ActCampaignAmend:     "Y - - - - - - - - -",
	campaign.ActCampaignPause:     "- - - - Y - - - - -",
	campaign.ActCampaignResume:    "- - - - Y - - - - -",
	campaign.ActCampaignStop:      "Y - - - Y - - - - -",
	campaign.ActApprovalRead:      "Y Y Y Y - - Y - Y -",
	campaign.ActApprovalManager:   "- L - - - - - - - D",
	campaign.ActApprovalFinance:   "- - Y - - - - - - D",
	campaign.ActApprovalCredit:    "- - - Y - - - - - D",
	campaign.ActApprovalProgramme: "- Y - - - - - - - D",
	campaign.ActTargetRead:        "Y Y Y Y Y - Y Y Y -",
	campaign.ActContactRead:       "Y Y - - Y - Y Y Y -",
	campaign.ActTaskRead:          "- Y - - Y Y - - Y -",
	campaign.ActTaskWork:          "- - - - - Y - - - -",
	campaign.ActOutcomeRecord:     "- - - - Y - - - - -",
	campaign.ActReviewRead:        "Y Y Y Y Y - Y Y Y -",
	campaign.ActReviewDecide:      "- - - - - - Y - - -",
	campaign.ActEvaluationRead:    "Y Y Y Y Y - Y Y Y -",
	campaign.ActAuditRead:         "- - - - - - - - Y -",
	campaign.ActAuditReplay:       "- - - - - - - - Y -",
	campaign.ActProgrammeRead:     "Y Y Y Y Y - Y Y Y -",
	campaign.ActProgrammePropose:  "Y - - - - - - - - -",
	campaign.ActProgrammeClose:    "- - Y - - - - - - -",
	campaign.ActBudgetDraw:        "- - Y - - - - - - -",
	campaign.ActLedgerRead:        "Y Y Y Y - - - - Y -",
	campaign.ActCreditRead:        "Y Y Y Y Y - Y Y Y -",
	campaign.ActCreditPool:        "- - Y - - - - - - -",
	campaign.ActCreditRecord:      "- - - - Y - - - - -",
	campaign.ActCreditClawBack:    "- - Y Y - - - - - -",
	campaign.ActCustomerImport:    "- - - - Y - - - - -",
	campaign.ActHistoryRecord:     "- - - - Y - - - - -",
	campaign.ActListRead:          "Y Y - - Y - - Y Y -",
	campaign.ActListWrite:         "L - - - L - - - - -",
	campaign.ActSegmentWrite:      "Y Y - - - - - - - -",
	campaign.ActExportCreate:      "L L - - - - - L - -",
	campaign.ActCustomerRead:      "- - - - L L - - L L",
	campaign.ActCustomerUnmask:    "- - - - L - - - - -",
	campaign.ActCustomerConsent:   "- - - - Y - - - - -",
	campaign.ActCustomerErase:     "- - - - - - - - - Y",
	campaign.ActAttributeDeclare:  "- - - - - - - - - Y",
	campaign.ActUserRead:          "- - - - - - - - Y Y",
	campaign.ActUnitAdminister:    "- - - - - - - - - Y",
	campaign.ActTokenAdminister:   "- - - - - - - - - Y",
	campaign.ActUserAdminister:    "- - - - - - - - - Y",
	campaign.ActPolicyRead:        "- - Y - - - - - Y Y",
	campaign.ActPolicyPropose:     "- - - - - - - - - Y",
	campaign.ActPolicyDecide:      "- - Y - - - - - - Y",
	campaign.ActEventsSubscribe:   "Y Y Y Y Y - Y Y Y -",
	campaign.ActDispatchLift:      "- - - - Y - - - - -",
}

const managerLimit = 5_000_000_000 // 50,000,000.00

// limits has the limit of each L.
var limits = map[campaign.Action]map[campaign.Role]string{
	campaign.ActApprovalManager: {campaign.RoleManager: fmt.Sprint(managerLimit)},
	campaign.ActExportCreate:    {campaign.RolePlanner: "100000", campaign.RoleManager: "1000000", campaign.RoleAnalyst: "1000000"},
	campaign.ActListWrite:       {campaign.RolePlanner: "100000", campaign.RoleOperator: "100000"},
	campaign.ActCustomerRead:    {campaign.RoleOperator: "500", campaign.RoleAgent: "200", campaign.RoleAuditor: "50", campaign.RoleAdmin: "200"},
	campaign.ActCustomerUnmask:  {campaign.RoleOperator: "50"},
}

func TestEveryRoleAndAction(t *testing.T) {
	require.ElementsMatch(t, campaign.Roles(), columns, "a role has no column")
	const unit campaign.OrgUnit = "operator/north"
	var grants []campaign.Grant
	for _, role := range columns {
		grants = append(grants,
			campaign.Grant{UserID: "only-" + string(role), Role: role, Unit: unit},
			campaign.Grant{UserID: "all", Role: role, Unit: unit},
			campaign.Grant{UserID: "all-but-administrator", Role: role, Unit: unit})
	}
	grants = grants[:len(grants)-1]
	e := start(t, grants...)

	for _, act := range campaign.Actions() {
		cells := strings.Fields(matrix[act])
		require.Len(t, cells, len(columns), "action %s has no row with a cell for every role", act)
		anyAllows, anyDenies := false, false
		for i, role := range columns {
			authority, ok, err := e.Allow("only-"+string(role), act, unit, 0)
			require.NoError(t, err)
			require.Equal(t, cells[i] == "Y" || cells[i] == "L", ok, "%s × %s", role, act)
			if ok {
				limit := map[string]string{"Y": "*", "L": limits[act][role]}[cells[i]]
				require.Equal(t, Authority{Role: role, Unit: unit, Limit: limit}, authority)
			} else {
				require.Zero(t, authority)
			}
			require.Equal(t, cells[i] == "Y", allowed(t, e, "only-"+string(role), act, unit, math.MaxInt64), "%s × %s without limit", role, act)
			anyAllows = anyAllows || ok
			anyDenies = anyDenies || cells[i] == "D"
		}
		require.True(t, anyAllows, "nobody may %s", act)
		require.True(t, allowed(t, e, "all-but-administrator", act, unit, 0) || slices.Contains([]campaign.Action{campaign.ActUserAdminister, campaign.ActUnitAdminister, campaign.ActTokenAdminister, campaign.ActPolicyPropose, campaign.ActCustomerErase, campaign.ActAttributeDeclare}, act))
		require.Equal(t, !anyDenies, allowed(t, e, "all", act, unit, 0), "%s with every role", act)
	}
	require.Len(t, matrix, len(campaign.Actions()), "the matrix has a row for an action that does not exist")
}

func TestRoleHoldsBelowItsUnitOnly(t *testing.T) {
	e := start(t,
		campaign.Grant{UserID: "u", Role: campaign.RolePlanner, Unit: "operator/north"},
		campaign.Grant{UserID: "planner", Role: campaign.RoleAgent, Unit: "operator"},
		campaign.Grant{UserID: "role:planner", Role: campaign.RoleAgent, Unit: "operator"})
	for unit, want := range map[campaign.OrgUnit]bool{
		"operator/north":             true,
		"operator/north/harbin":      true,
		"operator/north/harbin/d1/o": true,
		"operator":                   false,
		"operator/south":             false,
		"operator/south/north":       false,
		"operator/north-east":        false,
		"operator/nort":              false,
		"operator2/north":            false,
		"other/operator/north":       false,
		"operator/":                  false,
		"operator/*":                 false,
		"*":                          false,
		"":                           false,
	} {
		authority, ok, err := e.Allow("u", campaign.ActCampaignEdit, unit, 0)
		require.NoError(t, err)
		require.Equal(t, want, ok, "unit %q", unit)
		if ok {
			require.Equal(t, campaign.OrgUnit("operator/north"), authority.Unit)
		}
	}
	for _, user := range []string{"planner", "role:planner", "user:u", "", "*", "stranger"} {
		require.False(t, allowed(t, e, user, campaign.ActCampaignEdit, "operator/north", 0), "user %q", user)
	}
	require.False(t, allowed(t, e, "u", "campaign.*", "operator/north", 0))
	require.False(t, allowed(t, e, "u", "", "operator/north", 0))
}

func TestScopeFollowsTheTree(t *testing.T) {
	unit := rapid.Custom(func(t *rapid.T) campaign.OrgUnit {
		return campaign.OrgUnit(strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "aa", "a-b", "b"}), 1, 4).Draw(t, "parts"), "/"))
	})
	rapid.Check(t, func(rt *rapid.T) {
		var grants []campaign.Grant
		for _, u := range rapid.SliceOfN(unit, 0, 4).Draw(rt, "planner at") {
			grants = append(grants, campaign.Grant{UserID: "u", Role: campaign.RolePlanner, Unit: u})
		}
		e := start(t, grants...)
		object := unit.Draw(rt, "object")
		var want, listed bool
		for _, g := range grants {
			want = want || object.Within(g.Unit)
		}
		for _, u := range e.Units("u", campaign.ActCampaignEdit) {
			listed = listed || object.Within(u)
		}
		require.Equal(rt, want, allowed(t, e, "u", campaign.ActCampaignEdit, object, 0))
		require.Equal(rt, want, listed, "the units for lists and the decision differ")
	})
}

func TestLimits(t *testing.T) {
	e := start(t, campaign.Grant{UserID: "m", Role: campaign.RoleManager, Unit: "operator"})
	for amount, want := range map[int64]bool{
		0: true, 1: true, managerLimit - 1: true, managerLimit: true,
		managerLimit + 1: false, math.MaxInt64: false, -1: false, math.MinInt64: false,
	} {
		require.Equal(t, want, allowed(t, e, "m", campaign.ActApprovalManager, "operator", amount), "amount %d", amount)
	}
	_, err := e.Require("m", campaign.ActApprovalManager, "operator", managerLimit+1)
	require.Equal(t, campaign.CodeLimitExceeded, campaign.CodeOf(err))
	_, err = e.Require("m", campaign.ActApprovalFinance, "operator", 1)
	require.Equal(t, campaign.CodeForbidden, campaign.CodeOf(err))
	authority, err := e.Require("m", campaign.ActApprovalManager, "operator/north", managerLimit)
	require.NoError(t, err)
	require.Equal(t, campaign.RoleManager, authority.Role)
}

// 2^53+1 is the first whole number that a float64 cannot hold.
func TestLimitsBeyondFloats(t *testing.T) {
	const limit = int64(1) << 53
	e := withTable(t, strings.Replace(policyText, fmt.Sprint(managerLimit), fmt.Sprint(limit), 1),
		campaign.Grant{UserID: "m", Role: campaign.RoleManager, Unit: "operator"})
	require.True(t, allowed(t, e, "m", campaign.ActApprovalManager, "operator", limit))
	require.False(t, allowed(t, e, "m", campaign.ActApprovalManager, "operator", limit+1))

	rapid.Check(t, func(rt *rapid.T) {
		amount, limit := rapid.Int64().Draw(rt, "amount"), rapid.Int64Min(0).Draw(rt, "limit")
		require.Equal(rt, amount >= 0 && amount <= limit, within(fmt.Sprint(amount), fmt.Sprint(limit)))
	})
	for _, fault := range []string{"", " 1", "1 ", "+1", "01", "1.0", "1e3", "0x1", "-0", "9223372036854775808", "１", "x"} {
		require.False(t, within(fault, "*"), "amount %q", fault)
		require.False(t, within("0", fault), "limit %q", fault)
	}
}

func TestDenialWins(t *testing.T) {
	const everyRole = "operator/north"
	e := start(t,
		campaign.Grant{UserID: "above", Role: campaign.RoleAdmin, Unit: "operator"},
		campaign.Grant{UserID: "above", Role: campaign.RoleManager, Unit: everyRole},
		campaign.Grant{UserID: "same", Role: campaign.RoleAdmin, Unit: everyRole},
		campaign.Grant{UserID: "same", Role: campaign.RoleManager, Unit: everyRole},
		campaign.Grant{UserID: "below", Role: campaign.RoleAdmin, Unit: everyRole},
		campaign.Grant{UserID: "below", Role: campaign.RoleManager, Unit: "operator"},
		campaign.Grant{UserID: "beside", Role: campaign.RoleAdmin, Unit: "operator/south"},
		campaign.Grant{UserID: "beside", Role: campaign.RoleManager, Unit: everyRole})
	for user, want := range map[string]bool{"above": false, "same": false, "below": false, "beside": true} {
		require.Equal(t, want, allowed(t, e, user, campaign.ActApprovalManager, everyRole, 1), user)
		_, err := e.Require(user, campaign.ActApprovalManager, everyRole, 1)
		require.Equal(t, want, err == nil, user)
	}
	require.True(t, allowed(t, e, "below", campaign.ActApprovalManager, "operator/west", 1))
	require.True(t, allowed(t, e, "above", campaign.ActTargetRead, everyRole, 0), "only approvals are denied")
	require.Empty(t, e.Units("above", campaign.ActApprovalManager))
	require.Equal(t, []campaign.OrgUnit{"operator/north"}, e.Units("beside", campaign.ActApprovalManager))
}

func TestRefusesToStart(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		documents []campaign.PolicyDocument
		code      campaign.Code
	}{
		"no document":           {nil, campaign.CodeEmptyPolicy},
		"no standard":           {[]campaign.PolicyDocument{written(1, "operator", policyText, routesText)}, campaign.CodeEmptyPolicy},
		"an empty document":     {[]campaign.PolicyDocument{written(1, "", "", routesText)}, campaign.CodeEmptyPolicy},
		"a bad row":             {[]campaign.PolicyDocument{written(1, "", policyText+"p, *, *, *, allow\n", routesText)}, campaign.CodePolicyRejected},
		"a tenant's bad row":    {[]campaign.PolicyDocument{Standard(), written(2, "operator", policyText+"p, *, *, *, allow\n", routesText)}, campaign.CodePolicyRejected},
		"edited where it lies":  {[]campaign.PolicyDocument{{Version: 1, Policy: policyText + "\n", Routes: routesText, Digest: Standard().Digest}}, campaign.CodePolicyRejected},
		"two for the same unit": {[]campaign.PolicyDocument{Standard(), written(1, "", policyText+"\n", routesText)}, campaign.CodePolicyRejected},
	} {
		_, err := New(ctx, fixed(), Fixed(c.documents...))
		require.Equal(t, c.code, campaign.CodeOf(err), "%s: %v", name, err)
	}
	for name, g := range map[string]campaign.Grant{
		"unknown role":   {UserID: "u", Role: "boss", Unit: "operator"},
		"no user":        {Role: campaign.RolePlanner, Unit: "operator"},
		"malformed unit": {UserID: "u", Role: campaign.RolePlanner, Unit: "operator/*"},
	} {
		_, err := New(ctx, fixed(g), Fixed(Standard()))
		require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(err), name)
	}
	fault := errors.New("no database")
	_, err := New(ctx, func(context.Context) ([]campaign.Grant, error) { return nil, fault }, Fixed(Standard()))
	require.ErrorIs(t, err, fault)
	_, err = New(ctx, fixed(), func(context.Context) ([]campaign.PolicyDocument, error) { return nil, fault })
	require.ErrorIs(t, err, fault)
}

func TestRefusesEnforcementSwitchedOff(t *testing.T) {
	c := start(t).now.Load().of("operator").casbin
	require.NoError(t, refusesStrangers(c))
	c.EnableEnforce(false)
	require.Equal(t, campaign.CodeEmptyPolicy, campaign.CodeOf(refusesStrangers(c)))
}

func TestReload(t *testing.T) {
	ctx := context.Background()
	planner := campaign.Grant{UserID: "u", Role: campaign.RolePlanner, Unit: "operator"}
	now := []campaign.Grant{planner}
	var fault error
	e, err := New(ctx, func(context.Context) ([]campaign.Grant, error) { return now, fault }, Fixed(Standard()))
	require.NoError(t, err)
	first := e.Version("operator")
	require.Regexp(t, `^1-[0-9a-f]{12}-[0-9a-f]{12}$`, first)
	require.True(t, allowed(t, e, "u", campaign.ActCampaignEdit, "operator", 0))

	now = nil
	require.NoError(t, e.Reload(ctx))
	require.False(t, allowed(t, e, "u", campaign.ActCampaignEdit, "operator", 0), "a revoked role still works")
	require.NotEqual(t, first, e.Version("operator"))

	now = []campaign.Grant{planner, planner}
	require.NoError(t, e.Reload(ctx))
	require.Equal(t, first, e.Version("operator"), "the version must depend on nothing but content")

	fault = errors.New("no database")
	require.ErrorIs(t, e.Reload(ctx), fault)
	fault, now = nil, []campaign.Grant{{UserID: "u", Role: "boss", Unit: "operator"}}
	require.Error(t, e.Reload(ctx))
	require.Equal(t, first, e.Version("operator"), "a refused reload must leave the old grants in force")
	require.True(t, allowed(t, e, "u", campaign.ActCampaignEdit, "operator", 0))
}

// While grants change all the time, and a document comes and goes that nobody may decide
// by, every decision must fit one of the two states.
func TestReloadWhileDeciding(t *testing.T) {
	ctx := context.Background()
	states := [][]campaign.Grant{
		{{UserID: "always", Role: campaign.RolePlanner, Unit: "operator"}, {UserID: "one", Role: campaign.RoleAgent, Unit: "operator"}},
		{{UserID: "always", Role: campaign.RolePlanner, Unit: "operator"}, {UserID: "two", Role: campaign.RoleAgent, Unit: "operator"}},
	}
	good := written(2, "operator", without(t, "p, role:planner, campaign.create"), routesText)
	policies := [][]campaign.PolicyDocument{
		{Standard(), good}, {Standard(), good}, {Standard(), written(3, "operator", policyText+"p, *, *, *, allow\n", routesText)},
	}
	var n, m atomic.Int64
	e, err := New(ctx, func(context.Context) ([]campaign.Grant, error) { return states[n.Add(1)%2], nil },
		func(context.Context) ([]campaign.PolicyDocument, error) { return policies[m.Add(1)%3], nil })
	require.NoError(t, err)

	var deciders sync.WaitGroup
	var wrong atomic.Int64
	done := make(chan struct{})
	for range 4 {
		deciders.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				_, always, err := e.Allow("always", campaign.ActCampaignEdit, "operator/north", 0)
				_, never, err2 := e.Allow("never", campaign.ActCampaignEdit, "operator/north", 0)
				_, worker, err3 := e.Allow("one", campaign.ActCampaignEdit, "operator/north", 0)
				_, created, err4 := e.Allow("always", campaign.ActCampaignCreate, "operator/north", 0)
				if !always || never || worker || created || err4 != nil || err != nil || err2 != nil || err3 != nil {
					wrong.Add(1)
				}
			}
		})
	}
	var reloaders sync.WaitGroup
	for range 2 {
		reloaders.Go(func() {
			for range 25 {
				if e.Reload(ctx) != nil {
					wrong.Add(1)
				}
			}
		})
	}
	reloaders.Wait()
	close(done)
	deciders.Wait()
	require.Zero(t, wrong.Load())
}

func TestUnits(t *testing.T) {
	e := start(t,
		campaign.Grant{UserID: "u", Role: campaign.RolePlanner, Unit: "operator/north"},
		campaign.Grant{UserID: "u", Role: campaign.RoleManager, Unit: "operator/north/harbin"},
		campaign.Grant{UserID: "u", Role: campaign.RoleManager, Unit: "operator/south"},
		campaign.Grant{UserID: "u", Role: campaign.RoleManager, Unit: "operator/north-east"})
	require.Equal(t, []campaign.OrgUnit{"operator/north", "operator/north-east", "operator/south"}, e.Units("u", campaign.ActCampaignRead))
	require.Equal(t, []campaign.OrgUnit{"operator/north"}, e.Units("u", campaign.ActCampaignEdit))
	require.Equal(t, []campaign.OrgUnit{"operator/north-east", "operator/north/harbin", "operator/south"}, e.Units("u", campaign.ActApprovalManager))
	require.Empty(t, e.Units("u", campaign.ActUserAdminister))
	require.Empty(t, e.Units("stranger", campaign.ActCampaignRead))
}

func BenchmarkAllow(b *testing.B) {
	var grants []campaign.Grant
	for i := range 1000 {
		grants = append(grants, campaign.Grant{UserID: fmt.Sprint(i), Role: campaign.Roles()[i%8], Unit: "operator/north"})
	}
	e := start(b, grants...)
	for name, amount := range map[string]int64{"read": 0, "amount": 1_000_000} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, _, err := e.Allow(grants[i%1000].UserID, campaign.ActCampaignRead, "operator/north/harbin/d1", amount); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
