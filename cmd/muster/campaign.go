package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/apiuser"
	"github.com/musterhq/muster/internal/config"
	"github.com/musterhq/muster/internal/population"
)

// caller is how commands reach the public API: somebody's login at some address, or a
// demo user of the instance that runs here.
type caller struct {
	config.API
	config.Account
}

// user logs nobody in yet. Where no login is named, that user of the demonstration
// stands in.
func (c *caller) user(g *globals, standIn string) (*apiuser.User, error) {
	if c.API.API == "" || c.Login == "" {
		running, err := config.LoadInstance(g.dir)
		if err != nil {
			return nil, err
		}
		if c.API.API == "" {
			c.API.API = running.API
		}
		if c.Login == "" {
			if running.Demo == "" {
				return nil, campaign.Errorf(campaign.CodeUnauthenticated, "say who you are with --login and --password, or MUSTER_LOGIN and MUSTER_PASSWORD; 'muster user list' shows who may log in")
			}
			c.Account = config.Account(population.DemoLogin(standIn))
		}
	}
	return apiuser.New(c.API.API, c.login())
}

func (c *caller) login() apiuser.Login { return apiuser.Login(c.Account) }

type campaignCommand struct {
	List  campaignList  `cmd:"" help:"List campaigns, newest first."`
	Show  campaignShow  `cmd:"" help:"Show where a campaign stands, who must act and until when."`
	Watch campaignWatch `cmd:"" help:"Follow a campaign until it ends."`
}

type campaignList struct{ caller }

// Run prints one line per campaign.
func (c *campaignList) Run(g *globals) error {
	u, err := c.user(g, population.Auditor)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NO\tNAME\tSTAGE\tWAITS FOR\tUNTIL\tUNIT")
	for s, err := range apiuser.Campaigns(patient(g, shortPatience), u, "") {
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", s.Number, s.Name, standing(s.Stage, s.Hold), s.WaitingOn, clock(s.DueAt), s.Unit)
	}
	return w.Flush()
}

// How long a command bears an API that does not answer: one that prints what is there
// and ends, and one that goes with a campaign and survives a restart.
const (
	shortPatience = 10 * time.Second
	longPatience  = time.Minute
)

// patient says once when the API does not answer, and gives it up after the limit.
func patient(ctx context.Context, limit time.Duration) context.Context {
	return apiuser.WithPatience(ctx, limit, func(base string) { fmt.Fprintln(os.Stderr, "waiting for "+base) })
}

// standing is a campaign's stage, and its hold where that still says something.
func standing(stage campaign.Stage, hold campaign.Hold) string {
	if stage.Final() || hold == campaign.HoldNone || hold == "" {
		return string(stage)
	}
	return fmt.Sprintf("%s, %s", stage, hold)
}

func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

type campaignShow struct {
	caller
	Campaign string `arg:"" help:"Number or id of the campaign."`
}

// Run prints the campaign.
func (c *campaignShow) Run(g *globals) error {
	u, err := c.user(g, population.Auditor)
	if err != nil {
		return err
	}
	ctx := patient(g, shortPatience)
	id, err := findCampaign(ctx, u, c.Campaign)
	if err != nil {
		return err
	}
	detail, err := apiuser.Campaign(ctx, u, id)
	if err != nil {
		return err
	}
	printCampaign(os.Stdout, detail)
	return nil
}

// findCampaign turns a number into an id.
func findCampaign(ctx context.Context, u *apiuser.User, given string) (string, error) {
	if id, err := uuid.Parse(given); err == nil {
		return id.String(), nil
	}
	number, err := strconv.ParseInt(given, 10, 64)
	if err != nil {
		return "", campaign.Errorf(campaign.CodeInvalidParameter, "%q is neither the number nor the id of a campaign", given)
	}
	for s, err := range apiuser.Campaigns(ctx, u, "") {
		if err != nil {
			return "", err
		}
		if s.Number == number {
			return s.ID, nil
		}
	}
	return "", campaign.Errorf(campaign.CodeNotFound, "there is no campaign %d", number)
}

func printCampaign(out io.Writer, d *client.CampaignDetail) {
	s, st := d.Campaign, d.Status
	fmt.Fprintf(out, "Campaign %d  %s\n", s.Number, s.Name)
	if s.Simulated {
		fmt.Fprintln(out, "  ◇ simulated: nothing leaves this machine")
	}
	fmt.Fprintf(out, "  id %s, unit %s, planner %s\n", s.ID, s.Unit, s.Planner.Name)
	fmt.Fprintf(out, "  stage %s; plan revision %d\n", standing(st.Stage, st.Hold), st.Revision)
	if st.WaitingOn != "" {
		fmt.Fprintf(out, "  waits for %s", st.WaitingOn)
		if !st.DueAt.IsZero() {
			fmt.Fprintf(out, " until %s", clock(st.DueAt))
		}
		fmt.Fprintln(out)
	}
	if st.Problem != "" {
		fmt.Fprintf(out, "  PROBLEM %s: %s\n", st.ProblemCode, st.Problem)
	}
	if st.Targets > 0 {
		fmt.Fprintf(out, "  %d targets frozen\n", st.Targets)
	}
	for _, w := range st.Waves {
		fmt.Fprintf(out, "  wave %d  %v  %s\n", w.Number, w.Channels, progressOf(w))
	}
	if st.Ended != "" {
		fmt.Fprintf(out, "  ended: %s; %d histories archived\n", st.Ended, d.ArchivedRuns)
	}
}

func progressOf(w campaign.WaveRun) string {
	switch {
	case w.Failure != "":
		return "failed: " + w.Failure
	case w.Done:
		return "done"
	case w.Begun:
		return "running"
	}
	return "starts " + clock(w.StartsAt)
}

type campaignWatch struct {
	caller
	Campaign string `arg:"" help:"Number or id of the campaign."`
}

// Run prints each event of the campaign's history until it ends.
func (c *campaignWatch) Run(g *globals) error {
	u, err := c.user(g, population.Auditor)
	if err != nil {
		return err
	}
	ctx := patient(g, longPatience)
	id, err := findCampaign(ctx, u, c.Campaign)
	if err != nil {
		return err
	}
	history := apiuser.NewHistory(u, id)
	for {
		// The detail first: what happened before a campaign ended is then in its history.
		detail, err := apiuser.Campaign(ctx, u, id)
		if err != nil {
			return err
		}
		for e, err := range history.News(ctx) {
			if err != nil {
				return err
			}
			printEvent(os.Stdout, e)
		}
		if detail.Status.Stage.Final() {
			printCampaign(os.Stdout, detail)
			return nil
		}
		select {
		case <-g.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

func printEvent(out io.Writer, e client.HistoryEvent) {
	who, refused := e.Actor, ""
	if who == "" {
		who = "muster"
	}
	if !e.Allowed {
		refused = "  REFUSED"
	}
	fmt.Fprintf(out, "%s  %-28s %s%s%s\n", e.At.Local().Format("15:04:05.000"), e.Event, who, refused, apiuser.DetailOf(e))
}
