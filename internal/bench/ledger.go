package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/ledger"
)

const (
	manyBudgets      = 100
	benchLine        = "messages"
	benchAllocation  = 1_000_000_000_000 // minor units, more than all runs together spend
	ledgerPopulation = 100               // customers, whom a bench of money does not need
)

// money is a bench of the ledger: each operation is a commit of its own.
type money struct {
	suite       *Suite
	pool        *pgxpool.Pool
	ledger      *ledger.Ledger
	budgets     []string // campaigns, each with money on its line
	operations  int
	connections int
}

// Ledger compares the ledger's reservations and captures with the least that any program
// can do to keep a budget: one conditional UPDATE of a balance, committed. First all
// connections meet at one budget, where every commit waits for the one before it; then
// they spread over a hundred. After each run the balances must be what was done, and at
// the end the whole ledger sound.
func (s *Suite) Ledger(ctx context.Context, operations, connections int) (*Report, error) {
	operations += operations % 2
	report := s.report("ledger", map[string]any{"operations": operations, "connections": connections, "budgets": manyBudgets})
	st, err := s.customers(ctx, ledgerPopulation)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	config := st.Pool().Config()
	config.MaxConns = int32(min(connections, 1<<10))
	m := &money{suite: s, operations: operations, connections: connections}
	if m.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, err
	}
	defer m.pool.Close()
	m.ledger = ledger.New(m.pool)
	people, err := ensurePeople(ctx, st)
	if err != nil {
		return nil, err
	}
	for range manyBudgets {
		id, err := newCampaign(ctx, st, people, plan("Bench of the ledger", campaign.Audience{
			Filter: "true", Tiers: []campaign.TierRule{{Tier: campaign.TierGeneral, Filter: "true"}},
		}, 1), 1)
		if err != nil {
			return nil, err
		}
		if err := m.fund(ctx, id); err != nil {
			return nil, err
		}
		m.budgets = append(m.budgets, id)
	}
	const bareWhat = "UPDATE of a table of two balances and nothing else, SET held = held + 1 WHERE id = … AND posted - held >= 1"
	const musterWhat = "Reserve and Capture in turn, each a commit with its row in the journal"
	report.Sides, err = s.alternate(ctx, "ledger", "operations", []side{
		{name: "bare, 1 row", what: fmt.Sprintf("%s; one row, %d connections", bareWhat, connections), run: m.bare(1)},
		{name: "muster, 1", what: fmt.Sprintf("%s; one budget, %d connections", musterWhat, connections), run: m.muster(1)},
		{name: "bare, 100 rows", what: "the same UPDATE, spread over 100 rows", run: m.bare(manyBudgets)},
		{name: "muster, 100", what: "the same steps, spread over 100 budgets", run: m.muster(manyBudgets)},
	})
	if err != nil {
		return nil, err
	}
	report.Ratios = []Ratio{ratio(report.Sides[1], report.Sides[0]), ratio(report.Sides[3], report.Sides[2])}
	broken, err := m.ledger.Check(ctx)
	if err != nil {
		return nil, err
	}
	if len(broken) > 0 {
		return nil, wrong("%d invariants are broken, the first: %s %s", len(broken), broken[0].Invariant, broken[0].What)
	}
	return report, nil
}

// fund opens a campaign's line and allocates to it.
func (m *money) fund(ctx context.Context, id string) error {
	amount := campaign.Money{Minor: benchAllocation, Currency: "CNY"}
	if err := m.ledger.OpenCampaign(ctx, id, "", amount.Currency); err != nil {
		return err
	}
	if err := m.ledger.OpenLine(ctx, id, benchLine, campaign.CategoryContact, ""); err != nil {
		return err
	}
	for _, account := range []ledger.Account{{Kind: ledger.KindCampaign, Owner: id}, ledger.Line(id, benchLine)} {
		if _, err := m.ledger.Allocate(ctx, uuid.NewString(), account, amount); err != nil {
			return err
		}
	}
	return nil
}

// bare updates rows.
func (m *money) bare(rows int) func(context.Context, *stopwatch) (int64, error) {
	return func(ctx context.Context, w *stopwatch) (int64, error) {
		_, err := m.pool.Exec(ctx, fmt.Sprintf(`DROP TABLE IF EXISTS bare_budget;
			CREATE TABLE bare_budget (id int PRIMARY KEY, posted bigint NOT NULL, held bigint NOT NULL DEFAULT 0, CHECK (posted - held >= 0)) WITH (fillfactor = 30);
			INSERT INTO bare_budget (id, posted) SELECT n, %d FROM generate_series(1, %d) n`, benchAllocation, rows))
		if err != nil {
			return 0, fmt.Errorf("make bare table: %w", err)
		}
		if err := w.start(); err != nil {
			return 0, err
		}
		err = m.share(ctx, func(ctx context.Context, from, to int) error {
			for i := from; i < to; i++ {
				tag, err := m.pool.Exec(ctx, `UPDATE bare_budget SET held = held + 1 WHERE id = $1 AND posted - held >= 1`, i/2%rows+1)
				if err != nil {
					return fmt.Errorf("update bare row: %w", err)
				}
				if tag.RowsAffected() != 1 {
					return wrong("the bare budget is used up")
				}
			}
			return nil
		})
		if err = errors.Join(err, w.stop()); err != nil {
			return 0, err
		}
		var held int64
		if err := m.pool.QueryRow(ctx, `SELECT sum(held) FROM bare_budget`).Scan(&held); err != nil {
			return 0, err
		}
		if held != int64(m.operations) {
			return 0, wrong("%d of %d bare updates count", held, m.operations)
		}
		_, err = m.pool.Exec(ctx, "DROP TABLE bare_budget")
		return held, err
	}
}

// muster reserves a minor unit and captures it.
func (m *money) muster(budgets int) func(context.Context, *stopwatch) (int64, error) {
	return func(ctx context.Context, w *stopwatch) (int64, error) {
		before, err := m.captured(ctx)
		if err != nil {
			return 0, err
		}
		run := uuid.NewString()
		unit := campaign.Money{Minor: 1, Currency: "CNY"}
		if err := w.start(); err != nil {
			return 0, err
		}
		err = m.share(ctx, func(ctx context.Context, from, to int) error {
			for i := from; i < to; i += 2 {
				id := m.budgets[i/2%budgets]
				if _, err := m.ledger.Reserve(ctx, fmt.Sprintf("r:%s:%d", run, i), id, benchLine, unit); err != nil {
					return err
				}
				if _, err := m.ledger.Capture(ctx, fmt.Sprintf("c:%s:%d", run, i), id, benchLine, unit); err != nil {
					return err
				}
			}
			return nil
		})
		if err = errors.Join(err, w.stop()); err != nil {
			return 0, err
		}
		after, err := m.captured(ctx)
		if err != nil {
			return 0, err
		}
		if got := 2 * (after - before); got != int64(m.operations) {
			return 0, wrong("%d of %d operations count", got, m.operations)
		}
		return int64(m.operations), nil
	}
}

// share gives each connection its part of the operations, in pairs.
func (m *money) share(ctx context.Context, do func(ctx context.Context, from, to int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for c := range m.connections {
		pairs := m.operations / 2
		g.Go(func() error { return do(ctx, 2*(pairs*c/m.connections), 2*(pairs*(c+1)/m.connections)) })
	}
	return g.Wait()
}

func (m *money) captured(ctx context.Context) (int64, error) {
	var sum int64
	for _, id := range m.budgets {
		lines, err := m.ledger.Balances(ctx, id)
		if err != nil {
			return 0, err
		}
		for _, line := range lines {
			sum += line.Captured
		}
	}
	return sum, nil
}
