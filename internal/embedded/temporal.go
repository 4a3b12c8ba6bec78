package embedded

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	temporalProgram  = "temporal-dev"
	temporalVariable = "MUSTER_TEMPORAL_DEV"
	temporalState    = "temporal.json"
	temporalLogFile  = "temporal.log"

	usualTemporalPort   = 7233
	usualTemporalUIPort = 8233

	// temporal-dev gives itself five seconds for a clean stop.
	temporalStopPatience = 6 * time.Second
)

// TemporalOptions says how to run the embedded Temporal server.
type TemporalOptions struct {
	// Binary is the temporal-dev program. Empty: beside the running program,
	// else $MUSTER_TEMPORAL_DEV, else on the PATH.
	Binary string
	// DatabaseURL names a PostgreSQL server whose user may create databases.
	DatabaseURL string
	// Database is the name of Temporal's database there; its index goes to
	// <Database>_visibility. Empty: temporal.
	Database string
	// Port and UIPort to listen on; 0 means the last run's when free, else the
	// usual one, else any.
	Port, UIPort int
	// Headless leaves the web UI out.
	Headless bool
	// Namespace to create or update, with Retention of closed workflows.
	Namespace string
	Retention time.Duration
	// SearchAttributes to put in place: name to type, such as "Keyword".
	SearchAttributes map[string]string
}

// Temporal is a running Temporal server.
type Temporal struct {
	child *child
	stdin io.Closer
	ready temporalReady
}

// temporalReady is the line that temporal-dev prints when it can be used.
type temporalReady struct {
	Ready     bool   `json:"ready"`
	Address   string `json:"address"`
	UI        string `json:"ui"`
	Namespace string `json:"namespace"`
}

// temporalRun is what one run tells the next.
type temporalRun struct {
	PID     int    `json:"pid"`
	Started string `json:"started"` // the process's identity, since pids are used again
	Port    int    `json:"port"`
	UIPort  int    `json:"ui_port"`
}

// CheckTemporal finds out early what would stop StartTemporal: no program, or a wanted
// port that another program has. One that is left over from a killed muster is stopped.
func (f *Folder) CheckTemporal(ctx context.Context, opts TemporalOptions) error {
	_, _, err := f.temporalPlace(ctx, opts)
	return err
}

// temporalPlace finds the program and the ports of a run.
func (f *Folder) temporalPlace(ctx context.Context, opts TemporalOptions) (binary string, run temporalRun, err error) {
	if binary, err = findTemporal(opts.Binary); err != nil {
		return binary, run, err
	}
	readJSON(f.file(temporalState), &run)
	if err := stopLeftover(ctx, "Temporal", run.PID, run.Started, temporalStopPatience, syscall.SIGTERM, syscall.SIGKILL); err != nil {
		return binary, run, err
	}
	if run.Port, err = choosePort(opts.Port, "--temporal-port", run.Port, usualTemporalPort); err != nil {
		return binary, run, err
	}
	if !opts.Headless {
		run.UIPort, err = choosePort(opts.UIPort, "--temporal-ui-port", run.UIPort, usualTemporalUIPort)
	}
	return binary, run, err
}

// StartTemporal runs temporal-dev and returns when workflows can be started.
// One that is left over from a killed muster is stopped first. Errors that a
// person can solve are of type [Problem].
func (f *Folder) StartTemporal(ctx context.Context, opts TemporalOptions) (*Temporal, error) {
	binary, run, err := f.temporalPlace(ctx, opts)
	if err != nil {
		return nil, err
	}
	uiPort := run.UIPort
	if opts.Headless {
		uiPort = 0
	}
	args := []string{
		"--stop-on-stdin-close", "--ip", loopback,
		"--port", strconv.Itoa(run.Port), "--ui-port", strconv.Itoa(uiPort),
		"--namespace", opts.Namespace, "--retention", opts.Retention.String(),
	}
	if opts.Database != "" {
		args = append(args, "--database", opts.Database)
	}
	for _, name := range sortedKeys(opts.SearchAttributes) {
		args = append(args, "--search-attribute", name+"="+opts.SearchAttributes[name])
	}
	log, err := OpenLog(f.file(temporalLogFile))
	if err != nil {
		return nil, unusable(f.path, err)
	}
	defer func() { _ = log.Close() }()
	var offset int64
	if info, err := log.Stat(); err == nil {
		offset = info.Size()
	}

	cmd := exec.Command(binary, args...) //nolint:gosec,noctx // it outlives the start; stopped by signal
	cmd.Env = append(os.Environ(), "MUSTER_DATABASE_URL="+opts.DatabaseURL)
	cmd.Stderr = log
	// We hold the other end for as long as we live. The kernel closes it even
	// when we are killed, and temporal-dev then stops.
	stdinRead, stdinWrite, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start Temporal: %w", err)
	}
	stdoutRead, stdoutWrite, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start Temporal: %w", err), stdinRead.Close(), stdinWrite.Close())
	}
	cmd.Stdin, cmd.Stdout = stdinRead, stdoutWrite
	process, err := startChild("Temporal", cmd, 0) // follows its standard input instead
	_, _ = stdinRead.Close(), stdoutWrite.Close()
	if err != nil {
		_, _ = stdinWrite.Close(), stdoutRead.Close()
		return nil, &Problem{
			Code: CodeTemporalFailed, Message: binary + " could not be started",
			WayOut: "run make build-devserver", Err: err,
		}
	}
	server := &Temporal{child: process, stdin: stdinWrite}

	run.PID = cmd.Process.Pid
	run.Started, _ = identity(run.PID)
	if err := writeJSON(f.file(temporalState), run); err != nil {
		_ = server.Stop(context.WithoutCancel(ctx))
		_ = stdoutRead.Close()
		return nil, unusable(f.path, err)
	}
	lines := make(chan []byte, 1)
	go func() {
		defer func() { _ = stdoutRead.Close() }()
		line, _ := bufio.NewReader(stdoutRead).ReadBytes('\n')
		lines <- line
	}()
	select {
	case line := <-lines:
		if err := json.Unmarshal(line, &server.ready); err == nil && server.ready.Ready {
			return server, nil
		}
	case <-process.exited:
	case <-ctx.Done():
	}
	_ = server.Stop(context.WithoutCancel(ctx))
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, &Problem{
		Code:    CodeTemporalFailed,
		Message: "the Temporal server could not start",
		WayOut:  fmt.Sprintf("see the end of %s: %s", log.Name(), logTail(log.Name(), offset)),
	}
}

// Address is the host:port of the server's gRPC frontend.
func (t *Temporal) Address() string { return t.ready.Address }

// UI is the URL of the web UI, empty when headless.
func (t *Temporal) UI() string { return t.ready.UI }

// Namespace is the namespace that was put in place.
func (t *Temporal) Namespace() string { return t.ready.Namespace }

// Done receives one error when the server dies without [Temporal.Stop].
func (t *Temporal) Done() <-chan error { return t.child.died }

// Stop stops the server, by force past its patience of some seconds or past
// ctx. Stop it before the PostgreSQL that it keeps its state in.
func (t *Temporal) Stop(ctx context.Context) error {
	err := t.child.stop(ctx, temporalStopPatience, syscall.SIGTERM, syscall.SIGKILL)
	_ = t.stdin.Close()
	return err
}

func findTemporal(binary string) (string, error) {
	candidates := []string{binary}
	if binary == "" {
		candidates = nil
		if self, err := os.Executable(); err == nil {
			if self, err = filepath.EvalSymlinks(self); err == nil {
				candidates = append(candidates, filepath.Join(filepath.Dir(self), temporalProgram))
			}
		}
		candidates = append(candidates, os.Getenv(temporalVariable), temporalProgram)
	}
	for _, candidate := range candidates {
		if candidate == "" {
			continue
		}
		if path, err := exec.LookPath(candidate); err == nil {
			return path, nil
		}
	}
	return "", &Problem{
		Code:    CodeTemporalMissing,
		Message: "the program " + temporalProgram + ", the embedded Temporal server, was not found",
		WayOut:  fmt.Sprintf("run make build-devserver, or set %s to the program, or MUSTER_TEMPORAL_ADDRESS to a Temporal server", temporalVariable),
	}
}
