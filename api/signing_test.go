package api

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// revise writes a campaign's next revision by somebody.
func (e *env) revise(c CampaignDetail, editor string, base int, change func(*campaign.Plan)) campaign.LoadedPlan {
	e.t.Helper()
	p := validPlan()
	change(&p)
	written, err := e.store.AddRevision(context.Background(), c.Campaign.ID, store.NewRevision{Plan: p, EditorID: e.users[editor], Base: base, Request: uuid.NewString()})
	require.NoError(e.t, err)
	return written
}

// waiting puts a revision before the levels of a round.
func (e *env) waiting(c CampaignDetail, p campaign.LoadedPlan, round int, stage campaign.Stage) *campaign.Approval {
	e.t.Helper()
	a := campaign.NewApproval(campaign.Approval{
		Round: round, Revision: p.Revision, Digest: p.Digest, Amount: 90000, Requester: e.users["planner"], Route: sideBySide,
	}, time.Now())
	e.setStatus(c.Campaign.ID, campaign.Status{Stage: stage, Revision: 1, Approval: a, WaitAction: campaign.ActApprovalManager})
	return a
}

// A signature of an earlier round answers no decision of this one.
func TestASignatureAnswersItsOwnRoundAlone(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	e.inApproval(c, 90000)
	path := "/v1/campaigns/" + c.Campaign.ID
	decide := func() reply {
		return e.send("manager", "POST", path+"/decisions", NewDecision{Revision: 1, Digest: c.Draft.Digest, Level: 1, Decision: campaign.DecisionApprove})
	}
	first := into[DecisionResult](t, decide())
	e.exec(`INSERT INTO sign_off_counted (sign_off_id, campaign_id, revision, level) VALUES ($1, $2, 1, 1)`, first.SignOffID, c.Campaign.ID)
	moved := func(round int) {
		a := e.inApproval(c, 90000)
		a.Round = round
		a.Count(campaign.Decide{Command: campaign.Command{Actor: campaign.Actor{UserID: e.users["reviewer"]}}, Level: 1, Decision: campaign.DecisionApprove}, time.Now())
		e.setStatus(c.Campaign.ID, campaign.Status{Stage: campaign.StageApproval, Revision: 1, Approval: a})
	}
	moved(1)
	require.Equal(t, first.SignOffID, into[DecisionResult](t, decide()).SignOffID, "a second click")
	moved(2) // withdrawn and submitted again
	require.Equal(t, "state_conflict", decide().problem(t).Code)
	detail := into[ApprovalDetail](t, e.send("auditor", "GET", path+"/approval", nil))
	require.Equal(t, 1, detail.SignOffs[0].Round)
}

// Whoever wrote a revision is offered no signature, nor is their delegate, and nothing of
// theirs is recorded as signed.
func TestAuthorsAreOfferedNoSignature(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	e.addUser("deputy", here, campaign.RoleAnalyst)
	e.addUser("deputy", here, campaign.RoleReviewer)
	e.reload()
	second := e.revise(c, "manager", 1, func(p *campaign.Plan) { p.Name = "Winter deposits" })
	e.waiting(c, second, 1, campaign.StageApproval)
	e.lend("manager", "deputy", nil, -time.Minute, time.Hour, campaign.ActApprovalManager)
	path := "/v1/campaigns/" + c.Campaign.ID
	for who, actingFor := range map[string]string{"manager": "", "deputy": "manager"} {
		require.Empty(t, into[ApprovalInbox](t, e.send(who, "GET", "/v1/approvals", nil)).Items, who)
		for _, a := range into[CampaignDetail](t, e.send(who, "GET", path, nil)).Actions {
			if a.ID == campaign.ActApprovalManager {
				require.False(t, a.Allowed, who)
			}
		}
		refused := e.send(who, "POST", path+"/decisions", NewDecision{
			Revision: second.Revision, Digest: second.Digest, Level: 1, Decision: campaign.DecisionApprove, ActingFor: e.users[actingFor],
		})
		require.Equal(t, "sod_self_approval", refused.problem(t).Code, who)
	}
	require.Zero(t, e.number(`SELECT count(*) FROM sign_off`))
	require.Empty(t, e.orch.asked())
	require.Len(t, into[ApprovalInbox](t, e.send("finance", "GET", "/v1/approvals", nil)).Items, 1, "others are")
}

// A delegate needs no role of their own where they sign.
func TestADelegateNeedsNoRoleOfTheirOwn(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	e.inApproval(c, 90000)
	path := "/v1/campaigns/" + c.Campaign.ID
	id := e.lend("manager", "stranger", nil, -time.Minute, time.Hour, campaign.ActApprovalManager)
	into[ApprovalDetail](t, e.send("stranger", "GET", path+"/approval", nil))
	for _, a := range into[AuthorityList](t, e.send("stranger", "GET", path+"/authority", nil)).Items {
		require.Equal(t, a.ID == campaign.ActApprovalManager, a.Allowed, a.ID)
	}
	items := into[ApprovalInbox](t, e.send("stranger", "GET", "/v1/approvals", nil)).Items
	require.Len(t, items, 1)
	require.Equal(t, e.users["manager"], items[0].ActingFor.ID)
	require.Equal(t, "not_found", e.send("stranger", "GET", path+"/revisions", nil).problem(t).Code, "it lets them sign and no more")
	into[DecisionResult](t, e.send("stranger", "POST", path+"/decisions",
		NewDecision{Revision: 1, Digest: c.Draft.Digest, Level: 1, Decision: campaign.DecisionApprove, ActingFor: e.users["manager"]}))
	e.exec(`UPDATE delegation SET revoked_at = now(), revoked_by = from_user WHERE id = $1`, id)
	require.Equal(t, "not_found", e.send("stranger", "GET", path+"/approval", nil).problem(t).Code)
}

func TestTheDifferenceOfRevisionsIsShown(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	path := "/v1/campaigns/" + c.Campaign.ID
	dearer := e.revise(c, "planner", 1, func(p *campaign.Plan) { p.Budget[0].Amount += 5 })
	e.revise(c, "planner", 1, func(p *campaign.Plan) { p.Name = "Winter deposits" })
	changed := func(path string, before, after string) []campaign.Change {
		return []campaign.Change{{Path: path, Before: []byte(before), After: []byte(after)}}
	}
	get := func(query string) PlanDifference {
		return into[PlanDifference](t, e.send("planner", "GET", path+"/revisions/"+query, nil))
	}
	require.Equal(t, PlanDifference{Revision: 2, From: 1, Changes: changed("budget[0].amount", "90000", "90005")}, get("2/difference"))
	require.Equal(t, PlanDifference{Revision: 3, From: 1, Changes: changed("name", `"Autumn deposits"`, `"Winter deposits"`)}, get("3/difference"), "what it was made from")
	require.Len(t, get("3/difference?from=2").Changes, 2)
	require.Equal(t, PlanDifference{Revision: 1, Changes: []campaign.Change{}}, get("1/difference"))
	require.Equal(t, "not_found", e.send("planner", "GET", path+"/revisions/9/difference", nil).problem(t).Code)
	require.Equal(t, "not_found", e.send("stranger", "GET", path+"/revisions/2/difference", nil).problem(t).Code)

	e.waiting(c, dearer, 2, campaign.StageRunning)
	detail := into[ApprovalDetail](t, e.send("manager", "GET", path+"/approval", nil))
	require.Equal(t, changed("budget[0].amount", "90000", "90005"), detail.Difference, "what is to be signed")
}

// A plan can be asked about before it is sent, and a refused amendment is no draft.
func TestTheRouteOfAnAmendmentIsShownBefore(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	path := "/v1/campaigns/" + c.Campaign.ID
	e.setStatus(c.Campaign.ID, campaign.Status{Stage: campaign.StageRunning, Revision: 1, Targets: 5})
	e.revise(c, "planner", 1, func(p *campaign.Plan) { p.Name = "refused" })
	require.Equal(t, 1, into[CampaignDetail](t, e.send("planner", "GET", path, nil)).Draft.Revision)
	require.Equal(t, "state_conflict", e.send("planner", "POST", path+"/route", nil).problem(t).Code)
	plan := validPlan()
	plan.Budget[0].Amount += 5
	preview := into[RoutePreview](t, e.send("planner", "POST", path+"/route", PlannedRoute{Plan: plan}))
	require.EqualValues(t, 5, preview.Amount)
	require.EqualValues(t, 90005, preview.Total)
	require.Equal(t, 1, preview.Base)
	plan.Name = "Winter deposits"
	preview = into[RoutePreview](t, e.send("planner", "POST", path+"/route", PlannedRoute{Plan: plan}))
	require.EqualValues(t, 90005, preview.Amount, "the whole plan")
	require.Zero(t, preview.Base)
	plan.Channels = nil
	require.Equal(t, "invalid_parameter", e.send("planner", "POST", path+"/route", PlannedRoute{Plan: plan}).problem(t).Code)
	require.EqualValues(t, 2, e.number(`SELECT count(*) FROM plan_revision WHERE campaign_id = $1`, c.Campaign.ID), "nothing is written")
}

// The page says what the campaign itself would.
func TestActionsFollowTheCampaign(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	e.addUser("operator", here, campaign.RolePlanner)
	e.reload()
	for what, now := range map[string]campaign.Status{
		"targets are being selected": {Stage: campaign.StageTargeting, Revision: 1},
		"winding down":               {Stage: campaign.StageRunning, Revision: 1, Targets: 5, WindingDown: true},
		"settlement":                 {Stage: campaign.StageSettlement, Revision: 1, Targets: 5},
		"running":                    {Stage: campaign.StageRunning, Revision: 1, Targets: 5},
	} {
		now.Hold = campaign.HoldNone
		e.setStatus(c.Campaign.ID, now)
		for _, a := range into[CampaignDetail](t, e.send("operator", "GET", "/v1/campaigns/"+c.Campaign.ID, nil)).Actions {
			switch a.ID {
			case campaign.ActCampaignAmend, campaign.ActCampaignPause, campaign.ActCampaignStop:
				require.Equal(t, now.Admits(a.ID) == nil, a.Allowed, "%s: %s", what, a.ID)
			}
		}
	}
	require.Error(t, campaign.Status{Stage: campaign.StageTargeting, Hold: campaign.HoldNone}.Admits(campaign.ActCampaignAmend))
	require.Error(t, campaign.Status{Stage: campaign.StageRunning, Hold: campaign.HoldNone, WindingDown: true}.Admits(campaign.ActCampaignPause))
	require.Error(t, campaign.Status{Stage: campaign.StageSettlement, Hold: campaign.HoldNone}.Admits(campaign.ActCampaignStop))
}
