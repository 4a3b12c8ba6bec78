// Package bench measures Muster's hot paths beside what the engine below them gives:
// the bare statement, COPY or loop and Muster's own path run alternately in one process,
// on one PostgreSQL with durable settings, over the same generated customers. A figure
// alone says little about a program; its ratio to the limit in the same run does.
//
// Every run's result is checked: a path that is fast and wrong is an error.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"
	"time"
)

// Suite runs benches on engines of its own.
type Suite struct {
	Engines *Engines
	Out     io.Writer // what a person reads while it runs
	Runs    int       // of each side; at least 1
	Seed    uint64    // of the generated customers
	Profile string    // folder for CPU profiles of Muster's runs; empty for none
}

// side is one of the paths that a bench compares.
type side struct {
	name string // e.g. "bare COPY"
	what string // what it does, in a sentence
	run  func(context.Context, *stopwatch) (items int64, err error)
}

// stopwatch tells the part of a run that counts from its preparation and its check.
type stopwatch struct {
	suite   *Suite
	name    string
	run     Run
	began   time.Time
	meter   *meter
	profile *os.File
}

func (w *stopwatch) start() error {
	w.meter = startMeter(w.suite.Engines.roles())
	if dir := w.suite.Profile; dir != "" {
		err := os.MkdirAll(dir, 0o750)
		if err == nil {
			w.profile, err = os.Create(filepath.Join(dir, w.name+".pprof"))
		}
		if err == nil {
			err = pprof.StartCPUProfile(w.profile)
		}
		if err != nil {
			return fmt.Errorf("keep profiles: %w", err)
		}
	}
	w.began = time.Now()
	return nil
}

// stop ends what counts; calling it again does nothing.
func (w *stopwatch) stop() error {
	if w.meter == nil {
		return nil
	}
	w.run.Seconds = time.Since(w.began).Seconds()
	w.run.CPU, w.run.Peak = w.meter.end()
	w.meter = nil
	if w.profile == nil {
		return nil
	}
	pprof.StopCPUProfile()
	return w.profile.Close()
}

// note keeps a figure of the run beside its rate.
func (w *stopwatch) note(name string, value float64) {
	if w.run.Also == nil {
		w.run.Also = map[string]float64{}
	}
	w.run.Also[name] = value
}

// alternate runs the sides in turn, so that whatever the machine does beside meets all
// of them, and returns what it measured.
func (s *Suite) alternate(ctx context.Context, bench, unit string, sides []side) ([]Side, error) {
	measured := make([]Side, len(sides))
	for i, x := range sides {
		measured[i] = Side{Name: x.name, What: x.what, Unit: unit}
		fmt.Fprintf(s.Out, "  %s: %s\n", x.name, x.what)
	}
	fmt.Fprintln(s.Out)
	for round := range s.Runs {
		for i, x := range sides {
			run, err := s.once(ctx, fmt.Sprintf("%s-%d-%d", bench, i+1, round+1), x)
			if err != nil {
				return nil, fmt.Errorf("%s, run %d: %w", x.name, round+1, err)
			}
			measured[i].Runs = append(measured[i].Runs, run)
			fmt.Fprintf(s.Out, "  run %d  %s\n", round+1, run.line(x.name, unit))
		}
	}
	for i := range measured {
		measured[i].PerSecond = summarise(rates(measured[i].Runs))
	}
	return measured, nil
}

func (s *Suite) once(ctx context.Context, name string, x side) (Run, error) {
	// What one side left to be written must not be paid for by the next.
	if err := s.Engines.checkpoint(ctx); err != nil {
		return Run{}, err
	}
	w := &stopwatch{suite: s, name: name}
	items, err := x.run(ctx, w)
	if err = errors.Join(err, w.stop()); err != nil {
		return Run{}, err
	}
	w.run.Items, w.run.PerSecond = items, float64(items)/w.run.Seconds
	return w.run, nil
}
