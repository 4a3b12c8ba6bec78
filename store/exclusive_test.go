package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestAFrozenTransactionIsNotWaitedFor: a process that is stopped without being ended
// keeps its connections, and PostgreSQL cannot tell that nobody is there.
func TestAFrozenTransactionIsNotWaitedFor(t *testing.T) {
	st, ctx := open(t), t.Context()
	frozen, err := st.Pool().Begin(ctx)
	require.NoError(t, err)
	const lock = `SELECT pg_advisory_xact_lock(7)`
	_, err = frozen.Exec(ctx, lock)
	require.NoError(t, err)
	_, err = st.Pool().Exec(ctx, lock)
	require.NoError(t, err, "the lock is free once its owner has been silent for too long")
	require.Error(t, frozen.Commit(ctx), "whoever was silent for too long is told")
}

// TestExclusiveWorkMayTakeItsTime, longer than a silent transaction may.
func TestExclusiveWorkMayTakeItsTime(t *testing.T) {
	st := open(t)
	begun, second := make(chan struct{}), make(chan error, 1)
	var done bool
	go func() {
		<-begun
		second <- st.Exclusive(context.Background(), "work", func(context.Context) error {
			if !done {
				return errors.New("the second did not wait for the first")
			}
			return nil
		})
	}()
	err := st.Exclusive(t.Context(), "work", func(ctx context.Context) error {
		close(begun)
		select {
		case <-time.After(20 * time.Second): // more than a frozen process is waited for
			done = true
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	require.NoError(t, err)
	require.NoError(t, <-second)
}
