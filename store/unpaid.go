package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// noteUnpaid keeps how many contacts of a batch its budget line does not pay for, and returns
// the minor units that the line lacks for all of them.
func noteUnpaid(ctx context.Context, tx pgx.Tx, ref campaign.ChannelRef, line campaign.BudgetLine, unpaid int64) (needed int64, err error) {
	if unpaid > 0 {
		spend, err := channelSpend(ctx, tx, ref.CampaignID, line)
		if err != nil {
			return 0, err
		}
		var each int64
		var until campaign.Date
		err = tx.QueryRow(ctx, `SELECT b.parts, to_char(max(c.not_after) AT TIME ZONE 'UTC', 'YYYY-MM-DD') FROM contact_batch b
			JOIN contact c ON c.campaign_id = $1 AND c.wave = b.wave AND c.channel = b.channel
			WHERE b.campaign_id = $1 AND b.wave = $2 AND b.channel = $3 GROUP BY b.parts`, ref.CampaignID, ref.Wave, ref.Channel).Scan(&each, &until)
		if err != nil {
			return 0, fmt.Errorf("read contacts: %w", err)
		}
		most, err := line.Most(spend.Billable.Plus(spend.Unknown), spend.Open+unpaid*each, spend.From, max(until, spend.Until))
		if err != nil {
			return 0, err
		}
		needed = max(most-line.Amount, 0)
	}
	_, err = tx.Exec(ctx, `UPDATE contact_batch SET unpaid = $4, needed = $5 WHERE campaign_id = $1 AND wave = $2 AND channel = $3`,
		ref.CampaignID, ref.Wave, ref.Channel, unpaid, needed)
	if err != nil {
		return 0, fmt.Errorf("note unpaid contacts: %w", err)
	}
	return needed, nil
}

// PayContacts plans as many of the contacts that a channel's budget did not pay for as line
// pays for now, in the order in which they were passed over, while the channel is open. Line
// is that of revision, which must stand on signatures that authorise accepts, as for
// CreateContacts; when it does not, nothing is planned and the answer says how many wait.
func (s *Store) PayContacts(
	ctx context.Context, ref campaign.ChannelRef, line campaign.BudgetLine, revision int, authorise func(Standing) error,
) (campaign.PaidContacts, error) {
	var paid campaign.PaidContacts
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		// The budget before the batch, as CreateContacts does.
		if err := waitForBudget(ctx, tx, ref.CampaignID, line); err != nil {
			return err
		}
		var each int64
		var until campaign.Date
		err := tx.QueryRow(ctx, `SELECT parts, unpaid, needed,
			    (SELECT to_char(max(not_after) AT TIME ZONE 'UTC', 'YYYY-MM-DD') FROM contact WHERE campaign_id = $1 AND wave = $2 AND channel = $3)
			FROM contact_batch WHERE campaign_id = $1 AND wave = $2 AND channel = $3 AND closed_state IS NULL AND unpaid > 0 FOR UPDATE`,
			ref.CampaignID, ref.Wave, ref.Channel).Scan(&each, &paid.Unpaid, &paid.Needed, &until)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read contacts: %w", err)
		}
		room, err := roomLeft(ctx, tx, ref.CampaignID, line, until)
		if err != nil {
			return err
		}
		if paid.Planned = min(room/each, paid.Unpaid); paid.Planned > 0 {
			stands, err := standing(ctx, tx, ref.CampaignID, revision)
			if err == nil {
				err = authorise(stands)
			}
			if err != nil {
				paid.Planned = 0
				return err
			}
		}
		if ref.Channel.Pull() {
			if paid.Planned, err = promise(ctx, tx, ref.CampaignID, line, each, paid.Planned, 0); err != nil {
				return err
			}
		}
		if paid.Planned > 0 {
			if paid.Planned, paid.Shards, err = planUnpaid(ctx, tx, ref, paid.Planned); err != nil {
				return err
			}
			paid.Unpaid -= paid.Planned
		}
		if paid.Needed, err = noteUnpaid(ctx, tx, ref, line, paid.Unpaid); err != nil {
			return err
		}
		if paid.Planned > 0 {
			return notify(ctx, tx, "campaign", ref.CampaignID, 0)
		}
		return nil
	})
	return paid, err
}

// planUnpaid plans the first contacts that were not paid for, most of them, and returns how
// many and in which parts of which shards they are.
func planUnpaid(ctx context.Context, tx pgx.Tx, ref campaign.ChannelRef, most int64) (planned int64, ranges []campaign.ShardRange, err error) {
	rows, err := tx.Query(ctx, `WITH paid AS (
			UPDATE contact SET state = 'planned', reason = '', updated_at = now() WHERE campaign_id = $1 AND id IN (
			    SELECT id FROM contact WHERE campaign_id = $1 AND wave = $2 AND channel = $3 AND state = 'suppressed' AND reason = '`+beyondBudget+`'
			    ORDER BY seq, shard LIMIT $4) RETURNING shard, seq)
		SELECT shard, min(seq), max(seq), count(*) FROM paid GROUP BY shard ORDER BY shard`, ref.CampaignID, ref.Wave, ref.Channel, most)
	if err != nil {
		return 0, nil, fmt.Errorf("plan contacts: %w", err)
	}
	var r campaign.ShardRange
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&r.Shard, &r.FromSeq, &r.ToSeq, &n}, func() error {
		planned += n
		ranges = append(ranges, r)
		return nil
	}); err != nil {
		return 0, nil, fmt.Errorf("plan contacts: %w", err)
	}
	return planned, ranges, nil
}

// UnpaidChannels returns the open channels of a campaign that wait for money.
func (s *Store) UnpaidChannels(ctx context.Context, campaignID string) ([]campaign.UnpaidChannel, error) {
	rows, err := s.pool.Query(ctx, `SELECT wave, channel, unpaid, needed FROM contact_batch
		WHERE campaign_id = $1 AND closed_state IS NULL AND unpaid > 0 ORDER BY wave, channel`, campaignID)
	if err != nil {
		return nil, fmt.Errorf("list unpaid channels: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[campaign.UnpaidChannel])
	if err != nil {
		return nil, fmt.Errorf("list unpaid channels: %w", err)
	}
	return all, nil
}
