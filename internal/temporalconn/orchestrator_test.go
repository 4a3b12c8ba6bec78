package temporalconn

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/mocks"
	"go.temporal.io/sdk/temporal"

	"github.com/musterhq/muster/campaign"
)

func application(code string, details ...any) error {
	return temporal.NewApplicationErrorWithOptions("in words", code, temporal.ApplicationErrorOptions{NonRetryable: true, Details: details})
}

func TestRefusal(t *testing.T) {
	fields := []campaign.FieldError{{Field: "a", Code: campaign.CodeInvalidPlan, Message: "m"}}
	for _, c := range []struct {
		name string
		err  error
		code campaign.Code
	}{
		{"a rule", application("sod_self_approval"), campaign.CodeSelfApproval},
		{"a rule, wrapped", fmt.Errorf("update: %w", application("version_changed")), campaign.CodeVersionChanged},
		{"a rule with details", application("budget_insufficient", fields, map[string]any{"available": 5}), campaign.CodeBudgetInsufficient},
		{"a rule with details of another kind", application("forbidden", 7), campaign.CodeForbidden},
		{"a defect", application("internal"), campaign.CodeInternal},
		{"a panic", application("PanicError"), campaign.CodeInternal},
		{"no such workflow", serviceerror.NewNotFound("gone"), campaign.CodeStateConflict},
		{"no connection", serviceerror.NewUnavailable("down"), campaign.CodeOrchestratorAway},
		{"no answer in time", context.DeadlineExceeded, campaign.CodeOrchestratorAway},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := refusal(c.err)
			require.Equal(t, c.code, campaign.CodeOf(err))
			require.ErrorIs(t, err, c.err)
		})
	}
	require.NoError(t, refusal(nil))
	var e *campaign.Error
	require.True(t, errors.As(refusal(application("budget_insufficient", fields, map[string]any{"available": 5})), &e))
	require.Equal(t, "in words", e.Message)
	require.Equal(t, fields, e.Fields)
	require.EqualValues(t, 5, e.Details["available"])
}

// TestSilenceIsNotBlamedOnTemporalAlone: the worker may be cut off from its database.
func TestSilenceIsNotBlamedOnTemporalAlone(t *testing.T) {
	for _, err := range []error{
		context.DeadlineExceeded, serviceerror.NewDeadlineExceeded("late"),
		client.NewWorkflowUpdateServiceTimeoutOrCanceledError(context.DeadlineExceeded),
	} {
		c := &mocks.Client{}
		c.On("UpdateWorkflow", mock.Anything, mock.Anything).Return(nil, err)
		_, got := NewOrchestrator(c).Update(t.Context(), "c1", "u1", campaign.UpdatePause, nil)
		require.Equal(t, campaign.CodeOrchestratorAway, campaign.CodeOf(got))
		require.ErrorContains(t, got, "its worker, the database or Temporal")
	}
}

func TestUpdateWaitsWhileTheCampaignRollsOver(t *testing.T) {
	want := campaign.Status{Stage: campaign.StageRunning}
	handle := &mocks.WorkflowUpdateHandle{}
	handle.On("Get", mock.Anything, mock.Anything).Return(application(string(campaign.CodeDraining))).Twice()
	handle.On("Get", mock.Anything, mock.Anything).Return(application(typeLostInRollover)).Once()
	handle.On("Get", mock.Anything, mock.Anything).Run(func(args mock.Arguments) { *args.Get(1).(*campaign.Status) = want }).Return(nil).Once()
	c := &mocks.Client{}
	sent := client.UpdateWorkflowOptions{
		WorkflowID: "campaign:c1", UpdateID: "u1", UpdateName: campaign.UpdatePause, Args: []any{"arg"}, WaitForStage: client.WorkflowUpdateStageCompleted,
	}
	c.On("UpdateWorkflow", mock.Anything, sent).Return(handle, nil).Times(4)
	got, err := NewOrchestrator(c).Update(t.Context(), "c1", "u1", campaign.UpdatePause, "arg")
	require.NoError(t, err)
	require.Equal(t, want, got)
	c.AssertExpectations(t)
	handle.AssertExpectations(t)
}

func TestUpdateEndsWithItsContext(t *testing.T) {
	handle := &mocks.WorkflowUpdateHandle{}
	handle.On("Get", mock.Anything, mock.Anything).Return(application(string(campaign.CodeDraining)))
	c := &mocks.Client{}
	c.On("UpdateWorkflow", mock.Anything, mock.Anything).Return(handle, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := NewOrchestrator(c).Update(ctx, "c1", "u1", campaign.UpdatePause, nil)
	require.Equal(t, campaign.CodeDraining, campaign.CodeOf(err))
}

func TestUpdateIsRefusedAtOnce(t *testing.T) {
	handle := &mocks.WorkflowUpdateHandle{}
	handle.On("Get", mock.Anything, mock.Anything).Return(application("state_conflict")).Once()
	c := &mocks.Client{}
	c.On("UpdateWorkflow", mock.Anything, mock.Anything).Return(handle, nil).Once()
	_, err := NewOrchestrator(c).Update(t.Context(), "c1", "u1", campaign.UpdateStop, nil)
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(err))
	c.AssertExpectations(t)
}

// A campaign has one workflow for ever: starting it again, while it runs or after it has
// ended, changes nothing and is no error.
func TestACampaignIsStartedOnce(t *testing.T) {
	c := &mocks.Client{}
	once := mock.MatchedBy(func(o client.StartWorkflowOptions) bool {
		return o.ID == campaign.CampaignWorkflowID("c1") && o.WorkflowIDReusePolicy == enumspb.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE &&
			o.WorkflowIDConflictPolicy == enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING
	})
	start := func() *mock.Call {
		return c.On("ExecuteWorkflow", mock.Anything, once, string(campaign.WorkflowCampaign), campaign.Start{CampaignID: "c1"})
	}
	start().Return(&mocks.WorkflowRun{}, nil).Once()
	require.NoError(t, NewOrchestrator(c).StartCampaign(t.Context(), "c1"))
	start().Return(nil, serviceerror.NewWorkflowExecutionAlreadyStarted("already", "request", "run")).Once()
	require.NoError(t, NewOrchestrator(c).StartCampaign(t.Context(), "c1"))
	start().Return(nil, serviceerror.NewUnavailable("away")).Once()
	require.Error(t, NewOrchestrator(c).StartCampaign(t.Context(), "c1"))
	c.AssertExpectations(t)
}
