package targeting

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// Preview describes the head-counts that a planner sees before anything is frozen.
type Preview struct {
	Unit         string            // its customers and those of the units below are the audience
	Conditions   []Condition       // all of them must hold
	Suppressions []Suppression     // in the order in which a customer's reason is told
	ByTier       []TierSuppression // after those, of customers of some tiers
	Tiers        []Tier            // in order of precedence; none for one tier of everybody
	ControlShare int               // basis points
	Limit        int64             // most targets; 0 means no limit
	// Quiet returns what quiet hours do to customers of the tier at an index who live in a time
	// zone, when their waves begin as planned; nil when they do not matter.
	Quiet func(tier int, zone string) []Quiet
}

// Quiet is a share of customers whom a rule of quiet hours keeps from being contacted at once.
type Quiet struct {
	Rule    string
	Share   float64
	TooLate bool // it holds until their contact's time is over
}

// PreviewCell is a row of PreviewSQL: customers who came equally far and are of one unit.
type PreviewCell struct {
	Block     int64 // of the table's, in a sample
	Step      int
	Unit      string
	Zone      string // where Quiet asks for it
	Customers int64
}

// Figure is a number of customers, counted or estimated.
type Figure struct {
	Customers     int64   `json:"customers"`
	StandardError float64 `json:"standard_error,omitempty"` // of an estimate, in customers
}

// NamedFigure is a Figure of a condition, rule, tier or unit.
type NamedFigure struct {
	Name string `json:"name"`
	Figure
}

// QuietFigure counts customers whom quiet hours keep from being contacted when their wave
// begins. Nobody is taken out by them.
type QuietFigure struct {
	Rule     string `json:"rule"`
	Deferred int64  `json:"deferred"` // contacted when they are over
	TooLate  int64  `json:"too_late"` // not contacted, because they are over too late
}

// PreviewCounts are the figures of a preview.
type PreviewCounts struct {
	InUnit     Figure        `json:"in_unit"`
	Conditions []NamedFigure `json:"conditions"` // who is left after each condition, by its text
	Suppressed []NamedFigure `json:"suppressed"` // of those for whom all hold, taken out, by the first rule that does
	Quiet      []QuietFigure `json:"quiet"`      // of the eligible, who must wait
	NoTier     Figure        `json:"no_tier"`    // of the rest, in no tier
	Tiers      []NamedFigure `json:"tiers"`      // eligible, before the limit
	Units      []NamedFigure `json:"units"`      // eligible, by the unit itself and those one level below
	Eligible   Figure        `json:"eligible"`
	Targets    int64         `json:"targets"`           // eligible, after the limit; control group included
	Control    int64         `json:"control"`           // expected of them in the control group
	Sampled    int64         `json:"sampled,omitempty"` // customers that an estimate looked at
}

// outside is the step of customers of other units, in a sample.
const outside = -1

// SQL returns the query of the preview's cells, and its arguments. It reads customer once and
// may run in parallel. Sets are joined, so that each is read once, and not once for each
// customer.
func (p Preview) SQL() (string, []any) {
	j := &joins{statement: &statement{}}
	step := p.step(j, "")
	unit := j.inUnit(p.Unit)
	return fmt.Sprintf("SELECT 0::bigint, %s, %s, %s, count(*)\nFROM %s\nWHERE %s\nGROUP BY 2, 3, 4", step, customerUnit, p.zone(), j.from(""), unit), j.args
}

// SampleSQL returns the query of the cells in a sample of the table's blocks, in the order of
// blocks, and its arguments. percent is how many of the blocks are read; the same seed reads
// the same ones. All customers of a block are in the sample, those of other units too.
func (p Preview) SampleSQL(percent float64, seed int32) (string, []any) {
	j := &joins{statement: &statement{}}
	step := p.step(j, j.inUnit(p.Unit))
	sample := fmt.Sprintf("TABLESAMPLE SYSTEM (%g) REPEATABLE (%d)", percent, seed)
	return fmt.Sprintf("SELECT (c.ctid::text::point)[0]::bigint, %s, %s, %s, count(*)\nFROM %s\nGROUP BY 1, 2, 3, 4\nORDER BY 1", step, customerUnit, p.zone(), j.from(sample)), j.args
}

// zone emits the time zone of a customer, where it matters.
func (p Preview) zone() string {
	if p.Quiet == nil {
		return "''::text"
	}
	return "c.time_zone"
}

// step emits how far a customer comes: the number of conditions that hold before one that does
// not, and from len(Conditions) on the suppressions, the tiers and none of them.
func (p Preview) step(j *joins, inUnit string) string {
	var b strings.Builder
	b.WriteString("(CASE")
	if inUnit != "" {
		fmt.Fprintf(&b, "\n  WHEN NOT %s THEN %d", inUnit, outside)
	}
	n := 0
	for _, c := range p.Conditions {
		fmt.Fprintf(&b, "\n  WHEN %s IS NOT TRUE THEN %d", j.predicate(c.Predicate), n)
		n++
	}
	codes := p.codes()
	sets, conditions := barredBy(p.Suppressions, p.ByTier, barredBeside)
	for i, x := range p.Suppressions {
		fmt.Fprintf(&b, "\n  WHEN (%s) THEN %d", conditions[i], n+slices.Index(codes, x.Code))
	}
	conditions = conditions[len(p.Suppressions):]
	for i, t := range p.Tiers {
		fmt.Fprintf(&b, "\n  WHEN %s THEN (CASE", j.predicate(t.Rule))
		for k, x := range p.ByTier {
			if slices.Contains(x.Tiers, i+1) {
				fmt.Fprintf(&b, " WHEN (%s) THEN %d", conditions[k], n+slices.Index(codes, x.Code))
			}
		}
		fmt.Fprintf(&b, " WHEN true THEN %d END)", n+len(codes)+i)
	}
	j.sql += sets.join
	fmt.Fprintf(&b, "\n  ELSE %d END)", n+len(codes)+len(p.Tiers))
	return b.String()
}

// codes lists the rules that take customers out, each once.
func (p Preview) codes() (all []string) {
	for _, x := range p.Suppressions {
		all = append(all, x.Code)
	}
	for _, x := range p.ByTier {
		if !slices.Contains(all, x.Code) {
			all = append(all, x.Code)
		}
	}
	return all
}

// ofTier lists what takes customers of the tier at i out.
func (p Preview) ofTier(i int) (rules []Suppression) {
	for _, x := range p.ByTier {
		if slices.Contains(x.Tiers, i+1) {
			rules = append(rules, x.Suppression)
		}
	}
	return rules
}

// eligible emits the condition that a customer comes to a tier.
func (p Preview) eligible(s *statement) string {
	all := []string{s.inUnit(p.Unit)}
	for _, c := range p.Conditions {
		all = append(all, s.predicate(c.Predicate))
	}
	for _, x := range p.Suppressions {
		all = append(all, "("+x.Condition+") IS NOT TRUE")
	}
	switch {
	case len(p.ByTier) > 0:
		rules := make([]string, len(p.Tiers))
		for i, t := range p.Tiers {
			rules[i] = " WHEN " + s.predicate(t.Rule) + " THEN " + free(p.ofTier(i))
		}
		all = append(all, "(CASE"+strings.Join(rules, "")+" END)")
	case len(p.Tiers) > 0:
		tiers := make([]string, len(p.Tiers))
		for i, t := range p.Tiers {
			tiers[i] = s.predicate(t.Rule)
		}
		all = append(all, "("+strings.Join(tiers, " OR ")+")")
	}
	return strings.Join(all, "\n  AND ")
}

// free emits the condition that none of the rules takes a customer out.
func free(rules []Suppression) string {
	all := []string{"true"}
	for _, x := range rules {
		all = append(all, "("+x.Condition+") IS NOT TRUE")
	}
	return "(" + strings.Join(all, " AND ") + ")"
}

// ReachSQL returns the query of how many of the eligible have a number and how many of those
// each of the channels may contact, given what suppresses contacts in it, and its arguments.
// Its one row has the two or more counts in that order.
func (p Preview) ReachSQL(channels [][]Suppression) (string, []any) {
	s := &statement{}
	columns := []string{"count(*)"}
	for _, rules := range channels {
		columns = append(columns, "count(*) FILTER (WHERE "+free(rules)+")")
	}
	return fmt.Sprintf("SELECT ARRAY[%s]\nFROM %s c JOIN phone_vault n ON n.customer_id = %s\nWHERE %s",
		strings.Join(columns, ", "), CustomerTable, customerID, p.eligible(s)), s.args
}

// ExamplesSQL returns the query of a few of the eligible, drawn by a hash that the seed
// salts, and its arguments: id, external id, unit and a JSON object of columns, by name.
// percent below 100 looks for them in so many of the table's blocks.
func (p Preview) ExamplesSQL(columns []Field, seed int32, percent float64, limit int) (string, []any) {
	s := &statement{}
	values := make([]string, 0, 2*len(columns))
	for _, f := range columns {
		values = append(values, s.bind(f.Name, "text"), f.Column)
	}
	sample := ""
	if percent < 100 {
		sample = fmt.Sprintf(" TABLESAMPLE SYSTEM (%g) REPEATABLE (%d)", percent, seed)
	}
	return fmt.Sprintf("SELECT c.id::text, c.external_id, c.org_unit, jsonb_build_object(%s)\nFROM %s c%s\nWHERE %s\nORDER BY uuid_hash_extended(c.id, %d), c.id LIMIT %d",
		strings.Join(values, ", "), CustomerTable, sample, p.eligible(s), seed, limit), s.args
}

// moments sums up what each block of a table has of one figure.
type moments struct {
	sum, squares float64
	block        int64 // whose customers are in open
	open         float64
}

func (m *moments) add(block, customers int64) {
	if block != m.block {
		m.close()
		m.block = block
	}
	m.open += float64(customers)
}

func (m *moments) close() {
	m.sum += m.open
	m.squares += m.open * m.open
	m.open = 0
}

// total returns the figure of a table of all blocks, of which read were read: the blocks'
// mean times their number, and its standard error for a sample of whole blocks (cluster
// sampling without replacement: N²(1 - n/N)s²/n).
func (m *moments) total(read, all float64) Figure {
	m.close()
	if read >= all {
		return Figure{Customers: int64(m.sum)}
	}
	f := Figure{Customers: int64(math.Round(m.sum / read * all))}
	if read > 1 {
		variance := max(0, m.squares-m.sum*m.sum/read) / (read - 1)
		f.StandardError = math.Round(all * math.Sqrt((1-read/all)*variance/read))
	}
	return f
}

// Counts sums up cells: all of SQL, or for blocks > 0 those of SampleSQL of a table of so many
// blocks.
func (p Preview) Counts(cells []PreviewCell, blocks int64) PreviewCounts {
	var (
		codes    = p.codes()
		first    = len(p.Conditions)            // the first rule's step
		tiers    = first + len(codes)           // the first tier's
		none     = tiers + max(len(p.Tiers), 1) // the step of those in no tier, where there are tiers
		passed   = make([]moments, first+1)
		at       = make([]moments, none+1)
		eligible moments
		units    = map[string]*moments{}
		read     = map[int64]bool{}
		quiet    = map[string][2]float64{} // deferred and too late, by rule
		sampled  int64
	)
	for _, c := range cells {
		read[c.Block] = true
		sampled += c.Customers
		if c.Step == outside {
			continue
		}
		for i := 0; i <= min(c.Step, first); i++ {
			passed[i].add(c.Block, c.Customers)
		}
		at[c.Step].add(c.Block, c.Customers)
		if c.Step >= tiers && c.Step < none {
			eligible.add(c.Block, c.Customers)
			unit := p.below(c.Unit)
			if units[unit] == nil {
				units[unit] = &moments{}
			}
			units[unit].add(c.Block, c.Customers)
			p.hush(quiet, c, c.Step-tiers)
		}
	}
	n, all := 1.0, 1.0
	if blocks > 0 {
		n, all = float64(len(read)), float64(max(blocks, int64(len(read))))
	}
	counts := PreviewCounts{InUnit: passed[0].total(n, all), Eligible: eligible.total(n, all), Conditions: []NamedFigure{}, Suppressed: []NamedFigure{}, Tiers: []NamedFigure{}, Units: []NamedFigure{}}
	for i, c := range p.Conditions {
		counts.Conditions = append(counts.Conditions, NamedFigure{c.Text, passed[i+1].total(n, all)})
	}
	for i, code := range codes {
		counts.Suppressed = append(counts.Suppressed, NamedFigure{code, at[first+i].total(n, all)})
	}
	for i, t := range p.Tiers {
		counts.Tiers = append(counts.Tiers, NamedFigure{t.Name, at[tiers+i].total(n, all)})
	}
	counts.NoTier = at[none].total(n, all)
	for unit, m := range units {
		counts.Units = append(counts.Units, NamedFigure{unit, m.total(n, all)})
	}
	slices.SortFunc(counts.Units, func(a, b NamedFigure) int { return strings.Compare(a.Name, b.Name) })
	counts.Quiet = []QuietFigure{}
	for _, rule := range slices.Sorted(maps.Keys(quiet)) {
		found := quiet[rule]
		counts.Quiet = append(counts.Quiet, QuietFigure{rule, int64(math.Round(found[0] / n * all)), int64(math.Round(found[1] / n * all))})
	}
	if blocks > 0 {
		counts.Sampled = sampled
	}
	counts.Targets = counts.Eligible.Customers
	if p.Limit > 0 {
		counts.Targets = min(counts.Targets, p.Limit)
	}
	counts.Control = ExpectedControl(counts.Targets, p.ControlShare)
	return counts
}

// hush adds to found whom of a cell of a tier quiet hours keep waiting.
func (p Preview) hush(found map[string][2]float64, c PreviewCell, tier int) {
	if p.Quiet == nil {
		return
	}
	for _, q := range p.Quiet(tier, c.Zone) {
		f := found[q.Rule]
		if q.TooLate {
			f[1] += float64(c.Customers) * q.Share
		} else {
			f[0] += float64(c.Customers) * q.Share
		}
		found[q.Rule] = f
	}
}

// below returns which of the units one level below the preview's a unit belongs to, or the
// preview's own.
func (p Preview) below(unit string) string {
	rest, ok := strings.CutPrefix(unit, p.Unit+"/")
	if !ok {
		return p.Unit
	}
	child, _, _ := strings.Cut(rest, "/")
	return p.Unit + "/" + child
}

// ExpectedControl is how many of so many targets a share in basis points holds out, rounded.
func ExpectedControl(targets int64, share int) int64 {
	const whole = 10_000
	return targets/whole*int64(share) + (targets%whole*int64(share)+whole/2)/whole
}
