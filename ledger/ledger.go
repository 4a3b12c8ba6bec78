// Package ledger keeps the money of campaigns: double entry in minor units, on
// PostgreSQL, written only by the SQL functions of store/migrations/00002_ledger.sql.
//
// A budget line's money passes four steps. Allocate moves it from the tenant's
// source account to the line, Reserve sets it aside, Capture spends what is set
// aside, Release sets it free again. No line can be overspent, whatever runs at the
// same time. Every step carries an idempotency key, unique in the tenant: the same
// request under the same key is done once and answered again; another request under
// it is CodeKeyReused.
package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/musterhq/muster/campaign"
)

// Ledger works on one database.
type Ledger struct{ pool *pgxpool.Pool }

// New returns the ledger in the database of pool.
func New(pool *pgxpool.Pool) *Ledger { return &Ledger{pool: pool} }

// Entry is what a step left in the journal.
type Entry struct {
	Journal  int64
	Replayed bool // the same request was done before under this key
}

// Allocate moves money from the tenant's source account to a budget line, which it
// opens when it is new. A line has one currency for good: another is
// CodeCurrencyMismatch.
func (l *Ledger) Allocate(ctx context.Context, key, campaignID, line string, money campaign.Money) (Entry, error) {
	return l.step(ctx, "SELECT journal, replayed FROM ledger_allocate($1, $2, $3, $4, $5)", key, campaignID, line, money.Minor, money.Currency)
}

// Reserve sets allocated money of a budget line aside. It fails with
// CodeBudgetInsufficient and the figure "available" when the line has less.
func (l *Ledger) Reserve(ctx context.Context, key, campaignID, line string, money campaign.Money) (Entry, error) {
	return l.step(ctx, "SELECT journal, replayed FROM ledger_reserve($1, $2, $3, $4, $5)", key, campaignID, line, money.Minor, money.Currency)
}

// Capture spends reserved money of a budget line: at least one minor unit, so a
// caller with nothing to pay for does not call. It fails with CodeHoldExceeded and
// the figure "reserved" when less is set aside, and with CodeHoldClosed after Close.
func (l *Ledger) Capture(ctx context.Context, key, campaignID, line string, money campaign.Money) (Entry, error) {
	return l.step(ctx, "SELECT journal, replayed FROM ledger_capture($1, $2, $3, $4, $5)", key, campaignID, line, money.Minor, money.Currency)
}

// Release sets part of a budget line's reserved money free. It fails as Capture does.
func (l *Ledger) Release(ctx context.Context, key, campaignID, line string, money campaign.Money) (Entry, error) {
	return l.step(ctx, "SELECT journal, replayed FROM ledger_release($1, $2, $3, $4, $5)", key, campaignID, line, money.Minor, money.Currency)
}

// Close sets whatever is still reserved on a budget line free, which may be nothing,
// and ends the reservation: later captures are refused.
func (l *Ledger) Close(ctx context.Context, key, campaignID, line, currency string) (Entry, error) {
	return l.step(ctx, "SELECT journal, replayed FROM ledger_release($1, $2, $3, NULL, $4)", key, campaignID, line, currency)
}

func (l *Ledger) step(ctx context.Context, sql string, args ...any) (Entry, error) {
	var e Entry
	if err := l.pool.QueryRow(ctx, sql, args...).Scan(&e.Journal, &e.Replayed); err != nil {
		return Entry{}, translate(err)
	}
	return e, nil
}

// Ceiling is the most that a budget line may cost.
type Ceiling struct {
	Line   string
	Amount int64 // minor units
}

// ReserveAll brings the allocation and the reservation of the lines up to their
// ceilings, all of them or none. A repetition does nothing; after an amendment a
// higher ceiling adds the difference and a lower one takes nothing away. It returns
// the minor units that were newly reserved.
func (l *Ledger) ReserveAll(ctx context.Context, campaignID, currency string, ceilings []Ceiling) (int64, error) {
	lines := make([]string, len(ceilings))
	amounts := make([]int64, len(ceilings))
	for i, c := range ceilings {
		lines[i], amounts[i] = c.Line, c.Amount
	}
	var added int64
	err := l.pool.QueryRow(ctx, "SELECT ledger_reserve_ceilings($1, $2, $3, $4)", campaignID, currency, lines, amounts).Scan(&added)
	if err != nil {
		return 0, translate(err)
	}
	return added, nil
}

// CloseAll closes the reservations of all lines of a campaign that are still open,
// in one transaction.
func (l *Ledger) CloseAll(ctx context.Context, campaignID string) error {
	_, err := l.pool.Exec(ctx, `
		SELECT ledger_release(format('close:%s:%s:%s', o.campaign_id, o.line, o.hold), o.campaign_id, o.line, NULL, o.currency)
		FROM (SELECT a.campaign_id, a.line, a.currency, h.id AS hold
		      FROM ledger_account a JOIN ledger_hold h ON h.account_id = a.id AND h.closed_at IS NULL
		      WHERE a.campaign_id = $1 ORDER BY a.line) o`, campaignID)
	return translate(err)
}

// LineBalance is where a budget line stands, in minor units. What was allocated is
// captured, held or available.
type LineBalance struct {
	Line      string `json:"line"`
	Currency  string `json:"currency"`
	Allocated int64  `json:"allocated"`
	Held      int64  `json:"held"`     // reserved and neither captured nor released
	Captured  int64  `json:"captured"` // spent
	Released  int64  `json:"released"` // set free again, over time
	Available int64  `json:"available"`
}

// Balances returns the lines of a campaign in the order of their names, none when
// nothing was ever allocated.
func (l *Ledger) Balances(ctx context.Context, campaignID string) ([]LineBalance, error) {
	rows, err := l.pool.Query(ctx, `
		SELECT a.line, a.currency, a.posted + p.posted AS allocated, a.held, p.posted AS captured,
		       coalesce((SELECT sum(h.released) FROM ledger_hold h WHERE h.account_id = a.id), 0)::bigint AS released,
		       a.posted - a.held - a.floor AS available
		FROM ledger_account a
		JOIN ledger_account p ON p.campaign_id = a.campaign_id AND p.line = a.line AND p.kind = 'payable'
		WHERE a.campaign_id = $1 AND a.kind = 'line' ORDER BY a.line`, campaignID)
	if err != nil {
		return nil, translate(err)
	}
	balances, err := pgx.CollectRows(rows, pgx.RowToStructByName[LineBalance])
	if err != nil {
		return nil, translate(err)
	}
	return balances, nil
}

// codes maps the SQLSTATEs that the ledger's functions raise.
var codes = map[string]campaign.Code{
	"ML001": campaign.CodeBudgetInsufficient,
	"ML002": campaign.CodeHoldExceeded,
	"ML003": campaign.CodeHoldClosed,
	"ML004": campaign.CodeKeyReused,
	"ML005": campaign.CodeAmountOutOfRange,
	"ML006": campaign.CodeCurrencyMismatch,
	"ML007": campaign.CodeNotFound,
	"22003": campaign.CodeAmountOutOfRange, // a balance would leave 64 bits
	"22P02": campaign.CodeInvalidParameter, // the campaign's id is no UUID
}

func translate(err error) error {
	if err == nil {
		return nil
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return fmt.Errorf("reach the ledger: %w", err)
	}
	code, ok := codes[pg.Code]
	if !ok {
		return fmt.Errorf("ledger: %w", err)
	}
	e := &campaign.Error{Code: code, Message: pg.Message, Err: err}
	if pg.Detail != "" {
		var figures map[string]any
		if json.Unmarshal([]byte(pg.Detail), &figures) == nil {
			e.Details = figures
		}
	}
	return e
}
