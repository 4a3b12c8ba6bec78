package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// querier is the pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// LoadPlan reads a plan revision. It fails with CodeNotFound when there is none and
// with CodeAssertionMismatch when the stored plan no longer has the digest it was
// stored under.
func (s *Store) LoadPlan(ctx context.Context, ref campaign.PlanRef) (campaign.LoadedPlan, error) {
	return loadPlan(ctx, s.pool, ref)
}

func loadPlan(ctx context.Context, q querier, ref campaign.PlanRef) (campaign.LoadedPlan, error) {
	p := campaign.LoadedPlan{Revision: ref.Revision}
	var text []byte
	err := q.QueryRow(ctx, `SELECT digest, editor_id::text, coalesce(base, 0), plan FROM plan_revision WHERE campaign_id = $1 AND revision = $2`,
		ref.CampaignID, ref.Revision).Scan(&p.Digest, &p.EditorID, &p.Base, &text)
	if err != nil {
		return p, notFound(err, fmt.Sprintf("plan revision %d", ref.Revision))
	}
	if err := json.Unmarshal(text, &p.Plan); err != nil {
		return p, fmt.Errorf("read plan revision %d: %w", ref.Revision, err)
	}
	if p.Plan.Digest() != p.Digest {
		return p, campaign.Errorf(campaign.CodeAssertionMismatch, "plan revision %d is not what was stored: its digest differs", ref.Revision)
	}
	return p, nil
}

// Owner is what the authority over a campaign depends on.
type Owner struct {
	Unit  campaign.OrgUnit
	Stage campaign.Stage
	Hold  campaign.Hold
}

// CampaignOwner returns a campaign's unit, stage and hold, or CodeNotFound.
func (s *Store) CampaignOwner(ctx context.Context, campaignID string) (Owner, error) {
	var o Owner
	err := s.pool.QueryRow(ctx, `SELECT unit, stage, hold FROM campaign WHERE id = $1`, campaignID).Scan(&o.Unit, &o.Stage, &o.Hold)
	return o, notFound(err, "campaign")
}

// RevisionInForce returns the number of a campaign's plan revision in force, as its
// workflow projected it.
func (s *Store) RevisionInForce(ctx context.Context, campaignID string) (int, error) {
	var revision int
	err := s.pool.QueryRow(ctx, `SELECT revision FROM campaign WHERE id = $1`, campaignID).Scan(&revision)
	return revision, notFound(err, "campaign")
}

// NewRevision is a plan that is to follow the one in force while a campaign is in flight.
type NewRevision struct {
	Plan     campaign.Plan
	EditorID string
	Base     int    // the revision it was made from
	Request  string // what wrote it; the same request of a campaign writes one revision
	Note     string // for people
}

// RequestOfReview is the request by which a review's recommendation becomes a revision.
func RequestOfReview(number int) string { return fmt.Sprintf("review:%d", number) }

// AddRevision stores a campaign's next revision and returns it, or the one that the same
// request wrote before as it is.
func (s *Store) AddRevision(ctx context.Context, campaignID string, r NewRevision) (campaign.LoadedPlan, error) {
	loaded := campaign.LoadedPlan{Digest: r.Plan.Digest(), EditorID: r.EditorID, Base: r.Base, Plan: r.Plan}
	text, err := json.Marshal(r.Plan)
	if err != nil {
		return loaded, fmt.Errorf("write plan: %w", err)
	}
	err = s.inTx(ctx, func(tx pgx.Tx) error {
		var newest int
		err := tx.QueryRow(ctx, `SELECT draft_revision FROM campaign WHERE id = $1 FOR UPDATE`, campaignID).Scan(&newest)
		if err != nil {
			return notFound(err, "campaign")
		}
		var revision int
		err = tx.QueryRow(ctx, `SELECT revision FROM plan_revision WHERE campaign_id = $1 AND request_id = $2`, campaignID, r.Request).Scan(&revision)
		if err == nil {
			loaded, err = loadPlan(ctx, tx, campaign.PlanRef{CampaignID: campaignID, Revision: revision})
			return err
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("read plan revisions: %w", err)
		}
		loaded.Revision = newest + 1
		_, err = tx.Exec(ctx, `INSERT INTO plan_revision (campaign_id, revision, digest, plan, editor_id, note, base, request_id)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`, campaignID, loaded.Revision, loaded.Digest, text, r.EditorID, r.Note, r.Base, r.Request)
		if err != nil {
			return fmt.Errorf("store plan revision: %w", err)
		}
		_, err = tx.Exec(ctx, `UPDATE campaign SET draft_revision = $2, updated_at = now() WHERE id = $1`, campaignID, loaded.Revision)
		if err != nil {
			return fmt.Errorf("store plan revision: %w", err)
		}
		return nil
	})
	return loaded, err
}

// ActiveNames returns the people who are not disabled, with their names.
func (s *Store) ActiveNames(ctx context.Context) (map[string]string, error) {
	rows, err := s.pool.Query(ctx, `SELECT id::text, name FROM app_user WHERE NOT disabled`)
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	names := map[string]string{}
	var id, name string
	if _, err := pgx.ForEachRow(rows, []any{&id, &name}, func() error { names[id] = name; return nil }); err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	return names, nil
}

// ActiveUsers returns those of the users who exist and are not disabled.
func (s *Store) ActiveUsers(ctx context.Context) (map[string]bool, error) {
	rows, err := s.pool.Query(ctx, `SELECT id::text FROM app_user WHERE NOT disabled`)
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	active := map[string]bool{}
	var id string
	if _, err := pgx.ForEachRow(rows, []any{&id}, func() error { active[id] = true; return nil }); err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	return active, nil
}

// partition names a campaign's own partition of table, so that a statement of the hot
// path plans against one table and not against all campaigns ever run. The campaign id
// is parsed, so the name is safe to put into a statement.
func partition(table, campaignID string) (string, error) {
	id, err := uuid.Parse(campaignID)
	if err != nil {
		return "", campaign.Errorf(campaign.CodeInvalidParameter, "%q is no campaign id", campaignID)
	}
	return fmt.Sprintf("%s_%x", table, id[:]), nil
}
