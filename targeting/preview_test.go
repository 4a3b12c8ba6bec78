package targeting

import (
	"fmt"
	"math"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// previewed makes a table of customers in the order of their units, as imports leave them:
// the blocks of a table are not alike.
func previewed(t *testing.T, customers int) (*pgx.Conn, Preview) {
	db := database(t)
	execute(t, db, `
		CREATE TABLE customer (id uuid PRIMARY KEY, external_id text, org_unit text, opted_out boolean, age int8, vip boolean, padding text, time_zone text);
		CREATE TABLE holding (customer_id uuid, product text, since date, active boolean, PRIMARY KEY (customer_id, product));
		CREATE TABLE phone_vault (customer_id uuid PRIMARY KEY);
		CREATE TABLE refusal (customer_id uuid PRIMARY KEY)`)
	execute(t, db, `INSERT INTO customer SELECT md5(i::text)::uuid, 'E' || i,
		(ARRAY['op', 'op/a', 'op/a/x', 'op/a/y', 'op/b', 'op/bc', 'other'])[1 + i * 7 / ($1 + 1)], i % 10 = 0, i % 60, i % 3 = 0, repeat('x', 200), CASE WHEN i % 60 = 56 THEN 'Asia/Shanghai' ELSE 'UTC' END
		FROM generate_series(1, $1::int) i`, customers)
	execute(t, db, `INSERT INTO holding SELECT id, 'MMS', current_date, true FROM customer WHERE age % 2 = 0`)
	execute(t, db, `INSERT INTO phone_vault SELECT id FROM customer WHERE age <> 40`)
	execute(t, db, `INSERT INTO refusal SELECT id FROM customer WHERE age = 42`)
	execute(t, db, "ANALYZE")
	c, err := NewCatalogue([]Field{
		{Name: "age", Column: "c.age", Type: Int, Nullable: true}, {Name: "vip", Column: "c.vip", Type: Bool},
	}, Functions(Names{})...)
	require.NoError(t, err)
	conditions, err := c.Conditions(`age >= 30 && has_product("MMS") && (vip || has_product("MMS"))`)
	require.NoError(t, err)
	core, err := c.Compile("age >= 50")
	require.NoError(t, err)
	general, err := c.Compile(`age >= 40 && has_product("MMS")`)
	require.NoError(t, err)
	return db, Preview{
		Unit: "op", Conditions: conditions, Suppressions: []Suppression{OptedOut(), {Code: "few", Condition: "c.age = 58"}},
		Tiers: []Tier{{Name: "core", Rule: core}, {Name: "general", Rule: general}}, ControlShare: 1000, Limit: 150,
	}
}

func cells(t *testing.T, db *pgx.Conn, sql string, args []any) []PreviewCell {
	return query(t, db, pgx.RowToStructByPos[PreviewCell], sql, args...)
}

func TestPreviewCounts(t *testing.T) {
	const n = 2100
	db, p := previewed(t, n)
	sql, args := p.SQL()
	require.Len(t, args, 6, "what is asked for twice is joined once")
	counts := p.Counts(cells(t, db, sql, args), 0)
	require.Empty(t, counts.Quiet)
	// Of the first tier those in Shanghai wait, and half of them in vain.
	p.Quiet = func(tier int, zone string) []Quiet {
		if tier > 0 || zone != "Asia/Shanghai" {
			return nil
		}
		return []Quiet{{Rule: "quiet:night", Share: 0.5}, {Rule: "quiet:night", Share: 0.5, TooLate: true}}
	}
	sql, args = p.SQL()
	counts = p.Counts(cells(t, db, sql, args), 0)
	var waiting int64

	// Counted anew, one customer at a time.
	var want PreviewCounts
	remaining, suppressed, tiers, units := make([]int64, 3), make([]int64, 2), make([]int64, 2), map[string]int64{}
	for i := 1; i <= n; i++ {
		unit := []string{"op", "op/a", "op/a/x", "op/a/y", "op/b", "op/bc", "other"}[i*7/(n+1)]
		age, optedOut := i%60, i%10 == 0
		if unit == "other" {
			continue
		}
		want.InUnit.Customers++
		if age < 30 {
			continue
		}
		remaining[0]++
		if age%2 != 0 {
			continue
		}
		remaining[1]++
		remaining[2]++
		switch {
		case optedOut:
			suppressed[0]++
			continue
		case age == 58:
			suppressed[1]++
			continue
		case age >= 50:
			tiers[0]++
			if age == 56 {
				waiting++
			}
		case age >= 40:
			tiers[1]++
		default:
			want.NoTier.Customers++
			continue
		}
		want.Eligible.Customers++
		units[map[string]string{"op/a/x": "op/a", "op/a/y": "op/a"}[unit]+map[string]string{"op": "op", "op/a": "op/a", "op/b": "op/b", "op/bc": "op/bc"}[unit]]++
	}
	figure := func(name string, n int64) NamedFigure { return NamedFigure{name, Figure{Customers: n}} }
	for i, text := range []string{"age >= 30", `has_product("MMS")`, `vip || has_product("MMS")`} {
		want.Conditions = append(want.Conditions, figure(text, remaining[i]))
	}
	want.Suppressed = []NamedFigure{figure("opted_out", suppressed[0]), figure("few", suppressed[1])}
	want.Tiers = []NamedFigure{figure("core", tiers[0]), figure("general", tiers[1])}
	for _, unit := range []string{"op", "op/a", "op/b", "op/bc"} {
		want.Units = append(want.Units, figure(unit, units[unit]))
	}
	want.Targets, want.Control = 150, 15
	require.Positive(t, waiting)
	want.Quiet = []QuietFigure{{"quiet:night", int64(math.Round(float64(waiting) / 2)), int64(math.Round(float64(waiting) / 2))}}
	require.Equal(t, want, counts)
	require.Greater(t, counts.Eligible.Customers, counts.Targets)

	sql, args = p.ReachSQL([][]Suppression{{{Code: "refused", Condition: "EXISTS (SELECT FROM refusal r WHERE r.customer_id = c.id)"}}, nil})
	reach := query(t, db, pgx.RowTo[[]int64], sql, args...)[0]
	var withNumber, refusing int64
	require.NoError(t, db.QueryRow(t.Context(), `SELECT count(*) FILTER (WHERE age <> 40), count(*) FILTER (WHERE age = 42) FROM customer
		WHERE org_unit LIKE 'op%' AND age >= 40 AND age % 2 = 0 AND age <> 58 AND NOT opted_out`).Scan(&withNumber, &refusing))
	require.Positive(t, refusing)
	require.Equal(t, []int64{withNumber, withNumber - refusing, withNumber}, reach)
}

// What is about the channel of a tier takes out customers of that tier alone; whom it takes
// out of their tier comes to no later one.
func TestPreviewSuppressesByTier(t *testing.T) {
	db, p := previewed(t, 2100)
	p.ByTier = []TierSuppression{
		{Suppression{Code: "few", Condition: "c.age = 52"}, []int{1}}, {Suppression{Code: "vips", Condition: "c.vip"}, []int{1}}, {Suppression{Code: "vips", Condition: "c.age = 44"}, []int{2}},
	}
	sql, args := p.SQL()
	counts := p.Counts(cells(t, db, sql, args), 0)
	where := func(condition string) int64 {
		return query(t, db, pgx.RowTo[int64], `SELECT count(*) FROM customer c WHERE org_unit LIKE 'op%' AND age >= 30 AND age % 2 = 0 AND NOT opted_out AND `+condition)[0]
	}
	figure := func(name string, n int64) NamedFigure { return NamedFigure{name, Figure{Customers: n}} }
	require.Equal(t, figure("few", where("age IN (52, 58)")), counts.Suppressed[1])
	require.Equal(t, figure("vips", where("(age = 44 OR vip AND age IN (50, 54, 56))")), counts.Suppressed[2])
	require.Equal(t, []NamedFigure{figure("core", where("NOT vip AND age IN (50, 54, 56)")), figure("general", where("age IN (40, 42, 46, 48)"))}, counts.Tiers)
	sql, args = p.ReachSQL(nil)
	require.Equal(t, []int64{where("(NOT vip AND age IN (50, 54, 56) OR age IN (42, 46, 48))")}, query(t, db, pgx.RowTo[[]int64], sql, args...)[0])
}

func TestPreviewWithoutTiersHasOneOfEverybody(t *testing.T) {
	db, p := previewed(t, 700)
	p.Tiers, p.Limit = nil, 0
	sql, args := p.SQL()
	counts := p.Counts(cells(t, db, sql, args), 0)
	require.Equal(t, counts.Conditions[2].Customers-counts.Suppressed[0].Customers-counts.Suppressed[1].Customers, counts.Eligible.Customers)
	require.Zero(t, counts.NoTier.Customers)
	require.Equal(t, counts.Eligible.Customers, counts.Targets)
}

// A sample of every block is the whole; samples of some estimate it, and tell by how much they
// may be wrong: of many, hardly any is wrong by more than three standard errors, and they are
// not wrong to one side.
func TestPreviewEstimate(t *testing.T) {
	db, p := previewed(t, 40_000)
	sql, args := p.SQL()
	exact := p.Counts(cells(t, db, sql, args), 0)
	blocks := query(t, db, pgx.RowTo[int64], `SELECT pg_relation_size('customer') / current_setting('block_size')::int`)[0]

	sql, args = p.SampleSQL(100, 1)
	whole := p.Counts(cells(t, db, sql, args), blocks)
	require.Equal(t, int64(40_000), whole.Sampled)
	whole.Sampled = 0
	require.Equal(t, exact, whole)

	const samples = 60
	within, bias := 0, 0.0
	for seed := range int32(samples) {
		sql, args := p.SampleSQL(10, seed)
		estimate := p.Counts(cells(t, db, sql, args), blocks)
		require.Positive(t, estimate.Eligible.StandardError)
		require.Less(t, estimate.Sampled, int64(12_000))
		off := float64(estimate.Eligible.Customers-exact.Eligible.Customers) / estimate.Eligible.StandardError
		if math.Abs(off) <= 3 {
			within++
		}
		bias += off / samples
	}
	require.GreaterOrEqual(t, within, samples-3)
	require.Less(t, math.Abs(bias), 0.6, "four standard errors of a mean of 60")
}

func TestPreviewExamples(t *testing.T) {
	db, p := previewed(t, 2100)
	columns := []Field{{Name: "age", Column: "c.age", Type: Int}, {Name: "vip", Column: "c.vip", Type: Bool}}
	type example struct {
		ID, External, Unit string
		Values             map[string]any
	}
	read := func(seed int32, percent float64) []example {
		sql, args := p.ExamplesSQL(columns, seed, percent, 5)
		return query(t, db, pgx.RowToStructByPos[example], sql, args...)
	}
	five := read(1, 100)
	require.Len(t, five, 5)
	require.Equal(t, five, read(1, 100), "the same seed draws the same")
	require.NotEqual(t, five, read(2, 100))
	for _, e := range append(five, read(1, 50)...) {
		require.GreaterOrEqual(t, e.Values["age"], 40.0)
		require.NotEqual(t, 58.0, e.Values["age"])
		require.Contains(t, e.Values, "vip")
	}
}

// The planner reads a function's rows once for all customers: it hashes them, and does not
// look up each customer's.
func TestFunctionsAreJoinedByHash(t *testing.T) {
	db, p := previewed(t, 40_000)
	plan := func(sql string, args ...any) string {
		lines := query(t, db, pgx.RowTo[string], "EXPLAIN "+sql, args...)
		return fmt.Sprint(lines)
	}
	sql, args := p.SQL()
	require.Regexp(t, `Hash (Right |Left )+Join`, plan(sql, args...))
	c, err := NewCatalogue(nil, Functions(Names{})...)
	require.NoError(t, err)
	holds, err := c.Compile(`has_product("MMS")`)
	require.NoError(t, err)
	require.Regexp(t, "Hash (Semi )?Join", plan("SELECT count(*) FROM customer c WHERE "+holds.SQL(1), holds.Args...))
	lacks, err := c.Compile(`!has_product("MMS")`)
	require.NoError(t, err)
	require.Regexp(t, "Hash (Right )?Anti Join", plan("SELECT count(*) FROM customer c WHERE "+lacks.SQL(1), lacks.Args...))
}
