package activities_test

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/activities"
	"github.com/musterhq/muster/assertion"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/policies"
	"github.com/musterhq/muster/store"
)

// cast are the people of the model and the role that each begins with.
var cast = map[string]hat{
	"ann": {campaign.RolePlanner, "operator"}, "ben": {campaign.RolePlanner, modelUnit},
	"cleo": {campaign.RoleManager, "operator"}, "dan": {campaign.RoleManager, modelUnit}, "eve": {campaign.RoleManager, modelUnit},
	"fay": {campaign.RoleFinance, "operator"}, "gus": {campaign.RoleFinance, modelUnit},
	"hal": {campaign.RoleCredit, "operator"}, "ivy": {campaign.RoleManager, "operator/south"},
}

// desk is what stands between the people and the database: it asks the same activities in
// the same order as a campaign's workflow, and compares each answer with the rulebook.
type desk struct {
	*fixture
	rt       *rapid.T
	book     *rulebook
	state    *campaign.State
	boss     campaign.Actor // who administers
	folder   string         // of the API's keys
	clock    time.Time      // of the API, a second later with each signature
	plans    []campaign.Plan
	given    []given // decisions that counted
	shown    int     // waves that were dispatched
	frozen   bool    // targets are selected
	snapshot int     // of the targets
	tally    map[string]int
}

// given is a decision that counted, for whoever shows it again.
type given struct {
	claim campaign.SignOffClaim
	row   store.SignOff
}

// newDesk gives the fixture's database new people and an empty book.
func newDesk(rt *rapid.T, f *fixture, enforcer *policies.Enforcer, tally map[string]int) *desk {
	d := &desk{rt: rt, tally: tally, boss: f.users["root"], clock: time.Now().Add(-8 * time.Minute).UTC().Truncate(time.Second)}
	mine := *f
	mine.users = map[string]campaign.Actor{}
	d.fixture = &mine
	d.folder = filepath.Join(f.t.TempDir(), uuid.NewString())
	require.NoError(rt, assertion.Generate(d.folder, d.clock))
	keys, err := assertion.Open(d.folder)
	require.NoError(rt, err)
	mine.keys = keys
	deps := f.Deps
	deps.Policies = enforcer
	deps.Keys = keys
	mine.Activities = activities.New(deps)
	f.exec(`DELETE FROM role_grant WHERE user_id <> $1`, f.users["root"].UserID)
	f.exec(`UPDATE app_user SET disabled = true WHERE login <> 'root'`)
	f.exec(`UPDATE campaign SET stage = 'rejected'`)
	d.book = &rulebook{people: map[string]*human{}}
	for _, login := range slices.Sorted(maps.Keys(cast)) {
		id := uuid.NewString()
		f.exec(`INSERT INTO app_user (id, login, name, password_hash, unit) VALUES ($1, $2, $3, '-', 'operator')`, id, login+id, login)
		d.users[login] = campaign.Actor{UserID: id, Login: login + id, Name: login}
		d.book.people[login] = &human{hats: map[hat]bool{}}
		d.wear(login, cast[login], true)
	}
	d.begin()
	return d
}

// answer is the code of an activity's refusal, "" for none. A fault fails the test.
func (d *desk) answer(err error) campaign.Code {
	var app *temporal.ApplicationError
	code := campaign.CodeOf(err)
	if errors.As(err, &app) {
		code = campaign.Code(app.Type())
	}
	if code == campaign.CodeInternal {
		d.rt.Fatalf("a fault: %v", err)
	}
	return code
}

// judge compares an answer with the rules that were broken.
func (d *desk) judge(what string, got campaign.Code, broken []campaign.Code) bool {
	d.rt.Helper()
	d.tally[what+" "+string(got)]++
	if len(broken) == 0 {
		require.Empty(d.rt, got, "%s breaks no rule", what)
	} else {
		require.Contains(d.rt, broken, got, "%s", what)
	}
	return got == ""
}

// begin drafts a campaign in the place of the one before.
func (d *desk) begin() {
	d.id = uuid.NewString()
	d.state = &campaign.State{CampaignID: d.id, Stage: campaign.StageDraft, Hold: campaign.HoldNone}
	d.book.plans, d.book.rounds, d.plans, d.given, d.shown = nil, nil, nil, nil, 0
	d.frozen = false
	next := d.drawPlan(d.planner(), 0)
	_, err := d.Store.CreateCampaign(d.ctx, d.id, d.note(next), d.users[next.editor])
	require.NoError(d.rt, err)
}

// freeze selects the targets of the plan in force: whoever signed it need not be able to
// sign today.
func (d *desk) freeze() {
	if d.frozen || d.state.Stage != campaign.StageRunning {
		return
	}
	count, err := d.SelectTargets(d.ctx, campaign.SelectionInput{CampaignID: d.id, Revision: d.state.Revision})
	d.snapshot = count.Snapshot
	d.frozen = d.judge("select", d.answer(err), nil)
}

// planner draws who writes: a planner mostly.
func (d *desk) planner() string {
	return d.someone("writer", func(who string) bool { return d.book.holds(who, campaign.ActCampaignSubmit) })
}

// someone draws a person, more often one of whom likely is true.
func (d *desk) someone(label string, likely func(string) bool) string {
	all := slices.Sorted(maps.Keys(d.book.people))
	if some := slices.DeleteFunc(slices.Clone(all), func(who string) bool { return !likely(who) }); len(some) > 0 && d.mostly(label) {
		all = some
	}
	return rapid.SampledFrom(all).Draw(d.rt, label)
}

// mostly is true four times of five.
func (d *desk) mostly(what string) bool {
	return rapid.IntRange(0, 4).Draw(d.rt, "mostly "+what) > 0
}

func (d *desk) drawPlan(editor string, base int) planned {
	p := planned{
		editor: editor, base: base, offer: rapid.SampledFrom([]string{"data", "calls"}).Draw(d.rt, "offer"),
		sms: rapid.SampledFrom([]int64{1_500_000, 1_900_000, 40_000_000, 40_000_000, 900_000_000, 900_000_000, 4_999_970_000, 6_000_000_000}).Draw(d.rt, "amount"),
	}
	if base == 0 && rapid.Bool().Draw(d.rt, "credit") || base > 0 && d.book.plans[base-1].credit > 0 {
		p.credit = rapid.SampledFrom([]int64{30_000, 40_000}).Draw(d.rt, "credit amount")
	}
	return p
}

// note writes a revision into the book and returns its plan.
func (d *desk) note(p planned) campaign.Plan {
	plan := examplePlan()
	plan.Unit, plan.Offer.Name = modelUnit, p.offer
	plan.Audience.Filter, plan.Audience.Tiers = `age == 21`, []campaign.TierRule{{Tier: campaign.TierCore, Filter: `true`}}
	plan.Budget = []campaign.BudgetLine{{Line: "messages", Category: campaign.CategoryContact, Driver: campaign.DriverPerContact, Channel: campaign.ChannelSMS, UnitCost: 10, Amount: p.sms}}
	if p.credit > 0 {
		plan.Budget = append(plan.Budget, campaign.BudgetLine{Line: "credit", Category: campaign.CategoryPrepaid, Driver: campaign.DriverFixed, Amount: p.credit})
	}
	plan.Channels = plan.Channels[1:]
	plan.Waves = nil
	for n := range modelWaves {
		plan.Waves = append(plan.Waves, campaign.WavePlan{Number: n + 1, Tiers: []campaign.Tier{campaign.TierCore}, Channels: []campaign.Channel{campaign.ChannelSMS}, ChannelWindow: 600})
	}
	p.digest = plan.Digest()
	d.book.plans, d.plans = append(d.book.plans, p), append(d.plans, plan)
	return plan
}

// modelPolicies are the policies that Muster comes with, but for a lower limit of the
// marketing managers and routes that have every kind of level.
func modelPolicies() campaign.PolicyDocument {
	p := policies.Standard()
	p.Policy = strings.ReplaceAll(p.Policy, "approval.manager, 5000000000", fmt.Sprintf("approval.manager, %d", managersLimit))
	p.Routes = modelRoutes
	p.Digest = campaign.PolicyDigest(p.Policy, p.Routes)
	return p
}

const modelRoutes = `{"rules": [
	{"name": "small", "when": {"currency": "CNY", "amount_up_to": 2000000}, "levels": [
		{"name": "manager", "action": "approval.manager", "due_after_seconds": 3600, "escalate_to": "approval.finance"}
	], "credit_levels": [{"name": "credit", "action": "approval.credit", "due_after_seconds": 3600, "escalate_to": "approval.finance"}]},
	{"name": "middle", "when": {"currency": "CNY", "amount_up_to": 50000000}, "levels": [
		{"name": "managers", "action": "approval.manager", "required": 2, "due_after_seconds": 3600, "escalate_to": "approval.finance"},
		{"name": "finance", "action": "approval.finance", "due_after_seconds": 3600}
	], "credit_levels": [{"name": "credit", "action": "approval.credit", "due_after_seconds": 3600, "escalate_to": "approval.finance"}]},
	{"name": "large", "when": {"currency": "CNY", "amount_up_to": 5000000000}, "levels": [
		{"name": "manager", "action": "approval.manager", "stage": 1, "due_after_seconds": 3600, "escalate_to": "approval.finance"},
		{"name": "finance", "action": "approval.finance", "stage": 2, "due_after_seconds": 3600},
		{"name": "second manager", "action": "approval.manager", "stage": 2, "due_after_seconds": 3600}
	], "credit_levels": [{"name": "credit", "action": "approval.credit", "due_after_seconds": 3600, "escalate_to": "approval.finance"}]}
]}`

// modelWaves is how many waves a plan has; the last is for the question whether it could
// be dispatched.
const modelWaves = 4

func (d *desk) project(event string) {
	d.state.Version++
	require.NoError(d.rt, d.Project(d.ctx, campaign.Projection{CampaignID: d.id, Version: d.state.Version, Event: event, Status: d.state.Status()}))
}

// wear gives somebody a role or takes it away.
func (d *desk) wear(who string, h hat, on bool) {
	g := campaign.Grant{UserID: d.users[who].UserID, Role: h.role, Unit: h.unit}
	if on {
		require.NoError(d.rt, d.Store.AddGrant(d.ctx, g, d.boss))
		d.book.people[who].hats[h] = true
		return
	}
	require.NoError(d.rt, d.Store.RemoveGrant(d.ctx, g, d.boss))
	delete(d.book.people[who].hats, h)
}

// The actions ------------------------------------------------------------------

func (d *desk) grantOrRevoke(rt *rapid.T) {
	who := d.someone("who", func(string) bool { return true })
	held := slices.SortedFunc(maps.Keys(d.book.people[who].hats), func(a, b hat) int {
		return slices.Compare([]string{string(a.role), string(a.unit)}, []string{string(b.role), string(b.unit)})
	})
	if len(held) > 0 && rapid.Bool().Draw(rt, "revoke") {
		d.wear(who, rapid.SampledFrom(held).Draw(rt, "role"), false)
		return
	}
	d.wear(who, hat{
		rapid.SampledFrom([]campaign.Role{campaign.RolePlanner, campaign.RoleManager, campaign.RoleManager, campaign.RoleFinance, campaign.RoleFinance, campaign.RoleCredit, campaign.RoleAdmin}).Draw(rt, "role"),
		rapid.SampledFrom([]campaign.OrgUnit{"operator", modelUnit, "operator/south"}).Draw(rt, "unit"),
	}, true)
}

func (d *desk) lockOut(rt *rapid.T) {
	// Whoever is out comes back soon, or nobody would be left.
	who := d.someone("who", func(who string) bool { return d.book.people[who].off })
	h := d.book.people[who]
	require.NoError(rt, d.Store.SetDisabled(d.ctx, d.users[who].UserID, !h.off, d.boss, "test"))
	h.off = !h.off
}

func (d *desk) delegate(rt *rapid.T) {
	from := d.someone("from", func(who string) bool {
		return slices.ContainsFunc(signing, func(act campaign.Action) bool { return d.book.holds(who, act) })
	})
	to := d.someone("to", func(who string) bool { return who != from && !d.book.people[who].off })
	if to == from || d.book.people[to].off {
		rt.Skip("the store refuses both")
	}
	l := &loan{
		id: uuid.NewString(), from: from, to: to, state: loanHeld,
		acts: rapid.SampledFrom([][]campaign.Action{signing, signing, signing[:1], signing[1:2], signing[2:]}).Draw(rt, "acts"),
		unit: rapid.SampledFrom([]campaign.OrgUnit{"operator", modelUnit, modelUnit, "operator/south"}).Draw(rt, "unit"),
		most: rapid.SampledFrom([]int64{0, 0, 0, 40_000, 40_000_000}).Draw(rt, "most"),
	}
	in := campaign.Delegation{ID: l.id, From: d.users[from].UserID, To: d.users[to].UserID, Actions: l.acts, Unit: l.unit, ValidUntil: time.Now().Add(time.Hour), Reason: "leave"}
	if l.most > 0 {
		in.Limit = &l.most
	}
	if !d.mostly("at once") {
		in.ValidFrom, l.state = time.Now().Add(30*time.Minute), loanEarly
	}
	_, err := d.Store.AddDelegation(d.ctx, in, d.users[from])
	require.NoError(rt, err)
	d.book.loans = append(d.book.loans, l)
}

func (d *desk) endDelegation(rt *rapid.T) {
	l := d.drawLoan(rt)
	if l == nil {
		rt.Skip("no delegation")
	}
	if rapid.Bool().Draw(rt, "by time") {
		if l.state != loanHeld {
			rt.Skip("it does not hold")
		}
		// Time passes: the period ended this very moment.
		d.forced(`UPDATE delegation SET valid = tstzrange(lower(valid), clock_timestamp()) WHERE id = $1`, l.id)
		l.state = loanEnded
		return
	}
	_, err := d.Store.RevokeDelegation(d.ctx, l.id, d.users[l.from])
	require.NoError(rt, err)
	l.state = loanRevoked
}

func (d *desk) drawLoan(rt *rapid.T) *loan {
	if len(d.book.loans) == 0 {
		return nil
	}
	return d.book.loans[rapid.IntRange(0, len(d.book.loans)-1).Draw(rt, "loan")]
}

func (d *desk) rotateKeys(rt *rapid.T) {
	d.clock = d.clock.Add(time.Second)
	require.NoError(rt, assertion.Rotate(d.folder, d.clock, 0))
	require.NoError(rt, d.keys.Reload())
}

// editDraft writes the next revision of a draft, sometimes after one that is not the newest.
func (d *desk) editDraft(rt *rapid.T) {
	if d.state.Stage != campaign.StageDraft {
		rt.Skip("no draft")
	}
	after := len(d.book.plans)
	var broken []campaign.Code
	if after > 1 && !d.mostly("newest") {
		after--
		broken = append(broken, campaign.CodeVersionChanged)
	}
	next := d.drawPlan(d.planner(), 0)
	next.offer = fmt.Sprintf("%s %d", next.offer, len(d.book.plans)) // no two drafts are the same
	plan := d.note(next)
	_, err := d.Store.WriteRevision(d.ctx, d.id, after, plan, d.users[next.editor], "")
	if !d.judge("edit", d.answer(err), broken) {
		d.book.plans, d.plans = d.book.plans[:len(d.book.plans)-1], d.plans[:len(d.plans)-1]
	}
}

// submit asks for the approval of a draft, as the workflow does.
func (d *desk) submit(rt *rapid.T) {
	if d.state.Stage != campaign.StageDraft && d.mostly("draft") {
		rt.Skip("no draft")
	}
	who, revision := d.planner(), len(d.book.plans)
	digest := d.book.plans[revision-1].digest
	var broken []campaign.Code
	if !d.mostly("the digest seen") {
		digest, broken = "0000", append(broken, campaign.CodeVersionChanged)
	}
	if d.state.Stage != campaign.StageDraft {
		broken = append(broken, campaign.CodeStateConflict)
	}
	broken = append(broken, d.refusesRound(campaign.ActCampaignSubmit, who, revision)...)
	err := func() error {
		if d.state.Stage != campaign.StageDraft {
			return campaign.Errorf(campaign.CodeStateConflict, "no draft")
		}
		routed, err := d.routed(who, revision, digest)
		if err != nil {
			return err
		}
		if err := d.Verify(d.ctx, campaign.Claim{CampaignID: d.id, Action: campaign.ActCampaignSubmit, Actor: d.users[who]}); err != nil {
			return err
		}
		return d.open(routed, who)
	}()
	if d.judge("submit", d.answer(err), broken) {
		require.NoError(rt, d.state.Advance(campaign.StageApproval))
		d.state.Revision = revision
		d.project("campaign.submitted")
	}
}

// amend writes a plan after the one in force and asks for its approval, unless it does
// less of the same.
func (d *desk) amend(rt *rapid.T) {
	if d.state.Stage != campaign.StageRunning || d.state.Pending != nil {
		rt.Skip("no amendment now")
	}
	base := d.state.Revision
	who := d.planner()
	next := d.drawPlan(who, base)
	if rapid.Bool().Draw(rt, "same offer") {
		next.offer = d.book.plans[base-1].offer
	}
	plan := d.note(next)
	revision := len(d.book.plans)
	loaded, err := d.Store.AddRevision(d.ctx, d.id, store.NewRevision{Plan: plan, EditorID: d.users[who].UserID, Base: base, Request: uuid.NewString()})
	require.NoError(rt, err)
	require.Equal(rt, revision, loaded.Revision)
	less := next.lessOf(d.book.plans[base-1])
	require.Equal(rt, !less, campaign.NeedsApproval(&d.plans[base-1], &plan), "%+v after %+v", next, d.book.plans[base-1])
	broken := d.refusesRound(campaign.ActCampaignAmend, who, revision)
	if less {
		broken = slices.DeleteFunc(broken, func(code campaign.Code) bool { return code == campaign.CodeNoRoute })
	}
	err = func() error {
		routed, err := d.routed(who, revision, loaded.Digest)
		if err != nil {
			return err
		}
		if err := d.Verify(d.ctx, campaign.Claim{CampaignID: d.id, Action: campaign.ActCampaignAmend, Actor: d.users[who], Reason: "test"}); err != nil || less {
			return err
		}
		return d.open(routed, who)
	}()
	switch {
	case !d.judge("amend", d.answer(err), broken):
	case less:
		d.state.Revision = revision
		d.project("campaign.amended")
	default:
		d.state.Pending = &loaded
		d.project("campaign.amendment_submitted")
	}
}

// refusesRound says which rules a new round breaks.
func (d *desk) refusesRound(act campaign.Action, who string, revision int) (broken []campaign.Code) {
	if !d.book.holds(who, act) {
		broken = append(broken, campaign.CodeForbidden)
	}
	if !d.book.signable(d.book.asks(revision), revision, who) {
		broken = append(broken, campaign.CodeNoRoute)
	}
	return broken
}

func (d *desk) routed(who string, revision int, digest string) (campaign.RoutedApproval, error) {
	routed, err := d.RouteApproval(d.ctx, campaign.RouteRequest{PlanRef: campaign.PlanRef{CampaignID: d.id, Revision: revision}, Requester: d.users[who].UserID})
	if err == nil && routed.Digest != digest {
		err = campaign.Errorf(campaign.CodeVersionChanged, "not what was seen")
	}
	return routed, err
}

// open begins a round in rows, in the workflow's state and in the book.
func (d *desk) open(routed campaign.RoutedApproval, who string) error {
	if routed.NoRoute != nil {
		return routed.NoRoute
	}
	about := d.book.asks(routed.Revision)
	steps := ladder(about)
	require.Equal(d.rt, []int64{about.amount, about.credit}, []int64{routed.Facts.Amount, routed.Facts.Credit})
	require.Len(d.rt, routed.Route, len(steps), "the route of %d", routed.Facts.Amount)
	for i, s := range steps {
		l := routed.Route[i]
		require.Equal(d.rt, []any{i + 1, s.stage, s.act, s.other, s.needs, s.credit}, []any{l.Level, l.Stage, l.Action, l.EscalateTo, l.Needs(), l.Kind == campaign.LevelCredit})
	}
	d.state.Rounds++
	d.round = campaign.Round{CampaignID: d.id, Round: d.state.Rounds, Revision: routed.Revision, Digest: routed.Digest, Requester: d.users[who].UserID, Routed: routed.Routed}
	if err := d.OpenRound(d.ctx, d.round); err != nil {
		return err
	}
	d.state.Approval = campaign.NewApproval(campaign.Approval{
		Round: d.round.Round, Revision: routed.Revision, Digest: routed.Digest, Amount: routed.Facts.Amount, Credit: routed.Facts.Credit,
		Requester: d.round.Requester, Route: routed.Route, Calendar: routed.Calendar,
	}, time.Now())
	d.book.rounds = append(d.book.rounds, &bout{revision: routed.Revision, requester: who, ask: about, steps: steps, late: map[int]bool{}})
	return nil
}

// withdraw takes back what waits.
func (d *desk) withdraw(rt *rapid.T) {
	who := d.planner()
	var broken []campaign.Code
	if !d.state.Approval.Open() {
		rt.Skip("nothing waits")
	}
	if !d.book.holds(who, campaign.ActCampaignWithdraw) {
		broken = append(broken, campaign.CodeForbidden)
	}
	err := d.Verify(d.ctx, campaign.Claim{CampaignID: d.id, Action: campaign.ActCampaignWithdraw, Actor: d.users[who], Reason: "test"})
	if d.judge("withdraw", d.answer(err), broken) {
		require.True(rt, d.state.Approval.Withdraw(campaign.ApprovalWithdrawn, "test"))
		d.last().result = string(campaign.ApprovalWithdrawn)
		d.conclude("approval.withdrawn")
	}
}

// wait lets the levels that wait become overdue, or the round expire.
func (d *desk) wait(rt *rapid.T) {
	if !d.state.Approval.Open() {
		rt.Skip("nothing waits")
	}
	if rapid.IntRange(0, 5).Draw(rt, "twice as long") == 0 {
		require.True(rt, d.state.Approval.Expire(d.last().waiting()[0]))
		d.last().result = string(campaign.ApprovalExpired)
		d.conclude("approval.expired")
		return
	}
	for _, level := range d.last().waiting() {
		d.last().late[level] = true
	}
	d.forced(`UPDATE approval_round SET opened_at = opened_at - interval '9 days' WHERE campaign_id = $1 AND round = $2`, d.id, d.state.Approval.Round)
	d.forced(`UPDATE sign_off_counted SET at = at - interval '9 days' WHERE campaign_id = $1`, d.id)
}

func (d *desk) last() *bout { return d.book.rounds[len(d.book.rounds)-1] }

// conclude does what a workflow does when a round has ended, and nothing while it goes on.
func (d *desk) conclude(event string) {
	a := d.state.Approval
	require.Equal(d.rt, d.last().result, string(a.Result))
	d.project(event)
	amendment := d.state.Pending != nil
	switch {
	case a.Result == "":
		return
	case a.Result == campaign.ApprovalApproved:
		d.state.Revision = a.Revision
		d.state.Waves = make([]campaign.WaveRun, modelWaves)
		for i := range d.state.Waves {
			d.state.Waves[i] = campaign.WaveRun{Number: i + 1, StartsAt: time.Now(), Channels: []campaign.Channel{campaign.ChannelSMS}}
		}
		for _, next := range []campaign.Stage{campaign.StagePreparation, campaign.StageTargeting, campaign.StageRunning} {
			if !amendment {
				require.NoError(d.rt, d.state.Advance(next))
			}
		}
	case amendment:
	case a.Result == campaign.ApprovalRejected:
		require.NoError(d.rt, d.state.Advance(campaign.StageRejected))
		d.project("stage.rejected")
		d.begin()
		return
	default:
		require.NoError(d.rt, d.state.Advance(campaign.StageDraft))
	}
	d.state.Pending = nil
	d.project("concluded")
}
