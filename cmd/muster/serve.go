package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"go.temporal.io/sdk/client"
	sdkworker "go.temporal.io/sdk/worker"

	"github.com/musterhq/muster/activities"
	"github.com/musterhq/muster/api"
	"github.com/musterhq/muster/assertion"
	"github.com/musterhq/muster/audit"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/channels"
	"github.com/musterhq/muster/channels/smpp"
	"github.com/musterhq/muster/internal/config"
	"github.com/musterhq/muster/internal/embedded"
	"github.com/musterhq/muster/internal/telemetry"
	"github.com/musterhq/muster/internal/temporalconn"
	"github.com/musterhq/muster/ledger"
	"github.com/musterhq/muster/policies"
	"github.com/musterhq/muster/store"
	"github.com/musterhq/muster/worker"
)

// policyReload is how soon a change of roles or of a policy is seen by every process.
const policyReload = 3 * time.Second

type apiCommand struct {
	config.Database
	config.Temporal
	config.Vault
	config.Keys
	config.OIDC
	config.Spool
	Listen        string `env:"MUSTER_LISTEN" default:"127.0.0.1:8480" help:"Address to listen on."`
	SecureCookies bool   `env:"MUSTER_SECURE_COOKIES" help:"The API is reached over TLS: cookies are for TLS only."`
	// What anybody may write into X-Forwarded-For is believed of nobody else.
	TrustedProxies []netip.Prefix `env:"MUSTER_TRUSTED_PROXIES" help:"Proxies before the API, in CIDR notation: they say in X-Forwarded-For who calls." placeholder:"CIDR"`
}

// Run serves the API until Ctrl-C.
func (c *apiCommand) Run(g *globals) error {
	if err := c.OIDC.Check(); err != nil {
		return err
	}
	keys, err := g.signingKeys(c.Keys)
	if err != nil {
		return err
	}
	st, t, enforcer, err := g.attach(&c.Database, &c.Temporal, c.Vault, "api")
	if err != nil {
		return err
	}
	defer st.Close()
	defer t.Close()
	l, err := listen(c.Listen)
	if err != nil {
		return err
	}
	go keepPolicies(g, g, enforcer)
	go keys.Follow(g, g.log)
	fmt.Printf("API on http://%s\n", l.Addr())
	return serveAPI(g, g, l, api.Deps{
		Store: st, Policies: enforcer, Orchestrator: temporalconn.NewOrchestrator(t), Keys: keys, SecureCookies: c.SecureCookies,
		OIDC: identityProvider(c.OIDC), Spool: c.Spool.Folder(g.dir), Proxies: c.TrustedProxies,
	})
}

func identityProvider(c config.OIDC) api.OIDC {
	return api.OIDC{Issuer: c.OIDCIssuer, ClientID: c.OIDCClientID, ClientSecret: c.OIDCClientSecret, RedirectURL: c.OIDCRedirectURL, Name: c.OIDCName}
}

// listen takes the address, or says plainly that it is taken.
func listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, &embedded.Problem{
			Code: embedded.CodePortInUse, Message: "address " + address + " is in use by another program",
			WayOut: "stop that program or choose another address with --listen",
		}
	}
	if err != nil {
		return nil, campaign.Errorf(campaign.CodeInvalidParameter, "nothing can listen on %q (%v): give a host and a port, such as --listen 127.0.0.1:8480", address, err)
	}
	return l, nil
}

func serveAPI(ctx context.Context, g *globals, l net.Listener, d api.Deps) error {
	d.Registry, d.Logger = telemetry.Metrics(), g.log
	if err := os.MkdirAll(d.Spool, 0o700); err != nil {
		return fmt.Errorf("make folder for uploads: %w", err)
	}
	server, err := api.New(d)
	if err != nil {
		return err
	}
	return server.Serve(ctx, l)
}

// keepPolicies follows changes of roles and policies until ctx ends. Until one can be read
// the old ones hold.
func keepPolicies(ctx context.Context, g *globals, e *policies.Enforcer) {
	var told string
	tick := time.NewTicker(policyReload)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := e.Reload(ctx); err != nil && ctx.Err() == nil {
				g.log.WarnContext(ctx, "roles and policies were not read again", "error", err)
			}
			now := ""
			if err := e.Degraded(); err != nil {
				now = err.Error()
			}
			if now != told && now != "" {
				g.log.ErrorContext(ctx, "an active policy is not decided by; the one before it holds", "error", now)
			}
			told = now
		}
	}
}

type workerCommand struct {
	config.Database
	config.Temporal
	config.Vault
	config.Keys
	config.SMPP
	config.Spool
}

// Run works until Ctrl-C.
func (c *workerCommand) Run(g *globals) error {
	keys, err := g.openKeys(c.Keys)
	if err != nil {
		return err
	}
	st, t, enforcer, err := g.attach(&c.Database, &c.Temporal, c.Vault, "worker")
	if err != nil {
		return err
	}
	defer st.Close()
	defer t.Close()
	go keepPolicies(g, g, enforcer)
	go keys.Follow(g, g.log)
	return work(g, g, st, t, enforcer, keys, c.SMPP, c.Spool.Folder(g.dir), drainWithin)
}

// drainWithin is how long a worker that is replaced may work on what it has begun; give
// its supervisor more.
const drainWithin = time.Minute

// work runs a worker until ctx ends; what runs then has stopWithin to come to an end.
func work(
	ctx context.Context, g *globals, st *store.Store, t client.Client, e *policies.Enforcer, keys *assertion.Keys, sms config.SMPP, spool string, stopWithin time.Duration,
) error {
	served := []campaign.Channel{campaign.ChannelCall}
	senders := map[campaign.Channel]channels.Sender{}
	if sms.SMPPAddress != "" {
		sender, err := smpp.New(ctx, smpp.Config{
			Addr: sms.SMPPAddress, SystemID: sms.SMPPSystemID, Password: sms.SMPPPassword, Binds: sms.SMPPBinds, Window: sms.SMPPWindow,
			Rate: sms.SMPPRate, Log: g.log,
		}, activities.Inbox{Store: st, Channel: campaign.ChannelSMS})
		if err != nil {
			return err
		}
		defer func() {
			if err := sender.Close(); err != nil {
				g.log.WarnContext(ctx, "leaving the SMS centre", "error", err)
			}
		}()
		senders[campaign.ChannelSMS] = sender
		served = append(served, campaign.ChannelSMS)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "worker"
	}
	archiver := &audit.Archiver{Temporal: t, Store: st}
	acts := activities.New(activities.Deps{
		Store: st, Ledger: ledger.New(st.Pool()), Policies: e, Keys: keys, Senders: senders, Simulated: sms.SMPPSimulated,
		Archiver: archiver, Spool: spool,
		Replayer: &audit.Replayer{Store: st, Register: register, BuildID: buildID()},
		Instance: fmt.Sprintf("%s-%d", host, os.Getpid()),
	})
	return worker.Run(ctx, worker.Options{
		Client: t, Activities: acts, Channels: served, Sweeps: sweeps(st, temporalconn.NewOrchestrator(t), archiver, acts), StopWithin: stopWithin, BuildID: buildID(), Log: g.log,
	})
}

// register gives a replayer every workflow.
func register(r sdkworker.WorkflowReplayer) { worker.RegisterWorkflows(r) }

// sweepRows bounds what one turn of a sweep takes on.
const sweepRows = 1000

// sweeps are the statements that keep the database's promises between activities.
func sweeps(st *store.Store, o *temporalconn.Orchestrator, a *audit.Archiver, acts *activities.Activities) []worker.Sweep {
	return []worker.Sweep{
		{Name: "unstarted campaigns", Every: 2 * time.Second, Do: func(ctx context.Context) error {
			ids, err := st.UnstartedCampaigns(ctx, sweepRows)
			for _, id := range ids {
				failed := o.StartCampaign(ctx, id)
				if failed == nil {
					failed = st.MarkStarted(ctx, id)
				}
				err = errors.Join(err, failed)
			}
			return err
		}},
		{Name: "parked receipts", Every: 2 * time.Second, Do: func(ctx context.Context) error { _, err := st.SweepReceipts(ctx, sweepRows); return err }},
		{Name: "ended leases", Every: time.Minute, Do: func(ctx context.Context) error { _, err := st.SweepLeases(ctx); return err }},
		// Temporal forgets a closed run after its retention, which a long campaign outlives.
		{Name: "closed histories", Every: time.Hour, Do: func(ctx context.Context) error { return archiveClosed(ctx, st, a) }},
		{Name: "invariants", Every: 30 * time.Second, Do: acts.Inspect}, // whoever comes first after five minutes
		{Name: "money of unknown messages", Every: 10 * time.Minute, Do: acts.SettleUnknown},
		{Name: "neglected imports", Every: 30 * time.Second, Do: func(ctx context.Context) error {
			ids, err := st.NeglectedImports(ctx, 2*time.Minute, sweepRows)
			for _, id := range ids {
				err = errors.Join(err, o.StartImport(ctx, id))
			}
			return err
		}},
		{Name: "unstarted imports", Every: 10 * time.Minute, Do: acts.ExpireImports},
		{Name: "task leases", Every: 5 * time.Second, Do: func(ctx context.Context) error { _, err := st.SweepTasks(ctx); return err }},
	}
}

// archiveClosed archives what has closed so far of the campaigns that still run.
func archiveClosed(ctx context.Context, st *store.Store, a *audit.Archiver) error {
	ids, err := st.UnarchivedCampaigns(ctx)
	for _, id := range ids {
		_, failed := a.Archive(ctx, id, func(int) {})
		if code := campaign.CodeOf(failed); code != campaign.CodeStateConflict { // that some run is still open is the rule
			err = errors.Join(err, failed)
		}
	}
	return err
}
