package activities

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// creditBatch bounds how many instalments one transaction decides: their line is locked
// meanwhile, and with it the money that they come from.
const creditBatch = 5000

// ReleaseCredit promises a campaign's prepaid credit to who has earned it, grants the
// instalments that are due, ends those that were not used in time, and says when to look
// again. Once nobody can earn any more, what nobody is promised goes back to the pool. It
// may run at any time, as often as wanted, and while it runs already. A refusal is told once
// a day as the event credit.stuck.
func (a *Activities) ReleaseCredit(ctx context.Context, in campaign.CreditInput) (out campaign.CreditReleased, err error) {
	err = alive(ctx, func() error {
		out, err = a.releaseCredit(ctx, in.CampaignID)
		return err
	})
	if rule := (*campaign.Error)(nil); errors.As(err, &rule) {
		key := fmt.Sprintf("%s:credit.stuck:%s:%s", in.CampaignID, rule.Code, time.Now().UTC().Format(time.DateOnly))
		e := store.CampaignEvent(in.CampaignID, key, "credit.stuck", campaign.Actor{}, map[string]any{"code": rule.Code, "reason": rule.Message})
		err = errors.Join(err, a.Store.RecordOnce(ctx, e))
	}
	return out, failure(ctx, err)
}

func (a *Activities) releaseCredit(ctx context.Context, campaignID string) (out campaign.CreditReleased, err error) {
	revision, err := a.Store.RevisionInForce(ctx, campaignID)
	if err != nil {
		return out, err
	}
	plan, err := a.Store.LoadPlan(ctx, campaign.PlanRef{CampaignID: campaignID, Revision: revision})
	if err != nil {
		return out, err
	}
	pulse := map[string]time.Duration{}
	// A line that cannot be paid keeps no other from what is due on it.
	var stuck []error
	for _, l := range store.CreditLines(campaignID, &plan.Plan) {
		pulse[l.Line] = l.Offer.Pulse()
		promised, err := a.Store.PromiseCredit(ctx, l, false)
		if err == nil {
			out.Customers += promised
			err = a.moveDue(ctx, l, &out)
		}
		stuck = append(stuck, err)
	}
	if err := errors.Join(stuck...); err != nil {
		return out, err
	}
	standing, err := a.Store.CreditStanding(ctx, campaignID)
	if err != nil {
		return out, err
	}
	if err := a.freeCredit(ctx, campaignID, plan.Plan, standing); err != nil {
		return out, err
	}
	out.Wait = creditWait(standing, pulse)
	return out, nil
}

// creditWait is when something is due, or may come, in whole seconds; 0 for never.
func creditWait(standing []store.CreditStanding, pulse map[string]time.Duration) int64 {
	var wait int64
	consider := func(d time.Duration) {
		seconds := max(int64((d+time.Second-1)/time.Second), 1)
		if wait == 0 || seconds < wait {
			wait = seconds
		}
	}
	for _, s := range standing {
		if !s.Settled || s.Awaiting {
			consider(pulse[s.Line])
		}
		if s.Next != nil {
			consider(*s.Next)
		}
	}
	return wait
}

// moveDue grants all that is due on a line and ends all that has lapsed.
func (a *Activities) moveDue(ctx context.Context, l store.CreditLine, out *campaign.CreditReleased) error {
	for more := true; more; {
		n, granted, err := a.Store.GrantCredit(ctx, l, creditBatch, a.moveCredit)
		if err != nil {
			return err
		}
		out.Instalments, out.Granted = out.Instalments+int64(n), out.Granted+granted
		more = n > 0 // a customer may have several due, which are decided one after the other
	}
	for more := true; more; {
		n, expired, err := a.Store.ExpireCredit(ctx, l, creditBatch, a.moveCredit)
		if err != nil {
			return err
		}
		out.Expired += expired
		more = n == creditBatch
	}
	return nil
}

// moveCredit is the ledger as rows of credit see it.
func (a *Activities) moveCredit(ctx context.Context, tx pgx.Tx, step campaign.CreditStep) (int64, error) {
	e, err := a.Ledger.In(tx).MoveCredit(ctx, step)
	return e.Journal, err
}

// freeCredit returns to their pools what the settled lines of a campaign hold beyond what
// customers were promised.
func (a *Activities) freeCredit(ctx context.Context, campaignID string, plan campaign.Plan, standing []store.CreditStanding) error {
	var settled []store.CreditStanding
	for _, s := range standing {
		if s.Settled && !s.Ended {
			settled = append(settled, s)
		}
	}
	if len(settled) == 0 {
		return nil
	}
	return a.till(ctx, campaignID, plan.Currency, func(t *till) error {
		for _, s := range settled {
			if err := t.keepPromised(ctx, s); err != nil {
				return err
			}
		}
		return t.finish(ctx)
	})
}

// settleCredit promises a line's credit for the last time, grants what is due, and keeps
// what may still be granted: instalments go on after the campaign is closed.
func (t *till) settleCredit(ctx context.Context, l store.CreditLine) error {
	if _, err := t.Store.PromiseCredit(ctx, l, true); err != nil {
		return err
	}
	if err := t.moveDue(ctx, l, &campaign.CreditReleased{}); err != nil {
		return err
	}
	standing, err := t.Store.CreditStanding(ctx, l.CampaignID)
	if err != nil {
		return err
	}
	for _, s := range standing {
		if s.Line == l.Line && !s.Ended {
			return t.keepPromised(ctx, s)
		}
	}
	return nil
}

func (t *till) keepPromised(ctx context.Context, s store.CreditStanding) error {
	if err := t.keep(ctx, s.Line, s.Promised); err != nil || s.Promised > 0 || s.Next != nil {
		return err
	}
	return t.Store.EndCredit(ctx, t.campaignID, s.Line)
}
