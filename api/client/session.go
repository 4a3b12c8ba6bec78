package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"

	"github.com/google/uuid"

	"github.com/musterhq/muster/campaign"
)

// Session is a client that keeps its cookies, gives each write an Idempotency-Key
// unless the caller sets one, and turns every problem into an error: a call that
// returns none has its JSON200 or JSON201. The errors are *campaign.Error.
type Session struct {
	*ClientWithResponses
	http *http.Client
}

// NewSession returns a session with the API at server, e.g. "http://127.0.0.1:8233".
// It is nobody's until Login.
func NewSession(server string) (*Session, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, fmt.Errorf("make cookie jar: %w", err)
	}
	s := &Session{http: &http.Client{Jar: jar, Transport: http.DefaultTransport.(*http.Transport).Clone()}}
	s.ClientWithResponses, err = NewClientWithResponses(server, WithHTTPClient(s), WithRequestEditorFn(withKey), WithRequestEditorFn(withoutUnset))
	if err != nil {
		return nil, fmt.Errorf("address of the API: %w", err)
	}
	return s, nil
}

// Login makes the session that of a user.
func (s *Session) Login(ctx context.Context, login, password string) (Me, error) {
	answer, err := s.LoginWithResponse(ctx, Credentials{Login: login, Password: password})
	if err != nil {
		return Me{}, err
	}
	if answer.JSON201 == nil {
		return Me{}, campaign.Errorf(campaign.CodeInternal, "the API answered the login with %s", answer.HTTPResponse.Status)
	}
	return *answer.JSON201, nil
}

// Do implements HttpRequestDoer: it sends a request and makes a problem an error.
func (s *Session) Do(r *http.Request) (*http.Response, error) {
	answer, err := s.http.Do(r)
	if err != nil || answer.StatusCode < 400 {
		return answer, err
	}
	defer answer.Body.Close()
	return nil, problem(answer)
}

// maxProblem bounds what is read of an error.
const maxProblem = 1 << 20

func problem(answer *http.Response) error {
	var p Problem
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxProblem))
	if err != nil || json.Unmarshal(body, &p) != nil || p.Code == "" {
		return campaign.Errorf(campaign.CodeInternal, "the API answered %s", answer.Status)
	}
	message := p.Detail
	if message == "" {
		message = p.Title
	}
	return &campaign.Error{Code: campaign.Code(p.Code), Message: message, Fields: p.Fields, Details: p.Details}
}

type keyOf struct{}

// WithKey makes the writes under ctx carry that Idempotency-Key: for a caller that
// may send the same write again.
func WithKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, keyOf{}, key)
}

func withKey(ctx context.Context, r *http.Request) error {
	if r.Method == http.MethodGet || r.Header.Get("Idempotency-Key") != "" {
		return nil
	}
	key, ok := ctx.Value(keyOf{}).(string)
	if !ok {
		key = uuid.NewString()
	}
	r.Header.Set("Idempotency-Key", key)
	return nil
}

// withoutUnset takes parameters out of the query that the caller did not set: generated
// code sends their zero values, and no parameter of the API takes one.
func withoutUnset(_ context.Context, r *http.Request) error {
	query := r.URL.Query()
	for name, values := range query {
		if len(values) == 1 && (values[0] == "" || values[0] == "0") {
			query.Del(name)
		}
	}
	r.URL.RawQuery = query.Encode()
	return nil
}
