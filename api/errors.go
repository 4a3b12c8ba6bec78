package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/musterhq/muster/campaign"
)

// codeMethodNotAllowed is the one code that only HTTP has.
const codeMethodNotAllowed campaign.Code = "method_not_allowed"

// httpStatus is the one place where error codes become HTTP status codes.
func httpStatus(code campaign.Code) int {
	switch code {
	case campaign.CodeInvalidParameter, campaign.CodeUnknownField, campaign.CodeDuplicateField, campaign.CodeTrailingData,
		campaign.CodeMalformedBody, campaign.CodeAmountNotInteger, campaign.CodeInvalidCursor, campaign.CodeKeyRequired, campaign.CodeKeyInvalid:
		return http.StatusBadRequest
	case campaign.CodeUnauthenticated, campaign.CodeTokenInvalid:
		return http.StatusUnauthorized
	case campaign.CodeForbidden, campaign.CodeSelfApproval, campaign.CodeSameActor, campaign.CodeLimitExceeded, campaign.CodeCrossSite, campaign.CodeForgedDecision, campaign.CodeDispatchRefused,
		campaign.CodeDelegationExpired, campaign.CodeDelegationNotAllowed, campaign.CodeExportNotPermitted, campaign.CodePasswordChange:
		return http.StatusForbidden
	case campaign.CodeNotFound:
		return http.StatusNotFound
	case codeMethodNotAllowed:
		return http.StatusMethodNotAllowed
	case campaign.CodeStateConflict, campaign.CodeVersionChanged, campaign.CodeAmendmentOutdated, campaign.CodeAssertionMismatch, campaign.CodeIllegalTransition,
		campaign.CodeBudgetInsufficient, campaign.CodeHoldExceeded, campaign.CodeHoldClosed, campaign.CodeLeaseLost, campaign.CodeNotArchived,
		campaign.CodeAlreadyExists, campaign.CodeRequestInProgress, campaign.CodeHistoryMismatch, campaign.CodeEmptySelection,
		campaign.CodeRecommendationMissing, campaign.CodeAlreadyReversed, campaign.CodeAccountClosed, campaign.CodeLastAdministrator, campaign.CodeRouteOutdated, campaign.CodeAudienceGrown, campaign.CodeProgrammeClosed, campaign.CodeDispatchFrozen:
		return http.StatusConflict
	case campaign.CodeBodyTooLarge, campaign.CodeFileTooLarge:
		return http.StatusRequestEntityTooLarge
	case campaign.CodeUnsupportedMediaType:
		return http.StatusUnsupportedMediaType
	case campaign.CodeInvalidPlan, campaign.CodeInvalidFilter, campaign.CodeFilterMismatch, campaign.CodeInvalidText, campaign.CodeInvalidMSISDN, campaign.CodeAmountOutOfRange,
		campaign.CodeImportRefused, campaign.CodeArchiveRejected, campaign.CodeEncodingUnsupported, campaign.CodeFormatUnsupported, campaign.CodeInvalidFile, campaign.CodeEmptyFile, campaign.CodeTooManyColumns,
		campaign.CodeCurrencyMismatch, campaign.CodeReasonRequired, campaign.CodeKeyReused, campaign.CodeNoRoute, campaign.CodeAggregateLimit, campaign.CodePolicyRejected, campaign.CodeEmptyPolicy,
		campaign.CodeCreditPoolNotFound, campaign.CodeProgrammeNotFound, campaign.CodeProgrammeNotAllowed, campaign.CodeProgrammeCeiling:
		return http.StatusUnprocessableEntity
	case campaign.CodePreconditionRequired:
		return http.StatusPreconditionRequired
	case campaign.CodeUnmaskQuota, campaign.CodeLookUpQuota, campaign.CodeRateLimited:
		return http.StatusTooManyRequests
	case campaign.CodeOrchestratorAway, campaign.CodeProviderAway, campaign.CodeChannelUnavailable, campaign.CodeDraining:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// worthRetrying reports whether the same request may succeed a moment later as it is.
func worthRetrying(code campaign.Code, status int) bool {
	return code == campaign.CodeRequestInProgress || status == http.StatusTooManyRequests || status >= 500
}

// asError gives any error a code: Muster's own keep theirs, the router's get one, and
// all others are internal, with nothing of their text shown.
func asError(err error) *campaign.Error {
	var own *campaign.Error
	if errors.As(err, &own) {
		return own
	}
	var routed *echo.HTTPError
	if errors.As(err, &routed) {
		switch routed.Code {
		case http.StatusNotFound:
			return campaign.Errorf(campaign.CodeNotFound, "there is nothing at this address")
		case http.StatusMethodNotAllowed:
			return campaign.Errorf(codeMethodNotAllowed, "this address does not take that method")
		case http.StatusBadRequest:
			return campaign.Errorf(campaign.CodeInvalidParameter, "a parameter cannot be read")
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &campaign.Error{Code: campaign.CodeOrchestratorAway, Message: "this took too long; try again", Err: err}
	}
	return &campaign.Error{Code: campaign.CodeInternal, Message: "something went wrong inside Muster; the request id helps to find out what", Err: err}
}

// writeProblem answers with the RFC 9457 problem of err.
func (s *Server) writeProblem(c echo.Context, err error) {
	if c.Response().Committed {
		return
	}
	e := asError(err)
	r := requestOf(c.Request().Context())
	status := httpStatus(e.Code)
	if e.Code == campaign.CodeVersionChanged && r.preconditioned {
		status = http.StatusPreconditionFailed
	}
	if status >= 500 {
		s.log.ErrorContext(c.Request().Context(), "request failed", slog.String("request_id", r.id), slog.String("code", string(e.Code)), slog.Any("error", err))
	}
	h := c.Response().Header()
	if worthRetrying(e.Code, status) && h.Get("Retry-After") == "" {
		h.Set("Retry-After", "1")
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	c.Response().WriteHeader(status)
	p := Problem{
		Type: "urn:muster:problem:" + string(e.Code), Title: http.StatusText(status), Status: status, Code: string(e.Code),
		Detail: e.Message, Fields: e.Fields, Details: e.Details, RequestID: r.id,
	}
	if err := json.NewEncoder(c.Response()).Encode(p); err != nil {
		s.log.DebugContext(c.Request().Context(), "answer not sent", slog.Any("error", err))
	}
}
