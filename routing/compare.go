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
	words *audience.Words
	mine  targeting.Selection

	counted []counted         // in the order of the neighbours, each campaign once
	ruled   []store.Neighbour // plans that are compared by their rules
	rules   []targeting.Selection
	frozen  []store.Neighbour // campaigns that are compared by their targets
}

// counted is a campaign that counts together with a plan.
type counted struct {
	store.Neighbour
	why campaign.WhyCounted
}

// together says how much of each campaign counts with a plan of these facts.
func together(all []counted, f campaign.Facts) (out []campaign.Together) {
	for _, n := range all {
		if amount := n.Counts(f); amount > 0 {
			out = append(out, campaign.Together{CampaignID: n.CampaignID, Number: n.Number, Amount: amount, Why: n.why})
		}
	}
	return out
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
		words, err := c.words.Pinned(ctx, c.Store, n.Uses)
		if err != nil {
			return err
		}
		sel, err := audience.Selection(words, n.CampaignID, theirs)
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
	if !slices.ContainsFunc(c.counted, func(o counted) bool { return o.CampaignID == n.CampaignID }) {
		c.counted = append(c.counted, counted{n, why})
	}
}

// conclude compares the audiences and returns how many of a tenant's customers the plan
// reaches.
func (c *comparison) conclude(ctx context.Context, tenant campaign.OrgUnit) (int64, error) {
	sql, args := targeting.OverlapSQL(string(tenant), c.mine, c.rules)
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
	return mine, nil
}
