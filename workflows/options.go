package workflows

import (
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/musterhq/muster/campaign"
)

// patient retries for as long as it takes: a database that is away comes back, and a
// rule that says no is not retryable.
func patient() *temporal.RetryPolicy {
	return &temporal.RetryPolicy{
		InitialInterval: 200 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: 30 * time.Second,
	}
}

// action is for short reads and writes.
func action(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: campaign.QueueActions, StartToCloseTimeout: 30 * time.Second, RetryPolicy: patient(),
	})
}

// bulk is for set-based statements over a campaign's rows.
func bulk(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: campaign.QueueBulk, StartToCloseTimeout: time.Hour, HeartbeatTimeout: 30 * time.Second, RetryPolicy: patient(),
	})
}

// counting is for statements over all customers that somebody waits for. It gives up: they
// ask again.
func counting(ctx workflow.Context) workflow.Context {
	few := patient()
	few.MaximumAttempts = 3
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: campaign.QueueBulk, StartToCloseTimeout: 2 * time.Minute, HeartbeatTimeout: 30 * time.Second, RetryPolicy: few,
	})
}

// chunk is for dispatch chunks on their channel's queue. The heartbeat tells a dead
// worker within seconds; progress itself is in the database.
func chunk(ctx workflow.Context, c campaign.Channel, campaignID string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: campaign.QueueChannel(c), StartToCloseTimeout: time.Hour, HeartbeatTimeout: 10 * time.Second,
		RetryPolicy: patient(), WaitForCancellation: true,
		Priority: temporal.Priority{FairnessKey: campaignID},
	})
}

// evidence is for archiving and replaying histories.
func evidence(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: campaign.QueueAudit, StartToCloseTimeout: 10 * time.Minute, HeartbeatTimeout: 30 * time.Second, RetryPolicy: patient(),
	})
}

// local is for the projection: one idempotent statement of a few milliseconds.
func local(ctx workflow.Context) workflow.Context {
	return workflow.WithLocalActivityOptions(ctx, workflow.LocalActivityOptions{
		StartToCloseTimeout: 10 * time.Second, RetryPolicy: patient(),
	})
}

// stage is for the children that outlive a run of their campaign. A stage that failed
// may be begun again under its id; one that completed may not.
func stage(ctx workflow.Context, id string) workflow.Context {
	return workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID: id, TaskQueue: campaign.QueueWorkflows,
		ParentClosePolicy:     enumspb.PARENT_CLOSE_POLICY_ABANDON,
		WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY,
	})
}

// part is for children whose result their parent awaits.
func part(ctx workflow.Context, id string) workflow.Context {
	return workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID: id, TaskQueue: campaign.QueueWorkflows,
		ParentClosePolicy:     enumspb.PARENT_CLOSE_POLICY_REQUEST_CANCEL,
		WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY,
	})
}

// do runs an activity and returns its result.
func do[In, Out any](ctx workflow.Context, name campaign.Activity[In, Out], in In) (Out, error) {
	var out Out
	err := workflow.ExecuteActivity(ctx, string(name), in).Get(ctx, &out)
	return out, err
}

// act runs an activity that returns nothing.
func act[In any](ctx workflow.Context, name campaign.Activity[In, campaign.None], in In) error {
	return workflow.ExecuteActivity(ctx, string(name), in).Get(ctx, nil)
}

// start begins a child workflow.
func start[In any](ctx workflow.Context, name campaign.Workflow[In], in In) workflow.ChildWorkflowFuture {
	return workflow.ExecuteChildWorkflow(ctx, string(name), in)
}

// continueAsNew ends this run and begins the next one with in.
func continueAsNew[In any](ctx workflow.Context, name campaign.Workflow[In], in In) error {
	return workflow.NewContinueAsNewError(ctx, string(name), in)
}
