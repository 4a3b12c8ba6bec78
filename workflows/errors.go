package workflows

import (
	"errors"

	"go.temporal.io/sdk/temporal"

	"github.com/musterhq/muster/campaign"
)

// refusal turns err into the application error that the caller of an update or the
// parent of a workflow sees. Its type is the campaign.Code; it is always the outermost
// error, because a wrapped one would lose both its type and its non-retryable mark.
func refusal(err error) error {
	if err == nil {
		return nil
	}
	var app *temporal.ApplicationError
	if errors.As(err, &app) {
		opts := temporal.ApplicationErrorOptions{NonRetryable: true}
		if app.HasDetails() {
			var fields []campaign.FieldError
			var details map[string]any
			if app.Details(&fields, &details) == nil {
				opts.Details = []any{fields, details}
			}
		}
		return temporal.NewApplicationErrorWithOptions(app.Message(), app.Type(), opts)
	}
	var e *campaign.Error
	if errors.As(err, &e) {
		return temporal.NewApplicationErrorWithOptions(e.Message, string(e.Code), temporal.ApplicationErrorOptions{
			NonRetryable: true, Details: []any{e.Fields, e.Details},
		})
	}
	return temporal.NewNonRetryableApplicationError(err.Error(), string(campaign.CodeInternal), err)
}

// fault returns the code and the words of err for a report.
func fault(err error) (campaign.Code, string) {
	var app *temporal.ApplicationError
	if errors.As(err, &app) {
		return campaign.Code(app.Type()), app.Message()
	}
	return campaign.CodeOf(err), err.Error()
}
