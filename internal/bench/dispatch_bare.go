package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

const contactsPerShard = 5000

// bare claims and marks the rows of a table of the contacts' shape, with the same
// statements that anybody would write and nothing around them.
func (d *dispatch) bare(ctx context.Context, w *stopwatch) (int64, error) {
	pool := d.st.Pool()
	id := uuid.New()
	// Columns, indexes and fill factor of a campaign's contacts, but none of their triggers.
	_, err := pool.Exec(ctx, `DROP TABLE IF EXISTS bare_contact; CREATE TABLE bare_contact (LIKE contact INCLUDING ALL) WITH (fillfactor = 60)`)
	if err != nil {
		return 0, fmt.Errorf("make bare table: %w", err)
	}
	// Neighbours on a page belong to different shards, as Muster's do, so that a claim's
	// new versions find room beside the old ones.
	shards := make([]int64, (d.o.Messages+contactsPerShard-1)/contactsPerShard)
	for n := range d.o.Messages {
		shards[n%len(shards)]++
	}
	_, err = pool.Exec(ctx, `INSERT INTO bare_contact (campaign_id, id, customer_id, not_after, seq, wave, shard, channel, tier)
		SELECT $1, gen_random_uuid(), id, now() + interval '1 hour', 1 + (n - 1) / $3, 1, (n - 1) % $3, 'sms', 'general'
		FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM customer LIMIT $2) c`, id, d.o.Messages, len(shards))
	if err != nil {
		return 0, fmt.Errorf("fill bare table: %w", err)
	}
	if _, err := pool.Exec(ctx, "ANALYZE bare_contact"); err != nil {
		return 0, err
	}
	if err := d.suite.Engines.checkpoint(ctx); err != nil {
		return 0, err
	}
	if err := w.start(); err != nil {
		return 0, err
	}
	err = chunks(ctx, shards, func(ctx context.Context, shard int, from, to int64) error {
		return d.bareChunk(ctx, id, shard, from, to)
	})
	if err = errors.Join(err, w.stop()); err != nil {
		return 0, err
	}
	var sent int64
	if err := pool.QueryRow(ctx, `SELECT count(*) FROM bare_contact WHERE state = 'sent' AND epoch = 1`).Scan(&sent); err != nil {
		return 0, err
	}
	if sent != int64(d.o.Messages) {
		return 0, wrong("%d of %d rows are marked", sent, d.o.Messages)
	}
	_, err = pool.Exec(ctx, "DROP TABLE bare_contact")
	return sent, err
}

func (d *dispatch) bareChunk(ctx context.Context, id uuid.UUID, shard int, from, to int64) error {
	conn, err := d.st.Pool().Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	for {
		rows, err := conn.Query(ctx, `
			UPDATE bare_contact c SET state = 'claimed', epoch = epoch + 1, lease_owner = 'bench', lease_until = now() + interval '30 seconds', updated_at = now()
			FROM (SELECT ctid FROM bare_contact WHERE campaign_id = $1 AND wave = 1 AND channel = 'sms' AND shard = $2 AND seq BETWEEN $3 AND $4
			        AND state = 'planned' ORDER BY seq LIMIT $5 FOR UPDATE SKIP LOCKED) due
			WHERE c.ctid = due.ctid
			RETURNING c.id`, id, shard, from, to, claimSize)
		if err != nil {
			return fmt.Errorf("claim: %w", err)
		}
		claimed, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
		if err != nil {
			return fmt.Errorf("claim: %w", err)
		}
		if len(claimed) == 0 {
			return nil
		}
		_, err = conn.Exec(ctx, `UPDATE bare_contact SET state = 'sent', lease_owner = NULL, lease_until = NULL, updated_at = now()
			WHERE campaign_id = $1 AND id = ANY($2) AND state = 'claimed'`, id, claimed)
		if err != nil {
			return fmt.Errorf("mark: %w", err)
		}
	}
}
