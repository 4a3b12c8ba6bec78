package activities_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/policies"
)

// decree puts other routes into force for the fixture's tenant.
func (f *fixture) decree(routes string) {
	f.t.Helper()
	active, err := f.Store.PolicyOf(f.ctx, campaign.PolicyAccess, "operator")
	require.NoError(f.t, err)
	d := policies.Standard()
	require.NoError(f.t, policies.Lint(d.Policy, routes))
	d.Tenant, d.Routes, d.Digest = "operator", routes, campaign.PolicyDigest(d.Policy, routes)
	p, err := f.Store.ProposePolicy(f.ctx, uuid.NewString(), d, active.Version, "why", f.users["planner"])
	require.NoError(f.t, err)
	_, err = f.Store.DecidePolicy(f.ctx, p.Version, true, "", f.users["manager"])
	require.NoError(f.t, err)
}

func TestANewPolicyRoutesTheNextSubmission(t *testing.T) {
	f := newFixture(t, nil)
	open := f.openRound()
	require.Len(t, open.Route, 2)
	require.Regexp(t, `^1-`, open.PolicyVersion)
	require.NoError(t, f.CountSignOff(f.ctx, f.signOff("manager", open.Route[0], nil)))
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM audit_event WHERE event = 'sign_off.approve' AND data->>'policy_version' LIKE '1-%'`))

	f.decree(`{"rules": [{"name": "finance alone", "when": {}, "levels": [{"name": "finance", "action": "approval.finance", "due_after_seconds": 60}]}]}`)

	// The round that is open goes on as it was frozen, and says what it is decided by.
	require.NoError(t, f.CountSignOff(f.ctx, f.signOff("finance", open.Route[1], nil)))
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM approval_round WHERE campaign_id = $1 AND jsonb_array_length(route) = 2 AND policy_version = $2`, f.id, open.PolicyVersion))
	require.EqualValues(t, 2, f.count(`SELECT count(*) FROM sign_off_counted WHERE campaign_id = $1`, f.id))
	require.NoError(t, f.Reserve(f.ctx, f.ref()))
	f.sound()

	f.draft(nil)
	f.round = campaign.Round{}
	next := f.openRound()
	require.Equal(t, "finance alone", next.Rule)
	require.Len(t, next.Route, 1)
	require.Regexp(t, `^2-`, next.PolicyVersion)
	require.NoError(t, f.CountSignOff(f.ctx, f.signOff("finance", next.Route[0], nil)))
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM audit_event WHERE event = 'sign_off.approve' AND campaign_id = $1 AND data->>'policy_version' = $2`, f.id, next.PolicyVersion))
}
