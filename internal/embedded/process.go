package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const pollInterval = 20 * time.Millisecond

// child is a process that we started and watch. It has its own process group,
// so that Ctrl-C in a terminal reaches muster alone, which then stops its
// children in the right order.
type child struct {
	name     string
	cmd      *exec.Cmd
	exited   chan struct{} // closed when the process is gone
	died     chan error    // receives the reason when that was not our doing
	stopping atomic.Bool
}

// startChild starts cmd. Where the system offers it, the child receives
// deathSignal when this process dies, however it dies; 0 for none.
func startChild(name string, cmd *exec.Cmd, deathSignal syscall.Signal) (*child, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	setDeathSignal(cmd.SysProcAttr, deathSignal)
	c := &child{name: name, cmd: cmd, exited: make(chan struct{}), died: make(chan error, 1)}
	started := make(chan error)
	go func() {
		// To the kernel the parent is the thread that started the child: it
		// must live as long as the child does.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		err = cmd.Wait()
		if !c.stopping.Load() {
			if err == nil {
				err = errors.New("exit status 0")
			}
			c.died <- fmt.Errorf("%s (pid %d) ended unexpectedly: %w", name, cmd.Process.Pid, err)
		}
		close(c.exited)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return c, nil
}

func (c *child) hasExited() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

// exitsWithin waits for the process to be gone, for no longer than d.
func (c *child) exitsWithin(d time.Duration) bool {
	select {
	case <-c.exited:
		return true
	case <-time.After(d):
		return false
	}
}

// stop sends the signals one after the other, each when the process has not
// ended within patience of the one before, and the last also when ctx ends.
func (c *child) stop(ctx context.Context, patience time.Duration, signals ...syscall.Signal) error {
	c.stopping.Store(true)
	for i, signal := range signals {
		if c.hasExited() {
			return nil
		}
		_ = c.cmd.Process.Signal(signal)
		if i == len(signals)-1 {
			<-c.exited
			break
		}
		select {
		case <-c.exited:
			return nil
		case <-time.After(patience):
		case <-ctx.Done():
		}
	}
	return fmt.Errorf("%s did not stop in time and was ended by force; nothing is lost, the next start recovers", c.name)
}

// identity names a process beyond its number, which the system uses again:
// a pid with its start time. It is false when there is no such process.
func identity(pid int) (string, bool) {
	if pid <= 0 {
		return "", false
	}
	if runtime.GOOS == "linux" {
		stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if err != nil {
			return "", false
		}
		// The second field, the program's name in brackets, may hold spaces.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) < 20 || fields[0] == "Z" {
			return "", false
		}
		// The start time counts from boot, so the boot belongs to the identity.
		boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
		return strings.TrimSpace(string(boot)) + "/" + fields[19], true
	}
	started, err := exec.Command("ps", "-o", "lstart=", "-p", strconv.Itoa(pid)).Output() //nolint:gosec,noctx // a number; ends by itself
	return strings.TrimSpace(string(started)), err == nil && len(bytes.TrimSpace(started)) > 0
}

// commandLine is how a process was started; empty when there is no such process.
func commandLine(pid int) string {
	if pid <= 0 {
		return ""
	}
	if runtime.GOOS == "linux" {
		text, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		return strings.ReplaceAll(strings.TrimRight(string(text), "\x00"), "\x00", " ")
	}
	text, _ := exec.Command("ps", "-ww", "-o", "command=", "-p", strconv.Itoa(pid)).Output() //nolint:gosec,noctx // a number; ends by itself
	return strings.TrimSpace(string(text))
}

// stopLeftover ends a process of an earlier run that we are not the parent of.
// started is its identity, so that no other process is ever hit.
func stopLeftover(ctx context.Context, name string, pid int, started string, patience time.Duration, signals ...syscall.Signal) error {
	alive := func() bool {
		now, ok := identity(pid)
		return ok && now == started
	}
	for _, signal := range signals {
		if !alive() {
			return nil
		}
		if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return leftover(name, pid, err)
		}
		for deadline := time.Now().Add(patience); alive() && time.Now().Before(deadline); {
			select {
			case <-time.After(pollInterval):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	if alive() {
		return leftover(name, pid, nil)
	}
	return nil
}

func leftover(name string, pid int, err error) *Problem {
	return &Problem{
		Code:    CodeLeftoverProcess,
		Message: fmt.Sprintf("%s (pid %d) of an earlier run is still there and cannot be stopped", name, pid),
		WayOut:  "end that process and start again",
		Err:     err,
	}
}
