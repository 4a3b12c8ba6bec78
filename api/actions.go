package api

import (
	"fmt"
	"slices"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// offered lists the actions that a campaign's page offers, in this order.
func offered() []campaign.Action {
	all := []campaign.Action{
		campaign.ActCampaignEdit, campaign.ActCampaignSubmit, campaign.ActCampaignWithdraw, campaign.ActCampaignAmend, campaign.ActCampaignPause,
		campaign.ActCampaignResume, campaign.ActCampaignStop,
	}
	return append(append(all, campaign.SigningActions()...), campaign.ActReviewDecide, campaign.ActAuditReplay)
}

// actions says what a user may do to a campaign now. It is for show: the workflow
// decides when the action is really asked for.
func (s *Server) actions(u store.User, lent []campaign.Delegation, c store.Campaign) []AllowedAction {
	all := []AllowedAction{}
	for _, act := range offered() {
		a := AllowedAction{ID: act, Allowed: true}
		if err := s.allowed(u, lent, c, act); err != nil {
			a.Allowed, a.Reason = false, asError(err).Message
		}
		all = append(all, a)
	}
	return all
}

// allowed says why a user may not do an action to a campaign now, nil when they may.
func (s *Server) allowed(u store.User, lent []campaign.Delegation, c store.Campaign, act campaign.Action) error {
	if slices.Contains(campaign.SigningActions(), act) {
		return s.maySignBy(u, lent, c, act)
	}
	if _, err := s.policies.Require(u.ID, act, c.Unit, 0); err != nil {
		return err
	}
	if ok, why := stageAllows(act, c); !ok {
		return campaign.Errorf(campaign.CodeStateConflict, "%s", why)
	}
	return nil
}

// maySignBy says why a user may sign no waiting level by an action, nil when they may
// sign one, in their own name or in that of somebody who lent them the authority.
func (s *Server) maySignBy(u store.User, lent []campaign.Delegation, c store.Campaign, act campaign.Action) error {
	levels := signs(c, act)
	if len(levels) == 0 {
		if _, err := s.policies.Require(u.ID, act, c.Unit, 0); err != nil {
			return err
		}
		return campaign.Errorf(campaign.CodeStateConflict, "no approval waits for this signature")
	}
	var refusal error
	for _, level := range levels {
		own := s.maySign(u, lent, c, level, "")
		if own == nil {
			return nil
		}
		if refusal == nil {
			refusal = own
		}
		for _, p := range delegators(lent) {
			if s.maySign(u, lent, c, level, p.ID) == nil {
				return nil
			}
		}
	}
	return refusal
}

// stageAllows reports whether a campaign's stage admits an action, and if not, why.
func stageAllows(act campaign.Action, c store.Campaign) (ok bool, why string) {
	inFlight := slices.Contains([]campaign.Stage{campaign.StagePreparation, campaign.StageTargeting, campaign.StageRunning}, c.Stage)
	approving := c.Status.Approval.Open()
	switch act {
	case campaign.ActCampaignEdit, campaign.ActCampaignSubmit:
		ok, why = c.Stage == campaign.StageDraft, "only a draft can be edited and submitted"
	case campaign.ActCampaignAmend:
		ok, why = inFlight && c.Hold != campaign.HoldStopped, "only an approved campaign that has not ended can be amended"
		if ok && approving {
			ok, why = false, "another amendment waits for its approval"
		}
	case campaign.ActCampaignWithdraw:
		ok, why = approving, "no approval is waiting that could be withdrawn"
	case campaign.ActCampaignPause:
		ok, why = inFlight && c.Hold == campaign.HoldNone, "only an approved campaign that goes on can be paused"
	case campaign.ActCampaignResume:
		ok = !c.Stage.Final() && (c.Hold == campaign.HoldPaused || c.Status.Problem != "")
		why = "only a campaign that is paused or has a problem can be resumed"
	case campaign.ActCampaignStop:
		ok = c.Hold != campaign.HoldStopped && (inFlight || c.Stage == campaign.StageDraft || c.Stage == campaign.StageApproval)
		why = "the campaign has ended or is ending"
	case campaign.ActReviewDecide:
		ok = slices.ContainsFunc(c.Status.Reviews, func(r campaign.ReviewRun) bool { return r.Open })
		why = "no review waits for a decision"
	case campaign.ActAuditReplay:
		ok, why = c.ArchiveRuns > 0, "histories are archived when the campaign is closed"
	}
	if ok {
		return true, ""
	}
	return false, fmt.Sprintf("the campaign is in %s: %s", c.Stage, why)
}
