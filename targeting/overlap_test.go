package targeting

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

func TestAudiencesAreCompared(t *testing.T) {
	db := database(t)
	customers(t, db)
	c := testCatalogue(t)
	over := func(filter string) Selection {
		p, err := c.Compile(filter)
		require.NoError(t, err)
		all, err := c.Compile("true")
		require.NoError(t, err)
		return Selection{Unit: "g", Filter: p, Tiers: []Tier{{Name: "core", Rule: all, Wave: 1}}}
	}
	count := func(condition string) int64 {
		return query(t, db, pgx.RowTo[int64], `SELECT count(*) FROM customer WHERE `+condition)[0]
	}
	mine := over("tenure < 50")
	sql, args := OverlapSQL("g", mine, []Selection{over("tenure >= 25"), over("age > 100")})
	var reached int64
	var theirs, both []int64
	require.NoError(t, db.QueryRow(context.Background(), sql, args...).Scan(&reached, &theirs, &both))
	require.Equal(t, count("tenure < 50"), reached)
	require.Equal(t, []int64{count("tenure >= 25"), 0}, theirs)
	require.Equal(t, []int64{count("tenure >= 25 AND tenure < 50"), 0}, both)

	ids := []string{uuid.NewString(), uuid.NewString(), uuid.NewString()}
	for i, condition := range []string{"tenure < 75", "tenure >= 90"} {
		execute(t, db, `INSERT INTO campaign_target (campaign_id, snapshot, customer_id, tier, wave, arm, score, shard, seq, control_u, channel)
			SELECT $1, 1, id, 'core', 1, 'treated', 0, 0, row_number() OVER (), 0, '' FROM customer WHERE `+condition, ids[i])
	}
	sql, args = FrozenOverlapSQL(mine, ids)
	type row struct {
		ID           string
		Theirs, Both int64
	}
	got := query(t, db, pgx.RowToStructByPos[row], sql, args...)
	require.ElementsMatch(t, []row{
		{ids[0], count("tenure < 75"), count("tenure < 50")}, {ids[1], count("tenure >= 90"), 0},
	}, got, "the third has no targets")

	// Whatever the memory, no condition looks through the targets for each customer.
	execute(t, db, `SET work_mem = '64kB'`)
	plan := strings.Join(query(t, db, pgx.RowTo[string], "EXPLAIN "+sql, args...), "\n")
	require.NotContains(t, plan, "SubPlan", fmt.Sprint(plan))
}
