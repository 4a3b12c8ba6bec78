package activities_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

func today() campaign.Date { return campaign.DateOf(time.Now().UTC()) }

// since is a list with one price until yesterday and another from today on.
func since(before, now campaign.Price) campaign.PriceList {
	before.Until, now.From = today().AddDays(-1), today()
	return campaign.PriceList{before, now}
}

func linear(cost int64) campaign.Price {
	return campaign.Price{Kind: campaign.PriceLinear, UnitCost: cost}
}

// earlier moves attempts of a channel's first n contacts to a day before today.
func (f *fixture) earlier(channel campaign.Channel, n int) {
	f.t.Helper()
	moved := f.exec(`UPDATE contact_attempt SET intent_at = intent_at - interval '2 days' WHERE contact_id IN (
		SELECT c.id FROM contact c JOIN contact_attempt a ON a.contact_id = c.id WHERE c.channel = $1 ORDER BY c.id LIMIT $2)`, channel, n)
	require.EqualValues(f.t, n, moved)
}

func TestALineIsChargedByUnitAndDay(t *testing.T) {
	f := newFixture(t, func(p *campaign.Plan) {
		calls := &p.Budget[0]
		calls.Unit, calls.UnitCost, calls.Prices = campaign.UnitMinute, 0, since(linear(30), linear(40))
		p.Channels[0].MaximumMinutes = 10
		messages := &p.Budget[1]
		messages.Unit, messages.UnitCost = campaign.UnitMessage, 0
		messages.Prices = since(linear(7), campaign.Price{Kind: campaign.PriceStepped, UnitCost: 5, Steps: []campaign.PriceStep{{Above: 50, UnitCost: 3}}})
		p.Budget[2].UnitCost, p.Budget[2].Prices = 0, since(campaign.Price{Kind: campaign.PriceFlat, Flat: 9_000}, linear(100))
		p.Budget = append(p.Budget, campaign.BudgetLine{Line: "bonus", Category: campaign.CategoryIncentive, Driver: campaign.DriverPerActivation, UnitCost: 11, Amount: 5_000})
		p.Contingency = 4_321
		p.Channels[1].Text = "双倍流量,回复T退订。本优惠适用于所有在网满三个月的客户,办理后次月生效,详情请咨询营业厅或拨打客服热线。流量当月有效,不可结转,不可转让,最终解释权归运营商所有,感谢您的支持。"
	})
	f.run()
	require.EqualValues(t, 4_321, f.count(`SELECT posted FROM ledger_account WHERE kind = 'campaign'`), "the contingency is on no line")

	a := f.call()
	tasks := a.claim(6)
	require.Len(t, tasks, 6)
	reports := make([]store.TaskReport, len(tasks))
	for i, seconds := range []int64{0, 1, 60, 61, 599, 0} { // 0, 1, 1, 2 and 10 minutes, and nobody there
		reports[i] = store.TaskReport{TaskID: tasks[i].ID, Result: campaign.OutcomeConnected, Seconds: seconds}
	}
	reports[5].Result = campaign.OutcomeNoAnswer
	reports[0].Outcomes = []store.Outcome{{Kind: campaign.OutcomeOrdered}, {Kind: campaign.OutcomeActivated}}
	reports[1].Outcomes = []store.Outcome{{Kind: campaign.OutcomeOrdered, At: time.Now().Add(-48 * time.Hour)}}
	_, err := f.Store.CompleteTasks(f.ctx, a.id, a.units, "minutes", reports)
	require.NoError(t, err)
	captured := func(channel campaign.Channel, wave int) int64 {
		require.NoError(t, f.CaptureChannel(f.ctx, campaign.ChannelRef{CampaignID: f.id, Wave: wave, Revision: 1, Channel: channel}))
		line, _ := f.plan.ContactLine(channel)
		return f.balance(line.Line).Captured
	}
	require.EqualValues(t, 14*40, captured(campaign.ChannelCall, 1))

	batch := f.create(2, campaign.ChannelSMS)
	_, err = f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, batch))
	require.NoError(t, err)
	sent := f.states(2, campaign.ChannelSMS)["sent"]
	require.Greater(t, sent, int64(60))
	require.EqualValues(t, 2, f.count(`SELECT max(parts) FROM contact_attempt`), "the message goes out in parts, and is charged as one")
	f.earlier(campaign.ChannelSMS, 10)
	require.EqualValues(t, 10*7+50*5+(sent-60)*3, captured(campaign.ChannelSMS, 2))

	cost := map[string]int64{
		"calls": 14 * 40, "messages": 10*7 + 50*5 + (sent-60)*3, "gifts": 9_000 + 100, "bonus": 11, "posters": 30_000,
	}
	for range 2 {
		require.NoError(t, f.CloseContacts(f.ctx, f.ref()))
		require.NoError(t, f.Settle(f.ctx, f.ref()))
		for line, want := range cost {
			require.Equal(t, want, f.balance(line).Captured, line)
			require.Zero(t, f.balance(line).Held, line)
		}
		f.sound()
	}
	require.NoError(t, f.Evaluate(f.ctx, campaign.EvaluationInput{CampaignID: f.id, Revision: 1}))
	report := f.report()
	require.Empty(t, report.Budget.Exceeded)
	for _, l := range report.Budget.Lines {
		require.Equal(t, cost[l.Line], l.Actual, l.Line)
	}
}

// A channel that its line does not pay for waits for money, says so once, and goes on with
// the others when the line is raised.
func TestAChannelWaitsForMoney(t *testing.T) {
	f := newFixture(t, func(p *campaign.Plan) { p.Budget[1].Amount = 20 * 10; p.Budget[2].Amount += 500_000 - 20*10 })
	f.run()
	ref := campaign.ChannelRef{CampaignID: f.id, Wave: 2, Revision: 1, Channel: campaign.ChannelSMS}
	batch := f.create(2, campaign.ChannelSMS)
	waiting := batch.Contacts - 20
	require.Equal(t, waiting, batch.Unpaid)
	require.Equal(t, waiting*10, batch.Needed)
	require.Equal(t, batch, f.create(2, campaign.ChannelSMS), "a repetition says the same")
	_, err := f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, batch))
	require.NoError(t, err)
	exhausted := func(n int, needed int64) {
		t.Helper()
		require.EqualValues(t, n, f.count(`SELECT count(*) FROM audit_event WHERE event = 'budget.exhausted' AND campaign_id = $1`, f.id))
		require.Equal(t, needed, f.count(`SELECT (data->>'needed')::bigint FROM audit_event WHERE event = 'budget.exhausted'
			AND data->>'line' = 'messages' AND data->>'channel' = 'sms' ORDER BY at DESC LIMIT 1`))
	}
	exhausted(1, waiting*10)
	pay := func() campaign.PaidContacts {
		t.Helper()
		paid, err := f.PayContacts(f.ctx, ref)
		require.NoError(t, err)
		return paid
	}
	require.Zero(t, pay().Planned)
	exhausted(1, waiting*10)
	unpaid, err := f.Store.UnpaidChannels(f.ctx, f.id)
	require.NoError(t, err)
	require.Len(t, unpaid, 1)
	require.Equal(t, waiting, unpaid[0].Contacts)
	progress, err := f.Progress(f.ctx, ref)
	require.NoError(t, err)
	require.Equal(t, waiting, progress.Unpaid)

	raise := func(revision int, amount int64) {
		t.Helper()
		next := f.plan
		next.Budget = append([]campaign.BudgetLine(nil), f.plan.Budget...)
		next.Budget[1].Amount = amount
		require.True(t, campaign.NeedsApproval(&f.plan, &next), "a raised line is signed for")
		_, err := f.Store.AddRevision(f.ctx, f.id, store.NewRevision{Plan: next, EditorID: f.users["planner"].UserID, Base: revision - 1, Request: fmt.Sprint(revision)})
		require.NoError(t, err)
		require.Zero(t, pay().Planned, "it is not in force yet")
		f.plan, f.signed = next, revision
		f.sign()
		require.NoError(t, f.Reserve(f.ctx, campaign.PlanRef{CampaignID: f.id, Revision: revision}))
		require.NoError(t, f.Project(f.ctx, campaign.Projection{CampaignID: f.id, Version: int64(revision), Event: "plan.amended", Status: campaign.Status{
			Stage: campaign.StageRunning, Hold: campaign.HoldNone, Revision: revision,
		}}))
	}
	raise(2, 50*10)
	paid := pay()
	require.EqualValues(t, 30, paid.Planned)
	require.Equal(t, []campaign.ShardRange{{FromSeq: 21, ToSeq: 50}}, paid.Shards, "in the order in which they were passed over")
	require.Equal(t, waiting-30, paid.Unpaid)
	exhausted(2, (waiting-30)*10)
	raise(3, batch.Contacts*10)
	require.Equal(t, waiting-30, pay().Planned)
	require.Zero(t, pay().Planned, "nobody is left")
	unpaid, err = f.Store.UnpaidChannels(f.ctx, f.id)
	require.NoError(t, err)
	require.Empty(t, unpaid)
	_, err = f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, batch))
	require.NoError(t, err)
	require.Equal(t, batch.Contacts, f.sender.once(t), "everybody once")
	require.NoError(t, f.CloseContacts(f.ctx, f.ref()))
	require.NoError(t, f.Settle(f.ctx, campaign.PlanRef{CampaignID: f.id, Revision: 3}))
	require.Equal(t, batch.Contacts*10, f.balance("messages").Captured)
	f.sound()
}

// Who signed must still be allowed to when money comes for more people; until then the
// channel goes on with what it has.
func TestPaidContactsStandOnSignaturesToo(t *testing.T) {
	f := newFixture(t, func(p *campaign.Plan) { p.Budget[1].Amount = 20 * 10; p.Budget[2].Amount += 500_000 - 20*10 })
	f.run()
	waiting := f.create(2, campaign.ChannelSMS).Unpaid
	require.Positive(t, waiting)
	// As if the line had paid for more: a person who was passed over costs nothing yet.
	f.exec(`UPDATE contact SET state = 'cancelled', reason = 'test' WHERE campaign_id = $1 AND wave = 2 AND state = 'planned'`, f.id)
	f.exec(`DELETE FROM role_grant WHERE user_id = (SELECT id FROM app_user WHERE login = 'finance')`)
	ref := campaign.ChannelRef{CampaignID: f.id, Wave: 2, Revision: 1, Channel: campaign.ChannelSMS}
	for range 2 {
		paid, err := f.PayContacts(f.ctx, ref)
		require.NoError(t, err)
		require.Zero(t, paid.Planned)
		require.Equal(t, waiting, paid.Unpaid)
	}
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM audit_event WHERE campaign_id = $1 AND event = 'dispatch.refused' AND NOT allowed`, f.id))
	f.exec(`INSERT INTO role_grant (user_id, role, unit) VALUES ((SELECT id FROM app_user WHERE login = 'finance'), 'finance', 'operator')`)
	paid, err := f.PayContacts(f.ctx, ref)
	require.NoError(t, err)
	require.Positive(t, paid.Planned)
}

// A channel that is closed takes nobody any more, whatever is paid then.
func TestAClosedChannelIsNotPaidFor(t *testing.T) {
	f := newFixture(t, func(p *campaign.Plan) { p.Budget[1].Amount = 20 * 10; p.Budget[2].Amount += 500_000 - 20*10 })
	f.run()
	require.Positive(t, f.create(2, campaign.ChannelSMS).Unpaid)
	ref := campaign.ChannelRef{CampaignID: f.id, Wave: 2, Revision: 1, Channel: campaign.ChannelSMS}
	_, err := f.CloseChannel(f.ctx, campaign.CloseChannel{ChannelRef: ref, State: campaign.ContactExpired, Reason: "window_closed"})
	require.NoError(t, err)
	paid, err := f.PayContacts(f.ctx, ref)
	require.NoError(t, err)
	require.Zero(t, paid.Planned)
	unpaid, err := f.Store.UnpaidChannels(f.ctx, f.id)
	require.NoError(t, err)
	require.Empty(t, unpaid)
	f.sound()
}

// Calls that are paid by the minute are planned at their longest. What shorter ones leave
// pays for others, and all of them together never cost more than the line.
func TestMinutesNeverCostMoreThanTheLine(t *testing.T) {
	const price, longest, minutes = 30, 5, 63
	f := newFixture(t, func(p *campaign.Plan) {
		calls := &p.Budget[0]
		calls.Unit, calls.UnitCost, calls.Amount = campaign.UnitMinute, price, minutes*price
		p.Budget[2].Amount += 2_000_000 - minutes*price
		p.Channels[0].MaximumMinutes = longest
	})
	f.run()
	a := f.call()
	require.EqualValues(t, minutes/longest, f.states(1, campaign.ChannelCall)["claimed"])
	ref := campaign.ChannelRef{CampaignID: f.id, Wave: 1, Revision: 1, Channel: campaign.ChannelCall}
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 1))
	var used int64
	for round := 0; ; round++ {
		f.exec(`UPDATE task SET not_before = now() - interval '1 second'`)
		tasks := a.claim(1 + random.IntN(5))
		if len(tasks) == 0 {
			paid, err := f.PayContacts(f.ctx, ref)
			require.NoError(t, err)
			if paid.Planned == 0 {
				break
			}
			_, err = f.DispatchChunk(f.ctx, campaign.ChunkInput{CampaignID: f.id, Wave: 1, Revision: 1, Channel: campaign.ChannelCall, FromSeq: paid.Shards[0].FromSeq, ToSeq: paid.Shards[0].ToSeq})
			require.NoError(t, err)
			continue
		}
		reports := make([]store.TaskReport, len(tasks))
		for i, task := range tasks {
			reports[i] = store.TaskReport{TaskID: task.ID, Result: campaign.OutcomeNoAnswer}
			if random.IntN(3) > 0 {
				reports[i].Result, reports[i].Seconds = campaign.OutcomeConnected, random.Int64N(longest*60+1)
				used += (reports[i].Seconds + 59) / 60
			}
		}
		_, err := f.Store.CompleteTasks(f.ctx, a.id, a.units, fmt.Sprint(round), reports)
		require.NoError(t, err)
		require.NoError(t, f.CaptureChannel(f.ctx, ref))
		require.LessOrEqual(t, used, int64(minutes), "seed %d", seed)
		require.Equal(t, used*price, f.balance("calls").Captured, "seed %d", seed)
		f.sound()
	}
	unpaid := f.count(`SELECT count(*) FROM contact WHERE channel = 'call' AND state = 'suppressed' AND reason = 'budget'`)
	require.True(t, unpaid == 0 || minutes-used < longest, "seed %d: %d minutes are left, and %d wait", seed, minutes-used, unpaid)
	require.Zero(t, f.count(`SELECT count(*) FROM audit_event WHERE event = 'budget.exceeded'`))
}

// A call that nobody answered takes no minute, so its next attempt has those that were kept
// for it, unless other calls were longer than planned.
func TestFurtherAttemptsAreKeptTheirMinutes(t *testing.T) {
	const price, longest = 30, 5
	f := newFixture(t, func(p *campaign.Plan) {
		calls := &p.Budget[0]
		calls.Unit, calls.UnitCost, calls.Amount = campaign.UnitMinute, price, 3*longest*price
		p.Budget[2].Amount += 2_000_000 - 3*longest*price
		p.Channels[0].MaximumMinutes, p.Channels[0].MaximumAttempts = longest, 5
	})
	f.run()
	a := f.call()
	tasks := a.claim(10)
	require.Len(t, tasks, 3)
	report := func(task store.Task, result campaign.OutcomeKind, minutes int64) string {
		t.Helper()
		a.n++
		results, err := a.Store.CompleteTasks(a.ctx, a.id, a.units, fmt.Sprint(a.n), []store.TaskReport{{TaskID: task.ID, Result: result, Seconds: 60 * minutes}})
		require.NoError(t, err)
		require.NoError(t, results[0].Fault)
		return results[0].State
	}
	claimed := func() store.Task {
		t.Helper()
		tasks := a.claim(1)
		require.Len(t, tasks, 1)
		return tasks[0]
	}
	require.Equal(t, "open", report(tasks[0], campaign.OutcomeNoAnswer, 0))
	require.Equal(t, "done", report(tasks[1], campaign.OutcomeConnected, longest+1))
	again := claimed()
	require.Equal(t, "done", report(again, campaign.OutcomeNoAnswer, 0), "four minutes are left beside those that are kept for the third")
	require.Equal(t, "failed budget done no_answer", f.ends(again.ID))
	require.Equal(t, "done", report(tasks[2], campaign.OutcomeConnected, longest))
	require.NoError(t, f.CaptureChannel(f.ctx, campaign.ChannelRef{CampaignID: f.id, Wave: 1, Revision: 1, Channel: campaign.ChannelCall}))
	require.EqualValues(t, (2*longest+1)*price, f.balance("calls").Captured)
	f.sound()
}
