package apiuser

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
)

func ask(ctx context.Context, u *User) error {
	_, err := Do(ctx, u, "", func(ctx context.Context, api *client.Session) (*client.GetMeResponse, error) {
		return api.GetMeWithResponse(ctx)
	})
	return err
}

// TestAnAPIThatIsGoneIsGivenUp: it is told once, whoever asks, and then in plain words.
func TestAnAPIThatIsGoneIsGivenUp(t *testing.T) {
	srv := httptest.NewServer(&api{})
	u, err := New(srv.URL, Login{Login: "somebody", Password: "right"})
	require.NoError(t, err)
	other, err := New(srv.URL, Login{Login: "another", Password: "right"})
	require.NoError(t, err)
	var waiting []string
	ctx := WithPatience(t.Context(), 300*time.Millisecond, func(base string) { waiting = append(waiting, base) })
	require.NoError(t, ask(ctx, u))
	require.Empty(t, waiting)

	srv.Close()
	for _, u := range []*User{u, other} {
		err = ask(ctx, u)
		require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(err))
		require.ErrorContains(t, err, "nothing has answered at "+srv.URL)
	}
	require.Equal(t, []string{srv.URL}, waiting)
}

func TestAnAPIThatComesBackIsWaitedForEachTime(t *testing.T) {
	a := &api{}
	u := newUser(t, a, "right")
	waited := 0
	ctx := WithPatience(t.Context(), time.Minute, func(string) { waited++ })
	for outage := 1; outage <= 2; outage++ {
		a.answers = []int{0, http.StatusServiceUnavailable, 0}
		require.NoError(t, ask(ctx, u))
		require.Equal(t, outage, waited)
	}
}

func TestAnAPIThatAnswersOnlyTroubleIsGivenUpByItsOwnWords(t *testing.T) {
	var asked atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		problem(w, http.StatusServiceUnavailable, campaign.CodeOrchestratorAway)
	}))
	defer srv.Close()
	u, err := New(srv.URL, Login{Login: "somebody", Password: "right"})
	require.NoError(t, err)
	ctx := WithPatience(t.Context(), 300*time.Millisecond, func(string) {})
	err = ask(ctx, u)
	require.Equal(t, campaign.CodeOrchestratorAway, campaign.CodeOf(err))
	require.ErrorContains(t, err, "in trouble")
	require.Greater(t, asked.Load(), int64(1))
}
