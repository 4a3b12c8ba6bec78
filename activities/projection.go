package activities

import (
	"context"

	"github.com/musterhq/muster/campaign"
)

// Project writes the read model of a campaign, if it is newer than what is there, and
// appends the event to the audit trail.
func (a *Activities) Project(ctx context.Context, in campaign.Projection) error {
	return failure(ctx, a.Store.Project(ctx, in))
}
