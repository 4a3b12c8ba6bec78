package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// CreditGrant is the credit that was promised to one customer.
type CreditGrant struct {
	ID         string // UUID
	CustomerID string
	Line       string
	Anchor     time.Time // what instalments are counted from
	NextNo     int       // of the instalment to come; 0 when there is none
	DueAt      *time.Time
	ClawedAt   *time.Time
	campaign.CreditAmounts
}

// State says where the promise stands as a whole.
func (g CreditGrant) State() campaign.CreditState { return g.CreditAmounts.State(g.ClawedAt != nil) }

// Owed is what the customer has to pay back after a broken contract, in minor units.
func (g CreditGrant) Owed() int64 {
	if g.ClawedAt == nil {
		return 0
	}
	return g.Used
}

// CreditGrantKey is the position of a promise in lists.
type CreditGrantKey struct {
	Line       string
	CustomerID string
}

const promiseColumns = `SELECT id::text, customer_id::text, line, anchor, coalesce(next_no, 0), due_at, clawed_at, promised, granted, used, expired, clawed_back FROM credit_grant`

func scanCreditGrant(row pgx.CollectableRow) (g CreditGrant, err error) {
	err = row.Scan(&g.ID, &g.CustomerID, &g.Line, &g.Anchor, &g.NextNo, &g.DueAt, &g.ClawedAt, &g.Promised, &g.Granted, &g.Used, &g.Expired, &g.ClawedBack)
	return g, err
}

// CreditGrants lists up to limit promises of a campaign by line and customer, from the one
// after the key.
func (s *Store) CreditGrants(ctx context.Context, campaignID string, after CreditGrantKey, limit int) ([]CreditGrant, error) {
	rows, err := s.pool.Query(ctx, promiseColumns+` WHERE campaign_id = $1
		AND ($3 = '' OR (line, customer_id) > ($2, nullif($3, '')::uuid)) ORDER BY line, customer_id LIMIT $4`, campaignID, after.Line, after.CustomerID, limit)
	if err != nil {
		return nil, fmt.Errorf("list promises of credit: %w", err)
	}
	all, err := pgx.CollectRows(rows, scanCreditGrant)
	if err != nil {
		return nil, fmt.Errorf("list promises of credit: %w", err)
	}
	return all, nil
}

// CreditFigures says where the prepaid credit of a campaign stands, by line; none before its
// money is reserved.
func (s *Store) CreditFigures(ctx context.Context, campaignID string) ([]campaign.CreditFigures, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT l.line, l.pool_id::text, l.currency, count(g.id), l.customers, coalesce((
		           SELECT a.held FROM ledger_account a WHERE a.owner = l.campaign_id AND a.line = l.line AND a.kind = 'line'), 0),
		       coalesce(sum(g.promised), 0)::bigint, coalesce(sum(g.granted), 0)::bigint, coalesce(sum(g.used), 0)::bigint,
		       coalesce(sum(g.expired), 0)::bigint, coalesce(sum(g.clawed_back), 0)::bigint,
		       coalesce(sum(g.used) FILTER (WHERE g.clawed_at IS NOT NULL), 0)::bigint
		FROM credit_line l LEFT JOIN credit_grant g ON g.campaign_id = l.campaign_id AND g.line = l.line
		WHERE l.campaign_id = $1 GROUP BY l.campaign_id, l.line ORDER BY l.line`, campaignID)
	if err != nil {
		return nil, fmt.Errorf("read figures of credit: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (f campaign.CreditFigures, err error) {
		err = row.Scan(&f.Line, &f.PoolID, &f.Currency, &f.Customers, &f.Most, &f.Reserved, &f.Promised, &f.Granted, &f.Used, &f.Expired, &f.ClawedBack, &f.Owed)
		f.Outstanding = f.CreditAmounts.Outstanding()
		return f, err
	})
	if err != nil {
		return nil, fmt.Errorf("read figures of credit: %w", err)
	}
	return all, nil
}

// ClawBackCredit ends the credit of a customer who broke the contract: what is in the
// customer's account is taken back by the ledger, and no instalment follows. Credit that
// has expired or was clawed back before is CodeStateConflict.
func (s *Store) ClawBackCredit(ctx context.Context, campaignID, grantID, words string, by campaign.Actor, move CreditLedger) (g CreditGrant, err error) {
	err = s.change(ctx, "claw back credit", func(tx pgx.Tx) error {
		l := CreditLine{CampaignID: campaignID}
		err := tx.QueryRow(ctx, `SELECT l.line, l.currency FROM credit_line l JOIN credit_grant g USING (campaign_id, line)
			WHERE g.id = $1 AND g.campaign_id = $2 FOR UPDATE OF l`, grantID, campaignID).Scan(&l.Line, &l.Currency)
		if err != nil {
			return notFound(err, "promise of credit")
		}
		rows, err := tx.Query(ctx, promiseColumns+` WHERE id = $1`, grantID)
		if err != nil {
			return err
		}
		if g, err = pgx.CollectExactlyOneRow(rows, scanCreditGrant); err != nil {
			return err
		}
		was := g.State()
		taken := g.Outstanding()
		// Of credit that was promised and never granted there is nothing to take back: it lapses.
		to := campaign.CreditClawedBack
		if g.Granted == 0 {
			to = campaign.CreditExpired
		}
		if !was.CanFollow(to) {
			return campaign.Errorf(campaign.CodeStateConflict, "the credit is %s already", was)
		}
		data := map[string]any{"grant": grantID, "words": words, "owed": g.Used, "promised": g.Promised}
		journal, err := l.move(ctx, tx, campaign.CreditClawedBack, taken, map[string]any{"customers": 1}, move)
		if err != nil {
			return err
		}
		data["line"], data["amount"] = l.Line, taken
		if journal != nil {
			data["journal"] = *journal
		}
		err = tx.QueryRow(ctx, `UPDATE credit_grant SET clawed_at = now(), clawed_back = clawed_back + $2, promised = 0,
			next_no = NULL, due_at = NULL, decided_by = NULL WHERE id = $1 RETURNING clawed_at`, grantID, taken).Scan(&g.ClawedAt)
		if err != nil {
			return err
		}
		g.ClawedBack, g.Promised, g.NextNo, g.DueAt = g.ClawedBack+taken, 0, 0, nil
		return recordOnce(ctx, tx, CampaignEvent(campaignID, "credit.contract_broken:"+grantID, "credit.contract_broken", by, data))
	})
	return g, err
}
