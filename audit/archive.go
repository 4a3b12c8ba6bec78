// Package audit keeps the evidence of a campaign beyond the orchestrator's retention:
// it archives the histories of all its workflows, and replays them against the code.
package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sort"

	"github.com/google/uuid"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// Archiver copies histories from Temporal into the archive.
type Archiver struct {
	Temporal client.Client
	Store    *store.Store
}

// Archive archives every run of every workflow of a campaign, but for the archiving
// workflow itself. It may be called again at any time: what is archived is kept, and
// no longer asked of Temporal.
//
// While a run is still open the others are archived and the result is
// CodeStateConflict, so that a retry finds the rest closed. A run that a history
// names and that is neither archived nor left in Temporal is CodeNotFound: the
// archive could not be complete. Temporal counts its retention from the end of each
// run, also of one that went on as new, so a campaign that lives longer than the
// retention is archived now and then on its way.
//
// The runs are found by walking the histories, from the campaign's own to the runs
// before and after each and to their children. The list of workflows by id, which
// Temporal brings up to date with some delay, only adds what no history names.
// progress is called after each run with the number of runs done.
func (a *Archiver) Archive(ctx context.Context, campaignID string, progress func(runs int)) (campaign.Archived, error) {
	if _, err := uuid.Parse(campaignID); err != nil {
		return campaign.Archived{}, campaign.Errorf(campaign.CodeInvalidParameter, "%q is not the id of a campaign", campaignID)
	}
	w := &walk{Archiver: a, campaignID: campaignID, progress: progress, archived: map[execution]store.ArchivedRun{}, seen: map[execution]bool{}}
	if err := w.run(ctx); err != nil {
		return campaign.Archived{}, err
	}
	if len(w.open) > 0 {
		sort.Strings(w.open)
		return campaign.Archived{}, campaign.Errorf(campaign.CodeStateConflict, "%d of the campaign's workflows are still open, %s first", len(w.open), w.open[0]).
			With("open", len(w.open))
	}
	runs, err := a.Store.ArchivedRuns(ctx, campaignID)
	if err != nil {
		return campaign.Archived{}, err
	}
	result := summarise(runs)
	return result, a.Store.SetArchived(ctx, campaignID, result.Runs)
}

// summarise counts an archive. Its digest is the SHA-256 of the hex digests of the
// runs in the order they began, each followed by a newline.
func summarise(runs []store.ArchivedRun) campaign.Archived {
	sum := sha256.New()
	result := campaign.Archived{Runs: len(runs)}
	for _, r := range runs {
		result.Events += r.Events
		fmt.Fprintln(sum, r.SHA256)
	}
	result.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return result
}

// walk is one pass over the runs of a campaign.
type walk struct {
	*Archiver
	campaignID string
	progress   func(runs int)

	archived map[execution]store.ArchivedRun
	seen     map[execution]bool
	queue    []execution
	open     []string // workflow ids
	done     int
}

func (w *walk) run(ctx context.Context) error {
	kept, err := w.Store.ArchivedRuns(ctx, w.campaignID)
	if err != nil {
		return err
	}
	for _, r := range kept {
		at := execution{r.WorkflowID, r.RunID}
		w.archived[at] = r
		w.add(at)
	}
	root, found, err := w.latest(ctx, campaign.CampaignWorkflowID(w.campaignID))
	if err != nil {
		return err
	}
	if found {
		w.add(root)
	} else if len(kept) == 0 {
		return campaign.Errorf(campaign.CodeNotFound, "no workflow history of the campaign is left")
	}
	if err := w.walk(ctx, true); err != nil {
		return err
	}
	if err := w.list(ctx); err != nil {
		return err
	}
	return w.walk(ctx, false)
}

func (w *walk) add(at execution) {
	if !w.seen[at] && at.workflowID != campaign.ArchiveWorkflowID(w.campaignID) {
		w.seen[at] = true
		w.queue = append(w.queue, at)
	}
}

// walk works off the queue, to which each history adds the runs it names. When
// certain, every run of the queue at the start must exist; what a history names
// must in any case.
func (w *walk) walk(ctx context.Context, certain bool) error {
	listed := len(w.queue)
	for n := 0; len(w.queue) > 0; n++ {
		at := w.queue[0]
		w.queue = w.queue[1:]
		h, err := w.visit(ctx, at)
		var gone *serviceerror.NotFound
		if errors.As(err, &gone) {
			if !certain && n < listed {
				continue // the list still had it
			}
			return campaign.Errorf(campaign.CodeNotFound, "the history of run %s of %s is gone before it was archived", at.runID, at.workflowID)
		}
		if err != nil {
			return err
		}
		named, unconfirmed := references(at, h)
		for _, r := range named {
			w.add(r)
		}
		for _, child := range unconfirmed {
			r, found, err := w.latest(ctx, child.workflowID)
			if err != nil {
				return err
			}
			if found {
				w.add(r)
			}
		}
		w.done++
		w.progress(w.done)
	}
	return nil
}

// visit returns the history of a run and archives it if it has ended.
func (w *walk) visit(ctx context.Context, at execution) (*historypb.History, error) {
	if run, ok := w.archived[at]; ok {
		body, err := w.Store.ArchivedBody(ctx, at.workflowID, at.runID)
		if err != nil {
			return nil, err
		}
		h, err := decode(body, run)
		if err != nil {
			return nil, fmt.Errorf("archived run %s of %s: %w", at.runID, at.workflowID, err)
		}
		return h, nil
	}
	h := &historypb.History{}
	events := w.Temporal.GetWorkflowHistory(ctx, at.workflowID, at.runID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		e, err := events.Next()
		if err != nil {
			return nil, fmt.Errorf("fetch history of %s: %w", at.workflowID, err)
		}
		h.Events = append(h.Events, e)
	}
	if len(h.Events) == 0 {
		return nil, fmt.Errorf("fetch history of %s: it has no events", at.workflowID)
	}
	if !closed(h) {
		w.open = append(w.open, at.workflowID)
		return h, nil
	}
	body, digest, err := encode(h)
	if err != nil {
		return nil, err
	}
	return h, w.Store.SaveHistory(ctx, w.campaignID, describe(at, h, digest), body)
}

// latest returns the latest run of a workflow id and whether there is one.
func (w *walk) latest(ctx context.Context, workflowID string) (execution, bool, error) {
	d, err := w.Temporal.DescribeWorkflowExecution(ctx, workflowID, "")
	var none *serviceerror.NotFound
	if errors.As(err, &none) {
		return execution{}, false, nil
	}
	if err != nil {
		return execution{}, false, fmt.Errorf("describe %s: %w", workflowID, err)
	}
	return execution{workflowID, d.GetWorkflowExecutionInfo().GetExecution().GetRunId()}, true, nil
}

// list adds every run whose workflow id begins with the campaign's.
func (w *walk) list(ctx context.Context) error {
	request := &workflowservice.ListWorkflowExecutionsRequest{
		Query: fmt.Sprintf("WorkflowId STARTS_WITH '%s'", campaign.CampaignWorkflowID(w.campaignID)),
	}
	for {
		page, err := w.Temporal.ListWorkflow(ctx, request)
		if err != nil {
			return fmt.Errorf("list workflows: %w", err)
		}
		for _, e := range page.GetExecutions() {
			w.add(execution{e.GetExecution().GetWorkflowId(), e.GetExecution().GetRunId()})
		}
		if request.NextPageToken = page.GetNextPageToken(); len(request.NextPageToken) == 0 {
			return nil
		}
	}
}
