package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/musterhq/muster/campaign"
)

// FrozenTargets is a campaign's newest selection and its targets counted.
type FrozenTargets struct {
	Revision int
	FrozenAt time.Time
	Counts   campaign.TargetCount
	Tiers    []TierCount
}

// TierCount counts the frozen targets of a wave, tier and arm.
type TierCount struct {
	Wave    int
	Tier    campaign.Tier
	Arm     campaign.Arm
	Targets int64
}

// Targets returns the campaign's frozen targets, counted, or CodeNotFound before
// they are frozen.
func (s *Store) Targets(ctx context.Context, campaignID string) (FrozenTargets, error) {
	var f FrozenTargets
	var text []byte
	err := s.pool.QueryRow(ctx, `SELECT revision, frozen_at, counts FROM selection WHERE campaign_id = $1 ORDER BY snapshot DESC LIMIT 1`,
		campaignID).Scan(&f.Revision, &f.FrozenAt, &text)
	if err != nil {
		return f, notFound(err, "selection")
	}
	if err := json.Unmarshal(text, &f.Counts); err != nil {
		return f, fmt.Errorf("read selection: %w", err)
	}
	rows, err := s.pool.Query(ctx, `SELECT wave, tier, arm, count(*) FROM campaign_target
		WHERE campaign_id = $1 AND snapshot = $2 GROUP BY wave, tier, arm ORDER BY wave, tier, arm`, campaignID, f.Counts.Snapshot)
	if err != nil {
		return f, fmt.Errorf("count targets: %w", err)
	}
	if f.Tiers, err = pgx.CollectRows(rows, pgx.RowToStructByPos[TierCount]); err != nil {
		return f, fmt.Errorf("count targets: %w", err)
	}
	return f, nil
}

// Contact is one contact of a list.
type Contact struct {
	ID         string
	CustomerID string
	Wave       int
	Channel    campaign.Channel
	Tier       campaign.Tier
	State      campaign.ContactState
	Reason     string
	Attempts   int
	UpdatedAt  time.Time
	NotAfter   time.Time
}

// ContactKey is the position of a contact in lists.
type ContactKey struct {
	Wave       int
	Channel    campaign.Channel
	CustomerID string
}

// ContactFilter narrows a list of contacts; a zero field does not.
type ContactFilter struct {
	Wave    int
	Channel campaign.Channel
	State   campaign.ContactState
	After   ContactKey
	Limit   int
}

// Contacts lists a campaign's contacts by wave, channel and customer.
func (s *Store) Contacts(ctx context.Context, campaignID string, f ContactFilter) ([]Contact, error) {
	args := []any{campaignID}
	where := ""
	and := func(condition string, values ...any) {
		numbers := make([]any, len(values))
		for i, v := range values {
			args = append(args, v)
			numbers[i] = len(args)
		}
		where += " AND " + fmt.Sprintf(condition, numbers...)
	}
	if f.Wave > 0 {
		and("wave = $%d", f.Wave)
	}
	if f.Channel != "" {
		and("channel = $%d", f.Channel)
	}
	if f.State != "" {
		and("state = $%d", f.State)
	}
	if f.After.CustomerID != "" {
		and("(wave, channel, customer_id) > ($%d, $%d, $%d)", f.After.Wave, f.After.Channel, f.After.CustomerID)
	}
	args = append(args, f.Limit)
	rows, err := s.pool.Query(ctx, `SELECT id::text, customer_id::text, wave, channel, tier, state, reason, attempts, updated_at, not_after
		FROM contact WHERE campaign_id = $1`+where+fmt.Sprintf(` ORDER BY wave, channel, customer_id LIMIT $%d`, len(args)), args...)
	if err != nil {
		return nil, fmt.Errorf("list contacts: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Contact])
	if err != nil {
		return nil, fmt.Errorf("list contacts: %w", err)
	}
	return all, nil
}

// Target is a frozen target of a campaign.
type Target struct {
	CustomerID string
	Wave       int
	Tier       campaign.Tier
	Arm        campaign.Arm
}

// TargetMembers lists a campaign's frozen targets of both arms by customer, after the one named.
func (s *Store) TargetMembers(ctx context.Context, campaignID, after string, limit int) ([]Target, error) {
	rows, err := s.pool.Query(ctx, `SELECT customer_id::text, wave, tier, arm FROM campaign_target
		WHERE campaign_id = $1 AND ($2 = '' OR customer_id > nullif($2, '')::uuid) ORDER BY customer_id LIMIT $3`, campaignID, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list targets: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Target])
	if err != nil {
		return nil, fmt.Errorf("list targets: %w", err)
	}
	return all, nil
}

// ContactCount counts the contacts of a wave and channel in one state.
type ContactCount struct {
	Wave     int
	Channel  campaign.Channel
	State    campaign.ContactState
	Contacts int64
}

// ContactCounts counts a campaign's contacts.
func (s *Store) ContactCounts(ctx context.Context, campaignID string) ([]ContactCount, error) {
	rows, err := s.pool.Query(ctx, `SELECT wave, channel, state, count(*) FROM contact WHERE campaign_id = $1
		GROUP BY wave, channel, state ORDER BY wave, channel, state`, campaignID)
	if err != nil {
		return nil, fmt.Errorf("count contacts: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ContactCount])
	if err != nil {
		return nil, fmt.Errorf("count contacts: %w", err)
	}
	return all, nil
}

// OutcomeCount counts the outcomes of one kind.
type OutcomeCount struct {
	Kind     campaign.OutcomeKind
	Outcomes int64
}

// OutcomeCounts counts a campaign's outcomes.
func (s *Store) OutcomeCounts(ctx context.Context, campaignID string) ([]OutcomeCount, error) {
	rows, err := s.pool.Query(ctx, `SELECT kind, count(*) FROM outcome WHERE campaign_id = $1 GROUP BY kind ORDER BY kind`, campaignID)
	if err != nil {
		return nil, fmt.Errorf("count outcomes: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[OutcomeCount])
	if err != nil {
		return nil, fmt.Errorf("count outcomes: %w", err)
	}
	return all, nil
}

// Review is a mid-course review's row.
type Review struct {
	CampaignID     string `gorm:"primaryKey"`
	Number         int    `gorm:"primaryKey"`
	Revision       int    // reviewed
	Findings       json.RawMessage
	Recommendation json.RawMessage // empty when the plan should go on unchanged
	DueAt          time.Time
	Decision       campaign.ReviewDecision
	ByDefault      bool // the deadline decided
	DecidedBy      *string
	Decider        *User `gorm:"foreignKey:DecidedBy"`
	Words          string
	DecidedAt      *time.Time
	CreatedAt      time.Time
}

// TableName is GORM's hook for the table.
func (Review) TableName() string { return "review" }

// Reviews lists a campaign's reviews in order.
func (s *Store) Reviews(ctx context.Context, campaignID string) ([]Review, error) {
	all, err := gorm.G[Review](s.db).Joins(clause.LeftJoin.Association("Decider"), nameOnly).
		Where("review.campaign_id = ?", campaignID).Order("review.number").Find(ctx)
	if err != nil {
		return nil, fmt.Errorf("list reviews: %w", err)
	}
	return all, nil
}

// Evaluation is a campaign's final report.
type Evaluation struct {
	CampaignID string `gorm:"primaryKey"`
	Revision   int
	Report     json.RawMessage
	Digest     string // SHA-256 of the report
	CreatedAt  time.Time
}

// TableName is GORM's hook for the table.
func (Evaluation) TableName() string { return "evaluation" }

// Evaluation returns a campaign's final report, or CodeNotFound before it is written.
func (s *Store) Evaluation(ctx context.Context, campaignID string) (Evaluation, error) {
	e, err := gorm.G[Evaluation](s.db).Where("campaign_id = ?", campaignID).First(ctx)
	if err != nil {
		return Evaluation{}, notFound(err, "evaluation; it is written when the campaign has been settled")
	}
	return e, nil
}

// ArchivedRun describes an archived history without its body.
type ArchivedRun struct {
	WorkflowID string
	RunID      string
	Type       string
	Events     int64
	StartedAt  time.Time
	ClosedAt   time.Time
	SHA256     string // of the uncompressed history
	BuildID    string
	ArchivedAt time.Time
}

// ArchivedRuns lists a campaign's archived histories in the order they began.
func (s *Store) ArchivedRuns(ctx context.Context, campaignID string) ([]ArchivedRun, error) {
	rows, err := s.pool.Query(ctx, `SELECT workflow_id, run_id, type, events, started_at, closed_at, sha256, build_id, archived_at
		FROM history_archive WHERE campaign_id = $1 ORDER BY started_at, workflow_id, run_id`, campaignID)
	if err != nil {
		return nil, fmt.Errorf("list archive: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ArchivedRun])
	if err != nil {
		return nil, fmt.Errorf("list archive: %w", err)
	}
	return all, nil
}
