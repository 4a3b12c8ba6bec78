package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// ContingencyDraw is money that somebody gave to a budget line out of its campaign's
// contingency; it never changes.
type ContingencyDraw struct {
	ID            string // UUID
	CampaignID    string
	Line          string
	Amount        int64 // minor units
	Currency      string
	UserID        string
	Name          string // of the user
	Role          campaign.Role
	Unit          campaign.OrgUnit
	Authority     string // the limit as it was then
	PolicyVersion string
	Words         string
	IssuedAt      time.Time // of the assertion, in whole seconds
	Assertion     string    // the API's signature over who drew what and why
	KeyID         string
	JournalID     int64 // of the step in the ledger
	At            time.Time
}

// DrawContingency keeps a draw, once, together with the step that move makes in the ledger:
// both count or neither. It fails with CodeStateConflict unless the campaign is running,
// with CodeInvalidParameter and the lines there are when the plan in force has no such line,
// with CodeSelfApproval when the person asked for an approval of the campaign or wrote one
// of its plans, and with CodeLimitExceeded when all that they drew for the campaign would be
// more than their limit.
func (s *Store) DrawContingency(ctx context.Context, d ContingencyDraw, by campaign.Actor, move func(pgx.Tx) (journal int64, err error)) (ContingencyDraw, error) {
	err := s.change(ctx, "draw contingency", func(tx pgx.Tx) error {
		var stage campaign.Stage
		var hold campaign.Hold
		var inForce, newest int
		var asked bool
		// The campaign's row keeps it from ending meanwhile, and draws one after the other.
		err := tx.QueryRow(ctx, `SELECT stage, hold, revision, draft_revision,
				EXISTS (SELECT FROM approval_round r WHERE r.campaign_id = c.id AND r.requester = $2) FROM campaign c WHERE id = $1 FOR NO KEY UPDATE`,
			d.CampaignID, by.UserID).Scan(&stage, &hold, &inForce, &newest, &asked)
		if err != nil {
			return notFound(err, "campaign")
		}
		if done, err := readDraws(ctx, tx, `WHERE d.id = $1`, d.ID); err != nil || len(done) > 0 {
			return err
		}
		if err := (campaign.Status{Stage: stage, Hold: hold}).Admits(campaign.ActBudgetDraw); err != nil {
			return err
		}
		authors, err := planAuthors(ctx, tx, d.CampaignID, newest)
		if err != nil {
			return err
		}
		if asked || authors[by.UserID] {
			return campaign.Errorf(campaign.CodeSelfApproval, "nobody gives money to a campaign that they submitted or edited themselves")
		}
		plan, err := loadPlan(ctx, tx, campaign.PlanRef{CampaignID: d.CampaignID, Revision: inForce})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(plan.Plan.Budget, func(l campaign.BudgetLine) bool { return l.Line == d.Line }) {
			return unknownLine(plan.Plan.Budget)
		}
		if err := withinLimit(ctx, tx, d, by); err != nil {
			return err
		}
		if d.JournalID, err = move(tx); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO contingency_draw (id, campaign_id, line, amount, currency, user_id, role, unit, authority, policy_version, words,
				issued_at, assertion, key_id, journal_id)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`,
			d.ID, d.CampaignID, d.Line, d.Amount, d.Currency, by.UserID, d.Role, d.Unit, d.Authority, d.PolicyVersion, d.Words,
			d.IssuedAt, d.Assertion, d.KeyID, d.JournalID)
		if err != nil {
			return err
		}
		err = recordOnce(ctx, tx, CampaignEvent(d.CampaignID, "contingency:"+d.ID, "contingency.drawn", by, map[string]any{
			"draw": d.ID, "line": d.Line, "amount": d.Amount, "currency": d.Currency, "words": d.Words, "policy_version": d.PolicyVersion,
		}))
		if err != nil {
			return err
		}
		return notify(ctx, tx, "campaign", d.CampaignID, 0)
	})
	if err != nil {
		return d, err
	}
	kept, err := readDraws(ctx, s.pool, `WHERE d.id = $1`, d.ID)
	if err != nil || len(kept) == 0 {
		return d, errors.Join(err, notFound(pgx.ErrNoRows, "draw"))
	}
	return kept[0], nil
}

// withinLimit counts what the person drew before: a limit is not one for each draw.
func withinLimit(ctx context.Context, tx pgx.Tx, d ContingencyDraw, by campaign.Actor) error {
	if d.Authority == "*" {
		return nil
	}
	limit, err := strconv.ParseInt(d.Authority, 10, 64)
	if err != nil {
		return err
	}
	var drawn int64
	err = tx.QueryRow(ctx, `SELECT coalesce(sum(amount), 0)::bigint FROM contingency_draw WHERE campaign_id = $1 AND user_id = $2`, d.CampaignID, by.UserID).Scan(&drawn)
	if err != nil {
		return err
	}
	if total, err := campaign.AddMinor(drawn, d.Amount); err != nil || total > limit {
		return campaign.Errorf(campaign.CodeLimitExceeded, "you may draw up to %d minor units for a campaign; you drew %d, and this is %d more", limit, drawn, d.Amount).
			With("limit", limit).With("drawn", drawn).With("amount", d.Amount)
	}
	return nil
}

func unknownLine(budget []campaign.BudgetLine) error {
	fault := campaign.FieldError{Field: "line", Code: campaign.CodeInvalidParameter, Message: "is no budget line of the plan in force"}
	for _, l := range budget {
		fault.Allowed = append(fault.Allowed, l.Line)
	}
	return &campaign.Error{Code: fault.Code, Message: "1 field is at fault", Fields: []campaign.FieldError{fault}}
}

// ContingencyDraws returns what was drawn of a campaign's contingency, the oldest first.
func (s *Store) ContingencyDraws(ctx context.Context, campaignID string) ([]ContingencyDraw, error) {
	return readDraws(ctx, s.pool, `WHERE d.campaign_id = $1 ORDER BY d.at, d.id`, campaignID)
}

func readDraws(ctx context.Context, q querier, which string, args ...any) ([]ContingencyDraw, error) {
	rows, err := q.Query(ctx, `SELECT d.id::text, d.campaign_id::text, d.line, d.amount, d.currency, d.user_id::text, u.name, d.role, d.unit, d.authority,
			d.policy_version, d.words, d.issued_at, d.assertion, d.key_id, d.journal_id, d.at
		FROM contingency_draw d JOIN app_user u ON u.id = d.user_id `+which, args...)
	if err != nil {
		return nil, fmt.Errorf("read draws: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ContingencyDraw])
	if err != nil {
		return nil, fmt.Errorf("read draws: %w", err)
	}
	return all, nil
}

// Funded returns a budget line of a campaign with what it may spend by now: the amount of
// its plan and what was drawn for it from the contingency.
func (s *Store) Funded(ctx context.Context, campaignID string, line campaign.BudgetLine) (campaign.BudgetLine, error) {
	return funded(ctx, s.pool, campaignID, line)
}

func funded(ctx context.Context, q querier, campaignID string, line campaign.BudgetLine) (campaign.BudgetLine, error) {
	var drawn int64
	err := q.QueryRow(ctx, `SELECT coalesce(sum(amount), 0)::bigint FROM contingency_draw WHERE campaign_id = $1 AND line = $2`, campaignID, line.Line).Scan(&drawn)
	if err != nil {
		return line, fmt.Errorf("read draws: %w", err)
	}
	line.Amount, err = campaign.AddMinor(line.Amount, drawn)
	return line, err
}
