package market

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Truth is what is true of a simulated market. All rates are probabilities.
type Truth struct {
	Seed     uint64
	BaseRate map[string]float64 // tier → share that converts without contact
	// Effect is what a contact adds to the base rate: channel → tier →
	// probability. Every channel names every tier.
	Effect        map[string]map[string]float64
	ResponseDelay Delay
}

// Delay is how long customers take to respond: exponential with the given
// mean, cut off at Max. A mean of 0 means at once.
type Delay struct {
	Mean time.Duration
	Max  time.Duration
}

// file is the form of a truth in JSON. Durations are text such as "36h".
type file struct {
	Seed          uint64                        `json:"seed"`
	BaseRate      map[string]float64            `json:"base_rate"`
	Effect        map[string]map[string]float64 `json:"effect"`
	ResponseDelay struct {
		Mean string `json:"mean"`
		Max  string `json:"max"`
	} `json:"response_delay"`
}

//go:embed default.json
var defaultTruth []byte

// Default returns a market of plausible size whose figures are made up.
func Default() Truth {
	t, err := ParseTruth(defaultTruth)
	if err != nil {
		panic(err) // the file is part of the program and tested
	}
	return t
}

// FieldError says what is wrong with one field of a truth.
type FieldError struct {
	Line   int    // in the file; 0 when the truth did not come from one
	Field  string // path such as effect.sms.core; empty for the whole
	Reason string
}

func (e FieldError) Error() string {
	var b strings.Builder
	if e.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", e.Line)
	}
	if e.Field != "" {
		b.WriteString(e.Field + ": ")
	}
	return b.String() + e.Reason
}

// Errors are all the faults that were found.
type Errors []FieldError

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, f := range e {
		lines[i] = f.Error()
	}
	return "market truth: " + strings.Join(lines, "; ")
}

// ParseTruth reads a truth from JSON. Unknown, duplicate, missing and empty
// fields and trailing input are refused; the error is Errors with all faults
// that could be found, each with its line.
func ParseTruth(data []byte) (Truth, error) {
	ends, err := locate(data)
	if err != nil {
		return Truth{}, err
	}
	lines := map[string]int{}
	for field, end := range ends {
		lines[field] = lineOf(data, end)
	}
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return Truth{}, Errors{{Line: lineOf(data, wrong.Offset), Field: lastBefore(ends, wrong.Offset), Reason: wrong.Value + " is of the wrong type"}}
		}
		return Truth{}, Errors{{Reason: err.Error()}}
	}
	t := Truth{Seed: f.Seed, BaseRate: f.BaseRate, Effect: f.Effect}
	errs := checkFields(lines)
	duration := func(field, text string) (d time.Duration) {
		if lines[field] > 0 {
			if d, err = time.ParseDuration(text); err != nil {
				errs = append(errs, FieldError{Line: lines[field], Field: field, Reason: fmt.Sprintf("%q is not a duration such as 36h or 1m30s", text)})
			}
		}
		return d
	}
	t.ResponseDelay.Mean = duration("response_delay.mean", f.ResponseDelay.Mean)
	t.ResponseDelay.Max = duration("response_delay.max", f.ResponseDelay.Max)
	if len(errs) == 0 { // what is not there or not understood cannot be judged
		errs = t.check(lines)
	}
	if len(errs) > 0 {
		slices.SortStableFunc(errs, func(a, b FieldError) int { return a.Line - b.Line })
		return Truth{}, errs
	}
	return t, nil
}

// checkFields returns the fields that are missing or have no meaning.
func checkFields(lines map[string]int) (errs Errors) {
	for _, field := range slices.Sorted(maps.Keys(lines)) {
		if !known(field) {
			errs = append(errs, FieldError{Line: lines[field], Field: field, Reason: "no such field"})
		}
	}
	for _, field := range []string{"seed", "base_rate", "effect", "response_delay", "response_delay.mean", "response_delay.max"} {
		if _, given := lines[field]; !given {
			errs = append(errs, FieldError{Line: lineNear(lines, field), Field: field, Reason: "is missing"})
		}
	}
	return errs
}

// check returns what is wrong with the values. Lines are the fields' places in
// the file, or nil when there is no file.
func (t Truth) check(lines map[string]int) (errs Errors) {
	report := func(field, format string, args ...any) {
		errs = append(errs, FieldError{Line: lineNear(lines, field), Field: field, Reason: fmt.Sprintf(format, args...)})
	}
	if len(t.BaseRate) == 0 {
		report("base_rate", "needs at least one tier")
	}
	for _, tier := range slices.Sorted(maps.Keys(t.BaseRate)) {
		field := "base_rate." + tier
		most := t.BaseRate[tier]
		if tier == "" || strings.Contains(tier, ".") {
			report(field, "a tier's name is not empty and has no dot")
		}
		sound := isProbability(most)
		if !sound {
			report(field, "%v is not between 0 and 1", most)
		}
		for _, channel := range slices.Sorted(maps.Keys(t.Effect)) {
			effect, given := t.Effect[channel][tier]
			if !given {
				report("effect."+channel, "names no effect on tier %s", tier)
			} else if !isProbability(effect) {
				report("effect."+channel+"."+tier, "%v is not between 0 and 1", effect)
				sound = false
			}
			most += effect
		}
		if sound && most > 1+rounding {
			report(field, "base rate and the effects of all channels add up to %.4g, more than 1", most)
		}
	}
	for _, channel := range slices.Sorted(maps.Keys(t.Effect)) {
		if channel == "" || strings.Contains(channel, ".") {
			report("effect."+channel, "a channel's name is not empty and has no dot")
		}
		for _, tier := range slices.Sorted(maps.Keys(t.Effect[channel])) {
			if _, given := t.BaseRate[tier]; !given {
				report("effect."+channel+"."+tier, "tier has no base rate")
			}
		}
	}
	d := t.ResponseDelay
	if d.Mean < 0 {
		report("response_delay.mean", "%s is negative", d.Mean)
	}
	if d.Max < d.Mean {
		report("response_delay.max", "%s is less than the mean of %s", d.Max, d.Mean)
	}
	return errs
}

// rounding is what a sum of decimal fractions may exceed 1 by.
const rounding = 1e-12

func isProbability(p float64) bool { return p >= 0 && p <= 1 } // false for NaN

// known reports whether a path may occur. Tiers and channels are free names.
func known(field string) bool {
	switch parts := strings.Split(field, "."); parts[0] {
	case "seed":
		return len(parts) == 1
	case "base_rate":
		return len(parts) <= 2
	case "effect":
		return len(parts) <= 3
	case "response_delay":
		return len(parts) == 1 || len(parts) == 2 && (parts[1] == "mean" || parts[1] == "max")
	default:
		return false
	}
}

// lineNear returns the line of a field, or of the nearest field around it.
func lineNear(lines map[string]int, field string) int {
	for {
		if line, ok := lines[field]; ok {
			return line
		}
		dot := strings.LastIndexByte(field, '.')
		if dot < 0 {
			return 0
		}
		field = field[:dot]
	}
}

// lastBefore returns the member whose name ends last before an offset.
func lastBefore(ends map[string]int64, offset int64) (field string) {
	for f, end := range ends {
		if end <= offset && (field == "" || end > ends[field]) {
			field = f
		}
	}
	return field
}

// locate returns where each member's name ends, by its path. It refuses what
// encoding/json passes over: a member that is named twice, a null, and
// anything after the value.
func locate(data []byte) (map[string]int64, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	ends := map[string]int64{}
	here := func() int { return lineOf(data, dec.InputOffset()) }
	var walk func(path string) error
	walk = func(path string) error {
		token, err := dec.Token()
		switch {
		case err != nil:
			return err
		case token == nil:
			return FieldError{Line: here(), Field: path, Reason: "is null"}
		case token == json.Delim('['):
			return FieldError{Line: here(), Field: path, Reason: "is a list"}
		case token != json.Delim('{'):
			return nil
		}
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return err
			}
			// Inside an object the decoder yields nothing but text here.
			member := strings.TrimPrefix(path+"."+key.(string), ".")
			if _, twice := ends[member]; twice {
				return FieldError{Line: here(), Field: member, Reason: "is given twice"}
			}
			ends[member] = dec.InputOffset()
			if err := walk(member); err != nil {
				return err
			}
		}
		_, err = dec.Token() // the closing bracket
		return err
	}
	err := walk("")
	if err == nil {
		if _, err := dec.Token(); !errors.Is(err, io.EOF) {
			return nil, Errors{{Line: here(), Reason: "something follows the truth"}}
		}
		return ends, nil
	}
	var field FieldError
	if errors.As(err, &field) {
		return nil, Errors{field}
	}
	at := here()
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		at = lineOf(data, syntax.Offset)
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return nil, Errors{{Line: at, Reason: err.Error()}}
}

func lineOf(data []byte, offset int64) int {
	return 1 + bytes.Count(data[:min(int(offset), len(data))], []byte("\n"))
}

func (t Truth) clone() Truth {
	t.BaseRate = maps.Clone(t.BaseRate)
	effect := make(map[string]map[string]float64, len(t.Effect))
	for channel, tiers := range t.Effect {
		effect[channel] = maps.Clone(tiers)
	}
	t.Effect = effect
	return t
}
