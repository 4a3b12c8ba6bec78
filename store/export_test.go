package store_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

func TestExport(t *testing.T) {
	st, by := lister(t)
	ctx := t.Context()
	admin, err := store.Open(ctx, ownerURL(st), store.AsOwner(), store.WithVault(vaultOf(t, bytes.Repeat([]byte{7}, store.VaultKeySize))))
	require.NoError(t, err)
	defer admin.Close()
	withName := append([]store.Attribute{{Name: "full_name", Type: store.AttributeText, Meaning: "Name", PII: true}}, attributes...)
	require.NoError(t, admin.DeclareAttributes(ctx, by, withName))
	_, err = admin.ImportCustomers(ctx, store.CustomerImport{Name: "few", Digest: "few", Attributes: attributes}, people(0, 30, nil), nil)
	require.NoError(t, err)
	all, err := st.CustomerAttributes(ctx)
	require.NoError(t, err)
	require.Equal(t, []string{"external_id", "org_unit", "time_zone", "opted_out", "age", "order", "score", "segment", "since", "vip"}, store.ExportColumns(all), "nothing that identifies a person")

	query := store.ExportQuery{Where: "c.age >= $1", Args: []any{int64(3)}}
	const unit campaign.OrgUnit = "operator/north/city-0"
	n, err := st.CountExport(ctx, unit, query)
	require.NoError(t, err)
	require.EqualValues(t, 9, n, "every third from 3 on")
	e, err := st.CreateExport(ctx, store.Export{
		ID: uuid.NewString(), Unit: unit, Filter: "age >= 3", Columns: []string{"external_id", "age", "score", "vip", "since", "order"},
		Format: "csv", QueryHash: "h", Rows: n, RowCap: 9,
	}, by)
	require.NoError(t, err)
	require.WithinDuration(t, e.CreatedAt.Add(store.ExportLasts), e.ExpiresAt, time.Second)
	fetch := func() (rows [][]any, err error) {
		err = st.FetchExport(ctx, e, query, by, func(row []any) error {
			rows = append(rows, row)
			return nil
		})
		return rows, err
	}
	rows, err := fetch()
	require.NoError(t, err)
	require.Len(t, rows, 9)
	require.True(t, since.Add(3*time.Hour).Equal(rows[0][4].(time.Time)))
	rows[0][4] = nil
	require.Equal(t, []any{"c000003", int64(3), 1.0, false, nil, nil}, rows[0])
	require.EqualValues(t, 1, one[int](t, st, `SELECT count(*) FROM audit_event WHERE event = 'export.fetched' AND data->>'query_hash' = 'h' AND data->>'rows' = '9' AND actor = 'Paula'`))

	// What left counts, whether by the same file again or by another of the day, also one that
	// had fewer rows when it was asked for.
	rows, err = fetch()
	require.Equal(t, campaign.CodeExportNotPermitted, campaign.CodeOf(err))
	require.Empty(t, rows)
	another := store.Export{ID: uuid.NewString(), Unit: unit, Columns: []string{"age"}, Format: "csv", Rows: 1, RowCap: 9}
	_, err = st.CreateExport(ctx, another, by)
	require.Equal(t, campaign.CodeExportNotPermitted, campaign.CodeOf(err))
	another.Rows = 0
	another, err = st.CreateExport(ctx, another, by)
	require.NoError(t, err)
	require.Equal(t, campaign.CodeExportNotPermitted, campaign.CodeOf(st.FetchExport(ctx, another, query, by, func([]any) error { return nil })))

	// One more customer than what is left by the time it is fetched, and nothing leaves.
	e.RowCap = 18
	_, err = admin.ImportCustomers(ctx, store.CustomerImport{Name: "more", Digest: "more", Attributes: attributes}, people(30, 31, nil), nil)
	require.NoError(t, err)
	rows, err = fetch()
	require.Equal(t, campaign.CodeExportNotPermitted, campaign.CodeOf(err))
	require.Empty(t, rows)
	e.RowCap = 100
	e.Columns = []string{"full_name"}
	_, err = fetch()
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(err), "not whatever the row says")
	e.Columns = []string{"age"}
	broken := errors.New("broken")
	require.ErrorIs(t, st.FetchExport(ctx, e, query, by, func([]any) error { return broken }), broken)

	_, err = owner(t, st).Exec(ctx, `UPDATE export_job SET row_cap = 1000`)
	require.Error(t, err)
	_, err = owner(t, st).Exec(ctx, `INSERT INTO export_job (id, tenant, unit, columns, format, query_hash, rows, row_cap, created_by, expires_at)
		SELECT $1, tenant, unit, columns, format, query_hash, rows, row_cap, created_by, now() - interval '1 second' FROM export_job LIMIT 1`, uuid.Nil)
	require.NoError(t, err)
	_, err = st.Export(ctx, uuid.Nil.String())
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(err), "what has expired is gone")
}
