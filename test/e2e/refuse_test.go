package e2e_test

import (
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestASecondInstanceOnTheSameFolderIsRefused, and leaves the first one alone.
func TestASecondInstanceOnTheSameFolderIsRefused(t *testing.T) {
	t.Parallel()
	i := newInstance(t, nil)
	i.start(t)
	output, code := run(t, append(i.env, "MUSTER_LISTEN=127.0.0.1:"+freePort(t)), "up")
	require.Equal(t, 1, code)
	require.Contains(t, output, "is using the folder "+i.dir)
	require.Contains(t, output, "stop it or choose another folder with --data-dir")
	requirePlain(t, output)
	status, _ := get(i.API + "/readyz")
	require.Equal(t, http.StatusOK, status)
	i.stop(t)
	require.NoFileExists(t, filepath.Join(i.dir, "instance.json"))
}

func TestAPortInUseIsFoundOutBeforeAnythingIsStarted(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	i := newInstance(t, nil)
	output, code := run(t, append(i.env, "MUSTER_LISTEN="+taken.Addr().String()), "up")
	require.Equal(t, 1, code)
	require.Contains(t, output, taken.Addr().String()+" is in use by another program")
	require.Contains(t, output, "--listen")
	requirePlain(t, output)
	require.Empty(t, i.leftovers(t))
	clusters, err := filepath.Glob(filepath.Join(i.dir, "pg*"))
	require.NoError(t, err)
	require.Empty(t, clusters, "PostgreSQL was started")
}

func TestAPortOfAnEngineInUseIsToldAndNothingIsLeftRunning(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	require.NoError(t, err)
	i := newInstance(t, nil)
	output, code := run(t, append(append(i.env, i.ports...), "MUSTER_TEMPORAL_PORT="+port), "up")
	require.Equal(t, 1, code)
	require.Contains(t, output, "port "+port+" is in use by another program")
	require.Contains(t, output, "--temporal-port")
	requirePlain(t, output)
	require.Empty(t, i.leftovers(t), "PostgreSQL was left running")
}

// TestWithoutAnInstanceCommandsSayHowToGoOn covers what a newcomer may type first.
func TestWithoutAnInstanceCommandsSayHowToGoOn(t *testing.T) {
	t.Parallel()
	env := environment("MUSTER_DATA_DIR=" + t.TempDir())
	for _, command := range []string{"campaign list", "replay 1", "demo", "import generated --rows 10", "migrate"} {
		output, code := run(t, env, strings.Fields(command)...)
		require.Equal(t, 1, code, command)
		require.Contains(t, output, "start one with 'muster up'", command)
		requirePlain(t, output)
	}
}

// requirePlain makes sure that what went wrong is told as a sentence and not as a dump.
func requirePlain(t *testing.T, output string) {
	t.Helper()
	require.NotContains(t, output, "goroutine ")
	lines := strings.Split(strings.TrimSpace(output), "\n")
	require.True(t, strings.HasPrefix(lines[len(lines)-1], "muster: "), output)
}
