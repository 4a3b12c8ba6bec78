package targeting

import (
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/parser"
)

// Condition is one of the conditions that must all hold for a filter to hold.
type Condition struct {
	Text string
	Predicate
}

// Conditions compiles a filter in parts: what its topmost && join, in the order in which they
// were written. The filter holds where all of them do. Every error is a *FilterError.
func (c *Catalogue) Conditions(text string) ([]Condition, error) {
	checked, faults := c.check(text)
	if len(faults) > 0 {
		return nil, faults[0]
	}
	var parts []ast.Expr
	var split func(e ast.Expr)
	split = func(e ast.Expr) {
		if e.Kind() == ast.CallKind && e.AsCall().FunctionName() == operators.LogicalAnd {
			for _, a := range e.AsCall().Args() {
				split(a)
			}
			return
		}
		parts = append(parts, e)
	}
	split(checked.Expr())
	conditions := make([]Condition, len(parts))
	for i, e := range parts {
		p, err := c.predicate(checked, e)
		if err != nil {
			return nil, err
		}
		words, err := parser.Unparse(e, checked.SourceInfo())
		if err != nil {
			return nil, &FilterError{Line: 1, Column: 1, Message: "the filter cannot be shown in parts"}
		}
		conditions[i] = Condition{Text: words, Predicate: p}
	}
	return conditions, nil
}
