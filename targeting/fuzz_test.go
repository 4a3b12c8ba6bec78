package targeting

import (
	"errors"
	"regexp"
	"slices"
	"testing"
)

// emitted matches the whole SQL of any filter over testFields: the fixed vocabulary of the
// walker, declared columns and placeholders with casts. Text of a user cannot match.
var emitted = regexp.MustCompile(`^(?:[() ]|\$\d+::(?:bigint|numeric|text|boolean|timestamptz|interval)(?:\[\])?(?:::(?:numeric|timestamptz)\[\])?` +
	`|::numeric|c\.(?:age|tenure|arpu|bill|city|plan|grade|app|vip|joined_at)|now\(\)|AND|OR|NOT|IS NOT TRUE|IS TRUE|IS NULL|IS NOT NULL` +
	`|IS DISTINCT FROM|IS NOT DISTINCT FROM|LIKE|= ANY|COLLATE "C"|=|<>|<=|>=|<|>|\+|-|\*` +
	`|\{\d+\})+$`)

// declaredSets are the sets of all functions, with ? for each placeholder.
func declaredSets() map[string]bool {
	all := map[string]bool{}
	for _, f := range Functions(testNames) {
		if f.Set != nil {
			all[anonymous(f.Set(slices.Repeat([]string{"$1::text"}, len(f.Args))).exists())] = true
		}
	}
	return all
}

var boundValue = regexp.MustCompile(`\$\d+::(?:text|bigint|interval)`)

func anonymous(sql string) string { return boundValue.ReplaceAllString(sql, "?") }

func FuzzCompile(f *testing.F) {
	for _, seed := range []string{
		"true", "age >= 18 && age <= 30 || !(city in ['x'])", `city.startsWith("a%") && plan != "'"`, "age + 1 == arpu * 2.5",
		`joined_at > now - days(30)`, `joined_at in [timestamp("2026-01-31T00:00:00Z")]`, `has_product("X")`, "app == (age > 3)",
		"age in [1, 2.5]", "null == null", "-9223372036854775808 < age", "{}", "[[]]", "a.b(c)[d]", "`x`", "b'\\x00'", "1u",
		`has_product("X", days(90)) && !had_product("Y")`, `in_list("gold") || in_campaign("7")`, `contacted("sms", days(30)) || contacted(days(1))`,
		`!complained(days(180)) && consulted(days(3))`, `responded("spring") || had_outcome("willing", days(-3))`, `segment("nested", 1) && segment("a")`,
		`grade == "gold" && grade in ["silver"]`, `{0}`, `"{0}" == city`, `"$1" == city`,
	} {
		f.Add(seed)
	}
	c, sets := testCatalogue(f), declaredSets()
	f.Fuzz(func(t *testing.T, text string) {
		p, err := c.Compile(text)
		if err != nil {
			var e *FilterError
			if !errors.As(err, &e) || e.Line < 1 || e.Column < 1 || e.Message == "" {
				t.Fatalf("%q: error without a place: %#v", text, err)
			}
			return
		}
		if !emitted.MatchString(p.sql) {
			t.Fatalf("%q: %s holds more than the walker's words", text, p.sql)
		}
		for _, x := range p.sets {
			if !sets[anonymous(x.exists())] {
				t.Fatalf("%q: %s is no function's", text, x.exists())
			}
		}
		if n := len(setNumber.FindAllString(p.sql, -1)); n != len(p.sets) {
			t.Fatalf("%q: %d sets are used, %d made", text, n, len(p.sets))
		}
		if _, err := c.Conditions(text); err != nil {
			t.Fatalf("%q: compiles as a whole and not in parts: %v", text, err)
		}
		used := placeholder.FindAllString(p.SQL(1), -1)
		slices.Sort(used)
		if n := len(slices.Compact(used)); n != len(p.Args) {
			t.Fatalf("%q: %d placeholders, %d arguments", text, n, len(p.Args))
		}
	})
}
