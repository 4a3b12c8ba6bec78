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
	digest string
	plan   campaign.Plan
	base   int             // the revision it was made from, 0 for a draft
	signed bool            // every level of a round approved it as it is stored
	adds   int             // the revision that it was signed as an addition to, 0 for the whole plan
	advice json.RawMessage // the recommendation by which it was written; nil when it was written otherwise
	review decidedReview   // of that recommendation
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
	case p.signed && p.adds >= revision:
		return "which was signed as an addition to no revision before it"
	case p.signed && p.adds > 0:
		return unproven(proofs, p.adds)
	case p.signed:
		return ""
	}
	if base, _ := restsOn(proofs, revision); base > 0 {
		return unproven(proofs, base)
	}
	if _, ok := proofs[p.base]; !ok {
		return "which nobody signed"
	}
	return fmt.Sprintf("which nobody signed and which is more than revision %d", p.base)
}

// restsOn returns the revision whose signatures also carry this one: the one it was made
// from, when all that differs is less of the same or an accepted recommendation; else 0.
// by is the person's decision that accepted it, nil when none was needed.
func restsOn(proofs map[int]proof, revision int) (base int, by *GivenReview) {
	p, ok := proofs[revision]
	if !ok || p.base <= 0 || p.base >= revision {
		return 0, nil
	}
	from, ok := proofs[p.base]
	switch {
	case !ok:
		return 0, nil
	case !campaign.NeedsApproval(&from.plan, &p.plan):
		return p.base, nil
	case p.advice == nil || !p.review.accepts(from.plan.Review) || !follows(p.advice, from.plan, p.plan):
		return 0, nil
	case p.review.byDefault:
		return p.base, nil
	}
	return p.base, &GivenReview{*p.review.command, p.review.givenAt}
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

// signedRounds finds the latest round in which revision p was approved as it is stored: at
// each level by as many people as the route asks for, and nobody returned or rejected it.
// $2 is an approval, $4 a round's result of that name. Of rounds before there were rows
// of them it is known how many levels they had.
const signedRounds = `
	SELECT o.round, (r.facts->>'base')::int AS base
	FROM sign_off_counted k JOIN sign_off o ON o.id = k.sign_off_id
	LEFT JOIN approval_round r ON r.campaign_id = k.campaign_id AND r.round = o.round
	WHERE k.campaign_id = p.campaign_id AND o.revision = p.revision AND o.digest = p.digest AND coalesce(r.result, $4) = $4
	  AND (r.round IS NULL OR r.revision = p.revision AND r.digest = p.digest)
	GROUP BY o.round, r.route, r.facts
	HAVING bool_and(o.decision = $2) AND CASE WHEN r.route IS NULL THEN count(DISTINCT o.level) >= coalesce(max(k.levels), max(o.level))
		ELSE (SELECT bool_and(greatest(coalesce((l->>'required')::int, 1), 1) <= (SELECT count(DISTINCT s.user_id) FROM sign_off s JOIN sign_off_counted n ON n.sign_off_id = s.id
			WHERE s.campaign_id = p.campaign_id AND s.round = o.round AND s.level = (l->>'level')::int AND s.decision = $2 AND s.digest = p.digest))
			FROM jsonb_array_elements(r.route) l) END
	ORDER BY o.round DESC LIMIT 1`

func proofs(ctx context.Context, tx pgx.Tx, campaignID string) (map[int]proof, error) {
	rows, err := tx.Query(ctx, `SELECT p.revision, p.digest, p.plan, coalesce(p.base, 0), v.recommendation,
			coalesce(v.number, 0), coalesce(v.decision, ''), coalesce(v.by_default, false), coalesce(v.created_at, 'epoch'), coalesce(v.decided_at, 'epoch'), v.command, coalesce(g.at, 'epoch'),
			signed.round IS NOT NULL, coalesce(signed.base, 0)
		FROM plan_revision p LEFT JOIN review v ON v.campaign_id = p.campaign_id AND p.request_id = 'review:' || v.number
			LEFT JOIN LATERAL (`+signedRounds+`) signed ON true
			LEFT JOIN command_given g ON g.id = v.command->>'update_id' AND g.campaign_id = p.campaign_id AND g.name = $3
		WHERE p.campaign_id = $1`, campaignID, campaign.DecisionApprove, campaign.UpdateRecordReview, campaign.ApprovalApproved)
	if err != nil {
		return nil, err
	}
	all := map[int]proof{}
	_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (proof, error) {
		var p proof
		var revision int
		err := row.Scan(&revision, &p.digest, &p.plan, &p.base, &p.advice, &p.review.number, &p.review.decision, &p.review.byDefault,
			&p.review.openedAt, &p.review.decidedAt, &p.review.command, &p.review.givenAt, &p.signed, &p.adds)
		all[revision] = p
		return p, err
	})
	return all, err
}
