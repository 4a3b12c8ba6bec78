package api

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/targeting"
)

func TestSizeOfAnExperiment(t *testing.T) {
	a, err := sizeExperiment(campaign.SizeRequest{Base: .02, Lifted: .025, ControlPercent: 10, List: 10_000, ConversionGain: 5_000})
	require.NoError(t, err)
	require.EqualValues(t, 63_035, a.Treated)
	require.InDelta(t, 7_004, a.Control, 1)
	require.False(t, a.Enough)
	require.False(t, a.Measurable, "20 conversions of 1000 held out")
	require.InDelta(t, 20, a.ControlConversions, 1e-9)
	require.Greater(t, a.Detectable, .005)
	require.EqualValues(t, 25_000, a.Cost)
	require.Equal(t, campaign.ControlExact, a.Method)
	a, err = sizeExperiment(campaign.SizeRequest{Base: .02, Lifted: .025, ControlPercent: 10, List: 100_000})
	require.NoError(t, err)
	require.True(t, a.Enough && a.Measurable)
	require.Equal(t, campaign.ControlByHash, a.Method)
	for _, wrong := range []campaign.SizeRequest{
		{Base: .02, Lifted: .02, ControlPercent: 10}, {Base: .02, Lifted: .03}, {Base: .02, Lifted: .03, ControlPercent: 60}, {Base: 2, Lifted: .03, ControlPercent: 5},
	} {
		_, err := sizeExperiment(wrong)
		require.ErrorIs(t, err, targeting.ErrNotEstimable, "%v", wrong)
	}
}

func TestDryRunLeavesNothing(t *testing.T) {
	e := newEnv(t)
	c := e.newCampaign()
	answer := e.send("planner", http.MethodPost, "/v1/campaigns/"+c.Campaign.ID+"/selection/dry-run", nil)
	require.Equal(t, http.StatusOK, answer.status, "%s", answer.body)
	var dry campaign.DryRun
	require.NoError(t, json.Unmarshal(answer.body, &dry))
	require.Len(t, dry.Audience, 64)
	plan := validPlan()
	require.Equal(t, plan.Digests().Audience, dry.Audience)
	var sum int64
	for _, cell := range dry.Cells {
		sum += cell.Targets
	}
	require.Equal(t, dry.Targets, sum)
	require.Zero(t, e.number(`SELECT count(*) FROM selection_run`))
	require.Zero(t, e.number(`SELECT count(*) FROM contact_ledger`))
}
