package demo

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/apiuser"
	"github.com/musterhq/muster/internal/population"
)

func TestWaterfall(t *testing.T) {
	require.Equal(t, "41,188 customers of the unit, 4,442 match, 0 may not be contacted, 4,442 targets, 444 of them held out, "+
		"wave 1 has 1,662 to contact, wave 2 has 2,336 to contact", waterfall(campaign.TargetCount{
		Considered: 41_188, Matching: 4_442, Targets: 4_442, Control: 444,
		Waves: []campaign.WaveCount{{Wave: 1, Treated: 1_662}, {Wave: 2, Treated: 2_336}},
	}))
}

func TestUpcoming(t *testing.T) {
	now := time.Unix(1000, 0)
	at := func(s int) time.Time { return now.Add(time.Duration(s) * time.Second) }
	s := campaign.Status{
		Waves:   []campaign.WaveRun{{Number: 1, StartsAt: at(-20), Begun: true}, {Number: 2, StartsAt: at(30)}},
		Reviews: []campaign.ReviewRun{{Number: 1, StartsAt: at(16)}},
	}
	require.Equal(t, "review 1 begins in 16 s", upcoming(s, now))
	s.Reviews[0].Begun = true
	require.Equal(t, "wave 2 begins in 30 s", upcoming(s, now))
	s.Waves[1].Begun = true
	require.Empty(t, upcoming(s, now))
}

// signing is an API that answers every decision, the planner's with a refusal or not.
func signing(t *testing.T, refusePlanner bool) (d *driver, signed func() []string) {
	t.Helper()
	var logins, all []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Path == "/v1/sessions":
			var c client.Credentials
			_ = json.NewDecoder(r.Body).Decode(&c)
			logins = append(logins, c.Login)
			http.SetCookie(w, &http.Cookie{Name: "muster_session", Value: c.Login, Path: "/"})
			w.WriteHeader(http.StatusCreated)
			_ = json.NewEncoder(w).Encode(client.Me{})
		case strings.HasSuffix(r.URL.Path, "/history"):
			_ = json.NewEncoder(w).Encode(client.HistoryPage{Items: []client.HistoryEvent{}})
		case strings.HasSuffix(r.URL.Path, "/decisions"):
			who, _ := r.Cookie("muster_session")
			if who.Value == population.Planner && refusePlanner {
				w.Header().Set("Content-Type", "application/problem+json")
				w.WriteHeader(http.StatusForbidden)
				_ = json.NewEncoder(w).Encode(client.Problem{Code: string(campaign.CodeSelfApproval), Detail: "nobody signs their own campaign"})
				return
			}
			all = append(all, who.Value)
			_ = json.NewEncoder(w).Encode(client.DecisionResult{})
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(srv.Close)
	user := func(login string) *apiuser.User {
		u, err := apiuser.New(srv.URL, population.DemoLogin(login))
		require.NoError(t, err)
		return u
	}
	c := &cast{
		planner: user(population.Planner), manager: user(population.Manager), finance: user(population.Finance), credit: user(population.Credit),
		auditor: user(population.Auditor),
	}
	return &driver{
		cast: c, story: stories()[0], out: newPrinter(io.Discard), plan: Plan(population.KindBank),
		result: Result{CampaignID: "0197a3c0-0000-7000-8000-00000000c0de"},
	}, func() []string { return all }
}

func TestThePlannerIsRefusedAndTheOthersSign(t *testing.T) {
	d, signed := signing(t, true)
	route := []campaign.ApprovalLevel{
		{Level: 1, Name: "marketing manager", Action: campaign.ActApprovalManager}, {Level: 2, Name: "finance", Action: campaign.ActApprovalFinance},
	}
	a := campaign.NewApproval(campaign.Approval{Revision: 1, Digest: "digest", Amount: 1, Requester: "somebody", Route: route}, time.Now())
	require.NoError(t, d.approve(context.Background(), a, route[0]))
	require.Equal(t, campaign.CodeSelfApproval, d.result.SelfApproval)
	require.NoError(t, d.approve(context.Background(), a, route[1]))
	require.NoError(t, d.approve(context.Background(), a, campaign.ApprovalLevel{Level: 3, Name: "credit approver", Action: campaign.ActApprovalCredit}))
	require.Equal(t, []string{population.Manager, population.Finance, population.Credit}, signed())
	require.Error(t, d.approve(context.Background(), a, campaign.ApprovalLevel{Level: 4, Name: "board", Action: campaign.ActReviewDecide}))
}

func TestADemoFailsWhenThePlannerMaySignTheirOwn(t *testing.T) {
	d, signed := signing(t, false)
	route := []campaign.ApprovalLevel{{Level: 1, Name: "marketing manager", Action: campaign.ActApprovalManager}}
	err := d.approve(context.Background(), campaign.NewApproval(campaign.Approval{Revision: 1, Digest: "digest", Amount: 1, Requester: "somebody", Route: route}, time.Now()), route[0])
	require.ErrorContains(t, err, "was not refused")
	require.Equal(t, []string{population.Planner}, signed())
}
