package activities

import (
	"context"
	"fmt"
	"time"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/channels"
	"github.com/musterhq/muster/store"
)

// CreateContacts makes the contacts of one channel of a wave, once. No more are made
// than the channel's budget line, as it is in force, can pay for; the others are suppressed
// with the reason "budget", and the event budget.exhausted says how much is missing. When a
// rule says no, which may be that the plan was not signed by those who must, or that one of
// them may not sign any more, none are made: CodeDispatchRefused. While dispatch is frozen it
// waits.
func (a *Activities) CreateContacts(ctx context.Context, in campaign.DispatchInput) (campaign.ContactBatch, error) {
	var batch campaign.ContactBatch
	err := alive(ctx, func() error {
		active, err := a.people(ctx)
		if err != nil {
			return err
		}
		plan, err := a.Store.LoadPlan(ctx, campaign.PlanRef{CampaignID: in.CampaignID, Revision: in.Revision})
		if err != nil {
			return err
		}
		line, revision, err := a.contactLine(ctx, in.Ref())
		if err != nil {
			return err
		}
		channel, ok := plan.Plan.Channel(in.Channel)
		if !ok {
			return campaign.Errorf(campaign.CodeInvalidPlan, "channel %s is not in plan revision %d", in.Channel, in.Revision)
		}
		if in.Wave < 1 || in.Wave > len(plan.Plan.Waves) {
			return campaign.Errorf(campaign.CodeInvalidPlan, "wave %d is not in plan revision %d", in.Wave, in.Revision)
		}
		units, wave := line.UnitsPerContact(channel, parts(channel)), plan.Plan.Waves[in.Wave-1]
		batch, err = a.Store.CreateContacts(ctx, in, line, revision, units, plan.Plan.Goal.Outcome, wave, func(st store.Standing) error {
			return a.authoriseDispatch(active, st)
		})
		if err != nil || batch.Unpaid == 0 {
			return err
		}
		return a.tellExhausted(ctx, in.Ref(), line, batch.Needed)
	})
	if code := campaign.CodeOf(err); code != "" && code != campaign.CodeInternal {
		return batch, failure(ctx, a.refuseDispatch(ctx, "dispatch:"+callKey(ctx), in.Ref(), in.Revision, err))
	}
	return batch, failure(ctx, err)
}

// contactLine returns the budget line of a channel's contacts as it is in force, with what
// was drawn for it from the contingency, and the revision that says so.
func (a *Activities) contactLine(ctx context.Context, in campaign.ChannelRef) (campaign.BudgetLine, int, error) {
	inForce, err := a.Store.RevisionInForce(ctx, in.CampaignID)
	if err != nil {
		return campaign.BudgetLine{}, 0, err
	}
	// The read model may be a moment behind; it is never ahead.
	plan, err := a.Store.LoadPlan(ctx, campaign.PlanRef{CampaignID: in.CampaignID, Revision: max(in.Revision, inForce)})
	if err != nil {
		return campaign.BudgetLine{}, 0, err
	}
	line, ok := plan.Plan.ContactLine(in.Channel)
	if !ok {
		return line, 0, campaign.Errorf(campaign.CodeInvalidPlan, "channel %s has no budget line for its contacts", in.Channel)
	}
	line, err = a.Store.Funded(ctx, in.CampaignID, line)
	return line, plan.Revision, err
}

// PayContacts plans contacts that the channel's budget did not pay for, as many as it pays
// for after an amendment or because others cost less than they might have.
func (a *Activities) PayContacts(ctx context.Context, in campaign.ChannelRef) (campaign.PaidContacts, error) {
	var paid campaign.PaidContacts
	err := alive(ctx, func() error {
		active, err := a.people(ctx)
		if err != nil {
			return err
		}
		line, revision, err := a.contactLine(ctx, in)
		if err != nil {
			return err
		}
		if err := a.Store.RefuseFrozen(ctx, in.CampaignID); err != nil {
			return a.refuseDispatch(ctx, "", in, revision, err)
		}
		paid, err = a.Store.PayContacts(ctx, in, line, revision, func(st store.Standing) error { return a.authoriseDispatch(active, st) })
		if code := campaign.CodeOf(err); err != nil && code != campaign.CodeInternal {
			// The channel goes on with what it has; it asks again as long as its window is open.
			key := fmt.Sprintf("%s:unpaid:%d:%s:%d:%s", in.CampaignID, in.Wave, in.Channel, revision, code)
			if refused := a.refuseDispatch(ctx, key, in, revision, err); campaign.CodeOf(refused) != campaign.CodeDispatchRefused {
				return refused
			}
			return nil
		}
		if err != nil || paid.Unpaid == 0 {
			return err
		}
		return a.tellExhausted(ctx, in, line, paid.Needed)
	})
	return paid, failure(ctx, err)
}

// tellExhausted records, once for each amount that a line had, that it cannot pay for
// another contact of its channel, and the minor units that it lacks.
func (a *Activities) tellExhausted(ctx context.Context, in campaign.ChannelRef, line campaign.BudgetLine, needed int64) error {
	key := fmt.Sprintf("%s:exhausted:%s:%d", in.CampaignID, line.Line, line.Amount)
	return a.Store.RecordOnce(ctx, store.CampaignEvent(in.CampaignID, key, "budget.exhausted", campaign.Actor{},
		map[string]any{"line": line.Line, "channel": in.Channel, "needed": needed}))
}

// parts is how many parts the operator charges for a channel's message; one for an attempt
// by a person.
func parts(c campaign.ChannelPlan) int {
	if c.Channel.Pull() {
		return 1
	}
	n, _ := channels.Parts(c.Text)
	return max(n, 1)
}

// Progress counts the contacts of a wave's channel by what is left to do.
func (a *Activities) Progress(ctx context.Context, in campaign.ChannelRef) (campaign.ChannelProgress, error) {
	p, err := a.Store.ChannelProgress(ctx, in)
	return p, failure(ctx, err)
}

// CloseChannel ends what is still planned or claimed in a wave's channel.
func (a *Activities) CloseChannel(ctx context.Context, in campaign.CloseChannel) (campaign.ChannelProgress, error) {
	var p campaign.ChannelProgress
	err := alive(ctx, func() error {
		if err := a.Store.CloseChannel(ctx, in); err != nil {
			return err
		}
		var err error
		p, err = a.Store.ChannelProgress(ctx, in.ChannelRef)
		return err
	})
	return p, failure(ctx, err)
}

// CloseContacts gives every contact of the campaign a final state. While messages are
// being sent it asks for another attempt: their verdicts, or the end of their leases,
// are on the way.
func (a *Activities) CloseContacts(ctx context.Context, in campaign.PlanRef) error {
	var sending int64
	err := alive(ctx, func() (err error) {
		sending, err = a.Store.CloseContacts(ctx, in.CampaignID)
		return err
	})
	if err == nil && sending > 0 {
		return again(campaign.CodeStateConflict, time.Second, fmt.Sprintf("%d messages are still being sent", sending))
	}
	return failure(ctx, err)
}
