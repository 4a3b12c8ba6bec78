package workflows

import (
	"go.temporal.io/sdk/workflow"

	"github.com/musterhq/muster/campaign"
)

// Wave runs its channels, in series: each takes the customers whom the ones before did not
// reach; or side by side, each with those who prefer it.
func Wave(ctx workflow.Context, in campaign.WaveInput) error {
	done, err := runWave(ctx, in)
	return finish(ctx, in.CampaignID, campaign.StageReport{Kind: campaign.ReportWaveDone, Number: in.Wave, Channels: done}, err)
}

// runWave returns how many channels it has run.
func runWave(ctx workflow.Context, in campaign.WaveInput) (int, error) {
	hold := newHolder(ctx, in.Hold)
	dispatch := func(c campaign.Channel, after []campaign.Channel) workflow.ChildWorkflowFuture {
		return start(part(ctx, campaign.DispatchWorkflowID(in.CampaignID, in.Wave, c)), campaign.WorkflowDispatch, campaign.DispatchInput{
			CampaignID: in.CampaignID, Wave: in.Wave, Snapshot: in.Snapshot, Revision: in.Revision, Channel: c, After: after,
			ClosesAt: workflow.Now(ctx).Add(campaign.Seconds(in.Window)), Hold: hold.now,
		})
	}
	for i, c := range in.Channels {
		if err := hold.awaitRunning(ctx); err != nil {
			return i, err
		}
		if hold.now == campaign.HoldStopped {
			return i, nil
		}
		if in.Linkage == campaign.LinkagePreferred {
			children := make([]workflow.ChildWorkflowFuture, len(in.Channels))
			for j, each := range in.Channels {
				children[j] = dispatch(each, nil)
			}
			if err := hold.relay(ctx, children); err != nil {
				return 0, err
			}
			break
		}
		if err := hold.relay(ctx, []workflow.ChildWorkflowFuture{dispatch(c, in.Channels[:i])}); err != nil {
			return i, err
		}
	}
	return len(in.Channels), nil
}

// holder follows the campaign's hold in a wave, a dispatch or a shard. Its selector
// belongs to the root coroutine.
type holder struct {
	now     campaign.Hold
	changes workflow.ReceiveChannel
}

func newHolder(ctx workflow.Context, hold campaign.Hold) *holder {
	return &holder{now: hold, changes: workflow.GetSignalChannel(ctx, campaign.SignalHold)}
}

// latest takes in what has been signalled so far.
func (h *holder) latest() {
	var change campaign.HoldChange
	for h.changes.ReceiveAsync(&change) {
		h.now = change.Hold
	}
}

// awaitRunning returns once the campaign is not paused.
func (h *holder) awaitRunning(ctx workflow.Context) error {
	h.latest()
	for h.now == campaign.HoldPaused {
		var change campaign.HoldChange
		if !h.changes.Receive(ctx, &change) || ctx.Err() != nil {
			return ctx.Err()
		}
		h.now = change.Hold
		h.latest()
	}
	return nil
}

// relay awaits children and passes every change of the hold on to those still open.
func (h *holder) relay(ctx workflow.Context, children []workflow.ChildWorkflowFuture) error {
	open := len(children)
	done := make([]bool, len(children))
	var first error
	sel := workflow.NewSelector(ctx)
	for i, child := range children {
		sel.AddFuture(child, func(f workflow.Future) {
			open--
			done[i] = true
			if err := f.Get(ctx, nil); err != nil && first == nil {
				first = err
			}
		})
	}
	sel.AddReceive(h.changes, func(ch workflow.ReceiveChannel, _ bool) {
		var change campaign.HoldChange
		ch.Receive(ctx, &change)
		h.now = change.Hold
		for i, child := range children {
			if done[i] {
				continue
			}
			if err := child.SignalChildWorkflow(ctx, campaign.SignalHold, change).Get(ctx, nil); err != nil {
				// It ended between the two: there is nothing left to hold.
				workflow.GetLogger(ctx).Info("a child took no hold", "error", err)
			}
		}
	})
	for open > 0 {
		sel.Select(ctx)
	}
	return first
}
