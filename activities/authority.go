package activities

import (
	"context"
	"strings"
	"time"
	"unicode"

	"github.com/musterhq/muster/assertion"
	"github.com/musterhq/muster/audit"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// Authenticate verifies that the person whom a command names gave it, to this campaign, in
// these words, and not before. Anything else is a forgery: it is refused with
// CodeForgedDecision, or CodeAssertionMismatch when a genuine assertion was shown for
// something else, and leaves an event that says what was claimed.
func (a *Activities) Authenticate(ctx context.Context, in campaign.CommandClaim) error {
	return failure(ctx, a.tellForged(ctx, in, a.authenticate(ctx, in)))
}

// tellForged records that a command was not what it was shown for, and returns why.
func (a *Activities) tellForged(ctx context.Context, in campaign.CommandClaim, err error) error {
	switch code := campaign.CodeOf(err); code {
	case campaign.CodeForgedDecision, campaign.CodeAssertionMismatch:
		// Nobody is proven to have asked, so the event has no actor.
		e := store.CampaignEvent(in.CampaignID, "command:"+callKey(ctx), "command.forged", campaign.Actor{}, map[string]any{
			"command": in.Name, "claimed_user": printable(in.Command.Actor.UserID), "claimed_name": printable(in.Command.Actor.Name),
			"fault": fault(err), "code": code,
		})
		e.Allowed = false
		if told := a.Store.RecordOnce(ctx, e); told != nil {
			return told
		}
	}
	return err
}

func (a *Activities) authenticate(ctx context.Context, in campaign.CommandClaim) error {
	if err := a.proven(in, time.Now()); err != nil {
		return err
	}
	return a.Store.GiveCommand(ctx, in, callKey(ctx))
}

// proven verifies that the API signed a command shortly before it was recorded.
func (a *Activities) proven(in campaign.CommandClaim, recorded time.Time) error {
	claims, err := assertion.VerifyBy[assertion.Command](a.Keys, in.Command.Assertion, recorded)
	if err != nil {
		return err
	}
	return assertion.Matches(claims, assertion.Command{
		ID: in.Command.UpdateID, UserID: in.Command.Actor.UserID, CampaignID: in.CampaignID, Name: in.Name, PayloadDigest: in.Digest,
		IssuedAt: claims.IssuedAt,
	})
}

// claimOf is the claim that an order was given to a campaign.
func claimOf(campaignID, name string, order campaign.Order) (campaign.CommandClaim, error) {
	digest, err := campaign.PayloadDigest(order)
	return campaign.CommandClaim{CampaignID: campaignID, Name: name, Command: *order.Head(), Digest: digest}, err
}

// fault names what is wrong with an assertion.
func fault(err error) string {
	if f := assertion.FaultOf(err); f != "" {
		return string(f)
	}
	return "mismatch"
}

// maxClaimed is the most that is kept of what a forger says about themselves.
const maxClaimed = 100

// printable is text from nobody knows whom in a form that a record can hold.
func printable(text string) string {
	clean := []rune(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text))
	return string(clean[:min(len(clean), maxClaimed)])
}

// Verify checks the authority behind an update again, with the grants of this moment,
// where it takes effect. Both answers are recorded.
func (a *Activities) Verify(ctx context.Context, in campaign.Claim) error {
	owner, err := a.Store.CampaignOwner(ctx, in.CampaignID)
	if err == nil {
		var active map[string]bool
		if active, err = a.people(ctx); err == nil {
			err = a.require(active, in.Actor.UserID, in.Action, owner.Unit, in.Amount)
		}
	}
	return a.record(ctx, store.CampaignEvent(in.CampaignID, callKey(ctx), "authority."+string(in.Action), in.Actor,
		map[string]any{"amount": in.Amount, "reason": in.Reason, "policy_version": a.Policies.Version(owner.Unit)}), err)
}

// CountSignOff verifies a sign-off against its row, the row against what the API signed,
// the plan, the policies and the separation of duties, and counts it once. A refusal is
// recorded.
func (a *Activities) CountSignOff(ctx context.Context, in campaign.SignOffClaim) error {
	policy := "" // that was asked
	// What a judgement needs is read before: the transaction that asks for it holds a
	// connection, and one that waited for another would keep it from those who hold it.
	active, err := a.people(ctx)
	if err == nil {
		err = a.Store.CountSignOff(ctx, in, func(j store.Judged) (campaign.Action, error) {
			policy = a.Policies.Version(j.Unit)
			if err := a.genuine(j.SignOff, j.Plan.Plan, j.Facts, j.Unit); err != nil {
				return "", err
			}
			err := a.maySign(active, j, j.For.Action)
			if err != nil && j.Escalated && j.For.EscalateTo != "" {
				if a.maySign(active, j, j.For.EscalateTo) == nil {
					return j.For.EscalateTo, nil
				}
			}
			return j.For.Action, err
		})
	}
	return a.record(ctx, store.CampaignEvent(in.CampaignID, "sign_off:"+in.Decide.SignOffID+":"+callKey(ctx), "sign_off."+string(in.Decide.Decision),
		in.Decide.Actor, map[string]any{
			"sign_off": in.Decide.SignOffID, "revision": in.Decide.Revision, "digest": in.Decide.Digest, "level": in.Decide.Level,
			"amount": in.Amount, "policy_version": policy,
		}), err)
}

// genuine verifies that a sign-off's row is what the API signed when its author decided,
// and that this was about the plan and the round's facts as they are stored.
func (a *Activities) genuine(row store.SignOff, plan campaign.Plan, facts campaign.Facts, unit campaign.OrgUnit) error {
	claims, err := assertion.VerifyBy[assertion.SignOff](a.Keys, row.Assertion, row.At)
	if err != nil {
		return err
	}
	want, err := audit.SignOffClaims(row, unit)
	if err != nil {
		return err
	}
	if err := assertion.Matches(claims, want); err != nil {
		return err
	}
	stored, err := plan.Digests().Selecting(facts.Audience, facts.Uses)
	if err != nil {
		return err
	}
	signed := campaign.PlanDigests{Content: claims.ContentDigest, Audience: claims.AudienceDigest, Budget: claims.BudgetDigest}
	if signed != stored || claims.PlanDigest != plan.Digest() || claims.Currency != plan.Currency {
		return campaign.Errorf(campaign.CodeVersionChanged, "revision %d and whom it selects are not what was signed", row.Revision)
	}
	return nil
}

// maySign asks whether the author of a sign-off may sign by an action: by their own
// authority, or by that of the person they act for, if the delegation holds now by the
// database's clock.
func (a *Activities) maySign(active map[string]bool, j store.Judged, act campaign.Action) error {
	if j.ActingFor == nil || j.DelegationID == nil {
		if j.ActingFor != nil || j.DelegationID != nil {
			return campaign.Errorf(campaign.CodeDelegationNotAllowed, "whoever acts for somebody says by which delegation")
		}
		return a.require(active, j.UserID, act, j.Unit, j.Amount)
	}
	switch d := j.Delegation; {
	case d == nil:
		return campaign.Errorf(campaign.CodeNotFound, "there is no such delegation")
	case d.To != j.UserID || d.From != *j.ActingFor:
		return campaign.Errorf(campaign.CodeDelegationNotAllowed, "the delegation is between other people")
	case !d.Valid:
		return campaign.Errorf(campaign.CodeDelegationExpired, "the delegation has ended")
	default:
		_, err := a.Policies.RequireFor(*d, act, j.Unit, j.Amount)
		return err
	}
}

// people reads grants and policies again and returns the users who are not disabled. It
// takes connections of its own: never call it where a transaction is open.
func (a *Activities) people(ctx context.Context) (map[string]bool, error) {
	if err := a.Policies.Reload(ctx); err != nil {
		return nil, err
	}
	return a.Store.ActiveUsers(ctx)
}

// require asks the policies whether a user who is not disabled may do an action.
func (a *Activities) require(active map[string]bool, userID string, act campaign.Action, unit campaign.OrgUnit, amount int64) error {
	if !active[userID] {
		return campaign.Errorf(campaign.CodeForbidden, "the user is unknown or disabled")
	}
	_, err := a.Policies.Require(userID, act, unit, amount)
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
