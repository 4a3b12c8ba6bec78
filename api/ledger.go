package api

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/assertion"
	"github.com/musterhq/muster/audit"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/ledger"
	"github.com/musterhq/muster/store"
)

// GetLedger implements the operation.
func (s *Server) GetLedger(ctx context.Context, in GetLedgerRequestObject) (GetLedgerResponseObject, error) {
	c := requestOf(ctx).campaign
	out := CampaignLedger{Lines: []LineBalance{}, Draws: []ContingencyDraw{}}
	plan, err := s.store.LoadPlan(ctx, campaign.PlanRef{CampaignID: c.ID, Revision: max(c.Revision, 1)})
	if err != nil {
		return nil, err
	}
	out.ProgrammeID = plan.Plan.ProgrammeID
	own, err := s.ledger.Campaign(ctx, in.ID)
	switch {
	case campaign.CodeOf(err) == campaign.CodeNotFound: // nothing was reserved yet
	case err != nil:
		return nil, err
	default:
		out.Contingency = fundOf(own)
	}
	lines, err := s.ledger.Balances(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	for _, l := range lines {
		out.Lines = append(out.Lines, LineBalance{
			Line: l.Line, Currency: l.Currency, Allocated: l.Allocated, Held: l.Held, Captured: l.Captured, Released: l.Released, Returned: l.Returned,
			Available: l.Available, Outstanding: l.Outstanding, Used: l.Used, Expired: l.Expired, ClawedBack: l.ClawedBack,
		})
	}
	draws, err := s.store.ContingencyDraws(ctx, in.ID)
	for _, d := range draws {
		out.Draws = append(out.Draws, drawOf(d))
	}
	return GetLedger200JSONResponse(out), err
}

// ListLedgerEntries implements the operation.
func (s *Server) ListLedgerEntries(ctx context.Context, in ListLedgerEntriesRequestObject) (ListLedgerEntriesResponseObject, error) {
	list := "ledger " + in.ID
	var after int64
	if _, err := decodeCursor(list, in.Params.Cursor, &after); err != nil {
		return nil, err
	}
	limit := limitOf(in.Params.Limit)
	all, err := s.ledger.Entries(ctx, in.ID, after, limit+1)
	if err != nil {
		return nil, err
	}
	page := LedgerPage{Items: []LedgerEntry{}}
	if len(all) > limit {
		all = all[:limit]
		if page.Next, err = encodeCursor(list, all[limit-1].Journal); err != nil {
			return nil, err
		}
	}
	for _, e := range all {
		entry := LedgerEntry{
			Journal: e.Journal, At: e.At, Kind: e.Kind, From: accountOf(e.From), Amount: e.Amount, Currency: e.Currency, Reverses: e.Reverses,
			Actor: e.Actor, Reason: e.Reason,
		}
		if e.To != nil {
			to := accountOf(*e.To)
			entry.To = &to
		}
		page.Items = append(page.Items, entry)
	}
	return ListLedgerEntries200JSONResponse(page), nil
}

func fundOf(b ledger.FundBalance) *FundBalance {
	return &FundBalance{Currency: b.Currency, Allocated: b.Allocated, Given: b.Given, Spent: b.Spent, Returned: b.Returned, Available: b.Available}
}

func accountOf(a ledger.Account) LedgerAccount {
	return LedgerAccount{Kind: string(a.Kind), Owner: a.Owner, Line: a.Line}
}

// ledgerProgramme names the account of a programme.
func ledgerProgramme(id string) ledger.Account {
	return ledger.Account{Kind: ledger.KindProgramme, Owner: id}
}

func drawOf(d store.ContingencyDraw) ContingencyDraw {
	return ContingencyDraw{
		ID: d.ID, Line: d.Line, Amount: d.Amount, Currency: d.Currency, User: Person{ID: d.UserID, Name: d.Name}, Words: d.Words, Journal: d.JournalID, At: d.At,
	}
}

// DrawContingency implements the operation. The channels that wait for money ask for it
// themselves.
func (s *Server) DrawContingency(ctx context.Context, in DrawContingencyRequestObject) (DrawContingencyResponseObject, error) {
	r, b := requestOf(ctx), in.Body
	c := r.campaign
	words := strings.TrimSpace(b.Words)
	switch {
	case words == "":
		return nil, campaign.Errorf(campaign.CodeReasonRequired, "say why the line needs contingency")
	case b.Amount < 1:
		return nil, faults([]campaign.FieldError{{Field: "amount", Code: campaign.CodeAmountOutOfRange, Message: "must be 1 or more minor units"}})
	}
	r.command = "draw_contingency"
	if err := admits(c, campaign.ActBudgetDraw); err != nil {
		return nil, s.refuse(ctx, r, c.ID, err)
	}
	by, err := s.policies.Require(r.user.ID, r.action, c.Unit, b.Amount)
	if err != nil {
		return nil, s.refuse(ctx, r, c.ID, err)
	}
	plan, err := s.store.LoadPlan(ctx, campaign.PlanRef{CampaignID: c.ID, Revision: c.Revision})
	if err != nil {
		return nil, err
	}
	d := store.ContingencyDraw{
		ID: r.resultID, CampaignID: c.ID, Line: b.Line, Amount: b.Amount, Currency: plan.Plan.Currency, UserID: r.user.ID, Role: by.Role, Unit: by.Unit,
		Authority: by.Limit, PolicyVersion: s.policies.Version(c.Unit), Words: words, IssuedAt: time.Now().UTC().Truncate(time.Second),
	}
	claims, err := audit.DrawClaims(d)
	if err != nil {
		return nil, err
	}
	ring := s.keys.Ring()
	d.KeyID = ring.SignerID(d.IssuedAt)
	if d.Assertion, err = assertion.Sign(ring, claims); err != nil {
		return nil, err
	}
	drawn, err := s.store.DrawContingency(ctx, d, r.user.Actor(), func(tx pgx.Tx) (int64, error) {
		entry, err := s.ledger.In(tx).By(r.user.ID, words).
			DrawContingency(ctx, fmt.Sprintf("contingency:%s", d.ID), c.ID, d.Line, campaign.Money{Minor: d.Amount, Currency: d.Currency})
		return entry.Journal, err
	})
	if err != nil {
		return nil, s.refuse(ctx, r, c.ID, err)
	}
	return DrawContingency201JSONResponse(drawOf(drawn)), nil
}
