package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate brings the schema up to date and returns the number of migrations that
// were applied. Several processes may call it at once: one applies, the others wait.
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
