package audit

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// A report travels as a workflow's result, which may have 2 MB. So it names that many
// runs, each with so many bytes of words, which JSON may make six times as long.
const (
	maxRuns  = 300
	maxFault = 1000
)

// Replayer runs today's code over archived histories.
type Replayer struct {
	Store    *store.Store
	Register func(worker.WorkflowReplayer) // registers every workflow under its name
	BuildID  string                        // of the code that replays
}

// Replay checks the digest of every archived run of a campaign and replays it. A run
// that fails either is named in the report with its fault; the others go on. A long
// report names the runs that failed before the others and counts those it leaves out. A
// campaign without an archive is CodeNotArchived. progress is called after each run
// with the number of runs done.
//
// What this proves is that the code would decide again as it did: from the recorded
// inputs follow the recorded commands. It does not prove that the record is
// authentic. Whoever can rewrite an archived history together with its digest, say
// another approver's name on a sign-off or other times, gets a clean replay too;
// against that stand the sign-off rows and digests kept out of their reach.
func (r *Replayer) Replay(ctx context.Context, campaignID string, progress func(runs int)) (campaign.ReplayReport, error) {
	runs, err := r.Store.ArchivedRuns(ctx, campaignID)
	if err != nil {
		return campaign.ReplayReport{}, err
	}
	if len(runs) == 0 {
		return campaign.ReplayReport{}, campaign.Errorf(campaign.CodeNotArchived, "the campaign's histories are not archived yet; that happens when it closes")
	}
	replayer := worker.NewWorkflowReplayer()
	r.Register(replayer)
	report := campaign.ReplayReport{CampaignID: campaignID, OK: true, BuildID: r.BuildID}
	for i, run := range runs {
		if err := ctx.Err(); err != nil {
			return campaign.ReplayReport{}, err
		}
		body, err := r.Store.ArchivedBody(ctx, run.WorkflowID, run.RunID)
		if err != nil {
			return campaign.ReplayReport{}, err
		}
		result := campaign.ReplayRun{WorkflowID: run.WorkflowID, RunID: run.RunID, Type: run.Type, Events: run.Events, SHA256: run.SHA256, OK: true}
		if err := replay(replayer, body, run); err != nil {
			result.OK, result.Fault = false, err.Error()
			if len(result.Fault) > maxFault {
				result.Fault = strings.ToValidUTF8(result.Fault[:maxFault], "")
			}
		}
		report.OK = report.OK && result.OK
		report.Events += run.Events
		report.Runs = append(report.Runs, result)
		progress(i + 1)
	}
	if omitted := len(report.Runs) - maxRuns; omitted > 0 {
		slices.SortStableFunc(report.Runs, func(a, b campaign.ReplayRun) int {
			switch {
			case a.OK == b.OK:
				return 0
			case b.OK:
				return -1
			}
			return 1
		})
		report.Runs, report.Omitted = report.Runs[:maxRuns], omitted
	}
	return report, nil
}

func replay(replayer worker.WorkflowReplayer, body []byte, run store.ArchivedRun) error {
	h, err := decode(body, run)
	if err != nil {
		return err
	}
	if !worked(h) {
		return nil
	}
	quiet := log.NewStructuredLogger(slog.New(slog.DiscardHandler))
	return replayer.ReplayWorkflowHistoryWithOptions(quiet, h, worker.ReplayWorkflowHistoryOptions{
		OriginalExecution: workflow.Execution{ID: run.WorkflowID, RunID: run.RunID},
	})
}

// worked reports whether any code ever ran for the history: a workflow that was
// ended before its first task left nothing to replay.
func worked(h *historypb.History) bool {
	for _, e := range h.Events {
		if e.EventType == enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED {
			return true
		}
	}
	return false
}
