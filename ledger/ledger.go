// Package ledger keeps the money of campaigns: double entry in minor units, on
// PostgreSQL, written only by the SQL functions of store/migrations.
//
// Money flows down a tree of accounts: from a tenant's source to a programme or a credit
// pool, to a campaign, to its budget lines (Allocate), and back up (Return). On a line it
// is set aside (Reserve) and then spent (Capture) or set free (Release, Expire, Close). A
// capture goes to what the line pays, by its category: a channel, an incentive, a
// supplier, or prepaid credit that a customer was granted and that stays outstanding
// until it ends (EndCredit). Nothing but the source can be overspent, whatever runs at
// the same time, and a mistake is corrected by its opposite alone (Reverse).
//
// Every step carries an idempotency key, unique in the tenant: the same request under
// the same key is done once and answered again; another request under it is CodeKeyReused.
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
type Ledger struct {
	pool          *pgxpool.Pool
	db            querier // the pool, or a transaction
	turns         *turns
	actor, reason string
}

// querier is a pool or a transaction.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// New returns the ledger in the database of pool.
func New(pool *pgxpool.Pool) *Ledger {
	return &Ledger{pool: pool, db: pool, turns: &turns{lines: map[string]*turn{}}}
}

// In returns a ledger whose steps are part of a transaction: they count with the other
// rows that it writes, or not at all.
func (l *Ledger) In(tx pgx.Tx) *Ledger {
	return &Ledger{pool: l.pool, db: tx, turns: l.turns, actor: l.actor, reason: l.reason}
}

// By returns a ledger that notes, with everything it does, the user who asked for it and
// why. Without it the journal names nobody, which means Muster itself.
func (l *Ledger) By(userID, reason string) *Ledger {
	return &Ledger{pool: l.pool, db: l.db, turns: l.turns, actor: userID, reason: reason}
}

// Kind is what an account is for.
type Kind string

// The kinds of accounts. A campaign's account holds what is on none of its lines: its
// contingency.
const (
	KindSource           Kind = "source"
	KindProgramme        Kind = "programme"
	KindPool             Kind = "credit_pool"
	KindCampaign         Kind = "campaign"
	KindLine             Kind = "line"
	KindChannelPayable   Kind = "channel_payable"
	KindIncentivePayable Kind = "incentive_payable"
	KindSupplierPayable  Kind = "supplier_payable"
	KindOutstanding      Kind = "credit_outstanding"
	KindUsed             Kind = "credit_used"
	KindExpired          Kind = "credit_expired"
	KindClawedBack       Kind = "credit_clawed_back"
)

// Account names an account: a programme's or a pool's by its id, a campaign's by the
// campaign's, all others by the campaign's and the budget line.
type Account struct {
	Kind  Kind   `json:"kind"`
	Owner string `json:"owner,omitempty"` // a UUID; empty for a tenant's source
	Line  string `json:"line,omitempty"`
}

// Line names the account of a campaign's budget line.
func Line(campaignID, line string) Account {
	return Account{Kind: KindLine, Owner: campaignID, Line: line}
}

// Entry is what a step left in the journal.
type Entry struct {
	Journal  int64
	Replayed bool // the same request was done before under this key
}

// OpenProgramme opens the account of a programme, which is allocated from the tenant's
// source. Opening again does nothing; another currency is CodeCurrencyMismatch.
func (l *Ledger) OpenProgramme(ctx context.Context, tenant, id, currency string) error {
	return l.do(ctx, "SELECT ledger_open_fund('programme', $1, $2, $3)", tenant, id, currency)
}

// OpenPool opens the account of a pool of prepaid credit, as OpenProgramme does.
func (l *Ledger) OpenPool(ctx context.Context, tenant, id, currency string) error {
	return l.do(ctx, "SELECT ledger_open_fund('credit_pool', $1, $2, $3)", tenant, id, currency)
}

// OpenCampaign opens the account of a campaign, which is allocated from a programme or,
// when that is empty, from the tenant's source. It stays so: another programme later is
// CodeStateConflict.
func (l *Ledger) OpenCampaign(ctx context.Context, id, programme, currency string) error {
	return l.do(ctx, "SELECT ledger_open_campaign($1, $2, $3)", id, optional(programme), currency)
}

// OpenLine opens a budget line of an open campaign. It is allocated from the campaign,
// or from pool when that is not empty, which is for prepaid credit alone. A category that
// has changed since decides where later captures go.
func (l *Ledger) OpenLine(ctx context.Context, campaignID, line string, category campaign.Category, pool string) error {
	return l.do(ctx, "SELECT ledger_open_line($1, $2, $3, $4)", campaignID, line, category, optional(pool))
}

func (l *Ledger) do(ctx context.Context, sql string, args ...any) error {
	_, err := l.db.Exec(ctx, sql, args...)
	return translate(err)
}

// Allocate moves money to a programme, a pool, a campaign or a line from the account
// above it. It fails with CodeBudgetInsufficient and the figure "available" when there is
// less. For a line of a campaign this draws on the contingency.
func (l *Ledger) Allocate(ctx context.Context, key string, to Account, money campaign.Money) (Entry, error) {
	return l.step(ctx, "ledger_allocate($3, $4, $5, $6, $7, $8, $1, $2)", key, to.Kind, to.Owner, to.Line, money.Minor, money.Currency)
}

// Return moves money that an account has available back to the account above it. It
// fails as Allocate does.
func (l *Ledger) Return(ctx context.Context, key string, from Account, money campaign.Money) (Entry, error) {
	return l.step(ctx, "ledger_return($3, $4, $5, $6, $7, $8, $1, $2)", key, from.Kind, from.Owner, from.Line, money.Minor, money.Currency)
}

// Reserve sets allocated money of a budget line aside. It fails with
// CodeBudgetInsufficient and the figure "available" when the line has less.
func (l *Ledger) Reserve(ctx context.Context, key, campaignID, line string, money campaign.Money) (Entry, error) {
	return l.inTurn(ctx, "ledger_reserve($3, $4, $5, $6, $7, $1, $2)", key, campaignID, line, money)
}

// Capture spends reserved money of a budget line: at least one minor unit, so a
// caller with nothing to pay for does not call. It fails with CodeHoldExceeded and
// the figure "reserved" when less is set aside, and with CodeHoldClosed after Close.
func (l *Ledger) Capture(ctx context.Context, key, campaignID, line string, money campaign.Money) (Entry, error) {
	return l.inTurn(ctx, "ledger_capture($3, $4, $5, $6, $7, $1, $2)", key, campaignID, line, money)
}

// Release sets part of a budget line's reserved money free. It fails as Capture does.
func (l *Ledger) Release(ctx context.Context, key, campaignID, line string, money campaign.Money) (Entry, error) {
	return l.step(ctx, "ledger_release($3, 'release', $4, $5, $6, $7, $1, $2)", key, campaignID, line, money.Minor, money.Currency)
}

// Expire sets part of a budget line's reserved money free because the time in which it
// could be spent has passed. It fails as Capture does.
func (l *Ledger) Expire(ctx context.Context, key, campaignID, line string, money campaign.Money) (Entry, error) {
	return l.step(ctx, "ledger_release($3, 'expire', $4, $5, $6, $7, $1, $2)", key, campaignID, line, money.Minor, money.Currency)
}

// Close sets whatever is still reserved on a budget line free, which may be nothing,
// and ends the reservation: later captures are refused.
func (l *Ledger) Close(ctx context.Context, key, campaignID, line, currency string) (Entry, error) {
	return l.step(ctx, "ledger_release($3, 'release', $4, $5, NULL, $6, $1, $2)", key, campaignID, line, currency)
}

// EndCredit ends outstanding credit of a prepaid-credit line: end is KindUsed,
// KindExpired or KindClawedBack. It fails with CodeBudgetInsufficient and the figure
// "available" when less is outstanding.
func (l *Ledger) EndCredit(ctx context.Context, key, campaignID, line string, end Kind, money campaign.Money) (Entry, error) {
	return l.step(ctx, "ledger_end_credit($3, $4, $5, $6, $7, $8, $1, $2)", key, end, campaignID, line, money.Minor, money.Currency)
}

// Reverse takes back an allocation, a return, a capture or an end of credit, once and by
// a journal of its own. The money of a capture is then available on its line. It fails
// with CodeAlreadyReversed, with CodeStateConflict for a journal of another kind, and
// with CodeBudgetInsufficient when the money has moved on.
func (l *Ledger) Reverse(ctx context.Context, key string, journal int64) (Entry, error) {
	return l.step(ctx, "ledger_reverse($3, $4, $1, $2)", key, journal)
}

// CloseAccount ends an account: later steps on it are CodeAccountClosed. It fails with
// CodeStateConflict and the figure "rest" while money that was allocated to it is still
// on it or on the accounts below it.
func (l *Ledger) CloseAccount(ctx context.Context, key string, account Account) (Entry, error) {
	return l.step(ctx, "ledger_close($3, $4, $5, $6, $1, $2)", key, account.Kind, account.Owner, account.Line)
}

// DrawContingency moves contingency of a campaign to one of its lines and reserves it
// there. It fails as Allocate does.
func (l *Ledger) DrawContingency(ctx context.Context, key, campaignID, line string, money campaign.Money) (Entry, error) {
	return l.step(ctx, "ledger_draw_contingency($3, $4, $5, $6, $7, $1, $2)", key, campaignID, line, money.Minor, money.Currency)
}

// inTurn takes a step of its own at a budget line when it is its turn. Within a transaction
// there is no queue: its owner may be at the line already.
func (l *Ledger) inTurn(ctx context.Context, call, key, campaignID, line string, money campaign.Money) (Entry, error) {
	if _, within := l.db.(pgx.Tx); !within {
		leave, err := l.turns.take(ctx, campaignID+" "+line)
		if err != nil {
			return Entry{}, translate(err)
		}
		defer leave()
	}
	return l.step(ctx, call, key, campaignID, line, money.Minor, money.Currency)
}

// step calls a function whose first two arguments are the actor and the reason.
func (l *Ledger) step(ctx context.Context, call string, args ...any) (Entry, error) {
	_, within := l.db.(pgx.Tx) // whose owner begins it again
	for {
		var e Entry
		row := l.db.QueryRow(ctx, "SELECT journal, replayed FROM "+call, append([]any{optional(l.actor), l.reason}, args...)...)
		err := row.Scan(&e.Journal, &e.Replayed)
		var pg *pgconn.PgError
		if overtaken := errors.As(err, &pg) && pg.Code == "40001"; overtaken && !within {
			continue
		}
		if err != nil {
			return Entry{}, translate(err)
		}
		return e, nil
	}
}

// Ceiling is the most that a budget line may cost.
type Ceiling struct {
	Line     string
	Category campaign.Category
	Pool     string // of prepaid credit that pays for the line; empty for the campaign's own money
	Amount   int64  // minor units
	Keep     int64  // of it, what is spent or owed by now; a lower Amount is refused
}

// Budget is what a campaign's plan asks for.
type Budget struct {
	CampaignID  string
	Currency    string
	Programme   string // that pays for it; empty for the tenant's source
	Contingency int64  // minor units beyond the lines, including what was drawn of it already
	Lines       []Ceiling
}

// ReserveAll brings the allocation and the reservation of a campaign to its budget, all of
// it or nothing. What an earlier budget asked for is not asked for again: a repetition does
// nothing, a higher ceiling adds the difference, and a lower one of the campaign's own
// money goes back to where it came from. It returns the minor units that were newly
// reserved, and fails with CodeBudgetInsufficient and the figure "available" when the
// programme or pool has less, or when a line has spent more than it would keep.
func (l *Ledger) ReserveAll(ctx context.Context, b Budget) (int64, error) {
	lines, categories := make([]string, len(b.Lines)), make([]string, len(b.Lines))
	pools, amounts, keeps := make([]*string, len(b.Lines)), make([]int64, len(b.Lines)), make([]int64, len(b.Lines))
	for i, c := range b.Lines {
		lines[i], categories[i], pools[i], amounts[i], keeps[i] = c.Line, string(c.Category), optional(c.Pool), c.Amount, c.Keep
	}
	var added int64
	err := l.db.QueryRow(ctx, "SELECT ledger_fit_budget($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
		b.CampaignID, optional(b.Programme), b.Currency, b.Contingency, lines, categories, pools, amounts, keeps, optional(l.actor), l.reason).Scan(&added)
	return added, translate(err)
}

// CloseAll closes the reservations of all lines of a campaign that are still open,
// in one transaction.
func (l *Ledger) CloseAll(ctx context.Context, campaignID string) error {
	return l.do(ctx, "SELECT ledger_close_holds($1, $2, $3)", campaignID, optional(l.actor), l.reason)
}

// Finish returns what a campaign has available, on its lines and as contingency, to
// where it came from, so that a programme can give it to others. What is still held
// stays. It returns the minor units that left the campaign.
func (l *Ledger) Finish(ctx context.Context, campaignID string) (int64, error) {
	var returned int64
	err := l.db.QueryRow(ctx, "SELECT ledger_finish($1, $2, $3)", campaignID, optional(l.actor), l.reason).Scan(&returned)
	return returned, translate(err)
}

// Drain returns what a programme has available to the tenant's source, which may be
// nothing; what its campaigns hold stays. It returns the minor units that left it.
func (l *Ledger) Drain(ctx context.Context, programme string) (int64, error) {
	var returned int64
	err := l.db.QueryRow(ctx, "SELECT ledger_drain($1, $2, $3)", programme, optional(l.actor), l.reason).Scan(&returned)
	return returned, translate(err)
}

// optional turns an empty identifier into NULL.
func optional(id string) *string {
	if id == "" {
		return nil
	}
	return &id
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
	"ML008": campaign.CodeAlreadyReversed,
	"ML009": campaign.CodeAccountClosed,
	"ML010": campaign.CodeStateConflict,
	"ML011": campaign.CodeInvalidParameter,
	"22003": campaign.CodeAmountOutOfRange, // a balance would leave 64 bits
	"22P02": campaign.CodeInvalidParameter, // an id is no UUID
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
