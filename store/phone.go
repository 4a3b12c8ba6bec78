package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// The columns that a phoneEncoder writes.
const (
	phoneColumns = "customer_id, sealed, lookup"
	keyColumns   = "customer_id, wrapped"
)

// phoneEncoder turns numbers into rows of phone_vault and phone_key, for one goroutine.
type phoneEncoder struct {
	vault   *Vault
	lookups lookups
	region  string
	random  [sealRandom]byte
	pool    [100 * sealRandom]byte // random bytes that were not used yet: asking for a few at a time costs more than sealing
	left    int
	sealed  []byte
	wrapped []byte
}

func newPhoneEncoder(v *Vault, region string) *phoneEncoder {
	return &phoneEncoder{vault: v, lookups: v.lookups(), region: region}
}

// add normalises and seals a customer's number and appends one row to each buffer. On a
// number that is none it appends nothing and fails with CodeInvalidMSISDN.
func (e *phoneEncoder) add(phones, keys *copyBuffer, id uuid.UUID, msisdn string) error {
	number, err := NormaliseMSISDN(msisdn, e.region)
	if err != nil {
		return err
	}
	e.seal(phones, keys, id, []byte(number))
	return nil
}

// seal is add for a number that is normalised.
func (e *phoneEncoder) seal(phones, keys *copyBuffer, id uuid.UUID, number []byte) {
	if e.left == 0 {
		rand.Read(e.pool[:])
		e.left = len(e.pool)
	}
	copy(e.random[:], e.pool[len(e.pool)-e.left:])
	e.left -= sealRandom
	e.sealed, e.wrapped = e.vault.appendSealed(e.sealed[:0], e.wrapped[:0], &e.random, id, number)
	phones.row(3)
	phones.uuid(id)
	phones.bytes(e.sealed)
	phones.size(32)
	phones.b = e.lookups.of(number, phones.b)
	keys.row(2)
	keys.uuid(id)
	keys.bytes(e.wrapped)
}

// maskedPhone shows the last four digits of a sealed number, none when there is no
// key to open it with, and nothing when no number is known.
func (s *Store) maskedPhone(customer uuid.UUID, sealed, wrapped []byte) string {
	const hidden = "*******"
	if len(sealed) == 0 {
		return ""
	}
	if s.vault == nil {
		return hidden
	}
	number, err := s.vault.Open(customer, sealed, wrapped)
	if err != nil || len(number) < 8 {
		return hidden
	}
	return hidden + number[len(number)-4:]
}

// rewrapped is how many numbers are read and written at a time.
const rewrapped = 5_000

// RewrapNumbers wraps the keys of all numbers by the vault's newest key, and gives those
// that an earlier version sealed a key of their own. Afterwards the vault's older keys are
// needed for nothing but look-ups, and those by the first alone. It may be run at any time
// and again; progress is told the numbers looked at so far. It returns how many it changed.
func (s *Store) RewrapNumbers(ctx context.Context, progress func(seen int64)) (changed int64, err error) {
	newest := s.vault.newest().id[:]
	after, seen := uuid.Nil, int64(0)
	for {
		type row struct {
			customer        uuid.UUID
			sealed, wrapped []byte
		}
		rows, err := s.pool.Query(ctx, `SELECT v.customer_id, v.sealed, k.wrapped FROM phone_vault v LEFT JOIN phone_key k USING (customer_id)
			WHERE v.customer_id > $1 ORDER BY v.customer_id LIMIT $2`, after, rewrapped)
		if err != nil {
			return changed, fmt.Errorf("read numbers: %w", err)
		}
		page, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (o row, err error) {
			return o, r.Scan(&o.customer, &o.sealed, &o.wrapped)
		})
		if err != nil {
			return changed, fmt.Errorf("read numbers: %w", err)
		}
		if len(page) == 0 {
			return changed, nil
		}
		batch := &pgx.Batch{}
		for _, r := range page {
			switch {
			case r.wrapped == nil:
				number, err := s.vault.Open(r.customer, r.sealed, nil)
				if err != nil {
					return changed, fmt.Errorf("number of customer %s: %w", r.customer, err)
				}
				if again, err := NormaliseMSISDN(number, s.region); err == nil {
					number = again // earlier versions kept some without their country code
				}
				sealed, wrapped := s.vault.Seal(r.customer, number)
				// An import may have brought another number meanwhile, with a key.
				batch.Queue(`WITH moved AS (UPDATE phone_vault SET sealed = $2, lookup = $3 WHERE customer_id = $1 AND sealed = $5 RETURNING customer_id)
					INSERT INTO phone_key (customer_id, wrapped) SELECT customer_id, $4 FROM moved`, r.customer, sealed, s.vault.Lookup(number), wrapped, r.sealed)
			case !bytes.HasPrefix(r.wrapped, newest):
				wrapped, err := s.vault.rewrap(r.customer, r.wrapped)
				if err != nil {
					return changed, fmt.Errorf("number of customer %s: %w", r.customer, err)
				}
				batch.Queue(`UPDATE phone_key SET wrapped = $2 WHERE customer_id = $1 AND wrapped = $3`, r.customer, wrapped, r.wrapped)
			}
		}
		err = s.inTx(ctx, func(tx pgx.Tx) error {
			results := tx.SendBatch(ctx, batch)
			for range batch.Len() {
				tag, err := results.Exec()
				if err != nil {
					_ = results.Close()
					return err
				}
				changed += tag.RowsAffected()
			}
			return results.Close()
		})
		if err != nil {
			return changed, fmt.Errorf("rewrap numbers: %w", err)
		}
		after, seen = page[len(page)-1].customer, seen+int64(len(page))
		if progress != nil {
			progress(seen)
		}
	}
}
