package workflows

import (
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/musterhq/muster/campaign"
)

const (
	// chunkContacts is how many contacts one activity dispatches. A customer never
	// costs an event: a million contacts are 500 activities.
	chunkContacts = 2000
	// chunksPerRun bounds a shard's history.
	chunksPerRun = 200
	// maxPolls bounds how often a channel is asked whether its work is done.
	maxPolls = 50
)

// Dispatch runs one channel of a wave: it creates the contacts, dispatches them in
// shards, waits until all are settled or the window closes, and ends what is left.
// Contacts that the budget does not pay for are dispatched when it does, within the window.
func Dispatch(ctx workflow.Context, in campaign.DispatchInput) error {
	return refusal(runDispatch(ctx, in))
}

func runDispatch(ctx workflow.Context, in campaign.DispatchInput) error {
	hold := newHolder(ctx, in.Hold)
	batch, err := do(bulk(ctx), campaign.ActivityCreateContacts, in)
	if err != nil {
		return err
	}
	interval := time.Second
	ranges := batch.Ranges()
	for pass := 1; pass == 1 || len(ranges) > 0; pass++ {
		if err := hold.relay(ctx, startShards(ctx, in, ranges, pass, hold)); err != nil {
			return err
		}
		if ranges, err = awaitSettled(ctx, in, hold, &interval); err != nil {
			return err
		}
	}
	ref := in.Ref()
	closing := campaign.CloseChannel{ChannelRef: ref, State: campaign.ContactExpired, Reason: "window_closed"}
	if hold.now == campaign.HoldStopped {
		closing.State, closing.Reason = campaign.ContactCancelled, "campaign_stopped"
	}
	if _, err := do(bulk(ctx), campaign.ActivityCloseChannel, closing); err != nil {
		return err
	}
	return act(bulk(ctx), campaign.ActivityCaptureChannel, ref)
}

func startShards(ctx workflow.Context, in campaign.DispatchInput, ranges []campaign.ShardRange, pass int, hold *holder) []workflow.ChildWorkflowFuture {
	hold.latest()
	shards := make([]workflow.ChildWorkflowFuture, len(ranges))
	for i, r := range ranges {
		id := campaign.ShardWorkflowID(in.CampaignID, in.Wave, in.Channel, r.Shard, pass)
		shards[i] = start(part(ctx, id), campaign.WorkflowShard, campaign.ShardInput{
			CampaignID: in.CampaignID, Wave: in.Wave, Revision: in.Revision, Channel: in.Channel, Shard: r.Shard,
			NextSeq: r.FromSeq, LastSeq: r.ToSeq, ClosesAt: in.ClosesAt, Hold: hold.now,
		})
	}
	return shards
}

// awaitSettled waits until people have worked all tasks and receipts have come for all
// messages, or the window closes, or the campaign is stopped. It asks at growing
// intervals, so that the number of questions does not depend on the window's length. It
// returns early, with their ranges, when the budget pays for contacts that it did not pay for
// before; the next wait goes on at the interval that this one had come to.
func awaitSettled(ctx workflow.Context, in campaign.DispatchInput, hold *holder, interval *time.Duration) ([]campaign.ShardRange, error) {
	ref := in.Ref()
	longest := max(*interval, in.ClosesAt.Sub(workflow.Now(ctx))/maxPolls)
	for waited := false; ; waited = true {
		hold.latest()
		left := in.ClosesAt.Sub(workflow.Now(ctx))
		if left <= 0 || hold.now == campaign.HoldStopped {
			return nil, nil
		}
		p, err := do(action(ctx), campaign.ActivityProgress, ref)
		if err != nil {
			return nil, err
		}
		wait := min(*interval, left)
		*interval = min(*interval*3/2, longest)
		if p.Unpaid > 0 && waited {
			paid, err := do(bulk(ctx), campaign.ActivityPayContacts, ref)
			if err != nil || paid.Planned > 0 {
				return paid.Shards, err
			}
		}
		if p.Open == 0 && p.Awaiting == 0 && p.Unpaid == 0 {
			return nil, nil
		}
		if change, ok := receiveUntil[campaign.HoldChange](ctx, hold.changes, workflow.Now(ctx).Add(wait)); ok {
			hold.now = change.Hold
		}
	}
}

// DispatchShard walks one shard of frozen contacts chunk by chunk. Its cursor is a
// sequence number; what became of each contact is in the database.
func DispatchShard(ctx workflow.Context, in campaign.ShardInput) error {
	hold := newHolder(ctx, in.Hold)
	for chunks := 0; in.NextSeq <= in.LastSeq; {
		if err := hold.awaitRunning(ctx); err != nil {
			return refusal(err)
		}
		if hold.now == campaign.HoldStopped {
			return nil
		}
		if chunks >= chunksPerRun || workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
			hold.latest()
			in.Hold = hold.now
			return continueAsNew(ctx, campaign.WorkflowShard, in)
		}
		to := min(in.NextSeq+chunkContacts-1, in.LastSeq)
		done, err := do(chunk(ctx, in.Channel, in.CampaignID), campaign.ActivityDispatchChunk, campaign.ChunkInput{
			CampaignID: in.CampaignID, Wave: in.Wave, Revision: in.Revision, Channel: in.Channel, Shard: in.Shard,
			FromSeq: in.NextSeq, ToSeq: to, ClosesAt: in.ClosesAt,
		})
		if err != nil {
			return refusal(err)
		}
		chunks++
		in.Chunks++
		if !done.Held {
			in.NextSeq = to + 1
			continue
		}
		// The flag in the database is set before the signal goes out, so the signal
		// that explains the hold may still be on its way.
		if change, ok := receiveUntil[campaign.HoldChange](ctx, hold.changes, workflow.Now(ctx).Add(time.Second)); ok {
			hold.now = change.Hold
		}
	}
	return nil
}
