package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/config"
	"github.com/musterhq/muster/internal/embedded"
)

func TestInstanceIsFoundAgainAndGoneAfterwards(t *testing.T) {
	dir := t.TempDir()
	_, err := config.LoadInstance(dir)
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(err))
	folder, err := embedded.Open(dir)
	require.NoError(t, err)
	want := config.Instance{PID: 7, API: "http://127.0.0.1:8480", DatabaseURL: "postgres://x", Demo: "bank"}
	require.NoError(t, want.Save(dir))
	info, err := os.Stat(filepath.Join(dir, "instance.json"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	got, err := config.LoadInstance(dir)
	require.NoError(t, err)
	require.Equal(t, want, got)

	require.NoError(t, folder.Close()) // as the kernel does for a process that is killed
	_, err = config.LoadInstance(dir)
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(err))
	require.ErrorContains(t, err, "the muster (pid 7) that ran on folder "+dir+" was ended by force")
	require.NoError(t, config.RemoveInstance(dir))
	require.NoError(t, config.RemoveInstance(dir))
}

func TestVaultKeysAreMadeOnceAndKept(t *testing.T) {
	dir := t.TempDir()
	first, err := config.VaultKeys("", dir)
	require.NoError(t, err)
	require.Len(t, first, 1)
	require.Len(t, first[0], 32)
	again, err := config.VaultKeys("", dir)
	require.NoError(t, err)
	require.Equal(t, first, again)
	_, err = config.VaultKeys(filepath.Join(dir, "absent.key"), dir)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorIs(t, config.AddVaultKey(filepath.Join(dir, "absent.key"), dir), os.ErrNotExist)
	bad := filepath.Join(dir, "bad.key")
	for _, text := range []string{"short", "", strings.Repeat("ab", 32) + "\nshort\n"} {
		require.NoError(t, os.WriteFile(bad, []byte(text), 0o600))
		_, err = config.VaultKeys(bad, dir)
		require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(err))
	}

	require.NoError(t, config.AddVaultKey("", dir))
	both, err := config.VaultKeys("", dir)
	require.NoError(t, err)
	require.Len(t, both, 2)
	require.Equal(t, first[0], both[0])
	require.NotEqual(t, both[0], both[1])
	info, err := os.Stat(filepath.Join(dir, "vault.key"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestAnIdentityProviderIsWholeAndNotInTheClear(t *testing.T) {
	whole := config.OIDC{OIDCIssuer: "https://identity.example", OIDCClientID: "muster", OIDCRedirectURL: "https://muster.example/v1/sessions/oidc/callback"}
	for name, c := range map[string]struct {
		change func(*config.OIDC)
		fault  string
	}{
		"whole": {func(*config.OIDC) {}, ""},
		"none":  {func(o *config.OIDC) { *o = config.OIDC{OIDCName: "Single sign-on"} }, ""},
		"on this machine": {func(o *config.OIDC) {
			o.OIDCIssuer, o.OIDCRedirectURL = "http://127.0.0.1:9", "http://localhost:8480/x"
		}, ""},
		"no issuer":           {func(o *config.OIDC) { o.OIDCIssuer = "" }, "MUSTER_OIDC_ISSUER"},
		"no client":           {func(o *config.OIDC) { o.OIDCClientID = "" }, "MUSTER_OIDC_CLIENT_ID"},
		"no way back":         {func(o *config.OIDC) { o.OIDCRedirectURL = "" }, "MUSTER_OIDC_REDIRECT_URL"},
		"in the clear":        {func(o *config.OIDC) { o.OIDCIssuer = "http://identity.example" }, "MUSTER_OIDC_ISSUER"},
		"back in the clear":   {func(o *config.OIDC) { o.OIDCRedirectURL = "http://muster.example/" }, "MUSTER_OIDC_REDIRECT_URL"},
		"no address":          {func(o *config.OIDC) { o.OIDCIssuer = "identity.example" }, "MUSTER_OIDC_ISSUER"},
		"an unreadable one":   {func(o *config.OIDC) { o.OIDCIssuer = "https://%zz" }, "MUSTER_OIDC_ISSUER"},
		"a name like local's": {func(o *config.OIDC) { o.OIDCIssuer = "http://localhost.example" }, "MUSTER_OIDC_ISSUER"},
	} {
		t.Run(name, func(t *testing.T) {
			o := whole
			c.change(&o)
			err := o.Check()
			if c.fault == "" {
				require.NoError(t, err)
				return
			}
			require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(err))
			require.ErrorContains(t, err, c.fault)
		})
	}
}
