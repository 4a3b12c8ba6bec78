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

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/config"
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
	config.SMPP
	Listen         string `env:"MUSTER_LISTEN" default:"127.0.0.1:8480" help:"Address of the API."`
	TemporalPort   int    `env:"MUSTER_TEMPORAL_PORT" help:"Port of the embedded Temporal server; 0 takes the last run's."`
	TemporalUIPort int    `name:"temporal-ui-port" env:"MUSTER_TEMPORAL_UI_PORT" help:"Port of Temporal's web UI; 0 takes the last run's."`
	PostgresPort   int    `env:"MUSTER_POSTGRES_PORT" help:"Port of the embedded PostgreSQL; 0 takes the last run's."`
	Demo           bool   `help:"Load demo customers and users, run simulators, and run a whole demo campaign."`
	Data           string `env:"MUSTER_DATA" help:"Folder with public data sets; without it they are fetched from their publisher." placeholder:"DIR" type:"path"`
	DemoCustomers  int    `default:"20000" help:"Customers to generate when the public data cannot be had."`
	Idle           bool   `help:"With --demo: load and simulate, but start no campaign."`
}

// shutdownPatience is how long each engine may take to stop.
const shutdownPatience = 3 * time.Second

// Run brings everything up and keeps it up until Ctrl-C.
func (c *upCommand) Run(g *globals) (err error) {
	began := time.Now()
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
type stack struct{ stops []func() error }

func (s *stack) push(stop func() error) { s.stops = append(s.stops, stop) }

func (s *stack) unwind() (err error) {
	for i := len(s.stops) - 1; i >= 0; i-- {
		err = errors.Join(err, s.stops[i]())
	}
	return err
}

func say(format string, args ...any) { fmt.Printf("  "+format+"\n", args...) }

// startEngines starts PostgreSQL and Temporal, unless their addresses are given, and
// returns the address of Temporal's web UI.
func (c *upCommand) startEngines(g *globals, folder *embedded.Folder, stack *stack, died chan<- error) (ui string, err error) {
	serverURL := c.DatabaseURL
	if c.DatabaseURL == "" {
		say("PostgreSQL: starting (about a second; the first time about five)")
		pg, err := folder.StartPostgres(g, embedded.PostgresOptions{Port: c.PostgresPort, Progress: func(s string) { say("PostgreSQL: %s", s) }})
		if err != nil {
			return "", err
		}
		stack.push(func() error { return stopWithin(pg.Stop) })
		go forward(pg.Done(), died)
		if err := pg.EnsureDatabase(g, "muster"); err != nil {
			return "", err
		}
		serverURL, c.DatabaseURL = pg.URL("postgres"), pg.URL("muster")
	}
	if c.TemporalAddress != "" {
		return "", temporalconn.Prepare(g, c.TemporalAddress, c.TemporalNamespace)
	}
	say("Temporal: starting (two to four seconds)")
	t, err := folder.StartTemporal(g, embedded.TemporalOptions{
		DatabaseURL: serverURL, Port: c.TemporalPort, UIPort: c.TemporalUIPort, Namespace: c.TemporalNamespace,
		Retention: temporalconn.Retention, SearchAttributes: temporalconn.SearchAttributes(),
	})
	if err != nil {
		return "", err
	}
	stack.push(func() error { return stopWithin(t.Stop) })
	go forward(t.Done(), died)
	c.TemporalAddress = t.Address()
	return t.UI(), nil
}

func stopWithin(stop func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownPatience)
	defer cancel()
	return stop(ctx)
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
	f, err := os.OpenFile(filepath.Join(g.dir, "muster.log"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
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
	st, err := g.openStore(c.DatabaseURL, c.Vault)
	if err != nil {
		return err
	}
	stack.push(func() error { st.Close(); return nil })
	if err := migrate(g, st); err != nil {
		return err
	}
	var loaded population.Loaded
	var users []population.DemoUser
	if c.Demo {
		if loaded, users, err = c.loadDemo(g, st); err != nil {
			return err
		}
	}
	enforcer, err := policies.New(g, st.Grants)
	if err != nil {
		return err
	}
	t, err := g.dialTemporal(c.Temporal, "up")
	if err != nil {
		return err
	}
	stack.push(func() error { t.Close(); return nil })
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
	stack.push(func() error { return config.RemoveInstance(g.dir) })

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
	group.Go(func() error { return work(ctx, g, st, t, enforcer, c.SMPP, 4*time.Second) })
	group.Go(func() error { return serveAPI(ctx, g, l, st, t, enforcer, false) })
	announce(running, users, loaded, time.Since(began))
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
		stack.push(func() error { smsc.Stop(); return nil })
	}
	args := []string{"sim", "callcentre", "--api", baseURL, "--answers", string(loaded.Kind), "--cache", filepath.Join(g.dir, "datasets")}
	if c.Data != "" {
		args = append(args, "--data", c.Data)
	}
	calls, err := folder.StartCompanion("callcentre", args, nil)
	if err != nil {
		return err
	}
	stack.push(func() error { calls.Stop(); return nil })
	return nil
}

// announce prints where everything is and who may log in.
func announce(i config.Instance, users []population.DemoUser, loaded population.Loaded, took time.Duration) {
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
	fmt.Println("\n  Ctrl-C stops everything; what is running goes on at the next start.")
	fmt.Println()
}

// runDemo brings an unfinished demo campaign to its end, or runs the first one.
func (c *upCommand) runDemo(ctx context.Context, g *globals, baseURL string, loaded population.Loaded) error {
	err := runDemo(ctx, baseURL, loaded.Kind, market.Default(), false, os.Stdout)
	if err != nil && ctx.Err() == nil {
		// The demonstration failing is told; the installation stays up.
		fmt.Println("The demo campaign did not go as it should:", plain(err))
		g.log.ErrorContext(ctx, "demo", "error", err)
	}
	return nil
}
