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
	// What a session holds.
	sessionUser     = "user"
	sessionEpoch    = "epoch"     // of the user's, when the session began: an earlier one has ended
	sessionAuthTime = "auth_time" // when its user proved who they are, in Unix seconds
	sessionIdentity = "identity"  // whether they did at the identity provider, without their password

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

// sessionToken is what the session cookie holds. A request with a token of its own has
// no session, whatever cookies come with it.
func (s *Server) sessionToken(c *http.Request, r *request) string {
	if len(r.authorization) > 0 {
		return ""
	}
	cookie, err := c.Cookie(s.sessions.Cookie.Name)
	if err != nil {
		return ""
	}
	return cookie.Value
}

// authenticate finds out who calls: a machine by its token, or the person of the session
// in ctx. The user is read each time, so that whoever is locked out is out with the next
// request.
func (s *Server) authenticate(ctx context.Context, r *request) error {
	if len(r.authorization) > 0 {
		u, err := s.tokenUser(ctx, r.authorization)
		if err != nil {
			return err
		}
		r.user, r.grants = u, []campaign.Grant{{UserID: u.ID, Role: campaign.RoleService, Unit: *u.Unit}}
		return nil
	}
	refused := campaign.Errorf(campaign.CodeUnauthenticated, "log in first")
	id := s.sessions.GetString(ctx, sessionUser)
	if id == "" {
		return refused
	}
	u, grants, err := s.store.UserWithGrants(ctx, id)
	switch {
	case campaign.CodeOf(err) == campaign.CodeNotFound:
		return refused
	case err != nil:
		return err
	case u.Disabled || u.SessionEpoch != s.sessions.GetInt64(ctx, sessionEpoch):
		return refused
	}
	// Whoever got in without a password need not change the one that somebody else chose.
	u.PasswordTemporary = u.PasswordTemporary && !s.sessions.GetBool(ctx, sessionIdentity)
	r.user, r.grants, r.authTime = u, grants, time.Unix(s.sessions.GetInt64(ctx, sessionAuthTime), 0)
	return nil
}

// proof is how and when the user of a session proved who they are.
type proof struct {
	at         time.Time
	byIdentity bool // at the identity provider, not by a password
}

// beginSession makes the session in ctx a new one of u and returns the cookie that
// carries it.
func (s *Server) beginSession(ctx context.Context, u store.User, by proof) (string, error) {
	if err := s.sessions.RenewToken(ctx); err != nil {
		return "", fmt.Errorf("begin session: %w", err)
	}
	s.sessions.Put(ctx, sessionUser, u.ID)
	s.sessions.Put(ctx, sessionAuthTime, by.at.Unix())
	s.sessions.Put(ctx, sessionIdentity, by.byIdentity)
	s.sessions.Put(ctx, sessionEpoch, u.SessionEpoch)
	token, expiry, err := s.sessions.Commit(ctx)
	if err != nil {
		return "", fmt.Errorf("begin session: %w", err)
	}
	return s.cookie(token, expiry).String(), nil
}

// Login implements the operation.
func (s *Server) Login(ctx context.Context, in LoginRequestObject) (LoginResponseObject, error) {
	r := requestOf(ctx)
	for key, most := range map[string]int{"login " + in.Body.Login: attemptsPerLogin, "address " + r.address: attemptsPerAddress} {
		if !s.attempts.begin(key, most) {
			return nil, s.refuseStranger(ctx, r, tooManyAttempts())
		}
	}
	u, err := s.store.UserByLogin(ctx, in.Body.Login)
	if err != nil && campaign.CodeOf(err) != campaign.CodeNotFound {
		return nil, err
	}
	var attempt store.LoginAttempt
	known := err == nil && u.Kind == store.KindPerson
	hash := s.nobodysHash // an unknown login takes as long as a known one
	if known {
		hash = u.PasswordHash
		if attempt, err = s.store.BeginLogin(ctx, u.ID); err != nil {
			return nil, err
		}
	}
	match, err := s.matches(ctx, in.Body.Password, hash)
	if err != nil {
		return nil, err
	}
	reason := ""
	switch {
	case !known:
		reason = "unknown_login"
	case attempt.Locked:
		reason = "locked"
	case !match:
		reason = "wrong_password"
	case u.Disabled:
		reason = "disabled"
	}
	if reason != "" {
		return nil, s.refuseLogin(ctx, r, u, reason, attempt.Locks)
	}
	if err := s.store.EndLogin(ctx, u.ID); err != nil {
		return nil, err
	}
	s.attempts.forget("login " + in.Body.Login)
	s.attempts.undo("address " + r.address)
	cookie, err := s.beginSession(ctx, u, proof{at: time.Now()})
	if err != nil {
		return nil, err
	}
	if err := s.record(ctx, store.AuditEvent{Event: "session.begun", ActorID: &u.ID, Actor: u.Name, Allowed: true, Data: map[string]any{"request_id": r.id}}); err != nil {
		return nil, err
	}
	u, grants, err := s.store.UserWithGrants(ctx, u.ID)
	if err != nil {
		return nil, err
	}
	return Login201JSONResponse{Body: s.me(u, grants), Headers: Login201ResponseHeaders{SetCookie: cookie}}, nil
}

func tooManyAttempts() error {
	return campaign.Errorf(campaign.CodeRateLimited, "too many failed attempts to log in; try again in a few minutes")
}

// recordRefusedLogin records why somebody was not let in; u is the zero User when nobody
// knows whom they meant. What was typed is recorded in no form: it may be a password in
// the wrong field, and a hash of one can be guessed.
func (s *Server) recordRefusedLogin(ctx context.Context, r *request, u store.User, code campaign.Code, reason string) error {
	return s.record(ctx, byUser(u, "session.refused", map[string]any{"code": code, "reason": reason, "request_id": r.id}))
}

// byUser is the event of something that u tried.
func byUser(u store.User, event string, data map[string]any) store.AuditEvent {
	e := store.AuditEvent{Event: event, Data: data}
	if u.ID != "" {
		e.ActorID, e.Actor = &u.ID, u.Name
	}
	return e
}

// refuseLogin records why a login was refused, and answers alike whatever the reason:
// whoever guesses learns neither which logins there are nor which are locked.
func (s *Server) refuseLogin(ctx context.Context, r *request, u store.User, reason string, locks bool) error {
	if err := s.recordRefusedLogin(ctx, r, u, campaign.CodeUnauthenticated, reason); err != nil {
		return err
	}
	if locks {
		locked := map[string]any{"attempts": store.LoginAttempts, "seconds": store.LoginLock.Seconds(), "request_id": r.id}
		if err := s.record(ctx, byUser(u, "login.locked", locked)); err != nil {
			return err
		}
	}
	return campaign.Errorf(campaign.CodeUnauthenticated, "the login or the password is wrong, or too many wrong passwords have locked the login for some minutes")
}

// matches compares a password with a hash, as many at once as memory allows. A hash that
// is none matches nothing.
func (s *Server) matches(ctx context.Context, password, hash string) (bool, error) {
	select {
	case s.hashing <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { <-s.hashing }()
	match, err := argon2id.ComparePasswordAndHash(password, hash)
	return match && err == nil, nil
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
	return Logout204Response{Headers: Logout204ResponseHeaders{SetCookie: s.noCookie()}}, nil
}

// EndSessions implements the operation.
func (s *Server) EndSessions(ctx context.Context, _ EndSessionsRequestObject) (EndSessionsResponseObject, error) {
	r := requestOf(ctx)
	if err := s.store.EndSessions(ctx, r.user.ID, r.user.Actor()); err != nil {
		return nil, err
	}
	if err := s.sessions.Destroy(ctx); err != nil {
		return nil, fmt.Errorf("end session: %w", err)
	}
	return EndSessions204Response{Headers: EndSessions204ResponseHeaders{SetCookie: s.noCookie()}}, nil
}

// ChangePassword implements the operation. Whoever took over a session does not know the
// password, and gets no more tries at it than at the login.
func (s *Server) ChangePassword(ctx context.Context, in ChangePasswordRequestObject) (ChangePasswordResponseObject, error) {
	r := requestOf(ctx)
	u, err := s.store.UserByLogin(ctx, r.user.Login)
	if err != nil {
		return nil, err
	}
	attempt, err := s.store.BeginLogin(ctx, u.ID)
	if err != nil {
		return nil, err
	}
	match, err := s.matches(ctx, in.Body.Current, u.PasswordHash)
	if err != nil {
		return nil, err
	}
	if attempt.Locked || !match {
		return nil, s.refuse(ctx, r, "", campaign.Errorf(campaign.CodeForbidden, "the current password is wrong, or too many wrong ones have locked the login for some minutes"))
	}
	if err := s.store.EndLogin(ctx, u.ID); err != nil {
		return nil, err
	}
	if in.Body.Password == in.Body.Current {
		return nil, faults([]campaign.FieldError{{Field: "password", Code: campaign.CodeInvalidParameter, Message: "must be another than the current one"}})
	}
	hash, err := s.hash(ctx, in.Body.Password)
	if err != nil {
		return nil, err
	}
	if err := s.store.SetPassword(ctx, u.ID, hash, r.user.Actor()); err != nil {
		return nil, err
	}
	if u, _, err = s.store.UserWithGrants(ctx, u.ID); err != nil {
		return nil, err
	}
	cookie, err := s.beginSession(ctx, u, proof{at: time.Now()})
	if err != nil {
		return nil, err
	}
	return ChangePassword204Response{Headers: ChangePassword204ResponseHeaders{SetCookie: cookie}}, nil
}

// GetMe implements the operation.
func (s *Server) GetMe(ctx context.Context, _ GetMeRequestObject) (GetMeResponseObject, error) {
	r := requestOf(ctx)
	return GetMe200JSONResponse(s.me(r.user, r.grants)), nil
}

func (s *Server) me(u store.User, grants []campaign.Grant) Me {
	me := Me{ID: u.ID, Login: u.Login, Name: u.Name, PasswordChangeRequired: u.PasswordTemporary, Grants: []RoleGrant{}, Actions: []Permission{}}
	for _, g := range grants {
		if g.Role == campaign.RoleService {
			continue // a machine has actions and no roles
		}
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

// noCookie takes the session's cookie away.
func (s *Server) noCookie() string { return s.cookie("", time.Unix(1, 0)).String() }

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
