package workflows

import (
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/musterhq/muster/campaign"
)

// Approval is the clock of one approval round: at half of a level's time it reminds,
// when the level is overdue it escalates, and after as long again the round expires.
// Expiry never approves. The campaign counts the signatures and tells the clock which
// level waits now, or that the round is over.
func Approval(ctx workflow.Context, in campaign.ApprovalInput) error {
	level, due := 1, in.DueAt
	decided := workflow.GetSignalChannel(ctx, campaign.SignalDecided)
	for {
		allowed := campaign.Seconds(in.Route[level-1].DueAfter)
		moved, closed := awaitLevel(ctx, decided, in, level, due, allowed)
		if closed {
			return nil
		}
		if moved != nil {
			level, due = moved.Level, moved.DueAt
			continue
		}
		if ctx.Err() != nil {
			return finish(ctx, in.CampaignID, campaign.StageReport{}, ctx.Err())
		}
		report(ctx, in.CampaignID, campaign.StageReport{Kind: campaign.ReportApprovalExpired, Number: level, Round: in.Round})
		return nil
	}
}

// awaitLevel waits out one level with its reminder and escalation. It returns the news
// when the round moved on or closed, and nothing when the level expired or the clock
// was cancelled.
func awaitLevel(
	ctx workflow.Context, decided workflow.ReceiveChannel, in campaign.ApprovalInput, level int, due time.Time, allowed time.Duration,
) (moved *campaign.Decided, closed bool) {
	steps := []struct {
		at time.Time
		do func()
	}{
		{due.Add(-allowed / 2), func() { remind(ctx, in.CampaignID, "approval", level, due, false) }},
		{due, func() {
			remind(ctx, in.CampaignID, "approval", level, due, true)
			report(ctx, in.CampaignID, campaign.StageReport{
				Kind: campaign.ReportApprovalEscalated, Number: level, Round: in.Round, DueAt: due.Add(allowed),
			})
		}},
		{due.Add(allowed), func() {}},
	}
	for _, step := range steps {
		if d, ok := receiveUntil[campaign.Decided](ctx, decided, step.at); ok {
			return &d, d.Closed
		}
		if ctx.Err() != nil {
			break
		}
		step.do()
	}
	return nil, false
}

// receiveUntil receives from ch until the time at; false means the time came first.
func receiveUntil[T any](ctx workflow.Context, ch workflow.ReceiveChannel, at time.Time) (T, bool) {
	var got T
	wait := at.Sub(workflow.Now(ctx))
	if wait <= 0 {
		return got, ch.ReceiveAsync(&got)
	}
	ok, _ := ch.ReceiveWithTimeout(ctx, wait, &got)
	return got, ok
}

// remind tells people that something waits for them. A reminder that cannot be written
// is retried by its activity; it never fails the clock.
func remind(ctx workflow.Context, campaignID, subject string, number int, due time.Time, overdue bool) {
	err := act(action(ctx), campaign.ActivityRemind, campaign.Reminder{
		CampaignID: campaignID, Subject: subject, Number: number, DueAt: due, Overdue: overdue,
	})
	if err != nil {
		workflow.GetLogger(ctx).Warn("no reminder was sent", "subject", subject, "error", err)
	}
}
