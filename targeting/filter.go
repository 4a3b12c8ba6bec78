package targeting

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"

	"github.com/musterhq/muster/campaign"
)

// Predicate is a compiled filter: SQL that is TRUE exactly for the customers the
// filter holds for (it may be NULL for others), and its bound values.
type Predicate struct {
	sql  string
	sets []Set
	// Args are the values of the placeholders in order. They are int64, string, bool,
	// []int64 or []string, so they survive JSON and any PostgreSQL driver.
	Args []any
	// Uses lists what the filter names, as it was when the filter was compiled: the versions
	// of segments and lists that it is pinned to.
	Uses []campaign.FilterUse
	// Fields lists the fields that it looks at, in the order in which they are met first.
	Fields []string
}

var (
	placeholder = regexp.MustCompile(`\$(\d+)`)
	setNumber   = regexp.MustCompile(`\{\d+\}`)
)

// SQL returns the predicate with its placeholders numbered from start, in brackets
// where it needs them. Each set is an EXISTS, which the planner makes a semi-join of
// where the filter needs it, and an anti-join where the filter needs its opposite.
func (p Predicate) SQL(start int) string {
	return renumber(p.replaceSets(Set.exists), start)
}

// replaceSets puts the SQL of each set in its place.
func (p Predicate) replaceSets(with func(Set) string) string {
	return setNumber.ReplaceAllStringFunc(p.sql, func(match string) string {
		n, _ := setOf(match)
		return with(p.sets[n])
	})
}

func renumber(sql string, start int) string {
	if start == 1 {
		return sql
	}
	return placeholder.ReplaceAllStringFunc(sql, func(match string) string {
		return "$" + strconv.Itoa(number(match)+start-1)
	})
}

// Digest identifies what the filter means: the hex SHA-256 of its SQL, its values and what
// it is pinned to. A new version of a segment or list that it names changes it.
func (p Predicate) Digest() string {
	text, err := json.Marshal([]any{p.SQL(1), p.Args, p.Uses})
	if err != nil {
		panic(fmt.Sprintf("targeting: %v", err)) // of texts and numbers alone
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// FilterError says what is wrong with a filter and where.
type FilterError struct {
	Line    int    // 1-based
	Column  int    // 1-based, in code points
	Message string // what is wrong
	Hint    string // what would make it right, "" when nothing better can be said

	within bool // it is about a filter inside this one, and Message tells which
}

// Error returns the position, the message and the hint in one line.
func (e *FilterError) Error() string {
	text := fmt.Sprintf("%d:%d: %s", e.Line, e.Column, e.Message)
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

// Compile turns a filter in CEL into a predicate. Every error is a *FilterError.
//
// The language: fields and functions of the catalogue; literals of whole and decimal
// numbers, text, true, false, null, timestamp("2026-01-31T00:00:00Z"), now; == != < <=
// > >=; field in [literals]; && || !; + - * on numbers; time + days(n), time - days(n);
// startsWith, endsWith and contains with a text literal. Functions, see Functions, take
// literals.
//
// Logic is two-valued: a comparison with a field that is empty (NULL) is false, its
// negation by ! is true; == and != are always opposites, so empty != 3 holds. Arithmetic
// on an empty field is empty. Arithmetic is decimal and exact; a double precision column
// enters it with 15 significant digits. Text is ordered by code point.
func (c *Catalogue) Compile(text string) (Predicate, error) {
	checked, faults := c.check(text)
	if len(faults) > 0 {
		return Predicate{}, faults[0]
	}
	return c.predicate(checked, checked.Expr())
}

// predicate walks e, a part of a checked filter.
func (c *Catalogue) predicate(checked *ast.AST, e ast.Expr) (Predicate, error) {
	w := &walker{catalogue: c, ast: checked, emission: &emission{}}
	sql, err := w.filter(e)
	if err != nil {
		return Predicate{}, err
	}
	return Predicate{sql: sql, sets: w.sets, Args: w.args, Uses: w.uses, Fields: w.fields}, nil
}

// Field returns a field by its name.
func (c *Catalogue) Field(name string) (Field, bool) {
	f, ok := c.fields[name]
	return f, ok
}

// Check returns everything that is wrong with a filter, as far as it can be told at once.
func (c *Catalogue) Check(text string) []*FilterError {
	checked, faults := c.check(text)
	if len(faults) > 0 {
		return faults
	}
	var fault *FilterError
	if _, err := c.predicate(checked, checked.Expr()); errors.As(err, &fault) {
		return []*FilterError{fault}
	}
	return nil
}

// check parses a filter and checks its types.
func (c *Catalogue) check(text string) (*ast.AST, []*FilterError) {
	refuse := func(f FilterError) (*ast.AST, []*FilterError) {
		f.Line, f.Column = 1, 1
		return nil, []*FilterError{&f}
	}
	if !utf8.ValidString(text) {
		return refuse(FilterError{Message: "the filter is not valid UTF-8"})
	}
	if strings.TrimSpace(text) == "" {
		return refuse(FilterError{Message: "audience filter is empty", Hint: "write true to mean every customer"})
	}
	if n := utf8.RuneCountInString(text); n > maximumLength {
		return refuse(FilterError{
			Message: fmt.Sprintf("the filter has %d characters, more than %d", n, maximumLength),
			Hint:    "load long lists as a customer list and name the list",
		})
	}
	compiled, issues := c.env.Compile(text)
	if issues.Err() == nil {
		return compiled.NativeRep(), nil
	}
	var faults []*FilterError
	for _, e := range issues.Errors() {
		faults = append(faults, c.explain(e))
	}
	return nil, faults
}

var (
	undeclared   = regexp.MustCompile(`^undeclared reference to '([^']*)'`)
	overload     = regexp.MustCompile(`^found no matching overload for '([^']*)' applied to '([^']*)'`)
	expectedType = regexp.MustCompile(`^expected type '([^']*)' but found '([^']*)'`)
	unexpected   = regexp.MustCompile(`(?:mismatched|extraneous|no viable alternative at) input '([^']*)'`)
	unreadable   = regexp.MustCompile(`token recognition error at: '([^']*)'`)
	wrapped      = regexp.MustCompile(`wrapper\(([a-z]+)\)`)
	typeName     = regexp.MustCompile(`[a-z_]+`)
	operator     = regexp.MustCompile(`^_?([^_a-z]+|\?_:)_?$|^@(in)$`)
)

// explain words an error of the CEL compiler for a planner.
func (c *Catalogue) explain(e *common.Error) *FilterError {
	const spelling = "write && for and, || for or, ! for not, == for equals"
	f := &FilterError{Line: max(e.Location.Line(), 1), Column: max(e.Location.Column(), 0) + 1}
	text := strings.TrimSpace(strings.TrimPrefix(e.Message, "Syntax error:"))
	if m := undeclared.FindStringSubmatch(text); m != nil {
		if symbol, ok := operatorSymbol(m[1]); ok {
			f.Message = fmt.Sprintf("the operator %s is not part of the filter language", symbol)
			return f
		}
		f.Message = fmt.Sprintf("there is no field or function %q", m[1])
		if overloads := c.functions[m[1]]; overloads != nil {
			f.Message, f.Hint = fmt.Sprintf("there is no field %q, but a function", m[1]), signatures(overloads)
		} else if near := nearest(m[1], c.names()); near != "" {
			f.Hint = fmt.Sprintf("did you mean %q?", near)
		}
	} else if m := overload.FindStringSubmatch(text); m != nil {
		name := m[1]
		if symbol, ok := operatorSymbol(name); ok {
			name = symbol
		}
		f.Message = fmt.Sprintf("%s does not take %s", name, plainTypes(m[2]))
		if overloads := c.functions[name]; overloads != nil {
			f.Hint = signatures(overloads)
		}
		if types := plainTypes(m[2]); strings.Contains(types, Timestamp.String()) && strings.Contains(types, Text.String()) {
			f.Hint = timestampHint
		}
	} else if m := expectedType.FindStringSubmatch(text); m != nil {
		f.Message = fmt.Sprintf("a %s is needed here, this is a %s", plainTypes(m[1]), plainTypes(m[2]))
	} else if m := unexpected.FindStringSubmatch(text); m != nil {
		f.Message, f.Hint = fmt.Sprintf("%q is not expected here", m[1]), spelling
		if m[1] == "<EOF>" {
			f.Message, f.Hint = "the filter ends too early", ""
		}
	} else if m := unreadable.FindStringSubmatch(text); m != nil {
		f.Message, f.Hint = fmt.Sprintf("%q cannot be read", m[1]), spelling
	} else {
		f.Message = text
	}
	return f
}

// operatorSymbol returns the symbol of CEL's internal operator name, "_>_" → ">".
func operatorSymbol(name string) (string, bool) {
	m := operator.FindStringSubmatch(name)
	if m == nil {
		return "", false
	}
	return strings.NewReplacer("_", "").Replace(m[1] + m[2]), true
}

// plainTypes words a CEL argument list: "(wrapper(int), string)" → "(whole number, text)".
func plainTypes(signature string) string {
	names := map[string]string{
		"int": Int.String(), "double": Float.String(), "string": Text.String(), "bool": Bool.String(),
		"timestamp": Timestamp.String(), "duration": "days", "uint": "unsigned number", "list": "list of ",
	}
	signature = wrapped.ReplaceAllString(signature, "$1")
	signature = strings.ReplaceAll(signature, "google.protobuf.Timestamp", "timestamp")
	signature = strings.ReplaceAll(signature, "google.protobuf.Duration", "duration")
	return typeName.ReplaceAllStringFunc(signature, func(word string) string {
		if plain, ok := names[word]; ok {
			return plain
		}
		return word
	})
}

// names lists the fields and functions.
func (c *Catalogue) names() []string {
	return slices.Concat(slices.Collect(maps.Keys(c.fields)), slices.Collect(maps.Keys(c.functions)))
}

// nearest returns the candidate with the fewest edits from name, "" when none is close
// enough to be a slip of the hand. Ties go to the alphabetically first.
func nearest(name string, candidates []string) string {
	best, fewest := "", max(2, utf8.RuneCountInString(name)/3)+1
	for _, candidate := range candidates {
		d := editDistance(strings.ToLower(name), strings.ToLower(candidate))
		if d < fewest || d == fewest && best != "" && candidate < best {
			best, fewest = candidate, d
		}
	}
	return best
}

// editDistance returns the Levenshtein distance of a and b in code points.
func editDistance(a, b string) int {
	s, t := []rune(a), []rune(b)
	row := make([]int, len(t)+1)
	for j := range row {
		row[j] = j
	}
	for i, r := range s {
		diagonal := row[0]
		row[0] = i + 1
		for j, u := range t {
			cost := diagonal
			if r != u {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(t)]
}
