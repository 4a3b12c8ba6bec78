package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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
	// Policy is the contact policy that was in force when the attempt began. All of its steps
	// keep to it.
	Policy targeting.ContactPolicy

	candidates string // the table of them
	targets    string // the table that is filled before it becomes the campaign's
}

// keptFor is how long an attempt may take: what it found when it began says too little about
// the customers after that.
const keptFor = 24 * time.Hour

// SelectionRun returns the attempt that is under way for a revision; for the first step it
// begins one if there is none. One for another revision, or that began too long ago, is over by
// that. Of a revision that was frozen before it returns the counts instead. A later step of an
// attempt that was refused is refused in the same words, and of one whose candidates are gone
// it is CodeSelectionLost.
func (s *Store) SelectionRun(ctx context.Context, in campaign.SelectionStepInput) (r SelectionRun, frozen *campaign.TargetCount, err error) {
	r = SelectionRun{store: s, CampaignID: in.CampaignID, Revision: in.Revision}
	if r.candidates, err = partition("workspace.candidate", in.CampaignID); err != nil {
		return r, nil, err
	}
	if r.targets, err = partition("campaign_target", in.CampaignID); err != nil {
		return r, nil, err
	}
	r.targets += "_next"
	over := false
	err = s.inTx(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT FROM campaign WHERE id = $1 FOR NO KEY UPDATE`, in.CampaignID); err != nil {
			return err
		}
		err := tx.QueryRow(ctx, `SELECT counts FROM selection WHERE campaign_id = $1 AND snapshot = $2`, in.CampaignID, in.Revision).Scan(&frozen)
		if err == nil || !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE selection_run SET ended_at = clock_timestamp(), outcome = CASE revision WHEN $2 THEN 'lost' ELSE 'refused' END,
			    reason = CASE revision WHEN $2 THEN 'it began too long ago' ELSE 'another revision is selected' END
			WHERE campaign_id = $1 AND ended_at IS NULL AND (revision <> $2 OR began_at < now() - $3::interval)`, in.CampaignID, in.Revision, keptFor)
		if err != nil {
			return err
		}
		if in.Step == campaign.StepCount {
			_, err = tx.Exec(ctx, `INSERT INTO selection_run (campaign_id, revision, policy)
				SELECT id, $2, coalesce((`+policyInForce("split_part(campaign.unit, '/', 1)")+`), 0) FROM campaign WHERE id = $1
				ON CONFLICT (campaign_id) WHERE ended_at IS NULL DO NOTHING`, in.CampaignID, in.Revision)
			if err != nil {
				return err
			}
		}
		var version int64
		err = tx.QueryRow(ctx, `SELECT id, began_at, policy FROM selection_run WHERE campaign_id = $1 AND ended_at IS NULL`, in.CampaignID).Scan(&r.ID, &r.BeganAt, &version)
		if errors.Is(err, pgx.ErrNoRows) {
			over = true
			return nil
		}
		if err != nil {
			return err
		}
		r.Policy, err = s.contactPolicyVersion(ctx, tx, version)
		return err
	})
	if err != nil {
		return r, nil, fmt.Errorf("begin selection: %w", err)
	}
	if over {
		return r, nil, s.ended(ctx, in)
	}
	return r, frozen, nil
}

// ended says how the last attempt for a revision ended, to a step that comes after its end.
func (s *Store) ended(ctx context.Context, in campaign.SelectionStepInput) error {
	var outcome string
	var refusal *campaign.Error
	err := s.pool.QueryRow(ctx, `SELECT coalesce(outcome, ''), refusal FROM selection_run WHERE campaign_id = $1 AND revision = $2 ORDER BY id DESC LIMIT 1`,
		in.CampaignID, in.Revision).Scan(&outcome, &refusal)
	switch {
	case err != nil && !errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("read selection: %w", err)
	case refusal != nil:
		return refusal
	case outcome == "lost":
		return lost(errNoCandidates)
	}
	return campaign.Errorf(campaign.CodeStateConflict, "step %s comes after others of the selection, which were not done", in.Step)
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
	there, err := r.candidatesAre(ctx, r.store.pool)
	if err = lost(err); err != nil && campaign.CodeOf(err) != campaign.CodeSelectionLost {
		return count, fmt.Errorf("look for candidates: %w", err)
	}
	if there {
		return count, nil
	}
	_, err = r.store.pool.Exec(ctx, `UPDATE selection_run SET ended_at = clock_timestamp(), outcome = 'lost', reason = 'the database server crashed' WHERE id = $1 AND ended_at IS NULL`, r.ID)
	if err != nil {
		return count, fmt.Errorf("end selection: %w", err)
	}
	return count, lost(errNoCandidates)
}

// candidatesAre reports whether there are candidates: a server that crashes empties their table.
func (r SelectionRun) candidatesAre(ctx context.Context, q querier) (there bool, err error) {
	err = q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM `+r.candidates+`)`).Scan(&there)
	return there, err
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

// Refuse ends the attempt, in one transaction with all that it has reserved: a rule says no to
// it. A step that is asked for again is told the same. targets are kept where the rule is about
// their number.
func (r SelectionRun) Refuse(ctx context.Context, rule *campaign.Error, targets int64) error {
	if rule.Code != campaign.CodeAudienceGrown && rule.Code != campaign.CodeAudienceShrunk {
		targets = 0
	}
	return r.store.Exclusive(ctx, "targets:"+r.CampaignID, func(ctx context.Context) error {
		return r.store.inTx(ctx, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, `UPDATE selection_run SET ended_at = clock_timestamp(), outcome = 'refused', targets = $2, reason = $3, refusal = $4 WHERE id = $1 AND ended_at IS NULL`,
				r.ID, targets, rule.Error(), rule)
			if err != nil {
				return fmt.Errorf("end selection: %w", err)
			}
			if tag.RowsAffected() == 0 {
				return nil // another attempt may have reserved since
			}
			if _, err := tx.Exec(ctx, `DROP TABLE IF EXISTS `+r.candidates); err != nil {
				return fmt.Errorf("drop candidates: %w", err)
			}
			return releaseContacts(ctx, tx, r.CampaignID, r.ID)
		})
	})
}

// bulkMemory suits the statements of a selection, which sort and hash a campaign's targets:
// just-in-time compilation costs them more than it gives, and the planner takes few rows for
// many and shuns to gather them.
const bulkMemory = `SET LOCAL jit = off; SET LOCAL work_mem = '256MB'; SET LOCAL maintenance_work_mem = '256MB';
	SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0`

// fewSamples suits ANALYZE of tables whose columns are alike from end to end.
const fewSamples = `SET LOCAL default_statistics_target = 10`

// Count is the first step: the rows must prove what the revision stands on, and authorise
// must accept it; nobody may have been contacted from an earlier selection. It counts the
// customers of the unit, and draws the universal holdout among those who came since the last
// time.
func (r SelectionRun) Count(ctx context.Context, sel targeting.Selection, holdout targeting.Holdout, authorise func(Standing) error) (campaign.TargetCount, error) {
	return r.step(ctx, campaign.StepCount, campaign.TargetCount{}, nil, func(ctx context.Context, tx pgx.Tx, count *campaign.TargetCount) error {
		if err := r.allowed(ctx, tx, sel, authorise); err != nil {
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

// allowed makes sure that the revision may have targets: the rows prove what it stands on,
// they are selected with what its signers were told of, and nobody was contacted from an
// earlier selection.
func (r SelectionRun) allowed(ctx context.Context, tx pgx.Tx, sel targeting.Selection, authorise func(Standing) error) error {
	stands, err := standing(ctx, tx, r.CampaignID, r.Revision)
	if err != nil {
		return err
	}
	if err := authorise(stands); err != nil {
		return err
	}
	if signed := stands.Facts.Uses; signed != nil && !slices.Equal(signed, sel.Uses) {
		return campaign.Errorf(campaign.CodeVersionChanged, "the filters of revision %d would use other segments, lists or campaigns than were signed for", r.Revision).
			With("signed", signed).With("found", sel.Uses)
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
		_, err = tx.Exec(ctx, `CREATE INDEX ON `+r.candidates+` USING brin (bucket) WITH (pages_per_range = 4); `+fewSamples+`; ANALYZE `+r.candidates)
		if err != nil {
			return fmt.Errorf("index candidates: %w", err)
		}
		_, err = tx.Exec(ctx, `UPDATE selection_run SET data_version = jsonb_build_object('at', clock_timestamp(), 'snapshot', pg_current_snapshot()::text,
			'last_customer', (SELECT id FROM customer ORDER BY id DESC LIMIT 1),
			'import', (SELECT digest FROM customer_import WHERE finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT 1),
			'import_job', (SELECT jsonb_build_object('id', id, 'state', state, 'digest', digest) FROM import_job WHERE state IN ('loading', 'done') AND already IS NULL
			    ORDER BY changed_at DESC LIMIT 1)) WHERE id = $1`, r.ID)
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
