package campaign

import (
	"slices"
	"time"
)

// Decision is what an approver says.
type Decision string

// The decisions.
const (
	DecisionApprove Decision = "approve"
	DecisionReturn  Decision = "return" // send back for change, with words
	DecisionReject  Decision = "reject" // end it, with words
)

// LevelKind says what a level signs for.
type LevelKind string

// The kinds of level; none means the plan.
const (
	LevelPlan   LevelKind = "plan"   // the plan and its whole budget
	LevelCredit LevelKind = "credit" // the prepaid credit in it
)

// Expiry says what becomes of a round whose level nobody decides in time, also after it
// was escalated. There is no expiry that approves.
type Expiry string

// The expiries; none means return.
const (
	ExpiryReturn Expiry = "return" // back to the planner
	ExpiryReject Expiry = "reject" // the end of the plan
)

// ApprovalLevel is one signature, or several of the same kind, that a plan needs.
type ApprovalLevel struct {
	Level int `json:"level"` // 1, 2, …
	// Stage joins the levels that wait side by side: they have the same one. Stages follow
	// one another. 0 is a stage of its own.
	Stage  int       `json:"stage,omitempty"`
	Name   string    `json:"name"` // e.g. "marketing manager"
	Kind   LevelKind `json:"kind,omitempty"`
	Action Action    `json:"action"`
	// Required is how many different people must approve; 0 means one.
	Required int `json:"required,omitempty"`
	// UserID is the one person who may sign, such as a programme's owner; empty means
	// whoever has the authority.
	UserID   string `json:"user_id,omitempty"`
	DueAfter int64  `json:"due_after_seconds"` // of working time, to decide in from the stage's start
	// EscalateTo may sign as well once the level is overdue; empty means that nobody else may.
	EscalateTo Action `json:"escalate_to,omitempty"`
	OnExpiry   Expiry `json:"on_expiry,omitempty"`
}

// Needs returns how many different people must approve the level.
func (l ApprovalLevel) Needs() int { return max(l.Required, 1) }

// Signature is a counted sign-off.
type Signature struct {
	SignOffID string      `json:"sign_off_id"`
	Level     int         `json:"level"`
	UserID    string      `json:"user_id"`
	Name      string      `json:"name"`
	ActingFor string      `json:"acting_for,omitempty"` // the user whose delegate signed
	Decision  Decision    `json:"decision"`
	Words     string      `json:"words,omitempty"`
	Fields    []FieldNote `json:"fields,omitempty"` // what is to change, on a return
	At        time.Time   `json:"at,omitzero"`
}

// FieldNote is what an approver says about one field of a plan.
type FieldNote struct {
	Field string `json:"field"` // path, e.g. "budget[1].amount"
	Words string `json:"words"`
}

// Waiting is a level that waits for signatures.
type Waiting struct {
	Level     int       `json:"level"`
	Since     time.Time `json:"since"`
	DueAt     time.Time `json:"due_at"`
	Escalated bool      `json:"escalated,omitempty"` // it was overdue: EscalateTo may sign too
}

// Approval is the progress of one approval round: a route frozen at submission and
// the signatures counted so far.
type Approval struct {
	Round    int    `json:"round"` // 1, 2, … over all revisions of the campaign
	Revision int    `json:"revision"`
	Digest   string `json:"digest"`
	Amount   int64  `json:"amount"`           // minor units that are signed for, see Base
	Credit   int64  `json:"credit,omitempty"` // of these, prepaid credit
	// Base is the revision that an amendment of nothing but money adds to, 0 for a whole plan;
	// Total is then what the whole plan may spend. See Facts.
	Base  int   `json:"base,omitempty"`
	Total int64 `json:"total,omitempty"`
	// Audience is how many customers the signers are told it reaches, and Uses what the filters
	// name, as it was then. See Facts.
	Audience  int64           `json:"audience,omitempty"`
	Uses      []FilterUse     `json:"uses,omitzero"`
	Requester string          `json:"requester"`
	Rule      string          `json:"rule,omitempty"`     // the route's rule that fitted
	Together  []Together      `json:"together,omitempty"` // campaigns whose money chose the rule as well
	Route     []ApprovalLevel `json:"route"`
	Calendar  *Calendar       `json:"calendar,omitempty"` // of due times; nil is round the clock

	Signatures []Signature    `json:"signatures,omitempty"`
	Waiting    []Waiting      `json:"waiting,omitempty"` // in the order of levels
	Result     ApprovalResult `json:"result,omitempty"`
	Expired    int            `json:"expired,omitempty"` // the level whose time ran out
	Words      string         `json:"words,omitempty"`   // why it was withdrawn
}

// ApprovalResult is how an approval round ended; empty while it goes on.
type ApprovalResult string

// The results.
const (
	ApprovalApproved ApprovalResult = "approved"
	ApprovalReturned ApprovalResult = "returned"
	ApprovalRejected ApprovalResult = "rejected"
	ApprovalExpired  ApprovalResult = "expired"
	// ApprovalOutdated means that another revision came in force than the amendment was
	// made from.
	ApprovalOutdated ApprovalResult = "outdated"
	// ApprovalUnfunded means that everybody signed the amendment and its money could not be
	// reserved.
	ApprovalUnfunded ApprovalResult = "unfunded"
	// ApprovalWithdrawn means that the planner took it back, or that the campaign ended or
	// was stopped first.
	ApprovalWithdrawn ApprovalResult = "withdrawn"
)

// NewApproval starts a round at now, of which everything up to Calendar is given.
func NewApproval(round Approval, now time.Time) *Approval {
	a := &round
	a.enter(0, now)
	return a
}

// enter lets the levels of the stage that begins at route index i wait.
func (a *Approval) enter(i int, now time.Time) {
	stage := a.Route[i].Stage
	for ; i < len(a.Route); i++ {
		l := a.Route[i]
		if len(a.Waiting) > 0 && (l.Stage != stage || stage == 0) {
			return
		}
		a.Waiting = append(a.Waiting, Waiting{Level: l.Level, Since: now, DueAt: a.Calendar.due(now, l)})
	}
}

// due returns when a level that waits since then is overdue. A nil calendar is round the
// clock.
func (c *Calendar) due(since time.Time, l ApprovalLevel) time.Time {
	if c == nil {
		return since.Add(Seconds(l.DueAfter))
	}
	return c.After(since, Seconds(l.DueAfter))
}

// Clock returns when the people of a level are reminded, when it is overdue and when it
// expires, if it waits since then: after half of its time, all of it, and twice that.
func (l ApprovalLevel) Clock(c *Calendar, since time.Time) (remind, due, expire time.Time) {
	half, twice := l, l
	half.DueAfter, twice.DueAfter = l.DueAfter/2, l.DueAfter*2
	return c.due(since, half), c.due(since, l), c.due(since, twice)
}

// Open reports whether the round waits for a decision.
func (a *Approval) Open() bool { return a != nil && a.Result == "" && len(a.Waiting) > 0 }

// Current returns the first level that waits for a signature and whether there is one.
func (a *Approval) Current() (ApprovalLevel, bool) {
	if !a.Open() {
		return ApprovalLevel{}, false
	}
	return a.Route[a.Waiting[0].Level-1], true
}

// At returns a level of the route and how it waits; false when it does not.
func (a *Approval) At(level int) (ApprovalLevel, Waiting, bool) {
	if a.Open() {
		for _, w := range a.Waiting {
			if w.Level == level {
				return a.Route[level-1], w, true
			}
		}
	}
	return ApprovalLevel{}, Waiting{}, false
}

// DueAt is when the first waiting level is overdue, the zero time when none waits.
func (a *Approval) DueAt() (due time.Time) {
	if !a.Open() {
		return due
	}
	for _, w := range a.Waiting {
		if due.IsZero() || w.DueAt.Before(due) {
			due = w.DueAt
		}
	}
	return due
}

// AmountOf is the money that a level signs for, in minor units.
func (a *Approval) AmountOf(l ApprovalLevel) int64 {
	if l.Kind == LevelCredit {
		return a.Credit
	}
	return a.Amount
}

// Approved counts the approvals of a level.
func (a *Approval) Approved(level int) (n int) {
	for _, s := range a.Signatures {
		if s.Level == level && s.Decision == DecisionApprove {
			n++
		}
	}
	return n
}

// Check says whether a decision may be counted: the round is open, about this
// revision and digest, the level waits, nobody behind the decision asked for the round
// or has signed in it yet, and anything but approval says why.
func (a *Approval) Check(d Decide) error {
	level, _, waits := a.At(d.Level)
	switch {
	case a != nil && a.Result == ApprovalOutdated && d.Revision == a.Revision:
		return OutdatedAmendment(a.Revision)
	case !a.Open():
		return Errorf(CodeStateConflict, "no approval is waiting for a decision")
	case d.Revision != a.Revision || d.Digest != a.Digest:
		return Errorf(CodeVersionChanged, "the plan changed: revision %d is waiting for a decision, not revision %d", a.Revision, d.Revision).
			With("revision", a.Revision)
	}
	// Before the level: a second click after the round moved on is still a second click.
	if err := a.checkPeople(d); err != nil {
		return err
	}
	switch {
	case !waits:
		return Errorf(CodeStateConflict, "level %d is not waiting for a decision", d.Level).With("waiting", a.Waiting)
	case level.UserID != "" && level.UserID != d.Actor.UserID && level.UserID != d.ActingFor:
		return Errorf(CodeForbidden, "level %d (%s) is signed by one person alone", level.Level, level.Name)
	}
	switch d.Decision {
	case DecisionApprove:
	case DecisionReturn, DecisionReject:
		if d.Words == "" {
			return Errorf(CodeReasonRequired, "say why: a decision to %s needs words", d.Decision)
		}
	default:
		return Errorf(CodeInvalidParameter, "decision must be approve, return or reject")
	}
	if len(d.Fields) > 0 && d.Decision != DecisionReturn {
		return Errorf(CodeInvalidParameter, "only a plan that is returned has fields to change")
	}
	return nil
}

// checkPeople keeps duties apart: the person who decides and the one they act for are
// both behind the decision.
func (a *Approval) checkPeople(d Decide) error {
	behind := []string{d.Actor.UserID}
	if d.ActingFor != "" {
		behind = append(behind, d.ActingFor)
	}
	if slices.Contains(behind, a.Requester) {
		return Errorf(CodeSelfApproval, "nobody signs a campaign they submitted or edited themselves, nor does their delegate")
	}
	for _, s := range a.Signatures {
		if slices.Contains(behind, s.UserID) || s.ActingFor != "" && slices.Contains(behind, s.ActingFor) {
			return Errorf(CodeSameActor, "%s has signed level %d already; each signature needs another person", s.Name, s.Level)
		}
	}
	return nil
}

// OutdatedAmendment is the refusal of an amendment that was made from another revision
// than the one in force: adopting it would undo in silence what came in force since.
func OutdatedAmendment(revision int) error {
	return Errorf(CodeAmendmentOutdated, "another plan came in force since revision %d was made; read the plan in force and amend again", revision).
		With("revision", revision)
}

// Count adds a checked and verified decision and moves the round on. Whoever returns or
// rejects at any level ends it.
func (a *Approval) Count(d Decide, now time.Time) {
	a.Signatures = append(a.Signatures, Signature{
		SignOffID: d.SignOffID, Level: d.Level, UserID: d.Actor.UserID, Name: d.Actor.Name, ActingFor: d.ActingFor,
		Decision: d.Decision, Words: d.Words, Fields: d.Fields, At: now,
	})
	switch d.Decision {
	case DecisionReturn:
		a.end(ApprovalReturned)
	case DecisionReject:
		a.end(ApprovalRejected)
	default:
		if a.Approved(d.Level) < a.Route[d.Level-1].Needs() {
			return
		}
		// The stage's levels are next to each other: the last of them to be done has the
		// next stage behind the highest.
		last := d.Level
		for i := d.Level; i < len(a.Route) && a.Route[i].Stage != 0 && a.Route[i].Stage == a.Route[d.Level-1].Stage; i++ {
			last = a.Route[i].Level
		}
		a.Waiting = slices.DeleteFunc(slices.Clone(a.Waiting), func(w Waiting) bool { return w.Level == d.Level })
		switch {
		case len(a.Waiting) > 0:
		case last == len(a.Route):
			a.end(ApprovalApproved)
		default:
			a.enter(last, now)
		}
	}
}

// Escalate lets whom a waiting level escalates to sign it as well, until it expires. It
// reports whether the level waits.
func (a *Approval) Escalate(level int) bool {
	l, _, waits := a.At(level)
	if !waits {
		return false
	}
	a.Waiting = slices.Clone(a.Waiting)
	for i := range a.Waiting {
		if w := &a.Waiting[i]; w.Level == level {
			w.Escalated = true
			_, _, w.DueAt = l.Clock(a.Calendar, w.Since)
		}
	}
	return true
}

// Expire ends the round because nobody decided a waiting level in time, as the level
// says. It reports whether the level waits.
func (a *Approval) Expire(level int) bool {
	l, _, waits := a.At(level)
	if !waits {
		return false
	}
	a.Expired = level
	if l.OnExpiry == ExpiryReject {
		a.end(ApprovalRejected)
	} else {
		a.end(ApprovalExpired)
	}
	return true
}

// Withdraw ends an open round that nobody needs to decide any more: no signature counts
// from now on. It reports whether the round was open.
func (a *Approval) Withdraw(result ApprovalResult, words string) bool {
	if !a.Open() {
		return false
	}
	a.Words = words
	a.end(result)
	return true
}

func (a *Approval) end(result ApprovalResult) {
	a.Result, a.Waiting = result, nil
}
