package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// somebody adds a user.
func somebody(t *testing.T, st *store.Store, login string) campaign.Actor {
	t.Helper()
	actor := campaign.Actor{Login: login, Name: "Some " + login}
	require.NoError(t, st.Pool().QueryRow(t.Context(), `INSERT INTO app_user (id, login, name, password_hash) VALUES (gen_random_uuid(), $1, $2, '-') RETURNING id::text`, login, actor.Name).Scan(&actor.UserID))
	return actor
}

func told(t *testing.T, st *store.Store, event string) int64 {
	t.Helper()
	return one[int64](t, st, `SELECT count(*) FROM audit_event WHERE event = $1`, event)
}

// Who works as the application has no right to change a table, and declares attributes all the same.
func TestTheApplicationDeclaresAttributes(t *testing.T) {
	st, ctx := open(t), t.Context()
	by := somebody(t, st, "ada")
	grade := store.Attribute{Name: "grade", Type: store.AttributeText, Meaning: "Grade", MeaningZh: "等级", Source: "billing", Allowed: []string{"gold", "silver"}}
	require.NoError(t, st.DeclareAttributes(ctx, by, append([]store.Attribute{grade}, attributes...)))
	require.EqualValues(t, len(attributes)+1, told(t, st, "attribute.added"))
	_, err := st.ImportCustomers(ctx, store.CustomerImport{Name: "a", Digest: "a", Attributes: attributes}, people(0, 3, nil), nil)
	require.Error(t, err, "it may not drop the indexes of an empty table")
	_, err = st.Pool().Exec(ctx, `INSERT INTO customer (id, external_id, org_unit, time_zone, grade, age) VALUES (gen_random_uuid(), 'a', 'operator', 'UTC', 'gold', 3)`)
	require.NoError(t, err)
	require.Equal(t, "text", one[string](t, st, `SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'customer'::regclass AND attname = 'grade' AND NOT attnotnull`))

	require.NoError(t, st.DeclareAttributes(ctx, by, []store.Attribute{grade}), "again")
	require.Zero(t, told(t, st, "attribute.changed"))
	grade.Meaning, grade.PII, grade.Allowed = "The grade", true, []string{"gold", "silver", "bronze"}
	require.NoError(t, st.DeclareAttributes(ctx, by, []store.Attribute{grade}))
	require.EqualValues(t, 1, one[int64](t, st, `SELECT count(*) FROM audit_event WHERE event = 'attribute.changed' AND actor_id = $1 AND actor = 'Some ada'
		AND data->>'name' = 'grade' AND data->'before'->>'meaning' = 'Grade' AND data->'after'->>'meaning' = 'The grade' AND data->'after'->'allowed' ? 'bronze'`, by.UserID))
	// An import takes no flag away.
	open := grade
	open.PII = false
	require.NoError(t, st.DeclareAttributes(ctx, campaign.Actor{}, []store.Attribute{open}))
	declared, err := st.CustomerAttributes(ctx)
	require.NoError(t, err)
	require.Contains(t, declared, grade)
	open.Source = "import" // by somebody
	require.NoError(t, st.DeclareAttributes(ctx, by, []store.Attribute{open}))
	require.True(t, one[bool](t, st, `SELECT pii AND source = 'import' FROM customer_attribute WHERE name = 'grade'`))

	for name, a := range map[string]store.Attribute{
		"allowed values of a number": {Name: "n", Type: store.AttributeInt, Allowed: []string{"1"}},
		"an allowed value twice":     {Name: "n", Type: store.AttributeText, Allowed: []string{"a", "a"}},
		"an empty allowed value":     {Name: "n", Type: store.AttributeText, Allowed: []string{""}},
	} {
		require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(st.DeclareAttributes(ctx, by, []store.Attribute{a})), name)
	}
	grade.Type = store.AttributeInt
	grade.Allowed = nil
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(st.DeclareAttributes(ctx, by, []store.Attribute{{Name: "more", Type: store.AttributeInt}, grade})))
	require.Zero(t, one[int64](t, st, `SELECT count(*) FROM customer_attribute WHERE name = 'more'`), "all of them or none")

	// What it may call adds columns of these types and does nothing else.
	call := func(name, typ string) error {
		_, err := st.Pool().Exec(ctx, `SELECT declare_customer_attribute($1, $2, '', '', '', false, false, '', '{}', NULL, '')`, name, typ)
		return err
	}
	for _, c := range [][2]string{{`a int; DROP TABLE customer; --`, "int"}, {"Age", "int"}, {"", "int"}, {"n", "int; DROP TABLE customer"}, {"n", "money"}, {"opted_out", "bool"}, {"xmin", "int"}} {
		require.Error(t, call(c[0], c[1]), c)
	}
	require.NoError(t, call("order_by", "int"))
	denied(t, st, `DELETE FROM customer_attribute`)
	_, err = st.Pool().Exec(ctx, `UPDATE customer_attribute SET type = 'int' WHERE name = 'grade'`)
	require.ErrorContains(t, err, "keeps its name and type")
}

// A column is asked for and not waited for: while somebody else has the table, readers go on.
func TestDeclaringWaitsForNobody(t *testing.T) {
	st := open(t)
	require.NoError(t, st.DeclareAttributes(t.Context(), campaign.Actor{}, attributes))
	busy, err := st.Pool().Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = busy.Rollback(context.Background()) }()
	_, err = busy.Exec(t.Context(), `LOCK TABLE customer IN ROW EXCLUSIVE MODE`)
	require.NoError(t, err)

	soon, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err = st.DeclareAttributes(soon, campaign.Actor{}, []store.Attribute{{Name: "later", Type: store.AttributeInt}})
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(err), "%v", err)
	require.NoError(t, st.DeclareAttributes(t.Context(), campaign.Actor{}, attributes), "what is declared needs no column")

	done := make(chan error)
	go func() {
		done <- st.DeclareAttributes(t.Context(), campaign.Actor{}, []store.Attribute{{Name: "later", Type: store.AttributeInt}})
	}()
	for range 20 {
		require.Zero(t, one[int64](t, st, `SELECT count(*) FROM customer`))
	}
	require.NoError(t, busy.Commit(t.Context()))
	require.NoError(t, <-done)
	require.Zero(t, one[int64](t, st, `SELECT count(later) FROM customer`))
}
