package bench

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/config"
	"github.com/musterhq/muster/internal/embedded"
	"github.com/musterhq/muster/internal/population"
	"github.com/musterhq/muster/store"
)

// Engines are what a bench runs on: a PostgreSQL with durable settings in a folder of
// its own, or a server that is given. Each population of customers has a database of its
// own there, which is kept for later benches; no other database is touched.
type Engines struct {
	Folder *embedded.Folder

	prefix    string   // of the databases' names
	server    *url.URL // of a database whose user may create others
	postgres  *embedded.Postgres
	vault     *store.Vault
	admin     *pgx.Conn
	version   string
	durable   string
	processes role // PostgreSQL's, when it is on this machine
}

const stopPatience = 10 * time.Second

// Open starts the engines in dir. With the URL of a database it uses that database's
// server instead, where the user must be allowed to create databases. A server that does
// not keep what it has committed is refused: its figures would say nothing. Close them
// when done.
func Open(ctx context.Context, dir, databaseURL string, progress func(string)) (*Engines, error) {
	folder, err := embedded.Open(dir)
	if err != nil {
		return nil, err
	}
	e := &Engines{Folder: folder, prefix: "muster_bench"}
	if err := e.open(ctx, databaseURL, progress); err != nil {
		return nil, errors.Join(err, e.Close(ctx))
	}
	if e.durable != durable {
		err := campaign.Errorf(campaign.CodeInvalidParameter, "the server does not keep what it has committed (%s): set fsync, full_page_writes and synchronous_commit to on", e.durable)
		return nil, errors.Join(err, e.Close(ctx))
	}
	return e, nil
}

const durable = "fsync on, full_page_writes on, synchronous_commit on"

func (e *Engines) open(ctx context.Context, databaseURL string, progress func(string)) (err error) {
	if databaseURL == "" {
		if e.postgres, err = e.Folder.StartPostgres(ctx, embedded.PostgresOptions{Progress: progress}); err != nil {
			return err
		}
		databaseURL = e.postgres.URL("postgres")
	}
	if e.server, err = url.Parse(databaseURL); err != nil || e.server.Host == "" {
		return campaign.Errorf(campaign.CodeInvalidParameter, "the database URL cannot be read; it should look like postgres://user:password@host:5432/name")
	}
	keys, err := config.VaultKeys("", e.Folder.Path())
	if err != nil {
		return err
	}
	if e.vault, err = store.NewVault(keys[0], keys[1:]...); err != nil {
		return err
	}
	if e.admin, err = pgx.Connect(ctx, e.server.String()); err != nil {
		return fmt.Errorf("reach database: %w", err)
	}
	var backend int
	err = e.admin.QueryRow(ctx, `SELECT pg_backend_pid(), current_setting('server_version'), format('fsync %s, full_page_writes %s, synchronous_commit %s',
		current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit'))`).
		Scan(&backend, &e.version, &e.durable)
	if err != nil {
		return fmt.Errorf("read database settings: %w", err)
	}
	if pid, ok := parentOf(backend); ok {
		e.processes = role{name: "PostgreSQL", pid: pid, family: true}
	}
	return nil
}

// Close stops what was started and gives the folder free.
func (e *Engines) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
	defer cancel()
	var errs []error
	if e.admin != nil {
		errs = append(errs, e.admin.Close(ctx))
	}
	if e.postgres != nil {
		errs = append(errs, e.postgres.Stop(ctx))
	}
	return errors.Join(append(errs, e.Folder.Close())...)
}

// roles are the processes whose use is measured.
func (e *Engines) roles() []role {
	all := []role{{name: "muster", pid: os.Getpid()}}
	if e.processes.pid != 0 {
		all = append(all, e.processes)
	}
	return append(all, companions(e.processes.pid)...)
}

func (e *Engines) checkpoint(ctx context.Context) error {
	_, err := e.admin.Exec(ctx, "CHECKPOINT")
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "42501" {
		return nil // an ordinary user of a given server may not; the runs are then less even
	}
	return err
}

// database opens a store in a database of its own, which it makes and brings up to date.
func (e *Engines) database(ctx context.Context, name string) (*store.Store, error) {
	name = e.prefix + "_" + name
	_, err := e.admin.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
	var refused *pgconn.PgError
	if err != nil && (!errors.As(err, &refused) || refused.Code != "42P04") { // duplicate_database
		return nil, fmt.Errorf("make database %s: %w", name, err)
	}
	u := *e.server
	u.Path = "/" + name
	st, err := store.Open(ctx, u.String(), store.WithVault(e.vault), store.AsOwner())
	if err != nil {
		return nil, err
	}
	if _, err := st.Migrate(ctx); err != nil {
		st.Close()
		return nil, err
	}
	return st, nil
}

func (e *Engines) drop(ctx context.Context, name string) error {
	name = e.prefix + "_" + name
	if _, err := e.admin.Exec(ctx, "DROP DATABASE IF EXISTS "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("drop database %s: %w", name, err)
	}
	return nil
}

// customers opens the store of a generated population, which is loaded once.
func (s *Suite) customers(ctx context.Context, size int) (*store.Store, error) {
	st, err := s.Engines.database(ctx, fmt.Sprintf("%d_seed_%d", size, s.Seed))
	if err != nil {
		return nil, err
	}
	loaded, err := population.Generate(ctx, st, size, s.Seed, population.Printer(s.Out))
	if err == nil && !loaded.Already {
		_, err = st.Pool().Exec(ctx, "VACUUM ANALYZE customer")
	}
	if err != nil {
		st.Close()
		return nil, err
	}
	return st, nil
}
