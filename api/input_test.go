package api

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

// planJSON is a valid plan's text with one replacement made in it.
func planJSON(t *testing.T, old, new string) string {
	t.Helper()
	text, err := json.Marshal(NewCampaign{Plan: validPlan()})
	require.NoError(t, err)
	require.Contains(t, string(text), old)
	return strings.Replace(string(text), old, new, 1)
}

func TestBadInput(t *testing.T) {
	e := newEnv(t)
	reason := func(text string) string { return `{"reason":` + text + `}` }
	id := e.newCampaign().Campaign.ID
	pause := "/v1/campaigns/" + id + "/pause"
	amendment := func(old, new string) string {
		return strings.TrimSuffix(planJSON(t, old, new), "}") + `,"reason":"because"}`
	}
	before := e.number(`SELECT count(*) FROM campaign`)

	for _, c := range []struct {
		name, login, method, path, body string
		headers                         []string
		status                          int
		code, field                     string
	}{
		{"unknown field", "operator", "POST", pause, `{"reason":"x","nmae":"y"}`, nil, 400, "unknown_field", "nmae"},
		{"mass assignment", "planner", "POST", "/v1/campaigns", planJSON(t, `"name":`, `"stage":"running","name":`), nil, 400, "unknown_field", "plan.stage"},
		{"duplicate field", "operator", "POST", pause, `{"reason":"x","reason":"y"}`, nil, 400, "duplicate_field", "reason"},
		{"duplicate in other case", "operator", "POST", pause, `{"reason":"x","REASON":"y"}`, nil, 400, "duplicate_field", "REASON"},
		{"other case alone", "operator", "POST", pause, `{"Reason":"x"}`, nil, 400, "unknown_field", "Reason"},
		{"trailing bracket", "operator", "POST", pause, reason(`"x"`) + `}`, nil, 400, "trailing_data", ""},
		{"no JSON", "operator", "POST", pause, `reason=x`, nil, 400, "malformed_body", ""},
		{"cut off", "operator", "POST", pause, `{"reason":`, nil, 400, "malformed_body", ""},
		{"empty", "operator", "POST", pause, ``, nil, 400, "malformed_body", ""},
		{"NUL", "operator", "POST", pause, reason(`"a\u0000b"`), nil, 422, "invalid_text", "reason"},
		{"text direction", "operator", "POST", pause, reason("\"a\u202eb\""), nil, 422, "invalid_text", "reason"},
		{"too large", "operator", "POST", pause, reason(`"` + strings.Repeat("x", 2<<20) + `"`), nil, 413, "body_too_large", ""},
		{"missing field", "operator", "POST", pause, `{}`, nil, 400, "invalid_parameter", "reason"},
		{"wrong type", "operator", "POST", pause, reason(`7`), nil, 400, "invalid_parameter", "reason"},
		{"null", "operator", "POST", pause, reason(`null`), nil, 400, "invalid_parameter", "reason"},
		{"a body where there is none", "auditor", "POST", "/v1/campaigns/" + id + "/replays", `{}`, nil, 400, "malformed_body", ""},

		{"amount 0", "planner", "POST", "/v1/campaigns", planJSON(t, `"amount":90000`, `"amount":0`), nil, 422, "amount_out_of_range", "plan.budget[0].amount"},
		{"amount -1", "planner", "POST", "/v1/campaigns", planJSON(t, `"amount":90000`, `"amount":-1`), nil, 422, "amount_out_of_range", "plan.budget[0].amount"},
		{"amount 1.5", "planner", "POST", "/v1/campaigns", planJSON(t, `"amount":90000`, `"amount":1.5`), nil, 400, "amount_not_integer", "plan.budget[0].amount"},
		{"amount 1e3", "planner", "POST", "/v1/campaigns", planJSON(t, `"amount":90000`, `"amount":1e3`), nil, 400, "amount_not_integer", "plan.budget[0].amount"},
		{"amount text", "planner", "POST", "/v1/campaigns", planJSON(t, `"amount":90000`, `"amount":"100"`), nil, 400, "amount_not_integer", "plan.budget[0].amount"},
		{"amount over 64 bits", "planner", "POST", "/v1/campaigns", planJSON(t, `"amount":90000`, `"amount":9223372036854775808`), nil, 422, "amount_out_of_range", "plan.budget[0].amount"},
		{"count 1.0", "planner", "POST", "/v1/campaigns", planJSON(t, `"target":10`, `"target":1.0`), nil, 400, "invalid_parameter", "plan.goal.target"},
		{"unknown channel", "planner", "POST", "/v1/campaigns", planJSON(t, `"channel":"call"`, `"channel":"fax"`), nil, 400, "invalid_parameter", "plan.budget[0].channel"},
		{"wave too many", "planner", "POST", "/v1/campaigns", planJSON(t, `"number":1`, `"number":2`), nil, 422, "invalid_plan", "plan.waves[0].number"},
		{"unknown unit", "planner", "POST", "/v1/campaigns", planJSON(t, `"unit":"operator/north"`, `"unit":"operator/north/nowhere"`), nil, 422, "invalid_plan", "plan.unit"},
		{"malformed unit", "planner", "POST", "/v1/campaigns", planJSON(t, `"unit":"operator/north"`, `"unit":"Operator//North"`), nil, 400, "invalid_parameter", "plan.unit"},
		{"made-up currency", "planner", "POST", "/v1/campaigns", planJSON(t, `"currency":"CNY"`, `"currency":"ABC"`), nil, 422, "invalid_plan", "plan.currency"},
		{"filter", "planner", "POST", "/v1/campaigns", planJSON(t, `"filter":"true"`, `"filter":"age \u003e"`), nil, 422, "invalid_filter", "plan.audience.filter"},
		{"amendment", "planner", "POST", "/v1/campaigns/" + id + "/amend", amendment(`"amount":90000`, `"amount":0`), nil, 422, "amount_out_of_range", "plan.budget[0].amount"},
		{"amendment of the unit", "planner", "POST", "/v1/campaigns/" + id + "/amend", amendment(`"unit":"operator/north"`, `"unit":"operator/south"`), nil, 422, "invalid_plan", "plan.unit"},

		{"id that is none", "planner", "GET", "/v1/campaigns/1=1", "", nil, 400, "invalid_parameter", "id"},
		{"limit -1", "planner", "GET", "/v1/campaigns?limit=-1", "", nil, 400, "invalid_parameter", "limit"},
		{"limit 1e9", "planner", "GET", "/v1/campaigns?limit=1000000000", "", nil, 400, "invalid_parameter", "limit"},
		{"unknown parameter", "planner", "GET", "/v1/campaigns?sort=id;drop", "", nil, 400, "invalid_parameter", ""},
		{"parameter twice", "planner", "GET", "/v1/campaigns?limit=1&limit=2", "", nil, 400, "invalid_parameter", "limit"},
		{"cursor made up", "planner", "GET", "/v1/campaigns?cursor=abcdefghijklmnop", "", nil, 400, "invalid_cursor", ""},
		{"dot segments", "planner", "GET", "/v1/campaigns/..%2F" + id, "", nil, 400, "invalid_parameter", "id"},
		{"no such address", "planner", "GET", "/v1/nothing", "", nil, 404, "not_found", ""},
		{"no such method", "planner", "DELETE", "/v1/campaigns", "", nil, 405, "method_not_allowed", ""},

		{"key with a space", "operator", "POST", pause, reason(`"x"`), []string{"Idempotency-Key", "a b"}, 400, "idempotency_key_invalid", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var body any
			if c.method == "POST" {
				body = c.body
			}
			p := e.send(c.login, c.method, c.path, body, c.headers...).problem(t)
			require.Equal(t, c.status, p.Status, "%+v", p)
			require.Equal(t, c.code, p.Code, "%+v", p)
			if c.field != "" {
				require.NotEmpty(t, p.Fields, "%+v", p)
				require.Equal(t, c.field, p.Fields[0].Field, "%+v", p)
			}
			for _, secret := range []string{"SQL", "pgx", "goroutine", ".go:"} {
				require.NotContains(t, p.Detail, secret)
			}
		})
	}
	require.Equal(t, before, e.number(`SELECT count(*) FROM campaign`))
	require.Empty(t, e.orch.asked(), "nothing of this reached a campaign")
}

// A fault is named by its path in the body that was sent, whoever finds it.
func TestFaultsAreNamedByTheirPathInTheBody(t *testing.T) {
	e := newEnv(t)
	read := e.newCampaign()
	at := "/v1/campaigns/" + read.Campaign.ID
	plan := validPlan()
	plan.Waves[0].Number = 2
	field := func(r reply) string {
		t.Helper()
		p := r.problem(t)
		require.NotEmpty(t, p.Fields)
		return p.Fields[0].Field
	}
	require.Equal(t, "waves[0].number", field(e.send("planner", "PUT", at+"/plan", plan, "If-Match", read.Draft.Etag)), "the body is the plan")
	require.Equal(t, "plan.waves[0].number", field(e.send("planner", "POST", at+"/amend", Amendment{Plan: plan, Reason: "x"})))
	require.Equal(t, "plan.waves[0].number", field(e.send("planner", "POST", "/v1/campaigns", NewCampaign{Plan: plan})))
	require.Equal(t, "plan.waves[0].numero", field(e.send("planner", "POST", "/v1/campaigns", planJSON(t, `"number":1`, `"numero":1`))))

	e.setStatus(read.Campaign.ID, campaign.Status{Stage: campaign.StageRunning, Revision: 1})
	e.orch.answer = func(string, any) (campaign.Status, error) {
		other := validPlan()
		other.Goal.Outcome = campaign.OutcomeReplied
		plan := validPlan()
		return campaign.Status{}, campaign.CheckAmendment(&plan, &other, true, nil)
	}
	require.Equal(t, "plan.goal.outcome", field(e.send("planner", "POST", at+"/amend", Amendment{Plan: validPlan(), Reason: "x"})), "the workflow's fault")
}

func TestThePublishedExampleIsAPlan(t *testing.T) {
	e := newEnv(t)
	e.exec(`ALTER TABLE customer ADD COLUMN age bigint`)
	e.exec(`INSERT INTO customer_attribute (name, type, meaning) VALUES ('age', 'int', 'years')`)
	doc, err := description()
	require.NoError(t, err)
	body := doc.Paths.Value("/v1/campaigns").Post.RequestBody.Value.Content["application/json"]
	example, err := json.Marshal(body.Example)
	require.NoError(t, err)
	var given NewCampaign
	require.NoError(t, json.Unmarshal(example, &given))
	require.NoError(t, e.store.CreateUnit(t.Context(), given.Plan.Unit, "Bank"))
	e.addUser("planner", given.Plan.Unit, campaign.RolePlanner)
	e.reload()
	planner := e.users["planner"]
	for _, l := range given.Plan.Budget {
		if l.Credit != nil {
			e.exec(`INSERT INTO credit_pool (id, unit, name, currency, opened_by) VALUES ($1, $2, 'Bonus', $3, $4)`, l.Credit.PoolID, given.Plan.Unit, given.Plan.Currency, planner)
		}
	}
	e.exec(`INSERT INTO programme (id, tenant, number, name, unit, owner, currency, ceiling, campaign_ceiling, types, channels, maximum_audience,
			first_day, last_day, digest, proposed_by, rule, route, policy_version, state, decided_at)
		VALUES ($1, $2, 1, 'Deposits', $2, $3, $4, 100000000, 100000000, '{}', '{}', 0, '2026-01-01', '2099-12-31', '', $3, '', '[]', '', 'approved', now())`,
		given.Plan.ProgrammeID, given.Plan.Unit, planner, given.Plan.Currency)
	made := into[CampaignDetail](t, e.send("planner", "POST", "/v1/campaigns", string(example)))
	require.Equal(t, given.Plan, made.Draft.Plan)
	facts, err := campaign.FactsOf(&given.Plan)
	require.NoError(t, err)
	_, err = e.server.policies.Route(facts)
	require.NoError(t, err, "it could be approved")

	// It shows every field, and every field is described.
	plan := doc.Components.Schemas["Plan"].Value
	require.NotEmpty(t, plan.Description)
	var walk func(path string, schema *openapi3.Schema, value any)
	walk = func(path string, schema *openapi3.Schema, value any) {
		switch v := value.(type) {
		case map[string]any:
			for name, property := range schema.Properties {
				at := path + "." + name
				require.NotEmpty(t, property.Value.Description, "%s is not described", at)
				walk(at, property.Value, v[name])
			}
		case []any:
			for _, item := range v {
				walk(path, schema.Items.Value, item)
			}
		}
	}
	var sent struct {
		Plan map[string]any `json:"plan"`
	}
	require.NoError(t, json.Unmarshal(example, &sent))
	walk("plan", plan, sent.Plan)
	shown := map[string]bool{}
	var collect func(path string, value any)
	collect = func(path string, value any) {
		switch v := value.(type) {
		case map[string]any:
			for name, inner := range v {
				shown[path+"."+name] = true
				collect(path+"."+name, inner)
			}
		case []any:
			for _, item := range v {
				collect(path, item)
			}
		}
	}
	collect("plan", sent.Plan)
	fieldsOf(t, reflect.TypeFor[campaign.Plan](), "plan", func(path string) {
		switch path {
		case "plan.audience.control_account", "plan.audience.control_list":
			return // belong to other methods than the example's
		}
		require.True(t, shown[path], "the example does not show %s", path)
	})
}

// fieldsOf visits the JSON path of every field of a struct and of what it holds.
func fieldsOf(t *testing.T, typ reflect.Type, path string, visit func(string)) {
	t.Helper()
	for typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct {
		return
	}
	for i := range typ.NumField() {
		name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		visit(path + "." + name)
		fieldsOf(t, typ.Field(i).Type, path+"."+name, visit)
	}
}

func TestEnumFaultListsWhatIsAllowed(t *testing.T) {
	e := newEnv(t)
	p := e.send("planner", "GET", "/v1/campaigns?stage=dream", nil).problem(t)
	require.Equal(t, "invalid_parameter", p.Code)
	require.Contains(t, p.Fields[0].Allowed, string(campaign.StageDraft))
}

func TestWhereChannelsAreSimulatorsAPlanSaysSo(t *testing.T) {
	e := newEnv(t)
	plan := validPlan()
	plan.Simulated = false
	body := NewCampaign{Plan: plan}
	require.Equal(t, http.StatusCreated, e.send("planner", "POST", "/v1/campaigns", body).status)
	e.server.simulated = true
	p := e.send("planner", "POST", "/v1/campaigns", body).problem(t)
	require.Equal(t, "invalid_plan", p.Code)
	require.Equal(t, "plan.simulated", p.Fields[0].Field)
	require.Equal(t, []any{true}, p.Fields[0].Allowed)
}

func TestCursor(t *testing.T) {
	text, err := encodeCursor("list a", 42)
	require.NoError(t, err)
	var n int64
	ok, err := decodeCursor("list a", text, &n)
	require.True(t, ok)
	require.NoError(t, err)
	require.EqualValues(t, 42, n)
	_, err = decodeCursor("list b", text, &n)
	require.Equal(t, campaign.CodeInvalidCursor, campaign.CodeOf(err), "of another list")
	for i := range text {
		bad := []byte(text)
		bad[i] = map[bool]byte{true: 'B', false: 'A'}[bad[i] == 'A']
		_, err := decodeCursor("list a", string(bad), &n)
		require.Equal(t, campaign.CodeInvalidCursor, campaign.CodeOf(err), "byte %d changed", i)
	}
}
