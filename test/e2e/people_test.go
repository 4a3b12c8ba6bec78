package e2e_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/activities"
	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/apiuser"
	"github.com/musterhq/muster/internal/population"
	"github.com/musterhq/muster/ledger"
)

// people are the demo users of an instance, each with a session of their own.
type people struct {
	planner, manager, finance, operator, reviewer, auditor *apiuser.User
}

func (i *instance) people(t *testing.T) people {
	t.Helper()
	var p people
	for login, user := range map[string]**apiuser.User{
		population.Planner: &p.planner, population.Manager: &p.manager, population.Finance: &p.finance,
		population.Operator: &p.operator, population.Reviewer: &p.reviewer, population.Auditor: &p.auditor,
	} {
		var err error
		*user, err = apiuser.New(i.API, population.DemoLogin(login))
		require.NoError(t, err)
	}
	return p
}

// ask calls the API as a user; a write that is cut off is sent again under its key.
func ask[T any](t *testing.T, u *apiuser.User, send func(context.Context, *client.Session) (T, error)) (T, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return apiuser.Do(ctx, u, "", send)
}

// tell is ask for what must succeed.
func tell[T any](t *testing.T, u *apiuser.User, send func(context.Context, *client.Session) (T, error)) T {
	t.Helper()
	answer, err := ask(t, u, send)
	require.NoError(t, err, "as %s", u.Name())
	return answer
}

// running is a campaign as its people see it.
type running struct {
	people
	id     string
	number int64
}

// create makes a draft.
func (p people) create(t *testing.T, plan campaign.Plan) (*running, client.Revision) {
	t.Helper()
	made := tell(t, p.planner, func(ctx context.Context, s *client.Session) (*client.CreateCampaignResponse, error) {
		return s.CreateCampaignWithResponse(ctx, nil, client.NewCampaign{Plan: plan})
	}).JSON201
	return &running{people: p, id: made.Campaign.ID, number: made.Campaign.Number}, *made.Draft
}

func (r *running) submit(t *testing.T, draft client.Revision) {
	t.Helper()
	tell(t, r.planner, func(ctx context.Context, s *client.Session) (*client.SubmitCampaignResponse, error) {
		return s.SubmitCampaignWithResponse(ctx, r.id, nil, client.Submission{Revision: draft.Revision, Digest: draft.Digest})
	})
}

// decide signs, returns or rejects at the level that waits.
func (r *running) decide(t *testing.T, u *apiuser.User, decision campaign.Decision, words string) error {
	t.Helper()
	a := r.detail(t).Status.Approval
	level, open := a.Current()
	require.True(t, open, "no approval waits for %s", u.Name())
	_, err := ask(t, u, func(ctx context.Context, s *client.Session) (*client.DecideApprovalResponse, error) {
		return s.DecideApprovalWithResponse(ctx, r.id, nil, client.NewDecision{
			Revision: a.Revision, Digest: a.Digest, Level: level.Level, Decision: decision, Words: words,
		})
	})
	return err
}

// approve has the manager and then finance sign.
func (r *running) approve(t *testing.T) {
	t.Helper()
	require.NoError(t, r.decide(t, r.manager, campaign.DecisionApprove, "Approved."))
	require.NoError(t, r.decide(t, r.finance, campaign.DecisionApprove, "Approved."))
}

func (r *running) detail(t *testing.T) *client.CampaignDetail {
	t.Helper()
	return tell(t, r.auditor, func(ctx context.Context, s *client.Session) (*client.GetCampaignResponse, error) {
		return s.GetCampaignWithResponse(ctx, r.id)
	}).JSON200
}

// await waits until the campaign is as wanted.
func (r *running) await(t *testing.T, what string, wanted func(*client.CampaignDetail) bool) *client.CampaignDetail {
	t.Helper()
	var detail *client.CampaignDetail
	eventually(t, func() bool {
		detail = r.detail(t)
		require.Empty(t, detail.Status.Problem)
		return wanted(detail)
	}, "the campaign is %s", what)
	return detail
}

// awaitArchive waits until the campaign is closed and its histories are archived.
func (r *running) awaitArchive(t *testing.T) *client.CampaignDetail {
	t.Helper()
	return r.await(t, "closed and archived", func(d *client.CampaignDetail) bool { return d.Status.Stage.Final() && d.ArchivedRuns > 0 })
}

// targets returns the frozen targets.
func (r *running) targets(t *testing.T) campaign.TargetCount {
	t.Helper()
	found := tell(t, r.auditor, func(ctx context.Context, s *client.Session) (*client.GetTargetsResponse, error) {
		return s.GetTargetsWithResponse(ctx, r.id)
	}).JSON200
	require.True(t, found.Selected)
	return *found.Counts
}

type waveChannel struct {
	wave    int
	channel campaign.Channel
}

// contacts counts the contacts of each wave and channel by state.
func (r *running) contacts(t *testing.T) map[waveChannel]map[campaign.ContactState]int64 {
	t.Helper()
	all := map[waveChannel]map[campaign.ContactState]int64{}
	for _, c := range tell(t, r.auditor, func(ctx context.Context, s *client.Session) (*client.SummariseContactsResponse, error) {
		return s.SummariseContactsWithResponse(ctx, r.id)
	}).JSON200.Items {
		at := waveChannel{c.Wave, c.Channel}
		if all[at] == nil {
			all[at] = map[campaign.ContactState]int64{}
		}
		all[at][c.State] += c.Contacts
	}
	return all
}

func sum[K comparable](counts map[K]int64) (total int64) {
	for _, n := range counts {
		total += n
	}
	return total
}

// history returns the campaign's audit events, oldest first.
func (r *running) history(t *testing.T) []client.HistoryEvent {
	t.Helper()
	var all []client.HistoryEvent
	for cursor := ""; ; {
		page := tell(t, r.auditor, func(ctx context.Context, s *client.Session) (*client.ListHistoryResponse, error) {
			return s.ListHistoryWithResponse(ctx, r.id, &client.ListHistoryParams{Cursor: cursor})
		}).JSON200
		all = append(all, page.Items...)
		if cursor = page.Next; cursor == "" {
			return all
		}
	}
}

// evaluation returns the final report.
func (r *running) evaluation(t *testing.T) activities.Report {
	t.Helper()
	found := tell(t, r.auditor, func(ctx context.Context, s *client.Session) (*client.GetEvaluationResponse, error) {
		return s.GetEvaluationWithResponse(ctx, r.id)
	}).JSON200
	var report activities.Report
	require.NoError(t, json.Unmarshal(found.Report, &report))
	return report
}

// requireSound checks what must hold of every campaign that has ended: its rows agree
// with each other and with the ledger, everybody has a final state, everybody who was
// to be contacted is counted once, no line cost more than was signed for, and the
// archive replays.
func (i *instance) requireSound(t *testing.T, r *running) {
	t.Helper()
	st := i.open(t)
	broken, err := st.CheckInvariants(t.Context(), r.id)
	require.NoError(t, err)
	require.Empty(t, broken)
	unbalanced, err := ledger.New(st.Pool()).Check(t.Context())
	require.NoError(t, err)
	require.Empty(t, unbalanced)

	targets, contacts := r.targets(t), r.contacts(t)
	for at, states := range contacts {
		for state, n := range states {
			require.True(t, state.Settled(), "%d contacts of %v are %s in the end", n, at, state)
		}
	}
	detail := r.detail(t)
	for _, w := range detail.Status.Waves {
		if !w.Begun {
			continue
		}
		left := targets.Waves[w.Number-1].Treated
		for n, c := range w.Channels {
			states := contacts[waveChannel{w.Number, c}]
			if n == 0 {
				require.Equal(t, left, sum(states), "wave %d, %s: %v", w.Number, c, states)
			}
			require.LessOrEqual(t, sum(states), left, "wave %d, %s takes more than were left", w.Number, c)
			left = states[campaign.ContactFailed] + states[campaign.ContactExpired]
		}
	}

	report := r.evaluation(t)
	require.True(t, report.Targets.AddsUp)
	require.Equal(t, targets.Targets, report.Targets.Frozen)
	require.Zero(t, report.Control.ControlContacted)
	require.Empty(t, report.Budget.Exceeded)
	for _, line := range report.Budget.Lines {
		require.LessOrEqual(t, line.Actual+line.Committed, line.Planned, line.Line)
	}
	output := i.command(t, "replay", r.id)
	require.Contains(t, output, "this code decides again exactly as recorded")
}

// attempts counts, for a channel, the attempts that are paid for.
func (i *instance) attempts(t *testing.T, r *running, c campaign.Channel) (paid int64) {
	t.Helper()
	err := i.open(t).Pool().QueryRow(t.Context(), `SELECT count(*) FROM contact_attempt a
		JOIN contact c ON c.campaign_id = a.campaign_id AND c.id = a.contact_id
		WHERE a.campaign_id = $1 AND c.channel = $2 AND a.outcome IN ('accepted', 'worked')`, r.id, c).Scan(&paid)
	require.NoError(t, err)
	return paid
}
