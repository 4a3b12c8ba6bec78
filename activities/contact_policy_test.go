package activities_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// contactPolicy puts a contact policy in force and makes the campaign one in real time.
func (f *fixture) contactPolicy(rules string) (version int64) {
	f.t.Helper()
	text := `{"time_zone": "UTC", "quarantine": {"days": 30}, "universal_holdout": {"share": 0}, "freeze_seconds": 7200, "hold_seconds": 604800` + rules + `}`
	d := campaign.PolicyDocument{Kind: campaign.PolicyContact, Policy: text, Digest: campaign.PolicyDigest(text, "")}
	require.NoError(f.t, f.Store.StorePolicyStandard(f.ctx, d))
	f.exec(`UPDATE campaign SET simulated = false`)
	p, err := f.Store.ContactPolicy(f.ctx, f.plan.Unit)
	require.NoError(f.t, err)
	return p.Version
}

// Whatever is learned of a customer after a message was claimed counts before it leaves.
func TestTheContactPolicyIsAskedOnceMoreBeforeAMessageLeaves(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	version := f.contactPolicy(`, "caps": [{"name": "week", "most": 1, "days": 7}], "consent_needed": []`)
	batch := f.create(2, campaign.ChannelSMS)
	d, err := f.Store.Dispatch(f.chunk(2, campaign.ChannelSMS, batch), "worker", lease)
	require.NoError(t, err)
	claims, err := d.Claim(f.ctx, 9)
	require.NoError(t, err)
	require.Len(t, claims, 9)
	who := func(i int) uuid.UUID { return claims[i].CustomerID }
	f.exec(`INSERT INTO opt_out (customer_id, channel, purpose, at, source) VALUES ($1, 'sms', 'marketing', now(), 'x')`, who(0))
	f.exec(`INSERT INTO opt_out (customer_id, channel, purpose, at, source) VALUES ($1, 'call', '', now(), 'x')`, who(1))
	f.exec(`INSERT INTO consent (customer_id, channel, purpose, given, at, source) VALUES ($1, 'sms', 'marketing', false, now(), 'x')`, who(2))
	f.exec(`INSERT INTO do_not_contact (tenant, lookup, reason, at) SELECT 'operator', lookup, 'x', now() FROM phone_vault WHERE customer_id = $1`, who(3))
	f.exec(`INSERT INTO quarantine (customer_id, until, why, at) VALUES ($1, now() + interval '1 day', 'complaint', now())`, who(4))
	f.exec(`INSERT INTO contact_history (customer_id, at, kind, direction, channel, outcome, source, source_id) VALUES ($1, now() - interval '20 days', 'complaint', 'in', 'call', '', 'x', '1')`, who(5))
	f.exec(`INSERT INTO contact_ledger (customer_id, campaign_id, at, expires_at, day, policy, bucket, wave, priority, channel, purpose, type, state, simulated)
		VALUES ($1, $2, now() - interval '6 days', now(), now(), $3, get_byte(uuid_send($1), 15), 1, 0, 'c', 'm', 'u', 'S', false)`, who(6), uuid.New(), version)
	// Others who have the number of one and of another: the first is of this tenant.
	for i, unit := range map[int]string{8: "operator/elsewhere", 7: "another"} {
		twin := uuid.New()
		f.exec(`INSERT INTO customer (id, external_id, org_unit, time_zone) VALUES ($1, $2, $2, 'UTC')`, twin, unit)
		f.exec(`INSERT INTO phone_vault (customer_id, sealed, lookup) SELECT $1, '', lookup FROM phone_vault WHERE customer_id = $2`, twin, who(i))
		f.exec(`INSERT INTO opt_out (customer_id, channel, purpose, at, source) VALUES ($1, '', '', now(), 'x')`, twin)
	}
	out, held, err := d.Intend(f.ctx, claims, "sms", 1)
	require.NoError(t, err)
	require.False(t, held)
	var ids []uuid.UUID
	for _, o := range out {
		ids = append(ids, o.ContactID)
	}
	require.Equal(t, []uuid.UUID{claims[1].ContactID, claims[7].ContactID}, ids, "who opted out of calls may get messages")
	for i, rule := range map[int]string{0: "opted_out", 2: "no_consent", 3: "do_not_contact", 4: "quarantine", 5: "quarantine", 6: "cap:week", 8: "opted_out"} {
		require.EqualValues(t, 1, f.count(`SELECT count(*) FROM contact WHERE id = $1 AND state = 'suppressed' AND reason = $2`, claims[i].ContactID, rule), rule)
		require.EqualValues(t, 1, f.count(`SELECT count(*) FROM suppression WHERE customer_id = $1 AND rule = $2 AND policy = $3 AND snapshot = 0`, who(i), rule, version), rule)
		require.Zero(t, f.count(`SELECT count(*) FROM contact_ledger WHERE customer_id = $1 AND campaign_id = $2 AND state <> 'X'`, who(i), f.id))
	}
	require.EqualValues(t, 2, f.count(`SELECT count(*) FROM contact_ledger WHERE campaign_id = $1 AND state = 'S' AND policy = $2`, f.id, version))
	counts, err := f.Store.SuppressionCounts(f.ctx, f.id)
	require.NoError(t, err)
	require.Contains(t, counts, store.SuppressionCount{Rule: "quarantine", PolicyVersion: version, Customers: 2})
	page, err := f.Store.Suppressions(f.ctx, f.id, "quarantine", store.SuppressionKey{}, 1)
	require.NoError(t, err)
	rest, err := f.Store.Suppressions(f.ctx, f.id, "quarantine", page[0].SuppressionKey, 10)
	require.NoError(t, err)
	require.Len(t, rest, 1)
	require.Equal(t, campaign.ChannelSMS, rest[0].Through)

	// What is refused by the channel counts for nothing, what arrived does.
	require.NoError(t, d.Complete(f.ctx, []store.Completion{
		{ContactID: claims[1].ContactID, Epoch: claims[1].Epoch, Outcome: store.AttemptRefused, Reason: "no"},
		{ContactID: claims[7].ContactID, Epoch: claims[7].Epoch, Outcome: store.AttemptAccepted, ProviderID: "p"},
	}))
	require.NoError(t, f.Store.RecordReceipts(f.ctx, []store.Receipt{{Provider: "sms", ProviderID: "p", State: store.ReceiptDelivered, At: time.Now()}}))
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM contact_ledger WHERE campaign_id = $1 AND customer_id = $2 AND state = 'F'`, f.id, who(1)))
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM contact_ledger WHERE campaign_id = $1 AND customer_id = $2 AND state = 'D'`, f.id, who(7)))
	f.sound()
}

// In quiet hours messages wait; those whose window closes before they are over expire.
func TestQuietHoursPutMessagesOff(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	shanghai, err := time.LoadLocation("Asia/Shanghai")
	require.NoError(t, err)
	now := time.Now().In(shanghai)
	f.contactPolicy(fmt.Sprintf(`, "quiet_hours": [{"name": "now", "from": %q, "to": %q}]`, now.Add(-2*time.Hour).Format("15:04"), now.Add(2*time.Hour).Format("15:04")))
	batch := f.create(2, campaign.ChannelSMS)
	d, err := f.Store.Dispatch(f.chunk(2, campaign.ChannelSMS, batch), "worker", lease)
	require.NoError(t, err)
	claims, err := d.Claim(f.ctx, 3)
	require.NoError(t, err)
	f.exec(`UPDATE contact SET not_after = now() + interval '1 day' WHERE id <> $1`, claims[0].ContactID)
	f.exec(`UPDATE contact SET not_after = now() + interval '1 hour' WHERE id = $1`, claims[0].ContactID)
	out, _, err := d.Intend(f.ctx, claims, "sms", 1)
	require.NoError(t, err)
	require.Empty(t, out)
	require.Equal(t, campaign.ContactExpired, f.state(claims[0].ContactID.String()))
	require.EqualValues(t, 2, f.count(`SELECT count(*) FROM contact WHERE id = ANY($1) AND state = 'planned' AND lease_until BETWEEN now() + interval '119 minutes' - interval '1 minute' AND now() + interval '2 hours'`,
		[]uuid.UUID{claims[1].ContactID, claims[2].ContactID}))
	require.Zero(t, f.count(`SELECT count(*) FROM contact_ledger WHERE state IN ('S', 'D')`))
	count, err := d.Count(f.ctx)
	require.NoError(t, err)
	require.EqualValues(t, 2, count.Waiting)
}

// Agents are given nobody whom the policy protects, however long ago the task was opened.
func TestTheContactPolicyIsAskedWhenATaskIsClaimed(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	f.contactPolicy(`, "caps": [{"name": "week", "most": 1, "days": 7}]`)
	batch := f.create(1, campaign.ChannelCall)
	_, err := f.DispatchChunk(f.ctx, f.chunk(1, campaign.ChannelCall, batch))
	require.NoError(t, err)
	open := f.count(`SELECT count(*) FROM task WHERE state = 'open'`)
	require.Positive(t, open)
	f.exec(`INSERT INTO contact_ledger (customer_id, campaign_id, at, expires_at, day, policy, bucket, wave, priority, channel, purpose, type, state, simulated)
		SELECT customer_id, $1, now() - interval '1 day', now(), now(), 0, get_byte(uuid_send(customer_id), 15), 1, 0, 's', 'm', 'u', 'D', false FROM task ORDER BY id LIMIT 3`, uuid.New())
	f.exec(`INSERT INTO opt_out (customer_id, channel, purpose, at, source) SELECT customer_id, 'call', '', now(), 'x' FROM task ORDER BY id DESC LIMIT 2`)
	claimed, err := f.Store.ClaimTasks(f.ctx, store.TaskClaim{
		AgentID: f.users["planner"].UserID, Units: []campaign.OrgUnit{"operator"}, Channel: campaign.ChannelCall, Limit: int(open), Lease: time.Minute,
	})
	require.NoError(t, err)
	require.EqualValues(t, open-5, len(claimed))
	require.EqualValues(t, 3, f.count(`SELECT count(*) FROM contact WHERE state = 'suppressed' AND reason = 'cap:week'`))
	require.EqualValues(t, 2, f.count(`SELECT count(*) FROM contact WHERE state = 'suppressed' AND reason = 'opted_out'`))
	require.EqualValues(t, open-5, f.count(`SELECT count(*) FROM contact_ledger WHERE campaign_id = $1 AND state = 'S'`, f.id))
}
