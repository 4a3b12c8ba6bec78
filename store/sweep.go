package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// UnstartedCampaigns returns up to limit campaigns whose workflow was not seen to
// start, the oldest first. The caller starts each, which may have been done before,
// and then marks it.
func (s *Store) UnstartedCampaigns(ctx context.Context, limit int) ([]string, error) {
	rows, err := s.pool.Query(ctx, `SELECT id::text FROM campaign WHERE NOT started ORDER BY created_at LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("list campaigns to start: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list campaigns to start: %w", err)
	}
	return ids, nil
}

// SweepLeases takes back contacts whose worker died and whose chunk nobody runs again:
// claimed ones are planned again, those being sent are unknown. Chunks take back their
// own; this is for the rest and reads the contacts of all campaigns that run, so every
// minute is often enough.
func (s *Store) SweepLeases(ctx context.Context) (int64, error) {
	rows, err := s.pool.Query(ctx, `SELECT id::text FROM campaign WHERE stage IN ('running', 'settlement', 'evaluation')`)
	if err != nil {
		return 0, fmt.Errorf("list running campaigns: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return 0, fmt.Errorf("list running campaigns: %w", err)
	}
	var swept int64
	for _, id := range ids {
		contacts, err := partition("contact", id)
		if err != nil {
			return swept, err
		}
		var exists bool
		if err := s.pool.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, contacts).Scan(&exists); err != nil {
			return swept, fmt.Errorf("find contacts: %w", err)
		}
		if !exists {
			continue
		}
		tag, err := s.pool.Exec(ctx, `UPDATE `+contacts+` SET state = CASE state WHEN 'sending' THEN 'unknown' ELSE 'planned' END,
				reason = CASE state WHEN 'sending' THEN '`+interrupted+`' ELSE '' END, lease_until = NULL, updated_at = now()
			WHERE state IN ('claimed', 'sending') AND lease_until < now()`)
		if err != nil {
			return swept, fmt.Errorf("sweep leases: %w", err)
		}
		swept += tag.RowsAffected()
	}
	return swept, nil
}

// SweepTasks opens tasks again whose agent's lease has ended.
func (s *Store) SweepTasks(ctx context.Context) (int64, error) {
	tag, err := s.pool.Exec(ctx, `UPDATE task SET state = 'open', claimed_by = NULL, lease_until = NULL, updated_at = now()
		WHERE state = 'claimed' AND lease_until < now()`)
	if err != nil {
		return 0, fmt.Errorf("sweep tasks: %w", err)
	}
	return tag.RowsAffected(), nil
}
