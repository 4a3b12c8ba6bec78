package worker

import (
	"context"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/workflow"

	"github.com/musterhq/muster/activities"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/workflows"
)

// WorkflowRegistry takes workflows: a worker or a replayer.
type WorkflowRegistry interface {
	RegisterWorkflowWithOptions(w any, options workflow.RegisterOptions)
}

// ActivityRegistry takes activities.
type ActivityRegistry interface {
	RegisterActivityWithOptions(a any, options activity.RegisterOptions)
}

// RegisterWorkflows registers every workflow under its name.
func RegisterWorkflows(r WorkflowRegistry) {
	orchestrate(r, campaign.WorkflowCampaign, workflows.Campaign)
	orchestrate(r, campaign.WorkflowApproval, workflows.Approval)
	orchestrate(r, campaign.WorkflowSelection, workflows.Selection)
	orchestrate(r, campaign.WorkflowWave, workflows.Wave)
	orchestrate(r, campaign.WorkflowDispatch, workflows.Dispatch)
	orchestrate(r, campaign.WorkflowShard, workflows.DispatchShard)
	orchestrate(r, campaign.WorkflowReview, workflows.Review)
	orchestrate(r, campaign.WorkflowSettlement, workflows.Settlement)
	orchestrate(r, campaign.WorkflowEvaluation, workflows.Evaluation)
	orchestrate(r, campaign.WorkflowCredit, workflows.CreditRelease)
	answer(r, campaign.WorkflowArchive, workflows.Archive)
	answer(r, campaign.WorkflowReplay, workflows.Replay)
	orchestrate(r, campaign.WorkflowImport, workflows.ImportCustomers)
}

// RegisterProjection registers what the workflow worker runs as a local activity.
func RegisterProjection(r ActivityRegistry, a *activities.Activities) {
	effect(r, campaign.ActivityProject, a.Project)
}

// RegisterActions registers the short reads and writes.
func RegisterActions(r ActivityRegistry, a *activities.Activities) {
	effect(r, campaign.ActivityAuthenticate, a.Authenticate)
	function(r, campaign.ActivityConfirmReport, a.ConfirmReport)
	effect(r, campaign.ActivityVerify, a.Verify)
	effect(r, campaign.ActivityCountSignOff, a.CountSignOff)
	effect(r, campaign.ActivityRemind, a.Remind)
	effect(r, campaign.ActivityReserve, a.Reserve)
	effect(r, campaign.ActivityPrepare, a.Prepare)
	function(r, campaign.ActivityProgress, a.Progress)
	effect(r, campaign.ActivitySetHold, a.SetHold)
	effect(r, campaign.ActivityCloseReview, a.CloseReview)
	function(r, campaign.ActivityApplyRecommendation, a.ApplyRecommendation)
}

// RegisterBulk registers the set-based statements over a campaign's rows.
func RegisterBulk(r ActivityRegistry, a *activities.Activities) {
	function(r, campaign.ActivitySelectionStep, a.SelectionStep)
	function(r, campaign.ActivityRouteApproval, a.RouteApproval)
	effect(r, campaign.ActivityOpenRound, a.OpenRound)
	function(r, campaign.ActivityCreateContacts, a.CreateContacts)
	function(r, campaign.ActivityPayContacts, a.PayContacts)
	function(r, campaign.ActivityCloseChannel, a.CloseChannel)
	effect(r, campaign.ActivityCaptureChannel, a.CaptureChannel)
	function(r, campaign.ActivityMeasure, a.Measure)
	effect(r, campaign.ActivityCloseContacts, a.CloseContacts)
	effect(r, campaign.ActivitySettle, a.Settle)
	function(r, campaign.ActivityReleaseCredit, a.ReleaseCredit)
	effect(r, campaign.ActivityEvaluate, a.Evaluate)
	effect(r, campaign.ActivityImport, a.ImportCustomers)
}

// RegisterChannel registers dispatch, on the queue of one channel.
func RegisterChannel(r ActivityRegistry, a *activities.Activities) {
	function(r, campaign.ActivityDispatchChunk, a.DispatchChunk)
}

// RegisterEvidence registers archiving and replay.
func RegisterEvidence(r ActivityRegistry, a *activities.Activities) {
	function(r, campaign.ActivityArchive, a.ArchiveHistories)
	function(r, campaign.ActivityReplay, a.ReplayHistories)
}

// The four below hold a name, the payloads that callers use and the function that is
// registered under the name to one contract, at compile time.

func orchestrate[In any](r WorkflowRegistry, name campaign.Workflow[In], f func(workflow.Context, In) error) {
	r.RegisterWorkflowWithOptions(f, workflow.RegisterOptions{Name: string(name)})
}

func answer[In, Out any](r WorkflowRegistry, name campaign.Workflow[In], f func(workflow.Context, In) (Out, error)) {
	r.RegisterWorkflowWithOptions(f, workflow.RegisterOptions{Name: string(name)})
}

func function[In, Out any](r ActivityRegistry, name campaign.Activity[In, Out], f func(context.Context, In) (Out, error)) {
	r.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: string(name)})
}

func effect[In any](r ActivityRegistry, name campaign.Activity[In, campaign.None], f func(context.Context, In) error) {
	r.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: string(name)})
}
