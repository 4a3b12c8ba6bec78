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

// user logs nobody in yet. Where no login is named, the demonstration's auditor, who may
// read everything, stands in.
func (c *caller) user(g *globals) (*apiuser.User, error) {
	who := apiuser.Login{Login: c.Login, Password: c.Password}
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
				return nil, campaign.Errorf(campaign.CodeUnauthenticated, "name a user with --login and --password")
			}
			who = population.DemoLogin(population.Auditor)
		}
	}
	return apiuser.New(c.API.API, who)
}

type campaignCommand struct {
	List  campaignList  `cmd:"" help:"List campaigns, newest first."`
	Show  campaignShow  `cmd:"" help:"Show where a campaign stands, who must act and until when."`
	Watch campaignWatch `cmd:"" help:"Follow a campaign until it ends."`
}

type campaignList struct{ caller }

// Run prints one line per campaign.
func (c *campaignList) Run(g *globals) error {
	u, err := c.user(g)
	if err != nil {
		return err
	}
	return c.answered(g, func(ctx context.Context) error { return listCampaigns(ctx, u) })
}

// patience is how long a command waits for an API that does not answer.
const patience = 10 * time.Second

// answered runs f, and says plainly when the API does not answer.
func (c *caller) answered(ctx context.Context, f func(context.Context) error) error {
	within, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := f(within)
	if err != nil && within.Err() != nil && ctx.Err() == nil {
		return campaign.Errorf(campaign.CodeNotFound, "nothing answers at %s: start it with 'muster up', or name another address with --api", c.API.API)
	}
	return err
}

func listCampaigns(ctx context.Context, u *apiuser.User) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NO\tNAME\tSTAGE\tHOLD\tWAITS FOR\tUNTIL\tUNIT")
	for cursor := ""; ; {
		page, err := apiuser.Do(ctx, u, "", func(ctx context.Context, a *client.Session) (*client.ListCampaignsResponse, error) {
			return a.ListCampaignsWithResponse(ctx, &client.ListCampaignsParams{Cursor: cursor})
		})
		if err != nil {
			return err
		}
		for _, s := range page.JSON200.Items {
			fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Number, s.Name, s.Stage, s.Hold, s.WaitingOn, clock(s.DueAt), s.Unit)
		}
		if cursor = page.JSON200.Next; cursor == "" {
			return w.Flush()
		}
	}
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
	u, err := c.user(g)
	if err != nil {
		return err
	}
	return c.answered(g, func(ctx context.Context) error {
		id, err := findCampaign(ctx, u, c.Campaign)
		if err != nil {
			return err
		}
		detail, err := getCampaign(ctx, u, id)
		if err != nil {
			return err
		}
		printCampaign(os.Stdout, detail)
		return nil
	})
}

func getCampaign(ctx context.Context, u *apiuser.User, id string) (*client.CampaignDetail, error) {
	got, err := apiuser.Do(ctx, u, "", func(ctx context.Context, a *client.Session) (*client.GetCampaignResponse, error) {
		return a.GetCampaignWithResponse(ctx, id)
	})
	if err != nil {
		return nil, err
	}
	return got.JSON200, nil
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
	for cursor := ""; ; {
		page, err := apiuser.Do(ctx, u, "", func(ctx context.Context, a *client.Session) (*client.ListCampaignsResponse, error) {
			return a.ListCampaignsWithResponse(ctx, &client.ListCampaignsParams{Cursor: cursor})
		})
		if err != nil {
			return "", err
		}
		for _, s := range page.JSON200.Items {
			if s.Number == number {
				return s.ID, nil
			}
		}
		if cursor = page.JSON200.Next; cursor == "" {
			return "", campaign.Errorf(campaign.CodeNotFound, "there is no campaign %d", number)
		}
	}
}

func printCampaign(out io.Writer, d *client.CampaignDetail) {
	s, st := d.Campaign, d.Status
	fmt.Fprintf(out, "Campaign %d  %s\n", s.Number, s.Name)
	if s.Simulated {
		fmt.Fprintln(out, "  ◇ simulated: nothing leaves this machine")
	}
	fmt.Fprintf(out, "  id %s, unit %s, planner %s\n", s.ID, s.Unit, s.Planner.Name)
	fmt.Fprintf(out, "  stage %s, %s, plan revision %d\n", st.Stage, st.Hold, st.Revision)
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
	u, err := c.user(g)
	if err != nil {
		return err
	}
	id, err := findCampaign(g, u, c.Campaign)
	if err != nil {
		return err
	}
	history := &historyPrinter{user: u, campaignID: id}
	for {
		detail, err := getCampaign(g, u, id)
		if err != nil {
			return err
		}
		if err := history.printNew(g); err != nil {
			return err
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

// historyPrinter prints each event of a campaign's history once.
type historyPrinter struct {
	user       *apiuser.User
	campaignID string
	cursor     string // of the page that is not full yet
	last       int64  // newest event printed
}

func (h *historyPrinter) printNew(ctx context.Context) error {
	for {
		page, err := apiuser.Do(ctx, h.user, "", func(ctx context.Context, a *client.Session) (*client.ListHistoryResponse, error) {
			return a.ListHistoryWithResponse(ctx, h.campaignID, &client.ListHistoryParams{Cursor: h.cursor})
		})
		if err != nil {
			return err
		}
		for _, e := range page.JSON200.Items {
			if e.Seq <= h.last {
				continue
			}
			h.last = e.Seq
			printEvent(e)
		}
		if page.JSON200.Next == "" {
			return nil
		}
		h.cursor = page.JSON200.Next
	}
}

func printEvent(e client.HistoryEvent) {
	who, refused := e.Actor, ""
	if who == "" {
		who = "muster"
	}
	if !e.Allowed {
		refused = "  REFUSED"
	}
	fmt.Printf("%s  %-28s %s%s\n", e.At.Local().Format("15:04:05.000"), e.Event, who, refused)
}
