package campaign

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Condition is a filter as a tree, as a form shows it. It is exactly one of: a group (All,
// Any), a negation (Not), a comparison of a field (Field, Operator and Values), or a call of a
// function (Function and Values).
//
// A tree and the text that it generates are stored together. The text is what runs; no tree is
// ever made out of a text.
type Condition struct {
	All      []Condition `json:"all,omitempty"`      // all of them hold; at least one
	Any      []Condition `json:"any,omitempty"`      // one of them holds; at least one
	Not      *Condition  `json:"not,omitempty"`      // it does not hold
	Field    string      `json:"field,omitempty"`    // an attribute's name
	Operator Operator    `json:"operator,omitempty"` // of a comparison
	Function string      `json:"function,omitempty"` // a function's name
	Values   []Value     `json:"values,omitempty"`   // what is compared with, or the arguments
}

// Operator compares a field with values.
type Operator string

// The operators. A comparison with an empty field is false, but for != and not_in.
const (
	OperatorEqual          Operator = "=="
	OperatorNotEqual       Operator = "!="
	OperatorLess           Operator = "<"
	OperatorLessOrEqual    Operator = "<="
	OperatorGreater        Operator = ">"
	OperatorGreaterOrEqual Operator = ">="
	OperatorIn             Operator = "in"          // one or more values
	OperatorNotIn          Operator = "not_in"      // one or more values
	OperatorBetween        Operator = "between"     // two values, both included
	OperatorStartsWith     Operator = "starts_with" // text
	OperatorEndsWith       Operator = "ends_with"   // text
	OperatorContains       Operator = "contains"    // text
	OperatorEmpty          Operator = "is_empty"    // no value
	OperatorNotEmpty       Operator = "is_not_empty"
)

// Operators lists the operators.
func Operators() []Operator {
	return []Operator{
		OperatorEqual, OperatorNotEqual, OperatorLess, OperatorLessOrEqual, OperatorGreater, OperatorGreaterOrEqual, OperatorIn, OperatorNotIn,
		OperatorBetween, OperatorStartsWith, OperatorEndsWith, OperatorContains, OperatorEmpty, OperatorNotEmpty,
	}
}

// Value is a literal of a tree. In JSON it is a text, a plain number such as 12 or 0.5,
// true, false, {"time": "2026-01-31T00:00:00Z"}, {"days": 30} for the span of so many days,
// or {"days_ago": 30} for the time so many days ago. It reads back as it was written.
type Value struct {
	json string // compact
	text string // in the filter language
}

var plainNumber = regexp.MustCompile(`^(-?[1-9][0-9]*|0)(\.[0-9]+)?$|^-0\.[0-9]*[1-9][0-9]*$`)

// ValueOf returns the Value of a text, bool, whole number or decimal number.
func ValueOf(v any) (Value, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return Value{}, err
	}
	var value Value
	return value, value.UnmarshalJSON(text)
}

// MarshalJSON implements json.Marshaler.
func (v Value) MarshalJSON() ([]byte, error) {
	if v.json == "" {
		return nil, errors.New("a value of a condition is missing")
	}
	return []byte(v.json), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (v *Value) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var given any
	if err := d.Decode(&given); err != nil {
		return err
	}
	var err error
	switch x := given.(type) {
	case string:
		v.text = quote(x)
	case bool:
		v.text = strconv.FormatBool(x)
	case json.Number:
		if v.text = x.String(); !plainNumber.MatchString(v.text) {
			err = fmt.Errorf("%s is no plain number such as 12 or 0.5", v.text)
		}
	case map[string]any:
		v.text, err = moment(x)
	default:
		err = errors.New(`a value is a text, a number, true, false, {"time": …}, {"days": n} or {"days_ago": n}`)
	}
	if err != nil {
		return err
	}
	canonical, err := json.Marshal(given)
	v.json = string(canonical)
	return err
}

func moment(x map[string]any) (string, error) {
	for name, v := range x {
		if len(x) > 1 {
			break
		}
		switch v := v.(type) {
		case string:
			if _, err := time.Parse(time.RFC3339, v); name == "time" && err == nil {
				return "timestamp(" + quote(v) + ")", nil
			}
		case json.Number:
			n, err := strconv.Atoi(v.String())
			if err != nil || strconv.Itoa(n) != v.String() {
				break
			}
			switch name {
			case "days":
				return fmt.Sprintf("days(%d)", n), nil
			case "days_ago":
				return fmt.Sprintf("now - days(%d)", n), nil
			}
		}
	}
	return "", errors.New(`a moment is {"time": "2026-01-31T00:00:00Z"}, {"days": n} or {"days_ago": n}`)
}

// quote writes a text as the filter language does.
func quote(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

const (
	maximumConditions     = 500 // in one tree
	maximumConditionDepth = 12
)

var filterName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// Filter generates the text of the tree. Fields at fault carry paths relative to the tree,
// such as "all[1].operator", with CodeInvalidFilter.
func (c Condition) Filter() (string, error) {
	g := &conditionWriter{}
	text := g.write("", c, 1, true)
	if len(g.faults) > 0 {
		return "", &Error{Code: CodeInvalidFilter, Message: "the conditions cannot be made a filter", Fields: g.faults}
	}
	return text, nil
}

// CheckTree compares a filter with the tree it is stored with. Fields at fault are relative to
// the tree; a text that the tree does not generate is CodeFilterMismatch.
func CheckTree(tree *Condition, filter string) []FieldError {
	if tree == nil {
		return nil
	}
	text, err := tree.Filter()
	var e *Error
	if errors.As(err, &e) {
		return e.Fields
	}
	if text != filter {
		return []FieldError{{Code: CodeFilterMismatch, Message: "generates another filter than the one given with it: " + text}}
	}
	return nil
}

type conditionWriter struct {
	faults []FieldError
	count  int
}

func (g *conditionWriter) fault(path, format string, args ...any) string {
	if len(g.faults) < 20 {
		g.faults = append(g.faults, FieldError{Field: strings.TrimSuffix(path, "."), Code: CodeInvalidFilter, Message: fmt.Sprintf(format, args...)})
	}
	return ""
}

// write emits c, in brackets where something may come beside it.
func (g *conditionWriter) write(path string, c Condition, depth int, alone bool) string {
	kinds := 0
	for _, is := range []bool{c.All != nil, c.Any != nil, c.Not != nil, c.Field != "", c.Function != ""} {
		if is {
			kinds++
		}
	}
	g.count++
	switch {
	case kinds != 1:
		return g.fault(path, "must be exactly one of all, any, not, field and function")
	case depth > maximumConditionDepth:
		return g.fault(path, "is nested deeper than %d levels", maximumConditionDepth)
	case g.count > maximumConditions:
		return g.fault(path, "the tree has more than %d conditions", maximumConditions)
	case c.Field == "" && c.Operator != "":
		return g.fault(path+"operator", "belongs to a field")
	case c.Field == "" && c.Function == "" && len(c.Values) > 0:
		return g.fault(path+"values", "belong to a field or a function")
	case c.Not != nil:
		return "!(" + g.write(path+"not.", *c.Not, depth+1, true) + ")"
	case c.Function != "":
		if !filterName.MatchString(c.Function) {
			return g.fault(path+"function", "is no function's name")
		}
		return c.Function + "(" + g.values(path, c.Values) + ")"
	case c.Field != "":
		return g.comparison(path, c, alone)
	}
	parts, with, name := c.All, " && ", "all"
	if c.Any != nil {
		parts, with, name = c.Any, " || ", "any"
	}
	if len(parts) == 0 {
		return g.fault(path+name, "needs at least one condition")
	}
	texts := make([]string, len(parts))
	for i, p := range parts {
		texts[i] = g.write(fmt.Sprintf("%s%s[%d].", path, name, i), p, depth+1, alone && len(parts) == 1)
	}
	return bracketed(strings.Join(texts, with), alone || len(parts) == 1)
}

func bracketed(text string, alone bool) string {
	if alone {
		return text
	}
	return "(" + text + ")"
}

func (g *conditionWriter) values(path string, values []Value) string {
	texts := make([]string, len(values))
	for i, v := range values {
		if texts[i] = v.text; v.text == "" {
			g.fault(fmt.Sprintf("%svalues[%d]", path, i), "is missing")
		}
	}
	return strings.Join(texts, ", ")
}

func (g *conditionWriter) comparison(path string, c Condition, alone bool) string {
	if !filterName.MatchString(c.Field) {
		return g.fault(path+"field", "is no attribute's name")
	}
	least, most := 1, 1
	switch c.Operator {
	case OperatorEqual, OperatorNotEqual, OperatorLess, OperatorLessOrEqual, OperatorGreater, OperatorGreaterOrEqual,
		OperatorStartsWith, OperatorEndsWith, OperatorContains:
	case OperatorIn, OperatorNotIn:
		most = maximumConditions * 2
	case OperatorBetween:
		least, most = 2, 2
	case OperatorEmpty, OperatorNotEmpty:
		least, most = 0, 0
	default:
		return g.fault(path+"operator", "is none of the operators")
	}
	if n := len(c.Values); n < least || n > most {
		return g.fault(path+"values", "%s takes %d to %d values, not %d", c.Operator, least, most, n)
	}
	values := g.values(path, c.Values)
	switch c.Operator {
	case OperatorIn:
		return c.Field + " in [" + values + "]"
	case OperatorNotIn:
		return "!(" + c.Field + " in [" + values + "])"
	case OperatorBetween:
		return bracketed(c.Field+" >= "+c.Values[0].text+" && "+c.Field+" <= "+c.Values[1].text, alone)
	case OperatorStartsWith:
		return c.Field + ".startsWith(" + values + ")"
	case OperatorEndsWith:
		return c.Field + ".endsWith(" + values + ")"
	case OperatorContains:
		return c.Field + ".contains(" + values + ")"
	case OperatorEmpty:
		return c.Field + " == null"
	case OperatorNotEmpty:
		return c.Field + " != null"
	}
	return c.Field + " " + string(c.Operator) + " " + values
}
