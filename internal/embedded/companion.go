package embedded

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const (
	companionPatience = 2 * time.Second
	companionPause    = 500 * time.Millisecond
)

// Companion is a command of this same program that runs beside it as a process of its
// own, such as a simulator, and is started again whenever it dies.
type Companion struct {
	ended chan struct{}
	stop  context.CancelFunc
}

// StartCompanion keeps `muster args…` running until Stop. Its output goes to the log
// file name.log in the folder.
func (f *Folder) StartCompanion(name string, args []string, env []string) (*Companion, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	c := &Companion{ended: make(chan struct{}), stop: stop}
	first := make(chan error, 1)
	go func() {
		defer close(c.ended)
		for ctx.Err() == nil {
			running, err := f.startCompanion(name, program, args, env)
			select {
			case first <- err:
			default:
				if err != nil {
					slog.Warn("a companion could not be started", "name", name, "error", err)
				}
			}
			if err == nil {
				select {
				case <-ctx.Done():
					_ = running.stop(context.Background(), companionPatience, syscall.SIGTERM, syscall.SIGKILL)
					return
				case err := <-running.died:
					slog.Warn("a companion ended and is started again", "name", name, "error", err)
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(companionPause):
			}
		}
	}()
	if err := <-first; err != nil {
		stop()
		return nil, err
	}
	return c, nil
}

func (f *Folder) startCompanion(name, program string, args, env []string) (*child, error) {
	log, err := OpenLog(f.file(name + ".log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()    // the process has its own handle
	cmd := exec.Command(program, args...) //nolint:gosec,noctx // this program itself, stopped by Stop
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), env...)
	cmd.Dir = f.Path()
	return startChild(name, cmd, syscall.SIGKILL)
}

// Stop ends the companion.
func (c *Companion) Stop() {
	c.stop()
	<-c.ended
}
