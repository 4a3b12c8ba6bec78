package activities_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// settleRounds closes the open rounds of the fixture's campaign as the workflow would.
func (f *fixture) settleRounds(result campaign.ApprovalResult) {
	f.t.Helper()
	f.exec(`UPDATE approval_round SET result = $2, closed_at = now() WHERE campaign_id = $1 AND result IS NULL`, f.id, result)
}

// amend writes the campaign's next revision, made from the one that was signed last.
func (f *fixture) amend(request string, change func(*campaign.Plan)) {
	f.t.Helper()
	next := f.plan
	next.Budget = append([]campaign.BudgetLine(nil), f.plan.Budget...)
	change(&next)
	written, err := f.Store.AddRevision(f.ctx, f.id, store.NewRevision{Plan: next, EditorID: f.users["planner"].UserID, Base: f.signed, Request: request})
	require.NoError(f.t, err)
	f.plan, f.signed = next, written.Revision
}

// Somebody who is approved for much and then asks for little still has much.
func TestAnOpenAmendmentForLessHidesNothing(t *testing.T) {
	f := newFixture(t, small)
	f.person("planner2", campaign.RolePlanner)
	f.openRound()
	f.settleRounds(campaign.ApprovalApproved)
	one := f.id
	f.amend("decoy", func(p *campaign.Plan) { p.Budget[0].Amount, p.Offer.Name = 500, "Triple data" })
	f.exec(`INSERT INTO approval_round (campaign_id, round, revision, digest, content_digest, audience_digest, budget_digest, tenant, amount, credit, currency,
			requester, rule, route, facts, policy_version)
		SELECT campaign_id, 2, 2, digest, content_digest, audience_digest, budget_digest, tenant, 500, credit, currency, $2, rule, route, facts, policy_version
		FROM approval_round WHERE campaign_id = $1`, one, f.users["planner2"].UserID)
	f.signed = 1
	f.draft(func(p *campaign.Plan) { small(p); p.Audience.Filter = "age >= 55" })
	routed, err := f.ask("planner")
	require.NoError(t, err)
	require.Equal(t, []campaign.Together{{CampaignID: one, Number: 1, Amount: 1_800_000, Why: campaign.SameRequester}}, routed.Facts.Together)
	require.Len(t, routed.Route, 2)
	require.NoError(t, f.open("planner", routed))
}

// However many campaigns others submit, what the same requester submitted counts; of those
// whose audiences are too many to compare all count.
func TestManyCampaignsHideNothing(t *testing.T) {
	f := newFixture(t, small)
	f.person("planner2", campaign.RolePlanner)
	f.openRound()
	one := f.id
	const others = 203
	f.exec(`WITH made AS (
			INSERT INTO campaign (id, name, unit, planner_id, simulated, stage, draft_revision)
			SELECT gen_random_uuid(), name, unit, planner_id, simulated, stage, 1 FROM campaign, generate_series(1, $2) WHERE id = $1 RETURNING id),
		planned AS (
			INSERT INTO plan_revision (campaign_id, revision, digest, plan, editor_id)
			SELECT made.id, 1, p.digest, p.plan, p.editor_id FROM made, plan_revision p WHERE p.campaign_id = $1 RETURNING campaign_id)
		INSERT INTO approval_round (campaign_id, round, revision, digest, content_digest, audience_digest, budget_digest, tenant, amount, credit, currency,
			requester, rule, route, facts, policy_version)
		SELECT p.campaign_id, 1, 1, digest, content_digest, audience_digest, budget_digest, tenant, 1, credit, currency, $3, rule, route, facts, policy_version
		FROM planned p, approval_round r WHERE r.campaign_id = $1`, one, others, f.users["planner2"].UserID)
	f.draft(func(p *campaign.Plan) { small(p); p.Audience.Filter = "age >= 55" })
	routed, err := f.ask("planner")
	require.NoError(t, err)
	why := map[campaign.WhyCounted]int{}
	for _, o := range routed.Facts.Together {
		why[o.Why]++
		require.Equal(t, o.Why == campaign.SameRequester, o.CampaignID == one)
	}
	require.Equal(t, map[campaign.WhyCounted]int{campaign.SameRequester: 1, campaign.NotCompared: 3}, why)
	require.Len(t, routed.Route, 2)
}

// A decision takes one connection at a time: as many as there are connections do not wait
// for one another for ever.
func TestManyDecisionsAtOnceEnd(t *testing.T) {
	f := newFixture(t, nil)
	var claims []campaign.SignOffClaim
	for range 8 {
		f.round = campaign.Round{}
		f.openRound()
		claims = append(claims, f.signOff("manager", f.round.Route[0], nil))
		f.draft(nil)
	}
	var held []*pgxpool.Conn
	for range f.Store.Pool().Config().MaxConns - 2 {
		c, err := f.Store.Pool().Acquire(f.ctx)
		require.NoError(t, err)
		held = append(held, c)
	}
	ctx, cancel := context.WithTimeout(f.ctx, time.Minute)
	defer cancel()
	var all sync.WaitGroup
	failed := make([]error, len(claims))
	for i, c := range claims {
		all.Go(func() { failed[i] = f.CountSignOff(ctx, c) })
	}
	all.Wait()
	for _, c := range held {
		c.Release()
	}
	for _, err := range failed {
		require.NoError(t, err)
	}
}

// TestATopUpIsSignedForWhatItAdds follows an amendment of nothing but money from its route
// to the dispatch that rests on it.
func TestATopUpIsSignedForWhatItAdds(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	f.settleRounds(campaign.ApprovalApproved)
	total, err := f.plan.BudgetTotal()
	require.NoError(t, err)
	one, plan, round := f.id, f.plan, f.round
	f.round = campaign.Round{}
	f.draft(func(p *campaign.Plan) { small(p); p.Audience.Filter = "age >= 55" })
	f.openRound() // another campaign of the same requester
	f.id, f.plan, f.round = one, plan, round

	f.amend("first", func(p *campaign.Plan) { p.Budget[1].Amount += 100_000 })
	opened := f.openRound()
	require.Len(t, opened.Route, 1, "the difference is below the first band's end")
	require.EqualValues(t, 100_000, opened.Facts.Amount)
	require.EqualValues(t, 100_000, opened.Facts.Added)
	require.Equal(t, total+100_000, opened.Facts.Total)
	require.Equal(t, 1, opened.Facts.Base)
	require.Empty(t, opened.Facts.Together, "other campaigns counted when the whole was approved")
	in := f.inForce()
	_, err = f.CreateContacts(f.ctx, in)
	require.Equal(t, campaign.CodeDispatchRefused, code(t, err), "nobody signed the difference")
	require.NoError(t, f.CountSignOff(f.ctx, f.signOff("manager", f.round.Route[0], nil)))
	f.settleRounds(campaign.ApprovalApproved)

	// The dispatch rests on both.
	finance := f.users["finance"].UserID // who signed the whole and not the difference
	f.exec(`DELETE FROM role_grant WHERE user_id = $1`, finance)
	_, err = f.CreateContacts(f.ctx, in)
	require.Equal(t, campaign.CodeDispatchRefused, code(t, err))
	f.exec(`INSERT INTO role_grant (user_id, role, unit) VALUES ($1, 'finance', 'operator')`, finance)
	made, err := f.CreateContacts(f.ctx, in)
	require.NoError(t, err)
	require.Positive(t, made.Contacts)

	// Slices add up, so that many small ones do not slip under a limit.
	f.amend("second", func(p *campaign.Plan) { p.Budget[1].Amount += 1_950_000 })
	opened = f.openRound()
	require.EqualValues(t, 2_050_000, opened.Facts.Amount)
	require.EqualValues(t, 1_950_000, opened.Facts.Added)
	require.Len(t, opened.Route, 2)
	f.settleRounds(campaign.ApprovalReturned)

	// One that changes anything else is signed as a whole.
	f.signed = 2
	f.amend("third", func(p *campaign.Plan) { p.Budget[1].Amount -= 1_900_000; p.Offer.Name = "Triple data" })
	opened = f.openRound()
	require.Zero(t, opened.Facts.Base)
	require.Equal(t, opened.Facts.Amount, total+150_000)
	require.Len(t, opened.Route, 2)
	f.sound()
}

// A round about a difference proves nothing about a plan that changes more.
func TestADifferenceIsNoCoverForMore(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	f.settleRounds(campaign.ApprovalApproved)
	before := f.plan
	f.amend("first", func(p *campaign.Plan) { p.Budget[1].Amount += 100_000 })
	f.openRound()
	require.NoError(t, f.CountSignOff(f.ctx, f.signOff("manager", f.round.Route[0], nil)))
	in := f.inForce()
	// As if it had been made from a revision that was never signed for so much.
	cheaper := f.plan
	cheaper.Budget = append([]campaign.BudgetLine(nil), f.plan.Budget...)
	cheaper.Budget[1].Amount -= 200_000
	f.exec(`ALTER TABLE plan_revision DISABLE TRIGGER USER`)
	f.exec(`UPDATE plan_revision SET (plan, digest) = ($2, $3) WHERE campaign_id = $1 AND revision = 1`, f.id, cheaper, cheaper.Digest())
	_, err := f.CreateContacts(f.ctx, in)
	require.ErrorContains(t, err, "changes more of revision 1 than was signed for")
	f.exec(`UPDATE plan_revision SET (plan, digest) = ($2, $3) WHERE campaign_id = $1 AND revision = 1`, f.id, before, before.Digest())
	_, err = f.CreateContacts(f.ctx, in)
	require.NoError(t, err, "as it was")
}

// inForce puts the revision that was written last in force, and returns what sends it.
func (f *fixture) inForce() campaign.DispatchInput {
	f.t.Helper()
	require.NoError(f.t, f.Project(f.ctx, campaign.Projection{CampaignID: f.id, Version: int64(f.signed), Event: "campaign.amended", Status: campaign.Status{
		Stage: campaign.StageRunning, Hold: campaign.HoldNone, Revision: f.signed, Waves: f.waves(),
	}}))
	return campaign.DispatchInput{
		CampaignID: f.id, Wave: 2, Snapshot: 1, Revision: f.signed, Channel: campaign.ChannelSMS, ClosesAt: time.Now().Add(10 * time.Minute),
	}
}
