package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"text/tabwriter"
	"time"

	"github.com/musterhq/muster/assertion"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/config"
)

type keysCommand struct {
	List   keysList   `cmd:"" help:"List the keys, the oldest first."`
	Rotate keysRotate `cmd:"" help:"Add a key that signs after a notice, and retire the others after another. What they signed stays valid."`
	Revoke keysRevoke `cmd:"" help:"End a key that got into the wrong hands, at once. What was recorded before stays valid."`
}

type keysList struct{ config.Keys }

// Run lists the keys.
func (c *keysList) Run(g *globals) error {
	keys, err := g.openKeys(c.Keys)
	if err != nil {
		return err
	}
	now := time.Now()
	signer := keys.Ring().SignerID(now)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tSIGNS FROM\tRETIRED AT\tPRIVATE KEY\tNOW")
	for _, k := range keys.Ring().Keys() {
		retired, private, state := "-", "elsewhere", "verifies"
		if !k.RetiredAt.IsZero() {
			retired = k.RetiredAt.Format(time.RFC3339)
		}
		if k.Private {
			private = "here"
		}
		switch {
		case !k.RevokedAt.IsZero():
			state = "revoked " + k.RevokedAt.Format(time.RFC3339)
		case k.ID == signer:
			state = "signs"
		case now.Before(k.NotBefore):
			state = "waits"
		case !k.RetiredAt.IsZero() && !now.Before(k.RetiredAt):
			state = "retired"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", k.ID, k.NotBefore.Format(time.RFC3339), retired, private, state)
	}
	return w.Flush()
}

type keysRotate struct {
	config.Keys
	Notice time.Duration `default:"10m" help:"How long the new key is known before it signs; every process must have keys.json by then. 0 for at once."`
}

// Run rotates the keys.
func (c *keysRotate) Run(g *globals) error {
	if c.Notice != 0 && c.Notice <= assertion.ReloadEvery {
		return campaign.Errorf(campaign.CodeInvalidParameter, "the keys are read again every %s: give a longer --notice, or 0", assertion.ReloadEvery)
	}
	dir := c.Folder(g.dir)
	if err := assertion.Rotate(dir, time.Now(), c.Notice); err != nil {
		return noKeys(dir, err)
	}
	return (&keysList{c.Keys}).Run(g)
}

type keysRevoke struct {
	config.Keys
	ID string `arg:"" help:"The key, as 'muster keys list' names it."`
}

// Run revokes the key.
func (c *keysRevoke) Run(g *globals) error {
	dir := c.Folder(g.dir)
	if err := assertion.Revoke(dir, c.ID, time.Now()); err != nil {
		return noKeys(dir, err)
	}
	return (&keysList{c.Keys}).Run(g)
}

// openKeys loads the keys that verify.
func (g *globals) openKeys(c config.Keys) (*assertion.Keys, error) {
	keys, err := assertion.Open(c.Folder(g.dir))
	return keys, noKeys(c.Folder(g.dir), err)
}

// signingKeys loads keys of which one can sign.
func (g *globals) signingKeys(c config.Keys) (*assertion.Keys, error) {
	keys, err := g.openKeys(c)
	if err != nil {
		return nil, err
	}
	if keys.Ring().SignerID(time.Now()) == "" {
		return nil, campaign.Errorf(campaign.CodeInvalidParameter,
			"the folder %s has no private key that is valid now, and the API signs what its users decide: give it the whole folder, see 'muster keys list'", c.Folder(g.dir))
	}
	return keys, nil
}

// ownKeys is signingKeys for a muster that keeps its own: the first start makes them.
func (g *globals) ownKeys(c config.Keys) (*assertion.Keys, error) {
	if c.KeysDir == "" {
		if err := assertion.Generate(c.Folder(g.dir), time.Now()); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("make the keys that sign decisions: %w", err)
		}
	}
	return g.signingKeys(c)
}

func noKeys(dir string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return campaign.Errorf(campaign.CodeNotFound,
			"there are no keys in %s: 'muster up' makes them when it starts for the first time; name their folder with --keys-dir", dir)
	}
	if err != nil {
		return fmt.Errorf("read the keys that sign decisions: %w", err)
	}
	return nil
}
