package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/musterhq/muster/campaign"
)

// Dispatch works on the contacts of one chunk for one owner. A contact is claimed with
// a new epoch and a lease in database time; the intent to send is committed before any
// byte leaves; its completion counts only while epoch and owner still match. An owner
// is one attempt of one activity: a second attempt is another owner.
type Dispatch struct {
	store    *Store
	in       campaign.ChunkInput
	owner    string
	lease    time.Duration
	contacts string // the campaign's partitions
	attempts string
	next     int64 // Claim looks from here on, so that it does not pass over what is done again and again
}

// Dispatch returns the dispatch of a chunk by owner, whose leases last for lease.
func (s *Store) Dispatch(in campaign.ChunkInput, owner string, lease time.Duration) (*Dispatch, error) {
	contacts, err := partition("contact", in.CampaignID)
	if err != nil {
		return nil, err
	}
	attempts, err := partition("contact_attempt", in.CampaignID)
	if err != nil {
		return nil, err
	}
	return &Dispatch{store: s, in: in, owner: owner, lease: lease, contacts: contacts, attempts: attempts, next: in.FromSeq}, nil
}

// Claim is a contact that the owner holds.
type Claim struct {
	ContactID  uuid.UUID
	CustomerID uuid.UUID
	Epoch      int32
	Seq        int64
}

// keys are contacts in the form of two array arguments. Ids are bytes: the driver would
// write every uuid.UUID of an array as text and read it again, at twenty times the cost.
type keys struct {
	ids    [][16]byte
	epochs []int32
}

func (k *keys) add(id uuid.UUID, epoch int32) {
	k.ids, k.epochs = append(k.ids, id), append(k.epochs, epoch)
}

// ChunkCount counts the contacts of a chunk.
type ChunkCount struct {
	Ready    int64 // planned and due
	Waiting  int64 // planned for later
	InFlight int64 // claimed or being sent, by whomever
	Settled  int64
	Held     bool // the campaign is paused or over
	// Wait is how long to wait until a waiting contact is due or the lease of one in
	// flight ends; 0 when there is neither.
	Wait time.Duration
}

// Open counts what the engine has still to do.
func (c ChunkCount) Open() int64 { return c.Ready + c.Waiting + c.InFlight }

// Count takes back what dead owners left in the chunk, and counts it: what was claimed
// without an intent is planned again; what was being sent is unknown, for bytes may
// have left. Claim begins at the front again.
func (d *Dispatch) Count(ctx context.Context) (ChunkCount, error) {
	var c ChunkCount
	var wait float64
	d.next = d.in.FromSeq
	in := []any{d.in.Wave, d.in.Channel, d.in.Shard, d.in.FromSeq, d.in.ToSeq, d.in.CampaignID}
	const chunk = ` campaign_id = $6 AND wave = $1 AND channel = $2 AND shard = $3 AND seq BETWEEN $4 AND $5`
	batch := &pgx.Batch{}
	batch.Queue(`UPDATE `+d.contacts+` SET state = CASE state WHEN 'sending' THEN 'unknown' ELSE 'planned' END,
			reason = CASE state WHEN 'sending' THEN '`+interrupted+`' ELSE '' END, lease_until = NULL, updated_at = now()
		WHERE`+chunk+` AND state IN ('claimed', 'sending') AND lease_until < now()`, in...)
	batch.Queue(`SELECT count(*) FILTER (WHERE state = 'planned' AND `+due+`), count(*) FILTER (WHERE state = 'planned' AND NOT `+due+`),
			count(*) FILTER (WHERE state IN ('claimed', 'sending')),
			count(*) FILTER (WHERE state NOT IN ('planned', 'claimed', 'sending')),
			coalesce(extract(epoch FROM min(lease_until) FILTER (WHERE state IN ('planned', 'claimed', 'sending') AND lease_until > now()) - now()), 0)::float8
		FROM `+d.contacts+` WHERE`+chunk, in...).QueryRow(func(row pgx.Row) error {
		return row.Scan(&c.Ready, &c.Waiting, &c.InFlight, &c.Settled, &wait)
	})
	batch.Queue(`SELECT NOT (`+dispatching+`) FROM campaign WHERE id = $1`, d.in.CampaignID).QueryRow(func(row pgx.Row) error {
		return row.Scan(&c.Held)
	})
	if err := d.store.pool.SendBatch(ctx, batch).Close(); err != nil {
		return c, fmt.Errorf("count contacts: %w", err)
	}
	c.Wait = time.Duration(wait * float64(time.Second))
	return c, nil
}

// due is the condition that a planned contact can be claimed: it does not wait for a
// later try, or waits in vain because its window has closed.
const due = `(lease_until IS NULL OR lease_until <= now() OR not_after <= now())`

// running is the condition that a campaign is neither held nor over.
const running = `hold = 'running' AND stage NOT IN ('rejected', 'settlement', 'evaluation', 'closed')`

// dispatching is the condition that a campaign may contact anybody.
var dispatching = running + ` AND ` + unfrozen("campaign.id")

// interrupted is the reason of a contact whose worker died in the middle of sending.
const interrupted = "interrupted while sending"

// Claim leases up to n contacts that are due, in order of seq, after those that it leased
// since the last Count.
func (d *Dispatch) Claim(ctx context.Context, n int) ([]Claim, error) {
	rows, err := d.store.pool.Query(ctx, `
		UPDATE `+d.contacts+` c SET state = 'claimed', epoch = epoch + 1, lease_owner = $7, lease_until = now() + $8, updated_at = now()
		FROM (SELECT ctid FROM `+d.contacts+` WHERE campaign_id = $9 AND wave = $1 AND channel = $2 AND shard = $3 AND seq BETWEEN $4 AND $5
		        AND state = 'planned' AND `+due+`
		      ORDER BY seq LIMIT $6 FOR UPDATE SKIP LOCKED) due
		WHERE c.ctid = due.ctid
		RETURNING c.id, c.customer_id, c.epoch, c.seq`,
		d.in.Wave, d.in.Channel, d.in.Shard, d.next, d.in.ToSeq, n, d.owner, d.lease, d.in.CampaignID)
	if err != nil {
		return nil, fmt.Errorf("claim contacts: %w", err)
	}
	claims, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Claim])
	if err != nil {
		return nil, fmt.Errorf("claim contacts: %w", err)
	}
	for _, c := range claims {
		d.next = max(d.next, c.Seq+1)
	}
	return claims, nil
}

// Outgoing is a contact whose intent is committed: it may be sent now, once.
type Outgoing struct {
	ContactID uuid.UUID
	Epoch     int32
	Number    string // E.164 digits
}

// Intend commits the intent to send the claimed contacts and returns those that may be
// sent. The contact policy decides once more, under the locks of the customers' buckets: who
// may not be contacted any more is marked, with the rule, and who may only later is given
// back until then. held means that
// the campaign is paused or over: nothing was committed and the claims stand.
func (d *Dispatch) Intend(ctx context.Context, claims []Claim, provider string, parts int) (out []Outgoing, held bool, err error) {
	if d.store.vault == nil {
		return nil, false, campaign.Errorf(campaign.CodeInvalidParameter, "messages cannot be sent without the key of the phone vault")
	}
	var mine, sent, stopped keys
	for _, c := range claims {
		mine.add(c.ContactID, c.Epoch)
	}
	type sealed struct {
		Outgoing
		subject
		number   []byte
		key      []byte
		notAfter time.Time
	}
	var ready []sealed
	var reasons []string
	var later keys
	var until []time.Time
	err = d.store.inTx(ctx, func(tx pgx.Tx) error {
		rules, now, may, err := d.store.mayDispatch(ctx, tx, d.in.CampaignID)
		if err != nil {
			return err
		}
		if held = !may; held {
			return nil
		}
		owners := make([][16]byte, len(claims))
		for i, c := range claims {
			owners[i] = c.CustomerID
		}
		if err := lockBuckets(ctx, tx, owners); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT m.id, m.epoch, m.customer_id, m.wave, coalesce(c.time_zone, ''), v.sealed, p.wrapped, m.not_after, coalesce(`+rules.undeliverable(d.in.Channel)+`, '')
			FROM unnest($2::uuid[], $3::int[]) k (id, epoch) JOIN `+d.contacts+` m
			    ON m.campaign_id = $1 AND m.id = k.id AND m.epoch = k.epoch AND m.lease_owner = $4 AND m.state = 'claimed' `+customers, d.in.CampaignID, mine.ids, mine.epochs, d.owner)
		if err != nil {
			return fmt.Errorf("look up contacts: %w", err)
		}
		stop := func(s sealed, reason string) {
			stopped.add(s.ContactID, s.Epoch)
			reasons = append(reasons, reason)
		}
		var asked []sealed
		var subjects []subject
		var s sealed
		var reason string
		_, err = pgx.ForEachRow(rows, []any{&s.ContactID, &s.Epoch, &s.customer, &s.wave, &s.zone, &s.number, &s.key, &s.notAfter, &reason}, func() error {
			if reason != "" {
				stop(s, reason)
				return nil
			}
			s.number, s.key = slices.Clone(s.number), slices.Clone(s.key)
			asked, subjects = append(asked, s), append(subjects, s.subject)
			return nil
		})
		if err != nil {
			return fmt.Errorf("look up contacts: %w", err)
		}
		verdicts, err := rules.admit(ctx, tx, d.in.Channel, now, subjects)
		if err != nil {
			return err
		}
		for i, v := range verdicts {
			switch s := asked[i]; {
			case v.rule == "":
				sent.add(s.ContactID, s.Epoch)
				ready = append(ready, s)
			case v.until.IsZero():
				stop(s, v.rule)
			case !v.until.Before(s.notAfter):
				stop(s, windowClosed)
			default:
				later.add(s.ContactID, s.Epoch)
				until = append(until, v.until)
			}
		}
		batch := &pgx.Batch{}
		if len(reasons) > 0 {
			batch.Queue(rules.ending(`UPDATE `+d.contacts+` m SET state = `+ended+`, reason = s.reason, lease_owner = NULL, lease_until = NULL, updated_at = now()
				FROM unnest($2::uuid[], $3::int[], $4::text[]) s (id, epoch, reason)
				WHERE m.campaign_id = $1 AND m.id = s.id AND m.epoch = s.epoch AND m.lease_owner = $5 AND m.state = 'claimed'`),
				d.in.CampaignID, stopped.ids, stopped.epochs, reasons, d.owner)
		}
		if len(until) > 0 {
			batch.Queue(`UPDATE `+d.contacts+` m SET state = 'planned', lease_owner = NULL, lease_until = s.until, updated_at = now()
				FROM unnest($2::uuid[], $3::int[], $4::timestamptz[]) s (id, epoch, until)
				WHERE m.campaign_id = $1 AND m.id = s.id AND m.epoch = s.epoch AND m.lease_owner = $5 AND m.state = 'claimed'`,
				d.in.CampaignID, later.ids, later.epochs, until, d.owner)
		}
		if len(ready) > 0 {
			batch.Queue(`INSERT INTO `+d.attempts+` (campaign_id, contact_id, epoch, provider, parts)
				SELECT $1, k.id, k.epoch, $4, $5 FROM unnest($2::uuid[], $3::int[]) k (id, epoch)`,
				d.in.CampaignID, sent.ids, sent.epochs, provider, parts)
			batch.Queue(`UPDATE `+d.contacts+` c SET state = 'sending', attempts = c.attempts + 1, lease_until = now() + $4, updated_at = now()
				FROM unnest($2::uuid[], $3::int[]) k (id, epoch)
				WHERE c.campaign_id = $1 AND c.id = k.id AND c.epoch = k.epoch AND c.lease_owner = $5 AND c.state = 'claimed'`,
				d.in.CampaignID, sent.ids, sent.epochs, d.lease, d.owner).
				Exec(func(tag pgconn.CommandTag) error {
					if tag.RowsAffected() != int64(len(ready)) {
						return campaign.Errorf(campaign.CodeLeaseLost, "%d intents for %d contacts: another worker took some of them",
							len(ready), tag.RowsAffected())
					}
					return nil
				})
		}
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return fmt.Errorf("commit intents: %w", err)
		}
		return nil
	})
	if err != nil || held {
		return nil, held, err
	}
	out = make([]Outgoing, len(ready))
	for i, s := range ready {
		number, err := d.store.vault.Open(s.customer, s.number, s.key)
		if err != nil {
			// A number that does not open is told apart by the sender, which refuses an
			// empty recipient; the other contacts of the batch must not wait for it.
			number = ""
		}
		s.Number = number
		out[i] = s.Outgoing
	}
	return out, false, nil
}

// GiveBack makes claimed contacts planned again: nothing of them has left.
func (d *Dispatch) GiveBack(ctx context.Context, claims []Claim) error {
	var k keys
	for _, c := range claims {
		k.add(c.ContactID, c.Epoch)
	}
	_, err := d.store.pool.Exec(ctx, `UPDATE `+d.contacts+` c SET state = 'planned', lease_owner = NULL, lease_until = NULL, updated_at = now()
		FROM unnest($2::uuid[], $3::int[]) k (id, epoch)
		WHERE c.campaign_id = $1 AND c.id = k.id AND c.epoch = k.epoch AND c.lease_owner = $4 AND c.state = 'claimed'`,
		d.in.CampaignID, k.ids, k.epochs, d.owner)
	if err != nil {
		return fmt.Errorf("give contacts back: %w", err)
	}
	return nil
}

// The outcomes of an attempt. The first four are what a channel proves about a
// message's bytes; worked is the report of a person.
const (
	AttemptAccepted = "accepted"
	AttemptRefused  = "refused"
	AttemptNotSent  = "not_sent"
	AttemptUnknown  = "unknown"
	AttemptWorked   = "worked"
)

// Completion is what became of one sent contact.
type Completion struct {
	ContactID  uuid.UUID
	Epoch      int32
	Outcome    string
	ProviderID string
	Reason     string
	RetryAfter time.Duration // of not_sent
}

// Complete writes what became of attempts, in one transaction. The attempt keeps its
// outcome in any case. The contact takes it when epoch and owner still match; one that
// is unknown by now takes only proof: accepted or refused. One that was not sent and whose
// channel has been closed meanwhile ends as the others of the channel did.
func (d *Dispatch) Complete(ctx context.Context, done []Completion) error {
	n := len(done)
	var k keys
	outcomes, providerIDs, reasons, waits := make([]string, n), make([]string, n), make([]string, n), make([]float64, n)
	for i, c := range done {
		k.add(c.ContactID, c.Epoch)
		outcomes[i] = c.Outcome
		providerIDs[i], reasons[i], waits[i] = c.ProviderID, c.Reason, c.RetryAfter.Seconds()
	}
	batch := &pgx.Batch{}
	notSent, refused := slices.Contains(outcomes, AttemptNotSent), slices.Contains(outcomes, AttemptRefused)
	if notSent {
		// Before the contacts, as CloseChannel does: the channel closes before this or after it.
		batch.Queue(`SELECT FROM contact_batch WHERE campaign_id = $1 AND wave = $2 AND channel = $3 FOR SHARE`, d.in.CampaignID, d.in.Wave, d.in.Channel)
	}
	batch.Queue(`UPDATE `+d.attempts+` a SET outcome = k.outcome, outcome_at = now(), provider_id = nullif(k.provider_id, ''), reason = k.reason
		FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::text[]) k (id, epoch, outcome, provider_id, reason)
		WHERE a.contact_id = k.id AND a.epoch = k.epoch AND a.outcome IS NULL`, k.ids, k.epochs, outcomes, providerIDs, reasons)
	batch.Queue(`UPDATE `+d.contacts+` c SET reason = k.reason, updated_at = now(),
			state = CASE k.outcome WHEN 'accepted' THEN 'sent' WHEN 'refused' THEN 'failed' WHEN 'not_sent' THEN 'planned' ELSE 'unknown' END,
			lease_until = CASE WHEN k.outcome = 'not_sent' AND k.wait > 0 THEN now() + k.wait * interval '1 second' END, lease_owner = NULL
		FROM unnest($2::uuid[], $3::int[], $4::text[], $5::text[], $6::float8[]) k (id, epoch, outcome, reason, wait)
		WHERE c.campaign_id = $1 AND c.id = k.id AND c.epoch = k.epoch AND c.lease_owner = $7
		  AND (c.state = 'sending' OR c.state = 'unknown' AND k.outcome IN ('accepted', 'refused'))`,
		d.in.CampaignID, k.ids, k.epochs, outcomes, reasons, waits, d.owner)
	if notSent {
		batch.Queue(`UPDATE `+d.contacts+` c SET state = b.closed_state, reason = b.closed_reason, lease_until = NULL, updated_at = now() FROM contact_batch b
			WHERE c.campaign_id = $1 AND c.id = ANY($4) AND c.state = 'planned'
			  AND b.campaign_id = $1 AND b.wave = $2 AND b.channel = $3 AND b.closed_state IS NOT NULL`, d.in.CampaignID, d.in.Wave, d.in.Channel, k.ids)
	}
	if notSent || refused {
		batch.Queue(follow, slices.Repeat([]string{d.in.CampaignID}, n), k.ids)
	}
	if err := d.store.pool.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("complete contacts: %w", err)
	}
	return nil
}

// Extend renews the leases of contacts that are still being sent.
func (d *Dispatch) Extend(ctx context.Context, ids []uuid.UUID) error {
	var k keys
	for _, id := range ids {
		k.add(id, 0)
	}
	_, err := d.store.pool.Exec(ctx, `UPDATE `+d.contacts+` SET lease_until = now() + $4
		WHERE campaign_id = $1 AND id = ANY($2) AND lease_owner = $3 AND state = 'sending'`, d.in.CampaignID, k.ids, d.owner, d.lease)
	if err != nil {
		return fmt.Errorf("extend leases: %w", err)
	}
	return nil
}

// PublishTasks makes the planned contacts of the chunk tasks for people, in one
// transaction. Who may not be contacted any more is marked, with the reason. held means
// that the campaign is paused or over and nothing was done.
func (d *Dispatch) PublishTasks(ctx context.Context, p campaign.ChannelPlan) (held bool, err error) {
	const chunk = `m.campaign_id = $1 AND m.wave = $2 AND m.channel = $3 AND m.shard = $4 AND m.seq BETWEEN $5 AND $6 AND m.state = 'planned'`
	args := []any{d.in.CampaignID, d.in.Wave, d.in.Channel, d.in.Shard, d.in.FromSeq, d.in.ToSeq}
	err = d.store.inTx(ctx, func(tx pgx.Tx) error {
		rules, _, may, err := d.store.mayDispatch(ctx, tx, d.in.CampaignID)
		if err != nil {
			return err
		}
		if held = !may; held {
			return nil
		}
		var ends int64
		batch := &pgx.Batch{}
		batch.Queue(rules.ending(`UPDATE `+d.contacts+` m SET state = `+ended+`, reason = s.reason, updated_at = now()
			FROM (SELECT m.customer_id, `+rules.undeliverable(d.in.Channel)+` AS reason FROM (SELECT * FROM `+d.contacts+` m WHERE `+chunk+` FOR UPDATE) m `+customers+`) s
			WHERE `+chunk+` AND m.customer_id = s.customer_id AND s.reason IS NOT NULL`), args...).
			Exec(func(tag pgconn.CommandTag) error { ends = tag.RowsAffected(); return nil })
		batch.Queue(`WITH published AS (
				UPDATE `+d.contacts+` m SET state = 'claimed', lease_until = NULL, updated_at = now() WHERE `+chunk+`
				RETURNING m.id, m.customer_id, m.wave, m.channel, m.tier, m.not_after)
			INSERT INTO task (id, campaign_id, customer_id, channel, unit, wave, tier, script, max_attempts, retry_after, not_after)
			SELECT p.id, $1, p.customer_id, p.channel, u.org_unit, p.wave, p.tier, $7, $8, $9, p.not_after
			FROM published p JOIN customer u ON u.id = p.customer_id`,
			append(args, p.Text, max(p.MaximumAttempts, 1), p.RetryAfter)...)
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return fmt.Errorf("publish tasks: %w", err)
		}
		if err := release(ctx, tx, d.in.CampaignID, d.in.Channel, ends); err != nil {
			return err
		}
		return notify(ctx, tx, "task", d.in.CampaignID, 0)
	})
	return held, err
}
