package temporalconn

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/musterhq/muster/campaign"
)

// Orchestrator starts campaigns' workflows and sends them updates. It is the API's
// only way to Temporal.
type Orchestrator struct {
	client client.Client
}

// NewOrchestrator returns the orchestrator behind c.
func NewOrchestrator(c client.Client) *Orchestrator { return &Orchestrator{client: c} }

// StartCampaign starts a campaign's workflow. A campaign is started once: when it is
// running or has ended, nothing changes.
func (o *Orchestrator) StartCampaign(ctx context.Context, campaignID string) error {
	_, err := o.client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: campaign.CampaignWorkflowID(campaignID), TaskQueue: campaign.QueueWorkflows,
		WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
	}, string(campaign.WorkflowCampaign), campaign.Start{CampaignID: campaignID})
	var started *serviceerror.WorkflowExecutionAlreadyStarted
	if err == nil || errors.As(err, &started) {
		return nil
	}
	return refusal(err)
}

const (
	firstBackoff   = 50 * time.Millisecond
	longestBackoff = time.Second
)

// Update sends an update to a campaign and waits for its result. While the campaign
// rolls over into a new run it takes no updates; the update is then sent again until
// ctx ends. The campaign applies an updateID once, however often it is sent.
func (o *Orchestrator) Update(ctx context.Context, campaignID, updateID, name string, arg any) (campaign.Status, error) {
	for pause := firstBackoff; ; pause = min(2*pause, longestBackoff) {
		status, err := o.updateOnce(ctx, campaignID, updateID, name, arg)
		if err == nil || !passes(err) {
			return status, unanswered(err)
		}
		select {
		case <-ctx.Done():
			return status, unanswered(err)
		case <-time.After(pause):
		}
	}
}

func (o *Orchestrator) updateOnce(ctx context.Context, campaignID, updateID, name string, arg any) (campaign.Status, error) {
	var status campaign.Status
	handle, err := o.client.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: campaign.CampaignWorkflowID(campaignID), UpdateID: updateID, UpdateName: name, Args: []any{arg},
		WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err != nil {
		return status, err
	}
	err = handle.Get(ctx, &status)
	return status, err
}

// typeLostInRollover is the server's word for an update that was accepted by a run that
// ended before the update did.
const typeLostInRollover = "AcceptedUpdateCompletedWorkflow"

// passes reports whether a refusal only says that the campaign rolls over, or that
// many updates are in flight at this moment.
func passes(err error) bool {
	var app *temporal.ApplicationError
	if errors.As(err, &app) {
		return app.Type() == string(campaign.CodeDraining) || app.Type() == typeLostInRollover
	}
	var full *serviceerror.ResourceExhausted
	return errors.As(err, &full)
}

// Replay replays a campaign's archive and waits for the report. The same replayID is
// one replay.
func (o *Orchestrator) Replay(ctx context.Context, campaignID, replayID string) (campaign.ReplayReport, error) {
	var report campaign.ReplayReport
	run, err := o.client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: campaign.ReplayWorkflowID(campaignID, replayID), TaskQueue: campaign.QueueWorkflows,
		WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
	}, string(campaign.WorkflowReplay), campaign.ReplayInput{CampaignID: campaignID})
	if err == nil {
		err = run.Get(ctx, &report)
	}
	return report, refusal(err)
}

// StartImport has a worker work on an import until it ends. One that is worked on already is
// left alone.
func (o *Orchestrator) StartImport(ctx context.Context, importID string) error {
	_, err := o.client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: campaign.ImportWorkflowID(importID), TaskQueue: campaign.QueueWorkflows,
		WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
	}, string(campaign.WorkflowImport), campaign.ImportInput{ImportID: importID})
	return refusal(err)
}

// Health fails when Temporal does not answer.
func (o *Orchestrator) Health(ctx context.Context) error {
	if _, err := o.client.CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
		return refusal(err)
	}
	return nil
}

// ours is the form of Muster's codes; the types of errors that the SDK makes up differ.
var ours = regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)

// refusal is the one place where Temporal's errors become Muster's.
func refusal(err error) error {
	if err == nil {
		return nil
	}
	var app *temporal.ApplicationError
	var missing *serviceerror.NotFound
	switch {
	case errors.As(err, &app) && ours.MatchString(app.Type()) && app.Type() != string(campaign.CodeInternal):
		e := &campaign.Error{Code: campaign.Code(app.Type()), Message: app.Message(), Err: err}
		if app.HasDetails() {
			// Details are for show: a refusal without them is still the refusal.
			if app.Details(&e.Fields, &e.Details) != nil {
				e.Fields, e.Details = nil, nil
			}
		}
		return e
	case errors.As(err, &missing):
		return &campaign.Error{Code: campaign.CodeStateConflict, Message: "the campaign has ended; nothing can be asked of it any more", Err: err}
	case errors.As(err, &app):
		return fmt.Errorf("orchestrator: %w", err)
	}
	return &campaign.Error{Code: campaign.CodeOrchestratorAway, Message: "the orchestrator does not answer; try again in a moment", Err: err}
}

// unanswered is refusal for what a campaign was asked: when no answer came in time,
// Temporal may be well, and the worker or the database behind it not.
func unanswered(err error) error {
	var late *serviceerror.DeadlineExceeded
	if !errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &late) {
		return refusal(err)
	}
	return &campaign.Error{
		Code:    campaign.CodeOrchestratorAway,
		Message: "the campaign has not answered in time, because its worker, the database or Temporal is busy or away; what was asked may still happen: look again in a moment",
		Err:     err,
	}
}
