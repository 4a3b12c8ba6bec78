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
	ids := make([]string, len(waiting))
	for i, c := range waiting {
		ids[i] = c.ID
	}
	authors, err := s.store.WaitingAuthors(ctx, ids)
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
			if who, err := s.signer(r.user, lent, authors[c.ID], c, w.Level); err == nil {
				inbox.Items = append(inbox.Items, WaitingApproval{Campaign: summary(c), Approval: *approval, Level: approval.Route[w.Level-1], ActingFor: who})
			}
		}
	}
	return ListApprovals200JSONResponse(inbox), nil
}

// GetApproval implements the operation.
func (s *Server) GetApproval(ctx context.Context, in GetApprovalRequestObject) (GetApprovalResponseObject, error) {
	c := requestOf(ctx).campaign
	detail := ApprovalDetail{Approval: c.Status.Approval, SignOffs: []SignOff{}}
	if a := c.Status.Approval; a != nil {
		var err error
		if _, detail.Difference, err = s.difference(ctx, c, a.Revision, 0); err != nil {
			return nil, err
		}
	}
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
			ID: o.ID, Revision: o.Revision, Round: o.Round, Digest: o.Digest, Level: o.Level, User: person(o.UserID, o.User), Role: string(o.Role), Unit: o.Unit,
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
	authors, err := s.store.Authors(ctx, c.ID, b.Revision)
	if err != nil {
		return nil, err
	}
	by, err := s.maySign(r.user, lent, authors, c, b.Level, b.ActingFor)
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
	if err := s.recordSignOff(ctx, c, o); err != nil {
		return nil, s.refuse(ctx, r, c.ID, err)
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
	approval := r.campaign.Status.Approval
	if approval == nil {
		return nil, s.refuse(ctx, r, r.campaign.ID, refusal)
	}
	id, err := s.store.CountedSignOff(ctx, r.campaign.ID, r.user.ID, approval.Round, d.Revision, d.Level, d.Decision)
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

// GetDifference implements the operation.
func (s *Server) GetDifference(ctx context.Context, in GetDifferenceRequestObject) (GetDifferenceResponseObject, error) {
	from, changes, err := s.difference(ctx, requestOf(ctx).campaign, in.Revision, in.Params.From)
	if err != nil {
		return nil, err
	}
	return GetDifference200JSONResponse{From: from, Revision: in.Revision, Changes: changes}, nil
}

// difference lists what a revision has otherwise than another, 0 for the one that it was
// made from or, for a draft, the one before. The first has none before it: it is all new,
// and the list is empty.
func (s *Server) difference(ctx context.Context, c store.Campaign, revision, from int) (int, []campaign.Change, error) {
	changes := []campaign.Change{}
	next, err := s.store.LoadPlan(ctx, campaign.PlanRef{CampaignID: c.ID, Revision: revision})
	if err != nil {
		return 0, nil, err
	}
	if from == 0 {
		if from = next.Base; from == 0 {
			from = revision - 1
		}
	}
	if from == 0 {
		return 0, changes, nil
	}
	now, err := s.store.LoadPlan(ctx, campaign.PlanRef{CampaignID: c.ID, Revision: from})
	if err != nil {
		return 0, nil, err
	}
	found, err := campaign.Difference(&now.Plan, &next.Plan)
	return from, append(changes, found...), err
}
