package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alexedwards/argon2id"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/assertion"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/pgtest"
	"github.com/musterhq/muster/policies"
	"github.com/musterhq/muster/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	here     campaign.OrgUnit = "operator/north"
	there    campaign.OrgUnit = "operator/south"
	password                  = "correct horse"
)

var passwordHash = sync.OnceValue(func() string {
	hash, err := argon2id.CreateHash(password, &argon2id.Params{Memory: 64, Iterations: 1, Parallelism: 1, SaltLength: 16, KeyLength: 32})
	if err != nil {
		panic(err)
	}
	return hash
})

// orchestra stands in for the workflows: it answers as a test tells it to and
// remembers what it was asked.
type orchestra struct {
	importing func(ctx context.Context, id string) error
	mu        sync.Mutex
	started   []string
	updates   []update
	answer    func(name string, arg any) (campaign.Status, error)
	away      bool
}

type update struct {
	campaignID, id, name string
	arg                  any
}

var errAway = campaign.Errorf(campaign.CodeOrchestratorAway, "the orchestrator does not answer")

func (o *orchestra) StartCampaign(_ context.Context, id string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.away {
		return errAway
	}
	o.started = append(o.started, id)
	return nil
}

func (o *orchestra) Update(_ context.Context, campaignID, id, name string, arg any) (campaign.Status, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.away {
		return campaign.Status{}, errAway
	}
	o.updates = append(o.updates, update{campaignID, id, name, arg})
	if o.answer != nil {
		return o.answer(name, arg)
	}
	return campaign.Status{Stage: campaign.StageApproval, Hold: campaign.HoldNone}, nil
}

func (o *orchestra) Replay(_ context.Context, id, _ string) (campaign.ReplayReport, error) {
	return campaign.ReplayReport{CampaignID: id, OK: true}, nil
}

// StartImport works on the import itself, as a worker would.
func (o *orchestra) StartImport(ctx context.Context, id string) error {
	if o.importing == nil {
		return errAway
	}
	return o.importing(ctx, id)
}

func (o *orchestra) Health(context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.away {
		return errAway
	}
	return nil
}

func (o *orchestra) setAway(away bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.away = away
}

func (o *orchestra) setAnswer(answer func(name string, arg any) (campaign.Status, error)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answer = answer
}

func (o *orchestra) asked() []update {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]update(nil), o.updates...)
}

// env is an API on a database of its own, with one user for each role at here, named
// after the role, and "stranger" with every role but administrator at there.
type env struct {
	t        *testing.T
	store    *store.Store
	owner    *store.Store // of the database: what the application may not do
	server   *Server
	orch     *orchestra
	keys     *assertion.Keys
	url      string
	users    map[string]string // id by login
	sessions map[string]*http.Client
}

func newEnv(t *testing.T) *env {
	t.Helper()
	t.Parallel()
	ctx := context.Background()
	database := pgtest.NewDatabase(t, pgtest.WithTemplate("api", populate))
	s, err := store.Open(ctx, database, store.WithVault(newVault(t)))
	require.NoError(t, err)
	t.Cleanup(s.Close)
	owner, err := store.Open(ctx, database, store.AsOwner())
	require.NoError(t, err)
	t.Cleanup(owner.Close)
	e := &env{t: t, store: s, owner: owner, orch: &orchestra{}, users: map[string]string{}, sessions: map[string]*http.Client{}}
	rows, err := owner.Pool().Query(ctx, `SELECT login, id::text FROM app_user`)
	require.NoError(t, err)
	var login, id string
	_, err = pgx.ForEachRow(rows, []any{&login, &id}, func() error { e.users[login] = id; return nil })
	require.NoError(t, err)
	enforcer, err := policies.New(ctx, s.Grants, s.ActivePolicies)
	require.NoError(t, err)
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	dir := filepath.Join(t.TempDir(), "keys")
	require.NoError(t, assertion.Generate(dir, time.Now()))
	e.keys, err = assertion.Open(dir)
	require.NoError(t, err)
	e.server, err = New(Deps{Store: s, Policies: enforcer, Orchestrator: e.orch, Keys: e.keys, Registry: prometheus.NewRegistry(), Logger: log,
		OIDC: OIDC{Issuer: "https://identity.example", ClientID: oidcClient}})
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	e.url = "http://" + l.Addr().String()
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- e.server.Serve(running, l) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
	})
	return e
}

// populate is what every environment's database holds.
func populate(ctx context.Context, url string) error {
	s, err := store.Open(ctx, url, store.AsOwner())
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Migrate(ctx); err != nil {
		return err
	}
	if err := s.StorePolicyStandard(ctx, policies.Standard()); err != nil {
		return err
	}
	if err := errors.Join(s.CreateUnit(ctx, here, "North"), s.CreateUnit(ctx, there, "South")); err != nil {
		return err
	}
	users := map[string]string{}
	for _, role := range campaign.Roles() {
		if err := addUser(ctx, s, users, string(role), here, role); err != nil {
			return err
		}
		if role == campaign.RoleAdmin {
			continue
		}
		if err := addUser(ctx, s, users, "stranger", there, role); err != nil {
			return err
		}
	}
	return nil
}

func addUser(ctx context.Context, s *store.Store, users map[string]string, login string, unit campaign.OrgUnit, role campaign.Role) error {
	if users[login] == "" {
		users[login] = uuid.NewString()
		if err := s.CreateUser(ctx, store.User{ID: users[login], Login: login, Name: "The " + login, PasswordHash: passwordHash()}); err != nil {
			return err
		}
	}
	return s.GrantRole(ctx, campaign.Grant{UserID: users[login], Role: role, Unit: unit})
}

func (e *env) addUser(login string, unit campaign.OrgUnit, role campaign.Role) {
	require.NoError(e.t, addUser(context.Background(), e.store, e.users, login, unit, role))
}

// reload makes roles granted after the start count.
func (e *env) reload() { require.NoError(e.t, e.server.policies.Reload(context.Background())) }

// as returns a client with a session, made without the cost of a password; "" is
// nobody.
func (e *env) as(login string) *http.Client {
	e.t.Helper()
	if c := e.sessions[login]; c != nil {
		return c
	}
	jar, err := cookiejar.New(nil)
	require.NoError(e.t, err)
	c := &http.Client{Jar: jar, Timeout: 2 * time.Minute}
	if login != "" {
		ctx, err := e.server.sessions.Load(context.Background(), "")
		require.NoError(e.t, err)
		e.server.sessions.Put(ctx, sessionUser, e.users[login])
		e.server.sessions.Put(ctx, sessionAuthTime, time.Now().Unix())
		token, _, err := e.server.sessions.Commit(ctx)
		require.NoError(e.t, err)
		at, err := url.Parse(e.url)
		require.NoError(e.t, err)
		jar.SetCookies(at, []*http.Cookie{{Name: e.server.sessions.Cookie.Name, Value: token, Path: "/"}})
	}
	e.sessions[login] = c
	return c
}

// reply is an answer of the API, read.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (r reply) problem(t *testing.T) Problem {
	t.Helper()
	var p Problem
	require.NoError(t, json.Unmarshal(r.body, &p), "%s", r.body)
	require.Equal(t, "application/problem+json", r.header.Get("Content-Type"))
	require.Equal(t, r.status, p.Status)
	require.Equal(t, r.header.Get("X-Request-Id"), p.RequestID)
	return p
}

func into[T any](t *testing.T, r reply) T {
	t.Helper()
	require.Less(t, r.status, 300, "%s", r.body)
	var v T
	require.NoError(t, json.Unmarshal(r.body, &v), "%s", r.body)
	return v
}

// send sends body, which is text as it is or a value to be encoded, with headers in
// pairs. A write gets a new Idempotency-Key unless one is among them.
func (e *env) send(login, method, path string, body any, headers ...string) reply {
	e.t.Helper()
	var text []byte
	switch b := body.(type) {
	case nil:
	case string:
		text = []byte(b)
	default:
		var err error
		text, err = json.Marshal(b)
		require.NoError(e.t, err)
	}
	req, err := http.NewRequest(method, e.url+path, bytes.NewReader(text))
	require.NoError(e.t, err)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Idempotency-Key", uuid.NewString())
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	answer, err := e.as(login).Do(req)
	require.NoError(e.t, err)
	defer answer.Body.Close()
	read, err := io.ReadAll(answer.Body)
	require.NoError(e.t, err)
	e.checkAnswer(req, answer, read)
	return reply{answer.StatusCode, answer.Header, read}
}

// checkAnswer holds every answer of an operation against its description.
func (e *env) checkAnswer(req *http.Request, answer *http.Response, body []byte) {
	e.t.Helper()
	found, path := routeOf(e.t, req)
	if found == nil {
		return // the address or the method is none of the description's
	}
	err := openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: req, PathParams: path, Route: found},
		Status:                 answer.StatusCode, Header: answer.Header, Body: io.NopCloser(bytes.NewReader(body)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	})
	require.NoError(e.t, err, "%s %s answers what openapi.yaml does not say: %s", req.Method, req.URL.Path, body)
}

var described = sync.OnceValue(func() map[string]operation {
	doc, err := description()
	if err != nil {
		panic(err)
	}
	return operationsOf(doc)
})

// routeOf finds the operation that a request is for.
func routeOf(t *testing.T, req *http.Request) (*routers.Route, map[string]string) {
	t.Helper()
	steps := strings.Split(req.URL.Path, "/")
candidates:
	for _, op := range described() {
		pattern := strings.Split(op.route.Path, "/")
		if op.route.Method != req.Method || len(pattern) != len(steps) {
			continue
		}
		params := map[string]string{}
		for i, p := range pattern {
			if strings.HasPrefix(p, "{") {
				params[strings.Trim(p, "{}")] = steps[i]
			} else if p != steps[i] {
				continue candidates
			}
		}
		return op.route, params
	}
	return nil, nil
}

func (e *env) exec(sql string, args ...any) {
	e.t.Helper()
	_, err := e.owner.Pool().Exec(context.Background(), sql, args...)
	require.NoError(e.t, err)
}

func (e *env) number(sql string, args ...any) (n int64) {
	e.t.Helper()
	require.NoError(e.t, e.store.Pool().QueryRow(context.Background(), sql, args...).Scan(&n))
	return n
}

func validPlan() campaign.Plan {
	return campaign.Plan{
		Name: "Autumn deposits", Type: campaign.TypeUpsell, Unit: here, Currency: "CNY",
		Goal: campaign.Goal{Metric: "subscriptions", Outcome: campaign.OutcomeOrdered, Target: 10, UnitBenefit: 5000},
		Budget: []campaign.BudgetLine{
			{Line: "calls", Category: campaign.CategoryContact, Driver: campaign.DriverPerContact, Channel: campaign.ChannelCall, UnitCost: 300, Amount: 90000},
		},
		Audience: campaign.Audience{Filter: "true", Tiers: []campaign.TierRule{{Tier: campaign.TierGeneral, Filter: "true"}}, ControlPercent: 10},
		Offer:    campaign.Offer{Name: "Deposit", Product: "deposit"},
		Channels: []campaign.ChannelPlan{{Channel: campaign.ChannelCall, Text: "Good day", MaximumAttempts: 2, RetryAfter: 0, SuccessRate: 0.1}},
		Waves: []campaign.WavePlan{{
			Number: 1, Tiers: []campaign.Tier{campaign.TierGeneral}, Channels: []campaign.Channel{campaign.ChannelCall}, ChannelWindow: 3600,
		}},
		Review:      campaign.ReviewPlan{After: 10, DecideWithin: 10, Default: campaign.ReviewDefaultKeep},
		Schedule:    campaign.Schedule{RunFor: 100, SettleFor: 10},
		Measurement: campaign.Measurement{Coverage: campaign.CoverageContacted, Source: "test"}, Simulated: true,
	}
}

func (e *env) newCampaign() CampaignDetail {
	e.t.Helper()
	return into[CampaignDetail](e.t, e.send("planner", "POST", "/v1/campaigns", NewCampaign{Plan: validPlan()}))
}

// setStatus writes the read model as the workflow would.
func (e *env) setStatus(id string, status campaign.Status) {
	e.t.Helper()
	if status.Hold == "" {
		status.Hold = campaign.HoldNone
	}
	version := e.number(`SELECT status_version + 1 FROM campaign WHERE id = $1`, id)
	require.NoError(e.t, e.store.Project(context.Background(), campaign.Projection{CampaignID: id, Version: version, Status: status, Event: "test.projected"}))
}

// inApproval puts a campaign's first revision before level 1 of a route of two, or of the
// levels given.
func (e *env) inApproval(c CampaignDetail, amount int64, levels ...campaign.ApprovalLevel) *campaign.Approval {
	if len(levels) == 0 {
		levels = []campaign.ApprovalLevel{
			{Level: 1, Name: "marketing manager", Action: campaign.ActApprovalManager, DueAfter: 60},
			{Level: 2, Name: "finance", Action: campaign.ActApprovalFinance, DueAfter: 60},
		}
	}
	a := campaign.NewApproval(campaign.Approval{
		Round: 1, Revision: 1, Digest: c.Draft.Digest, Amount: amount, Requester: e.users["planner"], Route: levels,
	}, time.Now())
	e.setStatus(c.Campaign.ID, campaign.Status{Stage: campaign.StageApproval, Revision: 1, Approval: a, WaitAction: campaign.ActApprovalManager, WaitingOn: "marketing manager"})
	return a
}

// openTasks gives a campaign n targets with a call to make each, and returns the tasks.
func (e *env) openTasks(campaignID string, n, maximum int) (tasks, customers []string) {
	e.t.Helper()
	e.setStatus(campaignID, campaign.Status{Stage: campaign.StageRunning, Revision: 1})
	e.exec(`SELECT create_campaign_partitions($1)`, campaignID)
	e.exec(`INSERT INTO channel_promise (campaign_id, channel, units) VALUES ($1, 'call', $2)`, campaignID, n)
	for i := range n {
		task, customer := uuid.NewString(), uuid.NewString()
		e.exec(`INSERT INTO customer (id, external_id, org_unit, time_zone, simulated) VALUES ($1, $2, $3, 'Asia/Shanghai', true)`, customer, "c-"+customer, here)
		e.exec(`INSERT INTO campaign_target (campaign_id, customer_id, control_u, snapshot, seq, wave, shard, score, tier, arm)
			VALUES ($1, $2, 1, 1, $3, 1, 0, 0, 'general', 'treated')`, campaignID, customer, i+1)
		e.exec(`INSERT INTO contact (campaign_id, id, customer_id, not_after, seq, wave, shard, channel, tier, state)
			VALUES ($1, $2, $3, now() + interval '1 hour', $4, 1, 0, 'call', 'general', 'claimed')`, campaignID, task, customer, i+1)
		e.exec(`INSERT INTO task (id, campaign_id, customer_id, channel, unit, wave, tier, script, max_attempts, retry_after, not_after)
			VALUES ($1, $2, $3, 'call', $4, 1, 'general', 'Good day', $5, 0, now() + interval '1 hour')`, task, campaignID, customer, here, maximum)
		tasks, customers = append(tasks, task), append(customers, customer)
	}
	return tasks, customers
}
