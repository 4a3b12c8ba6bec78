package targeting

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

const population = 4_000

// customers fills temporary tables with a population that has every kind of exclusion.
func customers(t *testing.T, db *pgx.Conn) {
	execute(t, db, `CREATE TEMP TABLE customer (id uuid PRIMARY KEY, org_unit text NOT NULL, opted_out boolean NOT NULL,
		time_zone text NOT NULL DEFAULT 'Asia/Shanghai', age int, tenure int NOT NULL, arpu float8, bill numeric, city text, plan text, app bool, vip bool, joined_at timestamptz)`)
	execute(t, db, `CREATE TEMP TABLE holding (customer_id uuid NOT NULL, product text NOT NULL, active boolean NOT NULL DEFAULT true)`)
	execute(t, db, `CREATE TEMP TABLE campaign_target (campaign_id uuid NOT NULL, snapshot int NOT NULL, customer_id uuid NOT NULL,
		tier text NOT NULL, wave smallint NOT NULL, arm text NOT NULL, channel text NOT NULL, score smallint NOT NULL, shard smallint NOT NULL,
		seq int NOT NULL, control_u bigint NOT NULL,
		PRIMARY KEY (campaign_id, snapshot, wave, arm, shard, seq), UNIQUE (campaign_id, snapshot, customer_id))`)
	units := []string{"g/north", "g/north/a", "g/north/a/1", "g/northern", "g/nort_", "g/south", "g"}
	for i := range population {
		var age any = 18 + i%50
		if i%11 == 0 {
			age = nil
		}
		execute(t, db, `INSERT INTO customer (id, org_unit, opted_out, age, tenure) VALUES ($1, $2, $3, $4, $5)`,
			uuid.NewSHA1(uuid.NameSpaceOID, fmt.Appendf(nil, "%d", i)), units[i%len(units)], i%13 == 0, age, i%100)
		if i%3 == 0 {
			execute(t, db, `INSERT INTO holding SELECT id, 'MMS' FROM customer WHERE id = $1`,
				uuid.NewSHA1(uuid.NameSpaceOID, fmt.Appendf(nil, "%d", i)))
		}
	}
}

func testSelection(t *testing.T) Selection {
	c := testCatalogue(t)
	compile := func(text string) Predicate {
		p, err := c.Compile(text)
		require.NoError(t, err)
		return p
	}
	return Selection{
		CampaignID: "0190a000-0000-7000-8000-000000000001", Snapshot: 1, Unit: "g/north",
		Filter:       compile(`age >= 20 && age < 60`),
		Suppressions: []Suppression{OptedOut(), {Code: "short_tenure", Condition: "c.tenure < 5"}},
		Tiers: []Tier{
			{Name: "core", Rule: compile(`has_product("MMS")`), Wave: 1},
			{Name: "general", Rule: compile(`tenure > 50`), Wave: 2},
			{Name: "basic", Rule: compile(`tenure > 20`), Wave: 2},
		},
		ControlShare: 2_000, Salt: "camp-42", Shards: 4,
	}
}

type target struct {
	CustomerID uuid.UUID
	Tier       string
	Wave       int
	Arm        string
	Score      int
	Shard      int
	Seq        int
	ControlU   int64
}

func targets(t *testing.T, db *pgx.Conn, snapshot int) []target {
	return query(t, db, pgx.RowToStructByPos[target], `SELECT customer_id, tier, wave, arm, score, shard, seq, control_u
		FROM campaign_target WHERE campaign_id = '0190a000-0000-7000-8000-000000000001' AND snapshot = $1
		ORDER BY wave, arm, shard, seq`, snapshot)
}

// eligible recomputes in Go who is a target and in which tier.
func eligible(t *testing.T) map[uuid.UUID]string {
	tiers := map[uuid.UUID]string{}
	for i := range population {
		age, tenure := 18+i%50, i%100
		if i%7 > 2 || i%11 == 0 || age < 20 || age >= 60 || i%13 == 0 || tenure < 5 {
			continue
		}
		var tier string
		switch {
		case i%3 == 0:
			tier = "core"
		case tenure > 50:
			tier = "general"
		case tenure > 20:
			tier = "basic"
		default:
			continue
		}
		tiers[uuid.NewSHA1(uuid.NameSpaceOID, fmt.Appendf(nil, "%d", i))] = tier
	}
	return tiers
}

// freeze selects into campaign_target in parts, as the store does, and returns how many there
// are.
func freeze(t *testing.T, db *pgx.Conn, sel Selection) int64 {
	t.Helper()
	execute(t, db, "DROP TABLE IF EXISTS candidate")
	sql, args := sel.CandidatesSQL("candidate", time.Date(2026, 3, 1, 20, 0, 0, 0, time.UTC))
	execute(t, db, sql, args...)
	if sel.Limit > 0 {
		execute(t, db, "CREATE TABLE best AS "+sel.LimitSQL("candidate"))
		execute(t, db, "DROP TABLE candidate; ALTER TABLE best RENAME TO candidate")
	}
	if sel.Control.Method == ControlExact {
		sql, args = sel.ExactSQL("candidate")
		execute(t, db, sql, args...)
		require.Zero(t, execute(t, db, sql, args...), "an exact split is the same when it is made again")
	}
	var n int64
	for _, r := range ShardBuckets(sel.Shards, 2) {
		sql, args := sel.FreezeSQL("campaign_target", "candidate", r[0], r[1])
		n += execute(t, db, sql, args...)
	}
	return n
}

func digest(t *testing.T, db *pgx.Conn, sel Selection) string {
	t.Helper()
	return SnapshotDigest(query(t, db, pgx.RowToStructByPos[Cell], CellsSQL("campaign_target"), sel.Snapshot))
}

func TestSelectionFreezesExactlyTheTargets(t *testing.T) {
	db := database(t)
	customers(t, db)
	sel := testSelection(t)
	n := freeze(t, db, sel)
	got := targets(t, db, 1)
	want := eligible(t)
	require.Len(t, got, len(want))
	require.Equal(t, int64(len(want)), n)

	order := map[string]int{"core": 0, "general": 1, "basic": 2}
	waves := map[string]int{"core": 1, "general": 2, "basic": 2}
	var last target
	for _, g := range got {
		u := Draw("camp-42", g.CustomerID.String())
		arm := ArmTreated
		if u < Threshold(2_000) {
			arm = ArmControl
		}
		require.Equal(t, target{
			CustomerID: g.CustomerID, Tier: want[g.CustomerID], Wave: waves[want[g.CustomerID]], Arm: arm,
			Shard: int(g.CustomerID[15]) * 4 / 256, Seq: g.Seq, ControlU: u,
		}, g)
		if last.Wave == g.Wave && last.Arm == g.Arm && last.Shard == g.Shard {
			require.Equal(t, last.Seq+1, g.Seq)
			if last.Tier == g.Tier {
				require.Less(t, Place(last.ControlU), Place(g.ControlU))
			} else {
				require.Less(t, order[last.Tier], order[g.Tier])
			}
		} else {
			require.Equal(t, 1, g.Seq)
		}
		last = g
	}

	// A second snapshot of the same data is the same, whatever the order of the rows on disk.
	execute(t, db, "CREATE INDEX shuffle ON customer (tenure, id)")
	execute(t, db, "CLUSTER customer USING shuffle")
	first := digest(t, db, sel)
	sel.Snapshot = 2
	freeze(t, db, sel)
	require.Equal(t, got, targets(t, db, 2))
	require.Equal(t, first, digest(t, db, sel))
	execute(t, db, `UPDATE campaign_target SET tier = 'basic' WHERE ctid = (SELECT ctid FROM campaign_target WHERE snapshot = 2 AND tier = 'general' LIMIT 1)`)
	require.NotEqual(t, first, digest(t, db, sel))
}

func TestSelectionLimitKeepsTheBestTiersAndBothArms(t *testing.T) {
	db := database(t)
	customers(t, db)
	sel := testSelection(t)
	perTier := map[string]int{}
	for _, tier := range eligible(t) {
		perTier[tier]++
	}
	sel.Limit = int64(perTier["core"] + perTier["general"]/2)
	require.Equal(t, sel.Limit, freeze(t, db, sel))
	limited := targets(t, db, 1)
	got, control := map[string]int{}, 0
	for _, g := range limited {
		got[g.Tier]++
		if g.Arm == ArmControl {
			control++
		}
	}
	require.Equal(t, map[string]int{"core": perTier["core"], "general": perTier["general"] / 2}, got)
	require.Positive(t, control)
	require.Less(t, control, len(limited)/3)

	sel.Snapshot, sel.Limit = 2, 0
	freeze(t, db, sel)
	all := targets(t, db, 2)
	for _, g := range limited {
		require.True(t, slices.ContainsFunc(all, func(a target) bool {
			return a.CustomerID == g.CustomerID && a.Arm == g.Arm && a.Shard == g.Shard
		}), "a limit must not move a customer to another arm or shard")
	}
}

func TestUnitIsTakenLiterally(t *testing.T) {
	s := &statement{}
	require.Equal(t, "(c.org_unit = $1::text OR c.org_unit LIKE $2::text)", s.inUnit(`g/a_b%\`))
	require.Equal(t, []any{`g/a_b%\`, `g/a\_b\%\\/%`}, s.args)
}

func TestSelectionNeedsATierAndAShard(t *testing.T) {
	sel := testSelection(t)
	sel.Shards = 0
	require.Panics(t, func() { sel.FreezeSQL("campaign_target", "candidate", 0, 255) })
	sel = testSelection(t)
	sel.Tiers = nil
	require.Panics(t, func() { sel.CandidatesSQL("candidate", time.Now()) })
}

func TestShardBucketsDivideAllBuckets(t *testing.T) {
	for shards := 1; shards <= 64; shards++ {
		for parts := 1; parts <= 4; parts++ {
			next, seen := 0, -1
			for _, r := range ShardBuckets(shards, parts) {
				require.Equal(t, next, r[0])
				next = r[1] + 1
				require.Greater(t, r[0]*shards/256, seen, "a shard lies in two ranges")
				seen = r[1] * shards / 256
			}
			require.Equal(t, 256, next)
		}
	}
}
