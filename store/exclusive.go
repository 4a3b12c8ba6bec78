package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// idleInTransaction is how long a connection may sit in a transaction without asking for
	// anything. A process that is frozen, and not ended, would keep its locks for as long as
	// it sleeps, and everybody else waiting.
	idleInTransaction = 15 * time.Second
	// stayAwake is how often an exclusive transaction shows that its process is not frozen.
	stayAwake = idleInTransaction / 5
)

// Exclusive runs f while no other process runs one under the same name. The context of f
// ends when that can no longer be promised, because the connection is lost. A process
// that is frozen in f is no longer waited for after a while: what f does must bear a
// second f beside it then, though not run twice for that.
func (s *Store) Exclusive(ctx context.Context, name string, f func(context.Context) error) error {
	return s.inTx(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, name); err != nil {
			return fmt.Errorf("wait for %s: %w", name, err)
		}
		within, stop := context.WithCancelCause(ctx)
		awake := make(chan struct{})
		go func() {
			defer close(awake)
			for every := time.NewTicker(stayAwake); ; {
				select {
				case <-within.Done():
					every.Stop()
					return
				case <-every.C:
					if _, err := tx.Exec(ctx, `SELECT 1`); err != nil {
						stop(fmt.Errorf("lost the lock on %s: %w", name, err))
					}
				}
			}
		}()
		err := f(within)
		lost := context.Cause(within)
		stop(nil)
		<-awake
		if err != nil && lost != nil {
			return errors.Join(lost, err)
		}
		return err
	})
}
