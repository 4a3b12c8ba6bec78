package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/alexedwards/argon2id"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

const (
	sessionLifetime = 12 * time.Hour
	sessionUser     = "user"

	// Failed attempts to log in that are let through in attemptWindow.
	attemptsPerLogin   = 10
	attemptsPerAddress = 100
	attemptWindow      = 5 * time.Minute
	// Each hash takes 64 MiB, so this many are computed at once.
	hashesAtOnce = 4
)

// HashPassword returns the argon2id hash of a password, with its own salt, in the
// usual text form.
func HashPassword(password string) (string, error) {
	return argon2id.CreateHash(password, argon2id.DefaultParams)
}

// nobodysHash is what the password of an unknown login is compared with.
var nobodysHash = sync.OnceValues(func() (string, error) { return HashPassword("nobody") })

func (s *Server) sessionToken(r *http.Request) string {
	cookie, err := r.Cookie(s.sessions.Cookie.Name)
	if err != nil {
		return ""
	}
	return cookie.Value
}

// authenticate returns the user of the session in ctx. The user is read each time, so
// that whoever is locked out is out with the next request.
func (s *Server) authenticate(ctx context.Context) (store.User, []campaign.Grant, error) {
	refused := campaign.Errorf(campaign.CodeUnauthenticated, "log in first")
	id := s.sessions.GetString(ctx, sessionUser)
	if id == "" {
		return store.User{}, nil, refused
	}
	u, grants, err := s.store.UserWithGrants(ctx, id)
	if campaign.CodeOf(err) == campaign.CodeNotFound || err == nil && u.Disabled {
		return store.User{}, nil, refused
	}
	return u, grants, err
}

// Login implements the operation.
func (s *Server) Login(ctx context.Context, in LoginRequestObject) (LoginResponseObject, error) {
	r := requestOf(ctx)
	for key, most := range map[string]int{"login " + in.Body.Login: attemptsPerLogin, "address " + r.address: attemptsPerAddress} {
		if !s.attempts.begin(key, most) {
			return nil, campaign.Errorf(campaign.CodeRateLimited, "too many failed attempts to log in; try again in a few minutes")
		}
	}
	u, err := s.store.UserByLogin(ctx, in.Body.Login)
	if err != nil && campaign.CodeOf(err) != campaign.CodeNotFound {
		return nil, err
	}
	hash := u.PasswordHash
	if err != nil {
		hash = s.nobodysHash // an unknown login takes as long as a known one
	}
	select {
	case s.hashing <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	match, hashErr := argon2id.ComparePasswordAndHash(in.Body.Password, hash)
	<-s.hashing
	reason := ""
	switch {
	case err != nil:
		reason = "unknown_login"
	case hashErr != nil || !match:
		reason = "wrong_password"
	case u.Disabled:
		reason = "disabled"
	}
	if reason != "" {
		// What was typed is recorded in no form: it may be a password in the wrong field, and
		// a hash of one can be guessed.
		e := store.AuditEvent{Event: "session.refused", Data: map[string]any{"code": campaign.CodeUnauthenticated, "reason": reason, "request_id": r.id}}
		if u.ID != "" {
			e.ActorID, e.Actor = &u.ID, u.Name
		}
		if err := s.record(ctx, e); err != nil {
			return nil, err
		}
		return nil, campaign.Errorf(campaign.CodeUnauthenticated, "the login or the password is wrong")
	}
	s.attempts.forget("login " + in.Body.Login)
	s.attempts.undo("address " + r.address)
	if err := s.sessions.RenewToken(ctx); err != nil {
		return nil, fmt.Errorf("begin session: %w", err)
	}
	s.sessions.Put(ctx, sessionUser, u.ID)
	token, expiry, err := s.sessions.Commit(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin session: %w", err)
	}
	if err := s.record(ctx, store.AuditEvent{Event: "session.begun", ActorID: &u.ID, Actor: u.Name, Allowed: true, Data: map[string]any{"request_id": r.id}}); err != nil {
		return nil, err
	}
	u, grants, err := s.store.UserWithGrants(ctx, u.ID)
	if err != nil {
		return nil, err
	}
	return Login201JSONResponse{
		Body: s.me(u, grants), Headers: Login201ResponseHeaders{SetCookie: s.cookie(token, expiry).String()},
	}, nil
}

// Logout implements the operation.
func (s *Server) Logout(ctx context.Context, _ LogoutRequestObject) (LogoutResponseObject, error) {
	if err := s.sessions.Destroy(ctx); err != nil {
		return nil, fmt.Errorf("end session: %w", err)
	}
	r := requestOf(ctx)
	if err := s.record(ctx, store.AuditEvent{Event: "session.ended", ActorID: &r.user.ID, Actor: r.user.Name, Allowed: true, Data: map[string]any{"request_id": r.id}}); err != nil {
		return nil, err
	}
	return Logout204Response{Headers: Logout204ResponseHeaders{SetCookie: s.cookie("", time.Unix(1, 0)).String()}}, nil
}

// GetMe implements the operation.
func (s *Server) GetMe(ctx context.Context, _ GetMeRequestObject) (GetMeResponseObject, error) {
	r := requestOf(ctx)
	return GetMe200JSONResponse(s.me(r.user, r.grants)), nil
}

func (s *Server) me(u store.User, grants []campaign.Grant) Me {
	me := Me{ID: u.ID, Login: u.Login, Name: u.Name, Grants: []RoleGrant{}, Actions: []Permission{}}
	for _, g := range grants {
		me.Grants = append(me.Grants, RoleGrant{Role: g.Role, Unit: g.Unit})
	}
	for _, act := range campaign.Actions() {
		if units := s.policies.Units(u.ID, act); len(units) > 0 {
			me.Actions = append(me.Actions, Permission{Action: act, Units: units})
		}
	}
	return me
}

func (s *Server) cookie(token string, expiry time.Time) *http.Cookie {
	c := s.sessions.Cookie
	cookie := &http.Cookie{ //nolint:gosec // the flags are the session manager's
		Name: c.Name, Value: token, Path: c.Path, Secure: c.Secure, HttpOnly: c.HttpOnly, SameSite: c.SameSite, Expires: expiry,
	}
	if token == "" {
		cookie.MaxAge = -1
	}
	return cookie
}

// attempts counts attempts to log in, by login and by address, in windows of time.
type attempts struct {
	mu     sync.Mutex
	counts map[string]*window
}

type window struct {
	count int
	ends  time.Time
}

// maxWindows bounds the memory that a flood of made-up logins can take.
const maxWindows = 100_000

// begin counts an attempt and reports whether it is within most of its window.
func (a *attempts) begin(key string, most int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	w := a.counts[key]
	if w == nil || now.After(w.ends) {
		if len(a.counts) >= maxWindows {
			a.drop(now)
		}
		w = &window{ends: now.Add(attemptWindow)}
		a.counts[key] = w
	}
	w.count++
	return w.count <= most
}

// drop removes the windows that ended, and if none did, the ones that end first.
func (a *attempts) drop(now time.Time) {
	ends := make([]time.Time, 0, len(a.counts))
	for _, w := range a.counts {
		ends = append(ends, w.ends)
	}
	slices.SortFunc(ends, time.Time.Compare)
	limit := ends[len(ends)/2]
	for key, w := range a.counts {
		if now.After(w.ends) || !w.ends.After(limit) {
			delete(a.counts, key)
		}
	}
}

// forget ends a window: the attempt succeeded.
func (a *attempts) forget(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.counts, key)
}

// undo takes one attempt back, as it succeeded, and leaves the failed ones counted.
func (a *attempts) undo(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.counts[key]; w != nil {
		w.count--
	}
}
