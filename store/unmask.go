package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// Unmasked is what identifies a customer.
type Unmasked struct {
	Phone      string          // E.164 digits, "" where none is known
	Attributes json.RawMessage // those that identify a person by themselves, by name
}

// Unmask shows what identifies a customer to a person who says why, and records that they
// saw it before they do. It fails with CodeUnmaskQuota when they have seen quota customers
// since the day began in UTC, and with CodeNotFound.
func (s *Store) Unmask(ctx context.Context, customerID, reason string, quota int64, by campaign.Actor) (Unmasked, error) {
	if s.vault == nil {
		return Unmasked{}, campaign.Errorf(campaign.CodeInvalidParameter, "numbers cannot be shown without the key of the phone vault")
	}
	event, err := uuid.NewV7()
	if err != nil {
		return Unmasked{}, err
	}
	var shown Unmasked
	var id uuid.UUID
	var sealed, wrapped []byte
	err = s.change(ctx, "unmask customer", func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('unmask ' || $1, 0))`, by.UserID); err != nil {
			return err
		}
		err := tx.QueryRow(ctx, `SELECT c.id, v.sealed, p.wrapped, `+attributesOf(`a.pii`)+`
			FROM customer c LEFT JOIN phone_vault v ON v.customer_id = c.id LEFT JOIN phone_key p ON p.customer_id = c.id WHERE c.id = $1`, customerID).
			Scan(&id, &sealed, &wrapped, &shown.Attributes)
		if err != nil {
			return notFound(err, "customer")
		}
		var seen int64
		var tomorrow time.Time
		err = tx.QueryRow(ctx, `SELECT count(*), date_trunc('day', now(), 'UTC') + interval '1 day' FROM unmask_event WHERE user_id = $1 AND at >= date_trunc('day', now(), 'UTC')`, by.UserID).
			Scan(&seen, &tomorrow)
		if err != nil {
			return err
		}
		if seen >= quota {
			return campaign.Errorf(campaign.CodeUnmaskQuota, "you may see %d customers' numbers a day and have: go on tomorrow, or ask somebody else", quota).
				With("quota", quota).With("again_at", tomorrow)
		}
		if _, err := tx.Exec(ctx, `INSERT INTO unmask_event (id, customer_id, user_id, reason) VALUES ($1, $2, $3, $4)`, event, id, by.UserID, reason); err != nil {
			return err
		}
		// The reason stays out of evidence that is never deleted: it may name somebody.
		return recordOnce(ctx, tx, byActor(by, "customer.unmasked", map[string]any{"customer": id, "unmask_event": event}))
	})
	if err != nil {
		return Unmasked{}, err
	}
	if len(sealed) > 0 {
		if shown.Phone, err = s.vault.Open(id, sealed, wrapped); err != nil {
			return Unmasked{}, err
		}
	}
	return shown, nil
}
