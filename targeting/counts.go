package targeting

import (
	"fmt"
	"strings"
)

// CountKind says what a Count counts.
type CountKind string

// The kinds of counts, in the order in which customers fall out.
const (
	CountNotMatching CountKind = "not_matching" // of the unit, but the filter does not hold
	CountSuppressed  CountKind = "suppressed"   // matching, but the suppression named by Code takes them out
	CountTier        CountKind = "tier"         // eligible, in the tier named by Code
	CountNoTier      CountKind = "no_tier"      // matching and not suppressed, but no tier's rule holds
)

// Count is one step of the way from the unit's customers to the targets. Every customer of
// the unit is in exactly one of a selection's counts.
type Count struct {
	Kind      CountKind `json:"kind"`
	Code      string    `json:"code,omitempty"`
	Customers int64     `json:"customers"`
}

// Waterfall is the head-count of a selection before it is frozen.
type Waterfall struct {
	InUnit     int64   `json:"in_unit"`    // customers of the unit and the units below
	Matching   int64   `json:"matching"`   // of those, the filter holds
	Suppressed []Count `json:"suppressed"` // of those, taken out, by the first reason that applies
	NoTier     int64   `json:"no_tier"`    // of the rest, in no tier
	Tiers      []Count `json:"tiers"`      // eligible, before the limit
	Targets    int64   `json:"targets"`    // eligible, after the limit; control group included
	// Control is the expected size of the control group, rounded; the hash decides the exact one.
	Control int64 `json:"control"`
}

// steps lists the counts of sel in the order of precedence that CountsSQL uses.
func (sel Selection) steps() []Count {
	steps := []Count{{Kind: CountNotMatching}}
	for _, x := range sel.Suppressions {
		steps = append(steps, Count{Kind: CountSuppressed, Code: x.Code})
	}
	for _, t := range sel.Tiers {
		steps = append(steps, Count{Kind: CountTier, Code: t.Name})
	}
	return append(steps, Count{Kind: CountNoTier})
}

// CountsSQL returns the query that counts where the unit's customers fall out, and its
// arguments. Its rows are kind, code and customers, one for every step, zero counts included.
// It reads customer once and may run in parallel.
func (sel Selection) CountsSQL() (string, []any) {
	s := &statement{}
	var kinds, codes []string
	for _, step := range sel.steps() {
		kinds, codes = append(kinds, string(step.Kind)), append(codes, step.Code)
	}
	names := fmt.Sprintf("unnest(%s, %s)", s.bind(kinds, "text[]"), s.bind(codes, "text[]"))
	unit := s.inUnit(sel.Unit)

	var b strings.Builder
	step := 1
	when := func(condition string) {
		fmt.Fprintf(&b, "\n      WHEN %s THEN %d", condition, step)
		step++
	}
	when(s.predicate(sel.Filter) + " IS NOT TRUE")
	for _, x := range sel.Suppressions {
		when("(" + x.Condition + ")")
	}
	for _, t := range sel.Tiers {
		when(s.predicate(t.Rule))
	}
	return fmt.Sprintf(`SELECT kind, code, coalesce(customers, 0)
FROM %s WITH ORDINALITY steps(kind, code, step)
LEFT JOIN (
  SELECT (CASE%s
      ELSE %d END)::bigint AS step, count(*) AS customers
  FROM %s c
  WHERE %s
  GROUP BY 1
) counted USING (step)
ORDER BY step`, names, b.String(), step, CustomerTable, unit), s.args
}

// Waterfall sums up the rows of CountsSQL.
func (sel Selection) Waterfall(counts []Count) Waterfall {
	w := Waterfall{Suppressed: []Count{}, Tiers: []Count{}}
	for _, c := range counts {
		w.InUnit += c.Customers
		if c.Kind != CountNotMatching {
			w.Matching += c.Customers
		}
		switch c.Kind {
		case CountSuppressed:
			w.Suppressed = append(w.Suppressed, c)
		case CountNoTier:
			w.NoTier = c.Customers
		case CountTier:
			w.Tiers = append(w.Tiers, c)
			w.Targets += c.Customers
		}
	}
	if sel.Limit > 0 {
		w.Targets = min(w.Targets, sel.Limit)
	}
	const whole = 10_000
	share := int64(sel.ControlShare)
	w.Control = w.Targets/whole*share + (w.Targets%whole*share+whole/2)/whole
	return w
}
