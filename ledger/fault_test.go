package ledger

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/embedded"
	"github.com/musterhq/muster/internal/pgtest"
	"github.com/musterhq/muster/store"
)

const (
	writerVariable = "MUSTER_TEST_LEDGER_WRITER" // makes the test binary a writer: its number
	urlVariable    = "MUSTER_TEST_LEDGER_URL"
	budgetVariable = "MUSTER_TEST_LEDGER_CAMPAIGN"
	logVariable    = "MUSTER_TEST_LEDGER_LOG"

	// faultsVariable is how often PostgreSQL is killed; the work grows with it.
	faultsVariable = "MUSTER_TEST_LEDGER_FAULTS"

	processes          = 4
	writersPerProcess  = 16
	stepAmount         = 7 // minor units
	stepsPerFault      = 400
	writerPatience     = 90 * time.Second
	pauseBetweenErrors = 20 * time.Millisecond
)

// TestMain lets the test binary play a process that writes to the ledger, to be killed.
func TestMain(m *testing.M) {
	if os.Getenv(writerVariable) == "" {
		pgtest.Main(m)
	}
	if err := write(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "writer:", err)
		os.Exit(1)
	}
}

// write reserves and captures until the budget is used up. What a writer does not know
// the end of it asks again under the same key, also after it was killed itself.
func write(ctx context.Context) error {
	pool, err := pgxpool.New(ctx, os.Getenv(urlVariable)+"&pool_max_conns="+strconv.Itoa(writersPerProcess))
	if err != nil {
		return err
	}
	defer pool.Close()
	acknowledged, err := os.ReadFile(os.Getenv(logVariable))
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	next := make([]int, writersPerProcess)
	for _, key := range strings.Fields(string(acknowledged)) {
		var process, writer, step int
		if _, err := fmt.Sscanf(key, "%d/%d/%d", &process, &writer, &step); err == nil && writer < writersPerProcess {
			next[writer] = max(next[writer], step+1)
		}
	}
	log, err := os.OpenFile(os.Getenv(logVariable), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	l, id := New(pool), os.Getenv(budgetVariable)
	ended := make(chan error, writersPerProcess)
	for w := range writersPerProcess {
		go func() {
			for step := next[w]; ; step++ {
				key := fmt.Sprintf("%s/%d/%d", os.Getenv(writerVariable), w, step)
				err := insist(func() error { _, err := l.Reserve(ctx, "r"+key, id, "calls", cny(stepAmount)); return err })
				if campaign.CodeOf(err) == campaign.CodeBudgetInsufficient {
					ended <- nil
					return
				}
				if err == nil {
					err = insist(func() error { _, err := l.Capture(ctx, "c"+key, id, "calls", cny(stepAmount)); return err })
				}
				if err == nil {
					if _, err = log.WriteString(key + "\n"); err == nil {
						err = log.Sync()
					}
				}
				if err != nil {
					ended <- err
					return
				}
			}
		}()
	}
	for range writersPerProcess {
		if err := <-ended; err != nil {
			return err
		}
	}
	return nil
}

// insist calls again as long as the end of the call is not known.
func insist(call func() error) error {
	patience := time.After(writerPatience)
	for {
		err := call()
		if campaign.CodeOf(err) != campaign.CodeInternal {
			return err
		}
		select {
		case <-patience:
			return err
		case <-time.After(pauseBetweenErrors):
		}
	}
}

// writerProcess is a process that is started again as often as it is killed.
type writerProcess struct {
	mu      sync.Mutex
	cmd     *exec.Cmd
	killed  bool
	log     string
	ended   chan error
	environ []string
}

func (p *writerProcess) run() {
	for {
		p.mu.Lock()
		p.killed = false
		p.cmd = exec.Command(os.Args[0]) // this binary; ends by itself or is killed
		p.cmd.Env, p.cmd.Stderr = append(os.Environ(), p.environ...), os.Stderr
		err := p.cmd.Start()
		p.mu.Unlock()
		if err == nil {
			err = p.cmd.Wait()
		}
		p.mu.Lock()
		again := p.killed && err != nil
		p.mu.Unlock()
		if !again {
			p.ended <- err
			return
		}
	}
}

func (p *writerProcess) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.killed = true
	_ = p.cmd.Process.Kill()
}

func (p *writerProcess) acknowledged(t *testing.T) []string {
	t.Helper()
	file, err := os.Open(p.log)
	if os.IsNotExist(err) {
		return nil
	}
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	var keys []string
	for lines := bufio.NewScanner(file); lines.Scan(); {
		keys = append(keys, lines.Text())
	}
	return keys
}

// 64 writers meet at the end of a budget while PostgreSQL and they themselves are killed
// in the middle: exactly what there was is spent, and whatever was acknowledged is there.
func TestNothingIsLostOrOverspentByKilling(t *testing.T) {
	faults := 3
	if given := os.Getenv(faultsVariable); given != "" {
		var err error
		faults, err = strconv.Atoi(given)
		require.NoError(t, err)
	}
	ctx := t.Context()
	dir, err := os.MkdirTemp("", "muster-ledger-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o711)) // PostgreSQL's user must get in when root runs the tests
	folder, err := embedded.Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { _ = folder.Close() })
	options := embedded.PostgresOptions{Settings: map[string]string{"shared_buffers": "64MB"}}
	server, err := folder.StartPostgres(ctx, options)
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Stop(context.Background()) })
	_, port, _ := strings.Cut(server.Address(), ":")
	options.Port, err = strconv.Atoi(port)
	require.NoError(t, err)
	require.NoError(t, server.EnsureDatabase(ctx, "muster"))
	url := server.URL("muster")
	st, err := store.Open(ctx, url, store.AsOwner())
	require.NoError(t, err)
	_, err = st.Migrate(ctx)
	st.Close()
	require.NoError(t, err)
	pool, err := pgxpool.New(ctx, url)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	l := New(pool)
	var durable string
	require.NoError(t, pool.QueryRow(ctx, "SELECT current_setting('fsync') || current_setting('synchronous_commit')").Scan(&durable))
	require.Equal(t, "onon", durable)

	steps := faults * stepsPerFault
	id := newCampaign(t, l, "operator/north")
	fund(t, l, id, "calls", int64(steps*stepAmount+stepAmount-1))

	all := make([]*writerProcess, processes)
	for i := range all {
		p := &writerProcess{log: filepath.Join(t.TempDir(), "acknowledged"), ended: make(chan error, 1)}
		p.environ = []string{writerVariable + "=" + strconv.Itoa(i), urlVariable + "=" + url, budgetVariable + "=" + id, logVariable + "=" + p.log}
		all[i] = p
		go p.run()
	}
	t.Cleanup(func() {
		for _, p := range all {
			p.mu.Lock()
			p.killed = false
			_ = p.cmd.Process.Kill()
			p.mu.Unlock()
		}
	})
	progress := func() (n int) {
		for _, p := range all {
			n += len(p.acknowledged(t))
		}
		return n
	}
	// Faults come by progress and not by the clock, so that a slow machine has them all.
	for fault := range faults {
		for _, what := range []string{"writer", "postgres", "writer"} {
			due := (3*fault + map[string]int{"writer": 1, "postgres": 2}[what]) * steps / (3*faults + 3)
			require.Eventually(t, func() bool { return progress() >= due }, 4*writerPatience, pauseBetweenErrors, "%d of %d", progress(), steps)
			if what == "writer" {
				all[rand.IntN(processes)].kill()
				continue
			}
			postmaster, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("pg%d", server.Major()), "postmaster.pid"))
			require.NoError(t, err)
			first, _, _ := strings.Cut(string(postmaster), "\n")
			pid, err := strconv.Atoi(first)
			require.NoError(t, err)
			require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
			require.Error(t, <-server.Done())
			server, err = folder.StartPostgres(ctx, options)
			require.NoError(t, err)
		}
	}
	for _, p := range all {
		require.NoError(t, <-p.ended)
	}

	pool.Reset()
	balances, err := l.Balances(ctx, id)
	require.NoError(t, err)
	require.Equal(t, []LineBalance{{
		Line: "calls", Currency: "CNY", Allocated: int64(steps*stepAmount + stepAmount - 1), Captured: int64(steps * stepAmount), Available: stepAmount - 1,
	}}, balances, "all that there was and no more")
	var acknowledged []string
	for _, p := range all {
		for _, key := range p.acknowledged(t) {
			acknowledged = append(acknowledged, "c"+key)
		}
	}
	require.GreaterOrEqual(t, len(acknowledged), steps-faults*3*writersPerProcess)
	var missing int
	require.NoError(t, pool.QueryRow(ctx, `SELECT count(*) FROM unnest($1::text[]) k WHERE NOT EXISTS
		(SELECT 1 FROM ledger_journal j WHERE j.tenant = 'operator' AND j.key = k AND j.kind = 'capture')`, acknowledged).Scan(&missing))
	require.Zero(t, missing, "acknowledged and not in the journal")
	requireSound(t, l)
	t.Logf("%d steps, %d acknowledged, PostgreSQL killed %d times and writers %d times", steps, len(acknowledged), faults, 2*faults)
}
