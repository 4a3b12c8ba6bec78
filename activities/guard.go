package activities

import (
	"context"
	"errors"
	"fmt"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// authoriseDispatch verifies, from what the rows say and the grants of this moment, that a
// plan may be dispatched: every signature of the round it stands on is what the API
// signed, about the plan as it is stored, by somebody who had no hand in it and who still
// may sign. Nothing that a workflow remembers counts.
func (a *Activities) authoriseDispatch(ctx context.Context, st store.Standing) error {
	if err := a.Policies.Reload(ctx); err != nil {
		return err
	}
	active, err := a.Store.ActiveUsers(ctx)
	if err != nil {
		return err
	}
	for _, o := range st.SignOffs {
		if err := a.stillSigned(st, o, active); err != nil {
			return said(o, err)
		}
	}
	return nil
}

func (a *Activities) stillSigned(st store.Standing, o store.CountedSignOff, active map[string]bool) error {
	if err := a.genuine(o.SignOff, st.Plan.Plan, st.Unit); err != nil {
		return err
	}
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
// returns the refusal.
func (a *Activities) refuseDispatch(ctx context.Context, key string, in campaign.ChannelRef, revision int, why error) error {
	var rule *campaign.Error
	if !errors.As(why, &rule) {
		return why
	}
	e := store.CampaignEvent(in.CampaignID, key, "dispatch.refused", campaign.Actor{}, map[string]any{
		"wave": in.Wave, "channel": in.Channel, "revision": revision, "code": rule.Code, "reason": rule.Message,
	})
	e.Allowed = false
	for name, detail := range rule.Details {
		if _, taken := e.Data[name]; !taken {
			e.Data[name] = detail
		}
	}
	if err := a.Store.RecordOnce(ctx, e); err != nil {
		return err
	}
	return campaign.Errorf(campaign.CodeDispatchRefused, "wave %d may not be dispatched by %s: %s", in.Wave, in.Channel, rule.Message).
		With("code", string(rule.Code))
}
