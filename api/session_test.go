package api

import (
	"bufio"
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

func newVault(t *testing.T) *store.Vault {
	t.Helper()
	v, err := store.NewVault(bytes.Repeat([]byte{7}, store.VaultKeySize))
	require.NoError(t, err)
	return v
}

func TestSession(t *testing.T) {
	e := newEnv(t)
	r := e.send("", "POST", "/v1/sessions", Credentials{Login: "planner", Password: password})
	me := into[Me](t, r)
	require.Equal(t, "The planner", me.Name)
	require.Equal(t, []RoleGrant{{Role: campaign.RolePlanner, Unit: here}}, me.Grants)
	cookie := r.header.Get("Set-Cookie")
	for _, part := range []string{"muster_session=", "HttpOnly", "SameSite=Lax", "Path=/"} {
		require.Contains(t, cookie, part)
	}
	token, _, _ := strings.Cut(strings.TrimPrefix(cookie, "muster_session="), ";")
	require.Zero(t, e.number(`SELECT count(*) FROM sessions WHERE token = $1`, token), "a stolen table opens no session")
	for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"} {
		require.Equal(t, want, r.header.Get(name))
	}

	require.Equal(t, me, into[Me](t, e.send("planner", "GET", "/v1/me", nil)))
	require.Equal(t, http.StatusNoContent, e.send("planner", "DELETE", "/v1/sessions/current", nil).status)
	require.Equal(t, http.StatusUnauthorized, e.send("planner", "GET", "/v1/me", nil).status)
	stolen := e.send("nobody"[:0], "GET", "/v1/me", nil, "Cookie", "muster_session="+strings.Repeat("A", 43))
	require.Equal(t, http.StatusUnauthorized, stolen.status)
}

func TestDisabledUserIsOutAtOnce(t *testing.T) {
	e := newEnv(t)
	require.Equal(t, http.StatusOK, e.send("planner", "GET", "/v1/me", nil).status)
	require.NoError(t, e.store.SetDisabled(t.Context(), e.users["planner"], true, campaign.Actor{}, "left"))
	require.Equal(t, "unauthenticated", e.send("planner", "GET", "/v1/me", nil).problem(t).Code)
	require.Equal(t, "unauthenticated", e.send("", "POST", "/v1/sessions", Credentials{Login: "planner", Password: password}).problem(t).Code)
}

func TestWrongAndUnknownLoginLookAlike(t *testing.T) {
	e := newEnv(t)
	wrong := e.send("", "POST", "/v1/sessions", Credentials{Login: "planner", Password: "x"}).problem(t)
	unknown := e.send("", "POST", "/v1/sessions", Credentials{Login: "nobody-at-all", Password: "x"}).problem(t)
	wrong.RequestID, unknown.RequestID = "", ""
	require.Equal(t, wrong, unknown)
	require.EqualValues(t, 2, e.number(`SELECT count(*) FROM audit_event WHERE event = 'session.refused'`))
}

func TestSessionsAreEvidence(t *testing.T) {
	e := newEnv(t)
	const typed = "my-secret-instead-of-my-login"
	e.send("", "POST", "/v1/sessions", Credentials{Login: "planner", Password: "wrong"})
	e.send("", "POST", "/v1/sessions", Credentials{Login: typed, Password: "wrong"})
	e.send("", "POST", "/v1/sessions", Credentials{Login: "manager", Password: password})
	require.NoError(t, e.store.SetDisabled(t.Context(), e.users["finance"], true, campaign.Actor{}, "left"))
	e.send("", "POST", "/v1/sessions", Credentials{Login: "finance", Password: password})
	require.Equal(t, http.StatusNoContent, e.send("reviewer", "DELETE", "/v1/sessions/current", nil).status)
	rows, err := e.store.Pool().Query(t.Context(), `SELECT event || ' ' || coalesce(u.login, '-') || ' ' || allowed || ' ' || coalesce(data->>'reason', '')
		FROM audit_event a LEFT JOIN app_user u ON u.id = a.actor_id WHERE event <> 'policy.standard' ORDER BY seq`)
	require.NoError(t, err)
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Equal(t, []string{
		"session.refused planner false wrong_password", "session.refused - false unknown_login", "session.begun manager true ",
		"user.disabled - true left", "session.refused finance false disabled", "session.ended reviewer true ",
	}, got)
	require.Zero(t, e.number(`SELECT count(*) FROM audit_event a WHERE a::text LIKE '%' || $1 || '%'`, typed), "it may be a password")
}

func TestGuessingIsLimited(t *testing.T) {
	e := newEnv(t)
	for i := range attemptsPerLogin {
		r := e.send("", "POST", "/v1/sessions", Credentials{Login: "planner", Password: "x"}, "X-Forwarded-For", strings.Repeat("1.", i+1))
		require.Equal(t, http.StatusUnauthorized, r.status)
	}
	r := e.send("", "POST", "/v1/sessions", Credentials{Login: "planner", Password: password}, "X-Forwarded-For", "9.9.9.9", "X-Real-IP", "9.9.9.9")
	require.Equal(t, "rate_limited", r.problem(t).Code)
	require.Equal(t, http.StatusTooManyRequests, r.status)
	require.NotEmpty(t, r.header.Get("Retry-After"))
	require.Equal(t, http.StatusCreated, e.send("", "POST", "/v1/sessions", Credentials{Login: "manager", Password: password}).status, "others are not locked out")
}

func TestACallersAddressIsWhatATrustedProxySays(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00::/8")}
	for _, tt := range []struct {
		name    string
		proxies []netip.Prefix
		from    string
		chain   []string
		want    string
	}{
		{"no proxy is trusted", nil, "10.1.0.9:4000", []string{"203.0.113.7"}, "10.1.0.9"},
		{"a proxy", proxies, "10.1.0.9:4000", []string{"203.0.113.7"}, "203.0.113.7"},
		{"a proxy behind another", proxies, "10.1.0.9:4000", []string{"203.0.113.7, 10.1.2.3"}, "203.0.113.7"},
		{"what a caller wrote before the proxy did", proxies, "10.1.0.9:4000", []string{"1.1.1.1", "203.0.113.7"}, "203.0.113.7"},
		{"somebody who is no proxy", proxies, "203.0.113.7:4000", []string{"1.1.1.1"}, "203.0.113.7"},
		{"a machine of the same house that is no proxy", proxies, "192.168.0.4:4000", []string{"1.1.1.1"}, "192.168.0.4"},
		{"a proxy that says nothing", proxies, "10.1.0.9:4000", nil, "10.1.0.9"},
		{"IPv6", proxies, "[fd00::1]:4000", []string{"2001:db8::5"}, "2001:db8::5"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.RemoteAddr = tt.from
			r.Header["X-Forwarded-For"] = tt.chain
			require.Equal(t, tt.want, addressBehind(tt.proxies)(r))
		})
	}
}

func TestAttemptsAreBounded(t *testing.T) {
	a := &attempts{counts: map[string]*window{}}
	for range 3 {
		require.True(t, a.begin("k", 3))
	}
	require.False(t, a.begin("k", 3))
	a.counts["k"].ends = time.Now().Add(-time.Second)
	require.True(t, a.begin("k", 3), "a new window")
	for i := range maxWindows + 10 {
		a.begin(strings.Repeat("x", i%50)+time.Now().String(), 3)
	}
	require.LessOrEqual(t, len(a.counts), maxWindows)
}

func TestHealthAndMetrics(t *testing.T) {
	e := newEnv(t)
	require.Equal(t, http.StatusOK, e.send("", "GET", "/healthz", nil).status)
	require.JSONEq(t, `{"status":"ok","parts":{"database":"ok","orchestrator":"ok","policies":"ok","dispatch":"ok"}}`, string(e.send("", "GET", "/readyz", nil).body))
	e.orch.setAway(true)
	r := e.send("", "GET", "/readyz", nil)
	require.Equal(t, http.StatusOK, r.status)
	require.JSONEq(t, `{"status":"degraded","parts":{"database":"ok","orchestrator":"unavailable","policies":"ok","dispatch":"ok"}}`, string(r.body))
	e.send("planner", "GET", "/v1/me", nil)
	require.Contains(t, string(e.send("", "GET", "/metrics", nil).body), `muster_http_request_seconds_count{operation="getMe",status="200"} 1`)
	require.Contains(t, string(e.send("", "GET", "/openapi.json", nil).body), `"openapi":"3.1.0"`)
	require.Equal(t, specText, e.send("", "GET", "/openapi.yaml", nil).body)
}

// listen opens a stream and returns its lines.
func (e *env) listen(login, query string, headers ...string) (<-chan string, context.CancelFunc) {
	e.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	e.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", e.url+"/v1/events"+query, nil)
	require.NoError(e.t, err)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	c := *e.as(login)
	c.Timeout = 0
	answer, err := c.Do(req)
	require.NoError(e.t, err)
	require.Equal(e.t, http.StatusOK, answer.StatusCode)
	require.Equal(e.t, "text/event-stream", answer.Header.Get("Content-Type"))
	require.Equal(e.t, "no", answer.Header.Get("X-Accel-Buffering"))
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		defer answer.Body.Close()
		for scan := bufio.NewScanner(answer.Body); scan.Scan(); {
			if scan.Text() != "" {
				lines <- scan.Text()
			}
		}
	}()
	require.Equal(e.t, ": welcome", <-lines)
	require.Equal(e.t, "retry: 3000", <-lines)
	return lines, cancel
}

func next(t *testing.T, lines <-chan string) string {
	t.Helper()
	select {
	case line := <-lines:
		return line
	case <-time.After(10 * time.Second):
		t.Fatal("no event came")
		return ""
	}
}

func TestLiveEvents(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	notify := func(topic string, version int) {
		e.exec(`SELECT notify_event($1, $2, $3)`, topic, c.Campaign.ID, version)
	}
	// The listening connection is up once an event comes through.
	probe, stop := e.listen("planner", "")
	for up := false; !up; {
		notify("campaign", 0)
		select {
		case <-probe:
			up = true
		case <-time.After(50 * time.Millisecond):
		}
	}
	stop()

	mine, _ := e.listen("planner", "?topics=campaign")
	theirs, _ := e.listen("stranger", "")
	again, _ := e.listen("manager", "", "Last-Event-ID", "whatever-it-was")
	require.Equal(t, "event: resync", next(t, again))
	notify("other", 1)
	notify("campaign", 2)
	var first string
	for {
		if first = next(t, mine); strings.HasPrefix(first, "id: ") {
			data := next(t, mine)
			require.NotContains(t, data, `"other"`)
			if data == `data: {"topic":"campaign","id":"`+c.Campaign.ID+`","version":2}` {
				break
			}
		}
	}
	e.exec(`SELECT notify_event('campaign', $1, 3)`, "not-a-campaign")

	// A stranger's campaign is the first thing that a stranger hears of.
	plan := validPlan()
	plan.Unit = there
	own := into[CampaignDetail](t, e.send("stranger", "POST", "/v1/campaigns", NewCampaign{Plan: plan}))
	require.True(t, strings.HasPrefix(next(t, theirs), "id: "))
	require.Contains(t, next(t, theirs), own.Campaign.ID)

	e.server.hub.close()
	for range mine {
	}
}

func TestTopicsAreThoseThatAreDescribed(t *testing.T) {
	e := newEnv(t)
	p := e.send("planner", "GET", "/v1/events?topics=campaign,weather", nil).problem(t)
	require.Equal(t, "invalid_parameter", p.Code)
	require.Equal(t, "topics[1]", p.Fields[0].Field)
	require.ElementsMatch(t, []any{"campaign", "task", "import"}, p.Fields[0].Allowed)
	doc, err := description()
	require.NoError(t, err)
	var described []campaign.Topic
	for _, topic := range doc.Components.Schemas["Topic"].Value.Enum {
		described = append(described, campaign.Topic(topic.(string)))
	}
	require.Equal(t, campaign.Topics(), described)
}

func TestSlowReaderIsToldToReadAgain(t *testing.T) {
	h := newHub(nil, nil)
	r := h.join()
	for range streamBuffer + 1 {
		h.publish(event{Topic: "campaign"})
	}
	require.Len(t, r.events, streamBuffer)
	require.Len(t, r.lost, 1)
}

func TestClient(t *testing.T) {
	e := newEnv(t)
	ctx := t.Context()
	s, err := client.NewSession(e.url)
	require.NoError(t, err)
	_, err = s.Login(ctx, "planner", "wrong")
	require.Equal(t, campaign.CodeUnauthenticated, campaign.CodeOf(err))
	me, err := s.Login(ctx, "planner", password)
	require.NoError(t, err)
	require.Equal(t, e.users["planner"], me.ID)

	made, err := s.CreateCampaignWithResponse(ctx, nil, client.NewCampaign{Plan: validPlan()})
	require.NoError(t, err)
	id := made.JSON201.Campaign.ID
	once := client.WithKey(ctx, "stop-it")
	for range 2 {
		_, err = s.StopCampaignWithResponse(once, id, nil, client.HoldReason{Reason: "x"})
		require.NoError(t, err)
	}
	require.Len(t, e.orch.asked(), 1, "the same key is the same write")
	_, err = s.PauseCampaignWithResponse(ctx, id, nil, client.HoldReason{Reason: "x"})
	require.Equal(t, campaign.CodeForbidden, campaign.CodeOf(err))
	_, err = s.CreateCampaignWithResponse(ctx, nil, client.NewCampaign{})
	var fault *campaign.Error
	require.ErrorAs(t, err, &fault)
	require.NotEmpty(t, fault.Fields)
}

func TestActionsAreThoseThatAreDescribed(t *testing.T) {
	doc, err := description()
	require.NoError(t, err)
	var described []campaign.Action
	for _, action := range doc.Components.Schemas["Action"].Value.Enum {
		described = append(described, campaign.Action(action.(string)))
	}
	require.ElementsMatch(t, campaign.Actions(), described)
}
