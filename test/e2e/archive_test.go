package e2e_test

import (
	"encoding/hex"
	"net/url"
	"regexp"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/config"
	"github.com/musterhq/muster/store"
)

// requireContinued checks that the campaign lived through several runs, that each is in
// the archive, and that they are one chain from its start to its end.
func (i *instance) requireContinued(t *testing.T, r *running) {
	t.Helper()
	st := i.open(t)
	all, err := st.ArchivedRuns(t.Context(), r.id)
	require.NoError(t, err)
	require.Len(t, all, r.detail(t).ArchivedRuns)
	runs := map[string]*historypb.History{}
	first := ""
	for _, run := range all {
		if run.WorkflowID != campaign.CampaignWorkflowID(r.id) {
			continue
		}
		body, err := st.ArchivedBody(t.Context(), run.WorkflowID, run.RunID)
		require.NoError(t, err)
		h := unpack(t, body)
		runs[run.RunID] = h
		if h.Events[0].GetWorkflowExecutionStartedEventAttributes().GetContinuedExecutionRunId() == "" {
			require.Empty(t, first, "two runs that continue none")
			first = run.RunID
		}
	}
	require.GreaterOrEqual(t, len(runs), 2, "the campaign was never continued as new")
	events, length := 0, 0
	for at := first; at != ""; length++ {
		h := runs[at]
		require.NotNil(t, h, "run %s is not in the archive", at)
		events += len(h.Events)
		last := h.Events[len(h.Events)-1]
		at = last.GetWorkflowExecutionContinuedAsNewEventAttributes().GetNewExecutionRunId()
		if at == "" {
			require.Equal(t, enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED, last.EventType)
		}
	}
	require.Equal(t, len(runs), length)
	t.Logf("the campaign took %d runs with %d events", length, events)
}

// requireNoPeopleInTemporal searches all that Temporal keeps, in histories, tasks and its
// index, for anybody's phone number or identity: workflows know counts, and what is not
// there need not be encrypted or erased.
func (i *instance) requireNoPeopleInTemporal(t *testing.T, r *running) {
	t.Helper()
	// As internal/dataset makes them; checked below on somebody who got a message.
	someone := regexp.MustCompile(`9992\d{9}|gen-\d{9}`)
	st := i.open(t)
	people := map[string]bool{}
	rows, err := st.Pool().Query(t.Context(), `SELECT c.customer_id::text, k.external_id, p.sealed, w.wrapped FROM contact c
		JOIN customer k ON k.id = c.customer_id JOIN phone_vault p USING (customer_id) JOIN phone_key w USING (customer_id) WHERE c.campaign_id = $1`, r.id)
	require.NoError(t, err)
	keys, err := config.VaultKeys("", i.dir)
	require.NoError(t, err)
	vault, err := store.NewVault(keys[0], keys[1:]...)
	require.NoError(t, err)
	var id, external string
	var sealed, wrapped []byte
	_, err = pgx.ForEachRow(rows, []any{&id, &external, &sealed, &wrapped}, func() error {
		number, err := vault.Open(uuid.MustParse(id), sealed, wrapped)
		require.NoError(t, err)
		require.Regexp(t, someone, number)
		require.Regexp(t, someone, external)
		people[id] = true
		return nil
	})
	require.NoError(t, err)
	require.NotEmpty(t, people)

	anyID := regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	for _, database := range []string{"temporal", "temporal_visibility"} {
		values, ours := 0, false
		i.everyValue(t, database, func(table string, value []byte) {
			values++
			require.Falsef(t, someone.Match(value), "%s.%s names a person: %s", database, table, hex.Dump(value))
			for _, found := range anyID.FindAll(value, -1) {
				require.Falsef(t, people[string(found)], "%s.%s names customer %s", database, table, found)
				ours = ours || string(found) == r.id
			}
		})
		require.Truef(t, ours, "the search of %s, with %d values, does not even find the campaign", database, values)
	}
	runs, err := st.ArchivedRuns(t.Context(), r.id)
	require.NoError(t, err)
	for _, run := range runs {
		body, err := st.ArchivedBody(t.Context(), run.WorkflowID, run.RunID)
		require.NoError(t, err)
		// The binary form has payloads as they are; JSON would hide them in base64.
		plain, err := unpack(t, body).Marshal()
		require.NoError(t, err)
		require.False(t, someone.Match(plain), run.WorkflowID)
		for _, found := range anyID.FindAll(plain, -1) {
			require.False(t, people[string(found)], run.WorkflowID)
		}
	}
}

// everyValue visits every value of every row of a database of the instance's PostgreSQL.
func (i *instance) everyValue(t *testing.T, database string, visit func(table string, value []byte)) {
	t.Helper()
	at, err := url.Parse(i.DatabaseURL)
	require.NoError(t, err)
	at.Path = "/" + database
	db, err := pgx.Connect(t.Context(), at.String())
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close(t.Context())) }()
	var tables []string
	require.NoError(t, db.QueryRow(t.Context(), `SELECT array_agg(relname::text) FROM pg_class
		WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace`).Scan(&tables))
	require.NotEmpty(t, tables)
	for _, table := range tables {
		rows, err := db.Query(t.Context(), "SELECT * FROM "+pgx.Identifier{table}.Sanitize())
		require.NoError(t, err)
		for rows.Next() {
			for _, value := range rows.RawValues() {
				visit(table, value)
			}
		}
		require.NoError(t, rows.Err())
	}
}
