package activities_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/ledger"
	"github.com/musterhq/muster/store"
)

// approved drafts a campaign of the planner and has it approved.
func (f *fixture) approved(change func(*campaign.Plan)) {
	f.t.Helper()
	f.round, f.signed = campaign.Round{}, 1
	f.draft(change)
	f.sign()
	f.settleRounds(campaign.ApprovalApproved)
}

// topUp amends the campaign by nothing but money and opens the round about it.
func (f *fixture) topUp(more int64) campaign.Round {
	f.t.Helper()
	f.amend(fmt.Sprint("more ", f.signed), func(p *campaign.Plan) { p.Budget[0].Amount += more })
	return f.openRound()
}

func tiny(p *campaign.Plan) {
	small(p)
	p.Budget[0].Amount, p.Budget[1].Amount = 50, 50
}

// What one plan cannot spend without finance, ten plans cannot that are made large afterwards.
func TestTopUpsOfManyCampaignsAreNotSplit(t *testing.T) {
	f := newFixture(t, tiny)
	for range 10 {
		f.approved(tiny)
		require.Len(t, f.round.Route, 1)
	}
	opened := f.topUp(1_999_900)
	require.Len(t, opened.Route, 2, "finance signs for what ten campaigns come to")
	require.EqualValues(t, 1_999_900, opened.Facts.Amount, "every level signs for the difference")
	require.Len(t, opened.Facts.Together, 9)
	counted, err := opened.Facts.Counted()
	require.NoError(t, err)
	require.EqualValues(t, 1_999_900+10*100, counted)
	_, err = f.SelectTargets(f.ctx, campaign.SelectionInput{CampaignID: f.id, Revision: 2})
	require.Equal(t, campaign.CodeStateConflict, code(t, err), "nobody has signed")
	for i, login := range []string{"manager", "finance"} {
		require.NoError(t, f.CountSignOff(f.ctx, f.signOff(login, f.round.Route[i], nil)))
	}
	_, err = f.SelectTargets(f.ctx, campaign.SelectionInput{CampaignID: f.id, Revision: 2})
	require.NoError(t, err, "what was signed is what the plan must have")
	f.sound()
}

// Whoever signed for a campaign as high as it goes now signs for nothing again, but what is
// added to campaigns counts together.
func TestTopUpsAfterAHighRouteCountTogether(t *testing.T) {
	f := newFixture(t, nil)
	f.approved(nil)
	require.Len(t, f.round.Route, 2)
	require.Len(t, f.topUp(1_999_900).Route, 1)
	f.settleRounds(campaign.ApprovalApproved)
	first := f.id
	f.approved(nil)
	opened := f.topUp(200)
	require.Len(t, opened.Route, 2)
	require.EqualValues(t, 200, opened.Facts.Amount)
	require.Equal(t, []campaign.Together{{CampaignID: first, Number: 2, Amount: 1_999_900, Why: campaign.SameRequester}}, opened.Facts.Together)
}

// One campaign is not split into itself and its top-up.
func TestATopUpMakesUpForALowRoute(t *testing.T) {
	f := newFixture(t, nil)
	f.approved(small)
	require.Len(t, f.round.Route, 1)
	require.Len(t, f.topUp(200_000).Route, 1, "the whole plan would not need more")
	f.settleRounds(campaign.ApprovalApproved)
	require.Len(t, f.topUp(1).Route, 2)
}

// A top-up that comes while another is routed is told to be routed again.
func TestATopUpCountsWhatCameMeanwhile(t *testing.T) {
	f := newFixture(t, nil)
	f.approved(nil)
	f.amend("first", func(p *campaign.Plan) { p.Budget[0].Amount += 1_999_900 })
	one := campaign.Round{CampaignID: f.id, Round: 2, Revision: 2, Digest: f.plan.Digest(), Requester: f.users["planner"].UserID}
	routed, err := f.RouteApproval(f.ctx, campaign.RouteRequest{PlanRef: campaign.PlanRef{CampaignID: f.id, Revision: 2}, Requester: one.Requester})
	require.NoError(t, err)
	one.Routed = routed.Routed
	f.approved(nil)
	f.topUp(200)
	require.Equal(t, campaign.CodeRouteOutdated, campaign.CodeOf(f.Store.OpenRound(f.ctx, one)))
}

// spentOn reserves the campaign's budget and spends of a line.
func (f *fixture) spentOn(line string, minor int64) {
	f.t.Helper()
	require.NoError(f.t, f.Reserve(f.ctx, f.ref()))
	_, err := f.Ledger.Capture(f.ctx, "spent:"+f.id, f.id, line, campaign.Money{Minor: minor, Currency: "CNY"})
	require.NoError(f.t, err)
}

// routeAmended routes the campaign's newest revision.
func (f *fixture) routeAmended() (campaign.RoutedApproval, error) {
	return f.RouteApproval(f.ctx, campaign.RouteRequest{PlanRef: campaign.PlanRef{CampaignID: f.id, Revision: f.signed}, Requester: f.users["planner"].UserID})
}

func thousand(p *campaign.Plan) {
	small(p)
	p.Budget[0].Amount, p.Budget[1].Amount = 900, 50
}

// Money that is spent is not taken out of a plan to be spent again, neither in one step nor
// in two, inside a programme or not.
func TestASpentLineIsNotLowered(t *testing.T) {
	for name, inside := range map[string]bool{"inside a programme": true, "outside": false} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, thousand)
			if inside {
				p := f.programme(func(p *campaign.ProgrammeTerms) { p.Ceiling, p.CampaignCeiling = 5_000, 1_000 })
				f.within(p, thousand)
			}
			f.spentOn("calls", 900)
			f.amend("lower", func(p *campaign.Plan) { p.Budget[0].Amount = 1 })
			_, err := f.routeAmended()
			require.Equal(t, campaign.CodeInvalidPlan, code(t, err))
			err = f.Reserve(f.ctx, campaign.PlanRef{CampaignID: f.id, Revision: f.signed})
			require.Equal(t, campaign.CodeBudgetInsufficient, code(t, err))
			f.amend("raise", func(p *campaign.Plan) { p.Budget[1].Amount = 899 })
			_, err = f.routeAmended()
			require.Equal(t, campaign.CodeInvalidPlan, code(t, err), "also when it was lowered before")
			require.Equal(t, campaign.CodeBudgetInsufficient, code(t, f.Reserve(f.ctx, campaign.PlanRef{CampaignID: f.id, Revision: f.signed})))
			require.EqualValues(t, 50, f.balance("messages").Held)

			f.amend("honest", func(p *campaign.Plan) { p.Budget[0].Amount = 900 })
			routed, err := f.routeAmended()
			require.NoError(t, err)
			if inside {
				require.NotNil(t, routed.NoRoute)
				require.Equal(t, campaign.CodeProgrammeCeiling, routed.NoRoute.Code)
			}
			f.sound()
		})
	}
}

// What a plan no longer asks for goes back and may be asked for again.
func TestALoweredLineGivesItsMoneyBack(t *testing.T) {
	f := newFixture(t, thousand)
	p := f.programme(func(p *campaign.ProgrammeTerms) { p.Ceiling, p.CampaignCeiling = 1_000, 1_000 })
	f.within(p, func(p *campaign.Plan) { thousand(p); p.Contingency = 50 })
	f.spentOn("calls", 100)
	require.Zero(t, f.fund(p.ID).Available)
	reserve := func(calls, messages, contingency int64) error {
		f.amend(fmt.Sprint("fit ", f.signed), func(p *campaign.Plan) {
			p.Budget[0].Amount, p.Budget[1].Amount, p.Contingency = calls, messages, contingency
		})
		_, err := f.routeAmended()
		require.NoError(t, err)
		return f.Reserve(f.ctx, campaign.PlanRef{CampaignID: f.id, Revision: f.signed})
	}
	for range 2 {
		require.NoError(t, reserve(100, 850, 10), "750 of the calls go to messages")
		require.Equal(t, ledger.FundBalance{Currency: "CNY", Allocated: 1_000, Given: 960, Spent: 100, Available: 40}, f.fund(p.ID))
		require.EqualValues(t, 850, f.balance("messages").Held)
		require.Zero(t, f.balance("calls").Held)
		f.sound()
	}
	require.NoError(t, reserve(900, 50, 50))
	require.EqualValues(t, 800, f.balance("calls").Held)
	require.EqualValues(t, 50, f.balance("messages").Held)
	require.Zero(t, f.fund(p.ID).Available)
	f.sound()
}

// A line that was lowered pays no more than it says, whatever the ledger still holds.
func TestALoweredLineIsNotOverspent(t *testing.T) {
	f := newFixture(t, func(p *campaign.Plan) { p.Budget[2].Amount = 10_000 })
	f.run()
	f.create(2, campaign.ChannelSMS)
	rows, err := f.Store.Contacts(f.ctx, f.id, store.ContactFilter{Limit: 4})
	require.NoError(t, err)
	buy := func(rows []store.Contact) {
		for _, c := range rows {
			_, err := f.Store.RecordOutcomes(f.ctx, f.id, true, []store.Outcome{{CustomerID: c.CustomerID, Kind: campaign.OutcomeOrdered, Source: "shop", SourceID: c.ID}})
			require.NoError(t, err)
		}
	}
	buy(rows[:2])
	f.amend("too low", func(p *campaign.Plan) { p.Budget[2].Amount = 3_999 })
	_, err = f.routeAmended()
	require.Equal(t, campaign.CodeInvalidPlan, code(t, err), "two gifts are owed")
	f.amend("low", func(p *campaign.Plan) { p.Budget[2].Amount = 5_000 })
	_, err = f.routeAmended()
	require.NoError(t, err)
	buy(rows[2:])
	f.inForce()
	require.NoError(t, f.CloseContacts(f.ctx, f.ref()))
	for range 2 {
		require.NoError(t, f.Settle(f.ctx, campaign.PlanRef{CampaignID: f.id, Revision: f.signed}))
		require.EqualValues(t, 5_000, f.balance("gifts").Captured)
	}
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM audit_event WHERE event = 'budget.exceeded' AND data->>'exceeds_by' = '3000'`))
	f.sound()
}
