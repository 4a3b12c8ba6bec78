package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/ledger"
)

// withLimit makes a policy the tenant's in which permissions of finance have a limit.
func (e *env) withLimit(limit int64, acts ...campaign.Action) {
	e.t.Helper()
	d := standard()
	for _, act := range acts {
		without := fmt.Sprintf("role:finance, %s, *,", act)
		require.Contains(e.t, d.Policy, without)
		d.Policy = strings.Replace(d.Policy, without, fmt.Sprintf("role:finance, %s, %d,", act, limit), 1)
	}
	into[Policy](e.t, e.ruleOn("treasurer", e.proposal("head", d), "approve", ""))
}

// sessionOf logs somebody in and returns their cookie.
func (e *env) sessionOf(login, password string) string {
	e.t.Helper()
	begun := e.logIn(login, password)
	require.Equal(e.t, http.StatusCreated, begun.status, "%s", begun.body)
	cookie, _, _ := strings.Cut(begun.header.Get("Set-Cookie"), ";")
	return cookie
}

func TestNoAdministratorAloneMakesASigner(t *testing.T) {
	e := withTenant(t)
	give := func(as, login string, role campaign.Role) User {
		t.Helper()
		return into[User](t, e.send(as, "POST", "/v1/users/"+e.users[login]+"/grants", RoleGrant{Role: role, Unit: here}))
	}
	confirm := func(as, login string, role campaign.Role) reply {
		return e.send(as, "POST", "/v1/users/"+e.users[login]+"/grants/confirm", RoleGrant{Role: role, Unit: here})
	}
	same := func(why string, r reply) {
		t.Helper()
		require.Equal(t, "sod_same_actor", r.problem(t).Code, why)
		require.Equal(t, http.StatusForbidden, r.status)
	}
	made := into[AddedUser](t, e.send("head", "POST", "/v1/users", NewUser{Login: "puppet", Name: "Puppet", Password: "a long password", Roles: []RoleGrant{
		{Role: campaign.RoleAgent, Unit: here}, {Role: campaign.RoleManager, Unit: here}, {Role: campaign.RoleAdmin, Unit: here},
	}}))
	require.Equal(t, []RoleGrant{{Role: campaign.RoleAgent, Unit: here}}, made.Roles)
	require.Len(t, made.Waiting, 2)
	e.users["puppet"] = made.ID
	require.Equal(t, campaign.CodeForbidden, campaign.CodeOf(e.may("puppet", 1)))
	e.exec(`UPDATE app_user SET password_temporary = false WHERE login = 'puppet'`)
	require.Equal(t, http.StatusOK, e.send("puppet", "GET", "/v1/tasks", nil).status, "an agent at once")
	require.Equal(t, "forbidden", e.send("puppet", "GET", "/v1/users", nil).problem(t).Code, "no administrator yet")

	for _, role := range []campaign.Role{campaign.RoleManager, campaign.RoleFinance, campaign.RoleCredit, campaign.RoleOperator, campaign.RoleAdmin} {
		u := give("head", "agent", role)
		require.Equal(t, []RoleGrant{{Role: campaign.RoleAgent, Unit: here}}, u.Roles, role)
		require.Contains(t, u.Waiting, WaitingGrant{Role: role, Unit: here, GrantedBy: Person{ID: e.users["head"], Name: "The head"}})
	}
	require.Equal(t, campaign.CodeForbidden, campaign.CodeOf(e.may("agent", 1)))
	require.Len(t, into[Me](t, e.send("agent", "GET", "/v1/me", nil)).Grants, 1)
	require.NotContains(t, string(e.send("head", "GET", "/v1/users?role=finance", nil).body), e.users["agent"])

	same("whoever gave it", confirm("head", "agent", campaign.RoleManager))
	require.Equal(t, "forbidden", confirm("agent", "agent", campaign.RoleManager).problem(t).Code)
	require.Equal(t, "not_found", confirm("deputy", "agent", campaign.RolePlanner).problem(t).Code, "nobody gave it")
	give("deputy", "agent", campaign.RoleManager) // again: neither a confirmation nor another's gift
	require.Equal(t, campaign.CodeForbidden, campaign.CodeOf(e.may("agent", 1)))

	// Nor does an account that the first one made, or whose password the first one chose.
	e.exec(`UPDATE role_grant SET waiting = false WHERE user_id = $1 AND role = 'administrator'`, e.users["puppet"])
	e.reload()
	same("an account of the first one's", confirm("puppet", "agent", campaign.RoleManager))
	e.addUser("reset", here, campaign.RoleAdmin)
	e.reload()
	into[NewPassword](t, e.send("head", "POST", "/v1/users/"+e.users["reset"]+"/password", PasswordReset{Password: "a long password"}))
	e.exec(`UPDATE role_grant SET suspended = false WHERE user_id = $1`, e.users["reset"])
	e.exec(`UPDATE app_user SET password_temporary = false, session_epoch = 0 WHERE login = 'reset'`)
	e.reload()
	same("a password of the first one's", confirm("reset", "agent", campaign.RoleManager))
	same("the other way round", func() reply {
		give("puppet", "reviewer", campaign.RoleManager)
		return confirm("head", "reviewer", campaign.RoleManager)
	}())

	for range 2 {
		u := into[User](t, confirm("deputy", "agent", campaign.RoleManager))
		require.Contains(t, u.Roles, RoleGrant{Role: campaign.RoleManager, Unit: here})
		require.Len(t, u.Waiting, 4)
	}
	require.NoError(t, e.may("agent", 1), "it counts at once")
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM audit_event WHERE event = 'user.role_confirmed' AND actor_id = $1 AND data->>'user' = $2
		AND data->>'role' = 'manager'`, e.users["deputy"], e.users["agent"]))
	require.EqualValues(t, 5, e.event("user.role_proposed", "agent"))
	require.Contains(t, give("head", "agent", campaign.RoleAnalyst).Roles, RoleGrant{Role: campaign.RoleAnalyst, Unit: here}, "what signs nothing counts at once")
}

func TestAPasswordChosenByAnotherSignsNothing(t *testing.T) {
	e := withTenant(t)
	path := "/v1/users/" + e.users["manager"]
	into[NewPassword](t, e.send("head", "POST", path+"/password", PasswordReset{Password: "a long password"}))
	cookie := e.sessionOf("manager", "a long password")
	changed := e.send("", "POST", "/v1/me/password", PasswordChange{Current: "a long password", Password: "another long one"}, "Cookie", cookie)
	require.Equal(t, http.StatusNoContent, changed.status)
	cookie, _, _ = strings.Cut(changed.header.Get("Set-Cookie"), ";")
	lend := func() reply {
		return e.send("", "POST", "/v1/delegations", NewDelegation{
			To: "planner", Actions: []campaign.Action{campaign.ActApprovalManager}, Unit: here, Until: time.Now().Add(time.Hour), Reason: "leave",
		}, "Cookie", cookie)
	}
	require.Equal(t, "forbidden", lend().problem(t).Code, "whoever changed it may be the administrator")
	id := e.newCampaign().Campaign.ID
	require.Contains(t, e.send("", "POST", "/v1/campaigns/"+id+"/decisions", `{}`, "Cookie", cookie).problem(t).Detail, "chose your password")
	require.Equal(t, http.StatusOK, e.send("", "GET", "/v1/campaigns/"+id, nil, "Cookie", cookie).status, "they read as ever")
	e.reload()
	require.NoError(t, e.may("manager", 1), "what they signed before stands")

	g := RoleGrant{Role: campaign.RoleManager, Unit: here}
	require.Equal(t, []WaitingGrant{{Role: g.Role, Unit: here, GrantedBy: Person{ID: e.users["head"], Name: "The head"}}}, into[User](t, e.send("deputy", "GET", path, nil)).Waiting)
	require.Equal(t, "sod_same_actor", e.send("head", "POST", path+"/grants/confirm", g).problem(t).Code)
	require.Equal(t, []RoleGrant{g}, into[User](t, e.send("deputy", "POST", path+"/grants/confirm", g)).Roles)
	require.Equal(t, http.StatusCreated, lend().status)
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM audit_event WHERE event = 'user.password_reset' AND data->'suspended' = '["manager at operator/north"]'`))
	require.EqualValues(t, 1, e.event("user.role_confirmed", "manager"))

	into[NewPassword](t, e.send("head", "POST", "/v1/users/"+e.users["agent"]+"/password", PasswordReset{}))
	require.Empty(t, into[User](t, e.send("head", "GET", "/v1/users/"+e.users["agent"], nil)).Waiting, "who signs nothing goes on")
}

func TestAnIdentityIsConfirmedByItsOwner(t *testing.T) {
	e, p := withTenant(t), newIDP(t)
	e.trust(p)
	path := "/v1/users/" + e.users["manager"]
	enter := func() reply { return get(t, browser(t), e.url+"/v1/sessions/oidc") }
	before := e.sessionOf("manager", password)
	into[User](t, e.send("head", "PUT", path+"/identity", NewIdentity{Subject: "subject-1"}))
	require.Equal(t, http.StatusUnauthorized, e.send("", "GET", "/v1/me", nil, "Cookie", before).status, "sessions end")
	require.Equal(t, http.StatusUnauthorized, enter().status, "an administrator's own identity, for all that is known")
	require.Equal(t, "sod_same_actor", e.send("head", "POST", path+"/identity/confirm", NewIdentity{Subject: "subject-1"}).problem(t).Code)

	cookie := e.sessionOf("manager", password)
	mine := func(subject string) reply {
		return e.send("", "POST", "/v1/me/identity/confirm", NewIdentity{Subject: subject}, "Cookie", cookie)
	}
	require.Equal(t, "not_found", mine("subject-2").problem(t).Code)
	require.Equal(t, http.StatusUnauthorized, enter().status)
	require.Equal(t, http.StatusNoContent, mine("subject-1").status)
	require.Equal(t, e.users["manager"], into[Me](t, enter()).ID)
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM audit_event WHERE event = 'user.identity_confirmed' AND actor_id = $1`, e.users["manager"]))

	// A session that the identity opened confirms none.
	c := browser(t)
	require.Equal(t, http.StatusOK, get(t, c, e.url+"/v1/sessions/oidc").status)
	req, err := http.NewRequest(http.MethodPost, e.url+"/v1/me/identity/confirm", strings.NewReader(`{"subject": "subject-1"}`))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", "again")
	answer, err := c.Do(req)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, http.StatusForbidden, answer.StatusCode)

	// Who chose both, password and identity, needs somebody else.
	path = "/v1/users/" + e.users["agent"]
	into[NewPassword](t, e.send("head", "POST", path+"/password", PasswordReset{Password: "a long password"}))
	into[User](t, e.send("head", "PUT", path+"/identity", NewIdentity{Subject: "subject-2"}))
	e.exec(`UPDATE app_user SET password_temporary = false WHERE login = 'agent'`)
	cookie = e.sessionOf("agent", "a long password")
	require.Equal(t, "sod_same_actor", mine("subject-2").problem(t).Code)
	require.False(t, into[User](t, e.send("deputy", "POST", path+"/identity/confirm", NewIdentity{Subject: "subject-2"})).Identity.Waiting)
}

func TestNobodyDecidesOnAPolicyOfTheirMaker(t *testing.T) {
	for how, set := range map[string]string{
		"account":  `UPDATE app_user SET added_by = $2 WHERE id = $1`,
		"password": `UPDATE app_user SET password_by = $2 WHERE id = $1`,
		"role":     `UPDATE role_grant SET granted_by = $2 WHERE user_id = $1`,
		"identity": `INSERT INTO user_identity (user_id, issuer, subject, given_by) VALUES ($1, 'i', 's', $2)`,
	} {
		t.Run(how, func(t *testing.T) {
			e := withTenant(t)
			e.exec(set, e.users["treasurer"], e.users["head"])
			version := e.proposal("head", stricter())
			for _, decision := range []string{"approve", "reject"} {
				r := e.ruleOn("treasurer", version, decision, "because")
				require.Equal(t, "sod_same_actor", r.problem(t).Code)
				require.Equal(t, http.StatusForbidden, r.status)
			}
			into[Policy](t, e.ruleOn("deputy", version, "approve", ""))
		})
	}
}

func TestLimitsHoldForAllDraws(t *testing.T) {
	e := withTenant(t)
	e.withLimit(5_000, campaign.ActBudgetDraw)
	plan := validPlan()
	plan.Contingency = 10_000
	id := into[CampaignDetail](t, e.send("planner", "POST", "/v1/campaigns", NewCampaign{Plan: plan})).Campaign.ID
	e.setStatus(id, campaign.Status{Stage: campaign.StageRunning, Revision: 1})
	_, err := ledger.New(e.store.Pool()).ReserveAll(t.Context(), ledger.Budget{
		CampaignID: id, Currency: "CNY", Contingency: 10_000, Lines: []ledger.Ceiling{{Line: "calls", Category: campaign.CategoryContact, Amount: 90_000}},
	})
	require.NoError(t, err)
	draw := func(login string, amount int64) reply {
		return e.send(login, "POST", "/v1/campaigns/"+id+"/contingency", NewContingencyDraw{Line: "calls", Amount: amount, Words: "more calls"})
	}
	require.Equal(t, "limit_exceeded", draw("finance", 5_001).problem(t).Code)
	into[ContingencyDraw](t, draw("finance", 4_000))
	more := draw("finance", 1_001).problem(t)
	require.Equal(t, "limit_exceeded", more.Code)
	require.EqualValues(t, 4_000, more.Details["drawn"])
	into[ContingencyDraw](t, draw("finance", 1_000))
	require.Equal(t, "limit_exceeded", draw("finance", 1).problem(t).Code)
	into[ContingencyDraw](t, draw("treasurer", 5_000)) // a limit is each person's
	require.EqualValues(t, 10_000, e.number(`SELECT sum(amount) FROM contingency_draw`))
}

func TestLimitsOfCredit(t *testing.T) {
	e := withTenant(t)
	pool := e.pool("Tablets", 50_000)
	id, all := e.promised(1)
	e.withLimit(999, campaign.ActCreditPool, campaign.ActCreditClawBack)
	add := func(amount int64) reply {
		return e.send("finance", "POST", "/v1/credit/pools/"+pool.ID+"/allocations", NewCreditAllocation{Amount: amount, Words: "more"})
	}
	require.Equal(t, "limit_exceeded", add(1_000).problem(t).Code)
	require.EqualValues(t, 50_999, into[CreditPool](t, add(999)).Figures.Capacity)

	path := "/v1/campaigns/" + id + "/credit/grants/" + all[0].ID + "/claw-back"
	require.Equal(t, "limit_exceeded", e.send("finance", "POST", path, NewClawBack{Words: "left"}).problem(t).Code)
	require.Zero(t, e.number(`SELECT count(*) FROM ledger_journal WHERE kind = 'credit_clawed_back'`))
	require.EqualValues(t, 1_000, into[CreditGrant](t, e.send("credit", "POST", path, NewClawBack{Words: "left"})).ClawedBack)
}
