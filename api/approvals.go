package api

import (
	"context"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/policies"
	"github.com/musterhq/muster/store"
)

// signing are the actions that sign an approval level.
var signing = []campaign.Action{campaign.ActApprovalManager, campaign.ActApprovalFinance}

// inboxSize is the most waiting decisions that are looked at for one inbox.
const inboxSize = 500

// ListApprovals implements the operation: only what the caller may decide.
func (s *Server) ListApprovals(ctx context.Context, _ ListApprovalsRequestObject) (ListApprovalsResponseObject, error) {
	r := requestOf(ctx)
	waiting, err := s.store.WaitingFor(ctx, signing, r.units, inboxSize)
	if err != nil {
		return nil, err
	}
	inbox := ApprovalInbox{Items: []WaitingApproval{}}
	for _, c := range waiting {
		for _, act := range signing {
			if s.maySign(r.user, c, act) == nil {
				level, _ := c.Status.Approval.Current()
				inbox.Items = append(inbox.Items, WaitingApproval{Campaign: summary(c), Approval: *c.Status.Approval, Level: level})
				break
			}
		}
	}
	return ListApprovals200JSONResponse(inbox), nil
}

// GetApproval implements the operation.
func (s *Server) GetApproval(ctx context.Context, in GetApprovalRequestObject) (GetApprovalResponseObject, error) {
	c := requestOf(ctx).campaign
	detail := ApprovalDetail{Approval: c.Status.Approval, SignOffs: []SignOff{}}
	if level, open := c.Status.Approval.Current(); open {
		detail.Waiting = &level
	}
	all, err := s.store.SignOffs(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	for _, o := range all {
		detail.SignOffs = append(detail.SignOffs, SignOff{
			ID: o.ID, Revision: o.Revision, Digest: o.Digest, Level: o.Level, User: person(o.UserID, o.User), Role: string(o.Role), Unit: o.Unit,
			Amount: o.Amount, Authority: o.Authority, PolicyVersion: o.PolicyVersion, Decision: o.Decision, Words: o.Words, At: o.At, Counted: o.Counted,
		})
	}
	return GetApproval200JSONResponse(detail), nil
}

// DecideApproval implements the operation: the decision becomes an append-only row
// with the authority it was made by, and the campaign's workflow is told to count it.
func (s *Server) DecideApproval(ctx context.Context, in DecideApprovalRequestObject) (DecideApprovalResponseObject, error) {
	r := requestOf(ctx)
	c, b := r.campaign, in.Body
	approval := c.Status.Approval
	r.command = campaign.UpdateDecide
	d := campaign.Decide{
		Command: s.command(r), SignOffID: r.resultID, Revision: b.Revision, Digest: b.Digest, Level: b.Level, Decision: b.Decision, Words: b.Words,
	}
	authority, err := s.signingAuthority(r, c, b.Level)
	if err != nil {
		return nil, s.refuse(ctx, r, c.ID, err)
	}
	if err := approval.Check(d); err != nil {
		return s.decidedBefore(ctx, r, *b, err)
	}
	err = s.store.RecordSignOff(ctx, store.SignOff{
		ID: d.SignOffID, CampaignID: c.ID, Revision: d.Revision, Round: approval.Round, Digest: d.Digest, Level: d.Level, UserID: r.user.ID,
		Role: authority.Role, Unit: authority.Unit, Amount: approval.Amount, Authority: authority.Limit, PolicyVersion: d.PolicyVersion,
		Decision: d.Decision, Words: d.Words,
	})
	if err != nil {
		return nil, err
	}
	status, err := s.ask(ctx, r, campaign.UpdateDecide, d)
	if err != nil {
		return s.decidedBefore(ctx, r, *b, err)
	}
	return DecideApproval200JSONResponse{CampaignID: c.ID, SignOffID: d.SignOffID, Status: status}, nil
}

// decidedBefore answers a decision that was refused because the same person's same
// decision counted already, as a second click does, with that one. Any other refusal is
// recorded and stands.
func (s *Server) decidedBefore(ctx context.Context, r *request, d NewDecision, refusal error) (DecideApprovalResponseObject, error) {
	switch campaign.CodeOf(refusal) {
	case campaign.CodeSameActor, campaign.CodeStateConflict:
	default:
		return nil, s.refuse(ctx, r, r.campaign.ID, refusal)
	}
	id, err := s.store.CountedSignOff(ctx, r.campaign.ID, r.user.ID, d.Revision, d.Level, d.Decision)
	if err != nil {
		return nil, err
	}
	if id == "" {
		return nil, s.refuse(ctx, r, r.campaign.ID, refusal)
	}
	now, err := s.store.Campaign(ctx, r.campaign.ID)
	if err != nil {
		return nil, err
	}
	return DecideApproval200JSONResponse{CampaignID: now.ID, SignOffID: id, Status: now.Status}, nil
}

// signingAuthority returns the authority by which the caller may sign a level: that of
// its own action, or once it is escalated, of the action it is escalated to.
func (s *Server) signingAuthority(r *request, c store.Campaign, level int) (policies.Authority, error) {
	approval := c.Status.Approval
	if approval == nil || level > len(approval.Route) {
		return policies.Authority{}, campaign.Errorf(campaign.CodeStateConflict, "no approval of level %d is waiting for a decision", level)
	}
	wanted := approval.Route[level-1]
	r.action = wanted.Action
	authority, err := s.policies.Require(r.user.ID, wanted.Action, c.Unit, approval.Amount)
	if err != nil && wanted.EscalateTo != "" && approval.Escalated && level == approval.Level {
		if other, escalatedErr := s.policies.Require(r.user.ID, wanted.EscalateTo, c.Unit, approval.Amount); escalatedErr == nil {
			return other, nil
		}
	}
	return authority, err
}
