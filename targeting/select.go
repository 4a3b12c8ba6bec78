package targeting

import (
	"fmt"
	"strconv"
	"strings"
)

// The table and columns that a selection reads. The customer table has the alias c in
// every filter column, suppression and function.
const (
	CustomerTable = "customer"

	customerID       = "c.id"
	customerUnit     = "c.org_unit"
	customerOptedOut = "c.opted_out"
)

// The arms of a campaign.
const (
	ArmTreated = "treated"
	ArmControl = "control" // never contacted, measured like the rest
)

// Tier is one level of the audience with the wave it is contacted in.
type Tier struct {
	Name string
	Rule Predicate // a target belongs to the first tier whose rule holds
	Wave int       // 1, 2, …
}

// Suppression takes customers out of the targets; they are counted, never contacted.
type Suppression struct {
	Code      string // stable name, e.g. "opted_out"
	Condition string // trusted SQL over c, true for those taken out
}

// OptedOut suppresses the customers who asked not to be contacted.
func OptedOut() Suppression { return Suppression{Code: "opted_out", Condition: customerOptedOut} }

// Selection describes one frozen snapshot of a campaign's targets.
type Selection struct {
	CampaignID   string // UUID
	Snapshot     int    // number of the snapshot, 1, 2, …
	Unit         string // owner unit's path; its customers and those of the units below are the audience
	Filter       Predicate
	Suppressions []Suppression // in the order in which a customer's reason is told
	Tiers        []Tier        // in order of precedence, at least one
	ControlShare int           // basis points of the targets held out, 0 to 10,000
	Salt         string        // of the hash; must never change once a contact was sent
	Shards       int           // dispatch shards of a wave, at least 1
	Limit        int64         // most targets, control group included; 0 means no limit
}

// statement collects the arguments of one SQL text.
type statement struct{ args []any }

func (s *statement) bind(value any, cast string) string {
	s.args = append(s.args, value)
	return "$" + strconv.Itoa(len(s.args)) + "::" + cast
}

func (s *statement) predicate(p Predicate) string {
	sql := p.SQL(len(s.args) + 1)
	s.args = append(s.args, p.Args...)
	return sql
}

// inUnit emits the condition that a customer belongs to unit or to a unit below it.
func (s *statement) inUnit(unit string) string {
	return fmt.Sprintf("(%s = %s OR %s LIKE %s)",
		customerUnit, s.bind(unit, "text"), customerUnit, s.bind(escapeLike.Replace(unit)+"/%", "text"))
}

// tier emits the 1-based number of a customer's tier, NULL when no rule holds.
func (s *statement) tier(tiers []Tier) string {
	var b strings.Builder
	b.WriteString("CASE")
	for i, t := range tiers {
		fmt.Fprintf(&b, " WHEN %s THEN %d", s.predicate(t.Rule), i+1)
	}
	b.WriteString(" END")
	return b.String()
}

// SQL returns the one statement that freezes the snapshot into table, a trusted name, and its
// arguments. Its command tag counts the targets, control group included. It reads customer once
// and sorts the narrow rows of the targets for seq: run it with a work_mem of about 100 bytes a
// target and with jit off. Rows come in the order of seq, so an index of the table by customer
// is better built afterwards.
//
// A target's tier is the first whose rule holds, its wave the tier's. Its arm is control iff
// control_u < Threshold(ControlShare). Its shard is control_u mod Shards. seq counts from 1
// without gaps within (wave, arm, shard), by tier, score, and NewDraw's Order. With a limit
// the best tiers are filled first. score is 0 until a scoring step fills it.
//
// Every row is a function of the customer's row and the salt alone, so the same statement on
// the same data gives the same targets, whatever the physical order of the table.
//
// It panics without a tier, with fewer than one shard or with a control share out of range: a
// plan is validated before it is frozen.
func (sel Selection) SQL(table string) (string, []any) {
	if len(sel.Tiers) == 0 || sel.Shards < 1 {
		panic(fmt.Sprintf("targeting: selection with %d tiers and %d shards", len(sel.Tiers), sel.Shards))
	}
	s := &statement{}
	names, waves := make([]string, len(sel.Tiers)), make([]int32, len(sel.Tiers))
	for i, t := range sel.Tiers {
		names[i], waves[i] = t.Name, int32(t.Wave)
	}
	campaign, snapshot := s.bind(sel.CampaignID, "uuid"), s.bind(sel.Snapshot, "int")
	name, wave := s.bind(names, "text[]"), s.bind(waves, "int[]")
	threshold, shards := s.bind(Threshold(sel.ControlShare), "bigint"), s.bind(sel.Shards, "bigint")
	draw := DrawSQL(s.bind(sel.Salt, "text"), "id::text")

	where := []string{s.inUnit(sel.Unit), s.predicate(sel.Filter)}
	for _, x := range sel.Suppressions {
		where = append(where, "("+x.Condition+") IS NOT TRUE")
	}
	tier := s.tier(sel.Tiers)
	limit := ""
	if sel.Limit > 0 {
		limit = "\n    ORDER BY rank LIMIT " + s.bind(sel.Limit, "bigint")
	}

	// OFFSET 0 keeps the planner from merging the levels, which would hash again at each use
	// of u. Tier and place share one bigint, and so do wave, arm and shard: a sort by two
	// numbers takes half the time of one by five columns.
	return fmt.Sprintf(`INSERT INTO %[1]s
  (campaign_id, snapshot, customer_id, tier, wave, arm, score, shard, seq, control_u)
SELECT %[2]s, %[3]s, id, (%[4]s)[tier], (%[5]s)[tier], CASE WHEN u < %[6]s THEN '%[7]s' ELSE '%[8]s' END, 0, u %% %[9]s,
  row_number() OVER (PARTITION BY cell ORDER BY rank), u
FROM (
  SELECT id, tier, u, rank, ((%[5]s)[tier] * 2 + (u < %[6]s)::int) * %[9]s + u %% %[9]s AS cell
  FROM (
    SELECT id, tier, u, (tier::bigint << %[10]d) | %[11]s AS rank
    FROM (
      SELECT id, tier, %[12]s AS u
      FROM (
        SELECT %[13]s AS id, %[14]s AS tier
        FROM %[15]s c
        WHERE %[16]s
        OFFSET 0
      ) matching
      WHERE tier IS NOT NULL
      OFFSET 0
    ) drawn%[17]s
  ) ranked
) celled`,
		table, campaign, snapshot, name, wave, threshold, ArmControl, ArmTreated, shards,
		hashBits, placeSQL("u"), draw, customerID, tier, CustomerTable,
		strings.Join(where, "\n          AND "), limit), s.args
}
