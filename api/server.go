package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/alexedwards/scs/pgxstore"
	"github.com/alexedwards/scs/v2"
	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/musterhq/muster/assertion"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/ledger"
	"github.com/musterhq/muster/policies"
	"github.com/musterhq/muster/store"
)

// Orchestrator is the API's way to the campaigns' workflows.
type Orchestrator interface {
	// StartCampaign starts a campaign's workflow; starting it again changes nothing.
	StartCampaign(ctx context.Context, campaignID string) error
	// Update sends an update and waits for its result. The same updateID is applied once.
	// Refusals are campaign.Errors; CodeOrchestratorAway means that nobody answered.
	Update(ctx context.Context, campaignID, updateID, name string, arg any) (campaign.Status, error)
	// Replay replays a campaign's archive and waits for the report.
	Replay(ctx context.Context, campaignID, replayID string) (campaign.ReplayReport, error)
	// StartImport has a worker work on an import; doing it again changes nothing.
	StartImport(ctx context.Context, importID string) error
	// Health fails when the orchestrator does not answer.
	Health(ctx context.Context) error
}

// Deps is what the API needs.
type Deps struct {
	Store        *store.Store
	Policies     *policies.Enforcer
	Orchestrator Orchestrator
	Keys         *assertion.Keys      // with the private key: the API signs what its users decide
	Registry     *prometheus.Registry // served at /metrics
	Logger       *slog.Logger
	// SecureCookies is set where the API is reached over TLS: browsers then send the
	// session back over TLS only.
	SecureCookies bool
	// Simulated is set where every channel is a simulator, as in a demonstration: plans
	// must say the same, lest somebody believe that people are contacted.
	Simulated bool
	OIDC      OIDC   // the identity provider by which people may log in, if there is one
	Spool     string // folder for uploads on their way; empty is the system's for temporary files
	// Proxies are those whose X-Forwarded-For is believed; without any it is what everybody
	// could write, and a caller's address is the connection's.
	Proxies []netip.Prefix
}

// Server is the API. It is an http.Handler; live events need Serve.
type Server struct {
	store        *store.Store
	ledger       *ledger.Ledger
	policies     *policies.Enforcer
	orchestrator Orchestrator
	keys         *assertion.Keys
	log          *slog.Logger
	simulated    bool
	spoolDir     string
	identities   *identityProvider // nil when there is none

	handler     http.Handler
	sessions    *scs.SessionManager
	attempts    *attempts
	hashing     chan struct{}
	nobodysHash string
	hub         *hub
	took        *prometheus.HistogramVec
	previews    previews
	uploads     map[string]int64 // see uploads
	uploading   uploading
	exactWithin time.Duration // what takes longer to count is estimated first
}

// New builds the API. It fails when the description and the table of routes do not
// name the same operations.
func New(d Deps) (*Server, error) {
	nobody, err := nobodysHash()
	if err != nil {
		return nil, fmt.Errorf("hash password: %w", err)
	}
	s := &Server{
		store: d.Store, ledger: ledger.New(d.Store.Pool()), policies: d.Policies, orchestrator: d.Orchestrator, keys: d.Keys, log: d.Logger, simulated: d.Simulated, spoolDir: d.Spool,
		attempts: &attempts{counts: map[string]*window{}}, hashing: make(chan struct{}, hashesAtOnce), nobodysHash: nobody,
		previews: previews{all: map[string]*preview{}}, exactWithin: exactWithin, uploads: maps.Clone(uploads),
		hub: newHub(d.Store, d.Logger), identities: newIdentityProvider(d.OIDC),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "muster_http_request_seconds", Help: "Time to answer, by operation and status.",
			Buckets: []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10, 30},
		}, []string{"operation", "status"}),
	}
	for _, c := range []prometheus.Collector{s.took, freezeMetrics{s.store}} {
		if err := d.Registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	s.sessions = scs.New()
	s.sessions.Store = pgxstore.NewWithCleanupInterval(d.Store.Pool(), 0)
	s.sessions.Lifetime = sessionLifetime
	s.sessions.HashTokenInStore = true
	s.sessions.Cookie.Name = "muster_session"
	s.sessions.Cookie.Secure = d.SecureCookies
	if d.SecureCookies {
		s.sessions.Cookie.Name = "__Host-muster_session"
	}

	doc, err := description()
	if err != nil {
		return nil, err
	}
	guards, err := s.guards(operationsOf(doc))
	if err != nil {
		return nil, err
	}
	specJSON, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("write openapi.json: %w", err)
	}

	e := echo.New()
	e.Binder = binder{}
	e.IPExtractor = addressBehind(d.Proxies)
	e.HTTPErrorHandler = func(err error, c echo.Context) { s.writeProblem(c, err) }
	e.Use(begin, s.observe, s.recover, s.crossOrigin)
	RegisterHandlersWithOptions(e, NewStrictHandler(s, nil), RegisterHandlersOptions{OperationMiddlewares: guards})
	e.GET("/healthz", s.healthz)
	e.GET("/readyz", s.readyz)
	e.GET("/metrics", echo.WrapHandler(promhttp.HandlerFor(d.Registry, promhttp.HandlerOpts{})))
	e.GET("/openapi.yaml", func(c echo.Context) error { return c.Blob(http.StatusOK, "application/yaml", specText) })
	e.GET("/openapi.json", func(c echo.Context) error { return c.Blob(http.StatusOK, "application/json", specJSON) })
	s.handler = e
	return s, nil
}

// addressBehind tells a caller's address: the nearest one in X-Forwarded-For that is not a
// proxy's, or the connection's where that is none.
func addressBehind(proxies []netip.Prefix) echo.IPExtractor {
	if len(proxies) == 0 {
		return echo.ExtractIPDirect()
	}
	trust := []echo.TrustOption{echo.TrustLoopback(false), echo.TrustLinkLocal(false), echo.TrustPrivateNet(false)}
	for _, p := range proxies {
		trust = append(trust, echo.TrustIPRange(&net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}))
	}
	return echo.ExtractIPFromXFFHeader(trust...)
}

// guards pairs each operation of the description with its route.
func (s *Server) guards(operations map[string]operation) (map[string][]echo.MiddlewareFunc, error) {
	guards := map[string][]echo.MiddlewareFunc{}
	for _, r := range routes {
		op, ok := operations[r.operation]
		if !ok {
			return nil, fmt.Errorf("route %s is no operation of openapi.yaml", r.operation)
		}
		guards[r.operation] = []echo.MiddlewareFunc{s.guard(r, op)}
	}
	for id := range operations {
		if guards[id] == nil {
			return nil, fmt.Errorf("operation %s has no route, so nobody decided who may call it", id)
		}
	}
	return guards, nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// shutdownGrace is how long requests may take to end once the API is to stop.
const shutdownGrace = 5 * time.Second

// Serve answers on l until ctx ends, then lets requests end and closes live streams
// at once. It also keeps live events coming and drops old sessions and answers.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler: s, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 2 * replayTimeout, WriteTimeout: 2 * replayTimeout,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve API: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-running.Done()
		s.hub.close()
		s.previews.close()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
		defer cancel()
		if err := srv.Shutdown(grace); err != nil {
			return srv.Close()
		}
		return nil
	})
	g.Go(func() error { s.hub.listen(running); return nil })
	g.Go(func() error { s.sweep(running); return nil })
	return g.Wait()
}

const (
	sweepEvery  = 10 * time.Minute
	keepAnswers = 7 * 24 * time.Hour
)

// sweep drops ended sessions and old answers.
func (s *Server) sweep(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(sweepEvery):
		}
		if _, err := s.store.ForgetRequests(ctx, keepAnswers); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "old answers not dropped", "error", err)
		}
		if err := s.store.ForgetSessions(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "ended sessions not dropped", "error", err)
		}
	}
}

// observe logs and measures each request, without personal data: the route, not the
// address that was asked for.
func (s *Server) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		began := time.Now()
		if err := next(c); err != nil {
			s.writeProblem(c, err)
		}
		r := requestOf(c.Request().Context())
		operation, status, took := r.route.operation, c.Response().Status, time.Since(began)
		if operation == "" {
			operation = "other"
		}
		if operation != "streamEvents" {
			s.took.WithLabelValues(operation, fmt.Sprint(status)).Observe(took.Seconds())
		}
		level := slog.LevelInfo
		if operation == "other" || status < http.StatusBadRequest {
			level = slog.LevelDebug
		}
		s.log.LogAttrs(c.Request().Context(), level, "request", slog.String("request_id", r.id), slog.String("operation", operation),
			slog.String("method", c.Request().Method), slog.String("route", c.Path()), slog.Int("status", status),
			slog.Duration("took", took), slog.String("user_id", r.user.ID), slog.String("campaign_id", r.campaign.ID))
		return nil
	}
}

// recover turns a panic into an internal problem and keeps the process alive.
func (s *Server) recover(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler { //nolint:errorlint // a panic value, not an error chain
				panic(p)
			}
			s.log.ErrorContext(c.Request().Context(), "panic", "request_id", requestOf(c.Request().Context()).id, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = campaign.Errorf(campaign.CodeInternal, "something went wrong inside Muster; the request id helps to find out what")
		}()
		return next(c)
	}
}

// crossOrigin refuses writes that another site's page makes a browser send.
func (s *Server) crossOrigin(next echo.HandlerFunc) echo.HandlerFunc {
	protection := http.NewCrossOriginProtection()
	return func(c echo.Context) error {
		if err := protection.Check(c.Request()); err != nil {
			ctx := c.Request().Context()
			return s.refuseStranger(ctx, requestOf(ctx), &campaign.Error{Code: campaign.CodeCrossSite, Message: "this request came from another site's page", Err: err})
		}
		return next(c)
	}
}

func (s *Server) healthz(c echo.Context) error {
	return c.JSON(http.StatusOK, map[string]string{"status": "ok"})
}

// readyz says whether the database answers. Without the orchestrator Muster can still
// show everything and work tasks, and where a policy cannot be decided by, the one before
// it holds, so these are named and do not fail the check.
func (s *Server) readyz(c echo.Context) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), 2*time.Second)
	defer cancel()
	parts := map[string]string{"database": "ok", "orchestrator": "ok", "policies": "ok", "dispatch": "ok"}
	status, overall := http.StatusOK, "ok"
	if err := s.orchestrator.Health(ctx); err != nil {
		parts["orchestrator"], overall = "unavailable", "degraded"
	}
	if s.policies.Degraded() != nil {
		parts["policies"], overall = "degraded", "degraded"
	}
	if broken, _, err := s.store.Frozen(ctx); err == nil && len(broken) > 0 {
		parts["dispatch"], overall = "frozen", "degraded"
	}
	if err := s.store.Pool().Ping(ctx); err != nil {
		parts["database"], overall, status = "unavailable", "unavailable", http.StatusServiceUnavailable
	}
	return c.JSON(status, map[string]any{"status": overall, "parts": parts})
}
