// Package apiuser calls Muster's public API as a person would: it logs in, logs in
// again when the session has ended, and repeats a request while the API is away. A
// request that is repeated keeps its idempotency key, so nothing is done twice.
package apiuser

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
)

// Login is what a person logs in with.
type Login struct{ Login, Password string }

// User is one person's session with the API. It may be used by several goroutines.
type User struct {
	base    string
	who     Login
	api     *client.Session
	login   sync.Mutex
	session atomic.Int64 // grows with each login
	retries atomic.Int64
}

// New returns a user of the API at base, e.g. http://127.0.0.1:8080. Nothing is sent yet.
func New(base string, who Login) (*User, error) {
	if at, err := url.Parse(base); err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
		return nil, campaign.Errorf(campaign.CodeInvalidParameter, "%q is no address of an API: it should look like http://127.0.0.1:8480", base)
	}
	session, err := client.NewSession(base)
	if err != nil {
		return nil, err
	}
	return &User{base: base, who: who, api: session}, nil
}

// Name returns the login.
func (u *User) Name() string { return u.who.Login }

// Retries returns how many requests were sent again so far.
func (u *User) Retries() int64 { return u.retries.Load() }

const (
	// Pauses between repetitions double from the first to the longest.
	firstPause   = 50 * time.Millisecond
	longestPause = 2 * time.Second
	// answerWithin bounds one try. An API that takes longer is asked again.
	answerWithin = 30 * time.Second
	maxLogins    = 3
)

// Do sends a request until it is answered for good: again after a connection error,
// while the API cannot do it now, and after logging in when the session has ended. A
// write goes out under key; an empty key means a new one. What the API refuses is a
// *campaign.Error with the API's code. It ends with ctx, or with the patience of ctx.
func Do[T any](ctx context.Context, u *User, key string, send func(context.Context, *client.Session) (T, error)) (T, error) {
	var none T
	if key == "" {
		key = uuid.NewString()
	}
	pause, logins := firstPause, 0
	for {
		seen := u.session.Load()
		if seen == 0 {
			if err := u.logIn(ctx, seen); err != nil {
				return none, err
			}
			continue
		}
		began := time.Now()
		answer, err := within(client.WithKey(ctx, key), func(ctx context.Context) (T, error) { return send(ctx, u.api) })
		switch code := campaign.CodeOf(err); {
		case err == nil:
			patienceOf(ctx).answered()
			return answer, nil
		case ctx.Err() != nil:
			return none, ctx.Err()
		case code == campaign.CodeUnauthenticated && logins < maxLogins:
			// A session that a fresh login does not cure is no session.
			logins++
			u.retries.Add(1)
			if err := u.logIn(ctx, seen); err != nil {
				return none, err
			}
			continue
		case !passing(err):
			patienceOf(ctx).answered()
			return none, err
		}
		u.retries.Add(1)
		if pause, err = u.again(ctx, pause, began, err); err != nil {
			return none, err
		}
	}
}

func within[T any](ctx context.Context, send func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, patienceOf(ctx).bound())
	defer cancel()
	return send(ctx)
}

// passing reports whether the same request may succeed a moment later.
func passing(err error) bool {
	var refused *campaign.Error
	if !errors.As(err, &refused) {
		return true // no answer at all
	}
	switch refused.Code {
	case campaign.CodeInternal, campaign.CodeOrchestratorAway, campaign.CodeChannelUnavailable, campaign.CodeDraining,
		campaign.CodeRateLimited, campaign.CodeRequestInProgress:
		return true
	}
	return false
}

// again pauses before a try is repeated, unless patience is at its end.
func (u *User) again(ctx context.Context, pause time.Duration, began time.Time, cause error) (time.Duration, error) {
	if err := patienceOf(ctx).failed(u.base, began, cause); err != nil {
		return pause, err
	}
	return u.wait(ctx, pause, cause)
}

// wait pauses and returns the next pause. Half of each is drawn, so that many users do
// not come back at the same moment.
func (u *User) wait(ctx context.Context, pause time.Duration, cause error) (time.Duration, error) {
	if pause >= longestPause && patienceOf(ctx) == nil {
		slog.WarnContext(ctx, "the API does not answer; trying again", "user", u.who.Login, "error", cause)
	}
	t := time.NewTimer(pause/2 + rand.N(pause/2)) //nolint:gosec // spreads load, keeps no secret
	defer t.Stop()
	select {
	case <-t.C:
		return min(2*pause, longestPause), nil
	case <-ctx.Done():
		return pause, ctx.Err()
	}
}

// logIn logs in unless another goroutine has done so since the session that was seen.
func (u *User) logIn(ctx context.Context, seen int64) error {
	u.login.Lock()
	defer u.login.Unlock()
	for pause := firstPause; u.session.Load() == seen; {
		began := time.Now()
		_, err := within(ctx, func(ctx context.Context) (client.Me, error) {
			return u.api.Login(ctx, u.who.Login, u.who.Password)
		})
		switch {
		case err == nil:
			patienceOf(ctx).answered()
			u.session.Add(1)
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !passing(err):
			return fmt.Errorf("log in as %s: %w", u.who.Login, err)
		}
		if pause, err = u.again(ctx, pause, began, err); err != nil {
			return err
		}
	}
	return nil
}
