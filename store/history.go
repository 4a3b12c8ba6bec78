package store

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// PastContact is a contact with a customer that another system tells of.
type PastContact struct {
	Line       int64     // where it stands in what is recorded, to name it by
	CustomerID string    // UUID; or
	ExternalID string    // the operator's own id
	At         time.Time // zero when the source does not know
	Kind       campaign.ContactKind
	Direction  campaign.Direction
	Channel    string
	Product    string // may be empty
	Outcome    string // may be empty
	Seconds    *int32 // of talk or handling
	Source     string // the system that tells of it
	SourceID   string // the source's own id, so that it lands once
}

const (
	historyText     = 64  // most characters of channel, product, outcome and source
	historySourceID = 200 // most characters of a source's id
)

// fault says what is wrong with a past contact by itself.
func (p *PastContact) fault() (campaign.FieldError, bool) {
	invalid := func(field, message string) (campaign.FieldError, bool) {
		return campaign.FieldError{Field: field, Code: campaign.CodeInvalidParameter, Message: message}, true
	}
	switch {
	case (p.CustomerID == "") == (p.ExternalID == ""):
		return invalid("customer_id", "give customer_id or external_id, one of them")
	case p.CustomerID != "" && uuid.Validate(p.CustomerID) != nil:
		return invalid("customer_id", "is no UUID")
	case !slices.Contains(campaign.ContactKinds(), p.Kind):
		return invalid("kind", "is none of marketing, care, consultation, complaint, handling")
	case p.Direction != campaign.DirectionIn && p.Direction != campaign.DirectionOut:
		return invalid("direction", "is neither in nor out")
	case !p.At.IsZero() && p.At.Year() < 1970:
		return invalid("at", "lies before 1970")
	case p.At.After(time.Now().Add(clockSkew)):
		return invalid("at", "lies in the future")
	case p.Seconds != nil && *p.Seconds < 0:
		return invalid("seconds", "is less than 0")
	}
	for _, text := range []struct {
		field, value string
		needed       bool
		most         int
	}{
		{"external_id", p.ExternalID, false, historySourceID}, {"channel", p.Channel, true, historyText}, {"product", p.Product, false, historyText},
		{"outcome", p.Outcome, false, historyText}, {"source", p.Source, true, historyText}, {"source_id", p.SourceID, true, historySourceID},
	} {
		if fault := campaign.TextFault(text.value); fault != "" {
			return campaign.FieldError{Field: text.field, Code: campaign.CodeInvalidText, Message: fault}, true
		}
		if n := utf8.RuneCountInString(text.value); n > text.most || text.needed && strings.TrimSpace(text.value) == "" {
			return invalid(text.field, fmt.Sprintf("must have %d to %d characters", map[bool]int{true: 1}[text.needed], text.most))
		}
	}
	return campaign.FieldError{}, false
}

// HistoryLanded says what became of past contacts: Rows is the sum of the others.
type HistoryLanded struct {
	Rows      int64
	Accepted  int64
	Duplicate int64 // landed before, or came twice
	Rejected  int64
}

// RecordHistory lands past contacts of customers of the units, each once by customer, source
// and source id, in one transaction and constant memory. One that is malformed, or whose
// customer is unknown or of another unit, goes to reject with its line and keeps no other
// from landing. The contact handed out by rows may be overwritten by the next one. An error
// of rows or of reject ends it, and nothing lands.
func (s *Store) RecordHistory(ctx context.Context, units []campaign.OrgUnit, rows iter.Seq2[*PastContact, error], reject func(line int64, fault campaign.FieldError) error) (HistoryLanded, error) {
	var landed HistoryLanded
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		landed = HistoryLanded{}
		_, err := tx.Exec(ctx, `CREATE TEMP TABLE told_contact (line bigint, customer_id uuid, external_id text, at timestamptz, seconds integer,
			kind text, direction text, channel text, product text, outcome text, source text, source_id text) ON COMMIT DROP`)
		if err != nil {
			return fmt.Errorf("prepare contact history: %w", err)
		}
		told := &toldContacts{reject: reject}
		next, stop := iter.Pull2(rows)
		defer stop()
		told.next = next
		copied, err := tx.CopyFrom(ctx, pgx.Identifier{"told_contact"}, []string{"line", "customer_id", "external_id", "at", "seconds",
			"kind", "direction", "channel", "product", "outcome", "source", "source_id"}, told)
		if told.err != nil {
			return told.err // the server's words for it are not the cause
		}
		if err != nil {
			return fmt.Errorf("copy contact history: %w", err)
		}
		unknown, accepted, err := landHistory(ctx, tx, units, reject)
		if err != nil {
			return err
		}
		landed = HistoryLanded{Rows: copied + told.rejected, Accepted: accepted, Duplicate: copied - unknown - accepted, Rejected: told.rejected + unknown}
		return nil
	})
	if err != nil {
		return HistoryLanded{}, err
	}
	return landed, nil
}

// landHistory finds the customers of what was copied, tells of those that are unknown, and
// writes the others.
func landHistory(ctx context.Context, tx pgx.Tx, units []campaign.OrgUnit, reject func(int64, campaign.FieldError) error) (unknown, accepted int64, err error) {
	exact, patterns := below(units)
	_, err = tx.Exec(ctx, `ANALYZE told_contact`)
	if err == nil {
		_, err = tx.Exec(ctx, `CREATE TEMP TABLE known_contact ON COMMIT DROP AS
			SELECT t.*, CASE WHEN c.org_unit = ANY ($1) OR c.org_unit LIKE ANY ($2) THEN c.id END AS who
			FROM told_contact t LEFT JOIN customer x ON x.external_id = t.external_id LEFT JOIN customer c ON c.id = coalesce(t.customer_id, x.id)`, exact, patterns)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("find customers: %w", err)
	}
	rows, err := tx.Query(ctx, `SELECT line, CASE WHEN external_id IS NULL THEN 'customer_id' ELSE 'external_id' END FROM known_contact WHERE who IS NULL ORDER BY line`)
	if err != nil {
		return 0, 0, fmt.Errorf("find customers: %w", err)
	}
	var line int64
	var field string
	_, err = pgx.ForEachRow(rows, []any{&line, &field}, func() error {
		unknown++
		return reject(line, campaign.FieldError{Field: field, Code: campaign.CodeNotFound, Message: "there is no such customer"})
	})
	if err != nil {
		return 0, 0, fmt.Errorf("tell unknown customers: %w", err)
	}
	// In the order of the key: two batches with the same contacts wait for each other and
	// never in a circle.
	tag, err := tx.Exec(ctx, `INSERT INTO contact_history (customer_id, at, seconds, kind, direction, channel, product, outcome, source, source_id)
		SELECT who, coalesce(at, '-infinity'), seconds, kind, direction, channel, product, outcome, source, source_id FROM known_contact
		WHERE who IS NOT NULL ORDER BY who, source COLLATE "C", source_id COLLATE "C", line ON CONFLICT DO NOTHING`)
	if err != nil {
		return 0, 0, fmt.Errorf("write contact history: %w", err)
	}
	return unknown, tag.RowsAffected(), nil
}

// toldContacts hands the well-formed contacts to COPY.
type toldContacts struct {
	next     func() (*PastContact, error, bool)
	reject   func(int64, campaign.FieldError) error
	row      *PastContact
	rejected int64
	err      error
}

// Next implements pgx.CopyFromSource.
func (t *toldContacts) Next() bool {
	for {
		p, err, more := t.next()
		if !more || err != nil {
			t.err = err
			return false
		}
		fault, wrong := p.fault()
		if !wrong {
			t.row = p
			return true
		}
		t.rejected++
		if t.err = t.reject(p.Line, fault); t.err != nil {
			return false
		}
	}
}

// Values implements pgx.CopyFromSource.
func (t *toldContacts) Values() ([]any, error) {
	p := t.row
	optional := func(text string) any {
		if text == "" {
			return nil
		}
		return text
	}
	var at any
	if !p.At.IsZero() {
		at = p.At
	}
	return []any{p.Line, optional(p.CustomerID), optional(p.ExternalID), at, p.Seconds, p.Kind, p.Direction, p.Channel, p.Product, p.Outcome, p.Source, p.SourceID}, nil
}

// Err implements pgx.CopyFromSource.
func (t *toldContacts) Err() error { return t.err }
