package api

import (
	"fmt"
	"slices"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// offered are the actions that a campaign's page offers, in this order.
var offered = []campaign.Action{
	campaign.ActCampaignEdit, campaign.ActCampaignSubmit, campaign.ActCampaignAmend, campaign.ActCampaignPause, campaign.ActCampaignResume,
	campaign.ActCampaignStop, campaign.ActApprovalManager, campaign.ActApprovalFinance, campaign.ActReviewDecide, campaign.ActAuditReplay,
}

// actions says what a user may do to a campaign now. It is for show: the workflow
// decides when the action is really asked for.
func (s *Server) actions(u store.User, c store.Campaign) []AllowedAction {
	all := []AllowedAction{}
	for _, act := range offered {
		a := AllowedAction{ID: act}
		if _, err := s.policies.Require(u.ID, act, c.Unit, 0); err != nil {
			a.Reason = asError(err).Message
		} else if act == campaign.ActApprovalManager || act == campaign.ActApprovalFinance {
			if err := s.maySign(u, c, act); err != nil {
				a.Reason = asError(err).Message
			}
		} else if ok, why := stageAllows(act, c); !ok {
			a.Reason = why
		}
		a.Allowed = a.Reason == ""
		all = append(all, a)
	}
	return all
}

// maySign says why a user may not sign at the waiting level by that action, nil when
// they may.
func (s *Server) maySign(u store.User, c store.Campaign, act campaign.Action) error {
	level, open := c.Status.Approval.Current()
	if !open || act != level.Action && (!c.Status.Approval.Escalated || act != level.EscalateTo) {
		return campaign.Errorf(campaign.CodeStateConflict, "no approval waits for this signature")
	}
	err := c.Status.Approval.Check(campaign.Decide{
		Command: campaign.Command{Actor: u.Actor()}, Revision: c.Status.Approval.Revision, Digest: c.Status.Approval.Digest,
		Level: level.Level, Decision: campaign.DecisionApprove,
	})
	if err != nil {
		return err
	}
	_, err = s.policies.Require(u.ID, act, c.Unit, c.Status.Approval.Amount)
	return err
}

// stageAllows reports whether a campaign's stage admits an action, and if not, why.
func stageAllows(act campaign.Action, c store.Campaign) (ok bool, why string) {
	inFlight := slices.Contains([]campaign.Stage{campaign.StagePreparation, campaign.StageTargeting, campaign.StageRunning}, c.Stage)
	_, approving := c.Status.Approval.Current()
	switch act {
	case campaign.ActCampaignEdit, campaign.ActCampaignSubmit:
		ok, why = c.Stage == campaign.StageDraft, "only a draft can be edited and submitted"
	case campaign.ActCampaignAmend:
		ok, why = inFlight && c.Hold != campaign.HoldStopped, "only an approved campaign that has not ended can be amended"
		if ok && approving {
			ok, why = false, "another amendment waits for its approval"
		}
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
