package activities

import (
	"context"

	"github.com/musterhq/muster/audience"
	"github.com/musterhq/muster/campaign"
)

// Prepare makes sure, before targets are selected, that the plan can be carried out by
// this installation: its filters compile over the customers' attributes as they are
// now.
func (a *Activities) Prepare(ctx context.Context, in campaign.PlanRef) error {
	plan, err := a.Store.LoadPlan(ctx, in)
	if err != nil {
		return failure(ctx, err)
	}
	words, err := audience.Load(ctx, a.Store, plan.Plan.Unit.Tenant())
	if err != nil {
		return failure(ctx, err)
	}
	_, err = audience.Selection(words, in.CampaignID, plan)
	return failure(ctx, err)
}
