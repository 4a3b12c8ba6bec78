package targeting

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// joins are the sets that a statement's predicates ask for, each joined to the customers once.
type joins struct {
	*statement
	sql  string // what follows the customers in FROM
	made []string
}

// predicate emits a predicate over sets that are joined to the customers, in place of asking
// for each customer: where conditions are counted and not only filtered by, the planner has no
// semi-join.
func (j *joins) predicate(p Predicate) string {
	// A set that is there already leaves its values unused, so each is bound where it is met.
	bound := map[string]string{}
	bind := func(match string) string {
		if bound[match] == "" {
			j.args = append(j.args, p.Args[number(match)-1])
			bound[match] = "$" + strconv.Itoa(len(j.args))
		}
		return bound[match]
	}
	return placeholder.ReplaceAllStringFunc(p.replaceSets(func(x Set) string {
		members := x.members()
		key := placeholder.ReplaceAllStringFunc(members, func(match string) string { return fmt.Sprintf("%q", p.Args[number(match)-1]) })
		at := slices.Index(j.made, key)
		if at < 0 {
			at = len(j.made)
			j.made = append(j.made, key)
			j.sql += fmt.Sprintf("\n  LEFT JOIN (%s) set%d ON set%[2]d.customer_id = %s", placeholder.ReplaceAllStringFunc(members, bind), at, customerID)
		}
		return fmt.Sprintf("(set%d.customer_id IS NOT NULL)", at)
	}), bind)
}

// number returns the number of a placeholder.
func number(match string) int {
	n, _ := strconv.Atoi(match[1:])
	return n
}

// from emits the customers with the sets joined to them.
func (j *joins) from(sample string) string {
	return strings.TrimSpace(CustomerTable+" c "+sample) + j.sql
}
