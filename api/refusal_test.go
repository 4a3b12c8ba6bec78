package api

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

// Who is turned away at the door leaves evidence, though nobody knows them, and not without
// end.
func TestRefusalsAtTheDoorAreRecorded(t *testing.T) {
	e := newEnv(t)
	denied := func(code campaign.Code) int64 {
		return e.number(`SELECT count(*) FROM audit_event WHERE event = 'access.denied' AND NOT allowed AND data->>'code' = $1`, code)
	}
	require.Equal(t, http.StatusUnauthorized, e.send("", "GET", "/v1/me", nil, "Authorization", "Bearer "+newToken()).status)
	require.EqualValues(t, 1, denied(campaign.CodeTokenInvalid))
	require.Equal(t, http.StatusForbidden, e.send("planner", "POST", "/v1/delegations", "a=b", "Sec-Fetch-Site", "cross-site").status)
	require.EqualValues(t, 1, denied(campaign.CodeCrossSite))
	for range attemptsPerLogin + 1 {
		e.send("", "POST", "/v1/sessions", Credentials{Login: "planner", Password: "x"})
	}
	require.EqualValues(t, 1, denied(campaign.CodeRateLimited))
	for range strangersTold {
		e.send("", "GET", "/v1/me", nil, "Authorization", "Bearer "+newToken())
	}
	require.EqualValues(t, strangersTold, e.number(`SELECT count(*) FROM audit_event WHERE event = 'access.denied' AND actor_id IS NULL`))

	e.exec(`UPDATE app_user SET password_temporary = true WHERE login = 'manager'`)
	require.Equal(t, "password_change_required", e.send("manager", "GET", "/v1/campaigns", nil).problem(t).Code)
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM audit_event WHERE event = 'access.denied' AND actor_id = $1 AND data->>'code' = 'password_change_required'`, e.users["manager"]))
}

// A plan that is not what was stored is not submitted, and that is told.
func TestARefusedSubmissionIsRecorded(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	e.exec(`ALTER TABLE plan_revision DISABLE TRIGGER USER`)
	e.exec(`UPDATE plan_revision SET plan = jsonb_set(plan, '{offer,name}', '"other"')`)
	p := e.send("planner", "POST", "/v1/campaigns/"+c.Campaign.ID+"/submit", Submission{Revision: 1}).problem(t)
	require.EqualValues(t, campaign.CodeAssertionMismatch, p.Code)
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM audit_event WHERE event = 'command.refused' AND NOT allowed AND campaign_id = $1 AND data->>'code' = 'assertion_mismatch'`, c.Campaign.ID))
}
