// Package e2e_test runs whole campaigns on the real programs: muster, the engines that
// it starts and its simulators, each a process that can be killed. Nothing in it knows
// how they work inside; rows are read to count, never to steer.
package e2e_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/internal/config"
	"github.com/musterhq/muster/store"
)

// patience bounds every wait for one thing. Nothing is measured by it: a machine that
// builds something else at the same time must pass.
const patience = 3 * time.Minute

// binary holds the programs under test.
var binary struct{ muster, temporal string }

func TestMain(m *testing.M) {
	for _, b := range []struct {
		path                    *string
		variable, name, command string
	}{
		{&binary.muster, "MUSTER_BIN", "muster", "make build"},
		{&binary.temporal, "MUSTER_TEMPORAL_DEV", "temporal-dev", "make build-devserver"},
	} {
		*b.path = os.Getenv(b.variable)
		if *b.path == "" {
			*b.path = filepath.Join("..", "..", "bin", b.name)
		}
		var err error
		if *b.path, err = filepath.Abs(*b.path); err == nil {
			_, err = os.Stat(*b.path)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "the program under test is missing: run '%s', or name it in %s (%v)\n", b.command, b.variable, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// environment is this process's without any setting of Muster's but those that say
// where PostgreSQL and Temporal are, and what is added.
func environment(added ...string) []string {
	var env []string
	for _, setting := range os.Environ() {
		if !strings.HasPrefix(setting, "MUSTER_") || strings.HasPrefix(setting, "MUSTER_PG_BIN=") {
			env = append(env, setting)
		}
	}
	return append(append(env, "MUSTER_TEMPORAL_DEV="+binary.temporal), added...)
}

// instance is a `muster up` on a data folder and ports of its own, which it keeps from
// one start to the next.
type instance struct {
	dir   string
	args  []string
	env   []string
	up    *program
	ports []string
	config.Instance
}

// newInstance prepares an instance that is started with these arguments.
func newInstance(t *testing.T, env []string, args ...string) *instance {
	t.Helper()
	// PostgreSQL runs as another user when root runs the tests, so t.TempDir, which only
	// its owner may enter, will not do.
	dir, err := os.MkdirTemp("", "muster-e2e-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o711))
	i := &instance{dir: dir, args: args}
	i.ports = []string{"MUSTER_LISTEN=127.0.0.1:" + freePort(t)}
	for _, name := range []string{"MUSTER_TEMPORAL_PORT", "MUSTER_TEMPORAL_UI_PORT", "MUSTER_POSTGRES_PORT"} {
		i.ports = append(i.ports, name+"="+freePort(t))
	}
	i.env = environment(append(env, "MUSTER_DATA_DIR="+dir)...)
	t.Cleanup(func() {
		if t.Failed() {
			i.report(t)
			kill(t, i.leftovers(t))
		}
	})
	return i
}

// freePort finds a port below the range from which the system takes ports by itself:
// nobody gets it between two starts by chance.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(12000 + rand.IntN(18000))
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err == nil {
			require.NoError(t, l.Close())
			return port
		}
	}
	require.FailNow(t, "no free port was found")
	return ""
}

// start starts the instance and waits until it is ready.
func (i *instance) start(t *testing.T) {
	t.Helper()
	i.up = launch(t, "muster up", filepath.Join(i.dir, "terminal.log"), append(i.env, i.ports...), append([]string{"up"}, i.args...)...)
	for deadline := time.Now().Add(patience); ; {
		// A note that a killed instance left names another process.
		if found, err := config.LoadInstance(i.dir); err == nil && found.PID == i.up.pid() {
			i.Instance = found
			if status, _ := get(i.API + "/readyz"); status == http.StatusOK {
				return
			}
		}
		select {
		case <-i.up.exited:
			require.FailNow(t, "muster up ended before it was ready", tail(i.up.output))
		case <-time.After(50 * time.Millisecond):
		}
		require.True(t, time.Now().Before(deadline), "muster up is not ready:\n%s", tail(i.up.output))
	}
}

// processes lists everything that runs for the instance.
func (i *instance) processes(t *testing.T) []process { return tree(t, i.up.pid()) }

// child finds the one process that the instance itself started with this in its command.
func (i *instance) child(t *testing.T, command string) process {
	t.Helper()
	var found []process
	for _, p := range i.processes(t) {
		if p.parent == i.up.pid() && strings.Contains(p.command, command) {
			found = append(found, p)
		}
	}
	require.Len(t, found, 1, "processes with %q", command)
	return found[0]
}

// stop does what Ctrl-C does, and makes sure that all of the instance is gone.
func (i *instance) stop(t *testing.T) {
	t.Helper()
	all := i.processes(t)
	require.Equal(t, 0, i.up.interrupt(t), "exit code after Ctrl-C:\n%s", tail(i.up.output))
	awaitGone(t, all)
	require.Empty(t, i.leftovers(t))
}

// leftovers lists the processes that work on the data folder, whoever started them.
func (i *instance) leftovers(t *testing.T) []process {
	t.Helper()
	var found []process
	for _, p := range processes(t) {
		if !p.gone && strings.Contains(p.command, i.dir) {
			found = append(found, p)
		}
	}
	return found
}

// command runs a command of the program against the instance.
func (i *instance) command(t *testing.T, args ...string) string {
	t.Helper()
	output, code := run(t, i.env, args...)
	require.Equal(t, 0, code, "muster %s:\n%s", strings.Join(args, " "), output)
	return output
}

// open connects to the instance's database as its owner.
func (i *instance) open(t *testing.T) *store.Store {
	t.Helper()
	st, err := store.Open(t.Context(), i.DatabaseURL, store.AsOwner())
	require.NoError(t, err)
	t.Cleanup(st.Close)
	return st
}

// report shows what the processes said.
func (i *instance) report(t *testing.T) {
	for _, name := range []string{"terminal.log", "muster.log", "temporal.log", "postgres.log", "smsc.log", "callcentre.log"} {
		if text := tail(filepath.Join(i.dir, name)); text != "" {
			t.Logf("--- the end of %s\n%s", name, text)
		}
	}
}

// get fetches a page; the status is 0 when there is no answer.
func get(url string) (status int, body string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err.Error()
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err.Error()
	}
	return answer.StatusCode, string(text)
}
