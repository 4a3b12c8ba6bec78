package activities_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
	_, err := f.Store.AddRevision(f.ctx, f.id, next, f.users["planner"].UserID, "more")
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
		require.EqualValues(t, 2_000_000, f.balance("calls").Available)
		m := f.balance("messages")
		require.EqualValues(t, 10*unknown, m.Held, "the unknown messages may be billed yet")
		require.Equal(t, int64(500_000), m.Held+m.Captured+m.Available)
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
