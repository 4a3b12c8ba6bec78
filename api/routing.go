package api

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/routing"
)

// PreviewRoute implements the operation: what a submission by the caller would freeze.
func (s *Server) PreviewRoute(ctx context.Context, in PreviewRouteRequestObject) (PreviewRouteResponseObject, error) {
	r := requestOf(ctx)
	path, err := routing.Router{Store: s.store, Policies: s.policies}.Route(ctx, campaign.RouteRequest{
		PlanRef: campaign.PlanRef{CampaignID: in.ID, Revision: r.campaign.DraftRevision}, Requester: r.user.ID,
	})
	if err != nil {
		return nil, err
	}
	facts := path.Facts
	counted, err := facts.Counted()
	if err != nil {
		return nil, err
	}
	out := RoutePreview{
		Revision: path.Revision, Digest: path.Digest, Rule: path.Rule, Amount: facts.Amount, Credit: facts.Credit, Counted: counted,
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
	names, err := s.store.ActiveNames(ctx)
	if err != nil {
		return nil, err
	}
	// What a draft's editors may not sign is found out when it is submitted.
	authors := map[string]bool{}
	if a := r.campaign.Status.Approval; a.Open() {
		if authors, err = s.store.Authors(ctx, r.campaign.ID, a.Revision); err != nil {
			return nil, err
		}
	}
	list := AuthorityList{Items: []Authority{}}
	for _, act := range offered() {
		item := Authority{ID: act, Levels: signs(r.campaign, act), Who: []Person{}}
		refusal := s.allowed(r.user, lent, r.campaign, act)
		if refusal == nil && len(item.Levels) > 0 && authors[r.user.ID] {
			refusal = campaign.Errorf(campaign.CodeSelfApproval, "nobody signs a campaign they submitted or edited themselves")
		}
		if refusal != nil {
			e := asError(refusal)
			item.Code, item.Reason = string(e.Code), e.Message
		}
		item.Allowed = refusal == nil
		for id, name := range names {
			u := r.user
			u.ID, u.Name = id, name
			if (len(item.Levels) == 0 || !authors[id]) && s.allowed(u, nil, r.campaign, act) == nil {
				item.Who = append(item.Who, Person{ID: id, Name: name})
			}
		}
		slices.SortFunc(item.Who, func(a, b Person) int { return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID)) })
		list.Items = append(list.Items, item)
	}
	return GetAuthority200JSONResponse(list), nil
}
