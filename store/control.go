package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/targeting"
)

// ControlReport looks at the control group of a campaign's frozen targets, CodeNotFound
// before there are any: whether the arms have the sizes by which they were drawn, whether
// anybody of the control group was contacted, here or by others more or less than the treated,
// whether an arm was changed, and whether one household is in both.
func (s *Store) ControlReport(ctx context.Context, campaignID string) (campaign.ControlReport, error) {
	var r campaign.ControlReport
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		var revision int
		err := tx.QueryRow(ctx, `SELECT revision FROM selection WHERE campaign_id = $1 ORDER BY snapshot DESC LIMIT 1`, campaignID).Scan(&revision)
		if err != nil {
			return notFound(err, "selection")
		}
		plan, err := loadPlan(ctx, tx, campaign.PlanRef{CampaignID: campaignID, Revision: revision})
		if err != nil {
			return err
		}
		audience := plan.Plan.Audience
		if r.Method, r.Percent = audience.ControlMethod, audience.ControlPercent; r.Method == "" {
			r.Method = campaign.ControlByHash
		}
		byHash := r.Method == campaign.ControlByHash
		share := int(audience.ControlPercent*100 + 0.5)
		if err := readArms(ctx, tx, campaignID, targeting.Threshold(share), &r); err != nil {
			return err
		}
		if !byHash {
			r.Changed = 0
		}
		if err := judgeArms(&r, share); err != nil {
			return err
		}
		err = tx.QueryRow(ctx, `SELECT count(*) FROM contact c JOIN campaign_target t ON t.campaign_id = $1 AND t.customer_id = c.customer_id
			WHERE c.campaign_id = $1 AND t.arm = 'control'`, campaignID).Scan(&r.Contacted)
		if err != nil {
			return fmt.Errorf("count contacts of the control group: %w", err)
		}
		err = tx.QueryRow(ctx, `SELECT count(*) FROM (SELECT FROM campaign_target t JOIN phone_vault v ON v.customer_id = t.customer_id
			WHERE t.campaign_id = $1 GROUP BY v.lookup HAVING count(DISTINCT t.arm) > 1) shared`, campaignID).Scan(&r.Shared)
		if err != nil {
			return fmt.Errorf("count shared numbers: %w", err)
		}
		r.Sound = r.Contacted == 0 && r.Changed == 0 && !r.Others.Uneven && (r.SampleRatio == nil || !r.SampleRatio.Mismatch)
		return nil
	})
	return r, err
}

func readArms(ctx context.Context, tx pgx.Tx, campaignID string, threshold int64, r *campaign.ControlReport) error {
	rows, err := tx.Query(ctx, `SELECT t.arm, count(*), count(*) FILTER (WHERE (t.control_u < $2) <> (t.arm = 'control')),
			count(*) FILTER (WHERE EXISTS (SELECT FROM contact_ledger l WHERE `+targeting.LedgerOfSQL("l", "t.customer_id")+`
			    AND l.campaign_id <> $1 AND l.state IN ('S', 'D') AND l.at >= s.frozen_at))
		FROM campaign_target t JOIN (SELECT frozen_at FROM selection WHERE campaign_id = $1 ORDER BY snapshot DESC LIMIT 1) s ON true
		WHERE t.campaign_id = $1 GROUP BY t.arm`, campaignID, threshold)
	if err != nil {
		return fmt.Errorf("count arms: %w", err)
	}
	var arm string
	var n, changed, others int64
	_, err = pgx.ForEachRow(rows, []any{&arm, &n, &changed, &others}, func() error {
		if r.Changed += changed; arm == targeting.ArmControl {
			r.Control, r.Others.Control = n, others
		} else {
			r.Treated, r.Others.Treated = n, others
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("count arms: %w", err)
	}
	return nil
}

// unevenLevel is the probability below which a difference between the arms is taken for one.
const unevenLevel = 0.001

// judgeArms tests the sizes of the arms and their contacts by others. What cannot be tested
// is left out.
func judgeArms(r *campaign.ControlReport, share int) error {
	if r.Method != campaign.ControlByList && share > 0 {
		chi2, p, err := targeting.SampleRatio([]int64{r.Treated, r.Control}, []float64{float64(10_000 - share), float64(share)})
		if err != nil && !errors.Is(err, targeting.ErrNotEstimable) {
			return err
		} else if err == nil {
			r.SampleRatio = &campaign.SampleRatio{ChiSquare: chi2, P: p, Mismatch: p < targeting.MismatchLevel}
		}
	}
	z, p, err := targeting.TwoProportions(r.Others.Control, r.Control, r.Others.Treated, r.Treated)
	if errors.Is(err, targeting.ErrNotEstimable) {
		r.Others.P = 1
		return nil
	}
	r.Others.Z, r.Others.P, r.Others.Uneven = z, p, p < unevenLevel
	return err
}
