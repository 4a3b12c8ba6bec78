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
	// Unclear is what was written where it may be a refusal and a person must read it, ""
	// otherwise.
	Unclear string
}

// RecordReplies records answers as outcomes of the last contact that reached out to the
// number's customers through the channel, in each campaign that is running or being
// settled. Who opts out is opted out whether a campaign runs or not, and who may have
// meant to is left alone until somebody has read their words. Answers from numbers of
// nobody are dropped.
func (s *Store) RecordReplies(ctx context.Context, channel campaign.Channel, replies []Reply) error {
	if s.vault == nil {
		return campaign.Errorf(campaign.CodeInvalidParameter, "replies cannot be told apart without the key of the phone vault")
	}
	lookups := make([][]byte, len(replies))
	for i, r := range replies {
		if number, err := NormaliseMSISDN(r.From, s.region); err == nil {
			lookups[i] = s.vault.Lookup(number)
		}
	}
	return s.inTx(ctx, func(tx pgx.Tx) error {
		// All of them before the first outcome is written, as insertOutcomes does.
		if err := heed(ctx, tx, channel, replies, lookups); err != nil {
			return err
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

// heed opts out whoever refuses, and keeps for review what may be a refusal.
func heed(ctx context.Context, tx pgx.Tx, channel campaign.Channel, replies []Reply, lookups [][]byte) error {
	var refusals []OptOut
	var unclear []Quarantine
	var reviews []ReplyReview
	for i, r := range replies {
		if lookups[i] == nil || r.Kind != campaign.OutcomeOptedOut && r.Unclear == "" {
			continue
		}
		rows, err := tx.Query(ctx, whoReplied, lookups[i])
		if err != nil {
			return fmt.Errorf("look up who replied: %w", err)
		}
		who, err := pgx.CollectRows(rows, pgx.RowToStructByPos[replier])
		if err != nil {
			return fmt.Errorf("look up who replied: %w", err)
		}
		for n, c := range who {
			switch {
			case r.Kind == campaign.OutcomeOptedOut:
				refusals = append(refusals, OptOut{CustomerID: c.CustomerID, At: r.At, Source: string(channel)})
			case c.Tenant == who[0].Tenant:
				unclear = append(unclear, Quarantine{CustomerID: c.CustomerID, Why: QuarantineReply, At: r.At, Until: r.At.Add(replyQuarantine), Source: string(channel)})
			}
			if n == 0 && r.Kind != campaign.OutcomeOptedOut {
				reviews = append(reviews, ReplyReview{CustomerID: c.CustomerID, Channel: channel, Words: r.Unclear, At: r.At, Unit: c.Unit, lookup: lookups[i]})
			}
		}
	}
	if len(refusals)+len(unclear) == 0 {
		return nil
	}
	var ids []string
	for _, r := range refusals {
		ids = append(ids, r.CustomerID)
	}
	for _, q := range unclear {
		ids = append(ids, q.CustomerID)
	}
	if err := lockCustomers(ctx, tx, ids); err != nil {
		return err
	}
	if err := optOut(ctx, tx, refusals); err != nil {
		return err
	}
	if err := quarantine(ctx, tx, unclear); err != nil {
		return err
	}
	return keepForReview(ctx, tx, reviews)
}

// replier is a customer who has the number that a reply came from.
type replier struct {
	CustomerID string
	Tenant     campaign.OrgUnit
	Unit       campaign.OrgUnit // whose campaign contacted them last, or the tenant
}

// whoReplied is the query for the customers who have the number $1, those who were contacted
// last first: it is them whom the reply answers.
const whoReplied = `SELECT v.customer_id::text, split_part(c.org_unit, '/', 1), coalesce(k.unit, split_part(c.org_unit, '/', 1))
	FROM phone_vault v JOIN customer c ON c.id = v.customer_id LEFT JOIN LATERAL (
	    SELECT l.at, k.unit FROM contact_ledger l JOIN campaign k ON k.id = l.campaign_id
	    WHERE l.bucket = get_byte(uuid_send(v.customer_id), 15) AND l.customer_id = v.customer_id AND l.state IN ('S', 'D') ORDER BY l.at DESC LIMIT 1) k ON true
	WHERE v.lookup = $1 ORDER BY k.at DESC NULLS LAST, v.customer_id DESC`

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
