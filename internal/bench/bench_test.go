package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/musterhq/muster/activities"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/embedded"
	"github.com/musterhq/muster/internal/pgtest"
	"github.com/musterhq/muster/internal/sim/smsc"
	"github.com/musterhq/muster/store"
	"github.com/musterhq/muster/worker"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// newSuite is a suite on the tests' server, whose databases go when the test ends.
func newSuite(t *testing.T) (*Suite, *bytes.Buffer) {
	t.Helper()
	ctx := t.Context()
	given, err := url.Parse(pgtest.NewDatabase(t))
	require.NoError(t, err)
	folder, err := embedded.Open(t.TempDir())
	require.NoError(t, err)
	e := &Engines{Folder: folder, prefix: strings.TrimPrefix(given.Path, "/") + "_bench"}
	t.Cleanup(func() {
		ctx := context.Background()
		rows, err := e.admin.Query(ctx, `SELECT datname FROM pg_database WHERE starts_with(datname, $1)`, e.prefix)
		require.NoError(t, err)
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		for _, name := range names {
			require.NoError(t, e.drop(ctx, strings.TrimPrefix(name, e.prefix+"_")))
		}
		require.NoError(t, e.Close(ctx))
	})
	require.NoError(t, e.open(ctx, given.String(), nil))
	out := &bytes.Buffer{}
	return &Suite{Engines: e, Out: out, Runs: 2, Seed: 1}, out
}

func requireSides(t *testing.T, r *Report, items int64, names ...string) {
	t.Helper()
	require.Len(t, r.Sides, len(names))
	for i, s := range r.Sides {
		require.Equal(t, names[i], s.Name)
		require.Len(t, s.Runs, 2)
		for _, run := range s.Runs {
			require.Equal(t, items, run.Items)
			require.Positive(t, run.Seconds)
			require.InDelta(t, float64(items)/run.Seconds, run.PerSecond, 1e-6)
		}
		require.Positive(t, s.PerSecond.Median)
	}
	for _, x := range r.Ratios {
		require.Contains(t, names, x.Of)
		require.Contains(t, names, x.To)
		require.NotEqual(t, x.Of, x.To)
		require.Positive(t, x.Rate.Median)
	}
	require.Len(t, r.Ratios, len(names)-1)
}

func TestImport(t *testing.T) {
	s, _ := newSuite(t)
	r, err := s.Import(t.Context(), ImportOptions{Rows: 3000, Columns: 40, Memory: 1 << 30})
	require.NoError(t, err)
	requireSides(t, r, 3000, "COPY", "muster import", "COPY, one key")
	left, err := filepath.Glob(filepath.Join(s.Engines.Folder.Path(), "*.csv"))
	require.NoError(t, err)
	require.Empty(t, left, "the file is of no use afterwards")
}

func TestSelection(t *testing.T) {
	s, out := newSuite(t)
	r, err := s.Selection(t.Context(), 4000, 800, true)
	require.NoError(t, err)
	matching := r.Input["matching"].(int64)
	require.InDelta(t, 800, matching, 10, "customers of the same bill come together")
	requireSides(t, r, matching, "bare statement", "muster select")
	require.Len(t, r.Growth.Sizes, 3)
	require.Equal(t, []int{1000, 2000, 4000}, []int{r.Growth.Sizes[0].Rows, r.Growth.Sizes[1].Rows, r.Growth.Sizes[2].Rows})

	r.Print(out)
	require.Contains(t, out.String(), "muster select / bare statement")
	path := filepath.Join(t.TempDir(), "selection.json")
	require.NoError(t, r.Save(path))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var back Report
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, r.Sides, back.Sides)

	_, err = s.Selection(t.Context(), 4000, 3900, false)
	require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(err), "more targets than anybody can choose")
}

func TestPreview(t *testing.T) {
	s, _ := newSuite(t)
	r, err := s.Preview(t.Context(), 4000, 800)
	require.NoError(t, err)
	requireSides(t, r, 4000, "bare count", "muster preview", "muster estimate")
}

func TestDispatchWithoutTemporal(t *testing.T) {
	s, _ := newSuite(t)
	t.Setenv("MUSTER_TEMPORAL_DEV", "")
	t.Setenv("PATH", t.TempDir())
	r, err := s.Dispatch(t.Context(), DispatchOptions{Customers: 6000, Messages: 5500, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	requireSides(t, r, 5500, "bare loop", "muster engine")
	require.Contains(t, r.Notes[0], "left out")
}

func TestDispatchReal(t *testing.T) {
	if os.Getenv("MUSTER_TEMPORAL_DEV") == "" {
		t.Skip("MUSTER_TEMPORAL_DEV does not name the embedded Temporal server")
	}
	s, _ := newSuite(t)
	quiet := slog.New(slog.DiscardHandler)
	r, err := s.Dispatch(t.Context(), DispatchOptions{
		Customers: 1000, Messages: 900, Log: quiet,
		Real: RealOptions{
			Binds: 1, Window: 50,
			StartSMSC: func(address, journal string) (func(), error) {
				server, err := smsc.Start(t.Context(), smsc.Options{Addr: address, Journal: journal, Log: quiet})
				if err != nil {
					return nil, err
				}
				return server.Stop, nil
			},
			Sweeps: func(st *store.Store, _ client.Client, _ *activities.Activities) []worker.Sweep {
				return []worker.Sweep{{Name: "parked receipts", Every: 100 * time.Millisecond, Do: func(ctx context.Context) error {
					_, err := st.SweepReceipts(ctx, 1000)
					return err
				}}}
			},
		},
	})
	require.NoError(t, err)
	requireSides(t, r, 900, "bare loop", "muster engine", "muster real")
}

func TestLedger(t *testing.T) {
	s, _ := newSuite(t)
	r, err := s.Ledger(t.Context(), 399, 4)
	require.NoError(t, err)
	require.Len(t, r.Sides, 4)
	for _, side := range r.Sides {
		require.Len(t, side.Runs, 2)
		for _, run := range side.Runs {
			require.EqualValues(t, 400, run.Items, "a reservation goes with its capture")
		}
	}
	require.Len(t, r.Ratios, 2)
	require.Equal(t, []string{"muster, 1", "bare, 1 row"}, []string{r.Ratios[0].Of, r.Ratios[0].To})
	require.Equal(t, []string{"muster, 100", "bare, 100 rows"}, []string{r.Ratios[1].Of, r.Ratios[1].To})
}

// A result that is not what it must be fails the bench, however fast it came.
func TestWrongResults(t *testing.T) {
	s, _ := newSuite(t)
	ctx := t.Context()
	st, err := s.customers(ctx, 100)
	require.NoError(t, err)
	defer st.Close()
	d := &dispatch{suite: s, st: st, o: DispatchOptions{Customers: 100, Messages: 2}}
	d.people, err = ensurePeople(ctx, st)
	require.NoError(t, err)
	id, err := d.target(ctx, d.activities(&acceptor{}))
	require.NoError(t, err)

	for name, accepted := range map[string][]string{"twice": {"a", "b", "a"}, "missing": {"a"}, "not in the database": {"a", "b"}} {
		t.Run(name, func(t *testing.T) {
			_, err := d.account(ctx, id, accepted)
			require.Equal(t, campaign.CodeAssertionMismatch, campaign.CodeOf(err))
		})
	}
	t.Run("broken invariant", func(t *testing.T) {
		_, err := st.Pool().Exec(ctx, `INSERT INTO contact (campaign_id, id, customer_id, not_after, seq, wave, shard, channel, tier, state)
			SELECT campaign_id, gen_random_uuid(), customer_id, now(), 1, 1, 0, 'sms', tier, 'sent' FROM campaign_target WHERE campaign_id = $1 LIMIT 1`, id)
		require.NoError(t, err)
		err = endCampaign(ctx, st, id)
		require.Equal(t, campaign.CodeAssertionMismatch, campaign.CodeOf(err))
		require.ErrorContains(t, err, "D2")
	})
}

func TestOpenWantsADurableServer(t *testing.T) {
	ctx := t.Context()
	given := pgtest.NewDatabase(t)
	conn, err := pgx.Connect(ctx, given)
	require.NoError(t, err)
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database()); END $$`)
	require.NoError(t, err)
	dir := t.TempDir()
	_, err = Open(ctx, dir, given, nil)
	require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(err))
	require.ErrorContains(t, err, "synchronous_commit off")
	folder, err := embedded.Open(dir)
	require.NoError(t, err, "the folder is free again")
	require.NoError(t, folder.Close())
}

func TestMeter(t *testing.T) {
	s, _ := newSuite(t)
	if usage(s.Engines.roles()) == nil {
		t.Skip("this system does not tell what processes use")
	}
	roles := s.Engines.roles()
	require.Equal(t, []string{"muster", "PostgreSQL"}, []string{roles[0].name, roles[1].name})
	m := startMeter(roles)
	before := usage(roles)
	for usage(roles)["PostgreSQL"].cpu < before["PostgreSQL"].cpu+.05 {
		_, err := s.Engines.admin.Exec(t.Context(), `SELECT sum(i) FROM generate_series(1, 200000) i`)
		require.NoError(t, err)
	}
	for usage(roles)["muster"].cpu < before["muster"].cpu+.01 {
		_ = strings.Repeat("work", 1<<16)
	}
	cpu, peak := m.end()
	require.GreaterOrEqual(t, cpu["PostgreSQL"], .049)
	require.GreaterOrEqual(t, cpu["muster"], .0099)
	require.Positive(t, peak["PostgreSQL"])
	require.Positive(t, peak["muster"])
}
