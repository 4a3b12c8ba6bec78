package api

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

func TestAdministratorsAddUsers(t *testing.T) {
	e := newEnv(t)
	roles := []RoleGrant{{Role: campaign.RolePlanner, Unit: here}, {Role: campaign.RoleAgent, Unit: here}}
	r := e.send("administrator", "POST", "/v1/users", NewUser{Login: "nora", Name: "Nora North", Roles: roles})
	added := into[AddedUser](t, r)
	require.Equal(t, http.StatusCreated, r.status)
	require.GreaterOrEqual(t, len(added.Password), 20, "made by Muster, told once")
	me := into[Me](t, e.send("", "POST", "/v1/sessions", Credentials{Login: "nora", Password: added.Password}))
	require.Equal(t, added.ID, me.ID)
	require.ElementsMatch(t, roles, me.Grants)
	require.True(t, me.PasswordChangeRequired, "an administrator knows it")
	e.users["nora"] = added.ID
	refused := e.send("nora", "POST", "/v1/campaigns", NewCampaign{Plan: validPlan()}).problem(t)
	require.Equal(t, http.StatusForbidden, refused.Status)
	require.Equal(t, "password_change_required", refused.Code)
	require.Equal(t, http.StatusNoContent, e.send("nora", "POST", "/v1/me/password", PasswordChange{Current: added.Password, Password: "nobody else knows"}).status)
	into[CampaignDetail](t, e.send("nora", "POST", "/v1/campaigns", NewCampaign{Plan: validPlan()}))

	const chosen = "a password of my own"
	own := into[AddedUser](t, e.send("administrator", "POST", "/v1/users", NewUser{Login: "olaf", Name: "Olaf", Password: chosen, Roles: roles}))
	require.Empty(t, own.Password)
	into[Me](t, e.send("", "POST", "/v1/sessions", Credentials{Login: "olaf", Password: chosen}))
	require.EqualValues(t, 2, e.number(`SELECT count(*) FROM audit_event WHERE event = 'user.added' AND actor_id = $1`, e.users["administrator"]))
	for _, secret := range []string{added.Password, chosen} {
		require.Zero(t, e.number(`SELECT (SELECT count(*) FROM audit_event a WHERE a::text LIKE '%' || $1 || '%')
			+ (SELECT count(*) FROM idempotency_key WHERE convert_from(body, 'UTF8') LIKE '%' || $1 || '%') + (SELECT count(*) FROM app_user a WHERE a::text LIKE '%' || $1 || '%')`, secret))
	}
}

func TestUsersThatAreNotAdded(t *testing.T) {
	e := newEnv(t)
	before := e.number(`SELECT count(*) FROM app_user`)
	sound := NewUser{Login: "nora", Name: "Nora", Password: "long enough, really", Roles: []RoleGrant{{Role: campaign.RolePlanner, Unit: here}}}
	for name, c := range map[string]struct {
		change      func(*NewUser)
		code, field string
	}{
		"taken":          {func(u *NewUser) { u.Login = "planner" }, "already_exists", ""},
		"login":          {func(u *NewUser) { u.Login = "No Body" }, "invalid_parameter", "login"},
		"name":           {func(u *NewUser) { u.Name = " " }, "invalid_parameter", "name"},
		"short password": {func(u *NewUser) { u.Password = "short" }, "invalid_parameter", "password"},
		"no role":        {func(u *NewUser) { u.Roles = []RoleGrant{} }, "invalid_parameter", "roles"},
		"unknown role":   {func(u *NewUser) { u.Roles[0].Role = "king" }, "invalid_parameter", "roles[0].role"},
		"missing unit":   {func(u *NewUser) { u.Roles[0].Unit = here + "/nowhere" }, "invalid_parameter", "roles[0].unit"},
		"beyond":         {func(u *NewUser) { u.Roles[0].Unit = there }, "forbidden", ""},
		"above":          {func(u *NewUser) { u.Roles[0].Unit = here.Tenant() }, "forbidden", ""},
		"also beyond":    {func(u *NewUser) { u.Roles = append(u.Roles, RoleGrant{Role: campaign.RoleAgent, Unit: there}) }, "forbidden", ""},
	} {
		t.Run(name, func(t *testing.T) {
			u := sound
			u.Roles = append([]RoleGrant{}, sound.Roles...)
			c.change(&u)
			p := e.send("administrator", "POST", "/v1/users", u).problem(t)
			require.Equal(t, c.code, p.Code, "%+v", p)
			if c.field != "" {
				require.Equal(t, c.field, p.Fields[0].Field)
			}
		})
	}
	require.Equal(t, "unknown_field", e.send("administrator", "POST", "/v1/users", `{"login":"x","name":"x","roles":[{"role":"agent","unit":"operator/north","x":1}]}`).problem(t).Code)
	require.Equal(t, before, e.number(`SELECT count(*) FROM app_user`))
	require.EqualValues(t, 3, e.number(`SELECT count(*) FROM audit_event WHERE event = 'access.denied' AND data->>'action' = 'user.administer'`))
}
