package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// CreateContacts makes the contacts of one channel of a wave from the frozen targets,
// once: a batch that exists is returned as it is. The first channel of a series takes
// all treated targets of the wave; a later one takes those whom every channel before
// ended without reaching, and whose conversation has not ended: no success, refusal,
// complaint or opt-out. Of a wave whose channels go side by side each takes the targets who
// prefer it. A wave that follows up takes, of the treated targets of the waves it follows,
// those of whom the outcome came long enough ago, and not the other one: they are drawn now,
// never anew from the customers, and the contact policy has its say before each is contacted.
//
// line is the budget line of the channel's contacts, of which each takes up to each units.
// Contacts beyond what it can pay for, in order of seq, are created as suppressed with
// the reason "budget", so that nobody is left without a state: PayContacts plans them once
// there is money. Everybody else is sure of
// a first attempt; a further one is made as long as the line pays for it. goal is the
// outcome that counts as a success.
//
// Before anything is made the rows must prove that it is this channel's turn, that the
// targets are those of the audience that was signed, and what the plan revision and funded,
// the one that line is from, stand on, and authorise must accept that: all in the
// transaction that makes the contacts, whatever the workflow says that asks.
func (s *Store) CreateContacts(
	ctx context.Context, in campaign.DispatchInput, line campaign.BudgetLine, funded int, each int64, goal campaign.OutcomeKind, wave campaign.WavePlan, authorise func(Standing) error,
) (campaign.ContactBatch, error) {
	var batch campaign.ContactBatch
	contacts, err := partition("contact", in.CampaignID)
	if err != nil {
		return batch, err
	}
	targets, err := partition("campaign_target", in.CampaignID)
	if err != nil {
		return batch, err
	}
	err = s.inTx(ctx, func(tx pgx.Tx) error {
		made := func() (bool, error) {
			err := tx.QueryRow(ctx, `SELECT contacts, shards, unpaid, needed FROM contact_batch WHERE campaign_id = $1 AND wave = $2 AND channel = $3`,
				in.CampaignID, in.Wave, in.Channel).Scan(&batch.Contacts, &batch.Shards, &batch.Unpaid, &batch.Needed)
			if errors.Is(err, pgx.ErrNoRows) {
				return false, nil
			}
			return err == nil, err
		}
		if found, err := made(); found || err != nil {
			return err
		}
		if err := checkTurn(ctx, tx, in); err != nil {
			return err
		}
		if err := refuseFrozen(ctx, tx, in.CampaignID); err != nil {
			return err
		}
		for _, revision := range slices.Compact([]int{in.Revision, funded}) {
			stands, err := standing(ctx, tx, in.CampaignID, revision)
			if err != nil {
				return err
			}
			if err := checkAudience(ctx, tx, in, stands); err != nil {
				return err
			}
			if err := authorise(stands); err != nil {
				return err
			}
		}
		room, err := roomLeft(ctx, tx, in.CampaignID, line, campaign.DateOf(in.ClosesAt.UTC()))
		if err != nil {
			return err
		}
		// Another attempt may have made them while this one waited for the budget's lock.
		if found, err := made(); found || err != nil {
			return err
		}
		var planned int64
		if _, err := tx.Exec(ctx, `SET LOCAL jit = off; SET LOCAL work_mem = '128MB'`); err != nil {
			return fmt.Errorf("prepare contacts: %w", err)
		}
		// The targets of a wave are numbered densely per shard already; those whom a
		// later channel takes are numbered anew.
		who, seq := "t.wave = $2", "t.seq"
		args := []any{in.CampaignID, in.Wave, in.Channel, in.ClosesAt, in.Snapshot, room / each}
		bind := func(value any) string {
			args = append(args, value)
			return fmt.Sprintf("$%d", len(args))
		}
		const renumbered = "row_number() OVER (PARTITION BY t.shard ORDER BY t.wave, t.seq)::int"
		of := func(kind string) string {
			return `SELECT FROM outcome o WHERE o.campaign_id = $1 AND o.customer_id = t.customer_id AND o.kind ` + kind
		}
		over := func() string { return ` AND NOT EXISTS (` + of(`IN (`+bind(goal)+`, `+refusals+`)`) + `)` }
		if f := wave.FollowUp; f != nil {
			seq = renumbered
			who = `t.wave = ANY(` + bind(f.Of) + `) AND EXISTS (` + of(`= `+bind(f.Outcome)+` AND o.at <= now() - make_interval(secs => `+bind(f.After)+`)`) + `)
				AND NOT EXISTS (` + of(`IN (`+refusals+`)`) + `)`
			if f.Without != "" {
				who += ` AND NOT EXISTS (` + of(`= `+bind(f.Without)) + `)`
			}
		}
		if wave.Linkage == campaign.LinkagePreferred {
			who += ` AND t.channel = ` + bind(in.Channel)
		}
		if len(in.After) > 0 {
			seq = renumbered
			who += ` AND (SELECT count(*) FROM ` + contacts + ` p WHERE p.campaign_id = $1 AND p.wave = $2 AND p.channel = ANY(` + bind(in.After) + `)
			            AND p.customer_id = t.customer_id AND p.state IN ('failed', 'expired')) = ` + bind(len(in.After)) + over()
		}
		_, err = tx.Exec(ctx, `
			INSERT INTO `+contacts+` (campaign_id, id, customer_id, not_after, seq, wave, shard, channel, tier, state, reason)
			SELECT $1, gen_random_uuid(), customer_id, $4, seq, $2, shard, $3, tier,
			    CASE WHEN place <= $6 THEN 'planned' ELSE 'suppressed' END, CASE WHEN place <= $6 THEN '' ELSE '`+beyondBudget+`' END
			FROM (SELECT customer_id, shard, tier, seq, row_number() OVER (ORDER BY seq, shard) AS place
			      FROM (SELECT t.customer_id, t.shard, t.tier, `+seq+` AS seq FROM `+targets+` t
			            WHERE t.arm = 'treated' AND t.snapshot = $5 AND `+who+`) taken) placed`, args...)
		if err != nil {
			return fmt.Errorf("create contacts: %w", err)
		}
		err = tx.QueryRow(ctx, `
			WITH made AS (SELECT shard, count(*) AS n, count(*) FILTER (WHERE state = 'planned') AS planned
			    FROM `+contacts+` WHERE wave = $1 AND channel = $2 GROUP BY shard)
			SELECT coalesce(sum(n), 0)::bigint, coalesce(sum(planned), 0)::bigint, coalesce((SELECT array_agg(coalesce(n, 0) ORDER BY s)
			    FROM generate_series(0, (SELECT max(shard) FROM made)) s LEFT JOIN made ON made.shard = s), '{}')::bigint[] FROM made`,
			in.Wave, in.Channel).Scan(&batch.Contacts, &planned, &batch.Shards)
		if err != nil {
			return fmt.Errorf("count contacts: %w", err)
		}
		_, err = tx.Exec(ctx, `INSERT INTO contact_batch (campaign_id, wave, channel, revision, contacts, shards, parts) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			in.CampaignID, in.Wave, in.Channel, in.Revision, batch.Contacts, batch.Shards, each)
		if err != nil {
			return fmt.Errorf("record contacts: %w", err)
		}
		if in.Channel.Pull() {
			if planned, err = promiseContacts(ctx, tx, in, line, each, planned); err != nil {
				return err
			}
		}
		if batch.Unpaid = batch.Contacts - planned; batch.Unpaid > 0 {
			if batch.Needed, err = noteUnpaid(ctx, tx, in.Ref(), line, batch.Unpaid); err != nil {
				return err
			}
		}
		return notify(ctx, tx, "campaign", in.CampaignID, 0)
	})
	if err != nil {
		return campaign.ContactBatch{}, err
	}
	if _, err := s.pool.Exec(ctx, `SELECT analyse_campaign('contact', $1)`, in.CampaignID); err != nil {
		return batch, fmt.Errorf("analyse contacts: %w", err)
	}
	return batch, nil
}

// promiseContacts promises each planned contact of a new batch its first attempt, and returns
// how many it could. Those whose attempt was promised to others while the batch was made are
// suppressed, the last first.
func promiseContacts(ctx context.Context, tx pgx.Tx, in campaign.DispatchInput, line campaign.BudgetLine, each, planned int64) (int64, error) {
	_, err := tx.Exec(ctx, `INSERT INTO channel_promise (campaign_id, channel, units) VALUES ($1, $2, 0) ON CONFLICT DO NOTHING`, in.CampaignID, in.Channel)
	if err != nil {
		return 0, fmt.Errorf("begin promises: %w", err)
	}
	granted, err := promise(ctx, tx, in.CampaignID, line, each, planned, planned)
	if err != nil || granted == planned {
		return granted, err
	}
	_, err = tx.Exec(ctx, `UPDATE contact SET state = 'suppressed', reason = '`+beyondBudget+`' WHERE campaign_id = $1 AND id IN (
		SELECT id FROM contact WHERE campaign_id = $1 AND wave = $2 AND channel = $3 AND state = 'planned' ORDER BY seq DESC, shard DESC LIMIT $4)`,
		in.CampaignID, in.Wave, in.Channel, planned-granted)
	if err != nil {
		return 0, fmt.Errorf("suppress contacts: %w", err)
	}
	return granted, nil
}

// ChannelProgress counts the contacts of a wave's channel by what is left to do.
func (s *Store) ChannelProgress(ctx context.Context, ref campaign.ChannelRef) (campaign.ChannelProgress, error) {
	var p campaign.ChannelProgress
	err := s.pool.QueryRow(ctx, `SELECT count(*), count(*) FILTER (WHERE state IN ('planned', 'claimed', 'sending')),
			count(*) FILTER (WHERE state = 'sent'), count(*) FILTER (WHERE state = 'suppressed' AND reason = '`+beyondBudget+`')
		FROM contact WHERE campaign_id = $1 AND wave = $2 AND channel = $3`, ref.CampaignID, ref.Wave, ref.Channel).
		Scan(&p.Contacts, &p.Open, &p.Awaiting, &p.Unpaid)
	if err != nil {
		return p, fmt.Errorf("count contacts: %w", err)
	}
	return p, nil
}

// CloseChannel ends what is still planned or claimed in a wave's channel, and what its
// worker left in the middle of sending becomes unknown. Tasks are withdrawn.
func (s *Store) CloseChannel(ctx context.Context, c campaign.CloseChannel) error {
	if c.State != campaign.ContactExpired && c.State != campaign.ContactCancelled {
		return campaign.Errorf(campaign.CodeInvalidParameter, "a channel closes as expired or cancelled, not as %s", c.State)
	}
	return s.inTx(ctx, func(tx pgx.Tx) error {
		// Tasks before contacts, the order in which an agent's report locks them.
		_, err := tx.Exec(ctx, `UPDATE task SET state = 'withdrawn', result = $4, updated_at = now()
			WHERE campaign_id = $1 AND wave = $2 AND channel = $3 AND state IN ('open', 'claimed')`, c.CampaignID, c.Wave, c.Channel, c.Reason)
		if err != nil {
			return fmt.Errorf("withdraw tasks: %w", err)
		}
		// After the tasks and before the contacts, as whoever claims and whoever sends: intents under
		// way are waited for, and no two wait for each other.
		if _, err := tx.Exec(ctx, `SELECT FROM campaign WHERE id = $1 FOR NO KEY UPDATE`, c.CampaignID); err != nil {
			return fmt.Errorf("lock campaign: %w", err)
		}
		// From here on a message that comes back not sent is ended by its worker.
		_, err = tx.Exec(ctx, `UPDATE contact_batch SET closed_state = $4, closed_reason = $5 WHERE campaign_id = $1 AND wave = $2 AND channel = $3`,
			c.CampaignID, c.Wave, c.Channel, c.State, c.Reason)
		if err != nil {
			return fmt.Errorf("close channel: %w", err)
		}
		tag, err := tx.Exec(ctx, `UPDATE contact SET state = $4, reason = $5, lease_until = NULL, lease_owner = NULL, updated_at = now()
			WHERE campaign_id = $1 AND wave = $2 AND channel = $3 AND state IN ('planned', 'claimed')`,
			c.CampaignID, c.Wave, c.Channel, c.State, c.Reason)
		if err != nil {
			return fmt.Errorf("close contacts: %w", err)
		}
		_, err = tx.Exec(ctx, `UPDATE contact SET state = 'unknown', reason = '`+interrupted+`', lease_until = NULL, updated_at = now()
			WHERE campaign_id = $1 AND wave = $2 AND channel = $3 AND state = 'sending' AND lease_until < now()`, c.CampaignID, c.Wave, c.Channel)
		if err != nil {
			return fmt.Errorf("close contacts: %w", err)
		}
		if _, err := tx.Exec(ctx, releaseEnded(`wave = $2 AND channel = $3`), c.CampaignID, c.Wave, c.Channel); err != nil {
			return fmt.Errorf("release contacts: %w", err)
		}
		if err := release(ctx, tx, c.CampaignID, c.Channel, tag.RowsAffected()); err != nil {
			return err
		}
		return notify(ctx, tx, "campaign", c.CampaignID, 0)
	})
}

// CloseContacts gives every contact of a campaign a final state: what never left is
// cancelled when the campaign was stopped and expired otherwise; what its worker left
// in the middle of sending is unknown. It returns how many contacts are being sent at
// this moment: the caller asks again until there are none.
func (s *Store) CloseContacts(ctx context.Context, campaignID string) (sending int64, err error) {
	err = s.inTx(ctx, func(tx pgx.Tx) error {
		state, reason := campaign.ContactExpired, "running_ended"
		var hold campaign.Hold
		if err := tx.QueryRow(ctx, `SELECT hold FROM campaign WHERE id = $1`, campaignID).Scan(&hold); err != nil {
			return notFound(err, "campaign")
		}
		if hold == campaign.HoldStopped {
			state, reason = campaign.ContactCancelled, "campaign_stopped"
		}
		_, err := tx.Exec(ctx, `UPDATE task SET state = 'withdrawn', result = $2, updated_at = now()
			WHERE campaign_id = $1 AND state IN ('open', 'claimed')`, campaignID, reason)
		if err != nil {
			return fmt.Errorf("withdraw tasks: %w", err)
		}
		if _, err := tx.Exec(ctx, `SELECT FROM campaign WHERE id = $1 FOR NO KEY UPDATE`, campaignID); err != nil { // as CloseChannel does
			return fmt.Errorf("lock campaign: %w", err)
		}
		_, err = tx.Exec(ctx, `UPDATE contact_batch SET closed_state = $2, closed_reason = $3 WHERE campaign_id = $1 AND closed_state IS NULL`, campaignID, state, reason)
		if err != nil {
			return fmt.Errorf("close channels: %w", err)
		}
		_, err = tx.Exec(ctx, `UPDATE contact SET reason = CASE state WHEN 'sending' THEN '`+interrupted+`' ELSE $3 END,
			    state = CASE state WHEN 'sending' THEN 'unknown' ELSE $2 END, lease_until = NULL, updated_at = now()
			WHERE campaign_id = $1 AND (state IN ('planned', 'claimed') OR state = 'sending' AND lease_until < now())`,
			campaignID, state, reason)
		if err != nil {
			return fmt.Errorf("close contacts: %w", err)
		}
		if _, err = tx.Exec(ctx, releaseEnded(`true`), campaignID); err != nil {
			return fmt.Errorf("release contacts: %w", err)
		}
		// Nothing more is promised by a campaign that is over.
		if _, err = tx.Exec(ctx, `DELETE FROM channel_promise WHERE campaign_id = $1`, campaignID); err != nil {
			return fmt.Errorf("end promises: %w", err)
		}
		err = tx.QueryRow(ctx, `SELECT count(*) FROM contact WHERE campaign_id = $1 AND state = 'sending'`, campaignID).Scan(&sending)
		if err != nil {
			return fmt.Errorf("count contacts: %w", err)
		}
		return notify(ctx, tx, "campaign", campaignID, 0)
	})
	if err != nil {
		return sending, err
	}
	return sending, s.inTx(ctx, func(tx pgx.Tx) error { return endReservations(ctx, tx, campaignID) })
}
