package embedded

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
)

// standIn makes the test binary play temporal-dev.
func standIn(t *testing.T, how string) TemporalOptions {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	t.Setenv(helperTemporal, how)
	return TemporalOptions{Binary: self, DatabaseURL: "postgres://unused", Namespace: "test", Retention: time.Hour}
}

func TestTemporalThatFailsIsQuoted(t *testing.T) {
	for _, how := range []string{"fails", "silent"} {
		t.Run(how, func(t *testing.T) {
			folder := openFolder(t, testDir(t))
			_, err := folder.StartTemporal(testContext(t), standIn(t, how))
			problem := requireProblem(t, err, CodeTemporalFailed)
			if how == "fails" {
				require.Contains(t, problem.WayOut, "no way")
			}
		})
	}
}

func TestTemporalThatIsMissingIsSaidPlainly(t *testing.T) {
	folder := openFolder(t, testDir(t))
	t.Setenv("PATH", t.TempDir())
	t.Setenv(temporalVariable, "")
	_, err := folder.StartTemporal(testContext(t), TemporalOptions{})
	problem := requireProblem(t, err, CodeTemporalMissing)
	require.Contains(t, problem.WayOut, "make build-devserver")
}

func TestTemporalKeepsItsPort(t *testing.T) {
	ctx := testContext(t)
	folder := openFolder(t, testDir(t))
	opts := standIn(t, "well")
	first, err := folder.StartTemporal(ctx, opts)
	require.NoError(t, err)
	require.NoError(t, first.Stop(ctx))
	second, err := folder.StartTemporal(ctx, opts)
	require.NoError(t, err)
	defer func() { require.NoError(t, second.Stop(ctx)) }()
	require.Equal(t, first.Address(), second.Address())
	require.Empty(t, first.Done())
}

func TestTemporalOfAnEarlierRunIsStopped(t *testing.T) {
	ctx := testContext(t)
	folder := openFolder(t, testDir(t))
	opts := standIn(t, "well")
	first, err := folder.StartTemporal(ctx, opts)
	require.NoError(t, err)
	second, err := folder.StartTemporal(ctx, opts)
	require.NoError(t, err)
	defer func() { require.NoError(t, second.Stop(ctx)) }()
	require.Eventually(t, first.child.hasExited, 5*time.Second, pollInterval)
	require.ErrorContains(t, <-first.Done(), "Temporal")
}

func TestProcessWithTheSamePidIsLeftAlone(t *testing.T) {
	ctx := testContext(t)
	bystander := exec.CommandContext(ctx, "sleep", "600")
	require.NoError(t, bystander.Start())
	defer func() {
		require.NoError(t, bystander.Process.Kill())
		_ = bystander.Wait()
	}()
	folder := openFolder(t, testDir(t))
	require.NoError(t, writeJSON(folder.file(temporalState), temporalRun{PID: bystander.Process.Pid, Started: "an earlier life"}))
	server, err := folder.StartTemporal(ctx, standIn(t, "well"))
	require.NoError(t, err)
	require.NoError(t, server.Stop(ctx))
	_, alive := identity(bystander.Process.Pid)
	require.True(t, alive)
}

// builtTemporal is the real temporal-dev, which `make build-devserver` leaves in bin/.
func builtTemporal(t *testing.T) string {
	t.Helper()
	binary := os.Getenv(temporalVariable)
	if binary == "" {
		binary = filepath.Join("..", "..", "bin", temporalProgram)
	}
	if _, err := os.Stat(binary); err != nil {
		t.Skip("no temporal-dev: run make build-devserver")
	}
	absolute, err := filepath.Abs(binary)
	require.NoError(t, err)
	return absolute
}

func TestOpenWorkflowAndSearchAttributesSurviveAKilledTemporal(t *testing.T) {
	ctx := testContext(t)
	folder := openFolder(t, testDir(t))
	postgres := startPostgres(t, folder)
	opts := TemporalOptions{
		Binary: builtTemporal(t), DatabaseURL: postgres.URL(maintenanceDB),
		Namespace: "test", Retention: 720 * time.Hour,
		SearchAttributes: map[string]string{"CampaignStage": "Keyword"},
	}
	first, err := folder.StartTemporal(ctx, opts)
	require.NoError(t, err)
	t.Cleanup(func() { _ = first.Stop(context.Background()) })
	response, err := http.Get(first.UI())
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusOK, response.StatusCode)

	stage := temporal.NewSearchAttributeKeyKeyword("CampaignStage")
	start := client.StartWorkflowOptions{
		ID: "campaign:1", TaskQueue: "campaigns",
		TypedSearchAttributes: temporal.NewSearchAttributes(stage.ValueSet("draft")),
	}
	func() {
		c := dialTemporal(t, first)
		defer c.Close()
		_, err := c.ExecuteWorkflow(ctx, start, "Campaign")
		require.NoError(t, err)
	}()
	require.NoError(t, first.child.cmd.Process.Kill())
	require.ErrorContains(t, <-first.Done(), "Temporal")

	opts.SearchAttributes["CampaignOwner"] = "Keyword" // new in a later release
	second, err := folder.StartTemporal(ctx, opts)
	require.NoError(t, err)
	t.Cleanup(func() { _ = second.Stop(context.Background()) })
	require.Equal(t, first.Address(), second.Address())
	c := dialTemporal(t, second)
	defer c.Close()
	described, err := c.DescribeWorkflowExecution(ctx, "campaign:1", "")
	require.NoError(t, err)
	require.Equal(t, enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, described.WorkflowExecutionInfo.Status)
	require.Eventually(t, func() bool {
		listed, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: `CampaignStage = 'draft' AND CampaignOwner IS NULL`})
		return err == nil && len(listed.Executions) == 1
	}, 10*time.Second, pollInterval)
	namespace, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: "test"})
	require.NoError(t, err)
	require.Equal(t, 720*time.Hour, namespace.Config.WorkflowExecutionRetentionTtl.AsDuration())
	c.Close()
	require.NoError(t, second.Stop(ctx))
}

func dialTemporal(t *testing.T, server *Temporal) client.Client {
	t.Helper()
	c, err := client.Dial(client.Options{HostPort: server.Address(), Namespace: server.Namespace()})
	require.NoError(t, err)
	return c
}
