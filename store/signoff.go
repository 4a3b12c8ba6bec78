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
	ID            string `gorm:"primaryKey"` // UUID
	CampaignID    string
	Revision      int
	Round         int // the approval round it was made in
	Digest        string
	Level         int
	UserID        string
	User          *User `gorm:"foreignKey:UserID"`
	Role          campaign.Role
	Unit          campaign.OrgUnit
	Amount        int64  // minor units signed for
	Authority     string // the limit as it was then
	PolicyVersion string
	Decision      campaign.Decision
	Words         string
	At            time.Time `gorm:"->"`
	Counted       bool      `gorm:"->;-:migration"`
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
	rows, err := s.pool.Query(ctx, `SELECT o.id::text, o.revision, o.digest, o.level, o.user_id::text, u.name, o.role, o.unit, o.amount,
			o.authority, o.policy_version, o.decision, o.words, o.at, c.sign_off_id IS NOT NULL
		FROM sign_off o JOIN app_user u ON u.id = o.user_id LEFT JOIN sign_off_counted c ON c.sign_off_id = o.id
		WHERE o.campaign_id = $1 ORDER BY o.at, o.id`, campaignID)
	if err != nil {
		return nil, fmt.Errorf("list sign-offs: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (SignOff, error) {
		o := SignOff{CampaignID: campaignID, User: &User{}}
		err := row.Scan(&o.ID, &o.Revision, &o.Digest, &o.Level, &o.UserID, &o.User.Name, &o.Role, &o.Unit, &o.Amount,
			&o.Authority, &o.PolicyVersion, &o.Decision, &o.Words, &o.At, &o.Counted)
		o.User.ID = o.UserID
		return o, err
	})
	if err != nil {
		return nil, fmt.Errorf("list sign-offs: %w", err)
	}
	return all, nil
}

// CountedSignOff returns the id of the user's latest counted decision of that kind on
// a level of a revision, or "" when there is none.
func (s *Store) CountedSignOff(ctx context.Context, campaignID, userID string, revision, level int, decision campaign.Decision) (string, error) {
	var id string
	err := s.pool.QueryRow(ctx, `SELECT o.id::text FROM sign_off o JOIN sign_off_counted c ON c.sign_off_id = o.id
		WHERE o.campaign_id = $1 AND o.user_id = $2 AND o.revision = $3 AND o.level = $4 AND o.decision = $5
		ORDER BY c.at DESC LIMIT 1`, campaignID, userID, revision, level, decision).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("find sign-off: %w", err)
	}
	return id, nil
}
