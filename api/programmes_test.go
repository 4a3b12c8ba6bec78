package api

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/assertion"
	"github.com/musterhq/muster/audit"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/ledger"
)

func springProgramme() NewProgramme {
	today := campaign.DateOf(time.Now().UTC())
	return NewProgramme{
		Name: "Spring", Unit: here, Owner: "owner", Currency: "CNY", Ceiling: 10_000_000, CampaignCeiling: 500_000,
		Types: []campaign.Type{campaign.TypeUpsell}, From: today.AddDays(-1), Until: today.AddDays(30),
	}
}

// withOwner adds a second manager, who owns programmes.
func (e *env) withOwner() *env {
	e.addUser("owner", here, campaign.RoleManager)
	e.reload()
	return e
}

func (e *env) propose(p NewProgramme) ProgrammeDetail {
	e.t.Helper()
	return into[ProgrammeDetail](e.t, e.send("planner", "POST", "/v1/programmes", p))
}

func (e *env) decideOn(login string, p ProgrammeDetail, level int, change func(*ProgrammeDecision)) reply {
	d := ProgrammeDecision{Digest: p.Programme.Digest, Level: level, Decision: campaign.DecisionApprove}
	if change != nil {
		change(&d)
	}
	return e.send(login, "POST", "/v1/programmes/"+p.Programme.ID+"/decisions", d)
}

// programme is one that is approved.
func (e *env) programme(p NewProgramme) ProgrammeDetail {
	e.t.Helper()
	detail := e.propose(p)
	detail = into[ProgrammeDetail](e.t, e.decideOn("manager", detail, 1, nil))
	return into[ProgrammeDetail](e.t, e.decideOn("finance", detail, 2, nil))
}

func TestAProgrammeIsProposedSignedAndClosed(t *testing.T) {
	e := newEnv(t).withOwner()
	p := e.propose(springProgramme())
	require.EqualValues(t, 1, p.Programme.Number)
	require.Equal(t, campaign.ProgrammeProposed, p.Programme.State)
	require.Equal(t, "The owner", p.Programme.Owner.Name)
	require.Equal(t, "CNY up to 5 million", p.Approval.Rule)
	require.Len(t, p.Approval.Route, 2)
	require.Nil(t, p.Programme.Figures)
	require.Zero(t, e.number(`SELECT count(*) FROM ledger_account`))

	page := into[ProgrammePage](t, e.send("manager", "GET", "/v1/programmes?state=proposed", nil))
	require.Len(t, page.Items, 1)
	require.Equal(t, []int{1}, page.Items[0].MaySign)
	for _, login := range []string{"planner", "owner", "finance", "auditor"} {
		require.Empty(t, into[ProgrammePage](t, e.send(login, "GET", "/v1/programmes", nil)).Items[0].MaySign, login)
	}
	refused := func(r reply, status int, code campaign.Code) {
		t.Helper()
		require.Equal(t, status, r.status, "%s", r.body)
		require.Equal(t, string(code), r.problem(t).Code)
	}
	refused(e.decideOn("owner", p, 1, nil), http.StatusForbidden, campaign.CodeSelfApproval)
	refused(e.decideOn("planner", p, 1, nil), http.StatusForbidden, campaign.CodeSelfApproval)
	refused(e.decideOn("auditor", p, 1, nil), http.StatusForbidden, campaign.CodeForbidden)
	refused(e.decideOn("administrator", p, 1, nil), http.StatusForbidden, campaign.CodeForbidden)
	refused(e.decideOn("stranger", p, 1, nil), http.StatusNotFound, campaign.CodeNotFound)
	refused(e.decideOn("finance", p, 2, nil), http.StatusConflict, campaign.CodeStateConflict)
	refused(e.decideOn("manager", p, 1, func(d *ProgrammeDecision) { d.Digest = "x" }), http.StatusConflict, campaign.CodeVersionChanged)
	refused(e.decideOn("manager", p, 1, func(d *ProgrammeDecision) { d.Decision, d.Words = campaign.DecisionReject, " " }), http.StatusUnprocessableEntity, campaign.CodeReasonRequired)
	require.Zero(t, e.number(`SELECT count(*) FROM programme_sign_off`))
	require.EqualValues(t, 8, e.number(`SELECT count(*) FROM audit_event WHERE NOT allowed AND data->>'operation' = 'decideProgramme'`), "each attempt is evidence")

	p = into[ProgrammeDetail](t, e.decideOn("manager", p, 1, nil))
	require.Len(t, p.SignOffs, 1)
	refused(e.decideOn("manager", p, 2, nil), http.StatusForbidden, campaign.CodeSameActor)
	require.Zero(t, e.number(`SELECT count(*) FROM ledger_account`), "no money before the last signature")
	key := uuid.NewString()
	sign := func() reply {
		return e.send("finance", "POST", "/v1/programmes/"+p.Programme.ID+"/decisions",
			ProgrammeDecision{Digest: p.Programme.Digest, Level: 2, Decision: campaign.DecisionApprove}, "Idempotency-Key", key)
	}
	p = into[ProgrammeDetail](t, sign())
	require.Equal(t, p, into[ProgrammeDetail](t, sign()))
	require.Equal(t, campaign.ProgrammeApproved, p.Programme.State)
	require.Equal(t, &FundBalance{Currency: "CNY", Allocated: 10_000_000, Available: 10_000_000}, p.Programme.Figures)
	require.Equal(t, campaign.ApprovalApproved, p.Approval.Result)
	stored, err := e.store.Programme(t.Context(), p.Programme.ID)
	require.NoError(t, err)
	for _, o := range stored.SignOffs {
		claims, err := assertion.Verify[assertion.ProgrammeSignOff](e.keys.Ring(), o.Assertion, time.Now())
		require.NoError(t, err)
		want, err := audit.ProgrammeClaims(o, here)
		require.NoError(t, err)
		require.NoError(t, assertion.Matches(claims, want))
	}

	closing := "/v1/programmes/" + p.Programme.ID + "/close"
	refused(e.send("manager", "POST", closing, Withdrawal{Words: "over"}), http.StatusForbidden, campaign.CodeForbidden)
	refused(e.send("finance", "POST", closing, map[string]any{}), http.StatusBadRequest, campaign.CodeInvalidParameter)
	refused(e.send("finance", "POST", closing, Withdrawal{Words: " "}), http.StatusUnprocessableEntity, campaign.CodeReasonRequired)
	for range 2 {
		p = into[ProgrammeDetail](t, e.send("finance", "POST", closing, Withdrawal{Words: "over"}))
		require.Equal(t, campaign.ProgrammeClosed, p.Programme.State)
		require.Equal(t, &FundBalance{Currency: "CNY", Allocated: 10_000_000, Returned: 10_000_000}, p.Programme.Figures)
	}
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM audit_event WHERE event = 'programme.closed'`))

	q := e.propose(springProgramme())
	require.EqualValues(t, 2, q.Programme.Number)
	q = into[ProgrammeDetail](t, e.decideOn("manager", q, 1, func(d *ProgrammeDecision) { d.Decision, d.Words = campaign.DecisionReject, "too dear" }))
	require.Equal(t, campaign.ProgrammeRejected, q.Programme.State)
	refused(e.decideOn("finance", q, 2, nil), http.StatusConflict, campaign.CodeStateConflict)
	refused(e.send("finance", "POST", "/v1/programmes/"+q.Programme.ID+"/close", Withdrawal{Words: "over"}), http.StatusConflict, campaign.CodeStateConflict)
}

// A delegate signs for a programme with the authority of whoever lent it, and for the owner as little as the owner.
func TestADelegateSignsForAProgramme(t *testing.T) {
	e := newEnv(t).withOwner()
	p := e.propose(springProgramme())
	e.lend("manager", "analyst", nil, -time.Minute, time.Minute, campaign.ActApprovalManager)
	e.lend("owner", "analyst", nil, -time.Minute, time.Minute, campaign.ActApprovalManager)
	as := func(login string) func(*ProgrammeDecision) {
		return func(d *ProgrammeDecision) { d.ActingFor = e.users[login] }
	}
	require.Equal(t, string(campaign.CodeSelfApproval), e.decideOn("analyst", p, 1, as("owner")).problem(t).Code)
	p = into[ProgrammeDetail](t, e.decideOn("analyst", p, 1, as("manager")))
	require.Equal(t, e.users["manager"], p.SignOffs[0].ActingFor)
	require.Equal(t, string(campaign.CodeSameActor), e.decideOn("manager", p, 2, nil).problem(t).Code)
}

func TestProgrammesAreCheckedWhenTheyAreProposed(t *testing.T) {
	e := newEnv(t).withOwner()
	e.addUser("elsewhere", there, campaign.RoleManager)
	e.reload()
	for name, c := range map[string]struct {
		change func(*NewProgramme)
		status int
		code   campaign.Code
		field  string
	}{
		"a stranger":          {func(p *NewProgramme) { p.Owner = "nobody" }, http.StatusBadRequest, campaign.CodeInvalidParameter, "owner"},
		"who may not sign":    {func(p *NewProgramme) { p.Owner = "analyst" }, http.StatusBadRequest, campaign.CodeInvalidParameter, "owner"},
		"not there":           {func(p *NewProgramme) { p.Owner = "elsewhere" }, http.StatusBadRequest, campaign.CodeInvalidParameter, "owner"},
		"one above the sum":   {func(p *NewProgramme) { p.CampaignCeiling = p.Ceiling + 1 }, http.StatusUnprocessableEntity, campaign.CodeAmountOutOfRange, "campaign_ceiling"},
		"no day":              {func(p *NewProgramme) { p.From = "2026-02-30" }, http.StatusBadRequest, campaign.CodeInvalidParameter, "from"},
		"the end first":       {func(p *NewProgramme) { p.Until = p.From.AddDays(-1) }, http.StatusBadRequest, campaign.CodeInvalidParameter, "until"},
		"no route in dollars": {func(p *NewProgramme) { p.Currency = "USD" }, http.StatusUnprocessableEntity, campaign.CodeNoRoute, ""},
		"above every route":   {func(p *NewProgramme) { p.Ceiling = 5_000_000_001 }, http.StatusUnprocessableEntity, campaign.CodeNoRoute, ""},
		"another's unit":      {func(p *NewProgramme) { p.Unit = there }, http.StatusForbidden, campaign.CodeForbidden, ""},
	} {
		p := springProgramme()
		c.change(&p)
		r := e.send("planner", "POST", "/v1/programmes", p)
		require.Equal(t, c.status, r.status, "%s: %s", name, r.body)
		problem := r.problem(t)
		require.Equal(t, string(c.code), problem.Code, name)
		if c.field != "" {
			require.Equal(t, c.field, problem.Fields[0].Field, name)
		}
	}
	require.Equal(t, http.StatusForbidden, e.send("manager", "POST", "/v1/programmes", springProgramme()).status)
	require.Zero(t, e.number(`SELECT count(*) FROM programme`))
}

// A draft may name any programme of its tenant; what the programme allows is asked when the
// plan is routed. What is not the tenant's does not exist.
func TestAPlanNamesItsProgramme(t *testing.T) {
	e := newEnv(t).withOwner()
	p := e.programme(springProgramme())
	create := func(change func(*campaign.Plan)) reply {
		plan := validPlan()
		plan.ProgrammeID = p.Programme.ID
		if change != nil {
			change(&plan)
		}
		return e.send("planner", "POST", "/v1/campaigns", NewCampaign{Plan: plan})
	}
	e.exec(`INSERT INTO org_unit (path, name) VALUES ('bank', 'Bank')`)
	e.exec(`INSERT INTO programme (id, tenant, number, name, unit, owner, currency, ceiling, campaign_ceiling, types, channels, maximum_audience, first_day, last_day, digest,
			proposed_by, rule, route, policy_version)
		SELECT '00000000-0000-0000-0000-0000000000b1', 'bank', 1, name, 'bank', owner, currency, ceiling, campaign_ceiling, types, channels, maximum_audience, first_day,
			last_day, digest, proposed_by, rule, route, policy_version FROM programme`)
	var foreign, unknown Problem
	for into, id := range map[*Problem]string{&foreign: "00000000-0000-0000-0000-0000000000b1", &unknown: uuid.NewString()} {
		r := create(func(plan *campaign.Plan) { plan.ProgrammeID = id })
		require.Equal(t, http.StatusUnprocessableEntity, r.status)
		*into = r.problem(t)
		into.RequestID = ""
	}
	require.Equal(t, string(campaign.CodeProgrammeNotFound), unknown.Code)
	require.Equal(t, "plan.programme_id", unknown.Fields[0].Field)
	require.Equal(t, unknown, foreign, "nothing tells that it exists")
	require.Equal(t, string(campaign.CodeProgrammeNotFound), create(func(plan *campaign.Plan) { plan.ProgrammeID = "spring" }).problem(t).Code)

	c := into[CampaignDetail](t, create(nil))
	preview := e.send("planner", "POST", "/v1/campaigns/"+c.Campaign.ID+"/route", nil)
	route := into[RoutePreview](t, preview)
	require.Equal(t, "inside a programme", route.Rule)
	require.Len(t, route.Levels, 1)
	require.Equal(t, []Person{{ID: e.users["owner"], Name: "The owner"}}, route.Levels[0].Signers)
	detail := into[ProgrammeDetail](t, e.send("owner", "GET", "/v1/programmes/"+p.Programme.ID, nil))
	require.Len(t, detail.Campaigns, 1)
	require.Equal(t, c.Campaign.ID, detail.Campaigns[0].ID)
	e.newCampaign()
	listed := into[CampaignPage](t, e.send("planner", "GET", "/v1/campaigns?programme_id="+p.Programme.ID, nil))
	require.Len(t, listed.Items, 1)

	for name, tt := range map[string]struct {
		change func(*campaign.Plan)
		code   campaign.Code
	}{
		"another type": {func(plan *campaign.Plan) { plan.Type = campaign.TypeRetention }, campaign.CodeProgrammeNotAllowed},
		"too large":    {func(plan *campaign.Plan) { plan.Contingency = 500_000 }, campaign.CodeProgrammeCeiling},
	} {
		c := into[CampaignDetail](t, create(tt.change))
		require.Equal(t, string(tt.code), e.send("planner", "POST", "/v1/campaigns/"+c.Campaign.ID+"/route", nil).problem(t).Code, name)
	}
	e.send("finance", "POST", "/v1/programmes/"+p.Programme.ID+"/close", Withdrawal{Words: "over"})
	r := e.send("planner", "POST", "/v1/campaigns/"+c.Campaign.ID+"/route", nil)
	require.Equal(t, http.StatusConflict, r.status)
	require.Equal(t, string(campaign.CodeProgrammeClosed), r.problem(t).Code)
}

// A programme is seen from its unit, from above and from below, and from nowhere else.
func TestWhoSeesAProgramme(t *testing.T) {
	e := newEnv(t).withOwner()
	require.NoError(t, e.store.CreateUnit(t.Context(), "operator/north/harbin", "Harbin"))
	e.addUser("harbin", "operator/north/harbin", campaign.RolePlanner)
	e.addUser("root", "operator", campaign.RoleAuditor)
	e.reload()
	p := e.programme(springProgramme())
	for login, sees := range map[string]bool{"planner": true, "harbin": true, "root": true, "stranger": false} {
		r := e.send(login, "GET", "/v1/programmes/"+p.Programme.ID, nil)
		page := into[ProgrammePage](t, e.send(login, "GET", "/v1/programmes", nil))
		if !sees {
			require.Equal(t, http.StatusNotFound, r.status, login)
			require.Empty(t, page.Items, login)
			continue
		}
		require.Equal(t, p.Programme.ID, into[ProgrammeDetail](t, r).Programme.ID, login)
		require.Len(t, page.Items, 1, login)
	}
	require.Equal(t, http.StatusForbidden, e.send("agent", "GET", "/v1/programmes/"+p.Programme.ID, nil).status)
	e.propose(springProgramme())
	first := into[ProgrammePage](t, e.send("planner", "GET", "/v1/programmes?limit=1", nil))
	require.EqualValues(t, 2, first.Items[0].Number)
	next := into[ProgrammePage](t, e.send("planner", "GET", "/v1/programmes?limit=1&cursor="+first.Next, nil))
	require.EqualValues(t, 1, next.Items[0].Number)
	require.Empty(t, next.Next)
}

func TestContingencyIsDrawnBySomebodyElse(t *testing.T) {
	e := newEnv(t)
	plan := validPlan()
	plan.Contingency = 10_000
	c := into[CampaignDetail](t, e.send("planner", "POST", "/v1/campaigns", NewCampaign{Plan: plan}))
	id := c.Campaign.ID
	path := "/v1/campaigns/" + id + "/contingency"
	empty := into[CampaignLedger](t, e.send("auditor", "GET", "/v1/campaigns/"+id+"/ledger", nil))
	require.Nil(t, empty.Contingency)
	require.Empty(t, empty.Lines)
	draw := func(login string, change func(*NewContingencyDraw)) reply {
		d := NewContingencyDraw{Line: "calls", Amount: 4_000, Words: "more calls than planned"}
		if change != nil {
			change(&d)
		}
		return e.send(login, "POST", path, d)
	}
	refused := func(r reply, status int, code campaign.Code) {
		t.Helper()
		require.Equal(t, status, r.status, "%s", r.body)
		require.Equal(t, string(code), r.problem(t).Code)
	}
	refused(draw("finance", nil), http.StatusConflict, campaign.CodeStateConflict)
	e.setStatus(id, campaign.Status{Stage: campaign.StageRunning, Revision: 1})
	books := ledger.New(e.store.Pool())
	_, err := books.ReserveAll(t.Context(), ledger.Budget{CampaignID: id, Currency: "CNY", Contingency: 10_000, Lines: []ledger.Ceiling{{Line: "calls", Category: campaign.CategoryContact, Amount: 90_000}}})
	require.NoError(t, err)

	refused(draw("planner", nil), http.StatusForbidden, campaign.CodeForbidden)
	refused(draw("finance", func(d *NewContingencyDraw) { d.Line = "flowers" }), http.StatusBadRequest, campaign.CodeInvalidParameter)
	refused(draw("finance", func(d *NewContingencyDraw) { d.Amount = 0 }), http.StatusUnprocessableEntity, campaign.CodeAmountOutOfRange)
	refused(draw("finance", func(d *NewContingencyDraw) { d.Amount = -5 }), http.StatusUnprocessableEntity, campaign.CodeAmountOutOfRange)
	refused(draw("finance", func(d *NewContingencyDraw) { d.Words = " " }), http.StatusUnprocessableEntity, campaign.CodeReasonRequired)
	tooMuch := draw("finance", func(d *NewContingencyDraw) { d.Amount = 10_001 })
	refused(tooMuch, http.StatusConflict, campaign.CodeBudgetInsufficient)
	require.EqualValues(t, 10_000, tooMuch.problem(t).Details["available"])
	// Whoever wrote or submitted it does not give it money, whatever roles they have.
	e.addUser("planner", here, campaign.RoleFinance)
	e.reload()
	refused(draw("planner", nil), http.StatusForbidden, campaign.CodeSelfApproval)
	may := map[string]campaign.Code{"planner": campaign.CodeSelfApproval, "finance": "", "manager": campaign.CodeForbidden}
	for login, why := range may {
		for _, a := range into[AuthorityList](t, e.send(login, "GET", "/v1/campaigns/"+id+"/authority", nil)).Items {
			if a.ID == campaign.ActBudgetDraw {
				require.Equal(t, string(why), a.Code, login)
				require.Equal(t, []Person{{ID: e.users["finance"], Name: "The finance"}}, a.Who)
				delete(may, login)
			}
		}
	}
	require.Empty(t, may, "everybody is told")
	require.Zero(t, e.number(`SELECT count(*) FROM contingency_draw`))
	require.EqualValues(t, 10_000, e.number(`SELECT posted FROM ledger_account WHERE kind = 'campaign'`))

	key := uuid.NewString()
	again := func() reply {
		return e.send("finance", "POST", path, NewContingencyDraw{Line: "calls", Amount: 4_000, Words: "more calls"}, "Idempotency-Key", key)
	}
	drawn := into[ContingencyDraw](t, again())
	require.Equal(t, drawn, into[ContingencyDraw](t, again()))
	require.Equal(t, "The finance", drawn.User.Name)
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM audit_event WHERE event = 'contingency.drawn' AND campaign_id = $1 AND allowed`, id))
	rows, err := e.store.ContingencyDraws(t.Context(), id)
	require.NoError(t, err)
	require.Len(t, rows, 1)
	want, err := audit.DrawClaims(rows[0])
	require.NoError(t, err)
	claims, err := assertion.Verify[assertion.Command](e.keys.Ring(), rows[0].Assertion, time.Now())
	require.NoError(t, err)
	require.NoError(t, assertion.Matches(claims, want))

	now := into[CampaignLedger](t, e.send("planner", "GET", "/v1/campaigns/"+id+"/ledger", nil))
	require.Equal(t, &FundBalance{Currency: "CNY", Allocated: 100_000, Given: 94_000, Available: 6_000}, now.Contingency)
	require.EqualValues(t, 94_000, now.Lines[0].Held)
	require.Len(t, now.Draws, 1)
	first := into[LedgerPage](t, e.send("finance", "GET", "/v1/campaigns/"+id+"/ledger/entries?limit=3", nil))
	require.Len(t, first.Items, 3)
	rest := into[LedgerPage](t, e.send("finance", "GET", "/v1/campaigns/"+id+"/ledger/entries?limit=3&cursor="+first.Next, nil))
	require.Empty(t, rest.Next)
	require.Len(t, rest.Items, 2)
	require.Equal(t, e.users["finance"], rest.Items[0].Actor)
	require.Equal(t, "more calls", rest.Items[0].Reason)
	require.Equal(t, LedgerAccount{Kind: "campaign", Owner: id}, rest.Items[0].From)
	require.Equal(t, http.StatusForbidden, e.send("operator", "GET", "/v1/campaigns/"+id+"/ledger", nil).status)
	broken, err := books.Check(t.Context())
	require.NoError(t, err)
	require.Empty(t, broken)
}
