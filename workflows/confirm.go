package workflows

import (
	"slices"

	"go.temporal.io/sdk/workflow"

	"github.com/musterhq/muster/campaign"
)

// confirmed has an activity compare a report with the rows: whoever reaches Temporal can
// send a signal, so a report is a hint where to look and proves nothing. What is not borne
// out is recorded by the activity and ignored here.
//
// A failure has no row. It begins nothing and spends nothing: it ends a stage, as whoever
// reaches Temporal could do anyway. It is believed and recorded.
func (c *entity) confirmed(ctx workflow.Context, r campaign.StageReport) bool {
	s := c.state
	claim := campaign.ReportClaim{CampaignID: s.CampaignID, Revision: s.Revision, Report: r, Ended: s.WindingDown || s.Hold == campaign.HoldStopped}
	switch r.Kind {
	case campaign.ReportApprovalEscalated, campaign.ReportApprovalExpired:
		level, waits, open := s.Approval.At(r.Number)
		if !open || r.Round != s.Approval.Round {
			return false // decided meanwhile
		}
		_, due, expire := level.Clock(s.Approval.Calendar, waits.Since)
		claim.NotBefore = due
		if r.Kind == campaign.ReportApprovalExpired {
			claim.NotBefore = expire
		}
	case campaign.ReportWaveDone:
		if i := slices.IndexFunc(s.Waves, func(w campaign.WaveRun) bool { return w.Number == r.Number }); i >= 0 {
			claim.Channels = s.Waves[i].Channels
		}
	case campaign.ReportReviewLapsed:
		rev := c.review(r.Number)
		if rev == nil || !rev.Open {
			return false // decided meanwhile
		}
		claim.NotBefore = rev.DueAt
	case campaign.ReportSettled:
		claim.NotBefore = s.SettleAt
	}
	claim.Early = claim.NotBefore.After(workflow.Now(ctx))
	found, err := do(action(ctx), campaign.ActivityConfirmReport, claim)
	if err != nil {
		workflow.GetLogger(ctx).Error("a report was not confirmed", "kind", r.Kind, "error", err)
	}
	return err == nil && found.True
}
