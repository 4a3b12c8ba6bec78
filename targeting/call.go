package targeting

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"

	"github.com/musterhq/muster/campaign"
)

// declared emits the call of a declared function. A set stands in the SQL as its number in
// braces, which no other emitted text contains: a Predicate puts it in as it is needed.
func (w *walker) declared(e ast.Expr, overloads []Function, args []ast.Expr) (string, error) {
	given := Function{}
	for _, a := range args {
		given.Args = append(given.Args, Argument{Type: w.typeOf(a)})
	}
	at := slices.IndexFunc(overloads, given.sameArgs)
	if at < 0 {
		return "", w.fail(e, signatures(overloads), "%s does not take null", overloads[0].Name)
	}
	f := overloads[at]
	if f.Filter != nil {
		return w.expand(e, f, args)
	}
	values := make([]string, len(args))
	for i, a := range args {
		var err error
		if values[i], err = w.argument(f, f.Args[i], a); err != nil {
			return "", err
		}
	}
	w.sets = append(w.sets, f.Set(values))
	return "{" + strconv.Itoa(len(w.sets)-1) + "}", nil
}

// setOf returns the number of the set that sql is, and whether it is one.
func setOf(sql string) (int, bool) {
	if !strings.HasPrefix(sql, "{") {
		return 0, false
	}
	digits, rest, ok := strings.Cut(sql[1:], "}")
	n, err := strconv.Atoi(digits)
	return n, ok && err == nil && rest == ""
}

func (w *walker) typeOf(e ast.Expr) Type {
	switch w.ast.GetType(e.ID()).Kind() {
	case types.IntKind:
		return Int
	case types.DoubleKind:
		return Float
	case types.StringKind:
		return Text
	case types.BoolKind:
		return Bool
	case types.TimestampKind:
		return Timestamp
	case types.DurationKind:
		return Days
	}
	return 0
}

// argument emits one argument of a call: a placeholder of what it stands for.
func (w *walker) argument(f Function, a Argument, e ast.Expr) (string, error) {
	if a.Type == Days {
		return w.days(e)
	}
	if e.Kind() != ast.LiteralKind {
		return "", w.fail(e, "write it like "+f.Example, "%s takes no field here, only a literal", f.Name)
	}
	if a.Resolve == nil {
		v, err := w.literal(e)
		return v.sql, err
	}
	text, _ := constant[types.String](e)
	named, err := a.Resolve(string(text))
	if err != nil {
		return "", w.unknown(e, err)
	}
	if named.Use != nil {
		w.use(*named.Use)
	}
	return w.bind(e, named.Value, "text")
}

func (w *walker) unknown(e ast.Expr, err error) error {
	var unknown *Unknown
	if errors.As(err, &unknown) {
		return w.fail(e, unknown.Hint, "%s", unknown.Message)
	}
	return w.fail(e, "", "%s", err.Error())
}

func (w *walker) use(u campaign.FilterUse) {
	if !slices.Contains(w.uses, u) {
		w.uses = append(w.uses, u)
	}
}

// expand emits the filter that a call stands for. A fault in it is told at the call.
func (w *walker) expand(e ast.Expr, f Function, args []ast.Expr) (string, error) {
	name, ok := constant[types.String](args[0])
	var version types.Int
	if ok && len(args) == 2 {
		if version, ok = constant[types.Int](args[1]); version < 1 {
			return "", w.fail(args[1], "", "versions count from 1")
		}
	}
	if !ok {
		return "", w.fail(e, "write it like "+f.Example, "%s takes only literals", f.Name)
	}
	text, use, err := f.Filter(string(name), int64(version))
	if err != nil {
		return "", w.unknown(args[0], err)
	}
	w.use(use)
	call := fmt.Sprintf("%s(%q)", f.Name, string(name))
	path := append(slices.Clone(w.inside), call)
	w.expansions++
	switch {
	case slices.Contains(w.inside, call):
		return "", w.fail(e, "", "%s contains itself: %s", call, strings.Join(path, " → "))
	case len(path) > maximumDepth:
		return "", w.fail(e, "", "more than %d filters are inside each other: %s", maximumDepth, strings.Join(path, " → "))
	case w.expansions > maximumExpansions:
		return "", w.fail(e, "", "the filter contains more than %d others", maximumExpansions)
	}
	checked, faults := w.catalogue.check(text)
	if len(faults) > 0 {
		return "", w.within(e, call, faults[0])
	}
	inner := &walker{catalogue: w.catalogue, ast: checked, emission: w.emission, inside: path}
	sql, err := inner.filter(checked.Expr())
	var fault *FilterError
	if errors.As(err, &fault) {
		return "", w.within(e, call, fault)
	}
	return sql, err
}

// within says at e what is wrong with the filter that a call stands for.
func (w *walker) within(e ast.Expr, call string, fault *FilterError) error {
	wrong := w.place(e)
	wrong.Message, wrong.Hint, wrong.within = fault.Message, fault.Hint, true
	if !fault.within {
		wrong.Message = fmt.Sprintf("in %s at %d:%d: %s", call, fault.Line, fault.Column, fault.Message)
	}
	return wrong
}

// allowed refuses a text that a field never has. args are where it may stand.
func (w *walker) allowed(f Field, args []ast.Expr, text *string) error {
	if text == nil || len(f.Allowed) == 0 || slices.Contains(f.Allowed, *text) {
		return nil
	}
	at := args[0]
	for _, a := range args {
		if l, ok := constant[types.String](a); ok && string(l) == *text {
			at = a
		}
	}
	return w.fail(at, suggest(*text, f.Allowed), "%q is not an allowed value of %s", *text, f.Name)
}

// suggest words which of the values was meant, or what they are.
func suggest(text string, values []string) string {
	if near := nearest(text, values); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	const shown = 12
	var list []string
	for _, v := range values[:min(len(values), shown)] {
		list = append(list, strconv.Quote(v))
	}
	if len(values) > shown {
		list = append(list, "…")
	}
	if len(list) == 0 {
		return ""
	}
	return "there are " + strings.Join(list, ", ")
}

// signatures words how a function is called.
func signatures(overloads []Function) string {
	calls := make([]string, len(overloads))
	for i, f := range overloads {
		calls[i] = f.Signature()
	}
	return "write it like " + strings.Join(calls, " or ")
}

// Signature returns how the function is called, with the names of its arguments.
func (f Function) Signature() string {
	args := make([]string, len(f.Args))
	for i, a := range f.Args {
		switch a.Type {
		case Days:
			args[i] = "days(" + a.Name + ")"
		case Text:
			args[i] = `"` + a.Name + `"`
		default:
			args[i] = a.Name
		}
	}
	return f.Name + "(" + strings.Join(args, ", ") + ")"
}
