package ledger

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

// as returns the ledger of the same database for another role.
func as(t *testing.T, l *Ledger, role string) *Ledger {
	t.Helper()
	config := l.pool.Config()
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "SET ROLE "+pgx.Identifier{role}.Sanitize())
		return err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return New(pool)
}

func TestTheApplicationWritesByFunctionsAlone(t *testing.T) {
	owner, ctx := open(t), t.Context()
	id := newCampaign(t, owner, "operator/north")
	l := as(t, owner, "muster_app")

	programme := newProgramme(t, l, 1000)
	_, err := l.ReserveAll(ctx, Budget{CampaignID: id, Currency: "CNY", Programme: programme, Contingency: 100, Lines: []Ceiling{{Line: "calls", Amount: 500}}})
	require.NoError(t, err)
	capture, err := l.Capture(ctx, "c", id, "calls", cny(100))
	require.NoError(t, err)
	_, err = l.Reverse(ctx, "r", capture.Journal)
	require.NoError(t, err)
	_, err = l.DrawContingency(ctx, "d", id, "calls", cny(10))
	require.NoError(t, err)
	require.NoError(t, l.CloseAll(ctx, id))
	_, err = l.Finish(ctx, id)
	require.NoError(t, err)
	_, err = l.CloseAccount(ctx, "x", Line(id, "calls"))
	require.NoError(t, err)
	requireSound(t, l)
	for _, owned := range []string{id, programme} {
		records, err := l.Entries(ctx, owned, 0, 100)
		require.NoError(t, err)
		require.NotEmpty(t, records)
	}

	for _, sql := range []string{
		`INSERT INTO ledger_account (tenant, kind, currency, floor) VALUES ('operator', 'source', 'EUR', -1)`,
		`UPDATE ledger_account SET posted = posted`,
		`DELETE FROM ledger_account`,
		`TRUNCATE ledger_account CASCADE`,
		`INSERT INTO ledger_journal (tenant, key, fingerprint, kind, from_id, amount) SELECT 'operator', 'k', '', 'reserve', id, 1 FROM ledger_account LIMIT 1`,
		`UPDATE ledger_journal SET reason = 'other'`,
		`DELETE FROM ledger_journal`,
		`TRUNCATE ledger_journal`,
		`SELECT 1 FROM ledger_account FOR UPDATE`,
		`SELECT ledger_record('operator', 'k', '', 'reserve', 1, NULL, 1, NULL, NULL, '')`,
		`SELECT ledger_open_source('operator', 'EUR')`,
		`SELECT ledger_move(false, 'k', 'programme', NULL, '', 1, 'CNY', NULL, '')`,
		`ALTER TABLE ledger_account DROP CONSTRAINT ledger_account_no_overspend`,
		`ALTER TABLE ledger_journal DISABLE TRIGGER USER`,
	} {
		_, err := l.pool.Exec(ctx, sql)
		var pg *pgconn.PgError
		require.ErrorAs(t, err, &pg, sql)
		require.Equal(t, "42501", pg.Code, "%s: %v", sql, err)
	}
	_, err = l.pool.Exec(ctx, `INSERT INTO ledger_posting (journal_id, account_id, amount) VALUES (1, 1, 1)`)
	require.Error(t, err)

	// Nobody else gets in at all.
	_, err = owner.pool.Exec(ctx, `DO $$ BEGIN CREATE ROLE ledger_stranger NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$`)
	require.NoError(t, err)
	stranger := as(t, owner, "ledger_stranger")
	for _, sql := range []string{`SELECT FROM ledger_account`, `SELECT FROM ledger_journal`, `SELECT FROM ledger_posting`, `SELECT ledger_finish(gen_random_uuid())`} {
		_, err := stranger.pool.Exec(ctx, sql)
		var pg *pgconn.PgError
		require.ErrorAs(t, err, &pg, sql)
		require.Equal(t, "42501", pg.Code, sql)
	}
	_, err = stranger.Reserve(ctx, "k", id, "calls", cny(1))
	require.Equal(t, campaign.CodeInternal, campaign.CodeOf(err))
}
