package policies

import (
	"fmt"

	"github.com/musterhq/muster/campaign"
)

// RequireFor is Require for somebody who signs by a delegation: it returns the authority
// of the delegator. Only what the delegator holds by roles of their own is lent, so that
// nothing is passed on twice, and never more than they could sign for themselves now. It
// fails with CodeDelegationNotAllowed when the delegation or the delegator's roles do not
// reach act at unit, and with CodeLimitExceeded when only the amount stands in the way.
// Whoever is denied act by a role of their own, as administrators are, cannot borrow it
// either: CodeForbidden. Whether the delegation is valid now is for the database to say.
func (e *Enforcer) RequireFor(d campaign.Delegation, act campaign.Action, unit campaign.OrgUnit, amount int64) (Authority, error) {
	if !d.Covers(act, unit) {
		return Authority{}, campaign.Errorf(campaign.CodeDelegationNotAllowed, "the delegation does not reach %s at %s", act, unit)
	}
	if d.Limit != nil && amount > *d.Limit {
		return Authority{}, campaign.Errorf(campaign.CodeLimitExceeded, "the delegation reaches up to %d minor units; this is about %d", *d.Limit, amount).
			With("limit", *d.Limit).With("amount", amount)
	}
	if denied, err := e.now.Load().denied(d.To, act, unit); err != nil {
		return Authority{}, err
	} else if denied {
		return Authority{}, campaign.Errorf(campaign.CodeForbidden, "a role that the delegate holds rules out %s at %s", act, unit)
	}
	authority, err := e.Require(d.From, act, unit, amount)
	if campaign.CodeOf(err) == campaign.CodeForbidden {
		return Authority{}, campaign.Errorf(campaign.CodeDelegationNotAllowed, "%s at %s is not the delegator's own to lend", act, unit)
	}
	return authority, err
}

// denied reports whether a role that the user holds at unit or above it forbids act.
func (s *snapshot) denied(userID string, act campaign.Action, unit campaign.OrgUnit) (bool, error) {
	for _, g := range s.held[userID] {
		if !unit.Within(g.Unit) {
			continue
		}
		a, err := s.of(unit).ask(question{userID, act, g.Unit}, 0)
		if err != nil {
			return false, fmt.Errorf("decide %s: %w", act, err)
		}
		if !a.allowed && len(a.row) > 0 {
			return true, nil
		}
	}
	return false, nil
}
