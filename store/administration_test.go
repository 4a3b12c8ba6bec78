package store_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// person adds somebody with roles at a unit and returns them.
func person(t *testing.T, st *store.Store, login string, unit campaign.OrgUnit, roles ...campaign.Role) campaign.Actor {
	t.Helper()
	require.NoError(t, st.CreateUnit(t.Context(), unit, string(unit)))
	grants := make([]campaign.Grant, len(roles))
	for i, r := range roles {
		grants[i] = campaign.Grant{Role: r, Unit: unit}
	}
	id, err := st.AddUser(t.Context(), store.User{Login: login, Name: login, Unit: &unit, PasswordHash: aHash}, grants, campaign.Actor{})
	require.NoError(t, err)
	return campaign.Actor{UserID: id, Login: login, Name: login}
}

func TestListOfUsers(t *testing.T) {
	ctx, st := t.Context(), open(t)
	person(t, st, "root", "operator", campaign.RoleAdmin)
	person(t, st, "nora", "operator/north", campaign.RolePlanner, campaign.RoleAgent)
	person(t, st, "homeless", "operator/north/harbin")
	both := person(t, st, "both", "operator/south", campaign.RolePlanner)
	require.NoError(t, st.AddGrant(ctx, campaign.Grant{UserID: both.UserID, Role: campaign.RoleAuditor, Unit: "operator/north"}, both))
	person(t, st, "other", "operator/north-east", campaign.RolePlanner)
	north := []campaign.OrgUnit{"operator/north"}
	for name, c := range map[string]struct {
		f    store.UserFilter
		want []string
	}{
		"everybody":           {store.UserFilter{Units: []campaign.OrgUnit{"operator"}}, []string{"both", "homeless", "nora", "other", "root"}},
		"nobody":              {store.UserFilter{}, nil},
		"of a unit and below": {store.UserFilter{Units: north}, []string{"both", "homeless", "nora"}},
		"of a unit below":     {store.UserFilter{Units: north, Unit: "operator/north/harbin"}, []string{"homeless"}},
		"of a unit elsewhere": {store.UserFilter{Units: north, Unit: "operator/south"}, nil},
		"of a role":           {store.UserFilter{Units: north, Role: campaign.RoleAgent}, []string{"nora"}},
		"of a role elsewhere": {store.UserFilter{Units: north, Role: campaign.RolePlanner}, []string{"nora"}},
		"with a text":         {store.UserFilter{Units: []campaign.OrgUnit{"operator"}, Text: "OT"}, []string{"both", "other", "root"}},
		"of no wildcards":     {store.UserFilter{Units: north, Text: "%"}, nil},
		"after another":       {store.UserFilter{Units: north, After: "both"}, []string{"homeless", "nora"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.f.Limit = 100
			all, err := st.Users(ctx, c.f)
			require.NoError(t, err)
			var logins []string
			for _, u := range all {
				logins = append(logins, u.Login)
			}
			require.Equal(t, c.want, logins)
		})
	}
	u, err := st.User(ctx, both.UserID)
	require.NoError(t, err)
	require.Len(t, u.Grants, 2)
	require.True(t, u.At(north))
	require.False(t, u.Only(north))
	require.True(t, u.Only([]campaign.OrgUnit{"operator"}))
	require.False(t, store.UserDetail{}.Only([]campaign.OrgUnit{"operator"}), "who belongs nowhere is nobody's to administer")
	_, err = st.User(ctx, uuid.NewString())
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(err))
}

func TestAnAdministratorIsAlwaysLeft(t *testing.T) {
	ctx, st := t.Context(), open(t)
	ada, bob := person(t, st, "ada", "operator", campaign.RoleAdmin), person(t, st, "bob", "operator", campaign.RoleAdmin)
	carl := person(t, st, "carl", "operator/north", campaign.RoleAdmin)

	tables := owner(t, st)
	// Each takes the other's role at the same moment, again and again: neither gets to its end
	// before both have begun, as evidence cannot be written meanwhile.
	for range 10 {
		hold, err := tables.Begin(ctx)
		require.NoError(t, err)
		_, err = hold.Exec(ctx, `LOCK TABLE audit_event IN EXCLUSIVE MODE`)
		require.NoError(t, err)
		codes := make(chan campaign.Code, 2)
		for _, pair := range [][2]campaign.Actor{{ada, bob}, {bob, ada}} {
			go func() {
				codes <- campaign.CodeOf(st.RemoveGrant(ctx, campaign.Grant{UserID: pair[1].UserID, Role: campaign.RoleAdmin, Unit: "operator"}, pair[0]))
			}()
		}
		require.Eventually(t, func() bool {
			return one[int](t, st, `SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`) == 2
		}, time.Minute, 10*time.Millisecond)
		require.NoError(t, hold.Rollback(ctx))
		require.ElementsMatch(t, []campaign.Code{"", campaign.CodeLastAdministrator}, []campaign.Code{<-codes, <-codes})
		for _, u := range []campaign.Actor{ada, bob} {
			require.NoError(t, st.AddGrant(ctx, campaign.Grant{UserID: u.UserID, Role: campaign.RoleAdmin, Unit: "operator"}, campaign.Actor{}))
		}
	}

	require.NoError(t, st.SetDisabled(ctx, carl.UserID, true, ada, "x"), "those above administer the unit too")
	require.NoError(t, st.SetDisabled(ctx, carl.UserID, false, ada, "x"))
	require.NoError(t, st.SetDisabled(ctx, bob.UserID, true, ada, "x"))
	for _, err := range []error{
		st.SetDisabled(ctx, ada.UserID, true, bob, "x"),
		st.RemoveGrant(ctx, campaign.Grant{UserID: ada.UserID, Role: campaign.RoleAdmin, Unit: "operator"}, bob),
	} {
		require.Equal(t, campaign.CodeLastAdministrator, campaign.CodeOf(err), "an administrator of a part and a disabled one do not count")
	}
	u, err := st.User(ctx, ada.UserID)
	require.NoError(t, err)
	require.False(t, u.Disabled)
	require.Len(t, u.Grants, 1)
}

func TestChangesOfRolesAreEvidence(t *testing.T) {
	ctx, st := t.Context(), open(t)
	ada, nora := person(t, st, "ada", "operator", campaign.RoleAdmin), person(t, st, "nora", "operator", campaign.RolePlanner)
	g := campaign.Grant{UserID: nora.UserID, Role: campaign.RoleManager, Unit: "operator"}
	for range 2 {
		require.NoError(t, st.AddGrant(ctx, g, ada))
	}
	for range 2 {
		require.NoError(t, st.RemoveGrant(ctx, g, ada))
	}
	events := `SELECT string_agg(event || ' ' || (data->>'before') || ' ' || (data->>'after'), '; ' ORDER BY seq) FROM audit_event WHERE actor_id = $1`
	require.Equal(t, `user.role_added ["planner at operator"] ["manager at operator", "planner at operator"]; `+
		`user.role_removed ["manager at operator", "planner at operator"] ["planner at operator"]`, one[string](t, st, events, ada.UserID))

	g.Unit = "operator/nowhere"
	require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(st.AddGrant(ctx, g, ada)))
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(st.SetDisabled(ctx, uuid.NewString(), true, ada, "x")))
}

func TestUnits(t *testing.T) {
	ctx, st := t.Context(), open(t)
	ada := person(t, st, "ada", "operator", campaign.RoleAdmin)
	require.NoError(t, st.AddUnit(ctx, store.Unit{Path: "operator/north", Name: "North"}, ada))
	require.NoError(t, st.AddUnit(ctx, store.Unit{Path: "operator/north/harbin", Name: "哈尔滨"}, ada))
	require.NoError(t, st.AddUnit(ctx, store.Unit{Path: "operator/north-east", Name: "North-east"}, ada))
	require.NoError(t, st.RenameUnit(ctx, store.Unit{Path: "operator/north", Name: "The North"}, ada))
	all, err := st.Units(ctx, []campaign.OrgUnit{"operator/north"})
	require.NoError(t, err)
	require.Equal(t, []store.Unit{{"operator/north", "The North"}, {"operator/north/harbin", "哈尔滨"}}, all)
	require.Equal(t, "North The North", one[string](t, st, `SELECT (data->>'before') || ' ' || (data->>'after') FROM audit_event WHERE event = 'unit.renamed'`))
	for unit, code := range map[store.Unit]campaign.Code{
		{"operator/north", "North"}:      campaign.CodeAlreadyExists,
		{"operator/west/lanzhou", "Lan"}: campaign.CodeInvalidParameter,
		{"another", "Another"}:           campaign.CodeInvalidParameter,
		{"operator/West", "West"}:        campaign.CodeInvalidParameter,
		{"operator/west", " "}:           campaign.CodeInvalidParameter,
		{"operator/west", "a\u202eb"}:    campaign.CodeInvalidParameter,
	} {
		require.Equal(t, code, campaign.CodeOf(st.AddUnit(ctx, unit, ada)), "%v", unit)
	}
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(st.RenameUnit(ctx, store.Unit{Path: "operator/west", Name: "West"}, ada)))
}

func TestTenWrongPasswordsLockALogin(t *testing.T) {
	ctx, st := t.Context(), open(t)
	nora := person(t, st, "nora", "operator")
	var wg sync.WaitGroup
	var mu sync.Mutex
	tried, locks := 0, 0
	for range 3 * store.LoginAttempts { // at once, as whoever guesses would
		wg.Go(func() {
			a, err := st.BeginLogin(ctx, nora.UserID)
			require.NoError(t, err)
			mu.Lock()
			defer mu.Unlock()
			if !a.Locked {
				tried++
			}
			if a.Locks {
				locks++
			}
		})
	}
	wg.Wait()
	require.Equal(t, store.LoginAttempts, tried)
	require.Equal(t, 1, locks)
	u, err := st.User(ctx, nora.UserID)
	require.NoError(t, err)
	require.True(t, u.Locked)

	_, err = st.Pool().Exec(ctx, `UPDATE app_user SET locked_until = now() - interval '1 second' WHERE id = $1`, nora.UserID)
	require.NoError(t, err)
	for i := range store.LoginAttempts {
		a, err := st.BeginLogin(ctx, nora.UserID)
		require.NoError(t, err)
		require.Equal(t, store.LoginAttempt{Locks: i == store.LoginAttempts-1}, a, "a new row of attempts after the lock")
	}
	require.NoError(t, st.SetPassword(ctx, nora.UserID, aHash, nora))
	a, err := st.BeginLogin(ctx, nora.UserID)
	require.NoError(t, err)
	require.Zero(t, a, "another password lifts the lock")
	require.NoError(t, st.EndLogin(ctx, nora.UserID))
	require.Zero(t, one[int](t, st, `SELECT failed_logins FROM app_user WHERE id = $1`, nora.UserID))
}

func TestDelegations(t *testing.T) {
	ctx, st := t.Context(), open(t)
	marta, paul := person(t, st, "marta", "operator/north", campaign.RoleManager), person(t, st, "paul", "operator/north")
	lent := func(d campaign.Delegation) campaign.Delegation {
		d.ID, d.From, d.To, d.Unit, d.Reason = uuid.NewString(), marta.UserID, paul.UserID, "operator/north", "leave"
		if d.Actions == nil {
			d.Actions = []campaign.Action{campaign.ActApprovalManager}
		}
		return d
	}
	to := func(unit campaign.OrgUnit, act campaign.Action) (ids []string) {
		all, err := st.Delegations(ctx, store.DelegationFilter{To: paul.UserID, Limit: 10})
		require.NoError(t, err)
		for _, d := range all {
			if d.Valid && d.Covers(act, unit) {
				ids = append(ids, d.ID)
			}
		}
		return ids
	}
	hour := time.Now().Add(time.Hour)
	limit := int64(500)
	d := lent(campaign.Delegation{ValidFrom: time.Now().Add(-time.Hour), ValidUntil: hour, Limit: &limit})
	for range 2 { // the same request twice
		got, err := st.AddDelegation(ctx, d, marta)
		require.NoError(t, err)
		require.True(t, got.Valid)
		require.Equal(t, "marta", got.FromName)
		require.Equal(t, &limit, got.Limit)
		require.WithinDuration(t, time.Now(), got.ValidFrom, 5*time.Minute, "nothing is lent for the past")
	}
	require.EqualValues(t, 1, one[int64](t, st, `SELECT count(*) FROM audit_event WHERE event = 'delegation.added'`))
	require.Equal(t, []string{d.ID}, to("operator/north", campaign.ActApprovalManager))
	require.Equal(t, []string{d.ID}, to("operator/north/harbin", campaign.ActApprovalManager))
	require.Empty(t, to("operator", campaign.ActApprovalManager))
	require.Empty(t, to("operator/north-east", campaign.ActApprovalManager))
	require.Empty(t, to("operator/north", campaign.ActApprovalFinance))

	later, err := st.AddDelegation(ctx, lent(campaign.Delegation{ValidFrom: hour, ValidUntil: hour.Add(time.Hour)}), marta)
	require.NoError(t, err)
	require.False(t, later.Valid)
	mine, err := st.Delegations(ctx, store.DelegationFilter{To: marta.UserID, Limit: 10})
	require.NoError(t, err)
	require.Empty(t, mine, "they lent them")
	mine, err = st.Delegations(ctx, store.DelegationFilter{To: paul.UserID, Limit: 1})
	require.NoError(t, err)
	require.Equal(t, later.ID, mine[0].ID, "the newest first")

	for name, until := range map[string]time.Time{"ended": time.Now().Add(-time.Second), "long": time.Now().Add(campaign.DelegationLongest + time.Hour)} {
		_, err := st.AddDelegation(ctx, lent(campaign.Delegation{ValidUntil: until}), marta)
		require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(err), name)
	}
	all, err := st.Delegations(ctx, store.DelegationFilter{UserID: paul.UserID, Limit: 10})
	require.NoError(t, err)
	require.Len(t, all, 2)
	all, err = st.Delegations(ctx, store.DelegationFilter{Units: []campaign.OrgUnit{"operator/north"}, Before: all[0].Number, Limit: 10})
	require.NoError(t, err)
	require.Len(t, all, 1)

	require.NoError(t, st.SetDisabled(ctx, marta.UserID, true, paul, "x"))
	require.Empty(t, to("operator/north", campaign.ActApprovalManager), "who may not log in lends nothing")
	require.NoError(t, st.SetDisabled(ctx, marta.UserID, false, paul, "x"))

	for range 2 {
		got, err := st.RevokeDelegation(ctx, d.ID, marta)
		require.NoError(t, err)
		require.False(t, got.Valid)
		require.Equal(t, &marta.UserID, got.RevokedBy)
		d = got
	}
	require.Empty(t, to("operator/north", campaign.ActApprovalManager))
	require.EqualValues(t, 1, one[int64](t, st, `SELECT count(*) FROM audit_event WHERE event = 'delegation.revoked'`))

	for _, sql := range []string{
		`UPDATE delegation SET most = NULL`, `UPDATE delegation SET revoked_at = NULL, revoked_by = NULL`, `UPDATE delegation SET to_user = from_user`,
		`DELETE FROM delegation`, `TRUNCATE delegation CASCADE`,
	} {
		_, err := owner(t, st).Exec(ctx, sql)
		require.ErrorContains(t, err, "SQLSTATE 55000", sql)
	}
}

func TestServiceTokens(t *testing.T) {
	ctx, st := context.Background(), open(t)
	ada := person(t, st, "ada", "operator", campaign.RoleAdmin)
	sound := store.ServiceToken{
		Name: "CRM", Unit: "operator", Scopes: []campaign.Action{campaign.ActOutcomeRecord, campaign.ActCampaignRead}, ExpiresAt: time.Now().Add(time.Hour),
	}
	hash := make([]byte, 32)
	added, err := st.AddServiceToken(ctx, sound, hash, ada)
	require.NoError(t, err)
	require.Equal(t, "ada", added.CreatorName)
	require.Nil(t, added.LastUsedAt)
	held := func() int {
		grants, err := st.Grants(ctx)
		require.NoError(t, err)
		n := 0
		for _, g := range grants {
			if g.UserID == added.ID {
				require.Equal(t, campaign.RoleService, g.Role)
				n++
			}
		}
		return n
	}
	require.Equal(t, 2, held())
	_, err = st.Pool().Exec(ctx, `UPDATE service_token SET scopes = scopes || ARRAY['campaign.create', 'campaign.amend']`)
	require.NoError(t, err)
	require.Equal(t, 2, held(), "a token from when machines could write plans cannot any more, and the rest of it holds")
	for range 2 {
		u, err := st.UseServiceToken(ctx, hash)
		require.NoError(t, err)
		require.Equal(t, added.ID, u.ID)
		require.Equal(t, "CRM", u.Name)
	}
	used, err := st.ServiceToken(ctx, added.ID)
	require.NoError(t, err)
	require.NotNil(t, used.LastUsedAt)

	refused := func() {
		t.Helper()
		_, err := st.UseServiceToken(ctx, hash)
		require.Equal(t, campaign.CodeTokenInvalid, campaign.CodeOf(err))
		require.Zero(t, held())
	}
	require.NoError(t, st.SetDisabled(ctx, added.ID, true, ada, "x"))
	refused()
	require.NoError(t, st.SetDisabled(ctx, added.ID, false, ada, "x"))
	_, err = st.Pool().Exec(ctx, `UPDATE service_token SET expires_at = now()`)
	require.NoError(t, err)
	refused()
	_, err = st.Pool().Exec(ctx, `UPDATE service_token SET expires_at = now() + interval '1 hour'`)
	require.NoError(t, err)
	require.Equal(t, 2, held())
	for range 2 {
		_, err = st.RevokeServiceToken(ctx, added.ID, ada)
		require.NoError(t, err)
	}
	refused()
	require.EqualValues(t, 1, one[int64](t, st, `SELECT count(*) FROM audit_event WHERE event = 'token.revoked'`))
	err = st.AddGrant(ctx, campaign.Grant{UserID: added.ID, Role: campaign.RoleManager, Unit: "operator"}, ada)
	require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(err), "a machine holds no roles")
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(st.SetPassword(ctx, added.ID, aHash, ada)), "nor a password")

	for name, change := range map[string]func(*store.ServiceToken){
		"name":   func(k *store.ServiceToken) { k.Name = "" },
		"unit":   func(k *store.ServiceToken) { k.Unit = "operator/nowhere" },
		"scopes": func(k *store.ServiceToken) { k.Scopes = nil },
		"scopes[1]": func(k *store.ServiceToken) {
			k.Scopes = []campaign.Action{campaign.ActTaskRead, campaign.ActApprovalFinance}
		},
		"scopes[0]":  func(k *store.ServiceToken) { k.Scopes = []campaign.Action{campaign.ActUserAdminister} },
		"expires_at": func(k *store.ServiceToken) { k.ExpiresAt = time.Now().Add(-time.Second) },
	} {
		wrong := sound
		change(&wrong)
		_, err := st.AddServiceToken(ctx, wrong, []byte(name), ada)
		var fault *campaign.Error
		require.ErrorAs(t, err, &fault, name)
		require.Equal(t, name, fault.Fields[0].Field)
	}
}
