package store_test

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// planner adds a unit and a user who may plan for it.
func planner(t *testing.T, st *store.Store) campaign.Actor {
	t.Helper()
	require.NoError(t, st.CreateUnit(t.Context(), "operator", "Operator"))
	id, err := st.AddUser(t.Context(), store.User{Login: "planner", Name: "Paula", PasswordHash: aHash}, []campaign.Grant{{Role: campaign.RolePlanner, Unit: "operator"}}, campaign.Actor{})
	require.NoError(t, err)
	return campaign.Actor{UserID: id, Name: "Paula"}
}

func TestARequestWritesOneRevision(t *testing.T) {
	ctx, st := context.Background(), open(t)
	by := planner(t, st)
	id, plan := uuid.NewString(), campaign.Plan{Name: "Spring", Unit: "operator"}
	_, err := st.CreateCampaign(ctx, id, plan, by)
	require.NoError(t, err)
	plan.Name = "Summer"
	next := store.NewRevision{Plan: plan, EditorID: by.UserID, Base: 1, Request: "r1", Note: "warmer"}
	var g sync.WaitGroup
	for range 8 {
		g.Go(func() {
			loaded, err := st.AddRevision(ctx, id, next)
			if err != nil || loaded.Revision != 2 || loaded.Base != 1 || loaded.Digest != plan.Digest() {
				t.Errorf("%+v %v", loaded, err)
			}
		})
	}
	g.Wait()
	next.Request = "r2"
	loaded, err := st.AddRevision(ctx, id, next)
	require.NoError(t, err)
	require.Equal(t, 3, loaded.Revision, "another request with the same words is another revision")
	read, err := st.LoadPlan(ctx, campaign.PlanRef{CampaignID: id, Revision: 3})
	require.NoError(t, err)
	require.Equal(t, loaded, read)
	revisions, err := st.Revisions(ctx, id)
	require.NoError(t, err)
	require.Equal(t, "warmer", revisions[1].Note)
	require.Equal(t, 1, *revisions[1].Base)
	require.Nil(t, revisions[2].Base)
	_, err = st.Pool().Exec(ctx, `INSERT INTO plan_revision (campaign_id, revision, digest, plan, editor_id, request_id) VALUES ($1, 9, '', '{}', $2, 'r1')`, id, by.UserID)
	require.ErrorContains(t, err, "plan_revision_request", "the database keeps it by itself")
}

// Numbers have no gaps, whatever is refused, repeated or done at the same time.
func TestCampaignNumbersHaveNoGaps(t *testing.T) {
	ctx, st := context.Background(), open(t)
	by := planner(t, st)
	var g sync.WaitGroup
	for range 10 {
		id := uuid.NewString()
		for range 2 {
			g.Go(func() {
				if _, err := st.CreateCampaign(ctx, id, campaign.Plan{Name: "Spring", Unit: "operator"}, by); err != nil {
					t.Error(err)
				}
			})
		}
		g.Go(func() {
			if _, err := st.CreateCampaign(ctx, uuid.NewString(), campaign.Plan{Name: "Spring", Unit: "nowhere"}, by); campaign.CodeOf(err) != campaign.CodeInvalidPlan {
				t.Error(err)
			}
		})
	}
	g.Wait()
	rows, err := st.Pool().Query(ctx, `SELECT number FROM campaign ORDER BY number`)
	require.NoError(t, err)
	numbers, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	require.NoError(t, err)
	require.Equal(t, []int64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, numbers)
}

// What was written before revisions knew their request and base is found again, and
// numbers go on where they were.
func TestOlderRevisionsAndNumbersAreTakenOver(t *testing.T) {
	ctx, st := context.Background(), openOlder(t, 3)
	id, user, request := uuid.NewString(), st.user, uuid.NewString()
	plan := campaign.Plan{Name: "Spring"}
	text, err := json.Marshal(plan)
	require.NoError(t, err)
	st.exec(`INSERT INTO campaign (id, name, unit, planner_id, draft_revision, simulated) OVERRIDING SYSTEM VALUE VALUES ($1, 'Spring', 'operator', $2, 5, true)`, id, user)
	for revision, note := range []string{"", "", "recommendation of review 1", "more [x] [" + request + "]", "my own words [no id]"} {
		st.exec(`INSERT INTO plan_revision (campaign_id, revision, digest, plan, editor_id, note, created_at) VALUES ($1, $2::integer, $3, $4, $5, $6, now() + $2::integer * interval '1 hour')`,
			id, revision+1, plan.Digest(), text, user, note)
	}
	for _, inForce := range []int{2, 3} {
		st.exec(`INSERT INTO audit_event (at, campaign_id, event, data) VALUES (now() + $2::integer * interval '1 hour', $1, 'x', jsonb_build_object('version', 1, 'revision', $2::integer))`, id, inForce)
	}
	number := one[int64](t, st.Store, `SELECT number FROM campaign`)

	st.migrate()
	rows, err := st.Pool().Query(ctx, `SELECT note || '|' || coalesce(request_id, '') || '|' || coalesce(base, 0) FROM plan_revision ORDER BY revision`)
	require.NoError(t, err)
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Equal(t, []string{"||0", "||0", "recommendation of review 1|review:1|2", "more [x]|" + request + "|3", "my own words [no id]||0"}, got)
	_, err = st.Pool().Exec(ctx, `UPDATE plan_revision SET note = 'x'`)
	require.ErrorContains(t, err, "never changed", "revisions are append-only again")

	again, err := st.AddRevision(ctx, id, store.NewRevision{Plan: plan, EditorID: user, Base: 3, Request: request})
	require.NoError(t, err)
	require.Equal(t, 4, again.Revision, "a request that is tried again across the migration")
	next, err := st.CreateCampaign(ctx, uuid.NewString(), campaign.Plan{Name: "Summer", Unit: "operator"}, campaign.Actor{UserID: user})
	require.NoError(t, err)
	require.Equal(t, number+1, next.Number)
}

func TestWaveEventsNameTheirWave(t *testing.T) {
	ctx, st := context.Background(), open(t)
	by := planner(t, st)
	id := uuid.NewString()
	_, err := st.CreateCampaign(ctx, id, campaign.Plan{Name: "Spring", Unit: "operator"}, by)
	require.NoError(t, err)
	for version, p := range []campaign.Projection{{Event: "stage.running"}, {Event: "wave.begun", Wave: 1}, {Event: "wave.begun", Wave: 2}, {Event: "wave.failed", Wave: 1, Reason: "ended from outside"}} {
		p.CampaignID, p.Version = id, int64(version+1)
		require.NoError(t, st.Project(ctx, p))
	}
	events, err := st.Events(ctx, id, 0, 100)
	require.NoError(t, err)
	var told, why []any
	for _, e := range events {
		if slices.Contains([]string{"stage.running", "wave.begun", "wave.failed"}, e.Event) {
			told, why = append(told, e.Data["wave"]), append(why, e.Data["reason"])
		}
	}
	require.Equal(t, []any{nil, 1.0, 2.0, 1.0}, told)
	require.Equal(t, []any{nil, nil, nil, "ended from outside"}, why)
}
