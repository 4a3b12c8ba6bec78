// Package temporalconn connects Muster to Temporal: the client with its logger, and
// the door through which the API reaches the workflows.
package temporalconn

import (
	"context"
	"log/slog"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"

	"github.com/musterhq/muster/campaign"
)

// Dial connects to the Temporal frontend at address and checks that it answers. Close
// the client when done. Texts of failures travel encoded like payloads, because they
// may quote what a person wrote.
func Dial(ctx context.Context, address, namespace, identity string, logger *slog.Logger) (client.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	c, err := client.DialContext(ctx, client.Options{
		HostPort: address, Namespace: namespace, Identity: identity, Logger: log.NewStructuredLogger(logger),
		FailureConverter: failures(),
	})
	if err != nil {
		return nil, unreachable(address, err)
	}
	return c, nil
}

func unreachable(address string, err error) error {
	return &campaign.Error{
		Code: campaign.CodeOrchestratorAway, Message: "Temporal does not answer at " + address + ": start it, or correct MUSTER_TEMPORAL_ADDRESS", Err: err,
	}
}

// failures keeps the words and the stack of an error out of a history's plain text.
func failures() converter.FailureConverter {
	return temporal.NewDefaultFailureConverter(temporal.DefaultFailureConverterOptions{
		DataConverter: converter.GetDefaultDataConverter(), EncodeCommonAttributes: true,
	})
}
