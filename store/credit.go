package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// CreditPool is a pool of prepaid credit, from which the campaigns of a unit and of those
// below it may be paid. Its money is the ledger's.
type CreditPool struct {
	ID       string // UUID
	Unit     campaign.OrgUnit
	Name     string
	Currency string
	OpenedBy string
	OpenedAt time.Time
}

// CreditLedger moves the money of a step as part of a transaction and returns the number of
// its journal.
type CreditLedger func(ctx context.Context, tx pgx.Tx, step campaign.CreditStep) (int64, error)

// OpenCreditPool adds a pool; account opens its account in the ledger, as part of the same
// transaction. A pool of that id that is there already was made by the same request. It
// fails with CodeAlreadyExists when the tenant has another pool of that name.
func (s *Store) OpenCreditPool(ctx context.Context, p CreditPool, by campaign.Actor, account func(context.Context, pgx.Tx) error) error {
	if fault := campaign.TextFault(p.Name); fault != "" {
		return field("name", fault)
	}
	if strings.TrimSpace(p.Name) == "" || utf8.RuneCountInString(p.Name) > 200 {
		return field("name", "must have 1 to 200 characters")
	}
	if _, known := campaign.MinorDigits(p.Currency); !known {
		return field("currency", "must be the code of an active ISO 4217 currency such as CNY")
	}
	err := s.change(ctx, "open credit pool", func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `INSERT INTO credit_pool (id, unit, name, currency, opened_by) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO NOTHING`,
			p.ID, p.Unit, p.Name, p.Currency, by.UserID)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		if err := account(ctx, tx); err != nil {
			return err
		}
		return recordOnce(ctx, tx, byActor(by, "credit.pool_opened", map[string]any{"pool": p.ID, "unit": p.Unit, "name": p.Name, "currency": p.Currency}))
	})
	switch {
	case uniqueViolation(err, "credit_pool_tenant_name_key"):
		return campaign.Errorf(campaign.CodeAlreadyExists, "there is a pool of prepaid credit named %q already", p.Name)
	case foreignKeyViolation(err, "credit_pool_unit_fkey"):
		return field("unit", fmt.Sprintf("there is no org unit %q", p.Unit))
	}
	return err
}

// AllocateCredit adds money to a pool: move does so in the ledger, as part of the
// transaction that records who did it, how much and why. One that was done before under
// the key says so by a journal that is recorded already.
func (s *Store) AllocateCredit(ctx context.Context, poolID string, amount int64, words string, by campaign.Actor, move func(context.Context, pgx.Tx) (int64, error)) error {
	return s.change(ctx, "allocate to credit pool", func(tx pgx.Tx) error {
		journal, err := move(ctx, tx)
		if err != nil {
			return err
		}
		e := byActor(by, "credit.pool_allocated", map[string]any{"pool": poolID, "amount": amount, "words": words, "journal": journal})
		key := fmt.Sprintf("journal:%d", journal)
		e.EventKey = &key
		return recordOnce(ctx, tx, e)
	})
}

const poolColumns = `SELECT id::text, unit, name, currency, opened_by::text, opened_at FROM credit_pool`

// CreditPool returns a pool, or CodeNotFound.
func (s *Store) CreditPool(ctx context.Context, id string) (CreditPool, error) {
	var p CreditPool
	err := s.pool.QueryRow(ctx, poolColumns+` WHERE id = $1`, id).Scan(&p.ID, &p.Unit, &p.Name, &p.Currency, &p.OpenedBy, &p.OpenedAt)
	return p, notFound(err, "pool of prepaid credit")
}

// CreditPools returns the pools of the units, of those below them and of those above them,
// by unit and name.
func (s *Store) CreditPools(ctx context.Context, units []campaign.OrgUnit) ([]CreditPool, error) {
	exact, patterns := below(units)
	for _, u := range units {
		for _, above := range u.Chain() {
			exact = append(exact, string(above))
		}
	}
	rows, err := s.pool.Query(ctx, poolColumns+` WHERE unit = ANY($1) OR unit LIKE ANY($2) ORDER BY unit, name`, exact, patterns)
	if err != nil {
		return nil, fmt.Errorf("list credit pools: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[CreditPool])
	if err != nil {
		return nil, fmt.Errorf("list credit pools: %w", err)
	}
	return all, nil
}

// CreditFaults returns what is wrong with the pools that a plan's lines ask for credit
// from: they must be there, cover the plan's unit and be of its currency.
func (s *Store) CreditFaults(ctx context.Context, p campaign.Plan) ([]campaign.FieldError, error) {
	var faults []campaign.FieldError
	for i, l := range p.Budget {
		if l.Credit == nil {
			continue
		}
		if _, err := uuid.Parse(l.Credit.PoolID); err != nil {
			continue // told by the plan's own check
		}
		at := fmt.Sprintf("budget[%d].credit.pool_id", i)
		pool, err := s.CreditPool(ctx, l.Credit.PoolID)
		switch {
		case err != nil && campaign.CodeOf(err) != campaign.CodeNotFound:
			return nil, err
		case err != nil || !p.Unit.Within(pool.Unit):
			faults = append(faults, campaign.FieldError{
				Field: at, Code: campaign.CodeCreditPoolNotFound, Message: "there is no such pool of prepaid credit for the plan's unit",
			})
		case pool.Currency != p.Currency:
			faults = append(faults, campaign.FieldError{
				Field: at, Code: campaign.CodeCurrencyMismatch, Message: fmt.Sprintf("the pool is in %s, the plan in %s", pool.Currency, p.Currency),
			})
		}
	}
	return faults, nil
}

// CreditLine is a budget line that gives prepaid credit.
type CreditLine struct {
	CampaignID string
	Line       string
	Currency   string
	Outcome    campaign.OutcomeKind // by which a customer earns it
	Offer      campaign.CreditOffer
}

// CreditLines lists the lines of a plan that give prepaid credit.
func CreditLines(campaignID string, p *campaign.Plan) []CreditLine {
	var lines []CreditLine
	for _, l := range p.Budget {
		if l.Credit != nil {
			lines = append(lines, CreditLine{CampaignID: campaignID, Line: l.Line, Currency: p.Currency, Outcome: p.CreditOutcome(l), Offer: *l.Credit})
		}
	}
	return lines
}

// lockedCredit is what a transaction that holds a credit line knows of it.
type lockedCredit struct {
	settled bool
	now     time.Time // of the transaction
}

// lock takes the line for itself until the transaction ends. The first time opens it, and an
// amendment may have raised how many customers it is for.
func (l CreditLine) lock(ctx context.Context, tx pgx.Tx) (k lockedCredit, err error) {
	offer, err := json.Marshal(l.Offer)
	if err != nil {
		return k, fmt.Errorf("write credit offer: %w", err)
	}
	err = tx.QueryRow(ctx, `INSERT INTO credit_line AS c (campaign_id, line, pool_id, currency, offer, customers) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (campaign_id, line) DO UPDATE SET customers = greatest(c.customers, excluded.customers)
		RETURNING settled_at IS NOT NULL, now()`, l.CampaignID, l.Line, l.Offer.PoolID, l.Currency, offer, l.Offer.Customers).Scan(&k.settled, &k.now)
	if err != nil {
		return k, fmt.Errorf("lock credit line: %w", err)
	}
	return k, nil
}

// OpenCredit says that the money of a line is reserved.
func (s *Store) OpenCredit(ctx context.Context, l CreditLine) error {
	return s.inTx(ctx, func(tx pgx.Tx) error {
		_, err := l.lock(ctx, tx)
		return err
	})
}

// PromiseCredit promises a line's credit to treated customers with its outcome who have no
// promise yet, the first first and no more than the offer is for, and returns how many. With
// last nobody is promised any after that.
func (s *Store) PromiseCredit(ctx context.Context, l CreditLine, last bool) (promised int64, err error) {
	err = s.inTx(ctx, func(tx pgx.Tx) error {
		k, err := l.lock(ctx, tx)
		if err != nil || k.settled {
			return err
		}
		// No contact was made before the targets were frozen: an outcome of earlier days is a
		// fault of its source and makes nothing due for them.
		tag, err := tx.Exec(ctx, `
			INSERT INTO credit_grant (campaign_id, line, customer_id, anchor, next_no, due_at, decided_by, promised)
			SELECT $1, $2, e.customer_id, e.anchor, 1, e.anchor, e.anchor, $4 FROM (
			    SELECT t.customer_id, greatest(min(o.at), (SELECT max(frozen_at) FROM selection WHERE campaign_id = $1)) AS anchor
			    FROM campaign_target t JOIN outcome o ON o.campaign_id = $1 AND o.customer_id = t.customer_id AND o.kind = $3
			    WHERE t.campaign_id = $1 AND t.arm = 'treated'
			      AND NOT EXISTS (SELECT FROM credit_grant g WHERE g.campaign_id = $1 AND g.line = $2 AND g.customer_id = t.customer_id)
			    GROUP BY t.customer_id ORDER BY min(o.at), t.customer_id
			    LIMIT (SELECT greatest(c.customers - (SELECT count(*) FROM credit_grant WHERE campaign_id = $1 AND line = $2), 0)
			           FROM credit_line c WHERE c.campaign_id = $1 AND c.line = $2)) e`,
			l.CampaignID, l.Line, l.Outcome, l.Offer.Schedule.Total)
		if err != nil {
			return fmt.Errorf("promise credit: %w", err)
		}
		promised = tag.RowsAffected()
		if last {
			if _, err := tx.Exec(ctx, `UPDATE credit_line SET settled_at = now() WHERE campaign_id = $1 AND line = $2`, l.CampaignID, l.Line); err != nil {
				return fmt.Errorf("settle credit line: %w", err)
			}
		}
		return nil
	})
	return promised, err
}

// EndCredit says that nothing more is granted on a line and nothing expires.
func (s *Store) EndCredit(ctx context.Context, campaignID, line string) error {
	_, err := s.pool.Exec(ctx, `UPDATE credit_line SET ended_at = now() WHERE campaign_id = $1 AND line = $2 AND ended_at IS NULL`, campaignID, line)
	if err != nil {
		return fmt.Errorf("end credit line: %w", err)
	}
	return nil
}
