package routing

import (
	"context"
	"slices"

	"github.com/musterhq/muster/audience"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
	"github.com/musterhq/muster/targeting"
)

// comparison finds which of the plans submitted lately count together with one.
type comparison struct {
	Router
	attributes []store.Attribute
	mine       targeting.Selection

	together []campaign.Together // in the order of the neighbours, each campaign once
	ruled    []store.Neighbour   // plans that are compared by their rules
	rules    []targeting.Selection
	frozen   []store.Neighbour // campaigns that are compared by their targets
}

// add takes a plan into the comparison. The requester's own counts in any case; the targets
// of a campaign are the same for all of its plans.
func (c *comparison) add(ctx context.Context, n store.Neighbour) error {
	same := func(o store.Neighbour) bool { return o.CampaignID == n.CampaignID }
	switch {
	case n.Mine:
		c.count(n, campaign.SameRequester)
	case n.Frozen:
		if !slices.ContainsFunc(c.frozen, same) {
			c.frozen = append(c.frozen, n)
		}
	case len(c.ruled) == compared:
		c.count(n, campaign.NotCompared)
	default:
		theirs, err := c.Store.LoadPlan(ctx, campaign.PlanRef{CampaignID: n.CampaignID, Revision: n.Revision})
		if err != nil {
			return err
		}
		sel, err := audience.Selection(c.attributes, n.CampaignID, theirs)
		if campaign.CodeOf(err) == campaign.CodeInvalidFilter {
			return nil // its attributes are gone: it can reach nobody
		} else if err != nil {
			return err
		}
		c.ruled, c.rules = append(c.ruled, n), append(c.rules, sel)
	}
	return nil
}

func (c *comparison) count(n store.Neighbour, why campaign.WhyCounted) {
	if !slices.ContainsFunc(c.together, func(t campaign.Together) bool { return t.CampaignID == n.CampaignID }) {
		c.together = append(c.together, campaign.Together{CampaignID: n.CampaignID, Number: n.Number, Amount: n.Amount, Why: why})
	}
}

// conclude compares the audiences, tells facts which campaigns count, and returns how many
// customers the plan reaches.
func (c *comparison) conclude(ctx context.Context, facts *campaign.Facts) (int64, error) {
	sql, args := targeting.OverlapSQL(string(facts.Unit.Tenant()), c.mine, c.rules)
	mine, others, err := c.Store.Overlap(ctx, sql, args)
	if err != nil {
		return 0, err
	}
	overlaps := func(n store.Neighbour, o store.Overlap) {
		if smaller := min(mine, o.Theirs); smaller > 0 && o.Both*100 >= smaller*Overlap {
			c.count(n, campaign.SameAudience)
		}
	}
	for i, n := range c.ruled {
		overlaps(n, others[i])
	}
	if len(c.frozen) > 0 && mine > 0 {
		ids := make([]string, len(c.frozen))
		for i, n := range c.frozen {
			ids[i] = n.CampaignID
		}
		sql, args = targeting.FrozenOverlapSQL(c.mine, ids)
		targets, err := c.Store.FrozenOverlap(ctx, sql, args)
		if err != nil {
			return 0, err
		}
		for _, n := range c.frozen {
			overlaps(n, targets[n.CampaignID])
		}
	}
	facts.Together = c.together
	return mine, nil
}
