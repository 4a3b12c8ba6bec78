package api

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/assertion"
	"github.com/musterhq/muster/audit"
	"github.com/musterhq/muster/campaign"
)

// What reaches a campaign says who gave it, and what is kept of a decision proves itself.
func TestOrdersAndSignOffsAreSigned(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	answer := e.send("planner", "POST", "/v1/campaigns/"+c.Campaign.ID+"/submit", Submission{Revision: 1, Digest: c.Draft.Digest})
	require.Less(t, answer.status, 300, "%s", answer.body)
	order := e.orch.asked()[0].arg.(*campaign.Submit)
	digest, err := campaign.PayloadDigest(order)
	require.NoError(t, err)
	claims, err := assertion.Verify[assertion.Command](e.keys.Ring(), order.Assertion, time.Now())
	require.NoError(t, err)
	require.NoError(t, assertion.Matches(claims, assertion.Command{
		ID: e.orch.asked()[0].id, UserID: e.users["planner"], CampaignID: c.Campaign.ID, Name: campaign.UpdateSubmit, PayloadDigest: digest, IssuedAt: claims.IssuedAt,
	}))

	approval := e.inApproval(c, 90_000)
	answer = e.send("manager", "POST", "/v1/campaigns/"+c.Campaign.ID+"/decisions", NewDecision{
		Revision: 1, Digest: c.Draft.Digest, Level: 1, Decision: campaign.DecisionApprove,
	})
	require.Less(t, answer.status, 300, "%s", answer.body)
	rows, err := e.store.SignOffs(t.Context(), c.Campaign.ID)
	require.NoError(t, err)
	require.Len(t, rows, 1)
	want, err := audit.SignOffClaims(rows[0], c.Campaign.Unit)
	require.NoError(t, err)
	signed, err := assertion.Verify[assertion.SignOff](e.keys.Ring(), rows[0].Assertion, time.Now())
	require.NoError(t, err)
	require.NoError(t, assertion.Matches(signed, want))
	plan, route := validPlan(), approval.Route
	require.Equal(t, plan.Digests(), campaign.PlanDigests{Content: signed.ContentDigest, Audience: signed.AudienceDigest, Budget: signed.BudgetDigest})
	digest, err = campaign.DigestOf(route)
	require.NoError(t, err)
	require.Equal(t, digest, signed.RouteDigest)
	require.Equal(t, e.users["manager"], signed.UserID)
	require.InDelta(t, time.Now().Unix(), signed.AuthTime, 60)
	require.Equal(t, e.keys.Ring().SignerID(time.Now()), rows[0].KeyID)
}
