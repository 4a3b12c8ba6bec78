package activities

import (
	"context"
	"time"

	"github.com/musterhq/muster/assertion"
	"github.com/musterhq/muster/audit"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// enter makes sure that a programme pays for a plan now: its budget stands on genuine
// signatures, and it takes in campaigns like this one today. A plan that asks for nothing
// more than before is paid for already, whatever became of the programme since.
func (a *Activities) enter(ctx context.Context, in campaign.PlanRef, plan campaign.Plan) error {
	if plan.ProgrammeID == "" {
		return nil
	}
	wanted, _, err := a.Store.Unreserved(ctx, in.CampaignID, &plan)
	if err != nil || wanted == 0 {
		return err
	}
	p, err := a.Store.ProgrammeOf(ctx, &plan)
	if err != nil {
		return err
	}
	if err := p.Admits(&plan, campaign.DateOf(time.Now().UTC())); err != nil {
		return err
	}
	return a.signedProgramme(p)
}

// signedProgramme verifies that every decision about a programme is what the API signed,
// and that together they approve the terms as they are stored.
func (a *Activities) signedProgramme(p store.Programme) error {
	for _, o := range p.SignOffs {
		claims, err := assertion.VerifyBy[assertion.ProgrammeSignOff](a.Keys, o.Assertion, o.At)
		if err != nil {
			return err
		}
		want, err := audit.ProgrammeClaims(o, p.Unit)
		if err != nil {
			return err
		}
		if err := assertion.Matches(claims, want); err != nil {
			return err
		}
	}
	round, err := p.Round()
	if err != nil {
		return err
	}
	if round.Result != campaign.ApprovalApproved {
		return campaign.Errorf(campaign.CodeAssertionMismatch, "the signatures of programme %d do not approve it", p.Number)
	}
	return nil
}

// handBack passes on to the tenant what a campaign returned to a programme that is closed by
// now: nothing else could use it.
func (a *Activities) handBack(ctx context.Context, campaignID string) error {
	programme, err := a.Store.ClosedProgramme(ctx, campaignID)
	if err != nil || programme == "" {
		return err
	}
	_, err = a.Ledger.By("", "a campaign of the closed programme has ended").Drain(ctx, programme)
	return err
}
