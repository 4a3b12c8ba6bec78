package ledger

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// Each invariant must fire on the fault that it watches for, planted past all the
// rules that would refuse it.
func TestInvariantsFire(t *testing.T) {
	l, ctx := open(t), context.Background()
	id := newCampaign(t, l, "operator/north")
	_, err := l.ReserveAll(ctx, id, "CNY", []Ceiling{{"calls", 1000}, {"sms", 500}})
	require.NoError(t, err)
	_, err = l.Capture(ctx, "c", id, "calls", cny(200))
	require.NoError(t, err)
	_, err = l.Release(ctx, "l", id, "calls", cny(100))
	require.NoError(t, err)
	_, err = l.Close(ctx, "x", id, "sms", "CNY")
	require.NoError(t, err)
	requireSound(t, l)

	fired := map[string]bool{}
	for _, c := range []struct {
		fault string
		want  []string
	}{
		{`UPDATE ledger_account SET posted = posted + 1 WHERE kind = 'payable' AND line = 'calls'`, []string{"L1", "L3"}},
		{`INSERT INTO ledger_journal (tenant, key, fingerprint, kind, campaign_id) SELECT 'operator', 'k', '', 'allocate', id FROM campaign`, []string{"L2"}},
		{`INSERT INTO ledger_posting (journal_id, account_id, amount)
		  SELECT j.id, a.id, CASE a.kind WHEN 'source' THEN -1 ELSE 1 END FROM ledger_journal j, ledger_account a
		  WHERE j.kind = 'reserve' AND j.fingerprint LIKE '%calls%' AND (a.kind = 'source' OR a.kind = 'payable' AND a.line = 'calls');
		  UPDATE ledger_account SET posted = posted - 1 WHERE kind = 'source';
		  UPDATE ledger_account SET posted = posted + 1 WHERE kind = 'payable' AND line = 'calls'`, []string{"L2"}},
		{`UPDATE ledger_account SET posted = posted + CASE line WHEN 'sms' THEN 1 ELSE -1 END WHERE kind = 'payable'`, []string{"L3"}},
		{`UPDATE ledger_account SET held = held + 1 WHERE kind = 'line' AND line = 'sms'`, []string{"L4"}},
		{`UPDATE ledger_hold SET released = released + 1, amount = amount + 1 WHERE captured > 0`, []string{"L5"}},
		{`ALTER TABLE ledger_hold DROP CONSTRAINT ledger_hold_check; UPDATE ledger_hold SET released = released - 1 WHERE closed_at IS NOT NULL`, []string{"L5"}},
		{`ALTER TABLE ledger_account DROP CONSTRAINT ledger_account_no_overspend; UPDATE ledger_account SET floor = 600 WHERE line = 'sms' AND kind = 'line'`, []string{"L6", "L7"}},
		{`UPDATE ledger_posting SET seq = -seq WHERE amount = -200`, []string{"L7"}},
		{`UPDATE ledger_hold_event SET amount = amount + 1 WHERE kind = 'capture'; UPDATE ledger_hold SET captured = captured + 1 WHERE captured > 0;
		  UPDATE ledger_account SET held = held - 1 WHERE line = 'calls' AND kind = 'line'`, []string{"L8"}},
		{`UPDATE ledger_posting SET account_id = (SELECT id FROM ledger_account WHERE kind = 'payable' AND line = 'sms') WHERE amount = 200;
		  UPDATE ledger_account SET posted = CASE line WHEN 'sms' THEN 200 ELSE 0 END WHERE kind = 'payable'`, []string{"L8"}},
		{`DELETE FROM ledger_hold_event WHERE kind = 'release' AND amount = 100; UPDATE ledger_hold SET released = 0, amount = amount - 100 WHERE captured > 0;
		  INSERT INTO ledger_hold_event (journal_id, hold_id, kind, amount)
		  SELECT (SELECT min(id) FROM ledger_journal WHERE kind = 'allocate'), h.id, 'release', 0 FROM ledger_hold h WHERE captured > 0`, []string{"L5", "L9"}},
		{`ALTER TABLE ledger_journal DROP CONSTRAINT ledger_journal_reverses_key;
		  INSERT INTO ledger_journal (tenant, key, fingerprint, kind, campaign_id, reverses)
		  SELECT 'operator', 'k' || n, '', 'reverse', j.campaign_id, j.id FROM ledger_journal j, generate_series(1, 2) n WHERE j.kind = 'capture'`, []string{"L2", "L9"}},
	} {
		tx, err := l.pool.Begin(ctx)
		require.NoError(t, err)
		for _, table := range []string{"journal", "posting", "hold", "hold_event", "account"} {
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
	for n := range 9 {
		require.True(t, fired[fmt.Sprintf("L%d", n+1)], "no fault was planted for L%d", n+1)
	}
	require.Len(t, Invariants(), 9)
	for _, i := range Invariants() {
		require.NotEmpty(t, i.Promise)
		require.NotEmpty(t, i.query)
	}
	requireSound(t, l)
}
