package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/musterhq/muster/campaign"
)

// ImportCustomers works on one import of a customer file. The import's row knows how far it
// has come: an attempt that ends with its worker is followed by one, on any worker that sees
// the file, that goes on there.
func ImportCustomers(ctx workflow.Context, in campaign.ImportInput) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: campaign.QueueBulk, StartToCloseTimeout: 24 * time.Hour, HeartbeatTimeout: 30 * time.Second, RetryPolicy: patient(),
		Priority: temporal.Priority{FairnessKey: "import"},
	})
	return act(ctx, campaign.ActivityImport, in)
}
