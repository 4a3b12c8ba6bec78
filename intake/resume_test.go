package intake_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/intake"
	"github.com/musterhq/muster/store"
)

// many is a file of n rows, wide enough for several batches; every hundredth row is bad.
func many(n int) string {
	var b strings.Builder
	b.WriteString("external_id,msisdn,age,arpu,segment,name\n")
	padding := strings.Repeat("x", 200)
	for i := range n {
		age := fmt.Sprint(i % 90)
		if i%100 == 99 {
			age = "old"
		}
		fmt.Fprintf(&b, "c%07d,138%08d,%s,%d.5,farmer,%s\n", i, i, age, i%300, padding)
	}
	return b.String()
}

// landed requires that every good row of many(n) is there once.
func landed(t *testing.T, st *store.Store, j store.ImportJob, n int64) {
	t.Helper()
	require.Equal(t, campaign.ImportDone, j.State)
	require.Equal(t, n, j.Rows)
	require.Equal(t, n/100, j.Rejected)
	require.Equal(t, n, j.Created+j.Updated+j.Unchanged+j.Rejected)
	require.Equal(t, n-n/100, one[int64](t, st, `SELECT count(*) FROM customer`))
	require.Equal(t, n-n/100, one[int64](t, st, `SELECT count(DISTINCT external_id) FROM customer`))
	require.Equal(t, n-n/100, one[int64](t, st, `SELECT count(*) FROM phone_vault JOIN phone_key USING (customer_id) JOIN customer c ON c.id = customer_id`))
	require.EqualValues(t, 2, one[int64](t, st, `SELECT count(*) FROM pg_index WHERE indisvalid
		AND (indexrelid = 'customer_external'::regclass AND indisunique OR indexrelid = 'phone_vault_lookup'::regclass)`))
}

// interrupted loads until a batch has landed, and then has the database end the connections
// of whoever is loading.
func interrupted(t *testing.T, st *store.Store, id string) store.ImportJob {
	t.Helper()
	ctx := context.Background()
	config := st.Pool().Config()
	delete(config.ConnConfig.RuntimeParams, "role")
	owner, err := pgxpool.NewWithConfig(ctx, config)
	require.NoError(t, err)
	defer owner.Close()
	killed := false
	_, err = intake.Run(ctx, st, id, "", func(j store.ImportJob) {
		if j.State == campaign.ImportLoading && j.Next.Offset > 0 && !killed {
			killed = true
			_, err := owner.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
			if err != nil {
				t.Error(err)
			}
		}
	})
	require.Error(t, err)
	require.True(t, killed)
	j, err := st.Import(ctx, id)
	require.NoError(t, err)
	require.Equal(t, campaign.ImportLoading, j.State)
	require.Positive(t, j.Rows)
	require.NotZero(t, j.Next.Offset)
	return j
}

const manyRows = 30_000

func TestAnInterruptedImportGoesOn(t *testing.T) {
	st, ctx := open(t), context.Background()
	id := job(t, st, many(manyRows), nil)
	stopped := interrupted(t, st, id)
	require.Less(t, stopped.Rows, int64(manyRows))
	require.True(t, stopped.Fresh)
	var first int64
	done, err := intake.Run(ctx, st, id, "", func(j store.ImportJob) {
		if first == 0 {
			first = j.Rows
		}
	})
	require.NoError(t, err)
	require.Greater(t, first, stopped.Rows, "nothing is begun again")
	landed(t, st, done, manyRows)
	require.EqualValues(t, manyRows-manyRows/100, done.Created)
}

func TestAnotherImportOfTheContentGoesOn(t *testing.T) {
	st, content := open(t), many(manyRows)
	first := interrupted(t, st, job(t, st, content, nil))
	second := imported(t, st, content, nil)
	landed(t, st, second, manyRows)
	was, err := st.Import(context.Background(), first.ID)
	require.NoError(t, err)
	require.Equal(t, campaign.ImportCancelled, was.State)
	_, err = intake.Run(context.Background(), st, first.ID, "", nil)
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(err))
}

func TestAnotherImportBuildsTheIndexesOfOneThatWasInterrupted(t *testing.T) {
	st, ctx := open(t), context.Background()
	id := job(t, st, many(manyRows), nil)
	interrupted(t, st, id)
	require.Nil(t, one[*string](t, st, `SELECT to_regclass('customer_external')::text`))
	other := imported(t, st, "external_id,age\nc0000001,91\nz,1\n", nil)
	require.Equal(t, [5]int64{2, 1, 1, 0, 0}, counts(other))
	done, err := intake.Run(ctx, st, id, "", nil)
	require.NoError(t, err)
	require.Equal(t, campaign.ImportDone, done.State)
	require.EqualValues(t, manyRows, done.Rows)
	require.EqualValues(t, manyRows-manyRows/100+1, one[int64](t, st, `SELECT count(*) FROM customer`))
}

func TestACancelledImportEnds(t *testing.T) {
	st, ctx := open(t), context.Background()
	id := job(t, st, many(manyRows), nil)
	_, err := intake.Run(ctx, st, id, "", func(j store.ImportJob) {
		if j.State == campaign.ImportLoading {
			if err := st.CancelImport(ctx, id); err != nil && campaign.CodeOf(err) != campaign.CodeStateConflict {
				t.Error(err)
			}
		}
	})
	require.Equal(t, campaign.CodeLeaseLost, campaign.CodeOf(err))
	j, err := st.Import(ctx, id)
	require.NoError(t, err)
	require.Equal(t, campaign.ImportCancelled, j.State)
	require.Equal(t, j.Created, one[int64](t, st, `SELECT count(*) FROM customer`), "what has landed stays")
	require.Less(t, j.Created, int64(manyRows))
	require.NotNil(t, one[*string](t, st, `SELECT to_regclass('customer_external')::text`))
}

func TestTwoProcessesOnOneImport(t *testing.T) {
	st, ctx := open(t), context.Background()
	id := job(t, st, many(manyRows), nil)
	results := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := intake.Run(ctx, st, id, "", nil)
			results <- err
		}()
	}
	for range 2 {
		select {
		case err := <-results:
			require.NoError(t, err)
		case <-time.After(time.Minute):
			t.Fatal("the two wait for each other")
		}
	}
	done, err := intake.Run(ctx, st, id, "", nil)
	require.NoError(t, err)
	landed(t, st, done, manyRows)
}
