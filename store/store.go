// Package store is Muster's only door to PostgreSQL: GORM for rows that people
// read and write one at a time, set-based SQL and COPY for everything that moves
// in bulk, and the migrations. One connection pool serves both.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/nyaruka/phonenumbers"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/musterhq/muster/campaign"
)

// Store is a pool of connections to one database, shared by GORM and the bulk paths.
type Store struct {
	pool   *pgxpool.Pool
	db     *gorm.DB
	vault  *Vault
	region string
	stop   func()

	contactPolicies sync.Map // by version, which never changes
}

// Option changes what a store can do.
type Option func(*options)

type options struct {
	vault  *Vault
	region string
	owner  bool
}

// WithVault gives the store the keys of the phone vault. A store without them
// refuses to import phone numbers and to dispatch.
func WithVault(v *Vault) Option { return func(o *options) { o.vault = v } }

// WithPhoneRegion says whose numbers (ISO 3166, such as CN) those without a country code
// are. Without it they are taken as international.
func WithPhoneRegion(region string) Option { return func(o *options) { o.region = region } }

// AsOwner leaves the store the rights of the user who logs in. Migrate needs it, and an
// import that fills empty tables before it builds their indexes. Without it a store works as the
// application, which may do no more than it must: it owns no table, and writes the ledger by
// functions and evidence by adding to it.
func AsOwner() Option { return func(o *options) { o.owner = true } }

// application is the role of every connection that is not the owner's.
const application = "muster_app"

// Open connects to the database at url and checks that it answers. Close it when done.
func Open(ctx context.Context, url string, with ...Option) (*Store, error) {
	var o options
	for _, option := range with {
		option(&o)
	}
	if o.region != "" && phonenumbers.GetCountryCodeForRegion(o.region) == 0 {
		return nil, campaign.Errorf(campaign.CodeInvalidParameter, "%q is no country of phone numbers; it should look like CN", o.region)
	}
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, &campaign.Error{Code: campaign.CodeInvalidParameter, Message: "the database URL cannot be read; it should look like postgres://user:password@host:5432/name", Err: err}
	}
	if cfg.MaxConns < 20 {
		cfg.MaxConns = 20
	}
	cfg.ConnConfig.RuntimeParams["application_name"] = "muster"
	cfg.ConnConfig.RuntimeParams["timezone"] = "UTC"
	// A campaign's partitions are empty when their first statements are planned and hold
	// millions of rows an hour later: a plan kept from then would read them whole. With the
	// campaign's id known, a plan also touches one partition and not all.
	cfg.ConnConfig.RuntimeParams["plan_cache_mode"] = "force_custom_plan"
	if !o.owner {
		cfg.ConnConfig.RuntimeParams["role"] = application
		cfg.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = strconv.Itoa(int(idleInTransaction.Milliseconds()))
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		var refused *pgconn.PgError
		if errors.As(err, &refused) && !o.owner && (refused.Code == "22023" || refused.Code == "42501") { // invalid parameter value, insufficient privilege
			return nil, &campaign.Error{Code: campaign.CodeForbidden, Err: err, Message: fmt.Sprintf(
				"user %s may not work as the role %s (%s): run muster migrate as the owner of the database, or as a superuser GRANT %s TO %s",
				cfg.ConnConfig.User, application, refused.Message, application, cfg.ConnConfig.User)}
		}
		return nil, fmt.Errorf("reach database %s: %w", cfg.ConnConfig.Database, err)
	}
	sqldb := stdlib.OpenDBFromPool(pool)
	db, err := gorm.Open(postgres.New(postgres.Config{Conn: sqldb}), &gorm.Config{
		// GORM's default logger prints statements with their values, which may be
		// personal data.
		Logger:                 logger.NewSlogLogger(slog.Default(), logger.Config{LogLevel: logger.Error, ParameterizedQueries: true, IgnoreRecordNotFoundError: true, SlowThreshold: time.Second}),
		SkipDefaultTransaction: true,
		TranslateError:         true,
	})
	if err != nil {
		sqldb.Close()
		pool.Close()
		return nil, fmt.Errorf("open database: %w", err)
	}
	return &Store{pool: pool, db: db, vault: o.vault, region: o.region, stop: func() { sqldb.Close(); pool.Close() }}, nil
}

// Close returns all connections.
func (s *Store) Close() { s.stop() }

// PhoneRegion is the region of numbers without a country code, "" for none.
func (s *Store) PhoneRegion() string { return s.region }

// Pool gives the raw pool to callers that COPY or LISTEN.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

// inTx runs f in one transaction.
func (s *Store) inTx(ctx context.Context, f func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, s.pool, f)
}

// notFound turns a missing row into CodeNotFound with the words of what was sought.
func notFound(err error, what string) error {
	if errors.Is(err, pgx.ErrNoRows) || errors.Is(err, gorm.ErrRecordNotFound) {
		return campaign.Errorf(campaign.CodeNotFound, "there is no such %s", what)
	}
	return err
}

// uniqueViolation reports whether err is a broken UNIQUE constraint of that name.
func uniqueViolation(err error, constraint string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23505" && (constraint == "" || pg.ConstraintName == constraint)
}

// deadlocked reports whether a transaction was ended because it and another waited for each other.
func deadlocked(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "40P01"
}
