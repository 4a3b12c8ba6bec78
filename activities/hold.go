package activities

import (
	"context"

	"github.com/musterhq/muster/campaign"
)

// SetHold writes the flag that every intent transaction checks. When it returns, no
// message will leave that was not committed before.
func (a *Activities) SetHold(ctx context.Context, in campaign.SetHold) error {
	return failure(ctx, a.Store.SetHold(ctx, in, callKey(ctx)))
}
