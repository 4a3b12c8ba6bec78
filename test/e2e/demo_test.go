package e2e_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/evaluation"
	"github.com/musterhq/muster/internal/demo"
	"github.com/musterhq/muster/internal/population"
	"github.com/musterhq/muster/internal/sim/smsc"
)

// TestDemo is the first thing that a newcomer does: one command, one whole campaign.
func TestDemo(t *testing.T) {
	t.Parallel()
	var data []string
	if folder := os.Getenv("MUSTER_DATA"); folder != "" {
		data = append(data, "MUSTER_DATA="+folder)
	}
	i := newInstance(t, data, "--demo")
	i.start(t)
	p := i.people(t)
	r := p.first(t)
	r.awaitArchive(t)
	awaitPrinted(t, i.up, "Campaign 1 closed")

	i.requireSound(t, r)
	r.requireDemoCourse(t, i)
	i.requireDemoMoney(t, r)
	i.requireDemoMessages(t, r)
	i.requireCommands(t, r)
	keepHistories(t, i, r, "demo")

	status, _ := get(i.TemporalUI)
	require.Equal(t, http.StatusOK, status, "Temporal's web UI")
	status, metrics := get(i.API + "/metrics")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, metrics, "muster_http_request_seconds_count")

	// A simulator that dies is started again.
	i.child(t, "sim callcentre")
	kill(t, tree(t, i.child(t, "sim smsc").pid))
	eventually(t, func() bool {
		c, err := net.Dial("tcp", i.SMPPAddress)
		return err == nil && c.Close() == nil
	}, "the SMS centre is back")

	i.stop(t)
	i.start(t)
	require.Equal(t, campaign.StageClosed, r.detail(t).Status.Stage)
	awaitPrinted(t, i.up, "1 demo campaign(s) have been run.")
	i.stop(t)
}

// first finds the instance's first campaign, which the demonstration makes by itself.
func (p people) first(t *testing.T) *running {
	t.Helper()
	var items []client.CampaignSummary
	eventually(t, func() bool {
		items = tell(t, p.auditor, func(ctx context.Context, s *client.Session) (*client.ListCampaignsResponse, error) {
			return s.ListCampaignsWithResponse(ctx, nil)
		}).JSON200.Items
		return len(items) > 0
	}, "the demonstration makes a campaign")
	require.Len(t, items, 1)
	return &running{people: p, id: items[0].ID, number: items[0].Number}
}

func awaitPrinted(t *testing.T, p *program, text string) {
	t.Helper()
	eventually(t, func() bool { return strings.Contains(p.printed(t), text) }, "%s prints %q", p.name, text)
}

// requireDemoCourse checks who did what: two people signed, the planner could not, and
// the review's recommendation changed the second wave.
func (r *running) requireDemoCourse(t *testing.T, i *instance) {
	t.Helper()
	detail := r.detail(t)
	require.Equal(t, campaign.StageClosed, detail.Status.Stage)
	require.Equal(t, "completed", detail.Status.Ended)
	archive := tell(t, r.auditor, func(ctx context.Context, s *client.Session) (*client.ListArchiveResponse, error) {
		return s.ListArchiveWithResponse(ctx, r.id)
	}).JSON200.Items
	require.Len(t, archive, detail.ArchivedRuns)

	approval := tell(t, r.auditor, func(ctx context.Context, s *client.Session) (*client.GetApprovalResponse, error) {
		return s.GetApprovalWithResponse(ctx, r.id)
	}).JSON200
	signed := map[string]int{}
	for _, s := range approval.SignOffs {
		if s.Counted {
			signed[s.User.ID]++
			require.Equal(t, campaign.DecisionApprove, s.Decision)
		}
	}
	require.Len(t, signed, 2, "two different people signed")
	require.NotContains(t, signed, detail.Campaign.Planner.ID)

	refused := 0
	for _, e := range r.history(t) {
		if !e.Allowed {
			refused++
			require.Equal(t, detail.Campaign.Planner.ID, e.ActorID)
			require.Contains(t, string(e.Data), string(campaign.CodeSelfApproval))
		}
	}
	require.Equal(t, 1, refused, "the planner's own signature is on record as refused")

	reviews := tell(t, r.auditor, func(ctx context.Context, s *client.Session) (*client.ListReviewsResponse, error) {
		return s.ListReviewsWithResponse(ctx, r.id)
	}).JSON200.Items
	require.Len(t, reviews, 1)
	require.Equal(t, campaign.ReviewAccept, reviews[0].Decision)
	require.False(t, reviews[0].ByDefault)
	planned := demo.Plan(population.Kind(i.Demo)).Waves[1].Channels
	require.NotEqual(t, planned, detail.Status.Waves[1].Channels, "the accepted recommendation changes the second wave")
	require.Equal(t, detail.InForce.Plan.Waves[1].Channels, detail.Status.Waves[1].Channels)
}

// requireDemoMoney compares the report's amounts with what happened.
func (i *instance) requireDemoMoney(t *testing.T, r *running) {
	t.Helper()
	report, plan := r.evaluation(t), r.detail(t).InForce.Plan
	actual := map[string]int64{}
	for _, line := range report.Budget.Lines {
		actual[line.Line] = line.Actual
	}
	for _, line := range plan.Budget {
		want := line.Amount
		switch line.Driver {
		case campaign.DriverPerContact:
			want = line.UnitCost * i.attempts(t, r, line.Channel)
		case campaign.DriverPerOrder:
			want = line.UnitCost * report.Goal.Actual
		}
		require.Equal(t, want, actual[line.Line], line.Line)
		require.Positive(t, want, "the demonstration spends on every line, also on %s", line.Line)
	}
	require.True(t, report.Simulated)
	require.Equal(t, report.Control.TreatedSuccesses, report.Goal.Actual)
	if plan.Measurement.Coverage == campaign.CoverageContacted {
		require.Equal(t, "not_estimable", report.Control.IncrementalEffect)
		require.Equal(t, evaluation.ReasonControlOutcomesNotObserved, report.Control.Reason)
		require.False(t, report.Economics.IncrementalNet.Estimable)
	} else {
		require.Equal(t, "estimated", report.Control.IncrementalEffect)
	}
}

// requireDemoMessages compares the SMS centre's journal with the contacts.
func (i *instance) requireDemoMessages(t *testing.T, r *running) {
	t.Helper()
	journal, err := smsc.ReadJournal(filepath.Join(i.dir, "smsc.jsonl"))
	require.NoError(t, err)
	i.requireAcceptedOnce(t, r, journal)
	require.NotEmpty(t, journal.Accepted)
	for at, states := range r.contacts(t) {
		require.Zero(t, states[campaign.ContactUnknown], "%v", at)
	}
}

// requireCommands tries the commands that look at a campaign.
func (i *instance) requireCommands(t *testing.T, r *running) {
	t.Helper()
	detail := r.detail(t)
	list := i.command(t, "campaign", "list")
	require.Contains(t, list, detail.Campaign.Name)
	require.Contains(t, list, "closed")
	show := i.command(t, "campaign", "show", strconv.FormatInt(r.number, 10))
	require.Contains(t, show, r.id)
	require.Contains(t, show, "ended: completed")
	watch := i.command(t, "campaign", "watch", r.id)
	require.Contains(t, watch, "REFUSED")
	replay := i.command(t, "replay", strconv.FormatInt(r.number, 10))
	require.Contains(t, replay, "every digest matches")
}
