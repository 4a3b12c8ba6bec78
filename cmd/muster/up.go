package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/musterhq/muster/api"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/config"
	"github.com/musterhq/muster/internal/demo"
	"github.com/musterhq/muster/internal/embedded"
	"github.com/musterhq/muster/internal/population"
	"github.com/musterhq/muster/internal/sim/market"
	"github.com/musterhq/muster/internal/telemetry"
	"github.com/musterhq/muster/internal/temporalconn"
	"github.com/musterhq/muster/policies"
	"github.com/musterhq/muster/store"
)

type upCommand struct {
	config.Database
	config.Temporal
	config.Vault
	config.Keys
	config.SMPP
	config.OIDC
	Listen         string `env:"MUSTER_LISTEN" default:"127.0.0.1:8480" help:"Address of the API."`
	TemporalPort   int    `env:"MUSTER_TEMPORAL_PORT" help:"Port of the embedded Temporal server; 0 takes the last run's."`
	TemporalUIPort int    `name:"temporal-ui-port" env:"MUSTER_TEMPORAL_UI_PORT" help:"Port of Temporal's web UI; 0 takes the last run's."`
	PostgresPort   int    `env:"MUSTER_POSTGRES_PORT" help:"Port of the embedded PostgreSQL; 0 takes the last run's."`
	Demo           bool   `help:"Load demo customers and users, run simulators, and run a whole demo campaign."`
	Data           string `env:"MUSTER_DATA" help:"Folder with public data sets; without it they are fetched from their publisher." placeholder:"DIR" type:"path"`
	DemoCustomers  int    `default:"20000" help:"Customers to generate when the public data cannot be had."`
	Idle           bool   `help:"With --demo: load and simulate, but start no campaign."`
}

// All of an instance stops within 10 seconds: first the worker, which has drainFor for
// what it has begun, then the engines. Temporal may take its share of their time, and
// PostgreSQL, whose last checkpoint takes as long as the disk does, all that is left.
const (
	drainFor     = 4 * time.Second
	enginesStop  = 5500 * time.Millisecond
	temporalStop = 3 * time.Second
)

// Run brings everything up and keeps it up until Ctrl-C.
func (c *upCommand) Run(g *globals) (err error) {
	began := time.Now()
	if err := c.OIDC.Check(); err != nil {
		return err
	}
	if c.Demo && !loopback(c.Listen) {
		return campaign.Errorf(campaign.CodeInvalidParameter,
			"the passwords of the demo users are published, so a demo listens on this machine only: choose --listen 127.0.0.1:port")
	}
	logs, err := logToFolder(g)
	if err != nil {
		return err
	}
	defer logs()
	fmt.Printf("Muster (点兵) %s, data in %s\n", buildID(), g.dir)
	folder, err := embedded.Open(g.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	// What a killed muster left says where it was, not where this one is.
	if err := config.RemoveInstance(g.dir); err != nil {
		return err
	}
	go folder.KeepLogs(g)

	// The listener first: a port that is taken is found out before anything is started.
	l, err := listen(c.Listen)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()

	stack := &stack{}
	defer func() { err = errors.Join(err, stack.unwind()) }()
	died := make(chan error, 4)
	ui, err := c.startEngines(g, folder, stack, died)
	if err != nil {
		return err
	}
	return c.serve(g, folder, stack, died, l, ui, began)
}

// loopback reports whether only this machine can reach address.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// stack stops what was started, newest first.
type stack struct{ stops []func(context.Context) error }

func (s *stack) push(stop func(context.Context) error) { s.stops = append(s.stops, stop) }

func (s *stack) unwind() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), enginesStop)
	defer cancel()
	for i := len(s.stops) - 1; i >= 0; i-- {
		err = errors.Join(err, s.stops[i](ctx))
	}
	return err
}

func say(format string, args ...any) { fmt.Printf("  "+format+"\n", args...) }

// startEngines starts PostgreSQL and Temporal, unless their addresses are given, and
// returns the address of Temporal's web UI.
func (c *upCommand) startEngines(g *globals, folder *embedded.Folder, stack *stack, died chan<- error) (ui string, err error) {
	temporal := embedded.TemporalOptions{
		DatabaseURL: c.DatabaseURL, Port: c.TemporalPort, UIPort: c.TemporalUIPort, Namespace: c.TemporalNamespace,
		Retention: temporalconn.Retention, SearchAttributes: temporalconn.SearchAttributes(),
	}
	if c.TemporalAddress == "" {
		if err := folder.CheckTemporal(g, temporal); err != nil {
			return "", err
		}
	} else if err := temporalconn.Prepare(g, c.TemporalAddress, c.TemporalNamespace); err != nil {
		return "", err
	}
	if c.DatabaseURL == "" {
		say("PostgreSQL: starting (about a second; the first time about five)")
		pg, err := folder.StartPostgres(g, embedded.PostgresOptions{Port: c.PostgresPort, Progress: func(s string) { say("PostgreSQL: %s", s) }})
		if err != nil {
			return "", err
		}
		stack.push(pg.Stop)
		go forward(pg.Done(), died)
		if err := pg.EnsureDatabase(g, "muster"); err != nil {
			return "", err
		}
		temporal.DatabaseURL, c.DatabaseURL = pg.URL("postgres"), pg.URL("muster")
	} else if err := reachDatabase(g, c.DatabaseURL); err != nil {
		return "", err
	}
	if c.TemporalAddress != "" {
		return "", nil
	}
	say("Temporal: starting (two to four seconds)")
	t, err := folder.StartTemporal(g, temporal)
	if err != nil {
		return "", err
	}
	stack.push(func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, temporalStop)
		defer cancel()
		return t.Stop(ctx)
	})
	go forward(t.Done(), died)
	c.TemporalAddress = t.Address()
	return t.UI(), nil
}

func forward(from <-chan error, to chan<- error) {
	if err := <-from; err != nil {
		to <- err
	}
}

// logToFolder sends the log to a file, so that the terminal shows the campaign.
func logToFolder(g *globals) (func(), error) {
	if err := os.MkdirAll(g.dir, 0o755); err != nil { //nolint:gosec // PostgreSQL's account must be able to enter
		return nil, &embedded.Problem{
			Code: embedded.CodeFolderUnusable, Message: "the data folder " + g.dir + " cannot be made", WayOut: "choose another with --data-dir", Err: err,
		}
	}
	f, err := embedded.OpenLog(filepath.Join(g.dir, "muster.log"))
	if err != nil {
		return nil, &embedded.Problem{
			Code: embedded.CodeFolderUnusable, Message: "the data folder " + g.dir + " cannot be written to", WayOut: "choose another with --data-dir", Err: err,
		}
	}
	g.log = telemetry.Log(f, g.level)
	return func() { _ = f.Close() }, nil
}

// serve runs worker, API and, for the demonstration, simulators and a campaign.
func (c *upCommand) serve(
	g *globals, folder *embedded.Folder, stack *stack, died <-chan error, l net.Listener, ui string, began time.Time,
) error {
	loaded, users, err := c.prepare(g)
	if err != nil {
		return err
	}
	st, err := g.openStore(c.DatabaseURL, c.Vault)
	if err != nil {
		return err
	}
	stack.push(func(context.Context) error { st.Close(); return nil })
	enforcer, err := policies.New(g, st.Grants, st.ActivePolicies)
	if err != nil {
		return err
	}
	keys, err := g.ownKeys(c.Keys)
	if err != nil {
		return err
	}
	t, err := g.dialTemporal(c.Temporal, "up")
	if err != nil {
		return err
	}
	stack.push(func(context.Context) error { t.Close(); return nil })
	baseURL := "http://" + l.Addr().String()
	if c.Demo {
		if err := c.startSimulators(g, folder, stack, baseURL, loaded); err != nil {
			return err
		}
	}
	running := config.Instance{
		PID: os.Getpid(), API: baseURL, DatabaseURL: c.DatabaseURL, TemporalAddress: c.TemporalAddress, TemporalUI: ui,
		SMPPAddress: c.SMPPAddress, SMPPSimulated: c.SMPPSimulated, Demo: string(loaded.Kind),
	}
	if err := running.Save(g.dir); err != nil {
		return err
	}
	stack.push(func(context.Context) error { return config.RemoveInstance(g.dir) })

	anybody, err := hasUsers(g, st)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(g)
	group.Go(func() error {
		select {
		case err := <-died:
			return fmt.Errorf("%w; start muster again: nothing is lost", err)
		case <-ctx.Done():
			return nil
		}
	})
	group.Go(func() error { keepPolicies(ctx, g, enforcer); return nil })
	group.Go(func() error { keys.Follow(ctx, g.log); return nil })
	spool := config.Spool{}.Folder(g.dir)
	group.Go(func() error { return work(ctx, g, st, t, enforcer, keys, c.SMPP, spool, drainFor) })
	group.Go(func() error {
		return serveAPI(ctx, g, l, api.Deps{
			Store: st, Policies: enforcer, Orchestrator: temporalconn.NewOrchestrator(t), Keys: keys, Simulated: c.Demo && c.SMPPSimulated,
			OIDC: identityProvider(c.OIDC), Spool: spool,
		})
	})
	announce(running, users, anybody, loaded, time.Since(began))
	if c.Demo && !c.Idle {
		group.Go(func() error { return c.runDemo(ctx, g, baseURL, loaded) })
	}
	err = group.Wait()
	if g.Err() != nil {
		fmt.Println("\nStopping…")
		if errors.Is(err, context.Canceled) {
			return nil
		}
	}
	return err
}

// prepare does what the owner of the database must do before the application may work:
// it brings the schema up to date, and for the demonstration loads people and customers.
func (c *upCommand) prepare(g *globals) (loaded population.Loaded, users []population.DemoUser, err error) {
	owner, err := g.openStore(c.DatabaseURL, c.Vault, store.AsOwner())
	if err != nil {
		return loaded, users, err
	}
	defer owner.Close()
	if err := migrate(g, owner); err != nil {
		return loaded, users, err
	}
	if c.Demo {
		loaded, users, err = c.loadDemo(g, owner)
	}
	return loaded, users, err
}

// loadDemo makes the demo's people and customers.
func (c *upCommand) loadDemo(g *globals, st *store.Store) (population.Loaded, []population.DemoUser, error) {
	loaded, err := population.EnsureDemo(g, st, population.Options{
		DataDir: c.Data, CacheDir: filepath.Join(g.dir, "datasets"), Generated: c.DemoCustomers, Seed: 1,
		Progress: population.Printer(os.Stdout),
	})
	if err != nil {
		return loaded, nil, err
	}
	say("Customers: %s", loaded.Why)
	users, err := population.EnsureUsers(g, st, loaded.Unit)
	return loaded, users, err
}

// startSimulators runs the SMS centre, unless a real one is named, and the call centre
// as processes of their own.
func (c *upCommand) startSimulators(g *globals, folder *embedded.Folder, stack *stack, baseURL string, loaded population.Loaded) error {
	if c.SMPPAddress == "" {
		probe, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		c.SMPPAddress, c.SMPPSimulated = probe.Addr().String(), true
		if err := probe.Close(); err != nil {
			return err
		}
		smsc, err := folder.StartCompanion("smsc", []string{
			"sim", "smsc", "--listen", c.SMPPAddress, "--journal", filepath.Join(g.dir, "smsc.jsonl"),
		}, nil)
		if err != nil {
			return err
		}
		stack.push(func(context.Context) error { smsc.Stop(); return nil })
	}
	args := []string{"sim", "callcentre", "--api", baseURL, "--answers", string(loaded.Kind), "--cache", filepath.Join(g.dir, "datasets")}
	if c.Data != "" {
		args = append(args, "--data", c.Data)
	}
	calls, err := folder.StartCompanion("callcentre", args, nil)
	if err != nil {
		return err
	}
	stack.push(func(context.Context) error { calls.Stop(); return nil })
	return nil
}

// announce prints where everything is and who may log in.
func announce(i config.Instance, users []population.DemoUser, anybody bool, loaded population.Loaded, took time.Duration) {
	fmt.Printf("\nReady after %.1f s\n\n", took.Seconds())
	say("API          %s   (description: %s/openapi.json, metrics: %s/metrics)", i.API, i.API, i.API)
	if i.TemporalUI != "" {
		say("Temporal UI  %s", i.TemporalUI)
	}
	switch {
	case i.SMPPSimulated:
		say("SMS centre   %s   (simulated: nothing leaves this machine)", i.SMPPAddress)
	case i.SMPPAddress != "":
		say("SMS centre   %s   (real: takes real campaigns only)", i.SMPPAddress)
	}
	if len(users) > 0 {
		fmt.Printf("\n  Demo users at unit %s\n", loaded.Unit)
		say("%-16s %-20s %s", "login", "password", "role")
		for _, u := range users {
			roles := make([]string, len(u.Roles))
			for i, r := range u.Roles {
				roles[i] = string(r)
			}
			say("%-16s %-20s %s", u.Login, u.Password(), strings.Join(roles, ", "))
		}
	}
	if !anybody {
		fmt.Println()
		say(noUsers)
	}
	fmt.Println("\n  Ctrl-C stops everything; what is running goes on at the next start.")
	fmt.Println()
}

// runDemo brings unfinished demo campaigns to their end, or runs the first ones.
func (c *upCommand) runDemo(ctx context.Context, g *globals, baseURL string, loaded population.Loaded) error {
	err := runDemo(ctx, demo.Options{API: baseURL, Population: loaded.Kind, Truth: market.Default(), Out: os.Stdout})
	if err != nil && ctx.Err() == nil {
		// The demonstration failing is told; the installation stays up.
		fmt.Println("The demonstration did not go as it should:", plain(err))
		g.log.ErrorContext(ctx, "demo", "error", err)
	}
	return nil
}
