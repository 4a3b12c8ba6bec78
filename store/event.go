package store

import (
	"context"
	"fmt"
	"time"

	"gorm.io/gorm"
)

// AuditEvent is one line of evidence; it never changes.
type AuditEvent struct {
	Seq        int64 `gorm:"primaryKey"`
	At         time.Time
	CampaignID *string // nil when it is about no campaign
	EventKey   *string // an event with a key is written once
	ActorID    *string // nil for Muster itself
	Actor      string
	Event      string         // stable name, e.g. "campaign.submitted"
	Allowed    bool           // false for an attempt that was refused
	Data       map[string]any `gorm:"serializer:json"`
}

// TableName is GORM's hook for the table.
func (AuditEvent) TableName() string { return "audit_event" }

// RecordEvent appends one line of evidence and tells no one: for attempts that were
// refused and so changed nothing.
func (s *Store) RecordEvent(ctx context.Context, e AuditEvent) error {
	return recordOnce(ctx, s.pool, e)
}

// Events returns up to limit events of a campaign with a sequence number above
// after, the oldest first.
func (s *Store) Events(ctx context.Context, campaignID string, after int64, limit int) ([]AuditEvent, error) {
	all, err := gorm.G[AuditEvent](s.db).Where("campaign_id = ? AND seq > ?", campaignID, after).Order("seq").Limit(limit).Find(ctx)
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	return all, nil
}
