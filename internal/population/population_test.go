package population

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alexedwards/argon2id"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/dataset"
	"github.com/musterhq/muster/internal/pgtest"
	"github.com/musterhq/muster/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

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
	vault, err := store.NewVault(make([]byte, store.VaultKeySize))
	require.NoError(t, err)
	st, err := store.Open(ctx, url, store.WithVault(vault), store.AsOwner())
	require.NoError(t, err)
	t.Cleanup(st.Close)
	return st
}

// bankRows makes data in the form of the published file: every fourth person
// subscribed, person i after 1 + i mod 3 contacts.
func bankRows(n int) []byte {
	var b strings.Builder
	b.WriteString(`"age";"job";"marital";"education";"default";"housing";"loan";"contact";"month";"day_of_week";"duration";"campaign";"pdays";"previous";"poutcome";"emp.var.rate";"cons.price.idx";"cons.conf.idx";"euribor3m";"nr.employed";"y"` + "\n")
	for i := range n {
		y := "no"
		if i%4 == 0 {
			y = "yes"
		}
		fmt.Fprintf(&b, `%d;"student";"single";"high.school";"no";"no";"no";"cellular";"may";"mon";%d;%d;999;0;"nonexistent";1.1;93.994;-36.4;4.857;5191;"%s"`+"\n",
			20+i, 100+i, 1+i%3, y)
	}
	return []byte(b.String())
}

func count(t *testing.T, st *store.Store, sql string, args ...any) (n int) {
	t.Helper()
	require.NoError(t, st.Pool().QueryRow(context.Background(), sql, args...).Scan(&n))
	return n
}

func TestLoadBank(t *testing.T) {
	ctx, st := context.Background(), open(t)
	var seen []Progress
	found := dataset.Located{Data: bankRows(20), Origin: dataset.FromFolder}
	loaded, err := LoadBank(ctx, st, found, func(p Progress) { seen = append(seen, p) })
	require.NoError(t, err)
	require.Equal(t, KindBank, loaded.Kind)
	require.EqualValues(t, 20, loaded.Customers)
	require.False(t, loaded.Already)
	require.Contains(t, loaded.Why, "MUSTER_DATA")

	require.Equal(t, 16, count(t, st, `SELECT count(*) FROM customer WHERE cohort = 'history'`))
	require.Equal(t, 4, count(t, st, `SELECT count(*) FROM customer WHERE cohort = 'population'`))
	require.Equal(t, 0, count(t, st, `SELECT count(*) FROM customer WHERE simulated`))
	require.Equal(t, 20, count(t, st, `SELECT count(*) FROM phone_vault`))
	require.Equal(t, 1, count(t, st, `SELECT count(*) FROM org_unit WHERE path = 'bank'`))
	require.Equal(t, 1, count(t, st, `SELECT age FROM customer WHERE external_id = 'bank-000017'`)-35)

	// The calls of the history are known, those of the population are not.
	require.Equal(t, 16, count(t, st, `SELECT count(*) FROM contact_history`))
	require.Equal(t, 4, count(t, st, `SELECT count(*) FROM contact_history WHERE outcome = 'ordered' AND channel = 'call' AND seconds >= 100`))
	require.Equal(t, 0, count(t, st, `SELECT count(*) FROM contact_history h JOIN customer c ON c.id = h.customer_id WHERE c.cohort = 'population'`))
	_, recorded := loaded.Bank.Recorded("bank-000017")
	require.True(t, recorded)

	require.NotEmpty(t, seen)
	last := seen[len(seen)-1]
	require.Equal(t, last.Total, last.Done)

	again, err := LoadBank(ctx, st, found, nil)
	require.NoError(t, err)
	require.True(t, again.Already)
	require.EqualValues(t, 20, again.Customers)
	require.Equal(t, 20, count(t, st, `SELECT count(*) FROM customer`))
	require.Equal(t, 16, count(t, st, `SELECT count(*) FROM contact_history`))
}

func TestGenerate(t *testing.T) {
	ctx, st := context.Background(), open(t)
	loaded, err := Generate(ctx, st, 500, 7, nil)
	require.NoError(t, err)
	require.Nil(t, loaded.Bank)
	require.EqualValues(t, 500, loaded.Customers)
	require.Equal(t, 500, count(t, st, `SELECT count(*) FROM customer WHERE simulated AND org_unit LIKE 'operator/south/%'`))

	again, err := Generate(ctx, st, 500, 7, nil)
	require.NoError(t, err)
	require.True(t, again.Already)

	other, err := Generate(ctx, st, 600, 8, nil)
	require.NoError(t, err)
	require.False(t, other.Already)
	require.Equal(t, 600, count(t, st, `SELECT count(*) FROM customer`))
}

func TestEnsureDemoFallsBackToGenerated(t *testing.T) {
	ctx, st := context.Background(), open(t)
	loaded, err := EnsureDemo(ctx, st, Options{DataDir: t.TempDir(), CacheDir: t.TempDir(), Offline: true, Generated: 50})
	require.NoError(t, err)
	require.Equal(t, KindOperator, loaded.Kind)
	require.Equal(t, OperatorUnit, loaded.Unit)
	require.Contains(t, loaded.Why, "none of whom exists")
	require.Contains(t, loaded.Why, "MUSTER_DATA")
	require.Equal(t, 50, count(t, st, `SELECT count(*) FROM customer WHERE simulated`))
}

func TestEnsureDemoRefusesAnotherFile(t *testing.T) {
	ctx, st, folder := context.Background(), open(t), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(folder, dataset.BankMarketing.File), []byte("age\n"), 0o600))
	_, err := EnsureDemo(ctx, st, Options{DataDir: folder, Offline: true, Generated: 50})
	require.ErrorIs(t, err, dataset.ErrMismatch)
	require.Equal(t, 0, count(t, st, `SELECT count(*) FROM customer`))
}

func TestPublishedBankData(t *testing.T) {
	folder := os.Getenv("MUSTER_DATA")
	if folder == "" {
		t.Skip("MUSTER_DATA names no folder with the published data")
	}
	ctx, st := context.Background(), open(t)
	loaded, err := EnsureDemo(ctx, st, Options{DataDir: folder, Offline: true})
	require.NoError(t, err)
	require.Equal(t, KindBank, loaded.Kind)
	require.EqualValues(t, 41_188, loaded.Customers)
	require.Equal(t, 8_238, count(t, st, `SELECT count(*) FROM customer WHERE cohort = 'population'`))
	require.Equal(t, 32_950, count(t, st, `SELECT count(*) FROM contact_history`))
	require.Equal(t, 2_100, count(t, st, `SELECT count(*) FROM contact_history WHERE outcome = 'ordered'`))
}

func TestEnsureUsers(t *testing.T) {
	ctx, st := context.Background(), open(t)
	users, err := EnsureUsers(ctx, st, BankUnit, OperatorUnit)
	require.NoError(t, err)
	require.Len(t, users, 10+DemoAgents)

	roles := map[campaign.Role]bool{}
	for _, u := range users {
		var want []campaign.Grant
		known, err := st.UserByLogin(ctx, u.Login)
		require.NoError(t, err)
		require.True(t, known.Demo)
		match, err := argon2id.ComparePasswordAndHash(u.Password(), known.PasswordHash)
		require.NoError(t, err)
		require.True(t, match, u.Login)
		_, grants, err := st.UserWithGrants(ctx, known.ID)
		require.NoError(t, err)
		for _, r := range u.Roles {
			roles[r] = true
			want = append(want, campaign.Grant{UserID: known.ID, Role: r, Unit: BankUnit}, campaign.Grant{UserID: known.ID, Role: r, Unit: OperatorUnit})
		}
		require.ElementsMatch(t, want, grants)
	}
	for _, r := range campaign.Roles() {
		require.True(t, roles[r], "nobody is %s", r)
	}

	before := count(t, st, `SELECT count(*) FROM role_grant`)
	_, err = EnsureUsers(ctx, st, BankUnit, OperatorUnit)
	require.NoError(t, err)
	require.Equal(t, before, count(t, st, `SELECT count(*) FROM role_grant`))
}

func TestEnsureUsersLeavesOthersAlone(t *testing.T) {
	ctx, st := context.Background(), open(t)
	require.NoError(t, st.CreateUser(ctx, store.User{
		ID: "0197a3c0-0000-7000-8000-000000000001", Login: "planner", Name: "A real planner", PasswordHash: "x",
	}))
	_, err := EnsureUsers(ctx, st, BankUnit)
	require.Equal(t, campaign.CodeAlreadyExists, campaign.CodeOf(err))
	require.Equal(t, 1, count(t, st, `SELECT count(*) FROM app_user`))
	require.Equal(t, 0, count(t, st, `SELECT count(*) FROM role_grant`))
}

func TestProgressLine(t *testing.T) {
	var b strings.Builder
	print := Printer(&b)
	for _, p := range []Progress{
		{Work: "loading A", Unit: "customers", Done: 10, Total: 40, PerSecond: 20, Left: 1500 * 1e6},
		{Work: "loading A", Unit: "customers", Done: 20, Total: 40, PerSecond: 20, Left: 1e9}, // within the same second
		{Work: "loading A", Unit: "customers", Done: 40, Total: 40, PerSecond: 20},
		{Work: "fetching B", Unit: "bytes", Done: 5, Total: -1, PerSecond: 5},
	} {
		print(p)
	}
	require.Equal(t, "loading A: 10 of 40 customers, 20/s, about 2s left\n"+
		"loading A: 40 of 40 customers, 20/s\n"+
		"fetching B: 5 bytes, 5/s\n", b.String())
}
