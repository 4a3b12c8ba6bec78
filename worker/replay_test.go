package worker_test

import (
	"compress/gzip"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	sdkworker "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/worker"
)

// recorded lists the histories that were recorded from whole campaigns, by release and
// scenario: testdata/replay/<release>/<scenario>/*.json.gz. `make record-histories`
// records those of the release in the making; those of older releases stay, because
// campaigns that began under them must go on.
func recorded(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "testdata", "replay", "*", "*", "*.json.gz"))
	require.NoError(t, err)
	require.NotEmpty(t, files, "no recorded histories: run make record-histories")
	return files
}

func read(t *testing.T, file string) *historypb.History {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	text, err := gzip.NewReader(f)
	require.NoError(t, err)
	h, err := client.HistoryFromJSON(text, client.HistoryJSONOptions{})
	require.NoError(t, err, file)
	require.NotEmpty(t, h.Events, file)
	return h
}

func begun(h *historypb.History) *historypb.WorkflowExecutionStartedEventAttributes {
	return h.Events[0].GetWorkflowExecutionStartedEventAttributes()
}

func replay(h *historypb.History) error {
	replayer := sdkworker.NewWorkflowReplayer()
	worker.RegisterWorkflows(replayer)
	quiet := log.NewStructuredLogger(slog.New(slog.DiscardHandler))
	return replayer.ReplayWorkflowHistoryWithOptions(quiet, h, sdkworker.ReplayWorkflowHistoryOptions{
		OriginalExecution: workflow.Execution{ID: begun(h).GetWorkflowId(), RunID: begun(h).GetOriginalExecutionRunId()},
	})
}

// TestRecordedHistoriesReplay fails when a change of workflow code would not decide as it
// did for a campaign that is under way.
func TestRecordedHistoriesReplay(t *testing.T) {
	for _, file := range recorded(t) {
		name := strings.TrimSuffix(file, ".json.gz")
		t.Run(filepath.Join(filepath.Base(filepath.Dir(name)), filepath.Base(name)), func(t *testing.T) {
			require.NoError(t, replay(read(t, file)))
		})
	}
}

// names collects what is registered.
type names map[string]bool

func (n names) RegisterWorkflowWithOptions(_ any, o workflow.RegisterOptions) { n[o.Name] = true }

func TestEveryWorkflowHasARecordedHistory(t *testing.T) {
	missing := names{}
	worker.RegisterWorkflows(missing)
	require.NotEmpty(t, missing)
	// These two handle archives, and are no part of one.
	delete(missing, string(campaign.WorkflowArchive))
	delete(missing, string(campaign.WorkflowReplay))
	for _, file := range recorded(t) {
		delete(missing, begun(read(t, file)).GetWorkflowType().GetName())
	}
	require.Empty(t, missing, "workflows without a recorded history: run make record-histories")
}

// TestACampaignThatWentOnAsNewIsRecorded: a later run decides from the state that it is
// given, which the first one of a campaign never does.
func TestACampaignThatWentOnAsNewIsRecorded(t *testing.T) {
	var first, between, last int
	for _, file := range recorded(t) {
		h := read(t, file)
		if begun(h).GetWorkflowType().GetName() != string(campaign.WorkflowCampaign) {
			continue
		}
		continues := begun(h).GetContinuedExecutionRunId() != ""
		continued := h.Events[len(h.Events)-1].GetEventType() == enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW
		switch {
		case continues && continued:
			between++
		case continues:
			last++
		case continued:
			first++
		}
	}
	require.Positive(t, first)
	require.Positive(t, between)
	require.Positive(t, last)
}

// TestAnotherDecisionIsNoticed makes sure that the replay can fail: for every kind of
// command, a history that records another one than the code gives is refused.
func TestAnotherDecisionIsNoticed(t *testing.T) {
	forge := map[string]func(*historypb.HistoryEvent) bool{
		"another activity": func(e *historypb.HistoryEvent) bool {
			a := e.GetActivityTaskScheduledEventAttributes()
			if a == nil {
				return false
			}
			a.ActivityType.Name = "Somebody"
			return true
		},
		"another child": func(e *historypb.HistoryEvent) bool {
			a := e.GetStartChildWorkflowExecutionInitiatedEventAttributes()
			if a == nil {
				return false
			}
			a.WorkflowId += "/other"
			return true
		},
		"another receiver of a signal": func(e *historypb.HistoryEvent) bool {
			a := e.GetSignalExternalWorkflowExecutionInitiatedEventAttributes()
			if a == nil {
				return false
			}
			a.WorkflowExecution.WorkflowId += "/other"
			return true
		},
		"a timer where there was none": func(e *historypb.HistoryEvent) bool {
			if e.GetActivityTaskScheduledEventAttributes() == nil {
				return false
			}
			e.EventType = enumspb.EVENT_TYPE_TIMER_STARTED
			e.Attributes = &historypb.HistoryEvent_TimerStartedEventAttributes{
				TimerStartedEventAttributes: &historypb.TimerStartedEventAttributes{TimerId: "1"},
			}
			return true
		},
	}
	for name, change := range forge {
		t.Run(name, func(t *testing.T) {
			forged := 0
			for _, file := range recorded(t) {
				h := read(t, file)
				for _, e := range h.Events {
					if change(e) {
						forged++
						require.Error(t, replay(h), file)
						break
					}
				}
			}
			require.Positive(t, forged, "no recorded history has such a command")
		})
	}
}

// TestRecordedHistoriesNameNoMachine keeps the repository free of the names of the
// machines that recorded them.
func TestRecordedHistoriesNameNoMachine(t *testing.T) {
	for _, file := range recorded(t) {
		for _, e := range read(t, file).Events {
			if queue := e.GetWorkflowTaskScheduledEventAttributes().GetTaskQueue(); queue.GetKind() == enumspb.TASK_QUEUE_KIND_STICKY {
				require.Equal(t, "sticky", queue.GetName(), file)
			}
			for _, identity := range []string{
				e.GetWorkflowTaskStartedEventAttributes().GetIdentity(), e.GetActivityTaskStartedEventAttributes().GetIdentity(),
				e.GetWorkflowExecutionSignaledEventAttributes().GetIdentity(), e.GetWorkflowExecutionStartedEventAttributes().GetIdentity(),
			} {
				require.True(t, identity == "" || identity == "history-service" || strings.HasPrefix(identity, "muster-"), "%s: %s", file, identity)
			}
		}
	}
}
