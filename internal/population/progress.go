package population

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Progress is how far a piece of work has come.
type Progress struct {
	Work      string // what is being done, e.g. "loading Generated operator customers"
	Unit      string // what is counted
	Done      int64
	Total     int64         // -1 when it is not known
	PerSecond float64       // since the work began
	Left      time.Duration // 0 when it cannot be told
}

// String gives one line for a terminal.
func (p Progress) String() string {
	line := fmt.Sprintf("%s: %d", p.Work, p.Done)
	if p.Total >= 0 {
		line += fmt.Sprintf(" of %d", p.Total)
	}
	line += fmt.Sprintf(" %s, %.0f/s", p.Unit, p.PerSecond)
	if p.Left > 0 {
		line += fmt.Sprintf(", about %s left", max(p.Left.Round(time.Second), time.Second))
	}
	return line
}

// Printer writes progress to w, one line for each piece of work and then at most one a
// second, and one at its end.
func Printer(w io.Writer) func(Progress) {
	var work string
	var last time.Time
	return func(p Progress) {
		if p.Work == work && p.Done != p.Total && time.Since(last) < time.Second {
			return
		}
		work, last = p.Work, time.Now()
		_, _ = fmt.Fprintln(w, p)
	}
}

// meter turns counts into Progress.
type meter struct {
	work, unit string
	began      time.Time
	report     func(Progress)
}

func newMeter(work, unit string, report func(Progress)) *meter {
	return &meter{work: work, unit: unit, began: time.Now(), report: report}
}

func (m *meter) set(done, total int64) {
	if m.report == nil {
		return
	}
	p := Progress{Work: m.work, Unit: m.unit, Done: done, Total: total}
	if spent := time.Since(m.began); spent > 0 && done > 0 {
		p.PerSecond = float64(done) / spent.Seconds()
		if total > done {
			p.Left = time.Duration(float64(total-done) / p.PerSecond * float64(time.Second))
		}
	}
	m.report(p)
}

// offline is a client that asks nobody.
func offline() *http.Client { return &http.Client{Transport: offlineTransport{}} }

type offlineTransport struct{}

func (offlineTransport) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("fetching is switched off")
}
