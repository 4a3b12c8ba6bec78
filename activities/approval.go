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
	path, err := a.chooseRoute(ctx, in)
	routed := path.RoutedApproval
	switch campaign.CodeOf(err) {
	case campaign.CodeNoRoute, campaign.CodeAggregateLimit, campaign.CodeProgrammeNotFound, campaign.CodeProgrammeClosed,
		campaign.CodeProgrammeNotAllowed, campaign.CodeProgrammeCeiling, campaign.CodeBudgetInsufficient:
		routed.Route = nil
		errors.As(err, &routed.NoRoute)
		err = nil
	}
	return routed, failure(ctx, err)
}

// OpenRound keeps the route that was frozen for an approval round, before anybody can
// decide in it, if it is the one that the plan must take. Another one is CodeRouteOutdated:
// the facts or the policies changed since it was chosen, or nobody ever chose it.
func (a *Activities) OpenRound(ctx context.Context, in campaign.Round) error {
	return failure(ctx, a.openRound(ctx, in))
}

func (a *Activities) openRound(ctx context.Context, in campaign.Round) error {
	if opened, err := a.Store.RoundOpened(ctx, in); err != nil || opened {
		return err // by an earlier attempt
	}
	path, err := a.chooseRoute(ctx, campaign.RouteRequest{
		PlanRef: campaign.PlanRef{CampaignID: in.CampaignID, Revision: in.Revision}, Requester: in.Requester,
	})
	if err != nil {
		return err
	}
	if same, err := alike(path.Routed, in.Routed); err != nil {
		return err
	} else if !same {
		return campaign.Errorf(campaign.CodeRouteOutdated, "this is not the route that revision %d must take by now; submit again", in.Revision)
	}
	return a.Store.OpenRound(ctx, in)
}

// chooseRoute finds the route of a plan revision that leaves enough for what is spent. It
// counts audiences, which takes its time.
func (a *Activities) chooseRoute(ctx context.Context, in campaign.RouteRequest) (path routing.Path, err error) {
	err = alive(ctx, func() error {
		if err := a.leavesEnough(ctx, in.PlanRef); err != nil {
			return err
		}
		path, err = routing.Router{Store: a.Store, Policies: a.Policies}.Route(ctx, in)
		return err
	})
	return path, err
}

// alike reports whether two values say the same.
func alike[T any](a, b T) (bool, error) {
	left, err := campaign.DigestOf(a)
	if err != nil {
		return false, err
	}
	right, err := campaign.DigestOf(b)
	return left == right, err
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
