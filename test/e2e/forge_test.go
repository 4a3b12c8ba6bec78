package e2e_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	temporal "go.temporal.io/sdk/client"
	sdk "go.temporal.io/sdk/temporal"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// forger is somebody who reaches Temporal, and nothing else.
type forger struct {
	temporal.Client
	st *store.Store // to count what came of it
}

func (i *instance) forger(t *testing.T) forger {
	t.Helper()
	c, err := temporal.Dial(temporal.Options{HostPort: i.TemporalAddress, Namespace: campaign.Namespace, Identity: "bob-the-approver"})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return forger{Client: c, st: i.open(t)}
}

// update sends an update and returns the code that it was refused with.
func (f forger) update(t *testing.T, r *running, name string, order any) campaign.Code {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	handle, err := f.UpdateWorkflow(ctx, temporal.UpdateWorkflowOptions{
		WorkflowID: campaign.CampaignWorkflowID(r.id), UpdateName: name, Args: []any{order}, WaitForStage: temporal.WorkflowUpdateStageCompleted,
	})
	if err == nil {
		err = handle.Get(ctx, nil)
	}
	var app *sdk.ApplicationError
	require.ErrorAs(t, err, &app, "%s was not refused", name)
	return campaign.Code(app.Type())
}

// start starts a workflow under an id of the forger's and waits until it has failed.
func start[In any](t *testing.T, f forger, name campaign.Workflow[In], in In) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	run, err := f.ExecuteWorkflow(ctx, temporal.StartWorkflowOptions{ID: "forged-" + uuid.NewString(), TaskQueue: campaign.QueueWorkflows}, string(name), in)
	require.NoError(t, err)
	require.Error(t, run.Get(ctx, nil), "%s", name)
}

// traces counts the events of a campaign that say what was refused, and why.
func (f forger) traces(t *testing.T, r *running, event string, code campaign.Code) (n int) {
	t.Helper()
	err := f.st.Pool().QueryRow(t.Context(), `SELECT count(*) FROM audit_event WHERE campaign_id = $1 AND event = $2 AND NOT allowed AND data->>'code' = $3`,
		r.id, event, code).Scan(&n)
	require.NoError(t, err)
	return n
}

// requireNobodyContacted makes sure that a campaign has no contact.
func (f forger) requireNobodyContacted(t *testing.T, r *running) {
	t.Helper()
	var n int
	require.NoError(t, f.st.Pool().QueryRow(t.Context(), `SELECT (SELECT count(*) FROM contact WHERE campaign_id = $1)
		+ (SELECT count(*) FROM contact_batch WHERE campaign_id = $1)`, r.id).Scan(&n))
	require.Zero(t, n)
}

// actor is a person of the demonstration, as the database knows them.
func (f forger) actor(t *testing.T, login string) (a campaign.Actor) {
	t.Helper()
	err := f.st.Pool().QueryRow(t.Context(), `SELECT id::text, login, name FROM app_user WHERE login = $1`, login).Scan(&a.UserID, &a.Login, &a.Name)
	require.NoError(t, err)
	return a
}

func forgedCommand(by campaign.Actor) campaign.Command {
	return campaign.Command{UpdateID: uuid.NewString(), Actor: by, PolicyVersion: "1"}
}

// TestForgeriesBeginNoDispatch sends what only the API and the campaign's own workflows
// may send straight to Temporal, edits what was signed, and takes a signer's role away:
// nobody is contacted, and each leaves an event that says so.
func TestForgeriesBeginNoDispatch(t *testing.T) {
	t.Parallel()
	i, centre := newOperator(t, "2000")
	f, p := i.forger(t), i.people(t)
	later := func(name string, after int64) campaign.Plan {
		plan := smsPlan(name)
		plan.Waves[0].StartAfter = after
		plan.Review.After = after + 5
		return plan
	}
	manager, operator := f.actor(t, p.manager.Name()), f.actor(t, p.operator.Name())

	// A campaign that nobody has signed.
	r, draft := p.create(t, later("Nobody signs", 0))
	r.submit(t, draft)
	require.Equal(t, campaign.CodeForgedDecision, f.update(t, r, campaign.UpdateDecide, campaign.Decide{
		Command: forgedCommand(manager), SignOffID: uuid.NewString(), Revision: draft.Revision, Digest: draft.Digest, Level: 1, Decision: campaign.DecisionApprove,
	}))
	require.Equal(t, 1, f.traces(t, r, "command.forged", campaign.CodeForgedDecision))
	reports := []campaign.StageReport{
		{Kind: campaign.ReportSelected, WorkflowID: campaign.SelectionWorkflowID(r.id, 1), Selection: &campaign.TargetCount{Snapshot: 1, Targets: 1000}},
		{Kind: campaign.ReportWaveDone, WorkflowID: campaign.WaveWorkflowID(r.id, 1), Number: 1},
		{Kind: campaign.ReportEvaluated, WorkflowID: campaign.EvaluationWorkflowID(r.id)},
		{Kind: campaign.ReportApprovalExpired, WorkflowID: campaign.ApprovalWorkflowID(r.id, 1, 1), Number: 1, Round: 1},
	}
	for _, report := range reports {
		require.NoError(t, f.SignalWorkflow(t.Context(), campaign.CampaignWorkflowID(r.id), "", campaign.SignalReport, report))
	}
	eventually(t, func() bool { return f.traces(t, r, "report.forged", campaign.CodeForgedDecision) == len(reports) }, "the forged reports are told")
	closes := time.Now().Add(time.Hour)
	start(t, f, campaign.WorkflowWave, campaign.WaveInput{
		CampaignID: r.id, Wave: 1, Snapshot: 1, Channels: []campaign.Channel{campaign.ChannelSMS}, Window: 600, Hold: campaign.HoldNone, Revision: 1,
	})
	dispatch := campaign.DispatchInput{
		CampaignID: r.id, Wave: 1, Snapshot: 1, Revision: 1, Channel: campaign.ChannelSMS, ClosesAt: closes, Hold: campaign.HoldNone,
	}
	start(t, f, campaign.WorkflowDispatch, dispatch)
	start(t, f, campaign.WorkflowShard, campaign.ShardInput{
		CampaignID: r.id, Wave: 1, Revision: 1, Channel: campaign.ChannelSMS, NextSeq: 1, LastSeq: 100, ClosesAt: closes, Hold: campaign.HoldNone,
	})
	require.Equal(t, 2, f.traces(t, r, "dispatch.refused", campaign.CodeStateConflict))
	require.Equal(t, campaign.StageApproval, r.detail(t).Status.Stage)
	require.Empty(t, r.detail(t).Status.Approval.Signatures)
	f.requireNobodyContacted(t, r)

	// One that is signed and whose wave is not due: it is held, and nobody but people go on.
	held, draft := p.create(t, later("Not due", 900))
	held.submit(t, draft)
	held.approve(t)
	held.await(t, "running", func(d *client.CampaignDetail) bool { return d.Status.Stage == campaign.StageRunning })
	dispatch.CampaignID = held.id
	start(t, f, campaign.WorkflowDispatch, dispatch)
	require.Equal(t, 1, f.traces(t, held, "dispatch.refused", campaign.CodeStateConflict))
	tell(t, p.operator, func(ctx context.Context, s *client.Session) (*client.PauseCampaignResponse, error) {
		return s.PauseCampaignWithResponse(ctx, held.id, nil, client.HoldReason{Reason: "A storm."})
	})
	require.Equal(t, campaign.CodeForgedDecision, f.update(t, held, campaign.UpdateResume, campaign.ChangeHold{Command: forgedCommand(operator), Reason: "x"}))
	require.Equal(t, campaign.HoldPaused, held.detail(t).Status.Hold)
	f.requireNobodyContacted(t, held)

	// A genuine command, shown to another campaign.
	other, draft := p.create(t, later("Replayed", 0))
	stolen := campaign.Submit{Revision: draft.Revision, Digest: draft.Digest, Command: forgedCommand(f.actor(t, p.planner.Name()))}
	require.NoError(t, f.st.Pool().QueryRow(t.Context(), `SELECT id, assertion FROM command_given WHERE campaign_id = $1 AND name = $2`,
		held.id, campaign.UpdateSubmit).Scan(&stolen.UpdateID, &stolen.Assertion))
	eventually(t, func() bool { // its workflow is started a moment after it was made
		_, err := f.DescribeWorkflowExecution(t.Context(), campaign.CampaignWorkflowID(other.id), "")
		return err == nil
	}, "the campaign's workflow is started")
	require.Equal(t, campaign.CodeAssertionMismatch, f.update(t, other, campaign.UpdateSubmit, stolen))
	require.Equal(t, 1, f.traces(t, other, "command.forged", campaign.CodeAssertionMismatch))
	require.Equal(t, campaign.StageDraft, other.detail(t).Status.Stage)
	stolen.Assertion = ""
	require.Equal(t, campaign.CodeForgedDecision, f.update(t, other, campaign.UpdateSubmit, stolen))
	require.Equal(t, campaign.StageDraft, other.detail(t).Status.Stage)

	// One whose sign-off is edited, and one whose signer loses the role, when the targets are
	// selected and before the wave begins.
	selected := func(d *client.CampaignDetail) bool { return d.Status.Stage == campaign.StageRunning }
	edited, draft := p.create(t, later("Edited", 15))
	edited.submit(t, draft)
	edited.approve(t)
	edited.await(t, "running", selected)
	for _, sql := range []string{
		`ALTER TABLE sign_off DISABLE TRIGGER USER`,
		fmt.Sprintf(`UPDATE sign_off SET amount = amount + 1 WHERE campaign_id = '%s'`, edited.id),
		`ALTER TABLE sign_off ENABLE TRIGGER USER`,
	} {
		_, err := f.st.Pool().Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	revoked, draft := p.create(t, later("Revoked", 15))
	revoked.submit(t, draft)
	revoked.approve(t)
	revoked.await(t, "running", selected)
	_, err := f.st.Pool().Exec(t.Context(), `DELETE FROM role_grant WHERE user_id = $1`, f.actor(t, p.finance.Name()).UserID)
	require.NoError(t, err)
	for r, code := range map[*running]campaign.Code{edited: campaign.CodeAssertionMismatch, revoked: campaign.CodeForbidden} {
		eventually(t, func() bool { return r.detail(t).Status.Problem != "" }, "the wave is refused")
		s := r.detail(t).Status
		require.Equal(t, campaign.CodeDispatchRefused, s.ProblemCode, s.Problem)
		require.Contains(t, s.Problem, "wave 1 may not be dispatched")
		require.Equal(t, s.Problem, s.Waves[0].Failure)
		require.Equal(t, 1, f.traces(t, r, "dispatch.refused", code))
		f.requireNobodyContacted(t, r)
	}
	require.Zero(t, centre.accepted(t), "no message left")
	i.stop(t)
}
