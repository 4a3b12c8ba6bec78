package audit

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// greeting is the workflow that the recordings are of.
func greeting(ctx workflow.Context, _ string) error {
	return workflow.Sleep(ctx, time.Minute)
}

// otherGreeting does something else in the same place.
func otherGreeting(ctx workflow.Context, _ string) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute, RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 1}})
	return workflow.ExecuteActivity(ctx, "Greet").Get(ctx, nil)
}

func registering(w any) func(worker.WorkflowReplayer) {
	return func(r worker.WorkflowReplayer) {
		r.RegisterWorkflowWithOptions(w, workflow.RegisterOptions{Name: typeName})
	}
}

func replayWith(t *testing.T, w any, h *historypb.History) error {
	body, digest, err := encode(h)
	require.NoError(t, err)
	replayer := worker.NewWorkflowReplayer()
	registering(w)(replayer)
	return replay(replayer, body, describe(execution{"campaign:x", "run"}, h, digest))
}

func TestReplayOfOneRun(t *testing.T) {
	recorded := record(t, "", "you").task().sleep(time.Minute).task().completes()
	require.NoError(t, replayWith(t, greeting, recorded))
	require.ErrorContains(t, replayWith(t, otherGreeting, recorded), "TMPRL1100")
	require.ErrorContains(t, replayWith(t, func(workflow.Context, string) error { return nil }, recorded), "TMPRL1100")

	require.NoError(t, replayWith(t, otherGreeting, record(t, "", "you").terminated()), "no code ever ran")
	replayer := worker.NewWorkflowReplayer()
	body, digest, err := encode(recorded)
	require.NoError(t, err)
	require.Error(t, replay(replayer, body, describe(execution{"campaign:x", "run"}, recorded, digest)), "the workflow is not registered")
}

// Code that branches on its own id must see the recorded one.
func TestReplayGivesTheRecordedIDs(t *testing.T) {
	recorded := record(t, "", "you").task().sleep(time.Minute).task().completes()
	require.NoError(t, replayWith(t, func(ctx workflow.Context, _ string) error {
		if at := workflow.GetInfo(ctx).WorkflowExecution; at.ID != "campaign:x" || at.RunID != "run" {
			return nil
		}
		return workflow.Sleep(ctx, time.Minute)
	}, recorded))
}

func TestReplayOfACampaign(t *testing.T) {
	s, ctx := openStore(t), t.Context()
	id := newCampaign(t, s)
	_, err := (&Replayer{Store: s, Register: registering(greeting)}).Replay(ctx, id, func(int) {})
	require.Equal(t, campaign.CodeNotArchived, campaign.CodeOf(err))

	var digests []string
	save := func(workflowID, runID string, h *historypb.History) {
		body, digest, err := encode(h)
		require.NoError(t, err)
		digests = append(digests, digest)
		require.NoError(t, s.SaveHistory(ctx, id, describe(execution{workflowID, runID}, h, digest), body))
	}
	root := campaign.CampaignWorkflowID(id)
	save(root, "1", record(t, "", "you").task().sleep(time.Minute).task().completes())
	save(root+"/settlement", "2", record(t, "", "them").task().sleep(time.Minute).task().completes())

	var progress []int
	r := &Replayer{Store: s, Register: registering(greeting), BuildID: "now"}
	report, err := r.Replay(ctx, id, func(n int) { progress = append(progress, n) })
	require.NoError(t, err)
	want := campaign.ReplayReport{CampaignID: id, OK: true, Events: 20, BuildID: "now", Runs: []campaign.ReplayRun{
		{WorkflowID: root, RunID: "1", Type: typeName, Events: 10, SHA256: digests[0], OK: true},
		{WorkflowID: root + "/settlement", RunID: "2", Type: typeName, Events: 10, SHA256: digests[1], OK: true},
	}}
	require.Equal(t, want, report)
	require.Equal(t, []int{1, 2}, progress)

	changed, err := (&Replayer{Store: s, Register: registering(otherGreeting)}).Replay(ctx, id, func(int) {})
	require.NoError(t, err)
	require.False(t, changed.OK)
	for _, run := range changed.Runs {
		require.False(t, run.OK)
		require.Contains(t, run.Fault, "TMPRL1100")
	}

	// A changed body cannot be saved by the rules, so it is planted past them.
	body, err := s.ArchivedBody(ctx, root+"/settlement", "2")
	require.NoError(t, err)
	text := unpack(t, body)
	text[len(text)/2] ^= 1
	config := s.Pool().Config()
	delete(config.ConnConfig.RuntimeParams, "role")
	owner, err := pgxpool.NewWithConfig(ctx, config)
	require.NoError(t, err)
	defer owner.Close()
	_, err = owner.Exec(ctx, `UPDATE history_archive SET body = $1`, pack(t, text))
	require.Error(t, err, "archived histories never change")
	_, err = owner.Exec(ctx, `ALTER TABLE history_archive DISABLE TRIGGER USER`)
	require.NoError(t, err)
	_, err = owner.Exec(ctx, `UPDATE history_archive SET body = $1 WHERE run_id = '2'`, pack(t, text))
	require.NoError(t, err)
	report, err = r.Replay(ctx, id, func(int) {})
	require.NoError(t, err)
	want.OK, want.Runs[1].OK = false, false
	want.Runs[1].Fault = "the archived history does not have the digest that was recorded with it"
	require.Equal(t, want, report)
}

// TestALongReportFitsIntoAResult: Temporal would run an activity again and again whose
// result it does not take.
func TestALongReportFitsIntoAResult(t *testing.T) {
	const mayHave = 2 << 20
	s, ctx := openStore(t), t.Context()
	id := newCampaign(t, s)
	h := record(t, "", "you").task().sleep(time.Minute).task().completes()
	body, digest, err := encode(h)
	require.NoError(t, err)
	const runs, broken = maxRuns + 20, 3
	for n := range runs {
		run := describe(execution{campaign.CampaignWorkflowID(id), fmt.Sprintf("%036d", n)}, h, digest)
		if n >= runs-broken {
			run.SHA256 = strings.Repeat("0", len(digest))
		}
		require.NoError(t, s.SaveHistory(ctx, id, run, body))
	}
	report, err := (&Replayer{Store: s, Register: registering(greeting)}).Replay(ctx, id, func(int) {})
	require.NoError(t, err)
	require.False(t, report.OK)
	require.Len(t, report.Runs, maxRuns)
	require.Equal(t, runs-maxRuns, report.Omitted)
	require.EqualValues(t, runs*len(h.Events), report.Events)
	for n, run := range report.Runs {
		require.Equal(t, n >= broken, run.OK)
	}
	for n := range report.Runs {
		report.Runs[n].Fault = strings.Repeat("<", maxFault)
	}
	text, err := json.Marshal(report)
	require.NoError(t, err)
	require.Less(t, len(text), mayHave*99/100)
}

func TestSaveHistory(t *testing.T) {
	s, ctx := openStore(t), t.Context()
	id := newCampaign(t, s)
	run := store.ArchivedRun{WorkflowID: "w", RunID: "r", Type: typeName, Events: 1, StartedAt: time.Now(), ClosedAt: time.Now(), SHA256: "a"}
	require.NoError(t, s.SaveHistory(ctx, id, run, []byte("body")))
	require.NoError(t, s.SaveHistory(ctx, id, run, []byte("body")))
	run.SHA256 = "b"
	require.Equal(t, campaign.CodeHistoryMismatch, campaign.CodeOf(s.SaveHistory(ctx, id, run, []byte("other"))))
	kept, err := s.ArchivedBody(ctx, "w", "r")
	require.NoError(t, err)
	require.Equal(t, []byte("body"), kept)
	_, err = s.ArchivedBody(ctx, "w", "none")
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(err))
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(s.SetArchived(ctx, "00000000-0000-0000-0000-000000000000", 1)))
}
