// Package policies answers who may do what, up to which amount, and who must sign
// for a sum. Both are data: policy documents, each a table of permissions that Casbin
// evaluates and a list of approval routes, of which there is a standard one and one for
// each tenant that has its own. The documents that are active, and the grants, which user
// holds which role at which unit, come from outside and are read again on demand.
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
	"errors"
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

//go:embed model.conf
var modelText string

// Authority is the grant and the permission that let somebody through.
type Authority struct {
	Role  campaign.Role    // the role that gives the permission
	Unit  campaign.OrgUnit // the unit it is held at
	Limit string           // the permission's limit in minor units, "*" for none
}

// Enforcer decides. It is safe for concurrent use, also while it reloads: every
// decision is made under one complete set of grants and policy documents, the old or the
// new.
type Enforcer struct {
	grants    func(context.Context) ([]campaign.Grant, error)
	documents func(context.Context) ([]campaign.PolicyDocument, error)

	reload sync.Mutex // one reload at a time, so that an older read never replaces a newer one
	now    atomic.Pointer[snapshot]
}

// snapshot is the policies with one complete set of grants. It never changes: a reload
// makes a new one, which also drops Casbin's memory of role look-ups, as that only grows.
type snapshot struct {
	held     map[string][]campaign.Grant  // by user, in the order of the units' paths
	rulings  map[campaign.OrgUnit]*ruling // by tenant, "" for the standard
	degraded error                        // why documents that are active are not decided by
}

// of returns what decides at a unit.
func (s *snapshot) of(unit campaign.OrgUnit) *ruling {
	if own := s.rulings[unit.Tenant()]; own != nil {
		return own
	}
	return s.rulings[""]
}

// ruling is a document with the grants that it decides about.
type ruling struct {
	*document
	casbin  *casbin.SyncedEnforcer
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

// New reads the grants and the policy documents that are active. It refuses to start,
// with CodeEmptyPolicy when there is no standard policy or a document is empty, with
// CodePolicyRejected on one that Lint refuses, with CodeInvalidParameter on a grant that
// is not understood, and on enforcement that would let a stranger through.
func New(
	ctx context.Context, grants func(context.Context) ([]campaign.Grant, error), documents func(context.Context) ([]campaign.PolicyDocument, error),
) (*Enforcer, error) {
	e := &Enforcer{grants: grants, documents: documents}
	e.now.Store(&snapshot{})
	if err := e.Reload(ctx); err != nil {
		return nil, err
	}
	if err := e.Degraded(); err != nil {
		return nil, err
	}
	return e, nil
}

// Reload reads grants and documents again and decides by them from then on. When they
// cannot be read, or a grant names an unknown role or a malformed unit, the old ones stay
// in force and the error says why. A document that is refused, or is gone, leaves the one
// before it in force, with the new grants, and Degraded says why.
func (e *Enforcer) Reload(ctx context.Context) error {
	e.reload.Lock()
	defer e.reload.Unlock()
	documents, err := e.documents(ctx)
	if err != nil {
		return fmt.Errorf("read policy documents: %w", err)
	}
	grants, err := e.grants(ctx)
	if err != nil {
		return fmt.Errorf("read grants: %w", err)
	}
	grants, err = sound(grants)
	if err != nil {
		return err
	}
	kept, degraded := keep(e.now.Load().rulings, documents)
	s := &snapshot{held: map[string][]campaign.Grant{}, rulings: map[campaign.OrgUnit]*ruling{}, degraded: degraded}
	ruled := map[campaign.OrgUnit][]campaign.Grant{}
	for _, g := range grants {
		s.held[g.UserID] = append(s.held[g.UserID], g)
		tenant := g.Unit.Tenant()
		if kept[tenant] == nil {
			tenant = ""
		}
		ruled[tenant] = append(ruled[tenant], g)
	}
	for tenant, d := range kept {
		if s.rulings[tenant], err = rule(d, ruled[tenant]); err != nil {
			return err
		}
	}
	e.now.Store(s)
	return nil
}

// keep returns the documents to decide by, by tenant: the active ones, and where such a
// one is unsound, is gone or is older than what was decided by before, that. The error
// says where. What held before allows nothing that nobody decided on.
func keep(before map[campaign.OrgUnit]*ruling, active []campaign.PolicyDocument) (map[campaign.OrgUnit]*document, error) {
	kept := map[campaign.OrgUnit]*document{}
	for tenant, r := range before {
		kept[tenant] = r.document
	}
	seen := map[campaign.OrgUnit]bool{}
	var faults []error
	for _, d := range active {
		last := kept[d.Tenant]
		seen[d.Tenant] = true
		switch {
		case last != nil && last.PolicyDocument == d:
			continue
		case last != nil && d.Version <= last.Version:
			faults = append(faults, campaign.Errorf(campaign.CodePolicyRejected, "policy version %d follows version %d: a version never changes or comes back", d.Version, last.Version))
			continue
		}
		read, err := read(d)
		if err != nil {
			faults = append(faults, fmt.Errorf("policy version %d is not decided by: %w", d.Version, err))
			continue
		}
		kept[d.Tenant] = read
	}
	for tenant, d := range kept {
		if !seen[tenant] {
			faults = append(faults, campaign.Errorf(campaign.CodePolicyRejected, "policy version %d of %q is gone", d.Version, tenant))
		}
	}
	if kept[""] == nil {
		faults = append(faults, campaign.Errorf(campaign.CodeEmptyPolicy, "there is no standard policy, so nobody may do anything; muster migrate stores it"))
	}
	return kept, errors.Join(faults...)
}

// Degraded says why documents that are active are not what is decided by; nil when all
// are.
func (e *Enforcer) Degraded() error { return e.now.Load().degraded }

// sound returns grants in their order, each once.
func sound(grants []campaign.Grant) ([]campaign.Grant, error) {
	grants = slices.Clone(grants)
	slices.SortFunc(grants, func(a, b campaign.Grant) int {
		return cmp.Or(cmp.Compare(a.UserID, b.UserID), cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Role, b.Role), cmp.Compare(a.Action, b.Action))
	})
	grants = slices.Compact(grants)
	for _, g := range grants {
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
	}
	return grants, nil
}

// rule puts a document and the grants that it is about into force.
func rule(d *document, grants []campaign.Grant) (*ruling, error) {
	links := make([][]string, len(grants))
	for i, g := range grants {
		links[i] = []string{userPrefix + g.UserID, subject(g.Role, g.Action), string(g.Unit)}
	}
	rows := make([][]string, 0, len(d.table)+len(campaign.ServiceActions()))
	for _, p := range d.table {
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
	return &ruling{document: d, casbin: c, version: version(d, rows, links)}, nil
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

// version names what decisions are made by: the document's version and what it says, and
// with the model and the permissions of machines the grants.
func version(d *document, rows, links [][]string) string {
	h := sha256.New()
	fmt.Fprintf(h, "%q\n%q\n%q", modelText, rows, links)
	return marked(d.PolicyDocument) + hex.EncodeToString(h.Sum(nil))[:12]
}

// marked is how the versions of a document's decisions begin.
func marked(d campaign.PolicyDocument) string { return fmt.Sprintf("%d-%s-", d.Version, d.Digest[:12]) }

// Allow reports whether the user may do act to an object of unit that is about
// amount (minor units, 0 when no money is at stake), and by what authority. A role
// held at a unit holds for the units below it. A denial by any role the user holds
// there beats every permission. On an error nothing is allowed.
func (e *Enforcer) Allow(userID string, act campaign.Action, unit campaign.OrgUnit, amount int64) (Authority, bool, error) {
	return e.now.Load().allow(userID, act, unit, amount)
}

func (s *snapshot) allow(userID string, act campaign.Action, unit campaign.OrgUnit, amount int64) (Authority, bool, error) {
	in := s.of(unit)
	var authority Authority
	allowed := false
	held := s.held[userID]
	for _, at := range unit.Chain() {
		// Units at which the user holds nothing cannot decide: asking would only
		// fill Casbin's memory of look-ups.
		if !slices.ContainsFunc(held, func(g campaign.Grant) bool { return g.Unit == at }) {
			continue
		}
		a, err := in.ask(question{userID, act, at}, amount)
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
func (in *ruling) ask(q question, amount int64) (answer, error) {
	if a, ok := in.decided.Load(q); ok && amount == 0 {
		return a.(answer), nil
	}
	ok, row, err := in.casbin.EnforceEx(userPrefix+q.userID, string(q.at), string(q.act), strconv.FormatInt(amount, 10))
	if err != nil {
		return answer{}, err
	}
	a := answer{allowed: ok, row: row}
	if amount == 0 {
		in.decided.Store(q, a)
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

// Version names what is decided by at a unit at this moment, and decisions record it: the
// version of the policy document, the beginning of its digest, and one of the grants.
func (e *Enforcer) Version(unit campaign.OrgUnit) string { return e.now.Load().of(unit).version }
