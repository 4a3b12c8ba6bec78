package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// The states of a receipt: what a provider says of a message that it took.
const (
	ReceiptAccepted  = "accepted"  // on its way
	ReceiptDelivered = "delivered" // final; wins over all others
	ReceiptFailed    = "failed"    // final
	ReceiptExpired   = "expired"   // final: not delivered within its validity
	ReceiptRefused   = "refused"   // final: it was not taken after all, and is not charged for
	ReceiptUnknown   = "unknown"   // the provider cannot tell; proves nothing
)

// Receipt is a provider's later word on a message.
type Receipt struct {
	Provider   string // as in the attempt
	ProviderID string // the provider's id of the message; empty when it gave none
	ContactID  string // UUID, where the provider echoes our reference; else empty
	State      string
	Reason     string
	At         time.Time
}

// digest identifies a receipt: the same word on the same message at the same time.
func (r Receipt) digest() []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s\x00%s\x00%d", r.Provider, r.ProviderID, r.ContactID, r.State, r.At.UnixMicro()))
	return sum[:]
}

// RecordReceipts keeps receipts, each once however often it comes, and applies those
// whose message is known. The others are parked until SweepReceipts can join them. A
// contact id that is no UUID is a stranger's and is dropped.
func (s *Store) RecordReceipts(ctx context.Context, receipts []Receipt) error {
	n := len(receipts)
	if n == 0 {
		return nil
	}
	digests := make([][]byte, n)
	providers, ids, states, reasons := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	contacts, at := make([]*[16]byte, n), make([]time.Time, n)
	for i, r := range receipts {
		switch r.State {
		case ReceiptAccepted, ReceiptDelivered, ReceiptFailed, ReceiptExpired, ReceiptRefused, ReceiptUnknown:
		default:
			return campaign.Errorf(campaign.CodeInvalidParameter, "a receipt cannot have the state %q", r.State)
		}
		digests[i], providers[i], ids[i], states[i], reasons[i], at[i] = r.digest(), r.Provider, r.ProviderID, r.State, r.Reason, r.At
		if id, err := uuid.Parse(r.ContactID); err == nil {
			contacts[i] = (*[16]byte)(&id)
		}
	}
	return s.inTx(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO receipt (digest, provider, provider_id, state, reason, contact_id, at)
			SELECT DISTINCT ON (digest) * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::text[], $6::uuid[], $7::timestamptz[])
			    k (digest, provider, provider_id, state, reason, contact_id, at)
			ORDER BY digest
			ON CONFLICT (digest) DO NOTHING`, digests, providers, ids, states, reasons, contacts, at)
		if err != nil {
			return fmt.Errorf("record receipts: %w", err)
		}
		open, err := openCampaigns(ctx, tx)
		if err != nil {
			return err
		}
		// The sweep looks for what belongs to none of these: to look through the messages of
		// every campaign ever run for each receipt takes longer with every campaign.
		_, err = applyReceipts(ctx, tx, `digest = ANY($1)`, digests, `a.campaign_id = ANY($2)`, open)
		return err
	})
}

// openCampaigns returns the campaigns whose messages may be under way.
func openCampaigns(ctx context.Context, q querier) ([][16]byte, error) {
	rows, err := q.Query(ctx, `SELECT k.id FROM campaign k WHERE k.stage NOT IN ('rejected', 'evaluation', 'closed')
		AND EXISTS (SELECT FROM contact_batch b WHERE b.campaign_id = k.id)`)
	if err != nil {
		return nil, fmt.Errorf("list open campaigns: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
	if err != nil {
		return nil, fmt.Errorf("list open campaigns: %w", err)
	}
	return ids, nil
}

// meant is the condition that a receipt n which names a contact speaks of its attempt a.
const meant = `a.contact_id = n.contact_id AND a.provider = n.provider AND (a.provider_id IS NULL OR n.provider_id = '')
		AND (a.outcome IS NULL OR a.outcome IN ('accepted', 'unknown'))`

// expectedFor is for how long a parked receipt's message may become known. By then its id
// was written, or the provider was never asked by us.
const expectedFor = 7 * 24 * time.Hour

// SweepReceipts looks at up to limit parked receipts, those first that wait for longest, and
// applies those whose message has become known, or belongs to a campaign that is over. It
// returns how many it applied. The others are looked at again after as long as they have
// waited, an hour at most, and are given up after a week: they stay as they came, but nobody
// looks for their message any more.
func (s *Store) SweepReceipts(ctx context.Context, limit int) (int64, error) {
	var applied int64
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT digest FROM receipt WHERE NOT applied AND given_up_at IS NULL AND look_at <= now()
			ORDER BY look_at LIMIT $1 FOR UPDATE SKIP LOCKED`, limit)
		if err != nil {
			return fmt.Errorf("take parked receipts: %w", err)
		}
		digests, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
		if err != nil || len(digests) == 0 {
			return err
		}
		// Few receipts are parked and messages are many, which the planner cannot know.
		_, err = tx.Exec(ctx, `SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off`)
		if err != nil {
			return fmt.Errorf("prepare sweep: %w", err)
		}
		if applied, err = applyReceipts(ctx, tx, `digest = ANY($1)`, digests, `true`); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE receipt SET look_at = now() + least(now() - received_at, interval '1 hour'),
			given_up_at = CASE WHEN received_at < now() - $2::interval THEN now() END WHERE digest = ANY($1) AND NOT applied`, digests, expectedFor)
		if err != nil {
			return fmt.Errorf("put receipts off: %w", err)
		}
		return nil
	})
	return applied, err
}

// receiptHit is a receipt joined to the attempt it is about.
type receiptHit struct {
	Digest     []byte
	ProviderID string
	State      string
	Reason     string
	CampaignID uuid.UUID
	ContactID  uuid.UUID
	Epoch      int32
}

// finality ranks the states of a receipt. That it was refused gives way to whatever shows
// that it was taken.
var finality = map[string]int{ReceiptUnknown: 0, ReceiptRefused: 1, ReceiptAccepted: 2, ReceiptFailed: 3, ReceiptExpired: 3, ReceiptDelivered: 4}

// applyReceipts folds the unapplied receipts chosen by which into the contacts whose
// attempts a are found where it says, by finality and not by order of arrival. A receipt
// proves that the provider took the message, so an attempt without proof becomes accepted;
// that it was refused proves the contrary. A contact that stands at or above the receipt's
// finality keeps its state. It returns how many were applied.
func applyReceipts(ctx context.Context, tx pgx.Tx, which string, arg any, where string, args ...any) (int64, error) {
	rows, err := tx.Query(ctx, `
		WITH new AS (SELECT * FROM receipt WHERE NOT applied AND `+which+` FOR UPDATE SKIP LOCKED),
		known AS (
			SELECT n.digest, n.provider_id, n.state, n.reason, a.campaign_id, a.contact_id, a.epoch
			FROM new n JOIN contact_attempt a ON a.provider_id = n.provider_id AND a.provider = n.provider AND `+where+`)
		SELECT * FROM known
		UNION ALL
		SELECT n.digest, n.provider_id, n.state, n.reason, a.campaign_id, a.contact_id, a.epoch
		FROM new n JOIN LATERAL (
		    SELECT a.campaign_id, a.contact_id, a.epoch FROM contact_attempt a WHERE `+meant+` AND `+where+`
		    ORDER BY a.epoch DESC LIMIT 1) a ON true
		WHERE n.contact_id IS NOT NULL AND n.digest NOT IN (SELECT digest FROM known)`, append([]any{arg}, args...)...)
	if err != nil {
		return 0, fmt.Errorf("join receipts: %w", err)
	}
	hits, err := pgx.CollectRows(rows, pgx.RowToStructByPos[receiptHit])
	if err != nil {
		return 0, fmt.Errorf("join receipts: %w", err)
	}
	if len(hits) == 0 {
		return 0, nil
	}
	var digests [][]byte
	best := map[uuid.UUID]receiptHit{}
	for _, h := range hits {
		digests = append(digests, h.Digest)
		if b, ok := best[h.ContactID]; !ok || finality[h.State] > finality[b.State] {
			if h.ProviderID == "" {
				h.ProviderID = b.ProviderID
			}
			best[h.ContactID] = h
		} else if b.ProviderID == "" {
			b.ProviderID = h.ProviderID
			best[h.ContactID] = b
		}
	}
	// Rows are taken in one order, so that two batches of receipts never wait for each
	// other in a circle.
	order := slices.SortedFunc(maps.Keys(best), func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	n := len(order)
	campaigns, contacts, epochs := make([][16]byte, n), make([][16]byte, n), make([]int32, n)
	ids, states, reasons := make([]string, n), make([]string, n), make([]string, n)
	for i, id := range order {
		h := best[id]
		campaigns[i], contacts[i], epochs[i], ids[i], states[i], reasons[i] = h.CampaignID, h.ContactID, h.Epoch, h.ProviderID, h.State, h.Reason
	}
	batch := &pgx.Batch{}
	batch.Queue(`SELECT FROM unnest($1::uuid[], $2::uuid[]) k (campaign_id, id) JOIN contact c ON c.campaign_id = k.campaign_id AND c.id = k.id
		ORDER BY c.id FOR UPDATE OF c`, campaigns, contacts)
	batch.Queue(`UPDATE contact_attempt a SET outcome = CASE k.state WHEN 'refused' THEN 'refused' ELSE 'accepted' END, outcome_at = coalesce(a.outcome_at, now()),
			provider_id = coalesce(a.provider_id, nullif(k.provider_id, ''))
		FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::text[], $5::text[]) k (campaign_id, id, epoch, provider_id, state)
		WHERE a.campaign_id = k.campaign_id AND a.contact_id = k.id AND a.epoch = k.epoch AND k.state <> 'unknown'
		  AND (a.outcome IS NULL OR a.outcome = 'unknown')`, campaigns, contacts, epochs, ids, states)
	batch.Queue(`UPDATE contact c SET lease_until = NULL, updated_at = now(),
			state = CASE k.state WHEN 'accepted' THEN 'sent' WHEN 'expired' THEN 'failed' WHEN 'refused' THEN 'failed' ELSE k.state END,
			reason = CASE WHEN k.state IN ('failed', 'expired', 'refused') THEN coalesce(nullif(k.reason, ''), k.state) ELSE '' END
		FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[]) k (campaign_id, id, state, reason)
		WHERE c.campaign_id = k.campaign_id AND c.id = k.id AND c.state = ANY (CASE k.state
		    WHEN 'delivered' THEN ARRAY['sending', 'sent', 'unknown', 'failed']
		    WHEN 'accepted' THEN ARRAY['sending', 'unknown']
		    WHEN 'refused' THEN ARRAY['sending', 'unknown']
		    WHEN 'unknown' THEN ARRAY[]::text[]
		    ELSE ARRAY['sending', 'sent', 'unknown'] END)`, campaigns, contacts, states, reasons)
	batch.Queue(follow, campaigns, contacts)
	batch.Queue(`UPDATE receipt SET applied = true WHERE digest = ANY($1)`, digests)
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return 0, fmt.Errorf("apply receipts: %w", err)
	}
	return int64(len(hits)), nil
}
