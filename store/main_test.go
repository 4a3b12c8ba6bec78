package store_test

import (
	"bytes"
	"context"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/internal/pgtest"
	"github.com/musterhq/muster/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// parallel are the tests that run beside others.
var parallel sync.Map

// open returns a store with a vault on a database of the test's own, and lets others run
// beside the test.
func open(t *testing.T, with ...store.Option) *store.Store {
	t.Helper()
	if _, already := parallel.LoadOrStore(t, true); !already {
		t.Parallel()
	}
	address := pgtest.NewDatabase(t, pgtest.WithTemplate("muster", func(ctx context.Context, url string) error {
		st, err := store.Open(ctx, url, store.AsOwner())
		if err != nil {
			return err
		}
		defer st.Close()
		_, err = st.Migrate(ctx)
		return err
	}))
	vault, err := store.NewVault(bytes.Repeat([]byte{7}, store.VaultKeySize))
	require.NoError(t, err)
	st, err := store.Open(context.Background(), address, append(with, store.WithVault(vault))...)
	require.NoError(t, err)
	t.Cleanup(st.Close)
	return st
}

// owner connects to the database of st with the rights of its owner.
func owner(t *testing.T, st *store.Store) *pgxpool.Pool {
	t.Helper()
	config := st.Pool().Config()
	delete(config.ConnConfig.RuntimeParams, "role")
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// ownerURL is where the owner of st's database logs in.
func ownerURL(st *store.Store) string { return st.Pool().Config().ConnConfig.ConnString() }

// as returns the address for another user.
func as(address, user, password string) string {
	u, err := url.Parse(address)
	if err != nil {
		panic(err)
	}
	u.User = url.UserPassword(user, password)
	return u.String()
}

// databaseOf returns the name of the database at address.
func databaseOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		panic(err)
	}
	return strings.TrimPrefix(u.Path, "/")
}

func one[T any](t *testing.T, st *store.Store, sql string, args ...any) T {
	t.Helper()
	var v T
	require.NoError(t, st.Pool().QueryRow(context.Background(), sql, args...).Scan(&v))
	return v
}
