package activities_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// upload keeps a file as the API does, for an import by the operator.
func (f *fixture) upload(content string, dryRun bool) (id, path string) {
	f.t.Helper()
	if f.Spool == "" {
		f.Spool = f.t.TempDir()
	}
	id = uuid.NewString()
	path = filepath.Join(f.Spool, "import-"+id)
	require.NoError(f.t, os.WriteFile(path, []byte(content), 0o600))
	var operator string
	require.NoError(f.t, f.Store.Pool().QueryRow(f.ctx, `SELECT id::text FROM app_user WHERE login = 'operator'`).Scan(&operator))
	require.NoError(f.t, f.Store.CreateImport(f.ctx, store.ImportJob{
		ID: id, Unit: "operator/north", Name: "customers.csv", Path: path, TotalBytes: int64(len(content)), CreatedBy: &operator,
		Options: campaign.ImportOptions{Unit: "operator/north", TimeZone: "Asia/Shanghai", BadShare: 0.05, DryRun: dryRun},
	}))
	return id, path
}

func (f *fixture) importState(id string) campaign.ImportState {
	f.t.Helper()
	j, err := f.Store.Import(f.ctx, id)
	require.NoError(f.t, err)
	return j.State
}

func TestAnImportForgetsItsFile(t *testing.T) {
	f := newFixture(t, nil)
	for _, tt := range []struct {
		name, content string
		want          campaign.ImportState
	}{
		{"that landed", "external_id,age\nnew1,31\nnew2,32\n", campaign.ImportDone},
		{"that landed before", "external_id,age\nnew1,31\nnew2,32\n", campaign.ImportDone},
		{"that was refused", "external_id,age\nnew3,old\n", campaign.ImportRefused},
	} {
		id, path := f.upload(tt.content, false)
		require.NoError(t, f.Activities.ImportCustomers(f.ctx, campaign.ImportInput{ImportID: id}), tt.name)
		require.Equal(t, tt.want, f.importState(id), tt.name)
		require.NoFileExists(t, path, tt.name)
	}
	var customers int
	require.NoError(t, f.Store.Pool().QueryRow(f.ctx, `SELECT count(*) FROM customer WHERE external_id LIKE 'new_'`).Scan(&customers))
	require.Equal(t, 2, customers)
}

func TestAFileThatWasOnlyCheckedIsKeptForADay(t *testing.T) {
	f := newFixture(t, nil)
	id, path := f.upload("external_id,age\nnew1,31\n", true)
	require.NoError(t, f.Activities.ImportCustomers(f.ctx, campaign.ImportInput{ImportID: id}))
	require.Equal(t, campaign.ImportChecked, f.importState(id))

	require.NoError(t, f.ExpireImports(f.ctx))
	require.Equal(t, campaign.ImportChecked, f.importState(id))
	require.FileExists(t, path)

	f.exec(`UPDATE import_job SET changed_at = now() - interval '25 hours' WHERE id = $1`, id)
	require.NoError(t, f.ExpireImports(f.ctx))
	require.Equal(t, campaign.ImportCancelled, f.importState(id))
	require.NoFileExists(t, path)
	require.NoError(t, f.ExpireImports(f.ctx), "and nothing is left to do")

	// What a process that was killed left in the folder goes, and what an import waits for stays.
	waiting, waits := f.upload("external_id,age\nnew2,31\n", false)
	strays := []string{filepath.Join(f.Spool, "upload-123"), filepath.Join(f.Spool, "import-"+uuid.NewString()), path}
	for _, name := range append(strays, waits, filepath.Join(f.Spool, "other")) {
		require.NoError(t, os.WriteFile(name, []byte("x"), 0o600))
		require.NoError(t, os.Chtimes(name, time.Time{}, time.Now().Add(-25*time.Hour)))
	}
	young := filepath.Join(f.Spool, "upload-456")
	require.NoError(t, os.WriteFile(young, []byte("x"), 0o600))
	require.NoError(t, f.ExpireImports(f.ctx))
	for _, name := range strays {
		require.NoFileExists(t, name)
	}
	for _, name := range []string{waits, young, filepath.Join(f.Spool, "other")} {
		require.FileExists(t, name)
	}
	require.Equal(t, campaign.ImportWaiting, f.importState(waiting))
}

// TestAWorkerReadsUploadsOnly: whoever can write the rows of imports does not choose which
// file of the worker's machine is read, or removed.
func TestAWorkerReadsUploadsOnly(t *testing.T) {
	f := newFixture(t, nil)
	id, _ := f.upload("external_id,age\nnew1,31\n", false)
	secret := filepath.Join(t.TempDir(), "vault.key")
	require.NoError(t, os.WriteFile(secret, []byte("external_id\nsecret\n"), 0o600))
	for _, path := range []string{secret, "../" + filepath.Base(filepath.Dir(secret)) + "/vault.key"} {
		f.exec(`UPDATE import_job SET path = $2 WHERE id = $1`, id, path)
		_ = f.Activities.ImportCustomers(f.ctx, campaign.ImportInput{ImportID: id})
		require.FileExists(t, secret)
		j, err := f.Store.Import(f.ctx, id)
		require.NoError(t, err)
		require.NotEqual(t, campaign.ImportDone, j.State)
		if j.Report != nil {
			require.Empty(t, j.Report.Columns)
		}
	}
}
