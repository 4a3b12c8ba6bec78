package api

import (
	"context"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// ListUnits implements the operation.
func (s *Server) ListUnits(ctx context.Context, _ ListUnitsRequestObject) (ListUnitsResponseObject, error) {
	r := requestOf(ctx)
	at := make([]campaign.OrgUnit, len(r.grants))
	for i, g := range r.grants {
		at[i] = g.Unit
	}
	all, err := s.store.Units(ctx, at)
	if err != nil {
		return nil, err
	}
	list := UnitList{Items: []OrgUnit{}}
	for _, u := range all {
		list.Items = append(list.Items, OrgUnit{Unit: u.Path, Name: u.Name})
	}
	return ListUnits200JSONResponse(list), nil
}

// CreateUnit implements the operation.
func (s *Server) CreateUnit(ctx context.Context, in CreateUnitRequestObject) (CreateUnitResponseObject, error) {
	r := requestOf(ctx)
	if above := in.Body.Unit.Chain(); in.Body.Unit.Valid() && len(above) > 1 {
		if _, err := s.policies.Require(r.user.ID, r.action, above[1], 0); err != nil {
			return nil, s.refuse(ctx, r, "", err)
		}
	}
	if err := s.store.AddUnit(ctx, store.Unit{Path: in.Body.Unit, Name: in.Body.Name}, r.user.Actor()); err != nil {
		return nil, err
	}
	return CreateUnit201JSONResponse(*in.Body), nil
}

// RenameUnit implements the operation.
func (s *Server) RenameUnit(ctx context.Context, in RenameUnitRequestObject) (RenameUnitResponseObject, error) {
	if err := s.store.RenameUnit(ctx, store.Unit{Path: in.Body.Unit, Name: in.Body.Name}, requestOf(ctx).user.Actor()); err != nil {
		return nil, err
	}
	return RenameUnit200JSONResponse(*in.Body), nil
}
