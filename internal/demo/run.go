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
	Again      bool // make new campaigns although all were run before
}

// Result is how one of the demo's campaigns ended.
type Result struct {
	CampaignID   string
	Number       int64
	Name         string
	Ended        string        // completed, unless somebody stopped it
	Took         time.Duration // from its creation until it was seen closed
	SelfApproval campaign.Code // with which the planner's own signature was refused
	Accepted     bool          // the review recommended a change, and it was accepted
	Report       activities.Report
	Replay       campaign.ReplayReport
}

// Run takes the demo's campaigns from their plans to their replays, side by side, as the
// demo users and through the public API alone. Campaigns that were begun earlier are
// taken up; when all have ended it does nothing, unless asked to run them again. Calls
// are worked and messages answered by the simulators, which must be running. It fails
// when a campaign ends in any other way than by its plan, when somebody signs their own
// campaign, and when a replay differs.
func Run(ctx context.Context, o Options) ([]Result, error) {
	c, err := newCast(o.API)
	if err != nil {
		return nil, err
	}
	drivers, err := c.begin(ctx, o)
	if err != nil {
		return nil, err
	}
	results := make([]Result, len(drivers))
	g, gctx := errgroup.WithContext(ctx)
	for i, d := range drivers {
		g.Go(func() error {
			err := d.play(gctx, o)
			results[i] = d.result
			if err != nil {
				return fmt.Errorf("%s: %w", d.plan.Name, err)
			}
			return nil
		})
	}
	return results, g.Wait()
}

// driver goes with one campaign.
type driver struct {
	*cast
	story   story
	out     *printer
	plan    campaign.Plan
	result  Result
	changes chan struct{} // something of the campaign may have changed

	created time.Time
	used    bool // some credit, once
	history *apiuser.History
	told    told
}

// play is the campaign's whole course.
func (d *driver) play(ctx context.Context, o Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go d.planner.Watch(ctx, "campaign", d.changed)
	if err := d.news(ctx); err != nil {
		return err
	}
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
		return err
	}
	return d.conclude(ctx)
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

// create makes the campaign and what it rests on.
func (d *driver) create(ctx context.Context) error {
	if d.story.prepare != nil {
		if err := d.story.prepare(ctx, d.cast, &d.plan); err != nil {
			return err
		}
	}
	created, err := apiuser.Do(ctx, d.planner, "", func(ctx context.Context, api *client.Session) (*client.CreateCampaignResponse, error) {
		return api.CreateCampaignWithResponse(ctx, nil, client.NewCampaign{Plan: d.plan})
	})
	if err != nil {
		return fmt.Errorf("create the demo campaign: %w", err)
	}
	d.introduce(created.JSON201.Campaign)
	return nil
}

// resume takes up a campaign that was begun before this process.
func (d *driver) resume(ctx context.Context, id string) error {
	d.result.CampaignID = id
	detail, err := d.look(ctx)
	if err != nil {
		return err
	}
	switch {
	case detail.InForce != nil:
		d.plan = detail.InForce.Plan
	case detail.Draft != nil:
		d.plan = detail.Draft.Plan
	}
	d.out.text("Going on with campaign %d, begun earlier", detail.Campaign.Number)
	d.introduce(detail.Campaign)
	return nil
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

// correct writes the draft as the approver who returned it wants it.
func (d *driver) correct(ctx context.Context, draft client.Revision) error {
	plan := draft.Plan
	d.story.correct(&plan)
	_, err := apiuser.Do(ctx, d.planner, "", func(ctx context.Context, api *client.Session) (*client.PutPlanResponse, error) {
		return api.PutPlanWithResponse(ctx, d.result.CampaignID, &client.PutPlanParams{IfMatch: draft.Etag}, plan)
	})
	if err != nil {
		return fmt.Errorf("correct the plan: %w", err)
	}
	return d.news(ctx)
}

// introduce prints what the campaign is about.
func (d *driver) introduce(c client.CampaignSummary) {
	d.result.CampaignID, d.result.Number, d.result.Name, d.created = c.ID, c.Number, d.plan.Name, c.CreatedAt
	p := d.plan
	total, _ := p.BudgetTotal() // the plan is valid: the API took it
	d.out.text("Campaign %d, %s: %s (%s)", c.Number, d.story.title, p.Name, c.ID)
	if !d.story.whole {
		d.out.text("budget %s %s, audience %s", amount(total), p.Currency, p.Audience.Filter)
		return
	}
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
			d.result.Ended, d.result.Took = status.Ended, time.Since(d.created)
			if status.Stage != campaign.StageClosed || status.Ended != "completed" {
				return fmt.Errorf("the campaign ended in stage %s (%s)", status.Stage, status.Ended)
			}
			return nil
		}
		acted, err := d.act(ctx, detail)
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
func (d *driver) act(ctx context.Context, detail *client.CampaignDetail) (bool, error) {
	status := detail.Status
	if status.Stage == "" || status.Stage == campaign.StageDraft {
		last, draft := status.Approval, *detail.Draft
		if last != nil && last.Result == campaign.ApprovalReturned && last.Revision == draft.Revision {
			return true, d.correct(ctx, draft)
		}
		return true, d.submit(ctx, draft)
	}
	if level, open := status.Approval.Current(); open {
		return true, d.approve(ctx, status.Approval, level)
	}
	for _, r := range status.Reviews {
		if r.Open {
			return true, d.review(ctx, r.Number)
		}
	}
	if last := len(status.Waves) - 1; !d.used && hasCredit(d.plan) && last >= 0 && status.Waves[last].Begun {
		d.used = true
		return true, d.useCredit(ctx)
	}
	return false, nil
}

// approve signs a level. Before the first one of the whole story the planner tries to;
// a story with an objection returns its first revision.
func (d *driver) approve(ctx context.Context, a *campaign.Approval, level campaign.ApprovalLevel) error {
	if d.story.whole && d.result.SelfApproval == "" {
		if err := d.refuse(ctx, a, level); err != nil {
			return err
		}
	}
	signer, known := d.signer(level.Action)
	if !known {
		return fmt.Errorf("no demo user signs as %s", level.Name)
	}
	decision := client.NewDecision{Decision: campaign.DecisionApprove, Words: "Approved for the demonstration."}
	if d.story.object != nil && a.Revision == 1 {
		decision = *d.story.object
	}
	if err := d.decide(ctx, signer, a, level, decision); err != nil {
		return fmt.Errorf("decide as %s: %w", level.Name, err)
	}
	if err := d.news(ctx); err != nil {
		return err
	}
	d.out.text("level %d of %d: %s, for %s %s", level.Level, len(a.Route), level.Name, amount(a.AmountOf(level)), d.plan.Currency)
	for _, t := range a.Together {
		if level.Level == 1 {
			d.out.text("counted together with campaign %d: %s", t.Number, words(string(t.Why)))
		}
	}
	for _, f := range decision.Fields {
		d.out.text("%s: %s", f.Field, f.Words)
	}
	return nil
}

// refuse has the planner try to sign, and fails when nobody stops them.
func (d *driver) refuse(ctx context.Context, a *campaign.Approval, level campaign.ApprovalLevel) error {
	err := d.decide(ctx, d.planner, a, level, client.NewDecision{Decision: campaign.DecisionApprove, Words: "My own plan is fine."})
	var refused *campaign.Error
	if !errors.As(err, &refused) {
		return errors.Join(errors.New("the planner's signature under their own campaign was not refused"), err)
	}
	d.result.SelfApproval = refused.Code
	if err := d.news(ctx); err != nil {
		return err
	}
	d.out.text("the planner, who may sign as marketing manager, tried to sign their own campaign: %s", refused.Message)
	return nil
}

func (d *driver) decide(ctx context.Context, u *apiuser.User, a *campaign.Approval, level campaign.ApprovalLevel, n client.NewDecision) error {
	n.Revision, n.Digest, n.Level = a.Revision, a.Digest, level.Level
	_, err := apiuser.Do(ctx, u, "", func(ctx context.Context, api *client.Session) (*client.DecideApprovalResponse, error) {
		return api.DecideApprovalWithResponse(ctx, d.result.CampaignID, nil, n)
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
		if d.story.whole {
			d.out.line("review %d, due in %.0f s:", r.Number, time.Until(r.DueAt).Seconds())
			if err := writeReview(d.out, r); err != nil {
				return err
			}
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
	if err := d.replay(ctx); err != nil {
		return err
	}
	if d.story.whole {
		writeReport(d.out, d.result.Report)
		_, _ = fmt.Fprintln(d.out)
		WriteReplay(d.out, d.result.Replay)
	}
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
