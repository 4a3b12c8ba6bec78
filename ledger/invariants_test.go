package ledger

import (
	"context"
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

// Each invariant must fire on the fault that it watches for, planted past all the
// rules that would refuse it.
func TestInvariantsFire(t *testing.T) {
	l, ctx := open(t), context.Background()
	id, pool := newCampaign(t, l, "operator/north"), uuid.NewString()
	require.NoError(t, l.OpenPool(ctx, "operator", pool, "CNY"))
	_, err := l.Allocate(ctx, "p", Account{Kind: KindPool, Owner: pool}, cny(5000))
	require.NoError(t, err)
	_, err = l.ReserveAll(ctx, Budget{CampaignID: id, Currency: "CNY", Programme: newProgramme(t, l, 9000), Contingency: 60, Lines: []Ceiling{
		{Line: "calls", Category: campaign.CategoryContact, Amount: 1000}, {Line: "sms", Category: campaign.CategoryContact, Amount: 500},
		{Line: "gift", Category: campaign.CategoryPrepaid, Pool: pool, Amount: 700},
	}})
	require.NoError(t, err)
	_, err = l.Capture(ctx, "c", id, "calls", cny(200))
	require.NoError(t, err)
	_, err = l.Release(ctx, "l", id, "calls", cny(100))
	require.NoError(t, err)
	_, err = l.Close(ctx, "x", id, "sms", "CNY")
	require.NoError(t, err)
	_, err = l.Capture(ctx, "g", id, "gift", cny(300))
	require.NoError(t, err)
	_, err = l.EndCredit(ctx, "e", id, "gift", KindExpired, cny(40))
	require.NoError(t, err)
	undone, err := l.Capture(ctx, "c2", id, "calls", cny(11))
	require.NoError(t, err)
	_, err = l.Reverse(ctx, "u", undone.Journal)
	require.NoError(t, err)
	_, err = l.Return(ctx, "b", Line(id, "sms"), cny(25))
	require.NoError(t, err)
	requireSound(t, l)

	// The rows of the scene, by what they are.
	const (
		calls       = `(SELECT id FROM ledger_account WHERE kind = 'line' AND line = 'calls')`
		paid        = `(SELECT id FROM ledger_account WHERE kind = 'channel_payable' AND line = 'calls')`
		paidSMS     = `(SELECT id FROM ledger_account WHERE kind = 'channel_payable' AND line = 'sms')`
		outstanding = `(SELECT id FROM ledger_account WHERE kind = 'credit_outstanding')`
		columns     = `INSERT INTO ledger_journal (tenant, key, fingerprint, kind, from_id, to_id, amount, reverses) `
		unruled     = `ALTER TABLE ledger_account DROP CONSTRAINT ledger_account_held; `
	)
	fired := map[string]bool{}
	for _, c := range []struct {
		fault string
		want  []string
	}{
		{`UPDATE ledger_account SET posted = posted + 1 WHERE id = ` + paid, []string{"L1", "L3"}},
		// A release that moves money; a capture to an account of another currency or tenant.
		{`ALTER TABLE ledger_journal DROP CONSTRAINT ledger_journal_sound; UPDATE ledger_journal SET to_id = ` + outstanding + ` WHERE key = 'l';
		  UPDATE ledger_account SET posted = posted + CASE id WHEN ` + calls + ` THEN -100 ELSE 100 END WHERE id IN (` + calls + `, ` + outstanding + `)`, []string{"L2", "LA"}},
		{`UPDATE ledger_account SET currency = 'EUR' WHERE id = ` + paid, []string{"L1", "L2"}},
		{`UPDATE ledger_account SET tenant = 'rival' WHERE id = ` + outstanding, []string{"L2"}},
		{`UPDATE ledger_account SET posted = posted + CASE line WHEN 'sms' THEN 1 ELSE -1 END WHERE kind = 'channel_payable'`, []string{"L3"}},
		{unruled + `UPDATE ledger_account SET held = held - 1 WHERE id = ` + calls, []string{"L4"}},
		{unruled + `UPDATE ledger_account SET hold_open = false WHERE id = ` + calls, []string{"L4"}},
		{`UPDATE ledger_account SET released = released + 1, reserved = reserved + 1 WHERE id = ` + calls, []string{"L5"}},
		{`UPDATE ledger_account SET returned = returned + 1 WHERE kind = 'campaign'`, []string{"L5"}},
		{columns + `SELECT 'operator', 'k', '', 'reserve', ` + calls + `, NULL, 5, NULL`, []string{"L5"}},
		{`ALTER TABLE ledger_account DROP CONSTRAINT ledger_account_no_overspend; UPDATE ledger_account SET floor = 9000 WHERE kind = 'programme'`, []string{"L6", "L7"}},
		// The money is spent before it is there.
		{`ALTER TABLE ledger_journal ALTER id DROP IDENTITY; UPDATE ledger_journal SET id = -id WHERE kind = 'credit_expired'`, []string{"L7"}},
		{`UPDATE ledger_journal SET to_id = ` + paidSMS + ` WHERE key = 'c'; UPDATE ledger_account SET posted = CASE line WHEN 'sms' THEN 200 ELSE 0 END WHERE kind = 'channel_payable'`, []string{"L8"}},
		{`UPDATE ledger_journal SET kind = 'credit_used' WHERE key = 'e'`, []string{"L8"}},
		{`DROP INDEX ledger_journal_reverses; ` + columns + `SELECT 'operator', 'k', '', 'reverse', ` + paid + `, ` + calls + `, 11, reverses FROM ledger_journal WHERE kind = 'reverse';
		  UPDATE ledger_account SET posted = posted - 11 WHERE id = ` + paid + `;
		  UPDATE ledger_account SET posted = posted + 11, captured = captured - 11, released = released + 11 WHERE id = ` + calls, []string{"L9"}},
		{`UPDATE ledger_journal SET amount = 10 WHERE kind = 'reverse';
		  UPDATE ledger_account SET posted = posted + 1 WHERE id = ` + paid + `;
		  UPDATE ledger_account SET posted = posted - 1, captured = captured + 1, released = released - 1 WHERE id = ` + calls, []string{"L9"}},
		{`UPDATE ledger_account SET parent = (SELECT id FROM ledger_account WHERE kind = 'credit_pool') WHERE id = ` + calls, []string{"LA"}},
	} {
		tx, err := l.pool.Begin(ctx)
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(ctx) }() // also when the test fails
		for _, table := range []string{"journal", "account"} {
			_, err = tx.Exec(ctx, "ALTER TABLE ledger_"+table+" DISABLE TRIGGER USER")
			require.NoError(t, err)
		}
		_, err = tx.Exec(ctx, c.fault, pgx.QueryExecModeSimpleProtocol)
		require.NoError(t, err, c.fault)
		found, err := check(ctx, tx)
		require.NoError(t, err)
		var names []string
		for _, v := range found {
			names = append(names, v.Invariant)
			fired[v.Invariant] = true
		}
		require.Equal(t, c.want, slices.Compact(names), "%s: %v", c.fault, found)
		require.NoError(t, tx.Rollback(ctx))
	}
	require.Len(t, Invariants(), 10)
	for _, i := range Invariants() {
		require.True(t, fired[i.Name], "no fault was planted for %s", i.Name)
		require.NotEmpty(t, i.Promise)
		require.NotEmpty(t, i.query)
	}
	requireSound(t, l)
}
