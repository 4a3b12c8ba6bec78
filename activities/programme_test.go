package activities_test

import (
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/assertion"
	"github.com/musterhq/muster/audit"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/ledger"
	"github.com/musterhq/muster/routing"
	"github.com/musterhq/muster/store"
)

// exampleTotal is what the example plan asks for.
const exampleTotal = 2_000_000 + 500_000 + 1_000_000 + 30_000

// terms are those of a programme that the example plan fits, owned by manager2.
func (f *fixture) terms(change func(*campaign.ProgrammeTerms)) campaign.ProgrammeTerms {
	t := campaign.ProgrammeTerms{
		Name: "Spring", Unit: "operator", Owner: f.users["manager2"].UserID, Currency: "CNY", Ceiling: 2 * exampleTotal, CampaignCeiling: exampleTotal,
		From: today().AddDays(-1), Until: today().AddDays(1),
	}
	if change != nil {
		change(&t)
	}
	require.NoError(f.t, t.Validate())
	return t
}

// propose proposes a programme as the API does.
func (f *fixture) propose(t campaign.ProgrammeTerms) store.Programme {
	f.t.Helper()
	path, err := routing.Router{Store: f.Store, Policies: f.Policies}.Programme(f.ctx, t, f.users["planner"].UserID)
	require.NoError(f.t, err)
	p, err := f.Store.ProposeProgramme(f.ctx, uuid.NewString(), t, path.Routed, f.users["planner"])
	require.NoError(f.t, err)
	return p
}

// decideProgramme signs as the API does. What change makes of the row is signed with it.
func (f *fixture) decideProgramme(p store.Programme, level int, login string, change func(*store.ProgrammeSignOff)) (store.Programme, error) {
	who, now := f.users[login], time.Now().UTC().Truncate(time.Second)
	round, err := p.Round()
	require.NoError(f.t, err)
	d := campaign.Decide{
		Command: campaign.Command{Actor: who}, SignOffID: uuid.NewString(), Revision: 1, Digest: round.Digest, Level: level, Decision: campaign.DecisionApprove,
	}
	return f.Store.DecideProgramme(f.ctx, p.ID, d, func(p store.Programme, _ *campaign.Approval) (store.ProgrammeSignOff, error) {
		route, err := campaign.DigestOf(p.Route)
		require.NoError(f.t, err)
		o := store.ProgrammeSignOff{
			ID: d.SignOffID, ProgrammeID: p.ID, Level: level, UserID: who.UserID, Name: who.Name, Role: "x", Unit: "operator", Amount: p.Ceiling,
			Currency: p.Currency, Authority: "*", PolicyVersion: "1", Decision: d.Decision, Digest: d.Digest, RouteDigest: route, AuthTime: now.Add(-time.Minute), IssuedAt: now,
		}
		if change != nil {
			change(&o)
		}
		claims, err := audit.ProgrammeClaims(o, p.Unit)
		require.NoError(f.t, err)
		o.KeyID = f.keys.Ring().SignerID(now)
		o.Assertion, err = assertion.Sign(f.keys.Ring(), claims)
		return o, err
	}, func(tx pgx.Tx, p store.Programme) error {
		if err := f.Ledger.In(tx).OpenProgramme(f.ctx, "operator", p.ID, p.Currency); err != nil {
			return err
		}
		_, err := f.Ledger.In(tx).Allocate(f.ctx, "programme:"+p.ID, ledger.Account{Kind: ledger.KindProgramme, Owner: p.ID}, campaign.Money{Minor: p.Ceiling, Currency: p.Currency})
		return err
	})
}

// programme is one that the example plan fits, approved.
func (f *fixture) programme(change func(*campaign.ProgrammeTerms)) store.Programme {
	f.t.Helper()
	p := f.propose(f.terms(change))
	var err error
	for i, login := range []string{"manager", "finance"}[:len(p.Route)] {
		p, err = f.decideProgramme(p, i+1, login, nil)
		require.NoError(f.t, err)
	}
	require.Equal(f.t, campaign.ProgrammeApproved, p.State)
	return p
}

func (f *fixture) fund(id string) ledger.FundBalance {
	f.t.Helper()
	b, err := f.Ledger.Programme(f.ctx, id)
	require.NoError(f.t, err)
	return b
}

// within drafts a campaign inside a programme.
func (f *fixture) within(p store.Programme, change func(*campaign.Plan)) {
	f.t.Helper()
	f.round = campaign.Round{}
	f.draft(func(plan *campaign.Plan) {
		plan.ProgrammeID = p.ID
		if change != nil {
			change(plan)
		}
	})
}

func (f *fixture) routed() campaign.RoutedApproval {
	f.t.Helper()
	r, err := f.RouteApproval(f.ctx, campaign.RouteRequest{PlanRef: f.ref(), Requester: f.users["planner"].UserID})
	require.NoError(f.t, err)
	return r
}

// A campaign inside a programme is signed by its owner and by nobody else, and is paid from
// the programme, which gets back what the campaign does not spend.
func TestAProgrammePaysForWhatItsOwnerSigned(t *testing.T) {
	f := newFixture(t, nil)
	p := f.programme(nil)
	require.Equal(t, ledger.FundBalance{Currency: "CNY", Allocated: 2 * exampleTotal, Available: 2 * exampleTotal}, f.fund(p.ID))
	f.within(p, nil)
	round := f.openRound()
	require.Equal(t, "inside a programme", round.Rule)
	require.Len(t, round.Route, 1)
	require.Equal(t, f.users["manager2"].UserID, round.Route[0].UserID)
	require.Equal(t, f.users["manager2"].UserID, round.Facts.Owner)
	require.Equal(t, campaign.CodeForbidden, code(t, f.CountSignOff(f.ctx, f.signOff("manager", round.Route[0], nil))), "another manager with the same authority")
	require.NoError(t, f.CountSignOff(f.ctx, f.signOff("manager2", round.Route[0], nil)))
	for range 2 {
		require.NoError(t, f.Reserve(f.ctx, f.ref()))
		require.Equal(t, ledger.FundBalance{Currency: "CNY", Allocated: 2 * exampleTotal, Given: exampleTotal, Available: exampleTotal}, f.fund(p.ID))
	}
	count, err := f.SelectTargets(f.ctx, campaign.SelectionInput{CampaignID: f.id, Revision: 1})
	require.NoError(t, err)
	require.Positive(t, count.Targets)
	require.NoError(t, f.Project(f.ctx, campaign.Projection{CampaignID: f.id, Version: 1, Event: "stage.running", Status: campaign.Status{
		Stage: campaign.StageRunning, Hold: campaign.HoldNone, Revision: 1, Waves: f.waves(),
	}}))
	require.Positive(t, f.create(2, campaign.ChannelSMS).Contacts, "the owner's signature lets it be dispatched")
	require.NoError(t, f.CloseContacts(f.ctx, f.ref()))
	require.NoError(t, f.Settle(f.ctx, f.ref()))
	require.Equal(t, ledger.FundBalance{Currency: "CNY", Allocated: 2 * exampleTotal, Given: 30_000, Spent: 30_000, Available: 2*exampleTotal - 30_000},
		f.fund(p.ID), "nothing but the posters was paid for")
	f.sound()
}

// What a programme does not allow has no route, and says so before anybody is asked.
func TestProgrammesRefuseWhatTheyDoNotAllow(t *testing.T) {
	f := newFixture(t, nil)
	open := f.programme(nil)
	for name, c := range map[string]struct {
		programme func() store.Programme
		plan      func(*campaign.Plan)
		code      campaign.Code
	}{
		"fits":         {func() store.Programme { return open }, nil, ""},
		"not approved": {func() store.Programme { return f.propose(f.terms(nil)) }, nil, campaign.CodeProgrammeClosed},
		"over": {func() store.Programme {
			return f.programme(func(t *campaign.ProgrammeTerms) { t.From, t.Until = today().AddDays(-9), today().AddDays(-1) })
		}, nil, campaign.CodeProgrammeClosed},
		"another channel": {func() store.Programme {
			return f.programme(func(t *campaign.ProgrammeTerms) { t.Channels = []campaign.Channel{campaign.ChannelSMS} })
		}, nil, campaign.CodeProgrammeNotAllowed},
		"a campaign too large": {func() store.Programme { return open }, func(p *campaign.Plan) { p.Contingency = 1 }, campaign.CodeProgrammeCeiling},
		"of another tenant":    {func() store.Programme { return open }, func(p *campaign.Plan) { p.Unit = "bank" }, campaign.CodeProgrammeNotFound},
		"unknown":              {func() store.Programme { return store.Programme{Programme: campaign.Programme{ID: uuid.NewString()}} }, nil, campaign.CodeProgrammeNotFound},
		"less than it asks for": {func() store.Programme {
			return f.programme(func(t *campaign.ProgrammeTerms) { t.Ceiling = exampleTotal; t.CampaignCeiling = exampleTotal })
		}, nil, ""},
	} {
		require.NoError(t, f.Store.CreateUnit(f.ctx, "bank", "Bank"))
		p := c.programme()
		f.within(p, c.plan)
		r := f.routed()
		if c.code == "" {
			require.Nil(t, r.NoRoute, name)
			continue
		}
		require.NotNil(t, r.NoRoute, name)
		require.Equal(t, c.code, r.NoRoute.Code, name)
		require.Empty(t, r.Route)
		require.Equal(t, c.code, code(t, f.Reserve(f.ctx, f.ref())), "whatever was signed: "+name)
		require.Zero(t, f.count(`SELECT count(*) FROM ledger_account WHERE owner = $1`, f.id), name)
	}
}

// The owner cannot sign for a campaign that they asked for.
func TestTheOwnerDoesNotAskForThemselves(t *testing.T) {
	f := newFixture(t, nil)
	p := f.programme(nil)
	f.within(p, nil)
	r, err := f.RouteApproval(f.ctx, campaign.RouteRequest{PlanRef: f.ref(), Requester: p.Owner})
	require.NoError(t, err)
	require.NotNil(t, r.NoRoute)
	require.Equal(t, campaign.CodeNoRoute, r.NoRoute.Code)
	require.Contains(t, r.NoRoute.Message, "one person alone, who asked")
}

// Neither the proposer nor the owner signs for the budget, nobody twice, and no money moves
// before everybody has.
func TestAProgrammeIsSignedByDifferentPeople(t *testing.T) {
	f := newFixture(t, nil)
	p := f.propose(f.terms(func(t *campaign.ProgrammeTerms) { t.Ceiling, t.Owner = 600_000_000, f.users["reviewer"].UserID }))
	require.Equal(t, "CNY up to 50 million", p.Rule)
	require.Len(t, p.Route, 3)
	refused := func(level int, login string, why campaign.Code) {
		t.Helper()
		_, err := f.decideProgramme(p, level, login, nil)
		require.Equal(t, why, campaign.CodeOf(err))
	}
	refused(1, "planner", campaign.CodeSelfApproval)
	refused(1, "reviewer", campaign.CodeSelfApproval)
	refused(2, "finance", campaign.CodeStateConflict)
	var err error
	p, err = f.decideProgramme(p, 1, "manager", nil)
	require.NoError(t, err)
	refused(3, "manager", campaign.CodeSameActor)
	require.Equal(t, campaign.ProgrammeProposed, p.State)
	require.Zero(t, f.count(`SELECT count(*) FROM ledger_account WHERE kind = 'programme'`))
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM programme_sign_off`))
}

// Two campaigns that a programme can pay for one of: one is paid, and the other is not, all of it.
func TestOnlyOneOfTwoAtTheEdgeIsPaid(t *testing.T) {
	f := newFixture(t, nil)
	p := f.programme(func(t *campaign.ProgrammeTerms) { t.Ceiling = 2*exampleTotal - 1 })
	var refs []campaign.PlanRef
	for range 2 {
		f.within(p, nil)
		require.Nil(t, f.routed().NoRoute, "alone it fits")
		refs = append(refs, f.ref())
	}
	errs := make([]error, 2)
	var both sync.WaitGroup
	for i := range refs {
		both.Go(func() { errs[i] = f.Reserve(f.ctx, refs[i]) })
	}
	both.Wait()
	lost := 0
	if errs[0] == nil {
		lost = 1
	}
	require.NoError(t, errs[1-lost])
	require.Equal(t, campaign.CodeBudgetInsufficient, code(t, errs[lost]))
	require.Equal(t, ledger.FundBalance{Currency: "CNY", Allocated: 2*exampleTotal - 1, Given: exampleTotal, Available: exampleTotal - 1}, f.fund(p.ID))
	require.Zero(t, f.count(`SELECT count(*) FROM ledger_account WHERE owner = $1`, refs[lost].CampaignID), "nothing half done")
	f.id = refs[lost].CampaignID
	require.Equal(t, campaign.CodeBudgetInsufficient, f.routed().NoRoute.Code, "asked again, it says so before anybody signs")
	require.Equal(t, map[string]any{"account": "programme", "available": int64(exampleTotal - 1), "wanted": int64(exampleTotal)}, f.routed().NoRoute.Details)
	f.sound()
}

// A closed programme gives its free money back at once, and later what its campaigns return.
func TestAClosedProgrammeKeepsNothing(t *testing.T) {
	f := newFixture(t, nil)
	p := f.programme(nil)
	f.within(p, nil)
	require.NoError(t, f.CountSignOff(f.ctx, f.signOff("manager2", f.openRound().Route[0], nil)))
	require.NoError(t, f.Reserve(f.ctx, f.ref()))
	closed, err := f.Store.CloseProgramme(f.ctx, p.ID, "the season is over", f.users["finance"], func(tx pgx.Tx) (int64, error) {
		return f.Ledger.In(tx).Drain(f.ctx, p.ID)
	})
	require.NoError(t, err)
	require.Equal(t, campaign.ProgrammeClosed, closed.State)
	require.Equal(t, ledger.FundBalance{Currency: "CNY", Allocated: 2 * exampleTotal, Given: exampleTotal, Returned: exampleTotal}, f.fund(p.ID))
	require.NoError(t, f.Reserve(f.ctx, f.ref()), "what is paid for stays paid for")
	mine := f.id
	f.within(p, nil)
	require.Equal(t, campaign.CodeProgrammeClosed, code(t, f.Reserve(f.ctx, f.ref())))
	f.id = mine
	require.NoError(t, f.Settle(f.ctx, f.ref()))
	require.Equal(t, ledger.FundBalance{Currency: "CNY", Allocated: 2 * exampleTotal, Returned: 2 * exampleTotal}, f.fund(p.ID))
	f.sound()
}

// A programme whose rows were edited pays for nothing: not with terms that nobody signed,
// not with a signature of other words, not with a state that nobody decided.
func TestAForgedProgrammePaysForNothing(t *testing.T) {
	f := newFixture(t, nil)
	for name, c := range map[string]struct {
		tamper string
		code   campaign.Code
	}{
		"a higher ceiling": {`UPDATE programme SET ceiling = ceiling * 2, campaign_ceiling = ceiling * 2 WHERE id = $1`, campaign.CodeAssertionMismatch},
		"another signer":   {`UPDATE programme_sign_off SET user_id = (SELECT id FROM app_user WHERE login = 'manager2') WHERE programme_id = $1 AND level = 1`, campaign.CodeAssertionMismatch},
		"a rejection":      {`UPDATE programme_sign_off SET decision = 'reject', words = 'no' WHERE programme_id = $1 AND level = 2`, campaign.CodeAssertionMismatch},
		"a missing one":    {`DELETE FROM programme_sign_off WHERE programme_id = $1 AND level = 2`, campaign.CodeAssertionMismatch},
		"a forged one":     {`UPDATE programme_sign_off SET assertion = assertion || 'A' WHERE programme_id = $1 AND level = 1`, campaign.CodeForgedDecision},
	} {
		p := f.programme(nil)
		f.within(p, nil)
		f.exec(`ALTER TABLE programme DISABLE TRIGGER USER`)
		f.exec(`ALTER TABLE programme_sign_off DISABLE TRIGGER USER`)
		require.Positive(t, f.exec(c.tamper, p.ID), name)
		require.Equal(t, c.code, code(t, f.Reserve(f.ctx, f.ref())), name)
		require.Zero(t, f.count(`SELECT count(*) FROM ledger_account WHERE owner = $1`, f.id), name)
	}
	p := f.programme(nil)
	f.exec(`ALTER TABLE programme ENABLE TRIGGER USER`)
	f.exec(`ALTER TABLE programme_sign_off ENABLE TRIGGER USER`)
	for _, sql := range []string{
		`UPDATE programme SET ceiling = ceiling + 1 WHERE id = $1`, `UPDATE programme SET state = 'proposed', decided_at = NULL WHERE id = $1`,
		`UPDATE programme SET state = 'rejected' WHERE id = $1`, `DELETE FROM programme WHERE id = $1`, `UPDATE programme_sign_off SET words = 'x' WHERE programme_id = $1`,
	} {
		_, err := f.owner.Pool().Exec(f.ctx, sql, p.ID)
		require.Error(t, err, sql)
	}
}

// Contingency that is drawn for a line pays for contacts that waited for money, and for no
// others.
func TestContingencyPaysForContactsThatWait(t *testing.T) {
	f := newFixture(t, func(p *campaign.Plan) {
		p.Budget[1].Amount, p.Contingency = 20*10, 300
	})
	f.run()
	batch := f.create(2, campaign.ChannelSMS)
	require.Equal(t, batch.Contacts-20, batch.Unpaid)
	ref := campaign.ChannelRef{CampaignID: f.id, Wave: 2, Revision: 1, Channel: campaign.ChannelSMS}
	draw := func(login string, amount int64, line string) error {
		d := store.ContingencyDraw{
			ID: uuid.NewString(), CampaignID: f.id, Line: line, Amount: amount, Currency: "CNY", Role: campaign.RoleFinance, Unit: "operator", Authority: "*",
			PolicyVersion: "1", Words: "more people than we thought", IssuedAt: time.Now(), Assertion: "x", KeyID: "k",
		}
		_, err := f.Store.DrawContingency(f.ctx, d, f.users[login], func(tx pgx.Tx) (int64, error) {
			e, err := f.Ledger.In(tx).DrawContingency(f.ctx, "contingency:"+d.ID, f.id, line, campaign.Money{Minor: amount, Currency: "CNY"})
			return e.Journal, err
		})
		return err
	}
	require.Equal(t, campaign.CodeSelfApproval, campaign.CodeOf(draw("planner", 100, "messages")))
	require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(draw("finance", 100, "flowers")))
	require.Equal(t, campaign.CodeBudgetInsufficient, campaign.CodeOf(draw("finance", 301, "messages")))
	require.Zero(t, f.count(`SELECT count(*) FROM contingency_draw`))
	require.NoError(t, draw("finance", 100, "messages"))
	paid, err := f.PayContacts(f.ctx, ref)
	require.NoError(t, err)
	require.EqualValues(t, 10, paid.Planned, "100 fen pay for ten messages")
	require.EqualValues(t, 2, f.count(`SELECT count(*) FROM audit_event WHERE event = 'budget.exhausted' AND campaign_id = $1`, f.id), "it is told that this is not enough")
	require.Equal(t, batch.Unpaid-10, paid.Unpaid)
	require.NoError(t, draw("finance", 200, "messages"))
	paid, err = f.PayContacts(f.ctx, ref)
	require.NoError(t, err)
	require.EqualValues(t, 20, paid.Planned)
	paid, err = f.PayContacts(f.ctx, ref)
	require.NoError(t, err)
	require.Zero(t, paid.Planned)
	_, err = f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, batch))
	require.NoError(t, err)
	require.EqualValues(t, 50, f.sender.once(t))
	require.NoError(t, f.CaptureChannel(f.ctx, ref))
	require.EqualValues(t, 500, f.balance("messages").Captured)
	require.Zero(t, f.count(`SELECT posted FROM ledger_account WHERE kind = 'campaign' AND owner = $1`, f.id))
	f.sound()
	require.NoError(t, f.CloseContacts(f.ctx, f.ref()))
	require.NoError(t, f.Settle(f.ctx, f.ref()))
	require.NoError(t, f.Project(f.ctx, campaign.Projection{CampaignID: f.id, Version: 2, Event: "stage.settlement", Status: campaign.Status{Stage: campaign.StageSettlement, Hold: campaign.HoldNone, Revision: 1}}))
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(draw("finance", 1, "messages")), "it does not run any more")
	f.sound()
}
