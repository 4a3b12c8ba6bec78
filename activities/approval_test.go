package activities_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// person adds a user with a role at operator.
func (f *fixture) person(login string, role campaign.Role) {
	f.t.Helper()
	id := uuid.NewString()
	f.exec(`INSERT INTO app_user (id, login, name, password_hash) VALUES ($1, $2, $2, '-')`, id, login)
	f.exec(`INSERT INTO role_grant (user_id, role, unit) VALUES ($1, $2, 'operator')`, id, role)
	f.users[login] = campaign.Actor{UserID: id, Login: login, Name: login}
}

// lend makes a delegation of a kind: valid, or with one thing wrong.
func (f *fixture) lend(from, to, kind string, amount int64) string {
	f.t.Helper()
	id, acts, unit := uuid.NewString(), []campaign.Action{campaign.ActApprovalManager, campaign.ActApprovalFinance}, "operator"
	begins, ends, revoked := "-1 hour", "1 hour", false
	var most *int64
	switch kind {
	case "", "valid":
	case "expired":
		begins, ends = "-2 hours", "-1 second"
	case "early":
		begins = "1 minute"
	case "revoked":
		revoked = true
	case "low":
		amount--
		most = &amount
	case "enough":
		most = &amount
	case "scope":
		acts = []campaign.Action{campaign.ActApprovalCredit}
	case "unit":
		unit = "operator/north"
	default:
		f.t.Fatalf("no delegation is %q", kind)
	}
	f.exec(`INSERT INTO delegation (id, from_user, to_user, actions, unit, most, valid, reason, created_by)
		VALUES ($1, $2, $3, $4, $5, $6, tstzrange(now() + $7::interval, now() + $8::interval), 'leave', $2)`,
		id, f.users[from].UserID, f.users[to].UserID, acts, unit, most, begins, ends)
	if revoked {
		f.exec(`UPDATE delegation SET revoked_at = now(), revoked_by = from_user WHERE id = $1`, id)
	}
	return id
}

// routes of the approval table, by name.
var tableRoutes = map[string][]campaign.ApprovalLevel{
	"one":   {{Level: 1, Stage: 1, Name: "manager", Action: campaign.ActApprovalManager, DueAfter: 3600, EscalateTo: campaign.ActApprovalFinance}},
	"two":   {{Level: 1, Stage: 1, Name: "manager", Action: campaign.ActApprovalManager, DueAfter: 3600}, {Level: 2, Stage: 2, Name: "finance", Action: campaign.ActApprovalFinance, DueAfter: 3600}},
	"three": {{Level: 1, Stage: 1, Name: "manager", Action: campaign.ActApprovalManager, DueAfter: 3600}, {Level: 2, Stage: 2, Name: "finance", Action: campaign.ActApprovalFinance, DueAfter: 3600}, {Level: 3, Stage: 2, Name: "second manager", Action: campaign.ActApprovalManager, DueAfter: 3600}},
	"pair":  {{Level: 1, Stage: 1, Name: "managers", Action: campaign.ActApprovalManager, Required: 2, DueAfter: 3600}, {Level: 2, Stage: 2, Name: "finance", Action: campaign.ActApprovalFinance, DueAfter: 3600}},
	"credit": {{Level: 1, Stage: 1, Name: "manager", Action: campaign.ActApprovalManager, DueAfter: 3600},
		{Level: 2, Stage: 1, Name: "credit", Kind: campaign.LevelCredit, Action: campaign.ActApprovalCredit, DueAfter: 3600}},
}

// approvalTable has a case on each line:
//
//	route | who signed before | who signs now, and how | edit | the refusal's code, or ok
//
// A signature is login@level, login/delegator@level for a delegate, with the kind of
// delegation after a colon; a ! returns the plan.
const approvalTable = `
one    |                      | manager@1                     |          | ok
one    |                      | manager2@1                    |          | ok
one    |                      | planner@1                     |          | sod_self_approval
one    |                      | both@1                        |          | sod_self_approval
one    |                      | finance@1                     |          | forbidden
one    |                      | agent@1                       |          | forbidden
one    |                      | admin@1                       |          | forbidden
one    |                      | finance@1                     | overdue  | ok
one    |                      | credit@1                      | overdue  | forbidden
one    |                      | planner@1                     | overdue  | sod_self_approval
one    |                      | manager@1                     | stale    | version_changed
one    |                      | manager@1                     | tampered | assertion_mismatch
one    |                      | manager@1                     | disabled | forbidden
one    |                      | manager@1                     | ungranted| forbidden
one    |                      | editor@1                      |          | ok
one    |                      | editor@1                      | coauthor | sod_self_approval
one    |                      | finance/editor@1              | coauthor | sod_self_approval
one    |                      | manager@1                     | forged   | assertion_mismatch
one    |                      | manager@1                     | amount   | assertion_mismatch
one    | manager@1            | manager2@1                    |          | state_conflict
one    | manager@1            | manager@1                     |          | state_conflict
one    | manager@1!           | manager2@1                    |          | state_conflict
one    |                      | manager@2                     |          | state_conflict
one    |                      | finance/manager@1             |          | ok
one    |                      | finance/manager@1:enough      |          | ok
one    |                      | finance/manager@1:expired     |          | delegation_expired
one    |                      | finance/manager@1:early       |          | delegation_expired
one    |                      | finance/manager@1:revoked     |          | delegation_expired
one    |                      | finance/manager@1:low         |          | limit_exceeded
one    |                      | finance/manager@1:scope       |          | delegation_not_allowed
one    |                      | finance/manager@1:unit        |          | delegation_not_allowed
one    |                      | finance/agent@1               |          | delegation_not_allowed
one    |                      | credit/finance@1              |          | delegation_not_allowed
one    |                      | credit/finance@1              | overdue  | ok
one    |                      | finance/both@1                |          | sod_self_approval
one    |                      | both/manager@1                |          | sod_self_approval
one    |                      | planner/manager@1             |          | sod_self_approval
one    |                      | finance/manager@1             | lent     | delegation_not_allowed
one    |                      | admin/manager@1               |          | forbidden
one    |                      | finance/manager@1             | stolen   | delegation_not_allowed
one    |                      | finance/manager@1             | stale    | version_changed
one    |                      | finance/manager@1             | tampered | assertion_mismatch
one    |                      | finance/manager@1             | forged   | assertion_mismatch
one    |                      | finance/manager@1             | amount   | assertion_mismatch
one    |                      | finance/manager@1             | disabled | delegation_expired
one    |                      | finance/manager@1             | ungranted| delegation_not_allowed
one    |                      | finance/manager@1:expired     | overdue  | delegation_expired
one    |                      | credit/finance@1:revoked      | overdue  | delegation_expired
one    |                      | credit/finance@1:low          | overdue  | limit_exceeded
one    |                      | planner/finance@1             | overdue  | sod_self_approval
one    |                      | manager@1                     | rewritten| assertion_mismatch
one    |                      | finance/manager@1             | rewritten| assertion_mismatch
one    |                      | manager@1                     | replaced | version_changed
one    |                      | finance/manager@1             | replaced | version_changed
one    |                      | manager@1                     | withdrawn| state_conflict
one    |                      | finance/manager@1             | withdrawn| state_conflict
one    |                      | manager@1!                    | withdrawn| state_conflict
two    |                      | finance@2                     |          | state_conflict
two    |                      | manager@1                     |          | ok
two    | manager@1            | finance@2                     |          | ok
two    | manager@1            | manager2@2                    |          | forbidden
two    | manager@1            | manager@2                     |          | sod_same_actor
two    | twohats@1            | twohats@2                     |          | sod_same_actor
two    | manager@1            | twohats@2                     |          | ok
two    | manager@1            | agent/finance@2               |          | ok
two    | manager@1            | manager/finance@2             |          | sod_same_actor
two    | finance/manager@1    | finance@2                     |          | sod_same_actor
two    | finance2/twohats@1   | twohats@2                     |          | sod_same_actor
two    | finance2/twohats@1   | finance/twohats@2             |          | sod_same_actor
two    | finance2/manager@1   | finance@2                     |          | ok
two    | manager@1            | finance@2                     | stale    | version_changed
two    | manager@1            | finance@2                     | coauthor | ok
two    | manager@1, finance@2 | finance2@2                    |          | state_conflict
two    | manager@1            | finance@2                     | ungranted| ok
two    | manager@1            | finance@2                     | rewritten| assertion_mismatch
two    | manager@1            | finance@2                     | withdrawn| state_conflict
two    | manager@1            | agent/finance@2               | stale    | version_changed
two    | manager@1            | agent/finance@2               | replaced | version_changed
two    | manager@1            | agent/finance@2               | withdrawn| state_conflict
two    | manager@1            | agent/finance@2               | coauthor | ok
two    | manager@1            | agent/editor@2                | coauthor | sod_self_approval
two    | manager@1            | agent/finance@2               | lent     | delegation_not_allowed
two    | manager@1            | agent/finance@2:low           |          | limit_exceeded
two    | manager@1            | agent/finance@2:expired       |          | delegation_expired
two    | finance/manager@1    | agent/finance@2               |          | sod_same_actor
two    | manager@1!           | finance@2                     |          | state_conflict
three  | manager@1            | manager2@3                    |          | ok
three  | manager@1            | finance@2                     |          | ok
three  | manager@1            | manager@3                     |          | sod_same_actor
three  | manager@1            | twohats@2                     |          | ok
three  | manager@1, twohats@2 | twohats@3                     |          | sod_same_actor
three  | manager@1, manager2@3| manager2@3                    |          | sod_same_actor
three  | manager@1, finance@2 | manager2@3                    |          | ok
three  | manager@1, finance@2!| manager2@3                    |          | state_conflict
three  |                      | manager2@3                    |          | state_conflict
pair   |                      | manager@1                     |          | ok
pair   | manager@1            | manager@1                     |          | sod_same_actor
pair   | manager@1            | finance@2                     |          | state_conflict
pair   | manager@1            | manager2@1                    |          | ok
pair   | manager@1            | finance/manager@1             |          | sod_same_actor
pair   | finance/manager@1    | manager@1                     |          | sod_same_actor
pair   | manager@1            | finance/manager2@1            |          | ok
pair   | finance/manager@1    | finance/manager2@1            |          | sod_same_actor
pair   | manager@1            | manager2@1                    | rewritten| assertion_mismatch
pair   | manager@1, manager2@1| twohats@1                     |          | state_conflict
pair   | manager@1, manager2@1| finance@2                     |          | ok
credit |                      | credit@2                      |          | ok
credit |                      | finance@2                     |          | forbidden
credit | credit@2             | manager@1                     |          | ok
credit | credit@2             | credit@1                      |          | sod_same_actor
credit |                      | credit@2                      | amount   | assertion_mismatch
credit |                      | agent/credit@2:scope          |          | ok
credit |                      | agent/credit@2                |          | delegation_not_allowed
credit |                      | agent/credit@2:scope          | amount   | assertion_mismatch
credit | credit@2             | agent/credit@1:scope          |          | sod_same_actor
`

func TestApprovalTable(t *testing.T) {
	f := newFixture(t, nil)
	for login, role := range map[string]campaign.Role{
		"finance2": campaign.RoleFinance, "credit": campaign.RoleCredit, "twohats": campaign.RoleManager, "editor": campaign.RoleManager,
		"both": campaign.RolePlanner, "admin": campaign.RoleAdmin,
	} {
		f.person(login, role)
	}
	for login, role := range map[string]campaign.Role{
		"twohats": campaign.RoleFinance, "both": campaign.RoleManager, "planner": campaign.RoleManager, "admin": campaign.RoleManager,
	} {
		f.exec(`INSERT INTO role_grant (user_id, role, unit) VALUES ($1, $2, 'operator')`, f.users[login].UserID, role)
	}
	f.exec(`INSERT INTO org_unit (path, name) VALUES ('operator/north', 'North') ON CONFLICT DO NOTHING`)
	f.exec(`ALTER TABLE approval_round DISABLE TRIGGER USER`)
	f.exec(`ALTER TABLE sign_off DISABLE TRIGGER USER`)
	cases := 0
	for _, line := range strings.Split(strings.TrimSpace(approvalTable), "\n") {
		cell := strings.Split(line, "|")
		require.Len(t, cell, 5, line)
		for i := range cell {
			cell[i] = strings.TrimSpace(cell[i])
		}
		requester := "planner"
		if strings.Contains(cell[2], "both") {
			requester = "both" // who submits need not have written the plan
		}
		f.table(cell[0], requester)
		for _, before := range strings.Split(cell[1], ",") {
			if before = strings.TrimSpace(before); before != "" {
				require.NoError(t, f.CountSignOff(f.ctx, f.tableSignOff(before, "")), line)
			}
		}
		undo := f.edit(cell[3])
		err := f.CountSignOff(f.ctx, f.tableSignOff(cell[2], cell[3]))
		undo()
		if cell[4] == "ok" {
			require.NoError(t, err, line)
		} else {
			require.Equal(t, campaign.Code(cell[4]), code(t, err), line)
		}
		cases++
	}
	require.GreaterOrEqual(t, cases, 60)
}

// table opens a round of a table's route over a new campaign.
func (f *fixture) table(route, requester string) {
	f.t.Helper()
	f.draft(func(p *campaign.Plan) {
		p.Budget = append(p.Budget, campaign.BudgetLine{
			Line: "credit", Category: campaign.CategoryPrepaid, Driver: campaign.DriverPerOrder, Amount: 40_000,
			Credit: &campaign.CreditOffer{PoolID: creditPool, Schedule: campaign.CreditSchedule{Total: 400, First: 400}, Customers: 100},
		})
	})
	facts, err := campaign.FactsOf(&f.plan)
	require.NoError(f.t, err)
	facts.Alone = true // of the many campaigns of this test
	f.round = campaign.Round{
		CampaignID: f.id, Round: 1, Revision: 1, Digest: f.plan.Digest(), Requester: f.users[requester].UserID,
		Routed: campaign.Routed{Facts: facts, Rule: route, Route: tableRoutes[route]},
	}
	require.NoError(f.t, f.Store.OpenRound(f.ctx, f.round))
}

// tableSignOff writes the sign-off that a table's cell describes.
func (f *fixture) tableSignOff(cell, edit string) campaign.SignOffClaim {
	f.t.Helper()
	cell, kind, _ := strings.Cut(cell, ":")
	cell, returns := strings.CutSuffix(cell, "!")
	who, at, _ := strings.Cut(cell, "@")
	who, from, acts := strings.Cut(who, "/")
	level, err := strconv.Atoi(at)
	require.NoError(f.t, err)
	l := campaign.ApprovalLevel{Level: level}
	if level <= len(f.round.Route) {
		l = f.round.Route[level-1]
	}
	money := campaign.Approval{Amount: f.round.Facts.Amount, Credit: f.round.Facts.Credit}
	amount := money.AmountOf(l)
	var delegation string
	if acts {
		lender, delegate := from, who
		switch edit {
		case "stolen":
			lender = "manager2" // it is another person's delegation
		case "lent":
			delegate = "credit" // it was lent to somebody else
		}
		delegation = f.lend(lender, delegate, kind, amount)
	}
	var row store.SignOff
	claim := f.signOff(who, l, func(o *store.SignOff) {
		o.Amount, o.Party = amount, string(l.Kind)
		if edit == "amount" {
			o.Amount = amount - 1
		}
		if acts {
			id := f.users[from].UserID
			o.ActingFor, o.DelegationID = &id, &delegation
		}
		if returns {
			o.Decision, o.Words = campaign.DecisionReturn, "too dear"
		}
		if edit == "stale" {
			o.Digest = "0000"
		}
		row = *o
	})
	d := &claim.Decide
	claim.Amount = row.Amount
	d.Decision, d.Words, d.Digest = row.Decision, row.Words, row.Digest
	if acts {
		d.ActingFor, d.DelegationID = *row.ActingFor, *row.DelegationID
	}
	switch edit {
	case "tampered": // the row is changed after the API signed it
		f.exec(`UPDATE sign_off SET role = 'finance' WHERE id = $1`, row.ID)
	case "forged": // the workflow is told something else than was signed
		d.Words = "of course"
	}
	return claim
}

// edit changes what the decision rests on, and returns how to undo it.
func (f *fixture) edit(what string) (undo func()) {
	f.t.Helper()
	manager := f.users["manager"].UserID
	switch what {
	case "overdue":
		f.exec(`UPDATE approval_round SET opened_at = opened_at - interval '2 hours' WHERE campaign_id = $1`, f.id)
	case "disabled":
		f.exec(`UPDATE app_user SET disabled = true WHERE id = $1`, manager)
		return func() { f.exec(`UPDATE app_user SET disabled = false WHERE id = $1`, manager) }
	case "ungranted":
		f.exec(`DELETE FROM role_grant WHERE user_id = $1`, manager)
		return func() {
			f.exec(`INSERT INTO role_grant (user_id, role, unit) VALUES ($1, 'manager', 'operator')`, manager)
		}
	case "coauthor": // somebody else wrote the revision
		f.rewrite(`editor_id = $2`, f.users["editor"].UserID)
	case "rewritten": // the stored plan is changed, its digest is not
		f.rewrite(`plan = jsonb_set(plan, '{offer,name}', $2)`, `"Triple data"`)
	case "replaced": // by another plan
		other := f.plan
		other.Offer.Name = "Triple data"
		f.rewrite(`(plan, digest) = ($2, $3)`, other, other.Digest())
	case "withdrawn":
		f.exec(`UPDATE approval_round SET result = 'withdrawn', closed_at = now() WHERE campaign_id = $1`, f.id)
	}
	return func() {}
}

// rewrite changes the stored plan as nobody may.
func (f *fixture) rewrite(set string, args ...any) {
	f.t.Helper()
	f.exec(`ALTER TABLE plan_revision DISABLE TRIGGER USER`)
	f.exec(`UPDATE plan_revision SET `+set+` WHERE campaign_id = $1`, append([]any{f.id}, args...)...)
	f.exec(`ALTER TABLE plan_revision ENABLE TRIGGER USER`)
}

// small is a plan of 1.8 million fen, just below the first band's end.
func small(p *campaign.Plan) {
	p.Budget = []campaign.BudgetLine{
		{Line: "calls", Category: campaign.CategoryContact, Driver: campaign.DriverPerContact, Channel: campaign.ChannelCall, UnitCost: 500, Amount: 1_000_000},
		{Line: "messages", Category: campaign.CategoryContact, Driver: campaign.DriverPerContact, Channel: campaign.ChannelSMS, UnitCost: 10, Amount: 800_000},
	}
}

// ask routes the fixture's campaign for a requester.
func (f *fixture) ask(requester string) (campaign.RoutedApproval, error) {
	return f.RouteApproval(f.ctx, campaign.RouteRequest{PlanRef: f.ref(), Requester: f.users[requester].UserID})
}

func (f *fixture) open(requester string, routed campaign.RoutedApproval) error {
	return f.OpenRound(f.ctx, campaign.Round{
		CampaignID: f.id, Round: 1, Revision: 1, Digest: f.plan.Digest(), Requester: f.users[requester].UserID, Routed: routed.Routed,
	})
}

func TestSplitCampaignsTakeTheHigherBand(t *testing.T) {
	f := newFixture(t, small)
	f.person("planner2", campaign.RolePlanner)
	route := func(requester string) campaign.RoutedApproval {
		t.Helper()
		routed, err := f.ask(requester)
		require.NoError(t, err)
		return routed
	}
	first := route("planner")
	require.Len(t, first.Route, 1, "alone it is below the limit")
	require.Empty(t, first.Facts.Together)
	require.EqualValues(t, 270, first.Facts.Audience, "below 50, not opted out")
	require.NoError(t, f.open("planner", first))
	require.NoError(t, f.open("planner", first), "the same round is kept once")
	one := f.id

	// The same requester, another audience.
	f.draft(func(p *campaign.Plan) { small(p); p.Audience.Filter = "age >= 55" })
	second := route("planner")
	require.Len(t, second.Route, 2)
	require.Equal(t, []campaign.Together{{CampaignID: one, Number: 1, Amount: 1_800_000, Why: campaign.SameRequester}}, second.Facts.Together)
	require.EqualValues(t, 1_800_000, second.Facts.Amount, "it signs for its own money")
	require.Len(t, route("planner2").Route, 1, "somebody else, for other people")

	// Somebody else, for nearly the same people.
	f.draft(func(p *campaign.Plan) { small(p); p.Audience.Filter = "age >= 25 && age < 45" })
	alike := route("planner2")
	require.Len(t, alike.Route, 2)
	require.Equal(t, campaign.SameAudience, alike.Facts.Together[0].Why)
	f.draft(func(p *campaign.Plan) { small(p); p.Audience.Filter = "age >= 44" })
	require.Len(t, route("planner2").Route, 1, "less than 60 % of the smaller")

	for what, change := range map[string]string{
		"turned down":      `UPDATE approval_round SET result = 'returned', closed_at = now()`,
		"long ago":         `UPDATE approval_round SET opened_at = opened_at - interval '30 days 1 minute'`,
		"another currency": `UPDATE approval_round SET currency = 'EUR'`,
		"in a programme":   `UPDATE approval_round SET owner = requester`,
		"another tenant":   `UPDATE approval_round SET tenant = 'bank'`,
		"given up":         `UPDATE campaign SET stage = 'rejected'`,
		"no simulation":    `UPDATE campaign SET simulated = NOT simulated WHERE number = 1`,
	} {
		t.Run(what, func(t *testing.T) {
			f.exec(`ALTER TABLE approval_round DISABLE TRIGGER USER`)
			f.exec(`CREATE TABLE kept AS SELECT * FROM approval_round`)
			f.exec(change)
			routed, err := f.ask("planner")
			require.NoError(t, err)
			require.Empty(t, routed.Facts.Together)
			f.exec(`UPDATE approval_round r SET (result, closed_at, opened_at, currency, owner, tenant)
				= (k.result, k.closed_at, k.opened_at, k.currency, k.owner, k.tenant) FROM kept k WHERE k.campaign_id = r.campaign_id`)
			f.exec(`UPDATE campaign SET stage = 'draft', simulated = true`)
			f.exec(`DROP TABLE kept`)
		})
	}
	require.Len(t, route("planner").Facts.Together, 1, "as it was")
}

// Two campaigns that are routed before either is submitted would not see each other.
func TestOfTwoCampaignsAtOnceOneSeesTheOther(t *testing.T) {
	f := newFixture(t, small)
	one, err := f.ask("planner")
	require.NoError(t, err)
	first := f.id
	f.draft(small)
	two, err := f.ask("planner")
	require.NoError(t, err)
	require.Len(t, two.Route, 1)
	require.NoError(t, f.open("planner", two))
	f.id = first
	require.Equal(t, campaign.CodeRouteOutdated, code(t, f.open("planner", one)))
	again, err := f.ask("planner")
	require.NoError(t, err)
	require.Len(t, again.Route, 2)
	require.NoError(t, f.open("planner", again))
}

func TestFrozenTargetsAreComparedAsTheyAre(t *testing.T) {
	f := newFixture(t, func(p *campaign.Plan) { small(p); p.Audience.Filter = "age < 30" })
	f.person("planner2", campaign.RolePlanner)
	f.sign()
	_, err := f.SelectTargets(f.ctx, campaign.SelectionInput{CampaignID: f.id, Revision: 1})
	require.NoError(t, err)
	// Who they are now does not matter, but who was frozen does.
	f.exec(`UPDATE customer SET age = 59 WHERE id IN (SELECT customer_id FROM campaign_target)`)
	f.draft(func(p *campaign.Plan) { small(p); p.Audience.Filter = "age == 59" })
	routed, err := f.ask("planner2")
	require.NoError(t, err)
	require.Len(t, routed.Facts.Together, 1)
	f.draft(func(p *campaign.Plan) { small(p); p.Audience.Filter = "age < 30 || age == 45" })
	routed, err = f.ask("planner2")
	require.NoError(t, err)
	require.Empty(t, routed.Facts.Together)
}

// Whoever reaches the highest band with many small campaigns is refused, not waved
// through; a simulated one goes on by its own amount.
func TestWhatNobodyCouldSignTogetherIsRefused(t *testing.T) {
	f := newFixture(t, small)
	f.exec(`UPDATE app_user SET disabled = true WHERE login = 'finance'`)
	for i, simulated := range []bool{false, true} {
		t.Run(fmt.Sprintf("simulated %v", simulated), func(t *testing.T) {
			change := func(p *campaign.Plan) { small(p); p.Simulated = simulated }
			f.draft(change)
			routed, err := f.ask("planner")
			require.NoError(t, err)
			require.NoError(t, f.open("planner", routed))
			f.draft(change)
			routed, err = f.ask("planner")
			if !simulated {
				require.NoError(t, err, "an amendment that needs no signature needs no route")
				require.Equal(t, campaign.CodeAggregateLimit, campaign.CodeOf(routed.NoRoute))
				require.Empty(t, routed.Route)
				return
			}
			require.NoError(t, err)
			require.Nil(t, routed.NoRoute)
			require.Len(t, routed.Route, 1)
			require.True(t, routed.Facts.Alone)
			require.Len(t, routed.Facts.Together, 1, "it is told all the same")
			require.NoError(t, f.open("planner", routed))
			require.Positive(t, i)
		})
	}
}

func TestARoundIsClosedOnceAndChangesInNothingElse(t *testing.T) {
	f := newFixture(t, nil)
	round := f.openRound()
	project := func(version int64, result campaign.ApprovalResult) {
		t.Helper()
		require.NoError(t, f.Project(f.ctx, campaign.Projection{CampaignID: f.id, Version: version, Event: "test", Status: campaign.Status{
			Stage: campaign.StageApproval, Approval: &campaign.Approval{Round: round.Round, Result: result},
		}}))
	}
	project(1, "")
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM approval_round WHERE closed_at IS NULL`))
	project(2, campaign.ApprovalReturned)
	project(3, campaign.ApprovalApproved)
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM approval_round WHERE result = 'returned' AND closed_at >= opened_at`))
	for _, change := range []string{
		`UPDATE approval_round SET result = 'approved'`, `UPDATE approval_round SET amount = 1`, `UPDATE approval_round SET route = '[]'`,
		`DELETE FROM approval_round`, `TRUNCATE approval_round`,
	} {
		_, err := f.Store.Pool().Exec(f.ctx, change)
		require.Error(t, err, change)
	}
	stale := round
	stale.Round, stale.Digest = 2, "0000"
	require.Equal(t, campaign.CodeVersionChanged, code(t, f.OpenRound(f.ctx, stale)))
}
