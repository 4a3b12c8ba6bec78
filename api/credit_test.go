package api

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/ledger"
	"github.com/musterhq/muster/store"
)

// pool opens a pool at here with so much in it.
func (e *env) pool(name string, capacity int64) CreditPool {
	e.t.Helper()
	p := into[CreditPool](e.t, e.send("finance", "POST", "/v1/credit/pools", NewCreditPool{Unit: here, Name: name, Currency: "CNY"}))
	require.Equal(e.t, CreditPoolFigures{Currency: "CNY"}, p.Figures)
	return into[CreditPool](e.t, e.send("finance", "POST", "/v1/credit/pools/"+p.ID+"/allocations", NewCreditAllocation{Amount: capacity, Words: "for the autumn"}))
}

// creditPlan is the valid plan with credit for ten customers, ¥10 at once.
func creditPlan(poolID string) campaign.Plan {
	p := validPlan()
	p.Budget = append(p.Budget, campaign.BudgetLine{
		Line: "credit", Category: campaign.CategoryPrepaid, Driver: campaign.DriverPerOrder, Amount: 10_000,
		Credit: &campaign.CreditOffer{PoolID: poolID, Schedule: campaign.CreditSchedule{Total: 1000, First: 1000}, Customers: 10, MonthSeconds: 60},
	})
	return p
}

func TestPoolsOfCredit(t *testing.T) {
	e := newEnv(t)
	p := e.pool("Phones", 50_000)
	require.Equal(t, CreditPoolFigures{Currency: "CNY", Capacity: 50_000, Available: 50_000}, p.Figures)

	// The same request adds its money once.
	path, key := "/v1/credit/pools/"+p.ID+"/allocations", uuid.NewString()
	for range 3 {
		got := into[CreditPool](t, e.send("finance", "POST", path, NewCreditAllocation{Amount: 7, Words: "more"}, "Idempotency-Key", key))
		require.EqualValues(t, 50_007, got.Figures.Capacity)
	}
	require.EqualValues(t, 2, e.number(`SELECT count(*) FROM audit_event WHERE event = 'credit.pool_allocated' AND actor_id = $1`, e.users["finance"]))
	require.EqualValues(t, 2, e.number(`SELECT count(*) FROM ledger_journal WHERE kind = 'allocate' AND actor = $1 AND reason <> ''`, e.users["finance"]))

	for _, login := range []string{"planner", "credit", "auditor"} {
		list := into[CreditPoolList](t, e.send(login, "GET", "/v1/credit/pools", nil))
		require.Len(t, list.Items, 1, login)
		require.EqualValues(t, 50_007, list.Items[0].Figures.Available)
		require.Equal(t, "Phones", into[CreditPool](t, e.send(login, "GET", "/v1/credit/pools/"+p.ID, nil)).Name)
	}
	// Whoever belongs to a unit below may be paid from it too, and may not add to it.
	e.exec(`INSERT INTO org_unit (path, name) VALUES ('operator/north/harbin', 'Harbin')`)
	e.addUser("below", "operator/north/harbin", campaign.RoleFinance)
	e.reload()
	require.Len(t, into[CreditPoolList](t, e.send("below", "GET", "/v1/credit/pools", nil)).Items, 1)

	absent := e.send("stranger", "GET", "/v1/credit/pools/"+uuid.NewString(), nil)
	require.Equal(t, http.StatusNotFound, absent.status)
	for _, r := range []reply{
		e.send("stranger", "GET", "/v1/credit/pools/"+p.ID, nil),
		e.send("stranger", "POST", path, NewCreditAllocation{Amount: 1, Words: "x"}),
		e.send("below", "POST", path, NewCreditAllocation{Amount: 1, Words: "x"}),
	} {
		require.Equal(t, http.StatusNotFound, r.status)
		require.Equal(t, absent.problem(t).Detail, r.problem(t).Detail)
	}
	require.Empty(t, into[CreditPoolList](t, e.send("stranger", "GET", "/v1/credit/pools", nil)).Items)

	for name, c := range map[string]struct {
		login, path string
		body        any
		status      int
		code        campaign.Code
	}{
		"a planner opens none":     {"planner", "/v1/credit/pools", NewCreditPool{Unit: here, Name: "x", Currency: "CNY"}, 403, campaign.CodeForbidden},
		"nor elsewhere":            {"finance", "/v1/credit/pools", NewCreditPool{Unit: there, Name: "x", Currency: "CNY"}, 403, campaign.CodeForbidden},
		"the name is taken":        {"finance", "/v1/credit/pools", NewCreditPool{Unit: here, Name: "Phones", Currency: "EUR"}, 409, campaign.CodeAlreadyExists},
		"no such currency":         {"finance", "/v1/credit/pools", NewCreditPool{Unit: here, Name: "x", Currency: "ABC"}, 400, campaign.CodeInvalidParameter},
		"an operator adds nothing": {"operator", path, NewCreditAllocation{Amount: 1, Words: "x"}, 403, campaign.CodeForbidden},
		"nothing to add":           {"finance", path, NewCreditAllocation{Words: "x"}, 400, campaign.CodeInvalidParameter},
		"more than money":          {"finance", path, NewCreditAllocation{Amount: 1_000_000_000_000_001, Words: "x"}, 422, campaign.CodeAmountOutOfRange},
		"without a word":           {"finance", path, NewCreditAllocation{Amount: 1, Words: " "}, 422, campaign.CodeReasonRequired},
	} {
		r := e.send(c.login, "POST", c.path, c.body)
		require.Equal(t, c.status, r.status, "%s: %s", name, r.body)
		require.Equal(t, string(c.code), r.problem(t).Code, name)
	}
	require.EqualValues(t, 50_007, into[CreditPool](t, e.send("finance", "GET", "/v1/credit/pools/"+p.ID, nil)).Figures.Capacity)
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM credit_pool`))
}

func TestAPlanAppliesForCredit(t *testing.T) {
	e := newEnv(t)
	p := e.pool("Phones", 50_000)
	c := into[CampaignDetail](t, e.send("planner", "POST", "/v1/campaigns", NewCampaign{Plan: creditPlan(p.ID)}))
	require.Equal(t, creditPlan(p.ID).Budget, c.Draft.Plan.Budget)
	require.Empty(t, into[CreditFiguresList](t, e.send("planner", "GET", "/v1/campaigns/"+c.Campaign.ID+"/credit", nil)).Items)

	for name, tt := range map[string]struct {
		change func(*campaign.BudgetLine)
		field  string
		code   campaign.Code
	}{
		"no such pool":   {func(l *campaign.BudgetLine) { l.Credit.PoolID = uuid.NewString() }, "plan.budget[1].credit.pool_id", campaign.CodeCreditPoolNotFound},
		"another amount": {func(l *campaign.BudgetLine) { l.Amount-- }, "plan.budget[1].amount", campaign.CodeInvalidParameter},
		"no schedule":    {func(l *campaign.BudgetLine) { l.Credit.Schedule.First = 1 }, "plan.budget[1].credit.schedule.months", campaign.CodeInvalidParameter},
		"a unit cost":    {func(l *campaign.BudgetLine) { l.UnitCost = 1 }, "plan.budget[1].unit_cost", campaign.CodeInvalidParameter},
		"no application": {func(l *campaign.BudgetLine) { l.Credit = nil }, "plan.budget[1].credit", campaign.CodeInvalidPlan},
	} {
		plan := creditPlan(p.ID)
		tt.change(&plan.Budget[1])
		r := e.send("planner", "POST", "/v1/campaigns", NewCampaign{Plan: plan})
		require.Equal(t, http.StatusUnprocessableEntity, r.status, "%s: %s", name, r.body)
		fault := r.problem(t).Fields[0]
		require.Equal(t, tt.field, fault.Field, name)
		require.Equal(t, tt.code, fault.Code, name)
	}
}

// promised is a campaign that granted its credit to n customers.
func (e *env) promised(n int) (campaignID string, grants []CreditGrant) {
	e.t.Helper()
	ctx := context.Background()
	p := e.pool("Phones", 50_000)
	plan := creditPlan(p.ID)
	id := into[CampaignDetail](e.t, e.send("planner", "POST", "/v1/campaigns", NewCampaign{Plan: plan})).Campaign.ID
	_, customers := e.openTasks(id, n, 1)
	for _, customer := range customers {
		e.exec(`INSERT INTO outcome (id, campaign_id, customer_id, kind, at, source, source_id, simulated)
			VALUES (gen_random_uuid(), $1, $2, 'ordered', now(), 'shop', $3, true)`, id, customer, customer)
	}
	line := plan.Budget[1]
	_, err := e.server.ledger.ReserveAll(ctx, ledger.Budget{CampaignID: id, Currency: "CNY", Lines: []ledger.Ceiling{
		{Line: line.Line, Category: line.Category, Pool: p.ID, Amount: line.Amount},
	}})
	require.NoError(e.t, err)
	l := store.CreditLines(id, &plan)[0]
	_, err = e.store.PromiseCredit(ctx, l, false)
	require.NoError(e.t, err)
	_, _, err = e.store.GrantCredit(ctx, l, 100, func(ctx context.Context, tx pgx.Tx, step campaign.CreditStep) (int64, error) {
		entry, err := e.server.ledger.In(tx).MoveCredit(ctx, step)
		return entry.Journal, err
	})
	require.NoError(e.t, err)
	return id, into[CreditGrantPage](e.t, e.send("planner", "GET", "/v1/campaigns/"+id+"/credit/grants", nil)).Items
}

func TestGrantsAreListed(t *testing.T) {
	e := newEnv(t)
	id, all := e.promised(5)
	require.Len(t, all, 5)
	for _, g := range all {
		require.Equal(t, campaign.CreditGranted, g.State)
		require.EqualValues(t, 1000, g.Outstanding)
	}
	var paged []CreditGrant
	for next := ""; ; {
		page := into[CreditGrantPage](t, e.send("planner", "GET", fmt.Sprintf("/v1/campaigns/%s/credit/grants?limit=2&cursor=%s", id, next), nil))
		paged = append(paged, page.Items...)
		if next = page.Next; next == "" {
			break
		}
	}
	require.Equal(t, all, paged)
	require.Equal(t, campaign.CreditFigures{
		Line: "credit", PoolID: into[CreditPoolList](t, e.send("planner", "GET", "/v1/credit/pools", nil)).Items[0].ID, Currency: "CNY",
		Customers: 5, Most: 10, Reserved: 5000, Outstanding: 5000, CreditAmounts: campaign.CreditAmounts{Granted: 5000},
	}, into[CreditFiguresList](t, e.send("auditor", "GET", "/v1/campaigns/"+id+"/credit", nil)).Items[0])
	require.Equal(t, http.StatusNotFound, e.send("stranger", "GET", "/v1/campaigns/"+id+"/credit/grants", nil).status)
	require.Equal(t, http.StatusForbidden, e.send("agent", "GET", "/v1/campaigns/"+id+"/credit", nil).status)
}

func TestUsesOfCredit(t *testing.T) {
	e := newEnv(t)
	id, all := e.promised(2)
	batch := CreditUseBatch{Source: "billing", Items: []NewCreditUse{
		{Reference: "1", GrantID: all[0].ID, Spent: 400},
		{Reference: "2", GrantID: all[0].ID, Spent: 601},
		{Reference: "3", CampaignID: id, Customer: "c-" + all[1].CustomerID, Spent: 5},
	}}
	key := uuid.NewString()
	for range 2 {
		got := into[OutcomeResult](t, e.send("operator", "POST", "/v1/credit/uses", batch, "Idempotency-Key", key))
		require.Equal(t, 2, got.Accepted)
		require.Equal(t, "items[1].spent", got.Faults[0].Field)
		require.Equal(t, campaign.CodeBudgetInsufficient, got.Faults[0].Code)
	}
	again := into[OutcomeResult](t, e.send("operator", "POST", "/v1/credit/uses", batch))
	require.Zero(t, again.Accepted)
	require.Equal(t, 2, again.Duplicate)
	figures := into[CreditFiguresList](t, e.send("operator", "GET", "/v1/campaigns/"+id+"/credit", nil)).Items[0]
	require.EqualValues(t, 405, figures.Used)
	require.EqualValues(t, 1595, figures.Outstanding)
	require.EqualValues(t, 405, e.number(`SELECT sum(amount) FROM ledger_journal WHERE kind = 'credit_used' AND actor = $1`, e.users["operator"]))

	none := into[OutcomeResult](t, e.send("stranger", "POST", "/v1/credit/uses", batch))
	require.Zero(t, none.Accepted+none.Duplicate)
	require.Equal(t, campaign.CodeNotFound, none.Faults[0].Code)
	require.Equal(t, http.StatusForbidden, e.send("planner", "POST", "/v1/credit/uses", batch).status)

	for name, item := range map[string]string{
		"nobody":            `{"reference": "9", "spent": 1}`,
		"two names":         `{"reference": "9", "grant_id": "` + all[0].ID + `", "customer": "x", "spent": 1}`,
		"half a name":       `{"reference": "9", "campaign_id": "` + id + `", "spent": 1}`,
		"use of no month":   `{"reference": "9", "grant_id": "` + all[0].ID + `", "use": 1}`,
		"a negative amount": `{"reference": "9", "grant_id": "` + all[0].ID + `", "spent": -1}`,
		"no reference":      `{"grant_id": "` + all[0].ID + `", "spent": 1}`,
	} {
		r := e.send("operator", "POST", "/v1/credit/uses", `{"source": "billing", "items": [`+item+`]}`)
		require.Equal(t, http.StatusBadRequest, r.status, "%s: %s", name, r.body)
		require.Contains(t, r.problem(t).Fields[0].Field, "items[0].", name)
	}
	// So many rows are one request.
	many := CreditUseBatch{Source: "nightly"}
	for i := range 10_000 {
		many.Items = append(many.Items, NewCreditUse{Reference: fmt.Sprint(i), GrantID: all[i%2].ID, Spent: int64(i % 2)})
	}
	got := into[OutcomeResult](t, e.send("operator", "POST", "/v1/credit/uses", many))
	require.Equal(t, 995, got.Accepted, "until the second customer has nothing left")
	require.Len(t, got.Faults, 10_000-995)
	broken, err := e.store.CheckInvariants(context.Background(), id)
	require.NoError(t, err)
	for _, b := range broken {
		require.NotContains(t, []string{"C1", "C2", "C3"}, b.Invariant, b.What)
	}
}

func TestCreditIsClawedBackThroughTheAPI(t *testing.T) {
	e := newEnv(t)
	id, all := e.promised(2)
	path := "/v1/campaigns/" + id + "/credit/grants/" + all[0].ID + "/claw-back"
	into[OutcomeResult](t, e.send("operator", "POST", "/v1/credit/uses", CreditUseBatch{Source: "billing", Items: []NewCreditUse{{Reference: "1", GrantID: all[0].ID, Spent: 400}}}))
	require.Equal(t, http.StatusForbidden, e.send("operator", "POST", path, NewClawBack{Words: "left"}).status)
	require.Equal(t, http.StatusNotFound, e.send("stranger", "POST", path, NewClawBack{Words: "left"}).status)
	mute := e.send("credit", "POST", path, NewClawBack{Words: " "})
	require.Equal(t, string(campaign.CodeReasonRequired), mute.problem(t).Code)

	key := uuid.NewString()
	for range 2 {
		got := into[CreditGrant](t, e.send("credit", "POST", path, NewClawBack{Words: "left"}, "Idempotency-Key", key))
		require.Equal(t, campaign.CreditClawedBack, got.State)
		require.EqualValues(t, 600, got.ClawedBack)
		require.EqualValues(t, 400, got.Owed)
		require.False(t, got.ClawedBackAt.IsZero())
	}
	require.Equal(t, string(campaign.CodeStateConflict), e.send("finance", "POST", path, NewClawBack{Words: "left"}).problem(t).Code)
	other := "/v1/campaigns/" + e.newCampaign().Campaign.ID + "/credit/grants/" + all[1].ID + "/claw-back"
	require.Equal(t, http.StatusNotFound, e.send("credit", "POST", other, NewClawBack{Words: "left"}).status, "of another campaign")
	require.EqualValues(t, 600, e.number(`SELECT sum(amount) FROM ledger_journal WHERE kind = 'credit_clawed_back' AND actor = $1 AND reason = 'left'`, e.users["credit"]))
}

// sampleCredit is a pool, and a promise from it by a campaign; both are made once.
func (e *env) sampleCredit(campaignID string) (poolID, promiseID string) {
	e.t.Helper()
	ctx := context.Background()
	pools, err := e.store.CreditPools(ctx, []campaign.OrgUnit{here})
	require.NoError(e.t, err)
	if len(pools) == 0 {
		poolID = e.pool("Samples", 1).ID
		e.exec(`INSERT INTO credit_line (campaign_id, line, pool_id, currency, offer, customers) VALUES ($1, 'credit', $2, 'CNY', '{"schedule": {"total": 5}}', 1)`, campaignID, poolID)
		e.exec(`INSERT INTO credit_grant (campaign_id, line, customer_id, anchor, next_no, due_at, decided_by, promised)
			VALUES ($1, 'credit', gen_random_uuid(), now(), 1, now(), now(), 5)`, campaignID)
	} else {
		poolID = pools[0].ID
	}
	grants, err := e.store.CreditGrants(ctx, campaignID, store.CreditGrantKey{}, 1)
	require.NoError(e.t, err)
	return poolID, grants[0].ID
}
