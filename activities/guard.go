package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/policies"
	"github.com/musterhq/muster/store"
)

// authoriseSigned verifies, from what the rows say, what a plan stands on: the round took
// the route that the plan must take, and every signature in it, and every decision since to
// accept a recommendation, is what the API signed, about the plan as it is stored. Nothing
// that a workflow remembers counts.
func (a *Activities) authoriseSigned(st store.Standing) error {
	if err := soundRoute(st); err != nil {
		return err
	}
	for _, o := range st.SignOffs {
		if err := a.genuine(o.SignOff, st.Plan.Plan, st.Facts, st.Unit); err != nil {
			return said(o, err)
		}
	}
	for _, d := range st.Accepted {
		claim, err := claimOf(st.CampaignID, campaign.UpdateRecordReview, &d.RecordReview)
		if err != nil {
			return err
		}
		if err := a.proven(claim, d.GivenAt); err != nil {
			return err
		}
	}
	if st.Base != nil {
		return a.authoriseSigned(*st.Base)
	}
	return nil
}

// soundRoute makes sure that the round is about what the plan says and took the route that
// the policy it was opened under asks for then. What others did at that time chose the
// route as well and cannot be counted again.
func soundRoute(st store.Standing) error {
	says, err := campaign.FactsOf(&st.Plan.Plan)
	if err != nil {
		return err
	}
	facts := st.Facts
	says.Owner, says.Together, says.Alone, says.Uses = st.Owner, facts.Together, facts.Alone && st.Plan.Plan.Simulated, facts.Uses
	if says.Audience == 0 || facts.Audience < says.Audience {
		says.Audience = facts.Audience
	}
	if facts.Base != 0 {
		says.Whole = facts.Whole
		if err := says.AddTo(facts.Base, facts.Added, facts.Amount-facts.Added); err != nil {
			return err
		}
	}
	if same, err := alike(says, facts); err != nil {
		return err
	} else if !same || st.Round.Amount != facts.Amount || st.Round.Credit != facts.Credit {
		return campaign.Errorf(campaign.CodeAssertionMismatch, "round %d was not about what revision %d says", st.Round.Round, st.Plan.Revision)
	}
	for _, l := range st.Round.Route {
		if !slices.Contains(campaign.SigningActions(), l.Action) {
			return campaign.Errorf(campaign.CodeAssertionMismatch, "level %d of round %d is for %q, which signs nothing", l.Level, st.Round.Round, l.Action)
		}
	}
	if st.Unkept && st.Policy.Version == 0 {
		return nil // nobody can say any more what that policy asked for; what was signed names the route
	}
	routed, err := policies.RouteUnder(st.PolicyVersion, st.Policy, facts)
	if err != nil {
		return err
	}
	if same, err := alike(routed.Route, st.Round.Route); err != nil {
		return err
	} else if !same {
		return campaign.Errorf(campaign.CodeAssertionMismatch, "round %d did not take the route that revision %d must take", st.Round.Round, st.Plan.Revision)
	}
	return nil
}

// authoriseDispatch verifies that a plan may be dispatched: it was signed, see
// authoriseSigned, by people who had no hand in it and who still may sign, and
// recommendations were accepted by people who still may. active comes from people.
func (a *Activities) authoriseDispatch(active map[string]bool, st store.Standing) error {
	if err := a.authoriseSigned(st); err != nil {
		return err
	}
	for ; ; st = *st.Base {
		for _, o := range st.SignOffs {
			if err := a.maySignStill(active, st, o); err != nil {
				return said(o, err)
			}
		}
		for _, d := range st.Accepted {
			if err := a.require(active, d.Actor.UserID, campaign.ActReviewDecide, st.Unit, 0); err != nil {
				return err
			}
		}
		if st.Base == nil {
			return nil
		}
	}
}

func (a *Activities) maySignStill(active map[string]bool, st store.Standing, o store.CountedSignOff) error {
	level := st.Round.Route[o.Level-1]
	authority := o.UserID
	if o.ActingFor != nil {
		authority = *o.ActingFor
	}
	switch {
	case st.Authors[o.UserID] || st.Authors[authority]:
		return campaign.Errorf(campaign.CodeSelfApproval, "nobody signs a campaign they submitted or edited themselves")
	case !active[o.UserID] || !active[authority]:
		return campaign.Errorf(campaign.CodeForbidden, "the user is unknown or disabled")
	case o.By != level.Action && (level.EscalateTo == "" || o.By != level.EscalateTo):
		return campaign.Errorf(campaign.CodeAssertionMismatch, "it counted as %q, which is not how the level is signed", o.By)
	case o.Delegation != nil:
		_, err := a.Policies.RequireFor(*o.Delegation, o.By, st.Unit, o.Amount)
		return err
	}
	_, err := a.Policies.Require(authority, o.By, st.Unit, o.Amount)
	return err
}

// said adds whose signature does not hold to the words of a refusal.
func said(o store.CountedSignOff, err error) error {
	var e *campaign.Error
	if !errors.As(err, &e) {
		return err
	}
	told := *e
	told.Message = fmt.Sprintf("the signature of %s at level %d does not hold: %s", o.User.Name, o.Level, e.Message)
	return told.With("level", o.Level).With("sign_off", o.ID)
}

// refuseDispatch records, once under key, why a channel of a wave got no contacts, and
// returns the refusal. A freeze is no refusal: it is told once to each channel of a wave, which
// asks again.
func (a *Activities) refuseDispatch(ctx context.Context, key string, in campaign.ChannelRef, revision int, why error) error {
	rule := ruleOf(why)
	if rule == nil {
		return why
	}
	frozen := rule.Code == campaign.CodeDispatchFrozen
	if frozen {
		key = fmt.Sprintf("%s:frozen:%d:%s:%v", in.CampaignID, in.Wave, in.Channel, rule.Details["freeze"])
	}
	err := a.tellRefused(ctx, key, in.CampaignID, "dispatch.refused", rule, map[string]any{"wave": in.Wave, "channel": in.Channel, "revision": revision})
	if err != nil {
		return err
	}
	if frozen {
		return why
	}
	return campaign.Errorf(campaign.CodeDispatchRefused, "wave %d may not be dispatched by %s: %s", in.Wave, in.Channel, rule.Message).
		With("code", string(rule.Code))
}

// ruleOf returns the rule by which something was refused; nil when err is none or a fault.
func ruleOf(err error) *campaign.Error {
	var rule *campaign.Error
	if !errors.As(err, &rule) || rule.Code == campaign.CodeInternal {
		return nil
	}
	return rule
}

// tellRefused records a rule's refusal once under key.
func (a *Activities) tellRefused(ctx context.Context, key, campaignID, event string, rule *campaign.Error, data map[string]any) error {
	e := store.CampaignEvent(campaignID, key, event, campaign.Actor{}, data)
	e.Allowed = false
	e.Data["code"], e.Data["reason"] = rule.Code, rule.Message
	for name, detail := range rule.Details {
		if _, taken := e.Data[name]; !taken {
			e.Data[name] = detail
		}
	}
	return a.Store.RecordOnce(ctx, e)
}
