package activities

import (
	"context"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// Verify checks the authority behind an update again, with the grants of this moment,
// where it takes effect. Both answers are recorded.
func (a *Activities) Verify(ctx context.Context, in campaign.Claim) error {
	owner, err := a.Store.CampaignOwner(ctx, in.CampaignID)
	if err == nil {
		err = a.require(ctx, in.Actor.UserID, in.Action, owner.Unit, in.Amount)
	}
	return a.record(ctx, store.CampaignEvent(in.CampaignID, callKey(ctx), "authority."+string(in.Action), in.Actor,
		map[string]any{"amount": in.Amount, "reason": in.Reason, "policy_version": a.Policies.Version()}), err)
}

// CountSignOff verifies a sign-off against its row, the plan, the policies and the
// separation of duties, and counts it once. A refusal is recorded.
func (a *Activities) CountSignOff(ctx context.Context, in campaign.SignOffClaim) error {
	err := a.Store.CountSignOff(ctx, in, func(unit campaign.OrgUnit) error {
		err := a.require(ctx, in.Decide.Actor.UserID, in.Level.Action, unit, in.Amount)
		if campaign.CodeOf(err) == campaign.CodeForbidden && in.Escalated && in.Level.EscalateTo != "" {
			return a.require(ctx, in.Decide.Actor.UserID, in.Level.EscalateTo, unit, in.Amount)
		}
		return err
	})
	return a.record(ctx, store.CampaignEvent(in.CampaignID, "sign_off:"+in.Decide.SignOffID+":"+callKey(ctx), "sign_off."+string(in.Decide.Decision),
		in.Decide.Actor, map[string]any{
			"sign_off": in.Decide.SignOffID, "revision": in.Decide.Revision, "digest": in.Decide.Digest, "level": in.Decide.Level,
			"amount": in.Amount, "policy_version": a.Policies.Version(),
		}), err)
}

// require asks the policies, with grants read now, whether a user who is not disabled
// may do an action.
func (a *Activities) require(ctx context.Context, userID string, act campaign.Action, unit campaign.OrgUnit, amount int64) error {
	if err := a.Policies.Reload(ctx); err != nil {
		return err
	}
	active, err := a.Store.ActiveUsers(ctx)
	if err != nil {
		return err
	}
	if !active[userID] {
		return campaign.Errorf(campaign.CodeForbidden, "the user is unknown or disabled")
	}
	_, err = a.Policies.Require(userID, act, unit, amount)
	return err
}

// record writes e with what became of it. A rule's refusal is evidence like a consent;
// a fault is none, for it will be tried again.
func (a *Activities) record(ctx context.Context, e store.AuditEvent, refusal error) error {
	if refusal != nil {
		code := campaign.CodeOf(refusal)
		if code == campaign.CodeInternal {
			return failure(ctx, refusal)
		}
		e.Allowed = false
		e.Data["code"] = code
	}
	if err := a.Store.RecordOnce(ctx, e); err != nil {
		return failure(ctx, err)
	}
	return failure(ctx, refusal)
}
