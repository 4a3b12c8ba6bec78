package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// reasonErased is why the number of an erased customer is on the list; it stays there.
const reasonErased = "erased"

// DoNotContact puts numbers on a tenant's list of those that are never contacted, whoever has
// them. It returns how many are new; a number that is none is a fault and keeps no other from
// landing.
func (s *Store) DoNotContact(ctx context.Context, tenant campaign.OrgUnit, numbers []string, reason string, by campaign.Actor) (added int, faults []campaign.FieldError, err error) {
	lookups, faults, err := s.lookupsOf(numbers)
	if err != nil {
		return 0, nil, err
	}
	err = s.change(ctx, "add numbers to the do-not-contact list", func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `INSERT INTO do_not_contact (tenant, lookup, reason) SELECT $1, l, $3 FROM unnest($2::bytea[]) l ORDER BY l ON CONFLICT DO NOTHING`, tenant, lookups, reason)
		if err != nil {
			return err
		}
		added = int(tag.RowsAffected())
		return recordOnce(ctx, tx, byActor(by, "do_not_contact.added", map[string]any{"tenant": tenant, "numbers": added}))
	})
	return added, faults, err
}

// ContactAgain takes numbers off a tenant's list and returns how many were on it. Those of
// erased customers stay.
func (s *Store) ContactAgain(ctx context.Context, tenant campaign.OrgUnit, numbers []string, reason string, by campaign.Actor) (removed int, faults []campaign.FieldError, err error) {
	lookups, faults, err := s.lookupsOf(numbers)
	if err != nil {
		return 0, nil, err
	}
	err = s.change(ctx, "take numbers off the do-not-contact list", func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `DELETE FROM do_not_contact WHERE tenant = $1 AND lookup = ANY($2) AND reason <> $3`, tenant, lookups, reasonErased)
		if err != nil {
			return err
		}
		removed = int(tag.RowsAffected())
		return recordOnce(ctx, tx, byActor(by, "do_not_contact.removed", map[string]any{"tenant": tenant, "numbers": removed, "reason": reason}))
	})
	return removed, faults, err
}

// lookupsOf returns how the vault finds each number, and the faults of those that are none.
func (s *Store) lookupsOf(numbers []string) (lookups [][]byte, faults []campaign.FieldError, err error) {
	if s.vault == nil {
		return nil, nil, campaign.Errorf(campaign.CodeInvalidParameter, "numbers cannot be looked up without the key of the phone vault")
	}
	lookups, faults = [][]byte{}, []campaign.FieldError{}
	for i, number := range numbers {
		digits, err := NormaliseMSISDN(number, s.region)
		var fault *campaign.Error
		if errors.As(err, &fault) {
			faults = append(faults, campaign.FieldError{Field: fmt.Sprintf("numbers[%d]", i), Code: fault.Code, Message: fault.Message})
			continue
		}
		lookups = append(lookups, s.vault.Lookup(digits))
	}
	return lookups, faults, nil
}
