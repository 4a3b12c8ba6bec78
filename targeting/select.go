package targeting

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/musterhq/muster/campaign"
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
	// Further are the waves that contact the tier after Wave, each with its share of the
	// tier's targets; Wave has what they leave.
	Further []WaveShare
}

// WaveShare is the part of a tier's targets that a wave contacts.
type WaveShare struct {
	Wave  int
	Share int // basis points
}

// Start is how a wave begins.
type Start struct {
	Channel campaign.Channel // that contacts its targets first
	At      time.Time        // as planned
	// Preferred means that each target is contacted through one of Channels alone, see
	// PreferSQL, and Channel is for those who prefer none.
	Preferred bool
	Channels  []Choice
}

// Suppression takes customers out of the targets; they are counted, never contacted.
type Suppression struct {
	Code      string // stable name, e.g. "opted_out"
	Condition string // trusted SQL over c, true for those taken out
	// Own and Sets say the same where it can be said so: those for whom Own, trusted SQL over
	// columns of c, holds, and the members of Sets. Own may be empty.
	Own  string
	Sets []Set
}

// TierSuppression is a suppression of candidates of some tiers: what is about a channel is
// about those whom that channel contacts first.
type TierSuppression struct {
	Suppression
	Tiers []int // numbers of the tiers, from 1
}

// OptedOut suppresses the customers who asked not to be contacted.
func OptedOut() Suppression { return among("opted_out", customerOptedOut) }

// Selection describes one frozen snapshot of a campaign's targets.
type Selection struct {
	CampaignID   string // UUID
	Snapshot     int    // number of the snapshot, 1, 2, …
	Unit         string // owner unit's path; its customers and those of the units below are the audience
	Filter       Predicate
	Suppressions []Suppression     // in the order in which a customer's reason is told
	ByTier       []TierSuppression // after those that are about everybody
	Tiers        []Tier            // in order of precedence, at least one, at most 7
	Starts       map[int]Start     // by wave
	Control      Control
	ControlShare int    // basis points of the targets held out, 0 to 10,000
	Salt         string // of the hash; must never change once a contact was sent
	Shards       int    // dispatch shards of a wave, 1 to 256
	Limit        int64  // most targets, control group included; 0 means no limit
	// Uses is what the filters and the control group name, in the versions it is compiled with.
	Uses []campaign.FilterUse
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

// UnitSQL returns the query that counts the customers of the unit, and its arguments.
func (sel Selection) UnitSQL() (string, []any) {
	s := &statement{}
	return fmt.Sprintf("SELECT count(*) FROM %s c WHERE %s", CustomerTable, s.inUnit(sel.Unit)), s.args
}
