package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	selection "github.com/musterhq/muster/audience"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/population"
)

// Preview compares the head-count that a planner waits for with a bare count of the same
// customers: three predicates over rows generated customers, about targets of which match.
func (s *Suite) Preview(ctx context.Context, rows, targets int) (*Report, error) {
	report := s.report("preview", map[string]any{"customers": rows, "targets": targets, "seed": s.Seed})
	a, err := s.audience(ctx, rows, targets)
	if err != nil {
		return nil, err
	}
	defer a.st.Close()
	fmt.Fprintf(s.Out, "  input: %s of %s generated customers; filter %s\n", grouped(float64(a.targets)), grouped(float64(rows)), a.filter)
	report.Input["filter"], report.Input["matching"] = a.filter, a.targets
	unit := campaign.OrgUnit(population.OperatorUnits[0]).Tenant()
	question := selection.Question{Unit: unit, Filter: a.filter, Channels: []campaign.Channel{campaign.ChannelSMS}}
	ask := func(ctx context.Context) (*selection.Preview, error) {
		return selection.Ask(ctx, a.st, question, time.Now())
	}

	report.Sides, err = s.alternate(ctx, "preview", "customers", []side{
		{
			name: "bare count", what: "SELECT count(*) FROM customer WHERE " + a.where,
			run: func(ctx context.Context, w *stopwatch) (int64, error) {
				if err := w.start(); err != nil {
					return 0, err
				}
				var n int64
				err := a.st.Pool().QueryRow(ctx, "SELECT count(*) FROM customer WHERE "+a.where).Scan(&n)
				if err = errors.Join(err, w.stop()); err != nil {
					return 0, err
				}
				if n != a.targets {
					return 0, wrong("%d customers match, not %d", n, a.targets)
				}
				return int64(rows), nil
			},
		},
		{
			name: "muster preview", what: "the counts of a preview: compiles the filter with the words and the contact policy of now, and counts in one scan who is left after each condition, what takes them out, and the eligible by unit",
			run: func(ctx context.Context, w *stopwatch) (int64, error) {
				if err := w.start(); err != nil {
					return 0, err
				}
				p, err := ask(ctx)
				if err != nil {
					return 0, err
				}
				counts, err := p.Count(ctx, a.st)
				if err = errors.Join(err, w.stop()); err != nil {
					return 0, err
				}
				left := counts.Conditions[len(counts.Conditions)-1].Customers
				if left != a.targets || counts.InUnit.Customers != int64(rows) {
					return 0, wrong("%d of %d customers match, not %d of %d", left, counts.InUnit.Customers, a.targets, rows)
				}
				return int64(rows), nil
			},
		},
		{
			name: "muster estimate", what: "the estimate that is shown first where counting takes long: the same of a sample of the table's blocks",
			run: func(ctx context.Context, w *stopwatch) (int64, error) {
				if err := w.start(); err != nil {
					return 0, err
				}
				p, err := ask(ctx)
				if err != nil {
					return 0, err
				}
				counts, err := p.Estimate(ctx, a.st)
				if err = errors.Join(err, w.stop()); err != nil {
					return 0, err
				}
				left := counts.Conditions[len(counts.Conditions)-1]
				w.note("standard error, % of the count", 100*left.StandardError/float64(a.targets))
				if off := float64(left.Customers - a.targets); off*off > 36*left.StandardError*left.StandardError {
					return 0, wrong("the estimate is %d, and %d match: six standard errors off", left.Customers, a.targets)
				}
				return int64(rows), nil
			},
		},
	})
	if err != nil {
		return nil, err
	}
	report.Ratios = []Ratio{ratio(report.Sides[1], report.Sides[0]), ratio(report.Sides[2], report.Sides[0])}
	return report, nil
}
