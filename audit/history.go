package audit

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"
	"go.temporal.io/sdk/client"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// execution names one run of one workflow. Without a run it means the latest.
type execution struct{ workflowID, runID string }

// encode writes a history as JSON that Temporal's own tools read too. The JSON of
// protocol buffers may differ in white space from one program to the next, so that
// is taken out before the digest is made.
func encode(h *historypb.History) (body []byte, digest string, err error) {
	text, err := temporalproto.CustomJSONMarshalOptions{}.Marshal(h)
	if err != nil {
		return nil, "", fmt.Errorf("write history: %w", err)
	}
	var compact, packed bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return nil, "", fmt.Errorf("write history: %w", err)
	}
	sum := sha256.Sum256(compact.Bytes())
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(compact.Bytes()); err != nil {
		return nil, "", fmt.Errorf("compress history: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, "", fmt.Errorf("compress history: %w", err)
	}
	return packed.Bytes(), hex.EncodeToString(sum[:]), nil
}

// decode reads an archived history after checking that it has the digest and the
// number of events that were recorded; anything else is CodeHistoryMismatch.
func decode(body []byte, run store.ArchivedRun) (*historypb.History, error) {
	r, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, mismatch(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, mismatch(err)
	}
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != run.SHA256 {
		return nil, campaign.Errorf(campaign.CodeHistoryMismatch, "the archived history does not have the digest that was recorded with it")
	}
	h, err := client.HistoryFromJSON(bytes.NewReader(text), client.HistoryJSONOptions{})
	if err != nil {
		return nil, mismatch(err)
	}
	for i, e := range h.Events {
		if e.EventId != int64(i)+1 {
			return nil, campaign.Errorf(campaign.CodeHistoryMismatch, "event %d of the archived history is missing", i+1)
		}
	}
	if int64(len(h.Events)) != run.Events {
		return nil, campaign.Errorf(campaign.CodeHistoryMismatch, "the archived history has %d events, %d were recorded", len(h.Events), run.Events)
	}
	return h, nil
}

func mismatch(err error) error {
	return &campaign.Error{Code: campaign.CodeHistoryMismatch, Message: "the archived history cannot be read", Err: err}
}

// closed reports whether the run has ended.
func closed(h *historypb.History) bool {
	switch h.Events[len(h.Events)-1].EventType {
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED,
		enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
		enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT,
		enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED,
		enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED,
		enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW:
		return true
	}
	return false
}

// describe gives what the archive records about a closed run beside its history.
func describe(at execution, h *historypb.History, digest string) store.ArchivedRun {
	first, last := h.Events[0], h.Events[len(h.Events)-1]
	return store.ArchivedRun{
		WorkflowID: at.workflowID, RunID: at.runID,
		Type:      first.GetWorkflowExecutionStartedEventAttributes().GetWorkflowType().GetName(),
		Events:    int64(len(h.Events)),
		StartedAt: first.GetEventTime().AsTime(), ClosedAt: last.GetEventTime().AsTime(),
		SHA256: digest, BuildID: buildID(h),
	}
}

// buildID names the code that worked on the run last, empty when none did.
func buildID(h *historypb.History) string {
	for i := len(h.Events) - 1; i >= 0; i-- {
		done := h.Events[i].GetWorkflowTaskCompletedEventAttributes()
		if done == nil {
			continue
		}
		if id := done.GetDeploymentVersion().GetBuildId(); id != "" {
			return id
		}
		// Workers outside of a deployment, as every one on a single machine, are
		// known by the older fields only.
		if id := done.GetWorkerVersion().GetBuildId(); id != "" { //nolint:staticcheck // see above
			return id
		}
		return done.GetBinaryChecksum() //nolint:staticcheck // see above
	}
	return ""
}

// references returns the runs that a history says exist: the ones before and after
// it in its own chain, and the first run of each child. unconfirmed are the children
// it asked for without learning whether they began, as it ended first.
func references(at execution, h *historypb.History) (certain, unconfirmed []execution) {
	same := func(runIDs ...string) {
		for _, id := range runIDs {
			if id != "" && id != at.runID {
				certain = append(certain, execution{at.workflowID, id})
			}
		}
	}
	asked := map[int64]execution{}
	for _, e := range h.Events {
		switch e.EventType {
		case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
			a := e.GetWorkflowExecutionStartedEventAttributes()
			same(a.GetContinuedExecutionRunId(), a.GetFirstExecutionRunId())
		case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW:
			same(e.GetWorkflowExecutionContinuedAsNewEventAttributes().GetNewExecutionRunId())
		case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
			same(e.GetWorkflowExecutionCompletedEventAttributes().GetNewExecutionRunId())
		case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED:
			same(e.GetWorkflowExecutionFailedEventAttributes().GetNewExecutionRunId())
		case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT:
			same(e.GetWorkflowExecutionTimedOutEventAttributes().GetNewExecutionRunId())
		case enumspb.EVENT_TYPE_WORKFLOW_TASK_FAILED: // a reset
			a := e.GetWorkflowTaskFailedEventAttributes()
			same(a.GetBaseRunId(), a.GetNewRunId())
		case enumspb.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED:
			asked[e.EventId] = execution{workflowID: e.GetStartChildWorkflowExecutionInitiatedEventAttributes().GetWorkflowId()}
		case enumspb.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_FAILED:
			delete(asked, e.GetStartChildWorkflowExecutionFailedEventAttributes().GetInitiatedEventId())
		case enumspb.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED:
			a := e.GetChildWorkflowExecutionStartedEventAttributes()
			delete(asked, a.GetInitiatedEventId())
			certain = append(certain, execution{a.GetWorkflowExecution().GetWorkflowId(), a.GetWorkflowExecution().GetRunId()})
		}
	}
	for _, child := range asked {
		unconfirmed = append(unconfirmed, child)
	}
	return certain, unconfirmed
}
