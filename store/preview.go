package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Query is a statement that reads, with its arguments.
type Query struct {
	SQL  string
	Args []any
}

// Blocks returns how many blocks the customer table has.
func (s *Store) Blocks(ctx context.Context) (int64, error) {
	var n int64
	err := s.pool.QueryRow(ctx, `SELECT pg_relation_size('customer') / current_setting('block_size')::int`).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("size of the customer table: %w", err)
	}
	return n, nil
}

// Count runs a query that reads the whole customer table and returns its rows. It changes
// nothing, and ends when ctx does. T has the columns in their order.
func Count[T any](ctx context.Context, s *Store, q Query) (all []T, err error) {
	err = pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		// As for a selection: just-in-time compilation costs such statements more than it gives,
		// and the planner takes the few counts for many and shuns to gather them.
		_, err := tx.Exec(ctx, `SET LOCAL jit = off; SET LOCAL work_mem = '256MB'; SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0`)
		if err != nil {
			return err
		}
		rows, err := tx.Query(ctx, q.SQL, q.Args...)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, pgx.RowToStructByPos[T])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("count customers: %w", err)
	}
	return all, nil
}
