package store

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/targeting"
)

// bucketLocks is the name space of the advisory locks of customers' buckets.
const bucketLocks = 0x6d757374 // "must"

// Reservation asks for the contacts of a campaign's candidates.
type Reservation struct {
	CampaignID string
	Snapshot   int
	// Table is the trusted name of the candidates' table: one row per customer, with
	// customer_id, bucket, wave, channel, planned_at, day (of planned_at, by the customer's
	// calendar), control, and refused, which is empty for those who are asked for and becomes the
	// code of the rule. It lies in the order of bucket, or has an index of it.
	Table     string
	Tenant    campaign.OrgUnit
	Type      campaign.Type
	Simulated bool
	Policy    targeting.ContactPolicy
	// Progress is told how many buckets are done; nil for nobody.
	Progress func(buckets int)
}

// Reserved is what became of a reservation.
type Reserved struct {
	Reserved  int64
	Displaced int64            // reservations of lower classes that gave way
	Refused   map[string]int64 // customers by rule, those of the control group included
}

const (
	// reservers is how many transactions reserve at once.
	reservers = 2
	// bucketSpan is how many buckets one of them reserves: those of a partition of the ledger,
	// which is read from end to end and not row by row. Others who contact their customers wait
	// for a sixteenth of the whole at most.
	bucketSpan = 16
)

// ReserveContacts reserves the contacts of candidates, a few buckets in a transaction that
// holds their locks: whoever else decides on contacts of their customers waits. A contact is
// refused when any window of a cap or a gap that it lies in would have too many, those planned
// for later counted. Candidates of the control group are held to the same and reserve nothing.
// What was reserved by an earlier snapshot is given up. Asked again, it goes on with the
// buckets that are not done, and returns the same.
func (s *Store) ReserveContacts(ctx context.Context, r Reservation) (Reserved, error) {
	var again bool
	if err := s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM contact_reservation WHERE campaign_id = $1 AND snapshot <> $2)`, r.CampaignID, r.Snapshot).Scan(&again); err != nil {
		return Reserved{}, fmt.Errorf("read reservations: %w", err)
	}
	if again {
		if err := s.ReleaseContacts(ctx, r.CampaignID); err != nil {
			return Reserved{}, err
		}
	}
	done := Reserved{Refused: map[string]int64{}}
	finished := map[int]bool{}
	rows, err := s.pool.Query(ctx, `SELECT bucket, reserved, displaced, refused FROM contact_reservation WHERE campaign_id = $1 AND snapshot = $2`, r.CampaignID, r.Snapshot)
	if err != nil {
		return done, fmt.Errorf("read reservations: %w", err)
	}
	var bucket int
	var one Reserved
	_, err = pgx.ForEachRow(rows, []any{&bucket, &one.Reserved, &one.Displaced, &one.Refused}, func() error {
		finished[bucket] = true
		done.add(one)
		one = Reserved{}
		return nil
	})
	if err != nil {
		return done, fmt.Errorf("read reservations: %w", err)
	}
	rows, err = s.pool.Query(ctx, fmt.Sprintf(`SELECT DISTINCT bucket / %[1]d * %[1]d FROM %[2]s WHERE refused = '' ORDER BY 1`, bucketSpan, r.Table))
	if err != nil {
		return done, fmt.Errorf("list buckets: %w", err)
	}
	spans, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return done, fmt.Errorf("list buckets: %w", err)
	}
	var mu sync.Mutex
	count := len(finished)
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(reservers)
	for _, first := range spans {
		if finished[first] {
			continue
		}
		work.Go(func() error {
			one, err := s.reserveBuckets(ctx, r, first)
			mu.Lock()
			defer mu.Unlock()
			done.add(one)
			if count++; r.Progress != nil && err == nil {
				r.Progress(count * bucketSpan)
			}
			return err
		})
	}
	return done, work.Wait()
}

func (r *Reserved) add(o Reserved) {
	r.Reserved += o.Reserved
	r.Displaced += o.Displaced
	for rule, n := range o.Refused {
		r.Refused[rule] += n
	}
}

// reserveBuckets reserves the span of buckets that begins with first, under which it is noted.
func (s *Store) reserveBuckets(ctx context.Context, r Reservation, first int) (Reserved, error) {
	done := Reserved{Refused: map[string]int64{}}
	span := fmt.Sprintf("BETWEEN %d AND %d", first, first+bucketSpan-1)
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		batch := &pgx.Batch{}
		// A server that forgets this when it crashes has forgotten the candidates as well.
		batch.Queue(`SET LOCAL synchronous_commit = off`)
		batch.Queue(`SET LOCAL jit = off`)
		batch.Queue(`SET LOCAL work_mem = '64MB'`)
		batch.Queue(`SELECT pg_advisory_xact_lock($1, b) FROM generate_series($2::int, $3::int) b`, bucketLocks, first, first+bucketSpan-1)
		var stopped bool
		batch.Queue(`SELECT EXISTS (SELECT FROM campaign WHERE id = $1 AND hold = 'stopped')`, r.CampaignID).QueryRow(func(row pgx.Row) error { return row.Scan(&stopped) })
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		if stopped { // what it has reserved was given up, or will be after this
			return campaign.Errorf(campaign.CodeStateConflict, "the campaign was stopped: nothing more is reserved for it")
		}
		p := placing{
			rules: rules{ContactPolicy: r.Policy, campaignID: r.CampaignID, tenant: r.Tenant, kind: r.Type, simulated: r.Simulated},
			state: 'R', within: " AND l.bucket " + span, candidates: fmt.Sprintf(
				`SELECT k.customer_id, k.bucket, k.wave, channel_letter(k.channel) AS channel, k.planned_at AS at, k.day, k.control
				FROM %s k WHERE k.bucket %s AND k.refused = ''`, r.Table, span),
		}
		refused, placed, err := p.place(ctx, tx)
		if err != nil {
			return err
		}
		more, gone, refused, err := p.displace(ctx, tx, refused)
		if err != nil {
			return err
		}
		done.Reserved, done.Displaced = placed+more, gone
		customers, codes := make([][16]byte, len(refused)), make([]string, len(refused))
		for i, x := range refused {
			customers[i], codes[i] = x.customer, x.rule
			done.Refused[x.rule]++
		}
		batch = &pgx.Batch{}
		if len(refused) > 0 {
			batch.Queue(fmt.Sprintf(`UPDATE %s k SET refused = x.rule FROM unnest($1::uuid[], $2::text[]) x (customer_id, rule)
				WHERE k.bucket %s AND k.customer_id = x.customer_id`, r.Table, span), customers, codes)
		}
		batch.Queue(`INSERT INTO contact_reservation (campaign_id, snapshot, bucket, policy, reserved, displaced, refused) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			r.CampaignID, r.Snapshot, first, r.Policy.Version, done.Reserved, done.Displaced, done.Refused)
		return tx.SendBatch(ctx, batch).Close()
	})
	if err != nil { // also that another attempt reserved it meanwhile: the next one finds it done
		return Reserved{}, fmt.Errorf("reserve bucket %d: %w", first, err)
	}
	return done, nil
}
