package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	namespacepb "go.temporal.io/api/namespace/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	readyWithin = 60 * time.Second
	retryPause  = 50 * time.Millisecond
)

// prepareNamespace creates or updates the namespace and puts its search
// attributes in place. It is the same at the first start and at every later
// one, and it returns only when the server accepts work for the namespace.
func prepareNamespace(ctx context.Context, opts options) error {
	conn, err := grpc.NewClient(opts.address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connect to the frontend: %w", err)
	}
	defer func() { _ = conn.Close() }()
	workflows := workflowservice.NewWorkflowServiceClient(conn)
	operator := operatorservice.NewOperatorServiceClient(conn)

	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"create or update the namespace", func(ctx context.Context) error { return ensureNamespace(ctx, workflows, opts) }},
		{"put the search attributes in place", func(ctx context.Context) error { return ensureSearchAttributes(ctx, operator, opts) }},
		{"reach the namespace", func(ctx context.Context) error {
			// Unlike DescribeNamespace this passes the frontend's namespace
			// cache and the visibility store, as starting a workflow does.
			_, err := workflows.CountWorkflowExecutions(ctx, &workflowservice.CountWorkflowExecutionsRequest{Namespace: opts.namespace})
			return err
		}},
	}
	for _, step := range steps {
		if err := retry(ctx, step.do); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

func ensureNamespace(ctx context.Context, client workflowservice.WorkflowServiceClient, opts options) error {
	retention := durationpb.New(opts.retention)
	_, err := client.RegisterNamespace(ctx, &workflowservice.RegisterNamespaceRequest{
		Namespace:                        opts.namespace,
		WorkflowExecutionRetentionPeriod: retention,
	})
	var exists *serviceerror.NamespaceAlreadyExists
	if !errors.As(serviceerror.FromStatus(serviceerror.ToStatus(err)), &exists) {
		return err
	}
	described, err := client.DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: opts.namespace})
	if err != nil || described.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration() == opts.retention {
		return err
	}
	_, err = client.UpdateNamespace(ctx, &workflowservice.UpdateNamespaceRequest{
		Namespace: opts.namespace,
		Config:    &namespacepb.NamespaceConfig{WorkflowExecutionRetentionTtl: retention},
	})
	return err
}

// ensureSearchAttributes adds what is missing. An attribute that exists with
// another type is refused: changing it would falsify what is indexed.
func ensureSearchAttributes(ctx context.Context, client operatorservice.OperatorServiceClient, opts options) error {
	listed, err := client.ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: opts.namespace})
	if err != nil {
		return err
	}
	missing, err := missingSearchAttributes(listed.GetCustomAttributes(), opts.searchAttributes)
	if err != nil || len(missing) == 0 {
		return err
	}
	_, err = client.AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
		Namespace:        opts.namespace,
		SearchAttributes: missing,
	})
	return err
}

func missingSearchAttributes(present map[string]enumspb.IndexedValueType, wanted searchAttributes) (map[string]enumspb.IndexedValueType, error) {
	missing := maps.Clone(wanted)
	for name, kind := range wanted {
		known, ok := present[name]
		if !ok {
			continue
		}
		if known != kind {
			return nil, serviceerror.NewInvalidArgument(fmt.Sprintf("%s is a search attribute of type %s already and cannot become %s: give the new one another name", name, known, kind))
		}
		delete(missing, name)
	}
	return missing, nil
}

// retry repeats what fails while the services find each other, and gives up
// at once on what cannot get better.
func retry(ctx context.Context, do func(context.Context) error) error {
	for {
		err := do(ctx)
		if err == nil {
			return nil
		}
		var invalid *serviceerror.InvalidArgument
		if errors.As(serviceerror.FromStatus(serviceerror.ToStatus(err)), &invalid) {
			return invalid
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return err
		}
	}
}
