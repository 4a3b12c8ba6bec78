// Package targeting decides who a campaign is for: it compiles an audience filter
// to a parameterised SQL predicate, draws the control group by a stable hash, and
// builds the one set-based statement that freezes the targets.
package targeting

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/operators"

	"github.com/musterhq/muster/campaign"
)

// Type is the type of a customer attribute as a filter sees it.
type Type int

// The attribute types. A whole number is read as bigint and a decimal number as
// numeric; a decimal column should be numeric or double precision, because a real
// column does not hold 0.1 and so never equals the literal 0.1.
const (
	Int Type = iota + 1
	Float
	Text
	Bool
	Timestamp
	Days // a span of days(n), of functions' arguments only
)

// String returns the type's name as it appears in messages to planners.
func (t Type) String() string {
	switch t {
	case Int:
		return "whole number"
	case Float:
		return "number"
	case Text:
		return "text"
	case Bool:
		return "yes/no"
	case Timestamp:
		return "time"
	case Days:
		return "days"
	}
	return "unknown type"
}

func (t Type) cel() *cel.Type {
	switch t {
	case Int:
		return cel.IntType
	case Float:
		return cel.DoubleType
	case Text:
		return cel.StringType
	case Bool:
		return cel.BoolType
	case Timestamp:
		return cel.TimestampType
	case Days:
		return cel.DurationType
	}
	return nil
}

// Field is one attribute that a filter may name.
type Field struct {
	Name     string // as written in a filter, e.g. "age"
	Column   string // trusted SQL that reads it: a column, e.g. "c.age", or an expression in brackets
	Type     Type
	Nullable bool // the column may be NULL; such a field may be compared with null
	// Allowed are the values that a text field may be compared with; none for any.
	Allowed []string
}

// Set is a set of customers as a query: SELECT s.customer_id FROM From WHERE Where.
type Set struct {
	From   string // trusted SQL, with the alias s and its column customer_id
	Where  string // trusted SQL over s
	Unique bool   // no customer comes twice
	// Near, where it is set, is trusted SQL over s and c that follows from both being the same
	// customer: what finds one customer's rows.
	Near string
}

func (x Set) exists() string {
	same := "s.customer_id = " + customerID
	if x.Near != "" {
		same += " AND " + x.Near
	}
	return "EXISTS (SELECT 1 FROM " + x.From + " WHERE " + same + " AND " + x.Where + ")"
}

func (x Set) members() string {
	distinct := "DISTINCT "
	if x.Unique {
		distinct = ""
	}
	return "SELECT " + distinct + "s.customer_id FROM " + x.From + " WHERE " + x.Where
}

// Argument is what a function is called with: always a literal, or days(n).
type Argument struct {
	Name string
	Type Type
	// Resolve, where it is set, finds what a text argument names. It fails with an *Unknown.
	Resolve func(text string) (Named, error)
}

// Named is what a name in a filter stands for.
type Named struct {
	Value string              // what is bound in place of the name
	Use   *campaign.FilterUse // what the filter depends on by it, if anything
}

// Unknown says that a name stands for nothing.
type Unknown struct{ Message, Hint string }

// Error implements error.
func (u *Unknown) Error() string { return u.Message }

// Function is a yes/no function that a filter may call, e.g. has_product("MMS"): a customer
// is in a set or is not. A name may be declared again with other arguments.
type Function struct {
	Name string
	Args []Argument
	// Set returns the customers that a call holds for. args are placeholders of what the
	// arguments stand for, each may be used any number of times.
	Set func(args []string) Set
	// Filter, in place of Set, returns the filter that a call stands for. Such a function takes a
	// name and perhaps a version, which is 0 without one. It fails with an *Unknown.
	Filter func(name string, version int64) (text string, use campaign.FilterUse, err error)

	Meaning   string // in a sentence
	MeaningZh string
	Example   string
}

func (f Function) sameArgs(o Function) bool {
	return slices.EqualFunc(f.Args, o.Args, func(a, b Argument) bool { return a.Type == b.Type })
}

// Catalogue is the vocabulary of audience filters: the declared attributes and
// functions. It is immutable and safe for concurrent use.
type Catalogue struct {
	env       *cel.Env
	fields    map[string]Field
	functions map[string][]Function
}

// Limits on one filter. They bound the work of compiling and of planning a filter
// that is hostile or generated; the widest filter of a person's making is far below.
const (
	maximumLength     = 10_000 // code points
	maximumNesting    = 64     // levels of brackets and operators
	maximumLiterals   = 1_000  // bound values; a list counts as one
	maximumArithmetic = 32     // + - * in one filter: keeps every result inside numeric's range
	maximumExpansions = 50     // filters that stand in place of a call, in one filter
	maximumDepth      = 8      // of filters inside each other
)

// The words of the language that no field or function may take.
const (
	nameNow       = "now"
	nameDays      = "days"
	nameTimestamp = "timestamp"
)

// The text functions.
const (
	nameStartsWith = "startsWith"
	nameEndsWith   = "endsWith"
	nameContains   = "contains"
)

var (
	identifier = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	reserved   = []string{
		nameNow, nameDays, nameTimestamp, "true", "false", "null", "in", "has", "as", "break", "const", "continue",
		"else", "for", "function", "if", "import", "let", "loop", "package", "namespace", "return", "var", "void", "while",
	}
)

// NewCatalogue returns the catalogue of fields and functions. It fails on a name that
// is not a lower-case identifier, is a word of the language or is declared twice, and
// on a field without a column or with an unknown type. A function may bear a field's name.
func NewCatalogue(fields []Field, functions ...Function) (*Catalogue, error) {
	c := &Catalogue{fields: map[string]Field{}, functions: map[string][]Function{}}
	options := []cel.EnvOption{
		cel.ParserExpressionSizeLimit(maximumLength),
		cel.ParserRecursionLimit(maximumNesting),
		cel.ParserErrorRecoveryLimit(4),
	}
	options = append(options, language()...)
	for _, f := range fields {
		if err := checkName(f.Name); err != nil {
			return nil, err
		}
		if _, twice := c.fields[f.Name]; twice {
			return nil, fmt.Errorf("catalogue: %q is declared twice", f.Name)
		}
		if f.Type.cel() == nil || f.Type == Days {
			return nil, fmt.Errorf("catalogue: field %q has no known type", f.Name)
		}
		// A dollar sign would be taken for a placeholder when a predicate is renumbered, a brace
		// for a set.
		if f.Column == "" || strings.ContainsAny(f.Column, "${") {
			return nil, fmt.Errorf("catalogue: field %q needs the SQL of its column, without $ and {", f.Name)
		}
		t := f.Type.cel()
		if f.Nullable {
			t = cel.NullableType(t)
		}
		c.fields[f.Name] = f
		options = append(options, cel.Variable(f.Name, t))
	}
	for _, f := range functions {
		if err := checkName(f.Name); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(c.functions[f.Name], f.sameArgs) {
			return nil, fmt.Errorf("catalogue: %q is declared twice with the same arguments", f.Name)
		}
		if f.Set == nil && f.Filter == nil {
			return nil, fmt.Errorf("catalogue: function %q has no set", f.Name)
		}
		args := make([]*cel.Type, len(f.Args))
		for i, a := range f.Args {
			if a.Type.cel() == nil || a.Resolve != nil && a.Type != Text {
				return nil, fmt.Errorf("catalogue: function %q has an argument of no fitting type", f.Name)
			}
			args[i] = a.Type.cel()
		}
		overload := fmt.Sprintf("%s/%d", f.Name, len(c.functions[f.Name]))
		c.functions[f.Name] = append(c.functions[f.Name], f)
		options = append(options, cel.Function(f.Name, cel.Overload(overload, args, cel.BoolType)))
	}
	env, err := cel.NewCustomEnv(options...)
	if err != nil {
		return nil, fmt.Errorf("catalogue: %w", err)
	}
	c.env = env
	return c, nil
}

func checkName(name string) error {
	if !identifier.MatchString(name) {
		return fmt.Errorf("catalogue: %q is not a lower-case identifier", name)
	}
	if slices.Contains(reserved, name) {
		return fmt.Errorf("catalogue: %q is a word of the filter language", name)
	}
	return nil
}

// language declares everything a filter may say besides fields and functions. The
// environment is a custom one, without CEL's standard library, so what is not listed
// here does not compile. Every operand is declared nullable: the walker gives a
// comparison with NULL its meaning.
func language() []cel.EnvOption {
	number := []*cel.Type{cel.IntType, cel.DoubleType}
	null := cel.NullableType
	numeric := func(result *cel.Type) []signature {
		var all []signature
		for _, a := range number {
			for _, b := range number {
				r := result
				if r == nil {
					r = null(cel.DoubleType)
					if a == cel.IntType && b == cel.IntType {
						r = null(cel.IntType)
					}
				}
				all = append(all, signature{[]*cel.Type{null(a), null(b)}, r})
			}
		}
		return all
	}
	same := func(result *cel.Type, types ...*cel.Type) []signature {
		var all []signature
		for _, t := range types {
			all = append(all, signature{[]*cel.Type{null(t), null(t)}, result})
		}
		return all
	}
	ordered := append(numeric(cel.BoolType), same(cel.BoolType, cel.StringType, cel.TimestampType)...)
	equal := append(slices.Clone(ordered), same(cel.BoolType, cel.BoolType)...)
	shift := signature{[]*cel.Type{null(cel.TimestampType), cel.DurationType}, null(cel.TimestampType)}
	var member []signature
	for _, t := range []*cel.Type{cel.IntType, cel.DoubleType, cel.StringType, cel.TimestampType} {
		member = append(member, signature{[]*cel.Type{null(t), cel.ListType(t)}, cel.BoolType})
	}
	member = append(member, signature{[]*cel.Type{null(cel.DoubleType), cel.ListType(cel.IntType)}, cel.BoolType})

	options := []cel.EnvOption{
		cel.Variable(nameNow, cel.TimestampType),
		function(nameDays, signature{[]*cel.Type{cel.IntType}, cel.DurationType}),
		function(nameTimestamp, signature{[]*cel.Type{cel.StringType}, cel.TimestampType}),
		function(operators.LogicalAnd, same(cel.BoolType, cel.BoolType)...),
		function(operators.LogicalOr, same(cel.BoolType, cel.BoolType)...),
		function(operators.LogicalNot, signature{[]*cel.Type{null(cel.BoolType)}, cel.BoolType}),
		function(operators.Equals, equal...),
		function(operators.NotEquals, equal...),
		function(operators.In, member...),
		function(operators.Add, append(numeric(nil), shift)...),
		function(operators.Subtract, append(numeric(nil), shift)...),
		function(operators.Multiply, numeric(nil)...),
		function(operators.Negate,
			signature{[]*cel.Type{null(cel.IntType)}, null(cel.IntType)},
			signature{[]*cel.Type{null(cel.DoubleType)}, null(cel.DoubleType)}),
	}
	for _, op := range []string{operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals} {
		options = append(options, function(op, ordered...))
	}
	for _, name := range []string{nameStartsWith, nameEndsWith, nameContains} {
		options = append(options, cel.Function(name, cel.MemberOverload("text_"+name,
			[]*cel.Type{null(cel.StringType), cel.StringType}, cel.BoolType)))
	}
	return options
}

type signature struct {
	args   []*cel.Type
	result *cel.Type
}

func function(name string, signatures ...signature) cel.EnvOption {
	overloads := make([]cel.FunctionOpt, len(signatures))
	for i, s := range signatures {
		overloads[i] = cel.Overload(fmt.Sprintf("%s/%d", name, i), s.args, s.result)
	}
	return cel.Function(name, overloads...)
}
