package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// CountSignOff counts a decision, once, after comparing what the workflow was told
// with what the approver signed. allowed is asked, inside the transaction, whether the
// person may sign for the campaign's unit. It fails with
//   - CodeAssertionMismatch when the row is missing or says something else,
//   - CodeVersionChanged when the plan is not the one that was signed,
//   - CodeSelfApproval when the person asked for the approval or wrote the revision,
//   - CodeSameActor when the person's signature counts for another level already.
//
// A decision to return the plan ends a round: signatures before it do not stand in the
// way of the next round over the same revision.
func (s *Store) CountSignOff(ctx context.Context, c campaign.SignOffClaim, allowed func(unit campaign.OrgUnit) error) error {
	d := c.Decide
	if d.Level != c.Level.Level {
		return campaign.Errorf(campaign.CodeAssertionMismatch, "the decision is about level %d, level %d is waiting", d.Level, c.Level.Level)
	}
	return s.inTx(ctx, func(tx pgx.Tx) error {
		var unit campaign.OrgUnit
		err := tx.QueryRow(ctx, `SELECT unit FROM campaign WHERE id = $1 FOR UPDATE`, c.CampaignID).Scan(&unit)
		if err != nil {
			return notFound(err, "campaign")
		}
		var same bool
		err = tx.QueryRow(ctx, `SELECT campaign_id = $2 AND revision = $3 AND digest = $4 AND level = $5 AND user_id = $6
				AND decision = $7 AND words = $8 AND amount = $9 AND round = $10
			FROM sign_off WHERE id = $1`,
			d.SignOffID, c.CampaignID, d.Revision, d.Digest, d.Level, d.Actor.UserID, d.Decision, d.Words, c.Amount, c.Round).Scan(&same)
		if errors.Is(err, pgx.ErrNoRows) || err == nil && !same {
			return campaign.Errorf(campaign.CodeAssertionMismatch, "the decision is not what was signed")
		} else if err != nil {
			return fmt.Errorf("read sign-off: %w", err)
		}
		var counted bool
		err = tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM sign_off_counted WHERE sign_off_id = $1)`, d.SignOffID).Scan(&counted)
		if err != nil {
			return fmt.Errorf("read sign-off: %w", err)
		}
		if counted {
			return nil
		}
		plan, err := loadPlan(ctx, tx, campaign.PlanRef{CampaignID: c.CampaignID, Revision: d.Revision})
		if err != nil {
			return err
		}
		authors, err := planAuthors(ctx, tx, c.CampaignID, d.Revision)
		if err != nil {
			return err
		}
		switch {
		case plan.Digest != d.Digest:
			return campaign.Errorf(campaign.CodeVersionChanged, "revision %d is not the plan that was signed", d.Revision)
		case d.Actor.UserID == c.Requester || authors[d.Actor.UserID]:
			return campaign.Errorf(campaign.CodeSelfApproval, "nobody signs a campaign they submitted or edited themselves")
		}
		var elsewhere bool
		err = tx.QueryRow(ctx, `SELECT EXISTS (
				SELECT FROM sign_off_counted k JOIN sign_off o ON o.id = k.sign_off_id
				WHERE k.campaign_id = $1 AND k.revision = $2 AND o.user_id = $3 AND k.level <> $4
				  AND k.at > coalesce((SELECT max(r.at) FROM sign_off_counted r JOIN sign_off ro ON ro.id = r.sign_off_id
				      WHERE r.campaign_id = $1 AND r.revision = $2 AND ro.decision = 'return'), '-infinity'))`,
			c.CampaignID, d.Revision, d.Actor.UserID, d.Level).Scan(&elsewhere)
		if err != nil {
			return fmt.Errorf("read counted sign-offs: %w", err)
		}
		if elsewhere {
			return campaign.Errorf(campaign.CodeSameActor, "the same person signed another level already; each level needs another person")
		}
		if err := allowed(unit); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO sign_off_counted (sign_off_id, campaign_id, revision, level, levels, at)
			VALUES ($1, $2, $3, $4, nullif($5, 0), clock_timestamp())`, d.SignOffID, c.CampaignID, d.Revision, d.Level, c.Levels)
		if err != nil {
			return fmt.Errorf("count sign-off: %w", err)
		}
		return nil
	})
}

// Authors returns who had a hand in a plan up to a revision: the campaign's planner and
// the editor of each revision. None of them may sign it.
func (s *Store) Authors(ctx context.Context, campaignID string, revision int) (map[string]bool, error) {
	var authors map[string]bool
	err := s.inTx(ctx, func(tx pgx.Tx) (err error) {
		authors, err = planAuthors(ctx, tx, campaignID, revision)
		return err
	})
	return authors, err
}

func planAuthors(ctx context.Context, tx pgx.Tx, campaignID string, revision int) (map[string]bool, error) {
	rows, err := tx.Query(ctx, `SELECT planner_id::text FROM campaign WHERE id = $1
		UNION SELECT editor_id::text FROM plan_revision WHERE campaign_id = $1 AND revision <= $2`, campaignID, revision)
	if err != nil {
		return nil, fmt.Errorf("read authors: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read authors: %w", err)
	}
	authors := map[string]bool{}
	for _, id := range ids {
		authors[id] = true
	}
	return authors, nil
}
