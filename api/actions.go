package api

import (
	"slices"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// offered lists the actions that a campaign's page offers, in this order.
func offered() []campaign.Action {
	all := []campaign.Action{
		campaign.ActCampaignEdit, campaign.ActCampaignSubmit, campaign.ActCampaignWithdraw, campaign.ActCampaignAmend, campaign.ActCampaignPause,
		campaign.ActCampaignResume, campaign.ActCampaignStop, campaign.ActBudgetDraw,
	}
	return append(append(all, campaign.SigningActions()...), campaign.ActReviewDecide, campaign.ActAuditReplay)
}

// actions says what a user may do to a campaign now. It is for show: the workflow
// decides when the action is really asked for.
func (s *Server) actions(u store.User, lent []campaign.Delegation, authors map[string]bool, c store.Campaign) []AllowedAction {
	all := []AllowedAction{}
	for _, act := range offered() {
		a := AllowedAction{ID: act, Allowed: true}
		if err := s.allowed(u, lent, authors, c, act); err != nil {
			a.Allowed, a.Reason = false, asError(err).Message
		}
		all = append(all, a)
	}
	return all
}

// allowed says why a user may not do an action to a campaign now, nil when they may.
func (s *Server) allowed(u store.User, lent []campaign.Delegation, authors map[string]bool, c store.Campaign, act campaign.Action) error {
	if slices.Contains(campaign.SigningActions(), act) {
		return s.maySignBy(u, lent, authors, c, act)
	}
	if _, err := s.policies.Require(u.ID, act, c.Unit, 0); err != nil {
		return err
	}
	if act == campaign.ActBudgetDraw && authors[u.ID] {
		return campaign.Errorf(campaign.CodeSelfApproval, "nobody gives money to a campaign that they submitted or edited themselves")
	}
	return admits(c, act)
}

// maySignBy says why a user may sign no waiting level by an action, nil when they may
// sign one, in their own name or in that of somebody who lent them the authority.
func (s *Server) maySignBy(u store.User, lent []campaign.Delegation, authors map[string]bool, c store.Campaign, act campaign.Action) error {
	levels := signs(c, act)
	if len(levels) == 0 {
		if _, err := s.policies.Require(u.ID, act, c.Unit, 0); err != nil {
			return err
		}
		return campaign.Errorf(campaign.CodeStateConflict, "no approval waits for this signature")
	}
	var refusal error
	for _, level := range levels {
		_, own := s.signer(u, lent, authors, c, level)
		if own == nil {
			return nil
		}
		if refusal == nil {
			refusal = own
		}
	}
	return refusal
}

// admits says why a campaign does not take an action now, nil when it does.
func admits(c store.Campaign, act campaign.Action) error {
	if act == campaign.ActAuditReplay && c.ArchiveRuns == 0 {
		return campaign.Errorf(campaign.CodeStateConflict, "the campaign is in %s: histories are archived when the campaign is closed", c.Stage)
	}
	now := c.Status
	now.Stage, now.Hold = c.Stage, c.Hold // the hold takes effect before the status shows it
	return now.Admits(act)
}
