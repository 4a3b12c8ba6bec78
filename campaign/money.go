package campaign

import (
	"fmt"
	"math"
	"math/bits"
)

// Money is an amount in minor units (fen, cents) of one currency.
type Money struct {
	Minor    int64  `json:"minor"`
	Currency string `json:"currency"` // ISO 4217, e.g. "CNY"
}

// Add returns m+o. It fails on different currencies and on overflow.
func (m Money) Add(o Money) (Money, error) {
	if m.Currency != o.Currency {
		return Money{}, Errorf(CodeCurrencyMismatch, "cannot add %s to %s", o.Currency, m.Currency)
	}
	sum, err := AddMinor(m.Minor, o.Minor)
	return Money{Minor: sum, Currency: m.Currency}, err
}

// String formats m with its currency's decimals, e.g. "1234.50 CNY" or "1234 JPY"; a
// currency that is not known gets two.
func (m Money) String() string {
	digits, known := MinorDigits(m.Currency)
	if !known {
		digits = 2
	}
	sign, abs := "", uint64(m.Minor)
	if m.Minor < 0 {
		sign, abs = "-", uint64(-m.Minor)
	}
	text := fmt.Sprintf("%0*d", digits+1, abs)
	whole, part := text[:len(text)-digits], text[len(text)-digits:]
	if part != "" {
		part = "." + part
	}
	return sign + whole + part + " " + m.Currency
}

// AddMinor returns a+b in minor units, or CodeAmountOutOfRange on overflow.
func AddMinor(a, b int64) (int64, error) {
	sum := a + b
	if (sum > a) != (b > 0) && b != 0 {
		return 0, Errorf(CodeAmountOutOfRange, "the sum of %d and %d does not fit in 64 bits", a, b)
	}
	return sum, nil
}

// MulMinor returns unit×count in minor units for non-negative arguments, or
// CodeAmountOutOfRange on overflow or a negative argument.
func MulMinor(unit, count int64) (int64, error) {
	if unit < 0 || count < 0 {
		return 0, Errorf(CodeAmountOutOfRange, "%d × %d: amounts and counts must not be negative", unit, count)
	}
	hi, lo := bits.Mul64(uint64(unit), uint64(count))
	if hi != 0 || lo > math.MaxInt64 {
		return 0, Errorf(CodeAmountOutOfRange, "%d × %d does not fit in 64 bits", unit, count)
	}
	return int64(lo), nil
}
