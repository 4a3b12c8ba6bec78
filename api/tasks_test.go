package api

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

var callClaim = TaskClaim{Channel: campaign.ChannelCall, Limit: 200, LeaseSeconds: 60}

func TestEachTaskIsClaimedByOneAgent(t *testing.T) {
	e := newEnv(t)
	const agents, tasks = 6, 60
	e.openTasks(e.newCampaign().Campaign.ID, tasks, 2)
	for i := range agents {
		e.addUser(fmt.Sprintf("agent%d", i), here, campaign.RoleAgent)
	}
	e.reload()
	for i := range agents {
		e.as(fmt.Sprintf("agent%d", i))
	}
	got := make([][]Task, agents)
	var g sync.WaitGroup
	for i := range agents {
		g.Go(func() {
			claim := callClaim
			claim.Limit = 7
			for {
				batch := into[ClaimedTasks](t, e.send(fmt.Sprintf("agent%d", i), "POST", "/v1/tasks/claim", claim)).Items
				if len(batch) == 0 {
					return
				}
				got[i] = append(got[i], batch...)
			}
		})
	}
	g.Wait()
	owner := map[string]int{}
	for i := range got {
		for _, task := range got[i] {
			_, twice := owner[task.ID]
			require.False(t, twice)
			owner[task.ID] = i
		}
		require.Len(t, into[TaskList](t, e.send(fmt.Sprintf("agent%d", i), "GET", "/v1/tasks", nil)).Items, len(got[i]))
	}
	require.Len(t, owner, tasks)
	require.Zero(t, into[TaskList](t, e.send("agent", "GET", "/v1/tasks", nil)).Open)
}

func TestTaskShowsNoPersonalData(t *testing.T) {
	e := newEnv(t)
	_, customers := e.openTasks(e.newCampaign().Campaign.ID, 1, 2)
	e.exec(`ALTER TABLE customer ADD COLUMN age bigint, ADD COLUMN email text, ADD COLUMN duration bigint`)
	e.exec(`INSERT INTO customer_attribute (name, type, meaning, pii, post_contact) VALUES
		('age', 'int', 'years', false, false), ('email', 'text', 'address', true, false), ('duration', 'int', 'of the call', false, true)`)
	e.exec(`UPDATE customer SET age = 40, email = 'a@b.example', duration = 9`)
	id := uuid.MustParse(customers[0])
	vault := newVault(t)
	sealed, wrapped := vault.Seal(id, "8613800001234")
	e.exec(`INSERT INTO phone_vault (customer_id, sealed, lookup) VALUES ($1, $2, $3)`, id, sealed, vault.Lookup("8613800001234"))
	e.exec(`INSERT INTO phone_key (customer_id, wrapped) VALUES ($1, $2)`, id, wrapped)

	r := e.send("agent", "POST", "/v1/tasks/claim", callClaim)
	task := into[ClaimedTasks](t, r).Items[0]
	require.JSONEq(t, `{"age": 40}`, string(task.Customer.Attributes))
	require.Equal(t, "*******1234", task.Customer.Phone)
	require.NotContains(t, string(r.body), "13800001234")
	require.Equal(t, "Good day", task.Script)
	require.Equal(t, 1, task.Attempt)
	require.True(t, task.Simulated)
}

func TestWorkingATask(t *testing.T) {
	e := newEnv(t)
	id := e.newCampaign().Campaign.ID
	tasks, _ := e.openTasks(id, 2, 2)
	state := func(task string) (s string) {
		require.NoError(t, e.store.Pool().QueryRow(t.Context(), `SELECT state || ' ' || reason || ' ' || attempts FROM contact WHERE id = $1`, task).Scan(&s))
		return s
	}
	complete := func(task, key string, report TaskReport) reply {
		return e.send("agent", "POST", "/v1/tasks/"+task+"/complete", report, "Idempotency-Key", key)
	}
	missed := TaskReport{Result: campaign.OutcomeNoAnswer, Note: "rang out"}

	require.Equal(t, "lease_lost", complete(tasks[0], "early", missed).problem(t).Code, "it was not claimed")
	require.Len(t, into[ClaimedTasks](t, e.send("agent", "POST", "/v1/tasks/claim", callClaim)).Items, 2)
	require.Equal(t, TaskResult{TaskID: tasks[0], State: "open", Attempts: 1}, into[TaskResult](t, complete(tasks[0], "a", missed)))
	require.Equal(t, "claimed  1", state(tasks[0]))
	require.Equal(t, "lease_lost", complete(tasks[0], "b", missed).problem(t).Code, "it is open again")

	again := into[ClaimedTasks](t, e.send("agent", "POST", "/v1/tasks/claim", callClaim)).Items
	require.Len(t, again, 1)
	require.Equal(t, 2, again[0].Attempt)
	require.Equal(t, "done", into[TaskResult](t, complete(tasks[0], "c", missed)).State)
	require.Equal(t, "failed no_answer 2", state(tasks[0]))

	value := int64(5000)
	sold := TaskReport{Result: campaign.OutcomeConnected, CallSeconds: 61, Outcomes: []TaskOutcome{{Kind: campaign.OutcomeOrdered, Value: &value}, {Kind: campaign.OutcomeOptedOut}}}
	require.Equal(t, "done", into[TaskResult](t, complete(tasks[1], "d", sold)).State)
	require.Equal(t, "delivered  1", state(tasks[1]))
	require.EqualValues(t, 3, e.number(`SELECT count(*) FROM contact_attempt WHERE campaign_id = $1 AND outcome = 'worked'`, id))
	require.EqualValues(t, 61, e.number(`SELECT value FROM outcome WHERE kind = 'connected'`))
	require.EqualValues(t, 5000, e.number(`SELECT value FROM outcome WHERE kind = 'ordered'`))
	require.EqualValues(t, 2, e.number(`SELECT count(*) FROM outcome WHERE kind = 'no_answer' AND simulated`))
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM customer WHERE opted_out`))
	require.EqualValues(t, 0, e.number(`SELECT count(*) FROM task WHERE state <> 'done'`))

	summary := into[ContactSummary](t, e.send("operator", "GET", "/v1/campaigns/"+id+"/contacts/summary", nil))
	require.ElementsMatch(t, []ContactCount{
		{Wave: 1, Channel: campaign.ChannelCall, State: campaign.ContactDelivered, Contacts: 1},
		{Wave: 1, Channel: campaign.ChannelCall, State: campaign.ContactFailed, Contacts: 1},
	}, summary.Items)
}

func TestReportCountsOnceAfterACrash(t *testing.T) {
	e := newEnv(t)
	tasks, _ := e.openTasks(e.newCampaign().Campaign.ID, 1, 3)
	into[ClaimedTasks](t, e.send("agent", "POST", "/v1/tasks/claim", callClaim))
	report := func() reply {
		return e.send("agent", "POST", "/v1/tasks/"+tasks[0]+"/complete", TaskReport{Result: campaign.OutcomeNoAnswer}, "Idempotency-Key", "k")
	}
	first := into[TaskResult](t, report())
	// As if the process had died before it kept the answer.
	e.exec(`UPDATE idempotency_key SET status = NULL, created_at = now() - interval '1 hour' WHERE key = 'k'`)
	require.Equal(t, first, into[TaskResult](t, report()))
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM contact_attempt`))
}

func TestLeaseThatEndsIsGivenAway(t *testing.T) {
	e := newEnv(t)
	tasks, _ := e.openTasks(e.newCampaign().Campaign.ID, 2, 2)
	e.addUser("other", here, campaign.RoleAgent)
	e.reload()
	into[ClaimedTasks](t, e.send("agent", "POST", "/v1/tasks/claim", callClaim))
	require.Empty(t, into[ClaimedTasks](t, e.send("other", "POST", "/v1/tasks/claim", callClaim)).Items)
	e.exec(`UPDATE task SET lease_until = now() - interval '1 second'`)
	connected := TaskReport{Result: campaign.OutcomeConnected}
	require.Equal(t, http.StatusOK, e.send("agent", "POST", "/v1/tasks/"+tasks[0]+"/complete", connected).status, "late, but nobody else has it")
	taken := into[ClaimedTasks](t, e.send("other", "POST", "/v1/tasks/claim", callClaim)).Items
	require.Len(t, taken, 1)
	p := e.send("agent", "POST", "/v1/tasks/"+tasks[1]+"/complete", connected).problem(t)
	require.Equal(t, http.StatusConflict, p.Status)
	require.Equal(t, "lease_lost", p.Code)
	require.Equal(t, http.StatusOK, e.send("other", "POST", "/v1/tasks/"+tasks[1]+"/complete", connected).status)
	require.EqualValues(t, 2, e.number(`SELECT count(*) FROM contact_attempt`))
}

func TestTasksThatMayNotBeClaimed(t *testing.T) {
	e := newEnv(t)
	id := e.newCampaign().Campaign.ID
	_, customers := e.openTasks(id, 3, 2)
	e.exec(`UPDATE customer SET opted_out = true WHERE id = $1`, customers[0])
	e.exec(`UPDATE task SET not_before = now() + interval '1 hour' WHERE customer_id = $1`, customers[1])
	require.Empty(t, into[ClaimedTasks](t, e.send("stranger", "POST", "/v1/tasks/claim", callClaim)).Items)
	e.exec(`UPDATE campaign SET hold = 'paused' WHERE id = $1`, id)
	require.Empty(t, into[ClaimedTasks](t, e.send("agent", "POST", "/v1/tasks/claim", callClaim)).Items)
	e.exec(`UPDATE campaign SET hold = 'running' WHERE id = $1`, id)
	require.Len(t, into[ClaimedTasks](t, e.send("agent", "POST", "/v1/tasks/claim", callClaim)).Items, 1)
}

func TestReportsInABatch(t *testing.T) {
	e := newEnv(t)
	tasks, _ := e.openTasks(e.newCampaign().Campaign.ID, 3, 2)
	claim := callClaim
	claim.Limit = 2
	mine := into[ClaimedTasks](t, e.send("agent", "POST", "/v1/tasks/claim", claim)).Items
	require.Len(t, mine, 2)
	free := tasks[0]
	for _, task := range tasks {
		if task != mine[0].ID && task != mine[1].ID {
			free = task
		}
	}
	report := func(id string) NamedTaskReport { return NamedTaskReport{TaskID: id, Result: campaign.OutcomeConnected} }
	batch := TaskReportBatch{Reports: []NamedTaskReport{report(mine[0].ID), report(free), report(mine[1].ID), report(mine[0].ID), report(uuid.NewString())}}
	var faults []campaign.Code
	for _, item := range into[TaskResultList](t, e.send("agent", "POST", "/v1/tasks/complete-batch", batch)).Items {
		if item.Fault == nil {
			require.Equal(t, "done", item.State)
			faults = append(faults, "")
		} else {
			faults = append(faults, item.Fault.Code)
		}
	}
	require.Equal(t, []campaign.Code{"", campaign.CodeLeaseLost, "", campaign.CodeInvalidParameter, campaign.CodeNotFound}, faults)
}

func TestContactsArePaged(t *testing.T) {
	e := newEnv(t)
	id := e.newCampaign().Campaign.ID
	_, customers := e.openTasks(id, 5, 2)
	var seen []string
	for next := ""; ; {
		page := into[ContactPage](t, e.send("operator", "GET", "/v1/campaigns/"+id+"/contacts?limit=2&channel=call"+next, nil))
		for _, c := range page.Items {
			seen = append(seen, c.CustomerID)
		}
		if page.Next == "" {
			break
		}
		next = "&cursor=" + page.Next
	}
	require.ElementsMatch(t, customers, seen)
	require.IsIncreasing(t, seen)
	require.Empty(t, into[ContactPage](t, e.send("operator", "GET", "/v1/campaigns/"+id+"/contacts?state=failed", nil)).Items)
}

func TestTargets(t *testing.T) {
	e := newEnv(t)
	id := e.newCampaign().Campaign.ID
	require.False(t, into[TargetSummary](t, e.send("planner", "GET", "/v1/campaigns/"+id+"/targets", nil)).Selected)
	e.openTasks(id, 3, 2)
	e.exec(`INSERT INTO selection (campaign_id, snapshot, revision, counts, salt) VALUES ($1, 1, 1, '{"snapshot": 1, "targets": 3}', 'x')`, id)
	got := into[TargetSummary](t, e.send("planner", "GET", "/v1/campaigns/"+id+"/targets", nil))
	require.True(t, got.Selected)
	require.EqualValues(t, 3, got.Counts.Targets)
	require.Equal(t, []TierCount{{Wave: 1, Tier: campaign.TierGeneral, Arm: campaign.ArmTreated, Targets: 3}}, got.Tiers)
}

func TestOutcomesLandOnce(t *testing.T) {
	e := newEnv(t)
	id := e.newCampaign().Campaign.ID
	tasks, customers := e.openTasks(id, 3, 2)
	now := time.Now()
	outcome := func(source string, i int) NewOutcome {
		return NewOutcome{CustomerID: customers[i], Kind: campaign.OutcomeOrdered, At: now, Source: "shop", SourceID: source}
	}
	send := func(batch ...NewOutcome) OutcomeResult {
		return into[OutcomeResult](t, e.send("operator", "POST", "/v1/outcomes", OutcomeBatch{CampaignID: id, Outcomes: batch}))
	}
	require.Equal(t, OutcomeResult{Accepted: 2, Duplicate: 1, Faults: []FieldError{}}, send(outcome("1", 0), outcome("2", 1), outcome("1", 0)))
	require.Equal(t, OutcomeResult{Accepted: 1, Duplicate: 2, Faults: []FieldError{}}, send(outcome("1", 0), outcome("2", 1), outcome("3", 2)))

	nobody, late, byContact, mixed := outcome("4", 0), outcome("5", 0), outcome("6", 0), outcome("7", 1)
	nobody.CustomerID = uuid.NewString()
	late.At = now.Add(time.Hour)
	byContact.CustomerID, byContact.ContactID, byContact.Kind = "", tasks[0], campaign.OutcomeOptedOut
	mixed.ContactID = tasks[0]
	got := send(nobody, late, byContact, mixed)
	require.Equal(t, 1, got.Accepted)
	require.Len(t, got.Faults, 3)
	require.Equal(t, "outcomes[0].customer_id", got.Faults[0].Field)
	require.Equal(t, "outcomes[1].at", got.Faults[1].Field)
	require.Equal(t, "outcomes[3].contact_id", got.Faults[2].Field)
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM customer WHERE id = $1 AND opted_out`, customers[0]))
	require.EqualValues(t, 4, e.number(`SELECT count(*) FROM outcome WHERE simulated`))

	e.setStatus(id, campaign.Status{Stage: campaign.StageEvaluation})
	p := e.send("operator", "POST", "/v1/outcomes", OutcomeBatch{CampaignID: id, Outcomes: []NewOutcome{outcome("9", 0)}}).problem(t)
	require.Equal(t, "state_conflict", p.Code)
}

func TestConcurrentOutcomesLandOnce(t *testing.T) {
	e := newEnv(t)
	id := e.newCampaign().Campaign.ID
	_, customers := e.openTasks(id, 20, 2)
	var batch OutcomeBatch
	batch.CampaignID = id
	for i, c := range customers {
		batch.Outcomes = append(batch.Outcomes, NewOutcome{CustomerID: c, Kind: campaign.OutcomeOptedOut, At: time.Now(), Source: "s", SourceID: fmt.Sprint(i)})
	}
	e.as("operator")
	replies := make([]reply, 6)
	var g sync.WaitGroup
	for i := range replies {
		g.Go(func() { replies[i] = e.send("operator", "POST", "/v1/outcomes", batch) })
	}
	g.Wait()
	accepted := 0
	for _, r := range replies {
		accepted += into[OutcomeResult](t, r).Accepted
	}
	require.Equal(t, 20, accepted)
	require.EqualValues(t, 20, e.number(`SELECT count(*) FROM outcome`))
}
