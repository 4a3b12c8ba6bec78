package api

import (
	"context"
	"time"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/routing"
	"github.com/musterhq/muster/store"
)

// PreviewRoute implements the operation: what a submission or an amendment by the caller
// would freeze.
func (s *Server) PreviewRoute(ctx context.Context, in PreviewRouteRequestObject) (PreviewRouteResponseObject, error) {
	r := requestOf(ctx)
	leave, err := s.previews.turn(r.user.ID)
	if err != nil {
		return nil, err
	}
	defer leave()
	c := r.campaign
	of := campaign.RouteRequest{PlanRef: campaign.PlanRef{CampaignID: in.ID, Revision: c.DraftRevision}, Requester: r.user.ID}
	router := routing.Router{Store: s.store, Policies: s.policies}
	var path routing.Path
	switch approval := c.Status.Approval; {
	case in.Body != nil:
		if err := s.checkSuccessor(ctx, c, in.Body.Plan); err != nil {
			return nil, inPlan(err)
		}
		of.Revision++
		planned := campaign.LoadedPlan{Revision: of.Revision, Digest: in.Body.Plan.Digest(), EditorID: r.user.ID, Plan: in.Body.Plan}
		if c.Stage.InFlight() {
			planned.Base = c.Revision
		}
		path, err = router.RoutePlan(ctx, of, planned)
	case c.Stage == campaign.StageDraft:
		path, err = router.Route(ctx, of)
	case approval.Open():
		of.Revision, of.Requester = approval.Revision, approval.Requester
		path, err = router.Route(ctx, of)
	default:
		err = campaign.Errorf(campaign.CodeStateConflict, "the campaign is in %s and has no draft: send the plan that it is to be amended to", c.Stage)
	}
	if err != nil {
		return nil, err
	}
	facts := path.Facts
	counted, err := facts.Counted()
	if err != nil {
		return nil, err
	}
	out := RoutePreview{
		Revision: path.Revision, Digest: path.Digest, Rule: path.Rule, Amount: facts.Amount, Base: facts.Base, Total: facts.Total, Credit: facts.Credit, Counted: counted,
		Together: facts.Together, Audience: facts.Audience, Levels: []PreviewedLevel{}, PolicyVersion: path.PolicyVersion,
	}
	if path.Calendar != nil {
		out.Calendar = path.Calendar.Name
	}
	round := campaign.Approval{Amount: facts.Amount, Credit: facts.Credit}
	due := routing.Due(path.Routed, time.Now())
	for i, l := range path.Route {
		level := PreviewedLevel{Level: l, Amount: round.AmountOf(l), Signers: []Person{}, DueAt: due[i]}
		for _, p := range path.Signers[i] {
			level.Signers = append(level.Signers, Person{ID: p.UserID, Name: p.Name})
		}
		out.Levels = append(out.Levels, level)
	}
	return PreviewRoute200JSONResponse(out), nil
}

// WithdrawCampaign implements the operation.
func (s *Server) WithdrawCampaign(ctx context.Context, in WithdrawCampaignRequestObject) (WithdrawCampaignResponseObject, error) {
	r := requestOf(ctx)
	status, err := s.update(ctx, r, campaign.UpdateWithdraw, &campaign.Withdraw{Command: s.command(r), Words: in.Body.Words})
	if err != nil {
		return nil, err
	}
	return WithdrawCampaign200JSONResponse{CampaignID: in.ID, Status: status}, nil
}

// GetAuthority implements the operation.
func (s *Server) GetAuthority(ctx context.Context, _ GetAuthorityRequestObject) (GetAuthorityResponseObject, error) {
	r := requestOf(ctx)
	lent, err := s.lent(ctx, r.user.ID)
	if err != nil {
		return nil, err
	}
	authors, err := s.waitingAuthors(ctx, r.campaign)
	if err != nil {
		return nil, err
	}
	people, err := s.store.PeopleAt(ctx, r.campaign.Unit)
	if err != nil {
		return nil, err
	}
	list := AuthorityList{Items: []Authority{}}
	for _, act := range offered() {
		item := Authority{ID: act, Levels: signs(r.campaign, act), Who: []Person{}}
		refusal := s.allowed(r.user, lent, authors, r.campaign, act)
		if refusal != nil {
			e := asError(refusal)
			item.Code, item.Reason = string(e.Code), e.Message
		}
		item.Allowed = refusal == nil
		for _, u := range people {
			if s.allowed(u, nil, authors, r.campaign, act) == nil {
				item.Who = append(item.Who, Person{ID: u.ID, Name: u.Name})
			}
		}
		list.Items = append(list.Items, item)
	}
	return GetAuthority200JSONResponse(list), nil
}

// waitingAuthors returns who may not sign what a campaign has waiting for its approval, nor
// give it money while it runs. Whom a draft's authors are is asked when it is submitted.
func (s *Server) waitingAuthors(ctx context.Context, c store.Campaign) (map[string]bool, error) {
	switch {
	case c.Status.Approval.Open():
		return s.store.Authors(ctx, c.ID, c.Status.Approval.Revision)
	case c.Stage == campaign.StageRunning:
		return s.store.Authors(ctx, c.ID, c.DraftRevision)
	}
	return nil, nil
}
