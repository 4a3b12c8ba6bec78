package api

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

// lend gives one person's authority to another for a part of an hour around now.
func (e *env) lend(from, to string, limit *int64, begins, ends time.Duration, acts ...campaign.Action) string {
	e.t.Helper()
	id := uuid.NewString()
	e.exec(`INSERT INTO delegation (id, from_user, to_user, actions, unit, most, valid, reason, created_by)
		VALUES ($1, $2, $3, $4, $5, $6, tstzrange(now() + $7::interval, now() + $8::interval), 'leave', $2)`,
		id, e.users[from], e.users[to], acts, string(here), limit, begins, ends)
	return id
}

var sideBySide = []campaign.ApprovalLevel{
	{Level: 1, Stage: 1, Name: "manager", Action: campaign.ActApprovalManager, DueAfter: 60},
	{Level: 2, Stage: 1, Name: "finance", Action: campaign.ActApprovalFinance, DueAfter: 60},
	{Level: 3, Stage: 1, Name: "credit", Kind: campaign.LevelCredit, Action: campaign.ActApprovalCredit, DueAfter: 60},
}

func TestTheInboxKnowsLevelsThatWaitSideBySide(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	e.inApproval(c, 90000, sideBySide...)
	for who, level := range map[string]int{"manager": 1, "finance": 2, "credit": 3} {
		items := into[ApprovalInbox](t, e.send(who, "GET", "/v1/approvals", nil)).Items
		require.Len(t, items, 1, who)
		require.Equal(t, level, items[0].Level.Level, who)
		require.Zero(t, items[0].ActingFor)
	}
	detail := into[ApprovalDetail](t, e.send("auditor", "GET", "/v1/campaigns/"+c.Campaign.ID+"/approval", nil))
	require.Len(t, detail.Waiting, 3)

	e.lend("manager", "finance", nil, -time.Minute, time.Hour, campaign.ActApprovalManager)
	items := into[ApprovalInbox](t, e.send("finance", "GET", "/v1/approvals", nil)).Items
	require.Len(t, items, 2, "their own level, and the one lent to them")
	require.Equal(t, e.users["manager"], items[0].ActingFor.ID)
	require.Zero(t, items[1].ActingFor)
}

func TestADelegateSignsWithTheDelegatorsAuthority(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	const amount = 90000
	e.inApproval(c, amount, sideBySide...)
	path := "/v1/campaigns/" + c.Campaign.ID + "/decisions"
	decide := func(who string, level int, actingFor string) reply {
		return e.send(who, "POST", path, NewDecision{Revision: 1, Digest: c.Draft.Digest, Level: level, Decision: campaign.DecisionApprove, ActingFor: e.users[actingFor]})
	}
	refused := func(why string, r reply, code string) {
		t.Helper()
		p := r.problem(t)
		require.Equal(t, code, p.Code, "%s: %s", why, p.Detail)
		require.Equal(t, 403, p.Status)
	}
	refused("nothing was lent", decide("finance", 1, "manager"), "delegation_not_allowed")
	e.lend("manager", "finance", nil, -2*time.Hour, -time.Second, campaign.ActApprovalManager)
	refused("it ended a second ago", decide("finance", 1, "manager"), "delegation_expired")
	e.lend("manager", "finance", nil, time.Hour, 2*time.Hour, campaign.ActApprovalManager)
	refused("the next one has not begun", decide("finance", 1, "manager"), "delegation_expired")
	most := int64(amount - 1)
	e.lend("manager", "finance", &most, -time.Hour, time.Hour, campaign.ActApprovalManager)
	refused("a limit below the amount", decide("finance", 1, "manager"), "limit_exceeded")
	e.lend("agent", "finance", nil, -time.Hour, time.Hour, campaign.ActApprovalManager)
	refused("the delegator has nothing to lend", decide("finance", 1, "agent"), "delegation_not_allowed")
	e.lend("finance", "agent", nil, -time.Hour, time.Hour, campaign.ActApprovalManager)
	e.lend("finance", "credit", nil, -time.Hour, time.Hour, campaign.ActApprovalManager)
	e.lend("planner", "finance", nil, -time.Hour, time.Hour, campaign.ActApprovalManager)
	id := e.lend("manager", "finance", nil, -time.Hour, time.Hour, campaign.ActApprovalManager)
	refused("what was lent is not lent on", decide("credit", 1, "finance"), "delegation_not_allowed")
	e.addUser("planner", here, campaign.RoleManager)
	e.reload()
	refused("for the requester", decide("finance", 1, "planner"), "sod_self_approval")
	e.lend("manager", "planner", nil, -time.Hour, time.Hour, campaign.ActApprovalManager)
	refused("by the requester", decide("planner", 1, "manager"), "sod_self_approval")
	require.Zero(t, e.number(`SELECT count(*) FROM sign_off`))

	into[DecisionResult](t, decide("finance", 1, "manager"))
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM sign_off WHERE user_id = $1 AND acting_for = $2 AND delegation_id = $3 AND role = 'manager'`,
		e.users["finance"], e.users["manager"], id))
	d := e.orch.asked()[0].arg.(*campaign.Decide)
	require.Equal(t, e.users["manager"], d.ActingFor)
	require.Equal(t, id, d.DelegationID)
	e.exec(`UPDATE delegation SET revoked_at = now(), revoked_by = $2 WHERE id = $1`, id, e.users["manager"])
	e.exec(`UPDATE delegation SET revoked_at = now(), revoked_by = $1 WHERE from_user = $1 AND most IS NOT NULL`, e.users["manager"])
	refused("revoked", decide("finance", 1, "manager"), "delegation_expired")
}

func TestCreditIsSignedForItsOwnAmount(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	a := campaign.NewApproval(campaign.Approval{
		Round: 1, Revision: 1, Digest: c.Draft.Digest, Amount: 90000, Credit: 40000, Requester: e.users["planner"], Route: sideBySide,
	}, time.Now())
	e.setStatus(c.Campaign.ID, campaign.Status{Stage: campaign.StageApproval, Revision: 1, Approval: a, WaitAction: campaign.ActApprovalManager})
	into[DecisionResult](t, e.send("credit", "POST", "/v1/campaigns/"+c.Campaign.ID+"/decisions",
		NewDecision{Revision: 1, Digest: c.Draft.Digest, Level: 3, Decision: campaign.DecisionApprove}))
	require.EqualValues(t, 40000, e.number(`SELECT amount FROM sign_off WHERE party = 'credit'`))
}

func TestAReturnNamesFields(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	e.inApproval(c, 90000)
	path := "/v1/campaigns/" + c.Campaign.ID + "/decisions"
	back := NewDecision{
		Revision: 1, Digest: c.Draft.Digest, Level: 1, Decision: campaign.DecisionReturn, Words: "too dear",
		Fields: []campaign.FieldNote{{Field: "budget[0].amount", Words: "half of it"}},
	}
	wrong := back
	wrong.Decision = campaign.DecisionApprove
	require.Equal(t, "invalid_parameter", e.send("manager", "POST", path, wrong).problem(t).Code)
	into[DecisionResult](t, e.send("manager", "POST", path, back))
	require.Equal(t, back.Fields, e.orch.asked()[0].arg.(*campaign.Decide).Fields)
	detail := into[ApprovalDetail](t, e.send("auditor", "GET", "/v1/campaigns/"+c.Campaign.ID+"/approval", nil))
	require.Equal(t, back.Fields, detail.SignOffs[0].Fields)
}

func TestTheRouteIsShownBeforeTheSubmission(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	path := "/v1/campaigns/" + c.Campaign.ID + "/route"
	preview := into[RoutePreview](t, e.send("planner", "POST", path, nil))
	require.Equal(t, 1, preview.Revision)
	require.Equal(t, c.Draft.Digest, preview.Digest)
	require.Equal(t, preview.Amount, preview.Counted)
	require.NotEmpty(t, preview.Rule)
	require.NotEmpty(t, preview.Calendar)
	require.Equal(t, "marketing manager", preview.Levels[0].Level.Name)
	require.Equal(t, []Person{{ID: e.users["manager"], Name: "The manager"}}, preview.Levels[0].Signers)
	require.True(t, preview.Levels[0].DueAt.After(time.Now()))
	require.Empty(t, e.orch.asked(), "nothing is submitted")
	require.Zero(t, e.number(`SELECT count(*) FROM approval_round`))

	e.exec(`UPDATE app_user SET disabled = true WHERE id = $1`, e.users["manager"])
	require.Equal(t, "no_approval_route", e.send("planner", "POST", path, nil).problem(t).Code, "nobody is left to sign")
}

func TestWithdrawalIsAskedOfTheWorkflow(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	e.inApproval(c, 90000)
	into[Standing](t, e.send("planner", "POST", "/v1/campaigns/"+c.Campaign.ID+"/withdraw", Withdrawal{Words: "a mistake"}))
	asked := e.orch.asked()
	require.Equal(t, campaign.UpdateWithdraw, asked[0].name)
	require.Equal(t, "a mistake", asked[0].arg.(*campaign.Withdraw).Words)
	require.Equal(t, "forbidden", e.send("manager", "POST", "/v1/campaigns/"+c.Campaign.ID+"/withdraw", Withdrawal{Words: "x"}).problem(t).Code)
}

func TestAuthoritySaysWhatWhyNotAndWhoCould(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	e.addUser("planner", here, campaign.RoleManager)
	e.reload()
	e.inApproval(c, 90000)
	ask := func(who string) map[campaign.Action]Authority {
		all := map[campaign.Action]Authority{}
		for _, a := range into[AuthorityList](t, e.send(who, "GET", "/v1/campaigns/"+c.Campaign.ID+"/authority", nil)).Items {
			all[a.ID] = a
		}
		require.Len(t, all, len(offered()))
		return all
	}
	mine := ask("planner")
	sign := mine[campaign.ActApprovalManager]
	require.False(t, sign.Allowed)
	require.Equal(t, "sod_self_approval", sign.Code)
	require.Equal(t, []int{1}, sign.Levels)
	require.Equal(t, []Person{{ID: e.users["manager"], Name: "The manager"}}, sign.Who)
	require.True(t, mine[campaign.ActCampaignWithdraw].Allowed)
	edit := mine[campaign.ActCampaignEdit]
	require.Equal(t, "state_conflict", edit.Code)
	require.Contains(t, edit.Reason, "only a draft")
	require.Empty(t, edit.Who, "nobody can now")
	require.Equal(t, "forbidden", mine[campaign.ActCampaignPause].Code)
	require.True(t, ask("manager")[campaign.ActApprovalManager].Allowed)
	finance := ask("finance")
	require.Equal(t, "state_conflict", finance[campaign.ActApprovalFinance].Code, "it is not their turn")
	require.False(t, finance[campaign.ActApprovalManager].Allowed)
	e.lend("manager", "finance", nil, -time.Minute, time.Hour, campaign.ActApprovalManager)
	require.True(t, ask("finance")[campaign.ActApprovalManager].Allowed, "it was lent to them")
}
