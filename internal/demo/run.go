package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/musterhq/muster/activities"
	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/apiuser"
	"github.com/musterhq/muster/internal/population"
	"github.com/musterhq/muster/internal/sim/market"
	"github.com/musterhq/muster/internal/sim/respond"
)

// Options say where and for whom the demo runs.
type Options struct {
	API        string // base address
	Population population.Kind
	Truth      market.Truth // of the market that answers for generated customers
	Out        io.Writer
	// CampaignID goes on with a campaign that was begun earlier; empty plans a new one.
	CampaignID string
}

// Result is how a demo ended.
type Result struct {
	CampaignID   string
	Number       int64
	Ended        string        // completed, unless somebody stopped it
	Took         time.Duration // from its creation until it was seen closed
	SelfApproval campaign.Code // with which the planner's own signature was refused
	Accepted     bool          // the review recommended a change, and it was accepted
	Report       activities.Report
	Replay       campaign.ReplayReport
}

// Run plans, approves, watches, reviews, evaluates and replays one campaign, as the demo
// users and through the public API alone. Calls are worked and messages answered by the
// simulators, which must be running. It fails when the campaign ends in any other way
// than by its plan, when somebody signs their own campaign, and when the replay differs.
func Run(ctx context.Context, o Options) (Result, error) {
	d := &driver{out: &printer{w: o.Out, began: time.Now()}, plan: Plan(o.Population), changes: make(chan struct{}, 1)}
	for login, user := range map[string]**apiuser.User{
		population.Planner: &d.planner, population.Manager: &d.manager, population.Finance: &d.finance,
		population.Reviewer: &d.reviewer, population.Auditor: &d.auditor,
	} {
		var err error
		if *user, err = apiuser.New(o.API, population.DemoLogin(login)); err != nil {
			return Result{}, err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begin := d.create
	if o.CampaignID != "" {
		d.result.CampaignID = o.CampaignID
		begin = d.resume
	}
	if err := begin(ctx); err != nil {
		return d.result, err
	}
	go d.planner.Watch(ctx, "campaign", d.changed)
	g, gctx := errgroup.WithContext(ctx)
	if d.plan.Measurement.Coverage == campaign.CoverageEveryone {
		g.Go(func() error {
			return respond.Run(gctx, respond.Options{
				API: o.API, Login: population.DemoLogin(population.Operator), CampaignID: d.result.CampaignID, Truth: o.Truth,
			})
		})
	}
	g.Go(func() error { return d.run(gctx) })
	if err := g.Wait(); err != nil {
		return d.result, err
	}
	return d.result, d.conclude(ctx)
}

type driver struct {
	out     *printer
	plan    campaign.Plan
	result  Result
	changes chan struct{} // something of the campaign may have changed

	planner, manager, finance, reviewer, auditor *apiuser.User

	history *apiuser.History
	told    told
}

// changed is told of live events.
func (d *driver) changed(id string) {
	if id != "" && id != d.result.CampaignID {
		return
	}
	select {
	case d.changes <- struct{}{}:
	default:
	}
}

// create makes the campaign and asks for its approval.
func (d *driver) create(ctx context.Context) error {
	created, err := apiuser.Do(ctx, d.planner, "", func(ctx context.Context, api *client.Session) (*client.CreateCampaignResponse, error) {
		return api.CreateCampaignWithResponse(ctx, nil, client.NewCampaign{Plan: d.plan})
	})
	if err != nil {
		return fmt.Errorf("create the demo campaign: %w", err)
	}
	if created.JSON201 == nil || created.JSON201.Draft == nil {
		return errors.New("create the demo campaign: the API's answer has no draft")
	}
	d.introduce(created.JSON201.Campaign)
	return d.submit(ctx, *created.JSON201.Draft)
}

// resume takes up a campaign that was begun before this process.
func (d *driver) resume(ctx context.Context) error {
	detail, err := d.look(ctx)
	if err != nil {
		return err
	}
	if detail.InForce != nil {
		d.plan = detail.InForce.Plan
	}
	d.introduce(detail.Campaign)
	if detail.Status.Stage == campaign.StageDraft || detail.Status.Stage == "" {
		return d.submit(ctx, *detail.Draft)
	}
	return d.news(ctx)
}

func (d *driver) submit(ctx context.Context, draft client.Revision) error {
	_, err := apiuser.Do(ctx, d.planner, "", func(ctx context.Context, api *client.Session) (*client.SubmitCampaignResponse, error) {
		return api.SubmitCampaignWithResponse(ctx, d.result.CampaignID, nil, client.Submission{Revision: draft.Revision, Digest: draft.Digest})
	})
	if err != nil {
		return fmt.Errorf("submit the demo campaign: %w", err)
	}
	return d.news(ctx)
}

// introduce prints what the campaign is about. The demo's clock begins with it.
func (d *driver) introduce(c client.CampaignSummary) {
	d.result.CampaignID, d.result.Number, d.out.began = c.ID, c.Number, c.CreatedAt
	p := d.plan
	total, _ := p.BudgetTotal() // the plan is valid: the API took it
	d.out.text("Campaign %d: %s (%s)", c.Number, p.Name, c.ID)
	d.out.text("SIMULATED: no message leaves this machine and nobody is called")
	d.out.text("goal %s %s worth %s %s each; budget %s %s in %d lines; %g %% control group",
		count(p.Goal.Target), p.Goal.Metric, amount(p.Goal.UnitBenefit), p.Currency, amount(total), p.Currency, len(p.Budget), p.Audience.ControlPercent)
	d.out.text("audience %s", p.Audience.Filter)
	for _, w := range p.Waves {
		d.out.text("wave %d after %d s: %s, %s", w.Number, w.StartAfter, w.Tiers[0], series(w.Channels))
	}
	d.out.text("review after %d s, to be decided within %d s", p.Review.After, p.Review.DecideWithin)
}

// run goes with the campaign until it is over.
func (d *driver) run(ctx context.Context) error {
	for {
		detail, err := d.look(ctx)
		if err != nil {
			return err
		}
		status := detail.Status
		if err := d.report(ctx, status); err != nil {
			return err
		}
		switch {
		case status.Problem != "":
			return fmt.Errorf("the campaign cannot go on: %s (%s)", status.Problem, status.ProblemCode)
		case status.Stage.Final():
			d.result.Ended, d.result.Took = status.Ended, time.Since(d.out.began)
			if status.Stage != campaign.StageClosed || status.Ended != "completed" {
				return fmt.Errorf("the campaign ended in stage %s (%s)", status.Stage, status.Ended)
			}
			return nil
		}
		acted, err := d.act(ctx, status)
		if err != nil {
			return err
		}
		if acted {
			continue
		}
		if err := d.pause(ctx); err != nil {
			return err
		}
	}
}

// pause waits for a change, and looks every second whatever happens.
func (d *driver) pause(ctx context.Context) error {
	const atMost, atLeast = time.Second, 100 * time.Millisecond
	look := time.NewTimer(atMost)
	defer look.Stop()
	select {
	case <-d.changes:
		// A bulk of changes is one change.
		look.Reset(atLeast)
		select {
		case <-look.C:
		case <-ctx.Done():
		}
	case <-look.C:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// act does what people have to do now and reports whether there was anything.
func (d *driver) act(ctx context.Context, status campaign.Status) (bool, error) {
	if level, open := status.Approval.Current(); open {
		return true, d.approve(ctx, status.Approval, level)
	}
	for _, r := range status.Reviews {
		if r.Open {
			return true, d.review(ctx, r.Number)
		}
	}
	return false, nil
}

// approve signs a level. Before the first one the planner tries to.
func (d *driver) approve(ctx context.Context, a *campaign.Approval, level campaign.ApprovalLevel) error {
	if d.result.SelfApproval == "" {
		err := d.decide(ctx, d.planner, a, level, "My own plan is fine.")
		var refused *campaign.Error
		if !errors.As(err, &refused) {
			return errors.Join(errors.New("the planner's signature under their own campaign was not refused"), err)
		}
		d.result.SelfApproval = refused.Code
		if err := d.news(ctx); err != nil {
			return err
		}
		d.out.text("the planner, who may sign as marketing manager, tried to sign their own campaign: %s", refused.Message)
	}
	signer := map[campaign.Action]*apiuser.User{
		campaign.ActApprovalManager: d.manager, campaign.ActApprovalFinance: d.finance,
	}[level.Action]
	if signer == nil {
		return fmt.Errorf("no demo user signs as %s", level.Name)
	}
	if err := d.decide(ctx, signer, a, level, "Approved for the demonstration."); err != nil {
		return fmt.Errorf("sign as %s: %w", level.Name, err)
	}
	if err := d.news(ctx); err != nil {
		return err
	}
	d.out.text("level %d of %d: %s, for %s %s", level.Level, len(a.Route), level.Name, amount(a.Amount), d.plan.Currency)
	return nil
}

func (d *driver) decide(ctx context.Context, u *apiuser.User, a *campaign.Approval, level campaign.ApprovalLevel, say string) error {
	_, err := apiuser.Do(ctx, u, "", func(ctx context.Context, api *client.Session) (*client.DecideApprovalResponse, error) {
		return api.DecideApprovalWithResponse(ctx, d.result.CampaignID, nil, client.NewDecision{
			Revision: a.Revision, Digest: a.Digest, Level: level.Level, Decision: campaign.DecisionApprove, Words: say,
		})
	})
	return err
}

// review prints the findings of an open review and accepts what it recommends.
func (d *driver) review(ctx context.Context, number int) error {
	list, err := apiuser.Do(ctx, d.reviewer, "", func(ctx context.Context, api *client.Session) (*client.ListReviewsResponse, error) {
		return api.ListReviewsWithResponse(ctx, d.result.CampaignID)
	})
	if err != nil {
		return fmt.Errorf("read the review: %w", err)
	}
	for _, r := range list.JSON200.Items {
		if r.Number != number || r.Decision != "" {
			continue
		}
		d.out.line("review %d, due in %.0f s:", r.Number, time.Until(r.DueAt).Seconds())
		if err := writeReview(d.out, r); err != nil {
			return err
		}
		decision := client.NewReviewDecision{Decision: campaign.ReviewKeep, Words: "Nothing speaks against the plan."}
		if len(r.Recommendation) > 0 {
			decision = client.NewReviewDecision{Decision: campaign.ReviewAccept, Words: "The figures are clear."}
		}
		_, err := apiuser.Do(ctx, d.reviewer, "", func(ctx context.Context, api *client.Session) (*client.DecideReviewResponse, error) {
			return api.DecideReviewWithResponse(ctx, d.result.CampaignID, number, nil, decision)
		})
		if campaign.CodeOf(err) == campaign.CodeStateConflict {
			d.out.line("review %d was decided meanwhile: %v", number, err)
			return nil
		}
		if err != nil {
			return fmt.Errorf("decide the review: %w", err)
		}
		d.result.Accepted = decision.Decision == campaign.ReviewAccept
	}
	return nil
}

func (d *driver) look(ctx context.Context) (*client.CampaignDetail, error) {
	return apiuser.Campaign(ctx, d.planner, d.result.CampaignID)
}

// conclude prints the evaluation and has the archive replayed.
func (d *driver) conclude(ctx context.Context) error {
	answer, err := apiuser.Do(ctx, d.planner, "", func(ctx context.Context, api *client.Session) (*client.GetEvaluationResponse, error) {
		return api.GetEvaluationWithResponse(ctx, d.result.CampaignID)
	})
	if err != nil {
		return fmt.Errorf("read the evaluation: %w", err)
	}
	if err := json.Unmarshal(answer.JSON200.Report, &d.result.Report); err != nil {
		return fmt.Errorf("read the evaluation: %w", err)
	}
	writeReport(d.out, d.result.Report)
	if err := d.replay(ctx); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(d.out)
	WriteReplay(d.out, d.result.Replay)
	if !d.result.Replay.OK {
		return campaign.Errorf(campaign.CodeHistoryMismatch, "the replay of the archived histories differs")
	}
	return nil
}

// replay waits for the archive, which is made once the campaign has closed.
func (d *driver) replay(ctx context.Context) error {
	for {
		answer, err := apiuser.Do(ctx, d.auditor, "", func(ctx context.Context, api *client.Session) (*client.ReplayCampaignResponse, error) {
			return api.ReplayCampaignWithResponse(ctx, d.result.CampaignID, nil)
		})
		switch {
		case campaign.CodeOf(err) == campaign.CodeNotArchived:
		case err != nil:
			return fmt.Errorf("replay: %w", err)
		default:
			d.result.Replay = *answer.JSON200
			return nil
		}
		if err := d.pause(ctx); err != nil {
			return err
		}
	}
}
