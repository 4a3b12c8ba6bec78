package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// StoreEvaluation stores the final report, once: a report that is there stands. Its
// digest is the hex SHA-256 of the report as the database writes it.
func (s *Store) StoreEvaluation(ctx context.Context, in campaign.EvaluationInput, report any) error {
	text, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return s.inTx(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO evaluation (campaign_id, revision, report, digest)
			VALUES ($1, $2, $3::jsonb, encode(sha256(convert_to($3::jsonb::text, 'UTF8')), 'hex')) ON CONFLICT (campaign_id) DO NOTHING`,
			in.CampaignID, in.Revision, string(text))
		if err != nil {
			return fmt.Errorf("store report: %w", err)
		}
		return notify(ctx, tx, "campaign", in.CampaignID, 0)
	})
}
