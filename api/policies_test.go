package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/policies"
)

const tenant = campaign.OrgUnit("operator")

func standard() campaign.PolicyDocument { return policies.Standard() }

// stricter is the standard by which managers sign for less.
func stricter() campaign.PolicyDocument {
	d := standard()
	d.Policy = strings.Replace(d.Policy, "approval.manager, 5000000000", "approval.manager, 1000000", 1)
	return d
}

func newPolicy(base int64, d campaign.PolicyDocument) NewPolicy {
	return NewPolicy{Unit: tenant, Base: base, Policy: d.Policy, Routes: json.RawMessage(d.Routes), Words: "because"}
}

// proposal stores a proposal for the tenant, as a change of what is in force.
func (e *env) proposal(login string, d campaign.PolicyDocument) int64 {
	e.t.Helper()
	active, err := e.store.PolicyOf(e.t.Context(), campaign.PolicyAccess, tenant)
	require.NoError(e.t, err)
	d.Tenant, d.Digest = tenant, campaign.PolicyDigest(d.Policy, d.Routes)
	p, err := e.store.ProposePolicy(e.t.Context(), uuid.NewString(), d, active.Version, "because", campaign.Actor{UserID: e.users[login]})
	require.NoError(e.t, err)
	return p.Version
}

// withTenant adds people who hold their roles at the tenant itself.
func withTenant(t *testing.T) *env {
	e := newEnv(t)
	e.addUser("head", tenant, campaign.RoleAdmin)
	e.addUser("deputy", tenant, campaign.RoleAdmin)
	e.addUser("treasurer", tenant, campaign.RoleFinance)
	e.reload()
	return e
}

func (e *env) ruleOn(login string, version int64, decision, words string) reply {
	return e.send(login, "POST", fmt.Sprintf("/v1/policies/%d/decision", version), NewPolicyDecision{Decision: decision, Words: words})
}

func (e *env) events(event string) int64 {
	return e.number(`SELECT count(*) FROM audit_event WHERE event = $1`, event)
}

func TestTwoPeopleChangeAPolicy(t *testing.T) {
	e := withTenant(t)
	before := into[PolicyPage](t, e.send("auditor", "GET", "/v1/policies", nil))
	require.Equal(t, []PolicyInForce{{Unit: tenant, Version: 1}}, before.InForce)
	require.Len(t, before.Items, 1)
	require.Equal(t, campaign.PolicyActive, before.Items[0].State)
	require.Nil(t, before.Items[0].ProposedBy)
	old := e.server.policies.Version(here)
	require.Regexp(t, `^1-`, old)
	require.NoError(t, e.may("manager", 2_000_000))

	key := uuid.NewString()
	made := into[PolicyDetail](t, e.send("head", "POST", "/v1/policies", newPolicy(1, stricter()), "Idempotency-Key", key))
	require.EqualValues(t, 2, made.Version.Version)
	require.Equal(t, campaign.PolicyProposed, made.Version.State)
	require.Equal(t, e.users["head"], made.Version.ProposedBy.ID)
	require.Equal(t, []string{"role:manager, approval.manager, 1000000, allow"}, made.Changes.PermissionsAdded)
	require.Equal(t, []string{"role:manager, approval.manager, 5000000000, allow"}, made.Changes.PermissionsRemoved)
	require.Empty(t, made.Changes.Rules)
	require.EqualValues(t, 1, e.events("policy.proposed"))
	again := e.send("head", "POST", "/v1/policies", newPolicy(1, stricter()), "Idempotency-Key", key)
	require.Equal(t, "true", again.header.Get("Idempotency-Replayed"))
	require.EqualValues(t, 2, e.number(`SELECT count(*) FROM policy_document`))
	require.NoError(t, e.may("manager", 2_000_000), "a proposal changes nothing")

	own := e.ruleOn("head", 2, "approve", "")
	require.Equal(t, "sod_self_approval", own.problem(t).Code)
	require.Equal(t, http.StatusForbidden, own.status)
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM audit_event WHERE event = 'access.denied' AND NOT allowed
		AND actor_id = $1 AND data->>'operation' = 'decidePolicy' AND data->>'code' = 'sod_self_approval'`, e.users["head"]))
	require.Equal(t, "forbidden", e.ruleOn("administrator", 2, "approve", "").problem(t).Code, "who administers a part of the tenant")
	require.Equal(t, "forbidden", e.ruleOn("finance", 2, "approve", "").problem(t).Code)
	require.Equal(t, "forbidden", e.ruleOn("manager", 2, "approve", "").problem(t).Code)
	require.Equal(t, "reason_required", e.ruleOn("treasurer", 2, "reject", " ").problem(t).Code)
	require.Equal(t, old, e.server.policies.Version(here))

	active := into[Policy](t, e.ruleOn("treasurer", 2, "approve", "as agreed"))
	require.Equal(t, campaign.PolicyActive, active.State)
	require.Equal(t, e.users["treasurer"], active.DecidedBy.ID)
	require.Equal(t, "as agreed", active.DecisionWords)
	require.Equal(t, campaign.CodeLimitExceeded, campaign.CodeOf(e.may("manager", 2_000_000)), "it holds at once")
	require.Regexp(t, `^2-`+active.Digest[:12]+`-`, e.server.policies.Version(here))
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM audit_event WHERE event = 'policy.activated' AND allowed AND actor_id = $1
		AND data->>'version' = '2' AND data->>'digest' = $2 AND data->>'proposed_by' = $3`, e.users["treasurer"], active.Digest, e.users["head"]))
	require.Equal(t, campaign.PolicyActive, into[Policy](t, e.ruleOn("treasurer", 2, "approve", "")).State, "the same decision again changes nothing")
	require.EqualValues(t, 1, e.events("policy.activated"))
	require.Equal(t, "state_conflict", e.ruleOn("deputy", 2, "reject", "no").problem(t).Code)

	c := e.newCampaign()
	into[Standing](t, e.send("planner", "POST", "/v1/campaigns/"+c.Campaign.ID+"/submit", Submission{Revision: 1}))
	require.Equal(t, e.server.policies.Version(here), e.orch.asked()[0].arg.(campaign.Order).Head().PolicyVersion, "what is decided by is recorded")

	page := into[PolicyPage](t, e.send("finance", "GET", "/v1/policies?limit=1", nil))
	require.Equal(t, []PolicyInForce{{Unit: tenant, Version: 2}}, page.InForce)
	require.EqualValues(t, 2, page.Items[0].Version)
	page = into[PolicyPage](t, e.send("finance", "GET", "/v1/policies?limit=1&cursor="+page.Next, nil))
	require.EqualValues(t, 1, page.Items[0].Version)
	require.Empty(t, page.Next)
	read := into[PolicyDetail](t, e.send("auditor", "GET", "/v1/policies/1", nil))
	require.Equal(t, standard().Policy, read.Policy)
	require.JSONEq(t, standard().Routes, string(read.Routes))
	require.EqualValues(t, 2, read.Changes.InForce)
	require.Len(t, read.Changes.PermissionsAdded, 1)
}

// may asks whether a manager at here may sign for an amount.
func (e *env) may(login string, amount int64) error {
	_, err := e.server.policies.Require(e.users[login], campaign.ActApprovalManager, here, amount)
	return err
}

func TestAPolicyThatChangesAnOldOneIsNotActivated(t *testing.T) {
	e := withTenant(t)
	first, second := e.proposal("head", stricter()), e.proposal("deputy", standard())
	into[Policy](t, e.ruleOn("deputy", first, "approve", ""))
	stale := e.ruleOn("head", second, "approve", "").problem(t)
	require.Equal(t, "version_changed", stale.Code)
	require.Equal(t, http.StatusConflict, stale.Status)
	require.EqualValues(t, first, stale.Details["active"])
	late := e.send("head", "POST", "/v1/policies", newPolicy(1, standard())).problem(t)
	require.Equal(t, "version_changed", late.Code)
	require.EqualValues(t, 3, e.number(`SELECT count(*) FROM policy_document`))
	require.Equal(t, campaign.PolicyRejected, into[Policy](t, e.ruleOn("head", second, "reject", "too late")).State)
	require.EqualValues(t, 1, e.events("policy.rejected"))

	third := into[PolicyDetail](t, e.send("head", "POST", "/v1/policies", newPolicy(first, standard()))).Version.Version
	into[Policy](t, e.ruleOn("treasurer", third, "approve", ""))
	require.NoError(t, e.may("manager", 2_000_000))
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM policy_document WHERE tenant = $1 AND state = 'active'`, tenant))
}

func TestAProposalIsWithdrawn(t *testing.T) {
	e := withTenant(t)
	version := e.proposal("head", stricter())
	path := fmt.Sprintf("/v1/policies/%d/withdraw", version)
	require.Equal(t, "forbidden", e.send("deputy", "POST", path, Withdrawal{Words: "no"}).problem(t).Code)
	require.Equal(t, "forbidden", e.send("treasurer", "POST", path, Withdrawal{Words: "no"}).problem(t).Code)
	require.Equal(t, campaign.PolicyWithdrawn, into[Policy](t, e.send("head", "POST", path, Withdrawal{Words: "a slip"})).State)
	require.Equal(t, campaign.PolicyWithdrawn, into[Policy](t, e.send("head", "POST", path, Withdrawal{Words: "a slip"})).State)
	require.EqualValues(t, 1, e.events("policy.withdrawn"))
	require.Equal(t, "state_conflict", e.ruleOn("treasurer", version, "approve", "").problem(t).Code)
	require.Equal(t, "state_conflict", e.send("head", "POST", "/v1/policies/1/withdraw", Withdrawal{Words: "no"}).problem(t).Code, "the standard is nobody's")
}

func TestPoliciesThatAreRefused(t *testing.T) {
	e := withTenant(t)
	for name, c := range map[string]struct {
		change func(*NewPolicy)
		code   string
		status int
		field  string
	}{
		"a wildcard":    {func(p *NewPolicy) { p.Policy += "p, *, *, *, allow\n" }, "policy_rejected", 422, "policy"},
		"an expression": {func(p *NewPolicy) { p.Policy += "p, role:agent, eval(1 == 1), *, allow\n" }, "policy_rejected", 422, "policy"},
		"administrators sign": {func(p *NewPolicy) {
			p.Policy = strings.Replace(p.Policy, "approval.finance, *, deny", "campaign.stop, *, deny", 1)
		}, "policy_rejected", 422, "policy"},
		"empty":                 {func(p *NewPolicy) { p.Policy = "" }, "empty_policy", 422, "policy"},
		"no route":              {func(p *NewPolicy) { p.Routes = json.RawMessage(`{"rules": []}`) }, "empty_policy", 422, "routes"},
		"a route with no level": {func(p *NewPolicy) { p.Routes = json.RawMessage(`{"rules": [{"name": "r", "levels": []}]}`) }, "policy_rejected", 422, "routes.rules[0].levels"},
		"a district's":          {func(p *NewPolicy) { p.Unit = here }, "invalid_parameter", 400, "unit"},
		"somebody else's":       {func(p *NewPolicy) { p.Unit = "bank" }, "forbidden", 403, ""},
		"no words":              {func(p *NewPolicy) { p.Words = " " }, "reason_required", 422, ""},
		"of no version":         {func(p *NewPolicy) { p.Base = 99 }, "version_changed", 409, ""},
	} {
		t.Run(name, func(t *testing.T) {
			n := newPolicy(1, standard())
			c.change(&n)
			r := e.send("head", "POST", "/v1/policies", n)
			p := r.problem(t)
			require.Equal(t, c.code, p.Code, "%s", r.body)
			require.Equal(t, c.status, r.status)
			if c.field != "" {
				require.Equal(t, c.field, p.Fields[0].Field)
			}
		})
	}
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM policy_document`))
	require.Positive(t, e.number(`SELECT count(*) FROM audit_event WHERE event = 'command.refused' AND NOT allowed AND data->>'code' = 'policy_rejected'`))
}

func TestAnEditedProposalIsNotActivated(t *testing.T) {
	e := withTenant(t)
	version := e.proposal("head", stricter())
	e.exec(`ALTER TABLE policy_document DISABLE TRIGGER policy_document_kept`)
	e.exec(`UPDATE policy_document SET policy = policy || E'\n' WHERE version = $1`, version)
	require.Equal(t, "policy_rejected", e.ruleOn("treasurer", version, "approve", "").problem(t).Code)
	require.Equal(t, campaign.PolicyRejected, into[Policy](t, e.ruleOn("treasurer", version, "reject", "who wrote this?")).State)
}

func TestPoliciesOfOtherTenants(t *testing.T) {
	e := withTenant(t)
	require.NoError(t, e.store.CreateUnit(t.Context(), "bank", "Bank"))
	e.addUser("banker", "bank", campaign.RoleAdmin)
	e.reload()
	version := e.proposal("head", stricter())
	path := fmt.Sprintf("/v1/policies/%d", version)
	for _, r := range []reply{
		e.send("banker", "GET", path, nil), e.ruleOn("banker", version, "approve", ""), e.send("banker", "POST", path+"/withdraw", Withdrawal{Words: "no"}),
	} {
		foreign, missing := r.problem(t), e.send("banker", "GET", "/v1/policies/99", nil).problem(t)
		foreign.RequestID, missing.RequestID = "", ""
		require.Equal(t, missing, foreign)
	}
	into[Policy](t, e.ruleOn("treasurer", version, "approve", ""))
	page := into[PolicyPage](t, e.send("banker", "GET", "/v1/policies", nil))
	require.Equal(t, []PolicyInForce{{Unit: "bank", Version: 1}}, page.InForce)
	require.Len(t, page.Items, 1)
	require.Regexp(t, `^1-`, e.server.policies.Version("bank"))
	require.Regexp(t, `^2-`, e.server.policies.Version(here))
}

// A row that nobody could have activated through the API, as after a restore or by
// somebody with the database's password, is not decided by.
func TestAPolicyThatIsNotDecidedBy(t *testing.T) {
	e := withTenant(t)
	version := e.proposal("head", stricter())
	e.exec(`ALTER TABLE policy_document DISABLE TRIGGER policy_document_kept`)
	e.exec(`UPDATE policy_document SET policy = policy || E'p, *, *, *, allow\n', state = 'active', decided_by = $2, decided_at = now(), decision_words = '' WHERE version = $1`,
		version, e.users["treasurer"])
	e.reload()
	var ready struct {
		Status string
		Parts  map[string]string
	}
	require.NoError(t, json.Unmarshal(e.send("", "GET", "/readyz", nil).body, &ready))
	require.Equal(t, "degraded", ready.Status)
	require.Equal(t, "degraded", ready.Parts["policies"])
	require.Contains(t, into[PolicyPage](t, e.send("auditor", "GET", "/v1/policies", nil)).Degraded, "version 2")
	require.Contains(t, into[PolicyDetail](t, e.send("auditor", "GET", "/v1/policies/2", nil)).Fault, "policy")
	require.Regexp(t, `^1-`, e.server.policies.Version(here))
	require.Equal(t, "forbidden", e.send("agent", "GET", "/v1/users", nil).problem(t).Code)
	_, err := policies.New(context.Background(), e.store.Grants, e.store.ActivePolicies)
	require.Equal(t, campaign.CodePolicyRejected, campaign.CodeOf(err), "and nothing starts by it")
}
