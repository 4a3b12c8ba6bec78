package main

import (
	"fmt"

	"github.com/musterhq/muster/internal/config"
)

type vaultCommand struct {
	AddKey vaultAddKey `cmd:"" help:"Add a key that seals phone numbers from the next start on. Those before it stay, to open what they sealed."`
	Rewrap vaultRewrap `cmd:"" help:"Seal all phone numbers by the newest key, so that the others open none any more. May be run again."`
}

type vaultAddKey struct{ config.Vault }

// Run adds a key.
func (c *vaultAddKey) Run(g *globals) error {
	if err := config.AddVaultKey(c.VaultKeyFile, g.dir); err != nil {
		return err
	}
	fmt.Println("  a key was added: give the file to every process, start all of them anew at once, and run 'muster vault rewrap'")
	return nil
}

type vaultRewrap struct {
	config.Database
	config.Vault
}

// Run wraps the keys of all numbers by the newest key of the vault.
func (c *vaultRewrap) Run(g *globals) error {
	if err := g.instance(&c.Database, nil); err != nil {
		return err
	}
	st, err := g.openStore(c.DatabaseURL, c.Vault)
	if err != nil {
		return err
	}
	defer st.Close()
	n, err := st.RewrapNumbers(g, func(seen int64) { fmt.Printf("\r  %d numbers", seen) })
	fmt.Println()
	if err != nil {
		return err
	}
	fmt.Printf("  %d of them were sealed by another key before. Look-ups need the first key for ever: keep its line, and the last one\n", n)
	return nil
}
