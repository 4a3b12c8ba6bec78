package store

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/musterhq/muster/campaign"
)

// AttributeType is the type of a declared customer attribute.
type AttributeType string

// The attribute types, each with the Go type of its values and the type of its column.
const (
	AttributeInt       AttributeType = "int"       // int64, bigint
	AttributeFloat     AttributeType = "float"     // float64, double precision
	AttributeText      AttributeType = "text"      // string, text
	AttributeBool      AttributeType = "bool"      // bool, boolean
	AttributeTimestamp AttributeType = "timestamp" // time.Time, timestamptz
)

// AttributeTypes lists the types.
func AttributeTypes() []AttributeType {
	return []AttributeType{AttributeInt, AttributeFloat, AttributeText, AttributeBool, AttributeTimestamp}
}

// Attribute declares a column of the customer table and what it means.
type Attribute struct {
	Name        string        `json:"name"`
	Type        AttributeType `json:"type"`
	Unit        string        `json:"unit"` // of a number; empty for a bare count or category
	Meaning     string        `json:"meaning"`
	MeaningZh   string        `json:"meaning_zh"`
	PostContact bool          `json:"post_contact"` // known only after a contact: never used to select
	PII         bool          `json:"pii"`          // identifies a person by itself: never used to select
	Source      string        `json:"source"`       // where it comes from
	Allowed     []string      `json:"allowed"`      // the values that text may have; none for any
}

// Column is the SQL of the attribute's column under the alias c, safe to put into a statement.
func (a Attribute) Column() string { return "c." + pgx.Identifier{a.Name}.Sanitize() }

var attributeName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// reservedAttributes are the customer table's own columns, PostgreSQL's system columns
// and the words of the filter language.
var reservedAttributes = []string{
	"id", "external_id", "org_unit", "time_zone", "opted_out", "simulated", "created_at",
	"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid",
	"now", "days", "timestamp", "true", "false", "null", "in", "has", "as", "break", "const", "continue", "else", "for",
	"function", "if", "import", "let", "loop", "package", "namespace", "return", "var", "void", "while",
}

// maxAllowed is how many values a text attribute's list of allowed ones may have.
const maxAllowed = 500

// Check says why an attribute cannot be declared, with CodeInvalidParameter.
func (a Attribute) Check() error {
	switch {
	case !attributeName.MatchString(a.Name):
		return campaign.Errorf(campaign.CodeInvalidParameter, "attribute %q: a name has lower-case letters, digits and _, starts with a letter and has at most 63 characters", a.Name)
	case slices.Contains(reservedAttributes, a.Name):
		return campaign.Errorf(campaign.CodeInvalidParameter, "attribute %q: the name is reserved; choose another", a.Name)
	case !slices.Contains(AttributeTypes(), a.Type):
		return campaign.Errorf(campaign.CodeInvalidParameter, "attribute %q: type must be int, float, text, bool or timestamp, not %q", a.Name, a.Type)
	case len(a.Allowed) > 0 && a.Type != AttributeText:
		return campaign.Errorf(campaign.CodeInvalidParameter, "attribute %q: only text has a list of allowed values", a.Name)
	case len(a.Allowed) > maxAllowed:
		return campaign.Errorf(campaign.CodeInvalidParameter, "attribute %q: at most %d values can be listed as allowed", a.Name, maxAllowed)
	}
	seen := map[string]bool{}
	for _, v := range a.Allowed {
		if v == "" || badText(v) || seen[v] {
			return campaign.Errorf(campaign.CodeInvalidParameter, "attribute %q: each allowed value is some text, listed once", a.Name)
		}
		seen[v] = true
	}
	return nil
}

const attributeColumns = "name, type, unit, meaning, meaning_zh, post_contact, pii, source, allowed"

// CustomerAttributes returns the declared attributes in order of name.
func (s *Store) CustomerAttributes(ctx context.Context) ([]Attribute, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+attributeColumns+` FROM customer_attribute ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("read customer attributes: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Attribute])
	if err != nil {
		return nil, fmt.Errorf("read customer attributes: %w", err)
	}
	return all, nil
}

// DeclareAttributes makes each attribute a column of the customer table, all of them or
// none; by is who asks for it, the zero Actor for an import or a release. An attribute that
// is declared already keeps its column and takes the new description; it fails with
// CodeStateConflict when its type is another, and with CodeInvalidParameter on a name that
// cannot be used.
//
// A new column needs the table for itself for a moment. It is asked for again and again
// rather than waited for, so that nobody who reads customers waits behind it; while an
// import goes on in one transaction it is not to be had. When ctx ends before it was, the
// result is CodeStateConflict.
func (s *Store) DeclareAttributes(ctx context.Context, by campaign.Actor, attributes []Attribute) error {
	for _, a := range attributes {
		if err := a.Check(); err != nil {
			return err
		}
	}
	const least, most = 100 * time.Millisecond, 5 * time.Second
	for pause := least; ; pause = min(2*pause, most) {
		err := s.inTx(ctx, func(tx pgx.Tx) error { return declare(ctx, tx, by, attributes) })
		var pg *pgconn.PgError
		busy := errors.As(err, &pg) && pg.Code == "55P03" // lock not available
		if !busy && (err == nil || ctx.Err() == nil) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return &campaign.Error{Code: campaign.CodeStateConflict, Err: ctx.Err(), Message: "the customer table is in use, most likely by an import: try again when it is over"}
		}
	}
}

func declare(ctx context.Context, tx pgx.Tx, by campaign.Actor, attributes []Attribute) error {
	for _, a := range attributes {
		if a.Allowed == nil {
			a.Allowed = []string{}
		}
		_, err := tx.Exec(ctx, `SELECT declare_customer_attribute($1, $2, $3, $4, $5, $6, $7, $8, $9, nullif($10, '')::uuid, $11)`,
			a.Name, a.Type, a.Unit, a.Meaning, a.MeaningZh, a.PostContact, a.PII, a.Source, a.Allowed, by.UserID, by.Name)
		var pg *pgconn.PgError
		if errors.As(err, &pg) {
			switch pg.Code {
			case "42804": // datatype mismatch
				return &campaign.Error{Code: campaign.CodeStateConflict, Message: pg.Message, Err: err}
			case "42701", "54011": // duplicate column, too many columns
				return &campaign.Error{Code: campaign.CodeInvalidParameter, Message: fmt.Sprintf("attribute %q: %s", a.Name, pg.Message), Err: err}
			}
		}
		if err != nil {
			return fmt.Errorf("declare attribute %s: %w", a.Name, err)
		}
	}
	return nil
}

// lockImports lets one import or declaration run at a time until the transaction ends.
func lockImports(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('customer import', 0))`); err != nil {
		return fmt.Errorf("wait for another import: %w", err)
	}
	return nil
}
