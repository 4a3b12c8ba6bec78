package pgtest_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func TestDatabasesAreApart(t *testing.T) {
	first, second := connect(t, pgtest.NewDatabase(t)), connect(t, pgtest.NewDatabase(t))
	_, err := first.Exec(t.Context(), `CREATE TABLE mine (n int)`)
	require.NoError(t, err)
	_, err = second.Exec(t.Context(), `SELECT * FROM mine`)
	require.ErrorContains(t, err, "42P01")
}

func TestDatabaseIsDroppedEvenWhenInUse(t *testing.T) {
	var name string
	admin := connect(t, pgtest.NewDatabase(t))
	t.Run("inner", func(t *testing.T) {
		conn, err := pgx.Connect(context.Background(), pgtest.NewDatabase(t)) // left open
		require.NoError(t, err)
		require.NoError(t, conn.QueryRow(t.Context(), `SELECT current_database()`).Scan(&name))
	})
	var count int
	require.NoError(t, admin.QueryRow(t.Context(), `SELECT count(*) FROM pg_database WHERE datname = $1`, name).Scan(&count))
	require.Zero(t, count)
}

func TestTemplateIsPreparedOnce(t *testing.T) {
	var prepared atomic.Int32
	migrated := pgtest.WithTemplate("migrated", func(ctx context.Context, url string) error {
		prepared.Add(1)
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }()
		_, err = conn.Exec(ctx, `CREATE TABLE kept AS SELECT 42 AS n`)
		return err
	})
	t.Run("side by side", func(t *testing.T) {
		for range 8 {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				conn := connect(t, pgtest.NewDatabase(t, migrated))
				var n int
				require.NoError(t, conn.QueryRow(t.Context(), `SELECT n FROM kept`).Scan(&n))
				require.Equal(t, 42, n)
				_, err := conn.Exec(t.Context(), `DELETE FROM kept`)
				require.NoError(t, err)
			})
		}
	})
	require.EqualValues(t, 1, prepared.Load())
}
