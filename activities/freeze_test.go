package activities_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/channels"
	"github.com/musterhq/muster/store"
)

func (f *fixture) waits(err error) {
	f.t.Helper()
	var app *temporal.ApplicationError
	require.ErrorAs(f.t, err, &app)
	require.Equal(f.t, string(campaign.CodeDispatchFrozen), app.Type())
	require.False(f.t, app.NonRetryable(), "it is asked again")
}

// While money is not where the journal says, nobody new is contacted by any channel.
func TestABrokenLedgerFreezesDispatch(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	messages, calls := f.create(2, campaign.ChannelSMS), f.create(1, campaign.ChannelCall)
	agent := &agent{fixture: f, id: f.users["agent"].UserID, units: []campaign.OrgUnit{"operator"}}
	inspect := func() {
		f.exec(`UPDATE invariant_check SET began_at = '-infinity'`)
		require.NoError(t, f.Inspect(f.ctx))
	}
	inspect()
	require.NoError(t, f.Store.RefuseFrozen(f.ctx, f.id), "all is well")

	// Posting to an account alone is what nobody but the owner can do.
	f.exec(`UPDATE ledger_account SET posted = posted + 1 WHERE owner = $1 AND kind = 'line' AND line = 'gifts'`, f.id)
	require.NoError(t, f.Inspect(f.ctx))
	require.NoError(t, f.Store.RefuseFrozen(f.ctx, f.id), "somebody looked less than five minutes ago")
	inspect()

	later := campaign.DispatchInput{CampaignID: f.id, Wave: 1, Snapshot: 1, Revision: 1, Channel: campaign.ChannelSMS, After: []campaign.Channel{campaign.ChannelCall}, ClosesAt: time.Now().Add(time.Minute)}
	for range 2 {
		_, err := f.CreateContacts(f.ctx, later)
		f.waits(err)
		_, err = f.PayContacts(f.ctx, campaign.ChannelRef{CampaignID: f.id, Wave: 2, Revision: 1, Channel: campaign.ChannelSMS})
		f.waits(err)
		_, err = f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, messages))
		f.waits(err)
		_, err = f.DispatchChunk(f.ctx, f.chunk(1, campaign.ChannelCall, calls))
		f.waits(err)
	}
	require.Zero(t, f.count(`SELECT count(*) FROM contact_attempt`))
	require.Zero(t, f.count(`SELECT count(*) FROM task`))
	require.Zero(t, f.states(1, campaign.ChannelSMS)["planned"])
	require.EqualValues(t, 3, f.count(`SELECT count(*) FROM audit_event WHERE event = 'dispatch.refused' AND campaign_id = $1 AND data->>'code' = 'dispatch_frozen'`, f.id),
		"each channel of a wave is told once")

	// What was claimed before the freeze does not leave either.
	f.exec(`UPDATE dispatch_freeze SET lifted_at = now(), lifted_by = $1`, f.users["operator"].UserID)
	_, err := f.DispatchChunk(f.ctx, f.chunk(1, campaign.ChannelCall, calls))
	require.NoError(t, err)
	d, err := f.Store.Dispatch(f.chunk(2, campaign.ChannelSMS, messages), "somebody", time.Minute)
	require.NoError(t, err)
	claims, err := d.Claim(f.ctx, 5)
	require.NoError(t, err)
	require.Len(t, claims, 5)
	inspect()
	out, held, err := d.Intend(f.ctx, claims, "sms", 1)
	require.NoError(t, err)
	require.True(t, held)
	require.Empty(t, out)
	require.NoError(t, d.GiveBack(f.ctx, claims))
	require.Empty(t, agent.claim(5), "nor are tasks given to agents")

	// A campaign that is stopped meanwhile ends.
	require.NoError(t, f.SetHold(f.ctx, campaign.SetHold{CampaignID: f.id, Hold: campaign.HoldPaused}))
	result, err := f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, messages))
	require.NoError(t, err)
	require.True(t, result.Held)
	require.NoError(t, f.SetHold(f.ctx, campaign.SetHold{CampaignID: f.id, Hold: campaign.HoldNone}))

	operator := f.users["operator"]
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(f.Store.Lift(f.ctx, []campaign.OrgUnit{"operator"}, operator, "never mind", f.Ledger.Check)))
	f.exec(`UPDATE ledger_account SET posted = posted - 1 WHERE owner = $1 AND kind = 'line' AND line = 'gifts'`, f.id)
	require.NoError(t, f.Store.Lift(f.ctx, []campaign.OrgUnit{"operator"}, operator, "the posting was taken back", f.Ledger.Check))
	_, err = f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, messages))
	require.NoError(t, err)
	require.Positive(t, f.states(2, campaign.ChannelSMS)["sent"])
	require.NotEmpty(t, agent.claim(5))
	_, err = f.CreateContacts(f.ctx, later)
	require.NoError(t, err)
	f.sound()
}

// What a settled campaign will not spend any more goes back to where it came from, at the
// settlement and again once the fate of a message is known.
func TestSettledMoneyGoesBack(t *testing.T) {
	f := newFixture(t, func(p *campaign.Plan) { p.Contingency = 7_000 })
	f.run()
	batch := f.create(2, campaign.ChannelSMS)
	f.sender.judge = func(n int, m channels.Message) channels.Result {
		if n == 1 {
			return channels.Result{Verdict: channels.Unknown}
		}
		return channels.Result{Verdict: channels.Accepted, ProviderID: "p-" + m.ContactID}
	}
	_, err := f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, batch))
	require.NoError(t, err)
	require.NoError(t, f.CloseContacts(f.ctx, f.ref()))
	out := func() (n int64) { // of the tenant's source and not spent
		return f.count(`SELECT coalesce(sum(posted), 0)::bigint FROM ledger_account WHERE owner = $1 AND kind IN ('campaign', 'line')`, f.id)
	}
	require.EqualValues(t, 2_000_000+500_000+1_000_000+30_000+7_000, out())
	unknown := f.states(2, campaign.ChannelSMS)["unknown"]
	require.Positive(t, unknown)
	for range 2 {
		require.NoError(t, f.Settle(f.ctx, f.ref()))
		require.EqualValues(t, 10*unknown, out(), "only what may still be billed is kept")
		require.EqualValues(t, 10*unknown, f.balance("messages").Held)
	}
	f.sound()

	require.NoError(t, f.Project(f.ctx, campaign.Projection{CampaignID: f.id, Version: 2, Event: "stage.closed", Status: campaign.Status{Stage: campaign.StageClosed, Revision: 1}}))
	f.exec(`UPDATE contact_attempt SET outcome = 'refused' WHERE outcome = 'unknown'`)
	f.exec(`UPDATE contact SET state = 'failed' WHERE state = 'unknown'`)
	spent := f.balance("messages").Captured
	for range 2 {
		require.NoError(t, f.SettleUnknown(f.ctx))
		require.Zero(t, out())
		require.Equal(t, spent, f.balance("messages").Captured)
	}
	f.sound()

	// A capture that is taken back is free money again, and leaves once.
	journal := f.count(`SELECT max(j.id) FROM ledger_journal j JOIN ledger_account a ON a.id = j.from_id WHERE a.owner = $1 AND j.kind = 'capture'`, f.id)
	_, err = f.Ledger.Reverse(f.ctx, "back", journal)
	require.NoError(t, err)
	free := out()
	require.Positive(t, free)
	returned, err := f.Ledger.Finish(f.ctx, f.id)
	require.NoError(t, err)
	require.Equal(t, free, returned)
	returned, err = f.Ledger.Finish(f.ctx, f.id)
	require.NoError(t, err)
	require.Zero(t, returned, "there is nothing left to take back")
	require.Zero(t, out())
	f.sound()
}

// waitsForALock waits until a session of the database waits for another's.
func (f *fixture) waitsForALock() {
	f.t.Helper()
	require.Eventually(f.t, func() bool {
		// The application does not see what other sessions wait for.
		var waiting int
		require.NoError(f.t, f.owner.Pool().QueryRow(f.ctx, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&waiting))
		return waiting > 0
	}, 20*time.Second, 10*time.Millisecond)
}

// An opt-out that waits is not received yet: whoever sends meanwhile cannot know of it.
func TestAnOptOutIsReceivedOnceItIsWritten(t *testing.T) {
	for name, record := range map[string]func(f *fixture, customers, numbers []string) error{
		"outcomes": func(f *fixture, customers, _ []string) error {
			batch := make([]store.Outcome, len(customers))
			for i, c := range customers {
				batch[i] = store.Outcome{CustomerID: c, Kind: campaign.OutcomeOptedOut, At: time.Now(), Source: "shop", SourceID: c}
			}
			_, err := f.Store.RecordOutcomes(f.ctx, f.id, true, batch)
			return err
		},
		"replies": func(f *fixture, _, numbers []string) error {
			batch := make([]store.Reply, len(numbers))
			for i, n := range numbers {
				batch[i] = store.Reply{From: n, Kind: campaign.OutcomeOptedOut, At: time.Now()}
			}
			return f.Store.RecordReplies(f.ctx, campaign.ChannelSMS, batch)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			f.run()
			_, err := f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, f.create(2, campaign.ChannelSMS)))
			require.NoError(t, err)
			var customers, numbers []string
			rows, err := f.owner.Pool().Query(f.ctx, `SELECT id::text, customer_id::text FROM contact WHERE state = 'sent' ORDER BY customer_id LIMIT 2`)
			require.NoError(t, err)
			var contact, customer string
			_, err = pgx.ForEachRow(rows, []any{&contact, &customer}, func() error {
				customers, numbers = append(customers, customer), append(numbers, f.sender.to[contact])
				return nil
			})
			require.NoError(t, err)
			require.Len(t, customers, 2)

			tx, err := f.owner.Pool().Begin(f.ctx)
			require.NoError(t, err)
			_, err = tx.Exec(f.ctx, `SELECT FROM customer WHERE id = $1 FOR UPDATE`, customers[1])
			require.NoError(t, err)
			done := make(chan error, 1)
			go func() { done <- record(f, customers, numbers) }()
			f.waitsForALock()
			var seen time.Time
			require.NoError(t, f.owner.Pool().QueryRow(f.ctx, `SELECT clock_timestamp()`).Scan(&seen))
			require.NoError(t, tx.Rollback(f.ctx))
			require.NoError(t, <-done)
			require.EqualValues(t, 2, f.count(`SELECT count(*) FROM outcome WHERE kind = 'opted_out' AND received_at > $1`, seen))
			require.EqualValues(t, 2, f.count(`SELECT count(*) FROM customer WHERE opted_out AND id = ANY($1::uuid[])`, customers))
		})
	}
}

// What was sent cannot be taken back: a person takes note of it, and dispatch goes on.
func TestASentMessageFreezesItsCampaignUntilItIsAcknowledged(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	batch := f.create(2, campaign.ChannelSMS)
	_, err := f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, batch))
	require.NoError(t, err)
	inspect := func() {
		f.exec(`UPDATE invariant_check SET began_at = '-infinity'`)
		require.NoError(t, f.Inspect(f.ctx))
	}
	late := func(n int) {
		require.EqualValues(t, n, f.exec(`INSERT INTO outcome (id, campaign_id, customer_id, kind, at, received_at, source, source_id, simulated)
			SELECT gen_random_uuid(), campaign_id, customer_id, 'opted_out', now(), now() - interval '1 hour', 'shop', id::text, true FROM contact c
			WHERE state = 'sent' AND NOT EXISTS (SELECT FROM outcome o WHERE o.source_id = c.id::text) ORDER BY id LIMIT $1`, n))
	}
	lift := func(words string) error {
		return f.Store.Lift(f.ctx, []campaign.OrgUnit{"operator"}, f.users["operator"], words, f.Ledger.Check)
	}
	frozen := func() bool {
		err := f.Store.RefuseFrozen(f.ctx, f.id)
		if err != nil {
			require.Equal(t, campaign.CodeDispatchFrozen, campaign.CodeOf(err))
		}
		return err != nil
	}
	late(1)
	inspect()
	require.True(t, frozen())
	mine := f.id
	f.draft(nil)
	f.run()
	require.False(t, frozen(), "another campaign")
	require.NotZero(t, f.create(2, campaign.ChannelSMS).Contacts)
	f.id = mine

	late(1)
	err = lift("the customer was told we are sorry")
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(err), "%v", err)
	require.ErrorContains(t, err, "D7")
	require.True(t, frozen(), "there are more than anybody was told of")
	require.NoError(t, lift("both were told"))
	require.False(t, frozen())
	inspect()
	require.False(t, frozen(), "these are known")
	require.EqualValues(t, 2, f.count(`SELECT count(*) FROM violation_acknowledged WHERE invariant = 'D7'`))
	require.EqualValues(t, 2, f.count(`SELECT (data->'acknowledged'->>'D7')::bigint FROM audit_event WHERE event = 'dispatch.lifted'`))

	late(1)
	inspect()
	require.True(t, frozen(), "this one is new")
	f.exec(`DELETE FROM contact WHERE id = (SELECT id FROM contact WHERE campaign_id = $1 AND state = 'sent' ORDER BY id DESC LIMIT 1)`, f.id)
	inspect()
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(lift("rows are gone")), "what can be mended is not acknowledged")
}
