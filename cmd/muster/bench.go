package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.temporal.io/sdk/client"

	"github.com/musterhq/muster/activities"
	"github.com/musterhq/muster/audit"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/bench"
	"github.com/musterhq/muster/internal/temporalconn"
	"github.com/musterhq/muster/store"
	"github.com/musterhq/muster/worker"
)

type benchCommand struct {
	Import    benchImport    `cmd:"" help:"The import of customers beside a bare COPY of the same rows."`
	Selection benchSelection `cmd:"" help:"The selection of targets beside a bare INSERT … SELECT of the same customers."`
	Preview   benchPreview   `cmd:"" help:"The count of an audience's preview beside a bare count of the same customers."`
	Policy    benchPolicy    `cmd:"" help:"Campaigns that reserve contacts with the same customers at once, under a cap, beside a bare INSERT."`
	Dispatch  benchDispatch  `cmd:"" help:"Dispatch beside a bare claim-and-mark loop: the engine alone, and the whole path over Temporal and SMPP."`
	Contacts  benchContacts  `cmd:"" help:"One customer's contact view among tens of millions of rows of contact history."`
	Ledger    benchLedger    `cmd:"" help:"Reservations and captures beside a bare conditional UPDATE: all on one budget, and on a hundred."`
}

// benchFlags are common to all benches. No environment variable names the database: a
// bench shall not meet one that is in use by accident.
type benchFlags struct {
	BenchDir    string `placeholder:"DIR" type:"path" help:"Folder of the bench's own engines and customers, kept between benches. Default: the data folder's name with -bench."`
	DatabaseURL string `name:"database-url" placeholder:"URL" help:"Use the PostgreSQL server of this URL, where the bench makes databases muster_bench_… of its own. Default: a server in the bench's folder."`
	Runs        int    `default:"3" help:"Runs of each side, in turn."`
	Seed        uint64 `default:"1" help:"Seed of the generated customers."`
	JSON        string `name:"json" placeholder:"FILE" type:"path" help:"File for all figures. Default: <bench>.json in the bench's folder."`
	Profile     string `placeholder:"DIR" type:"path" help:"Also write a CPU profile of this process for every run into this folder."`
}

// benchmark runs one bench on engines of its own and keeps its report.
func (c *benchFlags) benchmark(g *globals, do func(*globals, *bench.Suite) (*bench.Report, error)) (err error) {
	if c.Runs < 1 {
		return campaign.Errorf(campaign.CodeInvalidParameter, "--runs must be at least 1")
	}
	own := *g
	if own.dir = c.BenchDir; own.dir == "" {
		own.dir = filepath.Clean(g.dir) + "-bench"
	}
	logs, err := logToFolder(&own)
	if err != nil {
		return err
	}
	defer logs()
	engines, err := bench.Open(g, own.dir, c.DatabaseURL, func(s string) { say("%s", s) })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, engines.Close(g)) }()
	report, err := do(&own, &bench.Suite{Engines: engines, Out: os.Stdout, Runs: c.Runs, Seed: c.Seed, Profile: c.Profile})
	if err != nil {
		return err
	}
	report.Print(os.Stdout)
	file := c.JSON
	if file == "" {
		file = filepath.Join(own.dir, report.Bench+".json")
	}
	if err := report.Save(file); err != nil {
		return err
	}
	fmt.Printf("\n  All figures: %s\n", file)
	return nil
}

func positive(name string, n int) error {
	if n < 1 {
		return campaign.Errorf(campaign.CodeInvalidParameter, "--%s must be at least 1", name)
	}
	return nil
}

type benchImport struct {
	benchFlags
	Rows      int `default:"1000000" help:"Customers to import."`
	Columns   int `default:"40" help:"Columns of the file; four of them are no attributes."`
	MaxMemory int `placeholder:"MB" help:"Fail when the importing process ever has more than this in use."`
}

// Run measures the import.
func (c *benchImport) Run(g *globals) error {
	if err := errors.Join(positive("rows", c.Rows), positive("columns", c.Columns-3)); err != nil {
		return err
	}
	return c.benchmark(g, func(g *globals, s *bench.Suite) (*bench.Report, error) {
		return s.Import(g, bench.ImportOptions{Rows: c.Rows, Columns: c.Columns, Memory: int64(c.MaxMemory) << 20})
	})
}

type benchSelection struct {
	benchFlags
	Rows    int  `default:"1000000" help:"Customers to select from."`
	Targets int  `default:"200000" help:"Targets to select."`
	Growth  bool `help:"Also measure a half and a quarter of the rows, and how time grows with them."`
}

// Run measures the selection.
func (c *benchSelection) Run(g *globals) error {
	if err := errors.Join(positive("rows", c.Rows), positive("targets", c.Targets)); err != nil {
		return err
	}
	return c.benchmark(g, func(g *globals, s *bench.Suite) (*bench.Report, error) {
		return s.Selection(g, c.Rows, c.Targets, c.Growth)
	})
}

type benchPreview struct {
	benchFlags
	Rows    int `default:"1000000" help:"Generated customers."`
	Targets int `default:"200000" help:"About how many of them match."`
}

// Run measures.
func (c *benchPreview) Run(g *globals) error {
	if err := errors.Join(positive("rows", c.Rows), positive("targets", c.Targets)); err != nil {
		return err
	}
	return c.benchmark(g, func(g *globals, s *bench.Suite) (*bench.Report, error) { return s.Preview(g, c.Rows, c.Targets) })
}

type benchPolicy struct {
	benchFlags
	Customers int `default:"1000000" help:"Customers whom every campaign asks for."`
	Campaigns int `default:"4" help:"Campaigns that select at once."`
}

// Run measures the reservation.
func (c *benchPolicy) Run(g *globals) error {
	if err := errors.Join(positive("customers", c.Customers), positive("campaigns", c.Campaigns)); err != nil {
		return err
	}
	return c.benchmark(g, func(g *globals, s *bench.Suite) (*bench.Report, error) { return s.Policy(g, c.Customers, c.Campaigns) })
}

type benchDispatch struct {
	benchFlags
	Rows            int    `default:"200000" help:"Messages of a run."`
	Customers       int    `default:"1000000" help:"Customers in the database."`
	TemporalAddress string `placeholder:"HOST:PORT" help:"Use this Temporal server, in a namespace of the bench's own. Default: an embedded one."`
	Binds           int    `default:"2" help:"Parallel SMPP sessions."`
	Window          int    `default:"200" help:"Submits outstanding per session."`
}

// Run measures dispatch.
func (c *benchDispatch) Run(g *globals) error {
	if err := errors.Join(positive("rows", c.Rows), positive("binds", c.Binds), positive("window", c.Window)); err != nil {
		return err
	}
	return c.benchmark(g, func(g *globals, s *bench.Suite) (*bench.Report, error) {
		return s.Dispatch(g, bench.DispatchOptions{
			Customers: max(c.Customers, c.Rows), Messages: c.Rows, Log: g.log,
			Real: bench.RealOptions{
				TemporalAddress: c.TemporalAddress, Binds: c.Binds, Window: c.Window,
				StartSMSC: func(address, journal string) (func(), error) {
					smsc, err := s.Engines.Folder.StartCompanion("smsc", []string{
						"sim", "smsc", "--listen", address, "--journal", journal, "--ack-delay", "0s", "--receipt-delay", "1s",
						"--refused", "0", "--throttled", "0", "--lost-acks", "0", "--failed", "0", "--expired", "0", "--repeated", "0",
					}, nil)
					if err != nil {
						return nil, err
					}
					return smsc.Stop, nil
				},
				Sweeps: func(st *store.Store, t client.Client, acts *activities.Activities) []worker.Sweep {
					return sweeps(st, temporalconn.NewOrchestrator(t), &audit.Archiver{Temporal: t, Store: st}, acts)
				},
			},
		})
	})
}

type benchLedger struct {
	benchFlags
	Operations  int `default:"10000" help:"Operations of a run, half of them reservations and half captures."`
	Connections int `default:"16" help:"Connections at a time."`
}

// Run measures the ledger.
func (c *benchLedger) Run(g *globals) error {
	if err := errors.Join(positive("operations", c.Operations), positive("connections", c.Connections)); err != nil {
		return err
	}
	return c.benchmark(g, func(g *globals, s *bench.Suite) (*bench.Report, error) {
		return s.Ledger(g, c.Operations, c.Connections)
	})
}

type benchContacts struct {
	benchFlags
	Rows    int  `default:"50000000" help:"Rows of contact history."`
	Lookups int  `default:"10000" help:"Customers whose contact view a run reads."`
	Keep    bool `help:"Keep the database of some 300 bytes a row for another run. Without it, what an interrupted run made is gone on with, and dropped at the end."`
}

// Run measures the contact view.
func (c *benchContacts) Run(g *globals) error {
	if err := errors.Join(positive("rows", c.Rows), positive("lookups", c.Lookups)); err != nil {
		return err
	}
	return c.benchmark(g, func(g *globals, s *bench.Suite) (*bench.Report, error) {
		return s.Contacts(g, bench.ContactsOptions{Rows: c.Rows, Lookups: c.Lookups, Keep: c.Keep})
	})
}
