package policies

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/musterhq/muster/campaign"
)

const (
	rolePrefix = "role:"
	userPrefix = "user:"
	noLimit    = "*"

	effectAllow = "allow"
	effectDeny  = "deny"
)

// permission is one row of the policy table.
type permission struct {
	role   campaign.Role
	act    campaign.Action
	limit  string // minor units, or noLimit
	effect string
}

// row gives the permission in the order of the model's policy definition.
func (p permission) row() []string {
	return []string{rolePrefix + string(p.role), string(p.act), p.limit, p.effect}
}

// subject is what Casbin calls a role, or the part of RoleService that gives one action.
func subject(role campaign.Role, act campaign.Action) string {
	if role == campaign.RoleService {
		return rolePrefix + string(role) + "/" + string(act)
	}
	return rolePrefix + string(role)
}

// String is the permission as a table has it, after the p.
func (p permission) String() string { return strings.Join(p.row(), ", ") }

// readPermissions parses a policy table strictly, with every row at fault noted in v: a
// policy that is half read is a policy nobody wrote.
func readPermissions(text string, v *lintCheck) []permission {
	r := csv.NewReader(strings.NewReader(text))
	r.Comment = '#'
	r.TrimLeadingSpace = true
	r.FieldsPerRecord = 5
	var table []permission
	seen := map[[2]string]bool{}
	for rows := 0; ; rows++ {
		f, err := r.Read()
		if err == io.EOF {
			break
		}
		if rows == maxPermissions {
			v.row(0, campaign.CodePolicyRejected, "has more than %d rows", maxPermissions)
			break
		}
		var unread *csv.ParseError
		if errors.As(err, &unread) { // the only error of reading text; the next line may be sound
			v.row(unread.Line, campaign.CodePolicyRejected, "cannot be read: a row is p, role, action, limit, effect (%v)", unread.Err)
			continue
		}
		line, _ := r.FieldPos(0)
		p := permission{act: campaign.Action(f[2]), limit: f[3], effect: f[4]}
		role, prefixed := strings.CutPrefix(f[1], rolePrefix)
		p.role = campaign.Role(role)
		fault := ""
		switch {
		case f[0] != "p":
			fault = fmt.Sprintf("starts with %q instead of p", f[0])
		case !prefixed || !slices.Contains(campaign.Roles(), p.role):
			fault = fmt.Sprintf("names the unknown role %q; each role is named, as in role:planner", f[1])
		case !slices.Contains(campaign.Actions(), p.act):
			fault = fmt.Sprintf("names the unknown action %q; each action is named, as in campaign.read", f[2])
		case p.effect != effectAllow && p.effect != effectDeny:
			fault = fmt.Sprintf("has the effect %q instead of allow or deny", p.effect)
		case p.effect == effectDeny && p.limit != noLimit:
			fault = fmt.Sprintf("denies up to %s only; a denial has the limit *", p.limit)
		case p.limit != noLimit && !canonicalAmount(p.limit):
			fault = fmt.Sprintf("has the limit %q instead of * or whole minor units", p.limit)
		case seen[[2]string{f[1], f[2]}]:
			fault = fmt.Sprintf("repeats %s for %s", f[2], f[1])
		}
		if fault != "" {
			v.row(line, campaign.CodePolicyRejected, "%s", fault)
			continue
		}
		seen[[2]string{f[1], f[2]}] = true
		table = append(table, p)
	}
	if len(table) == 0 && len(v.fields) == 0 {
		v.row(0, campaign.CodeEmptyPolicy, "is empty: nobody could do anything, and a table that was lost must not pass for one that was meant")
	}
	return table
}

// canonicalAmount reports whether s is a non-negative 64-bit integer written the one
// way that strconv writes it.
func canonicalAmount(s string) bool {
	n, err := strconv.ParseInt(s, 10, 64)
	return err == nil && n >= 0 && strconv.FormatInt(n, 10) == s
}

// within reports whether amount is at most limit. Both are strings of minor units,
// because the expression engine turns every number into a float64, which takes
// 9007199254740993 for 9007199254740992. What cannot be read is not within.
func within(amount, limit string) bool {
	if !canonicalAmount(amount) {
		return false
	}
	if limit == noLimit {
		return true
	}
	if !canonicalAmount(limit) {
		return false
	}
	a, _ := strconv.ParseInt(amount, 10, 64)
	l, _ := strconv.ParseInt(limit, 10, 64)
	return a <= l
}
