package activities

import (
	"context"
	"log/slog"
	"time"
)

// inspectEvery is how often all workers together look at the invariants.
const inspectEvery = 5 * time.Minute

// Inspect looks at the invariants of the ledger and of every campaign that is under way, if
// nobody did so within five minutes. When one is broken that no waiting mends, nobody new is
// contacted until a person lifts the freeze.
func (a *Activities) Inspect(ctx context.Context) error {
	found, err := a.Store.InspectEvery(ctx, inspectEvery, a.Ledger.Check)
	count := map[string]int{}
	for _, v := range found {
		if count[v.Invariant]++; count[v.Invariant] == 1 {
			slog.ErrorContext(ctx, "an invariant is broken", "invariant", v.Invariant, "example", v.What, "freezes", !v.Late())
		}
	}
	return err
}
