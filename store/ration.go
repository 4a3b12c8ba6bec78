package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// ration counts n numbers that a person looks up by an action, before the answer tells whose
// they are. It fails with CodeLookUpQuota when that would be more than quota since the day
// began in UTC.
func ration(ctx context.Context, tx pgx.Tx, act campaign.Action, n, quota int64, by campaign.Actor) error {
	before, tomorrow, err := spent(ctx, tx, act, by)
	if err != nil {
		return err
	}
	if n > quota-before {
		return campaign.Errorf(campaign.CodeLookUpQuota, "you may look up %d numbers a day in this way, and have looked up %d: go on tomorrow, or ask somebody else", quota, before).
			With("quota", quota).With("used", before).With("again_at", tomorrow)
	}
	return spend(ctx, tx, act, n, by)
}

// spent returns how much of an action's daily limit a person has used up since the day began
// in UTC, and when the next begins. Until the transaction ends nobody else spends of theirs.
func spent(ctx context.Context, tx pgx.Tx, act campaign.Action, by campaign.Actor) (n int64, tomorrow time.Time, err error) {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('look-up ' || $1, 0))`, by.UserID); err != nil {
		return 0, tomorrow, err
	}
	err = tx.QueryRow(ctx, `SELECT coalesce(sum(numbers), 0), date_trunc('day', now(), 'UTC') + interval '1 day' FROM number_look_up
		WHERE user_id = $1 AND action = $2 AND at >= date_trunc('day', now(), 'UTC')`, by.UserID, act).Scan(&n, &tomorrow)
	return n, tomorrow, err
}

func spend(ctx context.Context, tx pgx.Tx, act campaign.Action, n int64, by campaign.Actor) error {
	_, err := tx.Exec(ctx, `INSERT INTO number_look_up (user_id, action, numbers) VALUES ($1, $2, $3)`, by.UserID, act, n)
	return err
}
