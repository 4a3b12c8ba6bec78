package activities_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/channels"
	"github.com/musterhq/muster/store"
)

func TestSelectionIsFrozenOnceAndAddsUp(t *testing.T) {
	f := newFixture(t, nil)
	count := f.run()
	// Ages are 20 to 59, ten customers each; the last digit 0 opted out: ages 20, 30, 40, 50.
	require.EqualValues(t, customers, count.Considered)
	require.EqualValues(t, 300, count.Matching)
	require.EqualValues(t, 30, count.Suppressed)
	require.EqualValues(t, 270, count.Targets)
	require.Equal(t, 1, count.Snapshot)
	var treated, control int64
	for _, w := range count.Waves {
		treated += w.Treated
		control += w.Control
	}
	require.Equal(t, count.Targets, treated+control)
	require.Equal(t, count.Control, control)
	require.Positive(t, control)
	require.EqualValues(t, 90, count.Waves[0].Treated+count.Waves[0].Control)

	again, err := f.SelectTargets(f.ctx, campaign.SelectionInput{CampaignID: f.id, Revision: 1})
	require.NoError(t, err)
	require.Equal(t, count, again)
	require.Equal(t, count.Targets, f.count(`SELECT count(*) FROM campaign_target WHERE campaign_id = $1`, f.id))
	f.sound()
}

// Two workers that get the same task freeze one snapshot between them.
func TestConcurrentSelectionsFreezeOne(t *testing.T) {
	f := newFixture(t, nil)
	f.approve()
	type answer struct {
		count campaign.TargetCount
		err   error
	}
	answers := make(chan answer, 4)
	for range cap(answers) {
		go func() {
			count, err := f.SelectTargets(f.ctx, campaign.SelectionInput{CampaignID: f.id, Revision: 1})
			answers <- answer{count, err}
		}()
	}
	for range cap(answers) {
		a := <-answers
		require.NoError(t, a.err)
		require.EqualValues(t, 270, a.count.Targets)
	}
	require.EqualValues(t, 270, f.count(`SELECT count(*) FROM campaign_target`))
}

func TestSelectionAgainForAnotherRevision(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	next := f.plan
	next.Audience.Filter = "age < 40"
	loaded, err := f.Store.AddRevision(f.ctx, f.id, store.NewRevision{Plan: next, EditorID: f.users["planner"].UserID, Base: 1, Request: "narrower"})
	require.NoError(t, err)
	require.Equal(t, 2, loaded.Revision)
	wider := f.plan
	f.plan, f.signed = next, 2
	f.sign()
	count, err := f.SelectTargets(f.ctx, campaign.SelectionInput{CampaignID: f.id, Revision: 2})
	require.NoError(t, err)
	require.EqualValues(t, 180, count.Targets)
	require.EqualValues(t, 180, f.count(`SELECT count(*) FROM campaign_target`))
	f.sound()
	f.exec(`INSERT INTO contact_batch (campaign_id, wave, channel, revision, contacts, shards) VALUES ($1, 1, 'sms', 2, 0, '{}')`, f.id)
	_, err = f.Store.AddRevision(f.ctx, f.id, store.NewRevision{Plan: wider, EditorID: f.users["planner"].UserID, Base: 1, Request: "wider"})
	require.NoError(t, err)
	f.plan, f.signed = wider, 3
	f.sign()
	reserved := f.count(`SELECT count(*) FROM contact_ledger WHERE state = 'R'`)
	require.Positive(t, reserved)
	_, err = f.SelectTargets(f.ctx, campaign.SelectionInput{CampaignID: f.id, Revision: 3})
	require.Equal(t, campaign.CodeStateConflict, code(t, err), "contacts exist")
	require.EqualValues(t, 180, f.count(`SELECT count(*) FROM campaign_target`))
	require.Equal(t, reserved, f.count(`SELECT count(*) FROM contact_ledger WHERE state = 'R'`), "what runs keeps its reservations")
}

func TestSelectionRefuses(t *testing.T) {
	f := newFixture(t, nil)
	for name, tc := range map[string]struct {
		change func(*campaign.Plan)
		code   campaign.Code
		field  string
	}{
		"nobody matches":              {func(p *campaign.Plan) { p.Audience.Filter = "age > 1000" }, campaign.CodeEmptySelection, ""},
		"an unknown attribute":        {func(p *campaign.Plan) { p.Audience.Filter = "\nshoe_size > 40" }, campaign.CodeInvalidFilter, "audience.filter"},
		"known only after contacts":   {func(p *campaign.Plan) { p.Audience.Filter = "duration > 60" }, campaign.CodeInvalidFilter, "audience.filter"},
		"personal data":               {func(p *campaign.Plan) { p.Audience.Tiers[1].Filter = "passport == 'P'" }, campaign.CodeInvalidFilter, "audience.tiers[1].filter"},
		"a filter that is no yes/no":  {func(p *campaign.Plan) { p.Audience.Tiers[0].Filter = "age + 1" }, campaign.CodeInvalidFilter, "audience.tiers[0].filter"},
		"a unit without any customer": {func(p *campaign.Plan) { p.Unit = "operator/north"; p.Audience.Filter = "org_unit == 'operator/south'" }, campaign.CodeEmptySelection, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f.draft(tc.change)
			f.round = campaign.Round{}
			if tc.code == campaign.CodeEmptySelection {
				f.sign()
			}
			_, err := f.SelectTargets(f.ctx, campaign.SelectionInput{CampaignID: f.id, Revision: 1})
			require.Equal(t, tc.code, code(t, err))
			var app *temporal.ApplicationError
			require.ErrorAs(t, err, &app)
			require.True(t, app.NonRetryable())
			if tc.field != "" {
				var fields []campaign.FieldError
				var figures map[string]any
				require.NoError(t, app.Details(&fields, &figures))
				require.Equal(t, tc.field, fields[0].Field)
				require.Positive(t, fields[0].Line)
				require.Equal(t, campaign.CodeInvalidFilter, code(t, f.Prepare(f.ctx, f.ref())))
			}
			require.Zero(t, f.count(`SELECT count(*) FROM selection`))
		})
	}
}

func TestContactsAreCreatedOnceForTheTreated(t *testing.T) {
	f := newFixture(t, nil)
	count := f.run()
	batch := f.create(2, campaign.ChannelSMS)
	require.Equal(t, count.Waves[1].Treated, batch.Contacts)
	require.Equal(t, batch, f.create(2, campaign.ChannelSMS))
	require.Equal(t, batch.Contacts, f.count(`SELECT count(*) FROM contact`))
	f.sound()
}

// The second channel of a series takes exactly those whom the first did not reach and
// whose conversation goes on.
func TestSeriesTakesTheNotReached(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	first := f.create(1, campaign.ChannelCall)
	_, err := f.DispatchChunk(f.ctx, f.chunk(1, campaign.ChannelCall, first))
	require.NoError(t, err)
	contacts, err := f.Store.Contacts(f.ctx, f.id, store.ContactFilter{Limit: 200})
	require.NoError(t, err)
	states := []campaign.ContactState{campaign.ContactDelivered, campaign.ContactFailed, campaign.ContactExpired, campaign.ContactSuppressed, campaign.ContactCancelled}
	want := map[string]bool{}
	for i, c := range contacts {
		state := states[i%len(states)]
		f.exec(`UPDATE contact SET state = $2 WHERE id = $1`, c.ID, state)
		f.exec(`DELETE FROM task WHERE id = $1`, c.ID)
		want[c.CustomerID] = state == campaign.ContactFailed || state == campaign.ContactExpired
	}
	// Four of the not reached answered otherwise; a redeemed coupon ends nothing.
	answers := []campaign.OutcomeKind{campaign.OutcomeOrdered, campaign.OutcomeDeclined, campaign.OutcomeComplained, campaign.OutcomeOptedOut, campaign.OutcomeRedeemed}
	for i, kind := range answers {
		who := contacts[5*i+1].CustomerID
		_, err := f.Store.RecordOutcomes(f.ctx, f.id, true, []store.Outcome{{CustomerID: who, Kind: kind, Source: "shop", SourceID: who}})
		require.NoError(t, err)
		want[who] = kind == campaign.OutcomeRedeemed
	}
	second := f.create(1, campaign.ChannelSMS, campaign.ChannelCall)
	got := map[string]bool{}
	all, err := f.Store.Contacts(f.ctx, f.id, store.ContactFilter{Channel: campaign.ChannelSMS, Limit: 200})
	require.NoError(t, err)
	require.EqualValues(t, len(all), second.Contacts)
	for _, c := range all {
		got[c.CustomerID] = true
	}
	n := 0
	for who, takes := range want {
		require.Equal(t, takes, got[who], "customer %s", who)
		if takes {
			n++
		}
	}
	require.Len(t, all, n)
	require.EqualValues(t, n, f.count(`SELECT max(seq) FROM contact WHERE channel = 'sms'`), "numbered anew without gaps")
}

func TestContactsBeyondTheBudgetAreSuppressed(t *testing.T) {
	f := newFixture(t, func(p *campaign.Plan) { p.Budget[1].Amount = 509 })
	f.run()
	batch := f.create(2, campaign.ChannelSMS)
	require.Equal(t, map[string]int64{"planned": 50, "suppressed": batch.Contacts - 50}, f.states(2, campaign.ChannelSMS))
	_, err := f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, batch))
	require.NoError(t, err)
	require.EqualValues(t, 50, f.sender.once(t))
	ref := campaign.ChannelRef{CampaignID: f.id, Wave: 2, Revision: 1, Channel: campaign.ChannelSMS}
	require.NoError(t, f.CaptureChannel(f.ctx, ref))
	require.EqualValues(t, 500, f.balance("messages").Captured)
	f.series(1, campaign.ChannelSMS)
	first := f.create(1, campaign.ChannelSMS)
	require.Equal(t, map[string]int64{"suppressed": first.Contacts}, f.states(1, campaign.ChannelSMS), "nothing is left for another wave")
	f.sound()
}

func TestClosingGivesEveryContactAFinalState(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	call := f.create(1, campaign.ChannelCall)
	_, err := f.DispatchChunk(f.ctx, f.chunk(1, campaign.ChannelCall, call))
	require.NoError(t, err)
	ref := campaign.ChannelRef{CampaignID: f.id, Wave: 1, Revision: 1, Channel: campaign.ChannelCall}
	p, err := f.Progress(f.ctx, ref)
	require.NoError(t, err)
	require.Equal(t, campaign.ChannelProgress{Contacts: call.Contacts, Open: call.Contacts}, p)
	_, err = f.CloseChannel(f.ctx, campaign.CloseChannel{ChannelRef: ref, State: campaign.ContactDelivered})
	require.Equal(t, campaign.CodeInvalidParameter, code(t, err))
	for range 2 {
		p, err = f.CloseChannel(f.ctx, campaign.CloseChannel{ChannelRef: ref, State: campaign.ContactExpired, Reason: "window_closed"})
		require.NoError(t, err)
		require.Equal(t, campaign.ChannelProgress{Contacts: call.Contacts}, p)
		require.Equal(t, map[string]int64{"expired": call.Contacts}, f.states(1, campaign.ChannelCall))
		require.EqualValues(t, call.Contacts, f.count(`SELECT count(*) FROM task WHERE state = 'withdrawn'`))
	}

	sms := f.create(2, campaign.ChannelSMS)
	in := f.chunk(2, campaign.ChannelSMS, sms)
	other, err := f.Store.Dispatch(in, "other", lease)
	require.NoError(t, err)
	claimed, err := other.Claim(f.ctx, 10)
	require.NoError(t, err)
	_, _, err = other.Intend(f.ctx, claimed[:4], "sms", 1)
	require.NoError(t, err)
	require.Equal(t, campaign.CodeStateConflict, code(t, f.CloseContacts(f.ctx, f.ref())), "four messages are under way")
	require.Equal(t, map[string]int64{"sending": 4, "expired": sms.Contacts - 4}, f.states(2, campaign.ChannelSMS))
	f.exec(`UPDATE contact SET lease_until = now() - interval '1 second' WHERE state = 'sending'`)
	require.NoError(t, f.CloseContacts(f.ctx, f.ref()))
	require.Equal(t, map[string]int64{"unknown": 4, "expired": sms.Contacts - 4}, f.states(2, campaign.ChannelSMS))
	f.sound()
}

// The targets are filled in before their table becomes the campaign's partition; a second
// selection finds it as one, with all that belongs to it.
func TestFrozenTargetsAreAPartition(t *testing.T) {
	f := newFixture(t, nil)
	f.approve()
	partition := "campaign_target_" + strings.ReplaceAll(f.id, "-", "")
	for revision := 1; revision <= 2; revision++ {
		count, err := f.SelectTargets(f.ctx, campaign.SelectionInput{CampaignID: f.id, Revision: revision})
		require.NoError(t, err)
		require.Equal(t, count.Targets, f.count(`SELECT count(*) FROM campaign_target WHERE campaign_id = $1 AND snapshot = $2`, f.id, revision))
		require.EqualValues(t, 1, f.count(`SELECT count(*) FROM pg_inherits WHERE inhrelid = $1::regclass`, partition))
		require.EqualValues(t, 1, f.count(`SELECT count(*) FROM pg_index WHERE indrelid = $1::regclass AND indisprimary AND indisvalid`, partition))
		_, err = f.Store.AddRevision(f.ctx, f.id, store.NewRevision{Plan: f.plan, EditorID: f.users["planner"].UserID, Base: revision, Request: "again"})
		require.NoError(t, err)
	}
}

// A message that comes back after its channel was closed ends as the channel did.
func TestNotSentAfterTheChannelClosedEndsWithIt(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	batch := f.create(2, campaign.ChannelSMS)
	worker, err := f.Store.Dispatch(f.chunk(2, campaign.ChannelSMS, batch), "slow", lease)
	require.NoError(t, err)
	claimed, err := worker.Claim(f.ctx, 3)
	require.NoError(t, err)
	_, _, err = worker.Intend(f.ctx, claimed, "sms", 1)
	require.NoError(t, err)
	notSent := func(i int) {
		require.NoError(t, worker.Complete(f.ctx, []store.Completion{{
			ContactID: claimed[i].ContactID, Epoch: claimed[i].Epoch, Outcome: store.AttemptNotSent, Reason: "busy", RetryAfter: time.Minute,
		}}))
	}
	notSent(0)
	require.Equal(t, campaign.ContactPlanned, f.state(claimed[0].ContactID.String()))
	ref := campaign.ChannelRef{CampaignID: f.id, Wave: 2, Revision: 1, Channel: campaign.ChannelSMS}
	_, err = f.CloseChannel(f.ctx, campaign.CloseChannel{ChannelRef: ref, State: campaign.ContactExpired, Reason: "window_closed"})
	require.NoError(t, err)
	notSent(1)
	require.Equal(t, campaign.ContactExpired, f.state(claimed[1].ContactID.String()))
	require.EqualValues(t, batch.Contacts-1, f.count(`SELECT count(*) FROM contact WHERE state = 'expired' AND reason = 'window_closed'`))
	// The places of all but the one that is still being sent are free again.
	require.Equal(t, batch.Contacts-1, f.count(`SELECT count(*) FROM contact_ledger WHERE campaign_id = $1 AND wave = 2 AND state = 'X'`, f.id))
	f.sound()
}

// The operator charges for every part of a long message, and so does the budget.
func TestLongMessagesCostTheirParts(t *testing.T) {
	f := newFixture(t, func(p *campaign.Plan) {
		p.Channels[1].Text = strings.Repeat("双倍流量", 30) + "回复T退订" // two parts of UCS-2
		p.Budget[1].Amount = 509
	})
	f.run()
	batch := f.create(2, campaign.ChannelSMS)
	require.Equal(t, map[string]int64{"planned": 25, "suppressed": batch.Contacts - 25}, f.states(2, campaign.ChannelSMS))
	var n atomic.Int64
	f.sender.judge = func(_ int, m channels.Message) channels.Result {
		if n.Add(1) > 20 {
			return channels.Result{Verdict: channels.Unknown}
		}
		return channels.Result{Verdict: channels.Accepted, ProviderID: "p-" + m.ContactID}
	}
	_, err := f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, batch))
	require.NoError(t, err)
	require.NoError(t, f.CloseContacts(f.ctx, f.ref()))
	require.NoError(t, f.Settle(f.ctx, f.ref()))
	require.EqualValues(t, 400, f.balance("messages").Captured)
	require.EqualValues(t, 100, f.balance("messages").Held)
	f.sound()
}
