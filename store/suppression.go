package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// SuppressionCount counts the customers whom one rule kept from being contacted.
type SuppressionCount struct {
	Rule          string
	PolicyVersion int64
	Snapshot      int // of the selection that left them out; 0 at the moment of contact
	Customers     int64
	Control       int64 // of those, of the control group
}

// SuppressionCounts counts a campaign's suppressions by snapshot, rule and version of the
// policy, those of its newest snapshot and those at the moment of contact.
func (s *Store) SuppressionCounts(ctx context.Context, campaignID string) ([]SuppressionCount, error) {
	rows, err := s.pool.Query(ctx, `SELECT rule, policy, snapshot, count(*), count(*) FILTER (WHERE control) FROM suppression
		WHERE campaign_id = $1 AND `+inForce+` GROUP BY 1, 2, 3 ORDER BY snapshot DESC, count(*) DESC, rule`, campaignID)
	if err != nil {
		return nil, fmt.Errorf("count suppressions: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[SuppressionCount])
	if err != nil {
		return nil, fmt.Errorf("count suppressions: %w", err)
	}
	return all, nil
}

// inForce restricts suppressions of campaign $1 to those of its newest snapshot and those at
// the moment of contact.
const inForce = `snapshot IN (0, (SELECT max(snapshot) FROM selection WHERE campaign_id = $1))`

// SuppressionKey is the place of a suppression in the order in which they are listed.
type SuppressionKey struct {
	Snapshot   int
	CustomerID string
	Wave       int
	Channel    string // its letter
}

// Suppression is a customer who was not contacted, and why.
type Suppression struct {
	SuppressionKey
	Through       campaign.Channel
	Rule          string
	PolicyVersion int64
	Control       bool
	At            time.Time
}

// Suppressions lists a campaign's suppressions, only those by rule unless it is empty, after
// the key, whose customer is empty for the first page.
func (s *Store) Suppressions(ctx context.Context, campaignID, rule string, after SuppressionKey, limit int) ([]Suppression, error) {
	args := []any{campaignID, rule, limit}
	where := ""
	if after.CustomerID != "" {
		where = ` AND (snapshot, customer_id, wave, channel) > ($4, $5::uuid, $6, $7::text::"char")`
		args = append(args, after.Snapshot, after.CustomerID, after.Wave, after.Channel)
	}
	rows, err := s.pool.Query(ctx, `SELECT snapshot, customer_id::text, wave, channel::text, coalesce(channel_of_letter(channel), ''), rule, policy, control, at
		FROM suppression WHERE campaign_id = $1 AND `+inForce+` AND ($2 = '' OR rule = $2)`+where+`
		ORDER BY snapshot, customer_id, wave, channel LIMIT $3`, args...)
	if err != nil {
		return nil, fmt.Errorf("list suppressions: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (x Suppression, err error) {
		return x, row.Scan(&x.Snapshot, &x.CustomerID, &x.Wave, &x.Channel, &x.Through, &x.Rule, &x.PolicyVersion, &x.Control, &x.At)
	})
	if err != nil {
		return nil, fmt.Errorf("list suppressions: %w", err)
	}
	return all, nil
}
