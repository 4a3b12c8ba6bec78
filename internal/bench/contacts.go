package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/musterhq/muster/store"
)

const (
	contactsDatabase  = "contacts"
	contactsPerson    = 10        // entries of history for a customer, on average
	contactsBlock     = 1_000_000 // rows that are made in one transaction
	contactsCampaigns = 300       // with tables of their own, which the view must not look into
	contactsPage      = 50
)

// ContactsOptions is what the bench of the contact view measures.
type ContactsOptions struct {
	Rows    int  // of contact history
	Lookups int  // of a run, each for another customer
	Keep    bool // the database afterwards, for another run
}

// Contacts measures how long one customer's contact view takes among rows entries of other
// systems, a tenth as many contacts of Muster's own, a hundredth as many outcomes, and the
// tables of hundreds of campaigns. Customers differ: a few have thousands of entries. What is
// made is kept when the bench is interrupted, and gone on with.
func (s *Suite) Contacts(ctx context.Context, o ContactsOptions) (_ *Report, err error) {
	report := s.report("contacts", map[string]any{"history": o.Rows, "lookups": o.Lookups, "seed": s.Seed})
	name := fmt.Sprintf("%s_%d_seed_%d", contactsDatabase, o.Rows, s.Seed)
	st, err := s.Engines.database(ctx, name)
	if err != nil {
		return nil, err
	}
	c := &contactBench{Suite: s, st: st, rows: o.Rows, customers: max(o.Rows/contactsPerson, 1), lookups: o.Lookups}
	defer func() {
		st.Close()
		if err == nil && !o.Keep {
			err = s.Engines.drop(context.WithoutCancel(ctx), name)
		}
	}()
	if err := c.fill(ctx); err != nil {
		return nil, err
	}
	if report.Input["bytes"], err = c.size(ctx); err != nil {
		return nil, err
	}
	report.Sides, err = s.alternate(ctx, "contacts", "views", []side{
		{
			name: "bare statement", run: func(ctx context.Context, w *stopwatch) (int64, error) { return c.look(ctx, w, c.bare) },
			what: fmt.Sprintf("SELECT the newest %d rows of contact_history of one customer by its index", contactsPage),
		},
		{
			name: "contact view", run: func(ctx context.Context, w *stopwatch) (int64, error) { return c.look(ctx, w, c.view) },
			what: fmt.Sprintf("what GET /v1/customers/{id}/contacts asks the store: the customer's unit, and the newest %d of history, own contacts and outcomes together", contactsPage),
		},
		{
			name: "busiest", run: func(ctx context.Context, w *stopwatch) (int64, error) { return c.lookBusiest(ctx, w) },
			what: "the same of the hundred customers with the most entries, page after page for ten pages",
		},
	})
	if err != nil {
		return nil, err
	}
	report.Ratios = []Ratio{ratio(report.Sides[1], report.Sides[0])}
	return report, nil
}

type contactBench struct {
	*Suite
	st        *store.Store
	rows      int
	customers int
	lookups   int
}

// customerID names the n-th customer, in Go as in the statements below.
const customerID = `md5('customer ' || n)::uuid`

// fill makes what is missing, block by block, and the indexes once all rows are there.
func (c *contactBench) fill(ctx context.Context) error {
	pool := c.st.Pool()
	_, err := pool.Exec(ctx, `CREATE TABLE IF NOT EXISTS bench_block (what text, block int, PRIMARY KEY (what, block))`)
	if err != nil {
		return fmt.Errorf("prepare contact history: %w", err)
	}
	if err := c.blocks(ctx, "customers", c.customers, `INSERT INTO customer (id, external_id, org_unit, time_zone, simulated)
		SELECT `+customerID+`, 'bench-' || n, 'operator/north', 'Asia/Shanghai', true FROM generate_series($1::bigint, $2::bigint) n`); err != nil {
		return err
	}
	// Random places in an index cost more than building it at the end.
	var begun bool
	if err := pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM bench_block WHERE what = 'history')`).Scan(&begun); err != nil {
		return err
	}
	if !begun {
		if _, err := pool.Exec(ctx, `ALTER TABLE contact_history DROP CONSTRAINT IF EXISTS contact_history_pkey; DROP INDEX IF EXISTS contact_history_recent`); err != nil {
			return fmt.Errorf("drop indexes: %w", err)
		}
	}
	// A square of an even draw: a few customers have thousands of entries, most a few.
	draw := fmt.Sprintf(`(pow((hashint8extended(i, %d) & 9007199254740991) / 9007199254740992.0, 2) * %d)::bigint`, c.Seed, c.customers-1)
	if err := c.blocks(ctx, "history", c.rows, `INSERT INTO contact_history (customer_id, at, seconds, kind, direction, channel, product, outcome, source, source_id)
		SELECT `+customerID+`, timestamptz '2021-01-01' + i * (interval '5 years' / `+fmt.Sprint(c.rows)+`), i % 600,
			(ARRAY['marketing','care','consultation','complaint','handling'])[1 + i % 5], CASE WHEN i % 3 = 0 THEN 'out' ELSE 'in' END,
			(ARRAY['hotline','call','sms','app','hall'])[1 + i % 7 % 5], (ARRAY['', 'broadband', 'data', 'voice'])[1 + i % 4], (ARRAY['solved', 'open', ''])[1 + i % 3],
			'crm', i::text
		FROM (SELECT i, `+draw+` AS n FROM generate_series($1::bigint, $2::bigint) i) d`); err != nil {
		return err
	}
	if _, err := pool.Exec(ctx, `SET maintenance_work_mem = '512MB'; CREATE INDEX IF NOT EXISTS contact_history_recent ON contact_history (customer_id, at DESC);
		DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'contact_history_pkey') THEN ALTER TABLE contact_history ADD PRIMARY KEY (customer_id, source, source_id); END IF; END $$; RESET maintenance_work_mem`); err != nil {
		return fmt.Errorf("build indexes: %w", err)
	}
	if err := c.blocks(ctx, "contacts", c.rows/10, `INSERT INTO contact_ledger (bucket, customer_id, campaign_id, at, expires_at, day, policy, wave, priority, channel, purpose, type, state, simulated)
		SELECT get_byte(uuid_send(id), 15), id, md5('campaign ' || i % `+fmt.Sprint(contactsCampaigns)+`)::uuid, at, at, at::date, 1, 1 + i / `+fmt.Sprint(contactsCampaigns)+` % 30000, 1, 's', 'm', 'u',
			(ARRAY['R','S','D'])[1 + i % 3]::"char", true
		FROM (SELECT i, `+customerID+` AS id, timestamptz '2021-01-01' + i * (interval '5 years' / `+fmt.Sprint(max(c.rows/10, 1))+`) AS at
			FROM (SELECT i, `+draw+` AS n FROM generate_series($1::bigint, $2::bigint) i) d) d ORDER BY 1, 2 ON CONFLICT DO NOTHING`); err != nil {
		return err
	}
	if err := c.blocks(ctx, "outcomes", c.rows/100, `INSERT INTO outcome (id, campaign_id, customer_id, kind, at, source, source_id, simulated)
		SELECT gen_random_uuid(), md5('campaign ' || i % `+fmt.Sprint(contactsCampaigns)+`)::uuid, `+customerID+`, 'willing', timestamptz '2021-01-01' + i * interval '1 minute', 'sms', i::text, true
		FROM (SELECT i, `+draw+` AS n FROM generate_series($1::bigint, $2::bigint) i) d`); err != nil {
		return err
	}
	if err := c.blocks(ctx, "campaigns", contactsCampaigns, `SELECT create_campaign_partitions(md5('campaign ' || i)::uuid) FROM generate_series($1::bigint, $2::bigint) i`); err != nil {
		return err
	}
	_, err = pool.Exec(ctx, `VACUUM ANALYZE contact_history, contact_ledger, outcome, customer`)
	return err
}

// blocks runs a statement for each block of numbers from 0 to n, two at a time, and skips
// those that are there.
func (c *contactBench) blocks(ctx context.Context, what string, n int, sql string) error {
	began, g := time.Now(), new(errgroup.Group)
	g.SetLimit(2)
	for block := range (n + contactsBlock - 1) / contactsBlock {
		g.Go(func() error {
			tx, err := c.st.Pool().Begin(ctx)
			if err != nil {
				return err
			}
			defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
			tag, err := tx.Exec(ctx, `INSERT INTO bench_block (what, block) VALUES ($1, $2) ON CONFLICT DO NOTHING`, what, block)
			if err != nil || tag.RowsAffected() == 0 {
				return err
			}
			if _, err := tx.Exec(ctx, sql, block*contactsBlock, min((block+1)*contactsBlock, n)-1); err != nil {
				return fmt.Errorf("make %s: %w", what, err)
			}
			return tx.Commit(ctx)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	fmt.Fprintf(c.Out, "  %s %s: %.0f s\n", grouped(float64(n)), what, time.Since(began).Seconds())
	return nil
}

func (c *contactBench) size(ctx context.Context) (int64, error) {
	var bytes int64
	err := c.st.Pool().QueryRow(ctx, `SELECT pg_database_size(current_database())`).Scan(&bytes)
	return bytes, err
}

// look measures one look-up for each of many customers, drawn evenly.
func (c *contactBench) look(ctx context.Context, w *stopwatch, one func(context.Context, uuid.UUID) (int, error)) (int64, error) {
	draw := rand.New(rand.NewPCG(c.Seed, uint64(c.lookups))) //nolint:gosec // a bench
	ids := make([]uuid.UUID, 0, c.lookups)
	var numbers []int64
	for range c.lookups {
		numbers = append(numbers, draw.Int64N(int64(c.customers)))
	}
	rows, err := c.st.Pool().Query(ctx, `SELECT `+customerID+` FROM unnest($1::bigint[]) WITH ORDINALITY u(n, place) ORDER BY place`, numbers)
	if err != nil {
		return 0, err
	}
	for rows.Next() {
		var id uuid.UUID
		if err := rows.Scan(&id); err != nil {
			return 0, err
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	return c.measure(ctx, w, ids, one)
}

// measure runs one for each id and notes how long they took, in milliseconds.
func (c *contactBench) measure(ctx context.Context, w *stopwatch, ids []uuid.UUID, one func(context.Context, uuid.UUID) (int, error)) (int64, error) {
	took, entries := make([]time.Duration, 0, len(ids)), 0
	if err := w.start(); err != nil {
		return 0, err
	}
	var failed error
	for _, id := range ids {
		began := time.Now()
		n, err := one(ctx, id)
		if err != nil {
			failed = err
			break
		}
		took = append(took, time.Since(began))
		entries += n
	}
	if err := errors.Join(failed, w.stop()); err != nil {
		return 0, err
	}
	if entries == 0 {
		return 0, wrong("%d contact views have no entry", len(ids))
	}
	slices.Sort(took)
	at := func(share float64) float64 { return took[int(share*float64(len(took)-1))].Seconds() * 1000 }
	w.note("p50 ms", at(0.5))
	w.note("p99 ms", at(0.99))
	w.note("max ms", at(1))
	w.note("entries", float64(entries)/float64(len(ids)))
	return int64(len(ids)), nil
}

func (c *contactBench) bare(ctx context.Context, id uuid.UUID) (int, error) {
	rows, err := c.st.Pool().Query(ctx, `SELECT * FROM contact_history WHERE customer_id = $1 ORDER BY at DESC LIMIT $2`, id, contactsPage)
	if err != nil {
		return 0, err
	}
	n := 0
	for rows.Next() {
		n++
	}
	return n, rows.Err()
}

func (c *contactBench) view(ctx context.Context, id uuid.UUID) (int, error) {
	if _, err := c.st.CustomerUnit(ctx, id.String()); err != nil {
		return 0, err
	}
	all, err := c.st.ContactView(ctx, id.String(), store.ContactViewFilter{Limit: contactsPage})
	for i := 1; i < len(all); i++ {
		if all[i].At.After(all[i-1].At) {
			return 0, wrong("an entry of %s is older than the next", id)
		}
	}
	return len(all), err
}

// lookBusiest pages through the views of the customers with the lowest numbers, who have the
// most entries.
func (c *contactBench) lookBusiest(ctx context.Context, w *stopwatch) (int64, error) {
	rows, err := c.st.Pool().Query(ctx, `SELECT `+customerID+` FROM generate_series(0, 99) n CROSS JOIN generate_series(1, 10) page ORDER BY n, page`)
	if err != nil {
		return 0, err
	}
	var ids []uuid.UUID
	for rows.Next() {
		var id uuid.UUID
		if err := rows.Scan(&id); err != nil {
			return 0, err
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	var of uuid.UUID
	var after store.ContactViewKey
	return c.measure(ctx, w, ids, func(ctx context.Context, id uuid.UUID) (int, error) {
		if id != of {
			of, after = id, store.ContactViewKey{}
		}
		all, err := c.st.ContactView(ctx, id.String(), store.ContactViewFilter{Limit: contactsPage, After: after})
		if len(all) > 0 {
			after = all[len(all)-1].Key
		}
		return len(all), err
	})
}
