package activities_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// What is dispatched goes back, step by step, to a revision that all levels signed.
func TestOnlyWhatWasSignedIsDispatched(t *testing.T) {
	dearer := func(p *campaign.Plan) { p.Budget[3].Amount++ }
	cheaper := func(p *campaign.Plan) { p.Budget[3].Amount-- }
	mix := func(p *campaign.Plan) { p.Waves[1].Channels = []campaign.Channel{campaign.ChannelCall} }
	type step struct {
		base    int
		request string
		change  func(*campaign.Plan)
	}
	recommended := step{1, store.RequestOfReview(1), mix}
	for name, c := range map[string]struct {
		steps  []step
		mutate string
		fires  bool
	}{
		"signed":                         {},
		"nobody signed":                  {mutate: `DELETE FROM sign_off_counted`, fires: true},
		"one level of two":               {mutate: `DELETE FROM sign_off_counted WHERE level = 2`, fires: true},
		"another level is missing":       {mutate: `DELETE FROM sign_off_counted WHERE level = 1`, fires: true},
		"another plan was signed":        {mutate: `UPDATE sign_off SET digest = 'x'`, fires: true},
		"a rejection":                    {mutate: `UPDATE sign_off SET decision = 'reject' WHERE level = 2`, fires: true},
		"the plan was changed since":     {mutate: `UPDATE plan_revision SET plan = jsonb_set(plan, '{budget,3,amount}', '1')`, fires: true},
		"less of the same":               {steps: []step{{1, "a", cheaper}}},
		"less of less":                   {steps: []step{{1, "a", cheaper}, {2, "b", cheaper}}},
		"more, unsigned":                 {steps: []step{{1, "a", dearer}}, fires: true},
		"less of more":                   {steps: []step{{1, "a", dearer}, {2, "b", cheaper}}, fires: true},
		"a draft that nobody signed":     {steps: []step{{1, "a", cheaper}}, mutate: `UPDATE plan_revision SET base = NULL`, fires: true},
		"a recommendation, accepted":     {steps: []step{recommended}},
		"less after a recommendation":    {steps: []step{recommended, {2, "b", cheaper}}},
		"a recommendation, kept":         {steps: []step{recommended}, mutate: `UPDATE review SET decision = 'keep'`, fires: true},
		"a recommendation, undecided":    {steps: []step{recommended}, mutate: `UPDATE review SET decision = ''`, fires: true},
		"another mix, not recommended":   {steps: []step{{1, "a", mix}}, fires: true},
		"more than the recommendation":   {steps: []step{{1, store.RequestOfReview(1), func(p *campaign.Plan) { mix(p); dearer(p) }}}, fires: true},
		"other than the recommendation":  {steps: []step{recommended}, mutate: `UPDATE review SET recommendation = jsonb_set(recommendation, '{waves,0,number}', '1')`, fires: true},
		"a recommendation for a revised": {steps: []step{{1, "a", cheaper}, {2, store.RequestOfReview(1), mix}}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			f.run()
			_, _, err := f.Store.OpenReview(f.ctx, campaign.ReviewInput{CampaignID: f.id, Review: 1, Revision: 1}, map[string]any{},
				map[string]any{"waves": []map[string]any{{"number": 2, "to": []campaign.Channel{campaign.ChannelCall}}}})
			require.NoError(t, err)
			require.NoError(t, f.CloseReview(f.ctx, f.decides("reviewer", campaign.ReviewAccept)))
			revision, plan := 1, f.plan
			for _, s := range c.steps {
				plan.Budget, plan.Waves = slices.Clone(plan.Budget), slices.Clone(plan.Waves)
				s.change(&plan)
				loaded, err := f.Store.AddRevision(f.ctx, f.id, store.NewRevision{Plan: plan, EditorID: f.users["planner"].UserID, Base: s.base, Request: s.request})
				require.NoError(t, err)
				revision = loaded.Revision
			}
			f.exec(`INSERT INTO contact_batch (campaign_id, wave, channel, revision, contacts, shards) VALUES ($1, 2, 'sms', $2, 0, '{}')`, f.id, revision)
			if c.mutate != "" {
				for _, table := range []string{"sign_off", "sign_off_counted", "plan_revision"} {
					f.exec(`ALTER TABLE ` + table + ` DISABLE TRIGGER USER`)
				}
				require.Positive(t, f.exec(c.mutate))
			}
			broken, err := f.Store.CheckInvariants(f.ctx, f.id)
			require.NoError(t, err)
			if !c.fires {
				require.Empty(t, broken)
				return
			}
			require.Equal(t, "A1", broken[0].Invariant)
			for _, b := range broken[1:] {
				require.Contains(t, []string{"A4", "A5"}, b.Invariant, "what else the mutation is")
			}
		})
	}
}

// promised makes a promise of credit that the ledger knows nothing of.
func promised(arm string, promised, granted int) string {
	return fmt.Sprintf(`WITH line AS (INSERT INTO credit_line (campaign_id, line, pool_id, currency, offer, customers)
			SELECT id, 'credit', id, 'CNY', '{"schedule": {"total": 5}}', 1 FROM campaign RETURNING campaign_id)
		INSERT INTO credit_grant (campaign_id, line, customer_id, anchor, next_no, due_at, decided_by, promised, granted)
		SELECT campaign_id, 'credit', (SELECT customer_id FROM campaign_target WHERE arm = '%s' LIMIT 1), now(), 1, now(), now(), %d, %d FROM line`, arm, promised, granted)
}

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
		"D8":  `INSERT INTO opt_out (customer_id, channel, purpose, at, source) SELECT customer_id, 'sms', 'marketing', now() - interval '1 hour', 'x' FROM contact WHERE seq = 5`,
		"D9":  `INSERT INTO consent (customer_id, channel, purpose, given, at, source) SELECT customer_id, 'sms', 'marketing', false, now() - interval '1 hour', 'x' FROM contact WHERE seq = 5`,
		"D14": `UPDATE contact_ledger SET simulated = false, at = date_trunc('day', at) + interval '15 hours'`, // 23:00 in Shanghai
		"W1": `INSERT INTO contact_ledger SELECT l.customer_id, l.campaign_id, l.at + n * interval '1 hour', l.expires_at, l.day, l.policy, l.bucket, l.wave + n, l.priority, l.channel, l.purpose, l.type, l.state, l.simulated
			FROM contact_ledger l JOIN contact c ON c.customer_id = l.customer_id AND c.seq = 5, generate_series(1, 4) n`,
		"D10": `INSERT INTO receipt (digest, provider, provider_id, state, at, received_at) SELECT 'x', 'sms', provider_id, 'delivered', now(), now() - interval '2 days' FROM contact_attempt LIMIT 1`,
		"D11": `WITH late AS (UPDATE contact_attempt SET outcome = 'unknown', intent_at = now() - interval '10 days' WHERE contact_id = (SELECT id FROM contact WHERE seq = 5)) UPDATE contact SET state = 'unknown' WHERE seq = 5`,
		"D12": `UPDATE contact SET state = 'cancelled' WHERE seq = 5`,
		"D13": `INSERT INTO channel_promise (campaign_id, channel, units) SELECT id, 'call', 1 FROM campaign`,
		"T1":  `DELETE FROM campaign_target WHERE arm = 'control' AND customer_id = (SELECT customer_id FROM campaign_target WHERE arm = 'control' LIMIT 1)`,
		"T2":  `UPDATE campaign_target t SET arm = 'control' FROM contact c WHERE c.customer_id = t.customer_id AND c.seq = 5`,
		"T3":  `UPDATE campaign_target SET tier = 'basic' WHERE customer_id = (SELECT customer_id FROM campaign_target ORDER BY customer_id LIMIT 1)`,
		"T4":  `UPDATE campaign_target t SET arm = 'control' FROM contact_ledger l WHERE l.customer_id = t.customer_id AND l.wave = t.wave AND t.seq = 5`,
		"C1":  promised("treated", 5, 0),
		"C2":  promised("treated", 0, 5),
		"C3":  promised("control", 5, 0),
		"P1":  `UPDATE plan_revision SET plan = jsonb_set(plan, '{programme_id}', '"00000000-0000-0000-0000-000000000001"')`,
		"P2": `INSERT INTO contingency_draw (id, campaign_id, line, amount, currency, user_id, role, unit, authority, policy_version, words, issued_at, assertion, key_id, journal_id)
			SELECT gen_random_uuid(), id, 'messages', 1, 'CNY', planner_id, 'finance', unit, '*', '1', 'x', now(), 'x', 'x', 0 FROM campaign`,
		"A1": `DELETE FROM sign_off_counted`,
		"A2": `UPDATE sign_off SET user_id = (SELECT planner_id FROM campaign)`,
		"A3": `UPDATE sign_off SET user_id = (SELECT id FROM app_user WHERE login = 'manager')`,
		"A4": `UPDATE sign_off SET budget_digest = content_digest WHERE level = 2`,
		"A5": `UPDATE sign_off SET authority = '1' WHERE level = 1`,
		"A6": `UPDATE sign_off SET acting_for = (SELECT id FROM app_user WHERE login = 'manager2') WHERE level = 1`,
		"A7": `UPDATE contact SET wave = 1 WHERE seq = 5`,
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
			for _, table := range []string{"contact", "contact_attempt", "campaign_target", "outcome", "receipt", "sign_off", "sign_off_counted", "channel_promise", "plan_revision", "contingency_draw", "credit_line", "credit_grant", "contact_ledger", "opt_out", "consent"} {
				f.exec(`CREATE TABLE kept_` + table + ` AS TABLE ` + table)
			}
			conn, err := f.owner.Pool().Acquire(f.ctx)
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
			for _, table := range []string{"contact", "contact_attempt", "campaign_target", "outcome", "receipt", "sign_off_counted", "sign_off", "channel_promise", "plan_revision", "contingency_draw", "credit_line", "credit_grant", "contact_ledger", "opt_out", "consent"} {
				run(`DELETE FROM ` + table)
				run(`INSERT INTO ` + table + ` TABLE kept_` + table)
				run(`DROP TABLE kept_` + table)
			}
			run(`SET session_replication_role = origin`)
			f.sound()
		})
	}
}
