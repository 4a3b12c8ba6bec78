package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// ChannelSpend counts, in units of a budget line, what a channel of a campaign has cost
// and may cost yet. A unit is an attempt by a person, or one part of a message.
type ChannelSpend struct {
	Billable int64 // of accepted messages and worked attempts
	Unknown  int64 // of messages that may have left without proof
	Open     int64 // of contacts planned, claimed or being sent, each by one attempt more
}

// channelSpendSQL counts channel $2 of campaign $1.
const channelSpendSQL = `
	SELECT coalesce(sum(a.paid), 0)::bigint, coalesce(sum(a.unproven) FILTER (WHERE c.state = 'unknown'), 0)::bigint,
	       coalesce(sum(coalesce(b.parts, 1)) FILTER (WHERE c.state IN ('planned', 'claimed', 'sending')), 0)::bigint
	FROM contact c LEFT JOIN contact_batch b ON b.campaign_id = $1 AND b.wave = c.wave AND b.channel = c.channel
	LEFT JOIN (
	    SELECT contact_id, sum(parts) FILTER (WHERE outcome IN ('accepted', 'worked')) AS paid,
	           sum(parts) FILTER (WHERE outcome IS NULL OR outcome = 'unknown') AS unproven
	    FROM contact_attempt WHERE campaign_id = $1 GROUP BY contact_id) a ON a.contact_id = c.id
	WHERE c.campaign_id = $1 AND c.channel = $2`

// ChannelSpend counts, for a channel, what is paid for and what is not decided.
func (s *Store) ChannelSpend(ctx context.Context, campaignID string, c campaign.Channel) (ChannelSpend, error) {
	return channelSpend(ctx, s.pool, campaignID, c)
}

func channelSpend(ctx context.Context, q querier, campaignID string, c campaign.Channel) (ChannelSpend, error) {
	var out ChannelSpend
	if err := q.QueryRow(ctx, channelSpendSQL, campaignID, c).Scan(&out.Billable, &out.Unknown, &out.Open); err != nil {
		return out, fmt.Errorf("count cost: %w", err)
	}
	return out, nil
}

// beyondBudget is the reason of a contact, or of a further attempt, that the channel's
// budget does not pay for.
const beyondBudget = "budget"

// paysFor is how many units a budget line pays for.
func paysFor(line campaign.BudgetLine) int64 { return line.Amount / line.UnitCost }

// roomLeft returns how many units of line are neither spent nor promised. Until the
// transaction ends no other contacts of the campaign's channel are created. Further attempts
// may be promised meanwhile: what is made of the room is promised at the end.
func roomLeft(ctx context.Context, tx pgx.Tx, campaignID string, line campaign.BudgetLine) (int64, error) {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, fmt.Sprintf("budget:%s:%s", campaignID, line.Channel)); err != nil {
		return 0, fmt.Errorf("wait for the channel's budget: %w", err)
	}
	spend, err := channelSpend(ctx, tx, campaignID, line.Channel)
	if err != nil {
		return 0, err
	}
	return max(paysFor(line)-spend.Billable-spend.Unknown-spend.Open, 0), nil
}

// promise takes up to wanted attempts of what line, the budget of a channel that people
// work, has left, and returns how many. Who wants more of it waits until the transaction ends.
func promise(ctx context.Context, tx pgx.Tx, campaignID string, line campaign.BudgetLine, wanted int64) (int64, error) {
	var units int64
	err := tx.QueryRow(ctx, `SELECT units FROM channel_promise WHERE campaign_id = $1 AND channel = $2 FOR UPDATE`, campaignID, line.Channel).Scan(&units)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil // the campaign is over
	}
	if err != nil {
		return 0, fmt.Errorf("read promised attempts: %w", err)
	}
	granted := min(wanted, max(paysFor(line)-units, 0))
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
