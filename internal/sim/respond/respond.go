// Package respond makes simulated customers answer a campaign whose outcomes are seen
// for everybody: it asks a market with a known ground truth about every target, treated
// or held out, and posts the successes through the public API, each once. So an
// evaluation can be checked against the truth.
package respond

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/apiuser"
	"github.com/musterhq/muster/internal/sim/market"
)

// Source is the source of every outcome that this package posts. The source's own id of
// an outcome is customer:campaign.
const Source = "market-simulator"

// Options say which campaign is answered and how. API, Login and CampaignID are needed.
type Options struct {
	API        string
	Login      apiuser.Login // may read targets and contacts, and record outcomes
	CampaignID string
	Truth      market.Truth  // market.Default unless told
	Interval   time.Duration // between two looks at the campaign: DefaultInterval unless told
	Progress   func(Counts)  // is told the counts after each round that changed them
}

// DefaultInterval is the time between two looks.
const DefaultInterval = 2 * time.Second

// Counts is what was posted so far.
type Counts struct {
	Targets int // known: both arms
	Posted  int // successes posted
	Control int // of those, in the control group
}

// String gives one line for a terminal.
func (c Counts) String() string {
	return fmt.Sprintf("simulated market: %d of %d targets answered, %d of them held out", c.Posted, c.Targets, c.Control)
}

// Run answers until the campaign is over, or ctx ends. A customer who responds does so
// after the market's delay; whose delay is longer than the campaign responds when it is
// being settled. It fails when the campaign is not simulated, when its outcomes are not
// seen for everybody, and when the API refuses.
func Run(ctx context.Context, o Options) error {
	if o.Interval == 0 {
		o.Interval = DefaultInterval
	}
	if len(o.Truth.BaseRate) == 0 {
		o.Truth = market.Default()
	}
	m, err := market.New(o.Truth, o.CampaignID)
	if err != nil {
		return err
	}
	u, err := apiuser.New(o.API, o.Login)
	if err != nil {
		return err
	}
	r := &runner{Options: o, market: m, user: u, posted: map[string]bool{}}
	for {
		over, took, err := r.look(ctx)
		if err != nil || over {
			return err
		}
		// A large campaign takes long to read: most of the time is left to others.
		t := time.NewTimer(max(o.Interval, 4*took))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

type runner struct {
	Options
	market  *market.Market
	user    *apiuser.User
	goal    campaign.OutcomeKind
	began   time.Time // when the targets were first seen
	targets []client.Target
	posted  map[string]bool // customer ids
	control int
}

// look does what the campaign's stage calls for. took is 0 when something must not wait.
func (r *runner) look(ctx context.Context) (over bool, took time.Duration, err error) {
	began := time.Now()
	detail, err := apiuser.Campaign(ctx, r.user, r.CampaignID)
	if err != nil {
		return false, 0, err
	}
	if err := Concerns(detail); err != nil {
		return false, 0, err
	}
	stage := detail.Status.Stage
	switch {
	case stage.Final(), stage == campaign.StageEvaluation:
		return true, 0, nil
	case stage != campaign.StageRunning && stage != campaign.StageSettlement:
		return false, 0, nil
	}
	if err := r.begin(ctx, detail); err != nil {
		return false, 0, err
	}
	before := len(r.posted)
	if err := r.answer(ctx, stage == campaign.StageSettlement); err != nil {
		return false, 0, err
	}
	if r.Progress != nil && len(r.posted) != before {
		r.Progress(Counts{Targets: len(r.targets), Posted: len(r.posted), Control: r.control})
	}
	return false, time.Since(began), nil
}

// Concerns fails, in plain words, when a market has nothing to answer in a campaign,
// whatever stage it is in.
func Concerns(detail *client.CampaignDetail) error {
	plan := detail.InForce
	if plan == nil {
		plan = detail.Draft
	}
	switch {
	case plan == nil:
		return nil
	case !plan.Plan.Simulated:
		return campaign.Errorf(campaign.CodeStateConflict, "campaign %q is not simulated: its outcomes come from people", plan.Plan.Name)
	case plan.Plan.Measurement.Coverage != campaign.CoverageEveryone:
		return campaign.Errorf(campaign.CodeStateConflict,
			"campaign %q observes outcomes of contacted customers only, as their calls report them, so a market has nothing to answer in it: "+
				"it answers campaigns whose measurement covers everyone", plan.Plan.Name)
	}
	return nil
}

// begin reads the plan and the frozen targets, once.
func (r *runner) begin(ctx context.Context, detail *client.CampaignDetail) error {
	if r.targets != nil {
		return nil
	}
	if detail.InForce == nil {
		return errors.New("the campaign runs without a plan in force")
	}
	r.goal, r.began = detail.InForce.Plan.Goal.Outcome, time.Now()
	var err error
	r.targets, err = r.members(ctx)
	return err
}

// answer posts the successes that are due, and in the end those that would be later.
func (r *runner) answer(ctx context.Context, ending bool) error {
	reached, err := r.reached(ctx)
	if err != nil {
		return err
	}
	var batch []client.NewOutcome
	var control int
	flush := func() error {
		if err := r.post(ctx, batch); err != nil {
			return err
		}
		r.control += control
		batch, control = batch[:0], 0
		return nil
	}
	now := time.Now()
	for _, t := range r.targets {
		if r.posted[t.CustomerID] {
			continue
		}
		touch, since := reached[t.CustomerID], r.began
		if len(touch.channels) > 0 {
			since = touch.first
		}
		a, err := r.market.Responds(t.CustomerID, string(t.Tier), touch.channels)
		if err != nil {
			return err
		}
		due := since.Add(a.After)
		if !a.Responds || due.After(now) && !ending {
			continue
		}
		if due.After(now) {
			due = now
		}
		batch = append(batch, client.NewOutcome{
			CustomerID: t.CustomerID, Kind: r.goal, At: due, Source: Source, SourceID: t.CustomerID + ":" + r.CampaignID,
		})
		if t.Arm == campaign.ArmControl {
			control++
		}
		if len(batch) == postAtOnce {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

const postAtOnce = 500 // the API takes 1,000

// post lands a batch. Its key follows from whose outcomes they are; and whatever the
// key, the source's id makes each land once.
func (r *runner) post(ctx context.Context, batch []client.NewOutcome) error {
	if len(batch) == 0 {
		return nil
	}
	h := sha256.New()
	for _, o := range batch {
		_, _ = fmt.Fprintf(h, "%s %d\n", o.SourceID, o.At.UnixNano())
	}
	key := "market:" + hex.EncodeToString(h.Sum(nil))
	answer, err := apiuser.Do(ctx, r.user, key, func(ctx context.Context, api *client.Session) (*client.RecordOutcomesResponse, error) {
		return api.RecordOutcomesWithResponse(ctx, nil, client.OutcomeBatch{CampaignID: r.CampaignID, Outcomes: batch})
	})
	if err != nil {
		return fmt.Errorf("post outcomes: %w", err)
	}
	if faults := answer.JSON200.Faults; len(faults) > 0 {
		return fmt.Errorf("post outcomes: %s %s", faults[0].Field, faults[0].Message)
	}
	for _, o := range batch {
		r.posted[o.CustomerID] = true
	}
	return nil
}

// touch is how a customer was reached so far.
type touch struct {
	channels []string
	first    time.Time
}

// reached reads which channels reached whom: a call that connected, a message that was
// delivered or, where no receipt has come yet, accepted.
func (r *runner) reached(ctx context.Context) (map[string]touch, error) {
	all := map[string]touch{}
	for _, state := range []campaign.ContactState{campaign.ContactSent, campaign.ContactDelivered} {
		for cursor := ""; ; {
			answer, err := apiuser.Do(ctx, r.user, "", func(ctx context.Context, api *client.Session) (*client.ListContactsResponse, error) {
				return api.ListContactsWithResponse(ctx, r.CampaignID, &client.ListContactsParams{State: state, Cursor: cursor, Limit: pageSize})
			})
			if err != nil {
				return nil, fmt.Errorf("read contacts: %w", err)
			}
			for _, c := range answer.JSON200.Items {
				t := all[c.CustomerID]
				if !slices.Contains(t.channels, string(c.Channel)) {
					t.channels = append(t.channels, string(c.Channel))
				}
				if t.first.IsZero() || c.UpdatedAt.Before(t.first) {
					t.first = c.UpdatedAt
				}
				all[c.CustomerID] = t
			}
			if cursor = answer.JSON200.Next; cursor == "" {
				break
			}
		}
	}
	return all, nil
}

const pageSize = 200 // the API's limit
