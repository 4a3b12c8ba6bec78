package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/internal/pgtest"
)

func TestImportFile(t *testing.T) {
	dir, url := t.TempDir(), pgtest.NewDatabase(t)
	file := filepath.Join(dir, "customers.csv")
	require.NoError(t, os.WriteFile(file, []byte("客户编号,手机号,机构,age,note\na,13800138000,operator/north,31,x\nb,12345,,32,x\nc,13800138001,,old,x\n"), 0o600))
	arguments := func(more ...string) []string {
		return append([]string{"import", "file", file, "--unit", "operator", "--data-dir", dir, "--database-url", url, "--map", "age=+age:int:plain", "--map", "note=-"}, more...)
	}
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	number := func(sql string) (n int) {
		require.NoError(t, conn.QueryRow(t.Context(), sql).Scan(&n))
		return n
	}
	rejected := file + ".rejected.csv"
	require.Equal(t, 1, run(arguments()), "too many rows are bad")
	require.FileExists(t, rejected)
	require.Zero(t, number(`SELECT count(*) FROM customer`))
	require.NoError(t, os.Remove(rejected))

	require.Zero(t, run(arguments("--bad-share", "0.9", "--dry-run")))
	require.Zero(t, number(`SELECT count(*) FROM customer_attribute`))
	require.Zero(t, run(arguments("--bad-share", "0.9", "--rejects", rejected)))
	text, err := os.ReadFile(rejected)
	require.NoError(t, err)
	require.Contains(t, string(text), "invalid_msisdn")
	require.Contains(t, string(text), "invalid_value")
	require.NotContains(t, string(text), "12345", "a number is masked")
	require.Equal(t, 1, number(`SELECT count(*) FROM customer WHERE age = 31 AND org_unit = 'operator/north'`))
	require.Equal(t, 1, number(`SELECT count(*) FROM customer_attribute WHERE name = 'age' AND NOT pii`))
	require.Zero(t, run(arguments("--bad-share", "0.9")), "the same content lands once")
	require.Equal(t, 1, number(`SELECT count(*) FROM customer`))
	require.Equal(t, 1, run(arguments("--bad-share", "2")))

	// One that breaks off has ended: it is in the way of no erasure.
	_, err = conn.Exec(t.Context(), `ALTER TABLE customer_attribute RENAME TO away`)
	require.NoError(t, err)
	require.Equal(t, 1, run(arguments()))
	require.Equal(t, 1, number(`SELECT count(*) FROM import_job WHERE state = 'failed'`))
	require.Zero(t, number(`SELECT count(*) FROM import_job WHERE state IN ('waiting', 'checking', 'loading')`))
}
