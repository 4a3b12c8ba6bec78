package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/targeting"
)

// SelectionRun is one attempt to select the targets of a plan revision, from its count to
// its freeze. What a step of it has found is kept, so that no step is done twice.
type SelectionRun struct {
	store      *Store
	ID         int
	CampaignID string
	Revision   int       // also the number of the snapshot
	BeganAt    time.Time // what waves begin after, as far as the selection can know

	candidates string // the table of them
	targets    string // the table that is filled before it becomes the campaign's
}

// SelectionRun returns the attempt that is under way for a revision, or begins one. One for
// another revision is over by that. Of a revision that was frozen before it returns the
// counts instead.
func (s *Store) SelectionRun(ctx context.Context, in campaign.SelectionInput) (r SelectionRun, frozen *campaign.TargetCount, err error) {
	r = SelectionRun{store: s, CampaignID: in.CampaignID, Revision: in.Revision}
	if r.candidates, err = partition("workspace.candidate", in.CampaignID); err != nil {
		return r, nil, err
	}
	if r.targets, err = partition("campaign_target", in.CampaignID); err != nil {
		return r, nil, err
	}
	r.targets += "_next"
	err = s.inTx(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT FROM campaign WHERE id = $1 FOR NO KEY UPDATE`, in.CampaignID); err != nil {
			return err
		}
		err := tx.QueryRow(ctx, `SELECT counts FROM selection WHERE campaign_id = $1 AND snapshot = $2`, in.CampaignID, in.Revision).Scan(&frozen)
		if err == nil || !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE selection_run SET ended_at = clock_timestamp(), outcome = 'refused', reason = 'another revision is selected'
			WHERE campaign_id = $1 AND ended_at IS NULL AND revision <> $2`, in.CampaignID, in.Revision)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO selection_run (campaign_id, revision) VALUES ($1, $2) ON CONFLICT (campaign_id) WHERE ended_at IS NULL DO NOTHING`,
			in.CampaignID, in.Revision)
		if err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT id, began_at FROM selection_run WHERE campaign_id = $1 AND ended_at IS NULL`, in.CampaignID).Scan(&r.ID, &r.BeganAt)
	})
	if err != nil {
		return r, nil, fmt.Errorf("begin selection: %w", err)
	}
	return r, frozen, nil
}

// step does one step of the attempt, once: alone, and if it was done before it returns what
// was found then. work is done in transactions of its own and may be nil; what within does
// takes effect with the row that says that the step was done.
func (r SelectionRun) step(
	ctx context.Context, step campaign.SelectionStep, count campaign.TargetCount,
	work func(context.Context, *campaign.TargetCount) error, within func(context.Context, pgx.Tx, *campaign.TargetCount) error,
) (campaign.TargetCount, error) {
	err := r.store.Exclusive(ctx, "targets:"+r.CampaignID, func(ctx context.Context) error {
		found, err := r.done(ctx, step, &count)
		if err != nil || found {
			return err
		}
		began := time.Now()
		if work != nil {
			if err := work(ctx, &count); err != nil {
				return err
			}
		}
		return r.store.inTx(ctx, func(tx pgx.Tx) error {
			if err := within(ctx, tx, &count); err != nil {
				return err
			}
			return r.record(ctx, tx, step, count, time.Since(began))
		})
	})
	return count, lost(err)
}

// done reports whether a step was done, and what it found.
func (r SelectionRun) done(ctx context.Context, step campaign.SelectionStep, count *campaign.TargetCount) (bool, error) {
	var text []byte
	err := r.store.pool.QueryRow(ctx, `SELECT result FROM selection_step WHERE run = $1 AND step = $2`, r.ID, step).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read selection: %w", err)
	}
	return true, json.Unmarshal(text, count)
}

func (r SelectionRun) record(ctx context.Context, tx pgx.Tx, step campaign.SelectionStep, count campaign.TargetCount, took time.Duration) error {
	_, err := tx.Exec(ctx, `INSERT INTO selection_step (run, step, result, took) VALUES ($1, $2, $3, $4)`, r.ID, step, count, took)
	if err != nil {
		return fmt.Errorf("record selection: %w", err)
	}
	return notify(ctx, tx, "campaign", r.CampaignID, 0)
}

// before returns what the steps before one have found. Candidates that went with a server
// that crashed are CodeSelectionLost: the attempt is over and another one begins anew.
func (r SelectionRun) before(ctx context.Context, step campaign.SelectionStep) (campaign.TargetCount, error) {
	var count campaign.TargetCount
	found, err := r.done(ctx, step, &count)
	if err != nil {
		return count, err
	}
	if !found {
		return count, campaign.Errorf(campaign.CodeStateConflict, "step %s of the selection was not done", step)
	}
	if count.Matching == 0 {
		return count, nil
	}
	var there bool
	err = r.store.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM `+r.candidates+`)`).Scan(&there)
	if err = lost(err); err != nil && campaign.CodeOf(err) != campaign.CodeSelectionLost {
		return count, fmt.Errorf("look for candidates: %w", err)
	}
	if there {
		return count, nil
	}
	if err := r.End(ctx, "lost", 0, "the database server crashed"); err != nil {
		return count, err
	}
	return count, lost(errNoCandidates)
}

var errNoCandidates = &pgconn.PgError{Code: undefinedTable}

const undefinedTable = "42P01"

// lost turns a table of candidates that is not there into CodeSelectionLost.
func lost(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == undefinedTable {
		return &campaign.Error{Code: campaign.CodeSelectionLost, Message: "the candidates of the selection are gone; it begins anew", Err: err}
	}
	return err
}

// End ends the attempt without targets.
func (r SelectionRun) End(ctx context.Context, outcome string, targets int64, reason string) error {
	_, err := r.store.pool.Exec(ctx, `UPDATE selection_run SET ended_at = clock_timestamp(), outcome = $2, targets = $3, reason = $4 WHERE id = $1 AND ended_at IS NULL`,
		r.ID, outcome, targets, reason)
	if err != nil {
		return fmt.Errorf("end selection: %w", err)
	}
	return nil
}

// bulkMemory suits the statements of a selection, which sort and hash a campaign's targets:
// just-in-time compilation costs them more than it gives, and the planner takes few rows for
// many and shuns to gather them.
const bulkMemory = `SET LOCAL jit = off; SET LOCAL work_mem = '256MB'; SET LOCAL maintenance_work_mem = '256MB';
	SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0`

// Count is the first step: the rows must prove what the revision stands on, and authorise
// must accept it; nobody may have been contacted from an earlier selection. It counts the
// customers of the unit, and draws the universal holdout among those who came since the last
// time.
func (r SelectionRun) Count(ctx context.Context, sel targeting.Selection, holdout targeting.Holdout, authorise func(Standing) error) (campaign.TargetCount, error) {
	return r.step(ctx, campaign.StepCount, campaign.TargetCount{}, nil, func(ctx context.Context, tx pgx.Tx, count *campaign.TargetCount) error {
		if err := r.allowed(ctx, tx, authorise); err != nil {
			return err
		}
		if holdout.Share > 0 {
			if err := drawHoldout(ctx, tx, holdout); err != nil {
				return err
			}
		}
		sql, args := sel.UnitSQL()
		if err := tx.QueryRow(ctx, sql, args...).Scan(&count.Considered); err != nil {
			return fmt.Errorf("count customers: %w", err)
		}
		return nil
	})
}

// allowed makes sure that the revision may have targets: the rows prove what it stands on, and
// nobody was contacted from an earlier selection.
func (r SelectionRun) allowed(ctx context.Context, tx pgx.Tx, authorise func(Standing) error) error {
	stands, err := standing(ctx, tx, r.CampaignID, r.Revision)
	if err != nil {
		return err
	}
	if err := authorise(stands); err != nil {
		return err
	}
	var contacts bool
	err = tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM contact_batch WHERE campaign_id = $1)`, r.CampaignID).Scan(&contacts)
	if err != nil {
		return fmt.Errorf("read contact batches: %w", err)
	}
	if contacts {
		return campaign.Errorf(campaign.CodeStateConflict, "contacts were created from an earlier selection; the targets are frozen")
	}
	return nil
}

// expected makes sure that so many targets are what the signers of the revision were told.
func (r SelectionRun) expected(ctx context.Context, targets int64) error {
	return r.store.inTx(ctx, func(tx pgx.Tx) error {
		stands, err := standing(ctx, tx, r.CampaignID, r.Revision)
		if err != nil {
			return err
		}
		return stands.Facts.Holds(targets, stands.Plan.Plan.Audience.CountTolerance)
	})
}

// Filter is the second step: it makes the candidates.
func (r SelectionRun) Filter(ctx context.Context, sel targeting.Selection) (campaign.TargetCount, error) {
	before, err := r.counted(ctx, campaign.StepCount)
	if err != nil {
		return before, err
	}
	return r.step(ctx, campaign.StepFilter, before, nil, func(ctx context.Context, tx pgx.Tx, count *campaign.TargetCount) error {
		// At one moment, so that what is noted is what was read.
		if _, err := tx.Exec(ctx, `SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; `+bulkMemory+`; DROP TABLE IF EXISTS `+r.candidates); err != nil {
			return fmt.Errorf("prepare selection: %w", err)
		}
		sql, args := sel.CandidatesSQL(r.candidates, r.BeganAt)
		tag, err := tx.Exec(ctx, sql, args...)
		if err != nil {
			return fmt.Errorf("select candidates: %w", err)
		}
		all := tag.RowsAffected()
		if sel.Limit > 0 && all > sel.Limit {
			if count.Beyond, err = r.limit(ctx, tx, sel, all); err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, `CREATE INDEX ON `+r.candidates+` USING brin (bucket) WITH (pages_per_range = 4); ANALYZE `+r.candidates)
		if err != nil {
			return fmt.Errorf("index candidates: %w", err)
		}
		_, err = tx.Exec(ctx, `UPDATE selection_run SET data_version = jsonb_build_object('at', clock_timestamp(), 'snapshot', pg_current_snapshot()::text,
			'last_customer', (SELECT id FROM customer ORDER BY id DESC LIMIT 1),
			'import', (SELECT digest FROM customer_import WHERE finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT 1)) WHERE id = $1`, r.ID)
		if err != nil {
			return fmt.Errorf("note data version: %w", err)
		}
		count.Matching = all
		return reasons(ctx, tx, r.candidates, count)
	})
}

// limit leaves the best candidates, and returns how many it did not.
func (r SelectionRun) limit(ctx context.Context, tx pgx.Tx, sel targeting.Selection, all int64) (int64, error) {
	tag, err := tx.Exec(ctx, `CREATE UNLOGGED TABLE `+r.candidates+`_best AS `+sel.LimitSQL(r.candidates))
	if err != nil {
		return 0, fmt.Errorf("limit candidates: %w", err)
	}
	_, name, _ := strings.Cut(r.candidates, ".")
	_, err = tx.Exec(ctx, `DROP TABLE `+r.candidates+`; ALTER TABLE `+r.candidates+`_best RENAME TO `+name)
	if err != nil {
		return 0, fmt.Errorf("limit candidates: %w", err)
	}
	return all - tag.RowsAffected(), nil
}

// counted is before for a step that made no candidates yet.
func (r SelectionRun) counted(ctx context.Context, step campaign.SelectionStep) (campaign.TargetCount, error) {
	var count campaign.TargetCount
	found, err := r.done(ctx, step, &count)
	if err == nil && !found {
		err = campaign.Errorf(campaign.CodeStateConflict, "step %s of the selection was not done", step)
	}
	return count, err
}

// reasons counts the candidates by arm, wave and why they are refused.
func reasons(ctx context.Context, tx pgx.Tx, candidates string, count *campaign.TargetCount) error {
	rows, err := tx.Query(ctx, `SELECT refused, wave, count(*), count(*) FILTER (WHERE control) FROM `+candidates+` GROUP BY 1, 2 ORDER BY 1, 2`)
	if err != nil {
		return fmt.Errorf("count candidates: %w", err)
	}
	count.Suppressed, count.Targets, count.Control, count.Waves, count.Reasons = 0, 0, 0, nil, nil
	var rule string
	var wave int
	var n, control int64
	_, err = pgx.ForEachRow(rows, []any{&rule, &wave, &n, &control}, func() error {
		if rule == "" {
			count.Targets += n
			count.Control += control
			count.Waves = append(count.Waves, campaign.WaveCount{Wave: wave, Treated: n - control, Control: control})
			return nil
		}
		count.Suppressed += n
		if last := len(count.Reasons) - 1; last >= 0 && count.Reasons[last].Rule == rule {
			count.Reasons[last].Customers += n
		} else {
			count.Reasons = append(count.Reasons, campaign.ReasonCount{Rule: rule, Customers: n})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("count candidates: %w", err)
	}
	return nil
}

// RefusedTargets returns how many targets the latest selection of a revision found that came
// to another number than its signers were told, and whether there was one.
func (s *Store) RefusedTargets(ctx context.Context, ref campaign.PlanRef) (targets int64, found bool, err error) {
	err = s.pool.QueryRow(ctx, `SELECT targets FROM selection_run WHERE campaign_id = $1 AND revision = $2 AND outcome = 'refused' AND targets > 0 ORDER BY id DESC LIMIT 1`,
		ref.CampaignID, ref.Revision).Scan(&targets)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("read selections: %w", err)
	}
	return targets, true, nil
}
