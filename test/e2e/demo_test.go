package e2e_test

import (
	"context"
	"fmt"
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
	names := demo.Names(population.Kind(i.Demo))
	r, returned, inside := p.named(t, names[0]), p.named(t, names[1]), p.named(t, names[2])
	for _, x := range []*running{r, returned, inside} {
		x.awaitArchive(t)
		i.requireSound(t, x)
	}
	awaitPrinted(t, i.up, "Run them again: muster demo --again")
	for n := range names {
		require.Contains(t, i.up.printed(t), fmt.Sprintf("Campaign %d closed", n+1))
	}

	r.requireDemoCourse(t, i)
	returned.requireReturned(t)
	inside.requireInsideProgramme(t)
	r.requireCredit(t)
	i.requireDemoMoney(t, r)
	i.requireDemoMessages(t, r, returned, inside)
	i.requireCommands(t, r)
	keepHistories(t, i, r, "demo")
	// It outlives the campaign and its archive.
	keepHistory(t, i, campaign.CreditWorkflowID(r.id), "demo", "credit-CreditRelease")
	keepHistory(t, i, campaign.ImportWorkflowID(p.requireImport(t, i)), "demo", "import-ImportCustomers")

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
	awaitPrinted(t, i.up, "The demo campaigns have been run.")
	i.stop(t)
}

// named finds a campaign that the demonstration makes by itself.
func (p people) named(t *testing.T, name string) *running {
	t.Helper()
	r := &running{people: p}
	eventually(t, func() bool {
		items := tell(t, p.auditor, func(ctx context.Context, s *client.Session) (*client.ListCampaignsResponse, error) {
			return s.ListCampaignsWithResponse(ctx, &client.ListCampaignsParams{Q: name})
		}).JSON200.Items
		if len(items) == 0 {
			return false
		}
		require.Len(t, items, 1)
		r.id, r.number = items[0].ID, items[0].Number
		return true
	}, "the demonstration makes %s", name)
	return r
}

func awaitPrinted(t *testing.T, p *program, text string) {
	t.Helper()
	eventually(t, func() bool { return strings.Contains(p.printed(t), text) }, "%s prints %q", p.name, text)
}

// rounds returns how each round of approval ended, the first one first.
func (r *running) rounds(t *testing.T) (results []campaign.Decision, signers map[string]bool) {
	t.Helper()
	approval := tell(t, r.auditor, func(ctx context.Context, s *client.Session) (*client.GetApprovalResponse, error) {
		return s.GetApprovalWithResponse(ctx, r.id)
	}).JSON200
	signers = map[string]bool{}
	for _, s := range approval.SignOffs {
		if s.Counted {
			results = append(results, s.Decision)
			signers[s.User.Name] = true
		}
	}
	return results, signers
}

// requireReturned checks that a plan that came back was changed and signed again.
func (r *running) requireReturned(t *testing.T) {
	t.Helper()
	results, _ := r.rounds(t)
	require.Contains(t, results, campaign.DecisionReturn)
	require.Contains(t, results, campaign.DecisionApprove)
	detail := r.detail(t)
	require.Equal(t, 2, detail.InForce.Revision, "the returned revision is not the one in force")
	require.EqualValues(t, 500_00, detail.InForce.Plan.Budget[1].Amount)
}

// requireInsideProgramme checks that the owner's signature was enough and that the
// programme has paid.
func (r *running) requireInsideProgramme(t *testing.T) {
	t.Helper()
	results, signers := r.rounds(t)
	require.Equal(t, []campaign.Decision{campaign.DecisionApprove}, results)
	require.Equal(t, map[string]bool{"Oscar Owner": true}, signers)
	plan := r.detail(t).InForce.Plan
	programme := tell(t, r.planner, func(ctx context.Context, s *client.Session) (*client.GetProgrammeResponse, error) {
		return s.GetProgrammeWithResponse(ctx, plan.ProgrammeID)
	}).JSON200.Programme
	require.Equal(t, r.evaluation(t).Budget.Total.Actual, programme.Figures.Spent)
	require.Equal(t, programme.Ceiling-programme.Figures.Spent, programme.Figures.Available, "what was not spent is free again")
}

// requireCredit checks that credit was granted, used in part, and never beyond what was
// applied for.
func (r *running) requireCredit(t *testing.T) {
	t.Helper()
	lines := tell(t, r.auditor, func(ctx context.Context, s *client.Session) (*client.GetCreditResponse, error) {
		return s.GetCreditWithResponse(ctx, r.id)
	}).JSON200.Items
	require.Len(t, lines, 1)
	c := lines[0]
	require.Positive(t, c.Granted)
	require.Positive(t, c.Used)
	require.LessOrEqual(t, c.Promised, c.Reserved, "what is promised is held")
	require.Equal(t, c.Granted, c.Used+c.Expired+c.ClawedBack+c.Outstanding)
}

// requireDemoCourse checks who did what: three people signed, the planner could not, and
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

	results, signed := r.rounds(t)
	require.Equal(t, []campaign.Decision{campaign.DecisionApprove, campaign.DecisionApprove, campaign.DecisionApprove}, results)
	require.Len(t, signed, 3, "three different people signed")
	require.NotContains(t, signed, detail.Campaign.Planner.Name)

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
		if line.Credit != nil {
			want = report.Credit[0].Granted
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

// requireDemoMessages compares the SMS centre's journal with the contacts of all campaigns.
func (i *instance) requireDemoMessages(t *testing.T, all ...*running) {
	t.Helper()
	journal, err := smsc.ReadJournal(filepath.Join(i.dir, "smsc.jsonl"))
	require.NoError(t, err)
	known := 0
	for _, r := range all {
		messages, own := i.messages(t, r), &smsc.Journal{Receipts: journal.Receipts}
		for _, a := range journal.Accepted {
			if _, ours := messages[a.ContactID]; ours {
				own.Accepted = append(own.Accepted, a)
			}
		}
		require.NotEmpty(t, own.Accepted)
		known += len(own.Accepted)
		i.requireAcceptedOnce(t, r, own)
		for at, states := range r.contacts(t) {
			require.Zero(t, states[campaign.ContactUnknown], "%v", at)
		}
	}
	require.Len(t, journal.Accepted, known, "every message is some campaign's")
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
