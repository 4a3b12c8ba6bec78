package workflows

import (
	"go.temporal.io/sdk/workflow"

	"github.com/musterhq/muster/campaign"
)

// take applies the report of a stage. The lock is held. A report that the campaign no
// longer waits for, from a round or a stage it has left, changes nothing.
func (c *entity) take(ctx workflow.Context, r campaign.StageReport) {
	s := c.state
	switch r.Kind {
	case campaign.ReportApprovalEscalated, campaign.ReportApprovalExpired:
		c.takeApproval(ctx, r)
	case campaign.ReportSelected:
		if s.Stage == campaign.StageTargeting && r.WorkflowID == s.Begun {
			s.Selection = r.Selection
			s.Begun = ""
			c.changed(ctx, "selection.frozen", campaign.Actor{})
		}
	case campaign.ReportWaveDone:
		c.waveDone(ctx, r.Number)
	case campaign.ReportReviewOpen:
		if rev := c.review(r.Number); rev != nil && rev.Decision == "" && !s.WindingDown {
			rev.Open, rev.DueAt = true, r.DueAt
			c.changed(ctx, "review.open", campaign.Actor{})
		}
	case campaign.ReportReviewLapsed:
		if rev := c.review(r.Number); rev != nil && rev.Open {
			c.applyDefault(ctx, rev)
		}
	case campaign.ReportSettled:
		if s.Stage == campaign.StageSettlement && r.WorkflowID == s.Begun {
			s.Begun = ""
			c.enter(ctx, campaign.StageEvaluation)
		}
	case campaign.ReportEvaluated:
		if s.Stage == campaign.StageEvaluation && r.WorkflowID == s.Begun {
			s.Begun = ""
			c.enter(ctx, campaign.StageClosed)
		}
	case campaign.ReportFailed:
		c.takeFailure(ctx, r)
	}
}

func (c *entity) takeApproval(ctx workflow.Context, r campaign.StageReport) {
	a := c.state.Approval
	if a == nil || r.Round != a.Round {
		return
	}
	switch {
	case r.Kind == campaign.ReportApprovalEscalated:
		if a.Escalate(r.Number) {
			c.changed(ctx, "approval.escalated", campaign.Actor{})
		}
	case a.Expire(r.Number):
		c.changed(ctx, "approval.expired", campaign.Actor{})
	}
}

func (c *entity) waveDone(ctx workflow.Context, number int) {
	for i := range c.state.Waves {
		if w := &c.state.Waves[i]; w.Number == number && !w.Done {
			w.Done = true
			p := campaign.Projection{Event: "wave.done", Wave: number}
			if w.Failure != "" {
				p.Event, p.Reason = "wave.failed", w.Failure
			}
			c.project(ctx, p)
		}
	}
}

// takeFailure records that a stage could not do its work. A wave that failed counts as
// done, so that the campaign still settles what it has, unless it was refused before anybody
// was contacted; a review that failed is closed;
// an approval round without its clock expires; the others wait for a person to resume,
// amend or stop.
func (c *entity) takeFailure(ctx workflow.Context, r campaign.StageReport) {
	s := c.state
	for i := range s.Waves {
		if r.WorkflowID == campaign.WaveWorkflowID(s.CampaignID, s.Waves[i].Number) {
			if s.Waves[i].Done || !s.Waves[i].Begun {
				return
			}
			workflow.GetLogger(ctx).Error("a wave failed", "wave", s.Waves[i].Number, "code", r.Code, "message", r.Message)
			s.Waves[i].Failure = r.Message
			if r.Code == campaign.CodeDispatchRefused && !s.WindingDown {
				// Something is wrong with what was signed: no further wave before a person has looked.
				s.Fault, s.Problem = r.Code, r.Message
				if r.Channels == 0 {
					// Nobody was contacted: it begins anew once that is mended.
					s.Waves[i].Begun = false
					c.project(ctx, campaign.Projection{Event: "wave.refused", Wave: s.Waves[i].Number, Reason: r.Message})
					return
				}
			}
			c.waveDone(ctx, s.Waves[i].Number)
			return
		}
	}
	for i := range s.Reviews {
		if r.WorkflowID == campaign.ReviewWorkflowID(s.CampaignID, s.Reviews[i].Number) {
			if s.Reviews[i].Decision != "" {
				return
			}
			s.Reviews[i].Open, s.Reviews[i].Decision = false, campaign.ReviewKeep
			c.project(ctx, campaign.Projection{Event: "review.failed", Reason: r.Message})
			return
		}
	}
	if s.Approval.Open() && r.WorkflowID == c.clockID() {
		s.Approval.Withdraw(campaign.ApprovalExpired, "")
		c.project(ctx, campaign.Projection{Event: "approval.expired", Reason: r.Message})
		return
	}
	if r.WorkflowID == s.Begun {
		s.Begun = ""
		if s.Hold == campaign.HoldStopped && s.Stage == campaign.StageTargeting {
			return // nobody waits for the targets of a stopped campaign
		}
		s.Fault, s.Problem = r.Code, r.Message
		c.changed(ctx, "campaign.problem", campaign.Actor{})
		if s.Stage == campaign.StageTargeting && (r.Code == campaign.CodeAudienceGrown || r.Code == campaign.CodeAudienceShrunk) {
			c.askAgain(ctx)
		}
	}
}

// askAgain opens another round over the plan in force, whose selection came to another number
// of targets than the signers were told: they are told that number. Approved, the plan is
// adopted again like an amendment and its targets selected anew; otherwise the campaign waits
// for a person to amend or stop it. Where no round can be opened it waits at once.
func (c *entity) askAgain(ctx workflow.Context) {
	s := c.state
	if s.Pending != nil {
		return
	}
	by := campaign.Actor{UserID: s.Requester}
	opened := false
	err := c.onRoute(ctx, s.Revision, s.Digest, by, func(routed campaign.RoutedApproval) error {
		if s.Stage != campaign.StageTargeting || s.Hold == campaign.HoldStopped || s.Problem == "" || s.Pending != nil || routed.Revision != s.Revision {
			return nil // somebody decided otherwise meanwhile
		}
		if err := c.openApproval(ctx, routed, by); err != nil {
			return err
		}
		s.Pending, opened = &routed.LoadedPlan, true
		return nil
	})
	if err != nil {
		workflow.GetLogger(ctx).Warn("nobody could be asked again", "error", err)
	}
	if opened {
		c.project(ctx, campaign.Projection{Event: "campaign.asked_again", Reason: s.Problem})
	}
}

func (c *entity) review(number int) *campaign.ReviewRun {
	for i := range c.state.Reviews {
		if c.state.Reviews[i].Number == number {
			return &c.state.Reviews[i]
		}
	}
	return nil
}

// applyDefault decides a review that nobody decided in time, as the plan says.
func (c *entity) applyDefault(ctx workflow.Context, r *campaign.ReviewRun) {
	decision := campaign.ReviewKeep
	if c.state.Plan.Review.Default == campaign.ReviewDefaultAccept {
		if err := c.adoptRecommendation(ctx, r.Number, campaign.Actor{}); err == nil {
			decision = campaign.ReviewAccept
		} else {
			workflow.GetLogger(ctx).Info("no recommendation was applied", "review", r.Number, "error", err)
		}
	}
	r.Open, r.Decision = false, decision
	c.recordReview(ctx, campaign.ReviewOutcome{Review: r.Number, Decision: decision, ByDefault: true})
	c.changed(ctx, "review.lapsed", campaign.Actor{})
}

// closeReview ends a review that is begun and undecided because running ends.
func (c *entity) closeReview(ctx workflow.Context, r *campaign.ReviewRun, decision campaign.ReviewDecision) {
	if r.Decision != "" {
		return
	}
	open := r.Open
	r.Open, r.Decision = false, decision
	if !r.Begun {
		return
	}
	c.tellReview(ctx, r.Number)
	if open {
		c.recordReview(ctx, campaign.ReviewOutcome{Review: r.Number, Decision: decision, ByDefault: true})
	}
}

// recordReview writes how a review ended.
func (c *entity) recordReview(ctx workflow.Context, out campaign.ReviewOutcome) {
	out.CampaignID, out.Revision = c.state.CampaignID, c.state.Revision
	if err := act(action(ctx), campaign.ActivityCloseReview, out); err != nil {
		workflow.GetLogger(ctx).Error("a review's end was not written", "review", out.Review, "error", err)
	}
}

// adoptRecommendation makes the recommendation of a review the plan in force.
func (c *entity) adoptRecommendation(ctx workflow.Context, review int, by campaign.Actor) error {
	loaded, err := do(action(ctx), campaign.ActivityApplyRecommendation, campaign.ReviewRef{
		CampaignID: c.state.CampaignID, Review: review, Actor: by,
	})
	if err != nil {
		return err
	}
	c.adopt(loaded)
	c.dropOutdated(ctx)
	return nil
}

// adopt puts a plan revision in force.
func (c *entity) adopt(p campaign.LoadedPlan) {
	s := c.state
	s.Revision, s.Digest, s.Plan = p.Revision, p.Digest, p.Plan
	for i := range s.Waves {
		if w := &s.Waves[i]; !w.Begun && i < len(p.Plan.Waves) {
			w.Channels = p.Plan.Waves[i].Channels
			w.StartsAt = s.RunningAt.Add(campaign.Seconds(p.Plan.Waves[i].StartAfter))
		}
	}
	if !s.RunningAt.IsZero() {
		s.RunEndsAt = s.RunningAt.Add(campaign.Seconds(p.Plan.Schedule.RunFor))
	}
}

func (c *entity) tellReview(ctx workflow.Context, number int) {
	c.tell(ctx, campaign.ReviewWorkflowID(c.state.CampaignID, number), campaign.Decided{Closed: true})
}

func (c *entity) tellClock(ctx workflow.Context, d campaign.Decided) {
	c.tell(ctx, c.clockID(), d)
}

// clockID is the workflow of the approval round in progress.
func (c *entity) clockID() string {
	return campaign.ApprovalWorkflowID(c.state.CampaignID, c.state.Approval.Revision, c.state.Approval.Round)
}

// tell answers a clock. One that has run out meanwhile needs no answer.
func (c *entity) tell(ctx workflow.Context, id string, d campaign.Decided) {
	if err := workflow.SignalExternalWorkflow(ctx, id, "", campaign.SignalDecided, d).Get(ctx, nil); err != nil {
		workflow.GetLogger(ctx).Info("a clock took no answer", "workflow", id, "error", err)
	}
}
