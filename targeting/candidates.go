package targeting

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/musterhq/muster/campaign"
)

// A candidate is a customer for whom a selection's filter and a tier hold, on the way to
// becoming a target. Candidates have a table of their own, with these columns:
//
//	customer_id  uuid
//	u            bigint       the number that decided the arm, see Draw
//	planned_at   timestamptz  when the wave begins, as planned
//	day          date         of planned_at, by the customer's calendar
//	bucket       smallint     see BucketSQL
//	tier         smallint     number of the tier in the selection, from 1
//	wave         smallint
//	score        smallint     0 until a scoring step fills it
//	control      boolean
//	channel      text         that contacts them first
//	refused      text         code of what takes them out; empty for those who become targets
//
// It is written in the order of bucket and customer.

// MaximumTiers is how many tiers a selection can tell apart.
const MaximumTiers = 7

// BucketSQL returns the SQL of a customer's bucket: the last byte of the id, 0 to 255. id is
// a trusted SQL expression of type uuid.
func BucketSQL(id string) string { return "get_byte(uuid_send(" + id + "), 15)" }

// CandidatesSQL returns the statement that makes table, a trusted name, with the candidates
// in it, and its arguments. It reads customer once, by as many processes as the server lends:
// filter, suppressions, tier and hash are worked out where the rows are read, and what is
// written is narrow and already in order. Run it with a work_mem of about 100 bytes a
// candidate.
//
// Every row is a function of the customer's row, the salt and now alone. The tier is the first
// whose rule holds; with several waves for it, the low half of the hash says which, which
// tells nothing about the arm. The arm is that of Control.
func (sel Selection) CandidatesSQL(table string, now time.Time) (string, []any) {
	query, args := sel.candidates(now)
	return "CREATE UNLOGGED TABLE " + table + " AS\n" + query, args
}

// TryCandidatesSQL is CandidatesSQL for a temporary table that goes with its transaction.
func (sel Selection) TryCandidatesSQL(table string, now time.Time) (string, []any) {
	query, args := sel.candidates(now)
	return "CREATE TEMPORARY TABLE " + table + " ON COMMIT DROP AS\n" + query, args
}

func (sel Selection) candidates(now time.Time) (string, []any) {
	if n := len(sel.Tiers); n == 0 || n > MaximumTiers {
		panic(fmt.Sprintf("targeting: selection with %d tiers", n))
	}
	s := &statement{}
	tier := s.tier(sel.Tiers)
	join, control, unassigned := sel.assign(s)

	waves := 0
	for _, t := range sel.Tiers {
		waves = max(waves, t.Wave)
		for _, f := range t.Further {
			waves = max(waves, f.Wave)
		}
	}
	channels, starts := make([]string, waves), make([]time.Time, waves)
	for i := range waves {
		start := sel.Starts[i+1]
		if channels[i], starts[i] = string(start.Channel), start.At; start.At.IsZero() {
			starts[i] = now
		}
	}

	var refused strings.Builder
	sets, conditions := barredBy(sel.Suppressions, sel.ByTier, barredAbove)
	for i, x := range sel.Suppressions {
		fmt.Fprintf(&refused, " WHEN %s THEN %s", conditions[i], literal(x.Code))
	}
	for i, x := range sel.ByTier {
		fmt.Fprintf(&refused, " WHEN _tier = ANY(%s) AND (%s) THEN %s", s.bind(x.Tiers, "int[]"), conditions[len(sel.Suppressions)+i], literal(x.Code))
	}
	if unassigned != "" {
		fmt.Fprintf(&refused, " WHEN %s THEN %s", unassigned, literal(CodeNoArm))
	}
	reason := "''::text"
	if refused.Len() > 0 {
		reason = "CASE" + refused.String() + " ELSE '' END"
	}

	// What is still asked of other tables for each candidate is asked above the sort: PostgreSQL
	// lets only the leader of parallel processes do that, and would leave all that stands beside
	// it to the leader too. The sorted level is not merged with the one above it, so that the hash
	// is worked out once, where the rows are read; the tier, which is cheap, is worked out twice
	// rather than after the rows have left the processes that read them. Names with _ are no
	// attribute's.
	return fmt.Sprintf(`SELECT customer_id, u, planned_at, (planned_at AT TIME ZONE zone)::date AS day, bucket, tier, wave,
  0::smallint AS score, control, (%[1]s)[wave] AS channel, refused
FROM (
  SELECT *, (%[2]s)[wave] AS planned_at
  FROM (
    SELECT _customer AS customer_id, _zone AS zone, _bucket AS bucket, _tier AS tier, _u AS u, (%[3]s)::smallint AS wave,
      coalesce(%[4]s, false) AS control, %[5]s AS refused
    FROM (
      SELECT %[6]s AS _customer, c.time_zone AS _zone, %[7]s::smallint AS _bucket, (%[8]s)::smallint AS _tier, %[9]s AS _u, %[10]s AS _arm%[11]s
      FROM %[12]s c%[13]s
      WHERE %[14]s
        AND %[15]s
        AND (%[8]s) IS NOT NULL
      ORDER BY _bucket, %[6]s
    ) c
  ) waved
) timed`,
		s.bind(channels, "text[]"), s.bind(starts, "timestamptz[]"), waveSQL(sel.Tiers, "_tier", "_u"), control.decide, reason,
		customerID, BucketSQL(customerID), tier, DrawSQL(s.bind(sel.Salt, "text"), sel.Control.drawn()), control.arm, columnsOf(reason)+sets.columns,
		CustomerTable, join+sets.join, s.inUnit(sel.Unit), s.predicate(sel.Filter)), s.args
}

var (
	customerColumn = regexp.MustCompile(`\bc\.(?:"[^"]+"|\w+)`)
	quotedText     = regexp.MustCompile(`'[^']*'`)
)

// columnsOf emits the columns of customer that conditions ask about.
func columnsOf(conditions string) string {
	columns := customerColumn.FindAllString(quotedText.ReplaceAllString(conditions, ""), -1)
	slices.Sort(columns)
	var b strings.Builder
	for _, column := range slices.Compact(columns) {
		b.WriteString(", " + column)
	}
	return b.String()
}

// waveSQL emits the number of a candidate's wave, by the tier's column and, where several waves
// share one, by the place of that of u.
func waveSQL(tiers []Tier, tier, u string) string {
	var b strings.Builder
	b.WriteString("CASE " + tier)
	for i, t := range tiers {
		wave := fmt.Sprint(t.Wave)
		if len(t.Further) > 0 {
			// What the further waves leave is the first's, so the last share ends where all do.
			before := wholeShare
			var parts strings.Builder
			for j := len(t.Further) - 1; j >= 0; j-- {
				before -= t.Further[j].Share
				fmt.Fprintf(&parts, " WHEN %s >= %d THEN %d", placeSQL(u), Threshold(max(before, 0)), t.Further[j].Wave)
			}
			wave = fmt.Sprintf("CASE%s ELSE %d END", parts.String(), t.Wave)
		}
		fmt.Fprintf(&b, " WHEN %d THEN %s", i+1, wave)
	}
	b.WriteString(" END")
	return b.String()
}

// wholeShare is all of something, in basis points.
const wholeShare = 10_000

// rank is the order in which candidates are taken and numbered: by tier, then the higher score,
// then the place of the hash. 3 bits, 16 and 44 of the place's 52; customer_id breaks the ties.
var rank = fmt.Sprintf("((tier::bigint << 60) | ((32767 - score)::bigint << 44) | (%s >> %d))", placeSQL("u"), hashBits-44)

// LimitSQL returns the query for the candidates of table whom the limit leaves, the best ones,
// and for those who are refused anyway.
func (sel Selection) LimitSQL(table string) string {
	return fmt.Sprintf(`SELECT k.* FROM %[2]s k
LEFT JOIN (SELECT %[1]s AS last_rank, customer_id AS last FROM %[2]s WHERE refused = '' ORDER BY 1, 2 OFFSET %[3]d LIMIT 1) cut ON true
WHERE cut.last IS NULL OR k.refused <> '' OR (%[1]s, k.customer_id) <= (cut.last_rank, cut.last)
ORDER BY k.bucket, k.customer_id`, rank, table, sel.Limit-1)
}

// FreezeSQL returns the statement that writes the targets of the buckets from and to, inclusive,
// into target, out of candidates, both trusted names; and its arguments. A target's shard is
// its bucket × Shards / 256, so that buckets which lie in different shards can be written side
// by side: seq counts from 1 without gaps within wave, channel, arm and shard, by tier, score
// and place of the hash. Begin and end the ranges where shards do, see ShardBuckets.
func (sel Selection) FreezeSQL(target, candidates string, from, to int) (string, []any) {
	if sel.Shards < 1 || sel.Shards > campaign.Buckets {
		panic(fmt.Sprintf("targeting: selection with %d shards", sel.Shards))
	}
	s := &statement{}
	names := make([]string, len(sel.Tiers))
	for i, t := range sel.Tiers {
		names[i] = t.Name
	}
	// One sort by three numbers takes half the time of one by five columns.
	return fmt.Sprintf(`INSERT INTO %[1]s
  (campaign_id, snapshot, customer_id, tier, wave, arm, channel, score, shard, seq, control_u)
SELECT %[2]s, %[3]s, customer_id, (%[4]s)[tier], wave, CASE WHEN control THEN '%[5]s' ELSE '%[6]s' END, channel, score, shard,
  row_number() OVER (PARTITION BY cell%[7]s ORDER BY rank, customer_id), u
FROM (
  SELECT *, (wave * 2 + control::int) * %[8]d + shard AS cell
  FROM (
    SELECT customer_id, tier, wave, control, channel, score, u, bucket * %[9]s / %[8]d AS shard, %[10]s AS rank
    FROM %[11]s k
    WHERE k.bucket BETWEEN %[12]s AND %[13]s AND k.refused = ''
  ) ranked
) celled`,
		target, s.bind(sel.CampaignID, "uuid"), s.bind(sel.Snapshot, "int"), s.bind(names, "text[]"), ArmControl, ArmTreated, sel.byChannel(),
		campaign.Buckets, s.bind(sel.Shards, "int"), rank, candidates, s.bind(from, "int"), s.bind(to, "int")), s.args
}

// byChannel emits what also divides the targets that are numbered together.
func (sel Selection) byChannel() string {
	for _, start := range sel.Starts {
		if start.Preferred {
			return ", channel"
		}
	}
	return ""
}

// ShardBuckets divides all buckets into parts ranges that begin and end where shards do. With
// fewer shards than parts there are fewer ranges.
func ShardBuckets(shards, parts int) [][2]int {
	var ranges [][2]int
	parts = min(parts, shards)
	first := func(part int) int { // bucket of the part's first shard
		shard := part * shards / parts
		return (shard*campaign.Buckets + shards - 1) / shards
	}
	for i := range parts {
		ranges = append(ranges, [2]int{first(i), first(i+1) - 1})
	}
	return ranges
}
