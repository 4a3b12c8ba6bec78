package activities_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

func TestVerifyAsksWithTheGrantsOfThisMoment(t *testing.T) {
	f := newFixture(t, nil)
	claim := campaign.Claim{CampaignID: f.id, Action: campaign.ActCampaignPause, Actor: f.users["operator"], Reason: "storm"}
	require.NoError(t, f.Verify(f.ctx, claim))
	f.exec(`DELETE FROM role_grant WHERE user_id = $1`, claim.Actor.UserID)
	require.Equal(t, campaign.CodeForbidden, code(t, f.Verify(f.ctx, claim)), "revoked between request and effect")
	claim.Actor = f.users["agent"]
	require.Equal(t, campaign.CodeForbidden, code(t, f.Verify(f.ctx, claim)))
	f.exec(`UPDATE app_user SET disabled = true WHERE login = 'planner'`)
	require.Equal(t, campaign.CodeForbidden, code(t, f.Verify(f.ctx, campaign.Claim{CampaignID: f.id, Action: campaign.ActCampaignSubmit, Actor: f.users["planner"]})))
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM audit_event WHERE event = 'authority.campaign.pause' AND allowed AND data->>'reason' = 'storm'`))
	require.EqualValues(t, 3, f.count(`SELECT count(*) FROM audit_event WHERE NOT allowed AND data->>'code' = 'forbidden'`))
}

func TestSignOffCountsOnlyWhatWasSignedByWhoMay(t *testing.T) {
	f := newFixture(t, nil)
	routed := f.openRound()
	require.Len(t, routed.Route, 2)
	total, err := f.plan.BudgetTotal()
	require.NoError(t, err)
	require.Equal(t, total, routed.Facts.Amount)
	first, second := routed.Route[0], routed.Route[1]
	counted := func() int64 { return f.count(`SELECT count(*) FROM sign_off_counted`) }

	for name, change := range map[string]func(*store.SignOff){
		"another digest":   func(s *store.SignOff) { s.Digest = "x" },
		"another revision": func(s *store.SignOff) { s.Revision = 2 },
		"another level":    func(s *store.SignOff) { s.Level = 2 },
		"another person":   func(s *store.SignOff) { s.UserID = f.users["finance"].UserID },
		"another decision": func(s *store.SignOff) { s.Decision = campaign.DecisionReject },
		"another amount":   func(s *store.SignOff) { s.Amount = 1 },
		"other words":      func(s *store.SignOff) { s.Words = "only if" },
		"no such row":      func(s *store.SignOff) { s.ID = uuid.NewString() },
	} {
		require.Equal(t, campaign.CodeAssertionMismatch, code(t, f.CountSignOff(f.ctx, f.signOff("manager", first, change))), name)
	}
	require.Equal(t, campaign.CodeForbidden, code(t, f.CountSignOff(f.ctx, f.signOff("finance", first, nil))), "finance does not sign as manager")
	require.Equal(t, campaign.CodeSelfApproval, code(t, f.CountSignOff(f.ctx, f.signOff("planner", first, nil))), "the editor")
	f.exec(`ALTER TABLE approval_round DISABLE TRIGGER USER`)
	requested := `UPDATE approval_round SET requester = (SELECT id FROM app_user WHERE login = $1)`
	f.exec(requested, "manager")
	require.Equal(t, campaign.CodeSelfApproval, code(t, f.CountSignOff(f.ctx, f.signOff("manager", first, nil))), "the requester")
	f.exec(requested, "planner")
	stale := f.signOff("manager", first, func(s *store.SignOff) { s.Digest = "0000" })
	stale.Decide.Digest = "0000"
	require.Equal(t, campaign.CodeVersionChanged, code(t, f.CountSignOff(f.ctx, stale)))
	require.Zero(t, counted())

	good := f.signOff("manager", first, nil)
	for range 2 {
		require.NoError(t, f.CountSignOff(f.ctx, good))
		require.EqualValues(t, 1, counted())
	}
	f.exec(`INSERT INTO role_grant (user_id, role, unit) VALUES ($1, 'finance', 'operator')`, f.users["manager"].UserID)
	require.Equal(t, campaign.CodeSameActor, code(t, f.CountSignOff(f.ctx, f.signOff("manager", second, nil))))
	require.NoError(t, f.CountSignOff(f.ctx, f.signOff("finance", second, nil)))
	require.EqualValues(t, 2, counted())
	require.EqualValues(t, 13, f.count(`SELECT count(*) FROM audit_event WHERE NOT allowed`))
}

// A return ends the round: who signed before it may sign the next round over the same
// revision, at any one level.
func TestSignaturesBeforeAReturnDoNotStandInTheWay(t *testing.T) {
	f := newFixture(t, nil)
	routed := f.openRound()
	require.NoError(t, f.CountSignOff(f.ctx, f.signOff("manager", routed.Route[0], nil)))
	back := f.signOff("finance", routed.Route[1], func(s *store.SignOff) { s.Decision, s.Words = campaign.DecisionReturn, "too dear" })
	back.Decide.Decision, back.Decide.Words = campaign.DecisionReturn, "too dear"
	require.NoError(t, f.CountSignOff(f.ctx, back))
	routed = f.openRound()
	require.NoError(t, f.CountSignOff(f.ctx, f.signOff("manager", routed.Route[0], nil)))
	require.NoError(t, f.CountSignOff(f.ctx, f.signOff("finance", routed.Route[1], nil)))
}

func TestEscalatedLevelMayBeSignedByTheNext(t *testing.T) {
	f := newFixture(t, nil)
	routed := f.openRound()
	claim := f.signOff("finance", routed.Route[0], nil)
	require.Equal(t, campaign.CodeForbidden, code(t, f.CountSignOff(f.ctx, claim)))
	f.exec(`ALTER TABLE approval_round DISABLE TRIGGER USER`)
	f.exec(`UPDATE approval_round SET opened_at = opened_at - interval '30 days'`)
	require.NoError(t, f.CountSignOff(f.ctx, claim), "it is overdue by the database's clock")
}

func TestRouteNeedsADifferentPersonForEachLevel(t *testing.T) {
	f := newFixture(t, nil)
	f.exec(`UPDATE app_user SET disabled = true WHERE login = 'finance'`)
	noRoute := func(why string) {
		t.Helper()
		routed, err := f.RouteApproval(f.ctx, campaign.RouteRequest{PlanRef: f.ref(), Requester: f.users["planner"].UserID})
		require.NoError(t, err, "an amendment that needs no signature needs no route")
		require.Equal(t, campaign.CodeNoRoute, campaign.CodeOf(routed.NoRoute), why)
		require.Empty(t, routed.Route)
		require.Positive(t, routed.Facts.Amount)
		require.NotEmpty(t, routed.Digest)
	}
	noRoute("nobody is left to sign as finance")
	f.exec(`UPDATE app_user SET disabled = true WHERE login = 'manager2'`)
	f.exec(`INSERT INTO role_grant (user_id, role, unit) VALUES ($1, 'finance', 'operator')`, f.users["manager"].UserID)
	noRoute("one person for two levels")
	f.exec(`UPDATE app_user SET disabled = false WHERE login = 'manager2'`)
	routed, err := f.RouteApproval(f.ctx, campaign.RouteRequest{PlanRef: f.ref(), Requester: f.users["planner"].UserID})
	require.NoError(t, err)
	require.Nil(t, routed.NoRoute)
	require.Len(t, routed.Route, 2)
	f.exec(`INSERT INTO role_grant (user_id, role, unit) VALUES ($1, 'manager', 'operator')`, f.users["planner"].UserID)
	f.exec(`UPDATE app_user SET disabled = true WHERE login = 'manager2'`)
	noRoute("the editor does not count")
}

func TestProjectionKeepsTheNewestAndEveryEventOnce(t *testing.T) {
	f := newFixture(t, nil)
	project := func(version int64, event string, stage campaign.Stage) {
		t.Helper()
		require.NoError(t, f.Project(f.ctx, campaign.Projection{CampaignID: f.id, Version: version, Event: event, Actor: f.users["planner"], Status: campaign.Status{
			Stage: stage, Hold: campaign.HoldNone, Revision: 1, WaitAction: campaign.ActApprovalManager, DueAt: time.Now(),
		}}))
	}
	require.NoError(t, f.SetHold(f.ctx, campaign.SetHold{CampaignID: f.id, Hold: campaign.HoldPaused, Reason: "x"}))
	project(2, "campaign.submitted", campaign.StageApproval)
	project(1, "campaign.late", campaign.StageDraft)
	project(2, "campaign.submitted", campaign.StageDraft)
	c, err := f.Store.Campaign(f.ctx, f.id)
	require.NoError(t, err)
	require.Equal(t, campaign.StageApproval, c.Stage)
	require.EqualValues(t, 2, c.StatusVersion)
	require.Equal(t, campaign.ActApprovalManager, c.WaitAction)
	require.NotNil(t, c.DueAt)
	require.True(t, c.Started)
	require.Equal(t, campaign.HoldPaused, c.Hold, "a projection never lifts a hold")
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM audit_event WHERE event = 'campaign.submitted' AND event_key = $1`, fmt.Sprintf("%s:2:campaign.submitted", f.id)))
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM audit_event WHERE event = 'campaign.late'`))
	require.NoError(t, f.Remind(f.ctx, campaign.Reminder{CampaignID: f.id, Subject: "approval", Number: 1, DueAt: time.UnixMilli(5)}))
	require.NoError(t, f.Remind(f.ctx, campaign.Reminder{CampaignID: f.id, Subject: "approval", Number: 1, DueAt: time.UnixMilli(5)}))
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM audit_event WHERE event = 'approval.reminded'`))
}

func TestLoadPlanChecksTheDigest(t *testing.T) {
	f := newFixture(t, nil)
	loaded, err := f.Store.LoadPlan(f.ctx, f.ref())
	require.NoError(t, err)
	require.Equal(t, f.plan, loaded.Plan)
	_, err = f.Store.LoadPlan(f.ctx, campaign.PlanRef{CampaignID: f.id, Revision: 9})
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(err))
	f.exec(`ALTER TABLE plan_revision DISABLE TRIGGER USER`)
	f.exec(`UPDATE plan_revision SET plan = jsonb_set(plan, '{budget,0,amount}', '1')`)
	_, err = f.Store.LoadPlan(f.ctx, f.ref())
	require.Equal(t, campaign.CodeAssertionMismatch, campaign.CodeOf(err))
}

func TestFailuresKeepTheirCode(t *testing.T) {
	f := newFixture(t, nil)
	canceled, cancel := context.WithCancel(f.ctx)
	cancel()
	_, err := f.Progress(canceled, campaign.ChannelRef{CampaignID: f.id})
	require.ErrorIs(t, err, context.Canceled)
	var app *temporal.ApplicationError
	require.False(t, errors.As(err, &app), "a cancellation is no failure")

	_, err = f.Progress(f.ctx, campaign.ChannelRef{CampaignID: "no uuid"})
	require.ErrorAs(t, err, &app)
	require.True(t, app.NonRetryable(), "no repetition makes it a UUID")
	f.Store.Close()
	_, err = f.Progress(f.ctx, campaign.ChannelRef{CampaignID: f.id})
	require.ErrorAs(t, err, &app)
	require.Equal(t, string(campaign.CodeInternal), app.Type())
	require.False(t, app.NonRetryable(), "a database that is away comes back")
	var pg *pgconn.PgError
	require.False(t, errors.As(err, &pg), "the application error is the outermost and only error")
}
