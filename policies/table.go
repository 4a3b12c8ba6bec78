package policies

import (
	"encoding/csv"
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

// readPermissions parses a policy table strictly: one row that is not understood
// refuses the whole table, for a policy that is half read is a policy nobody wrote.
func readPermissions(text string) ([]permission, error) {
	r := csv.NewReader(strings.NewReader(text))
	r.Comment = '#'
	r.TrimLeadingSpace = true
	r.FieldsPerRecord = 5
	var table []permission
	seen := map[[2]string]bool{}
	for {
		f, err := r.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, &campaign.Error{Code: campaign.CodeInvalidParameter, Message: "the policy table cannot be read", Err: err}
		}
		line, _ := r.FieldPos(0)
		p := permission{act: campaign.Action(f[2]), limit: f[3], effect: f[4]}
		role, prefixed := strings.CutPrefix(f[1], rolePrefix)
		p.role = campaign.Role(role)
		switch {
		case f[0] != "p":
			return nil, rowFault(line, "starts with %q instead of p", f[0])
		case !prefixed || !slices.Contains(campaign.Roles(), p.role):
			return nil, rowFault(line, "names the unknown role %q", f[1])
		case !slices.Contains(campaign.Actions(), p.act):
			return nil, rowFault(line, "names the unknown action %q", f[2])
		case p.effect != effectAllow && p.effect != effectDeny:
			return nil, rowFault(line, "has the effect %q instead of allow or deny", p.effect)
		case p.effect == effectDeny && p.limit != noLimit:
			return nil, rowFault(line, "denies up to %s only; a denial has the limit *", p.limit)
		case p.limit != noLimit && !canonicalAmount(p.limit):
			return nil, rowFault(line, "has the limit %q instead of * or whole minor units", p.limit)
		case seen[[2]string{f[1], f[2]}]:
			return nil, rowFault(line, "repeats %s for %s", f[2], f[1])
		}
		seen[[2]string{f[1], f[2]}] = true
		table = append(table, p)
	}
	if len(table) == 0 {
		return nil, campaign.Errorf(campaign.CodeEmptyPolicy, "the policy table is empty: nobody could do anything, and a table that was lost must not pass for one that was meant")
	}
	return table, nil
}

func rowFault(line int, format string, args ...any) error {
	err := campaign.Errorf(campaign.CodeInvalidParameter, format, args...)
	err.Message = "line " + strconv.Itoa(line) + " of the policy table " + err.Message
	return err
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
