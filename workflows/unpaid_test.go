package workflows_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

func dispatchInput(b *bench) campaign.DispatchInput {
	return campaign.DispatchInput{
		CampaignID: campaignID, Wave: 1, Snapshot: 1, Revision: 1, Channel: campaign.ChannelSMS, ClosesAt: b.Now().Add(days(7)), Hold: campaign.HoldNone,
	}
}

// TestChannelGoesOnWhenItsBudgetIsRaised keeps a channel open that waits for money, and
// dispatches those whom the raised budget pays for, and nobody else again.
func TestChannelGoesOnWhenItsBudgetIsRaised(t *testing.T) {
	b := newBench(t)
	start, unpaid, asked := b.Now(), int64(40), 0
	var closedAfter time.Duration
	b.OnActivity(string(campaign.ActivityProgress), anything).Return(func(campaign.ChannelRef) (campaign.ChannelProgress, error) {
		return campaign.ChannelProgress{Contacts: 9000, Unpaid: unpaid}, nil
	})
	b.OnActivity(string(campaign.ActivityPayContacts), anything).Return(func(campaign.ChannelRef) (campaign.PaidContacts, error) {
		if asked++; asked < 5 {
			return campaign.PaidContacts{Unpaid: unpaid, Needed: 400}, nil
		}
		unpaid = 0
		return campaign.PaidContacts{Planned: 20, Shards: []campaign.ShardRange{{Shard: 2, FromSeq: 4481, ToSeq: 4500}}}, nil
	})
	b.OnActivity(string(campaign.ActivityCloseChannel), anything).Return(func(campaign.CloseChannel) (campaign.ChannelProgress, error) {
		closedAfter = b.Now().Sub(start)
		return campaign.ChannelProgress{}, nil
	})
	b.ExecuteWorkflow(string(campaign.WorkflowDispatch), dispatchInput(b))
	require.False(t, b.continued(string(campaign.WorkflowDispatch), nil))
	require.Equal(t, 5, asked)
	require.Less(t, closedAfter, days(1), "nobody is left to wait for")
	var again int
	for _, c := range b.chunks {
		if c.FromSeq > 4000 && c.FromSeq != 4001 {
			again++
			require.Equal(t, 2, c.Shard)
			require.EqualValues(t, 4481, c.FromSeq)
			require.EqualValues(t, 4500, c.ToSeq)
		}
	}
	require.Equal(t, 1, again, "one chunk in the one shard that has people who are paid for now")
	require.Len(t, b.chunks, 2*3+1)
}

// TestBudgetThatComesInDropsIsAskedForSeldom pays for a contact whenever it is asked: the
// history stays bounded.
func TestBudgetThatComesInDropsIsAskedForSeldom(t *testing.T) {
	b := newBench(t)
	asked := 0
	b.OnActivity(string(campaign.ActivityProgress), anything).Return(campaign.ChannelProgress{Contacts: 9000, Unpaid: 5000}, nil)
	b.OnActivity(string(campaign.ActivityPayContacts), anything).Return(func(campaign.ChannelRef) (campaign.PaidContacts, error) {
		asked++
		return campaign.PaidContacts{Planned: 1, Shards: []campaign.ShardRange{{FromSeq: 9, ToSeq: 9}}, Unpaid: 5000}, nil
	})
	b.ExecuteWorkflow(string(campaign.WorkflowDispatch), dispatchInput(b))
	require.False(t, b.continued(string(campaign.WorkflowDispatch), nil))
	require.Greater(t, asked, 10)
	require.Less(t, asked, 100)
}
