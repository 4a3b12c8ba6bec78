package api

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

func TestAFreezeIsLiftedByAnOperatorOnceAllIsWhole(t *testing.T) {
	e := newEnv(t)
	e.addUser("planner", here.Tenant(), campaign.RolePlanner)
	e.addUser("operator", here.Tenant(), campaign.RoleOperator)
	e.reload()
	r := e.send("planner", "GET", "/v1/freeze", nil)
	require.Equal(t, http.StatusOK, r.status, r)
	require.JSONEq(t, `{"frozen":false,"broken":[]}`, string(r.body), "nobody has looked yet")

	// Money that came from nowhere.
	e.exec(`INSERT INTO ledger_account (tenant, kind, currency, floor) VALUES ('operator', 'source', 'CNY', -1000)`)
	e.exec(`UPDATE ledger_account SET posted = 7`)
	_, err := e.store.InspectEvery(context.Background(), 0, e.server.ledger.Check)
	require.NoError(t, err)
	f := into[Freeze](t, e.send("planner", "GET", "/v1/freeze", nil))
	require.True(t, f.Frozen)
	require.WithinDuration(t, time.Now(), f.CheckedAt, time.Minute)
	var names []string
	for _, b := range f.Broken {
		names = append(names, b.Invariant)
		require.EqualValues(t, 1, b.Violations)
		require.NotEmpty(t, b.Promise)
		require.Contains(t, b.Example, "7")
	}
	require.Equal(t, []string{"L1", "L3"}, names)
	require.Contains(t, string(e.send("", "GET", "/readyz", nil).body), `"dispatch":"frozen"`)
	require.Contains(t, string(e.send("", "GET", "/metrics", nil).body), `muster_dispatch_frozen{invariant="L3"} 1`)

	lift := func(login string) reply {
		return e.send(login, "POST", "/v1/freeze/lift", map[string]any{"words": "posted again by hand"})
	}
	for _, login := range []string{"planner", "manager", "finance", "auditor", "administrator"} {
		require.EqualValues(t, campaign.CodeForbidden, lift(login).problem(t).Code, login)
	}
	r = lift("operator")
	require.Equal(t, http.StatusConflict, r.status)
	require.EqualValues(t, campaign.CodeStateConflict, r.problem(t).Code)
	require.Contains(t, string(r.body), `"violations":{"L1":1,"L3":1}`)
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM audit_event WHERE NOT allowed AND actor_id = $1`, e.users["operator"]))

	e.exec(`UPDATE ledger_account SET posted = 0`)
	r = lift("operator")
	require.Equal(t, http.StatusOK, r.status, string(r.body))
	f = into[Freeze](t, r)
	require.False(t, f.Frozen)
	require.Empty(t, f.Broken)
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM audit_event WHERE event = 'dispatch.lifted' AND data->>'words' = 'posted again by hand'`))
	require.EqualValues(t, campaign.CodeStateConflict, lift("operator").problem(t).Code, "there is nothing to lift")
	require.Contains(t, string(e.send("", "GET", "/readyz", nil).body), `"dispatch":"ok"`)
	require.NotContains(t, string(e.send("", "GET", "/metrics", nil).body), `muster_dispatch_frozen{`)
}

// What is frozen for a tenant's campaign is that tenant's to know and to lift; money is
// everybody's, and what is wrong with it is told at the top.
func TestAFreezeIsItsTenants(t *testing.T) {
	e := newEnv(t)
	require.NoError(t, e.store.CreateUnit(t.Context(), "bank", "Bank"))
	e.addUser("banker", "bank", campaign.RoleOperator)
	e.addUser("operator", here.Tenant(), campaign.RoleOperator)
	e.addUser("north", here, campaign.RoleOperator)
	e.addUser("south", there, campaign.RoleOperator)
	e.reload()
	c := e.newCampaign()
	e.exec(`INSERT INTO dispatch_freeze (invariant, campaign_id, violations, example) VALUES ('T1', $1, 2, 'one target'), ('L1', NULL, 1, 'somebody has 7')`, c.Campaign.ID)

	const target, money, silent = "T1 one target", "L1 somebody has 7", "L1 "
	for login, sees := range map[string][]string{
		"operator": {target, money}, "banker": {money}, "north": {target, silent}, "south": {silent},
	} {
		r := e.send(login, "GET", "/v1/freeze", nil)
		f := into[Freeze](t, r)
		require.True(t, f.Frozen, login)
		var seen []string
		for _, b := range f.Broken {
			seen = append(seen, b.Invariant+" "+b.Example)
			require.Equal(t, b.Invariant == "T1", b.CampaignID == c.Campaign.ID, login)
		}
		require.Equal(t, sees, seen, login)
	}
	require.Contains(t, string(e.send("", "GET", "/metrics", nil).body), `muster_dispatch_frozen{invariant="T1"} 2`)

	lift := func(login string) reply {
		return e.send(login, "POST", "/v1/freeze/lift", map[string]any{"words": "looked at"})
	}
	for _, login := range []string{"north", "south"} {
		require.EqualValues(t, campaign.CodeForbidden, lift(login).problem(t).Code, login)
	}
	require.EqualValues(t, 2, e.number(`SELECT count(*) FROM dispatch_freeze WHERE lifted_at IS NULL`))
	r := lift("banker")
	require.Equal(t, http.StatusOK, r.status, r)
	require.False(t, into[Freeze](t, r).Frozen, "nothing of theirs")
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM dispatch_freeze WHERE lifted_at IS NULL AND campaign_id = $1`, c.Campaign.ID))
	r = lift("operator")
	require.Equal(t, http.StatusOK, r.status, r)
	require.Zero(t, e.number(`SELECT count(*) FROM dispatch_freeze WHERE lifted_at IS NULL`))
}
