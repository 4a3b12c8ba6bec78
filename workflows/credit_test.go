package workflows_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/musterhq/muster/campaign"
)

// release answers for the rows: what is due is released whenever it is asked for.
type release struct {
	offer  campaign.CreditOffer
	anchor time.Time
	looked []time.Time
	next   int
	refuse int // times
}

func (r *release) turn(b *bench) func(campaign.CreditInput) (campaign.CreditReleased, error) {
	return func(in campaign.CreditInput) (out campaign.CreditReleased, err error) {
		require.Equal(b.t, campaignID, in.CampaignID)
		now := b.Now()
		r.looked = append(r.looked, now)
		if r.refuse > 0 {
			r.refuse--
			return out, temporal.NewNonRetryableApplicationError("the hold is gone", string(campaign.CodeHoldExceeded), nil)
		}
		for ; r.next <= r.offer.Schedule.Last() && !now.Before(r.offer.DueAt(r.anchor, r.next)); r.next++ {
			out.Instalments++
		}
		if r.next <= r.offer.Schedule.Last() {
			out.Wait = int64((r.offer.DueAt(r.anchor, r.next).Sub(now) + time.Second - 1) / time.Second)
		}
		return out, nil
	}
}

func newRelease(b *bench, o campaign.CreditOffer, anchor time.Time) *release {
	r := &release{offer: o, anchor: anchor, next: 1}
	b.OnActivity(string(campaign.ActivityReleaseCredit), anything).Return(r.turn(b))
	return r
}

var twoYears = campaign.CreditOffer{Schedule: campaign.CreditSchedule{Total: 250_000, First: 10_000, Months: 24}, Customers: 1}

// TestCreditIsReleasedOverTwoYears wakes once for each instalment, on its day.
func TestCreditIsReleasedOverTwoYears(t *testing.T) {
	b := newBench(t)
	b.SetStartTime(time.Date(2027, 1, 31, 10, 0, 0, 0, time.UTC))
	r := newRelease(b, twoYears, time.Date(2027, 1, 31, 10, 0, 0, 0, time.UTC))
	b.ExecuteWorkflow(string(campaign.WorkflowCredit), campaign.CreditInput{CampaignID: campaignID})
	require.False(t, b.continued(string(campaign.WorkflowCredit), nil))
	require.Len(t, r.looked, 25)
	require.Equal(t, 26, r.next)
	days := []campaign.Date{"2027-01-31", "2027-02-28", "2027-03-31", "2027-04-30"}
	for i, at := range r.looked {
		if i < len(days) {
			require.Equal(t, days[i], campaign.DateOf(at.UTC()))
		}
		require.Equal(t, twoYears.Schedule.DueOn("2027-01-31", i+1), campaign.DateOf(at.UTC()))
	}
	require.Equal(t, campaign.Date("2029-01-31"), campaign.DateOf(b.Now().UTC()))
}

// TestAReleaseThatLooksOftenContinuesAsNew keeps every run's history bounded.
func TestAReleaseThatLooksOftenContinuesAsNew(t *testing.T) {
	in := campaign.CreditInput{CampaignID: campaignID}
	for name, suggested := range map[string]bool{"after many turns": false, "when the server asks": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			turns := 0
			b.OnActivity(string(campaign.ActivityReleaseCredit), anything).Return(func(campaign.CreditInput) (campaign.CreditReleased, error) {
				turns++
				return campaign.CreditReleased{Wait: 3600}, nil
			})
			if suggested {
				b.RegisterDelayedCallback(func() { b.SetContinueAsNewSuggested(true) }, 150*time.Minute)
			}
			b.ExecuteWorkflow(string(campaign.WorkflowCredit), in)
			var next campaign.CreditInput
			require.True(t, b.continued(string(campaign.WorkflowCredit), &next))
			require.Equal(t, in, next)
			if suggested {
				require.Equal(t, 3, turns)
			} else {
				require.Greater(t, turns, 50)
				require.LessOrEqual(t, turns, 500)
			}
		})
	}
}

// TestARefusalDoesNotEndTheRelease: a person mends what is wrong, and customers get what
// they were promised.
func TestARefusalDoesNotEndTheRelease(t *testing.T) {
	b := newBench(t)
	r := newRelease(b, twoYears, b.Now())
	r.refuse = 3
	b.ExecuteWorkflow(string(campaign.WorkflowCredit), campaign.CreditInput{CampaignID: campaignID})
	require.False(t, b.continued(string(campaign.WorkflowCredit), nil))
	require.Equal(t, 26, r.next)
	require.Len(t, r.looked, 3+25)
	require.Equal(t, 3*time.Hour, r.looked[3].Sub(r.looked[0]))
}

func TestACancelledReleaseEnds(t *testing.T) {
	b := newBench(t)
	newRelease(b, twoYears, b.Now())
	b.RegisterDelayedCallback(b.CancelWorkflow, 24*time.Hour)
	b.ExecuteWorkflow(string(campaign.WorkflowCredit), campaign.CreditInput{CampaignID: campaignID})
	require.True(t, b.IsWorkflowCompleted())
	require.True(t, temporal.IsCanceledError(b.GetWorkflowError()))
}

func creditedPlan() campaign.Plan {
	p := testPlan()
	offer := twoYears
	p.Budget = append(p.Budget, campaign.BudgetLine{
		Line: "credit", Category: campaign.CategoryPrepaid, Driver: campaign.DriverPerOrder, Amount: 250_000, Credit: &offer,
	})
	return p
}

// TestTheCampaignClosesBeforeItsCreditIsReleased: the release begins with running, and the
// campaign does not wait for its end.
func TestTheCampaignClosesBeforeItsCreditIsReleased(t *testing.T) {
	b := newBench(t)
	p := creditedPlan()
	b.plans[1] = p
	r := newRelease(b, twoYears, b.Now())
	submit, first, second := submitCmd(), approve(manager, 1), approve(finance, 2)
	submit.Digest, first.Digest, second.Digest = p.Digest(), p.Digest(), p.Digest()
	b.at(time.Hour, campaign.UpdateSubmit, submit)
	b.at(2*time.Hour, campaign.UpdateDecide, first)
	b.RegisterDelayedCallback(func() { require.Empty(t, r.looked, "nothing is released of what nobody signed") }, 150*time.Minute)
	b.at(3*time.Hour, campaign.UpdateDecide, second)
	var began, closed time.Time
	b.OnActivity(string(campaign.ActivityEvaluate), anything).Return(func(campaign.EvaluationInput) error {
		closed = b.Now()
		return nil
	})
	b.RegisterDelayedCallback(func() {
		require.Len(t, r.looked, 1)
		began = r.looked[0]
	}, 4*time.Hour)
	b.run()
	require.Equal(t, campaign.StageClosed, b.status().Stage)
	require.False(t, began.IsZero())
	require.Equal(t, 26, r.next)
	var late int
	for _, at := range r.looked {
		if at.After(closed) {
			late++
		}
	}
	require.Greater(t, late, 20, "nearly all of it came after the campaign was evaluated")
}

// TestCreditThatAnAmendmentAddsIsReleasedToo, and no release is begun twice.
func TestCreditThatAnAmendmentAddsIsReleasedToo(t *testing.T) {
	b := newBench(t)
	p := creditedPlan()
	now := b.Now()
	state := &campaign.State{
		CampaignID: campaignID, Stage: campaign.StageRunning, Hold: campaign.HoldNone, Revision: 1, Plan: p, Digest: p.Digest(),
		RunningAt: now, RunEndsAt: now.Add(days(60)), Waves: []campaign.WaveRun{{Number: 1, StartsAt: now.Add(days(50))}, {Number: 2, StartsAt: now.Add(days(50))}},
		Reviews: []campaign.ReviewRun{{Number: 1, StartsAt: now.Add(days(50))}},
	}
	r := newRelease(b, twoYears, now)
	b.RegisterDelayedCallback(func() { b.SetContinueAsNewSuggested(true) }, time.Hour)
	b.RegisterDelayedCallback(func() {
		b.SignalWorkflow(campaign.SignalReport, campaign.StageReport{Kind: campaign.ReportWaveDone, Number: 9})
	}, 2*time.Hour)
	b.ExecuteWorkflow(string(campaign.WorkflowCampaign), campaign.Start{CampaignID: campaignID, State: state})
	var next campaign.Start
	require.True(t, b.continued(string(campaign.WorkflowCampaign), &next))
	require.NotEmpty(t, r.looked)
	require.True(t, next.State.CreditBegun)

	again := newBench(t)
	r = newRelease(again, twoYears, now)
	again.RegisterDelayedCallback(func() { again.SetContinueAsNewSuggested(true) }, time.Hour)
	again.RegisterDelayedCallback(func() {
		again.SignalWorkflow(campaign.SignalReport, campaign.StageReport{Kind: campaign.ReportWaveDone, Number: 9})
	}, 2*time.Hour)
	again.ExecuteWorkflow(string(campaign.WorkflowCampaign), next)
	require.True(t, again.continued(string(campaign.WorkflowCampaign), &next))
	require.Empty(t, r.looked)
}
