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
}

func keepForReview(ctx context.Context, tx pgx.Tx, channel campaign.Channel, from []Quarantine, words []string) error {
	batch := &pgx.Batch{}
	for i, q := range from {
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		batch.Queue(`INSERT INTO reply_review (id, customer_id, channel, words, at) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (customer_id, channel, at) WHERE refusal IS NULL DO NOTHING`, id, q.CustomerID, channel, words[i], q.At)
	}
	if batch.Len() == 0 {
		return nil
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("keep replies for review: %w", err)
	}
	return nil
}

// ReplyReviews returns up to limit replies that wait for a decision, of customers in the
// units and below, with an id above after.
func (s *Store) ReplyReviews(ctx context.Context, units []campaign.OrgUnit, after string, limit int) ([]ReplyReview, error) {
	exact, patterns := below(units)
	rows, err := s.pool.Query(ctx, `SELECT r.id::text, r.customer_id::text, r.channel, r.words, r.at
		FROM reply_review r JOIN customer c ON c.id = r.customer_id
		WHERE r.refusal IS NULL AND (c.org_unit = ANY($1) OR c.org_unit LIKE ANY($2)) AND r.id > coalesce(nullif($3, '')::uuid, '00000000-0000-0000-0000-000000000000')
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

// DecideReply says whether a reply was a refusal: then its customer is opted out, and
// otherwise free again unless another reply of theirs waits. The words are forgotten. It
// fails with CodeNotFound outside the units, and CodeStateConflict when it is decided.
func (s *Store) DecideReply(ctx context.Context, units []campaign.OrgUnit, id string, refusal bool, by campaign.Actor) error {
	exact, patterns := below(units)
	return s.change(ctx, "decide on reply", func(tx pgx.Tx) error {
		var r ReplyReview
		var decided *bool
		err := tx.QueryRow(ctx, `SELECT r.customer_id::text, r.channel, r.at, r.refusal FROM reply_review r JOIN customer c ON c.id = r.customer_id
			WHERE r.id = $3 AND (c.org_unit = ANY($1) OR c.org_unit LIKE ANY($2)) FOR NO KEY UPDATE`, exact, patterns, id).
			Scan(&r.CustomerID, &r.Channel, &r.At, &decided)
		if errors.Is(err, pgx.ErrNoRows) {
			return campaign.Errorf(campaign.CodeNotFound, "there is no such reply")
		} else if err != nil {
			return err
		}
		if decided != nil {
			return campaign.Errorf(campaign.CodeStateConflict, "somebody has decided on this reply already")
		}
		_, err = tx.Exec(ctx, `UPDATE reply_review SET refusal = $2, words = NULL, decided_by = $3, decided_at = now() WHERE id = $1`, id, refusal, by.UserID)
		if err != nil {
			return err
		}
		if refusal {
			if err := optOut(ctx, tx, []OptOut{{CustomerID: r.CustomerID, At: r.At, Source: string(r.Channel), By: by, Reason: "reply read"}}); err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, `
			WITH freed AS (DELETE FROM quarantine q WHERE q.customer_id = $1 AND q.why = $2
			    AND NOT EXISTS (SELECT FROM reply_review r WHERE r.customer_id = $1 AND r.refusal IS NULL) RETURNING customer_id)
			INSERT INTO consent_event (customer_id, event, at, source, user_id, reason)
			SELECT customer_id, 'quarantine_lifted', now(), $3, $4, $2 FROM freed`, r.CustomerID, QuarantineReply, r.Channel, by.UserID)
		if err != nil {
			return err
		}
		return recordOnce(ctx, tx, byActor(by, "reply.decided", map[string]any{"reply": id, "customer": r.CustomerID, "refusal": refusal}))
	})
}
