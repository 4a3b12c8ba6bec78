package workflows_test

import (
	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/client"
)

type clientStartOptions = client.StartWorkflowOptions

const anything = mock.Anything
