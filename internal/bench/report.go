package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// Report is the result of a bench.
type Report struct {
	Bench   string         `json:"bench"`
	At      time.Time      `json:"at"`
	Machine Machine        `json:"machine"`
	Input   map[string]any `json:"input"`
	Sides   []Side         `json:"sides"`
	Ratios  []Ratio        `json:"ratios"`
	Growth  *Growth        `json:"growth,omitempty"`
	Notes   []string       `json:"notes,omitempty"`
}

// Side is one of the paths compared, with all of its runs.
type Side struct {
	Name      string  `json:"name"`
	What      string  `json:"what"`
	Unit      string  `json:"unit"` // what is counted, e.g. "rows"
	Runs      []Run   `json:"runs"`
	PerSecond Summary `json:"per_second"`
}

// Run is one measurement. CPU and memory are by process; both are empty where the
// operating system does not tell.
type Run struct {
	Items     int64              `json:"items"`
	Seconds   float64            `json:"seconds"`
	PerSecond float64            `json:"per_second"`
	CPU       map[string]float64 `json:"cpu_seconds,omitempty"`
	Peak      map[string]int64   `json:"peak_resident_bytes,omitempty"`
	Also      map[string]float64 `json:"also,omitempty"`
}

func (r Run) line(name, unit string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-15s %8.2f s %10s %s/s", name, r.Seconds, grouped(r.PerSecond), unit)
	if len(r.CPU) > 0 {
		b.WriteString("   CPU")
		for _, process := range slices.Sorted(maps.Keys(r.CPU)) {
			fmt.Fprintf(&b, " %s %.1f s", process, r.CPU[process])
		}
	}
	if len(r.Peak) > 0 {
		b.WriteString("   peak memory")
		for _, process := range slices.Sorted(maps.Keys(r.Peak)) {
			fmt.Fprintf(&b, " %s %d MB", process, r.Peak[process]>>20)
		}
	}
	for _, what := range slices.Sorted(maps.Keys(r.Also)) {
		fmt.Fprintf(&b, "   %s %.2f", what, r.Also[what])
	}
	return b.String()
}

// Print writes the figures of the report, its runs apart.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintln(w)
	for _, s := range r.Sides {
		fmt.Fprintf(w, "  %-28s %10s %s/s   (%s to %s)\n", s.Name, grouped(s.PerSecond.Median), s.Unit, grouped(s.PerSecond.Min), grouped(s.PerSecond.Max))
	}
	for _, x := range r.Ratios {
		fmt.Fprintf(w, "  %-32s %6.2f   (%.2f to %.2f)", x.Of+" / "+x.To, x.Rate.Median, x.Rate.Min, x.Rate.Max)
		if x.CPU.Median > 0 {
			fmt.Fprintf(w, "   by CPU time %.2f (%.2f to %.2f)", x.CPU.Median, x.CPU.Min, x.CPU.Max)
		}
		fmt.Fprintln(w)
	}
	if r.Growth != nil {
		fmt.Fprintf(w, "\n  Growth of %s: time grows as rows to the power of %.2f\n", r.Growth.Side, r.Growth.Exponent)
		for _, s := range r.Growth.Sizes {
			fmt.Fprintf(w, "  %12s rows %8.2f s\n", grouped(float64(s.Rows)), s.Seconds)
		}
	}
	for _, note := range r.Notes {
		fmt.Fprintf(w, "\n  %s\n", note)
	}
}

// Save writes the report as JSON.
func (r *Report) Save(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("keep the report: %w", err)
	}
	return nil
}

// grouped rounds to a whole number with its thousands set apart.
func grouped(x float64) string {
	digits := fmt.Sprintf("%.0f", x)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

func (s *Suite) report(bench string, input map[string]any) *Report {
	r := &Report{Bench: bench, At: time.Now().UTC(), Machine: s.Engines.machine(), Input: input}
	fmt.Fprintf(s.Out, "muster bench %s\n  machine: %s\n", bench, r.Machine)
	return r
}
