package population

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/internal/dataset"
	"github.com/musterhq/muster/store"
)

// historySource names the recorded calls in contact_history.
const historySource = "bank-marketing"

// recordHistory writes the concluded call of everybody in the bank's history, once.
// Position is the order of the file, which is the order of time.
func recordHistory(ctx context.Context, st *store.Store, calls []dataset.Recorded) error {
	err := pgx.BeginFunc(ctx, st.Pool(), func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('contact history', 0))`); err != nil {
			return err
		}
		var there int64
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM contact_history WHERE source = $1`, historySource).Scan(&there); err != nil {
			return err
		}
		if there == int64(len(calls)) {
			return nil
		}
		_, err := tx.Exec(ctx, `CREATE TEMP TABLE recorded_call (external_id text, at timestamptz, outcome text, seconds integer, position bigint) ON COMMIT DROP`)
		if err != nil {
			return err
		}
		_, err = tx.CopyFrom(ctx, pgx.Identifier{"recorded_call"}, []string{"external_id", "at", "outcome", "seconds", "position"},
			pgx.CopyFromSlice(len(calls), func(i int) ([]any, error) {
				c := calls[i]
				return []any{c.ExternalID, c.CalledOn, c.Outcome(), int32(c.DurationSeconds), int64(i + 1)}, nil
			}))
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO contact_history (customer_id, channel, at, outcome, seconds, source, position)
			SELECT c.id, $1, r.at, r.outcome, r.seconds, $2, r.position FROM recorded_call r JOIN customer c USING (external_id)
			ON CONFLICT (source, position) DO NOTHING`, dataset.ChannelCall, historySource)
		return err
	})
	if err != nil {
		return fmt.Errorf("record the bank's past calls: %w", err)
	}
	return nil
}
