package store

import (
	"context"
	"fmt"
	"time"

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

// ChannelSpend counts, for a channel, what is paid for and what is not decided.
func (s *Store) ChannelSpend(ctx context.Context, campaignID string, c campaign.Channel) (ChannelSpend, error) {
	return channelSpend(ctx, s.pool, campaignID, c)
}

func channelSpend(ctx context.Context, q querier, campaignID string, c campaign.Channel) (ChannelSpend, error) {
	var out ChannelSpend
	err := q.QueryRow(ctx, `
		SELECT coalesce(sum(a.paid), 0)::bigint, coalesce(sum(a.unproven) FILTER (WHERE c.state = 'unknown'), 0)::bigint,
		       coalesce(sum(coalesce(b.parts, 1)) FILTER (WHERE c.state IN ('planned', 'claimed', 'sending')), 0)::bigint
		FROM contact c LEFT JOIN contact_batch b ON b.campaign_id = $1 AND b.wave = c.wave AND b.channel = c.channel
		LEFT JOIN (
		    SELECT contact_id, sum(parts) FILTER (WHERE outcome IN ('accepted', 'worked')) AS paid,
		           sum(parts) FILTER (WHERE outcome IS NULL OR outcome = 'unknown') AS unproven
		    FROM contact_attempt WHERE campaign_id = $1 GROUP BY contact_id) a ON a.contact_id = c.id
		WHERE c.campaign_id = $1 AND c.channel = $2`, campaignID, c).Scan(&out.Billable, &out.Unknown, &out.Open)
	if err != nil {
		return out, fmt.Errorf("count cost: %w", err)
	}
	return out, nil
}

// beyondBudget is the reason of a contact, or of a further attempt, that the channel's
// budget does not pay for.
const beyondBudget = "budget"

// roomLeft returns how many units of line are neither spent nor promised. Until the
// transaction ends nobody else is told of room on the campaign's channel, so what the
// caller promises of it is promised once.
func roomLeft(ctx context.Context, tx pgx.Tx, campaignID string, line campaign.BudgetLine) (int64, error) {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, fmt.Sprintf("budget:%s:%s", campaignID, line.Channel)); err != nil {
		return 0, fmt.Errorf("wait for the channel's budget: %w", err)
	}
	spend, err := channelSpend(ctx, tx, campaignID, line.Channel)
	if err != nil {
		return 0, err
	}
	return max(line.Amount/line.UnitCost-spend.Billable-spend.Unknown-spend.Open, 0), nil
}

// SettledCampaigns returns those of the campaigns whose settlement is done, each with the
// revision in force.
func (s *Store) SettledCampaigns(ctx context.Context, ids []string) ([]campaign.PlanRef, error) {
	rows, err := s.pool.Query(ctx, `SELECT id::text, revision FROM campaign WHERE id = ANY($1::uuid[]) AND stage IN ('evaluation', 'closed') ORDER BY id`, ids)
	if err != nil {
		return nil, fmt.Errorf("list settled campaigns: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[campaign.PlanRef])
	if err != nil {
		return nil, fmt.Errorf("list settled campaigns: %w", err)
	}
	return all, nil
}

// TellUnknown records, as the event contacts.unresolved, which messages of a campaign have
// been of unknown fate for longer than patience, in whole days: per channel how many, and
// up to when they were sent. The same messages are told once, and others once a day.
func (s *Store) TellUnknown(ctx context.Context, campaignID string, patience time.Duration) error {
	rows, err := s.pool.Query(ctx, `SELECT c.channel, count(*), max(a.intent_at)
		FROM contact c JOIN contact_attempt a ON a.campaign_id = $1 AND a.contact_id = c.id AND (a.outcome IS NULL OR a.outcome = 'unknown')
		WHERE c.campaign_id = $1 AND c.state = 'unknown' AND a.intent_at < date_trunc('day', now() - $2::interval) GROUP BY c.channel`, campaignID, patience)
	if err != nil {
		return fmt.Errorf("count unknown messages: %w", err)
	}
	var channel campaign.Channel
	var messages int64
	var until time.Time
	var events []AuditEvent
	_, err = pgx.ForEachRow(rows, []any{&channel, &messages, &until}, func() error {
		key := fmt.Sprintf("%s:unresolved:%s:%d", campaignID, channel, until.UnixMicro())
		events = append(events, CampaignEvent(campaignID, key, "contacts.unresolved", campaign.Actor{},
			map[string]any{"channel": channel, "messages": messages, "sent_until": until}))
		return nil
	})
	if err != nil {
		return fmt.Errorf("count unknown messages: %w", err)
	}
	for _, e := range events {
		if err := s.RecordOnce(ctx, e); err != nil {
			return err
		}
	}
	return nil
}
