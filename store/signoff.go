package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/musterhq/muster/campaign"
)

// SignOff is a decision as the approver made it; it never changes. Whether it counts
// is decided by the campaign's workflow.
type SignOff struct {
	ID             string `gorm:"primaryKey"` // UUID
	CampaignID     string
	Revision       int
	Round          int // the approval round it was made in
	Digest         string
	ContentDigest  string // of the plan's parts, see campaign.PlanDigests
	AudienceDigest string
	BudgetDigest   string
	RouteDigest    string // of the levels that the round must pass
	Level          int
	Party          string // what the level signs for
	UserID         string
	User           *User   `gorm:"foreignKey:UserID"`
	ActingFor      *string // the user whose delegate signed
	DelegationID   *string
	Role           campaign.Role
	Unit           campaign.OrgUnit
	Amount         int64 // minor units signed for
	Currency       string
	Authority      string // the limit as it was then
	PolicyVersion  string
	Decision       campaign.Decision
	Words          string
	Fields         []campaign.FieldNote `gorm:"serializer:json"` // what is to change, on a return
	AuthTime       time.Time            // when the approver had last proved who they are
	IssuedAt       time.Time            // of the assertion, in whole seconds
	Assertion      string               // the API's signature over all of the above
	KeyID          string               // of the key that signed it
	At             time.Time            `gorm:"->"`
	Counted        bool                 `gorm:"->;-:migration"`
}

// TableName is GORM's hook for the table.
func (SignOff) TableName() string { return "sign_off" }

// RecordSignOff writes a decision; the same id is written once.
func (s *Store) RecordSignOff(ctx context.Context, d SignOff) error {
	if err := gorm.G[SignOff](s.db, clause.OnConflict{DoNothing: true}).Omit("Counted", "At").Create(ctx, &d); err != nil {
		return fmt.Errorf("record sign-off: %w", err)
	}
	return nil
}

// SignOffs returns all decisions about a campaign, the oldest first.
func (s *Store) SignOffs(ctx context.Context, campaignID string) ([]SignOff, error) {
	all, err := signOffs(ctx, s.pool, `WHERE o.campaign_id = $1 ORDER BY o.at, o.id`, campaignID)
	if err != nil {
		return nil, fmt.Errorf("list sign-offs: %w", err)
	}
	return all, nil
}

func signOffs(ctx context.Context, q querier, which string, args ...any) ([]SignOff, error) {
	rows, err := q.Query(ctx, `SELECT o.id::text, o.campaign_id::text, o.revision, o.round, o.digest, o.content_digest, o.audience_digest, o.budget_digest,
			o.route_digest, o.level, o.party, o.user_id::text, u.name, o.acting_for::text, o.delegation_id::text, o.role, o.unit, o.amount, o.currency,
			o.authority, o.policy_version, o.decision, o.words, o.fields, coalesce(o.auth_time, 'epoch'), coalesce(o.issued_at, 'epoch'),
			o.assertion, o.key_id, o.at, c.sign_off_id IS NOT NULL
		FROM sign_off o JOIN app_user u ON u.id = o.user_id LEFT JOIN sign_off_counted c ON c.sign_off_id = o.id `+which, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (SignOff, error) {
		o := SignOff{User: &User{}}
		err := row.Scan(&o.ID, &o.CampaignID, &o.Revision, &o.Round, &o.Digest, &o.ContentDigest, &o.AudienceDigest, &o.BudgetDigest,
			&o.RouteDigest, &o.Level, &o.Party, &o.UserID, &o.User.Name, &o.ActingFor, &o.DelegationID, &o.Role, &o.Unit, &o.Amount, &o.Currency,
			&o.Authority, &o.PolicyVersion, &o.Decision, &o.Words, &o.Fields, &o.AuthTime, &o.IssuedAt,
			&o.Assertion, &o.KeyID, &o.At, &o.Counted)
		o.User.ID = o.UserID
		return o, err
	})
}

// CountedSignOff returns the id of the user's counted decision of that kind on a level of a
// revision in a round, or "" when there is none.
func (s *Store) CountedSignOff(ctx context.Context, campaignID, userID string, round, revision, level int, decision campaign.Decision) (string, error) {
	var id string
	err := s.pool.QueryRow(ctx, `SELECT o.id::text FROM sign_off o JOIN sign_off_counted c ON c.sign_off_id = o.id
		WHERE o.campaign_id = $1 AND o.user_id = $2 AND o.round = $3 AND o.revision = $4 AND o.level = $5 AND o.decision = $6
		ORDER BY c.at DESC LIMIT 1`, campaignID, userID, round, revision, level, decision).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("find sign-off: %w", err)
	}
	return id, nil
}

// WaitingAuthors returns who had a hand in the plans that campaigns have waiting for their
// approval: by campaign what Authors returns.
func (s *Store) WaitingAuthors(ctx context.Context, campaignIDs []string) (map[string]map[string]bool, error) {
	rows, err := s.pool.Query(ctx, `SELECT id::text, planner_id::text FROM campaign WHERE id = ANY($1)
		UNION SELECT c.id::text, p.editor_id::text FROM campaign c JOIN plan_revision p ON p.campaign_id = c.id
		WHERE c.id = ANY($1) AND p.revision <= (c.status->'approval'->>'revision')::integer`, campaignIDs)
	if err != nil {
		return nil, fmt.Errorf("read authors: %w", err)
	}
	authors := map[string]map[string]bool{}
	var id, user string
	_, err = pgx.ForEachRow(rows, []any{&id, &user}, func() error {
		if authors[id] == nil {
			authors[id] = map[string]bool{}
		}
		authors[id][user] = true
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read authors: %w", err)
	}
	return authors, nil
}
