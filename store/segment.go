package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// Segment is a version of a saved filter.
type Segment struct {
	ID        string
	Unit      campaign.OrgUnit
	Name      string
	Version   int
	Newest    int // how many versions there are
	Filter    string
	Tree      *campaign.Condition // the form that generates Filter, if it was made with one
	Meaning   string
	MeaningZh string
	Template  string // the shipped template that it was made from, if it was
	CreatedBy string
	CreatedAt time.Time // of the version
	RetiredAt *time.Time
}

const segmentColumns = `s.id::text, s.unit, s.name, v.version, s.versions, v.filter, v.tree, v.meaning, v.meaning_zh, v.template, v.created_by::text, v.created_at, s.retired_at`

func scanSegment(row pgx.CollectableRow) (Segment, error) {
	var s Segment
	var tree []byte
	err := row.Scan(&s.ID, &s.Unit, &s.Name, &s.Version, &s.Newest, &s.Filter, &tree, &s.Meaning, &s.MeaningZh, &s.Template, &s.CreatedBy, &s.CreatedAt, &s.RetiredAt)
	if err == nil && tree != nil {
		err = json.Unmarshal(tree, &s.Tree)
	}
	return s, err
}

func segments(ctx context.Context, q querier, where string, args ...any) ([]Segment, error) {
	rows, err := q.Query(ctx, `SELECT `+segmentColumns+` FROM segment s JOIN segment_version v ON v.segment_id = s.id WHERE `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read segments: %w", err)
	}
	all, err := pgx.CollectRows(rows, scanSegment)
	if err != nil {
		return nil, fmt.Errorf("read segments: %w", err)
	}
	return all, nil
}

// Segments returns the newest versions of the units' and the lower units' segments, by name,
// after a name. Retired ones are among them when retired is set.
func (s *Store) Segments(ctx context.Context, units []campaign.OrgUnit, retired bool, after string, limit int) ([]Segment, error) {
	exact, patterns := below(units)
	return segments(ctx, s.pool, `v.version = s.versions AND (s.unit = ANY ($1) OR s.unit LIKE ANY ($2)) AND ($3 OR s.retired_at IS NULL) AND s.name > $4
		ORDER BY s.name LIMIT $5`, exact, patterns, retired, after, limit)
}

// SegmentVersions returns every version of a segment, the newest first, or CodeNotFound.
func (s *Store) SegmentVersions(ctx context.Context, id string) ([]Segment, error) {
	if uuid.Validate(id) != nil {
		return nil, notFound(pgx.ErrNoRows, "segment")
	}
	all, err := segments(ctx, s.pool, `s.id = $1 ORDER BY v.version DESC`, id)
	if err == nil && len(all) == 0 {
		err = notFound(pgx.ErrNoRows, "segment")
	}
	return all, err
}

// TenantSegments returns every version of a tenant's segments, by name and version.
func (s *Store) TenantSegments(ctx context.Context, tenant campaign.OrgUnit) ([]Segment, error) {
	return segments(ctx, s.pool, `s.tenant = $1 ORDER BY s.name, v.version`, tenant)
}

// check says what is wrong with a segment's words; whether its filter compiles is asked by
// those who know the catalogue.
func (x Segment) check() error {
	var fields []campaign.FieldError
	add := func(field, fault string) {
		if fault != "" {
			fields = append(fields, campaign.FieldError{Field: field, Code: campaign.CodeInvalidText, Message: fault})
		}
	}
	add("name", campaign.TextFault(x.Name))
	add("meaning", campaign.TextFault(x.Meaning))
	add("meaning_zh", campaign.TextFault(x.MeaningZh))
	for _, f := range campaign.CheckTree(x.Tree, x.Filter) {
		at := "tree"
		if f.Field != "" {
			at += "." + f.Field
		}
		f.Field = at
		fields = append(fields, f)
	}
	if len(fields) == 0 {
		return nil
	}
	return &campaign.Error{Code: fields[0].Code, Message: "the segment cannot be saved", Fields: fields}
}

// CreateSegment makes a segment under x.ID with its version 1. It fails with
// CodeAlreadyExists when the tenant has one of that name; making it again changes nothing.
func (s *Store) CreateSegment(ctx context.Context, x Segment, by campaign.Actor) error {
	if err := x.check(); err != nil {
		return err
	}
	return s.inTx(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `INSERT INTO segment (id, tenant, unit, name, versions) VALUES ($1, $2, $3, $4, 1) ON CONFLICT (id) DO NOTHING`,
			x.ID, x.Unit.Tenant(), x.Unit, x.Name)
		switch {
		case uniqueViolation(err, "segment_tenant_name_key"):
			return campaign.Errorf(campaign.CodeAlreadyExists, "there is a segment %q already", x.Name)
		case foreignKeyViolation(err, "segment_unit_fkey"):
			return field("unit", "there is no such org unit")
		case err != nil:
			return fmt.Errorf("create segment: %w", err)
		case tag.RowsAffected() == 0:
			return nil
		}
		x.Version = 1
		return addSegmentVersion(ctx, tx, x, by)
	})
}

// AddSegmentVersion adds x as the next version of segment x.ID and returns its number. newest
// is the version that the caller knows: CodeVersionChanged when there is a later one. A
// retired segment is CodeStateConflict.
func (s *Store) AddSegmentVersion(ctx context.Context, x Segment, newest int, by campaign.Actor) (int, error) {
	if err := x.check(); err != nil {
		return 0, err
	}
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		var retired bool
		err := tx.QueryRow(ctx, `SELECT name, versions, retired_at IS NOT NULL FROM segment WHERE id = $1 FOR UPDATE`, x.ID).Scan(&x.Name, &x.Version, &retired)
		switch {
		case err != nil:
			return notFound(err, "segment")
		case retired:
			return campaign.Errorf(campaign.CodeStateConflict, "segment %q is retired", x.Name)
		case x.Version != newest:
			return campaign.Errorf(campaign.CodeVersionChanged, "segment %q has version %d by now", x.Name, x.Version).With("version", x.Version)
		}
		x.Version++
		if _, err := tx.Exec(ctx, `UPDATE segment SET versions = $2 WHERE id = $1`, x.ID, x.Version); err != nil {
			return fmt.Errorf("add segment version: %w", err)
		}
		return addSegmentVersion(ctx, tx, x, by)
	})
	return x.Version, err
}

func addSegmentVersion(ctx context.Context, tx pgx.Tx, x Segment, by campaign.Actor) error {
	var tree []byte
	if x.Tree != nil {
		var err error
		if tree, err = json.Marshal(x.Tree); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, `INSERT INTO segment_version (segment_id, version, filter, tree, meaning, meaning_zh, template, created_by)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`, x.ID, x.Version, x.Filter, tree, x.Meaning, x.MeaningZh, x.Template, by.UserID)
	if err != nil {
		return fmt.Errorf("add segment version: %w", err)
	}
	return recordOnce(ctx, tx, byActor(by, "segment.saved", map[string]any{"segment": x.ID, "name": x.Name, "version": x.Version, "unit": x.Unit}))
}

// RetireSegment retires a segment: what is written from now on cannot name it; what does so
// already goes on. Retiring it again changes nothing.
func (s *Store) RetireSegment(ctx context.Context, id string, by campaign.Actor) error {
	return s.inTx(ctx, func(tx pgx.Tx) error {
		var name string
		err := tx.QueryRow(ctx, `UPDATE segment SET retired_at = now(), retired_by = $2 WHERE id = $1 AND retired_at IS NULL RETURNING name`, id, by.UserID).Scan(&name)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("retire segment: %w", err)
		}
		return recordOnce(ctx, tx, byActor(by, "segment.retired", map[string]any{"segment": id, "name": name}))
	})
}

// CampaignName is what filters may call a campaign by.
type CampaignName struct {
	ID     string
	Number int64
	Name   string
}

// TenantCampaigns returns the names of a tenant's campaigns.
func (s *Store) TenantCampaigns(ctx context.Context, tenant campaign.OrgUnit) ([]CampaignName, error) {
	exact, patterns := below([]campaign.OrgUnit{tenant})
	rows, err := s.pool.Query(ctx, `SELECT id::text, number, name FROM campaign WHERE unit = ANY ($1) OR unit LIKE ANY ($2) ORDER BY number`, exact, patterns)
	if err != nil {
		return nil, fmt.Errorf("read campaigns: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[CampaignName])
	if err != nil {
		return nil, fmt.Errorf("read campaigns: %w", err)
	}
	return all, nil
}

// ListVersion is a version of a customer list that was published.
type ListVersion struct {
	Name    string
	ID      string
	Version int
	Digest  string // of its members
}

// TenantLists returns the versions in force of a tenant's customer lists.
func (s *Store) TenantLists(ctx context.Context, tenant campaign.OrgUnit) ([]ListVersion, error) {
	return s.listVersions(ctx, `SELECT DISTINCT ON (name) name, id::text, version, digest FROM customer_list
		WHERE tenant = $1 AND state = 'published' ORDER BY name, version DESC`, tenant)
}

// ListVersions returns lists that are or were in force.
func (s *Store) ListVersions(ctx context.Context, ids []string) ([]ListVersion, error) {
	return s.listVersions(ctx, `SELECT name, id::text, version, digest FROM customer_list WHERE id = ANY($1::uuid[]) AND published_at IS NOT NULL`, ids)
}

func (s *Store) listVersions(ctx context.Context, sql string, arg any) ([]ListVersion, error) {
	rows, err := s.pool.Query(ctx, sql, arg)
	if err != nil {
		return nil, fmt.Errorf("read lists: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ListVersion])
	if err != nil {
		return nil, fmt.Errorf("read lists: %w", err)
	}
	return all, nil
}
