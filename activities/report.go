package activities

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// ConfirmReport compares a stage's report with the rows. One that they do not bear out was
// not made by the stage: it leaves an event that says what was claimed. So does a failure,
// which no row can bear out and which is believed. What time decides is waited for until
// it has come by the database's clock too.
func (a *Activities) ConfirmReport(ctx context.Context, in campaign.ReportClaim) (campaign.Confirmation, error) {
	var held bool
	var err error
	if !in.Early {
		held, err = a.confirm(ctx, in)
	}
	if err == nil && held && !in.NotBefore.IsZero() {
		var left time.Duration
		if left, err = a.Store.Until(ctx, in.NotBefore); err == nil && left > 0 {
			return campaign.Confirmation{}, again(campaign.CodeStateConflict, left, "the database's clock is behind")
		}
	}
	failed := in.Report.Kind == campaign.ReportFailed
	if err != nil || held && !failed {
		return campaign.Confirmation{True: held}, failure(ctx, err)
	}
	e := store.CampaignEvent(in.CampaignID, fmt.Sprintf("report:%s", callKey(ctx)), "report.forged", campaign.Actor{}, map[string]any{
		"report": printable(string(in.Report.Kind)), "number": in.Report.Number, "workflow": printable(in.Report.WorkflowID), "code": campaign.CodeForgedDecision,
	})
	if e.Allowed = failed; failed {
		e.Event, e.Data["code"], e.Data["reason"] = "report.unproven", printable(string(in.Report.Code)), printable(in.Report.Message)
	}
	return campaign.Confirmation{True: held}, failure(ctx, a.Store.RecordOnce(ctx, e))
}

func (a *Activities) confirm(ctx context.Context, in campaign.ReportClaim) (bool, error) {
	r := in.Report
	if r.Number < 0 || r.Number > math.MaxInt16 {
		return false, nil // no wave, review or level has such a number
	}
	switch r.Kind {
	case campaign.ReportFailed:
		return true, nil
	case campaign.ReportApprovalEscalated, campaign.ReportApprovalExpired:
		return true, nil // time decides
	case campaign.ReportSelected:
		if r.Selection == nil || r.Selection.Snapshot != in.Revision {
			return false, nil
		}
		return a.Store.Selected(ctx, in.CampaignID, *r.Selection)
	case campaign.ReportWaveDone:
		return a.Store.WaveClosed(ctx, in.CampaignID, r.Number, in.Channels, in.Ended)
	case campaign.ReportReviewOpen, campaign.ReportReviewLapsed:
		return a.Store.ReviewOpen(ctx, in.CampaignID, r.Number)
	case campaign.ReportSettled:
		return a.Store.Settled(ctx, in.CampaignID)
	case campaign.ReportEvaluated:
		return a.Store.Evaluated(ctx, in.CampaignID)
	}
	return false, nil
}
