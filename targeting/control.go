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
	if share < 0 || share > 10_000 {
		panic(fmt.Sprintf("targeting: control share of %d basis points", share))
	}
	hi, lo := bits.Mul64(uint64(share), 1<<hashBits)
	quotient, rest := bits.Div64(hi, lo, 10_000)
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
