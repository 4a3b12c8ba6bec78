package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.temporal.io/sdk/client"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/config"
	"github.com/musterhq/muster/internal/embedded"
	"github.com/musterhq/muster/internal/temporalconn"
	"github.com/musterhq/muster/policies"
	"github.com/musterhq/muster/store"
	"github.com/musterhq/muster/targeting"
)

// instance fills what the user did not name with the addresses of the instance that
// runs on the data folder.
func (g *globals) instance(db *config.Database, t *config.Temporal) error {
	needed := db != nil && db.DatabaseURL == "" || t != nil && t.TemporalAddress == ""
	if !needed {
		return nil
	}
	running, err := config.LoadInstance(g.dir)
	if err != nil {
		return err
	}
	if db != nil && db.DatabaseURL == "" {
		db.DatabaseURL = running.DatabaseURL
	}
	if t != nil && t.TemporalAddress == "" {
		t.TemporalAddress = running.TemporalAddress
	}
	return nil
}

// reachDatabase makes sure that PostgreSQL answers, before anything that would only say
// that it did not start is asked to use it.
func reachDatabase(ctx context.Context, url string) error {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return campaign.Errorf(campaign.CodeInvalidParameter,
			"the database URL cannot be read: it should look like postgres://user:password@host:5432/name")
	}
	ctx, cancel := context.WithTimeout(ctx, shortPatience)
	defer cancel()
	db, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		what := "does not answer"
		var refused *pgconn.PgError
		var network *net.OpError
		switch {
		case errors.As(err, &refused):
			what, err = "refuses us", errors.New(refused.Message)
		case errors.As(err, &network): // one of those that were tried, without the account
			err = network
		}
		return &embedded.Problem{
			Code:    embedded.CodePostgresUnreachable,
			Message: fmt.Sprintf("PostgreSQL %s at %s:%d, database %s", what, config.Host, config.Port, config.Database),
			WayOut:  "start it, or correct MUSTER_DATABASE_URL",
			Err:     err,
		}
	}
	return db.Close(ctx)
}

// openStore connects to the database with the key that seals phone numbers.
func (g *globals) openStore(url string, v config.Vault, with ...store.Option) (*store.Store, error) {
	keys, err := config.VaultKeys(v.VaultKeyFile, g.dir)
	if err != nil {
		return nil, err
	}
	vault, err := store.NewVault(keys[0], keys[1:]...)
	if err != nil {
		return nil, err
	}
	if err := reachDatabase(g, url); err != nil {
		return nil, err
	}
	return store.Open(g, url, append(with, store.WithVault(vault), store.WithPhoneRegion(v.PhoneRegion))...)
}

func (g *globals) dialTemporal(t config.Temporal, role string) (client.Client, error) {
	return temporalconn.Dial(g, t.TemporalAddress, t.TemporalNamespace, fmt.Sprintf("muster-%s-%s", role, buildID()), g.log)
}

// attach connects a process of an installation to its engines. Close both when done.
func (g *globals) attach(db *config.Database, t *config.Temporal, v config.Vault, role string) (*store.Store, client.Client, *policies.Enforcer, error) {
	if err := g.instance(db, t); err != nil {
		return nil, nil, nil, err
	}
	st, err := g.openStore(db.DatabaseURL, v)
	if err != nil {
		return nil, nil, nil, err
	}
	enforcer, err := policies.New(g, st.Grants, st.ActivePolicies)
	if err != nil {
		st.Close()
		return nil, nil, nil, err
	}
	c, err := g.dialTemporal(*t, role)
	if err != nil {
		st.Close()
		return nil, nil, nil, err
	}
	return st, c, enforcer, nil
}

type migrateCommand struct {
	config.Database
	config.Vault
}

// Run applies what is missing.
func (c *migrateCommand) Run(g *globals) error {
	if err := g.instance(&c.Database, nil); err != nil {
		return err
	}
	st, err := g.openStore(c.DatabaseURL, c.Vault, store.AsOwner())
	if err != nil {
		return err
	}
	defer st.Close()
	return migrate(g, st)
}

func migrate(ctx context.Context, st *store.Store) error {
	n, err := st.Migrate(ctx)
	if err != nil {
		return err
	}
	if n > 0 {
		fmt.Printf("  database schema: %d migration(s) applied\n", n)
	}
	if err := st.StorePolicyStandard(ctx, policies.Standard()); err != nil {
		return err
	}
	return st.StorePolicyStandard(ctx, targeting.StandardContactPolicy())
}
