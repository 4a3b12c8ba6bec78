package respond

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/apiuser"
	"github.com/musterhq/muster/internal/sim/market"
)

const fakeCampaign = "0197a3c0-0000-7000-8000-00000000c0de"

// fake is the part of the API that the runner uses. Its campaign runs for a number of
// looks, is settled for one, and then over.
type fake struct {
	mu       sync.Mutex
	plan     campaign.Plan
	looks    int
	running  int // looks while it runs
	members  []client.Target
	contacts map[int][]client.Contact // by look from which on they are there
	outcomes map[string]client.NewOutcome
	posts    int
	twice    int
	drop     bool
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	reply := func(status int, body any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
	}
	base := "/v1/campaigns/" + fakeCampaign
	switch r.URL.Path {
	case "/v1/sessions":
		http.SetCookie(w, &http.Cookie{Name: "muster_session", Value: "s", Path: "/"})
		reply(http.StatusCreated, client.Me{})
	case base:
		f.looks++
		stage := campaign.StageRunning
		switch {
		case f.looks == 1:
			stage = campaign.StageTargeting
		case f.looks == f.running+2:
			stage = campaign.StageSettlement
		case f.looks > f.running+2:
			stage = campaign.StageClosed
		}
		reply(http.StatusOK, client.CampaignDetail{
			Status: campaign.Status{Stage: stage, Targets: int64(len(f.members))}, InForce: &client.Revision{Plan: f.plan},
		})
	case base + "/targets/members":
		from, to, next := page(r, len(f.members))
		reply(http.StatusOK, client.TargetPage{Items: f.members[from:to], Next: next})
	case base + "/contacts":
		var all []client.Contact
		for _, look := range slices.Sorted(maps.Keys(f.contacts)) {
			for _, c := range f.contacts[look] {
				if f.looks >= look && c.State == campaign.ContactState(r.URL.Query().Get("state")) {
					all = append(all, c)
				}
			}
		}
		from, to, next := page(r, len(all))
		reply(http.StatusOK, client.ContactPage{Items: all[from:to], Next: next})
	case "/v1/outcomes":
		var batch client.OutcomeBatch
		_ = json.NewDecoder(r.Body).Decode(&batch)
		var result client.OutcomeResult
		for _, o := range batch.Outcomes {
			key := o.Source + "/" + o.SourceID
			if _, known := f.outcomes[key]; known {
				result.Duplicate++
				f.twice++
				continue
			}
			f.outcomes[key] = o
			result.Accepted++
		}
		if f.posts++; f.drop && f.posts == 1 { // done, but the answer is lost
			panic(http.ErrAbortHandler)
		}
		reply(http.StatusOK, result)
	default:
		reply(http.StatusNotFound, client.Problem{Code: string(campaign.CodeNotFound)})
	}
}

func page(r *http.Request, n int) (from, to int, next string) {
	from, _ = strconv.Atoi(r.URL.Query().Get("cursor"))
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	to = min(from+limit, n)
	if to < n {
		next = strconv.Itoa(to)
	}
	return min(from, n), to, next
}

var truth = market.Truth{
	Seed: 3, BaseRate: map[string]float64{"core": 0.2},
	Effect: map[string]map[string]float64{"sms": {"core": 0.2}, "call": {"core": 0.3}},
}

func newFake(targets int) *fake {
	f := &fake{
		plan: campaign.Plan{Simulated: true, Goal: campaign.Goal{Outcome: campaign.OutcomeOrdered},
			Measurement: campaign.Measurement{Coverage: campaign.CoverageEveryone}},
		running: 3, contacts: map[int][]client.Contact{}, outcomes: map[string]client.NewOutcome{},
	}
	for i := range targets {
		m := client.Target{CustomerID: fmt.Sprintf("customer-%04d", i), Tier: campaign.TierCore, Arm: campaign.ArmTreated}
		if i%10 == 0 {
			m.Arm = campaign.ArmControl
		}
		f.members = append(f.members, m)
	}
	return f
}

func run(t *testing.T, f *fake, truth market.Truth) (Counts, error) {
	t.Helper()
	srv := httptest.NewServer(f)
	defer srv.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var last Counts
	err := Run(ctx, Options{
		API: srv.URL, Login: apiuser.Login{Login: "operator", Password: "x"}, CampaignID: fakeCampaign,
		Truth: truth, Interval: time.Millisecond, Progress: func(c Counts) { last = c },
	})
	return last, err
}

// contacted says by which channels the fake's campaign reached customer i: everybody
// treated by SMS, every third of them by a call later.
func (f *fake) contact() map[string][]string {
	by := map[string][]string{}
	for i, m := range f.members {
		if m.Arm == campaign.ArmControl {
			continue
		}
		state := campaign.ContactDelivered
		if i%2 == 0 {
			state = campaign.ContactSent
		}
		f.contacts[2] = append(f.contacts[2], client.Contact{CustomerID: m.CustomerID, Channel: campaign.ChannelSMS, State: state, UpdatedAt: time.Now()})
		by[m.CustomerID] = []string{"sms"}
		if i%3 == 0 {
			f.contacts[4] = append(f.contacts[4], client.Contact{CustomerID: m.CustomerID, Channel: campaign.ChannelCall, State: campaign.ContactDelivered, UpdatedAt: time.Now()})
			by[m.CustomerID] = []string{"sms", "call"}
		}
		if i%3 == 1 { // nobody answered: that reached nobody
			f.contacts[4] = append(f.contacts[4], client.Contact{CustomerID: m.CustomerID, Channel: campaign.ChannelCall, State: campaign.ContactFailed, UpdatedAt: time.Now()})
		}
	}
	return by
}

func requireTruth(t *testing.T, f *fake, truth market.Truth, by map[string][]string, counts Counts) {
	t.Helper()
	m, err := market.New(truth, fakeCampaign)
	require.NoError(t, err)
	want, control := 0, 0
	for _, target := range f.members {
		a, err := m.Responds(target.CustomerID, "core", by[target.CustomerID])
		require.NoError(t, err)
		o, posted := f.outcomes[Source+"/"+target.CustomerID+":"+fakeCampaign]
		require.Equal(t, a.Responds, posted, target.CustomerID)
		if !posted {
			continue
		}
		want++
		require.Equal(t, campaign.OutcomeOrdered, o.Kind)
		require.False(t, o.At.After(time.Now()))
		if target.Arm == campaign.ArmControl {
			control++
		}
	}
	require.Len(t, f.outcomes, want)
	require.Equal(t, Counts{Targets: len(f.members), Posted: want, Control: control}, counts)
	require.NotZero(t, control)
}

func TestEverybodyAnswersByTheTruth(t *testing.T) {
	f := newFake(1500) // more than a page and more than a post
	by := f.contact()
	counts, err := run(t, f, truth)
	require.NoError(t, err)
	requireTruth(t, f, truth, by, counts)
	require.Zero(t, f.twice)
}

func TestWhoWouldAnswerLaterAnswersAtTheEnd(t *testing.T) {
	f := newFake(300)
	by := f.contact()
	slow := truth
	slow.ResponseDelay = market.Delay{Mean: time.Hour, Max: 24 * time.Hour}
	counts, err := run(t, f, slow)
	require.NoError(t, err)
	requireTruth(t, f, slow, by, counts)
}

func TestALostAnswerCountsNobodyTwice(t *testing.T) {
	f := newFake(200)
	by := f.contact()
	f.drop = true
	counts, err := run(t, f, truth)
	require.NoError(t, err)
	requireTruth(t, f, truth, by, counts)
	require.NotZero(t, f.twice, "the lost answer was not asked for again")
}

func TestRefusesWhatIsNotItsBusiness(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*fake)
		want   string
	}{
		"real campaign":          {func(f *fake) { f.plan.Simulated = false }, "not simulated"},
		"contacted only":         {func(f *fake) { f.plan.Measurement.Coverage = campaign.CoverageContacted }, "contacted customers only, as their calls report them, so a market has nothing to answer"},
		"tier without truth":     {func(f *fake) { f.members[3].Tier = campaign.TierBasic }, "not in the truth"},
		"customer of no account": {func(f *fake) { f.plan.Goal.Outcome = campaign.OutcomeOrdered; f.members = nil }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(5)
			c.change(f)
			_, err := run(t, f, truth)
			if c.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.want)
			}
			if name == "contacted only" {
				require.Equal(t, 1, f.looks, "it is told at once, not when the campaign runs")
			}
			require.Empty(t, f.outcomes)
		})
	}
	_, err := run(t, newFake(1), market.Truth{BaseRate: map[string]float64{"core": 2}})
	require.Error(t, err)
}
