package embedded

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

const (
	binDirVariable = "MUSTER_PG_BIN"

	// Older ones lack what the schema uses, and their support has ended.
	minPostgresMajor = 15
)

// postgresProgram is an installed PostgreSQL.
type postgresProgram struct {
	dir   string // of postgres and initdb
	major int
}

func (p postgresProgram) path(name string) string { return filepath.Join(p.dir, name) }

// findPostgres picks the program for the folder: of the major version of the
// data that are there, or the newest when there are none yet.
func (f *Folder) findPostgres(ctx context.Context, binDir string, progress func(string)) (postgresProgram, error) {
	if binDir == "" {
		binDir = os.Getenv(binDirVariable)
	}
	wanted := f.newestCluster()
	if binDir != "" {
		program, ok := inspect(ctx, binDir)
		if !ok {
			return program, &Problem{
				Code:    CodePostgresMissing,
				Message: fmt.Sprintf("there are no working postgres and initdb programs in %s", binDir),
				WayOut:  fmt.Sprintf("set %s to the folder that holds them, or unset it", binDirVariable),
			}
		}
		return f.checkMajor(wanted, program)
	}

	found := installed(ctx)
	for _, program := range found {
		if program.major == wanted || wanted == 0 && program.major >= minPostgresMajor {
			return program, nil
		}
	}
	if wanted == 0 || wanted == downloadMajor {
		dir, err := f.downloadPostgres(ctx, progress)
		if err != nil {
			return postgresProgram{}, err
		}
		program, ok := inspect(ctx, dir)
		if !ok {
			return program, &Problem{
				Code:    CodePostgresMissing,
				Message: fmt.Sprintf("the downloaded PostgreSQL in %s does not run on this machine", dir),
				WayOut:  fmt.Sprintf("install PostgreSQL %d or newer from your system, or set %s", minPostgresMajor, binDirVariable),
			}
		}
		return program, nil
	}
	if len(found) == 0 {
		return postgresProgram{}, mismatch(f.path, wanted, 0)
	}
	return postgresProgram{}, mismatch(f.path, wanted, found[0].major)
}

func (f *Folder) checkMajor(wanted int, program postgresProgram) (postgresProgram, error) {
	if program.major < minPostgresMajor {
		return program, &Problem{
			Code:    CodePostgresVersion,
			Message: fmt.Sprintf("PostgreSQL %d in %s is too old", program.major, program.dir),
			WayOut:  fmt.Sprintf("use version %d or newer", minPostgresMajor),
		}
	}
	if wanted != 0 && wanted != program.major {
		return program, mismatch(f.path, wanted, program.major)
	}
	return program, nil
}

func mismatch(folder string, wanted, have int) *Problem {
	has := fmt.Sprintf("and only version %d is at hand", have)
	if have == 0 {
		has = "and none is installed"
	}
	return &Problem{
		Code:    CodePostgresVersion,
		Message: fmt.Sprintf("the data in %s were written by PostgreSQL %d, %s; nothing was changed", folder, wanted, has),
		WayOut: fmt.Sprintf("install PostgreSQL %d, or set %s to its programs, or move the data to the other version with pg_upgrade, or choose another folder with --data-dir",
			wanted, binDirVariable),
	}
}

var (
	clusterName    = regexp.MustCompile(`^pg([0-9]+)$`)
	versionPattern = regexp.MustCompile(`^postgres \(PostgreSQL\) ([0-9]+)`)
)

// newestCluster is the highest major version of the folder's data, 0 for none.
// The files say it, whatever the directory is called.
func (f *Folder) newestCluster() int {
	newest := 0
	entries, _ := os.ReadDir(f.path)
	for _, entry := range entries {
		if !clusterName.MatchString(entry.Name()) {
			continue
		}
		content, err := os.ReadFile(f.file(filepath.Join(entry.Name(), "PG_VERSION")))
		if err != nil {
			continue
		}
		if major, err := strconv.Atoi(firstLine(content)); err == nil {
			newest = max(newest, major)
		}
	}
	return newest
}

// installed lists the PostgreSQL versions of this machine, newest first.
func installed(ctx context.Context) []postgresProgram {
	var dirs []string
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",          // Debian and its kin
		"/usr/pgsql-*/bin",                   // PostgreSQL's own packages for Red Hat and its kin
		"/opt/homebrew/opt/postgresql@*/bin", // macOS on Apple silicon
		"/usr/local/opt/postgresql@*/bin",    // macOS on Intel
	} {
		matches, _ := filepath.Glob(pattern)
		dirs = append(dirs, matches...)
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	var programs []postgresProgram
	for _, dir := range dirs {
		if program, ok := inspect(ctx, dir); ok {
			programs = append(programs, program)
		}
	}
	slices.SortStableFunc(programs, func(a, b postgresProgram) int { return b.major - a.major })
	return programs
}

func inspect(ctx context.Context, dir string) (postgresProgram, bool) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return postgresProgram{}, false
	}
	program := postgresProgram{dir: dir}
	if !exists(program.path("initdb")) {
		return program, false
	}
	output, err := exec.CommandContext(ctx, program.path("postgres"), "--version").Output() //nolint:gosec // asked for its version
	if err != nil {
		return program, false
	}
	match := versionPattern.FindSubmatch(output)
	if match == nil {
		return program, false
	}
	program.major, err = strconv.Atoi(string(match[1]))
	return program, err == nil
}

func firstLine(content []byte) string {
	for i, b := range content {
		if b == '\n' || b == '\r' {
			return string(content[:i])
		}
	}
	return string(content)
}
