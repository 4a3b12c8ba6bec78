package tabular

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"time"
)

// number turns the number of a cell into the text that a reader of the sheet means by it:
// dates as 2006-01-02 and 2006-01-02T15:04:05, times as 15:04:05, numbers in full – no
// exponent, no rounding to the places shown, 15 significant digits. It reports false for
// one that has lost digits.
func (w *workbook) number(text []byte, styleNumber int) ([]byte, bool) {
	var shown style
	if styleNumber >= 0 && styleNumber < len(w.styles) {
		shown = w.styles[styleNumber]
	}
	if shown.kind == plainNumber && len(text) <= 15 && allDigits(text) {
		return text, true
	}
	value, err := strconv.ParseFloat(string(text), 64)
	if err != nil || math.IsInf(value, 0) || math.IsNaN(value) {
		return text, true // no number after all: the importer says which column wants one
	}
	switch shown.kind {
	case date, elapsed:
		if at, ok := w.instant(value, shown.kind); ok {
			return at, true
		}
	case leadingZeros:
		if value >= 0 && value == math.Trunc(value) && value < 1e15 {
			return fmt.Appendf(nil, "%0*.0f", shown.digits, value), true
		}
	}
	if bytes.ContainsAny(text, "eE") && math.Abs(value) >= 1e15 {
		return nil, false
	}
	if allDigits(text) {
		return text, true
	}
	// As much as the program shows and computes with; the rest is what binary makes of it.
	rounded, err := strconv.ParseFloat(strconv.FormatFloat(value, 'g', 15, 64), 64)
	if err != nil {
		return text, true
	}
	return strconv.AppendFloat(nil, rounded, 'f', -1, 64), true
}

func allDigits(text []byte) bool {
	for _, c := range text {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// lastDay is 9999-12-31.
const lastDay = 2958465

// instant turns a number of days into a date, a time of day or both.
func (w *workbook) instant(days float64, kind styleKind) ([]byte, bool) {
	if days < 0 || days >= lastDay+1 {
		return nil, false
	}
	whole := math.Floor(days)
	seconds := int64(math.Round((days - whole) * 86400))
	if kind == elapsed {
		seconds += int64(whole) * 86400
		return fmt.Appendf(nil, "%02d:%02d:%02d", seconds/3600, seconds/60%60, seconds%60), true
	}
	zero := time.Date(1899, time.December, 30, 0, 0, 0, 0, time.UTC)
	switch {
	case w.since == 1904:
		zero = time.Date(1904, time.January, 1, 0, 0, 0, 0, time.UTC)
	case whole < 60:
		// Spreadsheets know a 29 February 1900, number 60, that never was.
		zero = zero.AddDate(0, 0, 1)
	}
	at := zero.AddDate(0, 0, int(whole)).Add(time.Duration(seconds) * time.Second)
	switch {
	case whole == 0 && days > 0:
		return at.AppendFormat(nil, "15:04:05"), true
	case seconds == 0:
		return at.AppendFormat(nil, "2006-01-02"), true
	}
	return at.AppendFormat(nil, "2006-01-02T15:04:05"), true
}
