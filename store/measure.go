package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// FunnelCell counts the contacts of one wave, tier and channel.
type FunnelCell struct {
	Wave       int
	Tier       campaign.Tier
	Channel    campaign.Channel
	Contacts   int64
	Sent       int64 // with an accepted message or a worked attempt
	Delivered  int64 // proven to have reached the customer
	Unknown    int64 // messages that may have left without proof
	Positive   int64 // customers with the goal's outcome
	Complained int64
	OptedOut   int64
}

// Funnel counts a campaign's contacts. An outcome belongs to the contact that it names,
// and otherwise to the customer's last contact that was sent: a description, not a cause.
// A customer's outcome of one kind counts once.
func (s *Store) Funnel(ctx context.Context, campaignID string, goal campaign.OutcomeKind) ([]FunnelCell, error) {
	rows, err := s.pool.Query(ctx, `
		WITH tried AS (
			SELECT a.contact_id, bool_or(a.outcome IN ('accepted', 'worked')) AS sent, max(a.intent_at) AS at
			FROM contact_attempt a WHERE a.campaign_id = $1 GROUP BY a.contact_id),
		touch AS (
			SELECT DISTINCT ON (c.customer_id) c.customer_id, c.id
			FROM contact c JOIN tried t ON t.contact_id = c.id AND t.sent
			WHERE c.campaign_id = $1 ORDER BY c.customer_id, t.at DESC),
		answer AS (
			SELECT DISTINCT ON (o.customer_id, o.kind) coalesce(o.contact_id, touch.id) AS contact_id, o.kind
			FROM outcome o LEFT JOIN touch ON touch.customer_id = o.customer_id
			WHERE o.campaign_id = $1 AND o.kind IN ($2, 'complained', 'opted_out')
			ORDER BY o.customer_id, o.kind, o.contact_id NULLS LAST),
		answered AS (
			SELECT contact_id, bool_or(kind = $2) AS positive, bool_or(kind = 'complained') AS complained, bool_or(kind = 'opted_out') AS opted_out
			FROM answer WHERE contact_id IS NOT NULL GROUP BY contact_id)
		SELECT c.wave, c.tier, c.channel, count(*), count(*) FILTER (WHERE t.sent), count(*) FILTER (WHERE c.state = 'delivered'),
			count(*) FILTER (WHERE c.state = 'unknown'),
			count(*) FILTER (WHERE a.positive), count(*) FILTER (WHERE a.complained), count(*) FILTER (WHERE a.opted_out)
		FROM contact c LEFT JOIN tried t ON t.contact_id = c.id LEFT JOIN answered a ON a.contact_id = c.id
		WHERE c.campaign_id = $1 GROUP BY c.wave, c.tier, c.channel ORDER BY c.wave, c.tier, c.channel`, campaignID, goal)
	if err != nil {
		return nil, fmt.Errorf("measure funnel: %w", err)
	}
	cells, err := pgx.CollectRows(rows, pgx.RowToStructByPos[FunnelCell])
	if err != nil {
		return nil, fmt.Errorf("measure funnel: %w", err)
	}
	return cells, nil
}

// ArmCount counts the frozen targets of one arm.
type ArmCount struct {
	Targets   int64
	Contacted int64 // with a contact; must be 0 in the control group
	Positive  int64 // customers with the goal's outcome
}

// Arms counts the frozen targets by arm, as randomised: everybody stays in their arm.
func (s *Store) Arms(ctx context.Context, campaignID string, goal campaign.OutcomeKind) (treated, control ArmCount, err error) {
	rows, err := s.pool.Query(ctx, `
		SELECT t.arm, count(*), count(c.customer_id), count(o.customer_id)
		FROM campaign_target t
		LEFT JOIN (SELECT DISTINCT customer_id FROM contact WHERE campaign_id = $1) c ON c.customer_id = t.customer_id
		LEFT JOIN (SELECT DISTINCT customer_id FROM outcome WHERE campaign_id = $1 AND kind = $2) o ON o.customer_id = t.customer_id
		WHERE t.campaign_id = $1 GROUP BY t.arm`, campaignID, goal)
	if err != nil {
		return treated, control, fmt.Errorf("measure arms: %w", err)
	}
	var arm campaign.Arm
	var n ArmCount
	_, err = pgx.ForEachRow(rows, []any{&arm, &n.Targets, &n.Contacted, &n.Positive}, func() error {
		if arm == campaign.ArmControl {
			control = n
		} else {
			treated = n
		}
		return nil
	})
	if err != nil {
		return treated, control, fmt.Errorf("measure arms: %w", err)
	}
	return treated, control, nil
}

// Successes counts the treated targets with an outcome of a kind, each on the day in UTC of
// the first.
func (s *Store) Successes(ctx context.Context, campaignID string, kind campaign.OutcomeKind) (campaign.Counts, error) {
	var counts campaign.Counts
	err := s.pool.QueryRow(ctx, `
		SELECT coalesce(jsonb_object_agg(day, n), '{}') FROM (
		    SELECT to_char(first AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day, count(*) AS n FROM (
		        SELECT min(o.at) AS first FROM campaign_target t
		        JOIN outcome o ON o.campaign_id = $1 AND o.customer_id = t.customer_id AND o.kind = $2
		        WHERE t.campaign_id = $1 AND t.arm = 'treated' GROUP BY t.customer_id) firsts GROUP BY 1) days`, campaignID, kind).Scan(&counts)
	if err != nil {
		return nil, fmt.Errorf("count successes: %w", err)
	}
	return counts, nil
}

// The two places of a frozen target that is in no contact state.
const (
	TargetControl      = "control"       // held out
	TargetNotContacted = "not_contacted" // treated, and the campaign ended before its wave
)

// TargetStates puts every frozen target into exactly one place: the control group, not
// contacted, or the furthest state of its contacts.
func (s *Store) TargetStates(ctx context.Context, campaignID string) (map[string]int64, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT CASE WHEN t.arm = 'control' THEN 'control' ELSE coalesce(ranked.states[c.best], 'not_contacted') END AS place, count(*)
		FROM campaign_target t
		CROSS JOIN (SELECT ARRAY['delivered', 'sent', 'unknown', 'sending', 'claimed', 'planned', 'failed', 'expired', 'suppressed', 'cancelled'] AS states) ranked
		LEFT JOIN (SELECT customer_id, min(array_position(ARRAY['delivered', 'sent', 'unknown', 'sending', 'claimed', 'planned', 'failed', 'expired',
		               'suppressed', 'cancelled'], state)) AS best
		           FROM contact WHERE campaign_id = $1 GROUP BY customer_id) c ON c.customer_id = t.customer_id
		WHERE t.campaign_id = $1 GROUP BY 1`, campaignID)
	if err != nil {
		return nil, fmt.Errorf("count target states: %w", err)
	}
	places := map[string]int64{}
	var place string
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&place, &n}, func() error { places[place] = n; return nil }); err != nil {
		return nil, fmt.Errorf("count target states: %w", err)
	}
	return places, nil
}
