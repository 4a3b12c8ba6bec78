package campaign

import "time"

// State is everything a campaign workflow knows. It is the input of each continued
// run, so fields may be added but never change meaning.
type State struct {
	CampaignID string `json:"campaign_id"`
	Stage      Stage  `json:"stage"`
	Hold       Hold   `json:"hold"`
	Version    int64  `json:"version"` // grows with every change; orders projections

	Revision  int    `json:"revision"` // the revision in force; 0 before the first submission
	Digest    string `json:"digest,omitempty"`
	Plan      Plan   `json:"plan"` // of the revision in force
	Reserved  int64  `json:"reserved"`
	Requester string `json:"requester,omitempty"` // who submitted or amended last

	Approval *Approval   `json:"approval,omitempty"` // the round in progress
	Pending  *LoadedPlan `json:"pending,omitempty"`  // the amendment that waits for its approval
	Rounds   int         `json:"rounds"`             // approval rounds begun

	Selection   *TargetCount `json:"selection,omitempty"`
	RunningAt   time.Time    `json:"running_at,omitzero"`
	RunEndsAt   time.Time    `json:"run_ends_at,omitzero"`
	SettleAt    time.Time    `json:"settle_at,omitzero"`
	CreditBegun bool         `json:"credit_begun,omitempty"` // the release of prepaid credit
	// WindingDown means that running is over and the waves end what they have open.
	WindingDown bool        `json:"winding_down,omitempty"`
	Waves       []WaveRun   `json:"waves,omitempty"`
	Reviews     []ReviewRun `json:"reviews,omitempty"`
	// Begun is the workflow id of the selection, settlement or evaluation in progress.
	Begun   string `json:"begun,omitempty"`
	Problem string `json:"problem,omitempty"`
	Fault   Code   `json:"fault,omitempty"`
	Stopped string `json:"stopped,omitempty"` // reason, when a person stopped it

	Applied []AppliedUpdate `json:"applied,omitempty"` // newest last
}

// WaveRun is the progress of one wave.
type WaveRun struct {
	Number   int       `json:"number"`
	StartsAt time.Time `json:"starts_at"`
	Channels []Channel `json:"channels"` // as begun; the plan's while it has not begun
	Linkage  Linkage   `json:"linkage,omitempty"`
	Begun    bool      `json:"begun"`
	Done     bool      `json:"done"`
	Failure  string    `json:"failure,omitempty"` // why it could not be run to its end
}

// ReviewRun is the progress of one review.
type ReviewRun struct {
	Number   int            `json:"number"`
	StartsAt time.Time      `json:"starts_at"`
	Begun    bool           `json:"begun"`
	Open     bool           `json:"open"` // findings are out, a decision is awaited
	DueAt    time.Time      `json:"due_at,omitzero"`
	Decision ReviewDecision `json:"decision,omitempty"`
}

// AppliedUpdate remembers an update so that the same id is answered, not applied, again.
type AppliedUpdate struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// maxApplied bounds the memory of applied updates. A caller that retries does so
// within minutes; this many human actions take weeks.
const maxApplied = 500

// WasApplied reports whether update id was applied already, in this run or an earlier one.
func (s *State) WasApplied(id string) bool {
	for i := len(s.Applied) - 1; i >= 0; i-- {
		if s.Applied[i].ID == id {
			return true
		}
	}
	return false
}

// MarkApplied remembers update id.
func (s *State) MarkApplied(id, name string) {
	s.Applied = append(s.Applied, AppliedUpdate{ID: id, Name: name})
	if extra := len(s.Applied) - maxApplied; extra > 0 {
		s.Applied = append([]AppliedUpdate(nil), s.Applied[extra:]...)
	}
}

// Advance moves to the next stage, or fails with CodeIllegalTransition.
func (s *State) Advance(next Stage) error {
	if !s.Stage.CanFollow(next) {
		return Errorf(CodeIllegalTransition, "a campaign cannot go from %s to %s", s.Stage, next)
	}
	s.Stage = next
	return nil
}

// Status says where the campaign stands, who must act and until when.
func (s *State) Status() Status {
	st := Status{
		Stage: s.Stage, Hold: s.Hold, Revision: s.Revision, Digest: s.Digest, Approval: s.Approval,
		Waves: s.Waves, Reviews: s.Reviews, Problem: s.Problem, ProblemCode: s.Fault,
		WindingDown: s.WindingDown,
	}
	if s.Stage.Final() {
		st.Hold = "" // nothing is left that could run
	}
	if s.Selection != nil {
		st.Targets = s.Selection.Targets
	}
	switch {
	case s.Stage == StageRejected && s.Stopped != "":
		st.Ended = "withdrawn"
	case s.Stage == StageRejected:
		st.Ended = "rejected"
	case s.Stage == StageClosed && s.Stopped != "":
		st.Ended = "stopped"
	case s.Stage == StageClosed:
		st.Ended = "completed"
	}
	st.WaitingOn, st.WaitAction, st.DueAt = s.waiting()
	return st
}

// waiting names what must happen next: a person's decision before the passing of time.
func (s *State) waiting() (who string, act Action, due time.Time) {
	if level, open := s.Approval.Current(); open {
		return level.Name, level.Action, s.Approval.DueAt()
	}
	for _, r := range s.Reviews {
		if r.Open {
			return "reviewer", ActReviewDecide, r.DueAt
		}
	}
	if s.Hold == HoldPaused {
		return "operator to resume", ActCampaignResume, time.Time{}
	}
	switch s.Stage {
	case StageDraft:
		return "planner", ActCampaignSubmit, time.Time{}
	case StageTargeting:
		if s.Problem != "" {
			return "planner to amend or stop", ActCampaignAmend, time.Time{}
		}
		return "target selection", "", time.Time{}
	case StageRunning:
		return "end of running", "", s.RunEndsAt
	case StageSettlement:
		return "settlement", "", s.SettleAt
	case StageEvaluation:
		return "evaluation", "", time.Time{}
	}
	return "", "", time.Time{}
}
