package ledger

import (
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3" //nolint:depguard // stops at an older schema, which the store never does
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/pgtest"
	"github.com/musterhq/muster/store"
)

// firstShape is the last migration before accounts became a tree.
const firstShape = 2

// Money that the first shape of the ledger knew is where it was, and goes on from there.
func TestMoneyIsCarriedOver(t *testing.T) {
	ctx := t.Context()
	url := pgtest.NewDatabase(t)
	pool, err := pgxpool.New(ctx, url)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	db := stdlib.OpenDBFromPool(pool)
	provider, err := goose.NewProvider(goose.DialectPostgres, db, os.DirFS("../store/migrations"))
	require.NoError(t, err)
	_, err = provider.UpTo(ctx, firstShape)
	require.NoError(t, err)
	require.NoError(t, db.Close())
	l := New(pool)
	id, idle, foreign := newCampaign(t, l, "operator/north"), newCampaign(t, l, "operator/south"), newCampaign(t, l, "rival")
	for _, sql := range []string{
		`INSERT INTO plan_revision (campaign_id, revision, digest, plan, editor_id)
		 SELECT id, n, '', jsonb_build_object('budget', jsonb_build_array(
		    jsonb_build_object('line', 'calls', 'category', CASE n WHEN 1 THEN 'media' ELSE 'contact_cost' END),
		    jsonb_build_object('line', 'gift', 'category', 'prepaid_credit'), jsonb_build_object('line', 'staff', 'category', 'staff_incentive'))), planner_id
		 FROM campaign, generate_series(1, 2) n`,
		`SELECT ledger_reserve_ceilings($1, 'CNY', '{calls,gift,staff,unknown}', '{1000,500,300,200}')`,
		`SELECT ledger_capture('c1', $1, 'calls', 200, 'CNY')`,
		`SELECT ledger_capture('c2', $1, 'gift', 90, 'CNY')`,
		`SELECT ledger_capture('c3', $1, 'staff', 10, 'CNY')`,
		`SELECT ledger_capture('c4', $1, 'unknown', 20, 'CNY')`,
		`SELECT ledger_release('l', $1, 'calls', 100, 'CNY')`,
		`SELECT ledger_release('x', $1, 'staff', NULL, 'CNY')`,
		`SELECT ledger_reserve('r', $1, 'staff', 50, 'CNY')`,
		`SELECT ledger_release('x2', $1, 'unknown', NULL, 'CNY')`,
		`SELECT ledger_allocate('a', $2, 'calls', 77, 'CNY')`,
		`SELECT ledger_allocate('a', $3, 'calls', 5, 'EUR')`,
	} {
		_, err := pool.Exec(ctx, strings.NewReplacer("$1", "'"+id+"'", "$2", "'"+idle+"'", "$3", "'"+foreign+"'").Replace(sql))
		require.NoError(t, err, sql)
	}
	var journals int
	require.NoError(t, pool.QueryRow(ctx, `SELECT count(*) FROM ledger_journal`).Scan(&journals))

	st, err := store.Open(ctx, url, store.AsOwner())
	require.NoError(t, err)
	t.Cleanup(st.Close)
	for range 2 {
		_, err = st.Migrate(ctx)
		require.NoError(t, err)
	}
	requireSound(t, l)
	var kept int
	require.NoError(t, pool.QueryRow(ctx, `SELECT count(*) FROM ledger_journal WHERE from_id IS NOT NULL`).Scan(&kept))
	require.Equal(t, journals, kept)
	balances, err := l.Balances(ctx, id)
	require.NoError(t, err)
	want := []LineBalance{
		{Line: "calls", Currency: "CNY", Allocated: 1000, Held: 700, Captured: 200, Released: 100, Available: 100},
		{Line: "gift", Currency: "CNY", Allocated: 500, Held: 410, Captured: 90, Credit: Credit{Outstanding: 90}},
		{Line: "staff", Currency: "CNY", Allocated: 300, Held: 50, Captured: 10, Released: 290, Available: 240},
		{Line: "unknown", Currency: "CNY", Allocated: 200, Captured: 20, Released: 180, Available: 180},
	}
	require.Equal(t, want, balances)
	require.Equal(t, map[Kind]int64{KindChannelPayable: 200}, posted(t, l, id, "calls"))
	require.Equal(t, map[Kind]int64{KindIncentivePayable: 10}, posted(t, l, id, "staff"))
	require.Equal(t, map[Kind]int64{KindSupplierPayable: 20}, posted(t, l, id, "unknown"))

	// Old keys are known, and steps go on.
	for key, call := range map[string]func(key string) (Entry, error){
		"c1": func(key string) (Entry, error) { return l.Capture(ctx, key, id, "calls", cny(200)) },
		"l":  func(key string) (Entry, error) { return l.Release(ctx, key, id, "calls", cny(100)) },
		"x":  func(key string) (Entry, error) { return l.Close(ctx, key, id, "staff", "CNY") },
		"r":  func(key string) (Entry, error) { return l.Reserve(ctx, key, id, "staff", cny(50)) },
		"a":  func(key string) (Entry, error) { return l.Allocate(ctx, key, Line(idle, "calls"), cny(77)) },
	} {
		entry, err := call(key)
		require.NoError(t, err, key)
		require.True(t, entry.Replayed, key)
	}
	_, err = l.Capture(ctx, "c1", id, "calls", cny(201))
	requireCode(t, campaign.CodeKeyReused, err)
	_, err = l.Capture(ctx, "k", id, "unknown", cny(1))
	requireCode(t, campaign.CodeHoldClosed, err)

	plan := Budget{CampaignID: id, Currency: "CNY", Lines: []Ceiling{
		{Line: "calls", Category: campaign.CategoryContact, Amount: 1000}, {Line: "gift", Category: campaign.CategoryPrepaid, Amount: 500},
		{Line: "staff", Category: campaign.CategoryIncentive, Amount: 300},
	}}
	added, err := l.ReserveAll(ctx, plan)
	require.NoError(t, err)
	require.Zero(t, added)
	plan.Lines[0].Amount += 100
	plan.Lines = append(plan.Lines, Ceiling{Line: "new", Amount: 60})
	added, err = l.ReserveAll(ctx, plan)
	require.NoError(t, err)
	require.EqualValues(t, 160, added)
	_, err = l.EndCredit(ctx, "used", id, "gift", KindUsed, cny(40))
	require.NoError(t, err)
	requireSound(t, l)
	require.NoError(t, l.CloseAll(ctx, id))
	left, err := l.Finish(ctx, id)
	require.NoError(t, err)
	require.EqualValues(t, 1000+500+300+200+160-200-90-10-20-50, left, "50 went back with the plan that asks for less than was reserved")
	requireSound(t, l)
}
