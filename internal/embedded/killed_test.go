package embedded

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	helperFolder   = "MUSTER_TEST_HOLD_FOLDER"
	helperTemporal = "MUSTER_TEST_PLAY_TEMPORAL"
)

// TestMain lets the test binary play two other programs: a muster to be
// killed, and a temporal-dev that behaves in a chosen way.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(helperTemporal) != "":
		playTemporal(os.Getenv(helperTemporal))
	case os.Getenv(helperFolder) != "":
		holdFolder(os.Getenv(helperFolder))
	default:
		os.Exit(m.Run())
	}
}

// holdFolder starts what can be started, says so and waits to be killed.
func holdFolder(dir string) {
	ctx := context.Background()
	folder, err := Open(dir)
	exitOn(err)
	server, err := folder.StartPostgres(ctx, PostgresOptions{})
	exitOn(err)
	exitOn(server.EnsureDatabase(ctx, "muster"))
	temporalPID := 0
	if binary := os.Getenv(temporalVariable); binary != "" {
		exitOn(os.Setenv(helperTemporal, "well"))
		temporal, err := folder.StartTemporal(ctx, TemporalOptions{Binary: binary, DatabaseURL: server.URL("postgres"), Namespace: "test", Retention: time.Hour})
		exitOn(err)
		temporalPID = temporal.child.cmd.Process.Pid
	}
	fmt.Println(server.child.cmd.Process.Pid, temporalPID)
	select {}
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func TestEverythingIsFoundAgainAfterMusterIsKilled(t *testing.T) {
	ctx := testContext(t)
	dir := testDir(t)
	self, err := os.Executable()
	require.NoError(t, err)
	holder := exec.CommandContext(ctx, self)
	holder.Env = append(os.Environ(), helperFolder+"="+dir, temporalVariable+"="+self)
	holder.Stderr = os.Stderr
	output, err := holder.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, holder.Start())
	line, err := bufio.NewReader(output).ReadString('\n')
	require.NoError(t, err)
	var postgresPID, temporalPID int
	_, err = fmt.Sscan(line, &postgresPID, &temporalPID)
	require.NoError(t, err)

	_, err = Open(dir)
	requireProblem(t, err, CodeFolderInUse)
	require.NoError(t, holder.Process.Kill())
	_ = holder.Wait()

	for name, pid := range map[string]int{"PostgreSQL": postgresPID, "Temporal": temporalPID} {
		if name == "PostgreSQL" && runtime.GOOS != "linux" {
			continue // stopped by the next start
		}
		require.Eventually(t, func() bool {
			_, alive := identity(pid)
			return !alive
		}, 10*time.Second, pollInterval, name+" follows the process that started it")
	}

	folder := openFolder(t, dir)
	server := startPostgres(t, folder)
	require.Equal(t, "muster", query[string](t, server, `SELECT current_database()`))
}

// playTemporal is a stand-in for temporal-dev.
func playTemporal(how string) {
	switch how {
	case "fails":
		exitOn(fmt.Errorf("temporal-dev: no way"))
	case "silent":
		fmt.Println("not what was agreed")
	default:
		port := os.Args[indexOf(os.Args, "--port")+1]
		fmt.Printf(`{"ready":true,"address":"127.0.0.1:%s"}`+"\n", port)
	}
	_, _ = bufio.NewReader(os.Stdin).ReadString(0)
}

func indexOf(args []string, name string) int {
	for i, arg := range args {
		if arg == name {
			return i
		}
	}
	panic(name + " is missing in " + strings.Join(args, " "))
}
