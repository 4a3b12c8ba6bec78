package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// customers adds bare customers of a unit, c0 and up, and returns their ids.
func (e *env) customers(prefix string, n int, unit campaign.OrgUnit) []string {
	e.t.Helper()
	ids := make([]string, n)
	for i := range ids {
		ids[i] = uuid.Must(uuid.NewV7()).String()
		e.exec(`INSERT INTO customer (id, external_id, org_unit, time_zone) VALUES ($1, $2, $3, 'Asia/Shanghai')`, ids[i], fmt.Sprintf("%s%d", prefix, i), unit)
	}
	return ids
}

func TestContactHistoryAndView(t *testing.T) {
	e := newEnv(t)
	ids := e.customers("c", 2, here)
	theirs := e.customers("s", 1, there)
	at := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	entry := func(customer string, n int) map[string]any {
		return map[string]any{
			"external_id": customer, "at": at.Add(time.Duration(n) * time.Hour), "kind": "consultation", "direction": "in",
			"channel": "hotline", "source": "crm", "source_id": fmt.Sprint(n),
		}
	}
	batch := []any{}
	for n := range 5 {
		batch = append(batch, entry("c0", n))
	}
	batch = append(batch, entry("c0", 4), entry("nobody", 6), entry("s0", 7))
	body := map[string]any{"contacts": batch}
	got := into[ContactHistoryResult](t, e.send("operator", "POST", "/v1/contact-history", body))
	require.EqualValues(t, 5, got.Accepted)
	require.EqualValues(t, 1, got.Duplicate)
	require.EqualValues(t, 2, got.Rejected)
	require.Equal(t, []string{"contacts[6].external_id", "contacts[7].external_id"}, []string{got.Faults[0].Field, got.Faults[1].Field})
	again := into[ContactHistoryResult](t, e.send("operator", "POST", "/v1/contact-history", body))
	require.EqualValues(t, 6, again.Duplicate)
	require.Equal(t, http.StatusForbidden, e.send("planner", "POST", "/v1/contact-history", body).status)

	var seen []time.Time
	path := "/v1/customers/" + ids[0] + "/contacts?limit=2"
	for cursor := ""; ; {
		page := into[ContactViewPage](t, e.send("planner", "GET", path+cursor, nil))
		for _, i := range page.Items {
			require.EqualValues(t, "history", i.Origin)
			seen = append(seen, *i.At)
		}
		if page.Next == "" {
			break
		}
		cursor = "&cursor=" + page.Next
		r := e.send("planner", "GET", "/v1/customers/"+ids[1]+"/contacts?limit=2"+cursor, nil)
		require.EqualValues(t, campaign.CodeInvalidCursor, r.problem(t).Code, "of another customer")
	}
	require.Len(t, seen, 5)
	for i := range seen {
		require.True(t, seen[i].Equal(at.Add(time.Duration(4-i)*time.Hour)), "newest first")
	}
	require.Empty(t, into[ContactViewPage](t, e.send("planner", "GET", path+"&kind=complaint", nil)).Items)
	require.Equal(t, http.StatusBadRequest, e.send("planner", "GET", path+"&kind=gossip", nil).status)
	for _, id := range []string{theirs[0], uuid.NewString()} {
		r := e.send("planner", "GET", "/v1/customers/"+id+"/contacts", nil)
		require.EqualValues(t, campaign.CodeNotFound, r.problem(t).Code)
	}
}

func TestLists(t *testing.T) {
	e := newEnv(t)
	e.customers("c", 4, here)
	e.customers("s", 1, there)
	l := into[CustomerList](t, e.send("planner", "POST", "/v1/lists", map[string]any{"unit": here, "name": "vip", "kind": "upload"}))
	require.Equal(t, "draft", l.State)
	members := "/v1/lists/" + l.ID + "/members"
	file := "\ufeffid\r\nc0\r\n\"c1\"\r\n\r\nc0\nnobody\n" + strings.Repeat("x", 10_000) + "\ns0\nc2,b"
	headers := []string{"Content-Type", "application/octet-stream", "Idempotency-Key", "k1"}
	added := into[MembersAdded](t, e.send("planner", "POST", members+"?by=external_id&header=true", file, headers...))
	require.Equal(t, []int64{7, 3, 1, 3}, []int64{added.Lines, added.Added, added.Duplicate, added.Rejected})
	var lines []string
	for _, f := range added.Faults {
		lines = append(lines, fmt.Sprint(f.Line, " ", f.Code))
	}
	require.Equal(t, []string{"7 invalid_parameter", "5 already_exists", "6 not_found", "8 not_found"}, lines)
	r := e.send("planner", "POST", members+"?by=external_id&header=true", file, headers...)
	require.Equal(t, "true", r.header.Get("Idempotency-Replayed"))
	require.Equal(t, added, into[MembersAdded](t, r))
	for _, other := range []struct{ query, body string }{{"?by=external_id&header=true", file + "\nc3"}, {"?by=external_id", file}} {
		r = e.send("planner", "POST", members+other.query, other.body, headers...)
		require.EqualValues(t, campaign.CodeKeyReused, r.problem(t).Code, "another file or other options under the key")
	}
	for _, bad := range []struct {
		login, query, kind string
		status             int
	}{
		{"planner", "?by=external_id", "text/plain", http.StatusUnsupportedMediaType},
		{"planner", "?by=name", "application/octet-stream", http.StatusBadRequest},
		{"planner", "", "application/octet-stream", http.StatusBadRequest},
		{"analyst", "?by=external_id", "application/octet-stream", http.StatusForbidden},
		{"stranger", "?by=external_id", "application/octet-stream", http.StatusNotFound},
		{"", "?by=external_id", "application/octet-stream", http.StatusUnauthorized},
	} {
		require.Equal(t, bad.status, e.send(bad.login, "POST", members+bad.query, "c3", "Content-Type", bad.kind).status, bad)
	}
	e.server.uploads["addListMembers"] = 100
	r = e.send("planner", "POST", members+"?by=external_id", strings.Repeat("c3\n", 100), "Content-Type", "application/octet-stream")
	require.EqualValues(t, campaign.CodeFileTooLarge, r.problem(t).Code)
	require.Equal(t, http.StatusRequestEntityTooLarge, r.status)

	l = into[CustomerList](t, e.send("planner", "POST", "/v1/lists/"+l.ID+"/publish", nil))
	require.Equal(t, "published", l.State)
	require.EqualValues(t, 3, l.Members)
	require.Equal(t, l, into[CustomerList](t, e.send("analyst", "GET", "/v1/lists/"+l.ID, nil)))
	r = e.send("planner", "POST", members+"?by=external_id", "c3", "Content-Type", "application/octet-stream")
	require.EqualValues(t, campaign.CodeStateConflict, r.problem(t).Code)
	second := into[CustomerList](t, e.send("planner", "POST", "/v1/lists", map[string]any{"unit": here, "name": "vip", "kind": "arms"}))
	require.Equal(t, 2, second.Version)
	page := into[CustomerListPage](t, e.send("planner", "GET", "/v1/lists?limit=1", nil))
	require.Equal(t, second.ID, page.Items[0].ID)
	page = into[CustomerListPage](t, e.send("planner", "GET", "/v1/lists?cursor="+page.Next, nil))
	require.Equal(t, l.ID, page.Items[0].ID)
	require.Empty(t, page.Next)
	require.Equal(t, "retired", into[CustomerList](t, e.send("planner", "POST", "/v1/lists/"+second.ID+"/retire", nil)).State)
	require.Empty(t, into[CustomerListPage](t, e.send("stranger", "GET", "/v1/lists", nil)).Items)

	id := e.newCampaign().Campaign.ID
	for _, bad := range []map[string]any{
		{"unit": here, "name": "x", "kind": "upload", "campaign_id": id}, {"unit": here, "name": "x", "kind": "campaign_result"},
		{"unit": here, "name": "x", "kind": "upload", "with": []string{"willing"}}, {"unit": here, "name": " x", "kind": "upload"},
	} {
		require.Equal(t, http.StatusBadRequest, e.send("planner", "POST", "/v1/lists", bad).status, bad)
	}
	r = e.send("planner", "POST", "/v1/lists", map[string]any{"unit": here, "name": "x", "kind": "campaign_result", "campaign_id": id, "with": []string{"willing"}})
	require.EqualValues(t, campaign.CodeStateConflict, r.problem(t).Code, "nobody is a target yet")
	r = e.send("stranger", "POST", "/v1/lists", map[string]any{"unit": there, "name": "x", "kind": "campaign_result", "campaign_id": id})
	require.EqualValues(t, campaign.CodeNotFound, r.problem(t).Code, "a campaign out of reach")
}

func TestExports(t *testing.T) {
	e := newEnv(t)
	e.customers("c", 7, here)
	e.customers("=1+", 1, here)
	e.customers("s", 3, there)
	owner := campaign.Actor{UserID: e.users["administrator"], Name: "The administrator"}
	require.NoError(t, e.owner.DeclareAttributes(t.Context(), owner, []store.Attribute{
		{Name: "age", Type: store.AttributeInt, Meaning: "Age"}, {Name: "full_name", Type: store.AttributeText, Meaning: "Name", PII: true},
	}))
	e.exec(`UPDATE customer SET age = substring(external_id FROM '\d+$')::int, full_name = 'Ada'`)
	ask := func(login string, with map[string]any) reply {
		body := map[string]any{"unit": here, "format": "csv", "filter": "age >= 5"}
		for k, v := range with {
			body[k] = v
		}
		return e.send(login, "POST", "/v1/exports", body)
	}
	x := into[Export](t, ask("planner", map[string]any{"columns": []string{"external_id", "age"}, "bom": true}))
	require.EqualValues(t, 2, x.Rows)
	require.EqualValues(t, 100_000, x.RowCap)
	require.WithinDuration(t, x.CreatedAt.Add(24*time.Hour), x.ExpiresAt, time.Second)
	r := e.send("planner", "GET", x.File, nil)
	require.Equal(t, http.StatusOK, r.status)
	require.Equal(t, "text/csv", r.header.Get("Content-Type"))
	require.Contains(t, r.header.Get("Content-Disposition"), "attachment")
	rows := strings.Split(string(r.body), "\r\n")
	require.Equal(t, "\ufeffexternal_id,age,export", rows[0])
	require.Regexp(t, `^c5,5,`+x.ID+` planner 20\d\d-`, rows[1])
	require.Len(t, rows, 4)
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM audit_event WHERE event = 'export.fetched' AND data->>'query_hash' = $1`, x.QueryHash))

	all := into[Export](t, ask("planner", map[string]any{"filter": "true"}))
	require.Equal(t, []string{"external_id", "org_unit", "time_zone", "opted_out", "age"}, all.Columns, "nothing that identifies a person")
	require.Contains(t, string(e.send("planner", "GET", all.File, nil).body), "\r\n\"'=1+0\",")
	book := into[Export](t, ask("planner", map[string]any{"format": "xlsx"}))
	req, err := http.NewRequest("GET", e.url+book.File, nil)
	require.NoError(t, err)
	answer, err := e.as("planner").Do(req)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, http.StatusOK, answer.StatusCode)
	require.Contains(t, answer.Header.Get("Content-Type"), "spreadsheetml")

	l := into[CustomerList](t, e.send("planner", "POST", "/v1/lists", map[string]any{"unit": here, "name": "few", "kind": "upload"}))
	into[MembersAdded](t, e.send("planner", "POST", "/v1/lists/"+l.ID+"/members?by=external_id", "c1\nc2", "Content-Type", "application/octet-stream"))
	of := into[Export](t, e.send("planner", "POST", "/v1/exports", map[string]any{"unit": here, "format": "csv", "list_id": l.ID, "columns": []string{"external_id"}}))
	require.EqualValues(t, 2, of.Rows)
	require.Regexp(t, `^external_id,export\r\nc1,.*\r\nc2,.*\r\n$`, string(e.send("planner", "GET", of.File, nil).body))

	// Only whoever asked may fetch it, and not for ever.
	for _, login := range []string{"analyst", "stranger"} {
		require.EqualValues(t, campaign.CodeNotFound, e.send(login, "GET", x.File, nil).problem(t).Code)
	}
	require.Equal(t, http.StatusForbidden, e.send("auditor", "GET", x.File, nil).status)
	for _, login := range []string{"auditor", "operator", "administrator", "agent"} {
		require.Equal(t, http.StatusForbidden, ask(login, nil).status, login)
	}
	for _, bad := range []map[string]any{
		{"columns": []string{"full_name"}}, {"columns": []string{"age", "age"}}, {"columns": []string{"opted_out; DROP TABLE customer"}},
		{"filter": ""}, {"list_id": l.ID},
	} {
		require.Equal(t, http.StatusBadRequest, ask("planner", bad).status, bad)
	}
	require.EqualValues(t, campaign.CodeNotFound, e.send("stranger", "POST", "/v1/exports", map[string]any{"unit": there, "format": "csv", "list_id": l.ID}).problem(t).Code)

	// More than a planner may take out: refused, and written down.
	e.exec(`INSERT INTO customer (id, external_id, org_unit, time_zone, age) SELECT gen_random_uuid(), 'm' || i, $1, 'UTC', 50 FROM generate_series(1, 100001) i`, here)
	r = ask("planner", map[string]any{"filter": "age == 50"})
	require.Equal(t, http.StatusForbidden, r.status)
	require.EqualValues(t, campaign.CodeExportNotPermitted, r.problem(t).Code)
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM audit_event WHERE NOT allowed AND event = 'access.denied' AND data->>'code' = 'export_not_permitted' AND actor_id = $1`, e.users["planner"]))
	require.EqualValues(t, 100_001, into[Export](t, ask("analyst", map[string]any{"filter": "age == 50"})).Rows)
	r = e.send("planner", "GET", all.File, nil)
	require.EqualValues(t, campaign.CodeExportNotPermitted, r.problem(t).Code, "it has grown since it was asked for")
	require.EqualValues(t, 2, e.number(`SELECT count(*) FROM audit_event WHERE event = 'access.denied' AND data->>'code' = 'export_not_permitted'`))
}
