package workflows_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/musterhq/muster/campaign"
)

// grownOnce makes the first selection come to more targets than the signers were told of.
func grownOnce(b *bench) {
	failed := false
	b.OnActivity(string(campaign.ActivitySelectionStep), anything).Return(func(in campaign.SelectionStepInput) (campaign.TargetCount, error) {
		if in.Step == campaign.StepFreeze && !failed {
			failed = true
			return campaign.TargetCount{}, temporal.NewNonRetryableApplicationError("12000 customers would be targeted", string(campaign.CodeAudienceGrown), nil)
		}
		return campaign.TargetCount{Snapshot: in.Revision, Targets: 10_000, Control: 1_000}, nil
	})
}

func TestAnotherCountGoesBackToTheSigners(t *testing.T) {
	b := newBench(t)
	b.approved()
	grownOnce(b)
	var asked campaign.Status
	b.RegisterDelayedCallback(func() { asked = b.status() }, 4*time.Hour)
	again := func(d campaign.Decide) campaign.Decide {
		d.UpdateID += "-again"
		return d
	}
	one := b.at(5*time.Hour, campaign.UpdateDecide, again(approve(manager, 1)))
	two := b.at(6*time.Hour, campaign.UpdateDecide, again(approve(finance, 2)))
	b.run()
	require.NoError(t, one.err)
	require.NoError(t, two.err)
	require.Equal(t, campaign.StageTargeting, asked.Stage)
	require.Equal(t, campaign.CodeAudienceGrown, asked.ProblemCode)
	require.True(t, asked.Approval.Open())
	require.Equal(t, 2, asked.Approval.Round)
	require.Equal(t, 1, asked.Approval.Revision, "the same plan")
	require.Contains(t, b.events, "campaign.asked_again")
	require.Contains(t, b.events, "selection.frozen")
	require.Equal(t, "completed", b.status().Ended)
}

func TestASelectionBeginsAnewWhenItsTablesAreGone(t *testing.T) {
	b := newBench(t)
	b.approved()
	var steps []campaign.SelectionStep
	b.OnActivity(string(campaign.ActivitySelectionStep), anything).Return(func(in campaign.SelectionStepInput) (campaign.TargetCount, error) {
		steps = append(steps, in.Step)
		if in.Step == campaign.StepReserve && len(steps) < 6 {
			return campaign.TargetCount{}, temporal.NewNonRetryableApplicationError("gone", string(campaign.CodeSelectionLost), nil)
		}
		return campaign.TargetCount{Snapshot: in.Revision, Targets: 10_000, Control: 1_000}, nil
	})
	b.run()
	all := campaign.SelectionSteps()
	require.Equal(t, append(append([]campaign.SelectionStep{}, all[:5]...), all...), steps)
	require.Equal(t, "completed", b.status().Ended)
}
