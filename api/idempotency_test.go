package api

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

func TestSameKeyIsOneCampaign(t *testing.T) {
	e := newEnv(t)
	e.as("planner")
	body := NewCampaign{Plan: validPlan()}
	replies := make([]reply, 20)
	var g sync.WaitGroup
	for i := range replies {
		g.Go(func() { replies[i] = e.send("planner", "POST", "/v1/campaigns", body, "Idempotency-Key", "once") })
	}
	g.Wait()
	for _, r := range replies {
		if r.status != http.StatusCreated {
			require.Equal(t, "request_in_progress", r.problem(t).Code)
			require.NotEmpty(t, r.header.Get("Retry-After"))
		}
	}
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM campaign`))

	first := e.send("planner", "POST", "/v1/campaigns", body, "Idempotency-Key", "once")
	again := e.send("planner", "POST", "/v1/campaigns", body, "Idempotency-Key", "once")
	require.Equal(t, http.StatusCreated, first.status)
	require.Equal(t, first.body, again.body)
	require.Equal(t, "true", again.header.Get("Idempotency-Replayed"))
	require.NotEmpty(t, again.header.Get("ETag"))
	require.Equal(t, first.header.Get("ETag"), again.header.Get("ETag"))

	other := validPlan()
	other.Name = "Another"
	p := e.send("planner", "POST", "/v1/campaigns", NewCampaign{Plan: other}, "Idempotency-Key", "once").problem(t)
	require.Equal(t, http.StatusUnprocessableEntity, p.Status)
	require.Equal(t, "idempotency_key_reused", p.Code)

	e.addUser("second", here, campaign.RolePlanner)
	e.reload()
	require.Equal(t, http.StatusCreated, e.send("second", "POST", "/v1/campaigns", body, "Idempotency-Key", "once").status, "another user's key is another key")
	require.EqualValues(t, 2, e.number(`SELECT count(*) FROM campaign`))
}

func TestCrashedRequestIsTakenOver(t *testing.T) {
	e := newEnv(t)
	body := NewCampaign{Plan: validPlan()}
	made := into[CampaignDetail](t, e.send("planner", "POST", "/v1/campaigns", body, "Idempotency-Key", "crash"))
	// As if the process had died after it wrote the campaign and before it kept the answer.
	e.exec(`UPDATE idempotency_key SET status = NULL, body = NULL`)
	require.Equal(t, "request_in_progress", e.send("planner", "POST", "/v1/campaigns", body, "Idempotency-Key", "crash").problem(t).Code)
	e.exec(`UPDATE idempotency_key SET created_at = now() - interval '2 minutes'`)
	again := into[CampaignDetail](t, e.send("planner", "POST", "/v1/campaigns", body, "Idempotency-Key", "crash"))
	require.Equal(t, made.Campaign.ID, again.Campaign.ID)
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM campaign`))
}

func TestFailureIsNotKept(t *testing.T) {
	e := newEnv(t)
	path := "/v1/campaigns/" + e.newCampaign().Campaign.ID + "/pause"
	e.orch.setAway(true)
	r := e.send("operator", "POST", path, HoldReason{Reason: "x"}, "Idempotency-Key", "k")
	require.Equal(t, "orchestrator_unavailable", r.problem(t).Code)
	require.Equal(t, http.StatusServiceUnavailable, r.status)
	require.NotEmpty(t, r.header.Get("Retry-After"))
	e.orch.setAway(false)
	require.Equal(t, http.StatusOK, e.send("operator", "POST", path, HoldReason{Reason: "x"}, "Idempotency-Key", "k").status)
}

func TestKeyOfTwoUsersIsTwoUpdates(t *testing.T) {
	e := newEnv(t)
	path := "/v1/campaigns/" + e.newCampaign().Campaign.ID + "/stop"
	for _, login := range []string{"operator", "planner"} {
		require.Equal(t, http.StatusOK, e.send(login, "POST", path, HoldReason{Reason: "x"}, "Idempotency-Key", "same").status)
	}
	asked := e.orch.asked()
	require.Len(t, asked, 2)
	require.NotEqual(t, asked[0].id, asked[1].id)
	command := asked[0].arg.(*campaign.ChangeHold).Command
	require.Equal(t, asked[0].id, command.UpdateID)
	require.Equal(t, e.users["operator"], command.Actor.UserID)
	require.NotEmpty(t, command.PolicyVersion)
}

// TestSlowAnswerIsKept: the time for keeping an answer begins when there is one. A key
// that is neither kept nor let go keeps its owner waiting for as long as a crash would.
func TestSlowAnswerIsKept(t *testing.T) {
	e := newEnv(t)
	slow := func(answer error) {
		e.orch.setAnswer(func(string, any) (campaign.Status, error) {
			<-time.After(recordWithin + time.Second) // time passing is what this is about
			return campaign.Status{Stage: campaign.StageRunning, Hold: campaign.HoldPaused}, answer
		})
	}
	path := "/v1/campaigns/" + e.newCampaign().Campaign.ID + "/pause"
	pause := func() reply {
		return e.send("operator", "POST", path, HoldReason{Reason: "x"}, "Idempotency-Key", "slow")
	}
	slow(errAway)
	require.Equal(t, http.StatusServiceUnavailable, pause().status)
	slow(nil)
	first := pause()
	require.Equal(t, http.StatusOK, first.status, "the key was let go: %s", first.body)
	again := pause()
	require.Equal(t, http.StatusOK, again.status, "the answer was kept: %s", again.body)
	require.Equal(t, "true", again.header.Get("Idempotency-Replayed"))
	require.Equal(t, first.body, again.body)
}
