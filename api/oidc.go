package api

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// OIDC names the OpenID Connect provider by which people may log in beside their
// passwords. Without an Issuer there is none.
type OIDC struct {
	Issuer       string // as the provider writes it, to the letter
	ClientID     string
	ClientSecret string // empty for a public client
	RedirectURL  string // where browsers reach /v1/sessions/oidc/callback
	Name         string // what people call the provider
}

const (
	providerTimeout = 10 * time.Second // for one request to the provider
	providerPause   = 5 * time.Second  // after one that failed, until the provider is asked again
	flowLifetime    = 10 * time.Minute // of a log-in that has begun
	clockSkew       = time.Minute      // by which the provider's clock may be ahead
)

// signingAlgorithms are those by which an ID token may be signed, whatever the token's
// header or the provider says: all of them need a private key.
var signingAlgorithms = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA,
}

// identityProvider is the provider of OIDC. What it says of itself is read when somebody
// first logs in, so that Muster starts and works without it.
type identityProvider struct {
	OIDC
	client *http.Client

	mu     sync.Mutex
	login  *oauth2.Config // nil until the provider has answered
	keys   oidc.KeySet
	failed time.Time // when it last did not
}

// newIdentityProvider returns nil where there is none.
func newIdentityProvider(c OIDC) *identityProvider {
	if c.Issuer == "" {
		return nil
	}
	return &identityProvider{OIDC: c, client: &http.Client{Timeout: providerTimeout}}
}

// providerAway is the error of a provider that cannot be asked, for whatever reason.
func providerAway(err error) error {
	return &campaign.Error{Code: campaign.CodeProviderAway, Message: "the identity provider does not answer; try again, or log in with a password", Err: err}
}

// identityRefused is the error of what does not prove who somebody is. The caller learns
// no more, the log does.
func identityRefused(err error) error {
	return &campaign.Error{Code: campaign.CodeTokenInvalid, Message: "this log-in is not valid or not valid any more; begin again", Err: err}
}

// discover asks the provider for its addresses, once.
func (p *identityProvider) discover(ctx context.Context) (*oauth2.Config, oidc.KeySet, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.login != nil {
		return p.login, p.keys, nil
	}
	if time.Since(p.failed) < providerPause {
		return nil, nil, providerAway(nil)
	}
	// Whoever asked first may hang up; the others wait for the same answer.
	ctx = oidc.ClientContext(context.WithoutCancel(ctx), p.client)
	found, err := oidc.NewProvider(ctx, p.Issuer)
	var more struct {
		Keys string `json:"jwks_uri"`
	}
	if err == nil {
		err = found.Claims(&more)
	}
	if err != nil {
		p.failed = time.Now()
		return nil, nil, providerAway(fmt.Errorf("discover identity provider: %w", err))
	}
	p.keys = oidc.NewRemoteKeySet(oidc.ClientContext(context.Background(), p.client), more.Keys) //nolint:forbidigo // of the process, for no request
	p.login = &oauth2.Config{
		ClientID: p.ClientID, ClientSecret: p.ClientSecret, Endpoint: found.Endpoint(), RedirectURL: p.RedirectURL, Scopes: []string{oidc.ScopeOpenID},
	}
	if p.ClientSecret == "" {
		p.login.Endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	return p.login, p.keys, nil
}

// flow is a log-in that has begun. It is one secret that the browser keeps in a cookie;
// what the provider sees of it tells nothing of the rest.
type flow struct {
	secret   string
	returnTo string // path on this host to go on at; empty for none
}

func (f flow) derive(what string) string {
	mac := hmac.New(sha256.New, []byte(f.secret))
	mac.Write([]byte(what))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// The three bind a log-in together: state to the browser that began it, nonce the ID
// token to it, verifier the code to it (RFC 7636).
func (f flow) state() string    { return f.derive("state") }
func (f flow) nonce() string    { return f.derive("nonce") }
func (f flow) verifier() string { return f.derive("verifier") }

// localPath reports whether a browser that is sent to path stays on this host.
func localPath(path string) bool {
	return strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "//") && !strings.ContainsFunc(path, func(r rune) bool {
		return r == '\\' || r <= ' ' || r >= 0x7f
	})
}

func (s *Server) flowCookie(value string, age time.Duration) *http.Cookie {
	c := &http.Cookie{ //nolint:gosec // Secure is the session cookie's
		Name: s.flowCookieName(), Value: value, Path: "/", Secure: s.sessions.Cookie.Secure, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: int(age.Seconds()),
	}
	if value == "" {
		c.MaxAge = -1
	}
	return c
}

func (s *Server) flowCookieName() string { return s.sessions.Cookie.Name + "_oidc" }

// flowOf reads the flow that a request's browser has begun; the zero flow when none.
func (s *Server) flowOf(req *http.Request) flow {
	cookie, err := req.Cookie(s.flowCookieName())
	if err != nil {
		return flow{}
	}
	secret, encoded, _ := strings.Cut(cookie.Value, ".")
	path, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil || len(path) > 0 && !localPath(string(path)) {
		return flow{}
	}
	return flow{secret: secret, returnTo: string(path)}
}

// identity is who the provider says somebody is, and how it knows.
type identity struct {
	subject  string
	authTime time.Time
	methods  []string // of authentication, RFC 8176
}

// identify exchanges a code for an ID token and checks all that makes it one for this
// log-in. It fails with CodeTokenInvalid and CodeProviderAway.
func (p *identityProvider) identify(ctx context.Context, f flow, code string) (identity, error) {
	login, keys, err := p.discover(ctx)
	if err != nil {
		return identity{}, err
	}
	answer, err := login.Exchange(oidc.ClientContext(ctx, p.client), code, oauth2.VerifierOption(f.verifier()))
	var refused *oauth2.RetrieveError
	switch {
	case errors.As(err, &refused) && refused.ErrorCode == "invalid_grant":
		return identity{}, identityRefused(errors.New("the provider refused the code"))
	case errors.As(err, &refused): // its text may say more than a log should
		return identity{}, providerAway(fmt.Errorf("exchange code: the provider answered %d %s", refused.Response.StatusCode, refused.ErrorCode))
	case err != nil:
		return identity{}, providerAway(fmt.Errorf("exchange code: %w", err))
	}
	raw, _ := answer.Extra("id_token").(string)
	seen := &seenKeys{KeySet: keys}
	token, err := oidc.NewVerifier(p.Issuer, seen, &oidc.Config{ClientID: p.ClientID, SupportedSigningAlgs: signingAlgorithms}).Verify(ctx, raw)
	switch {
	case seen.away != nil:
		return identity{}, providerAway(fmt.Errorf("read the provider's keys: %w", seen.away))
	case err != nil:
		return identity{}, identityRefused(err)
	}
	var more struct {
		Party    string   `json:"azp"`
		AuthTime int64    `json:"auth_time"`
		Methods  []string `json:"amr"`
	}
	if err := token.Claims(&more); err != nil {
		return identity{}, identityRefused(err)
	}
	who := identity{subject: token.Subject, authTime: token.IssuedAt, methods: more.Methods}
	if more.AuthTime > 0 {
		who.authTime = time.Unix(more.AuthTime, 0)
	}
	switch {
	case subtle.ConstantTimeCompare([]byte(token.Nonce), []byte(f.nonce())) != 1:
		return identity{}, identityRefused(errors.New("the ID token is of another log-in"))
	case more.Party != "" && more.Party != p.ClientID, len(token.Audience) > 1 && more.Party == "":
		return identity{}, identityRefused(errors.New("the ID token is for another client"))
	case who.subject == "" || len(who.subject) > store.SubjectLongest:
		return identity{}, identityRefused(errors.New("the ID token names nobody"))
	case who.authTime.Unix() <= 0 || who.authTime.After(time.Now().Add(clockSkew)):
		return identity{}, identityRefused(errors.New("the ID token does not say when it was issued"))
	}
	return who, nil
}

// seenKeys tells a signature that does not hold from keys that could not be read: the
// verifier puts both into the same words.
type seenKeys struct {
	oidc.KeySet
	away error
}

// VerifySignature implements oidc.KeySet.
func (k *seenKeys) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	payload, err := k.KeySet.VerifySignature(ctx, token)
	k.away = errors.Unwrap(err)
	return payload, err
}

// noProvider is the answer where no provider is configured.
func noProvider() error {
	return campaign.Errorf(campaign.CodeNotFound, "no identity provider is configured here")
}

// ListLoginMethods implements the operation.
func (s *Server) ListLoginMethods(context.Context, ListLoginMethodsRequestObject) (ListLoginMethodsResponseObject, error) {
	all := []LoginMethod{{Kind: "password", Name: "Password"}}
	if s.identities != nil {
		all = append(all, LoginMethod{Kind: "oidc", Name: s.identities.Name, Path: "/v1/sessions/oidc"})
	}
	return ListLoginMethods200JSONResponse{Items: all}, nil
}

// BeginOIDCLogin implements the operation.
func (s *Server) BeginOIDCLogin(ctx context.Context, in BeginOIDCLoginRequestObject) (BeginOIDCLoginResponseObject, error) {
	if s.identities == nil {
		return nil, noProvider()
	}
	if back := in.Params.ReturnTo; back != "" && !localPath(back) {
		return nil, faults([]campaign.FieldError{{Field: "return_to", Code: campaign.CodeInvalidParameter, Message: "must be a path on this host, such as /campaigns"}})
	}
	login, _, err := s.identities.discover(ctx)
	if err != nil {
		return nil, err
	}
	f := flow{secret: rand.Text(), returnTo: in.Params.ReturnTo}
	return BeginOIDCLogin303Response{Headers: BeginOIDCLogin303ResponseHeaders{
		Location:  login.AuthCodeURL(f.state(), oidc.Nonce(f.nonce()), oauth2.S256ChallengeOption(f.verifier())),
		SetCookie: s.flowCookie(f.secret+"."+base64.RawURLEncoding.EncodeToString([]byte(f.returnTo)), flowLifetime).String(),
	}}, nil
}

// FinishOIDCLogin implements the operation.
func (s *Server) FinishOIDCLogin(ctx context.Context, in FinishOIDCLoginRequestObject) (FinishOIDCLoginResponseObject, error) {
	if s.identities == nil {
		return nil, noProvider()
	}
	r := requestOf(ctx)
	if !s.attempts.begin("address "+r.address, attemptsPerAddress) {
		return nil, s.refuseStranger(ctx, r, tooManyAttempts())
	}
	who, err := s.identified(ctx, r.flow, in.Params)
	if err != nil {
		if code := campaign.CodeOf(err); code != campaign.CodeProviderAway {
			s.log.InfoContext(ctx, "log-in at the identity provider refused", "request_id", r.id, "error", err)
			if err := s.recordRefusedLogin(ctx, r, store.User{}, code, "no_identity"); err != nil {
				return nil, err
			}
		}
		return nil, err
	}
	u, err := s.store.UserByIdentity(ctx, store.Identity{Issuer: s.identities.Issuer, Subject: who.subject})
	reason := "disabled"
	switch {
	case campaign.CodeOf(err) == campaign.CodeNotFound:
		reason = "unknown_identity"
	case err != nil:
		return nil, err
	case !u.Disabled:
		reason = ""
	}
	if reason != "" {
		if err := s.recordRefusedLogin(ctx, r, u, campaign.CodeUnauthenticated, reason); err != nil {
			return nil, err
		}
		// They have just proved that this is their identity; an administrator needs it.
		return nil, campaign.Errorf(campaign.CodeUnauthenticated, "no user who may log in has this identity; an administrator can give it to one, and it counts once it is confirmed").
			With("issuer", s.identities.Issuer).With("subject", who.subject)
	}
	s.attempts.undo("address " + r.address)
	cookie, err := s.beginSession(ctx, u, proof{at: who.authTime, byIdentity: true})
	if err != nil {
		return nil, err
	}
	begun := map[string]any{"request_id": r.id, "issuer": s.identities.Issuer, "subject": who.subject}
	if len(who.methods) > 0 {
		begun["methods"] = who.methods
	}
	if err := s.record(ctx, store.AuditEvent{Event: "session.begun", ActorID: &u.ID, Actor: u.Name, Allowed: true, Data: begun}); err != nil {
		return nil, err
	}
	u, grants, err := s.store.UserWithGrants(ctx, u.ID)
	if err != nil {
		return nil, err
	}
	u.PasswordTemporary = false
	return loggedIn{me: s.me(u, grants), cookies: []string{cookie, s.flowCookie("", 0).String()}, location: r.flow.returnTo}, nil
}

// identified finds out who came back from the provider, if it is the browser that was
// sent there.
func (s *Server) identified(ctx context.Context, f flow, p FinishOIDCLoginParams) (identity, error) {
	if f.secret == "" || subtle.ConstantTimeCompare([]byte(p.State), []byte(f.state())) != 1 {
		return identity{}, identityRefused(errors.New("the state is not this browser's"))
	}
	switch {
	case p.Iss != "" && p.Iss != s.identities.Issuer: // RFC 9207
		return identity{}, identityRefused(errors.New("the answer is of another provider"))
	case p.Error == "server_error" || p.Error == "temporarily_unavailable":
		return identity{}, providerAway(errors.New("the provider says " + p.Error))
	case p.Error != "":
		return identity{}, campaign.Errorf(campaign.CodeUnauthenticated, "the identity provider did not log you in")
	case p.Code == "":
		return identity{}, identityRefused(errors.New("there is no code"))
	}
	return s.identities.identify(ctx, f, p.Code)
}

// loggedIn is the answer to a browser that is logged in now. The generated one has room
// for one cookie.
type loggedIn struct {
	me       Me
	cookies  []string
	location string
}

// VisitFinishOIDCLoginResponse implements FinishOIDCLoginResponseObject.
func (l loggedIn) VisitFinishOIDCLoginResponse(w http.ResponseWriter) error {
	for _, c := range l.cookies {
		w.Header().Add("Set-Cookie", c)
	}
	if l.location != "" {
		w.Header().Set("Location", l.location)
		w.WriteHeader(http.StatusSeeOther)
		return nil
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(l.me)
}
