package targeting

import (
	"fmt"
	"strings"
)

// OverlapSQL returns the query that compares whom mine holds for with each of others, and
// its arguments. Its one row is the count of mine and two arrays in the order of others:
// the counts of each, and of those for whom mine holds as well. It reads the customers of
// tenant, the root unit, once. Limits and control groups are left out of account: they
// take the same part of both.
func OverlapSQL(tenant string, mine Selection, others []Selection) (string, []any) {
	s := &statement{}
	columns := []string{s.holds(mine) + " AS mine"}
	theirs, both := make([]string, len(others)), make([]string, len(others))
	for i, o := range others {
		columns = append(columns, fmt.Sprintf("%s AS o%d", s.holds(o), i))
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

// FrozenOverlapSQL returns the query that compares whom mine holds for with the targets
// that were frozen for campaigns, by their ids, and its arguments. It has a row for each of
// them that has targets: its id, their count, and the count of those for whom mine holds.
//
// The targets are joined with the customers once, which takes as long for a hundred
// campaigns as reading their targets does: a look-up for each customer and campaign would
// not end.
func FrozenOverlapSQL(mine Selection, campaigns []string) (string, []any) {
	s := &statement{}
	holds, ids := s.holds(mine), s.bind(campaigns, "uuid[]")
	return fmt.Sprintf(`SELECT t.campaign_id::text, count(*), count(m.id)
FROM campaign_target t LEFT JOIN (SELECT %s AS id FROM %s c WHERE %s) m ON m.id = t.customer_id
WHERE t.campaign_id = ANY(%s)
GROUP BY t.campaign_id`, customerID, CustomerTable, holds, ids), s.args
}

// holds emits the condition that a selection takes a customer, never NULL.
func (s *statement) holds(sel Selection) string {
	all := []string{s.inUnit(sel.Unit), s.predicate(sel.Filter)}
	for _, x := range sel.Suppressions {
		all = append(all, "("+x.Condition+") IS NOT TRUE")
	}
	if len(sel.ByTier) > 0 {
		tier := s.tier(sel.Tiers)
		for _, x := range sel.ByTier {
			all = append(all, fmt.Sprintf("((%s) = ANY(%s) AND (%s)) IS NOT TRUE", tier, s.bind(x.Tiers, "int[]"), x.Condition))
		}
	}
	tiers := make([]string, len(sel.Tiers))
	for i, t := range sel.Tiers {
		tiers[i] = s.predicate(t.Rule)
	}
	all = append(all, "("+strings.Join(tiers, " OR ")+")")
	return "(" + strings.Join(all, " AND ") + ") IS TRUE"
}
