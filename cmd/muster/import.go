package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/musterhq/muster/internal/config"
	"github.com/musterhq/muster/internal/population"
	"github.com/musterhq/muster/store"
)

type importCommand struct {
	Bank      importBank      `cmd:"" help:"The UCI Bank Marketing data: 41,188 people a bank's call centre really called."`
	File      importFile      `cmd:"" help:"A customer file: checked whole, then loaded in batches; goes on where it was after an interruption."`
	Generated importGenerated `cmd:"" help:"A generated operator's customer base of any size. Simulated, and labelled so."`
}

type importBank struct {
	config.Database
	config.Vault
	Data string `env:"MUSTER_DATA" help:"Folder with the data set; without it the set is fetched from its publisher and kept." placeholder:"DIR" type:"path"`
}

// Run loads the bank data.
func (c *importBank) Run(g *globals) error {
	return importInto(g, c.Database, c.Vault, func(st *store.Store) (population.Loaded, error) {
		progress := population.Printer(os.Stdout)
		found, err := population.Locate(g, population.Options{DataDir: c.Data, CacheDir: filepath.Join(g.dir, "datasets"), Progress: progress})
		if err != nil {
			return population.Loaded{}, err
		}
		return population.LoadBank(g, st, found, progress)
	})
}

type importGenerated struct {
	config.Database
	config.Vault
	Rows int    `required:"" help:"Customers to generate."`
	Seed uint64 `default:"1" help:"Seed: the same one gives the same customers."`
}

// Run generates and loads customers.
func (c *importGenerated) Run(g *globals) error {
	return importInto(g, c.Database, c.Vault, func(st *store.Store) (population.Loaded, error) {
		return population.Generate(g, st, c.Rows, c.Seed, population.Printer(os.Stdout))
	})
}

func importInto(g *globals, db config.Database, v config.Vault, load func(*store.Store) (population.Loaded, error)) error {
	if err := g.instance(&db, nil); err != nil {
		return err
	}
	st, err := g.openStore(db.DatabaseURL, v, store.AsOwner())
	if err != nil {
		return err
	}
	defer st.Close()
	if err := migrate(g, st); err != nil {
		return err
	}
	loaded, err := load(st)
	if err != nil {
		return err
	}
	if loaded.Already {
		fmt.Printf("Nothing to do: these %d customers are in the database already.\n", loaded.Customers)
		return nil
	}
	fmt.Printf("%d customers at unit %s. %s\n", loaded.Customers, loaded.Unit, loaded.Why)
	return nil
}
