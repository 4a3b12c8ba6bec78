package demo

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/apiuser"
)

// told is what the reader of the terminal knows already.
type told struct {
	targets     bool
	begun, done map[int]bool // waves
	progress    string
	at          time.Time // of the last progress
}

// report prints what is new since the last look.
func (d *driver) report(ctx context.Context, s campaign.Status) error {
	if err := d.news(ctx); err != nil {
		return err
	}
	if !d.story.whole {
		return nil
	}
	if s.Targets > 0 && !d.told.targets {
		if err := d.targets(ctx); err != nil {
			return err
		}
		d.told.targets = true
	}
	d.waves(s)
	if s.Stage != campaign.StageRunning {
		return nil
	}
	return d.progress(ctx, s)
}

// news prints the audit events since the last time.
func (d *driver) news(ctx context.Context) error {
	if d.history == nil {
		d.history = apiuser.NewHistory(d.auditor, d.result.CampaignID)
	}
	for e, err := range d.history.News(ctx) {
		if err != nil {
			return err
		}
		d.out.event(e)
	}
	return nil
}

// targets prints the way from the unit's customers to the frozen targets.
func (d *driver) targets(ctx context.Context) error {
	answer, err := apiuser.Do(ctx, d.planner, "", func(ctx context.Context, api *client.Session) (*client.GetTargetsResponse, error) {
		return api.GetTargetsWithResponse(ctx, d.result.CampaignID)
	})
	if err != nil {
		return fmt.Errorf("read the targets: %w", err)
	}
	if c := answer.JSON200.Counts; c != nil {
		d.out.text("%s", waterfall(*c))
	}
	return nil
}

func waterfall(c campaign.TargetCount) string {
	parts := []string{
		count(c.Considered) + " customers of the unit", count(c.Matching) + " match", count(c.Suppressed) + " may not be contacted",
		count(c.Targets) + " targets", count(c.Control) + " of them held out",
	}
	for _, w := range c.Waves {
		parts = append(parts, fmt.Sprintf("wave %d has %s to contact", w.Wave, count(w.Treated)))
	}
	return strings.Join(parts, ", ")
}

// waves prints which waves began and which are done.
func (d *driver) waves(s campaign.Status) {
	if d.told.begun == nil {
		d.told.begun, d.told.done = map[int]bool{}, map[int]bool{}
	}
	for _, w := range s.Waves {
		if w.Begun && !d.told.begun[w.Number] {
			d.told.begun[w.Number] = true
			d.out.line("wave %d begins: %s", w.Number, series(w.Channels))
		}
		if w.Done && !d.told.done[w.Number] {
			d.told.done[w.Number] = true
			d.out.line("wave %d is done", w.Number)
		}
	}
}

// progress prints how far the contacts are, every few seconds while that changes, and
// what is waited for when nothing does.
func (d *driver) progress(ctx context.Context, s campaign.Status) error {
	const every, silence = 3 * time.Second, 10 * time.Second
	since := time.Since(d.told.at)
	if since < every {
		return nil
	}
	answer, err := apiuser.Do(ctx, d.planner, "", func(ctx context.Context, api *client.Session) (*client.SummariseContactsResponse, error) {
		return api.SummariseContactsWithResponse(ctx, d.result.CampaignID)
	})
	if err != nil {
		return fmt.Errorf("read the contacts: %w", err)
	}
	switch now := contacts(*answer.JSON200); {
	case now != "" && now != d.told.progress:
		d.out.line("%s", now)
		d.told.progress, d.told.at = now, time.Now()
	case since >= silence:
		if next := upcoming(s, time.Now()); next != "" {
			d.out.line("waiting: %s", next)
		}
		d.told.at = time.Now()
	}
	return nil
}

// upcoming says what begins next by the clock.
func upcoming(s campaign.Status, now time.Time) string {
	what, when := "", time.Time{}
	sooner := func(t time.Time, format string, args ...any) {
		if t.After(now) && (when.IsZero() || t.Before(when)) {
			what, when = fmt.Sprintf(format, args...), t
		}
	}
	for _, w := range s.Waves {
		if !w.Begun {
			sooner(w.StartsAt, "wave %d begins", w.Number)
		}
	}
	for _, r := range s.Reviews {
		if !r.Begun {
			sooner(r.StartsAt, "review %d begins", r.Number)
		}
	}
	if what == "" {
		return ""
	}
	return fmt.Sprintf("%s in %.0f s", what, when.Sub(now).Seconds())
}
