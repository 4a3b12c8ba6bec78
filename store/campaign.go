package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/musterhq/muster/campaign"
)

// Campaign is a campaign's row: who owns it, its revisions, and the read model of
// where it stands.
type Campaign struct {
	ID            string `gorm:"primaryKey"` // UUID
	Number        int64  `gorm:"->"`         // in order of creation
	Name          string
	Unit          campaign.OrgUnit
	PlannerID     string
	Planner       *User `gorm:"foreignKey:PlannerID"`
	DraftRevision int   // newest written
	Revision      int   // in force, 0 before the first submission
	Simulated     bool
	Hold          campaign.Hold
	HoldReason    string
	Stage         campaign.Stage
	Status        campaign.Status `gorm:"serializer:json"`
	StatusVersion int64
	WaitAction    campaign.Action
	DueAt         *time.Time
	Started       bool // the workflow was started
	ArchiveRuns   int
	ArchivedAt    *time.Time
	CreatedAt     time.Time
	UpdatedAt     time.Time
}

// TableName is GORM's hook for the table.
func (Campaign) TableName() string { return "campaign" }

// PlanRevision is a plan as it was written; it never changes.
type PlanRevision struct {
	CampaignID string `gorm:"primaryKey"`
	Revision   int    `gorm:"primaryKey"`
	Digest     string
	Plan       campaign.Plan `gorm:"serializer:json"`
	EditorID   string
	Editor     *User `gorm:"foreignKey:EditorID"`
	Base       *int  // the revision it was made from; nil for a draft
	Note       string
	CreatedAt  time.Time
}

// TableName is GORM's hook for the table.
func (PlanRevision) TableName() string { return "plan_revision" }

// CreateCampaign adds a draft with its first revision and the event that says so,
// and returns it. When there is a campaign of that id already, the same request was
// worked on before, and that campaign is returned.
func (s *Store) CreateCampaign(ctx context.Context, id string, plan campaign.Plan, by campaign.Actor) (Campaign, error) {
	begin := campaign.State{CampaignID: id, Stage: campaign.StageDraft, Hold: campaign.HoldNone}
	status := begin.Status()
	text, err := json.Marshal(status)
	if err != nil {
		return Campaign{}, fmt.Errorf("write status: %w", err)
	}
	err = s.inTx(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO campaign (id, name, unit, planner_id, draft_revision, simulated, stage, status, wait_action)
			VALUES ($1, $2, $3, $4, 1, $5, $6, $7, $8)`,
			id, plan.Name, plan.Unit, by.UserID, plan.Simulated, status.Stage, text, status.WaitAction)
		if err != nil {
			return err
		}
		if err := insertRevision(ctx, tx, id, 1, plan, by, "", "campaign.created"); err != nil {
			return err
		}
		return notify(ctx, tx, "campaign", id, 0)
	})
	switch {
	case uniqueViolation(err, "campaign_pkey"):
	case foreignKeyViolation(err, "campaign_unit_fkey"):
		return Campaign{}, &campaign.Error{Code: campaign.CodeInvalidPlan, Message: "the plan's unit does not exist", Fields: []campaign.FieldError{
			{Field: "unit", Code: campaign.CodeInvalidParameter, Message: fmt.Sprintf("there is no org unit %q", plan.Unit)},
		}}
	case err != nil:
		return Campaign{}, fmt.Errorf("create campaign: %w", err)
	}
	return s.Campaign(ctx, id)
}

// Campaign returns a campaign with its planner, or CodeNotFound.
func (s *Store) Campaign(ctx context.Context, id string) (Campaign, error) {
	c, err := gorm.G[Campaign](s.db).Joins(clause.LeftJoin.Association("Planner"), nameOnly).Where("campaign.id = ?", id).First(ctx)
	if err != nil {
		return Campaign{}, notFound(err, "campaign")
	}
	return c, nil
}

// CampaignFilter narrows a list of campaigns; a zero field does not.
type CampaignFilter struct {
	Units      []campaign.OrgUnit // only these and the units below them; none means no campaign at all
	Stage      campaign.Stage
	WaitAction campaign.Action
	Text       string // within the name, any case
	PlannerID  string
	Programme  string // whose newest plan is inside of this one
	Before     int64  // only numbers below it
	Limit      int
}

// Campaigns lists campaigns, the newest first.
func (s *Store) Campaigns(ctx context.Context, f CampaignFilter) ([]Campaign, error) {
	exact, patterns := below(f.Units)
	q := gorm.G[Campaign](s.db).Joins(clause.LeftJoin.Association("Planner"), nameOnly).
		Where(inUnits, strings.Join(exact, ","), strings.Join(patterns, ","))
	if f.Stage != "" {
		q = q.Where("campaign.stage = ?", f.Stage)
	}
	if f.WaitAction != "" {
		q = q.Where("campaign.wait_action = ?", f.WaitAction)
	}
	if f.Text != "" {
		q = q.Where("position(lower(?) IN lower(campaign.name)) > 0", f.Text)
	}
	if f.PlannerID != "" {
		q = q.Where("campaign.planner_id = ?", f.PlannerID)
	}
	if f.Programme != "" {
		q = q.Where("EXISTS (SELECT FROM plan_revision r WHERE r.campaign_id = campaign.id AND r.revision = campaign.draft_revision AND r.plan ->> 'programme_id' = ?)", f.Programme)
	}
	if f.Before > 0 {
		q = q.Where("campaign.number < ?", f.Before)
	}
	all, err := q.Order("campaign.number DESC").Limit(f.Limit).Find(ctx)
	if err != nil {
		return nil, fmt.Errorf("list campaigns: %w", err)
	}
	return all, nil
}

// MarkStarted notes that a campaign's workflow was started.
func (s *Store) MarkStarted(ctx context.Context, id string) error {
	if _, err := gorm.G[Campaign](s.db).Where("id = ? AND NOT started", id).Update(ctx, "started", true); err != nil {
		return fmt.Errorf("mark campaign as started: %w", err)
	}
	return nil
}

// insertRevision writes a revision and the event of that name about it.
func insertRevision(ctx context.Context, tx pgx.Tx, id string, revision int, plan campaign.Plan, by campaign.Actor, note, event string) error {
	text, err := json.Marshal(plan)
	if err != nil {
		return err
	}
	digest := plan.Digest()
	_, err = tx.Exec(ctx, `INSERT INTO plan_revision (campaign_id, revision, digest, plan, editor_id, note) VALUES ($1, $2, $3, $4, $5, $6)`,
		id, revision, digest, text, by.UserID, note)
	if err != nil {
		return err
	}
	e := CampaignEvent(id, fmt.Sprintf("%s:r%d", id, revision), event, by, map[string]any{"revision": revision, "digest": digest, "note": note})
	return recordOnce(ctx, tx, e)
}

// WriteRevision adds the revision that follows after. When another revision was
// written meanwhile it fails with CodeVersionChanged, unless that one is the same plan
// by the same person: then it was written by an earlier try and is returned.
func (s *Store) WriteRevision(ctx context.Context, id string, after int, plan campaign.Plan, by campaign.Actor, note string) (PlanRevision, error) {
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `UPDATE campaign SET draft_revision = $3, name = $4, updated_at = now() WHERE id = $1 AND draft_revision = $2`,
			id, after, after+1, plan.Name)
		if err != nil {
			return fmt.Errorf("write revision: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return errStale
		}
		if err := insertRevision(ctx, tx, id, after+1, plan, by, note, "campaign.revised"); err != nil {
			return fmt.Errorf("write revision: %w", err)
		}
		return notify(ctx, tx, "campaign", id, 0)
	})
	if err != nil && !errors.Is(err, errStale) {
		return PlanRevision{}, err
	}
	written, readErr := s.Revision(ctx, id, after+1)
	if readErr != nil {
		return PlanRevision{}, readErr
	}
	if errors.Is(err, errStale) && (written.Digest != plan.Digest() || written.EditorID != by.UserID) {
		return PlanRevision{}, campaign.Errorf(campaign.CodeVersionChanged, "the plan was changed meanwhile; read it again and apply your change to it")
	}
	return written, nil
}

var errStale = errors.New("another revision was written meanwhile")

// Revision returns one plan revision with its editor, or CodeNotFound.
func (s *Store) Revision(ctx context.Context, id string, revision int) (PlanRevision, error) {
	r, err := gorm.G[PlanRevision](s.db).Joins(clause.LeftJoin.Association("Editor"), nameOnly).
		Where("plan_revision.campaign_id = ? AND plan_revision.revision = ?", id, revision).First(ctx)
	if err != nil {
		return PlanRevision{}, notFound(err, "plan revision")
	}
	return r, nil
}

// Revisions returns all plan revisions of a campaign, the newest first.
func (s *Store) Revisions(ctx context.Context, id string) ([]PlanRevision, error) {
	all, err := gorm.G[PlanRevision](s.db).Joins(clause.LeftJoin.Association("Editor"), nameOnly).
		Where("plan_revision.campaign_id = ?", id).Order("plan_revision.revision DESC").Find(ctx)
	if err != nil {
		return nil, fmt.Errorf("list revisions: %w", err)
	}
	return all, nil
}

// inUnits is the condition that a campaign belongs to units given as two lists, of
// paths and of patterns; a path has no comma in it. GORM would spread a slice.
const inUnits = "(campaign.unit = ANY(string_to_array(?, ',')) OR campaign.unit LIKE ANY(string_to_array(?, ',')))"

// nameOnly reads of a joined user what others may see.
func nameOnly(join gorm.JoinBuilder, _, _ clause.Table) error {
	join.Select("id", "name")
	return nil
}

// FindCampaign returns the id of the campaign that a person names by its number or id.
func (s *Store) FindCampaign(ctx context.Context, given string) (string, error) {
	var id string
	err := s.pool.QueryRow(ctx, `SELECT id::text FROM campaign WHERE id::text = lower($1) OR number::text = $1`, given).Scan(&id)
	if err != nil {
		return "", notFound(err, "campaign")
	}
	return id, nil
}
