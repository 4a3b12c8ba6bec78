package e2e_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
)

// disaster ends processes and brings the instance back.
type disaster struct {
	name   string
	happen func(t *testing.T, i *instance, centre *smsCentre)
}

// everything is a power cut: muster, both engines and the SMS centre at one moment.
func everything(t *testing.T, i *instance, centre *smsCentre) {
	kill(t, append(i.processes(t), tree(t, centre.running.pid())...))
	i.up.wait(t)
	centre.running.wait(t)
	centre.start(t)
	i.start(t)
}

// muster alone, and started again at once: what it leaves behind must not be in the way.
func musterAlone(t *testing.T, i *instance, _ *smsCentre) {
	all := i.processes(t)
	require.NoError(t, i.up.cmd.Process.Kill())
	i.up.wait(t)
	i.start(t)
	awaitGone(t, all)
}

// engine kills one engine. Muster then ends by itself and says what to do.
func engine(command string) func(*testing.T, *instance, *smsCentre) {
	return func(t *testing.T, i *instance, _ *smsCentre) {
		all := i.processes(t)
		kill(t, tree(t, i.child(t, command).pid))
		require.Equal(t, 1, i.up.wait(t))
		require.Contains(t, i.up.printed(t), "ended unexpectedly")
		require.Contains(t, i.up.printed(t), "start muster again: nothing is lost")
		awaitGone(t, all)
		require.Empty(t, i.leftovers(t))
		i.start(t)
	}
}

// smsCentreAlone loses the SMS centre: muster goes on, and binds again when it is back.
func smsCentreAlone(t *testing.T, i *instance, centre *smsCentre) {
	kill(t, tree(t, centre.running.pid()))
	centre.running.wait(t)
	centre.start(t)
	require.True(t, i.up.running())
}

// inTheMiddle kills everything while a statement on the table is under way. A lock, which
// dies with PostgreSQL, makes sure that it still is. begin has the statement sent.
func inTheMiddle(t *testing.T, i *instance, centre *smsCentre, table string, begin func()) {
	t.Helper()
	pool := i.open(t).Pool()
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { require.Error(t, tx.Rollback(t.Context()), "PostgreSQL has lived on") }()
	_, err = tx.Exec(t.Context(), "LOCK TABLE "+table+" IN ACCESS EXCLUSIVE MODE")
	require.NoError(t, err)
	begin()
	eventually(t, func() bool {
		var waiting bool
		err := pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = $1::text::regclass)`, table).Scan(&waiting)
		return err == nil && waiting
	}, "a statement on %s is under way", table)
	everything(t, i, centre)
}

// TestKillEverything is the promise of dispatch: whatever dies and whenever, nobody gets
// a message twice and nobody is left without a state. Nor do selection and settlement
// leave anything half done.
func TestKillEverything(t *testing.T) {
	t.Parallel()
	disasters := []disaster{
		{"everything", everything},
		{"muster", musterAlone},
		{"everything again", everything},
		{"Temporal", engine("temporal-dev")},
		{"the SMS centre", smsCentreAlone},
		{"PostgreSQL", engine("postgres")},
		{"everything once more", everything},
	}
	i, centre := newOperator(t, "21000")
	plan := smsPlan("A message through disasters")
	plan.Schedule.SettleFor = 10
	r, draft := i.people(t).create(t, plan)
	r.submit(t, draft)
	inTheMiddle(t, i, centre, "campaign_target", func() { r.approve(t) })
	contacts, shards := i.awaitDispatch(t, r)
	require.GreaterOrEqual(t, contacts, int64(8000))

	for n, d := range disasters {
		// At different points of the way, the last one near its end.
		centre.awaitAccepted(t, contacts*int64(n+1)/int64(len(disasters)+2))
		before := centre.accepted(t)
		require.Less(t, int64(before), contacts, "dispatch was over before %s died", d.name)
		began := time.Now()
		d.happen(t, i, centre)
		t.Logf("%s died after %d of %d messages; all was up again after %.0f s", d.name, before, contacts, time.Since(began).Seconds())
	}
	r.await(t, "settling", func(d *client.CampaignDetail) bool { return d.Status.Stage == campaign.StageSettlement })
	everything(t, i, centre)
	inTheMiddle(t, i, centre, "ledger_journal", func() {})
	r.awaitArchive(t)

	require.Equal(t, campaign.StageClosed, r.detail(t).Status.Stage)
	journal := centre.read(t)
	i.requireAcceptedOnce(t, r, journal)
	i.requireSound(t, r)

	states, unknown := map[campaign.ContactState]int{}, map[string]int{}
	for _, m := range i.messages(t, r) {
		states[m.state]++
		if m.state == campaign.ContactUnknown {
			unknown[m.reason]++
		}
	}
	t.Logf("%d contacts in %d shards, %d interruptions: %d accepted, %d of them twice; ended %v; unknown because %v",
		contacts, shards, len(disasters), len(journal.Accepted), len(journal.Duplicates()), states, unknown)
	// The SMS centre loses a few answers for good; what it leaves unknown comes on top.
	require.LessOrEqual(t, states[campaign.ContactUnknown]-unknown["the SMS centre did not answer in time"], len(disasters)*claimSize*shards,
		"unknown: %v", slices.Sorted(maps.Keys(unknown)))
	for state := range states {
		require.NotContains(t, []campaign.ContactState{campaign.ContactExpired, campaign.ContactCancelled, campaign.ContactSuppressed}, state)
	}
	keepHistories(t, i, r, "interrupted")
	i.stop(t)
}
