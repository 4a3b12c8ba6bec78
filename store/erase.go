package store

import (
	"context"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// Erase forgets who a customer is: their number and its key, their external id, attributes,
// holdings, consents and words. What was done stays, with an id that leads to nobody any
// more, and so does the keyed hash of their number on the list of those who are never
// contacted. Backups that leave phone_key out hold the number in a form that nobody can open.
// It fails with CodeNotFound, and with CodeStateConflict when the customer is erased already
// or an import is going on, which could bring back what it had read before.
func (s *Store) Erase(ctx context.Context, customerID, reason string, by campaign.Actor) error {
	return s.change(ctx, "erase customer", func(tx pgx.Tx) error {
		var free bool
		if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock_shared(hashtextextended($1, 0))`, customerImports).Scan(&free); err != nil {
			return err
		}
		if !free {
			return campaign.Errorf(campaign.CodeStateConflict, "customers are being imported: erase this one when that is over")
		}
		var id uuid.UUID
		var unit campaign.OrgUnit
		if err := tx.QueryRow(ctx, `SELECT id, org_unit FROM customer WHERE id = $1 FOR UPDATE`, customerID).Scan(&id, &unit); err != nil {
			return notFound(err, "customer")
		}
		tag, err := tx.Exec(ctx, `INSERT INTO erasure (customer_id, user_id, reason) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, id, by.UserID, reason)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return campaign.Errorf(campaign.CodeStateConflict, "the customer has been erased already")
		}
		_, err = tx.Exec(ctx, `INSERT INTO do_not_contact (tenant, lookup, reason) SELECT $2, lookup, $3 FROM phone_vault WHERE customer_id = $1
			ON CONFLICT (tenant, lookup) DO UPDATE SET reason = EXCLUDED.reason`, id, unit.Tenant(), reasonErased)
		if err != nil {
			return err
		}
		batch := &pgx.Batch{}
		for _, table := range []string{"phone_key", "phone_vault", "holding", "consent", "quarantine"} {
			batch.Queue(`DELETE FROM `+table+` WHERE customer_id = $1`, id)
		}
		batch.Queue(`DELETE FROM reply_review WHERE customer_id = $1 AND refusal IS NULL`, id)
		batch.Queue(`INSERT INTO opt_out (customer_id, channel, purpose, at, source) VALUES ($1, '', '', now(), 'erasure')
			ON CONFLICT (customer_id, channel, purpose) DO UPDATE SET lifted_at = NULL`, id)
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT name FROM customer_attribute ORDER BY name`)
		if err != nil {
			return err
		}
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		var forget strings.Builder
		for _, name := range names {
			forget.WriteString(", " + pgx.Identifier{name}.Sanitize() + " = NULL")
		}
		_, err = tx.Exec(ctx, `UPDATE customer SET opted_out = true, external_id = 'erased ' || id`+forget.String()+` WHERE id = $1`, id)
		if err != nil {
			return err
		}
		return recordOnce(ctx, tx, byActor(by, "customer.erased", map[string]any{"customer": id}))
	})
}
