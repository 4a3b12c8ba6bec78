package activities

import (
	"context"
	"errors"
	"fmt"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// RouteApproval finds the levels that must sign for a plan revision: its whole budget,
// also for an amendment, because the new total is what will be spent. It makes sure
// that the levels can be signed by different people none of whom wrote the revision;
// otherwise the campaign would wait for nobody. That there is no such route is part of
// the result, for an amendment that asks for less needs none.
func (a *Activities) RouteApproval(ctx context.Context, in campaign.PlanRef) (campaign.RoutedApproval, error) {
	routed, err := a.route(ctx, in)
	if campaign.CodeOf(err) == campaign.CodeNoRoute {
		routed.Route = nil
		errors.As(err, &routed.NoRoute)
		err = nil
	}
	return routed, failure(ctx, err)
}

func (a *Activities) route(ctx context.Context, in campaign.PlanRef) (campaign.RoutedApproval, error) {
	plan, err := a.Store.LoadPlan(ctx, in)
	if err != nil {
		return campaign.RoutedApproval{}, err
	}
	routed := campaign.RoutedApproval{LoadedPlan: plan}
	if routed.Amount, err = plan.Plan.BudgetTotal(); err != nil {
		return routed, err
	}
	if err := a.Policies.Reload(ctx); err != nil {
		return routed, err
	}
	if routed.Route, err = a.Policies.Route(campaign.Money{Minor: routed.Amount, Currency: plan.Plan.Currency}); err != nil {
		return routed, err
	}
	active, err := a.Store.ActiveUsers(ctx)
	if err != nil {
		return routed, err
	}
	authors, err := a.Store.Authors(ctx, in.CampaignID, in.Revision)
	if err != nil {
		return routed, err
	}
	for author := range authors {
		delete(active, author)
	}
	signers := make([][]string, len(routed.Route))
	for i, level := range routed.Route {
		for user := range active {
			if _, ok, err := a.Policies.Allow(user, level.Action, plan.Plan.Unit, routed.Amount); err != nil {
				return routed, err
			} else if ok {
				signers[i] = append(signers[i], user)
			}
		}
		if len(signers[i]) == 0 {
			return routed, campaign.Errorf(campaign.CodeNoRoute, "nobody but its authors may sign level %d (%s) for %s at %s; an administrator must grant the role",
				level.Level, level.Name, campaign.Money{Minor: routed.Amount, Currency: plan.Plan.Currency}, plan.Plan.Unit).With("level", level.Level)
		}
	}
	if !distinct(signers, map[string]bool{}) {
		return routed, campaign.Errorf(campaign.CodeNoRoute, "the %d levels need different people, and too few may sign for this amount at %s",
			len(routed.Route), plan.Plan.Unit)
	}
	return routed, nil
}

// distinct reports whether each level can have a signer of its own.
func distinct(levels [][]string, taken map[string]bool) bool {
	if len(levels) == 0 {
		return true
	}
	for _, user := range levels[0] {
		if taken[user] {
			continue
		}
		taken[user] = true
		if distinct(levels[1:], taken) {
			return true
		}
		delete(taken, user)
	}
	return false
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
