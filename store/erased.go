package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// erasedPrefix begins the external ids of erased customers; no other has one like it.
const erasedPrefix = "erased "

// erasedIDs tell whether an external id was that of a customer whom a tenant has erased.
// They know keyed hashes alone.
type erasedIDs struct {
	vault  *Vault
	hashes map[[sha256.Size]byte]struct{}
}

// erasedIDs reads them. While the caller holds the lock of imports nobody else is erased.
func (s *Store) erasedIDs(ctx context.Context) (erasedIDs, error) {
	e := erasedIDs{vault: s.vault, hashes: map[[sha256.Size]byte]struct{}{}}
	rows, err := s.pool.Query(ctx, `SELECT hash FROM erased_key`)
	if err != nil {
		return e, fmt.Errorf("read erased customers: %w", err)
	}
	var hash []byte
	_, err = pgx.ForEachRow(rows, []any{&hash}, func() error {
		e.hashes[[sha256.Size]byte(hash)] = struct{}{}
		return nil
	})
	if err != nil {
		return e, fmt.Errorf("read erased customers: %w", err)
	}
	return e, nil
}

// Erased returns what makes, for a goroutine, a function that reports whether a tenant has
// erased an external id.
func (s *Store) Erased(ctx context.Context) (func() func(tenant campaign.OrgUnit, externalID []byte) bool, error) {
	e, err := s.erasedIDs(ctx)
	if err == nil && len(e.hashes) > 0 && s.vault == nil {
		err = campaign.Errorf(campaign.CodeInvalidParameter, "who was erased cannot be told without the key of the phone vault")
	}
	return e.checker, err
}

// checker returns a function that reports whether a tenant has erased an external id, for one
// goroutine. Where nobody was erased it hashes nothing.
func (e erasedIDs) checker() func(tenant campaign.OrgUnit, externalID []byte) bool {
	var hash lookups
	if len(e.hashes) > 0 {
		hash = e.vault.lookups()
	}
	var sum []byte
	return func(tenant campaign.OrgUnit, externalID []byte) bool {
		if bytes.HasPrefix(externalID, []byte(erasedPrefix)) {
			return true
		}
		if len(e.hashes) == 0 {
			return false
		}
		sum = hash.subject(tenant, externalID, sum[:0])
		_, erased := e.hashes[[sha256.Size]byte(sum)]
		return erased
	}
}

// among returns which of a batch's customers were erased, by their place in it.
func (e erasedIDs) among(b *CustomerBatch) map[int]bool {
	var gone map[int]bool
	erased, tenant := e.checker(), b.load.job.Unit.Tenant()
	for i := range b.Len() {
		if erased(tenant, b.key(i)) {
			if gone == nil {
				gone = map[int]bool{}
			}
			gone[i] = true
		}
	}
	return gone
}

// subject is the keyed hash by which a tenant knows an external id again.
func (l lookups) subject(tenant campaign.OrgUnit, externalID, dst []byte) []byte {
	l.mac.Reset()
	l.mac.Write([]byte("external id\x00" + string(tenant) + "\x00")) // no number begins so
	l.mac.Write(externalID)
	return l.mac.Sum(dst)
}
