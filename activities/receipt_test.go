package activities_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/activities"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/channels"
	"github.com/musterhq/muster/store"
)

// sent dispatches wave 2 and returns its contacts.
func (f *fixture) sent() []store.Contact {
	f.t.Helper()
	f.run()
	batch := f.create(2, campaign.ChannelSMS)
	_, err := f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, batch))
	require.NoError(f.t, err)
	rows, err := f.Store.Contacts(f.ctx, f.id, store.ContactFilter{Limit: 500})
	require.NoError(f.t, err)
	return rows
}

func (f *fixture) state(contactID string) campaign.ContactState {
	f.t.Helper()
	var s campaign.ContactState
	require.NoError(f.t, f.Store.Pool().QueryRow(f.ctx, `SELECT state FROM contact WHERE id = $1`, contactID).Scan(&s))
	return s
}

// Receipts may come repeated, shuffled and before their message is known: the final
// state is that of the most final word.
func TestReceiptsFoldByFinality(t *testing.T) {
	f := newFixture(t, nil)
	rows := f.sent()
	inbox := activities.Inbox{Store: f.Store, Channel: campaign.ChannelSMS}
	next := 0
	rapid.Check(t, func(rt *rapid.T) {
		if next == len(rows) {
			return
		}
		id := rows[next].ID
		next++
		words := rapid.SliceOfN(rapid.SampledFrom([]channels.State{
			channels.StateAccepted, channels.StateDelivered, channels.StateFailed, channels.StateExpired, channels.StateUnknown,
		}), 1, 5).Draw(rt, "words")
		want := campaign.ContactSent
		var receipts []channels.Receipt
		for i, w := range words {
			r := channels.Receipt{ProviderID: "p-" + id, State: w, At: time.Unix(1_700_000_000+int64(i), 0)}
			receipts = append(receipts, r)
			if rapid.Bool().Draw(rt, "repeated") {
				receipts = append(receipts, r)
			}
			switch {
			case w == channels.StateDelivered:
				want = campaign.ContactDelivered
			case (w == channels.StateFailed || w == channels.StateExpired) && want == campaign.ContactSent:
				want = campaign.ContactFailed
			}
		}
		receipts = rapid.Permutation(receipts).Draw(rt, "order")
		cut := rapid.IntRange(0, len(receipts)).Draw(rt, "cut")
		for _, part := range [][]channels.Receipt{receipts[:cut], receipts[cut:], receipts} {
			if err := inbox.Receipts(f.ctx, part); err != nil {
				rt.Fatal(err)
			}
		}
		require.Equal(rt, want, f.state(id), "%v", words)
	})
	require.Zero(t, f.count(`SELECT count(*) FROM receipt WHERE NOT applied`))
	f.sound()
}

func TestReceiptBeforeItsMessageIsParkedAndJoined(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	batch := f.create(2, campaign.ChannelSMS)
	f.sender.judge = func(_ int, m channels.Message) channels.Result {
		// The receipt overtakes the provider's answer.
		err := f.Store.RecordReceipts(f.ctx, []store.Receipt{{Provider: "sms", ProviderID: "p-" + m.ContactID, State: store.ReceiptDelivered, At: time.Now()}})
		if err != nil {
			return channels.Result{Verdict: channels.Unknown, Reason: err.Error()}
		}
		return channels.Result{Verdict: channels.Accepted, ProviderID: "p-" + m.ContactID}
	}
	_, err := f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, batch))
	require.NoError(t, err)
	require.NoError(t, f.Store.RecordReceipts(f.ctx, []store.Receipt{
		{Provider: "sms", ProviderID: "a stranger's", State: store.ReceiptDelivered, At: time.Now()},
		{Provider: "sms", ContactID: "garbage", State: store.ReceiptFailed, At: time.Now()},
		{Provider: "other", ProviderID: "p-1", State: store.ReceiptFailed, At: time.Now()},
	}))
	require.Equal(t, map[string]int64{"sent": batch.Contacts}, f.states(2, campaign.ChannelSMS))
	applied, err := f.Store.SweepReceipts(f.ctx, 50)
	require.NoError(t, err)
	require.EqualValues(t, 50, applied, "no more than asked for, and strangers do not stand in the way")
	for applied > 0 {
		applied, err = f.Store.SweepReceipts(f.ctx, 50)
		require.NoError(t, err)
	}
	require.Equal(t, map[string]int64{"delivered": batch.Contacts}, f.states(2, campaign.ChannelSMS))
	require.EqualValues(t, 3, f.count(`SELECT count(*) FROM receipt WHERE NOT applied`))
	require.Error(t, f.Store.RecordReceipts(f.ctx, []store.Receipt{{Provider: "sms", ProviderID: "x", State: "teleported"}}))
	f.sound()
}

// What matches no message is looked at ever more seldom, gives way to others, and is given
// up after a week, but kept.
func TestReceiptsOfStrangersAreGivenUp(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	receipt := func(id string) store.Receipt {
		return store.Receipt{Provider: "sms", ProviderID: id, State: store.ReceiptDelivered, At: time.Now()}
	}
	require.NoError(t, f.Store.RecordReceipts(f.ctx, []store.Receipt{receipt("old"), receipt("young"), receipt("fresh")}))
	for id, age := range map[string]string{"old": "8 days", "young": "2 days"} {
		f.exec(`UPDATE receipt SET received_at = now() - $2::text::interval, look_at = now() - $2::text::interval WHERE provider_id = $1`, id, age)
	}
	waits := func(id string) int64 {
		return f.count(`SELECT round(extract(epoch FROM look_at - now())) FROM receipt WHERE provider_id = $1 AND NOT applied AND given_up_at IS NULL`, id)
	}
	batch := f.create(2, campaign.ChannelSMS)
	_, err := f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, batch))
	require.NoError(t, err)
	rows, err := f.Store.Contacts(f.ctx, f.id, store.ContactFilter{Limit: 1})
	require.NoError(t, err)
	// A receipt of a campaign that is over goes through the sweep alone.
	f.exec(`UPDATE campaign SET stage = 'closed'`)
	require.NoError(t, f.Store.RecordReceipts(f.ctx, []store.Receipt{receipt("p-" + rows[0].ID)}))
	require.Equal(t, campaign.ContactSent, f.state(rows[0].ID))

	sweep := func(limit int) int64 {
		n, err := f.Store.SweepReceipts(f.ctx, limit)
		require.NoError(t, err)
		return n
	}
	require.Zero(t, sweep(2), "the two that wait for longest match nothing")
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM receipt WHERE provider_id = 'old' AND NOT applied AND given_up_at IS NOT NULL`))
	require.InDelta(t, 3600, waits("young"), 5)
	require.EqualValues(t, 1, sweep(2))
	require.Equal(t, campaign.ContactDelivered, f.state(rows[0].ID))
	require.InDelta(t, 2, waits("fresh"), 2)
	require.EqualValues(t, 3, f.count(`SELECT count(*) FROM receipt WHERE NOT applied`), "all are kept")
	f.sound()
}

// The provider answers after the worker gave up: what was unknown is known, and billed.
func TestLateAnswerResolvesUnknown(t *testing.T) {
	f := newFixture(t, nil)
	f.sender.judge = func(int, channels.Message) channels.Result { return channels.Result{Verdict: channels.Unknown} }
	rows := f.sent()
	require.NoError(t, f.Store.RecordReceipts(f.ctx, []store.Receipt{
		{Provider: "sms", ProviderID: "late-1", ContactID: rows[0].ID, State: store.ReceiptAccepted, At: time.Now()},
	}))
	require.Equal(t, campaign.ContactSent, f.state(rows[0].ID))
	require.NoError(t, f.Store.RecordReceipts(f.ctx, []store.Receipt{
		{Provider: "sms", ProviderID: "late-1", State: store.ReceiptFailed, Reason: "absent", At: time.Now()},
		{Provider: "sms", ProviderID: "", ContactID: rows[1].ID, State: store.ReceiptDelivered, At: time.Now()},
		{Provider: "sms", ProviderID: "", ContactID: rows[2].ID, State: store.ReceiptUnknown, At: time.Now()},
	}))
	require.Equal(t, campaign.ContactFailed, f.state(rows[0].ID))
	require.Equal(t, campaign.ContactDelivered, f.state(rows[1].ID))
	require.Equal(t, campaign.ContactUnknown, f.state(rows[2].ID))
	require.EqualValues(t, 2, f.count(`SELECT count(*) FROM contact_attempt WHERE outcome = 'accepted'`))
	require.Equal(t, 1, f.sender.took[rows[0].ID])
	f.sound()
}

func TestRepliesOptOutAtOnce(t *testing.T) {
	f := newFixture(t, nil)
	rows := f.sent()
	inbox := activities.Inbox{Store: f.Store, Channel: campaign.ChannelSMS}
	words := map[string]bool{
		" t ": true, "Ｔ": true, "TD": true, "退订。": true, "STOP!": true, "拒收": true, "Ｓｔｏｐ": true, "t。": true, "opt-out": true,
		"thanks": false, "do not stop": false, "ok": false, "no more": false, "别再发了": false, "tds": false, "nonstop music": false,
	}
	read := map[string]bool{"do not stop": true, "no more": true, "别再发了": true} // by a person
	i := 0
	for text, out := range words {
		c := rows[i]
		i++
		reply := channels.Reply{From: "+" + f.sender.to[c.ID], To: "10086", Text: text, At: time.Now()}
		require.NoError(t, inbox.Replies(f.ctx, []channels.Reply{reply, reply}))
		require.EqualValues(t, map[bool]int64{true: 1}[out], f.count(`SELECT count(*) FROM customer WHERE id = $1 AND opted_out`, c.CustomerID), text)
		kind := campaign.OutcomeReplied
		if out {
			kind = campaign.OutcomeOptedOut
		}
		require.EqualValues(t, 1, f.count(`SELECT count(*) FROM outcome WHERE customer_id = $1 AND contact_id = $2 AND kind = $3`, c.CustomerID, c.ID, kind), text)
		waits := map[bool]int64{true: 1}[read[text]]
		require.EqualValues(t, waits, f.count(`SELECT count(*) FROM reply_review WHERE customer_id = $1 AND words = $2`, c.CustomerID, text), text)
		require.EqualValues(t, waits, f.count(`SELECT count(*) FROM quarantine WHERE customer_id = $1 AND why = 'reply' AND until > now()`, c.CustomerID), text)
	}
	require.EqualValues(t, len(read), f.count(`SELECT count(*) FROM reply_review`), "no other words are kept")
	require.NoError(t, inbox.Replies(f.ctx, []channels.Reply{{From: "10010", Text: "T", At: time.Now()}, {From: "99977777777", Text: "T", At: time.Now()}}))
	require.EqualValues(t, len(words), f.count(`SELECT count(*) FROM outcome`))
}

// A complaint leaves its customer in peace, once: the same one brought again does not bring
// back a quarantine that somebody has ended.
func TestAComplaintIsFollowedByQuarantine(t *testing.T) {
	f := newFixture(t, nil)
	c := f.sent()[0]
	complaint := store.Outcome{CustomerID: c.CustomerID, Kind: campaign.OutcomeComplained, At: time.Now(), Source: "hotline", SourceID: "4711"}
	quarantined := func() int64 {
		return f.count(`SELECT count(*) FROM quarantine WHERE customer_id = $1 AND why = 'complaint' AND until > now() + interval '29 days'`, c.CustomerID)
	}
	record := func(o ...store.Outcome) {
		landed, err := f.Store.RecordOutcomes(f.ctx, f.id, true, o)
		require.NoError(t, err)
		require.Empty(t, landed.Faults)
	}
	record(store.Outcome{CustomerID: c.CustomerID, Kind: campaign.OutcomeDeclined, At: time.Now(), Source: "hotline", SourceID: "4710"})
	require.Zero(t, quarantined())
	record(complaint)
	require.EqualValues(t, 1, quarantined())
	f.exec(`DELETE FROM quarantine`)
	record(complaint)
	require.Zero(t, quarantined())
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM consent_event WHERE event = 'quarantined' AND campaign_id = $1`, f.id))
}
