package demo

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/musterhq/muster/evaluation"
)

// table is text in columns: the first is aligned left, numbers in the others right.
type table struct {
	head []string
	rows [][]string
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// write prints the table, each line after the indent and without trailing blanks.
func (t *table) write(w io.Writer, indent string) {
	widths := make([]int, len(t.head))
	lines := append([][]string{t.head}, t.rows...)
	for _, cells := range lines {
		for i, c := range cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	for _, cells := range lines {
		var b strings.Builder
		for i, c := range cells {
			gap := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
			if i > 0 {
				b.WriteString("  ")
				c = gap + c
			} else {
				c += gap
			}
			b.WriteString(c)
		}
		_, _ = fmt.Fprintln(w, indent+strings.TrimRight(b.String(), " "))
	}
}

// amount formats minor units with two decimals and groups of three, e.g. 12,345.60.
func amount(minor int64) string {
	sign, abs := "", uint64(minor)
	if minor < 0 {
		sign, abs = "-", -abs
	}
	return sign + group(strconv.FormatUint(abs/100, 10)) + fmt.Sprintf(".%02d", abs%100)
}

// count formats a whole number in groups of three.
func count(n int64) string {
	if n < 0 {
		return "-" + group(strconv.FormatUint(-uint64(n), 10))
	}
	return group(strconv.FormatInt(n, 10))
}

func group(digits string) string {
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// percent formats a rate, or says that there is none.
func percent(e evaluation.Estimate) string {
	if !e.Estimable {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100**e.Value)
}

// interval adds the 95 % interval to a rate; a missing bound is unbounded.
func interval(e evaluation.Estimate) string {
	if !e.Estimable {
		return words(string(e.Reason))
	}
	bound := func(x *float64) string {
		if x == nil {
			return "unbounded"
		}
		return fmt.Sprintf("%.1f %%", 100**x)
	}
	return fmt.Sprintf("%s (95 %%: %s to %s)", percent(e), bound(e.Low), bound(e.High))
}

// money formats an amount of the evaluation, or says why there is none.
func money(a evaluation.Amount, currency string) string {
	if !a.Estimable {
		return "not estimable: " + words(string(a.Reason))
	}
	return amount(*a.Minor) + " " + currency
}

// words makes a stable code readable.
func words(code string) string { return strings.ReplaceAll(code, "_", " ") }
