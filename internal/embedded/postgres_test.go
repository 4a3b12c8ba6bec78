package embedded

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// testDir is a folder that PostgreSQL's user may enter also when root runs the tests.
func testDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "muster-embedded-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

func openFolder(t *testing.T, dir string) *Folder {
	t.Helper()
	folder, err := Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { _ = folder.Close() })
	return folder
}

func startPostgres(t *testing.T, folder *Folder) *Postgres {
	t.Helper()
	server, err := folder.StartPostgres(testContext(t), PostgresOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Stop(context.Background()) })
	return server
}

func startedWithDatabase(t *testing.T, folder *Folder) *Postgres {
	t.Helper()
	server := startPostgres(t, folder)
	require.NoError(t, server.EnsureDatabase(testContext(t), "muster"))
	return server
}

func execute(t *testing.T, server *Postgres, statement string) {
	t.Helper()
	ctx := testContext(t)
	conn, err := pgx.Connect(ctx, server.URL("muster"))
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(ctx)) }()
	_, err = conn.Exec(ctx, statement)
	require.NoError(t, err)
}

func query[T any](t *testing.T, server *Postgres, statement string) T {
	t.Helper()
	ctx := testContext(t)
	conn, err := pgx.Connect(ctx, server.URL("muster"))
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(ctx)) }()
	var value T
	require.NoError(t, conn.QueryRow(ctx, statement).Scan(&value))
	return value
}

func requireProblem(t *testing.T, err error, code string) *Problem {
	t.Helper()
	var problem *Problem
	require.ErrorAs(t, err, &problem)
	require.Equal(t, code, problem.Code, problem.Error())
	require.NotEmpty(t, problem.WayOut)
	return problem
}

func TestPostgresKeepsDataAndPortAcrossStarts(t *testing.T) {
	ctx := testContext(t)
	folder := openFolder(t, testDir(t))
	first := startPostgres(t, folder)
	require.NoError(t, first.EnsureDatabase(ctx, "muster"))
	require.NoError(t, first.EnsureDatabase(ctx, "muster"), "a second time is no error")
	execute(t, first, `CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)`)
	require.NoError(t, first.Stop(ctx))

	second := startPostgres(t, folder)
	require.Equal(t, first.Address(), second.Address())
	require.Equal(t, 42, query[int](t, second, `SELECT n FROM kept`))
}

func TestPostgresIsDurableAndClosedToOthers(t *testing.T) {
	ctx := testContext(t)
	folder := openFolder(t, testDir(t))
	server := startPostgres(t, folder)
	require.NoError(t, server.EnsureDatabase(ctx, "muster"))
	for name, want := range map[string]string{
		"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "data_checksums": "on",
		"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "200",
		"password_encryption": "scram-sha-256", "server_encoding": "UTF8", "TimeZone": "UTC",
	} {
		require.Equal(t, want, query[string](t, server, "SELECT current_setting('"+name+"')"), name)
	}

	_, err := pgx.Connect(ctx, "postgres://muster:wrong@"+server.Address()+"/postgres?sslmode=disable")
	require.ErrorContains(t, err, "28P01")

	info, err := os.Stat(filepath.Join(folder.Path(), passwordFile))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestPostgresLogHoldsNoValues(t *testing.T) {
	ctx := testContext(t)
	folder := openFolder(t, testDir(t))
	server := startPostgres(t, folder)
	require.NoError(t, server.EnsureDatabase(ctx, "muster"))
	execute(t, server, `CREATE TABLE person (phone text PRIMARY KEY); INSERT INTO person VALUES ('13800138000')`)
	conn, err := pgx.Connect(ctx, server.URL("muster"))
	require.NoError(t, err)
	_, err = conn.Exec(ctx, `INSERT INTO person VALUES ('13800138000')`)
	require.ErrorContains(t, err, "23505")
	require.NoError(t, conn.Close(ctx))
	require.NoError(t, server.Stop(ctx))

	log, err := os.ReadFile(filepath.Join(folder.Path(), postgresLogFile))
	require.NoError(t, err)
	require.Contains(t, string(log), "duplicate key value")
	require.NotContains(t, string(log), "13800138000")
}

func TestSecondInstanceOnOneFolderIsRefused(t *testing.T) {
	dir := testDir(t)
	folder := openFolder(t, dir)
	_, err := Open(dir)
	problem := requireProblem(t, err, CodeFolderInUse)
	require.Contains(t, problem.Message, "pid "+strconv.Itoa(os.Getpid()))

	require.NoError(t, folder.Close())
	openFolder(t, dir)
}

func TestOtherMajorVersionIsRefusedAndNothingIsTouched(t *testing.T) {
	ctx := testContext(t)
	folder := openFolder(t, testDir(t))
	server := startPostgres(t, folder)
	binDir := filepath.Dir(server.child.cmd.Path)
	major := server.Major()
	require.NoError(t, server.Stop(ctx))

	// The same data as they would look had a version to come written them.
	other := filepath.Join(folder.Path(), "pg99")
	require.NoError(t, os.Rename(filepath.Join(folder.Path(), "pg"+strconv.Itoa(major)), other))
	require.NoError(t, os.WriteFile(filepath.Join(other, "PG_VERSION"), []byte("99\n"), 0o600))
	before := listing(t, folder.Path())

	for _, opts := range []PostgresOptions{{}, {BinDir: binDir}} {
		_, err := folder.StartPostgres(ctx, opts)
		problem := requireProblem(t, err, CodePostgresVersion)
		require.Contains(t, problem.Message, "PostgreSQL 99")
		require.Contains(t, problem.WayOut, "pg_upgrade")
		require.Equal(t, before, listing(t, folder.Path()))
	}
}

func listing(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		names = append(names, path+" "+info.Mode().String()+" "+strconv.FormatInt(info.Size(), 10))
		return err
	}))
	return names
}

func TestKilledPostmasterIsReportedAndRecovers(t *testing.T) {
	ctx := testContext(t)
	folder := openFolder(t, testDir(t))
	server := startPostgres(t, folder)
	require.NoError(t, server.EnsureDatabase(ctx, "muster"))
	execute(t, server, `CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n`)
	require.NoError(t, server.child.cmd.Process.Kill())
	select {
	case err := <-server.Done():
		require.ErrorContains(t, err, "PostgreSQL")
	case <-ctx.Done():
		t.Fatal("the death of PostgreSQL was not reported")
	}

	again := startPostgres(t, folder)
	require.Equal(t, 1000, query[int](t, again, `SELECT count(*) FROM kept`))
}

func TestStoppingIsNotReportedAsDeath(t *testing.T) {
	ctx := testContext(t)
	folder := openFolder(t, testDir(t))
	server := startPostgres(t, folder)
	require.NoError(t, server.Stop(ctx))
	require.NoError(t, server.Stop(ctx), "a second time is no error")
	require.Empty(t, server.Done())
}

func TestPostmasterOfAKilledRunIsStoppedAndReplaced(t *testing.T) {
	ctx := testContext(t)
	folder := openFolder(t, testDir(t))
	first := startPostgres(t, folder)
	require.NoError(t, first.EnsureDatabase(ctx, "muster"))
	execute(t, first, `CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n`)

	// To the next start this server is one that nobody waits for.
	first.child.stopping.Store(true)
	var said []string
	second, err := folder.StartPostgres(ctx, PostgresOptions{Progress: func(line string) { said = append(said, line) }})
	require.NoError(t, err)
	t.Cleanup(func() { _ = second.Stop(context.Background()) })
	require.Contains(t, strings.Join(said, "\n"), strconv.Itoa(first.child.cmd.Process.Pid))
	require.True(t, first.child.hasExited())
	require.Equal(t, first.Address(), second.Address())
	require.Equal(t, 1000, query[int](t, second, `SELECT count(*) FROM kept`))
}

func TestStalePidFileThatNamesAnotherProgramIsPutAside(t *testing.T) {
	ctx := testContext(t)
	folder := openFolder(t, testDir(t))
	server := startPostgres(t, folder)
	cluster := filepath.Join(folder.Path(), "pg"+strconv.Itoa(server.Major()))
	require.NoError(t, server.Stop(ctx))

	bystander := exec.Command("sleep", "600")
	require.NoError(t, bystander.Start())
	t.Cleanup(func() {
		require.NoError(t, bystander.Process.Kill())
		_ = bystander.Wait()
	})
	pidFile := filepath.Join(cluster, "postmaster.pid")
	require.NoError(t, os.WriteFile(pidFile, []byte(strconv.Itoa(bystander.Process.Pid)+"\n"+cluster+"\n"), 0o644))
	startPostgres(t, folder)
	require.NoError(t, bystander.Process.Signal(syscall.Signal(0)), "the other program must live on")
	require.FileExists(t, pidFile+".stale")
}

func TestUnfinishedInitialisationIsStartedOver(t *testing.T) {
	folder := openFolder(t, testDir(t))
	program, err := folder.findPostgres(testContext(t), "", func(string) {})
	require.NoError(t, err)
	unfinished := filepath.Join(folder.Path(), "pg"+strconv.Itoa(program.major)+".initialising")
	require.NoError(t, os.Mkdir(unfinished, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(unfinished, "PG_VERSION"), []byte("x"), 0o600))
	startPostgres(t, folder)
	require.NoDirExists(t, unfinished)
}

func TestWantedPortInUseIsNamed(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, listener.Close()) }()
	port := listener.Addr().(*net.TCPAddr).Port

	folder := openFolder(t, testDir(t))
	_, err = folder.StartPostgres(testContext(t), PostgresOptions{Port: port})
	problem := requireProblem(t, err, CodePortInUse)
	require.Contains(t, problem.Message, strconv.Itoa(port))
}

func TestSavedPortThatIsTakenGivesWay(t *testing.T) {
	ctx := testContext(t)
	folder := openFolder(t, testDir(t))
	first := startPostgres(t, folder)
	require.NoError(t, first.Stop(ctx))
	listener, err := net.Listen("tcp", first.Address())
	require.NoError(t, err)
	defer func() { require.NoError(t, listener.Close()) }()

	second := startPostgres(t, folder)
	require.NotEqual(t, first.Address(), second.Address())
}

// TestAPortTakenInTheSameMomentIsTriedElsewhere starts a server on the port of another
// one, as two instances do that choose the same free port at once: the other one's
// refusal is not a wrong password.
func TestAPortTakenInTheSameMomentIsTriedElsewhere(t *testing.T) {
	ctx := testContext(t)
	other := startPostgres(t, openFolder(t, testDir(t)))
	folder := openFolder(t, testDir(t))
	ours := startPostgres(t, folder)
	require.NoError(t, ours.Stop(ctx))

	program, err := folder.findPostgres(ctx, "", func(string) {})
	require.NoError(t, err)
	c := &cluster{program: program, dir: folder.file(fmt.Sprintf("pg%d", program.major)), log: folder.file(postgresLogFile)}
	c.account, err = accountFor(c.dir)
	require.NoError(t, err)
	_, again, err := c.start(ctx, &Postgres{port: other.port, password: ours.password}, func(string) {})
	requireProblem(t, err, CodePostgresFailed)
	require.True(t, again)
	require.Equal(t, 1, query[int](t, startedWithDatabase(t, folder), `SELECT 1`))
}

func TestLostPasswordIsSaidPlainly(t *testing.T) {
	for name, content := range map[string]string{"emptied": "", "replaced": "not the password\n"} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			folder := openFolder(t, testDir(t))
			require.NoError(t, startPostgres(t, folder).Stop(ctx))
			require.NoError(t, os.WriteFile(filepath.Join(folder.Path(), passwordFile), []byte(content), 0o600))
			_, err := folder.StartPostgres(ctx, PostgresOptions{})
			requireProblem(t, err, CodePostgresPassword)
		})
	}
}

func TestWrongBinDirIsSaidPlainly(t *testing.T) {
	folder := openFolder(t, testDir(t))
	t.Setenv(binDirVariable, t.TempDir())
	_, err := folder.StartPostgres(testContext(t), PostgresOptions{})
	requireProblem(t, err, CodePostgresMissing)
}

func TestFolderThatPostgresMayNotEnterIsSaidPlainly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root runs PostgreSQL as another user")
	}
	closed := testDir(t)
	require.NoError(t, os.Chmod(closed, 0o700))
	folder := openFolder(t, filepath.Join(closed, "data"))
	_, err := folder.StartPostgres(testContext(t), PostgresOptions{})
	problem := requireProblem(t, err, CodeFolderUnusable)
	require.Contains(t, problem.Message, closed)
}
