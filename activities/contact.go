package activities

import (
	"context"
	"fmt"
	"time"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/channels"
)

// CreateContacts makes the contacts of one channel of a wave, once. No more are made
// than the channel's budget line can pay for; the others are suppressed with the reason
// "budget".
func (a *Activities) CreateContacts(ctx context.Context, in campaign.DispatchInput) (campaign.ContactBatch, error) {
	var batch campaign.ContactBatch
	err := alive(ctx, func() error {
		plan, err := a.Store.LoadPlan(ctx, campaign.PlanRef{CampaignID: in.CampaignID, Revision: in.Revision})
		if err != nil {
			return err
		}
		line, ok := plan.Plan.ContactLine(in.Channel)
		if !ok {
			return campaign.Errorf(campaign.CodeInvalidPlan, "channel %s has no budget line for its contacts", in.Channel)
		}
		channel, ok := plan.Plan.Channel(in.Channel)
		if !ok {
			return campaign.Errorf(campaign.CodeInvalidPlan, "channel %s is not in plan revision %d", in.Channel, in.Revision)
		}
		batch, err = a.Store.CreateContacts(ctx, in, line, parts(channel), plan.Plan.Goal.Outcome)
		return err
	})
	return batch, failure(ctx, err)
}

// parts is how many units of its channel's budget line one contact takes: one for an
// attempt by a person, and as many as the operator charges for a message.
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
