package campaign

import "slices"

// InFlight reports whether a campaign in the stage is approved and may still reach people.
func (s Stage) InFlight() bool {
	return s == StagePreparation || s == StageTargeting || s == StageRunning
}

// Admits returns nil when a campaign that stands like this takes an action, whoever asks
// for it, and otherwise says why not with CodeStateConflict. Actions that do not depend on
// where it stands are admitted; which level waits for which signature is for Approval.
func (s Status) Admits(act Action) error {
	ok, why := true, ""
	switch act {
	case ActCampaignEdit, ActCampaignSubmit:
		ok, why = s.Stage == StageDraft && s.Hold != HoldStopped, "only a draft can be edited and submitted"
	case ActCampaignWithdraw:
		ok, why = s.Approval.Open(), "no approval is waiting that could be withdrawn"
	case ActCampaignAmend:
		ok, why = s.amendable()
	case ActCampaignPause:
		ok = (s.Stage.InFlight() || s.Stage == StageApproval) && s.Hold == HoldNone && !s.WindingDown
		why = "only a submitted campaign that goes on can be paused"
	case ActCampaignResume:
		ok = !s.Stage.Final() && (s.Hold == HoldPaused || s.Problem != "")
		why = "only a campaign that is paused or has a problem can be resumed"
	case ActCampaignStop:
		ok = s.Hold != HoldStopped && (s.Stage.InFlight() || s.Stage == StageDraft || s.Stage == StageApproval)
		why = "the campaign has ended or is ending"
	case ActBudgetDraw:
		ok = s.Stage == StageRunning && s.Hold != HoldStopped
		why = "only one that runs draws on its contingency"
	case ActReviewDecide:
		ok = slices.ContainsFunc(s.Reviews, func(r ReviewRun) bool { return r.Open })
		why = "no review waits for a decision"
	}
	if ok {
		return nil
	}
	return Errorf(CodeStateConflict, "the campaign is in %s: %s", s.Stage, why)
}

func (s Status) amendable() (ok bool, why string) {
	switch {
	case !s.Stage.InFlight():
		return false, "a draft is edited, an approval must be returned or withdrawn first, and what has ended stays as it is"
	case s.WindingDown || s.Hold == HoldStopped:
		return false, "it is ending"
	case s.Approval.Open():
		return false, "another amendment waits for its approval"
	case s.Stage != StageRunning && s.Targets == 0 && s.Problem == "":
		return false, "targets are being selected; try again when they are frozen"
	}
	return true, ""
}
