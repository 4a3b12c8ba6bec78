package activities_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/channels"
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
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(f.Store.Lift(f.ctx, operator, "never mind", f.Ledger.Check)))
	f.exec(`UPDATE ledger_account SET posted = posted - 1 WHERE owner = $1 AND kind = 'line' AND line = 'gifts'`, f.id)
	require.NoError(t, f.Store.Lift(f.ctx, operator, "the posting was taken back", f.Ledger.Check))
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
