package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/targeting"
)

// dryRunPatience is how long a dry run may take.
const dryRunPatience = "60s"

// DryRun counts what a selection would come to now: the statements of its steps, over tables
// that go with the transaction. What the contact policy would refuse is estimated by the
// selection's suppressions.
func (s *Store) DryRun(ctx context.Context, sel targeting.Selection) (campaign.DryRun, error) {
	d := campaign.DryRun{Cells: []campaign.DryRunCell{}}
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `SELECT now()`).Scan(&d.At); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, bulkMemory+`; SET LOCAL statement_timeout = '`+dryRunPatience+`'`); err != nil {
			return err
		}
		sql, args := sel.UnitSQL()
		if err := tx.QueryRow(ctx, sql, args...).Scan(&d.Considered); err != nil {
			return fmt.Errorf("count customers: %w", err)
		}
		table := "dry_candidate"
		sql, args = sel.TryCandidatesSQL(table, d.At)
		tag, err := tx.Exec(ctx, sql, args...)
		if err != nil {
			return fmt.Errorf("select candidates: %w", err)
		}
		if d.Matching = tag.RowsAffected(); sel.Limit > 0 && d.Matching > sel.Limit {
			tag, err := tx.Exec(ctx, `CREATE TEMPORARY TABLE dry_best ON COMMIT DROP AS `+sel.LimitSQL(table))
			if err != nil {
				return fmt.Errorf("limit candidates: %w", err)
			}
			d.Beyond, table = d.Matching-tag.RowsAffected(), "dry_best"
		}
		if sel.Control.Method == targeting.ControlExact {
			sql, args = sel.ExactSQL(table)
			if _, err := tx.Exec(ctx, sql, args...); err != nil {
				return fmt.Errorf("split arms: %w", err)
			}
		}
		for wave, start := range sel.Starts {
			if start.Preferred {
				sql, args = targeting.PreferSQL(table, wave, start.Channels)
				if _, err := tx.Exec(ctx, sql, args...); err != nil {
					return fmt.Errorf("choose channels: %w", err)
				}
			}
		}
		if err := reasons(ctx, tx, table, &d.TargetCount); err != nil {
			return err
		}
		return dryCells(ctx, tx, table, sel, &d)
	})
	return d, err
}

func dryCells(ctx context.Context, tx pgx.Tx, table string, sel targeting.Selection, d *campaign.DryRun) error {
	rows, err := tx.Query(ctx, `SELECT wave, tier, channel, control, count(*) FROM `+table+` WHERE refused = '' GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4`)
	if err != nil {
		return fmt.Errorf("count candidates: %w", err)
	}
	var c campaign.DryRunCell
	var tier int
	_, err = pgx.ForEachRow(rows, []any{&c.Wave, &tier, &c.Channel, &c.Control, &c.Targets}, func() error {
		c.Tier = campaign.Tier(sel.Tiers[tier-1].Name)
		d.Cells = append(d.Cells, c)
		return nil
	})
	if err != nil {
		return fmt.Errorf("count candidates: %w", err)
	}
	return nil
}

// Selections lists the attempts to select a campaign's targets, the latest first.
func (s *Store) Selections(ctx context.Context, campaignID string) ([]campaign.SelectionRecord, error) {
	rows, err := s.pool.Query(ctx, `SELECT r.id, r.revision, r.began_at, r.ended_at, coalesce(r.outcome, ''), coalesce(r.targets, 0), r.reason,
			x.snapshot, x.digest, x.query, x.parameters, x.data_version, x.policy_version
		FROM selection_run r LEFT JOIN selection x ON x.run = r.id WHERE r.campaign_id = $1 ORDER BY r.id DESC`, campaignID)
	if err != nil {
		return nil, fmt.Errorf("list selections: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r campaign.SelectionRecord, err error) {
		var number *int
		var digest, query, policy *string
		var parameters, version []byte
		err = row.Scan(&r.Run, &r.Revision, &r.BeganAt, &r.EndedAt, &r.Outcome, &r.Targets, &r.Reason, &number, &digest, &query, &parameters, &version, &policy)
		if err == nil && number != nil {
			r.Snapshot = &campaign.SnapshotRecord{Snapshot: *number, Digest: *digest, Query: *query, Parameters: parameters, DataVersion: version, PolicyVersion: *policy}
		}
		r.Steps = []campaign.StepRecord{}
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("list selections: %w", err)
	}
	for i := range all {
		rows, err := s.pool.Query(ctx, `SELECT step, at, took, result FROM selection_step WHERE run = $1 ORDER BY at, step`, all[i].Run)
		if err != nil {
			return nil, fmt.Errorf("list steps: %w", err)
		}
		var step campaign.StepRecord
		var took time.Duration
		_, err = pgx.ForEachRow(rows, []any{&step.Step, &step.At, &took, &step.Count}, func() error {
			step.Seconds = took.Seconds()
			all[i].Steps = append(all[i].Steps, step)
			step = campaign.StepRecord{}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list steps: %w", err)
		}
	}
	return all, nil
}

// snapshotDigests says which frozen snapshot of a campaign is not the one that was recorded.
func snapshotDigests(ctx context.Context, tx pgx.Tx, campaignID string) ([]string, error) {
	var snapshot int
	var recorded string
	err := tx.QueryRow(ctx, `SELECT snapshot, digest FROM (SELECT snapshot, digest FROM selection WHERE campaign_id = $1 ORDER BY snapshot DESC LIMIT 1) s WHERE digest <> ''`,
		campaignID).Scan(&snapshot, &recorded)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	table, err := partition("campaign_target", campaignID)
	if err != nil {
		return nil, err
	}
	cells, err := readBack(ctx, tx, table, snapshot)
	if err != nil {
		return nil, err
	}
	if found := targeting.SnapshotDigest(cells); found != recorded {
		return []string{fmt.Sprintf("the targets of snapshot %d have the digest %s, recorded is %s", snapshot, found, recorded)}, nil
	}
	return nil, nil
}
