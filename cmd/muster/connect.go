package main

import (
	"context"
	"fmt"

	"go.temporal.io/sdk/client"

	"github.com/musterhq/muster/internal/config"
	"github.com/musterhq/muster/internal/temporalconn"
	"github.com/musterhq/muster/policies"
	"github.com/musterhq/muster/store"
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

// openStore connects to the database with the key that seals phone numbers.
func (g *globals) openStore(url string, v config.Vault) (*store.Store, error) {
	key, err := config.VaultKey(v.VaultKeyFile, g.dir)
	if err != nil {
		return nil, err
	}
	vault, err := store.NewVault(key)
	if err != nil {
		return nil, err
	}
	return store.Open(g, url, store.WithVault(vault))
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
	enforcer, err := policies.New(g, st.Grants)
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
	st, err := g.openStore(c.DatabaseURL, c.Vault)
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
	return nil
}
