package api

import (
	"context"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// inboxSize is the most waiting decisions that are looked at for one inbox.
const inboxSize = 500

// ListApprovals implements the operation: only what the caller may decide.
func (s *Server) ListApprovals(ctx context.Context, _ ListApprovalsRequestObject) (ListApprovalsResponseObject, error) {
	r := requestOf(ctx)
	lent, err := s.lent(ctx, r.user.ID)
	if err != nil {
		return nil, err
	}
	waiting, err := s.store.WaitingFor(ctx, campaign.SigningActions(), r.units, inboxSize)
	if err != nil {
		return nil, err
	}
	inbox := ApprovalInbox{Items: []WaitingApproval{}}
	for _, c := range waiting {
		approval := c.Status.Approval
		if !approval.Open() {
			continue
		}
		for _, w := range approval.Waiting {
			// In their own name if they may, otherwise for the first who lent them authority.
			for _, who := range append([]Person{{}}, delegators(lent)...) {
				if s.maySign(r.user, lent, c, w.Level, who.ID) == nil {
					inbox.Items = append(inbox.Items, WaitingApproval{Campaign: summary(c), Approval: *approval, Level: approval.Route[w.Level-1], ActingFor: who})
					break
				}
			}
		}
	}
	return ListApprovals200JSONResponse(inbox), nil
}

// GetApproval implements the operation.
func (s *Server) GetApproval(ctx context.Context, in GetApprovalRequestObject) (GetApprovalResponseObject, error) {
	c := requestOf(ctx).campaign
	detail := ApprovalDetail{Approval: c.Status.Approval, SignOffs: []SignOff{}}
	if a := c.Status.Approval; a.Open() {
		for _, w := range a.Waiting {
			detail.Waiting = append(detail.Waiting, a.Route[w.Level-1])
		}
	}
	all, err := s.store.SignOffs(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	for _, o := range all {
		detail.SignOffs = append(detail.SignOffs, SignOff{
			ID: o.ID, Revision: o.Revision, Digest: o.Digest, Level: o.Level, User: person(o.UserID, o.User), Role: string(o.Role), Unit: o.Unit,
			Amount: o.Amount, Authority: o.Authority, PolicyVersion: o.PolicyVersion, Kind: o.Party, ActingFor: deref(o.ActingFor),
			Decision: o.Decision, Words: o.Words, Fields: o.Fields, At: o.At, Counted: o.Counted,
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
		Fields: b.Fields, ActingFor: b.ActingFor,
	}
	lent, err := s.lent(ctx, r.user.ID)
	if err != nil {
		return nil, err
	}
	if approval != nil && b.Level <= len(approval.Route) {
		r.action = approval.Route[b.Level-1].Action
	}
	by, err := s.capacityOf(r.user.ID, lent, c, b.Level, b.ActingFor)
	if err != nil {
		return nil, s.refuse(ctx, r, c.ID, err)
	}
	if err := approval.Check(d); err != nil {
		return s.decidedBefore(ctx, r, *b, err)
	}
	level := approval.Route[b.Level-1]
	o := store.SignOff{
		ID: d.SignOffID, CampaignID: c.ID, Revision: d.Revision, Round: approval.Round, Digest: d.Digest, Level: d.Level, Party: string(level.Kind),
		UserID: r.user.ID, Role: by.Role, Unit: by.Unit, Amount: approval.AmountOf(level), Authority: by.Limit, PolicyVersion: d.PolicyVersion,
		Decision: d.Decision, Words: d.Words, Fields: d.Fields,
	}
	if by.delegation != nil {
		d.DelegationID = by.delegation.ID
		o.ActingFor, o.DelegationID = &d.ActingFor, &d.DelegationID
	}
	err = s.recordSignOff(ctx, c, o)
	if err != nil {
		return nil, err
	}
	status, err := s.ask(ctx, r, campaign.UpdateDecide, &d)
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
