package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

func TestDispatchIsFrozenUntilAPersonLiftsIt(t *testing.T) {
	ctx, st := t.Context(), open(t)
	olga := person(t, st, "olga", "operator", campaign.RoleOperator)
	var broken []campaign.Violation
	checks := 0
	check := func(context.Context) ([]campaign.Violation, error) { checks++; return broken, nil }
	frozen := func() (invariants []string, violations []int64) {
		all, _, err := st.Frozen(ctx)
		require.NoError(t, err)
		for _, f := range all {
			invariants, violations = append(invariants, f.Invariant), append(violations, f.Violations)
		}
		return invariants, violations
	}
	inspect := func() {
		_, err := st.InspectEvery(ctx, 0, check)
		require.NoError(t, err)
	}

	_, checked, err := st.Frozen(ctx)
	require.NoError(t, err)
	require.Zero(t, checked)
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(st.Lift(ctx, []campaign.OrgUnit{"operator"}, olga, "why not", check)), "nothing is frozen")
	inspect()
	_, checked, err = st.Frozen(ctx)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), checked, time.Minute)
	require.Equal(t, 1, checks)
	found, err := st.InspectEvery(ctx, time.Minute, check)
	require.NoError(t, err)
	require.Empty(t, found)
	require.Equal(t, 1, checks, "another process did it a moment ago")

	broken = []campaign.Violation{{Invariant: "D4", What: "a lease"}, {Invariant: "D10", What: "a receipt"}, {Invariant: "D11", What: "a message"}}
	inspect()
	invariants, _ := frozen()
	require.Empty(t, invariants, "a machine that was off mends that by itself")

	broken = append(broken, campaign.Violation{Invariant: "L6", What: "account 1"}, campaign.Violation{Invariant: "L6", What: "account 2"}, campaign.Violation{Invariant: "T1", What: "one target"})
	inspect()
	inspect()
	invariants, violations := frozen()
	require.Equal(t, []string{"L6", "T1"}, invariants)
	require.Equal(t, []int64{2, 1}, violations)
	require.EqualValues(t, 2, one[int64](t, st, `SELECT count(*) FROM audit_event WHERE event = 'dispatch.frozen'`), "each is told once")

	err = st.Lift(ctx, []campaign.OrgUnit{"operator"}, olga, "it looks fine to me", check)
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(err), "%v", err)
	require.ErrorContains(t, err, "L6, T1 is still broken")
	broken = broken[:4] // L6 stays
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(st.Lift(ctx, []campaign.OrgUnit{"operator"}, olga, "half of it", check)))
	invariants, violations = frozen()
	require.Equal(t, []string{"L6", "T1"}, invariants)
	require.Equal(t, []int64{1, 0}, violations, "the words of people follow the last look")

	broken = nil
	require.NoError(t, st.Lift(ctx, []campaign.OrgUnit{"operator"}, olga, "restored from the backup", func(ctx context.Context) ([]campaign.Violation, error) {
		// Meanwhile another process finds something else.
		_, err := st.InspectEvery(ctx, 0, func(context.Context) ([]campaign.Violation, error) {
			return []campaign.Violation{{Invariant: "L1", What: "CNY"}}, nil
		})
		return nil, err
	}))
	invariants, _ = frozen()
	require.Equal(t, []string{"L1"}, invariants, "what was found meanwhile is not lifted")
	require.NoError(t, st.Lift(ctx, []campaign.OrgUnit{"operator"}, olga, "so was that", check))
	invariants, _ = frozen()
	require.Empty(t, invariants)
	require.Equal(t, "restored from the backup; so was that", one[string](t, st,
		`SELECT string_agg(data->>'words', '; ' ORDER BY seq) FROM audit_event WHERE event = 'dispatch.lifted' AND actor_id = $1`, olga.UserID))

	broken = []campaign.Violation{{Invariant: "L6", What: "account 1"}}
	inspect()
	invariants, _ = frozen()
	require.Equal(t, []string{"L6"}, invariants, "it may break again")
}

// A tenant's people lift what their campaigns are frozen for, and nothing else.
func TestATenantLiftsItsOwnFreezes(t *testing.T) {
	ctx, st := t.Context(), open(t)
	olga := person(t, st, "olga", "operator", campaign.RoleOperator)
	bert := person(t, st, "bert", "bank", campaign.RoleOperator)
	o := &older{Store: st, t: t, user: olga.UserID}
	require.NoError(t, st.CreateUnit(ctx, "operator/north", "North"))
	mine, theirs := o.campaign(campaign.StageDraft), o.campaign(campaign.StageDraft)
	o.exec(`UPDATE campaign SET hold = 'running', unit = CASE id WHEN $1 THEN 'operator/north' ELSE 'bank' END`, mine)
	broken := []campaign.Violation{{Invariant: "T1", What: "mine", CampaignID: mine}, {Invariant: "T1", What: "theirs", CampaignID: theirs}}
	check := func(context.Context) ([]campaign.Violation, error) { return broken, nil }
	frozen := func(id string) campaign.Code {
		if err := st.RefuseFrozen(ctx, id); err != nil {
			return campaign.CodeOf(err)
		}
		return ""
	}
	_, err := st.InspectEvery(ctx, 0, check)
	require.NoError(t, err)
	require.Equal(t, campaign.CodeDispatchFrozen, frozen(mine))
	require.Equal(t, campaign.CodeDispatchFrozen, frozen(theirs))
	all, _, err := st.Frozen(ctx)
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.Equal(t, campaign.OrgUnit("operator/north"), all[0].Unit)
	require.Equal(t, theirs, all[1].CampaignID)

	require.ErrorContains(t, st.Lift(ctx, []campaign.OrgUnit{"operator"}, olga, "why not", check), "still broken")
	broken = broken[1:]
	require.NoError(t, st.Lift(ctx, []campaign.OrgUnit{"operator"}, olga, "mended", check))
	require.Empty(t, frozen(mine))
	require.Equal(t, campaign.CodeDispatchFrozen, frozen(theirs))
	require.ErrorContains(t, st.Lift(ctx, []campaign.OrgUnit{"operator"}, olga, "theirs too", check), "not frozen")
	broken = []campaign.Violation{{Invariant: "L1", What: "CNY"}}
	_, err = st.InspectEvery(ctx, 0, check)
	require.NoError(t, err)
	require.Equal(t, campaign.CodeDispatchFrozen, frozen(mine), "money is everybody's")
	broken = nil
	require.NoError(t, st.Lift(ctx, []campaign.OrgUnit{"bank"}, bert, "all of it", check))
	require.Empty(t, frozen(mine))
	require.Empty(t, frozen(theirs))
}

// The campaigns that are under way are looked at by themselves.
func TestInspectLooksAtCampaigns(t *testing.T) {
	ctx, st := t.Context(), open(t)
	o := &older{Store: st, t: t, user: person(t, st, "paula", "operator", campaign.RolePlanner).UserID}
	running, closed, paying := o.campaign(campaign.StageRunning), o.campaign(campaign.StageClosed), o.campaign(campaign.StageClosed)
	o.exec(`INSERT INTO credit_pool (id, unit, name, currency, opened_by) VALUES ($1, 'operator', 'Phones', 'CNY', $2)`, paying, o.user)
	o.exec(`INSERT INTO credit_line (campaign_id, line, pool_id, currency, offer, customers) VALUES ($1, 'credit', $1, 'CNY', '{"schedule": {"total": 5}}', 1)`, paying)
	found, err := st.Inspect(ctx)
	require.NoError(t, err)
	require.NotEmpty(t, found, "its batches have no contacts and nobody signed them")
	looked := map[string]bool{}
	for _, v := range found {
		require.Contains(t, v.What, v.CampaignID)
		looked[v.CampaignID] = true
	}
	require.Equal(t, map[string]bool{running: true, paying: true}, looked, "and not %s", closed)
	o.exec(`UPDATE credit_line SET settled_at = now(), ended_at = now()`)
	found, err = st.Inspect(ctx)
	require.NoError(t, err)
	for _, v := range found {
		require.Equal(t, running, v.CampaignID)
	}
}
