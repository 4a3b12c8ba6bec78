package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// Judged is what somebody signed, for whoever decides whether they may.
type Judged struct {
	SignOff
	Plan       campaign.LoadedPlan
	Facts      campaign.Facts // of the round, as it was opened
	Unit       campaign.OrgUnit
	For        campaign.ApprovalLevel
	Escalated  bool                 // the level is overdue by the database's clock
	Delegation *campaign.Delegation // by which they signed, as it is now; nil when they name none that there is
}

// CountSignOff counts a decision, once, after comparing what the workflow was told
// with what the approver signed, and with the round as its rows tell it. judge is asked,
// inside the transaction and so without waiting for the database, whether the row is genuine and the person may sign, and by
// which action. It fails with
//   - CodeAssertionMismatch when the row is missing or says something else,
//   - CodeVersionChanged when the plan is not the one that was signed,
//   - CodeStateConflict when the round is over or does not wait for that level,
//   - CodeSelfApproval when one of the people behind it asked for the approval or wrote
//     the plan,
//   - CodeSameActor when one of them is behind another signature of the round.
func (s *Store) CountSignOff(ctx context.Context, c campaign.SignOffClaim, judge func(Judged) (campaign.Action, error)) error {
	d := c.Decide
	return s.inTx(ctx, func(tx pgx.Tx) error {
		j := Judged{}
		err := tx.QueryRow(ctx, `SELECT unit FROM campaign WHERE id = $1 FOR UPDATE`, c.CampaignID).Scan(&j.Unit)
		if err != nil {
			return notFound(err, "campaign")
		}
		found, err := signOffs(ctx, tx, `WHERE o.id = $1`, d.SignOffID)
		if err != nil {
			return fmt.Errorf("read sign-off: %w", err)
		}
		if len(found) == 0 || !found[0].says(c) {
			return campaign.Errorf(campaign.CodeAssertionMismatch, "the decision is not what was signed")
		}
		if j.SignOff = found[0]; j.Counted {
			return nil
		}
		if j.Plan, err = loadPlan(ctx, tx, campaign.PlanRef{CampaignID: c.CampaignID, Revision: d.Revision}); err != nil {
			return err
		}
		if j.Plan.Digest != d.Digest {
			return campaign.Errorf(campaign.CodeVersionChanged, "revision %d is not the plan that was signed", d.Revision)
		}
		authors, err := planAuthors(ctx, tx, c.CampaignID, d.Revision)
		if err != nil {
			return err
		}
		if authors[d.Actor.UserID] || authors[d.ActingFor] {
			return campaign.Errorf(campaign.CodeSelfApproval, "nobody signs a campaign they submitted or edited themselves, nor does their delegate")
		}
		if j.For, j.Escalated, j.Facts, err = awaited(ctx, tx, c); err != nil {
			return err
		}
		if j.DelegationID != nil {
			lent, err := readDelegations(ctx, tx, `WHERE d.id = $1`, *j.DelegationID)
			if err != nil {
				return err
			}
			if len(lent) > 0 {
				j.Delegation = &lent[0].Delegation
			}
		}
		by, err := judge(j)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO sign_off_counted (sign_off_id, campaign_id, revision, level, levels, action, at)
			VALUES ($1, $2, $3, $4, nullif($5, 0), $6, clock_timestamp())`, d.SignOffID, c.CampaignID, d.Revision, d.Level, c.Levels, by)
		if err != nil {
			return fmt.Errorf("count sign-off: %w", err)
		}
		return nil
	})
}

// awaited replays the round from its rows and returns the level that a decision is about,
// if the round waits for that decision, whether the level is overdue, and the round's facts.
func awaited(ctx context.Context, tx pgx.Tx, c campaign.SignOffClaim) (level campaign.ApprovalLevel, overdue bool, facts campaign.Facts, err error) {
	round := campaign.Approval{Round: c.Round}
	var opened, now time.Time
	var ended *campaign.ApprovalResult
	err = tx.QueryRow(ctx, `SELECT revision, digest, amount, credit, requester::text, route, facts, calendar, opened_at, clock_timestamp(), result
		FROM approval_round WHERE campaign_id = $1 AND round = $2`, c.CampaignID, c.Round).
		Scan(&round.Revision, &round.Digest, &round.Amount, &round.Credit, &round.Requester, &round.Route, &facts, &round.Calendar, &opened, &now, &ended)
	if err != nil {
		return level, false, facts, notFound(err, "approval round")
	}
	if ended != nil {
		return level, false, facts, campaign.Errorf(campaign.CodeStateConflict, "round %d is over: it was %s", c.Round, *ended)
	}
	counted, err := countedSignOffs(ctx, tx, c.CampaignID, round)
	if err != nil {
		return level, false, facts, err
	}
	a, err := replay(round, opened, counted)
	if err != nil {
		return level, false, facts, err
	}
	if err := a.Check(c.Decide); err != nil {
		return level, false, facts, err
	}
	level, waiting, _ := a.At(c.Decide.Level)
	if a.AmountOf(level) != c.Amount {
		return level, false, facts, campaign.Errorf(campaign.CodeAssertionMismatch, "level %d signs for %d, not for %d", level.Level, a.AmountOf(level), c.Amount)
	}
	_, due, _ := level.Clock(a.Calendar, waiting.Since)
	return level, !now.Before(due), facts, nil
}

// says reports whether the row is what the workflow was told.
func (o SignOff) says(c campaign.SignOffClaim) bool {
	d := c.Decide
	return o.CampaignID == c.CampaignID && o.Revision == d.Revision && o.Round == c.Round && o.Digest == d.Digest && o.Level == d.Level &&
		o.UserID == d.Actor.UserID && o.Decision == d.Decision && o.Words == d.Words && slices.Equal(o.Fields, d.Fields) && o.Amount == c.Amount &&
		text(o.ActingFor) == d.ActingFor && text(o.DelegationID) == d.DelegationID
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
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
