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

// OpenReview stores the findings of a review and, when recommendation is not nil, what
// it recommends. The first findings of a review stand: they are returned when it was
// opened before.
func (s *Store) OpenReview(ctx context.Context, in campaign.ReviewInput, findings, recommendation any) (storedFindings, storedRecommendation json.RawMessage, err error) {
	text, err := json.Marshal(findings)
	if err != nil {
		return nil, nil, fmt.Errorf("write findings: %w", err)
	}
	var recommended []byte
	if recommendation != nil {
		if recommended, err = json.Marshal(recommendation); err != nil {
			return nil, nil, fmt.Errorf("write recommendation: %w", err)
		}
	}
	err = s.inTx(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO review (campaign_id, number, revision, findings, recommendation, due_at)
			VALUES ($1, $2, $3, $4, $5, now() + $6 * interval '1 second') ON CONFLICT (campaign_id, number) DO NOTHING`,
			in.CampaignID, in.Review, in.Revision, text, recommended, in.DecideWithin)
		if err != nil {
			return fmt.Errorf("store review: %w", err)
		}
		err = tx.QueryRow(ctx, `SELECT findings, recommendation FROM review WHERE campaign_id = $1 AND number = $2`, in.CampaignID, in.Review).
			Scan(&storedFindings, &storedRecommendation)
		if err != nil {
			return fmt.Errorf("read review: %w", err)
		}
		return notify(ctx, tx, "campaign", in.CampaignID, 0)
	})
	return storedFindings, storedRecommendation, err
}

// Recommendation returns what a review recommends and for which revision. It fails
// with CodeRecommendationMissing when the plan should go on unchanged.
func (s *Store) Recommendation(ctx context.Context, campaignID string, review int) (revision int, recommendation json.RawMessage, err error) {
	err = s.pool.QueryRow(ctx, `SELECT revision, recommendation FROM review WHERE campaign_id = $1 AND number = $2`, campaignID, review).
		Scan(&revision, &recommendation)
	if err != nil {
		return 0, nil, notFound(err, "review")
	}
	if len(recommendation) == 0 {
		return 0, nil, campaign.Errorf(campaign.CodeRecommendationMissing, "review %d recommends no change; keep the plan or stop the campaign", review)
	}
	return revision, recommendation, nil
}

// CloseReview records how a review was decided, once. A review that was closed before
// its findings were out has no row, and nothing is recorded. Nor is anything when the
// deadline is said to have accepted the recommendation and is so long away, by the
// database's clock.
func (s *Store) CloseReview(ctx context.Context, out campaign.ReviewOutcome) (left time.Duration, err error) {
	var by *string
	if out.Actor.UserID != "" {
		by = &out.Actor.UserID
	}
	err = s.inTx(ctx, func(tx pgx.Tx) error {
		if out.ByDefault && out.Decision == campaign.ReviewAccept {
			var seconds float64
			err := tx.QueryRow(ctx, `SELECT extract(epoch FROM due_at - now())::float8 FROM review WHERE campaign_id = $1 AND number = $2`, out.CampaignID, out.Review).Scan(&seconds)
			if errors.Is(err, pgx.ErrNoRows) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("read review: %w", err)
			}
			if left = time.Duration(seconds * float64(time.Second)); left > 0 {
				return nil
			}
			left = 0
		}
		_, err := tx.Exec(ctx, `UPDATE review SET decision = $3, by_default = $4, decided_by = $5, words = $6, command = $7, decided_at = now()
			WHERE campaign_id = $1 AND number = $2 AND decision = ''`,
			out.CampaignID, out.Review, out.Decision, out.ByDefault, by, out.Words, out.Command)
		if err != nil {
			return fmt.Errorf("close review: %w", err)
		}
		return notify(ctx, tx, "campaign", out.CampaignID, 0)
	})
	return left, err
}

// GivenReview is a signed decision about a review with when it was given, by the
// database's clock.
type GivenReview struct {
	campaign.RecordReview
	GivenAt time.Time
}

// decidedReview is how a review was decided.
type decidedReview struct {
	number              int
	decision            campaign.ReviewDecision
	byDefault           bool
	openedAt, decidedAt time.Time
	command             *campaign.RecordReview // by which a person decided
	givenAt             time.Time              // when that was given; 1970 when it never was
}

// accepts reports whether the recommendation was accepted: by a person's command, which
// is for the caller to verify, or by the default of the plan that was reviewed, after the
// time that it gives people.
func (r decidedReview) accepts(plan campaign.ReviewPlan) bool {
	switch {
	case r.decision != campaign.ReviewAccept:
		return false
	case r.byDefault:
		return plan.Default == campaign.ReviewDefaultAccept && !r.decidedAt.Before(r.openedAt.Add(campaign.Seconds(plan.DecideWithin)))
	}
	return r.command != nil && r.command.Review == r.number && r.command.Decision == campaign.ReviewAccept
}
