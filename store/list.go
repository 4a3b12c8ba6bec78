package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// ListKind says where the members of a list are from.
type ListKind string

// The kinds of lists.
const (
	ListUpload         ListKind = "upload"          // somebody names them
	ListCampaignResult ListKind = "campaign_result" // how they answered an earlier campaign
	ListArms           ListKind = "arms"            // somebody names them, each with the arm of an experiment
)

// ListState is where a list stands.
type ListState string

// A list takes members while it is a draft, is in force once it is published, and ends.
const (
	ListDraft     ListState = "draft"
	ListPublished ListState = "published"
	ListRetired   ListState = "retired"
)

// List is one version of a named list of customers.
type List struct {
	ID          string
	Unit        campaign.OrgUnit // its members are customers of it and of the units below
	Name        string
	Version     int // 1, 2… of the name within the tenant
	Kind        ListKind
	State       ListState
	Origin      ListOrigin
	Members     int64
	Digest      string // SHA-256 of members and arms, once published
	CreatedBy   string
	CreatedAt   time.Time
	PublishedAt *time.Time
	RetiredAt   *time.Time
}

// ListOrigin says which targets of an earlier campaign a list has: the treated ones with at
// least one of With, where it names any, and with none of Without.
type ListOrigin struct {
	CampaignID string                 `json:"campaign_id,omitempty"`
	With       []campaign.OutcomeKind `json:"with,omitempty"`
	Without    []campaign.OutcomeKind `json:"without,omitempty"`
}

const listColumns = `id::text, unit, name, version, kind, state, origin, members, digest, created_by::text, created_at, published_at, retired_at`

func scanList(row pgx.CollectableRow) (List, error) {
	var l List
	err := row.Scan(&l.ID, &l.Unit, &l.Name, &l.Version, &l.Kind, &l.State, &l.Origin, &l.Members, &l.Digest, &l.CreatedBy, &l.CreatedAt, &l.PublishedAt, &l.RetiredAt)
	return l, err
}

func oneList(ctx context.Context, q querier, where string, args ...any) (List, error) {
	rows, err := q.Query(ctx, `SELECT `+listColumns+` FROM customer_list `+where, args...)
	if err != nil {
		return List{}, fmt.Errorf("read list: %w", err)
	}
	l, err := pgx.CollectExactlyOneRow(rows, scanList)
	if errors.Is(err, pgx.ErrNoRows) {
		return l, notFound(err, "list")
	}
	if err != nil {
		return l, fmt.Errorf("read list: %w", err)
	}
	return l, nil
}

// List returns one list, or CodeNotFound.
func (s *Store) List(ctx context.Context, id string) (List, error) {
	if uuid.Validate(id) != nil {
		return List{}, notFound(pgx.ErrNoRows, "list")
	}
	return oneList(ctx, s.pool, `WHERE id = $1`, id)
}

// ListInForce returns the newest published version of a tenant's list, or CodeNotFound.
func (s *Store) ListInForce(ctx context.Context, tenant campaign.OrgUnit, name string) (List, error) {
	return oneList(ctx, s.pool, `WHERE tenant = $1 AND name = $2 AND state = 'published' ORDER BY version DESC LIMIT 1`, tenant, name)
}

// Lists returns lists of the units and below, newest first, from after an id on.
func (s *Store) Lists(ctx context.Context, units []campaign.OrgUnit, after string, limit int) ([]List, error) {
	exact, patterns := below(units)
	rows, err := s.pool.Query(ctx, `SELECT `+listColumns+` FROM customer_list
		WHERE (unit = ANY ($1) OR unit LIKE ANY ($2)) AND ($3 = '' OR id < nullif($3, '')::uuid) ORDER BY id DESC LIMIT $4`, exact, patterns, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read lists: %w", err)
	}
	all, err := pgx.CollectRows(rows, scanList)
	if err != nil {
		return nil, fmt.Errorf("read lists: %w", err)
	}
	return all, nil
}

// CreateList makes a draft under l.ID: the next version of its name, which all versions of
// it have at one unit. One of an earlier campaign's result has its members at once. Making
// it again changes nothing.
func (s *Store) CreateList(ctx context.Context, l List, by campaign.Actor) (List, error) {
	if fault := campaign.TextFault(l.Name); fault != "" {
		return l, field("name", fault)
	}
	if strings.TrimSpace(l.Name) != l.Name || l.Name == "" || utf8.RuneCountInString(l.Name) > 100 {
		return l, field("name", "must have 1 to 100 characters and neither begin nor end with a space")
	}
	origin, err := json.Marshal(l.Origin)
	if err != nil {
		return l, err
	}
	tenant := l.Unit.Tenant()
	err = s.change(ctx, "create list", func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('list ' || $1 || ' ' || $2, 0))`, tenant, l.Name); err != nil {
			return err
		}
		var unit *campaign.OrgUnit
		err := tx.QueryRow(ctx, `SELECT min(unit) FROM customer_list WHERE tenant = $1 AND name = $2 AND id <> $3`, tenant, l.Name, l.ID).Scan(&unit)
		if err != nil {
			return err
		}
		if unit != nil && *unit != l.Unit {
			return campaign.Errorf(campaign.CodeAlreadyExists, "there is a list %q of another unit; choose another name", l.Name)
		}
		tag, err := tx.Exec(ctx, `INSERT INTO customer_list (id, tenant, unit, name, version, kind, origin, created_by)
			SELECT $1, $2, $3, $4, coalesce(max(version), 0) + 1, $5, $6, $7 FROM customer_list WHERE tenant = $2 AND name = $4
			ON CONFLICT (id) DO NOTHING`, l.ID, tenant, l.Unit, l.Name, l.Kind, origin, by.UserID)
		if foreignKeyViolation(err, "customer_list_unit_fkey") {
			return field("unit", fmt.Sprintf("there is no org unit %q", l.Unit))
		}
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		if l.Kind == ListCampaignResult {
			if err := addResult(ctx, tx, l); err != nil {
				return err
			}
		}
		return recordOnce(ctx, tx, byActor(by, "list.created", map[string]any{"list": l.ID, "unit": l.Unit, "name": l.Name, "kind": l.Kind, "origin": l.Origin}))
	})
	if err != nil {
		return l, err
	}
	return s.List(ctx, l.ID)
}

// addResult fills a list with an earlier campaign's targets by what came back of them.
func addResult(ctx context.Context, tx pgx.Tx, l List) error {
	exact, patterns := below([]campaign.OrgUnit{l.Unit})
	targets, err := partition("campaign_target", l.Origin.CampaignID)
	if err != nil {
		return err
	}
	var there bool
	if err := tx.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, targets).Scan(&there); err != nil {
		return err
	}
	if !there {
		return campaign.Errorf(campaign.CodeStateConflict, "the campaign has no targets yet")
	}
	tag, err := tx.Exec(ctx, `INSERT INTO customer_list_member (list_id, customer_id)
		SELECT $1, t.customer_id FROM campaign_target t JOIN customer c ON c.id = t.customer_id
		WHERE t.campaign_id = $2 AND t.arm = 'treated' AND (c.org_unit = ANY ($5) OR c.org_unit LIKE ANY ($6))
		  AND (cardinality($3::text[]) = 0 OR EXISTS (SELECT FROM outcome o WHERE o.campaign_id = $2 AND o.customer_id = t.customer_id AND o.kind = ANY ($3)))
		  AND NOT EXISTS (SELECT FROM outcome o WHERE o.campaign_id = $2 AND o.customer_id = t.customer_id AND o.kind = ANY ($4::text[]))
		ORDER BY t.customer_id`, l.ID, l.Origin.CampaignID, kinds(l.Origin.With), kinds(l.Origin.Without), exact, patterns)
	if err == nil {
		_, err = tx.Exec(ctx, `UPDATE customer_list SET members = $2 WHERE id = $1`, l.ID, tag.RowsAffected())
	}
	return err
}

func kinds(all []campaign.OutcomeKind) []string {
	texts := []string{}
	for _, k := range all {
		texts = append(texts, string(k))
	}
	return texts
}

// PublishList puts a draft in force in place of the version before. A draft without members,
// and one of arms whose members do not all have one, is CodeStateConflict.
func (s *Store) PublishList(ctx context.Context, id string, by campaign.Actor) (List, error) {
	err := s.change(ctx, "publish list", func(tx pgx.Tx) error {
		l, err := oneList(ctx, tx, `WHERE id = $1 FOR UPDATE`, id)
		if err != nil || l.State == ListPublished {
			return err
		}
		if l.State != ListDraft {
			return campaign.Errorf(campaign.CodeStateConflict, "the list is %s", l.State)
		}
		digest, members, armed, err := digestMembers(ctx, tx, id)
		if err != nil {
			return err
		}
		if members == 0 {
			return campaign.Errorf(campaign.CodeStateConflict, "the list has no members")
		}
		if l.Kind == ListArms && armed < members {
			return campaign.Errorf(campaign.CodeStateConflict, "%d of the list's %d members have no arm", members-armed, members)
		}
		_, err = tx.Exec(ctx, `UPDATE customer_list SET state = 'published', members = $2, digest = $3, published_by = $4, published_at = now() WHERE id = $1`, id, members, digest, by.UserID)
		if err != nil {
			return err
		}
		return recordOnce(ctx, tx, byActor(by, "list.published", map[string]any{"list": id, "name": l.Name, "version": l.Version, "members": members, "digest": digest}))
	})
	if err != nil {
		return List{}, err
	}
	return s.List(ctx, id)
}

// digestMembers reads the members once, in the order of their ids.
func digestMembers(ctx context.Context, tx pgx.Tx, id string) (digest string, members, armed int64, err error) {
	rows, err := tx.Query(ctx, `SELECT customer_id, arm FROM customer_list_member WHERE list_id = $1 ORDER BY customer_id`, id)
	if err != nil {
		return "", 0, 0, err
	}
	sum := sha256.New()
	var customer uuid.UUID
	var arm *string
	_, err = pgx.ForEachRow(rows, []any{&customer, &arm}, func() error {
		members++
		sum.Write(customer[:])
		if arm != nil {
			armed++
			fmt.Fprint(sum, *arm)
		}
		sum.Write([]byte{0})
		return nil
	})
	return hex.EncodeToString(sum.Sum(nil)), members, armed, err
}

// RetireList ends a list: filters that name it find the version before, if that is in force.
func (s *Store) RetireList(ctx context.Context, id string, by campaign.Actor) (List, error) {
	err := s.change(ctx, "retire list", func(tx pgx.Tx) error {
		l, err := oneList(ctx, tx, `WHERE id = $1 FOR UPDATE`, id)
		if err != nil || l.State == ListRetired {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE customer_list SET state = 'retired', retired_at = now() WHERE id = $1`, id); err != nil {
			return err
		}
		return recordOnce(ctx, tx, byActor(by, "list.retired", map[string]any{"list": id, "name": l.Name, "version": l.Version, "before": l.State}))
	})
	if err != nil {
		return List{}, err
	}
	return s.List(ctx, id)
}
