package activities

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.temporal.io/sdk/temporal"

	"github.com/musterhq/muster/campaign"
)

// passing says after what delay a refusal of that code is worth another try; every
// other rule that says no says no again.
var passing = map[campaign.Code]time.Duration{
	campaign.CodeLeaseLost:          time.Second,
	campaign.CodeChannelUnavailable: 5 * time.Second,
	campaign.CodeDispatchFrozen:     10 * time.Second,
}

// failure maps err to what Temporal should know: the type is the campaign.Code, the
// details are the fields at fault and the figures. Rules are not asked again; a
// database or a provider that is away comes back. The application error is always the
// outermost error, for a wrapped one loses its type and its mark.
func failure(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return ctx.Err()
	}
	var app *temporal.ApplicationError
	if errors.As(err, &app) {
		return app
	}
	var rule *campaign.Error
	if errors.As(err, &rule) {
		delay, again := passing[rule.Code]
		return temporal.NewApplicationErrorWithOptions(rule.Message, string(rule.Code), temporal.ApplicationErrorOptions{
			NonRetryable: !again, NextRetryDelay: delay, Details: []any{rule.Fields, rule.Details},
		})
	}
	return temporal.NewApplicationErrorWithOptions(err.Error(), string(campaign.CodeInternal), temporal.ApplicationErrorOptions{
		NonRetryable: defect(err),
	})
}

// again asks for another attempt after delay: what the activity waits for is on its way.
func again(code campaign.Code, delay time.Duration, message string) error {
	return temporal.NewApplicationErrorWithOptions(message, string(code), temporal.ApplicationErrorOptions{NextRetryDelay: delay})
}

// defect reports whether PostgreSQL refused what no repetition can mend: wrong data
// (class 22), a statement it does not understand (42), a rule of the schema (55000). A
// person sees the campaign's problem instead of an attempt that never ends.
func defect(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || len(pg.Code) != 5 {
		return false
	}
	return pg.Code[:2] == "22" || pg.Code[:2] == "42" || pg.Code == "55000"
}
