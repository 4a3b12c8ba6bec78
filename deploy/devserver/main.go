// Command temporal-dev runs a whole Temporal server and its web UI in one
// process, with every workflow kept in PostgreSQL. It is what `muster up`
// starts on one machine; a production installation uses a Temporal cluster.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// stopWithin bounds a clean stop. What is not finished by then is recovered
// from PostgreSQL at the next start, as after a crash.
const stopWithin = 5 * time.Second

// readyLine is the one line that temporal-dev prints on standard output, as
// JSON, once workflows can be started.
type readyLine struct {
	Ready     bool   `json:"ready"`
	Address   string `json:"address"`      // host:port of the gRPC frontend
	UI        string `json:"ui,omitempty"` // URL of the web UI; empty when headless
	Namespace string `json:"namespace"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr)
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "temporal-dev:", err)
		os.Exit(1)
	}
}

// run serves until the context ends or, with --stop-on-stdin-close, until
// stdin does.
func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) error {
	opts, err := parseOptions(args, getenv, stderr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if opts.stopOnStdinClose {
		go func() {
			_, _ = io.Copy(io.Discard, stdin)
			cancel()
		}()
	}

	disarm := context.AfterFunc(ctx, func() {
		time.Sleep(stopWithin)
		fmt.Fprintln(stderr, "temporal-dev: not stopped in time, ending; the next start recovers")
		os.Exit(1)
	})
	defer disarm()

	srv, err := start(ctx, opts)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	if err := json.NewEncoder(stdout).Encode(srv.ready()); err != nil {
		srv.stop()
		return fmt.Errorf("report readiness: %w", err)
	}
	select {
	case <-ctx.Done():
	case err = <-srv.failed:
		cancel()
	}
	srv.stop()
	return err
}
