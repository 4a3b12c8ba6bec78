package callcentre

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/apiuser"
	"github.com/musterhq/muster/internal/dataset"
	"github.com/musterhq/muster/internal/sim/market"
)

const fakeCampaign = "0197a3c0-0000-7000-8000-00000000c0de"

// fakeTask is a task as the fake keeps it.
type fakeTask struct {
	client.Task
	claimedBy string
	done      bool
	results   []campaign.OutcomeKind // of each attempt that counted
	orders    int
}

// fake is the part of the API that a call centre uses, with the API's rules: sessions
// by cookie, idempotent answers by user and key, tasks that belong to who claimed them.
type fake struct {
	mu       sync.Mutex
	sessions map[string]string // cookie → login
	answers  map[string][]byte // user and key → body
	tasks    []*fakeTask
	bodies   map[string]string // user and key → request, which must not change
	misused  []string
	requests int

	// before is asked before each request is done, after once it was; false drops the
	// connection.
	before, after func(n int, path string) bool
	problem       func(n int, path string) int // an HTTP status instead of an answer
	allDone       chan struct{}
}

func newFake(tasks int) *fake {
	f := &fake{sessions: map[string]string{}, answers: map[string][]byte{}, bodies: map[string]string{}, allDone: make(chan struct{})}
	for i := range tasks {
		f.tasks = append(f.tasks, &fakeTask{Task: client.Task{
			ID: fmt.Sprintf("0197a3c0-0000-7000-8000-%012d", i+1), CampaignID: fakeCampaign, Campaign: "Fake", Channel: campaign.ChannelCall,
			Tier: campaign.TierCore, Attempt: 1, MaximumAttempts: 3, Simulated: true,
			Customer: client.TaskCustomer{ID: fmt.Sprintf("customer-%d", i+1), ExternalID: fmt.Sprintf("x-%d", i+1), Attributes: json.RawMessage(`{}`)},
		}})
	}
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests++
	n := f.requests
	if f.before != nil && !f.before(n, r.URL.Path) {
		panic(http.ErrAbortHandler)
	}
	if f.problem != nil {
		if status := f.problem(n, r.URL.Path); status != 0 {
			refuse(w, status, campaign.CodeInternal)
			return
		}
	}
	status, body := f.answer(w, r)
	if f.after != nil && !f.after(n, r.URL.Path) {
		panic(http.ErrAbortHandler)
	}
	if status >= 400 {
		refuse(w, status, campaign.Code(body))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func refuse(w http.ResponseWriter, status int, code campaign.Code) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(client.Problem{Code: string(code), Status: status, Title: http.StatusText(status)})
}

func (f *fake) answer(w http.ResponseWriter, r *http.Request) (int, []byte) {
	if r.URL.Path == "/v1/sessions" {
		var who client.Credentials
		_ = json.NewDecoder(r.Body).Decode(&who)
		if who.Password != who.Login+"-demo" {
			return http.StatusUnauthorized, []byte(campaign.CodeUnauthenticated)
		}
		token := fmt.Sprintf("session-%d", f.requests)
		f.sessions[token] = who.Login
		http.SetCookie(w, &http.Cookie{Name: "muster_session", Value: token, Path: "/"})
		return http.StatusCreated, []byte(`{"id":"1","login":"a","name":"A","grants":[],"actions":[]}`)
	}
	cookie, err := r.Cookie("muster_session")
	if err != nil || f.sessions[cookie.Value] == "" {
		return http.StatusUnauthorized, []byte(campaign.CodeUnauthenticated)
	}
	login := f.sessions[cookie.Value]
	key := login + " " + r.Header.Get("Idempotency-Key")
	var raw json.RawMessage
	_ = json.NewDecoder(r.Body).Decode(&raw)
	if known, ok := f.answers[key]; ok {
		if f.bodies[key] != string(raw) {
			f.misused = append(f.misused, key)
			return http.StatusUnprocessableEntity, []byte(campaign.CodeKeyReused)
		}
		return http.StatusOK, known
	}
	var out any
	switch r.URL.Path {
	case "/v1/tasks/claim":
		out = f.claim(login, raw)
	case "/v1/tasks/complete-batch":
		out = f.complete(login, raw)
	default:
		return http.StatusNotFound, []byte(campaign.CodeNotFound)
	}
	body, _ := json.Marshal(out)
	f.answers[key], f.bodies[key] = body, string(raw)
	return http.StatusOK, body
}

func (f *fake) claim(login string, raw []byte) client.TaskList {
	var c client.TaskClaim
	_ = json.Unmarshal(raw, &c)
	list := client.TaskList{Items: []client.Task{}}
	for _, t := range f.tasks {
		if !t.done && t.claimedBy == "" && len(list.Items) < c.Limit {
			t.claimedBy, t.LeaseUntil = login, time.Now().Add(time.Minute)
			list.Items = append(list.Items, t.Task)
		}
	}
	return list
}

func (f *fake) complete(login string, raw []byte) client.TaskResultList {
	var batch client.TaskReportBatch
	_ = json.Unmarshal(raw, &batch)
	var list client.TaskResultList
	for _, r := range batch.Reports {
		i := slices.IndexFunc(f.tasks, func(t *fakeTask) bool { return t.ID == r.TaskID })
		t := f.tasks[i]
		if t.done || t.claimedBy != login {
			list.Items = append(list.Items, client.TaskResult{TaskID: r.TaskID, Fault: &campaign.FieldError{Code: campaign.CodeLeaseLost}})
			continue
		}
		t.results = append(t.results, outcomeOf(r))
		if outcomeOf(r) == campaign.OutcomeOrdered {
			t.orders++
		}
		t.claimedBy, t.done = "", r.Result == campaign.OutcomeConnected || t.Attempt == t.MaximumAttempts
		t.Attempt++
		list.Items = append(list.Items, client.TaskResult{TaskID: r.TaskID, State: "open", Attempts: t.Attempt - 1})
	}
	if !slices.ContainsFunc(f.tasks, func(t *fakeTask) bool { return !t.done && t.Simulated }) {
		select {
		case <-f.allDone:
		default:
			close(f.allDone)
		}
	}
	return list
}

// scripted makes customer n answer at attempt n mod 4 (0: never) and order if n is even.
func scripted(t client.Task) (Call, bool, error) {
	var n int
	if _, err := fmt.Sscanf(t.Customer.ExternalID, "x-%d", &n); err != nil {
		return Call{}, false, nil
	}
	if t.Attempt != n%4 {
		return Call{Outcome: campaign.OutcomeNoAnswer}, true, nil
	}
	if n%2 == 0 {
		return Call{Outcome: campaign.OutcomeOrdered, Seconds: n}, true, nil
	}
	return Call{Outcome: campaign.OutcomeDeclined, Seconds: n}, true, nil
}

func logins(n int) (all []apiuser.Login) {
	for i := range n {
		login := fmt.Sprintf("agent-%d", i+1)
		all = append(all, apiuser.Login{Login: login, Password: login + "-demo"})
	}
	return all
}

// work runs a call centre until every task of the fake is done, and returns its counts.
func work(t *testing.T, f *fake, o Options) Counts {
	t.Helper()
	srv := httptest.NewServer(f)
	defer srv.Close()
	srv.Config.ErrorLog = nil
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var last Counts
	o.API, o.Logins, o.Answer, o.Idle = srv.URL, logins(3), scripted, time.Millisecond
	o.Progress = func(c Counts) { last = c }
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, o) }()
	select {
	case <-f.allDone:
	case <-ctx.Done():
	case err := <-ended:
		t.Fatalf("the call centre ended early: %v", err)
	}
	cancel()
	require.NoError(t, <-ended)
	return last
}

// requireScripted checks that every attempt counted once and went as scripted.
func requireScripted(t *testing.T, f *fake) (attempts, orders int64) {
	t.Helper()
	require.Empty(t, f.misused, "a key was used for two different requests")
	for i, task := range f.tasks {
		n := i + 1
		want := []campaign.OutcomeKind{campaign.OutcomeNoAnswer, campaign.OutcomeNoAnswer, campaign.OutcomeNoAnswer}
		if n%4 != 0 {
			want = want[:n%4]
			want[n%4-1] = campaign.OutcomeDeclined
			if n%2 == 0 {
				want[n%4-1] = campaign.OutcomeOrdered
			}
		}
		require.Equal(t, want, task.results, "task %d", n)
		attempts += int64(len(want))
		orders += int64(task.orders)
	}
	return attempts, orders
}

func TestWorksEveryTask(t *testing.T) {
	f := newFake(101)
	counts := work(t, f, Options{Agents: 4, Batch: 7})
	attempts, orders := requireScripted(t, f)
	require.Equal(t, attempts, counts.Worked)
	require.Equal(t, attempts, counts.Claimed)
	require.Equal(t, orders, counts.Ordered)
	require.Equal(t, counts.Worked, counts.Ordered+counts.Declined+counts.NoAnswer)
	require.Zero(t, counts.Lost)
}

func TestTroubleNeverCountsAnAttemptTwice(t *testing.T) {
	f := newFake(60)
	dropped := map[string]int{}
	f.before = func(n int, path string) bool {
		if n%5 == 0 { // the request never arrives
			dropped["before"+path]++
			return false
		}
		return true
	}
	f.after = func(n int, path string) bool {
		if n%3 == 0 { // it is done, but the answer is lost
			dropped["after"+path]++
			return false
		}
		return true
	}
	f.problem = func(n int, path string) int {
		switch n % 11 {
		case 1:
			return http.StatusServiceUnavailable
		case 2:
			return http.StatusTooManyRequests
		}
		return 0
	}
	counts := work(t, f, Options{Agents: 3, Batch: 4})
	attempts, orders := requireScripted(t, f)
	require.Equal(t, attempts, counts.Worked)
	require.Equal(t, orders, counts.Ordered)
	require.NotZero(t, counts.Retries)
	require.NotZero(t, dropped["after/v1/tasks/complete-batch"], "the case that matters did not happen")
}

func TestLogsInAgainAfterARestart(t *testing.T) {
	f := newFake(40)
	f.before = func(n int, _ string) bool {
		if n%13 == 0 { // a restart that forgets all sessions
			clear(f.sessions)
		}
		return true
	}
	work(t, f, Options{Agents: 3, Batch: 5})
	requireScripted(t, f)
}

func TestEndedTasksDoNotTakeOthersWithThem(t *testing.T) {
	f := newFake(9)
	first := true
	f.problem = func(_ int, path string) int {
		if path == "/v1/tasks/complete-batch" && first {
			first = false
			return -1
		}
		return 0
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		conflict := f.problem(0, r.URL.Path) == -1
		f.mu.Unlock()
		if conflict {
			refuse(w, http.StatusConflict, campaign.CodeStateConflict)
			return
		}
		f.ServeHTTP(w, r)
	}))
	defer srv.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Options{API: srv.URL, Logins: logins(1), Agents: 1, Answer: scripted, Idle: time.Millisecond})
	}()
	<-f.allDone
	cancel()
	require.NoError(t, <-ended)
	requireScripted(t, f)
}

// TestRealCampaignsAreLeftToPeople: the simulator says so once for each and goes on.
func TestRealCampaignsAreLeftToPeople(t *testing.T) {
	var log strings.Builder
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(before)
	f := newFake(20)
	for i, campaignID := range map[int]string{0: "real-1", 1: "real-1", 2: "real-2", 9: "real-1"} {
		f.tasks[i].Simulated, f.tasks[i].CampaignID = false, campaignID
	}
	counts := work(t, f, Options{Agents: 2, Batch: 3})
	require.Zero(t, counts.Lost)
	for _, task := range f.tasks {
		require.Equal(t, task.Simulated, len(task.results) > 0, task.ID)
	}
	require.Equal(t, 1, strings.Count(log.String(), "campaign_id=real-1"))
	require.Equal(t, 1, strings.Count(log.String(), "campaign_id=real-2"))
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*fake, *Options)
		want   string
	}{
		"wrong password": {func(_ *fake, o *Options) { o.Logins[0].Password = "guess" }, "log in as agent-1"},
		"unknown customer": {func(f *fake, _ *Options) { f.tasks[1].Customer.ExternalID = "nobody" },
			"nothing is known of how customer nobody answers"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(3)
			srv := httptest.NewServer(f)
			defer srv.Close()
			o := Options{API: srv.URL, Logins: logins(1), Agents: 1, Answer: scripted}
			c.change(f, &o)
			require.ErrorContains(t, Run(context.Background(), o), c.want)
			for _, task := range f.tasks {
				if task.Customer.ExternalID == "nobody" {
					require.Empty(t, task.results)
				}
			}
		})
	}
}

func TestOptions(t *testing.T) {
	good := Options{API: "http://127.0.0.1:1", Logins: logins(1), Answer: scripted}
	filled, err := good.withDefaults()
	require.NoError(t, err)
	require.Equal(t, DefaultAgents, filled.Agents)
	require.Equal(t, DefaultBatch, filled.Batch)

	slow := good
	slow.Talk = 20 * time.Second
	filled, err = slow.withDefaults()
	require.NoError(t, err)
	require.Equal(t, 3, filled.Batch, "all calls fit into half a lease")

	for name, change := range map[string]func(*Options){
		"no address": func(o *Options) { o.API = "" }, "nobody": func(o *Options) { o.Logins = nil },
		"no answers": func(o *Options) { o.Answer = nil }, "batch": func(o *Options) { o.Batch = 201 },
		"endless call": func(o *Options) { o.Talk = time.Hour },
	} {
		bad := good
		change(&bad)
		require.Error(t, Run(context.Background(), bad), name)
	}
}

func TestMarketAnswers(t *testing.T) {
	truth := market.Default()
	answer, err := Market(truth, 0.5)
	require.NoError(t, err)
	m, err := market.New(truth, fakeCampaign)
	require.NoError(t, err)
	picked := 0
	const customers = 2000
	for i := range customers {
		task := client.Task{CampaignID: fakeCampaign, Tier: campaign.TierCore, Attempt: 1, Customer: client.TaskCustomer{ID: fmt.Sprint(i)}}
		c, known, err := answer(task)
		require.NoError(t, err)
		require.True(t, known)
		again, _, _ := answer(task)
		require.Equal(t, c, again)
		if c.Outcome == campaign.OutcomeNoAnswer {
			require.Zero(t, c.Seconds)
			continue
		}
		picked++
		a, err := m.Responds(task.Customer.ID, "core", []string{"call"})
		require.NoError(t, err)
		require.Equal(t, a.Responds, c.Outcome == campaign.OutcomeOrdered)
		require.Positive(t, c.Seconds)
	}
	require.InDelta(t, customers/2, picked, 5*22.4, "five standard deviations")

	_, err = Market(truth, 1.5)
	require.Error(t, err)
	_, err = Market(market.Truth{}, 0.5)
	require.Error(t, err)
}

func TestRecordedAnswersAndFirstOf(t *testing.T) {
	data := `"age";"job";"marital";"education";"default";"housing";"loan";"contact";"month";"day_of_week";"duration";"campaign";"pdays";"previous";"poutcome";"emp.var.rate";"cons.price.idx";"cons.conf.idx";"euribor3m";"nr.employed";"y"
56;"housemaid";"married";"basic.4y";"no";"no";"no";"telephone";"may";"mon";261;2;999;0;"nonexistent";1.1;93.994;-36.4;4.857;5191;"yes"
`
	bank, err := dataset.ParseBank([]byte(data))
	require.NoError(t, err)
	answer := FirstOf(Recorded(bank), scripted)
	task := client.Task{Attempt: 1, Customer: client.TaskCustomer{ExternalID: "bank-000001"}}
	c, known, err := answer(task)
	require.NoError(t, err)
	require.True(t, known)
	require.Equal(t, Call{Outcome: campaign.OutcomeNoAnswer}, c)
	task.Attempt = 2
	c, _, _ = answer(task)
	require.Equal(t, Call{Outcome: campaign.OutcomeOrdered, Seconds: 261}, c)

	task.Customer.ExternalID = "x-2"
	c, known, _ = answer(task)
	require.True(t, known)
	require.Equal(t, campaign.OutcomeOrdered, c.Outcome)
	task.Customer.ExternalID = "elsewhere"
	_, known, err = answer(task)
	require.NoError(t, err)
	require.False(t, known)
}
