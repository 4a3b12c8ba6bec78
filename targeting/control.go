package targeting

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// hashBits is the width of a draw: 52 bits are exact in a float64 and in a bigint.
const (
	hashBits = 52
	halfBits = hashBits / 2
	halfMask = 1<<halfBits - 1
)

// ControlMethod says how a control group is drawn.
type ControlMethod string

// The methods.
const (
	ControlByHash ControlMethod = "hash"  // each customer by their own number: the group has about its share
	ControlExact  ControlMethod = "exact" // so many of each stratum as the share asks for
	ControlByList ControlMethod = "list"  // by the arms of a list that was made elsewhere
)

// CodeNoArm is why a candidate does not become a target whom the list of arms does not name.
const CodeNoArm = "no_arm"

// Control says how a selection draws its control group.
type Control struct {
	Method ControlMethod // by hash when empty
	// Strata are trusted SQL columns of customer that divide the customers further than the
	// tier does, for an exact split.
	Strata []string
	// Account is a trusted SQL column of customer: customers with the same value are drawn as
	// one. Empty means that each is drawn alone.
	Account string
	List    string // UUID of the list whose arms are taken
}

// drawn is what is drawn, as SQL text.
func (c Control) drawn() string {
	if c.Account == "" {
		return customerID + "::text"
	}
	return fmt.Sprintf("coalesce(%s::text, %s::text)", c.Account, customerID)
}

// assignment is how a candidate's arm is worked out: arm is known where the customer is read,
// and decide says from that and u whether they are of the control group.
type assignment struct{ arm, decide string }

// assign emits the arms, with what customers must be joined to and the condition that somebody
// has none.
func (sel Selection) assign(s *statement) (join string, a assignment, unassigned string) {
	if sel.Control.Method == ControlByList {
		join = fmt.Sprintf(" LEFT JOIN customer_list_member a ON a.list_id = %s AND a.customer_id = %s", s.bind(sel.Control.List, "uuid"), customerID)
		return join, assignment{"a.arm", "_arm = '" + ArmControl + "'"}, "_arm IS NULL"
	}
	return "", assignment{"NULL::text", fmt.Sprintf("_u < %s", s.bind(Threshold(sel.ControlShare), "bigint"))}, ""
}

// ExactSize returns how many of n customers of a stratum an exact split holds out: share
// basis points of them rounded down, and one more with the probability of the rest, which the
// hash of the stratum decides.
func ExactSize(n int64, share int, salt, stratum string) int64 {
	size, rest := n*int64(share)/wholeShare, n*int64(share)%wholeShare
	if Draw(salt, stratumPrefix+stratum)>>restShift*wholeShare < rest<<(hashBits-restShift) {
		size++
	}
	return size
}

const (
	stratumPrefix = "stratum:"
	restShift     = 14 // leaves numbers that can be multiplied by wholeShare
	// strataSeparator comes between the values that make up the name of a stratum; no text of
	// a customer holds it.
	strataSeparator = "\x1f"
)

// ExactSQL returns the statement that gives the candidates of table who are not refused the arms
// of an exact split, and its arguments: within each stratum those with the least numbers are
// held out. A stratum is a tier, divided by Control.Strata; its name is the tier's number and
// the values, with the unit separator U+001F between. Doing it again changes nothing.
func (sel Selection) ExactSQL(table string) (string, []any) {
	s := &statement{}
	share, salt, separator := s.bind(sel.ControlShare, "bigint"), s.bind(sel.Salt, "text"), s.bind(strataSeparator, "text")
	stratum, join := "k.tier::text", ""
	for _, column := range sel.Control.Strata {
		stratum += fmt.Sprintf(" || %s || coalesce(%s::text, '')", separator, column)
		join = fmt.Sprintf(" JOIN %s c ON %s = k.customer_id", CustomerTable, customerID)
	}
	return fmt.Sprintf(`UPDATE %[1]s t SET control = x.control
FROM (
  SELECT customer_id, row_number() OVER (PARTITION BY stratum ORDER BY u, customer_id) <= n * %[2]s / %[3]d
    + ((%[4]s >> %[5]d) * %[3]d < (n * %[2]s %% %[3]d) << %[6]d)::int AS control
  FROM (
    SELECT *, count(*) OVER (PARTITION BY stratum) AS n
    FROM (SELECT k.customer_id, k.u, %[7]s AS stratum FROM %[1]s k%[8]s WHERE k.refused = '') strata
  ) counted
) x
WHERE x.customer_id = t.customer_id AND x.control <> t.control`,
		table, share, wholeShare, DrawSQL(salt, "'"+stratumPrefix+"' || stratum"), restShift, hashBits-restShift, stratum, join), s.args
}

// Draw returns the customer's number u under a salt: the first 52 bits of SHA-256 of
// salt + ":" + id, uniform over [0, 2^52) (decision science: control groups). The customer
// is in the control group iff u < Threshold(share). It is the same in Go and in PostgreSQL
// and never changes while the salt stays. id is the text of the customer's id, for a UUID
// its lower-case form with hyphens.
func Draw(salt, id string) int64 {
	sum := sha256.Sum256([]byte(salt + ":" + id))
	return int64(binary.BigEndian.Uint64(sum[:8]) >> (64 - hashBits))
}

// Place returns the place of a customer with number u among those of the same tier and
// score: the halves of u swapped. Ordering by u itself would put the control group first,
// and a limited selection would keep it and drop the customers to be contacted; the low
// half says nothing about the arm, and no two numbers share a place.
func Place(u int64) int64 { return u&halfMask<<halfBits | u>>halfBits }

// Threshold returns the least U that is not in a control group of share basis points
// (1,000 = 10 %): share × 2^52, rounded up. It panics outside 0 to 10,000.
func Threshold(share int) int64 {
	if share < 0 || share > wholeShare {
		panic(fmt.Sprintf("targeting: control share of %d basis points", share))
	}
	hi, lo := bits.Mul64(uint64(share), 1<<hashBits)
	quotient, rest := bits.Div64(hi, lo, wholeShare)
	if rest > 0 {
		quotient++
	}
	return int64(quotient)
}

// DrawSQL returns the SQL expression, of type bigint, that equals Draw(salt, id). salt and
// id are trusted SQL expressions of type text; the placeholder of a salt needs its cast.
func DrawSQL(salt, id string) string {
	// Seven bytes hold the 52 bits and four more; cutting bytes costs less than cutting hex digits.
	return fmt.Sprintf("(('x' || encode(substr(sha256(convert_to(%s || ':' || %s, 'UTF8')), 1, 7), 'hex'))::bit(56)::bigint >> 4)",
		salt, id)
}

// placeSQL returns the SQL of Place(u). PostgreSQL gives all bit operators one precedence.
func placeSQL(u string) string {
	return fmt.Sprintf("(((%[1]s & %[2]d) << %[3]d) | (%[1]s >> %[3]d))", u, halfMask, halfBits)
}
