package activities

import (
	"context"
	"errors"
	"fmt"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/routing"
	"github.com/musterhq/muster/store"
)

// RouteApproval finds the levels that must sign for a plan revision and makes sure that
// they can, see routing.Router. That there is no such route is part of the result, for an
// amendment that asks for less needs none.
func (a *Activities) RouteApproval(ctx context.Context, in campaign.RouteRequest) (campaign.RoutedApproval, error) {
	path, err := routing.Router{Store: a.Store, Policies: a.Policies}.Route(ctx, in)
	routed := path.RoutedApproval
	switch campaign.CodeOf(err) {
	case campaign.CodeNoRoute, campaign.CodeAggregateLimit:
		routed.Route = nil
		errors.As(err, &routed.NoRoute)
		err = nil
	}
	return routed, failure(ctx, err)
}

// OpenRound keeps the route that was frozen for an approval round, before anybody can
// decide in it.
func (a *Activities) OpenRound(ctx context.Context, in campaign.Round) error {
	return failure(ctx, a.Store.OpenRound(ctx, in))
}

// Remind records that something waits for a decision, which shows it in the inbox of
// whoever is subscribed to events.
func (a *Activities) Remind(ctx context.Context, in campaign.Reminder) error {
	event := in.Subject + ".reminded"
	if in.Overdue {
		event = in.Subject + ".overdue"
	}
	key := fmt.Sprintf("%s:%s:%d:%d", in.CampaignID, event, in.Number, in.DueAt.UnixMilli())
	return failure(ctx, a.Store.RecordOnce(ctx, store.CampaignEvent(in.CampaignID, key, event, campaign.Actor{},
		map[string]any{"number": in.Number, "due_at": in.DueAt})))
}
