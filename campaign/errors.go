package campaign

import (
	"errors"
	"fmt"
	"strings"
)

// Code is the stable, machine-readable name of an error. Codes are part of the
// public API: they never change meaning.
type Code string

// The codes that Muster's own rules raise.
const (
	CodeInvalidPlan           Code = "invalid_plan"
	CodeInvalidParameter      Code = "invalid_parameter"
	CodeInvalidFilter         Code = "invalid_filter"
	CodeFilterMismatch        Code = "filter_mismatch"
	CodeInvalidText           Code = "invalid_text"
	CodeAmountOutOfRange      Code = "amount_out_of_range"
	CodeCurrencyMismatch      Code = "currency_mismatch"
	CodeNotFound              Code = "not_found"
	CodeUnauthenticated       Code = "unauthenticated"
	CodeForbidden             Code = "forbidden"
	CodeSelfApproval          Code = "sod_self_approval"
	CodeSameActor             Code = "sod_same_actor"
	CodeLimitExceeded         Code = "limit_exceeded"
	CodeDelegationExpired     Code = "delegation_expired"
	CodeDelegationNotAllowed  Code = "delegation_not_allowed"
	CodeLastAdministrator     Code = "last_administrator"
	CodeNoRoute               Code = "no_approval_route"
	CodeAggregateLimit        Code = "aggregate_limit"
	CodeRouteOutdated         Code = "route_outdated"
	CodeStateConflict         Code = "state_conflict"
	CodeVersionChanged        Code = "version_changed"
	CodeAmendmentOutdated     Code = "amendment_outdated"
	CodeAssertionMismatch     Code = "assertion_mismatch"
	CodeReasonRequired        Code = "reason_required"
	CodeDraining              Code = "draining"
	CodeBudgetInsufficient    Code = "budget_insufficient"
	CodeHoldExceeded          Code = "hold_exceeded"
	CodeHoldClosed            Code = "hold_closed"
	CodeAlreadyReversed       Code = "already_reversed"
	CodeAccountClosed         Code = "account_closed"
	CodeKeyReused             Code = "idempotency_key_reused"
	CodeLeaseLost             Code = "lease_lost"
	CodeChannelUnavailable    Code = "channel_unavailable"
	CodeOrchestratorAway      Code = "orchestrator_unavailable"
	CodeHistoryMismatch       Code = "history_mismatch"
	CodeNotArchived           Code = "not_archived"
	CodeAlreadyExists         Code = "already_exists"
	CodeInternal              Code = "internal"
	CodeEmptyPolicy           Code = "empty_policy"
	CodeDispatchFrozen        Code = "dispatch_frozen"
	CodeExportNotPermitted    Code = "export_not_permitted"
	CodePolicyRejected        Code = "policy_rejected"
	CodeProgrammeNotFound     Code = "programme_not_found"
	CodeProgrammeClosed       Code = "programme_closed"
	CodeProgrammeNotAllowed   Code = "programme_not_allowed"
	CodeProgrammeCeiling      Code = "programme_ceiling"
	CodeCreditPoolNotFound    Code = "credit_pool_not_found"
	CodeEmptySelection        Code = "empty_selection"
	CodeIllegalTransition     Code = "illegal_transition"
	CodeRecommendationMissing Code = "recommendation_missing"
	CodeInvalidMSISDN         Code = "invalid_msisdn"
	CodeUnmaskQuota           Code = "unmask_quota_exceeded"
	CodeLookUpQuota           Code = "look_up_quota_exceeded"
)

// The codes of requests that the API cannot take.
const (
	CodeRequestInProgress    Code = "request_in_progress"
	CodeKeyRequired          Code = "idempotency_key_required"
	CodeKeyInvalid           Code = "idempotency_key_invalid"
	CodePreconditionRequired Code = "precondition_required"
	CodeUnknownField         Code = "unknown_field"
	CodeDuplicateField       Code = "duplicate_field"
	CodeTrailingData         Code = "trailing_data"
	CodeMalformedBody        Code = "malformed_body"
	CodeBodyTooLarge         Code = "body_too_large"
	CodeUnsupportedMediaType Code = "unsupported_media_type"
	CodeAmountNotInteger     Code = "amount_not_integer"
	CodeInvalidCursor        Code = "invalid_cursor"
	CodeRateLimited          Code = "rate_limited"
	CodeCrossSite            Code = "csrf"
	CodeTokenInvalid         Code = "token_invalid"
	CodePasswordChange       Code = "password_change_required"
	CodeProviderAway         Code = "identity_provider_unavailable"
)

// FieldError says what is wrong with one field of an input and what would be right.
type FieldError struct {
	Field   string `json:"field"`             // path, e.g. "waves[1].channels[0]"
	Code    Code   `json:"code"`              // stable name of the fault
	Message string `json:"message"`           // what is wrong and what would be right
	Line    int    `json:"line,omitempty"`    // 1-based line in a text value, 0 when it has none
	Column  int    `json:"column,omitempty"`  // 1-based column in a text value
	Allowed []any  `json:"allowed,omitempty"` // the values that would be accepted, where they can be listed
}

// Error is an error of Muster's own rules. It is wrapped once where it arises and
// mapped once to an HTTP problem and once to a Temporal application error.
type Error struct {
	Code    Code           `json:"code"`
	Message string         `json:"message"`           // one plain sentence: what is wrong and what would make it work
	Fields  []FieldError   `json:"fields,omitempty"`  // the inputs at fault, if any
	Details map[string]any `json:"details,omitempty"` // figures that help the caller, e.g. {"available": 1200}
	Err     error          `json:"-"`                 // the cause, never shown to a user
}

// Errorf returns an Error of code with a formatted message.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Error returns the message, with the fields at fault.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Message)
	for _, f := range e.Fields {
		fmt.Fprintf(&b, "; %s: %s", f.Field, f.Message)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, " (%v)", e.Err)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// With returns e with one detail added.
func (e *Error) With(name string, value any) *Error {
	if e.Details == nil {
		e.Details = map[string]any{}
	}
	e.Details[name] = value
	return e
}

// CodeOf returns the code of the first Error in err's chain, CodeInternal when
// there is none and "" when err is nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}
