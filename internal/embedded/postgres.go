package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	postgresUser     = "muster"
	maintenanceDB    = "postgres"
	postgresPortFlag = "--postgres-port"
	passwordFile     = "postgres.password"
	postgresPortFile = "postgres.json"
	postgresLogFile  = "postgres.log"

	// Not 5432, where a PostgreSQL of the system is likely to listen one day.
	usualPostgresPort = 54329

	// A fast stop ends every session and writes a checkpoint; an immediate one
	// leaves the work to recovery at the next start.
	fastStopPatience = 6 * time.Second

	// Backends orphaned by a killed postmaster need a moment to notice.
	startPatience = 15 * time.Second
)

// PostgresOptions says how to run PostgreSQL in a [Folder]. The zero value is
// right for `muster up`.
type PostgresOptions struct {
	// BinDir holds the postgres and initdb programs. Empty: $MUSTER_PG_BIN,
	// else the newest installed, else a pinned download kept in the folder.
	BinDir string
	// Port to listen on; 0 means the last run's when free, else any.
	Port int
	// Settings are added to the server's own; a test may turn fsync off here.
	Settings map[string]string
	// Progress is told what is being done, in plain words. May be nil.
	Progress func(string)
}

// Postgres is a running PostgreSQL server.
type Postgres struct {
	child    *child
	port     int
	password string
	major    int
}

// settings are given on the command line, so that every start applies them
// and the files in the data directory stay as PostgreSQL made them.
func settings(port int, extra map[string]string) map[string]string {
	all := map[string]string{
		"listen_addresses":        loopback,
		"port":                    strconv.Itoa(port),
		"unix_socket_directories": "", // no path length limits and nothing to leave behind
		"max_connections":         "200",
		"shared_buffers":          "512MB", // reserved, not used, until there are data
		"maintenance_work_mem":    "128MB",
		"max_wal_size":            "4GB",
		"wal_compression":         "on",
		"random_page_cost":        "1.1",
		"jit":                     "off",
		"fsync":                   "on",
		"synchronous_commit":      "on",
		"full_page_writes":        "on",
		"timezone":                "UTC",
		"log_timezone":            "UTC",
		"lc_messages":             "C",
		// Statements and details of errors hold personal data; the log must not.
		"log_min_error_statement": "panic",
		"log_error_verbosity":     "terse",
	}
	for name, value := range extra {
		all[name] = value
	}
	return all
}

// StartPostgres runs PostgreSQL in the folder and returns when it answers. The
// first start creates the data directory pg<major>. A server left over from a
// killed muster is stopped and started again. Errors that a person can solve
// are of type [Problem].
func (f *Folder) StartPostgres(ctx context.Context, opts PostgresOptions) (*Postgres, error) {
	progress := opts.Progress
	if progress == nil {
		progress = func(string) {}
	}
	program, err := f.findPostgres(ctx, opts.BinDir, progress)
	if err != nil {
		return nil, err
	}
	cluster := &cluster{
		program: program,
		dir:     f.file(fmt.Sprintf("pg%d", program.major)),
		log:     f.file(postgresLogFile),
		extra:   opts.Settings,
	}
	if cluster.account, err = accountFor(cluster.dir); err != nil {
		return nil, err
	}
	if err := cluster.account.checkReach(f.path, program.dir); err != nil {
		return nil, err
	}
	password, err := f.postgresPassword(cluster.dir)
	if err != nil {
		return nil, err
	}
	if err := cluster.stopLeftover(ctx, progress); err != nil {
		return nil, err
	}
	if err := checkPort(opts.Port, postgresPortFlag); err != nil {
		return nil, err
	}
	if !exists(cluster.dir) {
		progress(fmt.Sprintf("Creating a PostgreSQL %d data directory in %s (a few seconds)", program.major, cluster.dir))
		if err := f.initialise(ctx, cluster, password); err != nil {
			return nil, err
		}
	}

	var saved struct{ Port int }
	readJSON(f.file(postgresPortFile), &saved)
	server := &Postgres{password: password, major: program.major}
	for deadline := time.Now().Add(startPatience); ; {
		server.port, err = choosePort(opts.Port, postgresPortFlag, saved.Port, usualPostgresPort)
		if err != nil {
			return nil, err
		}
		var again bool
		server.child, again, err = cluster.start(ctx, server, progress)
		if err == nil {
			break
		}
		if !again || time.Now().After(deadline) || ctx.Err() != nil {
			return nil, err
		}
		time.Sleep(10 * pollInterval)
	}
	saved.Port = server.port
	if err := writeJSON(f.file(postgresPortFile), saved); err != nil {
		_ = server.Stop(context.WithoutCancel(ctx))
		return nil, unusable(f.path, err)
	}
	return server, nil
}

// URL is the connection string of a database on this server, with its
// password: not for logs.
func (p *Postgres) URL(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(postgresUser, p.password),
		Host:     loopbackAddress(p.port),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Address is the host:port on which the server listens.
func (p *Postgres) Address() string { return loopbackAddress(p.port) }

// Major is the server's major version.
func (p *Postgres) Major() int { return p.major }

// Done receives one error when the server dies without [Postgres.Stop].
func (p *Postgres) Done() <-chan error { return p.child.died }

// Stop ends all sessions and stops the server with everything on disk. Past
// its patience of some seconds, or past ctx, it stops at once and the next
// start recovers; that is reported as an error though nothing is lost.
func (p *Postgres) Stop(ctx context.Context) error {
	return p.child.stop(ctx, fastStopPatience, syscall.SIGINT, syscall.SIGQUIT)
}

// EnsureDatabase creates a database unless it exists.
func (p *Postgres) EnsureDatabase(ctx context.Context, name string) error {
	conn, err := pgx.Connect(ctx, p.URL(maintenanceDB))
	if err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "42P04" { // duplicate_database
		return nil
	}
	if err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	return nil
}

// postgresPassword reads the folder's password. It is made together with the
// first data directory and is needed for every one after it.
func (f *Folder) postgresPassword(clusterDir string) (string, error) {
	path := f.file(passwordFile)
	content, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(content))) > 0 {
		return strings.TrimSpace(string(content)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", unusable(f.path, err)
	}
	if exists(clusterDir) {
		return "", &Problem{
			Code:    CodePostgresPassword,
			Message: fmt.Sprintf("the file %s, which holds the password of the data in %s, is missing or empty", path, clusterDir),
			WayOut:  "restore it from a backup or choose another folder with --data-dir",
		}
	}
	password := rand.Text()
	if err := writeFile(path, []byte(password+"\n")); err != nil {
		return "", unusable(f.path, err)
	}
	return password, nil
}

// cluster is a PostgreSQL data directory and what is needed to run it.
type cluster struct {
	program postgresProgram
	account account
	dir     string
	log     string
	extra   map[string]string
}

// initialise makes the data directory under another name first: one that
// initdb has not finished must not look like one that it has.
func (f *Folder) initialise(ctx context.Context, c *cluster, password string) error {
	unfinished := c.dir + ".initialising"
	// Left by a start that was killed within initdb: no server ever ran on it.
	if err := os.RemoveAll(unfinished); err != nil {
		return unusable(f.path, err)
	}
	if err := os.Mkdir(unfinished, 0o700); err != nil {
		return unusable(f.path, err)
	}
	handOver, err := os.CreateTemp(f.path, "initdb-password.*")
	if err != nil {
		return unusable(f.path, err)
	}
	defer func() { _ = os.Remove(handOver.Name()) }()
	_, err = handOver.WriteString(password + "\n")
	if closeErr := handOver.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = errors.Join(c.account.take(unfinished), c.account.take(handOver.Name()))
	}
	if err != nil {
		return unusable(f.path, err)
	}

	args := []string{
		"--pgdata=" + unfinished, "--username=" + postgresUser, "--pwfile=" + handOver.Name(),
		"--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--data-checksums",
	}
	if c.extra["fsync"] == "off" {
		args = append(args, "--no-sync")
	}
	cmd := exec.CommandContext(ctx, c.program.path("initdb"), args...) //nolint:gosec // the program found above
	c.account.run(cmd)
	cmd.Dir = unfinished
	if output, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &Problem{
			Code:    CodePostgresFailed,
			Message: "initdb could not create the data directory " + c.dir,
			WayOut:  "see what it says: " + strings.TrimSpace(string(output)),
			Err:     err,
		}
	}
	if err := os.Rename(unfinished, c.dir); err != nil {
		return unusable(f.path, err)
	}
	return nil
}

// stopLeftover stops the server of an earlier run, so that ours has today's
// settings and is our child. A postmaster.pid that names some other program,
// as after a reboot, is put aside: PostgreSQL would refuse to start over it.
func (c *cluster) stopLeftover(ctx context.Context, progress func(string)) error {
	path := filepath.Join(c.dir, "postmaster.pid")
	content, err := os.ReadFile(path)
	if err != nil {
		return nil //nolint:nilerr // no file, no server
	}
	first, _, _ := strings.Cut(string(content), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return nil //nolint:nilerr // PostgreSQL judges a damaged file itself
	}
	started, alive := identity(pid)
	if !alive {
		return nil
	}
	if !slices.Contains(strings.Fields(commandLine(pid)), c.dir) {
		if err := os.Rename(path, path+".stale"); err != nil {
			return unusable(c.dir, err)
		}
		return nil
	}
	progress(fmt.Sprintf("Stopping PostgreSQL (pid %d) of an earlier run that was killed", pid))
	return stopLeftover(ctx, "PostgreSQL", pid, started, 5*fastStopPatience, syscall.SIGINT, syscall.SIGQUIT)
}

// strangerPatience is how long a server gets to find its port taken. Whoever answers on
// the port until then may be another server, started in the same moment.
const strangerPatience = time.Second

// start runs the server and waits until it answers. again says that another
// attempt may well succeed.
func (c *cluster) start(ctx context.Context, server *Postgres, progress func(string)) (_ *child, again bool, err error) {
	log, err := OpenLog(c.log)
	if err != nil {
		return nil, false, unusable(filepath.Dir(c.log), err)
	}
	defer func() { _ = log.Close() }()
	var offset int64
	if info, err := log.Stat(); err == nil {
		offset = info.Size()
	}
	all := settings(server.port, c.extra)
	args := []string{"-D", c.dir}
	for _, name := range sortedKeys(all) {
		args = append(args, "-c", name+"="+all[name])
	}
	cmd := exec.Command(c.program.path("postgres"), args...) //nolint:gosec,noctx // it outlives the start; stopped by signal
	c.account.run(cmd)
	cmd.Dir = c.dir
	// A file rather than a pipe: the server must not die of a killed muster.
	cmd.Stdout, cmd.Stderr = log, log
	process, err := startChild("PostgreSQL", cmd, syscall.SIGINT)
	if err != nil {
		return nil, false, &Problem{Code: CodePostgresFailed, Message: "PostgreSQL could not be started", Err: err}
	}

	patience := time.After(5 * time.Second)
	for {
		err := server.ping(ctx)
		if err == nil {
			return process, false, nil
		}
		var refused *pgconn.PgError
		if errors.As(err, &refused) && strings.HasPrefix(refused.Code, "28") && !process.exitsWithin(strangerPatience) { // invalid authorization
			_ = process.stop(ctx, fastStopPatience, syscall.SIGINT, syscall.SIGQUIT)
			return nil, false, &Problem{
				Code:    CodePostgresPassword,
				Message: fmt.Sprintf("the password in %s does not open the data in %s", passwordFile, c.dir),
				WayOut:  "restore that file from a backup or choose another folder with --data-dir",
				Err:     err,
			}
		}
		select {
		case <-process.exited:
			tail := logTail(c.log, offset)
			return nil, passing(tail), &Problem{
				Code:    CodePostgresFailed,
				Message: "PostgreSQL could not start on " + c.dir,
				WayOut:  fmt.Sprintf("see the end of %s: %s", c.log, tail),
			}
		case <-ctx.Done():
			_ = process.stop(ctx, fastStopPatience, syscall.SIGINT, syscall.SIGQUIT)
			return nil, false, ctx.Err()
		case <-patience:
			progress("PostgreSQL is recovering from an unclean stop; how long depends on how much was written")
		case <-time.After(pollInterval):
		}
	}
}

func (p *Postgres) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.URL(maintenanceDB))
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// passing recognises, in PostgreSQL's own words, a failure that time or
// another port cures.
func passing(log string) bool {
	for _, text := range []string{
		"Address already in use", "could not create any TCP/IP sockets",
		"pre-existing shared memory block", "is still in use",
		`lock file "postmaster.pid" already exists`,
	} {
		if strings.Contains(log, text) {
			return true
		}
	}
	return false
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
