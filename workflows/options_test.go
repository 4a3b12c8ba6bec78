package workflows_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/musterhq/muster/campaign"
)

// asked notes with which options workflows ask for children and activities.
type asked struct {
	interceptor.WorkerInterceptorBase
	children   map[string][]workflow.ChildWorkflowOptions
	activities map[string][]workflow.ActivityOptions
}

// watchOptions is a bench that notes options.
func watchOptions(t *testing.T) (*bench, *asked) {
	t.Helper()
	a := &asked{children: map[string][]workflow.ChildWorkflowOptions{}, activities: map[string][]workflow.ActivityOptions{}}
	b := newBench(t)
	b.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{a}})
	return b, a
}

func (a *asked) InterceptWorkflow(_ workflow.Context, next interceptor.WorkflowInboundInterceptor) interceptor.WorkflowInboundInterceptor {
	return &inbound{WorkflowInboundInterceptorBase: interceptor.WorkflowInboundInterceptorBase{Next: next}, asked: a}
}

type inbound struct {
	interceptor.WorkflowInboundInterceptorBase
	asked *asked
}

func (i *inbound) Init(next interceptor.WorkflowOutboundInterceptor) error {
	return i.Next.Init(&outbound{WorkflowOutboundInterceptorBase: interceptor.WorkflowOutboundInterceptorBase{Next: next}, asked: i.asked})
}

type outbound struct {
	interceptor.WorkflowOutboundInterceptorBase
	asked *asked
}

func (o *outbound) ExecuteChildWorkflow(ctx workflow.Context, name string, args ...any) workflow.ChildWorkflowFuture {
	o.asked.children[name] = append(o.asked.children[name], workflow.GetChildWorkflowOptions(ctx))
	return o.Next.ExecuteChildWorkflow(ctx, name, args...)
}

func (o *outbound) ExecuteActivity(ctx workflow.Context, name string, args ...any) workflow.Future {
	o.asked.activities[name] = append(o.asked.activities[name], workflow.GetActivityOptions(ctx))
	return o.Next.ExecuteActivity(ctx, name, args...)
}

// TestStagesOutliveARunOfTheirCampaign: the server ends a child with the run of its
// parent, also with one that only goes on as new, unless it is abandoned. Inside a wave
// the parent awaits its children, and they end with it.
func TestStagesOutliveARunOfTheirCampaign(t *testing.T) {
	b, asked := watchOptions(t)
	b.approved()
	b.run()
	want := map[string]enumspb.ParentClosePolicy{
		string(campaign.WorkflowApproval):   enumspb.PARENT_CLOSE_POLICY_ABANDON,
		string(campaign.WorkflowSelection):  enumspb.PARENT_CLOSE_POLICY_ABANDON,
		string(campaign.WorkflowWave):       enumspb.PARENT_CLOSE_POLICY_ABANDON,
		string(campaign.WorkflowReview):     enumspb.PARENT_CLOSE_POLICY_ABANDON,
		string(campaign.WorkflowSettlement): enumspb.PARENT_CLOSE_POLICY_ABANDON,
		string(campaign.WorkflowEvaluation): enumspb.PARENT_CLOSE_POLICY_ABANDON,
		string(campaign.WorkflowArchive):    enumspb.PARENT_CLOSE_POLICY_ABANDON,
		string(campaign.WorkflowDispatch):   enumspb.PARENT_CLOSE_POLICY_REQUEST_CANCEL,
		string(campaign.WorkflowShard):      enumspb.PARENT_CLOSE_POLICY_REQUEST_CANCEL,
	}
	require.Len(t, asked.children, len(want))
	for name, policy := range want {
		require.NotEmpty(t, asked.children[name], name)
		for _, o := range asked.children[name] {
			require.Equal(t, policy, o.ParentClosePolicy, name)
			require.Equal(t, enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY, o.WorkflowIDReusePolicy, name)
		}
	}
}

// TestChunksOfSmallCampaignsGetTheirTurn: the server divides a channel's queue fairly
// among the keys of its tasks, so a chunk carries its campaign. The other queues serve in
// order of arrival.
func TestChunksOfSmallCampaignsGetTheirTurn(t *testing.T) {
	b, asked := watchOptions(t)
	b.approved()
	b.run()
	chunks := asked.activities[string(campaign.ActivityDispatchChunk)]
	require.NotEmpty(t, chunks)
	queues := map[string]int{}
	for _, o := range chunks {
		require.Equal(t, temporal.Priority{FairnessKey: campaignID}, o.Priority)
		require.LessOrEqual(t, len(o.Priority.FairnessKey), 64, "the server takes no longer key")
		queues[o.TaskQueue]++
	}
	require.Equal(t, map[string]int{campaign.QueueChannel(campaign.ChannelCall): 12, campaign.QueueChannel(campaign.ChannelSMS): 12}, queues)
	for name, options := range asked.activities {
		for _, o := range options {
			require.True(t, name == string(campaign.ActivityDispatchChunk) || o.Priority == temporal.Priority{}, name)
		}
	}
}

// TestManyUpdatesAtOnceAreAllAnswered: an update never waits for a person, so each of a
// crowd is answered at once, applied or refused with a code that stays.
func TestManyUpdatesAtOnceAreAllAnswered(t *testing.T) {
	const crowd = 40
	b := newBench(t)
	b.approved()
	var answers []*answer
	for n := range crowd {
		answers = append(answers, b.at(days(1), campaign.UpdatePause, campaign.ChangeHold{Command: command(operator, fmt.Sprintf("crowd-%d", n)), Reason: "check"}))
	}
	b.at(days(2), campaign.UpdateResume, campaign.ChangeHold{Command: command(operator, "resume")})
	b.run()
	applied := 0
	for _, a := range answers {
		if a.err == nil {
			require.Equal(t, campaign.HoldPaused, a.status.Hold)
			applied++
		} else {
			require.Equal(t, campaign.CodeStateConflict, code(a.err))
		}
	}
	require.Equal(t, 1, applied)
	require.Equal(t, []campaign.Hold{campaign.HoldPaused, campaign.HoldNone}, b.holds)
}
