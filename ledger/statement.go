package ledger

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// LineBalance is where a budget line stands, in minor units. What was allocated is
// captured, held, returned or available.
type LineBalance struct {
	Line      string `json:"line"`
	Currency  string `json:"currency"`
	Allocated int64  `json:"allocated"`
	Held      int64  `json:"held"`     // reserved and neither captured nor released
	Captured  int64  `json:"captured"` // spent, or granted as credit
	Released  int64  `json:"released"` // set free again, over time
	Returned  int64  `json:"returned"` // to where it was allocated from
	Available int64  `json:"available"`
	Credit
}

// Credit is what became of granted prepaid credit, in minor units: together they are
// what was captured.
type Credit struct {
	Outstanding int64 `json:"outstanding"` // the liability: granted and not ended yet
	Used        int64 `json:"used"`
	Expired     int64 `json:"expired"`
	ClawedBack  int64 `json:"clawed_back"`
}

// ended sums up what became of credit.
const ended = `
	coalesce(sum(c.posted) FILTER (WHERE c.kind = 'credit_outstanding'), 0)::bigint AS outstanding,
	coalesce(sum(c.posted) FILTER (WHERE c.kind = 'credit_used'), 0)::bigint AS used,
	coalesce(sum(c.posted) FILTER (WHERE c.kind = 'credit_expired'), 0)::bigint AS expired,
	coalesce(sum(c.posted) FILTER (WHERE c.kind = 'credit_clawed_back'), 0)::bigint AS clawed_back`

// Balances returns the lines of a campaign in the order of their names, none when
// no line was ever opened.
func (l *Ledger) Balances(ctx context.Context, campaignID string) ([]LineBalance, error) {
	rows, err := l.db.Query(ctx, `
		SELECT a.line, a.currency, a.posted + a.captured + a.returned AS allocated, a.held, a.captured, a.released, a.returned,
		       a.posted - a.held AS available,`+ended+`
		FROM ledger_account a LEFT JOIN ledger_account c ON c.owner = a.owner AND c.line = a.line
		WHERE a.owner = $1 AND a.kind = 'line' GROUP BY a.id ORDER BY a.line`, campaignID)
	if err != nil {
		return nil, translate(err)
	}
	balances, err := pgx.CollectRows(rows, pgx.RowToStructByName[LineBalance])
	return balances, translate(err)
}

// FundBalance is where a programme or a campaign's own account stands, in minor units.
// What was allocated is given, returned or available.
type FundBalance struct {
	Currency  string `json:"currency"`
	Allocated int64  `json:"allocated"`
	Given     int64  `json:"given"`     // to campaigns, or to lines, and not returned by them
	Spent     int64  `json:"spent"`     // captured, of what was given
	Returned  int64  `json:"returned"`  // to where it was allocated from
	Available int64  `json:"available"` // of a campaign: its contingency
}

// below lists the accounts that a fund's money has reached.
const below = `WITH RECURSIVE fund AS (SELECT * FROM ledger_account WHERE kind = $1 AND owner = $2 AND line = ''),
	below AS (
		SELECT a.* FROM ledger_account a JOIN fund f ON a.parent = f.id
		UNION ALL
		SELECT a.* FROM ledger_account a JOIN below b ON a.parent = b.id)`

// Programme says where a programme stands. It fails with CodeNotFound when its account
// was never opened.
func (l *Ledger) Programme(ctx context.Context, id string) (FundBalance, error) {
	return l.fund(ctx, KindProgramme, id)
}

// Campaign says where a campaign's own account stands. It fails as Programme does.
func (l *Ledger) Campaign(ctx context.Context, id string) (FundBalance, error) {
	return l.fund(ctx, KindCampaign, id)
}

func (l *Ledger) fund(ctx context.Context, kind Kind, id string) (FundBalance, error) {
	return one[FundBalance](ctx, l, below+`
		SELECT f.currency, f.posted + f.returned + coalesce(sum(b.posted + b.captured), 0)::bigint AS allocated,
		       coalesce(sum(b.posted + b.captured), 0)::bigint AS given, coalesce(sum(b.captured), 0)::bigint AS spent,
		       f.returned, f.posted - f.held AS available
		FROM fund f LEFT JOIN below b ON true GROUP BY f.currency, f.posted, f.returned, f.held`, kind, id)
}

// PoolBalance is where a pool of prepaid credit stands, in minor units. Its capacity is
// given to lines or available.
type PoolBalance struct {
	Currency  string `json:"currency"`
	Capacity  int64  `json:"capacity"` // allocated to the pool and not returned by it
	Given     int64  `json:"given"`    // to lines and not returned by them
	Held      int64  `json:"held"`     // of that: reserved and not granted yet
	Available int64  `json:"available"`
	Credit
}

// Pool says where a pool of prepaid credit stands. It fails as Programme does.
func (l *Ledger) Pool(ctx context.Context, id string) (PoolBalance, error) {
	return one[PoolBalance](ctx, l, below+`, lines AS (
			SELECT coalesce(sum(posted + captured), 0)::bigint AS given, coalesce(sum(held), 0)::bigint AS held FROM below)
		SELECT f.currency, f.posted + l.given AS capacity, l.given, l.held, f.posted AS available,`+ended+`
		FROM fund f CROSS JOIN lines l LEFT JOIN below b ON true LEFT JOIN ledger_account c ON c.owner = b.owner AND c.line = b.line
		GROUP BY f.currency, f.posted, l.given, l.held`, KindPool, id)
}

func one[T any](ctx context.Context, l *Ledger, sql string, args ...any) (T, error) {
	rows, err := l.db.Query(ctx, sql, args...)
	if err == nil {
		var found T
		if found, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[T]); err == nil {
			return found, nil
		}
	}
	var none T
	if errors.Is(err, pgx.ErrNoRows) {
		return none, campaign.Errorf(campaign.CodeNotFound, "the ledger has no such account")
	}
	return none, translate(err)
}

// Record is one row of the journal, for people who check it.
type Record struct {
	Journal  int64     `json:"journal"` // numbers grow with time
	At       time.Time `json:"at"`
	Key      string    `json:"key"`
	Kind     string    `json:"kind"` // what was done, e.g. "capture"
	From     Account   `json:"from"`
	To       *Account  `json:"to,omitempty"` // nil where money was only set aside or set free
	Amount   int64     `json:"amount"`       // minor units
	Currency string    `json:"currency"`
	Reverses int64     `json:"reverses,omitempty"` // the journal that this one takes back
	Actor    string    `json:"actor,omitempty"`    // the user who asked for it; empty for Muster itself
	Reason   string    `json:"reason,omitempty"`
}

// Entries returns up to limit rows of the journal that touch the accounts of a campaign,
// a programme or a pool, oldest first, from the one after the journal number after.
func (l *Ledger) Entries(ctx context.Context, owner string, after int64, limit int) ([]Record, error) {
	rows, err := l.db.Query(ctx, `
		WITH own AS (SELECT id FROM ledger_account WHERE owner = $1),
		found AS (
			SELECT j.id FROM own o CROSS JOIN LATERAL (SELECT id FROM ledger_journal WHERE from_id = o.id AND id > $2 ORDER BY id LIMIT $3) j
			UNION
			SELECT j.id FROM own o CROSS JOIN LATERAL (SELECT id FROM ledger_journal WHERE to_id = o.id AND id > $2 AND kind <> 'capture' ORDER BY id LIMIT $3) j)
		SELECT j.id, j.at, j.key, j.kind, f.kind, coalesce(f.owner::text, ''), f.line, t.kind, coalesce(t.owner::text, ''), coalesce(t.line, ''), j.amount, f.currency,
		       coalesce(j.reverses, 0), coalesce(j.actor::text, ''), j.reason
		FROM ledger_journal j JOIN ledger_account f ON f.id = j.from_id LEFT JOIN ledger_account t ON t.id = j.to_id
		WHERE j.id IN (SELECT id FROM found) ORDER BY j.id LIMIT $3`, owner, after, limit)
	if err != nil {
		return nil, translate(err)
	}
	records, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Record, error) {
		var r Record
		var to Account
		var toKind *Kind
		err := row.Scan(&r.Journal, &r.At, &r.Key, &r.Kind, &r.From.Kind, &r.From.Owner, &r.From.Line, &toKind, &to.Owner, &to.Line,
			&r.Amount, &r.Currency, &r.Reverses, &r.Actor, &r.Reason)
		if toKind != nil {
			to.Kind = *toKind
			r.To = &to
		}
		return r, err
	})
	return records, translate(err)
}
