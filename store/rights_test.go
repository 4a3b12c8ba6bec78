package store_test

import (
	"context"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/pgtest"
	"github.com/musterhq/muster/store"
)

// denied asserts that PostgreSQL gives the application no right to do this.
func denied(t *testing.T, st *store.Store, sql string) {
	t.Helper()
	_, err := st.Pool().Exec(context.Background(), sql)
	var pg *pgconn.PgError
	require.ErrorAs(t, err, &pg, sql)
	require.Equal(t, "42501", pg.Code, "%s: %v", sql, err)
}

func TestTheApplicationMayDoNoMoreThanItMust(t *testing.T) {
	st := open(t)
	require.Equal(t, "muster_app", one[string](t, st, `SELECT current_user`))
	rows, err := st.Pool().Query(t.Context(), `SELECT c.relname,
			EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgfoid = 'refuse_change'::regproc AND t.tgtype & 16 <> 0)
		FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')`)
	require.NoError(t, err)
	evidence := map[string]bool{}
	var table string
	var appendOnly bool
	_, err = pgx.ForEachRow(rows, []any{&table, &appendOnly}, func() error { evidence[table] = appendOnly; return nil })
	require.NoError(t, err)
	for _, name := range []string{"plan_revision", "sign_off", "sign_off_counted", "command_given", "audit_event", "history_archive", "ledger_journal"} {
		require.True(t, evidence[name], name)
	}
	for table, appendOnly := range evidence {
		name := pgx.Identifier{table}.Sanitize()
		denied(t, st, `TRUNCATE `+name+` CASCADE`)
		denied(t, st, `ALTER TABLE `+name+` DISABLE TRIGGER USER`)
		denied(t, st, `ALTER TABLE `+name+` ADD COLUMN more int`)
		denied(t, st, `DROP TABLE `+name+` CASCADE`)
		denied(t, st, `CREATE TRIGGER mine BEFORE INSERT ON `+name+` EXECUTE FUNCTION refuse_change()`)
		if appendOnly {
			denied(t, st, `DELETE FROM `+name)
			denied(t, st, `SELECT FROM `+name+` FOR UPDATE`)
		}
	}
	for _, sql := range []string{
		`UPDATE plan_revision SET note = ''`, `UPDATE sign_off SET decision = 'approve'`, `UPDATE audit_event SET actor = ''`,
		`UPDATE command_given SET name = ''`, `UPDATE history_archive SET body = ''`,
		`INSERT INTO ledger_account (tenant, kind, currency, floor) VALUES ('operator', 'source', 'EUR', -1)`,
		`UPDATE ledger_account SET posted = 0`, `DELETE FROM ledger_account`, `UPDATE ledger_journal SET amount = 1`,
		`DELETE FROM delegation`, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (1, true)`,
		`CREATE TABLE mine (n int)`, `CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'`, `CREATE ROLE mine`,
		`ALTER FUNCTION refuse_change() RENAME TO other`, `SET session_replication_role = replica`,
		`SELECT ledger_record('operator', 'k', '', 'reserve', 1, NULL, 1, NULL, NULL, '')`,
	} {
		denied(t, st, sql)
	}
	// Undoing the role leaves it, for the connection began with it.
	_, err = st.Pool().Exec(t.Context(), `RESET ROLE`)
	require.NoError(t, err)
	require.Equal(t, "muster_app", one[string](t, st, `SELECT current_user`))
}

// What works with its owner's rights finds no table, function or operator but the schema's own,
// whoever calls it.
func TestFunctionsOfTheOwnerNameTheirSchema(t *testing.T) {
	st := open(t)
	require.Equal(t, "", one[string](t, st, `SELECT coalesce(string_agg(p.oid::regprocedure::text, ', '), '') FROM pg_proc p
		WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef AND NOT coalesce('search_path=public, pg_temp' = ANY (p.proconfig), false)`))
	denied(t, st, `CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'`)
}

// What a campaign's own tables need is done for the application, and nothing else is.
func TestTheApplicationMakesACampaignsTables(t *testing.T) {
	st, ctx, id := open(t), t.Context(), uuid.New()
	for _, sql := range []string{`SELECT prepare_campaign_targets($1)`, `SELECT adopt_campaign_targets($1)`, `SELECT prepare_campaign_targets($1)`, `SELECT adopt_campaign_targets($1)`} {
		_, err := st.Pool().Exec(ctx, sql, id)
		require.NoError(t, err, sql)
	}
	for _, parent := range []string{"campaign_target", "contact", "contact_attempt"} {
		_, err := st.Pool().Exec(ctx, `SELECT analyse_campaign($1, $2)`, parent, id)
		require.NoError(t, err, parent)
	}
	_, err := st.Pool().Exec(ctx, `SELECT analyse_campaign('sign_off', $1)`, id)
	require.ErrorContains(t, err, "has no partitions")
}

// Migrating again changes nothing, gives what is missing and takes what is too much.
func TestRightsAreMended(t *testing.T) {
	st := open(t)
	all := func() string {
		return one[string](t, st, `SELECT string_agg(c.relname || coalesce(c.relacl::text, ''), ' ' ORDER BY c.relname) FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace`)
	}
	before := all()
	mend := func() {
		owned, err := store.Open(t.Context(), ownerURL(st), store.AsOwner())
		require.NoError(t, err)
		defer owned.Close()
		_, err = owned.Migrate(t.Context())
		require.NoError(t, err)
	}
	mend()
	require.Equal(t, before, all())
	_, err := owner(t, st).Exec(t.Context(), `GRANT UPDATE ON sign_off TO muster_app; REVOKE INSERT ON audit_event FROM muster_app; GRANT ALL ON ledger_journal TO muster_app`)
	require.NoError(t, err)
	require.NotEqual(t, before, all())
	mend()
	require.Equal(t, before, all())
}

// Whoever may neither work as the application's role nor make it is told what to do.
func TestAUserWithoutTheRoleIsTold(t *testing.T) {
	st := open(t)
	admin := owner(t, st)
	name := "stranger_" + uuid.NewString()[:8]
	for _, sql := range []string{`CREATE ROLE ` + name + ` LOGIN PASSWORD 'secret'`, `GRANT CREATE ON SCHEMA public TO ` + name} {
		_, err := admin.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		_, err := admin.Exec(context.Background(), `DROP OWNED BY `+name+`; DROP ROLE `+name)
		require.NoError(t, err)
	})
	url := as(ownerURL(st), name, "secret")
	_, err := store.Open(t.Context(), url)
	require.Equal(t, campaign.CodeForbidden, campaign.CodeOf(err), "%v", err)
	require.ErrorContains(t, err, "GRANT muster_app TO "+name)

	// With the role and nothing else the application works.
	_, err = admin.Exec(t.Context(), `GRANT muster_app TO `+name)
	require.NoError(t, err)
	member, err := store.Open(t.Context(), url)
	require.NoError(t, err)
	defer member.Close()
	_, err = member.UnstartedCampaigns(t.Context(), 1)
	require.NoError(t, err)
	denied(t, member, `UPDATE ledger_account SET posted = 0`)

	// A database of its own it can migrate, for the role is there already.
	fresh := pgtest.NewDatabase(t)
	_, err = admin.Exec(t.Context(), `ALTER DATABASE `+databaseOf(fresh)+` OWNER TO `+name)
	require.NoError(t, err)
	own, err := store.Open(t.Context(), as(fresh, name, "secret"), store.AsOwner())
	require.NoError(t, err)
	defer own.Close()
	_, err = own.Migrate(t.Context())
	require.NoError(t, err)
	_, err = admin.Exec(t.Context(), `REVOKE muster_app FROM `+name)
	require.NoError(t, err)
	_, err = own.Migrate(t.Context())
	require.Equal(t, campaign.CodeForbidden, campaign.CodeOf(err), "%v", err)
	require.ErrorContains(t, err, "as a superuser run")
}
