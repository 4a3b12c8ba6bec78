package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/gorm"

	"github.com/musterhq/muster/campaign"
)

// User is a person who can log in.
type User struct {
	ID           string `gorm:"primaryKey"` // UUID
	Login        string
	Name         string
	PasswordHash string // argon2id, in its usual text form
	Disabled     bool
	Demo         bool // made for demonstrations, with a published password
	CreatedAt    time.Time
}

// TableName is GORM's hook for the table.
func (User) TableName() string { return "app_user" }

// Actor is the user as messages and events name them.
func (u User) Actor() campaign.Actor {
	return campaign.Actor{UserID: u.ID, Login: u.Login, Name: u.Name}
}

// CreateUser adds a user; CodeAlreadyExists when the login is taken.
func (s *Store) CreateUser(ctx context.Context, u User) error {
	err := gorm.G[User](s.db).Omit("CreatedAt").Create(ctx, &u)
	if errors.Is(err, gorm.ErrDuplicatedKey) {
		return campaign.Errorf(campaign.CodeAlreadyExists, "there is a user %q already", u.Login)
	}
	if err != nil {
		return fmt.Errorf("create user: %w", err)
	}
	return nil
}

// UserByLogin returns the user of that login, or CodeNotFound.
func (s *Store) UserByLogin(ctx context.Context, login string) (User, error) {
	u, err := gorm.G[User](s.db).Where("login = ?", login).First(ctx)
	if err != nil {
		return User{}, notFound(err, "user")
	}
	return u, nil
}

// SetDisabled locks a user out or lets them in again. Their sessions end at once.
func (s *Store) SetDisabled(ctx context.Context, userID string, disabled bool) error {
	n, err := gorm.G[User](s.db).Where("id = ?", userID).Update(ctx, "disabled", disabled)
	if err != nil {
		return fmt.Errorf("disable user: %w", err)
	}
	if n == 0 {
		return campaign.Errorf(campaign.CodeNotFound, "there is no such user")
	}
	return nil
}

// UserWithGrants returns a user and the roles they hold, or CodeNotFound. It is one
// statement, as every request needs it.
func (s *Store) UserWithGrants(ctx context.Context, userID string) (User, []campaign.Grant, error) {
	rows, err := s.pool.Query(ctx, `SELECT u.id::text, u.login, u.name, u.disabled, u.demo, coalesce(g.role, ''), coalesce(g.unit, '')
		FROM app_user u LEFT JOIN role_grant g ON g.user_id = u.id WHERE u.id = $1 ORDER BY g.unit, g.role`, userID)
	if err != nil {
		return User{}, nil, fmt.Errorf("read user: %w", err)
	}
	var u User
	var g campaign.Grant
	var grants []campaign.Grant
	tag, err := pgx.ForEachRow(rows, []any{&u.ID, &u.Login, &u.Name, &u.Disabled, &u.Demo, &g.Role, &g.Unit}, func() error {
		if g.Role != "" {
			g.UserID = u.ID
			grants = append(grants, g)
		}
		return nil
	})
	if err != nil {
		return User{}, nil, fmt.Errorf("read user: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return User{}, nil, notFound(pgx.ErrNoRows, "user")
	}
	return u, grants, nil
}

// Grants returns every role that is held by a user who may log in.
func (s *Store) Grants(ctx context.Context) ([]campaign.Grant, error) {
	rows, err := s.pool.Query(ctx, `SELECT g.user_id::text, g.role, g.unit FROM role_grant g JOIN app_user u ON u.id = g.user_id
		WHERE NOT u.disabled ORDER BY 1, 2, 3`)
	if err != nil {
		return nil, fmt.Errorf("read grants: %w", err)
	}
	grants, err := pgx.CollectRows(rows, pgx.RowToStructByPos[campaign.Grant])
	if err != nil {
		return nil, fmt.Errorf("read grants: %w", err)
	}
	return grants, nil
}

// GrantRole gives a user a role at a unit; giving it again changes nothing. The unit
// must exist.
func (s *Store) GrantRole(ctx context.Context, g campaign.Grant) error {
	_, err := s.pool.Exec(ctx, `INSERT INTO role_grant (user_id, role, unit) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		g.UserID, g.Role, g.Unit)
	if err != nil {
		return fmt.Errorf("grant role: %w", err)
	}
	return nil
}

// CreateUnit adds an org unit and, where they are missing, the units above it under
// their own path as name. An existing unit takes the new name.
func (s *Store) CreateUnit(ctx context.Context, unit campaign.OrgUnit, name string) error {
	if !unit.Valid() {
		return campaign.Errorf(campaign.CodeInvalidParameter, "org unit %q is not a path such as operator/north/harbin", unit)
	}
	return s.inTx(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO org_unit (path, name) SELECT p, p FROM unnest($1::text[]) p ON CONFLICT DO NOTHING`,
			unit.Chain()); err != nil {
			return fmt.Errorf("create org unit: %w", err)
		}
		if _, err := tx.Exec(ctx, `UPDATE org_unit SET name = $2 WHERE path = $1`, unit, name); err != nil {
			return fmt.Errorf("name org unit: %w", err)
		}
		return nil
	})
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

// foreignKeyViolation reports whether err is a broken reference of that name.
func foreignKeyViolation(err error, constraint string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23503" && pg.ConstraintName == constraint
}

// ForgetSessions drops the sessions that ended.
func (s *Store) ForgetSessions(ctx context.Context) error {
	if _, err := s.pool.Exec(ctx, `DELETE FROM sessions WHERE expiry < now()`); err != nil {
		return fmt.Errorf("forget sessions: %w", err)
	}
	return nil
}
