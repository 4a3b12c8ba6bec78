package activities

import (
	"context"

	"github.com/musterhq/muster/audience"
	"github.com/musterhq/muster/campaign"
)

// Prepare makes sure, before targets are selected, that the plan can be carried out by
// this installation: its filters compile over the customers' attributes as they are
// now, with the segments and lists that it was signed with.
func (a *Activities) Prepare(ctx context.Context, in campaign.PlanRef) error {
	plan, err := a.Store.LoadPlan(ctx, in)
	if err != nil {
		return failure(ctx, err)
	}
	_, err = audience.Signed(ctx, a.Store, in.CampaignID, plan)
	return failure(ctx, err)
}
