package demo

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/apiuser"
)

// printer writes lines with the time since the demo began and the campaign that they
// are about. It may be used by several goroutines.
type printer struct {
	mu    *sync.Mutex
	w     io.Writer
	began time.Time
	label string
}

func newPrinter(w io.Writer) *printer { return &printer{mu: &sync.Mutex{}, w: w, began: time.Now()} }

// of returns the printer of the n-th story.
func (p *printer) of(n int) *printer {
	return &printer{mu: p.mu, w: p.w, began: p.began, label: fmt.Sprintf("[%d] ", n)}
}

// Write makes the printer a place for whole blocks of text.
func (p *printer) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.w.Write(b)
}

func (p *printer) line(format string, args ...any) { p.at(time.Now(), format, args...) }

// text prints a line that belongs to the one before.
func (p *printer) text(format string, args ...any) {
	_, _ = fmt.Fprintf(p, "%s%s%s\n", indent, p.label, fmt.Sprintf(format, args...))
}

func (p *printer) at(t time.Time, format string, args ...any) {
	// The clock of the database may differ a little from ours.
	_, _ = fmt.Fprintf(p, "%6.1f s  %s%s\n", max(0, t.Sub(p.began).Seconds()), p.label, fmt.Sprintf(format, args...))
}

// eventWords puts the audit events of a campaign into words. An event that is not here
// is printed by its name; those with no words are steps between others.
var eventWords = map[string]string{
	"campaign.created":             "created the campaign",
	"campaign.revised":             "wrote a new plan revision",
	"campaign.submitted":           "submitted the plan",
	"campaign.amended":             "the changed plan is in force",
	"campaign.winding_down":        "running ends",
	"campaign.amendment_outdated":  "the change that waited for its approval rests on a plan that is no longer in force: amend again",
	"campaign.problem":             "the campaign cannot go on by itself",
	"sign_off.approve":             "",
	"sign_off.return":              "",
	"sign_off.reject":              "",
	"approval.approve":             "signed",
	"approval.reject":              "rejected",
	"approval.return":              "returned the plan for change",
	"authority.campaign.submit":    "",
	"authority.campaign.amend":     "",
	"authority.review.decide":      "",
	"access.denied":                "was refused",
	"command.refused":              "was refused",
	"stage.draft":                  "",
	"stage.approval":               "",
	"stage.preparation":            "approved; money is reserved",
	"stage.targeting":              "selecting targets",
	"credit.granted":               "", // told as a sum
	"credit.expired":               "",
	"credit.used":                  "",
	"selection.frozen":             "targets are frozen",
	"stage.running":                "running",
	"wave.begun":                   "", // told with their numbers
	"wave.done":                    "",
	"wave.failed":                  "a wave ended before its time",
	"review.failed":                "the review could not be held; the plan goes on",
	"review.begun":                 "mid-course review: measuring",
	"review.open":                  "mid-course review: findings are out, a decision is awaited",
	"review.accept":                "accepted the recommendation",
	"review.keep":                  "kept the plan",
	"review.lapsed":                "nobody decided the review in time; the plan's default applies",
	"stage.settlement":             "settlement: late outcomes are accepted, then the money is closed",
	"stage.evaluation":             "evaluation",
	"stage.closed":                 "closed",
	"campaign.amendment_submitted": "the change waits for its approval",
}

// event prints one audit event.
func (p *printer) event(e client.HistoryEvent) {
	text, known := eventWords[e.Event]
	if known && text == "" && e.Allowed {
		return
	}
	if !known {
		text = e.Event
	}
	if e.Actor != "" {
		text = e.Actor + " " + text
	}
	p.at(e.At, "%s%s", text, apiuser.DetailOf(e))
}

// contacts says in one line how far the contacts of the latest wave are.
func contacts(s client.ContactSummary) string {
	latest := 0
	for _, c := range s.Items {
		latest = max(latest, c.Wave)
	}
	var order []campaign.Channel
	total, ended := map[campaign.Channel]int64{}, map[campaign.Channel]int64{}
	for _, c := range s.Items {
		if c.Wave != latest {
			continue
		}
		if _, known := total[c.Channel]; !known {
			order = append(order, c.Channel)
		}
		total[c.Channel] += c.Contacts
		if c.State.Settled() {
			ended[c.Channel] += c.Contacts
		}
	}
	var parts []string
	for _, channel := range order {
		parts = append(parts, fmt.Sprintf("%s %s of %s", channel, count(ended[channel]), count(total[channel])))
	}
	if len(parts) == 0 {
		return ""
	}
	for _, o := range s.Outcomes {
		if o.Kind == campaign.OutcomeOrdered {
			parts = append(parts, count(o.Outcomes)+" orders reported")
		}
	}
	return fmt.Sprintf("wave %d: %s", latest, strings.Join(parts, ", "))
}
