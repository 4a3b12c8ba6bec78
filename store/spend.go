package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// ChannelSpend counts, in units of a budget line, what the line's channel has cost and may
// cost yet. A day is that of the attempt, in UTC; one that was reported after its contact's
// window is counted on the window's last day.
type ChannelSpend struct {
	Billable campaign.Counts // of accepted messages and worked attempts
	Unknown  campaign.Counts // of messages that may have left without proof
	Open     int64           // of contacts planned, claimed or being sent, each by one attempt more
	// From and Until bound the days on which open contacts are tried: from today on.
	From, Until campaign.Date
}

// unitsSQL is how many units of a line an attempt a has.
func unitsSQL(unit campaign.CountUnit) string {
	switch unit {
	case campaign.UnitPart:
		return `a.parts`
	case campaign.UnitMinute:
		return `((a.seconds + 59) / 60)`
	}
	return `1`
}

// daySQL is the day that attempt a of contact c is counted on.
const daySQL = `(least(a.intent_at, c.not_after) AT TIME ZONE 'UTC')::date`

// channelSpendSQL counts channel $2 of campaign $1. The two counts are objects of days.
func channelSpendSQL(unit campaign.CountUnit) string {
	return strings.NewReplacer("$units", unitsSQL(unit), "$day", daySQL).Replace(`
		WITH counted AS MATERIALIZED (
		    SELECT to_char(day, 'YYYY-MM-DD') AS day, billable, unknown FROM (
		        SELECT $day AS day, sum($units) FILTER (WHERE a.outcome IN ('accepted', 'worked')) AS billable,
		            sum($units) FILTER (WHERE c.state = 'unknown' AND (a.outcome IS NULL OR a.outcome = 'unknown')) AS unknown
		        FROM contact c JOIN contact_attempt a ON a.campaign_id = $1 AND a.contact_id = c.id
		        WHERE c.campaign_id = $1 AND c.channel = $2 GROUP BY 1) days)
		SELECT (SELECT coalesce(jsonb_object_agg(day, billable) FILTER (WHERE billable > 0), '{}') FROM counted),
		       (SELECT coalesce(jsonb_object_agg(day, unknown) FILTER (WHERE unknown > 0), '{}') FROM counted),
		       coalesce(sum(coalesce(b.parts, 1)), 0)::bigint, to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD'),
		       to_char(coalesce(max(c.not_after), now()) AT TIME ZONE 'UTC', 'YYYY-MM-DD')
		FROM contact c LEFT JOIN contact_batch b ON b.campaign_id = $1 AND b.wave = c.wave AND b.channel = c.channel
		WHERE c.campaign_id = $1 AND c.channel = $2 AND c.state IN ('planned', 'claimed', 'sending')`)
}

// ChannelSpend counts, for the channel of a budget line, what is paid for and what is not
// decided.
func (s *Store) ChannelSpend(ctx context.Context, campaignID string, line campaign.BudgetLine) (ChannelSpend, error) {
	return channelSpend(ctx, s.pool, campaignID, line)
}

func channelSpend(ctx context.Context, q querier, campaignID string, line campaign.BudgetLine) (ChannelSpend, error) {
	var out ChannelSpend
	err := q.QueryRow(ctx, channelSpendSQL(line.CountedUnit()), campaignID, line.Channel).
		Scan(&out.Billable, &out.Unknown, &out.Open, &out.From, &out.Until)
	if err != nil {
		return out, fmt.Errorf("count cost: %w", err)
	}
	return out, nil
}

// beyondBudget is the reason of a contact, or of a further attempt, that the channel's
// budget does not pay for.
const beyondBudget = "budget"

// waitForBudget keeps other contacts of the line's channel from being created until the
// transaction ends.
func waitForBudget(ctx context.Context, tx pgx.Tx, campaignID string, line campaign.BudgetLine) error {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, fmt.Sprintf("budget:%s:%s", campaignID, line.Channel)); err != nil {
		return fmt.Errorf("wait for the channel's budget: %w", err)
	}
	return nil
}

// roomLeft returns how many units of line are neither spent nor promised, at the dearest
// price until the day that a new contact may be tried. Until the transaction ends no other
// contacts of the campaign's channel are created. Further attempts may be promised
// meanwhile: what is made of the room is promised at the end.
func roomLeft(ctx context.Context, tx pgx.Tx, campaignID string, line campaign.BudgetLine, until campaign.Date) (int64, error) {
	if err := waitForBudget(ctx, tx, campaignID, line); err != nil {
		return 0, err
	}
	spend, err := channelSpend(ctx, tx, campaignID, line)
	if err != nil {
		return 0, err
	}
	return line.Room(spend.Billable.Plus(spend.Unknown), spend.Open, spend.From, max(until, spend.Until))
}

// promise takes up to wanted attempts, each of so many units, of what line, the budget of a
// channel that people work, has left, and returns how many. Of the contacts that are open,
// done have nothing promised but what is asked for here. Who wants more waits until the
// transaction ends.
func promise(ctx context.Context, tx pgx.Tx, campaignID string, line campaign.BudgetLine, each, wanted, done int64) (int64, error) {
	var attempts int64
	err := tx.QueryRow(ctx, `SELECT units FROM channel_promise WHERE campaign_id = $1 AND channel = $2 FOR UPDATE`, campaignID, line.Channel).Scan(&attempts)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil // the campaign is over
	}
	if err != nil {
		return 0, fmt.Errorf("read promised attempts: %w", err)
	}
	var room int64
	if len(line.Prices) == 0 && line.CountedUnit() == campaign.UnitAttempt {
		// One price for every attempt: how many were promised says it all.
		room = line.Amount/line.UnitCost - attempts
	} else {
		spend, err := channelSpend(ctx, tx, campaignID, line)
		if err != nil {
			return 0, err
		}
		if room, err = line.Room(spend.Billable.Plus(spend.Unknown), spend.Open-done*each, spend.From, spend.Until); err != nil {
			return 0, err
		}
		room /= each
	}
	granted := min(wanted, max(room, 0))
	return granted, release(ctx, tx, campaignID, line.Channel, -granted)
}

// release gives back the attempts of contacts that ended without them, where c is a channel
// that people work. What other channels promise is counted when it is needed.
func release(ctx context.Context, tx pgx.Tx, campaignID string, c campaign.Channel, attempts int64) error {
	if attempts == 0 || !c.Pull() {
		return nil
	}
	_, err := tx.Exec(ctx, `UPDATE channel_promise SET units = units - $3 WHERE campaign_id = $1 AND channel = $2`, campaignID, c, attempts)
	if err != nil {
		return fmt.Errorf("write promised attempts: %w", err)
	}
	return nil
}
