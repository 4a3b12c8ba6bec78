package policies

import (
	"errors"
	"fmt"
	"slices"

	"github.com/musterhq/muster/campaign"
)

// Bounds of a document, far above any that people can read.
const (
	maxPermissions = 2000
	maxRules       = 200
	maxCalendars   = 100
	maxFaults      = 20
)

// Lint says what is wrong with a policy document, whoever wrote it: CodeEmptyPolicy when
// it allows nothing or has no approval route, otherwise CodePolicyRejected with every
// field at fault, such as policy (with its line) and routes.rules[2].levels[0].action.
//
// Besides what cannot be understood, where a wildcard or an expression in place of a role
// or an action belongs, it refuses a document under which administrators could sign, a
// level could be signed by no role, or nobody could ever change the policy again.
func Lint(policy, routes string) error {
	_, _, err := lint(policy, routes)
	return err
}

func lint(policy, routes string) ([]permission, Routes, error) {
	var v lintCheck
	table := readPermissions(policy, &v)
	rules, err := ReadRoutes([]byte(routes))
	var faults *campaign.Error
	if errors.As(err, &faults) {
		v.routes(faults)
	}
	if len(table) > 0 {
		v.administrators(table)
		v.wayOut(table)
		v.signable(table, rules)
	}
	if len(v.fields) == 0 {
		return table, rules, nil
	}
	code := campaign.CodePolicyRejected
	for _, f := range v.fields {
		if f.Code == campaign.CodeEmptyPolicy {
			code = campaign.CodeEmptyPolicy
		}
	}
	message := fmt.Sprintf("the policy has %d fault(s)", len(v.fields))
	return nil, Routes{}, &campaign.Error{Code: code, Message: message, Fields: v.fields[:min(len(v.fields), maxFaults)]}
}

type lintCheck struct{ fields []campaign.FieldError }

// row notes a fault in a line of the permissions; 0 is none of them.
func (v *lintCheck) row(line int, code campaign.Code, format string, args ...any) {
	v.fields = append(v.fields, campaign.FieldError{Field: "policy", Line: line, Code: code, Message: fmt.Sprintf(format, args...)})
}

// routes takes over the faults of the routes.
func (v *lintCheck) routes(e *campaign.Error) {
	if len(e.Fields) == 0 {
		v.fields = append(v.fields, campaign.FieldError{Field: "routes", Code: e.Code, Message: e.Error()})
	}
	for _, f := range e.Fields {
		f.Field = "routes." + f.Field
		v.fields = append(v.fields, f)
	}
}

// allowedTo lists the roles that a table gives an action.
func allowedTo(table []permission, act campaign.Action) (roles []campaign.Role) {
	for _, p := range table {
		if p.act == act && p.effect == effectAllow {
			roles = append(roles, p.role)
		}
	}
	return roles
}

// administrators makes sure that whoever hands out roles cannot sign, whatever roles they
// give themselves. What no role may sign needs no denial, so that a document from before
// there was such a signature stays sound.
func (v *lintCheck) administrators(table []permission) {
	for _, act := range campaign.SigningActions() {
		denied := slices.Contains(table, permission{role: campaign.RoleAdmin, act: act, limit: noLimit, effect: effectDeny})
		if !denied && len(allowedTo(table, act)) > 0 {
			v.row(0, campaign.CodePolicyRejected, "must deny %s to administrators, who hand out the roles that sign", act)
		}
	}
}

// wayOut makes sure that roles can be given, and the policy be read, changed and the
// change be decided on, by somebody.
func (v *lintCheck) wayOut(table []permission) {
	for _, act := range []campaign.Action{campaign.ActPolicyRead, campaign.ActPolicyPropose, campaign.ActPolicyDecide, campaign.ActUserAdminister} {
		if len(allowedTo(table, act)) == 0 {
			v.row(0, campaign.CodePolicyRejected, "must allow %s to a role: without it this policy could never be changed again", act)
		}
	}
}

// signable makes sure that there is a role for each level of the routes.
func (v *lintCheck) signable(table []permission, routes Routes) {
	for i, r := range routes.Rules {
		v.levels(table, fmt.Sprintf("routes.rules[%d].levels", i), r.Levels)
		v.levels(table, fmt.Sprintf("routes.rules[%d].credit_levels", i), r.CreditLevels)
	}
}

func (v *lintCheck) levels(table []permission, at string, levels []campaign.ApprovalLevel) {
	for i, l := range levels {
		if len(allowedTo(table, l.Action)) == 0 {
			v.fields = append(v.fields, campaign.FieldError{
				Field: fmt.Sprintf("%s[%d].action", at, i), Code: campaign.CodePolicyRejected,
				Message: fmt.Sprintf("is allowed to no role: nobody could ever sign for %s", l.Action),
			})
		}
	}
}
