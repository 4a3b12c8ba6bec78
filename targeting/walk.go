package targeting

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/musterhq/muster/campaign"
)

// walker emits the SQL of one checked filter. No text of the filter ever enters the
// SQL: names are looked up, literals are bound.
type walker struct {
	catalogue *Catalogue
	ast       *ast.AST
	*emission
	inside []string // the calls that this filter stands in place of, outermost first
}

// emission is what has been emitted for one filter and those it contains.
type emission struct {
	args       []any
	sets       []Set
	uses       []campaign.FilterUse
	fields     []string
	arithmetic int
	expansions int
}

// operand is a value in SQL.
type operand struct {
	sql      string
	typ      Type
	nullable bool
	null     bool // the literal null
	computed bool // the result of arithmetic, of SQL type numeric when it is a number

	field Field   // that it is, if it is one
	text  *string // of a text literal
}

func (w *walker) fail(e ast.Expr, hint, format string, args ...any) error {
	f := w.place(e)
	f.Message, f.Hint = fmt.Sprintf(format, args...), hint
	return f
}

// place returns an error at e that says nothing yet.
func (w *walker) place(e ast.Expr) *FilterError {
	at := w.ast.SourceInfo().GetStartLocation(e.ID())
	return &FilterError{Line: max(at.Line(), 1), Column: max(at.Column(), 0) + 1}
}

// bind adds an argument and returns its placeholder with a cast.
func (w *walker) bind(e ast.Expr, value any, cast string) (string, error) {
	if len(w.args) == maximumLiterals {
		return "", w.fail(e, "put the values of one field into a list: field in [...]",
			"the filter has more than %d values", maximumLiterals)
	}
	w.args = append(w.args, value)
	return "$" + strconv.Itoa(len(w.args)) + "::" + cast, nil
}

// filter emits e where a yes/no is wanted. The SQL is TRUE iff e holds and FALSE or
// NULL otherwise: AND, OR keep that, ! goes through IS NOT TRUE, so logic is two-valued
// while positive comparisons stay bare and can use an index.
func (w *walker) filter(e ast.Expr) (string, error) {
	if e.Kind() == ast.CallKind {
		call := e.AsCall()
		args := call.Args()
		switch name := call.FunctionName(); name {
		case operators.LogicalAnd:
			return w.join(args, " AND ")
		case operators.LogicalOr:
			return w.join(args, " OR ")
		case operators.LogicalNot:
			sql, err := w.filter(args[0])
			if _, ok := setOf(sql); ok {
				return "(NOT " + sql + ")", err // an anti-join; a set is never NULL
			}
			return "(" + sql + " IS NOT TRUE)", err
		case operators.Equals:
			return w.equality(e, args, "=", "IS NOT DISTINCT FROM", "IS NULL")
		case operators.NotEquals:
			return w.equality(e, args, "<>", "IS DISTINCT FROM", "IS NOT NULL")
		case operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals:
			symbol, _ := operatorSymbol(name)
			return w.order(args, symbol)
		case operators.In:
			return w.member(args)
		case nameStartsWith, nameEndsWith, nameContains:
			return w.like(call.Target(), args[0], name)
		default:
			if overloads, ok := w.catalogue.functions[name]; ok {
				return w.declared(e, overloads, args)
			}
		}
	}
	v, err := w.value(e)
	if err != nil {
		return "", err
	}
	if v.typ != Bool {
		return "", w.fail(e, "compare it with something", "a filter needs a yes/no here, this is a %s", v.typ)
	}
	if v.null {
		return "", w.fail(e, "", "null is neither yes nor no")
	}
	return v.sql, nil
}

func (w *walker) join(args []ast.Expr, with string) (string, error) {
	parts := make([]string, len(args))
	for i, a := range args {
		sql, err := w.filter(a)
		if err != nil {
			return "", err
		}
		parts[i] = sql
	}
	return "(" + strings.Join(parts, with) + ")", nil
}

// value emits e where a value is wanted.
func (w *walker) value(e ast.Expr) (operand, error) {
	switch e.Kind() {
	case ast.LiteralKind:
		return w.literal(e)
	case ast.IdentKind:
		name := e.AsIdent()
		if name == nameNow {
			return operand{sql: "now()", typ: Timestamp}, nil
		}
		if f, ok := w.catalogue.fields[name]; ok {
			if !slices.Contains(w.fields, name) {
				w.fields = append(w.fields, name)
			}
			return operand{sql: f.Column, typ: f.Type, nullable: f.Nullable, field: f}, nil
		}
	case ast.CallKind:
		call := e.AsCall()
		switch name := call.FunctionName(); name {
		case nameTimestamp:
			at, err := w.instant(e)
			if err != nil {
				return operand{}, err
			}
			sql, err := w.bind(e, at, "timestamptz")
			return operand{sql: sql, typ: Timestamp}, err
		case operators.Add, operators.Subtract, operators.Multiply, operators.Negate:
			return w.compute(e, call)
		}
		if t := w.ast.GetType(e.ID()); t != nil && t.Kind() == types.BoolKind {
			sql, err := w.filter(e)
			return operand{sql: "(" + sql + " IS TRUE)", typ: Bool}, err
		}
	}
	return operand{}, w.fail(e, "", "this is not part of the filter language")
}

func (w *walker) literal(e ast.Expr) (operand, error) {
	var (
		v    operand
		err  error
		arg  any
		cast string
	)
	switch l := e.AsLiteral().(type) {
	case types.Null:
		return operand{typ: Bool, null: true, nullable: true}, nil
	case types.Bool:
		v.typ, arg, cast = Bool, bool(l), "boolean"
	case types.Int:
		v.typ, arg, cast = Int, int64(l), "bigint"
	case types.Double:
		// As text: the literal keeps the value that was written, 0.1 and not its binary neighbour.
		v.typ, arg, cast = Float, decimal(float64(l)), "numeric"
	case types.String:
		if strings.ContainsRune(string(l), 0) {
			return v, w.fail(e, "", "a text must not contain the NUL character")
		}
		text := string(l)
		v.typ, v.text, arg, cast = Text, &text, text, "text"
	default:
		return v, w.fail(e, "", "a literal of this type is not part of the filter language")
	}
	v.sql, err = w.bind(e, arg, cast)
	return v, err
}

func decimal(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

const timestampHint = `write it like timestamp("2026-01-31T00:00:00Z")`

// instant returns the text of timestamp("…") in RFC 3339.
func (w *walker) instant(e ast.Expr) (string, error) {
	arg := e.AsCall().Args()[0]
	text, ok := constant[types.String](arg)
	if !ok {
		return "", w.fail(arg, timestampHint, "timestamp takes a text literal")
	}
	at, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil || at.UTC().Year() < 1 || at.UTC().Year() > 9999 {
		return "", w.fail(arg, timestampHint, "this is not a time of the years 1 to 9999")
	}
	return at.UTC().Format(time.RFC3339Nano), nil
}

func constant[T any](e ast.Expr) (T, bool) {
	var none T
	if e.Kind() != ast.LiteralKind {
		return none, false
	}
	v, ok := e.AsLiteral().(T)
	return v, ok
}

// compute emits arithmetic. Numbers are computed as numeric, which neither overflows nor
// rounds within the limits on a filter, so a selection never fails in the middle of a scan.
func (w *walker) compute(e ast.Expr, call ast.CallExpr) (operand, error) {
	if w.arithmetic++; w.arithmetic > maximumArithmetic {
		return operand{}, w.fail(e, "", "the filter has more than %d arithmetic operators", maximumArithmetic)
	}
	args := call.Args()
	a, err := w.computand(args[0])
	if err != nil {
		return operand{}, err
	}
	if call.FunctionName() == operators.Negate {
		return operand{sql: "(-" + a.sql + "::numeric)", typ: a.typ, nullable: a.nullable, computed: true}, nil
	}
	symbol, _ := operatorSymbol(call.FunctionName())
	if a.typ == Timestamp {
		days, err := w.days(args[1])
		return operand{sql: "(" + a.sql + " " + symbol + " " + days + ")", typ: Timestamp, nullable: a.nullable}, err
	}
	b, err := w.computand(args[1])
	if err != nil {
		return operand{}, err
	}
	t := Int
	if a.typ == Float || b.typ == Float {
		t = Float
	}
	return operand{
		sql: "(" + a.sql + "::numeric " + symbol + " " + b.sql + "::numeric)",
		typ: t, nullable: a.nullable || b.nullable, computed: true,
	}, nil
}

func (w *walker) computand(e ast.Expr) (operand, error) {
	v, err := w.value(e)
	if err == nil && v.null {
		err = w.fail(e, "", "nothing can be computed with null")
	}
	return v, err
}

// days emits days(n) in hours, so that the result does not depend on the session's time zone.
func (w *walker) days(e ast.Expr) (string, error) {
	const most = 36_500
	if e.Kind() == ast.CallKind && e.AsCall().FunctionName() == nameDays {
		arg := e.AsCall().Args()[0]
		if n, ok := constant[types.Int](arg); ok && n >= -most && n <= most {
			return w.bind(arg, fmt.Sprintf("%d hours", 24*int64(n)), "interval")
		}
		return "", w.fail(arg, "", "days takes a whole number from -%d to %d", most, most)
	}
	return "", w.fail(e, "write it like now - days(30)", "only days(n) can be added to or taken from a time")
}

// pair emits both sides of a comparison. When one is computed, the other becomes numeric too:
// a numeric beyond double precision's range must not be narrowed.
func (w *walker) pair(args []ast.Expr) (a, b operand, err error) {
	if a, err = w.value(args[0]); err != nil {
		return a, b, err
	}
	if b, err = w.value(args[1]); err != nil {
		return a, b, err
	}
	if a.computed != b.computed && !a.null && !b.null {
		if a.computed {
			b.sql += "::numeric"
		} else {
			a.sql += "::numeric"
		}
	}
	return a, b, nil
}

func (w *walker) equality(e ast.Expr, args []ast.Expr, plain, distinct, null string) (string, error) {
	a, b, err := w.pair(args)
	if err != nil {
		return "", err
	}
	if a.null {
		a, b = b, a
	}
	switch {
	case a.null:
		return "", w.fail(e, "compare a field with null", "null with null says nothing")
	case b.null && !a.nullable:
		return "", w.fail(e, "leave this comparison out", "this value is never empty, so it cannot be compared with null")
	case b.null:
		return "(" + a.sql + " " + null + ")", nil
	}
	for i, o := range []operand{b, a} {
		if err := w.allowed([]operand{a, b}[i].field, args, o.text); err != nil {
			return "", err
		}
	}
	switch {
	case plain == "=" && a.nullable && b.nullable, plain != "=" && (a.nullable || b.nullable):
		return "(" + a.sql + " " + distinct + " " + b.sql + ")", nil
	}
	return "(" + a.sql + " " + plain + " " + b.sql + ")", nil
}

func (w *walker) order(args []ast.Expr, symbol string) (string, error) {
	a, b, err := w.pair(args)
	if err != nil {
		return "", err
	}
	for i, v := range []operand{a, b} {
		if v.null {
			return "", w.fail(args[i], "use == null or != null", "null has no order")
		}
	}
	if a.typ == Text {
		a.sql += ` COLLATE "C"`
	}
	return "(" + a.sql + " " + symbol + " " + b.sql + ")", nil
}

// member emits "field in [literals]" with the list bound as one array.
func (w *walker) member(args []ast.Expr) (string, error) {
	v, err := w.value(args[0])
	if err != nil {
		return "", err
	}
	if v.null {
		return "", w.fail(args[0], "use field == null", "null is in no list")
	}
	if args[1].Kind() != ast.ListKind {
		return "", w.fail(args[1], "write it like field in [1, 2]", "in takes a list of literals")
	}
	elements := args[1].AsList().Elements()
	if len(elements) == 0 {
		return "", w.fail(args[1], "name at least one value", "the list is empty")
	}
	var (
		whole []int64
		texts []string
		cast  string
	)
	for _, e := range elements {
		if v.typ == Timestamp && e.Kind() == ast.CallKind && e.AsCall().FunctionName() == nameTimestamp {
			at, err := w.instant(e)
			if err != nil {
				return "", err
			}
			texts, cast = append(texts, at), "text[]::timestamptz[]"
			continue
		}
		if e.Kind() != ast.LiteralKind {
			return "", w.fail(e, "", "a list holds literals only")
		}
		switch l := e.AsLiteral().(type) {
		case types.Int:
			switch v.typ {
			case Int:
				whole, cast = append(whole, int64(l)), "bigint[]"
				continue
			case Float:
				texts, cast = append(texts, strconv.FormatInt(int64(l), 10)), "text[]::numeric[]"
				continue
			}
		case types.Double:
			if v.typ == Float {
				texts, cast = append(texts, decimal(float64(l))), "text[]::numeric[]"
				continue
			}
		case types.String:
			if strings.ContainsRune(string(l), 0) {
				return "", w.fail(e, "", "a text must not contain the NUL character")
			}
			if v.typ == Text {
				text := string(l)
				if err := w.allowed(v.field, []ast.Expr{e}, &text); err != nil {
					return "", err
				}
				texts, cast = append(texts, text), "text[]"
				continue
			}
		}
		return "", w.fail(e, "", "this list may hold only literals of type %s", v.typ)
	}
	var list any = whole
	if whole == nil {
		list = texts
	}
	sql, err := w.bind(args[1], list, cast)
	return "(" + v.sql + " = ANY (" + sql + "))", err
}

var escapeLike = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

func (w *walker) like(target, arg ast.Expr, name string) (string, error) {
	v, err := w.value(target)
	if err != nil {
		return "", err
	}
	if v.null {
		return "", w.fail(target, "use field == null", "null has no text")
	}
	text, ok := constant[types.String](arg)
	if !ok {
		return "", w.fail(arg, "", "%s takes a text literal", name)
	}
	if strings.ContainsRune(string(text), 0) {
		return "", w.fail(arg, "", "a text must not contain the NUL character")
	}
	pattern := escapeLike.Replace(string(text))
	if name != nameStartsWith {
		pattern = "%" + pattern
	}
	if name != nameEndsWith {
		pattern += "%"
	}
	sql, err := w.bind(arg, pattern, "text")
	return "(" + v.sql + " LIKE " + sql + ")", err
}
