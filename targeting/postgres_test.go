package targeting

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// database opens a connection to a database of the test's own.
func database(t testing.TB) *pgx.Conn {
	db, err := pgx.Connect(context.Background(), pgtest.NewDatabase(t))
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close(context.Background()) })
	return db
}

func execute(t testing.TB, db *pgx.Conn, sql string, args ...any) int64 {
	tag, err := db.Exec(context.Background(), sql, args...)
	require.NoError(t, err, sql)
	return tag.RowsAffected()
}

func query[T any](t testing.TB, db *pgx.Conn, scan pgx.RowToFunc[T], sql string, args ...any) []T {
	rows, err := db.Query(context.Background(), sql, args...)
	require.NoError(t, err, sql)
	all, err := pgx.CollectRows(rows, scan)
	require.NoError(t, err, sql)
	return all
}
