package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// togetherFor is how long a campaign that was submitted counts with those after it, and
// togetherMost how many of them are looked at, the newest first.
const (
	togetherFor  = 30 * 24 * time.Hour
	togetherMost = 100
)

// OpenRound keeps an approval round as it is opened; the same round is kept once. It
// fails with CodeRouteOutdated when the requester submitted another campaign since the
// route was chosen, which would not have counted, and with CodeVersionChanged when the
// plan is not the one that the round is about.
func (s *Store) OpenRound(ctx context.Context, r campaign.Round) error {
	route, err := json.Marshal(r.Route)
	if err != nil {
		return fmt.Errorf("write route: %w", err)
	}
	facts, err := json.Marshal(r.Facts)
	if err != nil {
		return fmt.Errorf("write facts: %w", err)
	}
	var calendar []byte
	if r.Calendar != nil {
		if calendar, err = json.Marshal(r.Calendar); err != nil {
			return fmt.Errorf("write calendar: %w", err)
		}
	}
	return s.inTx(ctx, func(tx pgx.Tx) error {
		// One after the other, so that of two campaigns one sees the other.
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, "rounds:"+r.Requester); err != nil {
			return fmt.Errorf("wait for other rounds: %w", err)
		}
		var digest string
		err := tx.QueryRow(ctx, `SELECT digest FROM approval_round WHERE campaign_id = $1 AND round = $2`, r.CampaignID, r.Round).Scan(&digest)
		if err == nil && digest == r.Digest {
			return nil
		}
		if err == nil {
			return campaign.Errorf(campaign.CodeStateConflict, "round %d was opened for another plan", r.Round)
		} else if !errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("read round: %w", err)
		}
		plan, err := loadPlan(ctx, tx, campaign.PlanRef{CampaignID: r.CampaignID, Revision: r.Revision})
		if err != nil {
			return err
		}
		if plan.Digest != r.Digest {
			return campaign.Errorf(campaign.CodeVersionChanged, "revision %d is not the plan that was routed", r.Revision)
		}
		if err := allCounted(ctx, tx, r); err != nil {
			return err
		}
		d := plan.Plan.Digests()
		_, err = tx.Exec(ctx, `INSERT INTO approval_round (campaign_id, round, revision, digest, content_digest, audience_digest, budget_digest,
				tenant, amount, credit, currency, requester, owner, rule, route, facts, calendar, policy_version)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, nullif($13, '')::uuid, $14, $15, $16, $17, $18)`,
			r.CampaignID, r.Round, r.Revision, r.Digest, d.Content, d.Audience, d.Budget, r.Facts.Unit.Tenant(), r.Facts.Amount, r.Facts.Credit,
			r.Facts.Currency, r.Requester, r.Facts.Owner, r.Rule, route, facts, calendar, r.PolicyVersion)
		if err != nil {
			return fmt.Errorf("open round: %w", err)
		}
		return nil
	})
}

// allCounted makes sure that no campaign of the requester has come since the route was
// chosen.
func allCounted(ctx context.Context, tx pgx.Tx, r campaign.Round) error {
	if r.Facts.Owner != "" || r.Facts.Alone {
		return nil
	}
	counted := map[string]int64{}
	for _, t := range r.Facts.Together {
		counted[t.CampaignID] = t.Amount
	}
	now, err := recent(ctx, tx, r.CampaignID, r.Facts)
	if err != nil {
		return err
	}
	for _, n := range now {
		if amount, ok := counted[n.CampaignID]; n.Requester == r.Requester && (!ok || amount < n.Amount) {
			return campaign.Errorf(campaign.CodeRouteOutdated, "campaign %d was submitted in the same moment and counts with this one; submit again", n.Number)
		}
	}
	return nil
}

// Neighbour is another campaign of the tenant that was submitted lately and not turned
// down, withdrawn or inside a programme.
type Neighbour struct {
	CampaignID string
	Number     int64
	Revision   int // of the plan that was submitted
	Amount     int64
	Requester  string
	Frozen     bool // it has frozen targets
}

// Neighbours returns the campaigns submitted in the last 30 days, by the database's
// clock, whose money is of the same kind as a campaign's: of the same tenant, in the same
// currency, and simulated or not as the campaign is. The newest come first, 100 at most.
func (s *Store) Neighbours(ctx context.Context, campaignID string, f campaign.Facts) ([]Neighbour, error) {
	return recent(ctx, s.pool, campaignID, f)
}

func recent(ctx context.Context, q querier, campaignID string, f campaign.Facts) ([]Neighbour, error) {
	rows, err := q.Query(ctx, `SELECT campaign_id, number, revision, amount, requester, frozen FROM (
			SELECT DISTINCT ON (r.campaign_id) r.campaign_id::text, c.number, r.revision, r.amount, r.requester::text, r.opened_at,
				EXISTS (SELECT FROM selection s WHERE s.campaign_id = r.campaign_id) AS frozen
			FROM approval_round r JOIN campaign c ON c.id = r.campaign_id JOIN campaign mine ON mine.id = $1
			WHERE r.tenant = $2 AND r.opened_at > clock_timestamp() - $3::interval AND r.currency = $4 AND r.owner IS NULL
			  AND r.campaign_id <> $1 AND c.simulated = mine.simulated AND c.stage <> $5 AND (r.result IS NULL OR r.result = $6)
			ORDER BY r.campaign_id, r.round DESC) latest
		ORDER BY opened_at DESC, number DESC LIMIT $7`,
		campaignID, f.Unit.Tenant(), togetherFor, f.Currency, campaign.StageRejected, campaign.ApprovalApproved, togetherMost)
	if err != nil {
		return nil, fmt.Errorf("read recent campaigns: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Neighbour])
	if err != nil {
		return nil, fmt.Errorf("read recent campaigns: %w", err)
	}
	return all, nil
}

// Overlap runs a statement of targeting.OverlapSQL: how many customers one campaign
// reaches, how many each of the others, and how many of those both reach.
func (s *Store) Overlap(ctx context.Context, sql string, args []any) (mine int64, theirs, both []int64, err error) {
	if err = s.pool.QueryRow(ctx, sql, args...).Scan(&mine, &theirs, &both); err != nil {
		err = fmt.Errorf("compare audiences: %w", err)
	}
	return mine, theirs, both, err
}

// closeRound writes how a round ended, once.
func closeRound(ctx context.Context, q executor, campaignID string, a *campaign.Approval) error {
	if a == nil || a.Result == "" {
		return nil
	}
	_, err := q.Exec(ctx, `UPDATE approval_round SET closed_at = clock_timestamp(), result = $3 WHERE campaign_id = $1 AND round = $2 AND result IS NULL`,
		campaignID, a.Round, a.Result)
	if err != nil {
		return fmt.Errorf("close round: %w", err)
	}
	return nil
}
