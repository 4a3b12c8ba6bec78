package activities_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/musterhq/muster/assertion"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// What slips past the API and the workflow, or is done to the rows by somebody who may
// change them, begins no dispatch and leaves an event.
func TestNoDispatchWithoutSignaturesThatHold(t *testing.T) {
	amended := func(f *fixture, sql string, args ...any) {
		for _, table := range []string{"sign_off", "sign_off_counted", "plan_revision", "approval_round"} {
			f.exec(`ALTER TABLE ` + table + ` DISABLE TRIGGER USER`)
		}
		require.Positive(f.t, f.exec(sql, args...), sql)
	}
	sql := func(statement string) func(*fixture) { return func(f *fixture) { amended(f, statement) } }
	for name, tt := range map[string]struct {
		spoil func(*fixture)
		in    func(*campaign.DispatchInput)
		code  campaign.Code
	}{
		"nobody signed":               {spoil: sql(`DELETE FROM sign_off_counted`), code: campaign.CodeStateConflict},
		"one level of two":            {spoil: sql(`DELETE FROM sign_off_counted WHERE level = 2`), code: campaign.CodeStateConflict},
		"no round":                    {spoil: sql(`DELETE FROM approval_round`), code: campaign.CodeStateConflict},
		"the round was withdrawn":     {spoil: sql(`UPDATE approval_round SET result = 'withdrawn', closed_at = now()`), code: campaign.CodeStateConflict},
		"the route was shortened":     {spoil: sql(`UPDATE approval_round SET route = jsonb_path_query_array(route, '$[0]')`), code: campaign.CodeAssertionMismatch},
		"the amount was raised":       {spoil: sql(`UPDATE sign_off SET amount = amount + 1`), code: campaign.CodeAssertionMismatch},
		"amount and round raised":     {spoil: sql(`WITH r AS (UPDATE approval_round SET amount = amount + 1) UPDATE sign_off SET amount = amount + 1`), code: campaign.CodeAssertionMismatch},
		"the words were changed":      {spoil: sql(`UPDATE sign_off SET words = 'gladly' WHERE level = 2`), code: campaign.CodeAssertionMismatch},
		"a rejection made a consent":  {spoil: rejected, code: campaign.CodeAssertionMismatch},
		"another person's name":       {spoil: sql(`UPDATE sign_off SET user_id = (SELECT id FROM app_user WHERE login = 'manager2') WHERE level = 1`), code: campaign.CodeAssertionMismatch},
		"the role was changed":        {spoil: sql(`UPDATE sign_off SET role = 'finance' WHERE level = 1`), code: campaign.CodeAssertionMismatch},
		"it was never signed":         {spoil: sql(`UPDATE sign_off SET assertion = ''`), code: campaign.CodeForgedDecision},
		"it was signed elsewhere":     {spoil: signedElsewhere, code: campaign.CodeForgedDecision},
		"replayed from another":       {spoil: replayed, code: campaign.CodeAssertionMismatch},
		"it counted as something":     {spoil: sql(`UPDATE sign_off_counted SET action = 'campaign.read' WHERE level = 1`), code: campaign.CodeAssertionMismatch},
		"the plan was changed":        {spoil: sql(`UPDATE plan_revision SET plan = jsonb_set(plan, '{offer,name}', '"Triple data"')`), code: campaign.CodeAssertionMismatch},
		"plan and digests changed":    {spoil: otherPlan, code: campaign.CodeAssertionMismatch},
		"a signer wrote the plan":     {spoil: sql(`UPDATE plan_revision SET editor_id = (SELECT id FROM app_user WHERE login = 'finance')`), code: campaign.CodeSelfApproval},
		"a signer submitted it":       {spoil: sql(`UPDATE approval_round SET requester = (SELECT id FROM app_user WHERE login = 'finance')`), code: campaign.CodeSelfApproval},
		"the role was revoked":        {spoil: sql(`DELETE FROM role_grant WHERE user_id = (SELECT id FROM app_user WHERE login = 'finance')`), code: campaign.CodeForbidden},
		"the signer was disabled":     {spoil: sql(`UPDATE app_user SET disabled = true WHERE login = 'manager'`), code: campaign.CodeForbidden},
		"the campaign does not run":   {spoil: sql(`UPDATE campaign SET stage = 'approval'`), code: campaign.CodeStateConflict},
		"the campaign is over":        {spoil: sql(`UPDATE campaign SET stage = 'closed'`), code: campaign.CodeStateConflict},
		"the wave is not due":         {spoil: notDue, code: campaign.CodeStateConflict},
		"no such wave":                {in: func(in *campaign.DispatchInput) { in.Wave = 3 }, code: campaign.CodeInvalidPlan},
		"another channel's turn":      {in: func(in *campaign.DispatchInput) { in.Wave = 1 }, code: campaign.CodeStateConflict},
		"channels left out":           {in: func(in *campaign.DispatchInput) { in.Wave, in.After = 1, []campaign.Channel{campaign.ChannelSMS} }, code: campaign.CodeStateConflict},
		"targets that are not frozen": {in: func(in *campaign.DispatchInput) { in.Snapshot = 2 }, code: campaign.CodeStateConflict},
		"a revision that is not":      {in: func(in *campaign.DispatchInput) { in.Revision = 2 }, code: campaign.CodeNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			f.run()
			if tt.spoil != nil {
				tt.spoil(f)
			}
			in := campaign.DispatchInput{CampaignID: f.id, Wave: 2, Snapshot: 1, Revision: 1, Channel: campaign.ChannelSMS, ClosesAt: time.Now().Add(time.Minute)}
			if tt.in != nil {
				tt.in(&in)
			}
			_, err := f.CreateContacts(f.ctx, in)
			require.Equal(t, campaign.CodeDispatchRefused, code(t, err), "%v", err)
			var app *temporal.ApplicationError
			require.ErrorAs(t, err, &app)
			require.True(t, app.NonRetryable())
			require.Zero(t, f.count(`SELECT count(*) FROM contact`))
			require.Zero(t, f.count(`SELECT count(*) FROM contact_batch`))
			require.EqualValues(t, 1, f.count(`SELECT count(*) FROM audit_event WHERE event = 'dispatch.refused' AND NOT allowed AND campaign_id = $1
				AND data->>'code' = $2 AND data->>'reason' <> ''`, f.id, tt.code), "%v", err)
		})
	}
}

// rejected turns what was a rejection into a consent.
func rejected(f *fixture) {
	f.t.Helper()
	claim := f.signOff("finance", f.round.Route[1], func(o *store.SignOff) { o.Decision = campaign.DecisionReject })
	f.exec(`ALTER TABLE sign_off DISABLE TRIGGER USER`)
	f.exec(`ALTER TABLE sign_off_counted DISABLE TRIGGER USER`)
	f.exec(`UPDATE sign_off SET decision = 'approve' WHERE id = $1`, claim.Decide.SignOffID)
	f.exec(`UPDATE sign_off_counted SET sign_off_id = $1 WHERE level = 2`, claim.Decide.SignOffID)
}

// signedElsewhere has somebody with keys of their own sign.
func signedElsewhere(f *fixture) {
	f.t.Helper()
	keys := f.keys
	f.keys = newKeys(f.t)
	claim := f.signOff("finance", f.round.Route[1], nil)
	f.keys = keys
	f.exec(`ALTER TABLE sign_off_counted DISABLE TRIGGER USER`)
	f.exec(`UPDATE sign_off_counted SET sign_off_id = $1 WHERE level = 2`, claim.Decide.SignOffID)
}

// replayed shows the genuine assertion that finance gave another campaign.
func replayed(f *fixture) {
	f.t.Helper()
	id, round := f.id, f.round
	f.round = campaign.Round{}
	f.draft(nil)
	f.openRound()
	other := f.signOff("finance", f.round.Route[1], nil)
	f.id, f.round = id, round
	f.exec(`ALTER TABLE sign_off DISABLE TRIGGER USER`)
	f.exec(`UPDATE sign_off SET assertion = (SELECT assertion FROM sign_off WHERE id = $1) WHERE campaign_id = $2 AND level = 2`, other.Decide.SignOffID, f.id)
}

// otherPlan replaces the plan and every digest of it.
func otherPlan(f *fixture) {
	f.t.Helper()
	other := f.plan
	other.Offer.Name = "Triple data"
	for _, table := range []string{"sign_off", "plan_revision", "approval_round"} {
		f.exec(`ALTER TABLE ` + table + ` DISABLE TRIGGER USER`)
	}
	f.exec(`UPDATE plan_revision SET plan = $1, digest = $2`, other, other.Digest())
	f.exec(`UPDATE approval_round SET digest = $1`, other.Digest())
	f.exec(`UPDATE sign_off SET digest = $1, content_digest = $2`, other.Digest(), other.Digests().Content)
}

// notDue has the second wave begin in an hour.
func notDue(f *fixture) {
	f.t.Helper()
	waves := f.waves()
	waves[1].Begun, waves[1].StartsAt = false, time.Now().Add(time.Hour)
	require.NoError(f.t, f.Project(f.ctx, campaign.Projection{CampaignID: f.id, Version: 2, Event: "test", Status: campaign.Status{
		Stage: campaign.StageRunning, Hold: campaign.HoldNone, Revision: 1, Waves: waves,
	}}))
}

// order returns what the API would send for a pause, with its claim.
func (f *fixture) order(login string, change func(*campaign.CommandClaim)) campaign.CommandClaim {
	f.t.Helper()
	order := campaign.ChangeHold{Command: campaign.Command{UpdateID: uuid.NewString(), Actor: f.users[login], PolicyVersion: "1"}, Reason: "storm"}
	digest, err := campaign.PayloadDigest(&order)
	require.NoError(f.t, err)
	order.Assertion, err = assertion.Sign(f.keys.Ring(), assertion.Command{
		ID: order.UpdateID, UserID: order.Actor.UserID, CampaignID: f.id, Name: campaign.UpdatePause, PayloadDigest: digest, IssuedAt: time.Now().Unix(),
	})
	require.NoError(f.t, err)
	claim := campaign.CommandClaim{CampaignID: f.id, Name: campaign.UpdatePause, Command: order.Command, Digest: digest}
	if change != nil {
		change(&claim)
	}
	return claim
}

func TestForgedCommandsAreRefusedAndTold(t *testing.T) {
	f := newFixture(t, nil)
	genuine := f.order("operator", nil)
	require.NoError(t, f.Authenticate(f.ctx, genuine))
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM command_given WHERE id = $1 AND user_id = $2`, genuine.Command.UpdateID, f.users["operator"].UserID))
	first := f.id
	f.draft(nil)
	for name, tt := range map[string]struct {
		change func(*campaign.CommandClaim)
		fault  string
		code   campaign.Code
	}{
		"nothing signed": {func(c *campaign.CommandClaim) { c.Command.Assertion = "" }, "malformed", campaign.CodeForgedDecision},
		"made up":        {func(c *campaign.CommandClaim) { c.Command.Assertion = "a.b.c" }, "malformed", campaign.CodeForgedDecision},
		"cut off": {func(c *campaign.CommandClaim) {
			c.Command.Assertion = c.Command.Assertion[:strings.LastIndexByte(c.Command.Assertion, '.')+1]
		}, "signature", campaign.CodeForgedDecision},
		"by keys of their own": {func(c *campaign.CommandClaim) {
			c.Command.Assertion = (&fixture{t: t, keys: newKeys(t), users: f.users, id: f.id}).order("operator", nil).Command.Assertion
		}, "unknown_key", campaign.CodeForgedDecision},
		"another's name":      {func(c *campaign.CommandClaim) { c.Command.Actor = f.users["manager"] }, "mismatch", campaign.CodeAssertionMismatch},
		"another command":     {func(c *campaign.CommandClaim) { c.Name = campaign.UpdateResume }, "mismatch", campaign.CodeAssertionMismatch},
		"other words":         {func(c *campaign.CommandClaim) { c.Digest = "x" }, "mismatch", campaign.CodeAssertionMismatch},
		"another update":      {func(c *campaign.CommandClaim) { c.Command.UpdateID = "x" }, "mismatch", campaign.CodeAssertionMismatch},
		"another campaign":    {func(c *campaign.CommandClaim) { c.CampaignID = first }, "mismatch", campaign.CodeAssertionMismatch},
		"shown a second time": {func(c *campaign.CommandClaim) { require.NoError(t, f.Authenticate(f.ctx, *c)) }, "mismatch", campaign.CodeAssertionMismatch},
		"text that cannot be": {func(c *campaign.CommandClaim) {
			c.Command.Actor.Name = "\x00\xff\u202e" + strings.Repeat("x", 1000)
			c.Command.Assertion = ""
		}, "malformed", campaign.CodeForgedDecision},
		"an actor who is no id": {func(c *campaign.CommandClaim) { c.Command.Actor.UserID = "'; DROP" }, "mismatch", campaign.CodeAssertionMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			before := f.count(`SELECT coalesce(max(seq), 0) FROM audit_event`)
			err := f.Authenticate(f.ctx, f.order("operator", tt.change))
			require.Equal(t, tt.code, code(t, err))
			require.EqualValues(t, 1, f.count(`SELECT count(*) FROM audit_event WHERE seq > $1 AND event = 'command.forged' AND NOT allowed
				AND actor_id IS NULL AND data->>'fault' = $2 AND data->>'command' <> ''`, before, tt.fault), "%v", err)
		})
	}
}

// A command that an earlier attempt of the same call has given is no second one: the
// activity's key is the same. (Outside of an activity each call has a key of its own.)
func TestACommandIsGivenOnceByOneCall(t *testing.T) {
	f := newFixture(t, nil)
	claim := f.order("operator", nil)
	for range 3 {
		require.NoError(t, f.Store.GiveCommand(f.ctx, claim, "call-1"))
	}
	require.Equal(t, campaign.CodeAssertionMismatch, campaign.CodeOf(f.Store.GiveCommand(f.ctx, claim, "call-2")))
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM command_given`))
}

func TestASignOffCountsOnlyIfTheRowIsWhatWasSigned(t *testing.T) {
	for name, c := range map[string]struct {
		spoil string
		code  campaign.Code
	}{
		"no assertion":      {`UPDATE sign_off SET assertion = ''`, campaign.CodeForgedDecision},
		"another authority": {`UPDATE sign_off SET authority = '1'`, campaign.CodeAssertionMismatch},
		"another log-in":    {`UPDATE sign_off SET auth_time = now()`, campaign.CodeAssertionMismatch},
		"another content":   {`UPDATE sign_off SET content_digest = audience_digest`, campaign.CodeAssertionMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			claim := f.signOff("manager", f.openRound().Route[0], nil)
			f.exec(`ALTER TABLE sign_off DISABLE TRIGGER USER`)
			require.Positive(t, f.exec(c.spoil))
			require.Equal(t, c.code, code(t, f.CountSignOff(f.ctx, claim)))
			require.Zero(t, f.count(`SELECT count(*) FROM sign_off_counted`))
			require.EqualValues(t, 1, f.count(`SELECT count(*) FROM audit_event WHERE NOT allowed AND data->>'code' = $1`, c.code))
		})
	}
}

func TestForgedReportsAreFoundByTheRows(t *testing.T) {
	f := newFixture(t, nil)
	confirm := func(in campaign.ReportClaim) bool {
		t.Helper()
		in.CampaignID, in.Revision = f.id, 1
		before := f.count(`SELECT count(*) FROM audit_event WHERE event = 'report.forged' AND NOT allowed AND data->>'report' = $1`, in.Report.Kind)
		got, err := f.ConfirmReport(f.ctx, in)
		require.NoError(t, err)
		after := f.count(`SELECT count(*) FROM audit_event WHERE event = 'report.forged' AND NOT allowed AND data->>'report' = $1`, in.Report.Kind)
		require.Equal(t, got.True, before == after, "an event for each forgery and for nothing else")
		return got.True
	}
	report := func(kind campaign.ReportKind, number int) campaign.ReportClaim {
		return campaign.ReportClaim{Report: campaign.StageReport{Kind: kind, Number: number, WorkflowID: "x"}}
	}
	both := []campaign.Channel{campaign.ChannelCall, campaign.ChannelSMS}
	wave := report(campaign.ReportWaveDone, 1)
	wave.Channels = both
	selected := func(counts *campaign.TargetCount) campaign.ReportClaim {
		c := report(campaign.ReportSelected, 0)
		c.Report.Selection = counts
		return c
	}
	at := func(kind campaign.ReportKind, d time.Duration) campaign.ReportClaim {
		c := report(kind, 1)
		c.NotBefore = time.Now().Add(d)
		return c
	}
	early := func(c campaign.ReportClaim) campaign.ReportClaim {
		c.Early = true
		return c
	}
	require.False(t, confirm(selected(nil)))
	require.False(t, confirm(selected(&campaign.TargetCount{Snapshot: 1, Targets: 5})))
	require.False(t, confirm(wave))
	require.False(t, confirm(report(campaign.ReportReviewOpen, 1)))
	require.False(t, confirm(report(campaign.ReportEvaluated, 0)))
	require.False(t, confirm(early(at(campaign.ReportApprovalExpired, time.Hour))))
	require.False(t, confirm(early(at(campaign.ReportApprovalEscalated, time.Hour))))
	require.False(t, confirm(report("made_up", 0)))
	require.False(t, confirm(report(campaign.ReportWaveDone, 1)), "a wave that the campaign does not have")
	require.False(t, confirm(report(campaign.ReportWaveDone, 1<<40)))
	require.False(t, confirm(report(campaign.ReportReviewLapsed, -1)))
	_, err := f.ConfirmReport(f.ctx, campaign.ReportClaim{CampaignID: f.id, Report: campaign.StageReport{Kind: "\x00", WorkflowID: "\x00\xff"}})
	require.NoError(t, err, "whatever it says, it is told")
	require.True(t, confirm(at(campaign.ReportApprovalExpired, -time.Second)))

	counts := f.run()
	require.True(t, confirm(selected(&counts)))
	more := counts
	more.Targets++
	require.False(t, confirm(selected(&more)))
	batch := f.create(1, campaign.ChannelCall)
	require.NotZero(t, batch.Contacts)
	require.False(t, confirm(wave), "the channel is open")
	require.False(t, confirm(report(campaign.ReportSettled, 0)), "contacts are open")
	closeChannel := func(c campaign.Channel) {
		_, err := f.CloseChannel(f.ctx, campaign.CloseChannel{
			ChannelRef: campaign.ChannelRef{CampaignID: f.id, Wave: 1, Revision: 1, Channel: c}, State: campaign.ContactExpired, Reason: "window_closed",
		})
		require.NoError(t, err)
	}
	closeChannel(campaign.ChannelCall)
	require.False(t, confirm(wave), "the second channel was never begun")
	wave.Ended = true
	require.True(t, confirm(wave), "running is over")
	wave.Ended = false
	f.create(1, campaign.ChannelSMS, campaign.ChannelCall)
	closeChannel(campaign.ChannelSMS)
	require.True(t, confirm(wave))

	_, err = f.Measure(f.ctx, campaign.ReviewInput{CampaignID: f.id, Review: 1, Revision: 1, DecideWithin: 60, DoneWaves: []int{1}, OpenWaves: []int{2}})
	require.NoError(t, err)
	require.True(t, confirm(report(campaign.ReportReviewOpen, 1)))
	require.False(t, confirm(report(campaign.ReportReviewOpen, 2)))
	require.False(t, confirm(early(at(campaign.ReportReviewLapsed, time.Hour))))
	require.True(t, confirm(at(campaign.ReportReviewLapsed, -time.Second)))

	require.False(t, confirm(report(campaign.ReportSettled, 0)), "the money is not closed")
	require.NoError(t, f.CloseContacts(f.ctx, f.ref()))
	require.NoError(t, f.Settle(f.ctx, f.ref()))
	require.True(t, confirm(report(campaign.ReportSettled, 0)))
	require.False(t, confirm(report(campaign.ReportEvaluated, 0)))
	require.NoError(t, f.Evaluate(f.ctx, campaign.EvaluationInput{CampaignID: f.id, Revision: 1}))
	require.True(t, confirm(report(campaign.ReportEvaluated, 0)))

	for _, behind := range []time.Duration{10 * time.Second, 10 * time.Hour} {
		_, err = f.ConfirmReport(f.ctx, campaign.ReportClaim{CampaignID: f.id, Revision: 1, NotBefore: time.Now().Add(behind),
			Report: campaign.StageReport{Kind: campaign.ReportApprovalExpired, Number: 1}})
		var app *temporal.ApplicationError
		require.ErrorAs(t, err, &app)
		require.False(t, app.NonRetryable(), "the database's clock is behind by %s: asked again", behind)
		require.InDelta(t, behind, app.NextRetryDelay(), float64(5*time.Second))
	}
	got, err := f.ConfirmReport(f.ctx, campaign.ReportClaim{CampaignID: f.id, Revision: 1,
		Report: campaign.StageReport{Kind: campaign.ReportFailed, WorkflowID: "x", Code: campaign.CodeInternal, Message: "said so"}})
	require.NoError(t, err)
	require.True(t, got.True, "no row bears a failure out")
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM audit_event WHERE event = 'report.unproven' AND data->>'reason' = 'said so'`))
}
