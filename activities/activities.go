// Package activities holds everything that a workflow may do to the world, one file a
// noun. Each activity may run more than once for one call: it asks the database what
// is done already, or writes under a key that lands once.
package activities

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"

	"github.com/musterhq/muster/assertion"
	"github.com/musterhq/muster/audit"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/channels"
	"github.com/musterhq/muster/ledger"
	"github.com/musterhq/muster/policies"
	"github.com/musterhq/muster/store"
)

// Deps is what activities work with.
type Deps struct {
	Store    *store.Store
	Ledger   *ledger.Ledger
	Policies *policies.Enforcer
	Keys     *assertion.Keys                      // that verify what the API signed
	Senders  map[campaign.Channel]channels.Sender // the push channels of this process
	// Simulated means that the senders reach simulators. Only simulated campaigns are sent
	// through those, and through real ones only real campaigns.
	Simulated bool
	Archiver  *audit.Archiver
	Replayer  *audit.Replayer
	Spool     string // folder of uploaded files: nothing else is imported
	Instance  string // names this process in leases, e.g. host and process id
	Tuning    Tuning
}

// Tuning sets the pace of dispatch.
type Tuning struct {
	// ClaimSize is how many contacts are claimed, intended and sent at a time; 0 means
	// 200. A worker that dies leaves at most this many of a chunk unknown.
	ClaimSize int
	// Lease is how long a claim holds without a sign of life; 0 means 30 s.
	Lease time.Duration
}

// Activities are registered with a worker under the names of package campaign.
type Activities struct {
	Deps
	pace pace
}

// New returns activities on deps.
func New(deps Deps) *Activities {
	if deps.Tuning.ClaimSize == 0 {
		deps.Tuning.ClaimSize = 200
	}
	if deps.Tuning.Lease == 0 {
		deps.Tuning.Lease = 30 * time.Second
	}
	return &Activities{Deps: deps}
}

// beatEvery is well below the shortest heartbeat timeout, 10 s.
const beatEvery = 2 * time.Second

// alive tells Temporal that the activity lives while f runs: a set-based statement
// gives no sign of life of its own.
func alive(ctx context.Context, f func() error) error {
	return aliveAt(ctx, func() int64 { return 0 }, f)
}

// aliveAt is alive with a watermark: how far f has come.
func aliveAt(ctx context.Context, watermark func() int64, f func() error) error {
	if !activity.IsActivity(ctx) {
		return f()
	}
	ended := make(chan struct{})
	beaten := make(chan struct{})
	go func() {
		defer close(beaten)
		tick := time.NewTicker(beatEvery)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				activity.RecordHeartbeat(ctx, watermark())
			}
		}
	}()
	defer func() { close(ended); <-beaten }()
	return f()
}

// callKey identifies this call of an activity, the same for all of its attempts.
func callKey(ctx context.Context) string {
	if !activity.IsActivity(ctx) {
		return uuid.NewString()
	}
	info := activity.GetInfo(ctx)
	return fmt.Sprintf("%s/%s/%s", info.WorkflowExecution.ID, info.WorkflowExecution.RunID, info.ActivityID)
}
