package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/musterhq/muster/campaign"
)

// ContactEntry is one entry of a customer's contact view.
type ContactEntry struct {
	At        time.Time // zero when the source does not know
	Origin    campaign.Origin
	Kind      campaign.ContactKind
	Direction campaign.Direction
	Channel   string // "" of an outcome that answers no contact in particular
	Product   string
	Outcome   string // what came of it; of a contact of ours sent or delivered
	Seconds   *int32
	Source    string // the system that tells of it; "" where Muster itself does
	// Of Muster's own:
	CampaignID string
	Campaign   string // its name
	Wave       int
	Simulated  bool

	Key ContactViewKey
}

// ContactViewKey is a place in the contact view. The zero value is before all.
type ContactViewKey struct {
	At  pgtype.Timestamptz `json:"at"`
	Key string             `json:"key"`
}

// ContactViewFilter narrows a page of the contact view.
type ContactViewFilter struct {
	Kind    campaign.ContactKind // "" is all
	Channel string               // "" is all
	After   ContactViewKey
	Limit   int
}

// contactView merges what other systems tell, our contacts and what came back, each by an
// index on customer and time or customer alone. Our contacts are read from the contact
// ledger: their own tables are one for each campaign, and to look into hundreds of them for
// one customer would take a hundred times as long. Reserved and given back is no contact.
const contactView = `
	SELECT at, key, origin, kind, direction, channel, product, outcome, seconds, source, campaign_id, coalesce(k.name, ''), wave, e.simulated FROM (
	    (SELECT at, 'h/' || source || '/' || source_id AS key, 'history' AS origin, kind, direction, channel, product, outcome, seconds,
	        source, NULL::uuid AS campaign_id, 0 AS wave, false AS simulated
	     FROM contact_history
	     WHERE customer_id = $1 AND at <= $3 AND (at < $3 OR 'h/' || source || '/' || source_id < $4 COLLATE "C") AND ($6 = '' OR kind = $6) AND ($7 = '' OR channel = $7)
	     ORDER BY at DESC, key DESC LIMIT $5)
	    UNION ALL
	    (SELECT at, 'c/' || campaign_id || '/' || wave || '/' || channel::text COLLATE "C", 'contact', CASE purpose WHEN 'm' THEN 'marketing' ELSE 'care' END, 'out', channel::text,
	        '', CASE state WHEN 'D' THEN 'delivered' ELSE 'sent' END, NULL, '', campaign_id, wave, simulated
	     FROM contact_ledger
	     WHERE bucket = $2 AND customer_id = $1 AND state IN ('S', 'D') AND at <= $3
	        AND (at < $3 OR 'c/' || campaign_id || '/' || wave || '/' || channel::text < $4 COLLATE "C")
	        AND ($6 = '' OR CASE purpose WHEN 'm' THEN 'marketing' ELSE 'care' END = $6) AND ($7 = '' OR channel::text = $8)
	     ORDER BY 1 DESC, 2 DESC LIMIT $5)
	    UNION ALL
	    (SELECT o.at, 'o/' || o.id::text COLLATE "C", 'outcome', a.kind, 'in', coalesce(l.channel::text, ''), '', o.kind, CASE WHEN o.kind = 'connected' THEN o.value::int END,
	        CASE WHEN o.source = '` + sourceTask + `' THEN '' ELSE o.source END, o.campaign_id, coalesce(l.wave, 0), o.simulated
	     FROM outcome o LEFT JOIN LATERAL (
	        SELECT channel, purpose, wave FROM contact_ledger WHERE bucket = $2 AND customer_id = $1 AND campaign_id = o.campaign_id AND state IN ('S', 'D')
	        ORDER BY at <= o.at DESC, at DESC LIMIT 1) l ON true
	     CROSS JOIN LATERAL (SELECT CASE WHEN o.kind = 'complained' THEN 'complaint' WHEN l.purpose IN ('c', 's') THEN 'care' ELSE 'marketing' END AS kind) a
	     WHERE o.customer_id = $1 AND o.at <= $3 AND (o.at < $3 OR 'o/' || o.id < $4 COLLATE "C") AND ($6 = '' OR a.kind = $6) AND ($7 = '' OR l.channel::text = $8)
	     ORDER BY 1 DESC, 2 DESC LIMIT $5)) e
	LEFT JOIN campaign k ON k.id = e.campaign_id
	ORDER BY at DESC, key DESC LIMIT $5`

// ContactView returns what is known of contacts with one customer, newest first, from after
// a place on. Entries that are added meanwhile neither move nor hide others.
func (s *Store) ContactView(ctx context.Context, customerID string, f ContactViewFilter) ([]ContactEntry, error) {
	id, err := uuid.Parse(customerID)
	if err != nil {
		return nil, campaign.Errorf(campaign.CodeNotFound, "there is no such customer")
	}
	after := f.After
	if !after.At.Valid {
		after.At = pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}
	}
	letter := "" // of no channel of ours
	if slices.Contains(campaign.Channels(), campaign.Channel(f.Channel)) {
		letter = string(campaign.Channel(f.Channel).Code())
	}
	rows, err := s.pool.Query(ctx, contactView, id, campaign.Bucket(id), after.At, after.Key, f.Limit, f.Kind, f.Channel, letter)
	if err != nil {
		return nil, fmt.Errorf("read contact view: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (ContactEntry, error) {
		var e ContactEntry
		var of *string
		err := row.Scan(&e.Key.At, &e.Key.Key, &e.Origin, &e.Kind, &e.Direction, &e.Channel, &e.Product, &e.Outcome, &e.Seconds, &e.Source, &of, &e.Campaign, &e.Wave, &e.Simulated)
		if e.Key.At.InfinityModifier == pgtype.Finite {
			e.At = e.Key.At.Time
		}
		if of != nil {
			e.CampaignID = *of
		}
		if e.Origin != campaign.OriginHistory && e.Channel != "" {
			e.Channel = string(channelsByCode[e.Channel])
		}
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("read contact view: %w", err)
	}
	return all, nil
}

// channelsByCode finds a channel by its letter in the contact ledger.
var channelsByCode = func() map[string]campaign.Channel {
	all := map[string]campaign.Channel{}
	for _, c := range campaign.Channels() {
		all[string(c.Code())] = c
	}
	return all
}()

// CustomerUnit returns a customer's home unit, or CodeNotFound.
func (s *Store) CustomerUnit(ctx context.Context, customerID string) (campaign.OrgUnit, error) {
	var unit campaign.OrgUnit
	if uuid.Validate(customerID) != nil {
		return "", notFound(pgx.ErrNoRows, "customer")
	}
	if err := s.pool.QueryRow(ctx, `SELECT org_unit FROM customer WHERE id = $1`, customerID).Scan(&unit); err != nil {
		return "", notFound(fmt.Errorf("read customer: %w", err), "customer")
	}
	return unit, nil
}
