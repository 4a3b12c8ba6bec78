package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// Reply is an answer that came from a number.
type Reply struct {
	From string
	At   time.Time
	Kind campaign.OutcomeKind // replied or opted_out
}

// RecordReplies records answers as outcomes of the last contact that reached out to the
// number's customers through the channel, in each campaign that is running or being
// settled. Who opts out is opted out whether a campaign runs or not. Answers from
// numbers of nobody are dropped.
func (s *Store) RecordReplies(ctx context.Context, channel campaign.Channel, replies []Reply) error {
	if s.vault == nil {
		return campaign.Errorf(campaign.CodeInvalidParameter, "replies cannot be told apart without the key of the phone vault")
	}
	lookups := make([][]byte, len(replies))
	var optedOut [][]byte
	for i, r := range replies {
		if number := NormaliseMSISDN(r.From); number != "" {
			lookups[i] = s.vault.Lookup(number)
			if r.Kind == campaign.OutcomeOptedOut {
				optedOut = append(optedOut, lookups[i])
			}
		}
	}
	return s.inTx(ctx, func(tx pgx.Tx) error {
		// All of them before the first outcome is written, as insertOutcomes does.
		_, err := tx.Exec(ctx, `UPDATE customer SET opted_out = true WHERE id IN (
			SELECT id FROM customer WHERE NOT opted_out AND id IN (SELECT customer_id FROM phone_vault WHERE lookup = ANY($1)) ORDER BY id FOR UPDATE)`, optedOut)
		if err != nil {
			return fmt.Errorf("opt out: %w", err)
		}
		for i, r := range replies {
			if lookups[i] == nil {
				continue
			}
			if err := recordReply(ctx, tx, channel, r, lookups[i]); err != nil {
				return fmt.Errorf("record reply: %w", err)
			}
		}
		return nil
	})
}

func recordReply(ctx context.Context, tx pgx.Tx, channel campaign.Channel, r Reply, lookup []byte) error {
	rows, err := tx.Query(ctx, `SELECT k.id::text, k.simulated, c.customer_id, c.id
		FROM phone_vault v CROSS JOIN campaign k JOIN LATERAL (
		    SELECT c.id, c.customer_id FROM contact_batch b JOIN contact c
		        ON c.campaign_id = k.id AND c.wave = b.wave AND c.channel = b.channel AND c.customer_id = v.customer_id
		    WHERE b.campaign_id = k.id AND b.channel = $2 AND c.state IN ('sending', 'sent', 'delivered', 'unknown')
		    ORDER BY c.wave DESC LIMIT 1) c ON true
		WHERE v.lookup = $1 AND k.stage IN ('running', 'settlement')`, lookup, channel)
	if err != nil {
		return err
	}
	type hit struct {
		campaignID string
		simulated  bool
		outcome    Outcome
	}
	var customer, contact uuid.UUID
	var h hit
	var hits []hit
	_, err = pgx.ForEachRow(rows, []any{&h.campaignID, &h.simulated, &customer, &contact}, func() error {
		// Providers name no reply, so one that is brought again within its minute is the same.
		id := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d", contact, r.Kind, r.At.Unix()/60))
		h.outcome = Outcome{
			CustomerID: customer.String(), ContactID: contact.String(), Kind: r.Kind, At: r.At, Source: string(channel), SourceID: hex.EncodeToString(id[:]),
		}
		hits = append(hits, h)
		return nil
	})
	if err != nil {
		return err
	}
	for _, h := range hits {
		if _, err := insertOutcomes(ctx, tx, h.campaignID, h.simulated, []Outcome{h.outcome}); err != nil {
			return err
		}
	}
	return nil
}
