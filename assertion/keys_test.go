package assertion_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/assertion"
)

// A worker that has keys.json alone verifies what a new key signed without being told,
// and signs nothing itself.
func TestKeysAreReadAgainForAnUnknownOne(t *testing.T) {
	dir, _ := generated(t)
	worker := t.TempDir()
	share := func() {
		list, err := os.ReadFile(filepath.Join(dir, "keys.json"))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(worker, "keys.json"), list, 0o600))
	}
	share()
	keys, err := assertion.Open(worker)
	require.NoError(t, err)
	require.Empty(t, keys.Ring().SignerID(now))
	_, err = assertion.Sign(keys.Ring(), command())
	require.Error(t, err)

	require.NoError(t, assertion.Rotate(dir, now.Add(-time.Hour), 0))
	ring := load(t, dir)
	token := signed(t, ring, command())
	requireForged[assertion.Command](t, keys.Ring(), token, assertion.FaultUnknownKey)
	share()
	require.Eventually(t, func() bool { // not more often than once a second
		claims, err := assertion.VerifyBy[assertion.Command](keys, token, now)
		return err == nil && claims == command()
	}, 10*time.Second, 50*time.Millisecond)

	all := keys.Ring().Keys()
	require.Len(t, all, 2)
	require.Equal(t, ring.SignerID(now), all[1].ID)
	require.False(t, all[0].RetiredAt.IsZero())
	require.False(t, all[1].Private)
	require.True(t, ring.Keys()[1].Private)
}

func TestKeysOfBeforeStayWhenTheFolderCannotBeRead(t *testing.T) {
	dir, _ := generated(t)
	keys, err := assertion.Open(dir)
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(dir, "keys.json")))
	require.Error(t, keys.Reload())
	require.NotEmpty(t, keys.Ring().SignerID(now))
	_, err = assertion.Open(dir)
	require.Error(t, err)
}
