package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// SettleChannel counts the channel of a campaign's budget line and keeps the count, and which
// messages are of unknown fate: from now on SettledSpend adds what becomes of these and
// nothing else. Repeated, it counts anew.
func (s *Store) SettleChannel(ctx context.Context, campaignID string, line campaign.BudgetLine) (ChannelSpend, error) {
	var out ChannelSpend
	c, unit := line.Channel, line.CountedUnit()
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM settlement_message WHERE campaign_id = $1 AND channel = $2`, campaignID, c); err != nil {
			return err
		}
		// One statement, so that a message proven meanwhile is either counted or kept.
		return tx.QueryRow(ctx, `
			WITH spend (billable, unknown, open, today, until) AS (`+channelSpendSQL(unit)+`),
			kept AS (
				INSERT INTO settlement_message (campaign_id, contact_id, epoch, channel, units, day)
				SELECT $1, c.id, a.epoch, c.channel, `+unitsSQL(unit)+`, `+daySQL+` FROM contact c JOIN contact_attempt a ON a.campaign_id = $1 AND a.contact_id = c.id
				WHERE c.campaign_id = $1 AND c.channel = $2 AND c.state = 'unknown' AND (a.outcome IS NULL OR a.outcome = 'unknown'))
			INSERT INTO settlement (campaign_id, channel, days, open) SELECT $1, $2, billable, unknown <> '{}' FROM spend
			ON CONFLICT (campaign_id, channel) DO UPDATE SET days = excluded.days, open = excluded.open, settled_at = now()
			RETURNING days, (SELECT unknown FROM spend)`, campaignID, c).Scan(&out.Billable, &out.Unknown)
	})
	if err != nil {
		return out, fmt.Errorf("settle channel: %w", err)
	}
	return out, nil
}

// SettledSpend returns what the settled channels of a campaign that have messages of unknown
// fate have cost by now. It reads those messages and no others.
func (s *Store) SettledSpend(ctx context.Context, campaignID string) (map[campaign.Channel]ChannelSpend, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT s.channel, s.days, coalesce(to_char(m.day, 'YYYY-MM-DD'), ''), coalesce(sum(m.units) FILTER (WHERE a.outcome = 'accepted'), 0)::bigint,
		       coalesce(sum(m.units) FILTER (WHERE a.outcome IS NULL OR a.outcome = 'unknown'), 0)::bigint
		FROM settlement s LEFT JOIN settlement_message m ON m.campaign_id = $1 AND m.channel = s.channel
		LEFT JOIN contact_attempt a ON a.campaign_id = $1 AND a.contact_id = m.contact_id AND a.epoch = m.epoch
		WHERE s.campaign_id = $1 AND s.open GROUP BY s.channel, s.days, m.day`, campaignID)
	if err != nil {
		return nil, fmt.Errorf("count settled channels: %w", err)
	}
	all := map[campaign.Channel]ChannelSpend{}
	var channel campaign.Channel
	var settled campaign.Counts
	var day campaign.Date
	var accepted, unknown int64
	_, err = pgx.ForEachRow(rows, []any{&channel, &settled, &day, &accepted, &unknown}, func() error {
		n, known := all[channel]
		if !known {
			n = ChannelSpend{Billable: settled, Unknown: campaign.Counts{}}
			all[channel] = n
		}
		if accepted > 0 {
			n.Billable[day] += accepted
		}
		if unknown > 0 {
			n.Unknown[day] += unknown
		}
		settled = nil
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("count settled channels: %w", err)
	}
	return all, nil
}

// OpenSettlements returns the campaigns whose settlement is done but for messages of unknown
// fate, each with the revision in force.
func (s *Store) OpenSettlements(ctx context.Context) ([]campaign.PlanRef, error) {
	rows, err := s.pool.Query(ctx, `SELECT k.id::text, k.revision FROM campaign k
		WHERE k.stage IN ('evaluation', 'closed') AND k.id IN (SELECT campaign_id FROM settlement WHERE open) ORDER BY k.id`)
	if err != nil {
		return nil, fmt.Errorf("list open settlements: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[campaign.PlanRef])
	if err != nil {
		return nil, fmt.Errorf("list open settlements: %w", err)
	}
	return all, nil
}

// EndSettlement says that the fate of all messages of a settled channel is known and that
// the money has followed it.
func (s *Store) EndSettlement(ctx context.Context, campaignID string, c campaign.Channel) error {
	_, err := s.pool.Exec(ctx, `UPDATE settlement SET open = false WHERE campaign_id = $1 AND channel = $2`, campaignID, c)
	if err != nil {
		return fmt.Errorf("end settlement: %w", err)
	}
	return nil
}

// TellUnknown records, as the event contacts.unresolved of each campaign, which of its
// messages have been of unknown fate for longer than patience, in whole days: per channel how
// many, and up to when they were sent. The same messages are told once, and others once a day.
func (s *Store) TellUnknown(ctx context.Context, patience time.Duration) error {
	const running = `contact c JOIN contact_attempt a ON a.campaign_id = $1 AND a.contact_id = c.id WHERE c.campaign_id = $1 AND c.state = 'unknown'`
	const settled = `settlement_message c JOIN contact_attempt a ON a.campaign_id = $1 AND a.contact_id = c.contact_id AND a.epoch = c.epoch WHERE c.campaign_id = $1`
	open, err := openCampaigns(ctx, s.pool)
	if err != nil {
		return err
	}
	for _, id := range open {
		if err := s.tellUnknown(ctx, uuid.UUID(id).String(), running, patience); err != nil {
			return err
		}
	}
	over, err := s.OpenSettlements(ctx)
	if err != nil {
		return err
	}
	for _, in := range over {
		if err := s.tellUnknown(ctx, in.CampaignID, settled, patience); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) tellUnknown(ctx context.Context, campaignID, from string, patience time.Duration) error {
	rows, err := s.pool.Query(ctx, `SELECT c.channel, count(*), max(a.intent_at) FROM `+from+` AND (a.outcome IS NULL OR a.outcome = 'unknown')
		AND a.intent_at < date_trunc('day', now() - $2::interval) GROUP BY c.channel`, campaignID, patience)
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
