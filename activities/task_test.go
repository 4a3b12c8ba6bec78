package activities_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// call publishes wave 1's calls and returns what its first agent does with them.
func (f *fixture) call() *agent {
	f.t.Helper()
	batch := f.create(1, campaign.ChannelCall)
	_, err := f.DispatchChunk(f.ctx, f.chunk(1, campaign.ChannelCall, batch))
	require.NoError(f.t, err)
	return &agent{fixture: f, id: f.users["agent"].UserID, units: []campaign.OrgUnit{"operator"}}
}

type agent struct {
	*fixture
	id    string
	units []campaign.OrgUnit
	n     int
}

func (a *agent) claim(limit int) []store.Task {
	a.t.Helper()
	tasks, err := a.Store.ClaimTasks(a.ctx, store.TaskClaim{AgentID: a.id, Units: a.units, Channel: campaign.ChannelCall, Limit: limit, Lease: time.Minute})
	require.NoError(a.t, err)
	return tasks
}

// report says the same of every task.
func (a *agent) report(tasks []store.Task, result campaign.OutcomeKind, also ...store.Outcome) []store.TaskResult {
	a.t.Helper()
	a.n++
	reports := make([]store.TaskReport, len(tasks))
	for i, task := range tasks {
		reports[i] = store.TaskReport{TaskID: task.ID, Result: result, Outcomes: also}
	}
	results, err := a.Store.CompleteTasks(a.ctx, a.id, a.units, string(rune('a'+a.n)), reports)
	require.NoError(a.t, err)
	return results
}

// ends returns the state and reason of a contact and of its task.
func (f *fixture) ends(contactID string) (ends string) {
	f.t.Helper()
	require.NoError(f.t, f.Store.Pool().QueryRow(f.ctx, `SELECT concat_ws(' ', c.state, c.reason, t.state, t.result)
		FROM contact c JOIN task t ON t.id = c.id WHERE c.id = $1`, contactID).Scan(&ends))
	return ends
}

// Every attempt costs: nobody loses the first one to another's second, and all of them
// together never cost more than the budget line.
func TestFurtherAttemptsAreMadeOfWhatTheBudgetHasLeft(t *testing.T) {
	f := newFixture(t, func(p *campaign.Plan) {
		p.Budget[0].Amount = 30 * 500
		p.Budget[2].Amount += 2_000_000 - 30*500 // the same amount asks for the same signatures
		p.Channels[0].MaximumAttempts = 3
	})
	f.run()
	a := f.call()
	require.EqualValues(t, 30, f.states(1, campaign.ChannelCall)["claimed"])
	// Four refuse before anybody calls: what they would have cost is free for others.
	f.exec(`UPDATE customer SET opted_out = true WHERE id IN (SELECT customer_id FROM task ORDER BY not_before, id LIMIT 4)`)
	open := 0
	for _, r := range a.report(a.claim(10), campaign.OutcomeNoAnswer) {
		if r.State == "open" {
			open++
		}
	}
	require.Equal(t, 4, open)
	require.EqualValues(t, 6, f.count(`SELECT count(*) FROM contact WHERE state = 'failed' AND reason = 'budget'`))
	for {
		tasks := a.claim(7)
		if len(tasks) == 0 {
			break
		}
		a.report(tasks, campaign.OutcomeNoAnswer)
	}
	require.EqualValues(t, 26, f.count(`SELECT count(DISTINCT contact_id) FROM contact_attempt`), "everybody planned was called")
	require.EqualValues(t, 30, f.count(`SELECT count(*) FROM contact_attempt`))
	require.Zero(t, f.count(`SELECT count(*) FROM contact WHERE state = 'claimed'`))
	require.NoError(t, f.CloseContacts(f.ctx, f.ref()))
	require.NoError(t, f.Settle(f.ctx, f.ref()))
	require.EqualValues(t, 30*500, f.balance("calls").Captured)
	require.Zero(t, f.count(`SELECT count(*) FROM audit_event WHERE event = 'budget.exceeded'`))
	f.sound()
}

// Agents do not wait while the contacts of a later wave are created, and both keep to the
// budget line.
func TestReportsDoNotWaitForALaterWave(t *testing.T) {
	f := newFixture(t, func(p *campaign.Plan) {
		p.Budget[0].Amount = 120 * 500
		p.Budget[2].Amount += 2_000_000 - 120*500
		p.Channels[0].MaximumAttempts = 20
	})
	f.run()
	f.series(2, campaign.ChannelCall)
	a := f.call()
	claimed := a.claim(3)
	open := f.states(1, campaign.ChannelCall)["claimed"]
	require.Less(t, open, int64(117))

	tx, err := f.Store.Pool().Begin(f.ctx)
	require.NoError(t, err)
	defer tx.Rollback(f.ctx)
	_, err = tx.Exec(f.ctx, `INSERT INTO contact_batch (campaign_id, wave, channel, revision, contacts, shards) VALUES ($1, 2, 'call', 1, 0, '{}')`, f.id)
	require.NoError(t, err)
	created := make(chan error, 1)
	go func() {
		_, err := f.CreateContacts(f.ctx, campaign.DispatchInput{
			CampaignID: f.id, Wave: 2, Snapshot: 1, Revision: 1, Channel: campaign.ChannelCall, ClosesAt: time.Now().Add(time.Minute),
		})
		created <- err
	}()
	require.Eventually(t, func() bool {
		// The application does not see what other sessions wait for.
		var waiting int
		require.NoError(t, f.owner.Pool().QueryRow(f.ctx, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&waiting))
		return waiting > 0
	}, 20*time.Second, 10*time.Millisecond, "the creation stands still in the middle")
	ctx := f.ctx
	patient, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	f.ctx = patient
	for _, r := range a.report(claimed, campaign.OutcomeNoAnswer) {
		require.Equal(t, "open", r.State)
	}
	f.ctx = ctx
	require.NoError(t, tx.Rollback(f.ctx))
	require.NoError(t, <-created)
	require.Equal(t, 120-open-3, f.states(2, campaign.ChannelCall)["planned"], "what the retries took is not promised again")
	require.Positive(t, f.states(2, campaign.ChannelCall)["suppressed"])
	f.sound()
	for _, r := range a.report(a.claim(5), campaign.OutcomeNoAnswer) {
		require.Equal(t, "done", r.State, "everything is promised")
	}
	// What is closed is free again.
	require.NoError(t, f.Store.CloseChannel(f.ctx, campaign.CloseChannel{
		ChannelRef: campaign.ChannelRef{CampaignID: f.id, Wave: 2, Revision: 1, Channel: campaign.ChannelCall}, State: campaign.ContactExpired, Reason: "window_closed",
	}))
	f.sound()
	for _, r := range a.report(a.claim(5), campaign.OutcomeNoAnswer) {
		require.Equal(t, "open", r.State)
	}
	f.sound()
}

// Agents who report at the same time never open more than the budget pays for.
func TestConcurrentRetriesShareTheBudget(t *testing.T) {
	f := newFixture(t, func(p *campaign.Plan) {
		p.Budget[0].Amount = 100 * 500
		p.Budget[2].Amount += 2_000_000 - 100*500
		p.Channels[0].MaximumAttempts = 20
	})
	f.run()
	a := f.call()
	all := f.states(1, campaign.ChannelCall)["claimed"]
	require.Less(t, all, int64(100))
	for tasks := a.claim(100); len(tasks) > 0; tasks = a.claim(100) {
		faults := make(chan error, len(tasks))
		for i, task := range tasks {
			go func() {
				_, err := a.Store.CompleteTasks(a.ctx, a.id, a.units, fmt.Sprint(task.Attempt, "/", i), []store.TaskReport{{TaskID: task.ID, Result: campaign.OutcomeNoAnswer}})
				faults <- err
			}()
		}
		for range tasks {
			require.NoError(t, <-faults)
		}
		f.sound()
	}
	require.EqualValues(t, 100, f.count(`SELECT count(*) FROM contact_attempt`))
	f.sound()
}

// Waves that are created at the same moment share one budget line.
func TestConcurrentWavesShareTheBudget(t *testing.T) {
	f := newFixture(t, func(p *campaign.Plan) { p.Budget[1].Amount = 500 })
	f.run()
	f.series(1, campaign.ChannelSMS)
	faults := make(chan error, 2)
	for _, wave := range []int{1, 2} {
		go func() {
			_, err := f.CreateContacts(f.ctx, campaign.DispatchInput{
				CampaignID: f.id, Wave: wave, Snapshot: 1, Revision: 1, Channel: campaign.ChannelSMS, ClosesAt: time.Now().Add(time.Minute),
			})
			faults <- err
		}()
	}
	for range cap(faults) {
		require.NoError(t, <-faults)
	}
	require.EqualValues(t, 50, f.count(`SELECT count(*) FROM contact WHERE state = 'planned'`))
	f.sound()
}

// Who refused is not called by a task that was open before.
func TestWhoRefusedIsNotCalledAgain(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	a := f.call()
	all := a.claim(100)
	require.Greater(t, len(all), 20)
	f.exec(`UPDATE task SET state = 'open', claimed_by = NULL, lease_until = NULL`)
	refusals := map[string]string{}
	var outcomes []store.Outcome
	for i, kind := range []campaign.OutcomeKind{campaign.OutcomeComplained, campaign.OutcomeDeclined, campaign.OutcomeOptedOut} {
		outcomes = append(outcomes, store.Outcome{CustomerID: all[i].CustomerID, Kind: kind, At: time.Now(), Source: "hotline", SourceID: all[i].ID})
		refusals[all[i].ID] = string(kind)
	}
	_, err := f.Store.RecordOutcomes(f.ctx, f.id, true, outcomes)
	require.NoError(t, err)
	f.exec(`UPDATE customer SET opted_out = true WHERE id = $1`, all[3].CustomerID)
	refusals[all[3].ID] = "opted_out"

	// The barred stand first in the queue and make room for others.
	f.exec(`UPDATE task SET not_before = not_before - interval '1 minute' WHERE id = ANY($1::uuid[])`, []string{all[0].ID, all[1].ID, all[2].ID, all[3].ID})
	claimed := a.claim(5)
	require.Len(t, claimed, 5)
	for id, reason := range refusals {
		require.Equal(t, "suppressed "+reason+" withdrawn "+reason, f.ends(id))
		require.False(t, slices.ContainsFunc(claimed, func(task store.Task) bool { return task.ID == id }))
	}

	// They refuse while their task is with an agent who does not reach them.
	_, err = f.Store.RecordOutcomes(f.ctx, f.id, true, []store.Outcome{
		{CustomerID: claimed[0].CustomerID, Kind: campaign.OutcomeComplained, At: time.Now(), Source: "hotline", SourceID: "late"},
	})
	require.NoError(t, err)
	results := a.report(claimed[:2], campaign.OutcomeNoAnswer)
	require.Equal(t, []string{"done", "open"}, []string{results[0].State, results[1].State})
	require.Equal(t, "suppressed complained done complained", f.ends(claimed[0].ID))
	// Or somebody else in the house says so.
	results = a.report(claimed[2:3], campaign.OutcomeNoAnswer, store.Outcome{Kind: campaign.OutcomeDeclined})
	require.Equal(t, "done", results[0].State)
	require.Equal(t, "suppressed declined done declined", f.ends(claimed[2].ID))
	f.sound()
}

func TestTaskReportsOfTheFutureAreRefused(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	a := f.call()
	tasks := a.claim(1)
	results := a.report(tasks, campaign.OutcomeConnected, store.Outcome{Kind: campaign.OutcomeOrdered, At: time.Now().Add(time.Hour)})
	require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(results[0].Fault))
	require.Zero(t, f.count(`SELECT count(*) FROM outcome`))
	results = a.report(tasks, campaign.OutcomeConnected, store.Outcome{Kind: campaign.OutcomeOrdered, At: time.Now()})
	require.NoError(t, results[0].Fault)
	require.EqualValues(t, 2, f.count(`SELECT count(*) FROM outcome`))
}

// Nobody from outside lands an outcome in the place of one that Muster will write.
func TestSourcesOfMustersOwnAreReserved(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	a := f.call()
	task := a.claim(1)[0]
	for _, source := range []string{"task", "sms", "call"} {
		_, err := f.Store.RecordOutcomes(f.ctx, f.id, true, []store.Outcome{
			{ContactID: task.ID, Kind: campaign.OutcomeRead, At: time.Now(), Source: "panel", SourceID: "1"},
			{ContactID: task.ID, Kind: campaign.OutcomeRead, At: time.Now(), Source: source, SourceID: task.ID + "/1/connected"},
		})
		var refused *campaign.Error
		require.ErrorAs(t, err, &refused)
		require.Equal(t, campaign.CodeInvalidText, refused.Code)
		require.Equal(t, "outcomes[1].source", refused.Fields[0].Field)
	}
	require.Zero(t, f.count(`SELECT count(*) FROM outcome`))
	a.report([]store.Task{task}, campaign.OutcomeConnected)
	rows, err := f.Store.Pool().Query(f.ctx, `SELECT kind FROM outcome`)
	require.NoError(t, err)
	kinds, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Equal(t, []string{"connected"}, kinds)
}
