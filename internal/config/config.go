// Package config holds the settings that Muster's commands share: each is a flag and
// a MUSTER_* environment variable with a safe default. A running `muster up` also
// leaves its addresses in its data folder, so that the other commands on the same
// machine need no settings at all.
package config

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/embedded"
)

// Database says which PostgreSQL database to use.
type Database struct {
	DatabaseURL string `env:"MUSTER_DATABASE_URL" help:"PostgreSQL database, postgres://user:password@host:port/name. Default: the one of a running 'muster up'." placeholder:"URL"`
}

// Temporal says which Temporal cluster to use.
type Temporal struct {
	TemporalAddress   string `env:"MUSTER_TEMPORAL_ADDRESS" help:"Temporal frontend, host:port. Default: the one of a running 'muster up'." placeholder:"HOST:PORT"`
	TemporalNamespace string `env:"MUSTER_TEMPORAL_NAMESPACE" default:"muster" help:"Temporal namespace."`
}

// SMPP says how to reach the SMS centre. Without an address SMS contacts wait.
type SMPP struct {
	SMPPAddress   string  `env:"MUSTER_SMPP_ADDRESS" help:"SMS centre, host:port. Without it SMS contacts wait." placeholder:"HOST:PORT"`
	SMPPSystemID  string  `env:"MUSTER_SMPP_SYSTEM_ID" default:"muster" help:"SMPP system id."`
	SMPPPassword  string  `env:"MUSTER_SMPP_PASSWORD" default:"muster" help:"SMPP password, at most 8 characters."`
	SMPPBinds     int     `env:"MUSTER_SMPP_BINDS" default:"2" help:"Parallel SMPP sessions."`
	SMPPWindow    int     `env:"MUSTER_SMPP_WINDOW" default:"200" help:"Submits outstanding per session; bounds what one lost session leaves unknown."`
	SMPPSimulated bool    `env:"MUSTER_SMPP_SIMULATED" help:"The SMS centre is a simulator. Simulated campaigns, and no others, are sent to simulators."`
	SMPPRate      float64 `env:"MUSTER_SMPP_RATE" default:"0" help:"Most message parts a second over all sessions of a process; 0 means no limit."`
}

// API says where the public API is.
type API struct {
	API string `name:"api" env:"MUSTER_API" help:"Base URL of the API. Default: the one of a running 'muster up'." placeholder:"URL"`
}

// Account says who calls the API.
type Account struct {
	Login    string `env:"MUSTER_LOGIN" help:"Login name. Default: a demo user of a running 'muster up --demo'."`
	Password string `env:"MUSTER_PASSWORD" help:"Password."`
}

// Vault says where the keys that seal phone numbers are, and whose numbers they are.
type Vault struct {
	VaultKeyFile string `env:"MUSTER_VAULT_KEY_FILE" help:"File with the keys that seal phone numbers, 64 hex digits a line, the newest last. Default: vault.key in the data folder." placeholder:"FILE" type:"path"`
	PhoneRegion  string `env:"MUSTER_PHONE_REGION" default:"CN" help:"Country (ISO 3166) of phone numbers that are written without a country code; empty where all have one." placeholder:"CC"`
}

// Keys says where the keys are by which the API signs commands and decisions.
type Keys struct {
	KeysDir string `env:"MUSTER_KEYS_DIR" help:"Folder with the keys that sign commands and decisions. An API needs all of it, a worker its keys.json alone. Default: keys in the data folder." placeholder:"DIR" type:"path"`
}

// Folder returns the keys' folder; dir is the data folder.
func (k Keys) Folder(dir string) string {
	if k.KeysDir != "" {
		return k.KeysDir
	}
	return filepath.Join(dir, "keys")
}

// Spool says where files are kept that were uploaded.
type Spool struct {
	SpoolDir string `env:"MUSTER_SPOOL_DIR" help:"Folder for uploaded files, which every API and worker must see. Default: spool in the data folder." placeholder:"DIR" type:"path"`
}

// Folder returns the folder; dir is the data folder.
func (s Spool) Folder(dir string) string {
	if s.SpoolDir != "" {
		return s.SpoolDir
	}
	return filepath.Join(dir, "spool")
}

// OIDC says by which OpenID Connect provider people may log in beside their passwords.
type OIDC struct {
	OIDCIssuer       string `env:"MUSTER_OIDC_ISSUER" help:"OpenID Connect provider, as it writes itself. Without it people log in by password alone." placeholder:"URL"`
	OIDCClientID     string `env:"MUSTER_OIDC_CLIENT_ID" help:"What the provider calls Muster." placeholder:"ID"`
	OIDCClientSecret string `env:"MUSTER_OIDC_CLIENT_SECRET" help:"Muster's secret there; empty for a public client." placeholder:"SECRET"`
	OIDCRedirectURL  string `env:"MUSTER_OIDC_REDIRECT_URL" help:"Where browsers reach /v1/sessions/oidc/callback of the API, as registered with the provider." placeholder:"URL"`
	OIDCName         string `env:"MUSTER_OIDC_NAME" default:"Single sign-on" help:"What people call the provider." placeholder:"NAME"`
}

// Check refuses half of a provider, and one that would be spoken to in the clear.
func (o OIDC) Check() error {
	if o.OIDCIssuer == "" {
		if o.OIDCClientID != "" || o.OIDCClientSecret != "" || o.OIDCRedirectURL != "" {
			return campaign.Errorf(campaign.CodeInvalidParameter, "an identity provider needs MUSTER_OIDC_ISSUER")
		}
		return nil
	}
	if o.OIDCClientID == "" {
		return campaign.Errorf(campaign.CodeInvalidParameter, "an identity provider needs MUSTER_OIDC_CLIENT_ID")
	}
	for name, text := range map[string]string{"MUSTER_OIDC_ISSUER": o.OIDCIssuer, "MUSTER_OIDC_REDIRECT_URL": o.OIDCRedirectURL} {
		at, err := url.Parse(text)
		local := err == nil && at.Scheme == "http" && (at.Hostname() == "localhost" || net.ParseIP(at.Hostname()).IsLoopback())
		if err != nil || at.Host == "" || at.Scheme != "https" && !local {
			return campaign.Errorf(campaign.CodeInvalidParameter, "%s must be an https:// address; http:// is for this machine alone", name)
		}
	}
	return nil
}

// Folder names the data folder.
type Folder struct {
	DataDir string `env:"MUSTER_DATA_DIR" help:"Folder for the database and all else that must survive. Default: /var/lib/muster for root, ~/.local/share/muster for others." placeholder:"DIR" type:"path"`
}

// Instance is what a running `muster up` tells the other commands of its machine. It
// is readable by its owner only: it holds the database's password.
type Instance struct {
	PID             int    `json:"pid"`
	API             string `json:"api"`
	DatabaseURL     string `json:"database_url"`
	TemporalAddress string `json:"temporal_address"`
	TemporalUI      string `json:"temporal_ui,omitempty"`
	SMPPAddress     string `json:"smpp_address,omitempty"`
	SMPPSimulated   bool   `json:"smpp_simulated,omitempty"`
	Demo            string `json:"demo,omitempty"` // the demonstration's population, if there is one
}

const instanceFile = "instance.json"

// Save writes the instance into its data folder, whole or not at all.
func (i Instance) Save(dir string) error {
	body, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, instanceFile)
	if err := os.WriteFile(path+".new", append(body, '\n'), 0o600); err != nil {
		return fmt.Errorf("tell other commands where this instance is: %w", err)
	}
	return os.Rename(path+".new", path)
}

// RemoveInstance takes the note of a stopped instance away.
func RemoveInstance(dir string) error {
	err := os.Remove(filepath.Join(dir, instanceFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// LoadInstance reads where the instance that runs on a data folder is. Its error says
// how to go on when none does.
func LoadInstance(dir string) (Instance, error) {
	var i Instance
	body, err := os.ReadFile(filepath.Join(dir, instanceFile))
	if errors.Is(err, fs.ErrNotExist) {
		return i, campaign.Errorf(campaign.CodeNotFound,
			"no muster is running on folder %s: start one with 'muster up', or name the addresses (see --help)", dir)
	}
	if errors.Is(err, fs.ErrPermission) {
		return i, campaign.Errorf(campaign.CodeForbidden,
			"the folder %s belongs to another user: run this as the user who runs muster there, or name the addresses (see --help)", dir)
	}
	if err != nil {
		return i, fmt.Errorf("read where muster runs: %w", err)
	}
	if err := json.Unmarshal(body, &i); err != nil {
		return i, fmt.Errorf("read %s: %w", filepath.Join(dir, instanceFile), err)
	}
	// A muster that was killed could not take its note away; the folder it held is free.
	if !embedded.InUse(dir) {
		return Instance{}, campaign.Errorf(campaign.CodeNotFound,
			"the muster (pid %d) that ran on folder %s was ended by force: start it again with 'muster up', and everything goes on where it stood", i.PID, dir)
	}
	return i, nil
}

const (
	vaultKeyFile  = "vault.key"
	vaultKeyBytes = 32
)

// VaultKeys reads the keys that seal phone numbers, in the order they came: one a line. When
// file is empty it is vault.key in dir, made on the first use; a named file must exist.
func VaultKeys(file, dir string) ([][]byte, error) {
	create := file == ""
	if create {
		file = filepath.Join(dir, vaultKeyFile)
	}
	text, err := os.ReadFile(file)
	switch {
	case err == nil:
	case create && errors.Is(err, fs.ErrNotExist):
		key := newVaultKey()
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			return VaultKeys(file, dir) // another process made it first
		}
		if err != nil {
			return nil, fmt.Errorf("make the key that seals phone numbers: %w", err)
		}
		_, err = f.WriteString(hex.EncodeToString(key) + "\n")
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return nil, fmt.Errorf("keep the key that seals phone numbers: %w", err)
		}
		return [][]byte{key}, nil
	default:
		return nil, fmt.Errorf("read the key that seals phone numbers: %w", err)
	}
	var keys [][]byte
	for _, line := range strings.Fields(string(text)) {
		key, err := hex.DecodeString(line)
		if err != nil || len(key) != vaultKeyBytes {
			return nil, campaign.Errorf(campaign.CodeInvalidParameter, "%s must hold %d hex digits a line", file, 2*vaultKeyBytes)
		}
		keys = append(keys, key)
	}
	if keys == nil {
		return nil, campaign.Errorf(campaign.CodeInvalidParameter, "%s must hold %d hex digits a line, and is empty", file, 2*vaultKeyBytes)
	}
	return keys, nil
}

// AddVaultKey adds a key to those that seal phone numbers, whole or not at all.
func AddVaultKey(file, dir string) error {
	keys, err := VaultKeys(file, dir)
	if err != nil {
		return err
	}
	if file == "" {
		file = filepath.Join(dir, vaultKeyFile)
	}
	var text strings.Builder
	for _, key := range append(keys, newVaultKey()) {
		text.WriteString(hex.EncodeToString(key) + "\n")
	}
	if err := os.WriteFile(file+".new", []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("add a key that seals phone numbers: %w", err)
	}
	return os.Rename(file+".new", file)
}

func newVaultKey() []byte {
	key := make([]byte, vaultKeyBytes)
	_, _ = rand.Read(key) // never fails
	return key
}
