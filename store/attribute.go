package store

import (
	"context"
	"fmt"
	"regexp"
	"slices"

	"github.com/jackc/pgx/v5"

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

var columnTypes = map[AttributeType]string{
	AttributeInt: "bigint", AttributeFloat: "double precision", AttributeText: "text",
	AttributeBool: "boolean", AttributeTimestamp: "timestamptz",
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

// CustomerAttributes returns the declared attributes in order of name.
func (s *Store) CustomerAttributes(ctx context.Context) ([]Attribute, error) {
	rows, err := s.pool.Query(ctx, `SELECT name, type, unit, meaning, meaning_zh, post_contact, pii, source
		FROM customer_attribute ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("read customer attributes: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Attribute])
	if err != nil {
		return nil, fmt.Errorf("read customer attributes: %w", err)
	}
	return all, nil
}

// DeclareAttributes makes each attribute a column of the customer table. An attribute
// that is declared already keeps its column and takes the new description; it fails
// with CodeStateConflict when its type is another, and with CodeInvalidParameter on a
// name that cannot be used.
func (s *Store) DeclareAttributes(ctx context.Context, attributes []Attribute) error {
	for _, a := range attributes {
		switch {
		case !attributeName.MatchString(a.Name):
			return campaign.Errorf(campaign.CodeInvalidParameter, "attribute %q: a name has lower-case letters, digits and _, starts with a letter and has at most 63 characters", a.Name)
		case slices.Contains(reservedAttributes, a.Name):
			return campaign.Errorf(campaign.CodeInvalidParameter, "attribute %q: the name is reserved; choose another", a.Name)
		case columnTypes[a.Type] == "":
			return campaign.Errorf(campaign.CodeInvalidParameter, "attribute %q: type must be int, float, text, bool or timestamp, not %q", a.Name, a.Type)
		}
	}
	return s.inTx(ctx, func(tx pgx.Tx) error {
		if err := lockImports(ctx, tx); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT name, type FROM customer_attribute`)
		if err != nil {
			return fmt.Errorf("read customer attributes: %w", err)
		}
		declared := map[string]AttributeType{}
		var name string
		var typ AttributeType
		if _, err := pgx.ForEachRow(rows, []any{&name, &typ}, func() error { declared[name] = typ; return nil }); err != nil {
			return fmt.Errorf("read customer attributes: %w", err)
		}
		ddl := ""
		batch := &pgx.Batch{}
		for _, a := range attributes {
			if t, ok := declared[a.Name]; ok && t != a.Type {
				return campaign.Errorf(campaign.CodeStateConflict, "attribute %q is declared as %s and cannot become %s", a.Name, t, a.Type)
			} else if !ok {
				if ddl != "" {
					ddl += ", "
				}
				ddl += "ADD COLUMN IF NOT EXISTS " + pgx.Identifier{a.Name}.Sanitize() + " " + columnTypes[a.Type]
			}
			batch.Queue(`INSERT INTO customer_attribute (name, type, unit, meaning, meaning_zh, post_contact, pii, source)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
				ON CONFLICT (name) DO UPDATE SET unit = EXCLUDED.unit, meaning = EXCLUDED.meaning, meaning_zh = EXCLUDED.meaning_zh,
				    post_contact = EXCLUDED.post_contact, pii = EXCLUDED.pii, source = EXCLUDED.source`,
				a.Name, a.Type, a.Unit, a.Meaning, a.MeaningZh, a.PostContact, a.PII, a.Source)
		}
		if ddl != "" {
			if _, err := tx.Exec(ctx, "ALTER TABLE customer "+ddl); err != nil {
				return fmt.Errorf("add customer columns: %w", err)
			}
		}
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return fmt.Errorf("declare customer attributes: %w", err)
		}
		return nil
	})
}

// lockImports lets one import or declaration run at a time until the transaction ends.
func lockImports(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('customer import', 0))`); err != nil {
		return fmt.Errorf("wait for another import: %w", err)
	}
	return nil
}
