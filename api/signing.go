package api

import (
	"context"
	"slices"
	"time"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/policies"
	"github.com/musterhq/muster/store"
)

// delegationsRead is the most delegations of one person that are looked at.
const delegationsRead = 500

// lent returns the delegations to a user, those that ended too, by which a refusal can
// say why.
func (s *Server) lent(ctx context.Context, userID string) ([]campaign.Delegation, error) {
	all, err := s.store.Delegations(ctx, store.DelegationFilter{To: userID, Limit: delegationsRead})
	if err != nil {
		return nil, err
	}
	to := make([]campaign.Delegation, len(all))
	for i, d := range all {
		to[i] = d.Delegation
	}
	return to, nil
}

// capacity is by what somebody signs: an authority, and the delegation that lends it.
type capacity struct {
	policies.Authority
	action     campaign.Action
	delegation *campaign.Delegation // nil for the signer's own authority
}

// ways lists the actions by which a level can be signed now: its own, and once it is
// overdue the one that it escalates to.
func ways(l campaign.ApprovalLevel, w campaign.Waiting) []campaign.Action {
	if w.Escalated && l.EscalateTo != "" {
		return []campaign.Action{l.Action, l.EscalateTo}
	}
	return []campaign.Action{l.Action}
}

// capacityOf returns by what a user may sign a level of a campaign: by their own
// authority, or for actingFor by a delegation among those lent to them. The first
// refusal stands.
func (s *Server) capacityOf(userID string, lent []campaign.Delegation, c store.Campaign, level int, actingFor string) (capacity, error) {
	approval := c.Status.Approval
	if approval == nil || level < 1 || level > len(approval.Route) {
		return capacity{}, campaign.Errorf(campaign.CodeStateConflict, "no approval of level %d is waiting for a decision", level)
	}
	l := approval.Route[level-1]
	_, waiting, _ := approval.At(level)
	amount := approval.AmountOf(l)
	var refusal error
	for _, act := range ways(l, waiting) {
		var found capacity
		var err error
		if actingFor == "" {
			found.Authority, err = s.policies.Require(userID, act, c.Unit, amount)
		} else {
			found, err = s.borrowed(lent, act, c.Unit, amount, actingFor)
		}
		if err == nil {
			found.action = act
			return found, nil
		}
		if refusal == nil {
			refusal = err
		}
	}
	return capacity{}, refusal
}

// borrowed returns the authority that a delegation from somebody lends.
func (s *Server) borrowed(lent []campaign.Delegation, act campaign.Action, unit campaign.OrgUnit, amount int64, from string) (capacity, error) {
	refusal := error(campaign.Errorf(campaign.CodeDelegationNotAllowed, "nobody has lent you %s at %s in their name", act, unit))
	for _, d := range lent {
		if d.From != from || !d.Covers(act, unit) {
			continue
		}
		if !d.Valid {
			if d.ValidFrom.Before(time.Now()) && campaign.CodeOf(refusal) == campaign.CodeDelegationNotAllowed {
				refusal = campaign.Errorf(campaign.CodeDelegationExpired, "the delegation from %s has ended", d.FromName)
			}
			continue
		}
		authority, err := s.policies.RequireFor(d, act, unit, amount)
		if err == nil {
			return capacity{Authority: authority, delegation: &d}, nil
		}
		refusal = err
	}
	return capacity{}, refusal
}

// maySign returns by what a user may sign a waiting level, in their own name or for
// actingFor, or why they may not. Nobody behind the signature may be among the authors,
// those who had a hand in the plan.
func (s *Server) maySign(u store.User, lent []campaign.Delegation, authors map[string]bool, c store.Campaign, level int, actingFor string) (capacity, error) {
	by, err := s.capacityOf(u.ID, lent, c, level, actingFor)
	if err == nil && (authors[u.ID] || authors[actingFor]) {
		err = campaign.Errorf(campaign.CodeSelfApproval, "nobody signs a campaign they submitted or edited themselves, nor does their delegate")
	}
	return by, err
}

// signer returns in whose name a user may sign a waiting level, their own if they may and
// otherwise that of the first who lent them authority, or why they may not sign at all.
func (s *Server) signer(u store.User, lent []campaign.Delegation, authors map[string]bool, c store.Campaign, level int) (actingFor Person, err error) {
	approval := c.Status.Approval
	if _, _, waits := approval.At(level); !waits {
		return Person{}, campaign.Errorf(campaign.CodeStateConflict, "no approval waits for this signature")
	}
	for _, who := range append([]Person{{}}, delegators(lent)...) {
		_, refusal := s.maySign(u, lent, authors, c, level, who.ID)
		if refusal == nil {
			refusal = approval.Check(campaign.Decide{
				Command: campaign.Command{Actor: u.Actor()}, Revision: approval.Revision, Digest: approval.Digest, Level: level,
				Decision: campaign.DecisionApprove, ActingFor: who.ID,
			})
		}
		if refusal == nil {
			return who, nil
		}
		if err == nil {
			err = refusal
		}
	}
	return Person{}, err
}

// signs lists the waiting levels that an action signs now.
func signs(c store.Campaign, act campaign.Action) (levels []int) {
	approval := c.Status.Approval
	if !approval.Open() {
		return nil
	}
	for _, w := range approval.Waiting {
		if slices.Contains(ways(approval.Route[w.Level-1], w), act) {
			levels = append(levels, w.Level)
		}
	}
	return levels
}

// delegators lists the people who lent their authority to sign, each once.
func delegators(lent []campaign.Delegation) (people []Person) {
	for _, d := range lent {
		if d.Valid && !slices.ContainsFunc(people, func(p Person) bool { return p.ID == d.From }) {
			people = append(people, Person{ID: d.From, Name: d.FromName})
		}
	}
	return people
}

func deref(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}
