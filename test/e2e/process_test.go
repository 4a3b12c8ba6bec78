package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// program is one process that a test started, with what it printed.
type program struct {
	name   string
	cmd    *exec.Cmd
	output string        // file with standard output and error
	exited chan struct{} // closed when the process is gone
}

// launch starts a program of this build. It is ended with the test at the latest.
func launch(t *testing.T, name, output string, env []string, args ...string) *program {
	t.Helper()
	out, err := os.OpenFile(output, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	require.NoError(t, err)
	defer out.Close()
	p := &program{name: name, output: output, exited: make(chan struct{})}
	p.cmd = exec.Command(binary.muster, args...)
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = env, out, out
	// A group of its own: Ctrl-C in the terminal that runs the tests is not meant for it.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, p.cmd.Start())
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		if p.running() {
			kill(t, tree(t, p.pid()))
		}
	})
	return p
}

func (p *program) pid() int { return p.cmd.Process.Pid }

func (p *program) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// interrupt does what Ctrl-C does and returns the exit code.
func (p *program) interrupt(t *testing.T) int {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(os.Interrupt))
	return p.wait(t)
}

// wait waits for the end and returns the exit code, -1 after a signal.
func (p *program) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		// A Go program that is asked to quit says what each goroutine waits for.
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		<-p.exited
		require.FailNow(t, p.name+" did not end", p.printed(t))
	}
	return p.cmd.ProcessState.ExitCode()
}

// printed is everything that the process has printed so far.
func (p *program) printed(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(p.output)
	require.NoError(t, err)
	return string(text)
}

// run runs a command of the program to its end and returns what it printed.
func run(t *testing.T, env []string, args ...string) (output string, exitCode int) {
	t.Helper()
	p := launch(t, "muster "+strings.Join(args, " "), filepath.Join(t.TempDir(), "output"), env, args...)
	code := p.wait(t)
	return p.printed(t), code
}

// process is one line of the system's table of processes.
type process struct {
	pid, parent int
	gone        bool // ended, and only its parent has not asked for its end yet
	command     string
}

// processes reads the table: from /proc where there is one, else from ps.
func processes(t *testing.T) []process {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	if len(stats) == 0 {
		return processesOfPS(t)
	}
	var all []process
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		// The second field, the program's name in brackets, may hold spaces.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		p := process{gone: string(fields[0]) == "Z" || string(fields[0]) == "X"}
		p.pid, err = strconv.Atoi(filepath.Base(filepath.Dir(path)))
		require.NoError(t, err)
		p.parent, err = strconv.Atoi(string(fields[1]))
		require.NoError(t, err)
		command, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		p.command = strings.ReplaceAll(strings.TrimRight(string(command), "\x00"), "\x00", " ")
		all = append(all, p)
	}
	return all
}

func processesOfPS(t *testing.T) []process {
	t.Helper()
	table, err := exec.Command("ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,command=").Output()
	require.NoError(t, err)
	var all []process
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) < 4 {
			continue
		}
		p := process{gone: strings.HasPrefix(fields[2], "Z"), command: strings.Join(fields[3:], " ")}
		p.pid, err = strconv.Atoi(fields[0])
		require.NoError(t, err)
		p.parent, err = strconv.Atoi(fields[1])
		require.NoError(t, err)
		all = append(all, p)
	}
	return all
}

// tree lists the processes that descend from the roots, and those of the roots that
// still run.
func tree(t *testing.T, roots ...int) []process {
	t.Helper()
	all := processes(t)
	member := map[int]bool{}
	for _, pid := range roots {
		member[pid] = true
	}
	for grown := true; grown; {
		grown = false
		for _, p := range all {
			if member[p.parent] && !member[p.pid] {
				member[p.pid], grown = true, true
			}
		}
	}
	var found []process
	for _, p := range all {
		if member[p.pid] && !p.gone {
			found = append(found, p)
		}
	}
	return found
}

// kill ends processes as a power cut would: none of them sees another one die first.
func kill(t *testing.T, all []process) {
	t.Helper()
	for _, signal := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		for _, p := range all {
			_ = syscall.Kill(p.pid, signal)
		}
	}
	awaitGone(t, all)
}

// awaitGone waits until none of the processes runs.
func awaitGone(t *testing.T, all []process) {
	t.Helper()
	eventually(t, func() bool {
		now := map[int]process{}
		for _, p := range processes(t) {
			now[p.pid] = p
		}
		for _, p := range all {
			if n, ok := now[p.pid]; ok && !n.gone && n.command == p.command {
				return false
			}
		}
		return true
	}, "processes end")
}

// eventually waits for a condition. Unlike require.Eventually it asks in the test's own
// goroutine, so that the condition may use require.
func eventually(t *testing.T, wanted func() bool, what string, args ...any) {
	t.Helper()
	for deadline := time.Now().Add(patience); !wanted(); <-time.After(50 * time.Millisecond) {
		require.True(t, time.Now().Before(deadline), "waited in vain: "+fmt.Sprintf(what, args...))
	}
}

// tail is the end of a file, for the report of a failure.
func tail(path string) string {
	const most = 6000
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(text[max(0, len(text)-most):])
}
