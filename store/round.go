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

// togetherFor is how long a campaign that was submitted counts with those after it.
const togetherFor = 30 * 24 * time.Hour

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
		if opened, err := roundOpened(ctx, tx, r); err != nil || opened {
			return err
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
		d, err := plan.Plan.Digests().Selecting(r.Facts.Audience, r.Facts.Uses)
		if err != nil {
			return err
		}
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

// RoundOpened reports whether this round was opened before. It fails with
// CodeStateConflict when another one was under its number.
func (s *Store) RoundOpened(ctx context.Context, r campaign.Round) (bool, error) {
	return roundOpened(ctx, s.pool, r)
}

func roundOpened(ctx context.Context, q querier, r campaign.Round) (bool, error) {
	var same bool
	err := q.QueryRow(ctx, `SELECT revision = $3 AND digest = $4 AND requester::text = $5 AND route = $6 AND facts = $7 FROM approval_round
		WHERE campaign_id = $1 AND round = $2`, r.CampaignID, r.Round, r.Revision, r.Digest, r.Requester, r.Route, r.Facts).Scan(&same)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read round: %w", err)
	case !same:
		return false, campaign.Errorf(campaign.CodeStateConflict, "round %d was opened for something else", r.Round)
	}
	return true, nil
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
	now, err := recent(ctx, tx, r.CampaignID, r.Requester, r.Facts)
	if err != nil {
		return err
	}
	for _, n := range now {
		if n.Mine && counted[n.CampaignID] < n.Counts(r.Facts) {
			return campaign.Errorf(campaign.CodeRouteOutdated, "campaign %d was submitted in the same moment and counts with this one; submit again", n.Number)
		}
	}
	return nil
}

// Neighbour is a plan of another campaign of the tenant that was submitted lately and not
// turned down, withdrawn or inside a programme: the one approved last or one that waits for
// its approval. A campaign may have both.
type Neighbour struct {
	CampaignID string
	Number     int64
	Revision   int                  // of the plan that was submitted
	Amount     int64                // the most that a plan of the campaign may spend, approved or waiting
	Added      int64                // what amendments of nothing but money added to it in that time, approved or waiting
	Mine       bool                 // the requester asked for a plan of the campaign
	Frozen     bool                 // it has frozen targets
	Uses       []campaign.FilterUse // what its filters name, as it was submitted
}

// Counts is how much of the campaign counts with a plan: what amendments added to it with an
// amendment for which its own difference counts, and otherwise all.
func (n Neighbour) Counts(f campaign.Facts) int64 {
	if f.Base != 0 && !f.Whole {
		return n.Added
	}
	return n.Amount
}

// Neighbours returns the plans submitted in the last 30 days, by the database's clock,
// whose money is of the same kind as a campaign's: of the same tenant, in the same
// currency, and simulated or not as the campaign is. They are those of the same requester,
// and those whose unit lies within the campaign's or around it, for others reach nobody
// whom it reaches. The newest come first.
func (s *Store) Neighbours(ctx context.Context, campaignID, requester string, f campaign.Facts) ([]Neighbour, error) {
	return recent(ctx, s.pool, campaignID, requester, f)
}

// recent takes of each campaign the round approved last and the one that is open: an
// amendment that asks for less hides nothing until it is approved, and a round about a
// difference counts for the whole plan.
func recent(ctx context.Context, q querier, campaignID, requester string, f campaign.Facts) ([]Neighbour, error) {
	exact, patterns := below([]campaign.OrgUnit{f.Unit})
	rows, err := q.Query(ctx, `SELECT campaign_id::text, number, revision, amount, added, mine, EXISTS (SELECT FROM selection s WHERE s.campaign_id = plans.campaign_id), uses
		FROM (
			SELECT campaign_id, number, unit, revision, added, mine, uses, max(opened_at) OVER campaign AS opened_at, max(amount) OVER campaign AS amount
			FROM (SELECT DISTINCT ON (r.campaign_id, r.result IS NULL) r.campaign_id, c.number, c.unit, r.revision, r.opened_at, r.facts->'uses' AS uses,
					coalesce((r.facts->>'total')::bigint, r.amount) AS amount,
					coalesce(sum((r.facts->>'added')::bigint) OVER asked, 0)::bigint AS added, bool_or(r.requester = $2) OVER asked AS mine
				FROM approval_round r JOIN campaign c ON c.id = r.campaign_id JOIN campaign mine ON mine.id = $1
				WHERE r.tenant = $3 AND r.opened_at > clock_timestamp() - $4::interval AND r.currency = $5 AND r.owner IS NULL
				  AND r.campaign_id <> $1 AND c.simulated = mine.simulated AND c.stage <> $6 AND (r.result IS NULL OR r.result = $7)
				WINDOW asked AS (PARTITION BY r.campaign_id)
				ORDER BY r.campaign_id, r.result IS NULL, r.round DESC) latest
			WINDOW campaign AS (PARTITION BY campaign_id)) plans
		WHERE mine OR unit = ANY($8) OR unit LIKE ANY($9) OR unit = ANY($10)
		ORDER BY opened_at DESC, number DESC, revision DESC`,
		campaignID, requester, f.Unit.Tenant(), togetherFor, f.Currency, campaign.StageRejected, campaign.ApprovalApproved, exact, patterns, f.Unit.Chain())
	if err != nil {
		return nil, fmt.Errorf("read recent campaigns: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Neighbour])
	if err != nil {
		return nil, fmt.Errorf("read recent campaigns: %w", err)
	}
	return all, nil
}

// SubmittedUses returns what the filters of a campaign's audience, given by its plan's digest,
// were submitted with: by the latest round about it that is open or approved, so that an
// audience which was signed stays what it was through every amendment that leaves it alone.
// They are nil when there is none, or the round is from before they were kept.
func (s *Store) SubmittedUses(ctx context.Context, campaignID, audience string) ([]campaign.FilterUse, error) {
	rows, err := s.pool.Query(ctx, `SELECT r.facts, p.plan FROM approval_round r JOIN plan_revision p ON p.campaign_id = r.campaign_id AND p.revision = r.revision
		WHERE r.campaign_id = $1 AND (r.result IS NULL OR r.result = $2) ORDER BY r.round DESC`, campaignID, campaign.ApprovalApproved)
	if err != nil {
		return nil, fmt.Errorf("read rounds: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var facts campaign.Facts
		var plan campaign.Plan
		if err := rows.Scan(&facts, &plan); err != nil {
			return nil, fmt.Errorf("read rounds: %w", err)
		}
		if plan.Digests().Audience == audience {
			return facts.Uses, nil
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read rounds: %w", err)
	}
	return nil, nil
}

// AddedLately returns by how much amendments of nothing but money raised a campaign's plan
// in the last 30 days, by the database's clock, in minor units.
func (s *Store) AddedLately(ctx context.Context, campaignID string) (int64, error) {
	var added int64
	err := s.pool.QueryRow(ctx, `SELECT coalesce(sum((facts->>'added')::bigint), 0)::bigint FROM approval_round
		WHERE campaign_id = $1 AND result = $2 AND opened_at > clock_timestamp() - $3::interval`,
		campaignID, campaign.ApprovalApproved, togetherFor).Scan(&added)
	if err != nil {
		return 0, fmt.Errorf("read amendments: %w", err)
	}
	return added, nil
}

// SignedFor returns the highest amount that chose the route of an approved round of a
// campaign, of its revisions up to one, in minor units; 0 without such a round.
func (s *Store) SignedFor(ctx context.Context, in campaign.PlanRef) (int64, error) {
	rows, err := s.pool.Query(ctx, `SELECT amount, facts FROM approval_round WHERE campaign_id = $1 AND revision <= $2 AND result = $3`,
		in.CampaignID, in.Revision, campaign.ApprovalApproved)
	if err != nil {
		return 0, fmt.Errorf("read rounds: %w", err)
	}
	var most, amount int64
	var facts campaign.Facts
	_, err = pgx.ForEachRow(rows, []any{&amount, &facts}, func() error {
		counted, err := facts.Counted()
		most = max(most, amount, counted)
		facts = campaign.Facts{}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("read rounds: %w", err)
	}
	return most, nil
}

// Overlap is how many customers a campaign reaches, and how many of those another one
// reaches as well.
type Overlap struct{ Theirs, Both int64 }

// Overlap runs a statement of targeting.OverlapSQL: how many customers one campaign
// reaches, and what it has in common with each of the others.
func (s *Store) Overlap(ctx context.Context, sql string, args []any) (mine int64, others []Overlap, err error) {
	var theirs, both []int64
	if err := s.pool.QueryRow(ctx, sql, args...).Scan(&mine, &theirs, &both); err != nil {
		return 0, nil, fmt.Errorf("compare audiences: %w", err)
	}
	for i := range theirs {
		others = append(others, Overlap{theirs[i], both[i]})
	}
	return mine, others, nil
}

// FrozenOverlap runs a statement of targeting.FrozenOverlapSQL: what a campaign has in
// common with the frozen targets of others, by their ids.
func (s *Store) FrozenOverlap(ctx context.Context, sql string, args []any) (map[string]Overlap, error) {
	rows, err := s.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("compare targets: %w", err)
	}
	all := map[string]Overlap{}
	var id string
	var o Overlap
	if _, err := pgx.ForEachRow(rows, []any{&id, &o.Theirs, &o.Both}, func() error { all[id] = o; return nil }); err != nil {
		return nil, fmt.Errorf("compare targets: %w", err)
	}
	return all, nil
}

// closeRound writes how a round ended, once; and that an amendment that was approved came
// to nothing.
func closeRound(ctx context.Context, q executor, campaignID string, a *campaign.Approval) error {
	if a == nil || a.Result == "" {
		return nil
	}
	_, err := q.Exec(ctx, `UPDATE approval_round SET closed_at = clock_timestamp(), result = $3
		WHERE campaign_id = $1 AND round = $2 AND (result IS NULL OR result = $4 AND $3 IN ($5, $6))`,
		campaignID, a.Round, a.Result, campaign.ApprovalApproved, campaign.ApprovalOutdated, campaign.ApprovalUnfunded)
	if err != nil {
		return fmt.Errorf("close round: %w", err)
	}
	return nil
}
