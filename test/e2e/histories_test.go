package e2e_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"
	"go.temporal.io/sdk/client"

	"github.com/musterhq/muster/campaign"
)

// recordVariable names a folder, such as testdata/replay/v0, into which these tests write
// the histories of the campaigns that they run: `make record-histories`.
const recordVariable = "MUSTER_RECORD_HISTORIES"

// keepHistories writes a campaign's archived histories as a scenario for the replay test
// of package worker. Whatever was there of that scenario is replaced.
func keepHistories(t *testing.T, i *instance, r *running, scenario string) {
	t.Helper()
	root := os.Getenv(recordVariable)
	if root == "" {
		return
	}
	saved := t.TempDir()
	i.command(t, "replay", r.id, "--save", saved)
	files, err := filepath.Glob(filepath.Join(saved, "*.json.gz"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	folder := filepath.Join(root, scenario)
	require.NoError(t, os.RemoveAll(folder))
	require.NoError(t, os.MkdirAll(folder, 0o755))
	for _, file := range files {
		body, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(folder, filepath.Base(file)), withoutHost(t, body), 0o644))
	}
}

// keepHistory adds the history of a workflow that no campaign's archive has to a scenario:
// it is taken from where it runs, or ran.
func keepHistory(t *testing.T, i *instance, workflowID, scenario, name string) {
	t.Helper()
	root := os.Getenv(recordVariable)
	if root == "" {
		return
	}
	cluster, err := client.Dial(client.Options{HostPort: i.TemporalAddress, Namespace: campaign.Namespace})
	require.NoError(t, err)
	defer cluster.Close()
	history := &historypb.History{}
	for events := cluster.GetWorkflowHistory(t.Context(), workflowID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); events.HasNext(); {
		e, err := events.Next()
		require.NoError(t, err)
		history.Events = append(history.Events, e)
	}
	file := filepath.Join(root, scenario, name+".json.gz")
	require.NoError(t, os.WriteFile(file, withoutHost(t, pack(t, history)), 0o644))
}

// withoutHost takes the name of the machine out of a history: workers name the queue of
// their cached workflows after it. No command depends on it.
func withoutHost(t *testing.T, body []byte) []byte {
	t.Helper()
	history := unpack(t, body)
	for _, e := range history.Events {
		if queue := e.GetWorkflowTaskScheduledEventAttributes().GetTaskQueue(); queue.GetKind() == enumspb.TASK_QUEUE_KIND_STICKY {
			queue.Name = "sticky"
		}
	}
	return pack(t, history)
}

func unpack(t *testing.T, body []byte) *historypb.History {
	t.Helper()
	text, err := gzip.NewReader(bytes.NewReader(body))
	require.NoError(t, err)
	history, err := client.HistoryFromJSON(text, client.HistoryJSONOptions{})
	require.NoError(t, err)
	return history
}

func pack(t *testing.T, history *historypb.History) []byte {
	t.Helper()
	text, err := temporalproto.CustomJSONMarshalOptions{}.Marshal(history)
	require.NoError(t, err)
	var compact, packed bytes.Buffer
	require.NoError(t, json.Compact(&compact, text))
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	require.NoError(t, err)
	_, err = w.Write(compact.Bytes())
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return packed.Bytes()
}
