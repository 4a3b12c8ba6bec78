// Package policies answers who may do what, up to which amount, and who must sign
// for a sum. Roles and permissions are data: a model and a table that Casbin
// evaluates, and a table of approval routes. The grants, which user holds which
// role at which unit, come from outside and are read again on demand.
//
// What depends on a person's history with a campaign (nobody signs their own, one
// person signs one level) is not here but with the approval itself.
package policies

import (
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"

	"github.com/musterhq/muster/campaign"
)

var (
	//go:embed model.conf
	modelText string
	//go:embed policy.csv
	policyText string
	//go:embed routes.json
	routesText []byte
)

// Authority is the grant and the permission that let somebody through.
type Authority struct {
	Role  campaign.Role    // the role that gives the permission
	Unit  campaign.OrgUnit // the unit it is held at
	Limit string           // the permission's limit in minor units, "*" for none
}

// Enforcer decides. It is safe for concurrent use, also while it reloads: every
// decision is made under one complete set of grants, the old or the new.
type Enforcer struct {
	grants func(context.Context) ([]campaign.Grant, error)
	table  []permission
	routes Routes

	reload sync.Mutex // one reload at a time, so that an older read never replaces a newer one
	now    atomic.Pointer[snapshot]
}

// snapshot is the policy with one complete set of grants. It never changes: a
// reload makes a new one, which also drops Casbin's memory of role look-ups, as
// that only grows.
type snapshot struct {
	casbin  *casbin.SyncedEnforcer
	held    map[string][]campaign.Grant // by user, in the order of the units' paths
	version string
	decided sync.Map // question → answer, where no money is at stake
}

// question is what Casbin is asked at one unit at which the user holds a role.
type question struct {
	userID string
	act    campaign.Action
	at     campaign.OrgUnit
}

type answer struct {
	allowed bool
	row     []string // the permission or denial that decided; empty when none did
}

// New reads the policy tables and the grants. It refuses to start, with
// CodeEmptyPolicy or CodeInvalidParameter, on tables that are empty or have a row
// that is not understood, and on enforcement that would let a stranger through.
func New(ctx context.Context, grants func(context.Context) ([]campaign.Grant, error)) (*Enforcer, error) {
	return newEnforcer(ctx, policyText, routesText, grants)
}

func newEnforcer(ctx context.Context, policy string, routes []byte, grants func(context.Context) ([]campaign.Grant, error)) (*Enforcer, error) {
	table, err := readPermissions(policy)
	if err != nil {
		return nil, err
	}
	rules, err := ReadRoutes(routes)
	if err != nil {
		return nil, err
	}
	e := &Enforcer{grants: grants, table: table, routes: rules}
	if err := e.Reload(ctx); err != nil {
		return nil, err
	}
	return e, nil
}

// Reload reads the grants again and decides by them from then on. When they cannot
// be read, or one of them names an unknown role or a malformed unit, the old ones
// stay in force and the error says why.
func (e *Enforcer) Reload(ctx context.Context) error {
	e.reload.Lock()
	defer e.reload.Unlock()
	grants, err := e.grants(ctx)
	if err != nil {
		return fmt.Errorf("read grants: %w", err)
	}
	s, err := e.snapshot(grants)
	if err != nil {
		return err
	}
	e.now.Store(s)
	return nil
}

func (e *Enforcer) snapshot(grants []campaign.Grant) (*snapshot, error) {
	grants = slices.Clone(grants)
	slices.SortFunc(grants, func(a, b campaign.Grant) int {
		return cmp.Or(cmp.Compare(a.UserID, b.UserID), cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Role, b.Role), cmp.Compare(a.Action, b.Action))
	})
	grants = slices.Compact(grants)
	held := map[string][]campaign.Grant{}
	links := make([][]string, len(grants))
	for i, g := range grants {
		switch {
		case g.UserID == "":
			return nil, campaign.Errorf(campaign.CodeInvalidParameter, "a grant of %s at %s names no user", g.Role, g.Unit)
		case g.Role == campaign.RoleService && !slices.Contains(campaign.ServiceActions(), g.Action):
			return nil, campaign.Errorf(campaign.CodeInvalidParameter, "service token %s is given %q, which is for people or for nobody", g.UserID, g.Action)
		case g.Role != campaign.RoleService && (g.Action != "" || !slices.Contains(campaign.Roles(), g.Role)):
			return nil, campaign.Errorf(campaign.CodeInvalidParameter, "user %s is granted the unknown role %q", g.UserID, g.Role)
		case !g.Unit.Valid():
			return nil, campaign.Errorf(campaign.CodeInvalidParameter, "user %s is granted %s at the malformed unit %q", g.UserID, g.Role, g.Unit)
		}
		held[g.UserID] = append(held[g.UserID], g)
		links[i] = []string{userPrefix + g.UserID, subject(g.Role, g.Action), string(g.Unit)}
	}
	rows := make([][]string, 0, len(e.table)+len(campaign.ServiceActions()))
	for _, p := range e.table {
		rows = append(rows, p.row())
	}
	for _, act := range campaign.ServiceActions() {
		rows = append(rows, []string{subject(campaign.RoleService, act), string(act), noLimit, effectAllow})
	}
	m, err := model.NewModelFromString(modelText)
	if err != nil {
		return nil, fmt.Errorf("read policy model: %w", err)
	}
	c, err := casbin.NewSyncedEnforcer(m)
	if err != nil {
		return nil, fmt.Errorf("start policy enforcement: %w", err)
	}
	c.AddFunction("within", func(args ...any) (any, error) {
		if len(args) != 2 {
			return false, nil
		}
		amount, isText := args[0].(string)
		limit, limitIsText := args[1].(string)
		return isText && limitIsText && within(amount, limit), nil
	})
	if _, err := c.AddPolicies(rows); err != nil {
		return nil, fmt.Errorf("load policy table: %w", err)
	}
	if len(links) > 0 {
		if _, err := c.AddGroupingPolicies(links); err != nil {
			return nil, fmt.Errorf("load grants: %w", err)
		}
	}
	if err := refusesStrangers(c); err != nil {
		return nil, err
	}
	return &snapshot{casbin: c, held: held, version: version(rows, e.routes, links)}, nil
}

// refusesStrangers proves that enforcement is on: a subject without any role must
// be refused every action.
func refusesStrangers(c *casbin.SyncedEnforcer) error {
	for _, act := range campaign.Actions() {
		if ok, err := c.Enforce("stranger", "nowhere", string(act), "0"); err != nil {
			return fmt.Errorf("try policy enforcement: %w", err)
		} else if ok {
			return campaign.Errorf(campaign.CodeEmptyPolicy, "policy enforcement is switched off: a stranger may %s", act)
		}
	}
	return nil
}

// version names what decisions are made by: model, permissions, routes and grants.
func version(rows [][]string, routes Routes, links [][]string) string {
	h := sha256.New()
	// Written out, because a limit is a pointer. What ReadRoutes took can be written.
	text, _ := json.Marshal(routes)
	fmt.Fprintf(h, "%q\n%q\n%s\n%q", modelText, rows, text, links)
	return hex.EncodeToString(h.Sum(nil))[:12]
}

// Allow reports whether the user may do act to an object of unit that is about
// amount (minor units, 0 when no money is at stake), and by what authority. A role
// held at a unit holds for the units below it. A denial by any role the user holds
// there beats every permission. On an error nothing is allowed.
func (e *Enforcer) Allow(userID string, act campaign.Action, unit campaign.OrgUnit, amount int64) (Authority, bool, error) {
	return e.now.Load().allow(userID, act, unit, amount)
}

func (s *snapshot) allow(userID string, act campaign.Action, unit campaign.OrgUnit, amount int64) (Authority, bool, error) {
	var authority Authority
	allowed := false
	held := s.held[userID]
	for _, at := range unit.Chain() {
		// Units at which the user holds nothing cannot decide: asking would only
		// fill Casbin's memory of look-ups.
		if !slices.ContainsFunc(held, func(g campaign.Grant) bool { return g.Unit == at }) {
			continue
		}
		a, err := s.ask(question{userID, act, at}, amount)
		if err != nil {
			return Authority{}, false, fmt.Errorf("decide %s: %w", act, err)
		}
		if !a.allowed && len(a.row) > 0 {
			return Authority{}, false, nil
		}
		if a.allowed && !allowed {
			allowed = true
			role, _, _ := strings.Cut(a.row[0][len(rolePrefix):], "/")
			authority = Authority{Role: campaign.Role(role), Unit: at, Limit: a.row[2]}
		}
	}
	return authority, allowed, nil
}

// ask remembers the answers about no money: they are nearly all, and there are no
// more of them than grants times actions.
func (s *snapshot) ask(q question, amount int64) (answer, error) {
	if a, ok := s.decided.Load(q); ok && amount == 0 {
		return a.(answer), nil
	}
	ok, row, err := s.casbin.EnforceEx(userPrefix+q.userID, string(q.at), string(q.act), strconv.FormatInt(amount, 10))
	if err != nil {
		return answer{}, err
	}
	a := answer{allowed: ok, row: row}
	if amount == 0 {
		s.decided.Store(q, a)
	}
	return a, nil
}

// Require is Allow for callers that want the refusal in words: CodeForbidden, or
// CodeLimitExceeded when only the amount stands in the way.
func (e *Enforcer) Require(userID string, act campaign.Action, unit campaign.OrgUnit, amount int64) (Authority, error) {
	s := e.now.Load()
	authority, ok, err := s.allow(userID, act, unit, amount)
	if err != nil {
		return Authority{}, err
	}
	if ok {
		return authority, nil
	}
	limited, ok, err := s.allow(userID, act, unit, 0)
	if err != nil {
		return Authority{}, err
	}
	if ok {
		return Authority{}, campaign.Errorf(campaign.CodeLimitExceeded, "%s by a %s reaches up to %s minor units; this is about %d", act, limited.Role, limited.Limit, amount).
			With("limit", limited.Limit).With("amount", amount)
	}
	return Authority{}, campaign.Errorf(campaign.CodeForbidden, "none of your roles gives %s at %s", act, unit).
		With("action", string(act)).With("unit", string(unit))
}

// Units returns the topmost units at and below which the user may do act, for list
// filters; nil when there are none or the decision fails. It looks at no amount, and
// a denial held only below a returned unit does not take that part out: whoever acts
// on a listed object asks Allow as well.
func (e *Enforcer) Units(userID string, act campaign.Action) []campaign.OrgUnit {
	s := e.now.Load()
	var units []campaign.OrgUnit
	// Ordered by path, a unit comes before the units below it.
	for _, g := range s.held[userID] {
		if slices.ContainsFunc(units, g.Unit.Within) {
			continue
		}
		if _, ok, err := s.allow(userID, act, g.Unit, 0); err == nil && ok {
			units = append(units, g.Unit)
		}
	}
	return units
}

// Version names the model, permissions, routes and grants that decisions are made
// by at this moment. Decisions record it.
func (e *Enforcer) Version() string { return e.now.Load().version }
