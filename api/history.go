package api

import (
	"context"
	"fmt"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// ListCustomerContacts implements the operation.
func (s *Server) ListCustomerContacts(ctx context.Context, in ListCustomerContactsRequestObject) (ListCustomerContactsResponseObject, error) {
	r, p := requestOf(ctx), in.Params
	f := store.ContactViewFilter{Kind: p.Kind, Channel: p.Channel, Limit: limitOf(p.Limit) + 1}
	list := fmt.Sprintf("contact view %s %s %s", in.CustomerID, p.Kind, p.Channel)
	if _, err := decodeCursor(list, p.Cursor, &f.After); err != nil {
		return nil, err
	}
	if err := s.reachCustomer(ctx, r, in.CustomerID); err != nil {
		return nil, err
	}
	all, err := s.store.ContactView(ctx, in.CustomerID, f)
	if err != nil {
		return nil, err
	}
	page := ContactViewPage{Items: []ContactViewEntry{}}
	if len(all) == f.Limit {
		all = all[:f.Limit-1]
		if page.Next, err = encodeCursor(list, all[len(all)-1].Key); err != nil {
			return nil, err
		}
	}
	for _, e := range all {
		entry := ContactViewEntry{
			Origin: e.Origin, Kind: e.Kind, Direction: e.Direction, Channel: e.Channel, Product: e.Product, Outcome: e.Outcome, Seconds: e.Seconds,
			Source: e.Source, CampaignID: e.CampaignID, Campaign: e.Campaign, Wave: e.Wave, Simulated: e.Simulated,
		}
		if !e.At.IsZero() {
			entry.At = &e.At
		}
		page.Items = append(page.Items, entry)
	}
	return ListCustomerContacts200JSONResponse(page), nil
}

// reachCustomer refuses a customer who is not of the units where the caller may do what they
// ask for, as one who does not exist.
func (s *Server) reachCustomer(ctx context.Context, r *request, customerID string) error {
	unit, err := s.store.CustomerUnit(ctx, customerID)
	if err == nil && !within(unit, r.units) {
		err = campaign.Errorf(campaign.CodeNotFound, "there is no such customer")
	}
	return s.refuse(ctx, r, "", err)
}

// within reports whether a unit is one of those or below one.
func within(unit campaign.OrgUnit, units []campaign.OrgUnit) bool {
	for _, at := range units {
		if unit.Within(at) {
			return true
		}
	}
	return false
}

// faultsTold is how many lines at fault an answer names.
const faultsTold = 1000

// told keeps the first faults of many lines.
type told []campaign.FieldError

func (t *told) add(prefix string, line int64, fault campaign.FieldError) {
	if len(*t) < faultsTold {
		if prefix != "" {
			fault.Field = fmt.Sprintf("%s[%d].%s", prefix, line-1, fault.Field)
		} else {
			fault.Line = int(line)
		}
		*t = append(*t, fault)
	}
}

// RecordContactHistory implements the operation.
func (s *Server) RecordContactHistory(ctx context.Context, in RecordContactHistoryRequestObject) (RecordContactHistoryResponseObject, error) {
	rows := func(yield func(*store.PastContact, error) bool) {
		for i, c := range in.Body.Contacts {
			p := store.PastContact{
				Line: int64(i + 1), CustomerID: c.CustomerID, ExternalID: c.ExternalID, At: c.At, Kind: c.Kind, Direction: c.Direction, Channel: c.Channel,
				Product: c.Product, Outcome: c.Outcome, Seconds: c.Seconds, Source: c.Source, SourceID: c.SourceID,
			}
			if !yield(&p, nil) {
				return
			}
		}
	}
	faults := told{}
	landed, err := s.store.RecordHistory(ctx, requestOf(ctx).units, rows, func(line int64, fault campaign.FieldError) error {
		faults.add("contacts", line, fault)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := s.recordLanded(ctx, "history.recorded", map[string]any{"rows": landed.Rows, "accepted": landed.Accepted, "duplicate": landed.Duplicate, "rejected": landed.Rejected}); err != nil {
		return nil, err
	}
	return RecordContactHistory200JSONResponse{Accepted: landed.Accepted, Duplicate: landed.Duplicate, Rejected: landed.Rejected, Faults: faults}, nil
}
