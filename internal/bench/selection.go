package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/activities"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// growthSteps are the shares of a bench's rows that growth is measured over.
var growthSteps = []int{4, 2, 1}

// Selection compares Muster's selection of about targets out of rows generated
// customers with a bare INSERT … SELECT of the same customers. growth also measures
// how Muster's time grows from a quarter of the rows to all of them.
func (s *Suite) Selection(ctx context.Context, rows, targets int, growth bool) (*Report, error) {
	report := s.report("selection", map[string]any{"customers": rows, "targets": targets, "seed": s.Seed})
	audience, err := s.audience(ctx, rows, targets)
	if err != nil {
		return nil, err
	}
	defer audience.st.Close()
	fmt.Fprintf(s.Out, "  input: %s of %s generated customers; filter %s; tiers core (%s) and general; control group 10 %%\n",
		grouped(float64(audience.targets)), grouped(float64(rows)), audience.filter, audience.core)
	report.Input["filter"], report.Input["matching"] = audience.filter, audience.targets

	report.Sides, err = s.alternate(ctx, "selection", "targets", []side{
		{
			name: "bare statement", run: audience.bare,
			what: "INSERT INTO a fresh table of the targets' columns and primary key SELECT id and constants FROM customer WHERE " + audience.where,
		},
		{
			name: "muster select", run: audience.muster,
			what: "every step of the selection: compiles the filters, counts, filters and suppresses, tiers, control group by hash, contact policy, numbers the targets by shard, freezes them with their digest, ANALYZE",
		},
	})
	if err != nil {
		return nil, err
	}
	report.Ratios = []Ratio{ratio(report.Sides[1], report.Sides[0])}
	if growth {
		if report.Growth, err = s.selectionGrowth(ctx, rows, targets); err != nil {
			return nil, err
		}
	}
	return report, nil
}

func (s *Suite) selectionGrowth(ctx context.Context, rows, targets int) (*Growth, error) {
	g := &Growth{Side: "muster select"}
	for _, part := range growthSteps {
		a, err := s.audience(ctx, rows/part, targets/part)
		if err != nil {
			return nil, err
		}
		var seconds []float64
		for i := range s.Runs {
			run, err := s.once(ctx, fmt.Sprintf("selection-growth-%d-%d", rows/part, i+1), side{run: a.muster})
			if err != nil {
				a.st.Close()
				return nil, err
			}
			seconds = append(seconds, run.Seconds)
		}
		a.st.Close()
		g.Sizes = append(g.Sizes, Size{Rows: rows / part, Seconds: summarise(seconds).Median})
	}
	g.Exponent = exponent(g.Sizes)
	return g, nil
}

// audience is a selection over a population, in Muster's words and in SQL.
type audience struct {
	st      *store.Store
	acts    *activities.Activities
	people  people
	filter  string
	core    string
	where   string
	targets int64 // that match
}

// audience finds the bill from which on about targets customers match.
func (s *Suite) audience(ctx context.Context, rows, targets int) (_ *audience, err error) {
	st, err := s.customers(ctx, rows)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			st.Close()
		}
	}()
	a := &audience{st: st}
	if a.people, err = ensurePeople(ctx, st); err != nil {
		return nil, err
	}
	a.acts = activities.New(activities.Deps{Store: st, Policies: a.people.policies, Keys: a.people.keys, Instance: "bench"})
	const open = "has_mobile AND NOT opt_out_sms"
	bill := func(place int) (fen int64, err error) {
		err = st.Pool().QueryRow(ctx, "SELECT arpu FROM customer WHERE "+open+" ORDER BY arpu DESC OFFSET $1 LIMIT 1", place).Scan(&fen)
		if errors.Is(err, pgx.ErrNoRows) {
			return 0, campaign.Errorf(campaign.CodeInvalidParameter, "of %d customers fewer than %d can be targets; ask for fewer with --targets", rows, targets)
		}
		return fen, err
	}
	least, err := bill(targets - 1)
	if err != nil {
		return nil, err
	}
	core, err := bill(targets / 4)
	if err != nil {
		return nil, err
	}
	a.filter = fmt.Sprintf("has_mobile && !opt_out_sms && arpu >= %d", least)
	a.core = fmt.Sprintf("arpu >= %d", core)
	a.where = fmt.Sprintf("%s AND arpu >= %d", open, least)
	err = st.Pool().QueryRow(ctx, "SELECT count(*) FROM customer WHERE "+a.where).Scan(&a.targets)
	return a, err
}

// bare is what a person would write by hand to have the same customers in a table of
// the same shape: no counts, no tiers, no control group, no numbering.
func (a *audience) bare(ctx context.Context, w *stopwatch) (int64, error) {
	pool := a.st.Pool()
	if _, err := pool.Exec(ctx, "DROP TABLE IF EXISTS bare_target"); err != nil {
		return 0, err
	}
	if err := w.start(); err != nil {
		return 0, err
	}
	_, err := pool.Exec(ctx, "CREATE TABLE bare_target (LIKE campaign_target, PRIMARY KEY (campaign_id, customer_id))")
	if err != nil {
		return 0, fmt.Errorf("make bare table: %w", err)
	}
	tag, err := pool.Exec(ctx, `INSERT INTO bare_target (campaign_id, customer_id, control_u, snapshot, seq, wave, shard, score, tier, arm, channel)
		SELECT $1, id, 0, 1, 1, 1, 0, 0, 'general', 'treated', 'sms' FROM customer WHERE `+a.where, uuid.New())
	if err = errors.Join(err, w.stop()); err != nil {
		return 0, err
	}
	if n := tag.RowsAffected(); n != a.targets {
		return 0, wrong("%d rows for %d matching customers", n, a.targets)
	}
	_, err = pool.Exec(ctx, "DROP TABLE bare_target")
	return a.targets, err
}

// muster selects for a new campaign.
func (a *audience) muster(ctx context.Context, w *stopwatch) (int64, error) {
	id, err := newCampaign(ctx, a.st, a.people, plan("Bench of selection", campaign.Audience{
		Filter: a.filter, ControlPercent: 10,
		Tiers: []campaign.TierRule{{Tier: campaign.TierCore, Filter: a.core}, {Tier: campaign.TierGeneral, Filter: "true"}},
	}, a.targets), a.targets)
	if err != nil {
		return 0, err
	}
	if err := w.start(); err != nil {
		return 0, err
	}
	count, err := selectTargets(ctx, a.acts, id)
	if err = errors.Join(err, w.stop()); err != nil {
		return 0, err
	}
	if count.Targets != a.targets || len(count.Waves) != 2 {
		return 0, wrong("%d targets in %d waves for %d matching customers", count.Targets, len(count.Waves), a.targets)
	}
	// A tenth, give or take what six standard deviations of so many draws leave.
	if tenth := a.targets / 10; (count.Control-tenth)*(count.Control-tenth) > 36*a.targets*9/100 {
		return 0, wrong("the control group has %d of %d targets", count.Control, a.targets)
	}
	return count.Targets, endCampaign(ctx, a.st, id)
}

// selectTargets does every step of a campaign's selection.
func selectTargets(ctx context.Context, acts *activities.Activities, id string) (count campaign.TargetCount, err error) {
	for _, step := range campaign.SelectionSteps() {
		in := campaign.SelectionStepInput{SelectionInput: campaign.SelectionInput{CampaignID: id, Revision: 1}, Step: step}
		if count, err = acts.SelectionStep(ctx, in); err != nil {
			return count, err
		}
	}
	return count, nil
}
