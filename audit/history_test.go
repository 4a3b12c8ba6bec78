package audit

import (
	"bytes"
	"compress/gzip"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	deploymentpb "go.temporal.io/api/deployment/v1"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/sdk/converter"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/musterhq/muster/campaign"
)

const (
	typeName = "Greeting"
	build    = "build-7"
)

// recording builds the history of a run by hand, event by event.
type recording struct {
	t *testing.T
	h historypb.History
}

// record begins a history; continued is the run before it, if any.
func record(t *testing.T, continued string, input ...any) *recording {
	r := &recording{t: t}
	payloads, err := converter.GetDefaultDataConverter().ToPayloads(input...)
	require.NoError(t, err)
	r.add(enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED, &historypb.HistoryEvent{Attributes: &historypb.HistoryEvent_WorkflowExecutionStartedEventAttributes{
		WorkflowExecutionStartedEventAttributes: &historypb.WorkflowExecutionStartedEventAttributes{
			WorkflowType: &commonpb.WorkflowType{Name: typeName}, TaskQueue: &taskqueuepb.TaskQueue{Name: "queue"},
			Input: payloads, ContinuedExecutionRunId: continued, Attempt: 1,
		},
	}})
	return r
}

func (r *recording) add(kind enumspb.EventType, e *historypb.HistoryEvent) int64 {
	e.EventId = int64(len(r.h.Events)) + 1
	e.EventType = kind
	e.EventTime = timestamppb.New(time.Date(2026, 3, 1, 8, 0, int(e.EventId), 123456789, time.UTC))
	e.TaskId = 1000 + e.EventId
	r.h.Events = append(r.h.Events, e)
	return e.EventId
}

// task is one turn of the workflow's code.
func (r *recording) task() *recording {
	scheduled := r.add(enumspb.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED, &historypb.HistoryEvent{Attributes: &historypb.HistoryEvent_WorkflowTaskScheduledEventAttributes{
		WorkflowTaskScheduledEventAttributes: &historypb.WorkflowTaskScheduledEventAttributes{TaskQueue: &taskqueuepb.TaskQueue{Name: "queue"}, Attempt: 1},
	}})
	started := r.add(enumspb.EVENT_TYPE_WORKFLOW_TASK_STARTED, &historypb.HistoryEvent{Attributes: &historypb.HistoryEvent_WorkflowTaskStartedEventAttributes{
		WorkflowTaskStartedEventAttributes: &historypb.WorkflowTaskStartedEventAttributes{ScheduledEventId: scheduled},
	}})
	r.add(enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED, &historypb.HistoryEvent{Attributes: &historypb.HistoryEvent_WorkflowTaskCompletedEventAttributes{
		WorkflowTaskCompletedEventAttributes: &historypb.WorkflowTaskCompletedEventAttributes{
			ScheduledEventId: scheduled, StartedEventId: started, DeploymentVersion: &deploymentpb.WorkerDeploymentVersion{DeploymentName: "muster", BuildId: build},
		},
	}})
	return r
}

// sleep starts a timer and lets it fire.
func (r *recording) sleep(d time.Duration) *recording {
	id := r.add(enumspb.EVENT_TYPE_TIMER_STARTED, &historypb.HistoryEvent{Attributes: &historypb.HistoryEvent_TimerStartedEventAttributes{
		TimerStartedEventAttributes: &historypb.TimerStartedEventAttributes{
			TimerId: "5", StartToFireTimeout: durationpb.New(d), WorkflowTaskCompletedEventId: int64(len(r.h.Events)),
		},
	}})
	r.add(enumspb.EVENT_TYPE_TIMER_FIRED, &historypb.HistoryEvent{Attributes: &historypb.HistoryEvent_TimerFiredEventAttributes{
		TimerFiredEventAttributes: &historypb.TimerFiredEventAttributes{TimerId: "5", StartedEventId: id},
	}})
	return r
}

// asks initiates a child.
func (r *recording) asks(workflowID string) int64 {
	return r.add(enumspb.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED, &historypb.HistoryEvent{Attributes: &historypb.HistoryEvent_StartChildWorkflowExecutionInitiatedEventAttributes{
		StartChildWorkflowExecutionInitiatedEventAttributes: &historypb.StartChildWorkflowExecutionInitiatedEventAttributes{WorkflowId: workflowID},
	}})
}

// starts initiates a child that begins as runID.
func (r *recording) starts(workflowID, runID string) *recording {
	initiated := r.asks(workflowID)
	r.add(enumspb.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED, &historypb.HistoryEvent{Attributes: &historypb.HistoryEvent_ChildWorkflowExecutionStartedEventAttributes{
		ChildWorkflowExecutionStartedEventAttributes: &historypb.ChildWorkflowExecutionStartedEventAttributes{
			InitiatedEventId: initiated, WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: workflowID, RunId: runID},
		},
	}})
	return r
}

// startFails initiates a child that is refused.
func (r *recording) startFails(workflowID string) *recording {
	initiated := r.asks(workflowID)
	r.add(enumspb.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_FAILED, &historypb.HistoryEvent{Attributes: &historypb.HistoryEvent_StartChildWorkflowExecutionFailedEventAttributes{
		StartChildWorkflowExecutionFailedEventAttributes: &historypb.StartChildWorkflowExecutionFailedEventAttributes{InitiatedEventId: initiated, WorkflowId: workflowID},
	}})
	return r
}

func (r *recording) completes() *historypb.History {
	r.add(enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED, &historypb.HistoryEvent{Attributes: &historypb.HistoryEvent_WorkflowExecutionCompletedEventAttributes{
		WorkflowExecutionCompletedEventAttributes: &historypb.WorkflowExecutionCompletedEventAttributes{WorkflowTaskCompletedEventId: int64(len(r.h.Events))},
	}})
	return &r.h
}

func (r *recording) continues(runID string) *historypb.History {
	r.add(enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW, &historypb.HistoryEvent{Attributes: &historypb.HistoryEvent_WorkflowExecutionContinuedAsNewEventAttributes{
		WorkflowExecutionContinuedAsNewEventAttributes: &historypb.WorkflowExecutionContinuedAsNewEventAttributes{
			NewExecutionRunId: runID, WorkflowTaskCompletedEventId: int64(len(r.h.Events)),
		},
	}})
	return &r.h
}

func (r *recording) terminated() *historypb.History {
	r.add(enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED, &historypb.HistoryEvent{Attributes: &historypb.HistoryEvent_WorkflowExecutionTerminatedEventAttributes{
		WorkflowExecutionTerminatedEventAttributes: &historypb.WorkflowExecutionTerminatedEventAttributes{Reason: "test"},
	}})
	return &r.h
}

func (r *recording) stillOpen() *historypb.History { return &r.h }

func unpack(t *testing.T, body []byte) []byte {
	r, err := gzip.NewReader(bytes.NewReader(body))
	require.NoError(t, err)
	text, err := io.ReadAll(r)
	require.NoError(t, err)
	return text
}

func pack(t *testing.T, text []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(text)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

func TestHistoryKeepsItsContent(t *testing.T) {
	h := record(t, "", map[string]any{"b": 1, "a": "x y"}).task().sleep(time.Minute).task().completes()
	body, digest, err := encode(h)
	require.NoError(t, err)
	run := describe(execution{"campaign:c", "r"}, h, digest)
	require.Equal(t, typeName, run.Type)
	require.EqualValues(t, len(h.Events), run.Events)
	require.Equal(t, build, run.BuildID)
	require.Equal(t, h.Events[0].EventTime.AsTime(), run.StartedAt)
	require.Equal(t, h.Events[len(h.Events)-1].EventTime.AsTime(), run.ClosedAt)

	back, err := decode(body, run)
	require.NoError(t, err)
	require.True(t, h.Equal(back), "want %v, got %v", h, back)
	_, again, err := encode(back)
	require.NoError(t, err)
	require.Equal(t, digest, again, "the same content must have the same digest")
}

func TestDecodeRefusesWhatWasChanged(t *testing.T) {
	h := record(t, "", "input").task().completes()
	body, digest, err := encode(h)
	require.NoError(t, err)
	run := describe(execution{"campaign:c", "r"}, h, digest)
	text := unpack(t, body)

	for i := range text {
		flipped := bytes.Clone(text)
		flipped[i] ^= 1
		_, err := decode(pack(t, flipped), run)
		require.Equal(t, campaign.CodeHistoryMismatch, campaign.CodeOf(err), "byte %d", i)
	}
	for i := range body {
		flipped := bytes.Clone(body)
		flipped[i] ^= 1
		if back, err := decode(flipped, run); err == nil {
			require.True(t, h.Equal(back), "byte %d of the compressed text changed the content unseen", i)
		}
	}
	_, err = decode(body[:len(body)/2], run)
	require.Equal(t, campaign.CodeHistoryMismatch, campaign.CodeOf(err))
	_, err = decode(nil, run)
	require.Equal(t, campaign.CodeHistoryMismatch, campaign.CodeOf(err))

	short := &historypb.History{Events: h.Events[:3]}
	body, digest, err = encode(short)
	require.NoError(t, err)
	run.SHA256 = digest
	_, err = decode(body, run)
	require.ErrorContains(t, err, "has 3 events, 5 were recorded")

	gap := &historypb.History{Events: append(append([]*historypb.HistoryEvent{}, h.Events[:2]...), h.Events[3:]...)}
	body, digest, err = encode(gap)
	require.NoError(t, err)
	run.SHA256 = digest
	_, err = decode(body, run)
	require.ErrorContains(t, err, "event 3 of the archived history is missing")
}

func TestBuildIDOfAWorkerOutsideADeployment(t *testing.T) {
	h := record(t, "").task().completes()
	done := h.Events[3].GetWorkflowTaskCompletedEventAttributes()
	done.DeploymentVersion = nil
	done.WorkerVersion = &commonpb.WorkerVersionStamp{BuildId: "stamp"} //nolint:staticcheck // what the server records
	require.Equal(t, "stamp", buildID(h))
	done.WorkerVersion = nil         //nolint:staticcheck // see above
	done.BinaryChecksum = "checksum" //nolint:staticcheck // see above
	require.Equal(t, "checksum", buildID(h))
	require.Empty(t, buildID(record(t, "").terminated()))
}
