package activities

import (
	"context"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/musterhq/muster/campaign"
)

// ArchiveHistories copies the histories of all of a campaign's workflows into the
// archive. While one of them is still open it asks for another attempt.
func (a *Activities) ArchiveHistories(ctx context.Context, in campaign.ArchiveInput) (campaign.Archived, error) {
	done, err := a.Archiver.Archive(ctx, in.CampaignID, beat(ctx))
	if campaign.CodeOf(err) == campaign.CodeStateConflict {
		return campaign.Archived{}, again(campaign.CodeStateConflict, time.Second, err.Error())
	}
	return done, failure(ctx, err)
}

// ReplayHistories replays a campaign's archive against the code of this worker.
func (a *Activities) ReplayHistories(ctx context.Context, in campaign.ReplayInput) (campaign.ReplayReport, error) {
	report, err := a.Replayer.Replay(ctx, in.CampaignID, beat(ctx))
	return report, failure(ctx, err)
}

func beat(ctx context.Context) func(int) {
	return func(runs int) {
		if activity.IsActivity(ctx) {
			activity.RecordHeartbeat(ctx, runs)
		}
	}
}
