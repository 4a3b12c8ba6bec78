package audit

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/pgtest"
	"github.com/musterhq/muster/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func openStore(t *testing.T) *store.Store {
	t.Helper()
	url := pgtest.NewDatabase(t, pgtest.WithTemplate("muster", func(ctx context.Context, url string) error {
		s, err := store.Open(ctx, url, store.AsOwner())
		if err != nil {
			return err
		}
		defer s.Close()
		_, err = s.Migrate(ctx)
		return err
	}))
	s, err := store.Open(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

func newCampaign(t *testing.T, s *store.Store) string {
	t.Helper()
	id, planner := uuid.NewString(), uuid.NewString()
	for _, c := range []struct {
		sql  string
		args []any
	}{
		{`INSERT INTO org_unit (path, name) VALUES ('operator', 'Operator') ON CONFLICT DO NOTHING`, nil},
		{`INSERT INTO app_user (id, login, name, password_hash) VALUES ($1, 'p-' || $2, 'Planner', '')`, []any{planner, planner}},
		{`INSERT INTO campaign (id, name, unit, planner_id, draft_revision, simulated) VALUES ($1, 'Test', 'operator', $2, 1, true)`, []any{id, planner}},
	} {
		_, err := s.Pool().Exec(t.Context(), c.sql, c.args...)
		require.NoError(t, err)
	}
	return id
}

// orchestrator answers as Temporal does, from histories in memory.
type orchestrator struct {
	client.Client // everything else is not called
	histories     map[execution]*historypb.History
	latest        map[string]string // workflow id → run
	listed        []execution       // what the list of workflows shows, a page each
	fetched       int
}

func (o *orchestrator) DescribeWorkflowExecution(_ context.Context, workflowID, _ string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	run, ok := o.latest[workflowID]
	if !ok {
		return nil, serviceerror.NewNotFound("no such workflow")
	}
	return &workflowservice.DescribeWorkflowExecutionResponse{WorkflowExecutionInfo: &workflowpb.WorkflowExecutionInfo{
		Execution: &commonpb.WorkflowExecution{WorkflowId: workflowID, RunId: run},
	}}, nil
}

func (o *orchestrator) ListWorkflow(_ context.Context, r *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	if len(o.listed) == 0 {
		return &workflowservice.ListWorkflowExecutionsResponse{}, nil
	}
	page := 0
	if len(r.NextPageToken) > 0 {
		page = int(r.NextPageToken[0])
	}
	answer := &workflowservice.ListWorkflowExecutionsResponse{Executions: []*workflowpb.WorkflowExecutionInfo{{
		Execution: &commonpb.WorkflowExecution{WorkflowId: o.listed[page].workflowID, RunId: o.listed[page].runID},
	}}}
	if page+1 < len(o.listed) {
		answer.NextPageToken = []byte{byte(page + 1)}
	}
	return answer, nil
}

type iterator struct {
	events []*historypb.HistoryEvent
	err    error
}

func (i *iterator) HasNext() bool { return i.err != nil || len(i.events) > 0 }

func (i *iterator) Next() (*historypb.HistoryEvent, error) {
	if i.err != nil {
		return nil, i.err
	}
	e := i.events[0]
	i.events = i.events[1:]
	return e, nil
}

func (o *orchestrator) GetWorkflowHistory(_ context.Context, workflowID, runID string, _ bool, _ enumspb.HistoryEventFilterType) client.HistoryEventIterator {
	o.fetched++
	h, ok := o.histories[execution{workflowID, runID}]
	if !ok {
		return &iterator{err: serviceerror.NewNotFound("no such run")}
	}
	return &iterator{events: h.Events}
}

// recordedCampaign is a campaign of two runs, whose second one starts a wave of two
// runs, whose second one starts a shard, and the archiving workflow, which is open.
func recordedCampaign(t *testing.T, id string) *orchestrator {
	root, wave, shard := campaign.CampaignWorkflowID(id), campaign.WaveWorkflowID(id, 1), campaign.ShardWorkflowID(id, 1, campaign.ChannelSMS, 1, 1)
	archive := campaign.ArchiveWorkflowID(id)
	return &orchestrator{
		latest: map[string]string{root: "root-2", wave: "wave-2", shard: "shard-1", archive: "archive-1"},
		histories: map[execution]*historypb.History{
			{root, "root-1"}:       record(t, "", "a").task().sleep(time.Minute).task().continues("root-2"),
			{root, "root-2"}:       record(t, "root-1", "a").task().starts(wave, "wave-1").startFails(wave).starts(archive, "archive-1").task().completes(),
			{wave, "wave-1"}:       record(t, "", "w").task().continues("wave-2"),
			{wave, "wave-2"}:       record(t, "wave-1", "w").task().starts(shard, "shard-1").task().completes(),
			{shard, "shard-1"}:     record(t, "", "s").task().completes(),
			{archive, "archive-1"}: record(t, "", "x").task().stillOpen(),
		},
	}
}

func archivedRuns(t *testing.T, s *store.Store, id string) []string {
	runs, err := s.ArchivedRuns(t.Context(), id)
	require.NoError(t, err)
	var ids []string
	for _, r := range runs {
		ids = append(ids, r.RunID)
	}
	slices.Sort(ids)
	return ids
}

var wholeCampaign = []string{"root-1", "root-2", "shard-1", "wave-1", "wave-2"}

func TestArchiveFindsEveryRunWithoutTheList(t *testing.T) {
	s, ctx := openStore(t), t.Context()
	id := newCampaign(t, s)
	o := recordedCampaign(t, id)
	var progress []int
	result, err := (&Archiver{Temporal: o, Store: s}).Archive(ctx, id, func(n int) { progress = append(progress, n) })
	require.NoError(t, err)
	require.Equal(t, wholeCampaign, archivedRuns(t, s, id))
	require.Equal(t, []int{1, 2, 3, 4, 5}, progress)
	require.Equal(t, 5, result.Runs)
	var events int64
	for at, h := range o.histories {
		if at.workflowID != campaign.ArchiveWorkflowID(id) {
			events += int64(len(h.Events))
		}
	}
	require.Equal(t, events, result.Events)
	require.Len(t, result.SHA256, 64)
	var runs int
	var first time.Time
	require.NoError(t, s.Pool().QueryRow(ctx, `SELECT archive_runs, archived_at FROM campaign WHERE id = $1`, id).Scan(&runs, &first))
	require.Equal(t, 5, runs)

	// Once archived, nothing is asked of Temporal, which may have forgotten it all.
	o.fetched, o.histories, o.latest = 0, nil, nil
	again, err := (&Archiver{Temporal: o, Store: s}).Archive(ctx, id, func(int) {})
	require.NoError(t, err)
	require.Equal(t, result, again)
	require.Zero(t, o.fetched)
	var second time.Time
	require.NoError(t, s.Pool().QueryRow(ctx, `SELECT archived_at FROM campaign WHERE id = $1`, id).Scan(&second))
	require.Equal(t, first, second)
}

func TestArchiveWaitsForOpenRuns(t *testing.T) {
	s, ctx := openStore(t), t.Context()
	id := newCampaign(t, s)
	o := recordedCampaign(t, id)
	shard := execution{campaign.ShardWorkflowID(id, 1, campaign.ChannelSMS, 1, 1), "shard-1"}
	done := o.histories[shard]
	o.histories[shard] = record(t, "", "s").task().stillOpen()
	a := &Archiver{Temporal: o, Store: s}
	_, err := a.Archive(ctx, id, func(int) {})
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(err))
	require.ErrorContains(t, err, shard.workflowID)
	require.Equal(t, []string{"root-1", "root-2", "wave-1", "wave-2"}, archivedRuns(t, s, id), "what is closed is safe already")
	var complete bool
	require.NoError(t, s.Pool().QueryRow(ctx, `SELECT archived_at IS NOT NULL FROM campaign WHERE id = $1`, id).Scan(&complete))
	require.False(t, complete)

	o.histories[shard] = done
	o.fetched = 0
	result, err := a.Archive(ctx, id, func(int) {})
	require.NoError(t, err)
	require.Equal(t, 5, result.Runs)
	require.Equal(t, 1, o.fetched, "only the run that was missing is fetched")
}

func TestArchiveAddsWhatOnlyTheListKnows(t *testing.T) {
	s, ctx := openStore(t), t.Context()
	id := newCampaign(t, s)
	o := recordedCampaign(t, id)
	stray := campaign.ReviewWorkflowID(id, 1)
	o.histories[execution{stray, "stray-2"}] = record(t, "stray-1", "r").task().completes()
	o.histories[execution{stray, "stray-1"}] = record(t, "", "r").task().continues("stray-2")
	o.listed = []execution{
		{campaign.CampaignWorkflowID(id), "root-2"}, // known already
		{stray, "stray-2"},
		{stray, "stale"}, // listed, but gone
		{campaign.ArchiveWorkflowID(id), "archive-1"},
	}
	_, err := (&Archiver{Temporal: o, Store: s}).Archive(ctx, id, func(int) {})
	require.NoError(t, err)
	require.Equal(t, append(slices.Clone(wholeCampaign)[:3], "stray-1", "stray-2", "wave-1", "wave-2"), archivedRuns(t, s, id))
}

func TestArchiveRefusesGaps(t *testing.T) {
	s, ctx := openStore(t), t.Context()
	for at := range recordedCampaign(t, uuid.NewString()).histories {
		if at.runID == "archive-1" {
			continue
		}
		id := newCampaign(t, s)
		o := recordedCampaign(t, id)
		maps.DeleteFunc(o.histories, func(e execution, _ *historypb.History) bool { return e.runID == at.runID })
		_, err := (&Archiver{Temporal: o, Store: s}).Archive(ctx, id, func(int) {})
		require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(err), at.runID)
		require.ErrorContains(t, err, at.runID)
	}
	_, err := (&Archiver{Temporal: &orchestrator{}, Store: s}).Archive(ctx, newCampaign(t, s), func(int) {})
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(err))
	_, err = (&Archiver{Temporal: &orchestrator{}, Store: s}).Archive(ctx, "' OR WorkflowId != '", func(int) {})
	require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(err))
}

// A campaign that ends right after it asked for a child never learns whether the
// child began.
func TestArchiveLooksForUnconfirmedChildren(t *testing.T) {
	s, ctx := openStore(t), t.Context()
	for _, began := range []bool{true, false} {
		id := newCampaign(t, s)
		o := recordedCampaign(t, id)
		root, child := campaign.CampaignWorkflowID(id), campaign.EvaluationWorkflowID(id)
		r := record(t, "root-1", "a").task()
		r.asks(child)
		o.histories[execution{root, "root-2"}] = r.completes()
		want := []string{"root-1", "root-2"}
		if began {
			o.latest[child] = "late-child-" + id
			o.histories[execution{child, "late-child-" + id}] = record(t, "", "e").task().completes()
			want = []string{"late-child-" + id, "root-1", "root-2"}
		}
		_, err := (&Archiver{Temporal: o, Store: s}).Archive(ctx, id, func(int) {})
		require.NoError(t, err)
		require.Equal(t, want, archivedRuns(t, s, id))
	}
}
