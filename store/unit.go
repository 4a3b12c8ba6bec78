package store

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// Unit is an org unit as people call it.
type Unit struct {
	Path campaign.OrgUnit
	Name string
}

// Units returns the units at and below the given ones, ordered by path.
func (s *Store) Units(ctx context.Context, at []campaign.OrgUnit) ([]Unit, error) {
	exact, patterns := below(at)
	rows, err := s.pool.Query(ctx, `SELECT path, name FROM org_unit WHERE path = ANY($1) OR path LIKE ANY($2) ORDER BY path`, exact, patterns)
	if err != nil {
		return nil, fmt.Errorf("list org units: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Unit])
	if err != nil {
		return nil, fmt.Errorf("list org units: %w", err)
	}
	return all, nil
}

// Tenants returns the topmost units.
func (s *Store) Tenants(ctx context.Context) ([]campaign.OrgUnit, error) {
	rows, err := s.pool.Query(ctx, `SELECT path FROM org_unit WHERE strpos(path, '/') = 0 ORDER BY path`)
	if err != nil {
		return nil, fmt.Errorf("list tenants: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[campaign.OrgUnit])
	if err != nil {
		return nil, fmt.Errorf("list tenants: %w", err)
	}
	return all, nil
}

// AddUnit adds a unit below one that exists. It fails with CodeInvalidParameter when the
// path or the name is none or there is no unit above, and with CodeAlreadyExists.
func (s *Store) AddUnit(ctx context.Context, u Unit, by campaign.Actor) error {
	chain := u.Path.Chain()
	if !u.Path.Valid() || len(chain) < 2 {
		return field("unit", "must be a path of at most eight org units below another, such as operator/north/harbin")
	}
	if err := checkUnitName(u.Name); err != nil {
		return err
	}
	return s.change(ctx, "add org unit", func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `INSERT INTO org_unit (path, name) SELECT $1, $2 FROM org_unit WHERE path = $3`, u.Path, u.Name, chain[1])
		if uniqueViolation(err, "org_unit_pkey") {
			return campaign.Errorf(campaign.CodeAlreadyExists, "there is a unit %s already", u.Path)
		}
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return field("unit", fmt.Sprintf("there is no org unit %s above it", chain[1]))
		}
		return recordOnce(ctx, tx, byActor(by, "unit.added", map[string]any{"unit": u.Path, "name": u.Name}))
	})
}

// RenameUnit gives a unit another name, or CodeNotFound.
func (s *Store) RenameUnit(ctx context.Context, u Unit, by campaign.Actor) error {
	if err := checkUnitName(u.Name); err != nil {
		return err
	}
	return s.change(ctx, "rename org unit", func(tx pgx.Tx) error {
		var before string
		if err := tx.QueryRow(ctx, `SELECT name FROM org_unit WHERE path = $1 FOR UPDATE`, u.Path).Scan(&before); err != nil {
			return notFound(err, "org unit")
		}
		if before == u.Name {
			return nil
		}
		if _, err := tx.Exec(ctx, `UPDATE org_unit SET name = $2 WHERE path = $1`, u.Path, u.Name); err != nil {
			return err
		}
		return recordOnce(ctx, tx, byActor(by, "unit.renamed", map[string]any{"unit": u.Path, "before": before, "after": u.Name}))
	})
}

func checkUnitName(name string) error {
	if fault := campaign.TextFault(name); fault != "" {
		return field("name", fault)
	}
	if strings.TrimSpace(name) == "" || utf8.RuneCountInString(name) > 200 {
		return field("name", "must have 1 to 200 characters")
	}
	return nil
}

// CreateUnit adds an org unit and, where they are missing, the units above it under
// their own path as name. An existing unit takes the new name.
func (s *Store) CreateUnit(ctx context.Context, unit campaign.OrgUnit, name string) error {
	return s.inTx(ctx, func(tx pgx.Tx) error {
		if err := makeUnit(ctx, tx, unit); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE org_unit SET name = $2 WHERE path = $1`, unit, name); err != nil {
			return fmt.Errorf("name org unit: %w", err)
		}
		return nil
	})
}

// makeUnit adds an org unit and those above it where they are missing.
func makeUnit(ctx context.Context, tx pgx.Tx, unit campaign.OrgUnit) error {
	if !unit.Valid() {
		return campaign.Errorf(campaign.CodeInvalidParameter, "org unit %q is not a path such as operator/north/harbin", unit)
	}
	if _, err := tx.Exec(ctx, `INSERT INTO org_unit (path, name) SELECT p, p FROM unnest($1::text[]) p ON CONFLICT DO NOTHING`,
		unit.Chain()); err != nil {
		return fmt.Errorf("create org unit: %w", err)
	}
	return nil
}

// below splits units for a list filter: rows of exactly these units, and of the
// units that match these LIKE patterns. A unit's path has no wildcard in it.
func below(units []campaign.OrgUnit) (exact, patterns []string) {
	exact, patterns = []string{}, []string{}
	for _, u := range units {
		exact = append(exact, string(u))
		patterns = append(patterns, string(u)+"/%")
	}
	return exact, patterns
}
