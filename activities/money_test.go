package activities_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/activities"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/channels"
	"github.com/musterhq/muster/ledger"
	"github.com/musterhq/muster/store"
)

const lease = time.Minute

func (f *fixture) balance(line string) ledger.LineBalance {
	f.t.Helper()
	all, err := f.Ledger.Balances(f.ctx, f.id)
	require.NoError(f.t, err)
	for _, b := range all {
		if b.Line == line {
			return b
		}
	}
	return ledger.LineBalance{}
}

func TestReserveAddsOnlyWhatALaterRevisionAdds(t *testing.T) {
	f := newFixture(t, nil)
	for range 2 {
		require.NoError(t, f.Reserve(f.ctx, f.ref()))
		require.EqualValues(t, 500_000, f.balance("messages").Held)
	}
	next := f.plan
	next.Budget = append([]campaign.BudgetLine(nil), f.plan.Budget...)
	next.Budget[1].Amount += 1_000
	_, err := f.Store.AddRevision(f.ctx, f.id, store.NewRevision{Plan: next, EditorID: f.users["planner"].UserID, Base: 1, Request: "more"})
	require.NoError(t, err)
	for range 2 {
		require.NoError(t, f.Reserve(f.ctx, campaign.PlanRef{CampaignID: f.id, Revision: 2}))
		require.EqualValues(t, 501_000, f.balance("messages").Held)
		require.EqualValues(t, 30_000, f.balance("posters").Held)
	}
	f.sound()
}

func TestMoneyIsCapturedOnceAndUnknownStaysHeld(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	batch := f.create(2, campaign.ChannelSMS)
	var unknown int
	f.sender.judge = func(_ int, m channels.Message) channels.Result {
		if m.ContactID[0] == '7' || m.ContactID[0] == 'a' {
			return channels.Result{Verdict: channels.Unknown}
		}
		return channels.Result{Verdict: channels.Accepted, ProviderID: "p-" + m.ContactID}
	}
	_, err := f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, batch))
	require.NoError(t, err)
	got := f.states(2, campaign.ChannelSMS)
	unknown = int(got["unknown"])
	require.Positive(t, unknown)
	ref := campaign.ChannelRef{CampaignID: f.id, Wave: 2, Revision: 1, Channel: campaign.ChannelSMS}
	for range 3 {
		require.NoError(t, f.CaptureChannel(f.ctx, ref))
		require.Equal(t, 10*got["sent"], f.balance("messages").Captured)
	}
	// Three customers buy, one of them twice, and one of the control group buys too.
	rows, err := f.Store.Contacts(f.ctx, f.id, store.ContactFilter{Limit: 3})
	require.NoError(t, err)
	var outcomes []store.Outcome
	for _, c := range rows {
		outcomes = append(outcomes, store.Outcome{CustomerID: c.CustomerID, Kind: campaign.OutcomeOrdered, Source: "shop", SourceID: c.ID})
	}
	outcomes = append(outcomes, store.Outcome{CustomerID: rows[0].CustomerID, Kind: campaign.OutcomeOrdered, Source: "shop", SourceID: "twice"})
	var control string
	require.NoError(t, f.Store.Pool().QueryRow(f.ctx, `SELECT customer_id::text FROM campaign_target WHERE arm = 'control' LIMIT 1`).Scan(&control))
	outcomes = append(outcomes, store.Outcome{CustomerID: control, Kind: campaign.OutcomeOrdered, Source: "shop", SourceID: "control"})
	landed, err := f.Store.RecordOutcomes(f.ctx, f.id, true, outcomes)
	require.NoError(t, err)
	require.Equal(t, 5, landed.Accepted)

	for range 2 {
		require.NoError(t, f.Settle(f.ctx, f.ref()))
		require.EqualValues(t, 6_000, f.balance("gifts").Captured)
		require.EqualValues(t, 30_000, f.balance("posters").Captured)
		require.Zero(t, f.balance("gifts").Held)
		require.Zero(t, f.balance("calls").Held)
		require.EqualValues(t, 2_000_000, f.balance("calls").Returned)
		m := f.balance("messages")
		require.EqualValues(t, 10*unknown, m.Held, "the unknown messages may be billed yet")
		require.Equal(t, int64(500_000), m.Held+m.Captured+m.Returned)
		f.sound()
	}
	// A receipt comes late: one unknown message was accepted after all.
	var id string
	require.NoError(t, f.Store.Pool().QueryRow(f.ctx, `SELECT id::text FROM contact WHERE state = 'unknown' LIMIT 1`).Scan(&id))
	require.NoError(t, f.Store.RecordReceipts(f.ctx, []store.Receipt{{Provider: "sms", ProviderID: "late", ContactID: id, State: store.ReceiptDelivered, At: time.Now()}}))
	require.NoError(t, f.Settle(f.ctx, f.ref()))
	require.EqualValues(t, 10*(got["sent"]+1), f.balance("messages").Captured)
	require.EqualValues(t, 10*(unknown-1), f.balance("messages").Held)
	f.sound()
}

func TestConcurrentCapturesSpendOnce(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	batch := f.create(2, campaign.ChannelSMS)
	_, err := f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, batch))
	require.NoError(t, err)
	ref := campaign.ChannelRef{CampaignID: f.id, Wave: 2, Revision: 1, Channel: campaign.ChannelSMS}
	faults := make(chan error, 6)
	for range cap(faults) {
		go func() { faults <- f.CaptureChannel(f.ctx, ref) }()
	}
	for range cap(faults) {
		require.NoError(t, <-faults)
	}
	require.Equal(t, 10*batch.Contacts, f.balance("messages").Captured)
	f.sound()
}

// What costs more than was reserved is never captured; the report says so.
func TestALineIsNeverOverspent(t *testing.T) {
	f := newFixture(t, func(p *campaign.Plan) { p.Budget[2].Amount = 5_000 })
	f.run()
	f.create(2, campaign.ChannelSMS)
	rows, err := f.Store.Contacts(f.ctx, f.id, store.ContactFilter{Limit: 4})
	require.NoError(t, err)
	for _, c := range rows {
		_, err := f.Store.RecordOutcomes(f.ctx, f.id, true, []store.Outcome{{CustomerID: c.CustomerID, Kind: campaign.OutcomeOrdered, Source: "shop", SourceID: c.ID}})
		require.NoError(t, err)
	}
	require.NoError(t, f.CloseContacts(f.ctx, f.ref()))
	for range 2 {
		require.NoError(t, f.Settle(f.ctx, f.ref()))
		require.EqualValues(t, 5_000, f.balance("gifts").Captured)
	}
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM audit_event WHERE event = 'budget.exceeded' AND data->>'exceeds_by' = '3000'`))
	require.NoError(t, f.Evaluate(f.ctx, campaign.EvaluationInput{CampaignID: f.id, Revision: 1}))
	r := f.report()
	require.Equal(t, map[string]int64{"gifts": 3_000}, r.Budget.Exceeded)
	require.EqualValues(t, 5_000+3_000+30_000, r.Economics.Cost)
	f.sound()
}

func TestACampaignThatNeverRanCostsNothing(t *testing.T) {
	f := newFixture(t, nil)
	f.approve()
	require.NoError(t, f.Settle(f.ctx, f.ref()))
	for _, line := range f.plan.Budget {
		b := f.balance(line.Line)
		require.Zero(t, b.Captured)
		require.Zero(t, b.Held)
	}
	f.sound()
}

// Money that is held for messages of unknown fate follows the proof, whenever it comes,
// and stays where it is without one.
func TestUnknownIsSettledWhenItIsKnown(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	batch := f.create(2, campaign.ChannelSMS)
	f.sender.judge = func(int, channels.Message) channels.Result { return channels.Result{Verdict: channels.Unknown} }
	in := f.chunk(2, campaign.ChannelSMS, batch)
	slow, err := f.Store.Dispatch(in, "slow", lease)
	require.NoError(t, err)
	claimed, err := slow.Claim(f.ctx, 2)
	require.NoError(t, err)
	_, _, err = slow.Intend(f.ctx, claimed, "sms", 1)
	require.NoError(t, err)
	f.exec(`UPDATE contact SET lease_until = now() - interval '1 second' WHERE state = 'sending'`)
	_, err = f.DispatchChunk(f.ctx, in)
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"unknown": batch.Contacts}, f.states(2, campaign.ChannelSMS))
	require.NoError(t, f.SettleUnknown(f.ctx))
	require.EqualValues(t, 500_000, f.balance("messages").Held, "the campaign runs")
	require.NoError(t, f.Settle(f.ctx, f.ref()))
	require.NoError(t, f.Project(f.ctx, campaign.Projection{CampaignID: f.id, Version: 2, Event: "stage.closed", Status: campaign.Status{
		Stage: campaign.StageClosed, Hold: campaign.HoldNone, Revision: 1,
	}}))
	settled := func(captured, unknown int64) {
		t.Helper()
		for range 2 {
			require.NoError(t, f.SettleUnknown(f.ctx))
			require.Equal(t, 10*captured, f.balance("messages").Captured)
			require.Equal(t, 10*unknown, f.balance("messages").Held)
			f.sound()
		}
	}
	all := batch.Contacts
	settled(0, all)

	// The worker was only slow: one of its messages had been refused, one had not left.
	require.NoError(t, slow.Complete(f.ctx, []store.Completion{
		{ContactID: claimed[0].ContactID, Epoch: claimed[0].Epoch, Outcome: store.AttemptRefused, Reason: "no such number"},
		{ContactID: claimed[1].ContactID, Epoch: claimed[1].Epoch, Outcome: store.AttemptNotSent},
	}))
	settled(0, all-2)

	// Receipts come late, to a campaign that is closed.
	rows, err := f.Store.Contacts(f.ctx, f.id, store.ContactFilter{Limit: 500})
	require.NoError(t, err)
	rows = slices.DeleteFunc(rows, func(c store.Contact) bool {
		return c.ID == claimed[0].ContactID.String() || c.ID == claimed[1].ContactID.String()
	})
	inbox := activities.Inbox{Store: f.Store, Channel: campaign.ChannelSMS}
	require.NoError(t, inbox.Receipts(f.ctx, []channels.Receipt{
		{ContactID: rows[0].ID, State: channels.StateDelivered, At: time.Now()},
		{ContactID: rows[1].ID, ProviderID: "late", State: channels.StateFailed, At: time.Now()},
		{ContactID: rows[2].ID, State: channels.StateRefused, Reason: "not taken", At: time.Now()},
		{ContactID: rows[3].ID, State: channels.StateUnknown, At: time.Now()},
	}))
	for applied := int64(1); applied > 0; {
		applied, err = f.Store.SweepReceipts(f.ctx, 100)
		require.NoError(t, err)
	}
	require.Equal(t, []campaign.ContactState{campaign.ContactDelivered, campaign.ContactFailed, campaign.ContactFailed, campaign.ContactUnknown},
		[]campaign.ContactState{f.state(rows[0].ID), f.state(rows[1].ID), f.state(rows[2].ID), f.state(rows[3].ID)})
	settled(2, all-5) // what was taken and not delivered is charged for

	// No word ever comes for the rest: that is told, once, and the money waits for the bill.
	told := func() int64 { return f.count(`SELECT count(*) FROM audit_event WHERE event = 'contacts.unresolved'`) }
	require.Zero(t, told())
	f.exec(`UPDATE contact_attempt SET intent_at = intent_at - interval '9 days'`)
	settled(2, all-5)
	require.EqualValues(t, 1, told())
	require.Equal(t, all-5, f.count(`SELECT (data->>'messages')::bigint FROM audit_event WHERE event = 'contacts.unresolved'`))

	var bill []store.Receipt
	for i, c := range rows[3:] {
		bill = append(bill, store.Receipt{Provider: "sms", ContactID: c.ID, State: []string{store.ReceiptAccepted, store.ReceiptRefused}[i%2], At: time.Now()})
	}
	require.NoError(t, f.Store.RecordReceipts(f.ctx, bill))
	_, err = f.Store.SweepReceipts(f.ctx, len(bill))
	require.NoError(t, err)
	settled(2+int64(len(bill)+1)/2, 0)
	require.Equal(t, 500_000-f.balance("messages").Captured, f.balance("messages").Returned)
}

// closed dispatches wave 2, leaves the messages that judge says unknown, settles and closes
// the campaign, and returns how many are unknown.
func (f *fixture) closed(unknown func(channels.Message) bool) int64 {
	f.t.Helper()
	f.sender.judge = func(_ int, m channels.Message) channels.Result {
		if unknown(m) {
			return channels.Result{Verdict: channels.Unknown}
		}
		return channels.Result{Verdict: channels.Accepted, ProviderID: "p-" + m.ContactID}
	}
	f.sent()
	require.NoError(f.t, f.CloseContacts(f.ctx, f.ref()))
	require.NoError(f.t, f.Settle(f.ctx, f.ref()))
	require.NoError(f.t, f.Project(f.ctx, campaign.Projection{CampaignID: f.id, Version: 2, Event: "stage.closed", Status: campaign.Status{
		Stage: campaign.StageClosed, Hold: campaign.HoldNone, Revision: 1,
	}}))
	return f.states(2, campaign.ChannelSMS)["unknown"]
}

// Only what becomes of unknown messages changes the money of a campaign that was settled.
func TestWhatWasSettledIsNotPricedAgain(t *testing.T) {
	f := newFixture(t, nil)
	unknown := f.closed(func(m channels.Message) bool { return m.ContactID[0] == '7' || m.ContactID[0] == 'a' })
	require.Greater(t, unknown, int64(1))
	before, gifts := f.balance("messages"), f.balance("gifts")
	require.Equal(t, 10*unknown, before.Held)

	// Messages would be counted otherwise today, and a success was counted too late.
	f.exec(`UPDATE contact_attempt SET parts = 3`)
	f.exec(`INSERT INTO outcome (id, campaign_id, customer_id, kind, at, source, source_id, simulated)
		SELECT gen_random_uuid(), campaign_id, customer_id, 'ordered', now(), 'shop', id::text, true FROM contact WHERE state = 'sent'`)
	require.NoError(t, f.SettleUnknown(f.ctx))
	require.Equal(t, before, f.balance("messages"))
	require.Equal(t, gifts, f.balance("gifts"))

	var id string
	require.NoError(t, f.Store.Pool().QueryRow(f.ctx, `SELECT id::text FROM contact WHERE state = 'unknown' LIMIT 1`).Scan(&id))
	require.NoError(t, f.Store.RecordReceipts(f.ctx, []store.Receipt{{Provider: "sms", ContactID: id, State: store.ReceiptDelivered, At: time.Now()}}))
	_, err := f.Store.SweepReceipts(f.ctx, 100)
	require.NoError(t, err)
	require.NoError(t, f.SettleUnknown(f.ctx))
	require.Equal(t, before.Captured+10, f.balance("messages").Captured)
	require.Equal(t, before.Held-10, f.balance("messages").Held)
	require.Zero(t, f.count(`SELECT count(*) FROM audit_event WHERE event = 'budget.exceeded'`))
	f.sound()
}

// A message that never gets proof keeps nobody busy with its whole campaign.
func TestUnknownMessagesAreFollowedByThemselves(t *testing.T) {
	f := newFixture(t, nil)
	var first sync.Once
	unknown := f.closed(func(channels.Message) (unknown bool) {
		first.Do(func() { unknown = true })
		return unknown
	})
	require.EqualValues(t, 1, unknown)
	tx, err := f.Store.Pool().Begin(f.ctx)
	require.NoError(t, err)
	defer tx.Rollback(f.ctx)
	_, err = tx.Exec(f.ctx, `LOCK TABLE contact, campaign_target, outcome IN ACCESS EXCLUSIVE MODE`)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(f.ctx, 10*time.Second)
	defer cancel()
	require.NoError(t, f.SettleUnknown(ctx), "it reads the contacts of the campaign")
	require.NoError(t, tx.Rollback(f.ctx))

	f.exec(`UPDATE contact_attempt SET outcome = 'refused' WHERE outcome = 'unknown'`)
	f.exec(`UPDATE contact SET state = 'failed' WHERE state = 'unknown'`)
	open, err := f.Store.OpenSettlements(f.ctx)
	require.NoError(t, err)
	require.Len(t, open, 1)
	require.NoError(t, f.SettleUnknown(f.ctx))
	require.Zero(t, f.balance("messages").Held)
	open, err = f.Store.OpenSettlements(f.ctx)
	require.NoError(t, err)
	require.Empty(t, open, "nothing is left to follow")
	f.sound()
}
