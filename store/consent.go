package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// OptOut is a customer's refusal to be contacted.
type OptOut struct {
	CustomerID string           // UUID
	Channel    campaign.Channel // "" for all of them
	Purpose    campaign.Purpose // "" for all of them
	At         time.Time        // when they said so
	Source     string           // who says that they did
	CampaignID string           // what it answers, "" where that is not known
	By         campaign.Actor   // who entered it; zero for Muster itself
	Reason     string
}

// OptOut records refusals. They hold from the end of the transaction on, for whatever is
// still to be sent as well and for all of the tenant's customers who have the number, until
// they are lifted; one from before it was lifted no longer
// counts. A refusal that is in force already changes nothing.
func (s *Store) OptOut(ctx context.Context, refusals ...OptOut) error {
	return s.inTx(ctx, func(tx pgx.Tx) error { return optOut(ctx, tx, refusals) })
}

func optOut(ctx context.Context, tx pgx.Tx, refusals []OptOut) error {
	if len(refusals) == 0 {
		return nil
	}
	n := len(refusals)
	customers, channels, purposes := make([]string, n), make([]campaign.Channel, n), make([]campaign.Purpose, n)
	times, sources, campaigns := make([]time.Time, n), make([]string, n), make([]string, n)
	users, reasons := make([]string, n), make([]string, n)
	for i, r := range refusals {
		customers[i], channels[i], purposes[i], times[i] = r.CustomerID, r.Channel, r.Purpose, r.At
		sources[i], campaigns[i], users[i], reasons[i] = r.Source, r.CampaignID, r.By.UserID, r.Reason
	}
	if err := lockCustomers(ctx, tx, customers); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `
		WITH asked AS (SELECT DISTINCT ON (a.customer_id, a.channel, a.purpose) a.*
		    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::text[], $8::text[])
		        a (customer_id, channel, purpose, at, source, campaign_id, user_id, reason)
		    ORDER BY a.customer_id, a.channel, a.purpose, a.at DESC),
		written AS (INSERT INTO opt_out AS o (customer_id, channel, purpose, at, source, campaign_id)
		    SELECT customer_id, channel, purpose, at, source, nullif(campaign_id, '')::uuid FROM asked
		    ON CONFLICT (customer_id, channel, purpose) DO UPDATE SET at = EXCLUDED.at, source = EXCLUDED.source, campaign_id = EXCLUDED.campaign_id, lifted_at = NULL
		    WHERE o.lifted_at < EXCLUDED.at
		    RETURNING customer_id, channel, purpose)
		INSERT INTO consent_event (customer_id, event, channel, purpose, at, source, campaign_id, user_id, reason)
		SELECT customer_id, 'opted_out', channel, purpose, a.at, a.source, nullif(a.campaign_id, '')::uuid, nullif(a.user_id, '')::uuid, a.reason
		FROM written JOIN asked a USING (customer_id, channel, purpose)`,
		customers, channels, purposes, times, sources, campaigns, users, reasons)
	if err != nil {
		return fmt.Errorf("opt out: %w", err)
	}
	_, err = tx.Exec(ctx, `UPDATE customer SET opted_out = true WHERE id = ANY($1::uuid[]) AND NOT opted_out AND EXISTS (
		SELECT FROM opt_out o WHERE o.customer_id = customer.id AND o.channel = '' AND o.purpose = '' AND o.lifted_at IS NULL)`, customers)
	if err != nil {
		return fmt.Errorf("opt out: %w", err)
	}
	return nil
}

// lockCustomers makes whoever changes what these customers allow wait for each other, and
// never in a circle.
func lockCustomers(ctx context.Context, tx pgx.Tx, ids []string) error {
	if _, err := tx.Exec(ctx, `SELECT FROM customer WHERE id = ANY($1::uuid[]) ORDER BY id FOR NO KEY UPDATE`, ids); err != nil {
		return fmt.Errorf("lock customers: %w", err)
	}
	return nil
}

// LiftOptOut ends a refusal, because the customer changed their mind: Source says where,
// Reason why. At does not count. With it ends what it did to others who have the number; what
// those refused themselves stays, and holds for this customer too. It fails with CodeNotFound when none is in force for
// exactly this channel and purpose.
func (s *Store) LiftOptOut(ctx context.Context, o OptOut) error {
	return s.inTx(ctx, func(tx pgx.Tx) error {
		if err := lockCustomers(ctx, tx, []string{o.CustomerID}); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `
			WITH lifted AS (UPDATE opt_out SET lifted_at = clock_timestamp() WHERE customer_id = $1 AND channel = $2 AND purpose = $3 AND lifted_at IS NULL
			    RETURNING customer_id, channel, purpose, lifted_at, campaign_id)
			INSERT INTO consent_event (customer_id, event, channel, purpose, at, source, campaign_id, user_id, reason)
			SELECT customer_id, 'opt_out_lifted', channel, purpose, lifted_at, $4, campaign_id, nullif($5, '')::uuid, $6 FROM lifted`,
			o.CustomerID, o.Channel, o.Purpose, o.Source, o.By.UserID, o.Reason)
		if err != nil {
			return fmt.Errorf("lift opt-out: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return campaign.Errorf(campaign.CodeNotFound, "the customer has no opt-out in force for this channel and purpose")
		}
		if o.Channel == "" && o.Purpose == "" {
			if _, err := tx.Exec(ctx, `UPDATE customer SET opted_out = false WHERE id = $1`, o.CustomerID); err != nil {
				return fmt.Errorf("lift opt-out: %w", err)
			}
		}
		return nil
	})
}

// Consent is a customer's word on being contacted through a channel for a purpose.
type Consent struct {
	CustomerID string // UUID
	Channel    campaign.Channel
	Purpose    campaign.Purpose
	Given      bool // or else withdrawn
	At         time.Time
	Source     string         // where it was given or withdrawn
	By         campaign.Actor // who entered it; zero for Muster itself
	Reason     string
}

// RecordConsents keeps what customers consented to. The latest word counts, in whatever
// order they come; each is kept as evidence once.
func (s *Store) RecordConsents(ctx context.Context, all ...Consent) error {
	return s.inTx(ctx, func(tx pgx.Tx) error {
		customers := make([]string, len(all))
		for i, c := range all {
			customers[i] = c.CustomerID
		}
		if err := lockCustomers(ctx, tx, customers); err != nil {
			return err
		}
		batch := &pgx.Batch{}
		for _, c := range all {
			event := "consent_withdrawn"
			if c.Given {
				event = "consent_given"
			}
			batch.Queue(`INSERT INTO consent_event (customer_id, event, channel, purpose, at, source, user_id, reason)
				SELECT $1, $2, $3, $4, $5, $6, nullif($7, '')::uuid, $8 WHERE NOT EXISTS (SELECT FROM consent_event
				    WHERE customer_id = $1 AND event = $2 AND channel = $3 AND purpose = $4 AND at = $5 AND source = $6)`,
				c.CustomerID, event, c.Channel, c.Purpose, c.At, c.Source, c.By.UserID, c.Reason)
			batch.Queue(`INSERT INTO consent AS o (customer_id, channel, purpose, given, at, source) VALUES ($1, $2, $3, $4, $5, $6)
				ON CONFLICT (customer_id, channel, purpose) DO UPDATE SET given = EXCLUDED.given, at = EXCLUDED.at, source = EXCLUDED.source
				WHERE o.at <= EXCLUDED.at`, c.CustomerID, c.Channel, c.Purpose, c.Given, c.At, c.Source)
		}
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return fmt.Errorf("record consents: %w", err)
		}
		return nil
	})
}

// Why a customer is in quarantine.
const (
	QuarantineComplaint = "complaint"    // they complained
	QuarantineChurn     = "churn_notice" // they gave notice
	QuarantineReply     = "reply"        // they wrote what may be a refusal, and nobody has read it yet
)

// complaintQuarantine is how long a complaint keeps a customer in quarantine at least; a
// contact policy may leave them alone for longer.
const complaintQuarantine = 30 * 24 * time.Hour

// Quarantine leaves a customer alone for a while.
type Quarantine struct {
	CustomerID string // UUID
	Why        string
	At, Until  time.Time
	Source     string // who says so
	CampaignID string // what it is about, "" where that is not known
}

// Quarantine puts customers into quarantine, or lengthens one for the same reason.
func (s *Store) Quarantine(ctx context.Context, all ...Quarantine) error {
	return s.inTx(ctx, func(tx pgx.Tx) error { return quarantine(ctx, tx, all) })
}

func quarantine(ctx context.Context, tx pgx.Tx, all []Quarantine) error {
	if len(all) == 0 {
		return nil
	}
	customers := make([]string, len(all))
	for i, q := range all {
		customers[i] = q.CustomerID
	}
	if err := lockCustomers(ctx, tx, customers); err != nil {
		return err
	}
	batch := &pgx.Batch{}
	for _, q := range all {
		batch.Queue(`
			WITH written AS (INSERT INTO quarantine AS q (customer_id, why, until, at) VALUES ($1, $2, $3, $4)
			    ON CONFLICT (customer_id, why) DO UPDATE SET until = EXCLUDED.until, at = EXCLUDED.at WHERE q.until < EXCLUDED.until
			    RETURNING customer_id)
			INSERT INTO consent_event (customer_id, event, at, source, campaign_id, reason)
			SELECT customer_id, 'quarantined', $4, $5, nullif($6, '')::uuid, $2 FROM written`,
			q.CustomerID, q.Why, q.Until, q.At, q.Source, q.CampaignID)
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	return nil
}
