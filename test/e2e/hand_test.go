package e2e_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	temporal "go.temporal.io/sdk/client"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
)

// TestStagesEndedByHand has an operator terminate workflows in Temporal behind Muster's
// back. The campaign notices: it settles what a wave has done, and asks a person to resume
// its settlement.
func TestStagesEndedByHand(t *testing.T) {
	t.Parallel()
	i, centre := newOperator(t, "6000")
	cluster, err := temporal.Dial(temporal.Options{HostPort: i.TemporalAddress, Namespace: "muster"})
	require.NoError(t, err)
	defer cluster.Close()
	plan := smsPlan("A message cut short")
	plan.Schedule.SettleFor = 10
	r, draft := i.people(t).create(t, plan)
	r.submit(t, draft)
	r.approve(t)
	contacts, _ := i.awaitDispatch(t, r)
	centre.awaitAccepted(t, contacts/10)

	require.NoError(t, cluster.TerminateWorkflow(t.Context(), campaign.WaveWorkflowID(r.id, 1), "", "by hand"))
	r.await(t, "settling", func(d *client.CampaignDetail) bool { return d.Status.Stage == campaign.StageSettlement })
	require.Less(t, int64(centre.accepted(t)), contacts, "the wave was over before it was ended")
	// The stage is told a moment before its workflow is started.
	eventually(t, func() bool {
		return cluster.TerminateWorkflow(t.Context(), campaign.SettlementWorkflowID(r.id), "", "by hand") == nil
	}, "the settlement is there to be ended")
	eventually(t, func() bool { return r.detail(t).Status.Problem != "" }, "the campaign asks for help")
	require.Contains(t, r.detail(t).Status.Problem, campaign.SettlementWorkflowID(r.id))
	tell(t, r.operator, func(ctx context.Context, s *client.Session) (*client.ResumeCampaignResponse, error) {
		return s.ResumeCampaignWithResponse(ctx, r.id, nil, client.HoldReason{Reason: "That was a mistake."})
	})

	detail := r.awaitArchive(t)
	require.Equal(t, "completed", detail.Status.Ended)
	require.Contains(t, detail.Status.Waves[0].Failure, campaign.WaveWorkflowID(r.id, 1))
	states := r.contacts(t)[waveChannel{1, campaign.ChannelSMS}]
	require.Equal(t, contacts, sum(states))
	i.requireAcceptedOnce(t, r, centre.read(t))
	i.requireSound(t, r)
	i.stop(t)
}
