package targeting

import (
	"errors"
	"regexp"
	"testing"
)

// emitted matches the whole SQL of any filter over testFields: the fixed vocabulary of the
// walker, declared columns and placeholders with casts. Text of a user cannot match.
var emitted = regexp.MustCompile(`^(?:[() ]|\$\d+::(?:bigint|numeric|text|boolean|timestamptz|interval)(?:\[\])?(?:::(?:numeric|timestamptz)\[\])?` +
	`|::numeric|c\.(?:age|tenure|arpu|bill|city|plan|app|vip|joined_at)|now\(\)|AND|OR|IS NOT TRUE|IS TRUE|IS NULL|IS NOT NULL` +
	`|IS DISTINCT FROM|IS NOT DISTINCT FROM|LIKE|= ANY|COLLATE "C"|=|<>|<=|>=|<|>|\+|-|\*` +
	`|EXISTS \(SELECT 1 FROM holding h WHERE h\.customer_id = c\.id AND h\.product = )+$`)

func FuzzCompile(f *testing.F) {
	for _, seed := range []string{
		"true", "age >= 18 && age <= 30 || !(city in ['x'])", `city.startsWith("a%") && plan != "'"`, "age + 1 == arpu * 2.5",
		`joined_at > now - days(30)`, `joined_at in [timestamp("2026-01-31T00:00:00Z")]`, `has_product("X")`, "app == (age > 3)",
		"age in [1, 2.5]", "null == null", "-9223372036854775808 < age", "{}", "[[]]", "a.b(c)[d]", "`x`", "b'\\x00'", "1u",
	} {
		f.Add(seed)
	}
	c := testCatalogue(f)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := c.Compile(text)
		if err != nil {
			var e *FilterError
			if !errors.As(err, &e) || e.Line < 1 || e.Column < 1 || e.Message == "" {
				t.Fatalf("%q: error without a place: %#v", text, err)
			}
			return
		}
		if !emitted.MatchString(p.SQL(1)) {
			t.Fatalf("%q: %s holds more than the walker's words", text, p.SQL(1))
		}
		if n := len(placeholder.FindAllString(p.SQL(1), -1)); n != len(p.Args) {
			t.Fatalf("%q: %d placeholders, %d arguments", text, n, len(p.Args))
		}
	})
}
