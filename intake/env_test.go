package intake_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/intake"
	"github.com/musterhq/muster/internal/pgtest"
	"github.com/musterhq/muster/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// the declared attributes.
var catalogue = []store.Attribute{
	{Name: "age", Type: store.AttributeInt, Meaning: "Age", MeaningZh: "年龄"},
	{Name: "arpu", Type: store.AttributeFloat, Meaning: "Monthly bill"},
	{Name: "segment", Type: store.AttributeText, Meaning: "Group", Allowed: []string{"student", "farmer", "senior"}},
	{Name: "vip", Type: store.AttributeBool, Meaning: "VIP"},
	{Name: "joined", Type: store.AttributeTimestamp, Meaning: "Joined"},
	{Name: "name", Type: store.AttributeText, Meaning: "Name", PII: true},
}

// open returns a store with the rights of the application, and the catalogue declared.
func open(t *testing.T) *store.Store {
	t.Helper()
	ctx := context.Background()
	url := pgtest.NewDatabase(t, pgtest.WithTemplate("muster", func(ctx context.Context, url string) error {
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
	st, err := store.Open(ctx, url, store.WithVault(vault), store.WithPhoneRegion("CN"))
	require.NoError(t, err)
	t.Cleanup(st.Close)
	require.NoError(t, st.DeclareAttributes(ctx, campaign.Actor{}, catalogue))
	_, err = st.Pool().Exec(ctx, `INSERT INTO org_unit (path, name) VALUES ('operator', 'Operator'), ('operator/north', 'North')`)
	require.NoError(t, err)
	return st
}

// all an import may need beside the right to import.
var all = []campaign.Action{campaign.ActAttributeDeclare, campaign.ActUnitAdminister}

// job keeps an import of content that nobody has begun, by somebody with all rights.
func job(t *testing.T, st *store.Store, content string, change func(*campaign.ImportOptions)) string {
	t.Helper()
	return jobOf(t, st, content, all, change)
}

// jobOf is job for somebody with rights.
func jobOf(t *testing.T, st *store.Store, content string, rights []campaign.Action, change func(*campaign.ImportOptions)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "customers")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	o := campaign.ImportOptions{Unit: "operator/north", TimeZone: "Asia/Shanghai", BadShare: campaign.DefaultBadShare}
	if change != nil {
		change(&o)
	}
	require.NoError(t, intake.CheckOptions(o))
	id := uuid.Must(uuid.NewV7()).String()
	require.NoError(t, st.CreateImport(context.Background(), store.ImportJob{ID: id, Unit: o.Unit, Name: "customers.csv", Path: path, Options: o, TotalBytes: int64(len(content)), Rights: rights}))
	return id
}

// imported runs an import to its end.
func imported(t *testing.T, st *store.Store, content string, change func(*campaign.ImportOptions)) store.ImportJob {
	t.Helper()
	j, err := intake.Run(context.Background(), st, job(t, st, content, change), "", nil)
	require.NoError(t, err)
	return j
}

// any share of the rows may be bad.
func lenient(o *campaign.ImportOptions) { o.BadShare = 1 }

func rejects(t *testing.T, st *store.Store, id string) (all []store.ImportReject) {
	t.Helper()
	require.NoError(t, st.ImportRejects(context.Background(), id, func(r store.ImportReject) error { all = append(all, r); return nil }))
	return all
}

func one[T any](t *testing.T, st *store.Store, sql string, args ...any) T {
	t.Helper()
	var v T
	require.NoError(t, st.Pool().QueryRow(context.Background(), sql, args...).Scan(&v))
	return v
}
