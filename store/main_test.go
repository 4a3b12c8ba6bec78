package store_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/internal/pgtest"
	"github.com/musterhq/muster/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// open returns a store with a vault on a database of the test's own.
func open(t *testing.T) *store.Store {
	t.Helper()
	url := pgtest.NewDatabase(t, pgtest.WithTemplate("muster", func(ctx context.Context, url string) error {
		st, err := store.Open(ctx, url)
		if err != nil {
			return err
		}
		defer st.Close()
		_, err = st.Migrate(ctx)
		return err
	}))
	vault, err := store.NewVault(bytes.Repeat([]byte{7}, store.VaultKeySize))
	require.NoError(t, err)
	st, err := store.Open(context.Background(), url, store.WithVault(vault))
	require.NoError(t, err)
	t.Cleanup(st.Close)
	return st
}

func one[T any](t *testing.T, st *store.Store, sql string, args ...any) T {
	t.Helper()
	var v T
	require.NoError(t, st.Pool().QueryRow(context.Background(), sql, args...).Scan(&v))
	return v
}
