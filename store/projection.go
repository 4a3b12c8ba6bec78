package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/musterhq/muster/campaign"
)

type executor interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// RecordOnce appends an event that carries a key, unless the key was written before,
// and tells the API processes.
func (s *Store) RecordOnce(ctx context.Context, e AuditEvent) error {
	return s.inTx(ctx, func(tx pgx.Tx) error {
		if err := recordOnce(ctx, tx, e); err != nil || e.CampaignID == nil {
			return err
		}
		return notify(ctx, tx, "campaign", *e.CampaignID, 0)
	})
}

func recordOnce(ctx context.Context, q executor, e AuditEvent) error {
	data := []byte("{}")
	if e.Data != nil {
		var err error
		if data, err = json.Marshal(e.Data); err != nil {
			return fmt.Errorf("write event %s: %w", e.Event, err)
		}
	}
	_, err := q.Exec(ctx, `INSERT INTO audit_event (campaign_id, event_key, actor_id, actor, event, allowed, data)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (event_key) DO NOTHING`,
		e.CampaignID, e.EventKey, e.ActorID, e.Actor, e.Event, e.Allowed, data)
	if err != nil {
		return fmt.Errorf("record event %s: %w", e.Event, err)
	}
	return nil
}

// CampaignEvent returns the event of a campaign that is written once under key.
func CampaignEvent(campaignID, key, event string, by campaign.Actor, data map[string]any) AuditEvent {
	e := AuditEvent{CampaignID: &campaignID, EventKey: &key, Actor: by.Name, Event: event, Allowed: true, Data: data}
	if by.UserID != "" {
		e.ActorID = &by.UserID
	}
	return e
}

// notify tells every API process that something changed.
func notify(ctx context.Context, q executor, topic campaign.Topic, id string, version int64) error {
	if _, err := q.Exec(ctx, `SELECT notify_event($1, $2, $3)`, topic, id, version); err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	return nil
}

// Project writes the read model of a campaign when the projection is newer than what
// is there, and appends its event once in any case. It leaves the hold alone: SetHold
// alone writes that, so that a late projection can never lift it.
func (s *Store) Project(ctx context.Context, p campaign.Projection) error {
	status, err := json.Marshal(p.Status)
	if err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	var due any
	if !p.Status.DueAt.IsZero() {
		due = p.Status.DueAt
	}
	return s.inTx(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE campaign SET stage = $3, status = $4, status_version = $2, wait_action = $5, due_at = $6,
			revision = $7, started = true, updated_at = now() WHERE id = $1 AND status_version < $2`,
			p.CampaignID, p.Version, p.Status.Stage, status, p.Status.WaitAction, due, p.Status.Revision)
		if err != nil {
			return fmt.Errorf("project campaign: %w", err)
		}
		if err := closeRound(ctx, tx, p.CampaignID, p.Status.Approval); err != nil {
			return err
		}
		data := map[string]any{
			"version": p.Version, "stage": p.Status.Stage, "hold": p.Status.Hold, "revision": p.Status.Revision,
			"digest": p.Status.Digest, "problem": p.Status.Problem, "ended": p.Status.Ended,
		}
		if p.Wave > 0 {
			data["wave"] = p.Wave
		}
		if p.Reason != "" {
			data["reason"] = p.Reason
		}
		err = recordOnce(ctx, tx, CampaignEvent(p.CampaignID, fmt.Sprintf("%s:%d:%s", p.CampaignID, p.Version, p.Event), p.Event, p.Actor, data))
		if err != nil {
			return err
		}
		return notify(ctx, tx, "campaign", p.CampaignID, p.Version)
	})
}

// SetHold writes the flag that every intent transaction checks. When it returns, every
// intent transaction that saw the old flag has ended: they share a lock on the row. A
// stopped campaign stays stopped.
func (s *Store) SetHold(ctx context.Context, h campaign.SetHold, eventKey string) error {
	return s.inTx(ctx, func(tx pgx.Tx) error {
		var now campaign.Hold
		if err := tx.QueryRow(ctx, `SELECT hold FROM campaign WHERE id = $1 FOR UPDATE`, h.CampaignID).Scan(&now); err != nil {
			return notFound(err, "campaign")
		}
		if now == campaign.HoldStopped && h.Hold != campaign.HoldStopped {
			return campaign.Errorf(campaign.CodeStateConflict, "a stopped campaign cannot be %s", h.Hold)
		}
		_, err := tx.Exec(ctx, `UPDATE campaign SET hold = $2, hold_reason = $3, updated_at = now() WHERE id = $1`, h.CampaignID, h.Hold, h.Reason)
		if err != nil {
			return fmt.Errorf("hold campaign: %w", err)
		}
		err = recordOnce(ctx, tx, CampaignEvent(h.CampaignID, eventKey, "hold."+string(h.Hold), h.Actor, map[string]any{"from": now, "reason": h.Reason}))
		if err != nil {
			return err
		}
		return notify(ctx, tx, "campaign", h.CampaignID, 0)
	})
}
