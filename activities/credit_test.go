package activities_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/activities"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/ledger"
	"github.com/musterhq/muster/store"
)

const (
	creditPool = "0190a000-0000-7000-8000-0000000000aa"
	month      = 30 * 24 * time.Hour
)

// Ten times ¥1 to each of five customers: once at once and then by the month.
func tenTimes() campaign.CreditOffer {
	return campaign.CreditOffer{
		PoolID: creditPool, Schedule: campaign.CreditSchedule{Total: 1000, First: 100, Months: 9}, Customers: 5, MonthSeconds: int64(month / time.Second),
	}
}

// byUse is ¥1 at once and then 35 % of each month's use, where it is ¥49 or more.
func byUse() campaign.CreditOffer {
	o := tenTimes()
	o.Schedule = campaign.CreditSchedule{Total: 10_000, First: 100, Months: 35, ShareOfUse: 3500, MinimumSpend: 4_900}
	return o
}

// newCredit is a fixture whose campaign gives credit by offer, from a pool with so much.
func newCredit(t *testing.T, offer campaign.CreditOffer, capacity int64) *fixture {
	t.Helper()
	f := newFixture(t, func(p *campaign.Plan) {
		most, err := offer.Most()
		require.NoError(t, err)
		p.Budget = append(p.Budget, campaign.BudgetLine{
			Line: "credit", Category: campaign.CategoryPrepaid, Driver: campaign.DriverPerOrder, Amount: most, Credit: &offer,
		})
	})
	credit := campaign.Actor{UserID: uuid.NewString(), Login: "credit", Name: "credit"}
	f.users["credit"] = credit
	f.exec(`INSERT INTO app_user (id, login, name, password_hash) VALUES ($1, 'credit', 'credit', '-')`, credit.UserID)
	f.exec(`INSERT INTO role_grant (user_id, role, unit) VALUES ($1, 'credit', 'operator')`, credit.UserID)
	require.NoError(t, f.Policies.Reload(f.ctx))
	p := store.CreditPool{ID: creditPool, Unit: "operator", Name: "Phones", Currency: "CNY"}
	require.NoError(t, f.Store.OpenCreditPool(f.ctx, p, f.users["finance"], func(ctx context.Context, tx pgx.Tx) error {
		return f.Ledger.In(tx).OpenPool(ctx, "operator", p.ID, p.Currency)
	}))
	_, err := f.Ledger.Allocate(f.ctx, "capacity", ledger.Account{Kind: ledger.KindPool, Owner: p.ID}, campaign.Money{Minor: capacity, Currency: "CNY"})
	require.NoError(t, err)
	return f
}

// orders has n more customers of an arm order.
func (f *fixture) orders(arm campaign.Arm, n int) {
	f.t.Helper()
	require.EqualValues(f.t, n, f.exec(`INSERT INTO outcome (id, campaign_id, customer_id, kind, at, source, source_id, simulated)
		SELECT gen_random_uuid(), t.campaign_id, t.customer_id, 'ordered', now(), 'shop', t.customer_id::text, true FROM campaign_target t
		WHERE t.campaign_id = $1 AND t.arm = $2 AND NOT EXISTS (SELECT FROM outcome o WHERE o.campaign_id = $1 AND o.customer_id = t.customer_id)
		ORDER BY t.customer_id LIMIT $3`, f.id, arm, n))
}

// pass lets time go by for everybody's credit.
func (f *fixture) pass(d time.Duration) {
	f.t.Helper()
	f.exec(`UPDATE credit_grant SET anchor = anchor - $1::interval, due_at = due_at - $1::interval, decided_by = decided_by - $1::interval`, d)
	f.exec(`UPDATE credit_instalment SET due_at = due_at - $1::interval, expires_at = expires_at - $1::interval`, d)
}

// release releases what is due and checks that everything adds up.
func (f *fixture) release() campaign.CreditReleased {
	f.t.Helper()
	out, err := f.ReleaseCredit(f.ctx, campaign.CreditInput{CampaignID: f.id})
	require.NoError(f.t, err)
	f.sound()
	return out
}

func (f *fixture) figures() campaign.CreditFigures {
	f.t.Helper()
	all, err := f.Store.CreditFigures(f.ctx, f.id)
	require.NoError(f.t, err)
	require.Len(f.t, all, 1)
	return all[0]
}

func (f *fixture) grants() []store.CreditGrant {
	f.t.Helper()
	all, err := f.Store.CreditGrants(f.ctx, f.id, store.CreditGrantKey{}, 1000)
	require.NoError(f.t, err)
	return all
}

// moveCredit is the real ledger.
func (f *fixture) moveCredit(ctx context.Context, tx pgx.Tx, step campaign.CreditStep) (int64, error) {
	e, err := f.Ledger.In(tx).MoveCredit(ctx, step)
	return e.Journal, err
}

func (f *fixture) use(batch ...store.CreditUse) store.Landed {
	f.t.Helper()
	landed, err := f.Store.RecordCreditUses(f.ctx, []campaign.OrgUnit{"operator"}, f.users["operator"], "billing", batch, f.moveCredit)
	require.NoError(f.t, err)
	f.sound()
	return landed
}

func (f *fixture) enters(s campaign.Stage) {
	f.t.Helper()
	version := f.count(`SELECT status_version + 1 FROM campaign WHERE id = $1`, f.id)
	require.NoError(f.t, f.Project(f.ctx, campaign.Projection{CampaignID: f.id, Version: version, Event: "stage." + string(s), Status: campaign.Status{
		Stage: s, Hold: campaign.HoldNone, Revision: 1, Waves: f.waves(),
	}}))
}

func TestCreditIsPromisedOnceAndGrantedBySchedule(t *testing.T) {
	f := newCredit(t, tenTimes(), 6000)
	f.run()
	require.EqualValues(t, 5000, f.figures().Reserved, "held in the pool from the approval on")
	none := f.release()
	require.Zero(t, none.Customers)
	require.EqualValues(t, 3600, none.Wait, "customers may come at any moment")

	f.orders(campaign.ArmTreated, 3)
	f.orders(campaign.ArmControl, 2)
	require.Equal(t, campaign.CreditReleased{Customers: 3, Instalments: 3, Granted: 300, Wait: 3600}, f.release())
	require.Equal(t, campaign.CreditReleased{Wait: 3600}, f.release(), "nothing is granted twice")
	// Another outcome of the same customers changes nothing.
	f.exec(`INSERT INTO outcome (id, campaign_id, customer_id, kind, at, source, source_id, simulated)
		SELECT gen_random_uuid(), campaign_id, customer_id, kind, at, 'other', source_id, true FROM outcome`)
	require.Zero(t, f.release().Customers)

	f.orders(campaign.ArmTreated, 4)
	out := f.release()
	require.EqualValues(t, 2, out.Customers, "no more than were applied for")
	require.EqualValues(t, 200, out.Granted)
	f.pass(month)
	require.EqualValues(t, 500, f.release().Granted)
	f.pass(3 * month)
	out = f.release()
	require.EqualValues(t, 15, out.Instalments, "what fell due meanwhile, month by month")
	require.EqualValues(t, 1500, out.Granted)
	got := f.figures()
	require.Equal(t, campaign.CreditFigures{
		Line: "credit", PoolID: creditPool, Currency: "CNY", Customers: 5, Most: 5, Reserved: 2500, Outstanding: 2500,
		CreditAmounts: campaign.CreditAmounts{Promised: 2500, Granted: 2500},
	}, got)
	f.pass(10 * month)
	require.EqualValues(t, 2500, f.release().Granted)
	for _, g := range f.grants() {
		require.Equal(t, campaign.CreditAmounts{Granted: 1000}, g.CreditAmounts)
		require.Zero(t, g.NextNo)
	}
	require.EqualValues(t, 50, f.count(`SELECT count(*) FROM credit_instalment`))
	pool, err := f.Ledger.Pool(f.ctx, creditPool)
	require.NoError(t, err)
	require.Equal(t, ledger.PoolBalance{Currency: "CNY", Capacity: 6000, Given: 5000, Available: 1000, Credit: ledger.Credit{Outstanding: 5000}}, pool)
}

// The first customers get it: by the time of their outcome, not of its arrival.
func TestCreditGoesToTheFirst(t *testing.T) {
	f := newCredit(t, tenTimes(), 5000)
	f.run()
	f.orders(campaign.ArmTreated, 20)
	f.exec(`UPDATE outcome SET at = now() + interval '1 minute'`)
	f.exec(`UPDATE outcome SET at = now() - interval '300 days' WHERE customer_id IN (SELECT customer_id FROM outcome ORDER BY customer_id DESC LIMIT 5)`)
	out := f.release()
	require.EqualValues(t, 5, out.Customers)
	require.EqualValues(t, 5, out.Instalments, "an outcome of before the selection makes no month due")
	require.EqualValues(t, 5, f.count(`SELECT count(*) FROM credit_grant g JOIN outcome o USING (customer_id) WHERE o.at < now() - interval '1 day'`))
}

func TestTooSmallAPoolHoldsNothing(t *testing.T) {
	f := newCredit(t, tenTimes(), 4999)
	f.sign()
	err := f.Reserve(f.ctx, f.ref())
	require.Equal(t, campaign.CodeBudgetInsufficient, code(t, err))
	require.ErrorContains(t, err, "4999")
	balances, err := f.Ledger.Balances(f.ctx, f.id)
	require.NoError(t, err)
	require.Empty(t, balances, "nothing half done")
	_, err = f.Ledger.Allocate(f.ctx, "more", ledger.Account{Kind: ledger.KindPool, Owner: creditPool}, campaign.Money{Minor: 1, Currency: "CNY"})
	require.NoError(t, err)
	require.NoError(t, f.Reserve(f.ctx, f.ref()))
	require.EqualValues(t, 5000, f.figures().Reserved)
	f.sound()
}

// Whoever releases while somebody else does finds nothing left to do.
func TestReleasesAtTheSameTime(t *testing.T) {
	o := tenTimes()
	o.Customers = 60
	f := newCredit(t, o, 60_000)
	f.run()
	f.orders(campaign.ArmTreated, 60)
	for range 3 {
		var all sync.WaitGroup
		var mu sync.Mutex
		var sum campaign.CreditReleased
		for range 6 {
			all.Go(func() {
				out, err := f.ReleaseCredit(f.ctx, campaign.CreditInput{CampaignID: f.id})
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Error(err)
				}
				sum.Instalments, sum.Granted = sum.Instalments+out.Instalments, sum.Granted+out.Granted
			})
		}
		all.Wait()
		require.EqualValues(t, 60, sum.Instalments)
		require.EqualValues(t, 6000, sum.Granted)
		f.sound()
		f.pass(month)
	}
	require.EqualValues(t, 60, f.figures().Customers)
}

var errCrash = errors.New("the process died")

// Rows and ledger count together, at whatever moment the process dies.
func TestACrashLeavesRowsAndLedgerAgreed(t *testing.T) {
	f := newCredit(t, tenTimes(), 5000)
	f.run()
	f.orders(campaign.ArmTreated, 5)
	lines := store.CreditLines(f.id, &f.plan)
	require.Len(t, lines, 1)
	_, err := f.Store.PromiseCredit(f.ctx, lines[0], false)
	require.NoError(t, err)
	for _, crash := range []store.CreditLedger{
		func(context.Context, pgx.Tx, campaign.CreditStep) (int64, error) { return 0, errCrash }, // before the ledger
		func(ctx context.Context, tx pgx.Tx, step campaign.CreditStep) (int64, error) { // after it
			_, err := f.moveCredit(ctx, tx, step)
			require.NoError(t, err)
			return 0, errCrash
		},
		func(ctx context.Context, tx pgx.Tx, step campaign.CreditStep) (int64, error) { // the connection is lost
			journal, err := f.moveCredit(ctx, tx, step)
			require.NoError(t, err)
			require.NoError(t, tx.Conn().Close(ctx))
			return journal, nil
		},
	} {
		_, _, err := f.Store.GrantCredit(f.ctx, lines[0], 100, crash)
		require.Error(t, err)
		f.sound()
		require.Zero(t, f.figures().Granted)
	}
	require.EqualValues(t, 500, f.release().Granted)
	require.Zero(t, f.release().Granted)
	for _, crash := range []bool{true, false} {
		_, err := f.Store.RecordCreditUses(f.ctx, []campaign.OrgUnit{"operator"}, f.users["operator"], "billing",
			[]store.CreditUse{{Reference: "1", GrantID: f.grants()[0].ID, Spent: 30}},
			func(ctx context.Context, tx pgx.Tx, step campaign.CreditStep) (int64, error) {
				journal, err := f.moveCredit(ctx, tx, step)
				if crash {
					err = errCrash
				}
				return journal, err
			})
		require.Equal(t, crash, err != nil)
		f.sound()
	}
	require.EqualValues(t, 30, f.figures().Used)
}

func TestCreditThatFollowsUse(t *testing.T) {
	f := newCredit(t, byUse(), 50_000)
	f.run()
	f.orders(campaign.ArmTreated, 3)
	require.EqualValues(t, 300, f.release().Granted)
	f.pass(month)
	out := f.release()
	require.Zero(t, out.Instalments, "the month's use is waited for")
	require.EqualValues(t, 3600, out.Wait)
	grants := f.grants()
	require.Equal(t, store.Landed{Accepted: 2, Faults: []campaign.FieldError{}}, f.use(
		store.CreditUse{Reference: "1", GrantID: grants[0].ID, Month: 1, Use: 10_000},
		store.CreditUse{Reference: "2", GrantID: grants[1].ID, Month: 1, Use: 4_899}))
	out = f.release()
	require.EqualValues(t, 2, out.Instalments)
	require.EqualValues(t, 3500, out.Granted, "35 % of 100.00, and nothing below the minimum")
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM credit_instalment WHERE no = 2 AND amount = 0 AND last_use = 4899 AND journal IS NULL`))
	// Nobody reports the third customer's month: it is waited for until the next one is due.
	f.pass(month)
	out = f.release()
	require.EqualValues(t, 1, out.Instalments)
	require.Zero(t, out.Granted)
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM credit_instalment WHERE grant_id = $1 AND no = 2 AND amount = 0 AND last_use = 0`, grants[2].ID))
	late := f.use(store.CreditUse{Reference: "3", GrantID: grants[2].ID, Month: 1, Use: 10_000})
	require.Equal(t, campaign.CodeStateConflict, late.Faults[0].Code)
	// A use so large that the total is reached ends the promise.
	require.Equal(t, 1, f.use(store.CreditUse{Reference: "4", GrantID: grants[0].ID, Month: 2, Use: 1_000_000}).Accepted)
	require.EqualValues(t, 10_000-100-3500, f.release().Granted)
	require.Zero(t, f.grants()[0].NextNo)
	require.Zero(t, f.grants()[0].Promised)
}

func TestUsesAreRecordedOnceAndOneByOne(t *testing.T) {
	f := newCredit(t, byUse(), 50_000)
	f.run()
	f.orders(campaign.ArmTreated, 3)
	f.release()
	g := f.grants()
	external := func(customer string) (id string) {
		require.NoError(t, f.Store.Pool().QueryRow(f.ctx, `SELECT external_id FROM customer WHERE id = $1`, customer).Scan(&id))
		return id
	}
	batch := []store.CreditUse{
		{Reference: "a", GrantID: g[0].ID, Spent: 60},
		{Reference: "b", CampaignID: f.id, Customer: external(g[1].CustomerID), Spent: 100},
		{Reference: "c", GrantID: g[0].ID, Spent: 41}, // more than is left
		{Reference: "d", GrantID: g[0].ID, Spent: 40}, // all that is left
		{Reference: "e", GrantID: uuid.NewString(), Spent: 1},
		{Reference: "f", CampaignID: f.id, Customer: "nobody", Spent: 1},
		{Reference: "g", GrantID: g[2].ID},                       // says nothing
		{Reference: "h", GrantID: g[2].ID, Month: 36, Use: 1},    // no instalment follows
		{Reference: "i", GrantID: g[2].ID, Month: 1, Use: 5_000}, // good
		{Reference: "j", GrantID: g[2].ID, Month: 1, Use: 5_000}, // the month again
		{Reference: "a", GrantID: g[0].ID, Spent: 60},            // the row again
		{Reference: "a", GrantID: g[0].ID, Spent: 61},            // the reference for something else
	}
	want := map[string]campaign.Code{
		"items[2].spent": campaign.CodeBudgetInsufficient, "items[4].grant_id": campaign.CodeNotFound, "items[5].customer": campaign.CodeNotFound,
		"items[6].spent": campaign.CodeInvalidParameter, "items[7].month": campaign.CodeInvalidParameter,
		"items[9].month": campaign.CodeAlreadyExists, "items[11].reference": campaign.CodeKeyReused,
	}
	for turn, accepted := range []int{4, 0} {
		landed := f.use(batch...)
		require.Equal(t, accepted, landed.Accepted)
		require.Equal(t, []int{1, 5}[turn], landed.Duplicate)
		faults := map[string]campaign.Code{}
		for _, fault := range landed.Faults {
			faults[fault.Field] = fault.Code
		}
		require.Equal(t, want, faults)
		require.EqualValues(t, 200, f.figures().Used)
	}
	// Elsewhere nobody knows of them.
	landed, err := f.Store.RecordCreditUses(f.ctx, []campaign.OrgUnit{"operator/north"}, f.users["operator"], "billing", batch[:1], f.moveCredit)
	require.NoError(t, err)
	require.Equal(t, campaign.CodeNotFound, landed.Faults[0].Code)

	// Another source has references of its own, and the same batch at the same time lands once.
	var all sync.WaitGroup
	var mu sync.Mutex
	accepted := 0
	for range 5 {
		all.Go(func() {
			landed, err := f.Store.RecordCreditUses(f.ctx, []campaign.OrgUnit{"operator"}, f.users["operator"], "till",
				[]store.CreditUse{{Reference: "a", GrantID: g[2].ID, Spent: 10}}, f.moveCredit)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			accepted += landed.Accepted
		})
	}
	all.Wait()
	require.Equal(t, 1, accepted)
	require.EqualValues(t, 210, f.figures().Used)
	f.sound()
}

// What is used is taken from the oldest instalments; what is left of them expires.
func TestCreditExpires(t *testing.T) {
	o := tenTimes()
	o.ValidDays = 45
	f := newCredit(t, o, 5000)
	f.run()
	f.orders(campaign.ArmTreated, 2)
	f.release()
	f.pass(month)
	f.release() // 2 × 200 granted
	g := f.grants()
	require.Equal(t, 1, f.use(store.CreditUse{Reference: "1", GrantID: g[0].ID, Spent: 130}).Accepted)
	f.pass(16 * 24 * time.Hour)
	out := f.release()
	require.EqualValues(t, 100, out.Expired, "the first instalment of the one who used nothing")
	require.Zero(t, f.release().Expired)
	require.Equal(t, campaign.CreditAmounts{Promised: 800, Granted: 200, Used: 130}, f.grants()[0].CreditAmounts)
	require.Equal(t, campaign.CreditAmounts{Promised: 800, Granted: 200, Expired: 100}, f.grants()[1].CreditAmounts)
	f.pass(14 * 24 * time.Hour)
	require.EqualValues(t, 200, f.release().Granted)
	f.pass(16 * 24 * time.Hour)
	require.EqualValues(t, 70+100, f.release().Expired)
	over := f.use(store.CreditUse{Reference: "2", GrantID: g[0].ID, Spent: 101})
	require.Equal(t, campaign.CodeBudgetInsufficient, over.Faults[0].Code, "what expired cannot be spent")
	require.Equal(t, campaign.CreditGranted, f.grants()[0].State())
}

func TestCreditIsClawedBack(t *testing.T) {
	f := newCredit(t, tenTimes(), 5000)
	f.run()
	f.orders(campaign.ArmTreated, 2)
	f.release()
	g := f.grants()
	f.use(store.CreditUse{Reference: "1", GrantID: g[0].ID, Spent: 30})
	got, err := f.Store.ClawBackCredit(f.ctx, f.id, g[0].ID, "left after a month", f.users["finance"], f.moveCredit)
	require.NoError(t, err)
	f.sound()
	require.Equal(t, campaign.CreditAmounts{Granted: 100, Used: 30, ClawedBack: 70}, got.CreditAmounts)
	require.Equal(t, campaign.CreditClawedBack, got.State())
	require.EqualValues(t, 30, got.Owed())
	require.Equal(t, got.CreditAmounts, f.grants()[0].CreditAmounts)
	_, err = f.Store.ClawBackCredit(f.ctx, f.id, g[0].ID, "again", f.users["finance"], f.moveCredit)
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(err))
	_, err = f.Store.ClawBackCredit(f.ctx, f.id, uuid.NewString(), "nobody", f.users["finance"], f.moveCredit)
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(err))
	_, err = f.Store.ClawBackCredit(f.ctx, uuid.NewString(), g[1].ID, "elsewhere", f.users["finance"], f.moveCredit)
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(err))
	f.pass(month)
	require.EqualValues(t, 100, f.release().Granted, "to the other one alone")
	require.EqualValues(t, 30, f.figures().Owed)
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM audit_event WHERE event = 'credit.contract_broken' AND actor_id IS NOT NULL AND data->>'words' = 'left after a month'`))
}

// Instalments go on after the campaign is settled and closed; what nobody is promised goes
// back to the pool at once, and in the end everything that was not granted.
func TestCreditOutlivesTheCampaign(t *testing.T) {
	o := byUse()
	o.ValidDays = 60
	f := newCredit(t, o, 50_000)
	f.run()
	f.orders(campaign.ArmTreated, 2)
	f.release()
	f.orders(campaign.ArmTreated, 1) // just before the window closes
	for range 2 {
		require.NoError(t, f.Settle(f.ctx, f.ref()))
		f.sound()
	}
	got := f.figures()
	require.EqualValues(t, 3, got.Customers, "whoever ordered in time")
	require.EqualValues(t, 300, got.Granted)
	require.EqualValues(t, 3*9_900, got.Reserved)
	require.EqualValues(t, 3*9_900, got.Promised)
	available := func() int64 {
		pool, err := f.Ledger.Pool(f.ctx, creditPool)
		require.NoError(t, err)
		return pool.Available
	}
	require.EqualValues(t, 20_000, available(), "of the two customers who did not come")
	require.NoError(t, f.Evaluate(f.ctx, campaign.EvaluationInput{CampaignID: f.id, Revision: 1}))
	stored, err := f.Store.Evaluation(f.ctx, f.id)
	require.NoError(t, err)
	var report activities.Report
	require.NoError(t, json.Unmarshal(stored.Report, &report))
	require.Equal(t, []campaign.CreditFigures{got}, report.Credit)
	require.NotContains(t, report.Budget.Exceeded, "credit")
	f.enters(campaign.StageClosed)

	f.orders(campaign.ArmTreated, 1)
	require.Zero(t, f.release().Customers, "too late")
	f.use(store.CreditUse{Reference: "u", GrantID: f.grants()[0].ID, Month: 1, Use: 10_000, Spent: 50})
	f.pass(month)
	out := f.release()
	require.EqualValues(t, 3500, out.Granted)
	require.NotZero(t, out.Wait)
	// Nobody reports anything any more.
	for turn := range 40 {
		f.pass(month)
		if out = f.release(); out.Wait == 0 {
			require.Greater(t, turn, 30)
			break
		}
	}
	require.Zero(t, out.Wait, "the release ends")
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM credit_line WHERE ended_at IS NOT NULL`))
	got = f.figures()
	require.Zero(t, got.Reserved)
	require.Zero(t, got.Outstanding)
	require.EqualValues(t, 300+3500-50, got.Expired)
	require.EqualValues(t, 50_000-300-3500, available())
	for range 2 {
		require.Equal(t, campaign.CreditReleased{}, f.release())
	}
}

func TestCreditOfACampaignThatNeverRan(t *testing.T) {
	f := newCredit(t, tenTimes(), 5000)
	f.approve()
	require.NoError(t, f.Settle(f.ctx, f.ref()))
	f.sound()
	got := f.figures()
	require.Zero(t, got.Reserved)
	require.Zero(t, got.Customers)
	pool, err := f.Ledger.Pool(f.ctx, creditPool)
	require.NoError(t, err)
	require.EqualValues(t, 5000, pool.Available)
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM credit_line WHERE ended_at IS NOT NULL`))
}

// A refusal is told once a day, and nothing is granted beside the ledger.
func TestCreditThatCannotBeGrantedIsTold(t *testing.T) {
	f := newCredit(t, tenTimes(), 5000)
	f.run()
	f.orders(campaign.ArmTreated, 1)
	_, err := f.Ledger.Close(f.ctx, "mistake", f.id, "credit", "CNY")
	require.NoError(t, err)
	for range 2 {
		_, err := f.ReleaseCredit(f.ctx, campaign.CreditInput{CampaignID: f.id})
		require.Equal(t, campaign.CodeHoldClosed, code(t, err))
	}
	require.Zero(t, f.count(`SELECT count(*) FROM credit_instalment`))
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM audit_event WHERE event = 'credit.stuck'`))
}

// A line that is stuck keeps nobody from the credit of another.
func TestOneLineIsStuckAlone(t *testing.T) {
	f := newCredit(t, tenTimes(), 10_000)
	f.draft(func(p *campaign.Plan) {
		for _, line := range []string{"first", "second"} {
			offer := tenTimes()
			most, err := offer.Most()
			require.NoError(t, err)
			p.Budget = append(p.Budget, campaign.BudgetLine{Line: line, Category: campaign.CategoryPrepaid, Driver: campaign.DriverPerOrder, Amount: most, Credit: &offer})
		}
	})
	f.run()
	f.orders(campaign.ArmTreated, 1)
	_, err := f.Ledger.Close(f.ctx, "mistake", f.id, "first", "CNY")
	require.NoError(t, err)
	_, err = f.ReleaseCredit(f.ctx, campaign.CreditInput{CampaignID: f.id})
	require.Equal(t, campaign.CodeHoldClosed, code(t, err))
	require.Zero(t, f.count(`SELECT count(*) FROM credit_instalment i JOIN credit_grant g ON g.id = i.grant_id WHERE g.line = 'first'`))
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM credit_instalment i JOIN credit_grant g ON g.id = i.grant_id WHERE g.line = 'second'`))
}

// Two batches may want the ledger's accounts in another order: the one that loses records again.
func TestUsesOutliveADeadlock(t *testing.T) {
	f := newCredit(t, tenTimes(), 5000)
	f.run()
	f.orders(campaign.ArmTreated, 1)
	f.release()
	g := f.grants()[0]
	tries := 0
	landed, err := f.Store.RecordCreditUses(f.ctx, []campaign.OrgUnit{"operator"}, f.users["operator"], "billing", []store.CreditUse{{Reference: "a", GrantID: g.ID, Spent: 40}},
		func(ctx context.Context, tx pgx.Tx, step campaign.CreditStep) (int64, error) {
			if tries++; tries == 1 {
				_, err := tx.Exec(ctx, `DO $$ BEGIN RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01'; END $$`)
				return 0, err
			}
			return f.moveCredit(ctx, tx, step)
		})
	require.NoError(t, err)
	require.Equal(t, 1, landed.Accepted)
	require.Equal(t, 2, tries)
	require.EqualValues(t, 40, f.count(`SELECT used FROM credit_grant`))
	f.sound()
}

func TestPoolsOfCredit(t *testing.T) {
	f := newCredit(t, tenTimes(), 5000)
	by := f.users["finance"]
	account := func(context.Context, pgx.Tx) error { return nil }
	for name, p := range map[string]store.CreditPool{
		"no name":  {ID: uuid.NewString(), Unit: "operator", Name: " ", Currency: "CNY"},
		"no money": {ID: uuid.NewString(), Unit: "operator", Name: "x", Currency: "XXQ"},
		"no unit":  {ID: uuid.NewString(), Unit: "operator/nowhere", Name: "x", Currency: "CNY"},
	} {
		require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(f.Store.OpenCreditPool(f.ctx, p, by, account)), name)
	}
	again := store.CreditPool{ID: uuid.NewString(), Unit: "operator", Name: "Phones", Currency: "CNY"}
	require.Equal(t, campaign.CodeAlreadyExists, campaign.CodeOf(f.Store.OpenCreditPool(f.ctx, again, by, account)))
	failed := store.CreditPool{ID: uuid.NewString(), Unit: "operator", Name: "Tablets", Currency: "CNY"}
	require.ErrorIs(t, f.Store.OpenCreditPool(f.ctx, failed, by, func(context.Context, pgx.Tx) error { return errCrash }), errCrash)
	_, err := f.Store.CreditPool(f.ctx, failed.ID)
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(err))

	plan := f.plan
	check := func(change func(*campaign.Plan)) (codes []campaign.Code) {
		p := plan
		p.Budget = append([]campaign.BudgetLine(nil), plan.Budget...)
		offer := *p.Budget[len(p.Budget)-1].Credit
		p.Budget[len(p.Budget)-1].Credit = &offer
		change(&p)
		faults, err := f.Store.CreditFaults(f.ctx, p)
		require.NoError(t, err)
		for _, fault := range faults {
			require.Equal(t, fmt.Sprintf("budget[%d].credit.pool_id", len(p.Budget)-1), fault.Field)
			codes = append(codes, fault.Code)
		}
		return codes
	}
	last := len(plan.Budget) - 1
	require.Empty(t, check(func(*campaign.Plan) {}))
	require.Empty(t, check(func(p *campaign.Plan) { p.Unit = "operator/north" }))
	require.Equal(t, []campaign.Code{campaign.CodeCreditPoolNotFound}, check(func(p *campaign.Plan) { p.Budget[last].Credit.PoolID = uuid.NewString() }))
	require.Equal(t, []campaign.Code{campaign.CodeCreditPoolNotFound}, check(func(p *campaign.Plan) { p.Unit = "elsewhere" }))
	require.Equal(t, []campaign.Code{campaign.CodeCurrencyMismatch}, check(func(p *campaign.Plan) { p.Currency = "EUR" }))
}
