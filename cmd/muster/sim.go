package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/apiuser"
	"github.com/musterhq/muster/internal/config"
	"github.com/musterhq/muster/internal/population"
	"github.com/musterhq/muster/internal/sim/callcentre"
	"github.com/musterhq/muster/internal/sim/market"
	"github.com/musterhq/muster/internal/sim/respond"
	"github.com/musterhq/muster/internal/sim/smsc"
)

type simCommand struct {
	SMSC       simSMSC       `cmd:"" name:"smsc" help:"An SMS centre that speaks SMPP 3.4: accepts, delays, refuses, sends receipts."`
	Callcentre simCallcentre `cmd:"" help:"A call centre whose agents claim and complete call tasks through the public API."`
	Market     simMarket     `cmd:"" help:"A market with a known ground truth that answers for every target of a campaign."`
}

type simSMSC struct {
	Listen       string     `default:"127.0.0.1:2775" help:"Address to listen on."`
	SystemID     string     `default:"muster" help:"System id that clients must give."`
	Password     string     `default:"muster" help:"Password that clients must give."`
	Journal      string     `default:"smsc.jsonl" help:"File to which each accepted message is appended." type:"path"`
	AckDelay     smsc.Range `default:"1ms-5ms" help:"Time from a submit to its answer."`
	ReceiptDelay smsc.Range `default:"200ms-1500ms" help:"Time from acceptance to the delivery receipt."`
	Refused      float64    `default:"0.01" help:"Share of numbers refused for good."`
	Throttled    float64    `default:"0.01" help:"Share of submits refused for the moment."`
	LostAcks     float64    `default:"0" help:"Share of messages accepted but never answered."`
	Failed       float64    `default:"0.04" help:"Share of accepted messages whose receipt says failed."`
	Expired      float64    `default:"0.01" help:"Share of accepted messages whose receipt says expired."`
	Repeated     float64    `default:"0.02" help:"Share of receipts sent twice."`
	Seed         uint64     `default:"1" help:"Seed of all shares."`
}

// Run serves until Ctrl-C.
func (c *simSMSC) Run(g *globals) error {
	server, err := smsc.Start(g, smsc.Options{
		Addr: c.Listen, SystemID: c.SystemID, Password: c.Password, Journal: c.Journal, AckDelay: c.AckDelay, ReceiptDelay: c.ReceiptDelay,
		Refused: c.Refused, Throttled: c.Throttled, LostAcks: c.LostAcks, Failed: c.Failed, Expired: c.Expired, RepeatedReceipts: c.Repeated,
		Seed: c.Seed, Log: g.log,
	})
	if err != nil {
		return err
	}
	fmt.Printf("Simulated SMS centre on %s, journal %s. Nothing is sent to anybody.\n", server.Addr(), c.Journal)
	<-g.Done()
	server.Stop()
	return nil
}

type simCallcentre struct {
	config.API
	Agents  int           `default:"8" help:"Agents who work side by side."`
	Logins  []string      `help:"Logins of the agents as login:password. Default: the demo's agents." placeholder:"LOGIN:PASSWORD"`
	Answers string        `enum:"bank,operator" default:"bank" help:"Who answers: bank (the recorded calls) or operator (a market with a known truth)."`
	Truth   string        `help:"File with the market's truth, as JSON. Default: a built-in one." placeholder:"FILE" type:"existingfile"`
	PickUp  float64       `default:"0.6" help:"With --answers=operator: share of attempts that are picked up."`
	Data    string        `env:"MUSTER_DATA" help:"Folder with the bank data." placeholder:"DIR" type:"path"`
	Cache   string        `help:"Folder in which fetched data are kept. Default: datasets in the data folder." placeholder:"DIR" type:"path"`
	Talk    time.Duration `default:"0s" help:"Length of a connected call; 0 is as fast as the API."`
}

// Run works tasks until Ctrl-C.
func (c *simCallcentre) Run(g *globals) error {
	base, err := c.base(g)
	if err != nil {
		return err
	}
	answer, err := c.answerer(g)
	if err != nil {
		return err
	}
	logins, err := c.agents()
	if err != nil {
		return err
	}
	fmt.Printf("Simulated call centre of %d agents at %s. Nobody is called.\n", c.Agents, base)
	return callcentre.Run(patient(g, longPatience), callcentre.Options{
		API: base, Logins: logins, Agents: c.Agents, Answer: answer, Talk: c.Talk,
		Progress: func(n callcentre.Counts) { fmt.Println(n) },
	})
}

func (c *simCallcentre) base(g *globals) (string, error) {
	if c.API.API != "" {
		return c.API.API, nil
	}
	running, err := config.LoadInstance(g.dir)
	return running.API, err
}

func (c *simCallcentre) answerer(g *globals) (callcentre.Answerer, error) {
	truth, err := readTruth(c.Truth)
	if err != nil {
		return nil, err
	}
	anybody, err := callcentre.Market(truth, c.PickUp)
	if err != nil || c.Answers == "operator" {
		return anybody, err
	}
	cache := c.Cache
	if cache == "" {
		cache = filepath.Join(g.dir, "datasets")
	}
	bank, err := population.RecordedCalls(g, population.Options{DataDir: c.Data, CacheDir: cache})
	if err != nil {
		return nil, err
	}
	return callcentre.FirstOf(callcentre.Recorded(bank), anybody), nil
}

func (c *simCallcentre) agents() ([]apiuser.Login, error) {
	var logins []apiuser.Login
	for _, pair := range c.Logins {
		login, password, ok := strings.Cut(pair, ":")
		if !ok {
			return nil, campaign.Errorf(campaign.CodeInvalidParameter, "--logins takes login:password")
		}
		logins = append(logins, apiuser.Login{Login: login, Password: password})
	}
	if len(logins) > 0 {
		return logins, nil
	}
	return population.AgentLogins(), nil
}

// readTruth reads a market's truth, or gives the built-in one when no file is named.
func readTruth(file string) (market.Truth, error) {
	if file == "" {
		return market.Default(), nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return market.Truth{}, fmt.Errorf("read the market's truth: %w", err)
	}
	return market.ParseTruth(text)
}

type simMarket struct {
	caller
	Campaign string `arg:"" help:"Number or id of a simulated campaign whose plan observes outcomes of everyone."`
	Truth    string `help:"File with the market's truth, as JSON. Default: a built-in one." placeholder:"FILE" type:"existingfile"`
}

// Run answers for every target of the campaign, treated and control, until it ends.
func (c *simMarket) Run(g *globals) error {
	truth, err := readTruth(c.Truth)
	if err != nil {
		return err
	}
	u, err := c.user(g, population.Operator)
	if err != nil {
		return err
	}
	ctx := patient(g, longPatience)
	id, err := findCampaign(ctx, u, c.Campaign)
	if err != nil {
		return err
	}
	detail, err := apiuser.Campaign(ctx, u, id)
	if err != nil {
		return err
	}
	if err := respond.Concerns(detail); err != nil {
		return err
	}
	fmt.Printf("Simulated market: while campaign %d runs, its customers answer, contacted or held out, as a known truth says. Nobody is asked.\n",
		detail.Campaign.Number)
	var last respond.Counts
	err = respond.Run(ctx, respond.Options{
		API: c.API.API, Login: c.login(), CampaignID: id, Truth: truth,
		Progress: func(n respond.Counts) { last = n; fmt.Println(n) },
	})
	if err == nil && last.Posted == 0 {
		fmt.Println("The campaign is over, and nobody answered in this run.")
	}
	return err
}
