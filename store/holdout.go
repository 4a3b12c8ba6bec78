package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/targeting"
)

// DrawHoldout draws the universal holdout among the customers who came since it was last
// drawn, so that they are rows and nobody has to hash a whole base to tell them.
func (s *Store) DrawHoldout(ctx context.Context, h targeting.Holdout) error {
	return s.inTx(ctx, func(tx pgx.Tx) error { return drawHoldout(ctx, tx, h) })
}

// beforeArrival is how long before the transaction that adds a customer its id, which begins
// with the time, may have been made.
const beforeArrival = time.Hour

func drawHoldout(ctx context.Context, tx pgx.Tx, h targeting.Holdout) error {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('universal holdout', 0))`); err != nil {
		return fmt.Errorf("draw holdout: %w", err)
	}
	// Read before the customers are: what arrives in between is looked at again next time.
	var now string
	if err := tx.QueryRow(ctx, `SELECT pg_current_snapshot()::text`).Scan(&now); err != nil {
		return fmt.Errorf("draw holdout: %w", err)
	}
	var share int
	var first *time.Time
	err := tx.QueryRow(ctx, `SELECT d.share, (SELECT min(a.at) FROM customer_arrival a WHERE NOT pg_visible_in_snapshot(a.transaction, d.seen))
		FROM universal_holdout_draw d WHERE d.salt = $1`, h.Salt).Scan(&share, &first)
	anew := errors.Is(err, pgx.ErrNoRows)
	switch {
	case err != nil && !anew:
		return fmt.Errorf("draw holdout: %w", err)
	case err == nil && share == h.Share && first == nil:
		return nil
	case err == nil && share != h.Share: // the same hash: a smaller share is a part of a larger one
		anew = true
		if _, err := tx.Exec(ctx, `DELETE FROM universal_holdout WHERE salt = $1`, h.Salt); err != nil {
			return fmt.Errorf("draw holdout: %w", err)
		}
	}
	from := time.Time{}
	if !anew {
		from = first.Add(-beforeArrival)
	}
	_, err = tx.Exec(ctx, `INSERT INTO universal_holdout (salt, customer_id)
		SELECT $1, id FROM customer WHERE id >= (CASE WHEN $3 THEN rpad('', 32, '0') ELSE rpad(lpad(to_hex((extract(epoch FROM $4::timestamptz) * 1000)::bigint), 12, '0'), 32, '0') END)::uuid
		    AND `+targeting.DrawSQL("$1::text", "id::text")+` < $2
		ON CONFLICT DO NOTHING`, h.Salt, targeting.Threshold(h.Share), anew, from)
	if err != nil {
		return fmt.Errorf("draw holdout: %w", err)
	}
	_, err = tx.Exec(ctx, `INSERT INTO universal_holdout_draw (salt, share, seen) VALUES ($1, $2, $3::pg_snapshot)
		ON CONFLICT (salt) DO UPDATE SET share = EXCLUDED.share, seen = EXCLUDED.seen, at = now()`, h.Salt, h.Share, now)
	if err != nil {
		return fmt.Errorf("draw holdout: %w", err)
	}
	return nil
}
