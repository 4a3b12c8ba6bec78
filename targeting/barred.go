package targeting

import (
	"fmt"
	"slices"
	"strings"
)

// among suppresses those for whom own holds, trusted SQL over columns of c or nothing, and the
// members of sets.
func among(code, own string, sets ...Set) Suppression {
	var asked []string
	if own != "" {
		asked = append(asked, own)
	}
	for _, x := range sets {
		asked = append(asked, x.exists())
	}
	return Suppression{Code: code, Condition: "(" + strings.Join(asked, " OR ") + ")", Own: own, Sets: sets}
}

// barred is the look-up of all suppressions at once, in place of asking for each customer and
// each rule: a number per customer, of the first rule whose sets they are in. Rules of some
// tiers have a number of their own, because another tier's would hide it.
type barred struct {
	join    string     // what follows the customers in FROM
	columns string     // the numbers by the names _barred0, _barred1, …, after other columns of SELECT
	name    string     // format of a number's name in conditions
	groups  [][]int    // tiers, nil for all
	rules   [][]string // SQL of the sets' members, by group
}

// The names of a look-up's numbers, beside the join and above columns.
const (
	barredBeside = "barred%d.n"
	barredAbove  = "_barred%d"
)

// barredBy prepares the look-up for the suppressions of all and of tiers, and returns for each,
// in this order, the condition over the numbers and c.
func barredBy(all []Suppression, byTier []TierSuppression, name string) (b barred, conditions []string) {
	b.name = name
	for _, x := range all {
		conditions = append(conditions, b.add(x, nil))
	}
	for _, x := range byTier {
		conditions = append(conditions, b.add(x.Suppression, x.Tiers))
	}
	for i, rules := range b.rules {
		b.columns += ", " + fmt.Sprintf(barredBeside, i) + " AS " + fmt.Sprintf(barredAbove, i)
		b.join += fmt.Sprintf(`
      LEFT JOIN (SELECT customer_id, min(n) AS n FROM (
        %s
      ) s GROUP BY customer_id) barred%d ON barred%[2]d.customer_id = %s`, strings.Join(rules, "\n        UNION ALL "), i, customerID)
	}
	return b, conditions
}

func (b *barred) add(x Suppression, tiers []int) string {
	if len(x.Sets) == 0 {
		return x.Condition
	}
	i := slices.IndexFunc(b.groups, func(g []int) bool { return slices.Equal(g, tiers) })
	if i < 0 {
		i = len(b.groups)
		b.groups, b.rules = append(b.groups, tiers), append(b.rules, nil)
	}
	n := len(b.rules[i]) // grows from rule to rule
	for _, set := range x.Sets {
		b.rules[i] = append(b.rules[i], fmt.Sprintf("SELECT s.customer_id, %d AS n FROM %s WHERE %s", n, set.From, set.Where))
	}
	condition := fmt.Sprintf(b.name+" = %d", i, n)
	if x.Own != "" {
		condition = x.Own + " OR " + condition
	}
	return "(" + condition + ")"
}
