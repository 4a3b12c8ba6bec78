package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/targeting"
)

// Control is the third step: it gives the candidates the arms of an exact split, where the
// control group is drawn by one.
func (r SelectionRun) Control(ctx context.Context, sel targeting.Selection) (campaign.TargetCount, error) {
	return r.adjust(ctx, campaign.StepFilter, campaign.StepControl, func(ctx context.Context, tx pgx.Tx) (bool, error) {
		if sel.Control.Method != targeting.ControlExact {
			return false, nil
		}
		sql, args := sel.ExactSQL(r.candidates)
		_, err := tx.Exec(ctx, sql, args...)
		return true, err
	})
}

// Channel is the fourth step: it gives the candidates of the waves that ask for it the
// channel that they prefer.
func (r SelectionRun) Channel(ctx context.Context, sel targeting.Selection) (campaign.TargetCount, error) {
	return r.adjust(ctx, campaign.StepControl, campaign.StepChannel, func(ctx context.Context, tx pgx.Tx) (bool, error) {
		for wave, start := range sel.Starts {
			if !start.Preferred {
				continue
			}
			sql, args := targeting.PreferSQL(r.candidates, wave, start.Channels)
			if _, err := tx.Exec(ctx, sql, args...); err != nil {
				return false, fmt.Errorf("choose channels: %w", err)
			}
		}
		return false, nil
	})
}

// adjust does a step that changes candidates and reports whether their counts changed.
func (r SelectionRun) adjust(
	ctx context.Context, last, step campaign.SelectionStep, change func(context.Context, pgx.Tx) (bool, error),
) (campaign.TargetCount, error) {
	before, err := r.before(ctx, last)
	if err != nil {
		return before, err
	}
	return r.step(ctx, step, before, nil, func(ctx context.Context, tx pgx.Tx, count *campaign.TargetCount) error {
		if _, err := tx.Exec(ctx, bulkMemory); err != nil {
			return err
		}
		changed, err := change(ctx, tx)
		if err == nil && changed {
			err = reasons(ctx, tx, r.candidates, count)
		}
		return err
	})
}

// Reserve is the fifth step: it reserves the candidates' contacts by the contact policy, see
// ReserveContacts. progress is told how many buckets are done.
func (r SelectionRun) Reserve(ctx context.Context, plan campaign.Plan, progress func(buckets int)) (campaign.TargetCount, error) {
	before, err := r.before(ctx, campaign.StepChannel)
	if err != nil {
		return before, err
	}
	refused := false
	reserve := func(ctx context.Context, _ *campaign.TargetCount) error {
		reserved, err := r.store.ReserveContacts(ctx, Reservation{
			CampaignID: r.CampaignID, Snapshot: r.ID, Table: r.candidates, Tenant: plan.Unit.Tenant(), Type: plan.Type, Simulated: plan.Simulated,
			Policy: r.Policy, Progress: progress,
		})
		refused = len(reserved.Refused) > 0
		return err
	}
	return r.step(ctx, campaign.StepReserve, before, reserve, func(ctx context.Context, tx pgx.Tx, count *campaign.TargetCount) error {
		if !refused {
			return nil
		}
		return reasons(ctx, tx, r.candidates, count)
	})
}

const (
	targetsPerShard = 5000
	maximumShards   = 64
	freezers        = 2 // parts of the targets that are written side by side
)

// Shards is into how many shards so many targets are divided.
func Shards(targets int64) int {
	return int(min(max((targets+targetsPerShard-1)/targetsPerShard, 1), maximumShards))
}

// Freeze is the last step: the candidates who are left become the numbered snapshot of the
// revision, with everything that it was made from and its digest. The targets are written
// beside those of an earlier revision and take their place in one transaction with the row
// of the snapshot. Before that the rows must prove again what the revision stands on; so many
// more or fewer targets than its signers were told that the plan does not allow it is
// CodeAudienceGrown or CodeAudienceShrunk. Nobody to contact is CodeEmptySelection.
func (r SelectionRun) Freeze(ctx context.Context, sel targeting.Selection, authorise func(Standing) error) (campaign.TargetCount, error) {
	before, err := r.before(ctx, campaign.StepReserve)
	if err != nil {
		return before, err
	}
	write := func(ctx context.Context, count *campaign.TargetCount) error {
		if count.Targets == 0 {
			return campaign.Errorf(campaign.CodeEmptySelection, "no customer of the unit is a target: %d considered, %d match the filter and a tier, %d of those may not be contacted",
				count.Considered, count.Matching, count.Suppressed).With("considered", count.Considered).With("matching", count.Matching)
		}
		if err := r.expected(ctx, count.Targets); err != nil {
			return err
		}
		sel.Shards = Shards(count.Targets)
		if _, err := r.store.pool.Exec(ctx, `SELECT prepare_campaign_targets($1)`, r.CampaignID); err != nil {
			return fmt.Errorf("prepare targets: %w", err)
		}
		digest, err := r.write(ctx, sel)
		count.Snapshot, count.Digest = r.Revision, digest
		return err
	}
	count, err := r.step(ctx, campaign.StepFreeze, before, write, func(ctx context.Context, tx pgx.Tx, count *campaign.TargetCount) error {
		if err := r.allowed(ctx, tx, sel, authorise); err != nil {
			return err
		}
		// Targets that a server forgot when it crashed have gone with the candidates.
		if there, err := r.candidatesAre(ctx, tx); err != nil || !there {
			return cmp.Or(err, error(errNoCandidates))
		}
		return r.adopt(ctx, tx, sel, *count)
	})
	if err != nil {
		return count, err
	}
	return count, r.store.inTx(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, fewSamples); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `SELECT analyse_campaign('campaign_target', $1)`, r.CampaignID); err != nil {
			return fmt.Errorf("analyse targets: %w", err)
		}
		return nil
	})
}

// write fills the prepared table, in parts by bucket, and reads back what is in it.
func (r SelectionRun) write(ctx context.Context, sel targeting.Selection) (string, error) {
	ranges := targeting.ShardBuckets(sel.Shards, freezers)
	if err := r.sideBySide(ctx, len(ranges), func(ctx context.Context, tx pgx.Tx, i int) error {
		sql, args := sel.FreezeSQL(r.targets, r.candidates, ranges[i][0], ranges[i][1])
		if _, err := tx.Exec(ctx, sql, args...); err != nil {
			return fmt.Errorf("freeze targets: %w", err)
		}
		return nil
	}); err != nil {
		return "", err
	}
	var written []targeting.Cell
	err := r.sideBySide(ctx, 2, func(ctx context.Context, tx pgx.Tx, i int) (err error) {
		if i == 0 {
			written, err = readBack(ctx, tx, r.targets, r.Revision)
		} else if _, err = tx.Exec(ctx, `SELECT index_campaign_targets($1)`, r.CampaignID); err != nil {
			err = fmt.Errorf("index targets: %w", err)
		}
		return err
	})
	return targeting.SnapshotDigest(written), err
}

// sideBySide does n parts of one thing at once, each in a transaction of its own. What they
// write counts only once another transaction says that it does, which makes it last as well.
func (r SelectionRun) sideBySide(ctx context.Context, n int, part func(ctx context.Context, tx pgx.Tx, i int) error) error {
	work, ctx := errgroup.WithContext(ctx)
	for i := range n {
		work.Go(func() error {
			return r.store.inTx(ctx, func(tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, bulkMemory+`; SET LOCAL synchronous_commit = off`); err != nil {
					return err
				}
				return part(ctx, tx, i)
			})
		})
	}
	return work.Wait()
}

// readBack reads what identifies the targets of a snapshot.
func readBack(ctx context.Context, tx pgx.Tx, table string, snapshot int) ([]targeting.Cell, error) {
	rows, err := tx.Query(ctx, targeting.CellsSQL(table), snapshot)
	if err != nil {
		return nil, fmt.Errorf("digest targets: %w", err)
	}
	cells, err := pgx.CollectRows(rows, pgx.RowToStructByPos[targeting.Cell])
	if err != nil {
		return nil, fmt.Errorf("digest targets: %w", err)
	}
	return cells, nil
}

// adopt records the snapshot and makes the written targets the campaign's. The partition comes
// last, because other campaigns wait for theirs meanwhile.
func (r SelectionRun) adopt(ctx context.Context, tx pgx.Tx, sel targeting.Selection, count campaign.TargetCount) error {
	if _, err := tx.Exec(ctx, bulkMemory); err != nil {
		return err
	}
	candidates, args := sel.CandidatesSQL("candidate", r.BeganAt)
	freeze, freezeArgs := sel.FreezeSQL("campaign_target", "candidate", 0, campaign.Buckets-1)
	parameters := map[string]any{
		"candidates": args, "freeze": freezeArgs, "limit": sel.Limit, "control": sel.Control, "shards": sel.Shards, "uses": sel.Uses,
	}
	text, err := json.Marshal(count)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO selection (campaign_id, snapshot, revision, counts, salt, run, digest, query, parameters, data_version, policy_version)
		SELECT $1, $2, $2, $3, $4, $5, $6, $7, $8, data_version, $9 FROM selection_run WHERE id = $5`,
		r.CampaignID, r.Revision, text, sel.Salt, r.ID, count.Digest, candidates+";\n"+freeze, parameters, fmt.Sprint(r.Policy.Version))
	if err != nil {
		return fmt.Errorf("record selection: %w", err)
	}
	if err := r.store.KeepSuppressions(ctx, tx, r.candidates, r.CampaignID, r.Revision, r.Policy.Version); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE selection_run SET ended_at = clock_timestamp(), outcome = 'frozen', targets = $2 WHERE id = $1`, r.ID, count.Targets)
	if err != nil {
		return fmt.Errorf("end selection: %w", err)
	}
	if _, err := tx.Exec(ctx, `DROP TABLE `+r.candidates); err != nil {
		return fmt.Errorf("drop candidates: %w", err)
	}
	if _, err := tx.Exec(ctx, `SELECT adopt_campaign_targets($1)`, r.CampaignID); err != nil {
		return fmt.Errorf("adopt targets: %w", err)
	}
	return nil
}
