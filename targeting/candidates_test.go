package targeting

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

type candidate struct {
	CustomerID uuid.UUID
	U          int64
	PlannedAt  time.Time
	Day        time.Time
	Bucket     int
	Tier       int
	Wave       int
	Score      int
	Control    bool
	Channel    string
	Refused    string
}

func candidates(t *testing.T, db *pgx.Conn) []candidate {
	return query(t, db, pgx.RowToStructByPos[candidate],
		`SELECT customer_id, u, planned_at, day::timestamptz, bucket, tier, wave, score, control, channel, refused FROM candidate ORDER BY ctid`)
}

func TestCandidatesSayWhyTheyAreRefused(t *testing.T) {
	db := database(t)
	customers(t, db)
	sel := testSelection(t)
	at := time.Date(2026, 3, 1, 20, 0, 0, 0, time.UTC)
	sel.Starts = map[int]Start{1: {Channel: campaign.ChannelCall, At: at}, 2: {Channel: campaign.ChannelSMS, At: at.Add(time.Hour)}}
	sel.ByTier = []TierSuppression{{Suppression{Code: "old", Condition: "c.age > 50"}, []int{2, 3}}}
	freeze(t, db, sel)
	all := candidates(t, db)
	got := map[string]int{}
	bucket := -1
	for _, c := range all {
		got[c.Refused]++
		require.Equal(t, int(c.CustomerID[15]), c.Bucket)
		require.GreaterOrEqual(t, c.Bucket, bucket, "in order of bucket")
		bucket = c.Bucket
		start := sel.Starts[c.Wave]
		require.Equal(t, string(start.Channel), c.Channel)
		require.True(t, start.At.Equal(c.PlannedAt))
		require.Equal(t, 2, c.Day.Day(), "it is the next day in Shanghai")
		require.True(t, c.Refused != "old" || c.Tier > 1)
	}
	for _, rule := range []string{"", "opted_out", "short_tenure", "old"} {
		require.Positive(t, got[rule], rule)
	}
	require.Len(t, got, 4)
	require.EqualValues(t, got[""], len(targets(t, db, 1)))
}

// Waves that divide a tier have their shares of it, whatever the arm.
func TestWavesDivideATier(t *testing.T) {
	db := database(t)
	customers(t, db)
	sel := testSelection(t)
	sel.Tiers = []Tier{{Name: "all", Rule: sel.Tiers[0].Rule, Wave: 1, Further: []WaveShare{{Wave: 2, Share: 3_000}, {Wave: 3, Share: 5_000}}}}
	sel.Tiers[0].Rule, _ = testCatalogue(t).Compile("true")
	sel.ControlShare = 5_000
	n := float64(freeze(t, db, sel))
	got := map[string]float64{}
	for _, g := range targets(t, db, 1) {
		got[fmt.Sprint(g.Wave)]++
		got[fmt.Sprint(g.Wave, g.Arm)]++
		var wave int
		switch place := Place(g.ControlU); {
		case place >= Threshold(5_000):
			wave = 3
		case place >= Threshold(2_000):
			wave = 2
		default:
			wave = 1
		}
		require.Equal(t, wave, g.Wave)
	}
	for wave, share := range map[string]float64{"1": .2, "2": .3, "3": .5} {
		require.InDelta(t, share, got[wave]/n, .06)
		require.InDelta(t, .5, got[wave+"control"]/got[wave], .12)
	}
}

func TestExactSplits(t *testing.T) {
	db := database(t)
	customers(t, db)
	sel := testSelection(t)
	sel.Control = Control{Method: ControlExact, Strata: []string{"c.age"}}
	sel.ControlShare = 1_500
	freeze(t, db, sel)
	ages := map[uuid.UUID]int{}
	for i := range population {
		ages[uuid.NewSHA1(uuid.NameSpaceOID, fmt.Appendf(nil, "%d", i))] = 18 + i%50
	}
	type stratum struct {
		n, control int64
		most       int64 // greatest number that is held out
		least      int64 // least that is not
	}
	strata := map[string]*stratum{}
	for _, c := range candidates(t, db) {
		if c.Refused != "" {
			continue
		}
		name := fmt.Sprintf("%d\x1f%d", c.Tier, ages[c.CustomerID])
		if strata[name] == nil {
			strata[name] = &stratum{most: -1, least: 1 << 62}
		}
		s := strata[name]
		s.n++
		if c.Control {
			s.control++
			s.most = max(s.most, c.U)
		} else {
			s.least = min(s.least, c.U)
		}
	}
	require.Greater(t, len(strata), 50)
	more := 0
	for name, s := range strata {
		require.Equal(t, ExactSize(s.n, 1_500, sel.Salt, name), s.control, "%q", name)
		require.Less(t, s.most, s.least, "those with the least numbers are held out")
		if s.control > s.n*1_500/10_000 {
			more++
		}
	}
	require.Positive(t, more)
	require.Less(t, more, len(strata))
}

func TestExactSizeKeepsItsShareOnAverage(t *testing.T) {
	var held, n int64
	for i := range 20_000 {
		size := ExactSize(7, 1_000, "salt", fmt.Sprint(i))
		require.Contains(t, []int64{0, 1}, size)
		held, n = held+size, n+7
	}
	require.InDelta(t, .1, float64(held)/float64(n), .003)
	require.EqualValues(t, 50, ExactSize(500, 1_000, "salt", "x"))
}

func TestAccountsShareAnArm(t *testing.T) {
	db := database(t)
	customers(t, db)
	execute(t, db, `UPDATE customer SET city = 'account ' || (tenure % 40) WHERE tenure % 2 = 0`)
	sel := testSelection(t)
	sel.Control.Account = "c.city"
	freeze(t, db, sel)
	got := query(t, db, pgx.RowTo[int64], `SELECT count(DISTINCT k.control) FROM candidate k JOIN customer c ON c.id = k.customer_id WHERE c.city IS NOT NULL GROUP BY c.city`)
	require.NotEmpty(t, got)
	for _, arms := range got {
		require.EqualValues(t, 1, arms)
	}
	require.NotEmpty(t, query(t, db, pgx.RowTo[int64], `SELECT count(*) FROM candidate k JOIN customer c ON c.id = k.customer_id WHERE c.city IS NULL GROUP BY k.control HAVING count(*) > 10`))
}

func TestArmsOfAList(t *testing.T) {
	db := database(t)
	customers(t, db)
	execute(t, db, `CREATE TEMP TABLE customer_list_member (list_id uuid, customer_id uuid, arm text)`)
	list := uuid.NewString()
	execute(t, db, `INSERT INTO customer_list_member SELECT $1, id, CASE tenure % 3 WHEN 0 THEN 'control' ELSE 'treated' END FROM customer WHERE tenure % 5 > 0`, list)
	sel := testSelection(t)
	sel.Control = Control{Method: ControlByList, List: list}
	freeze(t, db, sel)
	tenures := map[uuid.UUID]int{}
	for i := range population {
		tenures[uuid.NewSHA1(uuid.NameSpaceOID, fmt.Appendf(nil, "%d", i))] = i % 100
	}
	refused := 0
	for _, c := range candidates(t, db) {
		tenure := tenures[c.CustomerID]
		switch c.Refused {
		case "":
			require.NotZero(t, tenure%5)
			require.Equal(t, tenure%3 == 0, c.Control)
		case CodeNoArm:
			require.Zero(t, tenure%5)
			refused++
		}
	}
	require.Positive(t, refused)
}

func TestPreferredChannels(t *testing.T) {
	db := database(t)
	customers(t, db)
	sel := testSelection(t)
	sel.Starts = map[int]Start{1: {Channel: campaign.ChannelSMS, Preferred: true}, 2: {Channel: campaign.ChannelSMS}}
	freeze(t, db, sel)
	execute(t, db, `CREATE TEMP TABLE contact_history (customer_id uuid, channel text, kind text)`)
	var who []uuid.UUID
	for _, c := range candidates(t, db) {
		if c.Wave == 1 && c.Refused == "" {
			who = append(who, c.CustomerID)
		}
	}
	record := func(i int, channel, kind string, n int) {
		execute(t, db, `INSERT INTO contact_history SELECT $1, $2, $3 FROM generate_series(1, $4)`, who[i], channel, kind, n)
	}
	record(0, "call", "marketing", 11) // prefers calls
	record(1, "call", "marketing", 10) // too few contacts tell nothing
	record(2, "call", "marketing", 20)
	record(2, "call", "complaint", 1) // complained
	record(3, "call", "marketing", 7)
	record(3, "sms", "consultation", 7) // a tie: the cheaper one
	record(4, "call", "marketing", 4)
	record(4, "shop", "consultation", 20) // counts, and no channel of the wave
	record(5, "call", "complaint", 12)
	record(5, "sms", "marketing", 1) // the rest of the channels
	sql, args := PreferSQL("candidate", 1, []Choice{{campaign.ChannelSMS, 10}, {campaign.ChannelCall, 500}})
	execute(t, db, sql, args...)
	require.Zero(t, execute(t, db, sql, args...), "the same again")
	want := []string{"call", "sms", "sms", "sms", "call", "sms"}
	for _, c := range candidates(t, db) {
		for i, id := range who[:len(want)] {
			if c.CustomerID == id {
				require.Equal(t, want[i], c.Channel, "customer %d", i)
			}
		}
	}
	sql, args = PreferSQL("candidate", 1, []Choice{{campaign.ChannelSMS, 10}, {campaign.ChannelCall, 1}})
	require.EqualValues(t, 1, execute(t, db, sql, args...))
	require.Equal(t, 1, strings.Count(fmt.Sprint(query(t, db, pgx.RowTo[string], `SELECT channel FROM candidate WHERE customer_id = $1`, who[3])), "call"))
}

func TestSetsTakeOutWhomTheirConditionsDo(t *testing.T) {
	db := database(t)
	customers(t, db)
	_, err := db.Exec(t.Context(), `CREATE TABLE refusal AS SELECT id AS customer_id, ('{a,b,c}'::text[])[1 + get_byte(uuid_send(id), 15) % 3] AS why FROM customer WHERE age % 3 = 0
		UNION ALL SELECT id, 'b' FROM customer WHERE age % 5 = 0`)
	require.NoError(t, err)
	why := func(code, own string, letters ...string) Suppression {
		var sets []Set
		for _, l := range letters {
			sets = append(sets, Set{From: "refusal s", Where: "s.why = '" + l + "'"})
		}
		return among(code, own, sets...)
	}
	sel := testSelection(t)
	sel.Suppressions = []Suppression{why("own or c", "c.vip", "c"), {Code: "tenure", Condition: "c.tenure < 5"}, why("b", "", "b")}
	sel.ByTier = []TierSuppression{
		{why("first a", "", "a"), []int{1}}, {why("others a", "c.age > 50", "a"), []int{2, 3}}, {Suppression{Code: "age", Condition: "c.age > 45"}, []int{2, 3}},
	}
	freeze(t, db, sel)
	fast := candidates(t, db)
	_, err = db.Exec(t.Context(), `DROP TABLE candidate; TRUNCATE campaign_target`)
	require.NoError(t, err)
	codes := map[string]bool{}
	for i := range sel.Suppressions {
		sel.Suppressions[i].Sets = nil
	}
	for i := range sel.ByTier {
		sel.ByTier[i].Sets = nil
	}
	freeze(t, db, sel)
	slow := candidates(t, db)
	require.Equal(t, slow, fast)
	for _, c := range slow {
		codes[c.Refused] = true
	}
	require.Len(t, codes, 7, "every rule takes somebody out, and none everybody: %v", codes)
}
