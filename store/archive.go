package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// SaveHistory archives the history of one closed run: run describes it and body is
// its compressed text. A run is archived once; the same one again is no error, one
// with another digest is CodeHistoryMismatch.
func (s *Store) SaveHistory(ctx context.Context, campaignID string, run ArchivedRun, body []byte) error {
	return s.inTx(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO history_archive
			(campaign_id, workflow_id, run_id, type, events, started_at, closed_at, sha256, build_id, body)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (workflow_id, run_id) DO NOTHING`,
			campaignID, run.WorkflowID, run.RunID, run.Type, run.Events, run.StartedAt, run.ClosedAt, run.SHA256, run.BuildID, body)
		if err != nil {
			return fmt.Errorf("archive history: %w", err)
		}
		var kept string
		err = tx.QueryRow(ctx, `SELECT sha256 FROM history_archive WHERE workflow_id = $1 AND run_id = $2`, run.WorkflowID, run.RunID).Scan(&kept)
		if err != nil {
			return fmt.Errorf("archive history: %w", err)
		}
		if kept != run.SHA256 {
			return campaign.Errorf(campaign.CodeHistoryMismatch, "run %s of %s is archived already with another content", run.RunID, run.WorkflowID)
		}
		return nil
	})
}

// ArchivedBody returns the compressed text of an archived history.
func (s *Store) ArchivedBody(ctx context.Context, workflowID, runID string) ([]byte, error) {
	var body []byte
	err := s.pool.QueryRow(ctx, `SELECT body FROM history_archive WHERE workflow_id = $1 AND run_id = $2`, workflowID, runID).Scan(&body)
	if err != nil {
		return nil, notFound(err, "archived history")
	}
	return body, nil
}

// SetArchived records that a campaign's archive is complete with that many runs. The
// time of the first completion is kept.
func (s *Store) SetArchived(ctx context.Context, campaignID string, runs int) error {
	tag, err := s.pool.Exec(ctx, `UPDATE campaign SET archive_runs = $2, archived_at = coalesce(archived_at, now()) WHERE id = $1`, campaignID, runs)
	if err != nil {
		return fmt.Errorf("record archive: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return notFound(pgx.ErrNoRows, "campaign")
	}
	return nil
}

// UnarchivedCampaigns returns the campaigns whose archive is not complete, the oldest first.
func (s *Store) UnarchivedCampaigns(ctx context.Context) ([]string, error) {
	rows, err := s.pool.Query(ctx, `SELECT id::text FROM campaign WHERE archived_at IS NULL AND started ORDER BY created_at`)
	if err != nil {
		return nil, fmt.Errorf("list campaigns to archive: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
