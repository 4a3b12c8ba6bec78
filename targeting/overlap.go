package targeting

import (
	"fmt"
	"strings"
)

// Reach is whom a campaign reaches: the targets frozen for it, or else whom its rules
// hold for.
type Reach struct {
	Frozen string // campaign id; empty when nothing is frozen yet
	Rules  Selection
}

// OverlapSQL returns the query that compares whom mine reaches with each of others, and
// its arguments. Its one row is the count of mine and two arrays in the order of others:
// the counts of each, and of those whom mine reaches as well. It reads the customers of
// tenant, the root unit, once. Limits and control groups are left out of account: they
// take the same part of both.
func OverlapSQL(tenant string, mine Reach, others []Reach) (string, []any) {
	s := &statement{}
	columns := []string{s.reached(mine) + " AS mine"}
	theirs, both := make([]string, len(others)), make([]string, len(others))
	for i, o := range others {
		columns = append(columns, fmt.Sprintf("%s AS o%d", s.reached(o), i))
		theirs[i] = fmt.Sprintf("count(*) FILTER (WHERE o%d)", i)
		both[i] = fmt.Sprintf("count(*) FILTER (WHERE mine AND o%d)", i)
	}
	// OFFSET 0 keeps the planner from computing each condition twice.
	return fmt.Sprintf(`SELECT count(*) FILTER (WHERE mine), ARRAY[%s]::bigint[], ARRAY[%s]::bigint[]
FROM (
  SELECT %s
  FROM %s c
  WHERE %s
  OFFSET 0
) reached`, strings.Join(theirs, ", "), strings.Join(both, ", "), strings.Join(columns, ",\n    "), CustomerTable, s.inUnit(tenant)), s.args
}

// reached emits the condition that a campaign reaches a customer, never NULL.
func (s *statement) reached(r Reach) string {
	if r.Frozen != "" {
		return fmt.Sprintf("%s IN (SELECT customer_id FROM campaign_target WHERE campaign_id = %s)", customerID, s.bind(r.Frozen, "uuid"))
	}
	all := []string{s.inUnit(r.Rules.Unit), s.predicate(r.Rules.Filter)}
	for _, x := range r.Rules.Suppressions {
		all = append(all, "("+x.Condition+") IS NOT TRUE")
	}
	tiers := make([]string, len(r.Rules.Tiers))
	for i, t := range r.Rules.Tiers {
		tiers[i] = s.predicate(t.Rule)
	}
	all = append(all, "("+strings.Join(tiers, " OR ")+")")
	return "(" + strings.Join(all, " AND ") + ") IS TRUE"
}
