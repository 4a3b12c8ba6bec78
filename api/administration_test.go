package api

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// serviceToken adds a token that may do actions at here; its hash is of nothing.
func (e *env) serviceToken() store.ServiceToken {
	e.t.Helper()
	token, err := e.store.AddServiceToken(e.t.Context(), store.ServiceToken{
		Name: "CRM", Unit: here, Scopes: []campaign.Action{campaign.ActOutcomeRecord}, ExpiresAt: time.Now().Add(time.Hour),
	}, tokenHash(uuid.NewString()), campaign.Actor{UserID: e.users["administrator"]})
	require.NoError(e.t, err)
	return token
}

// logIn logs in from a browser of its own, which it then forgets.
func (e *env) logIn(login, password string) reply {
	defer delete(e.sessions, "")
	return e.send("", "POST", "/v1/sessions", Credentials{Login: login, Password: password})
}

// event counts the events of a name about a user.
func (e *env) event(name, login string) int64 {
	return e.number(`SELECT count(*) FROM audit_event WHERE event = $1 AND data->>'user' = $2`, name, e.users[login])
}

func TestUsersAreListed(t *testing.T) {
	e := newEnv(t)
	e.serviceToken()
	logins := func(login, query string) (all []string) {
		cursor := ""
		for {
			page := into[UserPage](t, e.send(login, "GET", "/v1/users?limit=3"+query+cursor, nil))
			for _, u := range page.Items {
				all = append(all, u.Login)
			}
			if page.Next == "" {
				return all
			}
			cursor = "&cursor=" + page.Next
		}
	}
	all := logins("administrator", "")
	require.Len(t, all, len(campaign.Roles())+1, "everybody of the unit, page by page, with the service")
	require.NotContains(t, all, "stranger")
	require.Equal(t, []string{"planner"}, logins("administrator", "&role=planner"))
	require.Equal(t, []string{"agent"}, logins("auditor", "&q=THE+AGENT"))
	require.Empty(t, logins("administrator", "&unit="+url.QueryEscape(string(there))))
	require.Equal(t, []string{"stranger"}, logins("stranger", ""))
	require.Equal(t, "invalid_cursor", e.send("administrator", "GET", "/v1/users?role=agent&cursor="+into[UserPage](t, e.send("administrator", "GET", "/v1/users?limit=1", nil)).Next, nil).problem(t).Code)

	u := into[User](t, e.send("auditor", "GET", "/v1/users/"+e.users["agent"], nil))
	require.Equal(t, []RoleGrant{{Role: campaign.RoleAgent, Unit: here}}, u.Roles)
	foreign := e.send("administrator", "GET", "/v1/users/"+e.users["stranger"], nil).problem(t)
	missing := e.send("administrator", "GET", "/v1/users/"+uuid.NewString(), nil).problem(t)
	foreign.RequestID, missing.RequestID = "", ""
	require.Equal(t, missing, foreign)
	require.Equal(t, http.StatusNotFound, foreign.Status)
}

func TestLockingOut(t *testing.T) {
	e := newEnv(t)
	path := "/v1/users/" + e.users["planner"]
	require.Equal(t, http.StatusOK, e.send("planner", "GET", "/v1/me", nil).status)
	u := into[User](t, e.send("administrator", "POST", path+"/disable", Reason{Reason: "left us"}))
	require.True(t, u.Disabled)
	require.Equal(t, "unauthenticated", e.send("planner", "GET", "/v1/me", nil).problem(t).Code)
	require.Equal(t, "unauthenticated", e.logIn("planner", password).problem(t).Code)
	require.False(t, into[User](t, e.send("administrator", "POST", path+"/enable", Reason{Reason: "a mistake"})).Disabled)
	require.Equal(t, "unauthenticated", e.send("planner", "GET", "/v1/me", nil).problem(t).Code, "the session from before is gone for good")
	require.Equal(t, http.StatusCreated, e.logIn("planner", password).status)
	require.EqualValues(t, 1, e.event("user.disabled", "planner"))
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM audit_event WHERE event = 'user.enabled' AND actor_id = $1 AND data->>'reason' = 'a mistake'
		AND (data->>'before')::bool AND NOT (data->>'after')::bool`, e.users["administrator"]))
}

func TestEndingSessions(t *testing.T) {
	e := newEnv(t)
	stream := stream{server: e.server}
	session := func() string {
		cookie, _, _ := strings.Cut(e.logIn("planner", password).header.Get("Set-Cookie"), ";")
		return cookie
	}
	me := func(cookie string) int { return e.send("", "GET", "/v1/me", nil, "Cookie", cookie).status }
	one, two := session(), session()
	require.NotEqual(t, one, two)
	require.Equal(t, 200, me(one))

	// A live stream ends with its session.
	token := strings.TrimPrefix(two, "muster_session=")
	ctx, err := e.server.sessions.Load(t.Context(), token)
	require.NoError(t, err)
	stream.ctx = context.WithValue(ctx, requestKey{}, &request{route: route{action: campaign.ActEventsSubscribe}})
	require.NotEmpty(t, stream.units())
	require.Equal(t, http.StatusNoContent, e.send("", "DELETE", "/v1/sessions/current", nil, "Cookie", two).status)
	require.Empty(t, stream.units())
	require.Equal(t, 200, me(one), "the other goes on")

	two = session()
	gone := e.send("", "DELETE", "/v1/sessions", nil, "Cookie", two)
	require.Equal(t, http.StatusNoContent, gone.status)
	require.Contains(t, gone.header.Get("Set-Cookie"), "Max-Age=0")
	require.Equal(t, 401, me(one))
	require.Equal(t, 401, me(two))

	one = session()
	into[User](t, e.send("administrator", "DELETE", "/v1/users/"+e.users["planner"]+"/sessions", nil))
	require.Equal(t, 401, me(one))
	require.EqualValues(t, 2, e.event("session.all_ended", "planner"))
}

func TestPasswordsOfOthersMustBeChanged(t *testing.T) {
	e := newEnv(t)
	e.send("planner", "GET", "/v1/me", nil)
	made := into[NewPassword](t, e.send("administrator", "POST", "/v1/users/"+e.users["planner"]+"/password", PasswordReset{})).Password
	require.GreaterOrEqual(t, len(made), 20)
	require.Equal(t, http.StatusUnauthorized, e.send("planner", "GET", "/v1/me", nil).status)
	require.Equal(t, http.StatusUnauthorized, e.logIn("planner", password).status)
	delete(e.sessions, "planner")

	begun := e.logIn("planner", made)
	require.True(t, into[Me](t, begun).PasswordChangeRequired)
	cookie, _, _ := strings.Cut(begun.header.Get("Set-Cookie"), ";")
	for _, r := range routes {
		op := described()[r.operation]
		if r.scope == public || r.scope == ofSession {
			continue
		}
		path := strings.NewReplacer("{id}", uuid.NewString(), "{number}", "1").Replace(op.route.Path)
		require.Equal(t, "password_change_required", e.send("", op.route.Method, path, nil, "Cookie", cookie).problem(t).Code, r.operation)
	}
	change := func(current, next string) reply {
		return e.send("", "POST", "/v1/me/password", PasswordChange{Current: current, Password: next}, "Cookie", cookie)
	}
	require.Equal(t, "forbidden", change("not "+made, "nobody else knows").problem(t).Code)
	require.Equal(t, "password", change(made, made).problem(t).Fields[0].Field)
	require.Equal(t, "password", change(made, "short").problem(t).Fields[0].Field)
	other, _, _ := strings.Cut(e.logIn("planner", made).header.Get("Set-Cookie"), ";")
	changed := change(made, "nobody else knows")
	require.Equal(t, http.StatusNoContent, changed.status)
	fresh, _, _ := strings.Cut(changed.header.Get("Set-Cookie"), ";")
	require.NotEqual(t, cookie, fresh)
	for c, want := range map[string]int{cookie: 401, other: 401, fresh: 200} {
		require.Equal(t, want, e.send("", "GET", "/v1/campaigns", nil, "Cookie", c).status)
	}
	require.Equal(t, http.StatusCreated, e.logIn("planner", "nobody else knows").status)
	require.EqualValues(t, 1, e.event("user.password_reset", "planner"))
	require.EqualValues(t, 1, e.event("user.password_changed", "planner"))
	for _, secret := range []string{made, "nobody else knows"} {
		require.Zero(t, e.number(`SELECT (SELECT count(*) FROM audit_event a WHERE a::text LIKE '%' || $1 || '%')
			+ (SELECT count(*) FROM idempotency_key WHERE convert_from(body, 'UTF8') LIKE '%' || $1 || '%')`, secret))
	}
}

func TestAWrongCurrentPasswordLocks(t *testing.T) {
	e := newEnv(t)
	for range store.LoginAttempts {
		p := e.send("planner", "POST", "/v1/me/password", PasswordChange{Current: "wrong", Password: "nobody else knows"}).problem(t)
		require.Equal(t, "forbidden", p.Code)
	}
	require.Equal(t, "forbidden", e.send("planner", "POST", "/v1/me/password", PasswordChange{Current: password, Password: "nobody else knows"}).problem(t).Code)
}

func TestRolesAreGivenWithinOnesUnit(t *testing.T) {
	e := newEnv(t)
	grants := func(login string) string { return "/v1/users/" + e.users[login] + "/grants" }
	remove := func(g RoleGrant) string {
		return "?role=" + string(g.Role) + "&unit=" + url.QueryEscape(string(g.Unit))
	}
	g := RoleGrant{Role: campaign.RolePlanner, Unit: here}
	require.Equal(t, "forbidden", e.send("agent", "POST", "/v1/campaigns", NewCampaign{Plan: validPlan()}).problem(t).Code)
	require.Len(t, into[User](t, e.send("administrator", "POST", grants("agent"), g)).Roles, 2)
	into[CampaignDetail](t, e.send("agent", "POST", "/v1/campaigns", NewCampaign{Plan: validPlan()}))
	require.Len(t, into[User](t, e.send("administrator", "DELETE", grants("agent")+remove(g), nil)).Roles, 1)
	require.Equal(t, "forbidden", e.send("agent", "POST", "/v1/campaigns", NewCampaign{Plan: validPlan()}).problem(t).Code)

	for name, c := range map[string]struct {
		subject string
		grant   RoleGrant
		code    string
	}{
		"above one's unit":         {"agent", RoleGrant{Role: campaign.RolePlanner, Unit: here.Tenant()}, "forbidden"},
		"at another unit":          {"agent", RoleGrant{Role: campaign.RolePlanner, Unit: there}, "forbidden"},
		"at a unit of like name":   {"agent", RoleGrant{Role: campaign.RolePlanner, Unit: here + "-east"}, "forbidden"},
		"to oneself":               {"administrator", g, "forbidden"},
		"to somebody of elsewhere": {"stranger", g, "not_found"},
		"of no such unit":          {"agent", RoleGrant{Role: campaign.RolePlanner, Unit: here + "/nowhere"}, "invalid_parameter"},
		"of no such role":          {"agent", RoleGrant{Role: "king", Unit: here}, "invalid_parameter"},
		"of a machine":             {"agent", RoleGrant{Role: campaign.RoleService, Unit: here}, "invalid_parameter"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.code, e.send("administrator", "POST", grants(c.subject), c.grant).problem(t).Code)
		})
	}
	require.Equal(t, "forbidden", e.send("administrator", "DELETE", grants("administrator")+remove(RoleGrant{Role: campaign.RoleAdmin, Unit: here}), nil).problem(t).Code)
	require.Equal(t, "forbidden", e.send("administrator", "POST", "/v1/users/"+e.users["administrator"]+"/disable", Reason{Reason: "x"}).problem(t).Code)
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM role_grant WHERE user_id = $1`, e.users["administrator"]))

	// Somebody who also holds a role elsewhere is not the unit's administrator's to take over.
	e.addUser("agent", there, campaign.RoleManager)
	for _, path := range []string{"/disable", "/password"} {
		p := e.send("administrator", "POST", "/v1/users/"+e.users["agent"]+path, map[string]any{})
		if path == "/disable" {
			p = e.send("administrator", "POST", "/v1/users/"+e.users["agent"]+path, Reason{Reason: "x"})
		}
		require.Equal(t, "forbidden", p.problem(t).Code, path)
	}
	require.Equal(t, "forbidden", e.send("administrator", "DELETE", "/v1/users/"+e.users["agent"]+"/sessions", nil).problem(t).Code)

	// Those of the units above may take the last administrator of a unit away, as they are there themselves.
	e.addUser("root", here.Tenant(), campaign.RoleAdmin)
	e.reload()
	require.Empty(t, into[User](t, e.send("root", "DELETE", grants("administrator")+remove(RoleGrant{Role: campaign.RoleAdmin, Unit: here}), nil)).Roles)
}

func TestOrgTree(t *testing.T) {
	e := newEnv(t)
	harbin := OrgUnit{Unit: here + "/harbin", Name: "哈尔滨"}
	made := e.send("administrator", "POST", "/v1/units", harbin)
	require.Equal(t, http.StatusCreated, made.status)
	require.Equal(t, harbin, into[OrgUnit](t, made))
	harbin.Name = "Harbin"
	require.Equal(t, harbin, into[OrgUnit](t, e.send("administrator", "PATCH", "/v1/units", harbin)))
	require.Equal(t, []OrgUnit{{Unit: here, Name: "North"}, harbin}, into[UnitList](t, e.send("agent", "GET", "/v1/units", nil)).Items)
	require.Equal(t, []OrgUnit{{Unit: there, Name: "South"}}, into[UnitList](t, e.send("stranger", "GET", "/v1/units", nil)).Items)
	for name, c := range map[string]struct {
		method string
		unit   OrgUnit
		code   string
	}{
		"there already":     {"POST", harbin, "already_exists"},
		"beside one's own":  {"POST", OrgUnit{Unit: here.Tenant() + "/west", Name: "West"}, "forbidden"},
		"below another's":   {"POST", OrgUnit{Unit: there + "/x", Name: "X"}, "forbidden"},
		"a root":            {"POST", OrgUnit{Unit: "another", Name: "Another"}, "invalid_parameter"},
		"no unit above":     {"POST", OrgUnit{Unit: here + "/a/b", Name: "B"}, "invalid_parameter"},
		"no path":           {"POST", OrgUnit{Unit: "Operator/North", Name: "B"}, "invalid_parameter"},
		"blank":             {"POST", OrgUnit{Unit: here + "/c", Name: " "}, "invalid_parameter"},
		"another's name":    {"PATCH", OrgUnit{Unit: there, Name: "Mine"}, "forbidden"},
		"the name above":    {"PATCH", OrgUnit{Unit: here.Tenant(), Name: "Mine"}, "forbidden"},
		"a name of nowhere": {"PATCH", OrgUnit{Unit: here + "/nowhere", Name: "Mine"}, "not_found"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.code, e.send("administrator", c.method, "/v1/units", c.unit).problem(t).Code)
		})
	}
}

func TestLendingAuthority(t *testing.T) {
	e := newEnv(t)
	limit := func(n int64) *int64 { return &n }
	sound := NewDelegation{To: "planner", Actions: []campaign.Action{campaign.ActApprovalManager}, Unit: here, Until: time.Now().Add(time.Hour), Reason: "leave"}
	made := e.send("manager", "POST", "/v1/delegations", sound)
	require.Equal(t, http.StatusCreated, made.status)
	d := into[Delegation](t, made)
	require.Equal(t, "The manager", d.From.Name)
	require.Equal(t, "The planner", d.To.Name)
	require.True(t, d.Valid)
	require.Nil(t, d.Limit)

	for name, c := range map[string]struct {
		as     string
		change func(*NewDelegation)
		status int
		code   string
	}{
		"to oneself":             {"manager", func(d *NewDelegation) { d.To = "manager" }, 403, "delegation_not_allowed"},
		"onward":                 {"planner", func(d *NewDelegation) { d.To = "agent" }, 403, "delegation_not_allowed"},
		"what one does not hold": {"manager", func(d *NewDelegation) { d.Actions = append(d.Actions, campaign.ActApprovalFinance) }, 403, "delegation_not_allowed"},
		"of a unit above":        {"manager", func(d *NewDelegation) { d.Unit = here.Tenant() }, 403, "delegation_not_allowed"},
		"above one's limit":      {"manager", func(d *NewDelegation) { d.Limit = limit(5_000_000_001) }, 403, "limit_exceeded"},
		"no limit":               {"manager", func(d *NewDelegation) { d.Limit = limit(0) }, 422, "amount_out_of_range"},
		"to an administrator":    {"manager", func(d *NewDelegation) { d.To = "administrator" }, 403, "forbidden"},
		"by an administrator":    {"administrator", func(*NewDelegation) {}, 403, "delegation_not_allowed"},
		"what does not sign":     {"manager", func(d *NewDelegation) { d.Actions = []campaign.Action{campaign.ActCampaignRead} }, 400, "invalid_parameter"},
		"to nobody":              {"manager", func(d *NewDelegation) { d.To = "nobody" }, 400, "invalid_parameter"},
		"to a machine":           {"manager", func(d *NewDelegation) { d.To = "service-" + e.serviceToken().ID }, 400, "invalid_parameter"},
		"for too long":           {"manager", func(d *NewDelegation) { d.Until = time.Now().Add(91 * 24 * time.Hour) }, 400, "invalid_parameter"},
		"for the past":           {"manager", func(d *NewDelegation) { d.Until = time.Now().Add(-time.Minute) }, 400, "invalid_parameter"},
		"until before it begins": {"manager", func(d *NewDelegation) { d.From = time.Now().Add(2 * time.Hour) }, 400, "invalid_parameter"},
		"without a reason":       {"manager", func(d *NewDelegation) { d.Reason = "" }, 400, "invalid_parameter"},
		"of a unit that is none": {"manager", func(d *NewDelegation) { d.Unit = "North" }, 400, "invalid_parameter"},
	} {
		t.Run(name, func(t *testing.T) {
			n := sound
			n.Actions = append([]campaign.Action{}, sound.Actions...)
			c.change(&n)
			p := e.send(c.as, "POST", "/v1/delegations", n).problem(t)
			require.Equal(t, c.code, p.Code, "%+v", p)
			require.Equal(t, c.status, p.Status)
		})
	}
	up := sound
	up.Limit = limit(5_000_000_000)
	two := into[Delegation](t, e.send("manager", "POST", "/v1/delegations", up))
	require.Equal(t, up.Limit, two.Limit)

	list := func(login, query string) int {
		return len(into[DelegationPage](t, e.send(login, "GET", "/v1/delegations"+query, nil)).Items)
	}
	require.Equal(t, 2, list("manager", ""))
	require.Equal(t, 2, list("planner", "?of=me"))
	require.Equal(t, 0, list("agent", ""))
	require.Equal(t, 2, list("administrator", "?of=units"))
	require.Equal(t, 0, list("stranger", "?of=units"))
	require.Equal(t, "forbidden", e.send("manager", "GET", "/v1/delegations?of=units", nil).problem(t).Code)
	page := into[DelegationPage](t, e.send("manager", "GET", "/v1/delegations?limit=1", nil))
	require.Equal(t, two.ID, page.Items[0].ID)
	page = into[DelegationPage](t, e.send("manager", "GET", "/v1/delegations?limit=1&cursor="+page.Next, nil))
	require.Equal(t, d.ID, page.Items[0].ID)
	require.Empty(t, page.Next)

	require.Equal(t, "forbidden", e.send("planner", "DELETE", "/v1/delegations/"+d.ID, nil).problem(t).Code)
	require.Equal(t, "forbidden", e.send("auditor", "DELETE", "/v1/delegations/"+d.ID, nil).problem(t).Code)
	require.Equal(t, "not_found", e.send("stranger", "DELETE", "/v1/delegations/"+d.ID, nil).problem(t).Code)
	require.Equal(t, "not_found", e.send("stranger", "DELETE", "/v1/delegations/"+uuid.NewString(), nil).problem(t).Code)
	ended := into[Delegation](t, e.send("manager", "DELETE", "/v1/delegations/"+d.ID, nil))
	require.False(t, ended.Valid)
	require.Equal(t, e.users["manager"], ended.RevokedBy)
	require.Equal(t, e.users["administrator"], into[Delegation](t, e.send("administrator", "DELETE", "/v1/delegations/"+two.ID, nil)).RevokedBy)
}

func TestServiceTokens(t *testing.T) {
	e := newEnv(t)
	n := NewToken{Name: "CRM", Unit: here, Scopes: []campaign.Action{campaign.ActOutcomeRecord, campaign.ActCampaignRead}, ExpiresAt: time.Now().Add(time.Hour)}
	made := into[AddedToken](t, e.send("administrator", "POST", "/v1/tokens", n))
	require.Regexp(t, `^mst_[A-Za-z0-9_-]{43}$`, made.Secret)
	require.Zero(t, e.number(`SELECT (SELECT count(*) FROM service_token s WHERE s::text LIKE '%' || $1 || '%') + (SELECT count(*) FROM audit_event a WHERE a::text LIKE '%' || $1 || '%')`, made.Secret))
	with := func(method, path string, body any) reply {
		return e.send("", method, path, body, "Authorization", "Bearer "+made.Secret)
	}
	me := into[Me](t, with("GET", "/v1/me", nil))
	require.Equal(t, made.Token.ID, me.ID)
	require.Len(t, me.Actions, 2)
	c := e.newCampaign()
	require.Equal(t, 200, with("GET", "/v1/campaigns/"+c.Campaign.ID, nil).status)
	require.Equal(t, "forbidden", with("POST", "/v1/campaigns", NewCampaign{Plan: validPlan()}).problem(t).Code)
	require.Equal(t, "forbidden", with("GET", "/v1/campaigns/"+c.Campaign.ID+"/targets", nil).problem(t).Code)
	require.Equal(t, "forbidden", with("GET", "/v1/users", nil).problem(t).Code)
	require.Equal(t, "delegation_not_allowed", with("POST", "/v1/delegations", NewDelegation{
		To: "planner", Actions: []campaign.Action{campaign.ActApprovalManager}, Unit: here, Until: time.Now().Add(time.Hour), Reason: "x",
	}).problem(t).Code)
	require.Equal(t, "forbidden", with("POST", "/v1/me/password", PasswordChange{Current: "x", Password: "a machine's password"}).problem(t).Code)
	require.Equal(t, "unauthenticated", e.logIn(me.Login, "x").problem(t).Code)

	items := into[TokenList](t, e.send("administrator", "GET", "/v1/tokens", nil)).Items
	require.Len(t, items, 1)
	require.WithinDuration(t, time.Now(), items[0].LastUsedAt, 5*time.Minute)
	for name, change := range map[string]func(*NewToken){
		"sign":       func(n *NewToken) { n.Scopes = []campaign.Action{campaign.ActApprovalFinance} },
		"write":      func(n *NewToken) { n.Scopes = []campaign.Action{campaign.ActCampaignCreate} },
		"submit":     func(n *NewToken) { n.Scopes = []campaign.Action{campaign.ActCampaignRead, campaign.ActCampaignSubmit} },
		"administer": func(n *NewToken) { n.Scopes = []campaign.Action{campaign.ActUserAdminister} },
		"make more":  func(n *NewToken) { n.Scopes = []campaign.Action{campaign.ActTokenAdminister} },
		"for ever":   func(n *NewToken) { n.ExpiresAt = time.Now().Add(367 * 24 * time.Hour) },
	} {
		wrong := n
		change(&wrong)
		require.Equal(t, "invalid_parameter", e.send("administrator", "POST", "/v1/tokens", wrong).problem(t).Code, name)
	}
	n.Unit = there
	require.Equal(t, "forbidden", e.send("administrator", "POST", "/v1/tokens", n).problem(t).Code)

	e.addUser("southerner", there, campaign.RoleAdmin)
	e.reload()
	require.Equal(t, "not_found", e.send("southerner", "DELETE", "/v1/tokens/"+made.Token.ID, nil).problem(t).Code)
	require.False(t, into[ServiceToken](t, e.send("administrator", "DELETE", "/v1/tokens/"+made.Token.ID, nil)).RevokedAt.IsZero())
	require.Equal(t, "token_invalid", with("GET", "/v1/me", nil).problem(t).Code)
}

func TestTokensThatAreNone(t *testing.T) {
	e := newEnv(t)
	none := "eyJhbGciOiJub25lIn0.eyJzdWIiOiJwbGFubmVyIn0."
	for name, header := range map[string]string{
		"unknown":        "Bearer " + newToken(),
		"JWT":            "Bearer " + none,
		"padded JWT":     "Bearer " + (none + strings.Repeat("x", 100))[:tokenLength],
		"another scheme": "Basic cGxhbm5lcjpjb3JyZWN0IGhvcnNl",
		"empty":          "Bearer ",
		"only a prefix":  "Bearer mst_",
		"60 kB of dots":  "Bearer " + strings.Repeat(".", 60_000),
		"without space":  "Bearer" + newToken(),
	} {
		t.Run(name, func(t *testing.T) {
			for _, login := range []string{"", "planner"} { // a good session beside a bad token does not help
				r := e.send(login, "GET", "/v1/me", nil, "Authorization", header)
				require.Equal(t, "token_invalid", r.problem(t).Code)
				require.Equal(t, http.StatusUnauthorized, r.status)
			}
		})
	}
	req, err := http.NewRequest(http.MethodGet, e.url+"/v1/me", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+strings.Repeat(".", 1<<20))
	answer, err := http.DefaultClient.Do(req)
	if err == nil { // the server may hang up before all of it is sent
		answer.Body.Close()
		require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, answer.StatusCode)
	}
	require.Equal(t, 200, e.send("planner", "GET", "/v1/me", nil).status)
}

func TestALockedLoginStaysLocked(t *testing.T) {
	e := newEnv(t)
	for range store.LoginAttempts {
		require.Equal(t, "unauthenticated", e.logIn("planner", "wrong").problem(t).Code)
	}
	e.server.attempts = &attempts{counts: map[string]*window{}} // as after a restart, or in another process
	locked := e.logIn("planner", password).problem(t)
	wrong := e.logIn("manager", "wrong").problem(t)
	unknown := e.logIn("nobody", "wrong").problem(t)
	locked.RequestID, wrong.RequestID, unknown.RequestID = "", "", ""
	require.Equal(t, wrong, locked, "whoever guesses does not learn that this login is locked")
	require.Equal(t, unknown, locked)
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM audit_event WHERE event = 'login.locked' AND actor_id = $1`, e.users["planner"]))
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM audit_event WHERE event = 'session.refused' AND data->>'reason' = 'locked'`))
	require.True(t, into[User](t, e.send("administrator", "GET", "/v1/users/"+e.users["planner"], nil)).Locked)
	e.exec(`UPDATE app_user SET locked_until = now() WHERE login = 'planner'`)
	require.Equal(t, http.StatusCreated, e.logIn("planner", password).status)
}

func TestForms(t *testing.T) {
	e := newEnv(t)
	for name, headers := range map[string][]string{
		"from another site":   {"Sec-Fetch-Site", "cross-site", "Content-Type", "application/x-www-form-urlencoded"},
		"from a sister site":  {"Sec-Fetch-Site", "same-site", "Content-Type", "text/plain"},
		"from another origin": {"Origin", "https://evil.example", "Content-Type", "application/x-www-form-urlencoded"},
	} {
		for _, path := range []string{"/v1/delegations", "/v1/me/password", "/v1/users", "/v1/sessions"} {
			p := e.send("administrator", "POST", path, "a=b", headers...).problem(t)
			require.Equal(t, "csrf", p.Code, "%s: %s", name, path)
			require.Equal(t, http.StatusForbidden, p.Status)
		}
	}
}
