package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/targeting"
)

// maximumReplay bounds the time that a policy is replayed over.
const maximumReplay = 366 * 24 * time.Hour

// ReplayContactPolicy replays the contacts that customers of a unit, and of the units below
// it, had from an instant until another through a policy: those in the ledger, and the
// marketing and care of the contact history. Simulated contacts are left out.
func (s *Store) ReplayContactPolicy(ctx context.Context, unit campaign.OrgUnit, p targeting.ContactPolicy, from, until time.Time) (*targeting.Replay, error) {
	if !until.After(from) || until.Sub(from) > maximumReplay {
		return nil, campaign.Errorf(campaign.CodeInvalidParameter, "the time must end after it begins and last a year at most")
	}
	exact, patterns := below([]campaign.OrgUnit{unit})
	replay := targeting.NewReplay(p, from)
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL jit = off; SET LOCAL work_mem = '128MB'`); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT x.customer_id, c.time_zone, x.at, x.channel, x.type FROM (
			    SELECT customer_id, at, channel_of_letter(channel) AS channel, type_of_letter(type) AS type FROM contact_ledger
			    WHERE at >= $3 AND at < $4 AND state IN ('S', 'D') AND NOT simulated
			    UNION ALL
			    SELECT customer_id, at, channel, CASE kind WHEN 'marketing' THEN 'upsell' ELSE 'tariff_care' END FROM contact_history
			    WHERE at >= $3 AND at < $4 AND direction = 'out' AND kind IN ('marketing', 'care') AND channel = ANY($5)) x
			JOIN customer c ON c.id = x.customer_id WHERE (c.org_unit = ANY($1) OR c.org_unit LIKE ANY($2))
			ORDER BY x.customer_id, x.at`, exact, patterns, from.Add(-p.Reach()), until, campaign.Channels())
		if err != nil {
			return err
		}
		var customer [16]byte
		var zone string
		var at time.Time
		var channel campaign.Channel
		var kind campaign.Type
		_, err = pgx.ForEachRow(rows, []any{&customer, &zone, &at, &channel, &kind}, func() error {
			replay.Add(customer, zone, at, channel, kind)
			return nil
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("replay contact policy: %w", err)
	}
	return replay, nil
}
