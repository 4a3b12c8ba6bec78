package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

func TestCampaignIsCreatedAndListed(t *testing.T) {
	e := newEnv(t)
	e.orch.setAway(true)
	c := e.newCampaign()
	require.Equal(t, campaign.StageDraft, c.Campaign.Stage)
	require.Equal(t, campaign.ActCampaignSubmit, c.Campaign.WaitAction)
	plan := validPlan()
	require.Equal(t, plan.Digest(), c.Draft.Digest)
	require.Equal(t, "The planner", c.Campaign.Planner.Name)
	require.Zero(t, e.number(`SELECT count(*) FROM campaign WHERE started`), "the orchestrator is away: a worker starts it later")
	e.orch.setAway(false)
	for range 4 {
		e.newCampaign()
	}
	require.Len(t, e.orch.started, 4)
	require.EqualValues(t, 4, e.number(`SELECT count(*) FROM campaign WHERE started`))

	var numbers []int64
	path := "/v1/campaigns?limit=2"
	for pages := 0; path != ""; pages++ {
		require.Less(t, pages, 5)
		page := into[CampaignPage](t, e.send("manager", "GET", path, nil))
		for _, item := range page.Items {
			numbers = append(numbers, item.Number)
		}
		path = ""
		if page.Next != "" {
			path = "/v1/campaigns?limit=2&cursor=" + page.Next
			require.Equal(t, "invalid_cursor", e.send("manager", "GET", path+"&mine=true", nil).problem(t).Code)
		}
	}
	require.Len(t, numbers, 5)
	require.IsDecreasing(t, numbers)
	require.Empty(t, into[CampaignPage](t, e.send("stranger", "GET", "/v1/campaigns", nil)).Items)
	require.Empty(t, into[CampaignPage](t, e.send("manager", "GET", "/v1/campaigns?mine=true", nil)).Items)
	require.Len(t, into[CampaignPage](t, e.send("planner", "GET", "/v1/campaigns?q=AUTUMN", nil)).Items, 5)
	require.Empty(t, into[CampaignPage](t, e.send("planner", "GET", "/v1/campaigns?stage=running", nil)).Items)
}

func TestPlanIsChangedOnTopOfWhatWasRead(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	path := "/v1/campaigns/" + c.Campaign.ID + "/plan"
	read := e.send("planner", "GET", "/v1/campaigns/"+c.Campaign.ID, nil)
	tag := read.header.Get("ETag")
	require.Equal(t, c.Draft.Etag, tag)

	plan := validPlan()
	plan.Name = "Renamed"
	require.Equal(t, "precondition_required", e.send("planner", "PUT", path, plan).problem(t).Code)
	written := e.send("planner", "PUT", path, plan, "If-Match", tag)
	second := into[Revision](t, written)
	require.Equal(t, 2, second.Revision)
	require.Equal(t, second.Etag, written.header.Get("ETag"))

	other := validPlan()
	other.Name = "Somebody else's"
	conflict := e.send("planner", "PUT", path, other, "If-Match", tag).problem(t)
	require.Equal(t, http.StatusPreconditionFailed, conflict.Status)
	require.Equal(t, "version_changed", conflict.Code)
	require.EqualValues(t, 2, e.number(`SELECT count(*) FROM plan_revision`))

	moved := plan
	moved.Unit = "operator"
	require.Equal(t, "unit", e.send("planner", "PUT", path, moved, "If-Match", second.Etag).problem(t).Fields[0].Field)

	list := into[RevisionList](t, e.send("auditor", "GET", "/v1/campaigns/"+c.Campaign.ID+"/revisions", nil))
	require.Len(t, list.Items, 2)
	require.Equal(t, "Renamed", list.Items[0].Plan.Name)

	e.setStatus(c.Campaign.ID, campaign.Status{Stage: campaign.StageRunning, Revision: 1})
	require.Equal(t, "state_conflict", e.send("planner", "PUT", path, other, "If-Match", second.Etag).problem(t).Code)
}

func TestConcurrentEditsMakeOneRevision(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	e.as("planner")
	codes := make([]int, 8)
	var g sync.WaitGroup
	for i := range codes {
		g.Go(func() {
			plan := validPlan()
			plan.Name = fmt.Sprintf("Edit %d", i)
			codes[i] = e.send("planner", "PUT", "/v1/campaigns/"+c.Campaign.ID+"/plan", plan, "If-Match", c.Draft.Etag).status
		})
	}
	g.Wait()
	won := 0
	for _, code := range codes {
		if code == http.StatusOK {
			won++
		} else {
			require.Equal(t, http.StatusPreconditionFailed, code)
		}
	}
	require.Equal(t, 1, won)
	require.EqualValues(t, 2, e.number(`SELECT count(*) FROM plan_revision`))
}

func TestSubmitBindsToTheNewestRevision(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	path := "/v1/campaigns/" + c.Campaign.ID + "/submit"
	require.Equal(t, "version_changed", e.send("planner", "POST", path, Submission{Revision: 2}).problem(t).Code)
	require.Equal(t, "version_changed", e.send("planner", "POST", path, Submission{Revision: 1, Digest: "00"}).problem(t).Code)
	require.Empty(t, e.orch.asked())
	standing := into[Standing](t, e.send("planner", "POST", path, Submission{Revision: 1, Digest: c.Draft.Digest}))
	require.Equal(t, campaign.StageApproval, standing.Status.Stage)
	require.Equal(t, c.Draft.Digest, e.orch.asked()[0].arg.(*campaign.Submit).Digest)
}

func TestAmendmentIsOneRevisionHoweverOftenItIsTried(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	e.setStatus(c.Campaign.ID, campaign.Status{Stage: campaign.StageRunning, Revision: 1})
	path := "/v1/campaigns/" + c.Campaign.ID + "/amend"
	plan := validPlan()
	plan.Goal.Target = 11
	e.orch.answer = func(string, any) (campaign.Status, error) { return campaign.Status{}, errAway }
	body := Amendment{Plan: plan, Reason: "more"}
	for range 2 {
		require.Equal(t, http.StatusServiceUnavailable, e.send("planner", "POST", path, body, "Idempotency-Key", "k").status)
	}
	e.orch.answer = nil
	into[Standing](t, e.send("planner", "POST", path, body, "Idempotency-Key", "k"))
	asked := e.orch.asked()
	require.Equal(t, 2, asked[len(asked)-1].arg.(*campaign.Amend).Revision)
	into[Standing](t, e.send("planner", "POST", path, body, "Idempotency-Key", "k2"))
	asked = e.orch.asked()
	require.Equal(t, 3, asked[len(asked)-1].arg.(*campaign.Amend).Revision, "another request is another revision, whatever its words")
}

func TestRefusedUpdateIsEvidence(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	e.orch.answer = func(string, any) (campaign.Status, error) {
		return campaign.Status{}, campaign.Errorf(campaign.CodeBudgetInsufficient, "not enough").With("available", 5)
	}
	p := e.send("operator", "POST", "/v1/campaigns/"+c.Campaign.ID+"/pause", HoldReason{Reason: "x"}).problem(t)
	require.Equal(t, http.StatusConflict, p.Status)
	require.Equal(t, "budget_insufficient", p.Code)
	require.EqualValues(t, 5, p.Details["available"])
	page := into[HistoryPage](t, e.send("auditor", "GET", "/v1/campaigns/"+c.Campaign.ID+"/history", nil))
	last := page.Items[len(page.Items)-1]
	require.False(t, last.Allowed)
	require.Equal(t, "The operator", last.Actor)
	require.Equal(t, "command.refused", last.Event)
	require.Equal(t, map[string]any{"code": "budget_insufficient", "command": "Pause", "operation": "pauseCampaign", "action": "campaign.pause", "request_id": p.RequestID}, dataOf(t, last))
}

func dataOf(t *testing.T, e HistoryEvent) map[string]any {
	t.Helper()
	var data map[string]any
	require.NoError(t, json.Unmarshal(e.Data, &data))
	return data
}

// TestRefusalsAreToldApart: who may not is denied access, and what cannot be now is a
// refused command; a fault of Muster's own is neither.
func TestRefusalsAreToldApart(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	at := "/v1/campaigns/" + c.Campaign.ID
	seen := 0
	next := func() []HistoryEvent {
		t.Helper()
		all := into[HistoryPage](t, e.send("auditor", "GET", at+"/history?limit=200", nil)).Items
		defer func() { seen = len(all) }()
		return all[seen:]
	}
	next()
	refused := func(event, code, command string, action campaign.Action) {
		t.Helper()
		got := next()
		require.Len(t, got, 1)
		require.Equal(t, event, got[0].Event)
		require.False(t, got[0].Allowed)
		data := dataOf(t, got[0])
		require.Equal(t, code, data["code"])
		require.Equal(t, string(action), data["action"])
		if command == "" {
			require.NotContains(t, data, "command")
		} else {
			require.Equal(t, command, data["command"])
		}
	}
	reason := HoldReason{Reason: "x"}
	e.send("planner", "POST", at+"/pause", reason)
	refused("access.denied", "forbidden", "", campaign.ActCampaignPause)
	e.send("stranger", "POST", at+"/stop", reason)
	refused("access.denied", "not_found", "", campaign.ActCampaignStop)
	e.send("planner", "POST", at+"/submit", Submission{Revision: 9})
	refused("command.refused", "version_changed", "Submit", campaign.ActCampaignSubmit)
	e.send("planner", "POST", at+"/amend", Amendment{Plan: validPlan(), Reason: "x"})
	refused("command.refused", "state_conflict", "Amend", campaign.ActCampaignAmend)
	e.orch.answer = func(string, any) (campaign.Status, error) {
		return campaign.Status{}, campaign.Errorf(campaign.CodeForbidden, "revoked meanwhile")
	}
	e.send("operator", "POST", at+"/pause", reason)
	refused("access.denied", "forbidden", "Pause", campaign.ActCampaignPause)
	e.orch.answer = func(string, any) (campaign.Status, error) { return campaign.Status{}, errAway }
	e.send("operator", "POST", at+"/pause", reason)
	require.Empty(t, next())

	// A signature is asked for by the level's own action.
	e.inApproval(c, 90000)
	next()
	decision := NewDecision{Revision: 1, Digest: c.Draft.Digest, Level: 1, Decision: campaign.DecisionApprove}
	e.send("finance", "POST", at+"/decisions", decision)
	refused("access.denied", "forbidden", "Decide", campaign.ActApprovalManager)
	decision.Level = 2
	e.send("finance", "POST", at+"/decisions", decision)
	refused("command.refused", "state_conflict", "Decide", campaign.ActApprovalFinance)
	decision.Digest = "00"
	e.send("manager", "POST", at+"/decisions", decision)
	refused("access.denied", "forbidden", "Decide", campaign.ActApprovalFinance)
}

func TestAnAmendmentNamesWhatItWasMadeFrom(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	at := "/v1/campaigns/" + c.Campaign.ID
	e.setStatus(c.Campaign.ID, campaign.Status{Stage: campaign.StageRunning, Revision: 1})
	plan := validPlan()
	plan.Goal.Target = 11
	into[Standing](t, e.send("planner", "POST", at+"/amend", Amendment{Plan: plan, Reason: "more"}))
	e.setStatus(c.Campaign.ID, campaign.Status{Stage: campaign.StageRunning, Revision: 2})
	into[Standing](t, e.send("planner", "POST", at+"/amend", Amendment{Plan: plan, Reason: "again"}))
	into[Standing](t, e.send("planner", "POST", at+"/amend", Amendment{Plan: plan, Reason: "late", BaseRevision: 1}))
	revisions := into[RevisionList](t, e.send("planner", "GET", at+"/revisions", nil)).Items
	var bases []int
	var notes []string
	for _, r := range revisions {
		bases, notes = append(bases, r.Base), append(notes, r.Note)
	}
	require.Equal(t, []int{1, 2, 1, 0}, bases)
	require.Equal(t, []string{"late", "again", "more", ""}, notes, "people read what people wrote")
	require.Equal(t, "invalid_parameter", e.send("planner", "POST", at+"/amend", Amendment{Plan: plan, Reason: "x", BaseRevision: -1}).problem(t).Code)
	ahead := e.send("planner", "POST", at+"/amend", Amendment{Plan: plan, Reason: "x", BaseRevision: 5}).problem(t)
	require.Equal(t, http.StatusBadRequest, ahead.Status)
	require.Equal(t, "invalid_parameter", ahead.Code)
	require.Equal(t, "base_revision", ahead.Fields[0].Field)
	require.EqualValues(t, 4, e.number(`SELECT count(*) FROM plan_revision`))

	// An amendment that another plan overtook cannot be signed any more.
	approval := e.inApproval(c, 90000)
	approval.Result = campaign.ApprovalOutdated
	e.setStatus(c.Campaign.ID, campaign.Status{Stage: campaign.StageRunning, Revision: 2, Approval: approval})
	p := e.send("manager", "POST", at+"/decisions", NewDecision{Revision: 1, Digest: c.Draft.Digest, Level: 1, Decision: campaign.DecisionApprove}).problem(t)
	require.Equal(t, "amendment_outdated", p.Code)
	require.Equal(t, http.StatusConflict, p.Status)
	require.Contains(t, p.Detail, "amend again")
	require.Zero(t, e.number(`SELECT count(*) FROM sign_off`))
}

func TestACampaignThatEndedShowsNoHold(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	require.Equal(t, campaign.HoldNone, c.Campaign.Hold)
	e.setStatus(c.Campaign.ID, campaign.Status{Stage: campaign.StageClosed, Hold: campaign.HoldNone, Revision: 1, Ended: "completed"})
	detail := e.send("planner", "GET", "/v1/campaigns/"+c.Campaign.ID, nil)
	require.NotContains(t, string(detail.body), `"hold"`)
	require.NotContains(t, string(e.send("planner", "GET", "/v1/campaigns", nil).body), `"hold"`)
	require.Equal(t, "completed", into[CampaignDetail](t, detail).Status.Ended)
}

func TestActionsSayWhyNot(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	allowed := func(login string) map[campaign.Action]bool {
		got := map[campaign.Action]bool{}
		for _, a := range into[CampaignDetail](t, e.send(login, "GET", "/v1/campaigns/"+c.Campaign.ID, nil)).Actions {
			got[a.ID] = a.Allowed
			require.Equal(t, a.Allowed, a.Reason == "", "%s: %+v", login, a)
		}
		return got
	}
	require.True(t, allowed("planner")[campaign.ActCampaignSubmit])
	require.False(t, allowed("planner")[campaign.ActCampaignPause])
	require.False(t, allowed("manager")[campaign.ActApprovalManager])
	e.inApproval(c, 90000)
	require.True(t, allowed("manager")[campaign.ActApprovalManager])
	require.False(t, allowed("finance")[campaign.ActApprovalFinance], "it is not finance's turn")
	require.False(t, allowed("planner")[campaign.ActCampaignSubmit])
	e.setStatus(c.Campaign.ID, campaign.Status{Stage: campaign.StageRunning, Revision: 1})
	require.True(t, allowed("operator")[campaign.ActCampaignPause])
	require.False(t, allowed("operator")[campaign.ActCampaignResume], "nothing holds it")
	e.setStatus(c.Campaign.ID, campaign.Status{Stage: campaign.StageSettlement, Revision: 1, Problem: "ended from outside"})
	require.True(t, allowed("operator")[campaign.ActCampaignResume], "it waits for a person")
	e.setStatus(c.Campaign.ID, campaign.Status{Stage: campaign.StageClosed, Revision: 1})
	require.False(t, allowed("operator")[campaign.ActCampaignResume])
}

func TestApproval(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	path := "/v1/campaigns/" + c.Campaign.ID + "/decisions"
	decision := NewDecision{Revision: 1, Digest: c.Draft.Digest, Level: 1, Decision: campaign.DecisionApprove}
	require.Equal(t, "state_conflict", e.send("manager", "POST", path, decision).problem(t).Code)

	approval := e.inApproval(c, 90000)
	require.Len(t, into[ApprovalInbox](t, e.send("manager", "GET", "/v1/approvals", nil)).Items, 1)
	require.Empty(t, into[ApprovalInbox](t, e.send("finance", "GET", "/v1/approvals", nil)).Items)

	// The planner gets the manager's role too: that does not let them sign their own.
	e.addUser("planner", here, campaign.RoleManager)
	e.reload()
	require.Equal(t, "sod_self_approval", e.send("planner", "POST", path, decision).problem(t).Code)
	require.Empty(t, into[ApprovalInbox](t, e.send("planner", "GET", "/v1/approvals", nil)).Items)
	stale := decision
	stale.Digest = "00"
	require.Equal(t, "version_changed", e.send("manager", "POST", path, stale).problem(t).Code)
	returned := decision
	returned.Decision = campaign.DecisionReturn
	require.Equal(t, "reason_required", e.send("manager", "POST", path, returned).problem(t).Code)
	require.Zero(t, e.number(`SELECT count(*) FROM sign_off`))

	// The stand-in counts as the workflow does.
	e.orch.answer = func(_ string, arg any) (campaign.Status, error) {
		d := *arg.(*campaign.Decide)
		if err := approval.Check(d); err != nil {
			return campaign.Status{}, err
		}
		approval.Count(d, time.Now())
		_, err := e.store.Pool().Exec(context.Background(),
			`INSERT INTO sign_off_counted (sign_off_id, campaign_id, revision, level) VALUES ($1, $2, 1, 1)`, d.SignOffID, c.Campaign.ID)
		return campaign.Status{Stage: campaign.StageApproval, Hold: campaign.HoldNone, Approval: approval}, err
	}
	replies := make([]reply, 20)
	e.as("manager")
	var g sync.WaitGroup
	for i := range replies {
		g.Go(func() { replies[i] = e.send("manager", "POST", path, decision) })
	}
	g.Wait()
	ids := map[string]bool{}
	for _, r := range replies {
		ids[into[DecisionResult](t, r).SignOffID] = true
	}
	require.Len(t, ids, 1, "one click or twenty: one approval")
	require.Zero(t, e.number(`SELECT count(*) FROM audit_event WHERE NOT allowed AND data->>'code' IN ('sod_same_actor')`), "a second click is no attempt to sign twice")

	detail := into[ApprovalDetail](t, e.send("auditor", "GET", "/v1/campaigns/"+c.Campaign.ID+"/approval", nil))
	counted := 0
	for _, o := range detail.SignOffs {
		require.Equal(t, "manager", o.Role)
		require.Equal(t, here, o.Unit)
		require.EqualValues(t, 90000, o.Amount)
		require.NotEmpty(t, o.PolicyVersion)
		if o.Counted {
			counted++
			require.True(t, ids[o.ID])
		}
	}
	require.Equal(t, 1, counted)
}

func TestNobodySignsAboveTheirLimit(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	e.inApproval(c, 5_000_000_001)
	p := e.send("manager", "POST", "/v1/campaigns/"+c.Campaign.ID+"/decisions",
		NewDecision{Revision: 1, Digest: c.Draft.Digest, Level: 1, Decision: campaign.DecisionApprove}).problem(t)
	require.Equal(t, http.StatusForbidden, p.Status)
	require.Equal(t, "limit_exceeded", p.Code)
	require.Empty(t, into[ApprovalInbox](t, e.send("manager", "GET", "/v1/approvals", nil)).Items)
}

func TestHistoryPages(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	for range 5 {
		e.setStatus(c.Campaign.ID, campaign.Status{Stage: campaign.StageRunning, Revision: 1})
	}
	var seqs []int64
	for next := ""; ; {
		page := into[HistoryPage](t, e.send("auditor", "GET", "/v1/campaigns/"+c.Campaign.ID+"/history?limit=2"+next, nil))
		for _, event := range page.Items {
			seqs = append(seqs, event.Seq)
		}
		if page.Next == "" {
			break
		}
		next = "&cursor=" + page.Next
	}
	require.Len(t, seqs, 6)
	require.IsIncreasing(t, seqs)
}

func TestReviewsEvaluationAndArchive(t *testing.T) {
	e := newEnv(t)
	id := e.newCampaign().Campaign.ID
	at := "/v1/campaigns/" + id
	require.Equal(t, "not_found", e.send("reviewer", "GET", at+"/evaluation", nil).problem(t).Code)
	require.Equal(t, "not_archived", e.send("auditor", "POST", at+"/replays", nil).problem(t).Code)

	e.exec(`INSERT INTO review (campaign_id, number, revision, findings, due_at, decided_by, decision)
		VALUES ($1, 1, 1, '{"lift": 2}', now(), $2, 'keep')`, id, e.users["reviewer"])
	e.exec(`INSERT INTO evaluation (campaign_id, revision, report, digest) VALUES ($1, 1, '{"orders": 3}', 'abc')`, id)
	e.exec(`INSERT INTO history_archive (campaign_id, workflow_id, run_id, type, events, started_at, closed_at, sha256, build_id, body)
		VALUES ($1, 'w', 'r', 'Campaign', 7, now(), now(), 'f00', 'b', '')`, id)
	e.exec(`UPDATE campaign SET archive_runs = 1, archived_at = now() WHERE id = $1`, id)
	review := into[ReviewList](t, e.send("reviewer", "GET", at+"/reviews", nil)).Items[0]
	require.JSONEq(t, `{"lift": 2}`, string(review.Findings))
	require.Equal(t, "The reviewer", review.DecidedBy.Name)
	require.JSONEq(t, `{"orders": 3}`, string(into[Evaluation](t, e.send("reviewer", "GET", at+"/evaluation", nil)).Report))
	require.EqualValues(t, 7, into[ArchiveList](t, e.send("auditor", "GET", at+"/archive", nil)).Items[0].Events)
	require.True(t, into[ReplayReport](t, e.send("auditor", "POST", at+"/replays", nil)).OK)
	into[Standing](t, e.send("reviewer", "POST", at+"/reviews/1/decision", NewReviewDecision{Decision: campaign.ReviewAccept, Words: "yes"}))
	require.Equal(t, 1, e.orch.asked()[0].arg.(*campaign.RecordReview).Review)
}
