package campaign

// Stage is where a campaign stands in its loop.
type Stage string

// The stages of a campaign, in order; rejected and withdrawn end it before it ran.
const (
	StageDraft       Stage = "draft"
	StageApproval    Stage = "approval"
	StagePreparation Stage = "preparation"
	StageTargeting   Stage = "targeting"
	StageRunning     Stage = "running"
	StageSettlement  Stage = "settlement"
	StageEvaluation  Stage = "evaluation"
	StageClosed      Stage = "closed"
	StageRejected    Stage = "rejected"
)

// Stages lists every stage in the order of the loop.
func Stages() []Stage {
	return []Stage{
		StageDraft, StageApproval, StagePreparation, StageTargeting, StageRunning,
		StageSettlement, StageEvaluation, StageClosed, StageRejected,
	}
}

var stageSuccessors = map[Stage][]Stage{
	StageDraft:       {StageApproval, StageRejected},
	StageApproval:    {StagePreparation, StageDraft, StageRejected},
	StagePreparation: {StageTargeting, StageSettlement},
	StageTargeting:   {StageRunning, StageSettlement},
	StageRunning:     {StageSettlement},
	StageSettlement:  {StageEvaluation},
	StageEvaluation:  {StageClosed},
}

// CanFollow reports whether a campaign may pass from stage s to next.
func (s Stage) CanFollow(next Stage) bool {
	for _, n := range stageSuccessors[s] {
		if n == next {
			return true
		}
	}
	return false
}

// Final reports whether no stage follows s.
func (s Stage) Final() bool { return len(stageSuccessors[s]) == 0 }

// Hold says whether dispatch may go on.
type Hold string

// A campaign runs, is paused and may be resumed, or is stopped for good.
const (
	HoldNone    Hold = "running"
	HoldPaused  Hold = "paused"
	HoldStopped Hold = "stopped"
)
