package api

import (
	"context"
	"math"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// declareWithin is how long a declaration tries to get at the customer table.
const declareWithin = 20 * time.Second

// DeclareAttribute implements the operation.
func (s *Server) DeclareAttribute(ctx context.Context, in DeclareAttributeRequestObject) (DeclareAttributeResponseObject, error) {
	r, b := requestOf(ctx), in.Body
	wholeTenant := false
	for _, u := range r.units {
		wholeTenant = wholeTenant || u == u.Tenant()
	}
	if !wholeTenant {
		return nil, s.refuse(ctx, r, "", campaign.Errorf(campaign.CodeForbidden, "the catalogue is one for all units: an administrator of the topmost unit declares attributes"))
	}
	a := store.Attribute{
		Name: in.Name, Type: store.AttributeType(b.Type), Unit: b.Unit, Meaning: b.Meaning, MeaningZh: b.MeaningZh, PostContact: b.PostContact, PII: b.Pii, Source: b.Source, Allowed: b.Allowed,
	}
	if a.Source == "import" { // it would take no flag away
		return nil, faults([]campaign.FieldError{{Field: "source", Code: campaign.CodeInvalidParameter, Message: "says import of what files brought alone; say where it comes from"}})
	}
	if err := s.mayRedeclare(ctx, r, a); err != nil {
		return nil, s.refuse(ctx, r, "", err)
	}
	soon, cancel := context.WithTimeout(ctx, declareWithin)
	defer cancel()
	if err := s.store.DeclareAttributes(soon, r.user.Actor(), []store.Attribute{a}); err != nil {
		return nil, err
	}
	return DeclareAttribute200JSONResponse(attributeOf(a)), nil
}

// mayRedeclare refuses to change what is declared to whoever administers some of the tenants
// only: the columns are everybody's, and one that may not be selected by or shown would be
// opened to all.
func (s *Server) mayRedeclare(ctx context.Context, r *request, a store.Attribute) error {
	all, err := s.store.CustomerAttributes(ctx)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(all, func(b store.Attribute) bool { return b.Name == a.Name })
	if a.Allowed == nil {
		a.Allowed = []string{}
	}
	if at < 0 || reflect.DeepEqual(a, all[at]) {
		return nil
	}
	tenants, err := s.store.Tenants(ctx)
	if err != nil {
		return err
	}
	for _, tenant := range tenants {
		if !slices.Contains(r.units, tenant) {
			return campaign.Errorf(campaign.CodeForbidden, "attribute %s is declared already, for all tenants: whoever administers all of them changes it", a.Name)
		}
	}
	return nil
}

func summariesOf(all []store.CustomerSummary) CustomerSummaryList {
	list := CustomerSummaryList{Items: []CustomerSummary{}}
	for _, c := range all {
		list.Items = append(list.Items, CustomerSummary{ID: c.ID, ExternalID: c.ExternalID, Unit: c.Unit, Phone: c.Phone})
	}
	return list
}

// GetCustomerByExternalID implements the operation.
func (s *Server) GetCustomerByExternalID(ctx context.Context, in GetCustomerByExternalIDRequestObject) (GetCustomerByExternalIDResponseObject, error) {
	all, err := s.store.FindCustomer(ctx, requestOf(ctx).units, in.Params.ExternalID)
	if err != nil {
		return nil, err
	}
	return GetCustomerByExternalID200JSONResponse(summariesOf(all)), nil
}

// FindCustomers implements the operation.
func (s *Server) FindCustomers(ctx context.Context, in FindCustomersRequestObject) (FindCustomersResponseObject, error) {
	r := requestOf(ctx)
	quota, err := s.quota(r, r.units[0])
	if err != nil {
		return nil, err
	}
	all, err := s.store.FindCustomers(ctx, r.units, in.Body.Phone, quota, r.user.Actor())
	if err != nil {
		return nil, s.refuse(ctx, r, "", err)
	}
	return FindCustomers200JSONResponse(summariesOf(all)), nil
}

func customerOf(d store.CustomerDetail) Customer {
	c := Customer{
		ID: d.ID, ExternalID: d.ExternalID, Unit: d.Unit, Phone: d.Phone, TimeZone: d.TimeZone, Simulated: d.Simulated, CreatedAt: d.CreatedAt, ErasedAt: d.ErasedAt,
		OptedOut: d.OptedOut, DoNotContact: d.DoNotContact, Attributes: d.Attributes,
		Holdings: []Holding{}, Consents: []Consent{}, OptOuts: []OptOut{}, Quarantines: []Quarantine{},
	}
	for _, h := range d.Holdings {
		c.Holdings = append(c.Holdings, Holding{Product: h.Product, Since: h.Since, Until: h.Until, Active: h.Active})
	}
	for _, w := range d.Consents {
		c.Consents = append(c.Consents, Consent{Channel: w.Channel, Purpose: w.Purpose, Given: w.Given, At: w.At, Source: w.Source})
	}
	for _, o := range d.OptOuts {
		c.OptOuts = append(c.OptOuts, OptOut{Channel: o.Channel, Purpose: o.Purpose, At: o.At, Source: o.Source, CampaignID: o.CampaignID})
	}
	for _, q := range d.Quarantines {
		c.Quarantines = append(c.Quarantines, Quarantine{Why: q.Why, At: q.At, Until: q.Until})
	}
	return c
}

// changeCustomer runs f on a customer in reach of the caller and returns how the customer is then.
func (s *Server) changeCustomer(ctx context.Context, id string, f func(r *request) error) (Customer, error) {
	r := requestOf(ctx)
	if err := s.reachCustomer(ctx, r, id); err != nil {
		return Customer{}, err
	}
	if err := f(r); err != nil {
		return Customer{}, err
	}
	d, err := s.store.CustomerDetail(ctx, id)
	return customerOf(d), err
}

// GetCustomer implements the operation.
func (s *Server) GetCustomer(ctx context.Context, in GetCustomerRequestObject) (GetCustomerResponseObject, error) {
	c, err := s.changeCustomer(ctx, in.CustomerID, func(*request) error { return nil })
	if err != nil {
		return nil, err
	}
	return GetCustomer200JSONResponse(c), nil
}

// UnmaskCustomer implements the operation.
func (s *Server) UnmaskCustomer(ctx context.Context, in UnmaskCustomerRequestObject) (UnmaskCustomerResponseObject, error) {
	r := requestOf(ctx)
	if err := s.reachCustomer(ctx, r, in.CustomerID); err != nil {
		return nil, err
	}
	unit, err := s.store.CustomerUnit(ctx, in.CustomerID)
	if err != nil {
		return nil, err
	}
	quota, err := s.quota(r, unit)
	if err != nil {
		return nil, s.refuse(ctx, r, "", err)
	}
	shown, err := s.store.Unmask(ctx, in.CustomerID, in.Body.Reason, quota, r.user.Actor())
	if err != nil {
		return nil, s.refuse(ctx, r, "", err)
	}
	return UnmaskCustomer200JSONResponse{Phone: shown.Phone, Attributes: shown.Attributes}, nil
}

// quota is how many people a day the caller's roles let them do the request's action about.
func (s *Server) quota(r *request, unit campaign.OrgUnit) (int64, error) {
	authority, err := s.policies.Require(r.user.ID, r.action, unit, 0)
	if err != nil {
		return 0, err
	}
	quota, err := strconv.ParseInt(authority.Limit, 10, 64)
	if err != nil { // "*": no limit
		quota = math.MaxInt64
	}
	return quota, nil
}

// notAhead refuses what a customer is to have said later than now.
func notAhead(at time.Time) error {
	if at.After(time.Now().Add(5 * time.Minute)) {
		return faults([]campaign.FieldError{{Field: "at", Code: campaign.CodeInvalidParameter, Message: "lies in the future"}})
	}
	return nil
}

// RecordOptOut implements the operation.
func (s *Server) RecordOptOut(ctx context.Context, in RecordOptOutRequestObject) (RecordOptOutResponseObject, error) {
	b := in.Body
	c, err := s.changeCustomer(ctx, in.CustomerID, func(r *request) error {
		if err := notAhead(b.At); err != nil {
			return err
		}
		return s.store.OptOut(ctx, store.OptOut{CustomerID: in.CustomerID, Channel: b.Channel, Purpose: b.Purpose, At: b.At, Source: b.Source, By: r.user.Actor(), Reason: b.Reason})
	})
	if err != nil {
		return nil, err
	}
	return RecordOptOut200JSONResponse(c), nil
}

// LiftOptOut implements the operation.
func (s *Server) LiftOptOut(ctx context.Context, in LiftOptOutRequestObject) (LiftOptOutResponseObject, error) {
	b := in.Body
	c, err := s.changeCustomer(ctx, in.CustomerID, func(r *request) error {
		return s.store.LiftOptOut(ctx, store.OptOut{CustomerID: in.CustomerID, Channel: b.Channel, Purpose: b.Purpose, Source: b.Source, By: r.user.Actor(), Reason: b.Reason})
	})
	if err != nil {
		return nil, err
	}
	return LiftOptOut200JSONResponse(c), nil
}

// RecordConsent implements the operation.
func (s *Server) RecordConsent(ctx context.Context, in RecordConsentRequestObject) (RecordConsentResponseObject, error) {
	b := in.Body
	c, err := s.changeCustomer(ctx, in.CustomerID, func(r *request) error {
		if err := notAhead(b.At); err != nil {
			return err
		}
		return s.store.RecordConsents(ctx, store.Consent{
			CustomerID: in.CustomerID, Channel: b.Channel, Purpose: b.Purpose, Given: b.Given, At: b.At, Source: b.Source, By: r.user.Actor(), Reason: b.Reason,
		})
	})
	if err != nil {
		return nil, err
	}
	return RecordConsent200JSONResponse(c), nil
}

// EraseCustomer implements the operation.
func (s *Server) EraseCustomer(ctx context.Context, in EraseCustomerRequestObject) (EraseCustomerResponseObject, error) {
	c, err := s.changeCustomer(ctx, in.CustomerID, func(r *request) error {
		return s.store.Erase(ctx, in.CustomerID, in.Body.Reason, r.user.Actor())
	})
	if err != nil {
		return nil, err
	}
	return EraseCustomer200JSONResponse(c), nil
}

// RecordHoldings implements the operation.
func (s *Server) RecordHoldings(ctx context.Context, in RecordHoldingsRequestObject) (RecordHoldingsResponseObject, error) {
	batch := make([]store.Holding, len(in.Body.Holdings))
	for i, h := range in.Body.Holdings {
		batch[i] = store.Holding{ExternalID: h.ExternalID, Product: h.Product, Since: h.Since, Until: h.Until, Active: h.Active}
	}
	landed, err := s.store.RecordHoldings(ctx, requestOf(ctx).units, batch)
	if err != nil {
		return nil, err
	}
	if err := s.recordLanded(ctx, "holdings.recorded", map[string]any{"rows": len(batch), "written": landed.Written, "unchanged": landed.Unchanged, "rejected": len(landed.Faults)}); err != nil {
		return nil, err
	}
	return RecordHoldings200JSONResponse{Written: landed.Written, Unchanged: landed.Unchanged, Faults: landed.Faults}, nil
}

// AddDoNotContact implements the operation.
func (s *Server) AddDoNotContact(ctx context.Context, in AddDoNotContactRequestObject) (AddDoNotContactResponseObject, error) {
	n, faults, err := s.store.DoNotContact(ctx, in.Body.Unit.Tenant(), in.Body.Numbers, in.Body.Reason, requestOf(ctx).user.Actor())
	if err != nil {
		return nil, err
	}
	return AddDoNotContact200JSONResponse{Changed: n, Faults: faults}, nil
}

// RemoveDoNotContact implements the operation.
func (s *Server) RemoveDoNotContact(ctx context.Context, in RemoveDoNotContactRequestObject) (RemoveDoNotContactResponseObject, error) {
	unit := in.Body.Unit
	if unit != unit.Tenant() {
		return nil, faults([]campaign.FieldError{{Field: "unit", Code: campaign.CodeInvalidParameter, Message: "must be the topmost unit: the list is the whole tenant's"}})
	}
	n, wrong, err := s.store.ContactAgain(ctx, unit, in.Body.Numbers, in.Body.Reason, requestOf(ctx).user.Actor())
	if err != nil {
		return nil, err
	}
	return RemoveDoNotContact200JSONResponse{Changed: n, Faults: wrong}, nil
}

// ListReplyReviews implements the operation.
func (s *Server) ListReplyReviews(ctx context.Context, in ListReplyReviewsRequestObject) (ListReplyReviewsResponseObject, error) {
	const list = "reply reviews"
	limit, after := limitOf(in.Params.Limit)+1, ""
	if _, err := decodeCursor(list, in.Params.Cursor, &after); err != nil {
		return nil, err
	}
	all, err := s.store.ReplyReviews(ctx, requestOf(ctx).units, after, limit)
	if err != nil {
		return nil, err
	}
	page := ReplyReviewPage{Items: []ReplyReview{}}
	if len(all) == limit {
		all = all[:limit-1]
		if page.Next, err = encodeCursor(list, all[len(all)-1].ID); err != nil {
			return nil, err
		}
	}
	for _, v := range all {
		page.Items = append(page.Items, ReplyReview{ID: v.ID, CustomerID: v.CustomerID, Channel: v.Channel, Words: v.Words, At: v.At})
	}
	return ListReplyReviews200JSONResponse(page), nil
}

// DecideReplyReview implements the operation.
func (s *Server) DecideReplyReview(ctx context.Context, in DecideReplyReviewRequestObject) (DecideReplyReviewResponseObject, error) {
	r := requestOf(ctx)
	if err := s.store.DecideReply(ctx, r.units, in.ReplyID, in.Body.Refusal, r.user.Actor()); err != nil {
		return nil, s.refuse(ctx, r, "", err)
	}
	return DecideReplyReview200JSONResponse{Refusal: in.Body.Refusal}, nil
}
