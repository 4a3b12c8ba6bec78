package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// decided is an instalment of one customer, worked out.
type decided struct {
	grant             string
	anchor, due       time.Time
	no                int
	granted           int64
	use               *int64 // of the month before, where it was reported
	amount            int64
	rest              int64
	nextDue, decideBy *time.Time
}

// decide works out what the instalment grants and when the next one is due.
func (d *decided) decide(o campaign.CreditOffer) (err error) {
	var use int64
	if d.no == 1 || !o.Schedule.FollowsUse() {
		d.use = nil
	} else if d.use != nil {
		use = *d.use
	} else {
		d.use = &use
	}
	if d.amount, err = o.Schedule.Due(d.no, use, d.granted); err != nil {
		return err
	}
	if d.rest = o.Schedule.Rest(d.no+1, d.granted+d.amount); d.rest > 0 {
		due, by := o.DueAt(d.anchor, d.no+1), o.DecidedBy(d.anchor, d.no+1)
		d.nextDue, d.decideBy = &due, &by
	}
	return nil
}

// GrantCredit decides up to limit instalments of a line that are due, one for each customer,
// and has the ledger capture their sum; rows and money count together or not at all. It
// returns how many were decided and the minor units granted.
func (s *Store) GrantCredit(ctx context.Context, l CreditLine, limit int, move CreditLedger) (n int, granted int64, err error) {
	err = s.inTx(ctx, func(tx pgx.Tx) error {
		k, err := l.lock(ctx, tx)
		if err != nil {
			return err
		}
		due, err := dueInstalments(ctx, tx, l, limit)
		if err != nil {
			return err
		}
		n, granted = len(due), 0
		if n == 0 {
			return nil
		}
		var paid int64
		for i := range due {
			if err := due[i].decide(l.Offer); err != nil {
				return err
			}
			if granted, err = campaign.AddMinor(granted, due[i].amount); err != nil {
				return err
			}
			if due[i].amount > 0 {
				paid++
			}
		}
		journal, err := l.move(ctx, tx, campaign.CreditGranted, granted, map[string]any{"customers": paid}, move)
		if err != nil {
			return err
		}
		return writeInstalments(ctx, tx, l, due, l.Offer.ExpiresAt(k.now), journal)
	})
	return n, granted, err
}

// dueInstalments reads what is due and can be decided: where use decides, it was reported or
// nobody waits for it any more.
func dueInstalments(ctx context.Context, tx pgx.Tx, l CreditLine, limit int) ([]decided, error) {
	rows, err := tx.Query(ctx, `SELECT g.id::text, g.anchor, g.due_at, g.next_no, g.granted, u.use
		FROM credit_grant g LEFT JOIN credit_use u ON u.grant_id = g.id AND u.month = g.next_no - 1
		WHERE g.campaign_id = $1 AND g.line = $2 AND g.next_no IS NOT NULL AND g.due_at <= now() AND (g.decided_by <= now() OR u.use IS NOT NULL)
		ORDER BY g.due_at, g.id LIMIT $3`, l.CampaignID, l.Line, limit)
	if err != nil {
		return nil, fmt.Errorf("read due instalments: %w", err)
	}
	due, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d decided, err error) {
		err = row.Scan(&d.grant, &d.anchor, &d.due, &d.no, &d.granted, &d.use)
		return d, err
	})
	if err != nil {
		return nil, fmt.Errorf("read due instalments: %w", err)
	}
	return due, nil
}

func writeInstalments(ctx context.Context, tx pgx.Tx, l CreditLine, due []decided, expires time.Time, journal *int64) error {
	n := len(due)
	ids, nos, dues, amounts, uses := make([]string, n), make([]int, n), make([]time.Time, n), make([]int64, n), make([]*int64, n)
	rests, nextDues, decideBys := make([]int64, n), make([]*time.Time, n), make([]*time.Time, n)
	for i, d := range due {
		ids[i], nos[i], dues[i], amounts[i], uses[i] = d.grant, d.no, d.due, d.amount, d.use
		rests[i], nextDues[i], decideBys[i] = d.rest, d.nextDue, d.decideBy
	}
	var lapses *time.Time
	if !expires.IsZero() {
		lapses = &expires
	}
	_, err := tx.Exec(ctx, `INSERT INTO credit_instalment (campaign_id, line, grant_id, no, due_at, amount, last_use, expires_at, journal)
		SELECT $1, $2, u.id, u.no, u.due, u.amount, u.use, CASE WHEN u.amount > 0 THEN $3::timestamptz END, CASE WHEN u.amount > 0 THEN $4::bigint END
		FROM unnest($5::uuid[], $6::smallint[], $7::timestamptz[], $8::bigint[], $9::bigint[]) u(id, no, due, amount, use)`,
		l.CampaignID, l.Line, lapses, journal, ids, nos, dues, amounts, uses)
	if err != nil {
		return fmt.Errorf("write instalments: %w", err)
	}
	_, err = tx.Exec(ctx, `UPDATE credit_grant g SET granted = g.granted + u.amount, promised = u.rest, due_at = u.due, decided_by = u.by,
			next_no = CASE WHEN u.due IS NOT NULL THEN u.no + 1 END
		FROM unnest($1::uuid[], $2::smallint[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::timestamptz[]) u(id, no, amount, rest, due, by)
		WHERE g.id = u.id`, ids, nos, amounts, rests, nextDues, decideBys)
	if err != nil {
		return fmt.Errorf("write promises: %w", err)
	}
	return nil
}

// move has the ledger take amount on to a state and records the event of the campaign that
// says so. Nothing at all is nil.
func (l CreditLine) move(ctx context.Context, tx pgx.Tx, to campaign.CreditState, amount int64, data map[string]any, move CreditLedger) (*int64, error) {
	if amount == 0 {
		return nil, nil
	}
	journal, err := move(ctx, tx, campaign.CreditStep{
		Key: "credit:" + uuid.NewString(), CampaignID: l.CampaignID, Line: l.Line, To: to, Money: campaign.Money{Minor: amount, Currency: l.Currency},
	})
	if err != nil {
		return nil, err
	}
	data["line"], data["amount"], data["journal"] = l.Line, amount, journal
	e := CampaignEvent(l.CampaignID, fmt.Sprintf("journal:%d", journal), "credit."+string(to), campaign.Actor{}, data)
	if err := recordOnce(ctx, tx, e); err != nil {
		return nil, err
	}
	return &journal, notify(ctx, tx, "campaign", l.CampaignID, 0)
}

// ExpireCredit ends up to limit instalments of a line whose time to be used has passed. What
// a customer used is taken from the oldest instalments first; the rest of those that lapse
// expires. It returns how many lapsed and the minor units expired.
func (s *Store) ExpireCredit(ctx context.Context, l CreditLine, limit int, move CreditLedger) (n int, expired int64, err error) {
	err = s.inTx(ctx, func(tx pgx.Tx) error {
		if _, err := l.lock(ctx, tx); err != nil {
			return err
		}
		var customers int64
		err := tx.QueryRow(ctx, `
			WITH marked AS (
			    UPDATE credit_instalment i SET lapsed = true FROM (
			        SELECT grant_id, no FROM credit_instalment WHERE campaign_id = $1 AND line = $2 AND NOT lapsed AND expires_at <= now()
			        ORDER BY expires_at, grant_id, no LIMIT $3) x
			    WHERE i.grant_id = x.grant_id AND i.no = x.no RETURNING i.grant_id, i.amount),
			lapsing AS (
			    SELECT g.id, m.amount, greatest(g.lapsed + m.amount - g.used - g.expired - g.clawed_back, 0) AS ends
			    FROM (SELECT grant_id, sum(amount)::bigint AS amount FROM marked GROUP BY grant_id) m JOIN credit_grant g ON g.id = m.grant_id),
			ended AS (
			    UPDATE credit_grant g SET lapsed = g.lapsed + e.amount, expired = g.expired + e.ends FROM lapsing e WHERE g.id = e.id RETURNING e.ends)
			SELECT (SELECT count(*) FROM marked), count(*) FILTER (WHERE ends > 0), coalesce(sum(ends), 0)::bigint FROM ended`,
			l.CampaignID, l.Line, limit).Scan(&n, &customers, &expired)
		if err != nil {
			return fmt.Errorf("expire credit: %w", err)
		}
		_, err = l.move(ctx, tx, campaign.CreditExpired, expired, map[string]any{"customers": customers}, move)
		return err
	})
	return n, expired, err
}

// CreditStanding is what a line's release has before it.
type CreditStanding struct {
	Line     string
	Settled  bool           // nobody is promised credit any more
	Ended    bool           // EndCredit was called
	Promised int64          // minor units that may still be granted
	Next     *time.Duration // until something is due or expires; nil when nothing is to come
	Awaiting bool           // an instalment waits for the use of its month
}

// CreditStanding says, line by line, what is left to release of a campaign's credit.
func (s *Store) CreditStanding(ctx context.Context, campaignID string) ([]CreditStanding, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT l.line, l.settled_at IS NOT NULL, l.ended_at IS NOT NULL, coalesce(g.promised, 0)::bigint,
		       extract(epoch FROM least(g.next, i.expires) - now())::float8, coalesce(g.awaiting, false)
		FROM credit_line l
		CROSS JOIN LATERAL (
		    SELECT sum(promised) AS promised, min(CASE WHEN due_at > now() THEN due_at ELSE decided_by END) AS next,
		           bool_or(due_at <= now()) AS awaiting, coalesce(sum(granted - used - expired - clawed_back), 0) AS outstanding
		    FROM credit_grant WHERE campaign_id = l.campaign_id AND line = l.line) g
		CROSS JOIN LATERAL (
		    SELECT min(expires_at) AS expires FROM credit_instalment
		    WHERE campaign_id = l.campaign_id AND line = l.line AND NOT lapsed AND expires_at IS NOT NULL AND g.outstanding > 0) i
		WHERE l.campaign_id = $1 ORDER BY l.line`, campaignID)
	if err != nil {
		return nil, fmt.Errorf("read standing of credit: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c CreditStanding, err error) {
		var seconds *float64
		if err = row.Scan(&c.Line, &c.Settled, &c.Ended, &c.Promised, &seconds, &c.Awaiting); err == nil && seconds != nil {
			next := time.Duration(*seconds * float64(time.Second))
			c.Next = &next
		}
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("read standing of credit: %w", err)
	}
	return all, nil
}
