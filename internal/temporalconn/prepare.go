package temporalconn

import (
	"context"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/musterhq/muster/campaign"
)

// Retention is how long Temporal keeps closed workflows. Every campaign's histories
// are archived long before.
const Retention = 30 * 24 * time.Hour

// SearchAttributes are the attributes that campaign workflows carry: name to type.
func SearchAttributes() map[string]string {
	return map[string]string{campaign.AttributeStage: "Keyword", campaign.AttributeUnit: "Keyword"}
}

// Prepare makes sure that the namespace exists with its retention and that the search
// attributes are in place. It may be called at every start.
func Prepare(ctx context.Context, address, namespace string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	c, err := reach(ctx, address, namespace)
	if err != nil {
		return err
	}
	defer c.Close()
	admin, err := client.NewNamespaceClient(client.Options{HostPort: address})
	if err != nil {
		return fmt.Errorf("reach Temporal at %s: %w", address, err)
	}
	defer admin.Close()
	err = admin.Register(ctx, &workflowservice.RegisterNamespaceRequest{
		Namespace: namespace, WorkflowExecutionRetentionPeriod: durationpb.New(Retention),
	})
	var exists *serviceerror.NamespaceAlreadyExists
	if err != nil && !errors.As(err, &exists) {
		return fmt.Errorf("make Temporal namespace %s: %w", namespace, err)
	}
	attributes := map[string]enumspb.IndexedValueType{}
	for name, kind := range SearchAttributes() {
		value, err := enumspb.IndexedValueTypeFromString(kind)
		if err != nil {
			return err
		}
		attributes[name] = value
	}
	// A fresh namespace is not known to every part of a cluster at once.
	for {
		_, err = c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
			Namespace: namespace, SearchAttributes: attributes,
		})
		var there *serviceerror.AlreadyExists
		if err == nil || errors.As(err, &there) {
			return nil
		}
		var missing *serviceerror.NamespaceNotFound
		if !errors.As(err, &missing) {
			return fmt.Errorf("put search attributes in place: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("put search attributes in place: %w", err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// reach connects, or says plainly within seconds that nobody answers.
func reach(ctx context.Context, address, namespace string) (client.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := client.DialContext(ctx, client.Options{HostPort: address, Namespace: namespace})
	if err != nil {
		return nil, unreachable(address, err)
	}
	return c, nil
}
