package activities_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/assertion"
	"github.com/musterhq/muster/audit"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/policies"
	"github.com/musterhq/muster/store"
)

// Whatever people do to plans, roles, delegations and evidence, in any order: a decision
// counts exactly if the rulebook says so, a plan may be dispatched exactly if everybody
// whose signature carries it still may sign, and no invariant of approvals ever breaks.
func TestApprovalsFollowTheRulebook(t *testing.T) {
	f := newFixture(t, nil)
	f.person("root", campaign.RoleAdmin)
	for _, unit := range []campaign.OrgUnit{modelUnit, "operator/south"} {
		f.exec(`INSERT INTO org_unit (path, name) VALUES ($1, $1) ON CONFLICT DO NOTHING`, unit)
	}
	require.NoError(t, f.owner.StorePolicyStandard(f.ctx, modelPolicies()))
	enforcer, err := policies.New(f.ctx, f.Store.Grants, f.Store.ActivePolicies)
	require.NoError(t, err)
	tally, runs := map[string]int{}, 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		d := newDesk(rt, f, enforcer, tally)
		rt.Repeat(map[string]func(*rapid.T){
			"grant or revoke": d.grantOrRevoke,
			"lock out":        d.lockOut,
			"delegate":        d.delegate,
			"delegate more":   d.delegate,
			"end delegation":  d.endDelegation,
			"rotate keys":     d.rotateKeys,
			"edit":            d.editDraft,
			"submit":          d.submit,
			"submit again":    d.submit,
			"amend":           d.amend,
			"withdraw":        d.withdraw,
			"wait":            d.wait,
			"decide":          d.decide,
			"decide more":     d.decide,
			"decide well":     d.decideWell,
			"decide well too": d.decideWell,
			"decide as well":  d.decideWell,
			"wait more":       d.wait,
			"spoil more":      d.spoil,
			"two at once":     d.race,
			"show again":      d.showAgain,
			"dispatch":        d.dispatch,
			"spoil":           d.spoil,
			"":                d.check,
		})
	})
	t.Logf("%d runs: %v", runs, tally)
	if runs < 60 {
		return // too few to have seen everything
	}
	often := []string{
		"submit ", "submit " + string(campaign.CodeNoRoute), "submit " + string(campaign.CodeVersionChanged), "submit " + string(campaign.CodeForbidden),
		"edit ", "edit " + string(campaign.CodeVersionChanged), "amend ", "select ", "withdraw ",
		"decide ", "decide " + string(campaign.CodeStateConflict), "decide " + string(campaign.CodeVersionChanged), "decide " + string(campaign.CodeSelfApproval),
		"decide " + string(campaign.CodeSameActor), "dispatch ", "dispatch " + string(campaign.CodeDispatchRefused), "round approved", "round returned",
	}
	rarely := []string{
		"borrowed", "spoiled", "decide " + string(campaign.CodeForbidden), "decide " + string(campaign.CodeDelegationNotAllowed),
		"decide " + string(campaign.CodeAssertionMismatch), "decide " + string(campaign.CodeForgedDecision),
	}
	if runs >= 1000 {
		often = append(often, rarely...)
	}
	for _, seen := range often {
		require.Positive(t, tally[seen], "%q never happened", seen)
	}
}

// decide makes any decision, most of them on something that waits.
func (d *desk) decide(rt *rapid.T) {
	if len(d.book.rounds) == 0 {
		rt.Skip("no round")
	}
	a := attempt{round: len(d.book.rounds), level: 1, decision: campaign.DecisionApprove, words: true}
	if !d.mostly("this round") {
		a.round = rapid.IntRange(1, a.round).Draw(rt, "round")
	}
	r := d.book.rounds[a.round-1]
	a.revision = r.revision
	if waiting := r.waiting(); len(waiting) > 0 && d.mostly("waiting") {
		a.level = rapid.SampledFrom(waiting).Draw(rt, "level")
	} else {
		a.level = rapid.IntRange(1, len(r.steps)).Draw(rt, "any level")
	}
	a.who = d.someone("signer", func(who string) bool {
		return d.book.may(who, r.steps[a.level-1].act, r.money(r.steps[a.level-1]))
	})
	if l := d.drawLoan(rt); l != nil && rapid.Bool().Draw(rt, "borrowed") {
		a.who, a.forWhom, a.loan = l.to, l.from, l
		switch rapid.IntRange(0, 9).Draw(rt, "twist") {
		case 0:
			a.who = d.someone("thief", func(who string) bool { return who != l.to })
		case 1:
			a.forWhom = d.someone("victim", func(who string) bool { return who != l.from })
		}
	}
	switch rapid.IntRange(0, 15).Draw(rt, "fault") {
	case 0:
		a.stale = true
	case 1:
		a.revision = rapid.IntRange(1, len(d.book.plans)).Draw(rt, "revision")
	case 2:
		a.fault = campaign.CodeAssertionMismatch
	case 3:
		a.fault = campaign.CodeForgedDecision
	case 4:
		a.decision, a.words = campaign.DecisionReturn, rapid.Bool().Draw(rt, "words")
	case 5:
		a.decision, a.words = campaign.DecisionReject, rapid.Bool().Draw(rt, "words")
	}
	d.try(a)
}

// decideWell makes a decision that counts, if there is one that could.
func (d *desk) decideWell(rt *rapid.T) {
	good := d.good()
	if len(good) == 0 {
		rt.Skip("nothing waits for anybody")
	}
	if lent := slices.DeleteFunc(slices.Clone(good), func(a attempt) bool { return a.loan == nil }); len(lent) > 0 && rapid.Bool().Draw(rt, "lent") {
		good = lent
	}
	a := rapid.SampledFrom(good).Draw(rt, "good")
	if rapid.IntRange(0, 9).Draw(rt, "return") == 0 {
		a.decision, a.words = campaign.DecisionReturn, true
	}
	require.True(rt, d.try(a))
}

// good lists the consents that would count now.
func (d *desk) good() (all []attempt) {
	if len(d.book.rounds) == 0 {
		return nil
	}
	r := d.last()
	consider := func(a attempt) {
		for _, a.level = range r.waiting() {
			if broken, _ := d.book.refusals(a); len(broken) == 0 {
				all = append(all, a)
			}
		}
	}
	a := attempt{round: len(d.book.rounds), revision: r.revision, decision: campaign.DecisionApprove}
	for _, l := range d.book.loans { // first, for there are more of the others
		b := a
		b.who, b.forWhom, b.loan = l.to, l.from, l
		consider(b)
	}
	for _, who := range slices.Sorted(maps.Keys(cast)) {
		b := a
		b.who = who
		consider(b)
	}
	return all
}

// try makes a decision and reports whether it counted.
func (d *desk) try(a attempt) bool {
	broken, by := d.book.refusals(a)
	claim, row := d.write(a)
	if a.round == len(d.book.rounds) && a.fault == "" {
		// What the workflow says before it asks an activity: it knows of no authority.
		if front := campaign.CodeOf(d.state.Approval.Check(claim.Decide)); front != "" {
			require.Contains(d.rt, broken, front, "the workflow on %+v", a)
		}
	}
	// The activity is asked all the same, as by somebody who can make it run.
	if !d.judge("decide", d.answer(d.CountSignOff(d.ctx, claim)), broken) {
		return false
	}
	d.counted(a, by, claim, row)
	return true
}

// counted writes a decision that counted into the book and the workflow's state.
func (d *desk) counted(a attempt, by campaign.Action, claim campaign.SignOffClaim, row store.SignOff) {
	if a.loan != nil {
		d.tally["borrowed"]++
	}
	if by != d.last().steps[a.level-1].act {
		d.tally["escalated"]++
	}
	d.given = append(d.given, given{claim, row})
	require.NoError(d.rt, d.state.Approval.Check(claim.Decide))
	d.state.Approval.Count(claim.Decide, time.Now())
	d.book.count(a, by)
	d.tally["round "+d.last().result]++
	d.conclude("approval." + string(a.decision))
}

// write makes the row of a decision and signs it as the API would.
func (d *desk) write(a attempt) (campaign.SignOffClaim, store.SignOff) {
	r := d.book.rounds[a.round-1]
	s := r.steps[a.level-1]
	plan := d.plans[a.revision-1]
	who := d.users[a.who]
	var frozen []campaign.ApprovalLevel
	var facts campaign.Facts
	require.NoError(d.rt, d.Store.Pool().QueryRow(d.ctx, `SELECT route, facts FROM approval_round WHERE campaign_id = $1 AND round = $2`, d.id, a.round).Scan(&frozen, &facts))
	digests, err := plan.Digests().Selecting(facts.Audience, facts.Uses)
	require.NoError(d.rt, err)
	route, err := campaign.DigestOf(frozen)
	require.NoError(d.rt, err)
	d.clock = d.clock.Add(time.Second)
	row := store.SignOff{
		ID: uuid.NewString(), CampaignID: d.id, Revision: a.revision, Round: a.round, Digest: d.book.plans[a.revision-1].digest, Level: a.level,
		Party: string(frozen[a.level-1].Kind), UserID: who.UserID, ContentDigest: digests.Content, AudienceDigest: digests.Audience, BudgetDigest: digests.Budget,
		RouteDigest: route, Role: "manager", Unit: "operator", Amount: r.money(s), Currency: plan.Currency, Authority: "*", PolicyVersion: "1",
		Decision: a.decision, AuthTime: d.clock.Add(-time.Minute), IssuedAt: d.clock,
	}
	if a.stale {
		row.Digest = "0000"
	}
	if a.words {
		row.Words = "so be it"
	}
	if a.forWhom != "" {
		from := d.users[a.forWhom].UserID
		row.ActingFor = &from
	}
	if a.loan != nil {
		row.DelegationID = &a.loan.id
	}
	ring := d.keys.Ring()
	if a.fault == campaign.CodeForgedDecision {
		ring = newKeys(d.t).Ring()
		row.IssuedAt = time.Now().UTC().Truncate(time.Second)
	}
	claims, err := audit.SignOffClaims(row, modelUnit)
	require.NoError(d.rt, err)
	row.Assertion, err = assertion.Sign(ring, claims)
	require.NoError(d.rt, err)
	row.KeyID = ring.SignerID(row.IssuedAt)
	if a.fault == campaign.CodeAssertionMismatch { // the row says something else than was signed
		row.Role = "finance"
	}
	require.NoError(d.rt, d.Store.RecordSignOff(d.ctx, row))
	claim := campaign.SignOffClaim{
		CampaignID: d.id, Round: a.round, Levels: len(r.steps), Amount: row.Amount,
		Decide: campaign.Decide{
			Command: campaign.Command{UpdateID: row.ID, Actor: who}, SignOffID: row.ID, Revision: a.revision, Digest: row.Digest, Level: a.level,
			Decision: a.decision, Words: row.Words,
		},
	}
	if row.ActingFor != nil {
		claim.Decide.ActingFor = *row.ActingFor
	}
	if row.DelegationID != nil {
		claim.Decide.DelegationID = *row.DelegationID
	}
	return claim, row
}

// race has two decisions that would both count made at the same time.
func (d *desk) race(rt *rapid.T) {
	good := d.good()
	if len(good) < 2 {
		rt.Skip("no two could sign")
	}
	all := []attempt{rapid.SampledFrom(good).Draw(rt, "one"), rapid.SampledFrom(good).Draw(rt, "other")}
	claims, rows, answers := make([]campaign.SignOffClaim, 2), make([]store.SignOff, 2), make([]error, 2)
	for i, a := range all {
		claims[i], rows[i] = d.write(a)
	}
	done := make(chan int)
	for i := range all {
		go func() { answers[i] = d.CountSignOff(d.ctx, claims[i]); done <- i }()
	}
	first := <-done
	second := <-done
	if d.answer(answers[first]) != "" { // who answered first need not have been first
		first, second = second, first
	}
	for _, i := range []int{first, second} {
		broken, by := d.book.refusals(all[i])
		if d.judge("race", d.answer(answers[i]), broken) {
			d.counted(all[i], by, claims[i], rows[i])
		}
	}
}

// showAgain shows a decision that counted: as it was, which changes nothing, or as another.
func (d *desk) showAgain(rt *rapid.T) {
	if len(d.given) == 0 {
		rt.Skip("nothing was signed")
	}
	old := rapid.SampledFrom(d.given).Draw(rt, "old")
	if rapid.Bool().Draw(rt, "as it was") {
		require.Empty(rt, d.answer(d.CountSignOff(d.ctx, old.claim)))
		return
	}
	row := old.row
	row.ID, row.Round = uuid.NewString(), len(d.book.rounds)
	require.NoError(rt, d.Store.RecordSignOff(d.ctx, row))
	old.claim.Decide.SignOffID, old.claim.Round = row.ID, row.Round
	got := d.answer(d.CountSignOff(d.ctx, old.claim))
	require.NotEmpty(rt, got, "an assertion proves one decision")
}

// dispatch asks whether a revision may be dispatched; the one in force is, while the plan
// has waves left.
func (d *desk) dispatch(rt *rapid.T) {
	if d.state.Stage == campaign.StageRunning && d.shown < modelWaves-1 && d.mostly("in force") {
		if d.mayDispatch(d.state.Revision, d.shown+1) {
			d.shown++
		}
		return
	}
	d.probe(rapid.IntRange(1, len(d.book.plans)).Draw(rt, "revision"))
}

// probe asks whether a revision would be dispatched if it were in force, and leaves
// nothing behind.
func (d *desk) probe(revision int) bool {
	if !d.mayDispatch(revision, modelWaves) {
		return false
	}
	d.forced(`DELETE FROM contact WHERE campaign_id = $1 AND wave = $2`, d.id, modelWaves)
	d.forced(`DELETE FROM contact_batch WHERE campaign_id = $1 AND wave = $2`, d.id, modelWaves)
	return true
}

func (d *desk) mayDispatch(revision, wave int) bool {
	d.freeze()
	err := d.contacts(revision, wave)
	if err != nil {
		d.rt.Logf("dispatch of revision %d: %v", revision, err)
	}
	var broken []campaign.Code
	if !d.frozen || !d.book.dispatchable(revision) {
		broken = append(broken, campaign.CodeDispatchRefused)
	}
	return d.judge("dispatch", d.answer(err), broken)
}

// contacts has the contacts of a wave made under a revision. The read model says what lets
// it go, so that nothing but the signatures decides.
func (d *desk) contacts(revision, wave int) error {
	waves := make([]campaign.WaveRun, modelWaves)
	for i := range waves {
		waves[i] = campaign.WaveRun{Number: i + 1, Begun: true, StartsAt: time.Now(), Channels: []campaign.Channel{campaign.ChannelSMS}}
	}
	d.state.Version++
	require.NoError(d.rt, d.Project(d.ctx, campaign.Projection{CampaignID: d.id, Version: d.state.Version, Event: "running", Status: campaign.Status{
		Stage: campaign.StageRunning, Hold: campaign.HoldNone, Revision: revision, Waves: waves, Approval: d.state.Approval,
	}}))
	defer d.project("as it is")
	_, err := d.CreateContacts(d.ctx, campaign.DispatchInput{
		CampaignID: d.id, Wave: wave, Snapshot: max(1, d.snapshot), Revision: revision, Channel: campaign.ChannelSMS, ClosesAt: time.Now().Add(time.Minute),
	})
	return err
}

// spoil changes a piece of the evidence that a plan stands on. Dispatch must see it.
func (d *desk) spoil(rt *rapid.T) {
	revision := rapid.IntRange(1, len(d.book.plans)).Draw(rt, "revision")
	rounds := d.book.carriers(revision)
	if rounds == nil || !d.probe(revision) {
		rt.Skip("nothing to spoil")
	}
	r := rapid.SampledFrom(rounds).Draw(rt, "round")
	m := rapid.IntRange(0, len(r.marks)-1).Draw(rt, "mark")
	number := slices.Index(d.book.rounds, r) + 1
	type piece struct{ table, column, value string }
	pieces := []piece{
		{"sign_off", "words", "'gladly'"}, {"sign_off", "role", "'credit'"}, {"sign_off", "amount", "amount - 1"}, {"sign_off", "assertion", "''"},
		{"sign_off", "digest", "content_digest"}, {"sign_off", "level", "level + 1"}, {"sign_off", "decision", "'return'"}, {"sign_off", "at", "at - interval '200 days'"},
		{"sign_off", "user_id", "(SELECT requester FROM approval_round WHERE campaign_id = $2 AND round = $3)"},
		{"sign_off_counted", "action", "'campaign.read'"}, {"sign_off_counted", "campaign_id", "gen_random_uuid()"},
		{"approval_round", "requester", "(SELECT user_id FROM sign_off WHERE id = $1)"}, {"approval_round", "result", "'withdrawn'"},
		{"approval_round", "amount", "amount + 1"}, {"approval_round", "digest", "content_digest"}, {"approval_round", "route", "jsonb_set(route, '{0,name}', '\"x\"')"},
		{"plan_revision", "plan", `jsonb_set(plan, '{offer,name}', '"other"')`}, {"plan_revision", "digest", "'0000'"},
		{"plan_revision", "editor_id", "(SELECT user_id FROM sign_off WHERE id = $1)"},
	}
	if r.marks[m].loan != nil {
		pieces = append(pieces, piece{"delegation", "valid", "tstzrange(now() - interval '9 days', now() - interval '8 days')"}, piece{"delegation", "most", "1"},
			piece{"delegation", "unit", "'operator/south'"}, piece{"delegation", "actions", "'{campaign.read}'"}, piece{"delegation", "from_user", "to_user"},
			piece{"delegation", "to_user", "from_user"}, piece{"delegation", "revoked_at", "now() - interval '10 days'"})
	}
	p := rapid.SampledFrom(pieces).Draw(rt, "piece")
	if p.column == "at" && r.marks[m].loan == nil {
		rt.Skip("when it was written matters to borrowed authority alone")
	}
	which := map[string]string{
		"sign_off": "id = $1", "sign_off_counted": "sign_off_id = $1", "delegation": "id = (SELECT delegation_id FROM sign_off WHERE id = $1)",
		"approval_round": "campaign_id = $2 AND round = $3", "plan_revision": "campaign_id = $2 AND revision = $4",
	}[p.table] + " AND $1::uuid IS NOT NULL AND $2::uuid IS NOT NULL AND $3::int > 0 AND $4::int > 0"
	id := d.signOffOf(number, m)
	args := []any{id, d.id, number, r.revision}
	conn, err := d.owner.Pool().Acquire(d.ctx)
	require.NoError(rt, err)
	defer conn.Release()
	run := func(sql string, args ...any) {
		_, err := conn.Exec(d.ctx, sql, args...)
		require.NoError(rt, err, sql)
	}
	run(`SET session_replication_role = replica`)
	var was string
	require.NoError(rt, conn.QueryRow(d.ctx, fmt.Sprintf(`SELECT to_jsonb(t)::text FROM %s t WHERE %s`, p.table, which), args...).Scan(&was))
	run(fmt.Sprintf(`UPDATE %s SET %s = %s WHERE %s`, p.table, p.column, p.value, which), args...)
	got := d.answer(d.contacts(revision, modelWaves))
	require.Equal(rt, campaign.CodeDispatchRefused, got, "%s.%s was changed", p.table, p.column)
	run(fmt.Sprintf(`UPDATE %[1]s SET %[2]s = k.%[2]s FROM jsonb_populate_record(NULL::%[1]s, $1) k WHERE %[3]s`, p.table, p.column, keyOf[p.table]), was)
	run(`SET session_replication_role = origin`)
	d.tally["spoiled"]++
	d.tally["spoiled "+p.table+"."+p.column]++
	require.True(rt, d.probe(revision), "as it was")
}

// keyOf joins a table with a copy of one of its rows, k.
var keyOf = map[string]string{
	"sign_off": "sign_off.id = k.id", "sign_off_counted": "sign_off_counted.sign_off_id = k.sign_off_id", "delegation": "delegation.id = k.id",
	"approval_round": "approval_round.campaign_id = k.campaign_id AND approval_round.round = k.round",
	"plan_revision":  "plan_revision.campaign_id = k.campaign_id AND plan_revision.revision = k.revision",
}

// signOffOf is the row of the n-th decision that counted in a round.
func (d *desk) signOffOf(round, n int) string {
	for _, g := range d.given {
		if g.row.Round == round {
			if n == 0 {
				return g.row.ID
			}
			n--
		}
	}
	d.rt.Fatalf("round %d has no decision %d", round, n)
	return ""
}

// forced changes rows as the database's own rules do not let anybody.
func (d *desk) forced(sql string, args ...any) {
	conn, err := d.owner.Pool().Acquire(d.ctx)
	require.NoError(d.rt, err)
	defer conn.Release()
	for _, step := range []func() error{
		func() error { _, err := conn.Exec(d.ctx, `SET session_replication_role = replica`); return err },
		func() error { _, err := conn.Exec(d.ctx, sql, args...); return err },
		func() error { _, err := conn.Exec(d.ctx, `SET session_replication_role = origin`); return err },
	} {
		require.NoError(d.rt, step())
	}
}

// check compares the rows with the book after each action.
func (d *desk) check(rt *rapid.T) {
	type row struct {
		round, level int
		who, forWhom string
		by, decision string
	}
	var got, want []row
	rows, err := d.Store.Pool().Query(d.ctx, `SELECT o.round, o.level, u.name, coalesce(f.name, ''), k.action, o.decision
		FROM sign_off_counted k JOIN sign_off o ON o.id = k.sign_off_id JOIN app_user u ON u.id = o.user_id LEFT JOIN app_user f ON f.id = o.acting_for
		WHERE k.campaign_id = $1`, d.id)
	require.NoError(rt, err)
	defer rows.Close()
	for rows.Next() {
		var r row
		require.NoError(rt, rows.Scan(&r.round, &r.level, &r.who, &r.forWhom, &r.by, &r.decision))
		got = append(got, r)
	}
	require.NoError(rt, rows.Err())
	for i, r := range d.book.rounds {
		for _, m := range r.marks {
			want = append(want, row{i + 1, m.level, m.who, m.forWhom, string(m.by), string(m.decision)})
		}
	}
	require.ElementsMatch(rt, want, got)
	for i, r := range d.book.rounds {
		var result string
		require.NoError(rt, d.Store.Pool().QueryRow(d.ctx, `SELECT coalesce(result, '') FROM approval_round WHERE campaign_id = $1 AND round = $2`, d.id, i+1).Scan(&result))
		require.Equal(rt, r.result, result, "round %d", i+1)
	}
	if n := len(d.book.rounds); n > 0 && d.last() != nil && d.state.Approval.Open() {
		var waiting []int
		for _, w := range d.state.Approval.Waiting {
			waiting = append(waiting, w.Level)
		}
		require.Equal(rt, d.last().waiting(), waiting)
	}
	broken, err := d.Store.CheckInvariants(d.ctx, d.id)
	require.NoError(rt, err)
	require.Empty(rt, broken)
	if d.state.Revision > 0 {
		d.probe(d.state.Revision)
	}
}
