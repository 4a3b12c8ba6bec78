package temporalconn

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
)

// TestWordsOfFailuresAreAPayload: an error may quote what a person wrote, and a codec
// that encrypts payloads sees nothing else.
func TestWordsOfFailuresAreAPayload(t *testing.T) {
	const words = "the number of somebody@example.com cannot be read"
	failure := failures().ErrorToFailure(temporal.NewNonRetryableApplicationError(words, "invalid_parameter", nil))
	require.NotContains(t, failure.Message+failure.StackTrace, words)
	require.Contains(t, string(failure.EncodedAttributes.Data), words)
	back := failures().FailureToError(failure)
	require.ErrorContains(t, back, words)
	var app *temporal.ApplicationError
	require.ErrorAs(t, back, &app)
	require.Equal(t, "invalid_parameter", app.Type(), "the code stays readable for operators")
	require.True(t, app.NonRetryable())
}
