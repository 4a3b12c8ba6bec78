package activities_test

import (
	"slices"

	"github.com/musterhq/muster/campaign"
)

// rulebook says who may sign what. It is written from the rules alone, in the plainest
// form there is, and shares nothing with the code that it judges but the names of codes,
// roles and actions.
type rulebook struct {
	people map[string]*human // by login
	loans  []*loan
	plans  []planned // revision n is plans[n-1]
	rounds []*bout   // round n is rounds[n-1]
}

// human is a person with the roles they hold.
type human struct {
	off  bool // may not log in
	hats map[hat]bool
}

type hat struct {
	role campaign.Role
	unit campaign.OrgUnit
}

// loan is a delegation.
type loan struct {
	id       string
	from, to string
	acts     []campaign.Action
	unit     campaign.OrgUnit
	most     int64 // 0 for no limit
	state    string
}

// The states of a loan.
const (
	loanHeld    = "held"
	loanEarly   = "early"
	loanEnded   = "ended"
	loanRevoked = "revoked"
)

// planned is a revision of the plan as far as approvals go.
type planned struct {
	editor string
	base   int // the revision that it amends; 0 for a draft
	sms    int64
	credit int64
	offer  string
	digest string
}

func (p planned) amount() int64 { return p.sms + p.credit }

// bout is an approval round.
type bout struct {
	revision  int
	requester string
	ask
	steps  []step // level n is steps[n-1]
	marks  []mark
	late   map[int]bool // levels that are overdue
	result string       // "" while it goes on
}

// ask is what a round is about: the whole plan, or no more than the money that an amendment
// adds to the plan it was made from.
type ask struct {
	base    int   // 0 for the whole plan
	added   int64 // by this amendment alone
	amount  int64 // to sign for
	counted int64 // that chooses the route
	credit  int64 // of amount, prepaid credit
}

// step is a level that must be signed.
type step struct {
	stage  int
	act    campaign.Action
	other  campaign.Action // that may sign too once it is late; "" for none
	needs  int
	credit bool // signs for the prepaid credit and not for the whole
}

// mark is a decision that counted.
type mark struct {
	level        int
	who, forWhom string
	loan         *loan
	by           campaign.Action
	decision     campaign.Decision
}

// where the campaign of the model is.
const modelUnit campaign.OrgUnit = "operator/north"

var (
	above   = []campaign.OrgUnit{"operator", modelUnit} // units whose roles reach the campaign
	signing = []campaign.Action{campaign.ActApprovalManager, campaign.ActApprovalFinance, campaign.ActApprovalCredit}
	gives   = map[campaign.Role][]campaign.Action{
		campaign.RolePlanner: {campaign.ActCampaignSubmit, campaign.ActCampaignWithdraw, campaign.ActCampaignAmend},
		campaign.RoleManager: {campaign.ActApprovalManager},
		campaign.RoleFinance: {campaign.ActApprovalFinance},
		campaign.RoleCredit:  {campaign.ActApprovalCredit},
	}
)

// managersLimit is the most that a marketing manager signs for here, in fen.
const managersLimit = 1_000_000_000

// denied reports whether somebody holds a role that rules signing out.
func (b *rulebook) denied(who string) bool {
	for _, unit := range above {
		if b.people[who].hats[hat{campaign.RoleAdmin, unit}] {
			return true
		}
	}
	return false
}

// holds reports whether a role of their own gives somebody an action, money aside.
func (b *rulebook) holds(who string, act campaign.Action) bool {
	h := b.people[who]
	if h.off || slices.Contains(signing, act) && b.denied(who) {
		return false
	}
	for hat := range h.hats {
		if slices.Contains(above, hat.unit) && slices.Contains(gives[hat.role], act) {
			return true
		}
	}
	return false
}

// may reports whether somebody may do an action that is about so much money.
func (b *rulebook) may(who string, act campaign.Action, money int64) bool {
	return b.holds(who, act) && (act != campaign.ActApprovalManager || money <= managersLimit)
}

// lends says why a loan does not let somebody sign for somebody else; "" when it does.
func (b *rulebook) lends(l *loan, who, forWhom string, act campaign.Action, money int64) (codes []campaign.Code) {
	switch {
	case l.from != forWhom || l.to != who:
		codes = append(codes, campaign.CodeDelegationNotAllowed)
	case l.state != loanHeld || b.people[l.from].off || b.people[l.to].off:
		codes = append(codes, campaign.CodeDelegationExpired)
	}
	if !slices.Contains(l.acts, act) || !slices.Contains(above, l.unit) || !b.people[forWhom].off && !b.holds(forWhom, act) {
		codes = append(codes, campaign.CodeDelegationNotAllowed)
	}
	if l.most != 0 && money > l.most || b.holds(forWhom, act) && !b.may(forWhom, act, money) {
		codes = append(codes, campaign.CodeLimitExceeded)
	}
	if b.denied(who) {
		codes = append(codes, campaign.CodeForbidden)
	}
	return codes
}

// ladder is the route that so much money takes by the rules of modelRoutes; nil when there
// is none.
func ladder(a ask) []step {
	manager := step{1, campaign.ActApprovalManager, campaign.ActApprovalFinance, 1, false}
	finance := step{2, campaign.ActApprovalFinance, "", 1, false}
	var steps []step
	switch {
	case a.counted <= 2_000_000:
		steps = []step{manager}
	case a.counted <= 50_000_000:
		manager.needs = 2
		steps = []step{manager, finance}
	case a.counted <= 5_000_000_000:
		steps = []step{manager, finance, {2, campaign.ActApprovalManager, "", 1, false}}
	default:
		return nil
	}
	if a.credit > 0 {
		steps = append(steps, step{steps[len(steps)-1].stage + 1, campaign.ActApprovalCredit, campaign.ActApprovalFinance, 1, true})
	}
	return steps
}

// asks says what a revision needs signatures for: a plan that differs from a signed one in
// nothing but that it spends more needs them for the difference, together with what such
// amendments added before: of those who sign for the whole, unless they signed before.
func (b *rulebook) asks(revision int) ask {
	p := b.plans[revision-1]
	whole := ask{amount: p.amount(), counted: p.amount(), credit: p.credit}
	if p.base == 0 {
		return whole
	}
	q := b.plans[p.base-1]
	if p.offer != q.offer || p.credit > q.credit || p.sms <= q.sms {
		return whole
	}
	more := ask{base: p.base, added: p.sms - q.sms, amount: p.sms - q.sms}
	for _, r := range b.rounds {
		if r.result == "approved" {
			more.amount += r.added
		}
	}
	more.counted = more.amount
	band := func(money int64) int { return len(ladder(ask{counted: money})) }
	if !slices.ContainsFunc(b.rounds, func(r *bout) bool {
		return r.result == "approved" && r.revision <= p.base && (r.counted >= p.amount() || band(r.counted) == band(p.amount()))
	}) {
		more.counted = p.amount()
	}
	return more
}

// wrote reports whether somebody had a hand in a plan up to a revision.
func (b *rulebook) wrote(who string, revision int) bool {
	return slices.ContainsFunc(b.plans[:revision], func(p planned) bool { return p.editor == who })
}

// signable reports whether different people who had no hand in a plan could sign it.
func (b *rulebook) signable(a ask, revision int, requester string) bool {
	var slots []step
	for _, s := range ladder(a) {
		for range s.needs {
			slots = append(slots, s)
		}
	}
	taken := map[string]bool{}
	var fill func(i int) bool
	fill = func(i int) bool {
		if i == len(slots) {
			return true
		}
		for who := range b.people {
			if taken[who] || who == requester || b.wrote(who, revision) || !b.may(who, slots[i].act, a.money(slots[i])) {
				continue
			}
			taken[who] = true
			if fill(i + 1) {
				return true
			}
			delete(taken, who)
		}
		return false
	}
	return len(slots) > 0 && fill(0)
}

// money is what a level signs for.
func (a ask) money(s step) int64 {
	if s.credit {
		return a.credit
	}
	return a.amount
}

// approvals counts the consents of a level.
func (r *bout) approvals(level int) (n int) {
	for _, m := range r.marks {
		if m.level == level && m.decision == campaign.DecisionApprove {
			n++
		}
	}
	return n
}

// waiting lists the levels that can be signed now: of the first stage that is not complete.
func (r *bout) waiting() (levels []int) {
	if r.result != "" {
		return nil
	}
	for i, s := range r.steps {
		if r.approvals(i+1) >= s.needs {
			continue
		}
		if len(levels) == 0 || s.stage == r.steps[levels[0]-1].stage {
			levels = append(levels, i+1)
		}
	}
	return levels
}

// attempt is a decision that somebody tries to make.
type attempt struct {
	who, forWhom string
	loan         *loan
	round, level int
	revision     int
	stale        bool // it names another digest than the revision's
	decision     campaign.Decision
	words        bool
	fault        campaign.Code // what is wrong with the row's signature, "" for nothing
}

// refusals lists every rule that a decision breaks. When there is none it counts, by the
// action that is returned.
func (b *rulebook) refusals(a attempt) (codes []campaign.Code, by campaign.Action) {
	r := b.rounds[a.round-1]
	no := func(code campaign.Code, when bool) {
		if when {
			codes = append(codes, code)
		}
	}
	no(a.fault, a.fault != "")
	no(campaign.CodeStateConflict, !slices.Contains(r.waiting(), a.level))
	no(campaign.CodeVersionChanged, a.stale || a.revision != r.revision)
	no(campaign.CodeReasonRequired, a.decision != campaign.DecisionApprove && !a.words)
	behind := []string{a.who}
	if a.forWhom != "" {
		behind = append(behind, a.forWhom)
	}
	for _, who := range behind {
		// The revision that they say they sign may not be that of the round.
		no(campaign.CodeSelfApproval, who == r.requester || b.wrote(who, a.revision))
		no(campaign.CodeSameActor, slices.ContainsFunc(r.marks, func(m mark) bool { return m.who == who || m.forWhom == who }))
	}
	if a.level < 1 || a.level > len(r.steps) {
		return codes, ""
	}
	s := r.steps[a.level-1]
	acts := []campaign.Action{s.act}
	if r.late[a.level] && s.other != "" {
		acts = append(acts, s.other)
	}
	var last []campaign.Code
	for _, act := range acts {
		if last = b.authority(a, act, r.money(s)); len(last) == 0 {
			return codes, act
		}
		codes = append(codes, last...)
	}
	return codes, ""
}

// authority says why an action is not somebody's, their own or a borrowed one.
func (b *rulebook) authority(a attempt, act campaign.Action, money int64) []campaign.Code {
	switch {
	case a.loan != nil:
		return b.lends(a.loan, a.who, a.forWhom, act, money)
	case a.forWhom != "":
		return []campaign.Code{campaign.CodeDelegationNotAllowed}
	case b.may(a.who, act, money):
		return nil
	case b.holds(a.who, act):
		return []campaign.Code{campaign.CodeLimitExceeded}
	}
	return []campaign.Code{campaign.CodeForbidden}
}

// count adds a decision that counted.
func (b *rulebook) count(a attempt, by campaign.Action) {
	r := b.rounds[a.round-1]
	r.marks = append(r.marks, mark{a.level, a.who, a.forWhom, a.loan, by, a.decision})
	switch {
	case a.decision == campaign.DecisionReturn:
		r.result = "returned"
	case a.decision == campaign.DecisionReject:
		r.result = "rejected"
	case len(r.waiting()) == 0:
		r.result = "approved"
	}
}

// carriers are the rounds whose signatures carry a revision: its own, or that of the plan it
// does less of; and if that was about a difference, those of the plan that it adds to. There
// are none when nobody signed.
func (b *rulebook) carriers(revision int) []*bout {
	for {
		for i := len(b.rounds) - 1; i >= 0; i-- {
			r := b.rounds[i]
			switch {
			case r.revision != revision || r.result != "approved":
				continue
			case r.base == 0:
				return []*bout{r}
			}
			if below := b.carriers(r.base); below != nil {
				return append(below, r)
			}
			return nil
		}
		p := b.plans[revision-1]
		if p.base == 0 || !p.lessOf(b.plans[p.base-1]) {
			return nil
		}
		revision = p.base
	}
}

// lessOf reports whether a plan costs no more and says the same.
func (p planned) lessOf(q planned) bool {
	return p.offer == q.offer && p.sms <= q.sms && p.credit <= q.credit
}

// dispatchable reports whether a revision may be dispatched today: everybody whose
// signature carries it may still sign.
func (b *rulebook) dispatchable(revision int) bool {
	rounds := b.carriers(revision)
	for _, r := range rounds {
		for _, m := range r.marks {
			if !b.stands(r, m) {
				return false
			}
		}
	}
	return rounds != nil
}

func (b *rulebook) stands(r *bout, m mark) bool {
	authority := m.who
	if m.forWhom != "" {
		if authority = m.forWhom; b.denied(m.who) {
			return false
		}
	}
	return !b.people[m.who].off && b.may(authority, m.by, r.money(r.steps[m.level-1]))
}
