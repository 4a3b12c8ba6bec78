package targeting

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

// testFields mirrors the columns of the test customer table.
var testFields = []Field{
	{Name: "age", Column: "c.age", Type: Int, Nullable: true},
	{Name: "tenure", Column: "c.tenure", Type: Int},
	{Name: "arpu", Column: "c.arpu", Type: Float, Nullable: true},
	{Name: "bill", Column: "c.bill", Type: Float},
	{Name: "city", Column: "c.city", Type: Text, Nullable: true},
	{Name: "plan", Column: "c.plan", Type: Text},
	{Name: "grade", Column: "c.grade", Type: Text, Nullable: true, Allowed: []string{"gold", "silver", "bronze"}},
	{Name: "app", Column: "c.app", Type: Bool, Nullable: true},
	{Name: "vip", Column: "c.vip", Type: Bool},
	{Name: "joined_at", Column: "c.joined_at", Type: Timestamp, Nullable: true},
}

const (
	goldList   = "00000000-0000-0000-0000-00000000aaaa"
	campaignA  = "00000000-0000-0000-0000-00000000bbbb"
	campaignB  = "00000000-0000-0000-0000-00000000cccc"
	campaignB2 = "00000000-0000-0000-0000-00000000dddd"
)

var testNames = Names{
	Lists:     map[string]NamedList{"gold": {ID: goldList, Version: 3, Digest: "g3"}},
	Campaigns: []NamedCampaign{{campaignA, 7, "spring"}, {campaignB, 8, "summer"}, {campaignB2, 9, "summer"}},
	Segments: map[string]NamedSegment{
		"young":  {ID: "s1", Filters: []string{"age < 20", "age < 25 && vip"}},
		"nested": {ID: "s2", Filters: []string{`segment("young") || has_product("MMS")`}},
		"old":    {ID: "s3", Filters: []string{"age > 60"}, Retired: true},
		"a":      {ID: "s4", Filters: []string{`vip && segment("b")`}},
		"b":      {ID: "s5", Filters: []string{`vip || segment("a")`}},
		"broken": {ID: "s6", Filters: []string{"vip &&\n agee > 3"}},
		"outer":  {ID: "s7", Filters: []string{`segment("broken")`}},
	},
}

func sha(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }

func testCatalogue(t testing.TB) *Catalogue {
	c, err := NewCatalogue(testFields, Functions(testNames)...)
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
			"(EXISTS (SELECT 1 FROM holding s WHERE s.customer_id = c.id AND s.product = $1::text AND s.active) AND c.vip)", []any{"MMS"},
		},
		{
			`!in_list("gold")`,
			"(NOT EXISTS (SELECT 1 FROM customer_list_member s WHERE s.customer_id = c.id AND s.list_id = $1::text::uuid))", []any{goldList},
		},
		{
			`age > 3 && had_outcome("willing", "7")`,
			"((c.age > $1::bigint) AND EXISTS (SELECT 1 FROM outcome s WHERE s.customer_id = c.id AND s.kind = $2::text AND s.campaign_id = $3::text::uuid))",
			[]any{int64(3), "willing", campaignA},
		},
		{`segment("young")`, "((c.age < $1::bigint) AND c.vip)", []any{int64(25)}},
		{`!segment("young", 1) && age > 1`, "(((c.age < $1::bigint) IS NOT TRUE) AND (c.age > $2::bigint))", []any{int64(20), int64(1)}},
		{
			`tenure > 1 && segment("nested")`,
			"((c.tenure > $1::bigint) AND (((c.age < $2::bigint) AND c.vip) OR EXISTS (SELECT 1 FROM holding s WHERE s.customer_id = c.id AND s.product = $3::text AND s.active)))",
			[]any{int64(1), int64(25), "MMS"},
		},
		{`grade == "gold" || grade in ["silver"]`, "((c.grade = $1::text) OR (c.grade = ANY ($2::text[])))", []any{"gold", []string{"silver"}}},
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
		{"contacted", `1:1: there is no field "contacted", but a function; write it like contacted(days(n)) or contacted("channel", days(n))`},
		{"contacted(30)", `1:10: contacted does not take (whole number); write it like contacted(days(n)) or contacted("channel", days(n))`},
		{"has_product(city)", "1:13: has_product takes no field here, only a literal"},
		{"has_product(vip)", `1:12: has_product does not take (yes/no); write it like has_product("product") or has_product("product", days(n))`},
		{"has_product(plan)", `1:13: has_product takes no field here, only a literal; write it like has_product("mms_pack")`},
		{"contacted(days(age))", "1:16: days takes a whole number from -36500 to 36500"},
		{"contacted(days(tenure))", "1:16: days takes a whole number from -36500 to 36500"},
		{`vip && in_list("golt")`, `1:16: there is no published list "golt"; did you mean "gold"?`},
		{`had_outcome("orderd", days(3))`, `1:13: "orderd" is no outcome; did you mean "ordered"?`},
		{`responded("winter")`, `1:11: there is no campaign "winter"; name it by its number, its id or its whole name`},
		{`in_campaign("summer")`, `1:13: 2 campaigns are named "summer"; write the number: 8, 9`},
		{`segment("yuong")`, `1:9: there is no segment "yuong"; did you mean "young"?`},
		{`segment("young", 3)`, `1:9: segment "young" has no version 3; its newest is 2`},
		{`segment("young", 0)`, "1:18: versions count from 1"},
		{`segment(plan)`, `1:8: segment takes only literals; write it like segment("students")`},
		{`segment("old")`, `1:9: segment "old" is retired; choose another`},
		{`vip && segment("a")`, `1:15: segment("a") contains itself: segment("a") → segment("b") → segment("a")`},
		{`vip && segment("outer")`, `1:15: in segment("broken") at 2:2: there is no field or function "agee"; did you mean "age"?`},
		{`has_product("a\u0000")`, "1:13: a text must not contain the NUL character"},
		{`grade == "glod"`, `1:10: "glod" is not an allowed value of grade; did you mean "gold"?`},
		{`"platinum" != grade`, `1:1: "platinum" is not an allowed value of grade; there are "gold", "silver", "bronze"`},
		{"vip &&\n grade in [\"gold\", \"silverr\"]", `2:20: "silverr" is not an allowed value of grade; did you mean "silver"?`},
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
	set := func([]string) Set { return Set{} }
	text := []Argument{{Name: "x", Type: Text}}
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
		{"column with the number of a set", []Field{{Name: "a", Column: "{1}", Type: Int}}, nil},
		{"field of days", []Field{{Name: "a", Column: "c.a", Type: Days}}, nil},
		{"function twice with the same arguments", nil, []Function{{Name: "f", Args: text, Set: set}, {Name: "f", Args: text, Set: set}}},
		{"function without a set", nil, []Function{{Name: "f"}}},
		{"argument without type", nil, []Function{{Name: "f", Args: []Argument{{}}, Set: set}}},
		{"name of a number", nil, []Function{{Name: "f", Args: []Argument{{Type: Int, Resolve: outcomeKind}}, Set: set}}},
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

// A field and a function may share a name: the generated operator has an attribute "segment".
func TestFunctionMayBearAFieldsName(t *testing.T) {
	c, err := NewCatalogue([]Field{{Name: "segment", Column: "c.segment", Type: Text}}, Functions(Names{
		Segments: map[string]NamedSegment{"students": {ID: "s", Filters: []string{`segment == "student"`}}},
	})...)
	require.NoError(t, err)
	p, err := c.Compile(`segment != "farmer" && segment("students")`)
	require.NoError(t, err)
	require.Equal(t, "((c.segment <> $1::text) AND (c.segment = $2::text))", p.SQL(1))
}

func TestPredicateIsPinned(t *testing.T) {
	compile := func(n Names, text string) Predicate {
		c, err := NewCatalogue(testFields, Functions(n)...)
		require.NoError(t, err)
		p, err := c.Compile(text)
		require.NoError(t, err)
		return p
	}
	const text = `segment("nested") && in_list("gold") && !segment("young") && responded("spring")`
	before := compile(testNames, text)
	require.Equal(t, []campaign.FilterUse{
		{Kind: UseSegment, ID: "s2", Name: "nested", Version: 1, Digest: sha(testNames.Segments["nested"].Filters[0])},
		{Kind: UseSegment, ID: "s1", Name: "young", Version: 2, Digest: sha(testNames.Segments["young"].Filters[1])},
		{Kind: UseList, ID: goldList, Name: "gold", Version: 3, Digest: "g3"}, {Kind: UseCampaign, ID: campaignA, Name: "spring"},
	}, before.Uses)
	require.Equal(t, before.Digest(), compile(testNames, text).Digest())

	newer := testNames
	newer.Segments = maps.Clone(testNames.Segments)
	newer.Segments["young"] = NamedSegment{ID: "s1", Filters: append(slices.Clone(testNames.Segments["young"].Filters), "age < 30")}
	after := compile(newer, text)
	require.NotEqual(t, before.Digest(), after.Digest())
	require.Contains(t, after.Uses, campaign.FilterUse{Kind: UseSegment, ID: "s1", Name: "young", Version: 3, Digest: sha("age < 30")})

	kept := testNames
	kept.Retired = true
	require.Equal(t, "(c.age > $1::bigint)", compile(kept, `segment("old")`).SQL(1), "what was approved before it was retired goes on")
	require.Equal(t, "(c.age > $1::bigint)", compile(testNames, `segment("old", 1)`).SQL(1))
}

// What is pinned is found as it was: later versions, names and retirements change nothing.
func TestPinnedNamesAreThoseOfThen(t *testing.T) {
	compile := func(n Names, text string) (Predicate, error) {
		c, err := NewCatalogue(testFields, Functions(n)...)
		require.NoError(t, err)
		return c.Compile(text)
	}
	const text = `segment("nested") && segment("young") && !segment("young", 1) && in_list("gold") && responded("spring") && !responded("8")`
	then, err := compile(testNames, text)
	require.NoError(t, err)

	now := testNames
	now.Segments = maps.Clone(testNames.Segments)
	now.Segments["young"] = NamedSegment{ID: "s1", Filters: []string{"age < 20", "age < 25 && vip", "true"}, Retired: true}
	now.Lists = map[string]NamedList{"gold": {ID: campaignA, Version: 4}}
	now.Campaigns = []NamedCampaign{{campaignA, 7, "renamed"}, {campaignB, 8, "summer"}, {campaignB2, 9, "spring"}}
	_, err = compile(now, text)
	require.ErrorContains(t, err, "retired", "unpinned it is something else, or nothing")

	pinned, err := compile(now.Pinned(then.Uses, map[string]NamedList{goldList: testNames.Lists["gold"]}), text)
	require.NoError(t, err)
	require.Equal(t, then, pinned)
	_, err = compile(now.Pinned(then.Uses, nil), text)
	require.ErrorContains(t, err, `no published list "gold"`, "nothing stands in for what is gone")
	_, err = compile(now.Pinned(then.Uses, nil), `segment("old")`)
	require.ErrorContains(t, err, "no segment", "nor for what was not named")
}

func TestSegmentsDoNotGrowWithoutBound(t *testing.T) {
	n := Names{Segments: map[string]NamedSegment{"s0": {ID: "0", Filters: []string{"vip"}}}}
	for i := range 12 {
		n.Segments[fmt.Sprintf("s%d", i+1)] = NamedSegment{ID: fmt.Sprint(i + 1), Filters: []string{fmt.Sprintf(`segment("s%[1]d") || segment("s%[1]d")`, i)}}
	}
	c, err := NewCatalogue(testFields, Functions(n)...)
	require.NoError(t, err)
	_, err = c.Compile(`segment("s12")`)
	require.ErrorContains(t, err, "more than 8 filters are inside each other")
	_, err = c.Compile(`segment("s7")`)
	require.ErrorContains(t, err, "the filter contains more than 50 others")
	_, err = c.Compile(`segment("s4")`)
	require.NoError(t, err)
}

func TestCheckTellsEveryTypeError(t *testing.T) {
	faults := testCatalogue(t).Check("agee > 3 &&\n city > 4")
	require.Len(t, faults, 2)
	require.EqualError(t, faults[0], `1:1: there is no field or function "agee"; did you mean "age"?`)
	require.EqualError(t, faults[1], "2:7: > does not take (text, whole number)")
	require.Empty(t, testCatalogue(t).Check("age > 3"))
}

func TestConditions(t *testing.T) {
	parts, err := testCatalogue(t).Conditions(`age > 3 && (vip && !app) && (city == "x" || vip) && segment("young")`)
	require.NoError(t, err)
	var texts []string
	for _, p := range parts {
		texts = append(texts, p.Text)
	}
	require.Equal(t, []string{"age > 3", "vip", "!app", `city == "x" || vip`, `segment("young")`}, texts)
	require.Equal(t, "((c.city IS NOT DISTINCT FROM $1::text) OR c.vip)", strings.ReplaceAll(parts[3].SQL(1), "c.city = ", "c.city IS NOT DISTINCT FROM "))
	_, err = testCatalogue(t).Conditions("age >")
	require.Error(t, err)
}
