// Command muster is the whole product in one binary: the engines of one machine
// (up), the processes of an installation (api, worker, migrate), data (import), a
// demonstration (demo, sim), evidence (replay) and measurements (bench).
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/config"
	"github.com/musterhq/muster/internal/embedded"
	"github.com/musterhq/muster/internal/telemetry"
)

type cli struct {
	config.Folder
	LogLevel slog.Level `env:"MUSTER_LOG_LEVEL" default:"info" help:"debug, info, warn or error."`

	Up       upCommand       `cmd:"" help:"Run everything on this machine: PostgreSQL, Temporal, worker and API."`
	API      apiCommand      `cmd:"" name:"api" help:"Run an API process against existing engines."`
	Worker   workerCommand   `cmd:"" help:"Run a worker process against existing engines."`
	Migrate  migrateCommand  `cmd:"" help:"Bring the database schema up to date."`
	Import   importCommand   `cmd:"" help:"Load customers."`
	User     userCommand     `cmd:"" help:"Add and list the people who may log in."`
	Keys     keysCommand     `cmd:"" help:"List, rotate and revoke the keys that sign commands and decisions."`
	Vault    vaultCommand    `cmd:"" help:"The keys that seal phone numbers."`
	Campaign campaignCommand `cmd:"" help:"List, show and watch campaigns."`
	Demo     demoCommand     `cmd:"" help:"Run the demo campaign on a running 'muster up --demo'."`
	Sim      simCommand      `cmd:"" help:"Simulators: an SMS centre, a call centre, a market. Nothing leaves this machine."`
	Replay   replayCommand   `cmd:"" help:"Replay a campaign's archived history against this binary's code."`
	Bench    benchCommand    `cmd:"" help:"Measure hot paths beside the raw engine, in the same run."`
	Version  versionCommand  `cmd:"" help:"Print the version."`
}

// globals is what every command gets: the context that ends at Ctrl-C, the data
// folder and the log.
type globals struct {
	context.Context
	dir   string
	level slog.Level
	log   *slog.Logger
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	var c cli
	parser, err := kong.New(&c, kong.Name("muster"), kong.ShortUsageOnError(), kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Description("Muster (点兵) runs marketing campaigns: budgeted goal, approval, target selection, dispatch, review, evaluation. "+
			"New here? 'muster up --demo' starts everything and shows a whole campaign."))
	if err != nil {
		fmt.Fprintln(os.Stderr, "muster:", err)
		return 1
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		parser.FatalIfErrorf(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir := c.DataDir
	if dir == "" {
		if dir, err = embedded.DefaultDir(); err != nil {
			fmt.Fprintln(os.Stderr, "muster:", err)
			return 1
		}
	}
	g := &globals{Context: ctx, dir: dir, level: c.LogLevel, log: telemetry.Log(os.Stderr, c.LogLevel)}
	if err := parsed.Run(g); err != nil && (ctx.Err() == nil || !errors.Is(err, context.Canceled)) {
		fmt.Fprintln(os.Stderr, "muster: "+plain(err))
		return 1
	}
	return 0
}

// plain says an error as a sentence for a person.
func plain(err error) string {
	var p *embedded.Problem
	if errors.As(err, &p) {
		return p.Error()
	}
	var e *campaign.Error
	if errors.As(err, &e) {
		return e.Error()
	}
	return err.Error()
}
