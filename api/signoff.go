package api

import (
	"context"
	"time"

	"github.com/musterhq/muster/assertion"
	"github.com/musterhq/muster/audit"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// recordSignOff completes a decision with what it is about, part by part, signs it and
// writes it. From then on the row proves by itself who decided what.
func (s *Server) recordSignOff(ctx context.Context, c store.Campaign, o store.SignOff) error {
	authTime := requestOf(ctx).authTime
	if authTime.Unix() <= 0 {
		return campaign.Errorf(campaign.CodeUnauthenticated, "log in: a person decides, and this session does not say when you proved who you are")
	}
	plan, err := s.store.LoadPlan(ctx, campaign.PlanRef{CampaignID: c.ID, Revision: o.Revision})
	if err != nil {
		return err
	}
	if plan.Digest != o.Digest {
		return campaign.Errorf(campaign.CodeVersionChanged, "revision %d is not the plan with that digest; read it again", o.Revision)
	}
	approval := c.Status.Approval
	digests, err := plan.Plan.Digests().Selecting(approval.Audience, approval.Uses)
	if err != nil {
		return err
	}
	o.ContentDigest, o.AudienceDigest, o.BudgetDigest, o.Currency = digests.Content, digests.Audience, digests.Budget, plan.Plan.Currency
	if o.RouteDigest, err = campaign.DigestOf(approval.Route); err != nil {
		return err
	}
	o.AuthTime, o.IssuedAt = authTime.UTC().Truncate(time.Second), time.Now().UTC().Truncate(time.Second)
	claims, err := audit.SignOffClaims(o, c.Unit)
	if err != nil {
		return err
	}
	ring := s.keys.Ring()
	if o.Assertion, err = assertion.Sign(ring, claims); err != nil {
		return err
	}
	o.KeyID = ring.SignerID(o.IssuedAt)
	return s.store.RecordSignOff(ctx, o)
}
