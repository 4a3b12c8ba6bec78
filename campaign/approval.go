package campaign

import "time"

// Decision is what an approver says.
type Decision string

// The decisions.
const (
	DecisionApprove Decision = "approve"
	DecisionReturn  Decision = "return" // send back for change, with words
	DecisionReject  Decision = "reject" // end it, with words
)

// ApprovalLevel is one stage of an approval route.
type ApprovalLevel struct {
	Level    int    `json:"level"` // 1, 2, …
	Name     string `json:"name"`  // e.g. "marketing manager"
	Action   Action `json:"action"`
	DueAfter int64  `json:"due_after_seconds"` // to decide in, from the level's start
	// EscalateTo may sign as well once the level is overdue; empty means that nobody else may.
	EscalateTo Action `json:"escalate_to,omitempty"`
}

// Signature is a counted sign-off.
type Signature struct {
	SignOffID string   `json:"sign_off_id"`
	Level     int      `json:"level"`
	UserID    string   `json:"user_id"`
	Name      string   `json:"name"`
	Decision  Decision `json:"decision"`
	Words     string   `json:"words,omitempty"`
}

// Approval is the progress of one approval round: a route frozen at submission and
// the signatures counted so far.
type Approval struct {
	Round      int             `json:"round"` // 1, 2, … over all revisions of the campaign
	Revision   int             `json:"revision"`
	Digest     string          `json:"digest"`
	Amount     int64           `json:"amount"` // minor units that the round is about
	Requester  string          `json:"requester"`
	Route      []ApprovalLevel `json:"route"`
	Signatures []Signature     `json:"signatures,omitempty"`
	Level      int             `json:"level"`  // the level now waiting, 1-based
	DueAt      time.Time       `json:"due_at"` // of the level now waiting
	Escalated  bool            `json:"escalated,omitempty"`
	Result     ApprovalResult  `json:"result,omitempty"`
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
	// ApprovalWithdrawn means that the campaign ended or was stopped first.
	ApprovalWithdrawn ApprovalResult = "withdrawn"
)

// NewApproval starts a round at now.
func NewApproval(revision int, digest string, amount int64, requester string, route []ApprovalLevel, now time.Time) *Approval {
	a := &Approval{Revision: revision, Digest: digest, Amount: amount, Requester: requester, Route: route}
	a.enter(1, now)
	return a
}

func (a *Approval) enter(level int, now time.Time) {
	a.Level = level
	a.Escalated = false
	a.DueAt = now.Add(Seconds(a.Route[level-1].DueAfter))
}

// Current returns the level that waits for a signature and whether there is one.
func (a *Approval) Current() (ApprovalLevel, bool) {
	if a == nil || a.Result != "" || a.Level < 1 || a.Level > len(a.Route) {
		return ApprovalLevel{}, false
	}
	return a.Route[a.Level-1], true
}

// Check says whether a decision may be counted: the round is open, about this
// revision and digest, the person did not ask for it and has not signed yet, and
// anything but approval says why.
func (a *Approval) Check(d Decide) error {
	level, open := a.Current()
	switch {
	case a != nil && a.Result == ApprovalOutdated && d.Revision == a.Revision:
		return OutdatedAmendment(a.Revision)
	case !open:
		return Errorf(CodeStateConflict, "no approval is waiting for a decision")
	case d.Revision != a.Revision || d.Digest != a.Digest:
		return Errorf(CodeVersionChanged, "the plan changed: revision %d is waiting for a decision, not revision %d", a.Revision, d.Revision).
			With("revision", a.Revision)
	case d.Level != level.Level:
		return Errorf(CodeStateConflict, "level %d (%s) is waiting for a decision, not level %d", level.Level, level.Name, d.Level)
	case d.Actor.UserID == a.Requester:
		return Errorf(CodeSelfApproval, "nobody signs a campaign they submitted or edited themselves")
	}
	for _, s := range a.Signatures {
		if s.UserID == d.Actor.UserID {
			return Errorf(CodeSameActor, "%s has signed level %d already; each level needs another person", s.Name, s.Level)
		}
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
	return nil
}

// OutdatedAmendment is the refusal of an amendment that was made from another revision
// than the one in force: adopting it would undo in silence what came in force since.
func OutdatedAmendment(revision int) error {
	return Errorf(CodeAmendmentOutdated, "another plan came in force since revision %d was made; read the plan in force and amend again", revision).
		With("revision", revision)
}

// Count adds a checked and verified decision and moves the round on.
func (a *Approval) Count(d Decide, now time.Time) {
	a.Signatures = append(a.Signatures, Signature{
		SignOffID: d.SignOffID, Level: a.Level, UserID: d.Actor.UserID, Name: d.Actor.Name, Decision: d.Decision, Words: d.Words,
	})
	switch d.Decision {
	case DecisionReturn:
		a.Result = ApprovalReturned
	case DecisionReject:
		a.Result = ApprovalRejected
	default:
		if a.Level == len(a.Route) {
			a.Result = ApprovalApproved
			return
		}
		a.enter(a.Level+1, now)
	}
}
