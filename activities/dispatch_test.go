package activities_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/channels"
	"github.com/musterhq/muster/store"
)

func TestDispatchWritesEveryVerdict(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	batch := f.create(2, campaign.ChannelSMS)
	var n atomic.Int64
	f.sender.judge = func(_ int, m channels.Message) channels.Result {
		require.Equal(t, "10086", m.From)
		require.Equal(t, "双倍流量,回复T退订", m.Text)
		require.Regexp(t, `^999\d{8}$`, m.To)
		if m.Epoch > 1 {
			return channels.Result{Verdict: channels.Accepted, ProviderID: "again-" + m.ContactID}
		}
		switch n.Add(1) % 4 {
		case 0:
			return channels.Result{Verdict: channels.Refused, Reason: "no such number"}
		case 1:
			return channels.Result{Verdict: channels.NotSent, Reason: "busy", RetryAfter: 50 * time.Millisecond}
		case 2:
			return channels.Result{Verdict: channels.Unknown, Reason: "no answer"}
		}
		return channels.Result{Verdict: channels.Accepted, ProviderID: "p-" + m.ContactID}
	}
	in := f.chunk(2, campaign.ChannelSMS, batch)
	done, err := f.DispatchChunk(f.ctx, in)
	require.NoError(t, err)
	require.Equal(t, campaign.ChunkResult{Settled: batch.Contacts}, done)
	got := f.states(2, campaign.ChannelSMS)
	quarter := batch.Contacts / 4
	require.InDelta(t, quarter, got["failed"], 1)
	require.InDelta(t, quarter, got["unknown"], 1)
	require.InDelta(t, 2*quarter, got["sent"], 2)
	require.Equal(t, batch.Contacts, got["failed"]+got["unknown"]+got["sent"])
	require.Equal(t, got["sent"]+got["unknown"], f.sender.once(t))
	require.EqualValues(t, got["failed"], f.count(`SELECT count(*) FROM contact WHERE state = 'failed' AND reason = 'no such number'`))
	require.Zero(t, f.count(`SELECT count(*) FROM contact_attempt WHERE outcome IS NULL`))
	require.EqualValues(t, batch.Contacts+f.count(`SELECT count(*) FROM contact_attempt WHERE outcome = 'not_sent'`), f.count(`SELECT count(*) FROM contact_attempt`))
	require.Zero(t, f.count(`SELECT count(*) FROM contact_attempt WHERE parts <> 1`))
	f.sound()

	// A second attempt at the chunk finds nothing to do.
	taken := f.sender.once(t)
	again, err := f.DispatchChunk(f.ctx, in)
	require.NoError(t, err)
	require.Equal(t, done, again)
	require.Equal(t, taken, f.sender.once(t))
}

func TestDispatchSendsToTheCustomersOwnNumber(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	batch := f.create(2, campaign.ChannelSMS)
	_, err := f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, batch))
	require.NoError(t, err)
	for id, to := range f.sender.to {
		require.EqualValues(t, 1, f.count(`SELECT count(*) FROM contact c JOIN customer u ON u.id = c.customer_id
			WHERE c.id = $1 AND substr(u.external_id, 2)::int = $2::bigint - 99900000000`, id, to))
	}
}

// A worker that dies at any point leaves its contacts to the next attempt, which never
// sends what may have left.
func TestDeadWorkerLeavesUnknownAndNothingTwice(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	batch := f.create(2, campaign.ChannelSMS)
	in := f.chunk(2, campaign.ChannelSMS, batch)
	dead, err := f.Store.Dispatch(in, "dead", 300*time.Millisecond)
	require.NoError(t, err)
	claimed, err := dead.Claim(f.ctx, 30)
	require.NoError(t, err)
	require.Len(t, claimed, 30)
	out, held, err := dead.Intend(f.ctx, claimed[:20], "sms", 1)
	require.NoError(t, err)
	require.False(t, held)
	require.Len(t, out, 20)
	// Bytes of the first ten left; then the process died.
	for _, o := range out[:10] {
		f.sender.took[o.ContactID.String()]++
	}
	done, err := f.DispatchChunk(f.ctx, in)
	require.NoError(t, err)
	require.Equal(t, batch.Contacts, done.Settled)
	require.Equal(t, map[string]int64{"unknown": 20, "sent": batch.Contacts - 20}, f.states(2, campaign.ChannelSMS))
	f.sender.once(t)
	require.EqualValues(t, 20, f.count(`SELECT count(*) FROM contact WHERE reason = 'interrupted while sending'`))
	f.sound()

	// It was no death but a pause: the zombie goes on. Its claims are gone, and what it
	// proves about its own messages still counts.
	out, held, err = dead.Intend(f.ctx, claimed[20:], "sms", 1)
	require.NoError(t, err)
	require.False(t, held)
	require.Empty(t, out)
	require.NoError(t, dead.GiveBack(f.ctx, claimed))
	first := claimed[:20]
	var late []store.Completion
	for i, c := range first {
		verdict := store.AttemptAccepted
		switch {
		case i >= 15:
			verdict = store.AttemptNotSent
		case i >= 10:
			verdict = store.AttemptRefused
		}
		late = append(late, store.Completion{ContactID: c.ContactID, Epoch: c.Epoch, Outcome: verdict, ProviderID: "late"})
	}
	// And what it says about contacts that are another's by now changes nothing.
	for _, c := range claimed[20:] {
		late = append(late, store.Completion{ContactID: c.ContactID, Epoch: c.Epoch, Outcome: store.AttemptRefused})
	}
	require.NoError(t, dead.Complete(f.ctx, late))
	require.Equal(t, map[string]int64{"unknown": 5, "failed": 5, "sent": batch.Contacts - 10}, f.states(2, campaign.ChannelSMS))
	require.EqualValues(t, 5, f.count(`SELECT count(*) FROM contact_attempt WHERE outcome = 'not_sent'`))
	f.sound()
}

func TestTwoWorkersShareAChunk(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	batch := f.create(2, campaign.ChannelSMS)
	in := f.chunk(2, campaign.ChannelSMS, batch)
	f.sender.judge = func(_ int, m channels.Message) channels.Result {
		<-time.After(time.Millisecond)
		return channels.Result{Verdict: channels.Accepted, ProviderID: "p-" + m.ContactID}
	}
	faults := make(chan error, 4)
	for range 4 {
		go func() { _, err := f.DispatchChunk(f.ctx, in); faults <- err }()
	}
	for range 4 {
		require.NoError(t, <-faults)
	}
	require.Equal(t, batch.Contacts, f.sender.once(t))
	require.Equal(t, map[string]int64{"sent": batch.Contacts}, f.states(2, campaign.ChannelSMS))
	f.sound()
}

// A sender that is slower than the lease keeps it, as long as the process lives.
func TestLeaseIsRenewedWhileSending(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	batch := f.create(2, campaign.ChannelSMS)
	f.Tuning.Lease = 1500 * time.Millisecond
	var stolen atomic.Int64
	f.sender.before = func(n int) {
		if n > 1 {
			return
		}
		for range 4 {
			<-time.After(400 * time.Millisecond)
			swept, err := f.Store.SweepLeases(f.ctx)
			require.NoError(t, err)
			stolen.Add(swept)
		}
	}
	_, err := f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, batch))
	require.NoError(t, err)
	require.Zero(t, stolen.Load())
	require.Equal(t, map[string]int64{"sent": batch.Contacts}, f.states(2, campaign.ChannelSMS))
}

func TestPauseTakesEffectAtTheNextIntent(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	batch := f.create(2, campaign.ChannelSMS)
	in := f.chunk(2, campaign.ChannelSMS, batch)
	hold := func(h campaign.Hold) {
		require.NoError(t, f.SetHold(f.ctx, campaign.SetHold{CampaignID: f.id, Hold: h, Reason: "test", Actor: f.users["operator"]}))
	}
	f.sender.before = func(n int) {
		if n == 2 {
			hold(campaign.HoldPaused)
		}
	}
	done, err := f.DispatchChunk(f.ctx, in)
	require.NoError(t, err)
	require.Equal(t, campaign.ChunkResult{Settled: 80, Held: true}, done, "the batch whose intent was committed goes out, the next does not")
	require.Equal(t, map[string]int64{"sent": 80, "planned": batch.Contacts - 80}, f.states(2, campaign.ChannelSMS))
	again, err := f.DispatchChunk(f.ctx, in)
	require.NoError(t, err)
	require.Equal(t, done, again)
	f.sound()

	hold(campaign.HoldNone)
	done, err = f.DispatchChunk(f.ctx, in)
	require.NoError(t, err)
	require.Equal(t, campaign.ChunkResult{Settled: batch.Contacts}, done)
	require.Equal(t, batch.Contacts, f.sender.once(t))

	hold(campaign.HoldStopped)
	require.Equal(t, campaign.CodeStateConflict, code(t, f.SetHold(f.ctx, campaign.SetHold{CampaignID: f.id, Hold: campaign.HoldNone})))
	require.EqualValues(t, 3, f.count(`SELECT count(*) FROM audit_event WHERE event LIKE 'hold.%'`))
}

// No intent is committed after SetHold has returned, whatever runs at the same time.
func TestNothingIsIntendedAfterAStop(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	batch := f.create(2, campaign.ChannelSMS)
	in := f.chunk(2, campaign.ChannelSMS, batch)
	f.Tuning.ClaimSize = 3
	// The first wait to be stopped on their way and then hurry, the last take their time, so
	// that there is something left to stop on a slow machine.
	stopping := make(chan struct{})
	f.sender.judge = func(n int, m channels.Message) channels.Result {
		if n > 8 {
			<-stopping
		}
		pause := 2 * time.Millisecond
		if n > 20 {
			pause *= 100
		}
		<-time.After(pause)
		return channels.Result{Verdict: channels.Accepted, ProviderID: "p-" + m.ContactID}
	}
	ended := make(chan error, 3)
	for range cap(ended) {
		go func() { _, err := f.DispatchChunk(f.ctx, in); ended <- err }()
	}
	require.Eventually(t, func() bool { return f.count(`SELECT count(*) FROM contact_attempt`) > 20 }, time.Minute, time.Millisecond)
	close(stopping)
	require.NoError(t, f.SetHold(f.ctx, campaign.SetHold{CampaignID: f.id, Hold: campaign.HoldStopped, Reason: "test"}))
	atStop := f.count(`SELECT count(*) FROM contact_attempt`)
	for range cap(ended) {
		require.NoError(t, <-ended)
	}
	require.Equal(t, atStop, f.count(`SELECT count(*) FROM contact_attempt`))
	require.Less(t, atStop, batch.Contacts)
	f.sound()
}

func TestWhoMayNotBeContactedIsSuppressedWithTheReason(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	batch := f.create(2, campaign.ChannelSMS)
	rows, err := f.Store.Contacts(f.ctx, f.id, store.ContactFilter{Limit: 100})
	require.NoError(t, err)
	f.exec(`UPDATE customer SET opted_out = true WHERE id = $1`, rows[0].CustomerID)
	f.exec(`DELETE FROM phone_vault WHERE customer_id = $1`, rows[1].CustomerID)
	_, err = f.Store.RecordOutcomes(f.ctx, f.id, true, []store.Outcome{
		{CustomerID: rows[2].CustomerID, Kind: campaign.OutcomeComplained, At: time.Now(), Source: "hotline", SourceID: "1"},
		{CustomerID: rows[3].CustomerID, Kind: campaign.OutcomeOptedOut, At: time.Now(), Source: "hotline", SourceID: "2"},
	})
	require.NoError(t, err)
	f.exec(`UPDATE contact SET not_after = now() - interval '1 second' WHERE customer_id = $1`, rows[4].CustomerID)
	f.exec(`UPDATE phone_vault SET sealed = '\x00' WHERE customer_id = $1`, rows[5].CustomerID)
	done, err := f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, batch))
	require.NoError(t, err)
	require.Equal(t, batch.Contacts, done.Settled)
	want := []struct {
		state  campaign.ContactState
		reason string
	}{
		{campaign.ContactSuppressed, "opted_out"}, {campaign.ContactSuppressed, "no_number"}, {campaign.ContactSuppressed, "complained"},
		{campaign.ContactSuppressed, "opted_out"}, {campaign.ContactExpired, "window_closed"}, {campaign.ContactFailed, "the number cannot be read"},
	}
	after, err := f.Store.Contacts(f.ctx, f.id, store.ContactFilter{Limit: 100})
	require.NoError(t, err)
	for i, w := range want {
		require.Equal(t, rows[i].ID, after[i].ID)
		require.Equal(t, w.state, after[i].State, "%d", i)
		require.Equal(t, w.reason, after[i].Reason, "%d", i)
	}
	require.Equal(t, batch.Contacts-int64(len(want)), f.sender.once(t))
	f.sound()
}

func TestProviderAwayIsTriedAgainLater(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	batch := f.create(2, campaign.ChannelSMS)
	in := f.chunk(2, campaign.ChannelSMS, batch)
	away := &unreachable{}
	f.Senders[campaign.ChannelSMS] = away
	_, err := f.DispatchChunk(f.ctx, in)
	var app *temporal.ApplicationError
	require.ErrorAs(t, err, &app)
	require.Equal(t, string(campaign.CodeChannelUnavailable), app.Type())
	require.False(t, app.NonRetryable())
	require.Positive(t, app.NextRetryDelay())
	require.Equal(t, map[string]int64{"planned": batch.Contacts}, f.states(2, campaign.ChannelSMS))
	f.sound()
	f.Senders[campaign.ChannelSMS] = f.sender
	_, err = f.DispatchChunk(f.ctx, in)
	require.NoError(t, err)
	require.Equal(t, batch.Contacts, f.sender.once(t))
}

// When the worker is asked to stop, the chunk claims nothing more, writes what it knows
// and leaves the rest to another worker.
func TestWorkerStopLeavesTheRest(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	batch := f.create(2, campaign.ChannelSMS)
	stop := make(chan struct{})
	f.sender.before = func(n int) {
		if n == 2 {
			close(stop)
		}
	}
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.SetWorkerStopChannel(stop)
	env.RegisterActivity(f.DispatchChunk)
	_, err := env.ExecuteActivity(f.DispatchChunk, f.chunk(2, campaign.ChannelSMS, batch))
	var app *temporal.ApplicationError
	require.ErrorAs(t, err, &app)
	require.False(t, app.NonRetryable())
	got := f.states(2, campaign.ChannelSMS)
	require.Equal(t, f.sender.once(t), got["sent"])
	require.Equal(t, batch.Contacts, got["sent"]+got["planned"])
	require.Less(t, got["sent"], batch.Contacts)
	f.sound()
}

func TestCallsBecomeTasks(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	batch := f.create(1, campaign.ChannelCall)
	in := f.chunk(1, campaign.ChannelCall, batch)
	require.NoError(t, f.SetHold(f.ctx, campaign.SetHold{CampaignID: f.id, Hold: campaign.HoldPaused}))
	done, err := f.DispatchChunk(f.ctx, in)
	require.NoError(t, err)
	require.True(t, done.Held)
	require.Zero(t, f.count(`SELECT count(*) FROM task`))
	require.NoError(t, f.SetHold(f.ctx, campaign.SetHold{CampaignID: f.id, Hold: campaign.HoldNone}))
	f.exec(`UPDATE customer SET opted_out = true WHERE id = (SELECT customer_id FROM contact LIMIT 1)`)
	for range 2 {
		done, err = f.DispatchChunk(f.ctx, in)
		require.NoError(t, err)
		require.Equal(t, campaign.ChunkResult{Settled: batch.Contacts}, done)
		require.Equal(t, map[string]int64{"claimed": batch.Contacts - 1, "suppressed": 1}, f.states(1, campaign.ChannelCall))
		require.EqualValues(t, batch.Contacts-1, f.count(`SELECT count(*) FROM task t JOIN contact c ON c.id = t.id AND c.customer_id = t.customer_id
			WHERE t.state = 'open' AND t.script = 'Good day' AND t.max_attempts = 2 AND t.unit = 'operator/north' AND t.not_after = c.not_after`))
	}
	swept, err := f.Store.SweepLeases(f.ctx)
	require.NoError(t, err)
	require.Zero(t, swept, "a task has no lease of a worker")
	f.exec(`UPDATE task SET state = 'claimed', claimed_by = $1, lease_until = now() - interval '1 second' WHERE id IN (SELECT id FROM task LIMIT 3)`, uuid.NewString())
	opened, err := f.Store.SweepTasks(f.ctx)
	require.NoError(t, err)
	require.EqualValues(t, 3, opened)
	f.sound()
}

// What is labelled simulated never reaches a real provider, and a real campaign is not
// thought to be sent when a simulator took it.
func TestSimulatedCampaignsMeetSimulatorsOnly(t *testing.T) {
	for _, simulated := range []bool{true, false} {
		t.Run(fmt.Sprint(simulated), func(t *testing.T) {
			f := newFixture(t, func(p *campaign.Plan) { p.Simulated = simulated })
			f.run()
			batch := f.create(2, campaign.ChannelSMS)
			f.Simulated = !simulated
			_, err := f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, batch))
			var refused *temporal.ApplicationError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, string(campaign.CodeChannelUnavailable), refused.Type())
			require.Equal(t, map[string]int64{"planned": batch.Contacts}, f.states(2, campaign.ChannelSMS))
			f.Simulated = simulated
			if !simulated {
				f.contactPolicy("") // it may be night where the customers are
			}
			_, err = f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, batch))
			require.NoError(t, err)
			require.Equal(t, batch.Contacts, f.sender.once(t))
		})
	}
}
