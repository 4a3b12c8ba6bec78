package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
	"github.com/musterhq/muster/targeting"
)

const (
	policyDatabase = "policy"
	policyMost     = 2 // contacts in policyDays
	policyDays     = 7
)

// crowd is a bench of the contact policy: campaigns that ask for the same customers at once.
type crowd struct {
	st        *store.Store
	customers int
	campaigns int
}

// Policy lets campaigns reserve contacts with the same customers at once, under a cap of two
// in seven days, and counts the windows with more: there must be none. The bare statement
// inserts as many rows as are reserved into a table of the same columns and primary key, and
// checks nothing.
func (s *Suite) Policy(ctx context.Context, customers, campaigns int) (_ *Report, err error) {
	report := s.report("policy", map[string]any{"customers": customers, "campaigns": campaigns, "most": policyMost, "days": policyDays})
	if err := s.Engines.drop(ctx, policyDatabase); err != nil {
		return nil, err
	}
	st, err := s.Engines.database(ctx, policyDatabase)
	if err != nil {
		return nil, err
	}
	defer func() {
		st.Close()
		err = errors.Join(err, s.Engines.drop(context.WithoutCancel(ctx), policyDatabase))
	}()
	c := &crowd{st: st, customers: customers, campaigns: campaigns}
	report.Sides, err = s.alternate(ctx, "policy", "contacts", []side{
		{
			name: "bare INSERT", run: c.bare,
			what: "one INSERT … SELECT of the reserved rows in the order of the primary key, the only index; no check, no lock",
		},
		{
			name: "muster reserve", run: c.muster,
			what: fmt.Sprintf("%d campaigns at once check and reserve the same customers, bucket by bucket under its lock; a contact is checked or refused", campaigns),
		},
	})
	if err != nil {
		return nil, err
	}
	report.Ratios = []Ratio{ratio(report.Sides[1], report.Sides[0])}
	report.Notes = append(report.Notes, fmt.Sprintf("Windows of %d days with more than %d contacts of a customer: 0 in %d runs.", policyDays, policyMost, s.Runs))
	return report, nil
}

// ask makes the candidates of one campaign: every customer, at a time of its own in the week.
func (c *crowd) ask(ctx context.Context, number int) (store.Reservation, error) {
	table := fmt.Sprintf("workspace.candidate_%d", number)
	_, err := c.st.Pool().Exec(ctx, fmt.Sprintf(`DROP TABLE IF EXISTS %[1]s; CREATE TABLE %[1]s AS
		SELECT id AS customer_id, get_byte(uuid_send(id), 15)::smallint AS bucket, 1::smallint AS wave, 'sms' AS channel, at AS planned_at, at::date AS day, false AS control, ''::text AS refused
		FROM (SELECT md5(n::text)::uuid AS id, date_trunc('day', now()) + interval '%[2]d hours' AS at FROM generate_series(1, %[3]d) n) x
		ORDER BY bucket, customer_id;
		CREATE INDEX ON %[1]s USING brin (bucket) WITH (pages_per_range = 4); ANALYZE %[1]s`, table, 24+number*20, c.customers))
	return store.Reservation{
		CampaignID: uuid.NewString(), Snapshot: 1, Table: table, Tenant: "operator", Type: campaign.TypeUpsell,
		Policy: targeting.ContactPolicy{Version: 1, TimeZone: "UTC", Hold: policyDays * 24 * 3600, Caps: []targeting.Cap{{Name: "week", Most: policyMost, Days: policyDays}}},
	}, err
}

func (c *crowd) muster(ctx context.Context, w *stopwatch) (int64, error) {
	if _, err := c.st.Pool().Exec(ctx, `TRUNCATE contact_ledger, contact_reservation`); err != nil {
		return 0, err
	}
	var asked []store.Reservation
	for i := range c.campaigns {
		r, err := c.ask(ctx, i)
		if err != nil {
			return 0, err
		}
		asked = append(asked, r)
	}
	if err := w.start(); err != nil {
		return 0, err
	}
	work, within := errgroup.WithContext(ctx)
	for _, r := range asked {
		work.Go(func() error {
			_, err := c.st.ReserveContacts(within, r)
			return err
		})
	}
	if err := errors.Join(work.Wait(), w.stop()); err != nil {
		return 0, err
	}
	var rows, violations int64
	err := c.st.Pool().QueryRow(ctx, `SELECT count(*), count(*) FILTER (WHERE span < $2) FROM (
		SELECT at - lag(at, $1) OVER (PARTITION BY bucket, customer_id ORDER BY at) AS span FROM contact_ledger WHERE state = 'R') x`,
		policyMost, time.Duration(policyDays*24)*time.Hour).Scan(&rows, &violations)
	if err != nil {
		return 0, err
	}
	if want := int64(c.customers * min(policyMost, c.campaigns)); violations != 0 || rows != want {
		return 0, wrong("%d windows have too many contacts; %d were reserved, not %d", violations, rows, want)
	}
	w.note("reserved", float64(rows))
	return int64(c.customers * c.campaigns), nil
}

func (c *crowd) bare(ctx context.Context, w *stopwatch) (int64, error) {
	if _, err := c.ask(ctx, 0); err != nil {
		return 0, err
	}
	if _, err := c.st.Pool().Exec(ctx, `DROP TABLE IF EXISTS bare_ledger; CREATE TABLE bare_ledger (LIKE contact_ledger, PRIMARY KEY (bucket, customer_id, campaign_id, wave, channel))`); err != nil {
		return 0, err
	}
	times := min(policyMost, c.campaigns)
	if err := w.start(); err != nil {
		return 0, err
	}
	tag, err := c.st.Pool().Exec(ctx, `INSERT INTO bare_ledger (customer_id, campaign_id, at, expires_at, day, policy, bucket, wave, priority, channel, purpose, type, state, simulated)
		SELECT customer_id, $1, planned_at, planned_at, day, 1, bucket, n, 0, 's', 'm', 'u', 'R', false FROM workspace.candidate_0, generate_series(1, $2::int) n`, uuid.New(), times)
	if err = errors.Join(err, w.stop()); err != nil {
		return 0, err
	}
	if tag.RowsAffected() != int64(c.customers*times) {
		return 0, wrong("%d rows for %d customers", tag.RowsAffected(), c.customers)
	}
	return tag.RowsAffected(), nil
}
