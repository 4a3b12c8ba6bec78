package workflows

import (
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/musterhq/muster/campaign"
)

// Search attributes of campaign workflows, for operators. Lists read the database.
var (
	attributeStage = temporal.NewSearchAttributeKeyKeyword(campaign.AttributeStage)
	attributeUnit  = temporal.NewSearchAttributeKeyKeyword(campaign.AttributeUnit)
)

// Campaign is one marketing campaign from draft to archive: the only authority on
// where it stands. People act on it through updates; stages report to it by signal;
// the root coroutine moves it on.
// Only the workflow with the campaign's own id is: any other is refused.
func Campaign(ctx workflow.Context, in campaign.Start) error {
	id := workflow.GetInfo(ctx).WorkflowExecution.ID
	if id != campaign.CampaignWorkflowID(in.CampaignID) || in.State != nil && in.State.CampaignID != in.CampaignID {
		return refusal(campaign.Errorf(campaign.CodeInvalidParameter, "workflow %s is not that of campaign %s", id, in.CampaignID))
	}
	c := newEntity(ctx, in)
	if err := c.register(ctx); err != nil {
		return err
	}
	return c.run(ctx)
}

// entity is one run of a campaign workflow.
type entity struct {
	state    *campaign.State
	lock     workflow.Mutex   // held by whoever changes state, the root or one update handler
	wake     workflow.Channel // tells the root that a handler changed something
	reports  workflow.ReceiveChannel
	lost     workflow.Channel // stages that ended without their report
	draining bool             // the run is about to be continued as new: no more updates
}

func newEntity(ctx workflow.Context, in campaign.Start) *entity {
	state := in.State
	if state == nil {
		state = &campaign.State{CampaignID: in.CampaignID, Stage: campaign.StageDraft, Hold: campaign.HoldNone}
	}
	return &entity{
		state: state, lock: workflow.NewMutex(ctx), wake: workflow.NewBufferedChannel(ctx, 1),
		reports: workflow.GetSignalChannel(ctx, campaign.SignalReport), lost: workflow.NewBufferedChannel(ctx, 100),
	}
}

func (c *entity) run(ctx workflow.Context) error {
	var timer workflow.CancelFunc
	var timerAt time.Time
	sel := workflow.NewSelector(ctx)
	sel.AddReceive(c.wake, func(ch workflow.ReceiveChannel, _ bool) { ch.Receive(ctx, nil) })
	// In this order: what a stage has reported comes before that it has ended.
	sel.AddReceive(c.reports, func(ch workflow.ReceiveChannel, _ bool) {
		var r campaign.StageReport
		ch.Receive(ctx, &r)
		c.exclusively(ctx, func() {
			if c.confirmed(ctx, r) {
				c.take(ctx, r)
			}
		})
	})
	sel.AddReceive(c.lost, func(ch workflow.ReceiveChannel, _ bool) {
		var r campaign.StageReport
		ch.Receive(ctx, &r)
		c.exclusively(ctx, func() {
			if slices.Contains(c.unreported(), r.WorkflowID) {
				c.take(ctx, r)
			}
		})
	})
	c.attend(ctx)
	for {
		c.exclusively(ctx, func() { c.advance(ctx) })
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if c.state.Stage.Final() {
			return c.close(ctx)
		}
		if workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
			return c.continueAsNew(ctx, sel)
		}
		if at := c.nextDue(); !at.Equal(timerAt) {
			if timer != nil {
				timer()
				timer = nil
			}
			if timerAt = at; !at.IsZero() {
				var timerCtx workflow.Context
				timerCtx, timer = workflow.WithCancel(ctx)
				// The timer only wakes: what is due is decided by advance.
				sel.AddFuture(workflow.NewTimer(timerCtx, max(at.Sub(workflow.Now(ctx)), 0)), func(workflow.Future) {
					if timerAt.Equal(at) {
						timerAt = time.Time{}
					}
				})
			}
		}
		sel.Select(ctx)
	}
}

// exclusively runs f with the lock held.
func (c *entity) exclusively(ctx workflow.Context, f func()) {
	if err := c.lock.Lock(ctx); err != nil {
		return // cancelled; the caller looks at ctx
	}
	defer c.lock.Unlock()
	f()
}

// continueAsNew refuses further updates, lets the running ones finish, takes in every
// report that has arrived and begins the next run with the whole state.
func (c *entity) continueAsNew(ctx workflow.Context, sel workflow.Selector) error {
	c.draining = true
	if err := workflow.Await(ctx, func() bool { return workflow.AllHandlersFinished(ctx) }); err != nil {
		return err
	}
	for sel.HasPending() {
		sel.Select(ctx)
	}
	return continueAsNew(ctx, campaign.WorkflowCampaign, campaign.Start{CampaignID: c.state.CampaignID, State: c.state})
}

// close has the histories archived, this one too once it has ended.
func (c *entity) close(ctx workflow.Context) error {
	c.draining = true
	if err := workflow.Await(ctx, func() bool { return workflow.AllHandlersFinished(ctx) }); err != nil {
		return err
	}
	id := campaign.ArchiveWorkflowID(c.state.CampaignID)
	return begin(ctx, c, id, campaign.WorkflowArchive, campaign.ArchiveInput{CampaignID: c.state.CampaignID})
}

// begin starts a stage. One that is there already, from before the run was continued,
// counts as begun.
func begin[In any](ctx workflow.Context, c *entity, id string, name campaign.Workflow[In], in In) error {
	child := start(stage(ctx, id), name, in)
	err := child.GetChildWorkflowExecution().Get(ctx, nil)
	if temporal.IsWorkflowExecutionAlreadyStartedError(err) {
		return nil
	}
	if err == nil {
		c.watch(ctx, id, child)
	}
	return err
}

// nextDue is the next moment at which something happens without anybody asking.
func (c *entity) nextDue() time.Time {
	s := c.state
	if s.Stage != campaign.StageRunning || s.WindingDown || s.Problem != "" {
		return time.Time{}
	}
	next := s.RunEndsAt
	consider := func(at time.Time) {
		if at.Before(next) {
			next = at
		}
	}
	if s.Hold == campaign.HoldNone {
		for _, w := range s.Waves {
			if !w.Begun {
				consider(w.StartsAt)
			}
		}
	}
	for _, r := range s.Reviews {
		if !r.Begun {
			consider(r.StartsAt)
		}
	}
	return next
}

// changed records an event: it writes the read model before anybody else can see the
// new state through another door.
func (c *entity) changed(ctx workflow.Context, event string, actor campaign.Actor) {
	c.project(ctx, campaign.Projection{Event: event, Actor: actor})
}

// project is changed for an event that says more.
func (c *entity) project(ctx workflow.Context, p campaign.Projection) {
	c.state.Version++
	p.CampaignID, p.Version, p.Status = c.state.CampaignID, c.state.Version, c.state.Status()
	if err := workflow.ExecuteLocalActivity(local(ctx), string(campaign.ActivityProject), p).Get(ctx, nil); err != nil {
		workflow.GetLogger(ctx).Error("the read model was not written", "event", p.Event, "error", err)
	}
}
