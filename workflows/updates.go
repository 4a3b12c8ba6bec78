package workflows

import (
	"strings"

	"go.temporal.io/sdk/workflow"

	"github.com/musterhq/muster/campaign"
)

// register sets the handlers. All state has been restored by now.
func (c *entity) register(ctx workflow.Context) error {
	for _, set := range []func(workflow.Context) error{
		update(c, campaign.UpdateSubmit, c.checkSubmit, c.submit),
		update(c, campaign.UpdateWithdraw, c.checkWithdraw, c.withdraw),
		update(c, campaign.UpdateDecide, c.checkDecide, c.decide),
		update(c, campaign.UpdateAmend, c.checkAmend, c.amend),
		update(c, campaign.UpdatePause, c.checkPause, c.pause),
		update(c, campaign.UpdateResume, c.checkResume, c.resume),
		update(c, campaign.UpdateStop, c.checkStop, c.stop),
		update(c, campaign.UpdateRecordReview, c.checkReview, c.decideReview),
	} {
		if err := set(ctx); err != nil {
			return err
		}
	}
	return workflow.SetQueryHandler(ctx, campaign.QueryStatus, func() (campaign.Status, error) { return c.state.Status(), nil })
}

// update makes a handler that applies each update id once, in any run, one at a time.
// Before anything is done or refused on account of an update an activity verifies who gave
// it: whoever reaches Temporal can send one, and a forgery leaves its event wherever the
// campaign stands. Then check says whether the campaign can take it now.
func update[T any, O interface {
	*T
	campaign.Order
}](
	c *entity, name string, check func(T) error, apply func(workflow.Context, T) (event string, err error),
) func(workflow.Context) error {
	handle := func(ctx workflow.Context, in T) (campaign.Status, error) {
		if err := c.lock.Lock(ctx); err != nil {
			return campaign.Status{}, err
		}
		defer c.lock.Unlock()
		cmd := O(&in).Head()
		if c.state.WasApplied(cmd.UpdateID) {
			return c.state.Status(), nil
		}
		if err := c.authenticate(ctx, name, O(&in)); err != nil {
			return campaign.Status{}, refusal(err)
		}
		if err := check(in); err != nil {
			return campaign.Status{}, refusal(err)
		}
		event, err := apply(ctx, in)
		if err != nil {
			return campaign.Status{}, refusal(err)
		}
		c.state.MarkApplied(cmd.UpdateID, name)
		c.changed(ctx, event, cmd.Actor)
		c.wake.SendAsync(true)
		return c.state.Status(), nil
	}
	validate := func(in T) error {
		cmd := O(&in).Head()
		switch {
		case c.draining:
			return refusal(campaign.Errorf(campaign.CodeDraining, "the campaign is between two runs; try again"))
		case cmd.UpdateID == "" || cmd.Actor.UserID == "":
			return refusal(campaign.Errorf(campaign.CodeInvalidParameter, "an update needs an id and an actor"))
		}
		return nil
	}
	return func(ctx workflow.Context) error {
		return workflow.SetUpdateHandlerWithOptions(ctx, name, handle, workflow.UpdateHandlerOptions{Validator: validate})
	}
}

// authenticate has an activity verify that the person whom an order names gave it, to
// this campaign and in these words.
func (c *entity) authenticate(ctx workflow.Context, name string, o campaign.Order) error {
	digest, err := campaign.PayloadDigest(o)
	if err != nil {
		return err
	}
	return act(action(ctx), campaign.ActivityAuthenticate, campaign.CommandClaim{
		CampaignID: c.state.CampaignID, Name: name, Command: *o.Head(), Digest: digest,
	})
}

// verify has an activity check the actor's authority again, where it takes effect.
func (c *entity) verify(ctx workflow.Context, cmd campaign.Command, a campaign.Action, reason string) error {
	return act(action(ctx), campaign.ActivityVerify, campaign.Claim{
		CampaignID: c.state.CampaignID, Action: a, Actor: cmd.Actor, Reason: reason,
	})
}

func conflict(format string, args ...any) error {
	return campaign.Errorf(campaign.CodeStateConflict, format, args...)
}

func (c *entity) checkSubmit(in campaign.Submit) error {
	if in.Revision < 1 || in.Digest == "" {
		return campaign.Errorf(campaign.CodeInvalidParameter, "name the revision and the digest that you submit")
	}
	return c.state.Status().Admits(campaign.ActCampaignSubmit)
}

func (c *entity) submit(ctx workflow.Context, in campaign.Submit) (string, error) {
	return "campaign.submitted", c.onRoute(ctx, in.Revision, in.Digest, in.Actor, func(routed campaign.RoutedApproval) error {
		if err := c.checkSubmit(in); err != nil {
			return err
		}
		if err := c.verify(ctx, in.Command, campaign.ActCampaignSubmit, ""); err != nil {
			return err
		}
		if err := c.openApproval(ctx, routed, in.Actor); err != nil {
			return err
		}
		c.adopt(routed.LoadedPlan)
		c.state.Requester = in.Actor.UserID
		return c.state.Advance(campaign.StageApproval)
	})
}

// routedAgain is how often a route is chosen again because its requester submitted
// another campaign in the same moment.
const routedAgain = 5

// onRoute goes on with a revision and the approval route it must take, or why there is
// none, once it is sure that the revision is what the caller saw. Counting an audience takes
// its time, and nobody who stops or decides meanwhile is to wait for it: the lock is let go,
// so that then looks again at where the campaign stands.
func (c *entity) onRoute(ctx workflow.Context, revision int, digest string, by campaign.Actor, then func(campaign.RoutedApproval) error) error {
	route := func() (campaign.RoutedApproval, error) {
		c.lock.Unlock()
		routed, err := do(counting(ctx), campaign.ActivityRouteApproval, campaign.RouteRequest{
			PlanRef: campaign.PlanRef{CampaignID: c.state.CampaignID, Revision: revision}, Requester: by.UserID,
		})
		// The caller gives the lock back in any case, so it is taken in any case.
		anyway, _ := workflow.NewDisconnectedContext(ctx)
		if lost := c.lock.Lock(anyway); lost != nil {
			return routed, lost
		}
		if err == nil && routed.Digest != digest {
			err = campaign.Errorf(campaign.CodeVersionChanged, "revision %d is not what you saw: its digest is %s", revision, routed.Digest)
		}
		return routed, err
	}
	for try := 0; ; try++ {
		routed, err := route()
		if err == nil {
			err = then(routed)
		}
		if try == routedAgain || !routeOutdated(err) {
			return err
		}
	}
}

// openApproval starts an approval round and its clock. Its route is a row before anybody
// can decide in it. A round that could not be started keeps its number.
func (c *entity) openApproval(ctx workflow.Context, r campaign.RoutedApproval, by campaign.Actor) error {
	if r.NoRoute != nil {
		return r.NoRoute
	}
	c.state.Rounds++
	err := act(counting(ctx), campaign.ActivityOpenRound, campaign.Round{
		CampaignID: c.state.CampaignID, Round: c.state.Rounds, Revision: r.Revision, Digest: r.Digest, Requester: by.UserID, Routed: r.Routed,
	})
	if err != nil {
		return err
	}
	approval := campaign.NewApproval(campaign.Approval{
		Round: c.state.Rounds, Revision: r.Revision, Digest: r.Digest, Amount: r.Facts.Amount, Credit: r.Facts.Credit, Base: r.Facts.Base,
		Total: r.Facts.Total, Audience: r.Facts.Audience, Uses: r.Facts.Uses, Requester: by.UserID, Rule: r.Rule, Together: r.Facts.Together, Route: r.Route, Calendar: r.Calendar,
	}, workflow.Now(ctx))
	id := campaign.ApprovalWorkflowID(c.state.CampaignID, r.Revision, approval.Round)
	err = begin(ctx, c, id, campaign.WorkflowApproval, campaign.ApprovalInput{
		CampaignID: c.state.CampaignID, Revision: r.Revision, Round: approval.Round, Route: r.Route, Calendar: r.Calendar, Waiting: approval.Waiting,
	})
	c.state.Approval = approval
	if err != nil {
		// Nobody would be reminded, and nothing would expire.
		approval.Withdraw(campaign.ApprovalWithdrawn, "the round's clock could not be started")
		c.changed(ctx, "approval.withdrawn", campaign.Actor{})
	}
	return err
}

// routeOutdated reports whether a route was refused for what came to count with it meanwhile.
func routeOutdated(err error) bool {
	if err == nil {
		return false
	}
	code, _ := fault(err)
	return code == campaign.CodeRouteOutdated
}

func (c *entity) checkWithdraw(in campaign.Withdraw) error {
	if err := c.state.Status().Admits(campaign.ActCampaignWithdraw); err != nil {
		return err
	}
	if strings.TrimSpace(in.Words) == "" {
		return campaign.Errorf(campaign.CodeReasonRequired, "say why the plan is withdrawn")
	}
	return nil
}

// withdraw takes a plan back to its planner; an amendment is dropped and the plan in
// force goes on.
func (c *entity) withdraw(ctx workflow.Context, in campaign.Withdraw) (string, error) {
	if err := c.verify(ctx, in.Command, campaign.ActCampaignWithdraw, in.Words); err != nil {
		return "", err
	}
	c.endApproval(ctx, campaign.ApprovalWithdrawn, in.Words)
	return "approval.withdrawn", nil
}

func (c *entity) checkDecide(in campaign.Decide) error {
	if in.SignOffID == "" {
		return campaign.Errorf(campaign.CodeInvalidParameter, "a decision names its sign-off")
	}
	return c.state.Approval.Check(in)
}

func (c *entity) decide(ctx workflow.Context, in campaign.Decide) (string, error) {
	a := c.state.Approval
	level, _, _ := a.At(in.Level)
	err := act(action(ctx), campaign.ActivityCountSignOff, campaign.SignOffClaim{
		CampaignID: c.state.CampaignID, Round: a.Round, Decide: in, Levels: len(a.Route), Amount: a.AmountOf(level),
	})
	if err != nil {
		return "", err
	}
	a.Count(in, workflow.Now(ctx))
	c.tellClock(ctx, campaign.Decided{Waiting: a.Waiting, Closed: !a.Open()})
	return "approval." + string(in.Decision), nil
}

func (c *entity) checkAmend(in campaign.Amend) error {
	if err := c.state.Status().Admits(campaign.ActCampaignAmend); err != nil {
		return err
	}
	switch {
	case c.state.Pending != nil:
		return conflict("revision %d is waiting for its approval", c.state.Pending.Revision)
	case strings.TrimSpace(in.Reason) == "":
		return campaign.Errorf(campaign.CodeReasonRequired, "say why the plan is to change")
	}
	return nil
}

func (c *entity) amend(ctx workflow.Context, in campaign.Amend) (event string, err error) {
	err = c.onRoute(ctx, in.Revision, in.Digest, in.Actor, func(routed campaign.RoutedApproval) error {
		s := c.state
		if err := c.checkAmend(in); err != nil {
			return err
		}
		if routed.Base != 0 && routed.Base != s.Revision {
			return campaign.OutdatedAmendment(in.Revision)
		}
		if err := campaign.CheckAmendment(&s.Plan, &routed.Plan, s.Selection != nil, s.Waves); err != nil {
			return err
		}
		if err := c.verify(ctx, in.Command, campaign.ActCampaignAmend, in.Reason); err != nil {
			return err
		}
		if campaign.NeedsApproval(&s.Plan, &routed.Plan) {
			if err := c.openApproval(ctx, routed, in.Actor); err != nil {
				return err
			}
			s.Pending, s.Requester = &routed.LoadedPlan, in.Actor.UserID
			event = "campaign.amendment_submitted"
			return nil
		}
		c.adopt(routed.LoadedPlan)
		s.Problem, s.Fault = "", ""
		event = "campaign.amended"
		return nil
	})
	return event, err
}

// concludeAmendment acts on the result of an amendment's approval round.
func (c *entity) concludeAmendment(ctx workflow.Context) {
	s := c.state
	if s.Pending == nil || s.Approval == nil || s.Approval.Result == "" {
		return
	}
	pending := *s.Pending
	s.Pending = nil
	if s.Approval.Result != campaign.ApprovalApproved {
		c.changed(ctx, "campaign.amendment_refused", campaign.Actor{})
		return
	}
	// The campaign went on while people decided: what was free to change then may have
	// happened by now.
	if err := campaign.CheckAmendment(&s.Plan, &pending.Plan, s.Selection != nil, s.Waves); err != nil {
		c.dropAmendment(ctx, campaign.ApprovalOutdated, "campaign.amendment_outdated", err)
		return
	}
	ref := campaign.PlanRef{CampaignID: s.CampaignID, Revision: pending.Revision}
	if err := c.reserve(ctx, ref, &pending.Plan); err != nil {
		c.dropAmendment(ctx, campaign.ApprovalUnfunded, "campaign.amendment_refused", err)
		return
	}
	c.adopt(pending)
	s.Problem, s.Fault = "", ""
	c.changed(ctx, "campaign.amended", campaign.Actor{})
}

// dropAmendment says why an amendment that everybody signed comes to nothing. The plan that
// is in force goes on.
func (c *entity) dropAmendment(ctx workflow.Context, result campaign.ApprovalResult, event string, err error) {
	_, why := fault(err)
	c.state.Approval.Result, c.state.Approval.Words = result, why
	c.project(ctx, campaign.Projection{Event: event, Reason: why})
}

func (c *entity) checkPause(campaign.ChangeHold) error {
	return c.state.Status().Admits(campaign.ActCampaignPause)
}

func (c *entity) pause(ctx workflow.Context, in campaign.ChangeHold) (string, error) {
	return "campaign.paused", c.changeHold(ctx, in, campaign.ActCampaignPause, campaign.HoldPaused)
}

func (c *entity) checkResume(campaign.ChangeHold) error {
	return c.state.Status().Admits(campaign.ActCampaignResume)
}

func (c *entity) resume(ctx workflow.Context, in campaign.ChangeHold) (string, error) {
	// A stopped campaign stays stopped: what is tried again is its settlement.
	if c.state.Hold == campaign.HoldStopped {
		if err := c.verify(ctx, in.Command, campaign.ActCampaignResume, in.Reason); err != nil {
			return "", err
		}
	} else if err := c.changeHold(ctx, in, campaign.ActCampaignResume, campaign.HoldNone); err != nil {
		return "", err
	}
	c.state.Problem, c.state.Fault = "", ""
	return "campaign.resumed", nil
}

func (c *entity) checkStop(in campaign.ChangeHold) error {
	if err := c.state.Status().Admits(campaign.ActCampaignStop); err != nil {
		return err
	}
	if strings.TrimSpace(in.Reason) == "" {
		return campaign.Errorf(campaign.CodeReasonRequired, "say why the campaign is to stop")
	}
	return nil
}

func (c *entity) stop(ctx workflow.Context, in campaign.ChangeHold) (string, error) {
	if err := c.changeHold(ctx, in, campaign.ActCampaignStop, campaign.HoldStopped); err != nil {
		return "", err
	}
	c.markStopped(ctx, in.Reason)
	return "campaign.stopped", nil
}

// markStopped remembers why, and closes the approval that nobody needs to give any more.
func (c *entity) markStopped(ctx workflow.Context, reason string) {
	c.state.Stopped = reason
	c.state.Problem, c.state.Fault = "", ""
	c.endApproval(ctx, campaign.ApprovalWithdrawn, reason)
}

// endApproval ends a round that nobody needs to decide any more: no signature counts
// from now on.
func (c *entity) endApproval(ctx workflow.Context, result campaign.ApprovalResult, words string) {
	c.state.Pending = nil
	if c.state.Approval.Withdraw(result, words) {
		c.tellClock(ctx, campaign.Decided{Closed: true})
	}
}

// dropOutdated ends the amendment that waits for its approval, signed or not, when
// another plan has come in force than it was made from.
func (c *entity) dropOutdated(ctx workflow.Context) {
	// Campaigns that accepted a review before this rule kept the amendment.
	if c.state.Pending == nil || workflow.GetVersion(ctx, "outdated-amendment", workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return
	}
	c.endApproval(ctx, campaign.ApprovalOutdated, "another plan came in force")
	c.state.Approval.Result = campaign.ApprovalOutdated // also when it was signed already
	c.changed(ctx, "campaign.amendment_outdated", campaign.Actor{})
}

// changeHold sets the flag that every intent transaction checks, so that it takes
// effect at once, and then tells the waves.
func (c *entity) changeHold(ctx workflow.Context, in campaign.ChangeHold, a campaign.Action, hold campaign.Hold) error {
	if err := c.verify(ctx, in.Command, a, in.Reason); err != nil {
		return err
	}
	return c.setHold(ctx, hold, in.Reason, in.Actor)
}

func (c *entity) setHold(ctx workflow.Context, hold campaign.Hold, reason string, by campaign.Actor) error {
	err := act(action(ctx), campaign.ActivitySetHold, campaign.SetHold{
		CampaignID: c.state.CampaignID, Hold: hold, Reason: reason, Actor: by,
	})
	if err != nil {
		return err
	}
	c.state.Hold = hold
	c.tellWaves(ctx, hold)
	return nil
}

func (c *entity) checkReview(in campaign.RecordReview) error {
	r := c.review(in.Review)
	switch {
	case r == nil:
		return campaign.Errorf(campaign.CodeNotFound, "this campaign has no review %d", in.Review)
	case !r.Open:
		return conflict("review %d is not waiting for a decision", in.Review)
	}
	switch in.Decision {
	case campaign.ReviewAccept, campaign.ReviewKeep:
	case campaign.ReviewStop:
		if strings.TrimSpace(in.Words) == "" {
			return campaign.Errorf(campaign.CodeReasonRequired, "say why the campaign is to stop")
		}
	default:
		return campaign.Errorf(campaign.CodeInvalidParameter, "decision must be accept, keep or stop")
	}
	return nil
}

func (c *entity) decideReview(ctx workflow.Context, in campaign.RecordReview) (string, error) {
	if err := c.verify(ctx, in.Command, campaign.ActReviewDecide, in.Words); err != nil {
		return "", err
	}
	switch in.Decision {
	case campaign.ReviewAccept:
		if err := c.adoptRecommendation(ctx, in.Review, in.Actor); err != nil {
			return "", err
		}
	case campaign.ReviewStop:
		if err := c.setHold(ctx, campaign.HoldStopped, in.Words, in.Actor); err != nil {
			return "", err
		}
		c.markStopped(ctx, in.Words)
	}
	r := c.review(in.Review)
	r.Open, r.Decision = false, in.Decision
	c.recordReview(ctx, campaign.ReviewOutcome{Review: in.Review, Decision: in.Decision, Words: in.Words, Actor: in.Actor, Command: &in})
	c.tellReview(ctx, in.Review)
	return "review." + string(in.Decision), nil
}
