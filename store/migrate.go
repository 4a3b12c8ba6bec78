package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/musterhq/muster/campaign"
)

//go:embed migrations/*.sql
var migrations embed.FS

//go:embed rights.sql
var rights string

// Migrate brings the schema and the application's rights up to date and returns the number
// of migrations that were applied. Several processes may call it at once: one applies, the
// others wait. The store must be the owner's.
func (s *Store) Migrate(ctx context.Context) (int, error) {
	sqldb := stdlib.OpenDBFromPool(s.pool)
	defer sqldb.Close()
	provider, err := migrator(sqldb)
	if err != nil {
		return 0, err
	}
	done, err := provider.Up(ctx)
	if err != nil {
		return len(done), fmt.Errorf("migrate database: %w", err)
	}
	if _, err := s.pool.Exec(ctx, rights); err != nil {
		var refused *pgconn.PgError
		if errors.As(err, &refused) && refused.Code == "42501" { // insufficient privilege
			user := s.pool.Config().ConnConfig.User
			err = &campaign.Error{Code: campaign.CodeForbidden, Err: err, Message: fmt.Sprintf(
				"user %[1]s may not make the role %[2]s that Muster works as (%[3]s): as a superuser run CREATE ROLE %[2]s NOLOGIN; GRANT %[2]s TO %[1]s; and then muster migrate again",
				user, application, refused.Message)}
		}
		return len(done), err
	}
	return len(done), nil
}

// Schema returns the version that the database's schema has, 0 where there is none yet,
// and the one that this build wants. It changes nothing.
func (s *Store) Schema(ctx context.Context) (has, wants int64, err error) {
	sqldb := stdlib.OpenDBFromPool(s.pool)
	defer sqldb.Close()
	provider, err := migrator(sqldb)
	if err != nil {
		return 0, 0, err
	}
	sources := provider.ListSources()
	wants = sources[len(sources)-1].Version
	var migrated bool // goose would make its table to look into it
	err = s.pool.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, goose.DefaultTablename).Scan(&migrated)
	if err == nil && migrated {
		has, _, err = provider.GetVersions(ctx)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read schema version: %w", err)
	}
	return has, wants, nil
}

func migrator(sqldb *sql.DB) (*goose.Provider, error) {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return nil, err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, sqldb, sub, goose.WithSessionLocker(locker))
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	return provider, nil
}
