// Package routing finds out who must sign for a plan and whether they can: it gathers
// the facts that the rules of package policies look at, and the people whom a route asks
// for.
package routing

import (
	"context"
	"slices"
	"time"

	"github.com/musterhq/muster/audience"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/policies"
	"github.com/musterhq/muster/store"
)

// Overlap is the share of the smaller of two audiences, in percent, from which on the
// two campaigns are counted together.
const Overlap = 60

// compared is how many plans that are not frozen yet have their audiences compared, the
// newest first. What is beyond counts as if it overlapped.
const compared = 200

// Router routes plans.
type Router struct {
	Store    *store.Store
	Policies *policies.Enforcer
}

// Signer is a person who may sign a level.
type Signer struct {
	UserID string
	Name   string
}

// Path is the route of a plan with the people who may sign each of its levels.
type Path struct {
	campaign.RoutedApproval
	Signers [][]Signer // by level, in the order of names
}

// Route finds the levels that must sign for a plan revision: for its whole budget, or for
// an amendment of nothing but money for what that adds. It makes sure that the levels can
// be signed by different people none of whom asked for the approval or wrote the plan, for
// otherwise the campaign would wait for nobody.
//
// It fails with CodeNoRoute when no rule fits or too few people may sign, and with
// CodeAggregateLimit when that is so only together with other campaigns. A simulated
// campaign spends nothing, so it then goes by its own amount.
func (r Router) Route(ctx context.Context, in campaign.RouteRequest) (Path, error) {
	plan, err := r.Store.LoadPlan(ctx, in.PlanRef)
	if err != nil {
		return Path{}, err
	}
	return r.RoutePlan(ctx, in, plan)
}

// RoutePlan is Route for a plan that need not be stored: as the revision it says, made
// from its base.
func (r Router) RoutePlan(ctx context.Context, in campaign.RouteRequest, plan campaign.LoadedPlan) (Path, error) {
	var p Path
	p.LoadedPlan = plan
	facts, err := campaign.FactsOf(&p.Plan)
	if err != nil {
		return p, err
	}
	if err := r.Policies.Reload(ctx); err != nil {
		return p, err
	}
	if err := r.inside(ctx, in.CampaignID, &p.Plan, &facts); err != nil {
		return p, err
	}
	if err := r.difference(ctx, in.CampaignID, p.LoadedPlan, &facts); err != nil {
		return p, err
	}
	others, err := r.measure(ctx, in, p.LoadedPlan, &facts)
	if err != nil {
		return p, err
	}
	if err := r.count(ctx, in.CampaignID, others, &facts); err != nil {
		return p, err
	}
	people, err := r.people(ctx, in)
	if err != nil {
		return p, err
	}
	err = r.ask(&p, facts, people)
	if err == nil || len(facts.Together) == 0 {
		return p, err
	}
	alone := p
	told := facts
	facts.Alone = true
	if err := r.count(ctx, in.CampaignID, others, &facts); err != nil {
		return p, err
	}
	if r.ask(&alone, facts, people) != nil {
		return p, err
	}
	if p.Plan.Simulated {
		return alone, nil
	}
	return p, aggregated(err, told)
}

// aggregated gives the refusal of a plan that alone could be signed its own code.
func aggregated(err error, facts campaign.Facts) error {
	if campaign.CodeOf(err) != campaign.CodeNoRoute {
		return err
	}
	return campaign.Errorf(campaign.CodeAggregateLimit, "counted together with %d other campaign(s) of the last 30 days: %s", len(facts.Together), err.Error()).
		With("together", facts.Together)
}

// ask finds the route for facts and its signers.
func (r Router) ask(p *Path, facts campaign.Facts, people []Signer) error {
	var err error
	if p.Routed, err = r.Policies.Route(facts); err != nil {
		return err
	}
	p.Signers = make([][]Signer, len(p.Route))
	round := campaign.Approval{Amount: facts.Amount, Credit: facts.Credit}
	var slots [][]string
	for i, level := range p.Route {
		money := campaign.Money{Minor: round.AmountOf(level), Currency: facts.Currency}
		var ids []string
		for _, s := range people {
			if level.UserID != "" && level.UserID != s.UserID {
				continue
			}
			if _, ok, err := r.Policies.Allow(s.UserID, level.Action, facts.Unit, money.Minor); err != nil {
				return err
			} else if ok {
				p.Signers[i] = append(p.Signers[i], s)
				ids = append(ids, s.UserID)
			}
		}
		if level.UserID != "" && !slices.ContainsFunc(people, func(s Signer) bool { return s.UserID == level.UserID }) {
			return campaign.Errorf(campaign.CodeNoRoute, "level %d (%s) is signed by one person alone, who asked for this approval, wrote the plan or may not log in; somebody else must ask",
				level.Level, level.Name).With("level", level.Level).With("user_id", level.UserID)
		}
		if len(ids) < level.Needs() {
			return campaign.Errorf(campaign.CodeNoRoute, "level %d (%s) needs %d signature(s) for %s at %s, and but for its authors %d may sign; an administrator must grant the role",
				level.Level, level.Name, level.Needs(), money, facts.Unit, len(ids)).With("level", level.Level)
		}
		for range level.Needs() {
			slots = append(slots, ids)
		}
	}
	if !distinct(slots) {
		return campaign.Errorf(campaign.CodeNoRoute, "the %d signatures need different people, and too few may sign for this amount at %s", len(slots), facts.Unit)
	}
	return nil
}

// people lists who might sign: users who are not disabled and had no hand in the plan.
func (r Router) people(ctx context.Context, in campaign.RouteRequest) ([]Signer, error) {
	names, err := r.Store.ActiveNames(ctx)
	if err != nil {
		return nil, err
	}
	authors, err := r.Store.Authors(ctx, in.CampaignID, in.Revision)
	if err != nil {
		return nil, err
	}
	return signers(names, func(id string) bool { return authors[id] || id == in.Requester }), nil
}

// signers lists people in the order of their names, without those who may not sign.
func signers(names map[string]string, barred func(id string) bool) (people []Signer) {
	for id, name := range names {
		if !barred(id) {
			people = append(people, Signer{UserID: id, Name: name})
		}
	}
	slices.SortFunc(people, func(a, b Signer) int {
		if a.Name != b.Name && a.Name < b.Name || a.Name == b.Name && a.UserID < b.UserID {
			return -1
		}
		return 1
	})
	return people
}

// difference makes the facts of an amendment of nothing but money about what it adds.
func (r Router) difference(ctx context.Context, campaignID string, plan campaign.LoadedPlan, facts *campaign.Facts) error {
	if plan.Base == 0 {
		return nil
	}
	base, err := r.Store.LoadPlan(ctx, campaign.PlanRef{CampaignID: campaignID, Revision: plan.Base})
	if err != nil {
		return err
	}
	added, only := campaign.Added(&base.Plan, &plan.Plan)
	if !only {
		return nil
	}
	lately, err := r.Store.AddedLately(ctx, campaignID)
	if err != nil {
		return err
	}
	return facts.AddTo(plan.Base, added, lately)
}

// measure counts the customers that a plan reaches and finds the campaigns that count
// together with it: those of the same requester, and those that reach the same people.
func (r Router) measure(ctx context.Context, in campaign.RouteRequest, plan campaign.LoadedPlan, facts *campaign.Facts) ([]counted, error) {
	words, err := audience.Load(ctx, r.Store, plan.Plan.Unit.Tenant())
	if err != nil {
		return nil, err
	}
	uses, err := r.Store.SubmittedUses(ctx, in.CampaignID, plan.Plan.Digests().Audience)
	if err != nil {
		return nil, err
	}
	pinned, err := words.Pinned(ctx, r.Store, uses)
	if err != nil {
		return nil, err
	}
	rules, err := audience.Selection(pinned, in.CampaignID, plan)
	if err != nil {
		return nil, err
	}
	if facts.Uses = rules.Uses; uses != nil {
		facts.Uses = uses
	}
	// What the signers are told is what is left by the contact policy, as far as it can be known.
	policy, err := r.Store.ContactPolicy(ctx, plan.Plan.Unit)
	if err != nil {
		return nil, err
	}
	rules = audience.Under(rules, in.CampaignID, plan.Plan, policy, time.Now(), audience.Estimated)
	var neighbours []store.Neighbour
	// What is inside a programme has the programme's budget as its limit.
	if facts.Owner == "" {
		if neighbours, err = r.Store.Neighbours(ctx, in.CampaignID, in.Requester, *facts); err != nil {
			return nil, err
		}
	}
	c := comparison{Router: r, words: words, mine: rules}
	for _, n := range neighbours {
		if err := c.add(ctx, n); err != nil {
			return nil, err
		}
	}
	mine, err := c.conclude(ctx, facts.Unit.Tenant())
	if err != nil {
		return nil, err
	}
	if facts.Audience == 0 || mine < facts.Audience {
		facts.Audience = mine
	}
	// A selection that found another number than the signers were told knows better.
	if found, ok, err := r.Store.RefusedTargets(ctx, campaign.PlanRef{CampaignID: in.CampaignID, Revision: in.Revision}); err != nil {
		return nil, err
	} else if ok {
		facts.Audience = found
	}
	return c.counted, nil
}

// count tells facts which campaigns count, and with how much. An amendment of nothing but
// money takes the route of the whole plan among its neighbours, unless the campaign was
// signed for by that rule already: then what it and others were amended by counts.
func (r Router) count(ctx context.Context, campaignID string, others []counted, facts *campaign.Facts) error {
	facts.Whole = facts.Base != 0
	facts.Together = together(others, *facts)
	if !facts.Whole {
		return nil
	}
	signed, err := r.signed(ctx, campaignID, *facts)
	if err != nil || !signed {
		return err
	}
	facts.Whole = false
	facts.Together = together(others, *facts)
	return nil
}

// signed reports whether an approved round of a campaign took the rule of these facts, or
// counted for more.
func (r Router) signed(ctx context.Context, campaignID string, facts campaign.Facts) (bool, error) {
	wanted, err := facts.Counted()
	if err != nil {
		return false, err
	}
	before, err := r.Store.SignedFor(ctx, campaign.PlanRef{CampaignID: campaignID, Revision: facts.Base})
	if err != nil || before >= wanted {
		return err == nil, err
	}
	now, err := r.Policies.Route(facts)
	if err != nil {
		return false, ruled(err)
	}
	facts.Whole, facts.Together, facts.Amount = false, nil, before
	then, err := r.Policies.Route(facts)
	return then.Rule == now.Rule, ruled(err)
}

// ruled takes from an error that there is no rule.
func ruled(err error) error {
	if code := campaign.CodeOf(err); code == campaign.CodeNoRoute || code == campaign.CodeAggregateLimit {
		return nil
	}
	return err
}

// Due returns by when each level is overdue if the round is opened at now and every
// stage takes all the time it has.
func Due(routed campaign.Routed, now time.Time) []time.Time {
	due := make([]time.Time, len(routed.Route))
	begins, ends := now, now
	for i, l := range routed.Route {
		if i > 0 && (l.Stage == 0 || l.Stage != routed.Route[i-1].Stage) {
			begins = ends
		}
		_, due[i], _ = l.Clock(routed.Calendar, begins)
		if due[i].After(ends) {
			ends = due[i]
		}
	}
	return due
}

// distinct reports whether each of the signatures, given as the people who may give it,
// can be given by a person of its own: a matching of signatures to people, found by
// augmenting paths (Kuhn).
func distinct(signatures [][]string) bool {
	given := map[string]int{} // person → signature
	var assign func(signature int, tried map[string]bool) bool
	assign = func(signature int, tried map[string]bool) bool {
		for _, person := range signatures[signature] {
			if tried[person] {
				continue
			}
			tried[person] = true
			if other, taken := given[person]; !taken || assign(other, tried) {
				given[person] = signature
				return true
			}
		}
		return false
	}
	for i := range signatures {
		if !assign(i, map[string]bool{}) {
			return false
		}
	}
	return true
}
