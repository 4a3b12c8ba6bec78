package main

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/embedded"
	"github.com/musterhq/muster/internal/pgtest"
)

// TestEveryCommandExplainsItself asks each command for help, and for what it would run:
// a Run method of a shape that the parser cannot call is found here.
func TestEveryCommandExplainsItself(t *testing.T) {
	var c cli
	var out strings.Builder
	parser, err := kong.New(&c, kong.Name("muster"), kong.Writers(&out, &out), kong.Exit(func(int) {}))
	require.NoError(t, err)
	commands := 0
	for _, leaf := range parser.Model.Leaves(true) {
		commands++
		require.NotEmpty(t, leaf.Help, leaf.FullPath())
		run := leaf.Target.Addr().MethodByName("Run")
		require.True(t, run.IsValid(), "%s does nothing", leaf.FullPath())
		require.Equal(t, 1, run.Type().NumOut(), leaf.FullPath())
		require.Equal(t, "error", run.Type().Out(0).Name(), leaf.FullPath())
		for i := range run.Type().NumIn() {
			require.Equal(t, "*main.globals", run.Type().In(i).String(), leaf.FullPath())
		}
	}
	require.GreaterOrEqual(t, commands, 15)
}

func TestVersionRuns(t *testing.T) {
	require.Zero(t, run([]string{"version", "--data-dir", t.TempDir()}))
}

func TestADemoStaysOnThisMachine(t *testing.T) {
	for address, stays := range map[string]bool{
		"127.0.0.1:8480": true, "localhost:0": true, "[::1]:8480": true, "0.0.0.0:8480": false, ":8480": false, "[::]:8480": false,
		"192.0.2.1:8480": false, "nonsense": false,
	} {
		require.Equal(t, stays, loopback(address), address)
	}
	require.Equal(t, 1, run([]string{"up", "--demo", "--listen", ":0", "--data-dir", t.TempDir()}))
}

// TestAnUnreachableDatabaseIsCalledThat, not a Temporal that could not use it, and its
// password is not told.
func TestAnUnreachableDatabaseIsCalledThat(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close())
	self, err := os.Executable()
	require.NoError(t, err)
	t.Setenv("MUSTER_TEMPORAL_DEV", self) // must not be started
	var c upCommand
	c.DatabaseURL = "postgres://somebody:secret@" + address + "/muster"
	folder, err := embedded.Open(t.TempDir())
	require.NoError(t, err)
	defer folder.Close()
	_, err = c.startEngines(&globals{Context: t.Context()}, folder, &stack{}, make(chan error))
	var problem *embedded.Problem
	require.ErrorAs(t, err, &problem)
	require.Equal(t, embedded.CodePostgresUnreachable, problem.Code)
	require.Contains(t, plain(err), "PostgreSQL does not answer at "+address)
	require.NotContains(t, plain(err), "secret")
	require.NotContains(t, plain(err), "Temporal")
}

func TestAStoppedDatabaseIsToldFromAnUnknownOne(t *testing.T) {
	url := pgtest.NewDatabase(t)
	require.NoError(t, reachDatabase(t.Context(), url))
	err := reachDatabase(t.Context(), url+"&dbname=missing")
	require.ErrorContains(t, err, "PostgreSQL refuses us")
	require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(reachDatabase(t.Context(), "nonsense")))
}

// TestATakenPortOfTemporalIsFoundOutBeforePostgreSQLIsStarted: the folder stays empty.
func TestATakenPortOfTemporalIsFoundOutBeforePostgreSQLIsStarted(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	self, err := os.Executable()
	require.NoError(t, err)
	t.Setenv("MUSTER_TEMPORAL_DEV", self)
	// PostgreSQL's user must be able to enter it, which t.TempDir does not allow.
	dir, err := os.MkdirTemp("", "muster-cmd-")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	require.NoError(t, os.Chmod(dir, 0o711))
	folder, err := embedded.Open(dir)
	require.NoError(t, err)
	defer folder.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	for _, c := range []upCommand{{TemporalPort: port}, {TemporalUIPort: port}, {PostgresPort: port}} {
		_, err = c.startEngines(&globals{Context: t.Context()}, folder, &stack{}, make(chan error))
		var problem *embedded.Problem
		require.ErrorAs(t, err, &problem)
		require.Equal(t, embedded.CodePortInUse, problem.Code, err.Error())
		clusters, err := filepath.Glob(filepath.Join(dir, "pg*"))
		require.NoError(t, err)
		require.Empty(t, clusters)
	}
}

func TestACampaignThatIsOverIsNotCalledRunning(t *testing.T) {
	for want, at := range map[string]struct {
		stage campaign.Stage
		hold  campaign.Hold
	}{
		"running":             {campaign.StageRunning, campaign.HoldNone},
		"running, paused":     {campaign.StageRunning, campaign.HoldPaused},
		"settlement, stopped": {campaign.StageSettlement, campaign.HoldStopped},
		"approval":            {campaign.StageApproval, campaign.HoldNone},
		"closed":              {campaign.StageClosed, campaign.HoldNone},
		"draft":               {campaign.StageDraft, ""},
	} {
		require.Equal(t, want, standing(at.stage, at.hold))
	}
	require.Equal(t, "closed", standing(campaign.StageClosed, campaign.HoldStopped))
}

func TestRefusalsAreWatchedWithTheirCodes(t *testing.T) {
	for event, code := range map[string]campaign.Code{"access.denied": campaign.CodeSelfApproval, "command.refused": campaign.CodeStateConflict} {
		var out strings.Builder
		printEvent(&out, client.HistoryEvent{Event: event, Actor: "Paula", Data: json.RawMessage(`{"code":"` + string(code) + `"}`)})
		require.Contains(t, out.String(), "Paula  REFUSED ("+string(code)+")")
	}
	var out strings.Builder
	printEvent(&out, client.HistoryEvent{Event: "campaign.problem", Allowed: true, Data: json.RawMessage(`{"problem":"no targets"}`)})
	require.Contains(t, out.String(), "muster: no targets")
}
