package store

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// Erase forgets who a customer is: their number and its key, their external id, attributes,
// holdings, consents and words, what agents noted of them, answers that are kept for retries,
// and of the tenant's imports the values that were shown of rows. What was done stays, with an
// id that leads to nobody any more. Keyed hashes keep the external id from being imported and
// the number from being contacted again. Backups that leave phone_key out hold the number in a
// form that nobody can open.
// It fails with CodeNotFound, and with CodeStateConflict when the customer is erased already
// or an import of the tenant is being read, which could bring back what it had read before; one
// that has stood still for an hour reads again whom it may bring when it goes on.
func (s *Store) Erase(ctx context.Context, customerID, reason string, by campaign.Actor) error {
	if s.vault == nil {
		return campaign.Errorf(campaign.CodeInvalidParameter, "customers cannot be erased without the key of the phone vault: it keeps them from coming back")
	}
	return s.change(ctx, "erase customer", func(tx pgx.Tx) error {
		var id uuid.UUID
		var unit campaign.OrgUnit
		var external string
		if err := tx.QueryRow(ctx, `SELECT id, org_unit, external_id FROM customer WHERE id = $1 FOR UPDATE`, customerID).Scan(&id, &unit, &external); err != nil {
			return notFound(err, "customer")
		}
		var free bool
		var importing string
		err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock_shared(hashtextextended($1, 0)), coalesce((SELECT min(id::text) FROM import_job
			WHERE tenant = $2 AND state IN ('checking', 'loading') AND changed_at > now() - interval '1 hour'), '')`, customerImports, unit.Tenant()).Scan(&free, &importing)
		if err != nil {
			return err
		}
		if importing != "" {
			return campaign.Errorf(campaign.CodeStateConflict, "import %s is going on: erase the customer when it is over", importing).With("import", importing)
		}
		if !free {
			return campaign.Errorf(campaign.CodeStateConflict, "customers are being imported: erase this one when that is over")
		}
		tag, err := tx.Exec(ctx, `INSERT INTO erasure (customer_id, user_id, reason) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, id, by.UserID, reason)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return campaign.Errorf(campaign.CodeStateConflict, "the customer has been erased already")
		}
		if err := s.forget(ctx, tx, id, unit.Tenant(), external); err != nil {
			return err
		}
		return recordOnce(ctx, tx, byActor(by, "customer.erased", map[string]any{"customer": id}))
	})
}

// forgotten is the answer that a retry gets when the first one told of somebody who was erased.
const forgotten = `{"type":"urn:muster:problem:erased","title":"Gone","status":410,"code":"erased","detail":"the answer told of a customer who has been erased since"}`

func (s *Store) forget(ctx context.Context, tx pgx.Tx, id uuid.UUID, tenant campaign.OrgUnit, external string) error {
	told, err := json.Marshal(external) // as answers have it
	if err != nil {
		return err
	}
	batch := &pgx.Batch{}
	batch.Queue(`INSERT INTO erased_key (tenant, hash) VALUES ($1, $2) ON CONFLICT DO NOTHING`, tenant, s.vault.lookups().subject(tenant, []byte(external), nil))
	batch.Queue(`INSERT INTO do_not_contact (tenant, lookup, reason) SELECT $2, lookup, $3 FROM phone_vault WHERE customer_id = $1
		ON CONFLICT (tenant, lookup) DO UPDATE SET reason = EXCLUDED.reason`, id, tenant, reasonErased)
	for _, table := range []string{"phone_key", "phone_vault", "holding", "consent", "quarantine"} {
		batch.Queue(`DELETE FROM `+table+` WHERE customer_id = $1`, id)
	}
	batch.Queue(`DELETE FROM reply_review WHERE customer_id = $1 AND refusal IS NULL`, id)
	batch.Queue(`UPDATE task SET note = '' WHERE customer_id = $1 AND note <> ''`, id)
	batch.Queue(`INSERT INTO opt_out (customer_id, channel, purpose, at, source) VALUES ($1, '', '', now(), 'erasure')
		ON CONFLICT (customer_id, channel, purpose) DO UPDATE SET lifted_at = NULL`, id)
	// The key stays, so that a retry does not do again what was done before the erasure. Elsewhere
	// the external id is another's.
	batch.Queue(`UPDATE idempotency_key SET status = 410, content_type = 'application/problem+json', body = convert_to($3, 'UTF8'), etag = ''
		WHERE body IS NOT NULL AND (position(convert_to($1, 'UTF8') IN body) > 0 OR position($2 IN body) > 0 AND user_id IN (
		    SELECT user_id FROM role_grant WHERE split_part(unit, '/', 1) = $4 UNION SELECT id FROM app_user WHERE split_part(unit, '/', 1) = $4))`, id.String(), told, forgotten, tenant)
	// Which of those values are theirs nobody can tell.
	batch.Queue(`UPDATE import_reject r SET value = '' FROM import_job j WHERE j.tenant = $1 AND r.job_id = j.id AND r.value <> ''`, tenant)
	batch.Queue(`UPDATE import_job SET version = version + 1, report = report || jsonb_build_object('preview', '[]'::jsonb, 'columns',
		    (SELECT coalesce(jsonb_agg(c - 'faults' || '{"sample": []}' ORDER BY n), '[]') FROM jsonb_array_elements(report->'columns') WITH ORDINALITY x(c, n)))
		WHERE tenant = $1 AND report IS NOT NULL AND (report->'preview' <> '[]' OR report @? '$.columns[*].sample[*]' OR report @? '$.columns[*].faults[*]')`, tenant)
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
	var without strings.Builder
	for _, name := range names {
		without.WriteString(", " + pgx.Identifier{name}.Sanitize() + " = NULL")
	}
	_, err = tx.Exec(ctx, `UPDATE customer SET opted_out = true, external_id = $2 || id`+without.String()+` WHERE id = $1`, id, erasedPrefix)
	return err
}
