package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/musterhq/muster/activities"
	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/evaluation"
)

const indent = "          "

// writeReview prints what a review found and what it recommends.
func writeReview(w io.Writer, r client.Review) error {
	var found activities.Findings
	if err := json.Unmarshal(r.Findings, &found); err != nil {
		return fmt.Errorf("read findings: %w", err)
	}
	t := table{head: []string{"channel", "contacts", "successes", "planned", "performance", "P(<80 % of plan)", "finding"}}
	for _, f := range found.Channels {
		figure := func(name, format string) string {
			v, ok := f.Figures[name]
			if !ok {
				return "-"
			}
			return fmt.Sprintf(format, v)
		}
		t.row(f.Channel, figure("contacts", "%.0f"), figure("positive", "%.0f"), figure("expected", "%.1f"),
			figure("performance", "%.2f × plan"), figure("probability_below_plan", "%.3f"), words(string(f.Code)))
	}
	t.write(w, indent)
	if len(r.Recommendation) == 0 {
		_, _ = fmt.Fprintln(w, indent+"recommendation: go on unchanged")
		return nil
	}
	var advice activities.Recommendation
	if err := json.Unmarshal(r.Recommendation, &advice); err != nil {
		return fmt.Errorf("read recommendation: %w", err)
	}
	for _, c := range advice.Waves {
		_, _ = fmt.Fprintf(w, "%srecommendation: wave %d uses %s instead of %s\n", indent, c.Number, series(c.To), series(c.From))
		for _, e := range c.Why {
			_, _ = fmt.Fprintf(w, "%s  %s: %s (%s)\n", indent, e.Channel, e.Action, reasons(e.Reasons))
		}
	}
	return nil
}

func reasons(codes []evaluation.FindingCode) string {
	all := make([]string, len(codes))
	for i, c := range codes {
		all[i] = words(string(c))
	}
	return strings.Join(all, ", ")
}

func series(channels []campaign.Channel) string {
	names := make([]string, len(channels))
	for i, c := range channels {
		names[i] = string(c)
	}
	return strings.Join(names, " then ")
}

// writeReport prints the final evaluation.
func writeReport(w io.Writer, r activities.Report) {
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	p("")
	p("Evaluation: %s", r.Name)
	if r.Simulated {
		p("SIMULATED: nothing left this machine and nobody was contacted.")
	}
	p("Outcomes: %s.", r.Source)
	p("Goal: %s %s wanted, %s seen among the treated: %s.", count(r.Goal.Target), r.Goal.Metric, count(r.Goal.Actual),
		map[bool]string{true: "reached", false: "not reached"}[r.Goal.Reached])
	p("")
	writeBudget(w, r)
	for _, c := range r.Credit {
		p("Prepaid credit %s: promised to %s customers of at most %s; %s granted, of it %s used, %s expired, %s taken back, %s outstanding; %s still to come.",
			c.Line, count(c.Customers), count(c.Most), amount(c.Granted), amount(c.Used), amount(c.Expired), amount(c.ClawedBack), amount(c.Outstanding), amount(c.Promised))
	}
	p("")
	p("Targets: %s frozen; each is in exactly one place: %s (%s).", count(r.Targets.Frozen), places(r.Targets.Places),
		map[bool]string{true: "adds up", false: "DOES NOT ADD UP"}[r.Targets.AddsUp])
	p("")
	writeFunnel(w, r.Funnel)
	p("")
	writeControl(w, r)
	p("")
	e := r.Economics
	p("Benefit of all successes: %s, cost %s %s, net %s.", money(e.Benefit, r.Currency), amount(e.Cost), r.Currency, money(e.Net, r.Currency))
	p("That is what was seen, not what the campaign caused. Net value of caused successes: %s.", money(e.IncrementalNet, r.Currency))
	p("Cost per success: %s. Verdict: %s.", money(e.CostPerSuccess, r.Currency), words(string(e.Verdict)))
}

func writeBudget(w io.Writer, r activities.Report) {
	t := table{head: []string{"budget (" + r.Currency + ")", "category", "planned", "actual", "variance", "used"}}
	add := func(name string, b evaluation.BudgetResult) {
		t.row(name, words(b.Category), amount(b.Planned), amount(b.Actual), amount(b.Variance), percent(b.UsedShare))
	}
	for _, b := range r.Budget.Lines {
		add(b.Line, b)
	}
	add("total", r.Budget.Total)
	t.write(w, "")
	for _, b := range r.Budget.Lines {
		if over := r.Budget.Exceeded[b.Line]; over > 0 {
			_, _ = fmt.Fprintf(w, "%s cost %s more than its ceiling; the ledger paid none of it.\n", b.Line, amount(over))
		}
	}
}

func writeFunnel(w io.Writer, f activities.FunnelReport) {
	t := table{head: []string{"funnel", "tier", "planned", "sent", "reached", "successes", "reach", "success"}}
	add := func(name string, f evaluation.FunnelRates) {
		t.row(name, f.Tier, count(f.Planned), count(f.Sent), count(f.Reached), count(f.Positive), percent(f.Reach), percent(f.Success))
	}
	for _, row := range f.Rows {
		add("wave "+strconv.Itoa(row.Wave)+" "+row.Channel, row)
	}
	for _, row := range f.ByChannel {
		add("all waves "+row.Channel, row)
	}
	t.write(w, "")
}

func writeControl(w io.Writer, r activities.Report) {
	c := r.Control
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	p("Control group: %s of %s targets held out, %s contacted (must be 0).", count(c.Control), count(c.Control+c.Treated), count(c.ControlContacted))
	if c.Effect.Incremental.Estimable {
		p("Treated %s, control %s; difference %s.", interval(c.Effect.Treated), interval(c.Effect.Control), interval(c.Effect.Difference))
		p("Successes caused by the campaign: %.0f.", *c.Effect.Incremental.Value)
		return
	}
	p("Incremental effect: not estimable (%s).", words(string(c.Reason)))
	if c.Reason == evaluation.ReasonControlOutcomesNotObserved {
		p("The source saw only people who were contacted, so what the control group would have done by itself is not known.")
	}
}

func places(counts map[string]int64) string {
	var all []string
	for _, state := range append([]string{"control", "not_contacted"}, stateNames()...) {
		if n := counts[state]; n > 0 {
			all = append(all, words(state)+" "+count(n))
		}
	}
	return strings.Join(all, ", ")
}

func stateNames() []string {
	var names []string
	for _, s := range campaign.ContactStates() {
		names = append(names, string(s))
	}
	return names
}

// WriteReplay prints the report of a replay.
func WriteReplay(w io.Writer, r campaign.ReplayReport) {
	if r.OK {
		_, _ = fmt.Fprintf(w, "Replay: %d archived histories with %s events replayed by build %s, all the same.\n", len(r.Runs)+r.Omitted, count(r.Events), r.BuildID)
		return
	}
	_, _ = fmt.Fprintf(w, "Replay: FAILED on build %s.\n", r.BuildID)
	for _, run := range r.Runs {
		if !run.OK {
			_, _ = fmt.Fprintf(w, "  %s (%s): %s\n", run.WorkflowID, run.Type, run.Fault)
		}
	}
}
