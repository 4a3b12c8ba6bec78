package activities_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/assertion"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// decides has somebody decide review 1 in a command that is given, and returns its outcome.
func (f *fixture) decides(login string, decision campaign.ReviewDecision) campaign.ReviewOutcome {
	f.t.Helper()
	order := campaign.RecordReview{
		Command: campaign.Command{UpdateID: uuid.NewString(), Actor: f.users[login], PolicyVersion: "1"}, Review: 1, Decision: decision, Words: "so be it",
	}
	digest, err := campaign.PayloadDigest(&order)
	require.NoError(f.t, err)
	order.Assertion, err = assertion.Sign(f.keys.Ring(), assertion.Command{
		ID: order.UpdateID, UserID: order.Actor.UserID, CampaignID: f.id, Name: campaign.UpdateRecordReview, PayloadDigest: digest, IssuedAt: time.Now().Unix(),
	})
	require.NoError(f.t, err)
	require.NoError(f.t, f.Authenticate(f.ctx, campaign.CommandClaim{CampaignID: f.id, Name: campaign.UpdateRecordReview, Command: order.Command, Digest: digest}))
	return campaign.ReviewOutcome{CampaignID: f.id, Review: 1, Decision: decision, Words: order.Words, Actor: order.Actor, Command: &order}
}

// unguarded switches off what keeps rows from being changed.
func (f *fixture) unguarded(tables ...string) {
	f.t.Helper()
	for _, table := range tables {
		f.exec(`ALTER TABLE ` + table + ` DISABLE TRIGGER USER`)
	}
}

// refused asserts that contacts of the second wave are refused for a reason.
func (f *fixture) refused(revision int, why campaign.Code) {
	f.t.Helper()
	_, err := f.CreateContacts(f.ctx, f.second(revision))
	require.Equal(f.t, campaign.CodeDispatchRefused, code(f.t, err), "%v", err)
	require.Zero(f.t, f.count(`SELECT count(*) FROM contact WHERE wave = 2`))
	require.Positive(f.t, f.count(`SELECT count(*) FROM audit_event WHERE event = 'dispatch.refused' AND NOT allowed AND data->>'code' = $1`, why), "%v", err)
}

func (f *fixture) second(revision int) campaign.DispatchInput {
	return campaign.DispatchInput{CampaignID: f.id, Wave: 2, Snapshot: 1, Revision: revision, Channel: campaign.ChannelSMS, ClosesAt: time.Now().Add(time.Minute)}
}

// Whoever starts the activity names the plan and not its route.
func TestARoundIsOpenedOnTheRouteThatThePlanMustTake(t *testing.T) {
	f := newFixture(t, nil)
	routed, err := f.ask("planner")
	require.NoError(t, err)
	for name, change := range map[string]func(*campaign.Routed){
		"a level left out":  func(r *campaign.Routed) { r.Route = r.Route[:1] },
		"no level":          func(r *campaign.Routed) { r.Route = nil },
		"signed by anybody": func(r *campaign.Routed) { r.Route[0].Action = campaign.ActCampaignRead },
		"never overdue":     func(r *campaign.Routed) { r.Route[0].DueAfter *= 1000 },
		"a lower amount":    func(r *campaign.Routed) { r.Facts.Amount = 1 },
		"another rule":      func(r *campaign.Routed) { r.Rule = "x" },
		"another policy":    func(r *campaign.Routed) { r.PolicyVersion = "9-x" },
		"as if alone":       func(r *campaign.Routed) { r.Facts.Alone = true },
	} {
		t.Run(name, func(t *testing.T) {
			forged := routed
			forged.Route = append([]campaign.ApprovalLevel(nil), routed.Route...)
			change(&forged.Routed)
			require.Equal(t, campaign.CodeRouteOutdated, code(t, f.open("planner", forged)))
			require.Zero(t, f.count(`SELECT count(*) FROM approval_round`))
		})
	}
	require.NoError(t, f.open("planner", routed))
	require.NoError(t, f.open("planner", routed), "the same round once more")
	routed.Route = routed.Route[:1]
	require.Equal(t, campaign.CodeStateConflict, code(t, f.open("planner", routed)), "another one under its number")
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM approval_round`))
}

// What an earlier build approved, before policies were kept, is dispatched after an upgrade.
func TestRoundsFromBeforePoliciesWereKept(t *testing.T) {
	for name, tt := range map[string]struct {
		change string
		code   campaign.Code
	}{
		"as it was opened":     {`UPDATE approval_round SET policy_version = '3f8a12', opened_at = '2020-01-01'`, ""},
		"a route left out":     {`UPDATE approval_round SET policy_version = '3f8a12', opened_at = '2020-01-01', route = jsonb_path_query_array(route, '$[0]')`, campaign.CodeAssertionMismatch},
		"opened since":         {`UPDATE approval_round SET policy_version = '3f8a12'`, campaign.CodePolicyRejected},
		"a policy that's kept": {`UPDATE approval_round SET opened_at = '2020-01-01', policy_version = '1-' || policy_version`, campaign.CodePolicyRejected},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			f.approve()
			f.unguarded("approval_round")
			require.EqualValues(t, 1, f.exec(tt.change))
			_, err := f.SelectTargets(f.ctx, campaign.SelectionInput{CampaignID: f.id, Revision: 1})
			if tt.code != "" {
				require.Equal(t, tt.code, code(t, err))
				return
			}
			require.NoError(t, err)
			f.run()
			require.NotZero(t, f.create(2, campaign.ChannelSMS).Contacts)
		})
	}
}

// A round with everything signed as it says, and which says too little.
func TestNoDispatchOnARouteThatIsNotThePlans(t *testing.T) {
	for name, change := range map[string]func(*fixture){
		"a level left out": func(f *fixture) {
			f.exec(`UPDATE approval_round SET route = jsonb_path_query_array(route, '$[0]')`)
			f.round.Route = f.round.Route[:1]
		},
		"signed by readers": func(f *fixture) {
			f.exec(`UPDATE approval_round SET route = jsonb_set(jsonb_path_query_array(route, '$[0]'), '{0,action}', '"campaign.read"')`)
			f.round.Route = f.round.Route[:1]
			f.round.Route[0].Action = campaign.ActCampaignRead
		},
		"a small campaign's route": func(f *fixture) {
			f.exec(`UPDATE approval_round SET route = jsonb_path_query_array(route, '$[0]'), facts = jsonb_set(facts, '{amount}', '1')`)
			f.round.Route = f.round.Route[:1]
		},
		"another policy": func(f *fixture) { f.exec(`UPDATE approval_round SET policy_version = '9-' || policy_version`) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			f.openRound()
			f.unguarded("approval_round")
			change(f)
			for i, login := range []string{"manager", "finance"}[:len(f.round.Route)] {
				require.NoError(t, f.CountSignOff(f.ctx, f.signOff(login, f.round.Route[i], nil)))
			}
			_, err := f.SelectTargets(f.ctx, campaign.SelectionInput{CampaignID: f.id, Revision: 1})
			require.Contains(t, []campaign.Code{campaign.CodeAssertionMismatch, campaign.CodePolicyRejected}, code(t, err))
			require.Zero(t, f.count(`SELECT count(*) FROM selection`))
			require.EqualValues(t, 1, f.count(`SELECT count(*) FROM audit_event WHERE event = 'selection.refused' AND NOT allowed`))
		})
	}
}

func TestNobodyIsTargetedUnsigned(t *testing.T) {
	f := newFixture(t, nil)
	_, err := f.SelectTargets(f.ctx, campaign.SelectionInput{CampaignID: f.id, Revision: 1})
	require.Equal(t, campaign.CodeStateConflict, code(t, err))
	require.Zero(t, f.count(`SELECT count(*) FROM selection`))
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM audit_event WHERE event = 'selection.refused' AND NOT allowed AND data->>'code' = 'state_conflict'`))
}

// Those who signed were told how many customers are meant.
func TestMoreTargetsThanWereSignedForAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		more int64
		code campaign.Code
	}{
		"within the margin": {13, ""}, // of 270
		"beyond it":         {14, campaign.CodeAudienceGrown},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			f.sign()
			require.EqualValues(t, 270, f.round.Facts.Audience)
			f.exec(`UPDATE customer SET opted_out = false WHERE id IN (SELECT id FROM customer WHERE opted_out AND age < 50 LIMIT $1)`, c.more)
			count, err := f.SelectTargets(f.ctx, campaign.SelectionInput{CampaignID: f.id, Revision: 1})
			if c.code == "" {
				require.NoError(t, err)
				require.Equal(t, 270+c.more, count.Targets)
				return
			}
			require.Equal(t, c.code, code(t, err))
			require.ErrorContains(t, err, "asked again")
			require.Zero(t, f.count(`SELECT count(*) FROM selection`))
		})
	}
}

// Targets that were frozen for another audience are not contacted.
func TestTheTargetsAreThoseOfTheSignedAudience(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	other := f.plan
	other.Audience.Filter = "true"
	_, err := f.Store.AddRevision(f.ctx, f.id, store.NewRevision{Plan: other, EditorID: f.users["planner"].UserID, Base: 1, Request: "wider"})
	require.NoError(t, err)
	f.exec(`UPDATE selection SET revision = 2`)
	f.refused(1, campaign.CodeVersionChanged)
}

// A revision that somebody says is in force pays for nothing unless it was signed.
func TestTheBudgetIsThatOfASignedRevision(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	dearer := f.plan
	dearer.Budget = append([]campaign.BudgetLine(nil), f.plan.Budget...)
	dearer.Budget[1].Amount *= 10
	_, err := f.Store.AddRevision(f.ctx, f.id, store.NewRevision{Plan: dearer, EditorID: f.users["planner"].UserID, Base: 1, Request: "dearer"})
	require.NoError(t, err)
	f.exec(`UPDATE campaign SET revision = 2`)
	f.refused(1, campaign.CodeStateConflict)
}

// A chunk is sent by the plan that its contacts were made by, which was signed.
func TestAChunkIsSentByTheSignedPlan(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	batch := f.create(2, campaign.ChannelSMS)
	other := f.plan
	other.Channels = append([]campaign.ChannelPlan(nil), f.plan.Channels...)
	other.Channels[1].Text, other.Simulated = "call this number", false
	_, err := f.Store.AddRevision(f.ctx, f.id, store.NewRevision{Plan: other, EditorID: f.users["planner"].UserID, Base: 1, Request: "other words"})
	require.NoError(t, err)
	refused := func(in campaign.ChunkInput, why campaign.Code) {
		t.Helper()
		before := f.count(`SELECT count(*) FROM audit_event WHERE event = 'dispatch.refused' AND NOT allowed AND data->>'code' = $1`, why)
		_, err := f.DispatchChunk(f.ctx, in)
		require.Equal(t, why, code(t, err))
		require.Equal(t, before+1, f.count(`SELECT count(*) FROM audit_event WHERE event = 'dispatch.refused' AND NOT allowed AND data->>'code' = $1`, why))
		require.Zero(t, f.sender.once(t))
	}
	in := f.chunk(2, campaign.ChannelSMS, batch)
	in.Revision = 2
	refused(in, campaign.CodeVersionChanged)
	f.exec(`UPDATE contact_batch SET revision = 2`)
	refused(in, campaign.CodeStateConflict) // nobody signed it
	f.exec(`UPDATE contact_batch SET revision = 1`)
	in.Revision = 1
	f.unguarded("sign_off")
	f.exec(`UPDATE sign_off SET words = 'gladly' WHERE level = 2`)
	refused(in, campaign.CodeAssertionMismatch)
	f.exec(`UPDATE sign_off SET words = '' WHERE level = 2`)
	in.Wave = 1
	refused(in, campaign.CodeNotFound)
	in.Wave = 2
	_, err = f.DispatchChunk(f.ctx, in)
	require.NoError(t, err)
	require.Equal(t, batch.Contacts, f.sender.once(t))
}

// recommended measures, and writes the revision that gives wave 2 another channel.
func (f *fixture) recommended() {
	f.t.Helper()
	_, _, err := f.Store.OpenReview(f.ctx, campaign.ReviewInput{CampaignID: f.id, Review: 1, Revision: 1, DecideWithin: f.plan.Review.DecideWithin}, map[string]any{},
		map[string]any{"waves": []map[string]any{{"number": 2, "to": []campaign.Channel{campaign.ChannelSMS, campaign.ChannelCall}}}})
	require.NoError(f.t, err)
	next, err := f.ApplyRecommendation(f.ctx, campaign.ReviewRef{CampaignID: f.id, Review: 1, Actor: f.users["reviewer"]})
	require.NoError(f.t, err)
	require.Equal(f.t, 2, next.Revision)
	f.exec(`UPDATE campaign SET revision = 2, status = jsonb_set(status, '{waves,1,channels}', '["sms", "call"]')`)
}

// A recommendation is accepted by a person's signed decision, or by the deadline.
func TestARecommendationCountsOnlyIfItWasAccepted(t *testing.T) {
	byDefault := campaign.ReviewOutcome{Review: 1, Decision: campaign.ReviewAccept, ByDefault: true}
	for name, c := range map[string]struct {
		plan  func(*campaign.Plan)
		close func(*fixture)
		code  campaign.Code // of the refusal; none when it counts
	}{
		"by a person": {close: func(f *fixture) {
			require.NoError(f.t, f.CloseReview(f.ctx, f.decides("reviewer", campaign.ReviewAccept)))
		}},
		"nobody accepted": {code: campaign.CodeStateConflict},
		"a person kept": {close: func(f *fixture) {
			require.NoError(f.t, f.CloseReview(f.ctx, f.decides("reviewer", campaign.ReviewKeep)))
		}, code: campaign.CodeStateConflict},
		"without a command": {close: func(f *fixture) {
			out := campaign.ReviewOutcome{CampaignID: f.id, Review: 1, Decision: campaign.ReviewAccept, Actor: f.users["reviewer"]}
			require.Equal(f.t, campaign.CodeAssertionMismatch, code(f.t, f.CloseReview(f.ctx, out)))
			require.EqualValues(f.t, 1, f.count(`SELECT count(*) FROM audit_event WHERE event = 'command.forged' AND NOT allowed`))
		}, code: campaign.CodeStateConflict},
		"by the command to keep": {close: func(f *fixture) {
			out := f.decides("reviewer", campaign.ReviewKeep)
			out.Decision = campaign.ReviewAccept
			require.Equal(f.t, campaign.CodeAssertionMismatch, code(f.t, f.CloseReview(f.ctx, out)))
		}, code: campaign.CodeStateConflict},
		"in the rows alone": {close: func(f *fixture) { f.exec(`UPDATE review SET decision = 'accept', decided_at = now()`) }, code: campaign.CodeStateConflict},
		"a keep made an accept": {close: func(f *fixture) {
			require.NoError(f.t, f.CloseReview(f.ctx, f.decides("reviewer", campaign.ReviewKeep)))
			f.exec(`UPDATE review SET decision = 'accept', command = jsonb_set(command, '{decision}', '"accept"')`)
		}, code: campaign.CodeAssertionMismatch},
		"by somebody who may not any more": {close: func(f *fixture) {
			require.NoError(f.t, f.CloseReview(f.ctx, f.decides("reviewer", campaign.ReviewAccept)))
			f.exec(`DELETE FROM role_grant WHERE user_id = $1`, f.users["reviewer"].UserID)
		}, code: campaign.CodeForbidden},
		"by somebody who was disabled": {close: func(f *fixture) {
			require.NoError(f.t, f.CloseReview(f.ctx, f.decides("reviewer", campaign.ReviewAccept)))
			f.exec(`UPDATE app_user SET disabled = true WHERE login = 'reviewer'`)
		}, code: campaign.CodeForbidden},
		"by the deadline": {plan: func(p *campaign.Plan) { p.Review.Default, p.Review.DecideWithin = campaign.ReviewDefaultAccept, 1 }, close: func(f *fixture) {
			f.exec(`UPDATE review SET created_at = created_at - interval '1 minute', due_at = due_at - interval '1 minute'`)
			out := byDefault
			out.CampaignID = f.id
			require.NoError(f.t, f.CloseReview(f.ctx, out))
		}},
		"before the deadline": {plan: func(p *campaign.Plan) { p.Review.Default = campaign.ReviewDefaultAccept }, close: func(f *fixture) {
			out := byDefault
			out.CampaignID = f.id
			require.Equal(f.t, campaign.CodeStateConflict, code(f.t, f.CloseReview(f.ctx, out)), "asked again when it has come")
			require.Zero(f.t, f.count(`SELECT count(*) FROM review WHERE decision <> ''`))
			f.exec(`UPDATE review SET decision = 'accept', by_default = true, decided_at = now()`)
		}, code: campaign.CodeStateConflict},
		"by a deadline that the plan does not give": {close: func(f *fixture) {
			f.exec(`UPDATE review SET created_at = created_at - interval '1 day', due_at = due_at - interval '1 day'`)
			out := byDefault
			out.CampaignID = f.id
			require.NoError(f.t, f.CloseReview(f.ctx, out))
		}, code: campaign.CodeStateConflict},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, c.plan)
			f.run()
			f.recommended()
			if c.close != nil {
				c.close(f)
			}
			if c.code != "" {
				f.refused(2, c.code)
				return
			}
			batch, err := f.CreateContacts(f.ctx, f.second(2))
			require.NoError(t, err)
			require.Positive(t, batch.Contacts)
			_, err = f.DispatchChunk(f.ctx, campaign.ChunkInput{CampaignID: f.id, Wave: 2, Revision: 2, Channel: campaign.ChannelSMS, FromSeq: 1, ToSeq: 10})
			require.NoError(t, err)
		})
	}
}

// A key that was retired, stolen or revoked signs nothing any more, whatever date it gives.
func TestAnOldKeySignsNothing(t *testing.T) {
	f := newFixture(t, nil)
	signed := func(at time.Time) campaign.CommandClaim {
		c := f.order("operator", nil)
		token, err := assertion.Sign(f.keys.Ring(), assertion.Command{
			ID: c.Command.UpdateID, UserID: c.Command.Actor.UserID, CampaignID: f.id, Name: c.Name, PayloadDigest: c.Digest, IssuedAt: at.Unix(),
		})
		require.NoError(t, err)
		c.Command.Assertion = token
		return c
	}
	require.NoError(t, f.Authenticate(f.ctx, signed(time.Now().Add(-5*time.Minute))), "it waited for a worker")
	require.Equal(t, campaign.CodeForgedDecision, code(t, f.Authenticate(f.ctx, signed(time.Now().Add(-15*time.Minute)))))
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM audit_event WHERE event = 'command.forged' AND data->>'fault' = 'stale'`))

	routed := f.openRound()
	past := f.signOff("manager", routed.Route[0], func(o *store.SignOff) { o.IssuedAt = o.IssuedAt.Add(-15 * time.Minute) })
	require.Equal(t, campaign.CodeForgedDecision, code(t, f.CountSignOff(f.ctx, past)), "it was recorded much later than it says it was made")

	f.run()
	recorded := time.Now()
	require.Eventually(t, func() bool { return time.Now().Truncate(time.Second).After(recorded) }, 5*time.Second, 10*time.Millisecond, "whole seconds tell before from after")
	require.NoError(t, assertion.Revoke(f.keyDir, f.keys.Ring().SignerID(time.Now()), time.Now()))
	order := f.order("operator", nil)
	require.NoError(t, f.keys.Reload())
	require.Equal(t, campaign.CodeForgedDecision, code(t, f.Authenticate(f.ctx, order)))
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM audit_event WHERE event = 'command.forged' AND data->>'fault' = 'revoked'`))
	require.NoError(t, f.Authenticate(f.ctx, f.order("operator", nil)), "the next key signs")
	require.Positive(t, f.create(2, campaign.ChannelSMS).Contacts, "what was recorded before stays")
}
