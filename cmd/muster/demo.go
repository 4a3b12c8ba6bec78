package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/apiuser"
	"github.com/musterhq/muster/internal/config"
	"github.com/musterhq/muster/internal/demo"
	"github.com/musterhq/muster/internal/population"
	"github.com/musterhq/muster/internal/sim/market"
)

type demoCommand struct {
	Again bool   `help:"Run another campaign although one has been run."`
	Truth string `help:"File with the truth of the market that answers for generated customers, as JSON. Default: a built-in one." placeholder:"FILE" type:"existingfile"`
}

// Run drives a demo campaign through the public API of the instance that runs here.
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
	return runDemo(patient(g, longPatience), running.API, population.Kind(running.Demo), truth, c.Again, os.Stdout)
}

// runDemo brings a demo campaign that was begun to its end; else it runs a new one if
// there was none yet, or if another is wanted.
func runDemo(ctx context.Context, base string, kind population.Kind, truth market.Truth, again bool, out io.Writer) error {
	planner, err := apiuser.New(base, population.DemoLogin(population.Planner))
	if err != nil {
		return err
	}
	o := demo.Options{API: base, Population: kind, Truth: truth, Out: out}
	begun := 0
	for c, err := range apiuser.Campaigns(ctx, planner, demo.Plan(kind).Name) {
		if err != nil {
			return err
		}
		begun++
		if !c.Stage.Final() {
			_, _ = fmt.Fprintf(out, "Going on with campaign %d, begun earlier\n", c.Number)
			o.CampaignID = c.ID
		}
	}
	if o.CampaignID == "" && begun > 0 && !again {
		_, _ = fmt.Fprintf(out, "%d demo campaign(s) have been run. Run another with: muster demo --again\n", begun)
		return nil
	}
	result, err := demo.Run(ctx, o)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "\nCampaign %d closed after %.0f s. Replay it yourself: muster replay %d    Run another: muster demo --again\n",
		result.Number, result.Took.Seconds(), result.Number)
	return nil
}
