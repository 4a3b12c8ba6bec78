package routing

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/musterhq/muster/campaign"
)

// inside makes a plan's facts those of a campaign inside its programme, if it names one: its
// owner then is who signs. It fails with CodeProgrammeNotFound, as Programme.Admits does,
// and with CodeBudgetInsufficient when the programme has less available than the plan asks for.
func (r Router) inside(ctx context.Context, campaignID string, plan *campaign.Plan, facts *campaign.Facts) error {
	if plan.ProgrammeID == "" {
		return nil
	}
	p, err := r.Store.ProgrammeOf(ctx, plan)
	if err != nil {
		return err
	}
	if err := p.Admits(plan, campaign.DateOf(time.Now().UTC())); err != nil {
		return err
	}
	wanted, available, err := r.Store.Unreserved(ctx, campaignID, plan)
	if err != nil {
		return err
	}
	if wanted > available {
		return campaign.Errorf(campaign.CodeBudgetInsufficient, "programme %d has %s available, the plan asks for %s",
			p.Number, campaign.Money{Minor: available, Currency: p.Currency}, campaign.Money{Minor: wanted, Currency: p.Currency}).
			With("account", "programme").With("available", available).With("wanted", wanted)
	}
	facts.Owner = p.Owner
	return nil
}

// Programme finds who must sign for a programme's budget: the same rules as for a campaign
// that may spend its ceiling, of the types it allows the one that asks for most signatures.
// Neither its owner nor its proposer signs. It fails with CodeNoRoute when no rule fits one
// of the types or too few people may sign.
func (r Router) Programme(ctx context.Context, t campaign.ProgrammeTerms, proposer string) (Path, error) {
	if err := r.Policies.Reload(ctx); err != nil {
		return Path{}, err
	}
	names, err := r.Store.ActiveNames(ctx)
	if err != nil {
		return Path{}, err
	}
	people := signers(names, func(id string) bool { return id == t.Owner || id == proposer })
	var paths []Path
	for _, facts := range t.RoutedAs() {
		var p Path
		if err := r.ask(&p, facts, people); err != nil {
			return Path{}, err
		}
		paths = append(paths, p)
	}
	return slices.MaxFunc(paths, func(a, b Path) int { return cmp.Compare(signatures(a), signatures(b)) }), nil
}

func signatures(p Path) (n int) {
	for _, l := range p.Route {
		n += l.Needs()
	}
	return n
}
