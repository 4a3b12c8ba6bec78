package targeting

import (
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// The reference evaluator gives every expression its meaning in Go, without CEL and without
// SQL. A value is nil (empty), *big.Rat, string, bool or time.Time.
type customer map[string]any

type valueOf struct {
	text     string
	typ      Type
	nullable bool
	eval     func(customer) any
}

type filterOf struct {
	text string
	eval func(customer) bool
}

var (
	someInts   = []string{"-9223372036854775808", "-3", "0", "1", "2", "3", "42", "9223372036854775807"}
	smallInts  = []string{"-3", "0", "1", "2", "3"}
	someFloats = []string{"-2.5", "0.0", "0.1", "0.3", "1.0", "2.0", "1.5", "100.25"}
	someTexts  = []string{"", "a", "A", "ab", "a%", "a_b", "_", "%", `\`, `a\b`, "'", `"`, "ä", "中文", "z", "$1", "--"}
	someTimes  = []string{"1970-01-01T00:00:00Z", "2020-02-29T12:30:00.5Z", "2021-01-01T00:00:00Z", "2999-12-31T23:59:59Z"}
)

func rat(text string) *big.Rat {
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		panic(text)
	}
	return r
}

func instantOf(text string) time.Time {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		panic(err)
	}
	return at
}

func quoted(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}

// literalOf draws a literal; whole numbers stay small where they meet a double precision
// column, which cannot tell 2^63 from its neighbours.
func literalOf(t *rapid.T, typ Type, ints []string) valueOf {
	return literalFor(t, Field{Type: typ}, ints)
}

// literalFor draws a literal that may be compared with f.
func literalFor(t *rapid.T, f Field, ints []string) valueOf {
	if len(f.Allowed) > 0 {
		s := rapid.SampledFrom(f.Allowed).Draw(t, "allowed")
		return valueOf{quoted(s), Text, false, func(customer) any { return s }}
	}
	switch f.Type {
	case Int:
		s := rapid.SampledFrom(ints).Draw(t, "int")
		return valueOf{s, Int, false, func(customer) any { return rat(s) }}
	case Float:
		s := rapid.SampledFrom(someFloats).Draw(t, "float")
		return valueOf{s, Float, false, func(customer) any { return rat(s) }}
	case Text:
		s := rapid.SampledFrom(someTexts).Draw(t, "text")
		return valueOf{quoted(s), Text, false, func(customer) any { return s }}
	case Bool:
		b := rapid.Bool().Draw(t, "bool")
		return valueOf{fmt.Sprint(b), Bool, false, func(customer) any { return b }}
	}
	s := rapid.SampledFrom(someTimes).Draw(t, "time")
	return valueOf{`timestamp("` + s + `")`, Timestamp, false, func(customer) any { return instantOf(s) }}
}

func fieldOf(t *rapid.T, typ Type) valueOf {
	var of []Field
	for _, f := range testFields {
		if f.Type == typ && len(f.Allowed) == 0 {
			of = append(of, f)
		}
	}
	f := rapid.SampledFrom(of).Draw(t, "field")
	return valueOf{f.Name, typ, f.Nullable, func(c customer) any { return c[f.Name] }}
}

// anyValue draws a value of one type; numbers may be computed.
func anyValue(t *rapid.T, typ Type, depth int) valueOf {
	kinds := []string{"field", "field", "literal"}
	if depth > 0 && typ != Text {
		kinds = append(kinds, "computed")
	}
	switch rapid.SampledFrom(kinds).Draw(t, "kind") {
	case "field":
		return fieldOf(t, typ)
	case "literal":
		return literalOf(t, typ, someInts)
	}
	switch typ {
	case Bool:
		// Negated, so that it is never a bare field, which as a value may be empty.
		f := anyFilter(t, depth-1)
		return valueOf{"!(" + f.text + ")", Bool, false, func(c customer) any { return !f.eval(c) }}
	case Timestamp:
		a, n := anyValue(t, Timestamp, depth-1), rapid.IntRange(-3000, 3000).Draw(t, "days")
		op := rapid.SampledFrom([]string{"+", "-"}).Draw(t, "op")
		return valueOf{fmt.Sprintf("(%s %s days(%d))", a.text, op, n), Timestamp, a.nullable, func(c customer) any {
			at, ok := a.eval(c).(time.Time)
			if !ok {
				return nil
			}
			hours := 24 * n
			if op == "-" {
				hours = -hours
			}
			return at.Add(time.Duration(hours) * time.Hour)
		}}
	}
	// A decimal result may come from any mixture, a whole one from whole numbers only.
	part := func() valueOf {
		if typ == Float && rapid.Bool().Draw(t, "whole") {
			return anyValue(t, Int, depth-1)
		}
		return anyValue(t, typ, depth-1)
	}
	a := part()
	op := rapid.SampledFrom([]string{"+", "-", "*", "neg"}).Draw(t, "op")
	if op == "neg" {
		return valueOf{"-(" + a.text + ")", a.typ, a.nullable, func(c customer) any {
			x, ok := a.eval(c).(*big.Rat)
			if !ok {
				return nil
			}
			return new(big.Rat).Neg(x)
		}}
	}
	b := part()
	result := Int
	if a.typ == Float || b.typ == Float {
		result = Float
	}
	return valueOf{"(" + a.text + " " + op + " " + b.text + ")", result, a.nullable || b.nullable, func(c customer) any {
		x, ok := a.eval(c).(*big.Rat)
		y, okay := b.eval(c).(*big.Rat)
		switch {
		case !ok || !okay:
			return nil
		case op == "+":
			return new(big.Rat).Add(x, y)
		case op == "-":
			return new(big.Rat).Sub(x, y)
		}
		return new(big.Rat).Mul(x, y)
	}}
}

// compare returns the order of two values, and false when one is empty.
func compare(a, b any) (int, bool) {
	if a == nil || b == nil {
		return 0, false
	}
	switch x := a.(type) {
	case *big.Rat:
		return x.Cmp(b.(*big.Rat)), true
	case string:
		return strings.Compare(x, b.(string)), true
	case time.Time:
		return x.Compare(b.(time.Time)), true
	}
	if a == b {
		return 0, true
	}
	return 1, true
}

func anyFilter(t *rapid.T, depth int) filterOf {
	kinds := []string{"order", "equal", "in", "text", "null", "flag", "call", "call"}
	if depth > 0 {
		kinds = append(kinds, "and", "or", "not", "and", "or", "not")
	}
	types := []Type{Int, Float, Text, Timestamp, Bool}
	switch rapid.SampledFrom(kinds).Draw(t, "kind") {
	case "and":
		a, b := anyFilter(t, depth-1), anyFilter(t, depth-1)
		return filterOf{"(" + a.text + " && " + b.text + ")", func(c customer) bool { return a.eval(c) && b.eval(c) }}
	case "or":
		a, b := anyFilter(t, depth-1), anyFilter(t, depth-1)
		return filterOf{"(" + a.text + " || " + b.text + ")", func(c customer) bool { return a.eval(c) || b.eval(c) }}
	case "not":
		a := anyFilter(t, depth-1)
		return filterOf{"!(" + a.text + ")", func(c customer) bool { return !a.eval(c) }}
	case "order":
		a, b := anyPair(t, rapid.SampledFrom(types[:4]).Draw(t, "type"), depth)
		op := rapid.SampledFrom([]string{"<", "<=", ">", ">="}).Draw(t, "op")
		return filterOf{a.text + " " + op + " " + b.text, func(c customer) bool {
			d, ok := compare(a.eval(c), b.eval(c))
			return ok && (op == "<" && d < 0 || op == "<=" && d <= 0 || op == ">" && d > 0 || op == ">=" && d >= 0)
		}}
	case "equal":
		a, b := anyPair(t, rapid.SampledFrom(types).Draw(t, "type"), depth)
		op := rapid.SampledFrom([]string{"==", "!="}).Draw(t, "op")
		return filterOf{a.text + " " + op + " " + b.text, func(c customer) bool {
			x, y := a.eval(c), b.eval(c)
			d, ok := compare(x, y)
			return (op == "==") == (ok && d == 0 || x == nil && y == nil)
		}}
	case "in":
		typ := rapid.SampledFrom(types[:4]).Draw(t, "type")
		a := fieldOf(t, typ)
		var list []valueOf
		for range rapid.IntRange(1, 3).Draw(t, "length") {
			list = append(list, literalOf(t, typ, someInts))
		}
		texts := make([]string, len(list))
		for i, l := range list {
			texts[i] = l.text
		}
		return filterOf{a.text + " in [" + strings.Join(texts, ", ") + "]", func(c customer) bool {
			for _, l := range list {
				if d, ok := compare(a.eval(c), l.eval(c)); ok && d == 0 {
					return true
				}
			}
			return false
		}}
	case "text":
		a, part := fieldOf(t, Text), rapid.SampledFrom(someTexts).Draw(t, "part")
		name := rapid.SampledFrom([]string{"startsWith", "endsWith", "contains"}).Draw(t, "name")
		return filterOf{a.text + "." + name + "(" + quoted(part) + ")", func(c customer) bool {
			s, ok := a.eval(c).(string)
			return ok && map[string]func(string, string) bool{
				"startsWith": strings.HasPrefix, "endsWith": strings.HasSuffix, "contains": strings.Contains,
			}[name](s, part)
		}}
	case "call":
		return anyCall(t)
	case "null":
		a := anyValue(t, rapid.SampledFrom(types).Draw(t, "type"), depth)
		if !a.nullable {
			a = valueOf{"age", Int, true, func(c customer) any { return c["age"] }}
		}
		op := rapid.SampledFrom([]string{"==", "!="}).Draw(t, "op")
		return filterOf{a.text + " " + op + " null", func(c customer) bool { return (a.eval(c) == nil) == (op == "==") }}
	}
	a := anyValue(t, Bool, 0)
	return filterOf{a.text, func(c customer) bool { return a.eval(c) == true }}
}

// anyPair draws two comparable values: of one type, or a whole number with a decimal one.
func anyPair(t *rapid.T, typ Type, depth int) (a, b valueOf) {
	if typ == Float && rapid.Bool().Draw(t, "mixed") {
		a, b = fieldOf(t, Float), literalOf(t, Int, smallInts)
		if rapid.Bool().Draw(t, "swapped") {
			a, b = b, a
		}
		return a, b
	}
	return anyValue(t, typ, min(depth, 2)), anyValue(t, typ, min(depth, 2))
}

func anyCustomer(t *rapid.T) (customer, map[string]any) {
	c, row := customer{}, map[string]any{}
	for _, f := range testFields {
		if f.Nullable && rapid.IntRange(0, 2).Draw(t, "empty") == 0 {
			c[f.Name], row[f.Name] = nil, nil
			continue
		}
		v := literalFor(t, f, someInts)
		c[f.Name] = v.eval(nil)
		switch f.Type {
		case Int, Float:
			row[f.Name] = json.Number(v.text)
		case Timestamp:
			row[f.Name] = c[f.Name].(time.Time).Format(time.RFC3339Nano)
		default:
			row[f.Name] = c[f.Name]
		}
	}
	return c, row
}

// The SQL of a random filter, run by PostgreSQL over random customers with empty fields,
// selects exactly those for whom the reference evaluator says yes.
func TestFilterMeansTheSameInSQL(t *testing.T) {
	world := newWorld(t)
	db, catalogue := world.db, testCatalogue(t)
	rapid.Check(t, func(t *rapid.T) {
		customers, data := world.populate(t)
		for range 4 {
			f := anyFilter(t, 4)
			if rapid.Bool().Draw(t, "tree") {
				f = anyTree(t)
			}
			p, err := catalogue.Compile(f.text)
			require.NoError(t, err, f.text)
			want := []int32{}
			for i, c := range customers {
				if f.eval(c) {
					want = append(want, int32(i))
				}
			}
			got, err := collect(db, `SELECT c.position FROM `+recordset+` WHERE `+p.SQL(2)+` ORDER BY c.position`, append([]any{data}, p.Args...)...)
			require.NoError(t, err, "%s\n%s", f.text, p.SQL(2))
			require.Equal(t, want, got, "%s\n%s\n%s", f.text, p.SQL(2), data)
			joins := &joins{statement: &statement{args: []any{data}}}
			condition := joins.predicate(p)
			got, err = collect(db, `SELECT c.position FROM `+recordset+joins.sql+` WHERE `+condition+` ORDER BY c.position`, joins.args...)
			require.NoError(t, err, "%s\n%s", f.text, condition)
			require.Equal(t, want, got, "%s\n%s\n%s", f.text, condition, data)
		}
	})
}

// Arithmetic beyond the range of double precision is compared, not refused in the middle of
// a scan.
func TestArithmeticNeverFailsInSQL(t *testing.T) {
	db := database(t)
	catalogue := testCatalogue(t)
	const most = "9223372036854775807"
	for text, want := range map[string]bool{
		"arpu < 1e308 * 10.0":                       true,
		"arpu * 1e308 * 1e308 > bill":               true,
		"arpu * 1e-308 * 1e-308 > 0":                true,
		"tenure * tenure > " + most:                 true,
		"-tenure * tenure < -" + most:               true,
		"tenure + 1 > tenure":                       true,
		strings.Repeat("1e308 * ", 32) + "arpu > 0": true,
		"age + 1 > 0":                               false,
		"age + 1 == null":                           true,
	} {
		p, err := catalogue.Compile(text)
		require.NoError(t, err, text)
		got, err := collect(db, `SELECT 1 FROM (VALUES (NULL::int8, `+most+`::int8, 1e300::float8, 2::numeric))
			c(age, tenure, arpu, bill) WHERE `+p.SQL(1), p.Args...)
		require.NoError(t, err, text)
		require.Equal(t, want, len(got) == 1, text)
	}
}

func collect(db *pgx.Conn, sql string, args ...any) ([]int32, error) {
	rows, err := db.Query(context.Background(), sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int32])
}
