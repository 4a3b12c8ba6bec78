package main

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/alexedwards/argon2id"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/config"
	"github.com/musterhq/muster/internal/pgtest"
	"github.com/musterhq/muster/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// typed makes a text the standard input of the commands.
func typed(t *testing.T, text string) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	_, err = io.WriteString(w, text)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	before := os.Stdin
	os.Stdin = r
	t.Cleanup(func() { os.Stdin = before; _ = r.Close() })
}

func TestAUserIsAddedAndMayLogIn(t *testing.T) {
	db := "--database-url=" + pgtest.NewDatabase(t)
	dir := "--data-dir=" + t.TempDir()
	add := func(input string, args ...string) int {
		typed(t, input)
		return run(append([]string{"user", "add", db, dir}, args...))
	}
	st, err := store.Open(t.Context(), strings.TrimPrefix(db, "--database-url="), store.AsOwner())
	require.NoError(t, err)
	defer st.Close()
	require.Zero(t, run([]string{"user", "list", db, dir}), "of an empty database")
	require.Zero(t, tables(t, st), "looking changes nothing")
	_, err = st.Migrate(t.Context())
	require.NoError(t, err)
	anybody := func() bool {
		found, err := hasUsers(t.Context(), st)
		require.NoError(t, err)
		return found
	}
	require.False(t, anybody())

	const password = "correct horse battery"
	for name, refused := range map[string]struct {
		input string
		args  []string
	}{
		"no password":    {"", []string{"alice", "--role=planner", "--unit=operator"}},
		"weak password":  {"eleven char\n", []string{"alice", "--role=planner", "--unit=operator"}},
		"unknown role":   {password, []string{"alice", "--role=boss", "--unit=operator"}},
		"malformed unit": {password, []string{"alice", "--role=planner", "--unit=Operator North"}},
	} {
		require.Equal(t, 1, add(refused.input, refused.args...), name)
	}
	require.False(t, anybody())

	require.Zero(t, add(password+"\r\n", "alice", "--role=planner,manager", "--unit=operator", "--display=Alice A"))
	require.Equal(t, 1, add(password, "alice", "--role=planner", "--unit=operator"), "the login is taken")
	require.Equal(t, 1, add(password, "bob", "--role=finance", "--unit=operator/nroth"), "a unit that is likely misspelt")
	require.Zero(t, add(password, "bob", "--role=finance", "--role=auditor", "--unit=operator/north", "--new-unit"))
	require.True(t, anybody())
	require.Equal(t, 1, add(password, "bob", "--role=finance", "--unit=operator/west", "--new-unit"), "the login is taken")
	units, err := orgUnits(t.Context(), st)
	require.NoError(t, err)
	require.Equal(t, []campaign.OrgUnit{"operator", "operator/north"}, units, "no user, no unit")

	for login, want := range map[string]struct {
		name   string
		grants []campaign.Grant
	}{
		"alice": {"Alice A", []campaign.Grant{{Role: campaign.RoleManager, Unit: "operator"}, {Role: campaign.RolePlanner, Unit: "operator"}}},
		"bob":   {"bob", []campaign.Grant{{Role: campaign.RoleAuditor, Unit: "operator/north"}, {Role: campaign.RoleFinance, Unit: "operator/north"}}},
	} {
		user, err := st.UserByLogin(t.Context(), login)
		require.NoError(t, err)
		require.Equal(t, want.name, user.Name)
		require.False(t, user.Demo)
		matches, err := argon2id.ComparePasswordAndHash(password, user.PasswordHash)
		require.NoError(t, err)
		require.True(t, matches, "the end of the line is no part of the password")
		_, grants, err := st.UserWithGrants(t.Context(), user.ID)
		require.NoError(t, err)
		for i := range want.grants {
			want.grants[i].UserID = user.ID
		}
		require.Equal(t, want.grants, grants)
	}
	require.Zero(t, run([]string{"user", "list", db, dir}))
}

func tables(t *testing.T, st *store.Store) (n int) {
	t.Helper()
	require.NoError(t, st.Pool().QueryRow(t.Context(), `SELECT count(*) FROM pg_tables WHERE schemaname = 'public'`).Scan(&n))
	return n
}

// TestOnlyAnEmptyDatabaseIsMigratedForAUser: the processes that run on another one may be
// of an earlier build.
func TestOnlyAnEmptyDatabaseIsMigratedForAUser(t *testing.T) {
	db := config.Database{DatabaseURL: pgtest.NewDatabase(t)}
	g := &globals{Context: t.Context(), dir: t.TempDir()}
	add := func(login string) error {
		typed(t, "correct horse battery")
		return (&userAdd{Database: db, Name: login, Role: []campaign.Role{campaign.RolePlanner}, Unit: "operator"}).Run(g)
	}
	require.NoError(t, add("alice"))
	st, err := store.Open(t.Context(), db.DatabaseURL, store.AsOwner())
	require.NoError(t, err)
	defer st.Close()
	has, wants, err := st.Schema(t.Context())
	require.NoError(t, err)
	require.Equal(t, wants, has)
	require.NoError(t, add("bob"))

	_, err = st.Pool().Exec(t.Context(), `DELETE FROM goose_db_version WHERE version_id = $1`, wants)
	require.NoError(t, err)
	for _, err := range []error{add("carol"), (&userList{db}).Run(g)} {
		require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(err), "%v", err)
		require.ErrorContains(t, err, "muster migrate")
	}
}

func TestFewNamesStayReadable(t *testing.T) {
	require.Equal(t, "a, b", few([]string{"a", "b"}))
	require.True(t, strings.HasSuffix(few(make([]campaign.OrgUnit, 14)), "and 4 more"))
}
