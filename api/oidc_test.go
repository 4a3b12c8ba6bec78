package api

import (
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

const (
	oidcClient = "muster"
	oidcSecret = "its secret"
)

// idp is an identity provider on this machine, with real keys and real tokens.
type idp struct {
	t   *testing.T
	url string
	key *rsa.PrivateKey

	mu      sync.Mutex
	codes   map[string]url.Values // what each unused code was asked for with
	subject string                // who is logged in there
	refuse  string                // the error it sends people back with
	forge   func(header, claims map[string]any) string
	away    bool // nothing answers
	keyless bool // the keys do not
}

func newIDP(t *testing.T) *idp {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	p := &idp{t: t, key: key, codes: map[string]url.Values{}, subject: "subject-1"}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		p.answer(w, map[string]any{
			"issuer": p.url, "authorization_endpoint": p.url + "/authorize", "token_endpoint": p.url + "/token", "jwks_uri": p.url + "/keys",
			// What it says it signs by is not what counts.
			"id_token_signing_alg_values_supported": []string{"RS256", "HS256", "none"},
		})
	})
	mux.HandleFunc("GET /authorize", p.authorize)
	mux.HandleFunc("POST /token", p.token)
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		if p.keyless {
			http.Error(w, "no keys today", http.StatusBadGateway)
			return
		}
		p.answer(w, map[string]any{"keys": []any{map[string]any{
			"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1",
			"n": b64(key.N.Bytes()), "e": b64(big.NewInt(int64(key.E)).Bytes()),
		}}})
	})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.away {
			http.Error(w, "away", http.StatusBadGateway)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	p.url = s.URL
	return p
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (p *idp) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		p.t.Error(err)
	}
}

// set changes the provider between two requests.
func (p *idp) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// authorize is the page at which people log in; here they are, already.
func (p *idp) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("response_type") != "code" || q.Get("client_id") != oidcClient || q.Get("code_challenge_method") != "S256" || q.Get("scope") != "openid" {
		http.Error(w, "malformed request "+r.URL.RawQuery, http.StatusBadRequest)
		return
	}
	back := url.Values{"state": {q.Get("state")}, "iss": {p.url}, "session_state": {"ignored"}}
	if p.refuse != "" {
		back.Set("error", p.refuse)
	} else {
		code := rand.Text()
		p.codes[code] = q
		back.Set("code", code)
	}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
}

// token gives an ID token for a code, once, to the client that can prove that it asked.
func (p *idp) token(w http.ResponseWriter, r *http.Request) {
	id, secret, _ := r.BasicAuth()
	secret, err := url.QueryUnescape(secret)
	asked := p.codes[r.PostFormValue("code")]
	delete(p.codes, r.PostFormValue("code"))
	challenge := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if err != nil || id != oidcClient || secret != oidcSecret || asked == nil || asked.Get("code_challenge") != b64(challenge[:]) ||
		asked.Get("redirect_uri") != r.PostFormValue("redirect_uri") {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		p.answer(w, map[string]any{"error": "invalid_grant"})
		return
	}
	header := map[string]any{"alg": "RS256", "kid": "1", "typ": "JWT"}
	claims := map[string]any{
		"iss": p.url, "sub": p.subject, "aud": oidcClient, "nonce": asked.Get("nonce"), "amr": []string{"pwd", "otp"},
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(), "auth_time": time.Now().Add(-time.Hour).Unix(),
	}
	sign := p.sign
	if p.forge != nil {
		sign = p.forge
	}
	p.answer(w, map[string]any{"access_token": "not used", "token_type": "Bearer", "expires_in": 60, "id_token": sign(header, claims)})
}

func unsigned(header, claims map[string]any) string {
	h, _ := json.Marshal(header)
	c, _ := json.Marshal(claims)
	return b64(h) + "." + b64(c)
}

func (p *idp) sign(header, claims map[string]any) string { return signRSA(p.t, p.key, header, claims) }

func signRSA(t *testing.T, key *rsa.PrivateKey, header, claims map[string]any) string {
	text := unsigned(header, claims)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Error(err)
	}
	return text + "." + b64(signature)
}

// trust makes a provider the one of the API.
func (e *env) trust(p *idp) {
	e.server.identities = newIdentityProvider(OIDC{
		Issuer: p.url, ClientID: oidcClient, ClientSecret: oidcSecret, RedirectURL: e.url + "/v1/sessions/oidc/callback", Name: "Company account",
	})
}

// browser keeps cookies and follows redirects.
func browser(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	return &http.Client{Jar: jar, Timeout: 20 * time.Second}
}

// get asks for an address with what a browser holds.
func get(t *testing.T, c *http.Client, address string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", address, nil)
	require.NoError(t, err)
	answer, err := c.Do(req)
	require.NoError(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return reply{answer.StatusCode, answer.Header, body}
}

// still is the same browser, stopping before each redirect.
func still(c *http.Client) *http.Client {
	stopped := *c
	stopped.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &stopped
}

// landing goes to the provider and returns the address that it sends the browser back to.
func (e *env) landing(c *http.Client) string {
	e.t.Helper()
	begun := get(e.t, still(c), e.url+"/v1/sessions/oidc")
	require.Equal(e.t, http.StatusSeeOther, begun.status, "%s", begun.body)
	back := get(e.t, still(c), begun.header.Get("Location"))
	require.Equal(e.t, http.StatusFound, back.status, "%s", back.body)
	return back.header.Get("Location")
}

func (e *env) identify(login, subject string) {
	e.t.Helper()
	require.NoError(e.t, e.store.SetIdentity(e.t.Context(), e.users[login], store.Identity{Issuer: e.server.identities.Issuer, Subject: subject}, campaign.Actor{}))
}

func TestLogInAtTheIdentityProvider(t *testing.T) {
	e, p := newEnv(t), newIDP(t)
	e.trust(p)
	methods := into[LoginMethodList](t, e.send("", "GET", "/v1/sessions", nil))
	require.Equal(t, []LoginMethod{{Kind: "password", Name: "Password"}, {Kind: "oidc", Name: "Company account", Path: "/v1/sessions/oidc"}}, methods.Items)

	// Nobody becomes a user by an identity; its owner learns what to tell an administrator.
	users := e.number(`SELECT count(*) FROM app_user`)
	unknown := get(t, browser(t), e.url+"/v1/sessions/oidc").problem(t)
	require.Equal(t, "unauthenticated", unknown.Code)
	require.Equal(t, map[string]any{"issuer": p.url, "subject": "subject-1"}, unknown.Details)
	require.Equal(t, users, e.number(`SELECT count(*) FROM app_user`))

	at := "/v1/users/" + e.users["manager"] + "/identity"
	u := into[User](t, e.send("administrator", "PUT", at, NewIdentity{Subject: "subject-1"}))
	require.Equal(t, Identity{Issuer: p.url, Subject: "subject-1", Waiting: true}, u.Identity)
	require.Equal(t, "unauthenticated", get(t, browser(t), e.url+"/v1/sessions/oidc").problem(t).Code, "nobody else has confirmed it")
	e.addUser("second", here, campaign.RoleAdmin)
	e.reload()
	u = into[User](t, e.send("second", "POST", at+"/confirm", NewIdentity{Subject: "subject-1"}))
	require.Equal(t, Identity{Issuer: p.url, Subject: "subject-1"}, u.Identity)
	e.exec(`UPDATE app_user SET password_temporary = true WHERE id = $1`, e.users["manager"])
	c := browser(t)
	landed := get(t, c, e.url+"/v1/sessions/oidc")
	me := into[Me](t, landed)
	require.Equal(t, e.users["manager"], me.ID)
	require.False(t, me.PasswordChangeRequired, "a password that they do not use")
	cookies := landed.header.Values("Set-Cookie")
	require.Len(t, cookies, 2)
	require.Contains(t, cookies[0], "muster_session=")
	require.Contains(t, cookies[1], "muster_session_oidc=; ")
	require.Equal(t, me, into[Me](t, get(t, c, e.url+"/v1/me")))
	require.Equal(t, http.StatusOK, get(t, c, e.url+"/v1/approvals").status, "not only their own session")
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM audit_event WHERE event = 'session.begun' AND actor_id = $1
		AND data->>'subject' = 'subject-1' AND data->'methods' = '["pwd", "otp"]'`, e.users["manager"]))
	require.EqualValues(t, 2, e.number(`SELECT count(*) FROM audit_event WHERE event = 'session.refused' AND data->>'reason' = 'unknown_identity'`))

	// The session says when its user proved who they are: at the provider, an hour ago.
	var token string
	for _, cookie := range c.Jar.Cookies(&url.URL{Scheme: "http", Host: strings.TrimPrefix(e.url, "http://"), Path: "/"}) {
		if cookie.Name == "muster_session" {
			token = cookie.Value
		}
	}
	session, err := e.server.sessions.Load(context.Background(), token)
	require.NoError(t, err)
	require.InDelta(t, time.Now().Add(-time.Hour).Unix(), e.server.sessions.GetInt64(session, sessionAuthTime), 30)

	// Another log-in of the same browser is another session, and the one before is none.
	require.Equal(t, http.StatusOK, get(t, c, e.url+"/v1/sessions/oidc").status)
	require.Equal(t, http.StatusUnauthorized, e.send("", "GET", "/v1/me", nil, "Cookie", "muster_session="+token).status)

	// Passwords work beside it, and only the owner of the identity has it.
	require.Equal(t, http.StatusCreated, e.send("", "POST", "/v1/sessions", Credentials{Login: "manager", Password: password}).status)
	p.set(func() { p.subject = "subject-2" })
	require.Equal(t, "unauthenticated", get(t, browser(t), e.url+"/v1/sessions/oidc").problem(t).Code)
	p.set(func() { p.subject = "subject-1" })

	require.Zero(t, into[User](t, e.send("administrator", "DELETE", at, nil)).Identity)
	require.Equal(t, http.StatusUnauthorized, get(t, c, e.url+"/v1/me").status, "the session ended with the identity")
	e.identify("manager", "subject-1")
	require.Equal(t, http.StatusOK, get(t, c, e.url+"/v1/sessions/oidc").status)
	require.NoError(t, e.store.SetDisabled(t.Context(), e.users["manager"], true, campaign.Actor{}, "left"))
	disabled := get(t, browser(t), e.url+"/v1/sessions/oidc").problem(t)
	disabled.RequestID, unknown.RequestID = "", ""
	require.Equal(t, unknown, disabled, "who is locked out is nobody's business")
	require.Equal(t, http.StatusUnauthorized, get(t, c, e.url+"/v1/me").status)
}

func TestAfterTheProviderTheBrowserGoesOn(t *testing.T) {
	e, p := newEnv(t), newIDP(t)
	e.trust(p)
	e.identify("planner", "subject-1")
	c := browser(t)
	begun := get(t, still(c), e.url+"/v1/sessions/oidc?return_to="+url.QueryEscape("/campaigns?stage=draft"))
	back := get(t, still(c), begun.header.Get("Location"))
	landed := get(t, still(c), back.header.Get("Location"))
	require.Equal(t, http.StatusSeeOther, landed.status)
	require.Equal(t, "/campaigns?stage=draft", landed.header.Get("Location"))
	require.Equal(t, http.StatusOK, get(t, c, e.url+"/v1/me").status)

	for _, elsewhere := range []string{"//evil.example", "/\\evil.example", "https://evil.example", "evil.example", "/a\r\nb", "/\tb", "/ü"} {
		r := e.send("", "GET", "/v1/sessions/oidc?return_to="+url.QueryEscape(elsewhere), nil)
		require.Equal(t, "invalid_parameter", r.problem(t).Code, elsewhere)
	}
	// Nor by a cookie that somebody wrote.
	forged := begun.header.Get("Set-Cookie")
	secret, _, _ := strings.Cut(strings.TrimPrefix(forged, "muster_session_oidc="), ".")
	req := &http.Request{Header: http.Header{"Cookie": {"muster_session_oidc=" + secret + "." + b64([]byte("//evil.example"))}}}
	require.Zero(t, e.server.flowOf(req))
}

// forgeries makes ID tokens that are none for this log-in.
func forgeries(t *testing.T, p *idp) map[string]func(header, claims map[string]any) string {
	t.Helper()
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	public, err := x509.MarshalPKIXPublicKey(&p.key.PublicKey)
	require.NoError(t, err)
	with := func(name string, value any) func(header, claims map[string]any) string {
		return func(header, claims map[string]any) string {
			changed := maps.Clone(claims)
			if changed[name] = value; value == nil {
				delete(changed, name)
			}
			return p.sign(header, changed)
		}
	}
	return map[string]func(header, claims map[string]any) string{
		"no signature": func(header, claims map[string]any) string {
			header["alg"] = "none"
			return unsigned(header, claims) + "."
		},
		"HS256 with the public key": func(header, claims map[string]any) string {
			header["alg"] = "HS256"
			text := unsigned(header, claims)
			mac := hmac.New(sha256.New, public)
			mac.Write([]byte(text))
			return text + "." + b64(mac.Sum(nil))
		},
		"another's key":  func(header, claims map[string]any) string { return signRSA(t, stranger, header, claims) },
		"an unknown key": func(header, claims map[string]any) string { header["kid"] = "2"; return p.sign(header, claims) },
		"changed later": func(header, claims map[string]any) string {
			signed := strings.Split(p.sign(header, claims), ".")
			claims["sub"] = "somebody else"
			return unsigned(header, claims) + "." + signed[2]
		},
		"for another":          with("aud", "another"),
		"for another as well":  with("aud", []string{oidcClient, "another"}),
		"asked for by another": with("azp", "another"),
		"of another issuer":    with("iss", "https://another.example"),
		"expired":              with("exp", time.Now().Add(-time.Second).Unix()),
		"without an end":       with("exp", nil),
		"of another log-in":    with("nonce", "another"),
		"of no log-in":         with("nonce", nil),
		"of nobody":            with("sub", nil),
		"of a very long name":  with("sub", strings.Repeat("x", store.SubjectLongest+1)),
		"proven in the future": with("auth_time", time.Now().Add(time.Hour).Unix()),
		"not yet valid":        with("nbf", time.Now().Add(time.Hour).Unix()),
		"without a beginning": func(header, claims map[string]any) string {
			delete(claims, "auth_time")
			delete(claims, "iat")
			return p.sign(header, claims)
		},
		"no token at all":       func(map[string]any, map[string]any) string { return "" },
		"three words with dots": func(map[string]any, map[string]any) string { return "a.b.c" },
	}
}

func TestForgedIDTokensAreRefused(t *testing.T) {
	e, p := newEnv(t), newIDP(t)
	e.trust(p)
	e.identify("manager", "subject-1")
	refused := int64(0)
	for name, forge := range forgeries(t, p) {
		p.set(func() { p.forge = forge })
		c := browser(t)
		r := get(t, c, e.url+"/v1/sessions/oidc")
		require.Equal(t, http.StatusUnauthorized, r.status, "%s: %s", name, r.body)
		problem := r.problem(t)
		require.Equal(t, "token_invalid", problem.Code, name)
		require.Equal(t, "this log-in is not valid or not valid any more; begin again", problem.Detail, name)
		require.Equal(t, http.StatusUnauthorized, get(t, c, e.url+"/v1/me").status, name)
		refused++
	}
	require.Zero(t, e.number(`SELECT count(*) FROM sessions`))
	require.Equal(t, refused, e.number(`SELECT count(*) FROM audit_event WHERE event = 'session.refused' AND data->>'code' = 'token_invalid'`))
	// The table can fail: the same token unforged opens a session.
	p.set(func() { p.forge = p.sign })
	require.Equal(t, http.StatusOK, get(t, browser(t), e.url+"/v1/sessions/oidc").status)
}

func TestALogInBelongsToTheBrowserThatBeganIt(t *testing.T) {
	e, p := newEnv(t), newIDP(t)
	e.trust(p)
	e.identify("manager", "subject-1")
	invalid := func(why string, r reply) {
		t.Helper()
		require.Equal(t, "token_invalid", r.problem(t).Code, why)
	}
	mine := browser(t)
	landing := e.landing(mine)
	invalid("another browser", get(t, browser(t), landing))
	victim := browser(t)
	e.landing(victim)
	invalid("a browser that began another", get(t, victim, landing))
	at, err := url.Parse(landing)
	require.NoError(t, err)
	change := func(name, value string) string {
		q, changed := at.Query(), *at
		if q.Set(name, value); value == "" {
			q.Del(name)
		}
		changed.RawQuery = q.Encode()
		return changed.String()
	}
	invalid("no state", get(t, mine, change("state", "")))
	invalid("no code", get(t, mine, change("code", "")))
	invalid("another provider", get(t, mine, change("iss", "https://another.example")))
	// A stolen code in the thief's own log-in: the provider asks for the verifier.
	stolen, err := url.Parse(e.landing(victim))
	require.NoError(t, err)
	invalid("another's code", get(t, mine, change("code", stolen.Query().Get("code"))))
	require.Equal(t, http.StatusOK, get(t, mine, landing).status, "the right one is still good")
	invalid("once more", get(t, mine, landing))
	require.Equal(t, http.StatusBadRequest, get(t, mine, change("state", "x")+"&state=y").status, "twice")

	p.set(func() { p.refuse = "access_denied" })
	require.Equal(t, "unauthenticated", get(t, browser(t), e.url+"/v1/sessions/oidc").problem(t).Code)
	p.set(func() { p.refuse = "temporarily_unavailable" })
	require.Equal(t, "identity_provider_unavailable", get(t, browser(t), e.url+"/v1/sessions/oidc").problem(t).Code)

	for range attemptsPerAddress {
		e.server.attempts.begin("address 127.0.0.1", attemptsPerAddress)
	}
	require.Equal(t, "rate_limited", get(t, browser(t), landing).problem(t).Code)
}

func TestWithoutTheProviderPasswordsWork(t *testing.T) {
	e, p := newEnv(t), newIDP(t)
	p.set(func() { p.away = true })
	e.trust(p)
	e.identify("manager", "subject-1")
	away := func(r reply) {
		t.Helper()
		require.Equal(t, http.StatusServiceUnavailable, r.status, "%s", r.body)
		require.Equal(t, "identity_provider_unavailable", r.problem(t).Code)
		require.NotEmpty(t, r.header.Get("Retry-After"))
	}
	away(e.send("", "GET", "/v1/sessions/oidc", nil))
	require.Equal(t, http.StatusCreated, e.send("", "POST", "/v1/sessions", Credentials{Login: "manager", Password: password}).status)
	require.Equal(t, http.StatusOK, e.send("", "GET", "/readyz", nil).status)
	p.set(func() { p.away = false })
	away(e.send("", "GET", "/v1/sessions/oidc", nil)) // it is not asked again at once
	e.server.identities.failed = time.Now().Add(-providerPause)

	c := browser(t)
	landing := e.landing(c)
	p.set(func() { p.away = true })
	away(get(t, c, landing))
	p.set(func() { p.away, p.keyless = false, true })
	away(get(t, c, e.url+"/v1/sessions/oidc"))
	p.set(func() { p.keyless = false })
	require.Equal(t, http.StatusOK, get(t, c, e.url+"/v1/sessions/oidc").status)

	e.server.identities = nil
	for _, path := range []string{"/v1/sessions/oidc", "/v1/sessions/oidc/callback?state=x"} {
		require.Equal(t, "not_found", e.send("", "GET", path, nil).problem(t).Code)
	}
	require.Len(t, into[LoginMethodList](t, e.send("", "GET", "/v1/sessions", nil)).Items, 1)
}

func TestIdentitiesAreGivenByAdministrators(t *testing.T) {
	e := newEnv(t)
	at := func(login string) string { return "/v1/users/" + e.users[login] + "/identity" }
	give := func(login, subject string) reply {
		return e.send("administrator", "PUT", at(login), NewIdentity{Subject: subject})
	}
	into[User](t, give("manager", "one"))
	require.Equal(t, "already_exists", give("planner", "one").problem(t).Code)
	require.Equal(t, "forbidden", give("administrator", "two").problem(t).Code, "nobody lets themselves in")
	require.Equal(t, "invalid_parameter", give("planner", "").problem(t).Code)
	require.Equal(t, "invalid_text", give("planner", "a\u202eb").problem(t).Code)
	require.NoError(t, e.store.CreateUnit(t.Context(), here+"/harbin", "Harbin"))
	e.addUser("deputy", here+"/harbin", campaign.RoleAdmin)
	e.addUser("planner", here+"/harbin", campaign.RoleAgent)
	e.reload()
	require.Equal(t, "forbidden", e.send("deputy", "PUT", at("planner"), NewIdentity{Subject: "three"}).problem(t).Code, "the planner also belongs above")
	require.Equal(t, "not_found", e.send("deputy", "PUT", at("manager"), NewIdentity{Subject: "three"}).problem(t).Code)
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM user_identity`))
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM audit_event WHERE event LIKE 'user.identity%' AND allowed`))
}
