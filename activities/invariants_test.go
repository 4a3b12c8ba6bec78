package activities_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// Each invariant sees the fault that it watches for.
func TestEveryInvariantFires(t *testing.T) {
	mutations := map[string]string{
		"D1":  `DELETE FROM contact WHERE id = (SELECT id FROM contact WHERE seq = 5)`,
		"D2":  `UPDATE contact_attempt SET outcome = 'refused' WHERE contact_id = (SELECT id FROM contact WHERE seq = 5)`,
		"D3":  `INSERT INTO contact_attempt (campaign_id, contact_id, epoch, provider) SELECT campaign_id, id, 7, 'sms' FROM contact WHERE seq = 5`,
		"D4":  `UPDATE contact SET state = 'sending', lease_until = now() - interval '1 hour' WHERE seq = 5`,
		"D5":  `UPDATE contact_attempt SET outcome = NULL WHERE contact_id = (SELECT id FROM contact WHERE seq = 5)`,
		"D6":  `UPDATE contact SET not_after = now() - interval '1 hour' WHERE seq = 5`,
		"D7":  `INSERT INTO outcome (id, campaign_id, customer_id, kind, at, received_at, source, source_id, simulated) SELECT gen_random_uuid(), campaign_id, customer_id, 'opted_out', now(), now() - interval '1 hour', 'x', 'x', true FROM contact WHERE seq = 5`,
		"D10": `INSERT INTO receipt (digest, provider, provider_id, state, at, received_at) SELECT 'x', 'sms', provider_id, 'delivered', now(), now() - interval '2 days' FROM contact_attempt LIMIT 1`,
		"D12": `UPDATE contact SET state = 'cancelled' WHERE seq = 5`,
		"T1":  `DELETE FROM campaign_target WHERE arm = 'control' AND customer_id = (SELECT customer_id FROM campaign_target WHERE arm = 'control' LIMIT 1)`,
		"T2":  `UPDATE campaign_target t SET arm = 'control' FROM contact c WHERE c.customer_id = t.customer_id AND c.seq = 5`,
		"A1":  `DELETE FROM sign_off_counted`,
		"A2":  `UPDATE sign_off SET user_id = (SELECT planner_id FROM campaign)`,
		"A3":  `UPDATE sign_off SET user_id = (SELECT id FROM app_user WHERE login = 'manager')`,
	}
	f := newFixture(t, nil)
	f.run()
	batch := f.create(2, campaign.ChannelSMS)
	_, err := f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, batch))
	require.NoError(t, err)
	f.sound()
	require.Len(t, mutations, len(store.Invariants()))
	for _, i := range store.Invariants() {
		t.Run(i.Name, func(t *testing.T) {
			require.NotEmpty(t, i.Promise)
			mutation, ok := mutations[i.Name]
			require.True(t, ok, "no mutation for %s", i.Name)
			// The database's own rules are switched off: the fault is one that slipped past them.
			for _, table := range []string{"contact", "contact_attempt", "campaign_target", "outcome", "receipt", "sign_off", "sign_off_counted"} {
				f.exec(`CREATE TABLE kept_` + table + ` AS TABLE ` + table)
			}
			conn, err := f.Store.Pool().Acquire(f.ctx)
			require.NoError(t, err)
			defer conn.Release()
			run := func(sql string) int64 {
				tag, err := conn.Exec(f.ctx, sql)
				require.NoError(t, err, sql)
				return tag.RowsAffected()
			}
			run(`SET session_replication_role = replica`)
			require.Positive(t, run(mutation))
			broken, err := f.Store.CheckInvariants(f.ctx, f.id)
			require.NoError(t, err)
			var names []string
			for _, b := range broken {
				names = append(names, b.Invariant)
			}
			require.Contains(t, names, i.Name)
			for _, table := range []string{"contact", "contact_attempt", "campaign_target", "outcome", "receipt", "sign_off_counted", "sign_off"} {
				run(`DELETE FROM ` + table)
				run(`INSERT INTO ` + table + ` TABLE kept_` + table)
				run(`DROP TABLE kept_` + table)
			}
			run(`SET session_replication_role = origin`)
			f.sound()
		})
	}
}
