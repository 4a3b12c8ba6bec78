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

// reservers is how many buckets are reserved at once.
const reservers = 2

// ReserveContacts reserves the contacts of candidates, bucket by bucket, each in a
// transaction of its own that holds the bucket's lock: whoever else decides on contacts of
// its customers waits. A contact is refused when any window of a cap or a gap that it lies
// in would have too many, those planned for later counted. Candidates of the control group
// are held to the same and reserve nothing. What was reserved by an earlier snapshot is given
// up. Asked again, it goes on with the buckets that are not done, and returns the same.
func (s *Store) ReserveContacts(ctx context.Context, r Reservation) (Reserved, error) {
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
	var again bool
	if err := s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM contact_reservation WHERE campaign_id = $1 AND snapshot <> $2)`, r.CampaignID, r.Snapshot).Scan(&again); err != nil {
		return done, fmt.Errorf("read reservations: %w", err)
	}
	if again {
		if err := s.ReleaseContacts(ctx, r.CampaignID); err != nil {
			return done, err
		}
	}
	rows, err = s.pool.Query(ctx, `SELECT DISTINCT bucket FROM `+r.Table+` WHERE refused = '' ORDER BY bucket`)
	if err != nil {
		return done, fmt.Errorf("list buckets: %w", err)
	}
	buckets, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return done, fmt.Errorf("list buckets: %w", err)
	}
	var mu sync.Mutex
	count := len(finished)
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(reservers)
	for _, b := range buckets {
		if finished[b] {
			continue
		}
		work.Go(func() error {
			one, err := s.reserveBucket(ctx, r, b)
			mu.Lock()
			defer mu.Unlock()
			done.add(one)
			if count++; r.Progress != nil && err == nil {
				r.Progress(count)
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

func (s *Store) reserveBucket(ctx context.Context, r Reservation, bucket int) (Reserved, error) {
	done := Reserved{Refused: map[string]int64{}}
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		batch := &pgx.Batch{}
		batch.Queue(`SET LOCAL jit = off`)
		batch.Queue(`SELECT pg_advisory_xact_lock($1, $2)`, bucketLocks, bucket)
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		p := placing{
			rules: rules{ContactPolicy: r.Policy, campaignID: r.CampaignID, tenant: r.Tenant, kind: r.Type, simulated: r.Simulated},
			state: 'R', bucket: fmt.Sprint(bucket), candidates: fmt.Sprintf(
				`SELECT k.customer_id, k.bucket, k.wave, channel_letter(k.channel) AS channel, k.planned_at AS at, k.day, k.control
				FROM %s k WHERE k.bucket = %d AND k.refused = ''`, r.Table, bucket),
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
				WHERE k.bucket = %d AND k.customer_id = x.customer_id`, r.Table, bucket), customers, codes)
		}
		batch.Queue(`INSERT INTO contact_reservation (campaign_id, snapshot, bucket, policy, reserved, displaced, refused) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			r.CampaignID, r.Snapshot, bucket, r.Policy.Version, done.Reserved, done.Displaced, done.Refused)
		return tx.SendBatch(ctx, batch).Close()
	})
	if uniqueViolation(err, "") {
		return Reserved{}, campaign.Errorf(campaign.CodeStateConflict, "bucket %d was reserved by another attempt meanwhile", bucket)
	}
	if err != nil {
		return Reserved{}, fmt.Errorf("reserve bucket %d: %w", bucket, err)
	}
	return done, nil
}
