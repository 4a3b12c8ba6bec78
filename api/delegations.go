package api

import (
	"context"
	"fmt"
	"slices"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

func delegationOf(d campaign.Delegation) Delegation {
	out := Delegation{
		ID: d.ID, From: Person{ID: d.From, Name: d.FromName}, To: Person{ID: d.To, Name: d.ToName}, Actions: d.Actions, Unit: d.Unit, Limit: d.Limit,
		ValidFrom: d.ValidFrom, ValidUntil: d.ValidUntil, Valid: d.Valid, Reason: d.Reason, CreatedAt: d.CreatedAt, RevokedAt: timeOf(d.RevokedAt),
	}
	if d.RevokedBy != nil {
		out.RevokedBy = *d.RevokedBy
	}
	return out
}

// ListDelegations implements the operation.
func (s *Server) ListDelegations(ctx context.Context, in ListDelegationsRequestObject) (ListDelegationsResponseObject, error) {
	r, p := requestOf(ctx), in.Params
	f := store.DelegationFilter{UserID: r.user.ID, Limit: limitOf(p.Limit) + 1}
	if p.Of == "units" {
		r.action = campaign.ActUserRead
		if err := s.somewhere(ctx, r); err != nil {
			return nil, err
		}
		f.UserID, f.Units = "", r.units
	}
	list := "delegations " + p.Of
	if _, err := decodeCursor(list, p.Cursor, &f.Before); err != nil {
		return nil, err
	}
	all, err := s.store.Delegations(ctx, f)
	if err != nil {
		return nil, err
	}
	page := DelegationPage{Items: []Delegation{}}
	if len(all) == f.Limit {
		all = all[:f.Limit-1]
		if page.Next, err = encodeCursor(list, all[len(all)-1].Number); err != nil {
			return nil, err
		}
	}
	for _, d := range all {
		page.Items = append(page.Items, delegationOf(d.Delegation))
	}
	return ListDelegations200JSONResponse(page), nil
}

// CreateDelegation implements the operation.
func (s *Server) CreateDelegation(ctx context.Context, in CreateDelegationRequestObject) (CreateDelegationResponseObject, error) {
	r, b := requestOf(ctx), in.Body
	d := campaign.Delegation{
		ID: r.resultID, From: r.user.ID, Actions: b.Actions, Unit: b.Unit, Limit: b.Limit, ValidFrom: b.From, ValidUntil: b.Until, Reason: b.Reason,
	}
	if err := checkDelegation(d); err != nil {
		return nil, err
	}
	to, err := s.delegate(ctx, b.To, b.Unit)
	if err != nil {
		return nil, err
	}
	d.To = to.ID
	if d.To == d.From {
		return nil, s.refuse(ctx, r, "", campaign.Errorf(campaign.CodeDelegationNotAllowed, "nobody lends authority to themselves"))
	}
	amount := int64(0)
	if d.Limit != nil {
		amount = *d.Limit
	}
	for _, act := range d.Actions {
		r.action = act
		if _, err := s.policies.RequireFor(d, act, d.Unit, amount); err != nil {
			return nil, s.refuse(ctx, r, "", err)
		}
	}
	added, err := s.store.AddDelegation(ctx, d, r.user.Actor())
	if err != nil {
		return nil, err
	}
	return CreateDelegation201JSONResponse(delegationOf(added)), nil
}

func checkDelegation(d campaign.Delegation) error {
	var fields []campaign.FieldError
	signing := campaign.SigningActions()
	for i, act := range d.Actions {
		if !slices.Contains(signing, act) {
			allowed := make([]any, len(signing))
			for j, a := range signing {
				allowed[j] = a
			}
			fields = append(fields, campaign.FieldError{
				Field: fmt.Sprintf("actions[%d]", i), Code: campaign.CodeInvalidParameter, Message: "is no action that signs, and nothing else is lent", Allowed: allowed,
			})
		}
	}
	if !d.Unit.Valid() {
		fields = append(fields, campaign.FieldError{Field: "unit", Code: campaign.CodeInvalidParameter, Message: "must be a path of org units such as operator/north/harbin"})
	}
	if d.Limit != nil && *d.Limit < 1 {
		fields = append(fields, campaign.FieldError{Field: "limit", Code: campaign.CodeAmountOutOfRange, Message: "must be 1 or more"})
	}
	return faults(fields)
}

// delegate finds the person who is to sign. A person of another tenant looks as if they
// did not exist.
func (s *Server) delegate(ctx context.Context, login string, unit campaign.OrgUnit) (store.UserDetail, error) {
	unknown := faults([]campaign.FieldError{{Field: "to", Code: campaign.CodeInvalidParameter, Message: "must be the login of a person who may log in"}})
	known, err := s.store.UserByLogin(ctx, login)
	if campaign.CodeOf(err) == campaign.CodeNotFound {
		return store.UserDetail{}, unknown
	}
	if err != nil {
		return store.UserDetail{}, err
	}
	u, err := s.store.User(ctx, known.ID)
	if err != nil {
		return u, err
	}
	if u.Kind != store.KindPerson || u.Disabled || !u.At([]campaign.OrgUnit{unit.Tenant()}) {
		return u, unknown
	}
	return u, nil
}

// RevokeDelegation implements the operation.
func (s *Server) RevokeDelegation(ctx context.Context, in RevokeDelegationRequestObject) (RevokeDelegationResponseObject, error) {
	r := requestOf(ctx)
	d, err := s.store.Delegation(ctx, in.DelegationID)
	if err != nil {
		return nil, err
	}
	if d.From != r.user.ID {
		r.action = campaign.ActUserAdminister
		if _, err := s.policies.Require(r.user.ID, r.action, d.Unit, 0); err != nil {
			_, reads, readErr := s.policies.Allow(r.user.ID, campaign.ActUserRead, d.Unit, 0)
			if readErr != nil {
				return nil, readErr
			}
			if d.To != r.user.ID && !reads {
				err = campaign.Errorf(campaign.CodeNotFound, "there is no such delegation")
			}
			return nil, s.refuse(ctx, r, "", err)
		}
	}
	if d, err = s.store.RevokeDelegation(ctx, d.ID, r.user.Actor()); err != nil {
		return nil, err
	}
	return RevokeDelegation200JSONResponse(delegationOf(d)), nil
}
