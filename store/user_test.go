package store_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// aHash is the form of a password's hash; nobody logs in with it here.
const aHash = "$argon2id$v=19$m=65536,t=1,p=4$c2FsdHNhbHQ$aGFzaA"

func TestAddUser(t *testing.T) {
	ctx, st := context.Background(), open(t)
	require.NoError(t, st.CreateUnit(ctx, "operator/north", "North"))
	wanted := []campaign.Grant{{Role: campaign.RolePlanner, Unit: "operator/north"}, {Role: campaign.RoleManager, Unit: "operator"}}
	by := person(t, st, "ada", "operator", campaign.RoleAdmin)

	id, err := st.AddUser(ctx, store.User{Login: "nora", Name: "Nora North", PasswordHash: aHash}, wanted, by)
	require.NoError(t, err)
	u, grants, err := st.UserWithGrants(ctx, id)
	require.NoError(t, err)
	require.Equal(t, "nora", u.Login)
	require.Len(t, grants, 2)
	require.EqualValues(t, 1, one[int64](t, st, `SELECT count(*) FROM audit_event WHERE event = 'user.added' AND actor_id = $1 AND data->>'user' = $2
		AND jsonb_array_length(data->'roles') = 2`, by.UserID, id))
	weighs := func(g campaign.Grant) bool { return g.Role == campaign.RoleManager }
	id, err = st.ProposeUser(ctx, store.User{Login: "omar", Name: "Omar", PasswordHash: aHash}, wanted, weighs, by)
	require.NoError(t, err)
	omar, err := st.User(ctx, id)
	require.NoError(t, err)
	require.Equal(t, []campaign.Grant{{UserID: id, Role: campaign.RolePlanner, Unit: "operator/north"}}, omar.Grants)
	require.Equal(t, []store.WaitingGrant{{Grant: campaign.Grant{UserID: id, Role: campaign.RoleManager, Unit: "operator"}, By: campaign.Actor{UserID: by.UserID, Name: "ada"}}}, omar.Waiting)
	require.Equal(t, []campaign.OrgUnit{"operator/north"}, one[[]campaign.OrgUnit](t, st, `SELECT array_agg(unit) FROM role_grant WHERE user_id = $1 AND NOT waiting`, id))

	_, err = st.AddUser(ctx, store.User{Login: "nora", Name: "Another", PasswordHash: aHash}, nil, campaign.Actor{})
	require.Equal(t, campaign.CodeAlreadyExists, campaign.CodeOf(err))
}

func TestAddUserMakesTheUnitsThatItIsTold(t *testing.T) {
	ctx, st := context.Background(), open(t)
	units := func() []string {
		return one[[]string](t, st, `SELECT coalesce(array_agg(path || '=' || name ORDER BY path), '{}') FROM org_unit`)
	}
	require.NoError(t, st.CreateUnit(ctx, "operator", "The operator"))
	planner := []campaign.Grant{{Role: campaign.RolePlanner, Unit: "operator/north/harbin"}}
	sound := store.User{Login: "nora", Name: "Nora", PasswordHash: aHash}
	_, err := st.AddUser(ctx, sound, planner, campaign.Actor{}, "operator/north/harbin", "operator")
	require.NoError(t, err)
	made := []string{"operator=The operator", "operator/north=operator/north", "operator/north/harbin=operator/north/harbin"}
	require.Equal(t, made, units())

	_, err = st.AddUser(ctx, sound, nil, campaign.Actor{}, "operator/south")
	require.Equal(t, campaign.CodeAlreadyExists, campaign.CodeOf(err))
	sound.Login = "sam"
	_, err = st.AddUser(ctx, sound, nil, campaign.Actor{}, "Operator South")
	require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(err))
	require.Equal(t, made, units(), "no user, no unit")
}

func TestAddUserIsAllOrNothing(t *testing.T) {
	ctx, st := context.Background(), open(t)
	require.NoError(t, st.CreateUnit(ctx, "operator", "Operator"))
	sound := store.User{Login: "nora", Name: "Nora", PasswordHash: aHash}
	for name, c := range map[string]struct {
		change func(*store.User)
		grant  campaign.Grant
		field  string
	}{
		"login":        {func(u *store.User) { u.Login = "No Body" }, campaign.Grant{Role: campaign.RolePlanner, Unit: "operator"}, "login"},
		"name":         {func(u *store.User) { u.Name = " " }, campaign.Grant{Role: campaign.RolePlanner, Unit: "operator"}, "name"},
		"override":     {func(u *store.User) { u.Name = "a\u202eb" }, campaign.Grant{Role: campaign.RolePlanner, Unit: "operator"}, "name"},
		"plain text":   {func(u *store.User) { u.PasswordHash = "secret" }, campaign.Grant{Role: campaign.RolePlanner, Unit: "operator"}, "password"},
		"role":         {func(*store.User) {}, campaign.Grant{Role: "king", Unit: "operator"}, "roles[0].role"},
		"unit's form":  {func(*store.User) {}, campaign.Grant{Role: campaign.RolePlanner, Unit: "Operator"}, "roles[0].unit"},
		"unknown unit": {func(*store.User) {}, campaign.Grant{Role: campaign.RolePlanner, Unit: "operator/south"}, "roles[0].unit"},
	} {
		t.Run(name, func(t *testing.T) {
			u := sound
			c.change(&u)
			_, err := st.AddUser(ctx, u, []campaign.Grant{c.grant}, campaign.Actor{})
			require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(err))
			var fault *campaign.Error
			require.ErrorAs(t, err, &fault)
			require.Len(t, fault.Fields, 1)
			require.Equal(t, c.field, fault.Fields[0].Field)
			require.Zero(t, one[int64](t, st, `SELECT (SELECT count(*) FROM app_user) + (SELECT count(*) FROM role_grant) + (SELECT count(*) FROM audit_event)`))
		})
	}
}
