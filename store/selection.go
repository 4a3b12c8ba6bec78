package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// Freeze describes the freezing of a campaign's targets. The statements come from the
// package targeting.
type Freeze struct {
	CampaignID string
	Revision   int // also the number of the snapshot
	Salt       string
	// Authorise accepts what the revision stands on, or says why nobody may be targeted by it.
	Authorise func(Standing) error
	// Count is a statement whose rows are kind, code and customers; Tally sums them up to
	// customers considered, matching, and of those suppressed.
	Count     string
	CountArgs []any
	Tally     func([]CountStep) campaign.TargetCount
	// Insert returns the statement that freezes the targets into table, in that many shards.
	Insert func(table string, shards int) (string, []any)
}

// CountStep is one row of the counting statement.
type CountStep struct {
	Kind      string
	Code      string
	Customers int64
}

const (
	targetsPerShard = 5000
	maximumShards   = 64
)

// FreezeTargets selects and freezes targets in one transaction: either all of them are
// there with their count, or none. A revision that was frozen before is returned as it
// is. Targets of an earlier revision are replaced as long as no contact was created;
// later that is CodeStateConflict. Nobody to contact is CodeEmptySelection. Before anything
// is selected the rows must prove what the revision stands on, as for CreateContacts; more
// targets than its signers were told is CodeAudienceGrown.
func (s *Store) FreezeTargets(ctx context.Context, f Freeze) (campaign.TargetCount, error) {
	var count campaign.TargetCount
	table, err := partition("campaign_target", f.CampaignID)
	if err != nil {
		return count, err
	}
	err = s.Exclusive(ctx, "targets:"+f.CampaignID, func(ctx context.Context) error {
		// Repeatable read, so that the counts and the targets are of the same customers.
		return pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
			found, err := frozen(ctx, tx, f, &count)
			if err != nil || found {
				return err
			}
			stands, err := standing(ctx, tx, f.CampaignID, f.Revision)
			if err != nil {
				return err
			}
			if err := f.Authorise(stands); err != nil {
				return err
			}
			if err := freeze(ctx, tx, f, table, &count); err != nil {
				return err
			}
			return stands.Facts.Holds(count.Targets)
		})
	})
	if err != nil {
		return campaign.TargetCount{}, err
	}
	if _, err := s.pool.Exec(ctx, `SELECT analyse_campaign('campaign_target', $1)`, f.CampaignID); err != nil {
		return count, fmt.Errorf("analyse targets: %w", err)
	}
	return count, nil
}

func freeze(ctx context.Context, tx pgx.Tx, f Freeze, table string, count *campaign.TargetCount) error {
	// The statements sort and hash a campaign's targets; just-in-time compilation costs them
	// more than it gives. The planner takes the few counts for many and shuns to gather them.
	_, err := tx.Exec(ctx, `SET LOCAL jit = off; SET LOCAL work_mem = '256MB'; SET LOCAL maintenance_work_mem = '256MB';
		SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0`)
	if err != nil {
		return fmt.Errorf("prepare selection: %w", err)
	}
	rows, err := tx.Query(ctx, f.Count, f.CountArgs...)
	if err != nil {
		return fmt.Errorf("count customers: %w", err)
	}
	steps, err := pgx.CollectRows(rows, pgx.RowToStructByPos[CountStep])
	if err != nil {
		return fmt.Errorf("count customers: %w", err)
	}
	*count = f.Tally(steps)
	if err := clearTargets(ctx, tx, f.CampaignID); err != nil {
		return err
	}
	shards := int(min(max((count.Matching-count.Suppressed+targetsPerShard-1)/targetsPerShard, 1), maximumShards))
	sql, args := f.Insert(table, shards)
	if _, err := tx.Exec(ctx, sql, args...); err != nil {
		return fmt.Errorf("freeze targets: %w", err)
	}
	if err := countWaves(ctx, tx, table, count); err != nil {
		return err
	}
	if count.Targets == 0 {
		return campaign.Errorf(campaign.CodeEmptySelection, "no customer of the unit is a target: %d considered, %d match the filter and a tier, %d of those may not be contacted",
			count.Considered, count.Matching, count.Suppressed).With("considered", count.Considered).With("matching", count.Matching)
	}
	count.Snapshot = f.Revision
	text, err := json.Marshal(count)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO selection (campaign_id, snapshot, revision, counts, salt) VALUES ($1, $2, $3, $4, $5)`,
		f.CampaignID, count.Snapshot, f.Revision, text, f.Salt)
	if err != nil {
		return fmt.Errorf("record selection: %w", err)
	}
	// The filled table becomes the campaign's partition, which builds its primary key. Last,
	// because other campaigns wait for theirs meanwhile.
	if _, err := tx.Exec(ctx, `SELECT create_campaign_partitions($1)`, f.CampaignID); err != nil {
		return fmt.Errorf("create partitions: %w", err)
	}
	return nil
}

// frozen reports whether the revision was frozen before, with its counts.
func frozen(ctx context.Context, tx pgx.Tx, f Freeze, count *campaign.TargetCount) (bool, error) {
	var text []byte
	err := tx.QueryRow(ctx, `SELECT counts FROM selection WHERE campaign_id = $1 AND snapshot = $2`, f.CampaignID, f.Revision).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read selection: %w", err)
	}
	return true, json.Unmarshal(text, count)
}

// clearTargets makes an empty table for the targets, without an index that would have to be
// filled row by row, or removes those of an earlier revision that nobody was contacted for.
func clearTargets(ctx context.Context, tx pgx.Tx, campaignID string) error {
	var contacts bool
	err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM contact_batch WHERE campaign_id = $1)`, campaignID).Scan(&contacts)
	if err != nil {
		return fmt.Errorf("read contact batches: %w", err)
	}
	if contacts {
		return campaign.Errorf(campaign.CodeStateConflict, "contacts were created from an earlier selection; the targets are frozen")
	}
	if _, err = tx.Exec(ctx, `SELECT clear_campaign_targets($1)`, campaignID); err != nil {
		return fmt.Errorf("clear targets: %w", err)
	}
	return nil
}

func countWaves(ctx context.Context, tx pgx.Tx, table string, count *campaign.TargetCount) error {
	rows, err := tx.Query(ctx, `SELECT wave, count(*) FILTER (WHERE arm = 'treated'), count(*) FILTER (WHERE arm = 'control')
		FROM `+table+` GROUP BY wave ORDER BY wave`)
	if err != nil {
		return fmt.Errorf("count targets: %w", err)
	}
	var w campaign.WaveCount
	_, err = pgx.ForEachRow(rows, []any{&w.Wave, &w.Treated, &w.Control}, func() error {
		count.Waves = append(count.Waves, w)
		count.Targets += w.Treated + w.Control
		count.Control += w.Control
		return nil
	})
	if err != nil {
		return fmt.Errorf("count targets: %w", err)
	}
	return nil
}
