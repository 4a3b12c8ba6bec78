package api

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/ledger"
	"github.com/musterhq/muster/store"
)

// creditPool is a pool with what the ledger says of it.
func (s *Server) creditPool(ctx context.Context, p store.CreditPool) (CreditPool, error) {
	b, err := s.ledger.Pool(ctx, p.ID)
	return CreditPool{ID: p.ID, Unit: p.Unit, Name: p.Name, Currency: p.Currency, OpenedAt: p.OpenedAt, Figures: CreditPoolFigures{
		Currency: b.Currency, Capacity: b.Capacity, Given: b.Given, Held: b.Held, Available: b.Available,
		Outstanding: b.Outstanding, Used: b.Used, Expired: b.Expired, ClawedBack: b.ClawedBack,
	}}, err
}

// ListCreditPools implements the operation.
func (s *Server) ListCreditPools(ctx context.Context, _ ListCreditPoolsRequestObject) (ListCreditPoolsResponseObject, error) {
	all, err := s.store.CreditPools(ctx, requestOf(ctx).units)
	if err != nil {
		return nil, err
	}
	list := CreditPoolList{Items: []CreditPool{}}
	for _, p := range all {
		pool, err := s.creditPool(ctx, p)
		if err != nil {
			return nil, err
		}
		list.Items = append(list.Items, pool)
	}
	return ListCreditPools200JSONResponse(list), nil
}

// OpenCreditPool implements the operation.
func (s *Server) OpenCreditPool(ctx context.Context, in OpenCreditPoolRequestObject) (OpenCreditPoolResponseObject, error) {
	r, b := requestOf(ctx), in.Body
	p := store.CreditPool{ID: r.resultID, Unit: b.Unit, Name: b.Name, Currency: b.Currency}
	err := s.store.OpenCreditPool(ctx, p, r.user.Actor(), func(ctx context.Context, tx pgx.Tx) error {
		return s.ledger.By(r.user.ID, b.Name).In(tx).OpenPool(ctx, string(b.Unit.Tenant()), p.ID, b.Currency)
	})
	if err != nil {
		return nil, err
	}
	if p, err = s.store.CreditPool(ctx, p.ID); err != nil {
		return nil, err
	}
	pool, err := s.creditPool(ctx, p)
	if err != nil {
		return nil, err
	}
	return OpenCreditPool201JSONResponse(pool), nil
}

// GetCreditPool implements the operation.
func (s *Server) GetCreditPool(ctx context.Context, in GetCreditPoolRequestObject) (GetCreditPoolResponseObject, error) {
	p, err := s.reachPool(ctx, in.PoolID, func(pool, at campaign.OrgUnit) bool { return pool.Within(at) || at.Within(pool) })
	if err != nil {
		return nil, err
	}
	pool, err := s.creditPool(ctx, p)
	if err != nil {
		return nil, err
	}
	return GetCreditPool200JSONResponse(pool), nil
}

// reachPool returns a pool whose unit is in reach of one where the caller may do what they
// ask for. Any other is not found, as one that does not exist.
func (s *Server) reachPool(ctx context.Context, id string, inReach func(pool, at campaign.OrgUnit) bool) (store.CreditPool, error) {
	r := requestOf(ctx)
	p, err := s.store.CreditPool(ctx, id)
	if err != nil {
		return p, err
	}
	if !slices.ContainsFunc(r.units, func(at campaign.OrgUnit) bool { return inReach(p.Unit, at) }) {
		return p, s.refuse(ctx, r, "", campaign.Errorf(campaign.CodeNotFound, "there is no such pool of prepaid credit"))
	}
	return p, nil
}

// AllocateCredit implements the operation.
func (s *Server) AllocateCredit(ctx context.Context, in AllocateCreditRequestObject) (AllocateCreditResponseObject, error) {
	r, b := requestOf(ctx), in.Body
	p, err := s.reachPool(ctx, in.PoolID, campaign.OrgUnit.Within)
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(b.Words) == "" {
		return nil, campaign.Errorf(campaign.CodeReasonRequired, "say why the pool gets more")
	}
	if _, err := s.policies.Require(r.user.ID, r.action, p.Unit, b.Amount); err != nil {
		return nil, s.refuse(ctx, r, "", err)
	}
	money := campaign.Money{Minor: b.Amount, Currency: p.Currency}
	err = s.store.AllocateCredit(ctx, p.ID, b.Amount, b.Words, r.user.Actor(), func(ctx context.Context, tx pgx.Tx) (int64, error) {
		e, err := s.ledger.By(r.user.ID, b.Words).In(tx).Allocate(ctx, "pool:"+r.resultID, ledger.Account{Kind: ledger.KindPool, Owner: p.ID}, money)
		return e.Journal, err
	})
	if err != nil {
		return nil, err
	}
	pool, err := s.creditPool(ctx, p)
	if err != nil {
		return nil, err
	}
	return AllocateCredit200JSONResponse(pool), nil
}

// moveCredit is the ledger as rows of credit see it, on behalf of the caller.
func (s *Server) moveCredit(r *request, reason string) store.CreditLedger {
	return func(ctx context.Context, tx pgx.Tx, step campaign.CreditStep) (int64, error) {
		e, err := s.ledger.By(r.user.ID, reason).In(tx).MoveCredit(ctx, step)
		return e.Journal, err
	}
}

// RecordCreditUses implements the operation.
func (s *Server) RecordCreditUses(ctx context.Context, in RecordCreditUsesRequestObject) (RecordCreditUsesResponseObject, error) {
	r, b := requestOf(ctx), in.Body
	batch := make([]store.CreditUse, len(b.Items))
	var wrong []campaign.FieldError
	for i, u := range b.Items {
		batch[i] = store.CreditUse{
			Reference: u.Reference, GrantID: u.GrantID, CampaignID: u.CampaignID, Customer: u.Customer, Line: u.Line,
			Month: u.Month, Use: u.Use, Spent: u.Spent,
		}
		fault := func(name, message string) {
			if len(wrong) < maxFaults {
				wrong = append(wrong, campaign.FieldError{Field: fmt.Sprintf("items[%d].%s", i, name), Code: campaign.CodeInvalidParameter, Message: message})
			}
		}
		switch named := u.CampaignID != "" || u.Customer != "" || u.Line != ""; {
		case u.GrantID != "" && named:
			fault("grant_id", "says which promise it is; leave campaign_id, customer and line out")
		case u.GrantID == "" && (u.CampaignID == "" || u.Customer == ""):
			fault("grant_id", "is missing; give it, or campaign_id and customer")
		}
		if u.Use > 0 && u.Month == 0 {
			fault("month", "is missing: in which month of the promise was it used?")
		}
	}
	if err := faults(wrong); err != nil {
		return nil, err
	}
	landed, err := s.store.RecordCreditUses(ctx, r.units, r.user.Actor(), b.Source, batch, s.moveCredit(r, "reported by "+b.Source))
	if err != nil {
		return nil, err
	}
	return RecordCreditUses200JSONResponse{Accepted: landed.Accepted, Duplicate: landed.Duplicate, Faults: landed.Faults}, nil
}

// GetCredit implements the operation.
func (s *Server) GetCredit(ctx context.Context, in GetCreditRequestObject) (GetCreditResponseObject, error) {
	figures, err := s.store.CreditFigures(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return GetCredit200JSONResponse{Items: append([]campaign.CreditFigures{}, figures...)}, nil
}

func creditGrantOf(g store.CreditGrant) CreditGrant {
	return CreditGrant{
		ID: g.ID, CustomerID: g.CustomerID, Line: g.Line, State: g.State(), Anchor: g.Anchor, NextInstalment: g.NextNo, DueAt: timeOf(g.DueAt),
		Promised: g.Promised, Granted: g.Granted, Used: g.Used, Expired: g.Expired, ClawedBack: g.ClawedBack,
		Outstanding: g.Outstanding(), Owed: g.Owed(), ClawedBackAt: timeOf(g.ClawedAt),
	}
}

// ListCreditGrants implements the operation.
func (s *Server) ListCreditGrants(ctx context.Context, in ListCreditGrantsRequestObject) (ListCreditGrantsResponseObject, error) {
	limit := limitOf(in.Params.Limit) + 1
	list, after := "credit "+in.ID, store.CreditGrantKey{}
	if _, err := decodeCursor(list, in.Params.Cursor, &after); err != nil {
		return nil, err
	}
	all, err := s.store.CreditGrants(ctx, in.ID, after, limit)
	if err != nil {
		return nil, err
	}
	page := CreditGrantPage{Items: []CreditGrant{}}
	if len(all) == limit {
		all = all[:limit-1]
		last := all[len(all)-1]
		if page.Next, err = encodeCursor(list, store.CreditGrantKey{Line: last.Line, CustomerID: last.CustomerID}); err != nil {
			return nil, err
		}
	}
	for _, g := range all {
		page.Items = append(page.Items, creditGrantOf(g))
	}
	return ListCreditGrants200JSONResponse(page), nil
}

// ClawBackCredit implements the operation.
func (s *Server) ClawBackCredit(ctx context.Context, in ClawBackCreditRequestObject) (ClawBackCreditResponseObject, error) {
	r, words := requestOf(ctx), in.Body.Words
	if strings.TrimSpace(words) == "" {
		return nil, campaign.Errorf(campaign.CodeReasonRequired, "say how the customer broke the contract")
	}
	move := s.moveCredit(r, words)
	// How much is left to take back is known once nobody else changes it.
	limited := func(ctx context.Context, tx pgx.Tx, step campaign.CreditStep) (int64, error) {
		if _, err := s.policies.Require(r.user.ID, r.action, r.campaign.Unit, step.Money.Minor); err != nil {
			return 0, err
		}
		return move(ctx, tx, step)
	}
	g, err := s.store.ClawBackCredit(ctx, in.ID, in.GrantID, words, r.user.Actor(), limited)
	if err != nil {
		return nil, s.refuse(ctx, r, in.ID, err)
	}
	return ClawBackCredit200JSONResponse(creditGrantOf(g)), nil
}
