package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/musterhq/muster/activities"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/channels/smpp"
	"github.com/musterhq/muster/internal/embedded"
	"github.com/musterhq/muster/internal/sim/smsc"
	"github.com/musterhq/muster/internal/temporalconn"
	"github.com/musterhq/muster/store"
	"github.com/musterhq/muster/worker"
)

// RealOptions says what the real path of a dispatch runs on.
type RealOptions struct {
	TemporalAddress string // empty: an embedded server is started
	Binds           int    // SMPP sessions
	Window          int    // submits outstanding per session
	// StartSMSC runs a simulated SMS centre on an address, which accepts every message at
	// once, sends receipts and writes a journal, and returns what stops it.
	StartSMSC func(address, journal string) (stop func(), err error)
	// Sweeps are what a worker process runs beside its activities.
	Sweeps func(*store.Store, client.Client, *activities.Activities) []worker.Sweep
}

// namespace is the bench's own, so that its worker takes no work of an installation that
// shares the Temporal server.
const namespace = "muster-bench"

// realPath is the real path: everything that a worker process has, on real engines.
type realPath struct {
	*dispatch
	server *embedded.Temporal
	client client.Client
}

// openReal connects to Temporal. It returns nil when there is none to start.
func (d *dispatch) openReal(ctx context.Context) (_ *realPath, err error) {
	r := &realPath{dispatch: d}
	address := d.o.Real.TemporalAddress
	if address == "" {
		r.server, err = d.suite.Engines.Folder.StartTemporal(ctx, embedded.TemporalOptions{
			DatabaseURL: d.suite.Engines.server.String(), Database: d.suite.Engines.prefix + "_temporal", Headless: true, Namespace: namespace,
			Retention: temporalconn.Retention, SearchAttributes: temporalconn.SearchAttributes(),
		})
		var problem *embedded.Problem
		if errors.As(err, &problem) && problem.Code == embedded.CodeTemporalMissing {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		address = r.server.Address()
	} else if err := temporalconn.Prepare(ctx, address, namespace); err != nil {
		return nil, err
	}
	if r.client, err = temporalconn.Dial(ctx, address, namespace, "muster-bench", d.o.Log); err != nil {
		return nil, errors.Join(err, r.close(ctx))
	}
	return r, nil
}

func (r *realPath) close(ctx context.Context) error {
	if r.client != nil {
		r.client.Close()
	}
	if r.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
	defer cancel()
	return r.server.Stop(ctx)
}

// run dispatches one campaign with an SMS centre and a worker of its own.
func (r *realPath) run(ctx context.Context, w *stopwatch) (sent int64, err error) {
	journal := filepath.Join(r.suite.Engines.Folder.Path(), "bench-smsc.jsonl")
	if err := os.Remove(journal); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return 0, err
	}
	stopSMSC, err := r.o.Real.StartSMSC(address, journal)
	if err != nil {
		return 0, err
	}
	defer stopSMSC()
	sender, err := smpp.New(ctx, smpp.Config{
		Addr: address, SystemID: "muster", Password: "muster", Binds: r.o.Real.Binds, Window: r.o.Real.Window, Log: r.o.Log,
	}, activities.Inbox{Store: r.st, Channel: campaign.ChannelSMS})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, sender.Close()) }()
	acts := r.activities(sender)
	stopWorker := r.startWorker(ctx, acts)
	defer func() { err = errors.Join(err, stopWorker()) }()

	id, err := r.target(ctx, acts)
	if err != nil {
		return 0, err
	}
	if err := r.suite.Engines.checkpoint(ctx); err != nil {
		return 0, err
	}
	if err := w.start(); err != nil {
		return 0, err
	}
	err = r.workflow(ctx, id)
	if err = errors.Join(err, w.stop()); err != nil {
		return 0, err
	}
	// The workflow goes on until every receipt has come; what counts is when the last
	// message was known to be accepted.
	var last time.Time
	if err := r.st.Pool().QueryRow(ctx, `SELECT max(outcome_at) FROM contact_attempt WHERE campaign_id = $1`, id).Scan(&last); err != nil {
		return 0, err
	}
	w.note("s until all receipts", w.run.Seconds)
	w.run.Seconds = last.Sub(w.began).Seconds()

	written, err := smsc.ReadJournal(journal)
	if err != nil {
		return 0, fmt.Errorf("read the SMS centre's journal: %w", err)
	}
	accepted := make([]string, len(written.Accepted))
	for i, a := range written.Accepted {
		accepted[i] = a.ContactID
	}
	if len(written.Receipts) != len(accepted) {
		return 0, wrong("%d receipts were taken for %d accepted messages", len(written.Receipts), len(accepted))
	}
	if sent, err = r.account(ctx, id, accepted); err != nil {
		return 0, err
	}
	return sent, os.Remove(journal)
}

// startWorker runs what `muster worker` runs, until the returned function is called.
func (r *realPath) startWorker(ctx context.Context, acts *activities.Activities) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- worker.Run(ctx, worker.Options{
			Client: r.client, Activities: acts, Channels: []campaign.Channel{campaign.ChannelSMS},
			Sweeps: r.o.Real.Sweeps(r.st, r.client, acts), StopWithin: 4 * time.Second, Log: r.o.Log,
		})
	}()
	return func() error { cancel(); return <-ended }
}

func (r *realPath) workflow(ctx context.Context, id string) error {
	run, err := r.client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: campaign.DispatchWorkflowID(id, 1, campaign.ChannelSMS), TaskQueue: campaign.QueueWorkflows,
	}, string(campaign.WorkflowDispatch), r.input(id))
	if err != nil {
		return fmt.Errorf("start the dispatch: %w", err)
	}
	if err := run.Get(ctx, nil); err != nil {
		return fmt.Errorf("dispatch: %w", err)
	}
	return nil
}

func freeAddress(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
