package workflows

import (
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/musterhq/muster/campaign"
)

// Approval is the clock of one approval round: at half of a waiting level's time it
// reminds, when the level is overdue it escalates, and after as long again the level
// expires and the round with it. Expiry never approves. The campaign counts the
// signatures and tells the clock which levels wait now, or that the round is over.
func Approval(ctx workflow.Context, in campaign.ApprovalInput) error {
	c := &roundClock{in: in, waiting: in.Waiting, told: map[int]int{}}
	decided := workflow.GetSignalChannel(ctx, campaign.SignalDecided)
	for {
		if len(c.waiting) == 0 {
			return finish(ctx, in.CampaignID, campaign.StageReport{}, campaign.Errorf(campaign.CodeInvalidParameter, "no level of the round waits for anybody"))
		}
		level, step, at := c.next()
		d, ok := receiveUntil[campaign.Decided](ctx, decided, at)
		switch {
		case ok && d.Closed:
			return nil
		case ok:
			c.waiting = d.Waiting
		case ctx.Err() != nil:
			return finish(ctx, in.CampaignID, campaign.StageReport{}, ctx.Err())
		case step == stepExpire:
			report(ctx, in.CampaignID, campaign.StageReport{Kind: campaign.ReportApprovalExpired, Number: level, Round: in.Round})
			return nil
		default:
			c.tell(ctx, level, step)
		}
	}
}

// The steps of a waiting level, in order.
const (
	stepRemind = iota
	stepEscalate
	stepExpire
)

// roundClock knows which levels wait and what was done about each.
type roundClock struct {
	in      campaign.ApprovalInput
	waiting []campaign.Waiting
	told    map[int]int // by level, the step that comes next
}

// next returns the step that comes first, with its level and time.
func (c *roundClock) next() (level, step int, at time.Time) {
	for _, w := range c.waiting {
		times := c.times(w)
		if s := c.told[w.Level]; at.IsZero() || times[s].Before(at) {
			level, step, at = w.Level, s, times[s]
		}
	}
	return level, step, at
}

func (c *roundClock) times(w campaign.Waiting) [3]time.Time {
	remind, due, expire := c.in.Route[w.Level-1].Clock(c.in.Calendar, w.Since)
	return [3]time.Time{remind, due, expire}
}

// tell reminds the people of a level, and once it is overdue has it escalated.
func (c *roundClock) tell(ctx workflow.Context, level, step int) {
	c.told[level] = step + 1
	for _, w := range c.waiting {
		if w.Level != level {
			continue
		}
		times := c.times(w)
		remind(ctx, c.in.CampaignID, "approval", level, times[stepEscalate], step == stepEscalate)
		if step == stepEscalate {
			report(ctx, c.in.CampaignID, campaign.StageReport{Kind: campaign.ReportApprovalEscalated, Number: level, Round: c.in.Round})
		}
	}
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
