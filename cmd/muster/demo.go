package main

import (
	"context"
	"fmt"
	"os"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/config"
	"github.com/musterhq/muster/internal/demo"
	"github.com/musterhq/muster/internal/population"
)

type demoCommand struct {
	Again bool   `help:"Run the campaigns again although they have been run."`
	Truth string `help:"File with the truth of the market that answers for generated customers, as JSON. Default: a built-in one." placeholder:"FILE" type:"existingfile"`
}

// Run drives the demo campaigns through the public API of the instance that runs here.
func (c *demoCommand) Run(g *globals) error {
	running, err := config.LoadInstance(g.dir)
	if err != nil {
		return err
	}
	if running.Demo == "" {
		return campaign.Errorf(campaign.CodeStateConflict, "the muster that runs here has no demo users and customers: start it with 'muster up --demo'")
	}
	truth, err := readTruth(c.Truth)
	if err != nil {
		return err
	}
	return runDemo(patient(g, longPatience), demo.Options{
		API: running.API, Population: population.Kind(running.Demo), Truth: truth, Out: os.Stdout, Again: c.Again,
	})
}

// runDemo brings the demo campaigns that were begun to their end; else it runs them when
// there were none yet, or if they are wanted again.
func runDemo(ctx context.Context, o demo.Options) error {
	results, err := demo.Run(ctx, o)
	switch {
	case err != nil:
		return err
	case len(results) == 0:
		_, _ = fmt.Fprintln(o.Out, "The demo campaigns have been run. Run them again: muster demo --again")
	default:
		demo.Conclude(o.Out, results)
	}
	return nil
}
