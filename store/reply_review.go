package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// replyQuarantine is how long a reply that may be a refusal keeps its customer in
// quarantine at most: until then somebody must have read it.
const replyQuarantine = 30 * 24 * time.Hour

// ReplyReview is a reply that may be a refusal, for a person to read.
type ReplyReview struct {
	ID         string // UUID, ordered by when it came
	CustomerID string
	Channel    campaign.Channel
	Words      string
	At         time.Time
	Unit       campaign.OrgUnit // that reads it: whose campaign contacted the number last, or the tenant
	lookup     []byte           // of the number it came from
}

func keepForReview(ctx context.Context, tx pgx.Tx, all []ReplyReview) error {
	batch := &pgx.Batch{}
	for _, r := range all {
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		batch.Queue(`INSERT INTO reply_review (id, customer_id, channel, words, at, unit, lookup) VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT (customer_id, channel, at) WHERE refusal IS NULL DO NOTHING`, id, r.CustomerID, r.Channel, r.Words, r.At, r.Unit, r.lookup)
	}
	if batch.Len() == 0 {
		return nil
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("keep replies for review: %w", err)
	}
	return nil
}

// ReplyReviews returns up to limit replies that wait for a decision by the units or those
// below, with an id above after.
func (s *Store) ReplyReviews(ctx context.Context, units []campaign.OrgUnit, after string, limit int) ([]ReplyReview, error) {
	exact, patterns := below(units)
	rows, err := s.pool.Query(ctx, `SELECT r.id::text, r.customer_id::text, r.channel, r.words, r.at, r.unit FROM reply_review r
		WHERE r.refusal IS NULL AND (r.unit = ANY($1) OR r.unit LIKE ANY($2)) AND r.id > coalesce(nullif($3, '')::uuid, '00000000-0000-0000-0000-000000000000')
		ORDER BY r.id LIMIT $4`, exact, patterns, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list replies for review: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ReplyReview])
	if err != nil {
		return nil, fmt.Errorf("list replies for review: %w", err)
	}
	return all, nil
}

// DecideReply says whether a reply was a refusal: then its customer and the tenant's others who
// have the number that it came from are opted out, for any of them may have sent it. They are
// free of it, unless another reply of theirs waits. The words and the number are forgotten. It
// fails with CodeNotFound outside the units, and CodeStateConflict when it is decided.
func (s *Store) DecideReply(ctx context.Context, units []campaign.OrgUnit, id string, refusal bool, by campaign.Actor) error {
	exact, patterns := below(units)
	return s.change(ctx, "decide on reply", func(tx pgx.Tx) error {
		var r ReplyReview
		var decided *bool
		err := tx.QueryRow(ctx, `SELECT r.customer_id::text, r.channel, r.at, r.unit, r.lookup, r.refusal FROM reply_review r
			WHERE r.id = $3 AND (r.unit = ANY($1) OR r.unit LIKE ANY($2)) FOR NO KEY UPDATE`, exact, patterns, id).
			Scan(&r.CustomerID, &r.Channel, &r.At, &r.Unit, &r.lookup, &decided)
		if errors.Is(err, pgx.ErrNoRows) {
			return campaign.Errorf(campaign.CodeNotFound, "there is no such reply")
		} else if err != nil {
			return err
		}
		if decided != nil {
			return campaign.Errorf(campaign.CodeStateConflict, "somebody has decided on this reply already")
		}
		_, err = tx.Exec(ctx, `UPDATE reply_review SET refusal = $2, words = NULL, lookup = NULL, decided_by = $3, decided_at = now() WHERE id = $1`, id, refusal, by.UserID)
		if err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT $1::text UNION SELECT c.id::text FROM phone_vault v JOIN customer c ON c.id = v.customer_id
			WHERE v.lookup = $2 AND split_part(c.org_unit, '/', 1) = $3`, r.CustomerID, r.lookup, r.Unit.Tenant())
		if err != nil {
			return err
		}
		who, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		if refusal {
			var refusals []OptOut
			for _, id := range who {
				refusals = append(refusals, OptOut{CustomerID: id, At: r.At, Source: string(r.Channel), By: by, Reason: "reply read"})
			}
			if err := optOut(ctx, tx, refusals); err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, `
			WITH freed AS (DELETE FROM quarantine WHERE customer_id = ANY($1::uuid[]) AND why = $2
			    AND NOT EXISTS (SELECT FROM reply_review r WHERE r.refusal IS NULL AND (r.customer_id = ANY($1::uuid[])
			        OR r.lookup = $5 AND split_part(r.unit, '/', 1) = $6)) RETURNING customer_id)
			INSERT INTO consent_event (customer_id, event, at, source, user_id, reason)
			SELECT customer_id, 'quarantine_lifted', now(), $3, $4, $2 FROM freed`, who, QuarantineReply, r.Channel, by.UserID, r.lookup, r.Unit.Tenant())
		if err != nil {
			return err
		}
		return recordOnce(ctx, tx, byActor(by, "reply.decided", map[string]any{"reply": id, "customer": r.CustomerID, "refusal": refusal}))
	})
}
