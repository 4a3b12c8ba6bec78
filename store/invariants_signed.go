package store

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// proof is what is known of a plan revision's right to be dispatched.
type proof struct {
	digest   string
	plan     campaign.Plan
	base     int             // the revision it was made from, 0 for a draft
	signed   bool            // every level of a round approved it as it is stored
	advice   json.RawMessage // the recommendation by which it was written; nil when it was written otherwise
	accepted bool            // that recommendation was accepted, by a person or by the plan's default
}

// unsignedBatches names the batches of contacts whose plan revision nobody signed. A
// revision that was not signed itself may stand on the one it was made from, when all
// that differs is an accepted recommendation or less of the same.
func unsignedBatches(ctx context.Context, tx pgx.Tx, campaignID string) ([]string, error) {
	proofs, err := proofs(ctx, tx, campaignID)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `SELECT wave, channel, revision, contacts FROM contact_batch WHERE campaign_id = $1 ORDER BY 1, 2`, campaignID)
	if err != nil {
		return nil, err
	}
	var wave, revision int
	var channel string
	var contacts int64
	var broken []string
	_, err = pgx.ForEachRow(rows, []any{&wave, &channel, &revision, &contacts}, func() error {
		if why := unproven(proofs, revision); why != "" {
			broken = append(broken, fmt.Sprintf("wave %d %s: %d contacts of revision %d, %s", wave, channel, contacts, revision, why))
		}
		return nil
	})
	return broken, err
}

// unproven says why a revision should not have been dispatched, "" when it should.
func unproven(proofs map[int]proof, revision int) string {
	p, ok := proofs[revision]
	switch {
	case !ok:
		return "which does not exist"
	case p.plan.Digest() != p.digest:
		return "which is not what was stored"
	case p.signed:
		return ""
	}
	if base := restsOn(proofs, revision); base > 0 {
		return unproven(proofs, base)
	}
	if _, ok := proofs[p.base]; !ok {
		return "which nobody signed"
	}
	return fmt.Sprintf("which nobody signed and which is more than revision %d", p.base)
}

// restsOn returns the revision whose signatures also carry this one: the one it was made
// from, when all that differs is an accepted recommendation or less of the same; else 0.
func restsOn(proofs map[int]proof, revision int) int {
	p, ok := proofs[revision]
	if !ok || p.base <= 0 || p.base >= revision {
		return 0
	}
	base, ok := proofs[p.base]
	if !ok {
		return 0
	}
	recommended := p.advice != nil && p.accepted && follows(p.advice, base.plan, p.plan)
	if recommended || !campaign.NeedsApproval(&base.plan, &p.plan) {
		return p.base
	}
	return 0
}

// follows reports whether next is now with the channels that a recommendation gives to
// its waves, and nothing else.
func follows(recommendation json.RawMessage, now, next campaign.Plan) bool {
	var advice struct {
		Waves []struct {
			Number int                `json:"number"`
			To     []campaign.Channel `json:"to"`
		} `json:"waves"`
	}
	if json.Unmarshal(recommendation, &advice) != nil {
		return false
	}
	now.Waves = slices.Clone(now.Waves)
	for _, w := range advice.Waves {
		if w.Number >= 1 && w.Number <= len(now.Waves) {
			now.Waves[w.Number-1].Channels = w.To
		}
	}
	return reflect.DeepEqual(now, next)
}

func proofs(ctx context.Context, tx pgx.Tx, campaignID string) (map[int]proof, error) {
	rows, err := tx.Query(ctx, `SELECT p.revision, p.digest, p.plan, coalesce(p.base, 0), v.recommendation, coalesce(v.decision = $2, false),
			EXISTS (SELECT FROM sign_off_counted k JOIN sign_off o ON o.id = k.sign_off_id
				WHERE k.campaign_id = p.campaign_id AND o.revision = p.revision AND o.digest = p.digest AND o.decision = $3
				GROUP BY o.round HAVING count(DISTINCT o.level) >= coalesce(max(k.levels), max(o.level)))
		FROM plan_revision p LEFT JOIN review v ON v.campaign_id = p.campaign_id AND p.request_id = 'review:' || v.number
		WHERE p.campaign_id = $1`, campaignID, campaign.ReviewAccept, campaign.DecisionApprove)
	if err != nil {
		return nil, err
	}
	all := map[int]proof{}
	_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (proof, error) {
		var p proof
		var revision int
		err := row.Scan(&revision, &p.digest, &p.plan, &p.base, &p.advice, &p.accepted, &p.signed)
		all[revision] = p
		return p, err
	})
	return all, err
}
