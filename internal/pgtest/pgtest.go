// Package pgtest gives each test that needs PostgreSQL a database of its own.
//
// A package that uses it says so once:
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
// The server is the one that $MUSTER_TEST_DATABASE_URL names, whose user must
// be allowed to create databases, or else one that the test process starts at
// the first need and stops at its end. Test processes running side by side do
// not meet: whatever they create bears a name of their own.
package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/internal/embedded"
)

const (
	urlVariable  = "MUSTER_TEST_DATABASE_URL"
	folderPrefix = "muster-pgtest-"

	// A folder that nobody holds and nobody touched for this long was left
	// behind by a killed test process.
	abandonedAfter = time.Hour

	patience = 2 * time.Minute
)

// process is the server as this test process sees it.
var process struct {
	main   atomic.Bool
	prefix string
	count  atomic.Int64

	start    sync.Once
	startErr error
	admin    *url.URL
	folder   *embedded.Folder
	server   *embedded.Postgres

	mu        sync.Mutex
	templates map[string]*template
}

type template struct {
	once     sync.Once
	database string
	err      error
}

// Main runs the tests of a package and then stops what they started. Call it
// from TestMain; it does not return.
func Main(m *testing.M) {
	process.prefix = "test_" + strings.ToLower(rand.Text()[:10])
	process.main.Store(true)
	code := m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		if code == 0 {
			code = 1
		}
	}
	os.Exit(code)
}

// Option changes what [NewDatabase] makes.
type Option func(*request)

type request struct {
	template string
	prepare  func(ctx context.Context, url string) error
}

// WithTemplate makes the database a copy of one that prepare has filled, for
// example with the schema. prepare runs once per test process and name, and
// must have closed its connections when it returns.
func WithTemplate(name string, prepare func(ctx context.Context, url string) error) Option {
	return func(r *request) { r.template, r.prepare = name, prepare }
}

// NewDatabase creates a database for the test and returns its URL. It is
// dropped, with whatever is still connected to it, when the test ends.
func NewDatabase(t testing.TB, options ...Option) string {
	t.Helper()
	if !process.main.Load() {
		t.Fatal("pgtest: the package needs func TestMain(m *testing.M) { pgtest.Main(m) }")
	}
	var wanted request
	for _, option := range options {
		option(&wanted)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	process.start.Do(func() { process.startErr = start(ctx) })
	if process.startErr != nil {
		t.Fatalf("pgtest: %v", process.startErr)
	}
	from := ""
	if wanted.template != "" {
		var err error
		if from, err = prepared(ctx, wanted); err != nil {
			t.Fatalf("pgtest: template %s: %v", wanted.template, err)
		}
	}
	name := newName()
	if err := create(ctx, name, from); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := drop(ctx, name); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	return databaseURL(name)
}

func newName() string { return fmt.Sprintf("%s_%d", process.prefix, process.count.Add(1)) }

func databaseURL(name string) string {
	u := *process.admin
	u.Path = "/" + name
	return u.String()
}

func prepared(ctx context.Context, wanted request) (string, error) {
	process.mu.Lock()
	t := process.templates[wanted.template]
	if t == nil {
		t = &template{}
		if process.templates == nil {
			process.templates = map[string]*template{}
		}
		process.templates[wanted.template] = t
	}
	process.mu.Unlock()
	t.once.Do(func() {
		t.database = newName()
		if t.err = create(ctx, t.database, ""); t.err == nil {
			t.err = wanted.prepare(ctx, databaseURL(t.database))
		}
	})
	return t.database, t.err
}

func create(ctx context.Context, name, from string) error {
	statement := "CREATE DATABASE " + pgx.Identifier{name}.Sanitize()
	if from != "" {
		// Its files are copied as they are: block by block through the log, which is the
		// default, takes many times as long.
		statement += " TEMPLATE " + pgx.Identifier{from}.Sanitize() + " STRATEGY file_copy"
	}
	return execute(ctx, statement)
}

func drop(ctx context.Context, name string) error {
	return execute(ctx, "DROP DATABASE IF EXISTS "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
}

func execute(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, process.admin.String())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

func start(ctx context.Context) (err error) {
	if given := os.Getenv(urlVariable); given != "" {
		process.admin, err = url.Parse(given)
		if err != nil {
			return errors.New(urlVariable + " is not a URL") // which may hold a password
		}
		return nil
	}
	sweep()
	dir, err := os.MkdirTemp("", folderPrefix)
	if err != nil {
		return err
	}
	// PostgreSQL's user must get in when root runs the tests.
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // see above
		return err
	}
	if process.folder, err = embedded.Open(dir); err != nil {
		return err
	}
	process.server, err = process.folder.StartPostgres(ctx, embedded.PostgresOptions{Settings: map[string]string{
		// Nothing here outlives the process, so nothing has to reach the disk.
		"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off",
		"wal_level": "minimal", "max_wal_senders": "0", "wal_compression": "off",
		// What runs beside the tests takes time from them, a database after the other.
		"autovacuum": "off", "checkpoint_timeout": "1h",
		"shared_buffers": "128MB",
	}})
	if err != nil {
		return err
	}
	process.admin, err = url.Parse(process.server.URL("postgres"))
	return err
}

func stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var errs []error
	if process.server == nil {
		for _, t := range process.templates {
			errs = append(errs, drop(ctx, t.database))
		}
	} else {
		errs = append(errs, process.server.Stop(ctx))
	}
	if process.folder != nil {
		errs = append(errs, process.folder.Close(), os.RemoveAll(process.folder.Path()))
	}
	return errors.Join(errs...)
}

// sweep removes what killed test processes left behind. Failing to is no
// reason to fail a test.
func sweep() {
	abandoned, _ := filepath.Glob(filepath.Join(os.TempDir(), folderPrefix+"*"))
	for _, dir := range abandoned {
		if info, err := os.Stat(dir); err != nil || time.Since(info.ModTime()) < abandonedAfter {
			continue
		}
		if folder, err := embedded.Open(dir); err == nil {
			_ = os.RemoveAll(dir)
			_ = folder.Close()
		}
	}
}
