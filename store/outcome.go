package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// Outcome is what came back from a customer.
type Outcome struct {
	CustomerID string // UUID; may be empty when the contact is known
	ContactID  string // UUID; empty when it answers no contact in particular
	Kind       campaign.OutcomeKind
	Value      *int64 // by kind: minor units, answer code, seconds of talk for connected
	At         time.Time
	Source     string // who says so
	SourceID   string // the source's own id of it
}

// Landed says what became of a batch of outcomes.
type Landed struct {
	Accepted  int
	Duplicate int // landed before
	Faults    []campaign.FieldError
}

// clockSkew is how far in the future an outcome may lie.
const clockSkew = 5 * time.Minute

func (o Outcome) inFuture() bool { return o.At.After(time.Now().Add(clockSkew)) }

// sourceTask is the source of what agents report of their tasks, and the provider of
// their attempts.
const sourceTask = "task"

// reserved reports whether a source is Muster's own: an outcome from elsewhere under its
// name could take the place of a real one.
func reserved(source string) bool {
	return source == sourceTask || slices.Contains(campaign.Channels(), campaign.Channel(source))
}

// refuseReserved fails with CodeInvalidText when an outcome bears a reserved source.
func refuseReserved(batch []Outcome) error {
	var faults []campaign.FieldError
	for i, o := range batch {
		if reserved(o.Source) {
			faults = append(faults, campaign.FieldError{
				Field: fmt.Sprintf("outcomes[%d].source", i), Code: campaign.CodeInvalidText,
				Message: fmt.Sprintf("%q is a source of Muster's own; name the system that the outcome comes from", o.Source),
			})
		}
	}
	if faults != nil {
		return &campaign.Error{Code: campaign.CodeInvalidText, Message: "an outcome bears a source that is reserved", Fields: faults}
	}
	return nil
}

// RecordOutcomes lands a batch of outcomes of one campaign, each once by source and
// source id. One that names no target of the campaign, or lies in the future, is a
// fault and keeps no other from landing. Who opted out is opted out from then on, and who
// complained is in quarantine. The sources of Muster's own, its channels' and its tasks', are refused with CodeInvalidText.
func (s *Store) RecordOutcomes(ctx context.Context, campaignID string, simulated bool, batch []Outcome) (Landed, error) {
	var landed Landed
	if err := refuseReserved(batch); err != nil {
		return landed, err
	}
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		who, err := resolve(ctx, tx, campaignID, batch)
		if err != nil {
			return err
		}
		landed = Landed{Faults: []campaign.FieldError{}}
		var good []Outcome
		for i, o := range batch {
			field := fmt.Sprintf("outcomes[%d].", i)
			switch {
			case who[i] == "":
				name := "customer_id"
				if o.ContactID != "" {
					name = "contact_id"
				}
				landed.Faults = append(landed.Faults, campaign.FieldError{
					Field: field + name, Code: campaign.CodeNotFound, Message: "is no target of the campaign",
				})
			case o.inFuture():
				landed.Faults = append(landed.Faults, campaign.FieldError{
					Field: field + "at", Code: campaign.CodeInvalidParameter, Message: "lies in the future",
				})
			default:
				o.CustomerID = who[i]
				good = append(good, o)
			}
		}
		landed.Accepted, err = insertOutcomes(ctx, tx, campaignID, simulated, good)
		landed.Duplicate = len(good) - landed.Accepted
		return err
	})
	return landed, err
}

// resolve finds the customer of each outcome among the campaign's contacts and
// targets; "" where there is none.
func resolve(ctx context.Context, tx pgx.Tx, campaignID string, batch []Outcome) ([]string, error) {
	customers, contacts := make([]*string, len(batch)), make([]*string, len(batch))
	for i := range batch {
		if batch[i].CustomerID != "" {
			customers[i] = &batch[i].CustomerID
		}
		if batch[i].ContactID != "" {
			contacts[i] = &batch[i].ContactID
		}
	}
	rows, err := tx.Query(ctx, `SELECT coalesce(k.customer_id, t.customer_id)::text
		FROM unnest($2::uuid[], $3::uuid[]) WITH ORDINALITY o(customer_id, contact_id, i)
		LEFT JOIN contact k ON k.campaign_id = $1 AND k.id = o.contact_id AND (o.customer_id IS NULL OR o.customer_id = k.customer_id)
		LEFT JOIN campaign_target t ON t.campaign_id = $1 AND t.customer_id = o.customer_id AND o.contact_id IS NULL
		ORDER BY o.i`, campaignID, customers, contacts)
	if err != nil {
		return nil, fmt.Errorf("find targets: %w", err)
	}
	who, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		var id *string
		if err := row.Scan(&id); err != nil || id == nil {
			return "", err
		}
		return *id, nil
	})
	if err != nil {
		return nil, fmt.Errorf("find targets: %w", err)
	}
	return who, nil
}

// insertOutcomes writes outcomes of known customers and returns how many are new. It
// writes in the order of their keys, so that two batches with the same ones wait for
// each other and never in a circle. Who opted out or complained is locked and who opted out
// is marked before: an outcome counts as received once nothing can hold it up any more, since
// nobody who sends sees it before its transaction ends. A complaint that is new puts the
// customer into quarantine.
func insertOutcomes(ctx context.Context, tx pgx.Tx, campaignID string, simulated bool, batch []Outcome) (int, error) {
	if len(batch) == 0 {
		return 0, nil
	}
	n := len(batch)
	ids, customers, contacts := make([]uuid.UUID, n), make([]string, n), make([]*string, n)
	kinds, sources, sourceIDs := make([]string, n), make([]string, n), make([]string, n)
	values, times := make([]*int64, n), make([]time.Time, n)
	var optedOut []OptOut
	var locked []string
	for i, o := range batch {
		id, err := uuid.NewV7()
		if err != nil {
			return 0, err
		}
		ids[i], customers[i], kinds[i], values[i], times[i] = id, o.CustomerID, string(o.Kind), o.Value, o.At
		sources[i], sourceIDs[i] = o.Source, o.SourceID
		if o.ContactID != "" {
			contacts[i] = &o.ContactID
		}
		switch o.Kind {
		case campaign.OutcomeOptedOut:
			locked = append(locked, o.CustomerID)
			optedOut = append(optedOut, OptOut{CustomerID: o.CustomerID, At: o.At, Source: o.Source, CampaignID: campaignID})
		case campaign.OutcomeComplained:
			locked = append(locked, o.CustomerID)
		}
	}
	if len(locked) > 0 {
		if err := lockCustomers(ctx, tx, locked); err != nil {
			return 0, err
		}
		if err := optOut(ctx, tx, optedOut); err != nil {
			return 0, err
		}
	}
	rows, err := tx.Query(ctx, `INSERT INTO outcome (id, campaign_id, customer_id, contact_id, kind, value, at, source, source_id, simulated)
		SELECT u.id, $1, u.customer_id, u.contact_id, u.kind, u.value, u.at, u.source, u.source_id, $2
		FROM unnest($3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::bigint[], $8::timestamptz[], $9::text[], $10::text[])
		    u(id, customer_id, contact_id, kind, value, at, source, source_id)
		ORDER BY u.source, u.source_id
		ON CONFLICT (campaign_id, source, source_id) DO NOTHING
		RETURNING customer_id::text, kind, at, source`,
		campaignID, simulated, ids, customers, contacts, kinds, values, times, sources, sourceIDs)
	if err != nil {
		return 0, fmt.Errorf("write outcomes: %w", err)
	}
	var landed Outcome
	var complaints []Quarantine
	tag, err := pgx.ForEachRow(rows, []any{&landed.CustomerID, &landed.Kind, &landed.At, &landed.Source}, func() error {
		if landed.Kind == campaign.OutcomeComplained {
			complaints = append(complaints, Quarantine{
				CustomerID: landed.CustomerID, Why: QuarantineComplaint, At: landed.At, Until: landed.At.Add(complaintQuarantine), Source: landed.Source, CampaignID: campaignID,
			})
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("write outcomes: %w", err)
	}
	return int(tag.RowsAffected()), quarantine(ctx, tx, complaints)
}
