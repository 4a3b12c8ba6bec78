package targeting

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"cel.dev/cel-go/common"
)

// Predicate is a compiled filter: SQL that is TRUE exactly for the customers the
// filter holds for (it may be NULL for others), and its bound values.
type Predicate struct {
	sql string
	// Args are the values of the placeholders in order. They are int64, string, bool,
	// []int64 or []string, so they survive JSON and any PostgreSQL driver.
	Args []any
}

var placeholder = regexp.MustCompile(`\$(\d+)`)

// SQL returns the predicate with its placeholders numbered from start, in brackets
// where it needs them.
func (p Predicate) SQL(start int) string {
	if start == 1 {
		return p.sql
	}
	return placeholder.ReplaceAllStringFunc(p.sql, func(match string) string {
		n, _ := strconv.Atoi(match[1:])
		return "$" + strconv.Itoa(n+start-1)
	})
}

// FilterError says what is wrong with a filter and where.
type FilterError struct {
	Line    int    // 1-based
	Column  int    // 1-based, in code points
	Message string // what is wrong
	Hint    string // what would make it right, "" when nothing better can be said
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
// startsWith, endsWith and contains with a text literal.
//
// Logic is two-valued: a comparison with a field that is empty (NULL) is false, its
// negation by ! is true; == and != are always opposites, so empty != 3 holds. Arithmetic
// on an empty field is empty. Arithmetic is decimal and exact; a double precision column
// enters it with 15 significant digits. Text is ordered by code point.
func (c *Catalogue) Compile(text string) (Predicate, error) {
	if !utf8.ValidString(text) {
		return Predicate{}, &FilterError{Line: 1, Column: 1, Message: "the filter is not valid UTF-8"}
	}
	if strings.TrimSpace(text) == "" {
		return Predicate{}, &FilterError{
			Line: 1, Column: 1, Message: "audience filter is empty", Hint: "write true to mean every customer",
		}
	}
	if n := utf8.RuneCountInString(text); n > maximumLength {
		return Predicate{}, &FilterError{
			Line: 1, Column: 1,
			Message: fmt.Sprintf("the filter has %d characters, more than %d", n, maximumLength),
			Hint:    "load long lists as a customer list and name the list",
		}
	}
	ast, issues := c.env.Compile(text)
	if issues.Err() != nil {
		return Predicate{}, c.explain(issues.Errors()[0])
	}
	w := &walker{catalogue: c, ast: ast.NativeRep()}
	sql, err := w.filter(w.ast.Expr())
	if err != nil {
		return Predicate{}, err
	}
	return Predicate{sql: sql, Args: w.args}, nil
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
		if near := c.nearest(m[1]); near != "" {
			f.Hint = fmt.Sprintf("did you mean %q?", near)
		}
	} else if m := overload.FindStringSubmatch(text); m != nil {
		name := m[1]
		if symbol, ok := operatorSymbol(name); ok {
			name = symbol
		}
		f.Message = fmt.Sprintf("%s does not take %s", name, plainTypes(m[2]))
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

// nearest returns the declared name with the fewest edits from name, "" when none is
// close enough to be a slip of the hand. Ties go to the alphabetically first.
func (c *Catalogue) nearest(name string) string {
	best, fewest := "", max(2, utf8.RuneCountInString(name)/3)+1
	try := func(candidate string) {
		d := editDistance(strings.ToLower(name), candidate)
		if d < fewest || d == fewest && best != "" && candidate < best {
			best, fewest = candidate, d
		}
	}
	for candidate := range c.fields {
		try(candidate)
	}
	for candidate := range c.functions {
		try(candidate)
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
