package apiuser

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
)

// api answers getMe and submitCampaign as told, request by request.
type api struct {
	mu      sync.Mutex
	answers []int // statuses, 0 drops the connection; then 200
	keys    []string
	logins  int
	streams int
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/v1/sessions":
		a.logins++
		var c client.Credentials
		_ = json.NewDecoder(r.Body).Decode(&c)
		if c.Password != "right" {
			problem(w, http.StatusUnauthorized, campaign.CodeUnauthenticated)
			return
		}
		http.SetCookie(w, &http.Cookie{Name: "muster_session", Value: fmt.Sprint(a.logins), Path: "/"})
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(client.Me{})
		return
	case "/v1/events":
		a.streams++
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = fmt.Fprintf(w, ": hello\n\nid: 1\ndata: {\"topic\":\"campaign\",\"id\":\"c-%d\",\"version\":1}\n\n", a.streams)
		return // the stream breaks
	}
	a.keys = append(a.keys, r.Header.Get("Idempotency-Key"))
	if len(a.answers) > 0 {
		status := a.answers[0]
		a.answers = a.answers[1:]
		code := campaign.CodeInternal
		switch status {
		case 0:
			panic(http.ErrAbortHandler)
		case http.StatusUnauthorized:
			code = campaign.CodeUnauthenticated
		case http.StatusTooManyRequests:
			code = campaign.CodeRateLimited
		case http.StatusConflict:
			code = campaign.CodeStateConflict
		}
		problem(w, status, code)
		return
	}
	_ = json.NewEncoder(w).Encode(client.Standing{})
}

func problem(w http.ResponseWriter, status int, code campaign.Code) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(client.Problem{Code: string(code), Status: status, Detail: "no"})
}

func newUser(t *testing.T, a *api, password string) *User {
	t.Helper()
	srv := httptest.NewServer(a)
	t.Cleanup(srv.Close)
	u, err := New(srv.URL, Login{Login: "somebody", Password: password})
	require.NoError(t, err)
	return u
}

func submit(u *User, key string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err := Do(ctx, u, key, func(ctx context.Context, api *client.Session) (*client.SubmitCampaignResponse, error) {
		return api.SubmitCampaignWithResponse(ctx, "0197a3c0-0000-7000-8000-00000000c0de", nil, client.Submission{Revision: 1})
	})
	return err
}

func TestPassingTroubleIsSatOutUnderOneKey(t *testing.T) {
	a := &api{answers: []int{0, http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusUnauthorized, http.StatusInternalServerError}}
	u := newUser(t, a, "right")
	require.NoError(t, submit(u, "my-key"))
	require.Equal(t, []string{"my-key", "my-key", "my-key", "my-key", "my-key", "my-key"}, a.keys)
	require.Equal(t, 2, a.logins)
	// The HTTP library repeats a keyed request by itself when a kept connection breaks.
	require.GreaterOrEqual(t, u.Retries(), int64(4))

	a.keys = nil
	require.NoError(t, submit(u, ""))
	require.NoError(t, submit(u, ""))
	require.Len(t, a.keys, 2)
	require.NotEqual(t, a.keys[0], a.keys[1])
	require.NotEmpty(t, a.keys[0])
}

func TestARefusalIsFinal(t *testing.T) {
	a := &api{answers: []int{http.StatusConflict}}
	u := newUser(t, a, "right")
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(submit(u, "")))
	require.Len(t, a.keys, 1)
	require.Zero(t, u.Retries())
}

func TestASessionThatNeverHoldsIsGivenUp(t *testing.T) {
	a := &api{}
	for range 20 {
		a.answers = append(a.answers, http.StatusUnauthorized)
	}
	u := newUser(t, a, "right")
	require.Equal(t, campaign.CodeUnauthenticated, campaign.CodeOf(submit(u, "")))
	require.Equal(t, 1+maxLogins, a.logins)
}

func TestAWrongPasswordIsToldAtOnce(t *testing.T) {
	a := &api{}
	u := newUser(t, a, "wrong")
	err := submit(u, "")
	require.ErrorContains(t, err, "log in as somebody")
	require.Equal(t, campaign.CodeUnauthenticated, campaign.CodeOf(err))
	require.Equal(t, 1, a.logins)
	require.Empty(t, a.keys)
}

func TestAnAddressThatIsNoneIsRefused(t *testing.T) {
	for _, base := range []string{"", "nonsense", "127.0.0.1:8480", "ftp://127.0.0.1", "http://", "http://[", "/v1"} {
		_, err := New(base, Login{})
		require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(err), base)
	}
}

func TestTheEndOfTheContextEndsAll(t *testing.T) {
	u, err := New("http://127.0.0.1:1", Login{Login: "somebody"})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := Do(ctx, u, "", func(context.Context, *client.Session) (int, error) { return 0, nil })
		ended <- err
	}()
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

func TestWatchTakesABrokenStreamUpAgain(t *testing.T) {
	u := newUser(t, &api{}, "right")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	seen := make(chan string)
	go u.Watch(ctx, "campaign", func(id string) {
		select {
		case seen <- id:
		case <-ctx.Done():
		}
	})
	require.Equal(t, "c-1", <-seen)
	require.Empty(t, <-seen, "something may have been missed meanwhile")
	require.Equal(t, "c-2", <-seen)
}

func TestReadEvents(t *testing.T) {
	var seen []string
	text := "retry: 2000\n\nevent: resync\ndata: {}\n\n: heartbeat\n\ndata:{\"id\":\"a\"}\n\ndata: not json\n\ndata: {\"id\":\"b\"}\n"
	require.NoError(t, readEvents(strings.NewReader(text), func(id string) { seen = append(seen, id) }))
	require.Equal(t, []string{"", "a", "b"}, seen)
}
