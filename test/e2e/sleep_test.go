package e2e_test

import (
	"context"
	"net/http"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
)

// TestAWorkerThatSleepsBeyondItsLease stops the process that works and serves in the
// middle of dispatch, as a machine that swaps or is moved does, without ending it. Other
// processes, started one by one as on more than one machine, take over. When it wakes it
// does not know that others were given its work, and still nobody gets a message twice.
func TestAWorkerThatSleepsBeyondItsLease(t *testing.T) {
	t.Parallel()
	i, centre := newOperator(t, "12000")
	r, draft := i.people(t).create(t, smsPlan("A message from a sleeper"))
	r.submit(t, draft)
	r.approve(t)
	contacts, shards := i.awaitDispatch(t, r)
	centre.awaitAccepted(t, contacts/10)

	require.NoError(t, syscall.Kill(i.up.pid(), syscall.SIGSTOP))
	asleep := centre.accepted(t)
	address := "127.0.0.1:" + freePort(t)
	api := launch(t, "muster api", filepath.Join(i.dir, "api.log"), append(i.env, "MUSTER_LISTEN="+address), "api")
	workers := []*program{
		launch(t, "first worker", filepath.Join(i.dir, "worker1.log"), i.env, "worker"),
		launch(t, "second worker", filepath.Join(i.dir, "worker2.log"), i.env, "worker"),
	}
	eventually(t, func() bool {
		status, _ := get("http://" + address + "/readyz")
		return status == http.StatusOK
	}, "muster api is ready")

	// The others give up what the sleeper had in hand, and go on with the rest.
	pool := i.open(t).Pool()
	unknown := func() (n int) {
		require.NoError(t, pool.QueryRow(t.Context(), `SELECT count(*) FROM contact
			WHERE campaign_id = $1 AND reason = 'interrupted while sending'`, r.id).Scan(&n))
		return n
	}
	eventually(t, func() bool { return unknown() > 0 && int64(centre.accepted(t)) > int64(asleep)+contacts/20 }, "others take over")
	require.LessOrEqual(t, unknown(), claimSize*shards)
	require.Less(t, int64(centre.accepted(t)), contacts*9/10, "dispatch is nearly over: nothing is left to do twice")

	// People go on through the API that is awake.
	awake := *i
	awake.API = "http://" + address
	r.people = awake.people(t)
	for _, hold := range []campaign.Hold{campaign.HoldPaused, campaign.HoldNone} {
		tell(t, r.operator, func(ctx context.Context, s *client.Session) (any, error) {
			if hold == campaign.HoldPaused {
				return s.PauseCampaignWithResponse(ctx, r.id, nil, client.HoldReason{Reason: "What is going on?"})
			}
			return s.ResumeCampaignWithResponse(ctx, r.id, nil, client.HoldReason{Reason: "It is in good hands."})
		})
		require.Equal(t, hold, r.detail(t).Status.Hold)
	}
	require.NoError(t, syscall.Kill(i.up.pid(), syscall.SIGCONT))

	detail := r.awaitArchive(t)
	require.Equal(t, "completed", detail.Status.Ended)
	i.requireAcceptedOnce(t, r, centre.read(t))
	i.requireSound(t, r)
	for _, p := range append(workers, api) {
		require.Equal(t, 0, p.interrupt(t), "%s after Ctrl-C:\n%s", p.name, tail(p.output))
	}
	i.stop(t)
}
