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
			what: "every step of the selection of a campaign that is not simulated: compiles the filters, counts, filters and suppresses, tiers, control group by hash, reserves contacts by the standard policy, numbers the targets by shard, freezes them with their digest, ANALYZE",
		},
	})
	if err != nil {
		return nil, err
	}
	report.Ratios = []Ratio{ratio(report.Sides[1], report.Sides[0])}
	report.Notes = append(report.Notes, fmt.Sprintf("Customers have %s contacts of the last month in the ledger; of those who match, the contact policy leaves out %s.",
		grouped(float64(audience.contacts)), grouped(float64(audience.suppressed))))
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

	contacts   int64 // that customers had before
	suppressed int64 // of those who match
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
	if err = st.Pool().QueryRow(ctx, "SELECT count(*) FROM customer WHERE "+a.where).Scan(&a.targets); err != nil {
		return nil, err
	}
	return a, a.before(ctx)
}

// earlier begins the ids of the campaigns that a bench's customers know already.
const earlier = "00000000-0000-4000-8000-00000000000"

// before gives the customers a past that the contact policy must look at, the same for every
// run: of three in ten a contact of the last month, of fewer up to five, and of one in a
// hundred an opt-out, a refused consent, a complaint, a quarantine.
func (a *audience) before(ctx context.Context) error {
	pool := a.st.Pool()
	if _, err := pool.Exec(ctx, `TRUNCATE contact_ledger, contact_reservation, opt_out, consent, quarantine`); err != nil {
		return fmt.Errorf("clear contacts: %w", err)
	}
	drawn := func(what string) string {
		return `('x' || substr(md5(id::text || '` + what + `'), 1, 6))::bit(24)::int % 100`
	}
	for i, percent := range []int{30, 20, 12, 8, 5} {
		tag, err := pool.Exec(ctx, `INSERT INTO contact_ledger (customer_id, campaign_id, at, expires_at, day, policy, bucket, wave, priority, channel, purpose, type, state, simulated)
			SELECT id, $1, at, at, (at AT TIME ZONE time_zone)::date, 0, get_byte(uuid_send(id), 15), 1, 0, 's', 'm', 'u', 'D', false
			FROM (SELECT id, time_zone, now() - make_interval(days => 1 + $2 * (`+drawn("days")+` % 6), hours => $2) AS at FROM customer WHERE `+drawn("who")+` < $3) x
			ORDER BY get_byte(uuid_send(id), 15), id`, earlier+fmt.Sprint(i), i+1, percent)
		if err != nil {
			return fmt.Errorf("make contacts: %w", err)
		}
		a.contacts += tag.RowsAffected()
	}
	_, err := pool.Exec(ctx, `
		INSERT INTO opt_out (customer_id, channel, purpose, at, source) SELECT id, 'sms', 'marketing', now(), 'bench' FROM customer WHERE `+drawn("what")+` = 0;
		INSERT INTO consent (customer_id, channel, purpose, given, at, source) SELECT id, 'sms', 'marketing', false, now(), 'bench' FROM customer WHERE `+drawn("what")+` = 1;
		INSERT INTO quarantine (customer_id, why, until, at) SELECT id, 'bench', now() + interval '30 days', now() FROM customer WHERE `+drawn("what")+` = 2;
		INSERT INTO contact_history (customer_id, at, kind, direction, channel, outcome, source, source_id)
		    SELECT id, now(), 'complaint', 'in', 'call', '', 'bench', 'bench' FROM customer WHERE `+drawn("what")+` = 3 ON CONFLICT DO NOTHING`)
	if err == nil {
		_, err = pool.Exec(ctx, `VACUUM ANALYZE contact_ledger, opt_out, consent, quarantine, contact_history`)
	}
	if err != nil {
		return fmt.Errorf("make suppressions: %w", err)
	}
	return nil
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
	p := plan("Bench of selection", campaign.Audience{
		Filter: a.filter, ControlPercent: 10, CountTolerance: 50,
		Tiers: []campaign.TierRule{{Tier: campaign.TierCore, Filter: a.core}, {Tier: campaign.TierGeneral, Filter: "true"}},
	}, a.targets)
	p.Simulated = false // the clock of a simulated campaign is held to few of the policy's rules
	// Those of earlier runs do not count together with this one.
	if _, err := a.st.Pool().Exec(ctx, `UPDATE campaign SET stage = 'rejected'`); err != nil {
		return 0, fmt.Errorf("end measured campaigns: %w", err)
	}
	id, err := newCampaign(ctx, a.st, a.people, p, a.targets)
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
	if count.Targets+count.Suppressed != a.targets || len(count.Waves) != 2 {
		return 0, wrong("%d targets in %d waves and %d suppressed for %d matching customers", count.Targets, len(count.Waves), count.Suppressed, a.targets)
	}
	if a.suppressed != 0 && a.suppressed != count.Suppressed {
		return 0, wrong("%d customers are suppressed, %d were before", count.Suppressed, a.suppressed)
	}
	a.suppressed = count.Suppressed
	// A tenth, give or take what six standard deviations of so many draws leave.
	if tenth := count.Targets / 10; (count.Control-tenth)*(count.Control-tenth) > 36*count.Targets*9/100 {
		return 0, wrong("the control group has %d of %d targets", count.Control, count.Targets)
	}
	if err := endCampaign(ctx, a.st, id); err != nil {
		return 0, err
	}
	return a.targets, a.forget(ctx, id)
}

// forget drops what a run has left that the next one would come upon.
func (a *audience) forget(ctx context.Context, id string) error {
	pool := a.st.Pool()
	if _, err := pool.Exec(ctx, `DELETE FROM contact_ledger WHERE campaign_id = $1`, id); err != nil {
		return fmt.Errorf("forget contacts: %w", err)
	}
	_, err := pool.Exec(ctx, `ALTER TABLE suppression DISABLE TRIGGER USER; TRUNCATE suppression, contact_reservation; ALTER TABLE suppression ENABLE TRIGGER USER`)
	if err == nil {
		_, err = pool.Exec(ctx, `VACUUM contact_ledger`)
	}
	if err != nil {
		return fmt.Errorf("forget contacts: %w", err)
	}
	return nil
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
