package activities_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// Each way in which signatures can be other than they must be is seen by the invariant
// that is about it, also what the rules of the database let nobody do.
func TestEveryFaultOfSignaturesIsFound(t *testing.T) {
	const (
		finance = `(SELECT id FROM app_user WHERE login = 'finance')`
		manager = `(SELECT id FROM app_user WHERE login = 'manager')`
	)
	f := newFixture(t, nil)
	f.person("deputy", campaign.RoleAgent)
	f.exec(`INSERT INTO org_unit (path, name) VALUES ('operator/north', 'North') ON CONFLICT DO NOTHING`)
	f.openRound()
	lent := f.lend("manager", "deputy", "valid", 0)
	require.NoError(t, f.CountSignOff(f.ctx, f.borrowed("deputy", "manager", lent, f.round.Route[0])))
	require.NoError(t, f.CountSignOff(f.ctx, f.signOff("finance", f.round.Route[1], nil)))
	require.NoError(t, f.Reserve(f.ctx, f.ref()))
	_, err := f.SelectTargets(f.ctx, campaign.SelectionInput{CampaignID: f.id, Revision: 1})
	require.NoError(t, err)
	require.NoError(t, f.Project(f.ctx, campaign.Projection{CampaignID: f.id, Version: 1, Event: "stage.running", Status: campaign.Status{
		Stage: campaign.StageRunning, Hold: campaign.HoldNone, Revision: 1, Waves: f.waves(),
	}}))
	f.create(2, campaign.ChannelSMS)
	f.sound()
	// Nothing but the owner's hand does what follows, so no trigger may see it.
	mutate := func(sql string) {
		conn, err := f.owner.Pool().Acquire(f.ctx)
		require.NoError(t, err)
		defer conn.Release()
		_, err = conn.Exec(f.ctx, `SET session_replication_role = replica; `+sql+`; SET session_replication_role = origin`)
		require.NoError(t, err)
	}
	keep, undo := `CREATE SCHEMA before`, `SELECT`
	for _, table := range []string{"campaign", "plan_revision", "approval_round", "sign_off", "sign_off_counted", "delegation", "contact_batch"} {
		keep += fmt.Sprintf(`; CREATE TABLE before.%[1]s AS TABLE %[1]s`, table)
		undo += fmt.Sprintf(`; DELETE FROM %[1]s; INSERT INTO %[1]s OVERRIDING SYSTEM VALUE SELECT * FROM before.%[1]s`, table)
	}
	f.exec(keep)
	for name, c := range map[string]struct{ invariant, mutate string }{
		"as they must be": {},
		// A1: every level by as many people as it asks for.
		"two needed, one signed":           {"A1", `UPDATE approval_round SET route = jsonb_set(route, '{0,required}', '2')`},
		"one person twice for two":         {"A1", `WITH r AS (UPDATE approval_round SET route = jsonb_set(route, '{1,required}', '2')) UPDATE sign_off SET user_id = ` + finance},
		"a level more":                     {"A1", `UPDATE approval_round SET route = route || '{"level": 3, "required": 1}'::jsonb`},
		"the round was withdrawn":          {"A1", `UPDATE approval_round SET result = 'withdrawn', closed_at = now()`},
		"the round is about another plan":  {"A1", `UPDATE approval_round SET digest = 'x'`},
		"signed in another round":          {"A1", `UPDATE sign_off SET round = 7 WHERE level = 1`},
		"one of them returned it":          {"A1", `UPDATE sign_off SET decision = 'return' WHERE level = 2`},
		"an addition to an unsigned plan":  {"A1", addition + ` DELETE FROM sign_off_counted WHERE revision = 1`},
		"an addition to a signed plan":     {"", addition},
		"an addition to a plan that isn't": {"A1", addition + ` UPDATE approval_round SET facts = jsonb_set(facts, '{base}', '9') WHERE round = 2; DELETE FROM plan_revision WHERE revision = 1`},
		// A2: nobody signs what they wrote or asked for.
		"the requester signed":         {"A2", `UPDATE approval_round SET requester = ` + finance},
		"the planner signed":           {"A2", `UPDATE campaign SET planner_id = ` + finance},
		"the editor signed":            {"A2", `UPDATE plan_revision SET editor_id = ` + finance},
		"an earlier editor signed":     {"A2", earlier(finance)},
		"for the requester":            {"A2", `UPDATE approval_round SET requester = ` + manager},
		"for an earlier editor":        {"A2", earlier(manager)},
		"a later editor is no matter":  {"", `INSERT INTO plan_revision (campaign_id, revision, digest, plan, editor_id, note) SELECT campaign_id, 2, digest, plan, ` + finance + `, '' FROM plan_revision`},
		"an editor, before the rounds": {"", `DELETE FROM approval_round; ` + earlier(manager)},
		// A3: one person, one signature.
		"one person at two levels":    {"A3", `UPDATE sign_off SET user_id = ` + finance + `, acting_for = NULL, delegation_id = NULL`},
		"a delegate and the lender":   {"A3", `UPDATE sign_off SET user_id = ` + manager + ` WHERE level = 2`},
		"one person for two":          {"A3", `UPDATE sign_off SET acting_for = ` + manager + ` WHERE level = 2`},
		"one person twice at a level": {"A3", `UPDATE sign_off SET level = 1, user_id = ` + manager + ` WHERE level = 2; UPDATE sign_off_counted SET level = 1`},
		"in two rounds": {"", `INSERT INTO sign_off SELECT (jsonb_populate_record(o, jsonb_build_object('id', md5(o.id::text), 'round', 2))).* FROM sign_off o;
			INSERT INTO sign_off_counted SELECT (jsonb_populate_record(k, jsonb_build_object('sign_off_id', md5(k.sign_off_id::text)))).* FROM sign_off_counted k`},
		// A4: what was signed is what there is.
		"another content":        {"A4", `UPDATE sign_off SET content_digest = 'x' WHERE level = 1`},
		"another audience":       {"A4", `UPDATE sign_off SET audience_digest = 'x' WHERE level = 1`},
		"another budget":         {"A4", `UPDATE approval_round SET budget_digest = 'x'`},
		"another currency":       {"A4", `UPDATE sign_off SET currency = 'EUR' WHERE level = 1`},
		"another plan is stored": {"A4", `UPDATE plan_revision SET digest = 'x'`},
		"it counted elsewhere":   {"A4", `UPDATE sign_off_counted SET level = 2 WHERE level = 1`},
		// A5: nobody signs for more than they may.
		"above the limit":          {"A5", `UPDATE sign_off SET authority = (amount - 1)::text WHERE level = 1`},
		"at the limit":             {"", `UPDATE sign_off SET authority = amount::text`},
		"a limit that says naught": {"A5", `UPDATE sign_off SET authority = 'much' WHERE level = 1`},
		"for less than was asked":  {"A5", `UPDATE sign_off SET amount = amount - 1 WHERE level = 1`},
		// A6: borrowed authority was lent.
		"no delegation":            {"A6", `UPDATE sign_off SET delegation_id = NULL WHERE level = 1`},
		"it does not say for whom": {"A6", `UPDATE sign_off SET acting_for = NULL WHERE level = 1`},
		"lent to somebody else":    {"A6", `UPDATE delegation SET to_user = ` + finance},
		"lent by somebody else":    {"A6", `UPDATE delegation SET from_user = ` + finance},
		"it began later":           {"A6", `UPDATE delegation SET valid = tstzrange(now() + interval '1 minute', now() + interval '1 hour')`},
		"it had ended":             {"A6", `UPDATE delegation SET valid = tstzrange(now() - interval '1 hour', now() - interval '1 minute')`},
		"it had been revoked":      {"A6", `UPDATE delegation SET revoked_at = now() - interval '1 minute', revoked_by = from_user`},
		"it was revoked later":     {"", `UPDATE delegation SET revoked_at = now() + interval '1 second', revoked_by = from_user`},
		"for less":                 {"A6", `UPDATE delegation SET most = 1`},
		"for something else":       {"A6", `UPDATE delegation SET actions = '{approval.credit}'`},
		"elsewhere":                {"A6", `UPDATE delegation SET unit = 'operator/north'`},
		// A7: contacts come in batches.
		"contacts without a batch": {"A7", `DELETE FROM contact_batch`},
	} {
		t.Run(name, func(t *testing.T) {
			mutate(c.mutate)
			t.Cleanup(func() { mutate(undo) })
			broken, err := f.Store.CheckInvariants(f.ctx, f.id)
			require.NoError(t, err)
			names := map[string]bool{}
			for _, b := range broken {
				names[b.Invariant] = true
			}
			if c.invariant == "" {
				require.Empty(t, broken)
			} else {
				require.True(t, names[c.invariant], "%v", broken)
			}
		})
	}
	f.sound()
}

// addition makes the batch's plan a second revision that was signed as an addition to the
// first, in a round of its own by the same people.
const addition = `
	INSERT INTO plan_revision (campaign_id, revision, digest, plan, editor_id, note, base) SELECT campaign_id, 2, digest, plan, editor_id, '', 1 FROM plan_revision;
	INSERT INTO approval_round SELECT (jsonb_populate_record(r, jsonb_build_object('round', 2, 'revision', 2, 'facts', r.facts || '{"base": 1}'))).* FROM approval_round r;
	INSERT INTO sign_off SELECT (jsonb_populate_record(o, jsonb_build_object('id', md5(o.id::text), 'round', 2, 'revision', 2))).* FROM sign_off o;
	INSERT INTO sign_off_counted SELECT (jsonb_populate_record(k, jsonb_build_object('sign_off_id', md5(k.sign_off_id::text), 'revision', 2))).* FROM sign_off_counted k;
	UPDATE contact_batch SET revision = 2;`

// earlier makes what was signed a second revision, of which somebody wrote the first.
func earlier(editor string) string {
	return `UPDATE plan_revision SET revision = 2; UPDATE sign_off SET revision = 2; UPDATE sign_off_counted SET revision = 2; UPDATE approval_round SET revision = 2;
		UPDATE contact_batch SET revision = 2; UPDATE campaign SET revision = 2;
		INSERT INTO plan_revision (campaign_id, revision, digest, plan, editor_id, note) SELECT campaign_id, 1, digest, plan, ` + editor + `, '' FROM plan_revision`
}

// borrowed is a sign-off by a delegate.
func (f *fixture) borrowed(who, from, delegation string, level campaign.ApprovalLevel) campaign.SignOffClaim {
	f.t.Helper()
	lender := f.users[from].UserID
	claim := f.signOff(who, level, func(o *store.SignOff) { o.ActingFor, o.DelegationID = &lender, &delegation })
	claim.Decide.ActingFor, claim.Decide.DelegationID = lender, delegation
	return claim
}
