package workflows

import (
	"go.temporal.io/sdk/workflow"

	"github.com/musterhq/muster/campaign"
)

// advance does everything that the state calls for now, stage after stage, until only
// time, a stage or a person can move the campaign on. The lock is held.
func (c *entity) advance(ctx workflow.Context) {
	c.concludeAmendment(ctx)
	for c.state.Problem == "" && ctx.Err() == nil {
		before := c.state.Stage
		switch before {
		case campaign.StageDraft:
			c.leaveIfStopped(ctx)
		case campaign.StageApproval:
			c.concludeApproval(ctx)
		case campaign.StagePreparation:
			c.prepare(ctx)
		case campaign.StageTargeting:
			c.target(ctx)
		case campaign.StageRunning:
			c.runWaves(ctx)
		case campaign.StageSettlement:
			c.settle(ctx)
		case campaign.StageEvaluation:
			c.evaluate(ctx)
		}
		if c.state.Stage == before {
			return
		}
	}
}

// enter moves to the next stage and tells the world.
func (c *entity) enter(ctx workflow.Context, next campaign.Stage) {
	if err := c.state.Advance(next); err != nil {
		c.fail(ctx, err)
		return
	}
	err := workflow.UpsertTypedSearchAttributes(ctx,
		attributeStage.ValueSet(string(next)), attributeUnit.ValueSet(string(c.state.Plan.Unit)))
	if err != nil {
		workflow.GetLogger(ctx).Warn("search attributes were not written", "error", err)
	}
	c.changed(ctx, "stage."+string(next), campaign.Actor{})
}

// fail records why the campaign cannot go on by itself. A person resumes, amends or
// stops it.
func (c *entity) fail(ctx workflow.Context, err error) {
	c.state.Fault, c.state.Problem = fault(err)
	c.changed(ctx, "campaign.problem", campaign.Actor{})
}

func (c *entity) plan() campaign.PlanRef {
	return campaign.PlanRef{CampaignID: c.state.CampaignID, Revision: c.state.Revision}
}

func (c *entity) leaveIfStopped(ctx workflow.Context) {
	if c.state.Hold == campaign.HoldStopped {
		c.enter(ctx, campaign.StageRejected)
	}
}

// concludeApproval acts on the result of the round that the campaign waits for.
func (c *entity) concludeApproval(ctx workflow.Context) {
	if c.state.Hold == campaign.HoldStopped {
		c.enter(ctx, campaign.StageRejected)
		return
	}
	switch c.state.Approval.Result {
	case campaign.ApprovalApproved:
		if err := c.reserve(ctx, c.plan(), &c.state.Plan); err != nil {
			c.fail(ctx, err)
			return
		}
		c.enter(ctx, campaign.StagePreparation)
	case campaign.ApprovalReturned, campaign.ApprovalExpired, campaign.ApprovalWithdrawn:
		c.enter(ctx, campaign.StageDraft)
	case campaign.ApprovalRejected:
		c.enter(ctx, campaign.StageRejected)
	}
}

func (c *entity) reserve(ctx workflow.Context, ref campaign.PlanRef, plan *campaign.Plan) error {
	if err := act(action(ctx), campaign.ActivityReserve, ref); err != nil {
		return err
	}
	total, err := plan.BudgetTotal()
	if err != nil {
		return err
	}
	c.state.Reserved = max(c.state.Reserved, total)
	return nil
}

func (c *entity) prepare(ctx workflow.Context) {
	if c.state.Hold == campaign.HoldStopped {
		c.beginSettlement(ctx)
		return
	}
	if err := act(action(ctx), campaign.ActivityPrepare, c.plan()); err != nil {
		c.fail(ctx, err)
		return
	}
	c.enter(ctx, campaign.StageTargeting)
}

func (c *entity) target(ctx workflow.Context) {
	if c.state.Selection != nil {
		c.startRunning(ctx)
		return
	}
	id := campaign.SelectionWorkflowID(c.state.CampaignID, c.state.Revision)
	if c.state.Begun == id {
		return // its report is on the way; a stop takes effect after it
	}
	if c.state.Hold == campaign.HoldStopped {
		c.beginSettlement(ctx)
		return
	}
	beginOnce(ctx, c, id, campaign.WorkflowSelection, campaign.SelectionInput{
		CampaignID: c.state.CampaignID, Revision: c.state.Revision,
	})
}

// beginOnce starts the one stage that the campaign waits for.
func beginOnce[In any](ctx workflow.Context, c *entity, id string, name campaign.Workflow[In], in In) {
	if c.state.Begun == id {
		return
	}
	if err := begin(ctx, c, id, name, in); err != nil {
		c.fail(ctx, err)
		return
	}
	c.state.Begun = id
}

func (c *entity) startRunning(ctx workflow.Context) {
	s, now := c.state, workflow.Now(ctx)
	if s.Hold == campaign.HoldStopped {
		c.beginSettlement(ctx)
		return
	}
	s.RunningAt = now
	s.RunEndsAt = now.Add(campaign.Seconds(s.Plan.Schedule.RunFor))
	s.Waves = nil
	for _, w := range s.Plan.Waves {
		s.Waves = append(s.Waves, campaign.WaveRun{
			Number: w.Number, StartsAt: now.Add(campaign.Seconds(w.StartAfter)), Channels: w.Channels, Linkage: w.Linkage,
		})
	}
	s.Reviews = []campaign.ReviewRun{{Number: 1, StartsAt: now.Add(campaign.Seconds(s.Plan.Review.After))}}
	c.enter(ctx, campaign.StageRunning)
}

// runWaves starts what is due and ends running when nothing is left to do in it.
func (c *entity) runWaves(ctx workflow.Context) {
	s, now := c.state, workflow.Now(ctx)
	c.startCredit(ctx)
	if !s.WindingDown && (s.Hold == campaign.HoldStopped || !now.Before(s.RunEndsAt)) {
		c.windDown(ctx)
	}
	if !s.WindingDown {
		c.startWaves(ctx)
		c.startReviews(ctx)
	}
	if c.state.Problem != "" || !c.runningOver() {
		return
	}
	c.beginSettlement(ctx)
}

func (c *entity) startWaves(ctx workflow.Context) {
	s, now := c.state, workflow.Now(ctx)
	if s.Hold != campaign.HoldNone {
		return
	}
	for i := range s.Waves {
		w := &s.Waves[i]
		if w.Begun || now.Before(w.StartsAt) {
			continue
		}
		plan := s.Plan.Waves[i]
		w.Channels = plan.Channels
		window := min(plan.ChannelWindow, int64(s.RunEndsAt.Sub(now).Seconds()))
		err := begin(ctx, c, campaign.WaveWorkflowID(s.CampaignID, w.Number), campaign.WorkflowWave, campaign.WaveInput{
			CampaignID: s.CampaignID, Wave: w.Number, Snapshot: s.Selection.Snapshot, Revision: s.Revision,
			Channels: w.Channels, Linkage: w.Linkage, Window: window, Hold: s.Hold,
		})
		if err != nil {
			c.fail(ctx, err)
			return
		}
		w.Begun, w.Failure = true, ""
		c.project(ctx, campaign.Projection{Event: "wave.begun", Wave: w.Number})
	}
}

func (c *entity) startReviews(ctx workflow.Context) {
	s, now := c.state, workflow.Now(ctx)
	for i := range s.Reviews {
		r := &s.Reviews[i]
		if r.Begun || now.Before(r.StartsAt) {
			continue
		}
		in := campaign.ReviewInput{
			CampaignID: s.CampaignID, Review: r.Number, Revision: s.Revision, DecideWithin: s.Plan.Review.DecideWithin,
		}
		for _, w := range s.Waves {
			if w.Begun {
				in.DoneWaves = append(in.DoneWaves, w.Number)
			} else {
				in.OpenWaves = append(in.OpenWaves, w.Number)
			}
		}
		if err := begin(ctx, c, campaign.ReviewWorkflowID(s.CampaignID, r.Number), campaign.WorkflowReview, in); err != nil {
			c.fail(ctx, err)
			return
		}
		r.Begun = true
		c.changed(ctx, "review.begun", campaign.Actor{})
	}
}

// windDown ends running: reviews close, waves end what they have open.
func (c *entity) windDown(ctx workflow.Context) {
	s := c.state
	s.WindingDown = true
	for i := range s.Reviews {
		c.closeReview(ctx, &s.Reviews[i], campaign.ReviewKeep)
	}
	c.endApproval(ctx, campaign.ApprovalWithdrawn, "the campaign's time is over")
	c.tellWaves(ctx, campaign.HoldStopped)
	c.changed(ctx, "campaign.winding_down", campaign.Actor{})
}

// runningOver reports whether every wave has been run, and every review answered
// unless running has ended.
func (c *entity) runningOver() bool {
	for _, w := range c.state.Waves {
		if w.Begun && !w.Done || !w.Begun && !c.state.WindingDown {
			return false
		}
	}
	if c.state.WindingDown {
		return true
	}
	for _, r := range c.state.Reviews {
		if !r.Begun || r.Open || r.Decision == "" {
			return false
		}
	}
	return !c.state.Approval.Open()
}

// beginSettlement enters the settlement; late outcomes are accepted from now on for
// as long as the plan says.
func (c *entity) beginSettlement(ctx workflow.Context) {
	c.endApproval(ctx, campaign.ApprovalWithdrawn, "the campaign has ended")
	c.state.Begun = ""
	c.state.SettleAt = workflow.Now(ctx).Add(campaign.Seconds(c.state.Plan.Schedule.SettleFor))
	c.enter(ctx, campaign.StageSettlement)
}

func (c *entity) settle(ctx workflow.Context) {
	beginOnce(ctx, c, campaign.SettlementWorkflowID(c.state.CampaignID), campaign.WorkflowSettlement, campaign.SettlementInput{
		CampaignID: c.state.CampaignID, Revision: c.state.Revision, SettleAt: c.state.SettleAt,
	})
}

func (c *entity) evaluate(ctx workflow.Context) {
	beginOnce(ctx, c, campaign.EvaluationWorkflowID(c.state.CampaignID), campaign.WorkflowEvaluation, campaign.EvaluationInput{
		CampaignID: c.state.CampaignID, Revision: c.state.Revision,
	})
}

// tellWaves passes a hold on to the waves that run.
func (c *entity) tellWaves(ctx workflow.Context, hold campaign.Hold) {
	for _, w := range c.state.Waves {
		if !w.Begun || w.Done {
			continue
		}
		id := campaign.WaveWorkflowID(c.state.CampaignID, w.Number)
		err := workflow.SignalExternalWorkflow(ctx, id, "", campaign.SignalHold, campaign.HoldChange{Hold: hold}).Get(ctx, nil)
		if err != nil {
			// It ended between the two: there is nothing left to hold.
			workflow.GetLogger(ctx).Info("a wave took no hold", "wave", w.Number, "error", err)
		}
	}
}
