package targeting

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// testFields mirrors the columns of the test customer table.
var testFields = []Field{
	{Name: "age", Column: "c.age", Type: Int, Nullable: true},
	{Name: "tenure", Column: "c.tenure", Type: Int},
	{Name: "arpu", Column: "c.arpu", Type: Float, Nullable: true},
	{Name: "bill", Column: "c.bill", Type: Float},
	{Name: "city", Column: "c.city", Type: Text, Nullable: true},
	{Name: "plan", Column: "c.plan", Type: Text},
	{Name: "app", Column: "c.app", Type: Bool, Nullable: true},
	{Name: "vip", Column: "c.vip", Type: Bool},
	{Name: "joined_at", Column: "c.joined_at", Type: Timestamp, Nullable: true},
}

func testCatalogue(t testing.TB) *Catalogue {
	c, err := NewCatalogue(testFields, Function{
		Name: "has_product", Args: []Type{Text},
		SQL: func(args []string) string {
			return "EXISTS (SELECT 1 FROM holding h WHERE h.customer_id = c.id AND h.product = " + args[0] + ")"
		},
	})
	require.NoError(t, err)
	return c
}

func TestCompile(t *testing.T) {
	c := testCatalogue(t)
	for _, tc := range []struct {
		text, sql string
		args      []any
	}{
		{"true", "$1::boolean", []any{true}},
		{"age >= 18 && age <= 30", "((c.age >= $1::bigint) AND (c.age <= $2::bigint))", []any{int64(18), int64(30)}},
		{"(age < 18 || age > 30)", "((c.age < $1::bigint) OR (c.age > $2::bigint))", []any{int64(18), int64(30)}},
		{"18 <= age", "($1::bigint <= c.age)", []any{int64(18)}},
		{"age >= 12.5", "(c.age >= $1::numeric)", []any{"12.5"}},
		{"arpu >= 12", "(c.arpu >= $1::bigint)", []any{int64(12)}},
		{"arpu > -0.1", "(c.arpu > $1::numeric)", []any{"-0.1"}},
		{"!(age > 18)", "((c.age > $1::bigint) IS NOT TRUE)", []any{int64(18)}},
		{"age == null", "(c.age IS NULL)", nil},
		{"null != age", "(c.age IS NOT NULL)", nil},
		{"age != 3", "(c.age IS DISTINCT FROM $1::bigint)", []any{int64(3)}},
		{"tenure != 3", "(c.tenure <> $1::bigint)", []any{int64(3)}},
		{"age == arpu", "(c.age IS NOT DISTINCT FROM c.arpu)", nil},
		{"age == tenure", "(c.age = c.tenure)", nil},
		{"age in [1, 2]", "(c.age = ANY ($1::bigint[]))", []any{[]int64{1, 2}}},
		{"arpu in [1, 2.5]", "(c.arpu = ANY ($1::text[]::numeric[]))", []any{[]string{"1", "2.5"}}},
		{`!(city in ["a", "b"])`, "((c.city = ANY ($1::text[])) IS NOT TRUE)", []any{[]string{"a", "b"}}},
		{`city.startsWith("a%_\\")`, "(c.city LIKE $1::text)", []any{`a\%\_\\%`}},
		{`!city.endsWith("x")`, "((c.city LIKE $1::text) IS NOT TRUE)", []any{"%x"}},
		{`plan.contains("'; drop table customer --")`, "(c.plan LIKE $1::text)", []any{`%'; drop table customer --%`}},
		{`plan < "m"`, `(c.plan COLLATE "C" < $1::text)`, []any{"m"}},
		{"app", "c.app", nil},
		{"app == (age > 3)", "(c.app = ((c.age > $1::bigint) IS TRUE))", []any{int64(3)}},
		{"age + 1 > arpu * 2.0", "((c.age::numeric + $1::bigint::numeric) > (c.arpu::numeric * $2::numeric::numeric))", []any{int64(1), "2"}},
		{"-age > tenure", "((-c.age::numeric) > c.tenure::numeric)", nil},
		{"joined_at > now - days(30)", "(c.joined_at > (now() - $1::interval))", []any{"720 hours"}},
		{
			`joined_at >= timestamp("2026-01-31T08:00:00+08:00")`,
			"(c.joined_at >= $1::timestamptz)", []any{"2026-01-31T00:00:00Z"},
		},
		{
			`has_product("MMS") && vip`,
			"((EXISTS (SELECT 1 FROM holding h WHERE h.customer_id = c.id AND h.product = $1::text)) AND c.vip)", []any{"MMS"},
		},
	} {
		t.Run(tc.text, func(t *testing.T) {
			p, err := c.Compile(tc.text)
			require.NoError(t, err)
			require.Equal(t, tc.sql, p.SQL(1))
			require.Equal(t, tc.args, p.Args)
		})
	}
}

func TestPredicateIsRenumbered(t *testing.T) {
	p, err := testCatalogue(t).Compile("age in [1] || tenure > 2 || bill > 3")
	require.NoError(t, err)
	require.Equal(t,
		"(((c.age = ANY ($9::bigint[])) OR (c.tenure > $10::bigint)) OR (c.bill > $11::bigint))", p.SQL(9))
}

func TestCompileErrors(t *testing.T) {
	c := testCatalogue(t)
	for _, tc := range []struct{ text, message string }{
		{"", "1:1: audience filter is empty; write true to mean every customer"},
		{" \n\t", "1:1: audience filter is empty; write true to mean every customer"},
		{"agee > 3", `1:1: there is no field or function "agee"; did you mean "age"?`},
		{"\n\n  vip && tenur > 2", `3:10: there is no field or function "tenur"; did you mean "tenure"?`},
		{`has_produt("X")`, `1:11: there is no field or function "has_produt"; did you mean "has_product"?`},
		{"shoe_size > 40", `1:1: there is no field or function "shoe_size"`},
		{"size(city) > 3", `1:5: there is no field or function "size"`},
		{"has(age.x)", `1:4: there is no field or function "has"`},
		{"[1].exists(x, x > 1)", `1:11: there is no field or function "exists"`},
		{"age / 2 > 3", "1:5: the operator / is not part of the filter language"},
		{"vip ? vip : app", "1:5: the operator ?: is not part of the filter language"},
		{"city > 3", "1:6: > does not take (text, whole number)"},
		{`joined_at > "2026"`, `1:11: > does not take (time, text); write it like timestamp("2026-01-31T00:00:00Z")`},
		{`joined_at > timestamp("2026")`, `1:23: this is not a time of the years 1 to 9999; write it like timestamp("2026-01-31T00:00:00Z")`},
		{"age", "1:1: a filter needs a yes/no here, this is a whole number; compare it with something"},
		{"vip && age", "1:8: a yes/no is needed here, this is a whole number"},
		{"tenure == null", "1:8: this value is never empty, so it cannot be compared with null; leave this comparison out"},
		{"null == null", "1:6: null with null says nothing; compare a field with null"},
		{"age > null", "1:7: null has no order; use == null or != null"},
		{"age in []", "1:8: the list is empty; name at least one value"},
		{"age in [1, 2.5]", "1:12: this list may hold only literals of type whole number"},
		{`city in ["a", null]`, "1:15: this list may hold only literals of type text"},
		{"age in [tenure]", "1:9: a list holds literals only"},
		{"plan.contains(city)", "1:15: contains takes a text literal"},
		{`city == "a\u0000"`, "1:9: a text must not contain the NUL character"},
		{`city in ["\x00"]`, "1:10: a text must not contain the NUL character"},
		{`city.startsWith("\x00")`, "1:17: a text must not contain the NUL character"},
		{"age > 99999999999999999999", "1:7: invalid int literal"},
		{"age > 5u", "1:5: > does not take (whole number, unsigned number)"},
		{"joined_at > now - days(age)", "1:24: days takes a whole number from -36500 to 36500"},
		{"age >", "1:6: the filter ends too early"},
		{"age = 3", `1:5: "= " cannot be read; write && for and, || for or, ! for not, == for equals`},
		{"vip and app", `1:5: "and" is not expected here; write && for and, || for or, ! for not, == for equals`},
		{"age == \xff", "1:1: the filter is not valid UTF-8"},
		{strings.Repeat("(", 70) + "vip" + strings.Repeat(")", 70), "1:1: expression recursion limit exceeded: 64"},
		{strings.Repeat("age+", 33) + "1 > 2", "1:4: the filter has more than 32 arithmetic operators"},
		{
			strings.Repeat("x", 10_001),
			"1:1: the filter has 10001 characters, more than 10000; load long lists as a customer list and name the list",
		},
		{
			strings.Repeat("age==1||", 1000) + "vip==true",
			"the filter has more than 1000 values; put the values of one field into a list: field in [...]",
		},
	} {
		t.Run(fmt.Sprintf("%.30q", tc.text), func(t *testing.T) {
			_, err := c.Compile(tc.text)
			var f *FilterError
			require.True(t, errors.As(err, &f), "%v", err)
			require.Contains(t, err.Error(), tc.message)
			require.Positive(t, f.Line)
			require.Positive(t, f.Column)
		})
	}
}

func TestCatalogueRefusesBadDeclarations(t *testing.T) {
	sql := func([]string) string { return "true" }
	for _, tc := range []struct {
		name      string
		fields    []Field
		functions []Function
	}{
		{"name is no identifier", []Field{{Name: "c.age", Column: "c.age", Type: Int}}, nil},
		{"upper case", []Field{{Name: "Age", Column: "c.age", Type: Int}}, nil},
		{"word of the language", []Field{{Name: "now", Column: "c.now", Type: Timestamp}}, nil},
		{"twice", []Field{{Name: "a", Column: "c.a", Type: Int}, {Name: "a", Column: "c.b", Type: Int}}, nil},
		{"no column", []Field{{Name: "a", Type: Int}}, nil},
		{"column with a placeholder", []Field{{Name: "a", Column: "$1", Type: Int}}, nil},
		{"no type", []Field{{Name: "a", Column: "c.a"}}, nil},
		{"function named like a field", []Field{{Name: "a", Column: "c.a", Type: Int}}, []Function{{Name: "a", SQL: sql}}},
		{"function without SQL", nil, []Function{{Name: "f"}}},
		{"argument without type", nil, []Function{{Name: "f", Args: []Type{0}, SQL: sql}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := NewCatalogue(tc.fields, tc.functions...)
			require.Error(t, err)
		})
	}
}

func TestCompileIsSafeForConcurrentUse(t *testing.T) {
	c := testCatalogue(t)
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			p, err := c.Compile(fmt.Sprintf("age > %d && nothing == 1", i))
			if err == nil {
				t.Errorf("compiled to %s", p.SQL(1))
			}
			p, err = c.Compile(fmt.Sprintf("age > %d", i))
			if err != nil || p.Args[0] != int64(i) {
				t.Errorf("%v %v", p, err)
			}
		})
	}
	wait.Wait()
}
