package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// delegations reads rows of campaign.Delegation. A delegation holds while it is in its
// period and not revoked, and as long as both people are let in.
const (
	delegations = `SELECT d.id::text, d.number, d.from_user::text, f.name, d.to_user::text, t.name, d.actions, d.unit, d.most,
			lower(d.valid), upper(d.valid), d.reason, d.created_at, d.revoked_at, d.revoked_by::text, ` + delegationHolds + `
		FROM delegation d JOIN app_user f ON f.id = d.from_user JOIN app_user t ON t.id = d.to_user`
	delegationHolds = `(d.valid @> now() AND d.revoked_at IS NULL AND NOT f.disabled AND NOT t.disabled)`
)

// NumberedDelegation is a delegation of a list, with its position in it.
type NumberedDelegation struct {
	campaign.Delegation
	Number int64
}

func scanDelegation(row pgx.CollectableRow) (NumberedDelegation, error) {
	var d NumberedDelegation
	err := row.Scan(&d.ID, &d.Number, &d.From, &d.FromName, &d.To, &d.ToName, &d.Actions, &d.Unit, &d.Limit,
		&d.ValidFrom, &d.ValidUntil, &d.Reason, &d.CreatedAt, &d.RevokedAt, &d.RevokedBy, &d.Valid)
	return d, err
}

func readDelegations(ctx context.Context, q querier, where string, args ...any) ([]NumberedDelegation, error) {
	rows, err := q.Query(ctx, delegations+" "+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read delegations: %w", err)
	}
	all, err := pgx.CollectRows(rows, scanDelegation)
	if err != nil {
		return nil, fmt.Errorf("read delegations: %w", err)
	}
	return all, nil
}

// Delegation returns a delegation, or CodeNotFound.
func (s *Store) Delegation(ctx context.Context, id string) (campaign.Delegation, error) {
	all, err := readDelegations(ctx, s.pool, `WHERE d.id = $1`, id)
	if err != nil {
		return campaign.Delegation{}, err
	}
	if len(all) == 0 {
		return campaign.Delegation{}, notFound(pgx.ErrNoRows, "delegation")
	}
	return all[0].Delegation, nil
}

// DelegationFilter narrows a list of delegations: those to To, or else those from or to
// UserID, or without one those whose unit is one of Units or below.
type DelegationFilter struct {
	To     string
	UserID string
	Units  []campaign.OrgUnit
	Before int64 // only numbers below it, 0 for all
	Limit  int
}

// Delegations lists delegations, the newest first.
func (s *Store) Delegations(ctx context.Context, f DelegationFilter) ([]NumberedDelegation, error) {
	// Each is a query of its own, for none can use the index of another.
	const page = ` AND ($1 = 0 OR d.number < $1) ORDER BY d.number DESC LIMIT $2`
	switch {
	case f.To != "":
		return readDelegations(ctx, s.pool, `WHERE d.to_user = $3`+page, f.Before, f.Limit, f.To)
	case f.UserID != "":
		return readDelegations(ctx, s.pool, `WHERE (d.from_user = $3 OR d.to_user = $3)`+page, f.Before, f.Limit, f.UserID)
	default:
		exact, patterns := below(f.Units)
		return readDelegations(ctx, s.pool, `WHERE (d.unit = ANY($3) OR d.unit LIKE ANY($4))`+page, f.Before, f.Limit, exact, patterns)
	}
}

// AddDelegation lends authority from now or d.ValidFrom, whichever is later, until
// d.ValidUntil, by the database's clock. When there is a delegation of that id already,
// the same request was worked on before, and that one is returned. It fails with
// CodeInvalidParameter, the field named, on a period that has ended or is longer than
// campaign.DelegationLongest, and on a receiver who is no person that may log in.
//
// Whether the delegator holds what they lend is for the caller to find out.
func (s *Store) AddDelegation(ctx context.Context, d campaign.Delegation, by campaign.Actor) (campaign.Delegation, error) {
	var from *time.Time
	if !d.ValidFrom.IsZero() {
		from = &d.ValidFrom
	}
	err := s.change(ctx, "add delegation", func(tx pgx.Tx) error {
		var past, long, person bool
		err := tx.QueryRow(ctx, `SELECT $2 <= greatest($1, now()), $2 > greatest($1, now()) + $3 * interval '1 second',
				EXISTS (SELECT FROM app_user WHERE id = $4 AND kind = $5 AND NOT disabled)`,
			from, d.ValidUntil, campaign.DelegationLongest.Seconds(), d.To, KindPerson).Scan(&past, &long, &person)
		switch {
		case err != nil:
			return err
		case past:
			return field("until", "must be after the delegation begins and after now")
		case long:
			return field("until", "must be within 90 days of the beginning")
		case !person:
			return field("to", "must be the login of a person who may log in")
		}
		tag, err := tx.Exec(ctx, `INSERT INTO delegation (id, from_user, to_user, actions, unit, most, valid, reason, created_by)
			VALUES ($1, $2, $3, $4, $5, $6, tstzrange(greatest($7, now()), $8), $9, $10) ON CONFLICT (id) DO NOTHING`,
			d.ID, d.From, d.To, d.Actions, d.Unit, d.Limit, from, d.ValidUntil, d.Reason, by.UserID)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return recordOnce(ctx, tx, byActor(by, "delegation.added", map[string]any{
			"delegation": d.ID, "from": d.From, "to": d.To, "actions": d.Actions, "unit": d.Unit, "limit": d.Limit, "until": d.ValidUntil, "reason": d.Reason,
		}))
	})
	if foreignKeyViolation(err, "delegation_unit_fkey") {
		return campaign.Delegation{}, field("unit", fmt.Sprintf("there is no org unit %q", d.Unit))
	}
	if err != nil {
		return campaign.Delegation{}, err
	}
	return s.Delegation(ctx, d.ID)
}

// RevokeDelegation ends a delegation now; ending it again changes nothing. It fails with
// CodeNotFound.
func (s *Store) RevokeDelegation(ctx context.Context, id string, by campaign.Actor) (campaign.Delegation, error) {
	err := s.change(ctx, "revoke delegation", func(tx pgx.Tx) error {
		var from string
		err := tx.QueryRow(ctx, `UPDATE delegation SET revoked_at = clock_timestamp(), revoked_by = $2
			WHERE id = $1 AND revoked_at IS NULL RETURNING from_user::text`, id, by.UserID).Scan(&from)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		return recordOnce(ctx, tx, byActor(by, "delegation.revoked", map[string]any{"delegation": id, "from": from}))
	})
	if err != nil {
		return campaign.Delegation{}, err
	}
	return s.Delegation(ctx, id)
}
