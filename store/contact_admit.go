package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// refusals are the outcomes by which a customer ends a campaign's conversation. They
// stand in the order in which min tells them.
const refusals = `'complained', 'declined', 'opted_out'`

// barred is an SQL expression: why nobody may reach out for m any more, or NULL. m is a
// contact or its task, c its customer: what is sent and what is called is held to the same.
func (r rules) barred(channel campaign.Channel) string {
	lists := r.Lists(r.intent(channel)) // opt-outs come first
	sql := `CASE WHEN m.not_after <= now() THEN 'window_closed' WHEN c.id IS NULL THEN 'unknown_customer'
		WHEN EXISTS (SELECT FROM campaign_target t WHERE t.campaign_id = m.campaign_id AND t.customer_id = m.customer_id AND t.arm = 'control') THEN 'control_group'`
	for i, x := range lists {
		if i == 1 {
			sql += ` ELSE coalesce((SELECT min(o.kind) FROM outcome o WHERE o.campaign_id = m.campaign_id AND o.customer_id = m.customer_id
		    AND o.kind IN (` + refusals + `)), CASE`
		}
		sql += fmt.Sprintf(" WHEN %s THEN '%s'", x.Condition, x.Code)
	}
	return sql + " END) END"
}

// undeliverable is barred for a contact that has still to go out, which also needs a number v.
func (r rules) undeliverable(channel campaign.Channel) string {
	return `coalesce(` + r.barred(channel) + `, CASE WHEN v.customer_id IS NULL THEN 'no_number' END)`
}

// customers joins a contact m to its customer c, the customer's number v and its key p.
const customers = `LEFT JOIN customer c ON c.id = m.customer_id LEFT JOIN phone_vault v ON v.customer_id = m.customer_id LEFT JOIN phone_key p ON p.customer_id = m.customer_id`

// windowClosed is the reason of contacts whose time is over.
const windowClosed = "window_closed"

// ended is the state of a contact that is barred for s.reason.
const ended = `CASE s.reason WHEN '` + windowClosed + `' THEN 'expired' ELSE 'suppressed' END`

// ending completes a statement that ends contacts m: it gives up what was reserved for them
// and keeps the rules by which they were suppressed. Its command tag counts the contacts.
func (r rules) ending(update string) string {
	return fmt.Sprintf(`WITH over AS (%s RETURNING m.campaign_id, m.customer_id, m.wave, channel_letter(m.channel) AS channel, m.state, m.reason),
		released AS (UPDATE contact_ledger l SET state = 'X' FROM over m WHERE %s AND l.state = 'R'),
		kept AS (INSERT INTO suppression (campaign_id, snapshot, wave, channel, customer_id, rule, policy)
		    SELECT m.campaign_id, 0, m.wave, m.channel, m.customer_id, m.reason, %d FROM over m WHERE m.state = 'suppressed' ON CONFLICT DO NOTHING)
		SELECT FROM over`, update, ofContact, r.Version)
}

// ofContact is the condition that a row l of the ledger is that of m, whose channel is a
// letter.
const ofContact = `l.bucket = get_byte(uuid_send(m.customer_id), 15) AND l.customer_id = m.customer_id AND l.campaign_id = m.campaign_id
	AND l.wave = m.wave AND l.channel = m.channel`

// untried is the condition that nothing of contact c has left: each attempt came back not sent.
const untried = `NOT EXISTS (SELECT FROM contact_attempt a WHERE a.campaign_id = c.campaign_id AND a.contact_id = c.id AND a.outcome IS DISTINCT FROM '` + AttemptNotSent + `')`

// follow is the statement by which the ledger takes over what became of the contacts $2 of
// the campaigns $1. Whoever ended without an attempt that left gives the place back.
const follow = `UPDATE contact_ledger l SET state = m.state FROM (
	    SELECT c.campaign_id, c.customer_id, c.wave, channel_letter(c.channel) AS channel, CASE c.state WHEN 'delivered' THEN 'D'
	        WHEN 'failed' THEN 'F' WHEN 'planned' THEN 'R'
	        ELSE CASE WHEN c.state IN ('expired', 'cancelled', 'suppressed') AND ` + untried + ` THEN 'X' ELSE 'S' END END::"char" AS state
	    FROM unnest($1::uuid[], $2::uuid[]) k (campaign_id, id) JOIN contact c ON c.campaign_id = k.campaign_id AND c.id = k.id) m
	WHERE ` + ofContact + ` AND l.state NOT IN (m.state, 'X')`

// releaseEnded is the statement that gives up what was reserved for contacts of campaign $1
// which ended before anybody reached out, in the waves and channels that the condition which
// allows.
func releaseEnded(which string) string {
	return `UPDATE contact_ledger l SET state = 'X' FROM (
	    SELECT campaign_id, customer_id, wave, channel_letter(channel) AS channel FROM contact c
	    WHERE campaign_id = $1 AND state IN ('expired', 'cancelled', 'suppressed') AND ` + which + ` AND (attempts = 0 OR ` + untried + `)) m
	WHERE ` + ofContact + ` AND l.state IN ('R', 'S')`
}

// lockBuckets makes all others wait that decide on contacts of these customers, until the
// transaction ends.
func lockBuckets(ctx context.Context, tx pgx.Tx, customers [][16]byte) error {
	var buckets []int32
	for _, c := range customers {
		buckets = append(buckets, int32(campaign.Bucket(c)))
	}
	slices.Sort(buckets)
	// One after the other, in the order of the array, as everybody does.
	_, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1, b) FROM unnest($2::int[]) b`, bucketLocks, slices.Compact(buckets))
	if err != nil {
		return fmt.Errorf("lock customers: %w", err)
	}
	return nil
}

// subject is a contact that is about to be made.
type subject struct {
	customer uuid.UUID
	wave     int
	zone     string // the customer's, IANA name
}

// verdict says whether a contact may be made now: the rule is empty. One that may be made
// later, when quiet hours are over, has until.
type verdict struct {
	rule  string
	until time.Time
}

// admit decides at the moment of contact, by quiet hours, caps and gaps, whether customers
// may be contacted through a channel, and enters into the ledger those who may: what was
// reserved is used, and what was not is checked and entered. An attempt after another one of
// the same contact is no contact more. The caller holds the customers' buckets, and names
// each customer once.
func (r rules) admit(ctx context.Context, tx pgx.Tx, channel campaign.Channel, now time.Time, subjects []subject) ([]verdict, error) {
	verdicts := make([]verdict, len(subjects))
	quiet := map[string]verdict{}
	place := map[[16]byte]int{}
	var ids [][16]byte
	var waves []int16
	var days []string
	for i, s := range subjects {
		loc := r.Location(s.zone)
		if !r.simulated {
			v, known := quiet[s.zone]
			if !known {
				v.rule, v.until = r.QuietUntil(channel, r.kind, now, loc)
				quiet[s.zone] = v
			}
			if v.rule != "" {
				verdicts[i] = v
				continue
			}
		}
		place[s.customer] = i
		ids, waves, days = append(ids, s.customer), append(waves, int16(s.wave)), append(days, string(campaign.DateOf(now.In(loc))))
	}
	if len(ids) == 0 {
		return verdicts, nil
	}
	p := placing{
		rules: r, state: 'S', args: []any{ids, waves, days}, candidates: fmt.Sprintf(
			`SELECT m.*, false AS control FROM (SELECT u.customer_id, get_byte(uuid_send(u.customer_id), 15) AS bucket, u.wave, '%c'::"char" AS channel, now() AS at, u.day::date
			    FROM unnest($2::uuid[], $3::smallint[], $4::text[]) u (customer_id, wave, day)) m
			WHERE NOT EXISTS (SELECT FROM contact_ledger l WHERE l.bucket = m.bucket AND l.customer_id = m.customer_id AND l.campaign_id = $1
			    AND l.wave = m.wave AND l.channel = m.channel AND l.state IN ('S', 'D'))`, channel.Code()),
	}
	refused, _, err := p.place(ctx, tx)
	if err != nil {
		return nil, err
	}
	if _, _, refused, err = p.displace(ctx, tx, refused); err != nil {
		return nil, err
	}
	for _, x := range refused {
		verdicts[place[x.customer]].rule = x.rule
	}
	return verdicts, nil
}

// ReleaseContacts gives up what is reserved for a campaign and was not used, so that it can
// be reserved anew.
func (s *Store) ReleaseContacts(ctx context.Context, campaignID string) error {
	return s.inTx(ctx, func(tx pgx.Tx) error { return releaseContacts(ctx, tx, campaignID, anySnapshot) })
}

// releaseContacts is ReleaseContacts, if a snapshot has reserved any of it.
func releaseContacts(ctx context.Context, tx pgx.Tx, campaignID string, snapshot int) error {
	if found, err := lockReserved(ctx, tx, campaignID, snapshot); err != nil || !found {
		return err
	}
	_, err := tx.Exec(ctx, `DELETE FROM contact_ledger WHERE campaign_id = $1 AND state IN ('R', 'X')`, campaignID)
	if err == nil {
		_, err = tx.Exec(ctx, `DELETE FROM contact_reservation WHERE campaign_id = $1`, campaignID)
	}
	if err != nil {
		return fmt.Errorf("release contacts: %w", err)
	}
	return nil
}

// endReservations gives up what a campaign that is over has reserved and will not use, whether
// it came to contacts or not.
func endReservations(ctx context.Context, tx pgx.Tx, campaignID string) error {
	if found, err := lockReserved(ctx, tx, campaignID, anySnapshot); err != nil || !found {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE contact_ledger SET state = 'X' WHERE campaign_id = $1 AND state = 'R'`, campaignID); err != nil {
		return fmt.Errorf("release contacts: %w", err)
	}
	return nil
}

const anySnapshot = 0

// lockReserved takes all buckets of a campaign that has selected, and reports whether it has
// reserved anything, for a snapshot or any. It looks once it has them, so that no reservation
// is missed which was under way.
func lockReserved(ctx context.Context, tx pgx.Tx, campaignID string, snapshot int) (found bool, err error) {
	err = tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM selection_run WHERE campaign_id = $1) OR EXISTS (SELECT FROM contact_reservation WHERE campaign_id = $1)`,
		campaignID).Scan(&found)
	if err == nil && found {
		_, err = tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1, b) FROM generate_series(0, $2::int) b`, bucketLocks, campaign.Buckets-1)
	}
	if err == nil && found {
		err = tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM contact_reservation WHERE campaign_id = $1 AND ($2 = 0 OR snapshot = $2))`, campaignID, snapshot).Scan(&found)
	}
	if err != nil {
		return false, fmt.Errorf("lock customers: %w", err)
	}
	return found, nil
}

// KeepSuppressions keeps whom a selection left out and by which rule, from its table of
// candidates.
func (s *Store) KeepSuppressions(ctx context.Context, tx pgx.Tx, table, campaignID string, snapshot int, policy int64) error {
	_, err := tx.Exec(ctx, `INSERT INTO suppression (campaign_id, snapshot, wave, channel, customer_id, rule, policy, control)
		SELECT $1, $2, coalesce(k.wave, 0), coalesce(channel_letter(k.channel), '-'), k.customer_id, k.refused, $3, coalesce(k.control, false)
		FROM `+table+` k WHERE k.refused <> '' ON CONFLICT DO NOTHING`, campaignID, snapshot, policy)
	if err != nil {
		return fmt.Errorf("keep suppressions: %w", err)
	}
	return nil
}
