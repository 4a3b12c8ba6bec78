// Package callcentre simulates a call centre: agents that log in to Muster's public
// API, claim call tasks, "call" and report what a known source of answers says. Nobody
// is called. It works the tasks of simulated campaigns only and leaves others to people:
// it lets them lie until their leases end.
//
// The API may go away and come back at any time. A batch of reports is repeated under
// the same idempotency key until it is answered, so no attempt counts twice.
package callcentre

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/apiuser"
)

// Options say who works and how. API, Logins and Answer are needed.
type Options struct {
	API    string          // base address of the API
	Logins []apiuser.Login // agents take turns with them
	Agents int             // DefaultAgents unless told; they work side by side
	Answer Answerer
	// CampaignID keeps to one campaign; empty means all that the agents may see.
	CampaignID string
	// Talk is how long a connected call takes. With 0 an agent is as fast as the API.
	Talk time.Duration
	// Batch is how many tasks an agent claims at once, at most 200: DefaultBatch unless
	// told, and never more than can be talked through in half a lease.
	Batch int
	// Idle is the first pause of an agent who found no task: DefaultIdle unless told. It
	// doubles while there is none.
	Idle time.Duration
	// Progress is told the counts about once a second while they change.
	Progress func(Counts)
}

// The defaults.
const (
	DefaultAgents = 8
	DefaultBatch  = 50
	DefaultIdle   = 250 * time.Millisecond

	mostClaimed = 200 // the API's limit
	// Agents without work ask ever more rarely.
	longestIdle = 4 * time.Second
	lease       = 2 * time.Minute
	// goodbye is how long reports of calls that were made may take after the end.
	goodbye = 5 * time.Second
)

// Counts is what the agents did so far.
type Counts struct {
	Claimed  int64 // attempts taken on
	Worked   int64 // attempts reported and counted by the API
	NoAnswer int64 // of those, nobody answered
	Ordered  int64 // of those, the customer ordered
	Declined int64 // of those, the customer declined
	Lost     int64 // reports that came after the task had gone to somebody else or had ended
	Retries  int64 // requests sent again
}

// String gives one line for a terminal.
func (c Counts) String() string {
	return fmt.Sprintf("simulated call centre: %d attempts, %d ordered, %d declined, %d no answer", c.Worked, c.Ordered, c.Declined, c.NoAnswer)
}

type counters struct {
	claimed, worked, noAnswer, ordered, declined, lost atomic.Int64
}

// Run works until ctx ends, and then returns nil after reporting the calls made. It
// fails when the API refuses the agents, and when nothing is known of a customer.
func Run(ctx context.Context, o Options) error {
	o, err := o.withDefaults()
	if err != nil {
		return err
	}
	var count counters
	var left sync.Map
	users := make([]*apiuser.User, o.Agents)
	for i := range users {
		if users[i], err = apiuser.New(o.API, o.Logins[i%len(o.Logins)]); err != nil {
			return err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, u := range users {
		g.Go(func() error { return (&agent{Options: o, user: u, count: &count, left: &left}).work(gctx) })
	}
	stop := make(chan struct{})
	reported := make(chan struct{})
	go func() {
		defer close(reported)
		count.report(o.Progress, users, stop)
	}()
	err = g.Wait()
	close(stop)
	<-reported
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

func (o Options) withDefaults() (Options, error) {
	switch {
	case o.API == "":
		return o, errors.New("callcentre: the address of the API is missing")
	case len(o.Logins) == 0:
		return o, errors.New("callcentre: nobody is there to log in")
	case o.Answer == nil:
		return o, errors.New("callcentre: there is no source of answers")
	case o.Agents < 0 || o.Batch < 0 || o.Batch > mostClaimed || o.Talk < 0 || o.Idle < 0:
		return o, fmt.Errorf("callcentre: agents, batch (at most %d), talk time and idle time must not be negative", mostClaimed)
	}
	if o.Agents == 0 {
		o.Agents = DefaultAgents
	}
	if o.Batch == 0 {
		o.Batch = DefaultBatch
	}
	if o.Idle == 0 {
		o.Idle = DefaultIdle
	}
	if o.Talk > lease/2 {
		return o, fmt.Errorf("callcentre: a call may take at most %s", lease/2)
	}
	if o.Talk > 0 {
		o.Batch = min(o.Batch, int(lease/2/o.Talk))
	}
	return o, nil
}

// report tells progress at each second in which something changed, and at the end.
func (c *counters) report(tell func(Counts), users []*apiuser.User, stop <-chan struct{}) {
	if tell == nil {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last Counts
	for {
		ended := false
		select {
		case <-tick.C:
		case <-stop:
			ended = true
		}
		now := c.read(users)
		if now != last {
			tell(now)
			last = now
		}
		if ended {
			return
		}
	}
}

func (c *counters) read(users []*apiuser.User) Counts {
	n := Counts{
		Claimed: c.claimed.Load(), Worked: c.worked.Load(), NoAnswer: c.noAnswer.Load(), Ordered: c.ordered.Load(),
		Declined: c.declined.Load(), Lost: c.lost.Load(),
	}
	for _, u := range users {
		n.Retries += u.Retries()
	}
	return n
}

type agent struct {
	Options
	user  *apiuser.User
	count *counters
	left  *sync.Map // ids of campaigns that are left to people, and were told of
}

func (a *agent) work(ctx context.Context) error {
	idle := a.Idle
	for ctx.Err() == nil {
		claimed, err := a.claim(ctx)
		if err != nil {
			return err
		}
		tasks := a.simulated(ctx, claimed)
		if len(tasks) == 0 {
			if !pause(ctx, idle) {
				break
			}
			idle = min(2*idle, max(a.Idle, longestIdle))
			continue
		}
		idle = a.Idle
		reports, err := a.call(ctx, tasks)
		if len(reports) > 0 {
			if e := a.complete(ctx, tasks[:len(reports)], reports); e != nil {
				return e
			}
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// claim takes tasks. A repetition gets the same ones.
func (a *agent) claim(ctx context.Context) ([]client.Task, error) {
	answer, err := apiuser.Do(ctx, a.user, "", func(ctx context.Context, api *client.Session) (*client.ClaimTasksResponse, error) {
		return api.ClaimTasksWithResponse(ctx, nil, client.TaskClaim{
			Channel: campaign.ChannelCall, Limit: a.Batch, LeaseSeconds: int(lease.Seconds()), CampaignID: a.CampaignID,
		})
	})
	if err != nil {
		return nil, fmt.Errorf("claim tasks: %w", err)
	}
	if answer.JSON200 == nil {
		return nil, errors.New("claim tasks: the API's answer is not a list of tasks")
	}
	a.count.claimed.Add(int64(len(answer.JSON200.Items)))
	return answer.JSON200.Items, nil
}

// simulated keeps the tasks of simulated campaigns, and warns once of each other campaign.
func (a *agent) simulated(ctx context.Context, tasks []client.Task) []client.Task {
	return slices.DeleteFunc(tasks, func(t client.Task) bool {
		if t.Simulated {
			return false
		}
		if _, told := a.left.LoadOrStore(t.CampaignID, true); !told {
			slog.WarnContext(ctx, "this campaign is not simulated: a simulated call centre leaves its tasks to people",
				"campaign", t.Campaign, "campaign_id", t.CampaignID)
		}
		return true
	})
}

// call makes the calls of tasks in order and returns the reports of those it made: all,
// unless ctx ends meanwhile or one cannot be made.
func (a *agent) call(ctx context.Context, tasks []client.Task) ([]client.NamedTaskReport, error) {
	reports := make([]client.NamedTaskReport, 0, len(tasks))
	for _, t := range tasks {
		c, known, err := a.Answer(t)
		if err != nil {
			return reports, err
		}
		if !known {
			return reports, fmt.Errorf("nothing is known of how customer %s answers", t.Customer.ExternalID)
		}
		r := client.NamedTaskReport{TaskID: t.ID, Result: campaign.OutcomeNoAnswer, Note: "simulated call"}
		if c.Outcome != campaign.OutcomeNoAnswer {
			r.Result, r.CallSeconds = campaign.OutcomeConnected, c.Seconds
			r.Outcomes = []client.TaskOutcome{{Kind: c.Outcome}}
			if a.Talk > 0 && !pause(ctx, a.Talk) {
				return reports, nil
			}
		}
		reports = append(reports, r)
	}
	return reports, nil
}

// complete reports calls that were made, also when the end has come meanwhile.
func (a *agent) complete(ctx context.Context, tasks []client.Task, reports []client.NamedTaskReport) error {
	ctx, cancel := outlive(ctx, goodbye)
	defer cancel()
	return a.report(ctx, tasks, reports)
}

func (a *agent) report(ctx context.Context, tasks []client.Task, reports []client.NamedTaskReport) error {
	answer, err := apiuser.Do(ctx, a.user, reportKey(tasks), func(ctx context.Context, api *client.Session) (*client.CompleteTasksResponse, error) {
		return api.CompleteTasksWithResponse(ctx, nil, client.TaskReportBatch{Reports: reports})
	})
	if err != nil {
		if campaign.CodeOf(err) != campaign.CodeStateConflict {
			return fmt.Errorf("report calls: %w", err)
		}
		// The campaign ended some of these contacts while they were called.
		if len(tasks) == 1 {
			a.count.lost.Add(1)
			return nil
		}
		half := len(tasks) / 2
		if err := a.report(ctx, tasks[:half], reports[:half]); err != nil {
			return err
		}
		return a.report(ctx, tasks[half:], reports[half:])
	}
	if answer.JSON200 == nil || len(answer.JSON200.Items) != len(reports) {
		return errors.New("report calls: the API did not answer to each report")
	}
	for i, result := range answer.JSON200.Items {
		if result.Fault != nil {
			slog.DebugContext(ctx, "a report did not count", "task", result.TaskID, "code", result.Fault.Code)
			a.count.lost.Add(1)
			continue
		}
		a.count.worked.Add(1)
		switch outcomeOf(reports[i]) {
		case campaign.OutcomeOrdered:
			a.count.ordered.Add(1)
		case campaign.OutcomeDeclined:
			a.count.declined.Add(1)
		default:
			a.count.noAnswer.Add(1)
		}
	}
	return nil
}

func outcomeOf(r client.NamedTaskReport) campaign.OutcomeKind {
	if len(r.Outcomes) == 0 {
		return r.Result
	}
	return r.Outcomes[0].Kind
}

// reportKey names the attempts that a batch reports, as they were claimed: the same for
// each repetition, another when the tasks had to be claimed anew.
func reportKey(tasks []client.Task) string {
	h := sha256.New()
	for _, t := range tasks {
		_, _ = fmt.Fprintf(h, "%s/%d/%d\n", t.ID, t.Attempt, t.LeaseUntil.UnixMicro())
	}
	return "calls:" + hex.EncodeToString(h.Sum(nil))
}

// outlive returns a context that ends a while after ctx does.
func outlive(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(by, cancel) })
	return longer, func() { stop(); cancel() }
}

// pause waits and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
