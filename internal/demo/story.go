package demo

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/apiuser"
	"github.com/musterhq/muster/internal/population"
)

// story is what one of the demo's campaigns shows.
type story struct {
	title string
	whole bool // told from the plan to the report; else its turning points
	plan  func(population.Kind) campaign.Plan
	// prepare makes what the plan rests on and puts it into the plan. It may be repeated.
	prepare func(context.Context, *cast, *campaign.Plan) error
	// object is why the first level returns the first revision; correct is the planner's
	// answer to it.
	object  *client.NewDecision
	correct func(*campaign.Plan)
}

func stories() []story {
	return []story{
		{title: "the whole course, with prepaid credit", whole: true, plan: Plan, prepare: offerCredit},
		{
			title: "returned and submitted again", plan: remindersPlan,
			object: &client.NewDecision{
				Decision: campaign.DecisionReturn, Words: "Half of the media budget is enough for so few people.",
				Fields: []campaign.FieldNote{{Field: "budget[1].amount", Words: "500.00 at most"}},
			},
			correct: func(p *campaign.Plan) { p.Budget[1].Amount = 500_00 },
		},
		{title: "inside a programme", plan: seasonPlan, prepare: openProgramme},
	}
}

// Names returns the plans' names, in the order of the stories: the whole course with
// prepaid credit; returned and submitted again; inside a programme.
func Names(of population.Kind) []string {
	var names []string
	for _, s := range stories() {
		names = append(names, s.plan(of).Name)
	}
	return names
}

// cast are the people of the demo.
type cast struct {
	planner, manager, finance, credit, owner, operator, reviewer, auditor *apiuser.User
}

func newCast(base string) (*cast, error) {
	c := &cast{}
	for login, user := range map[string]**apiuser.User{
		population.Planner: &c.planner, population.Manager: &c.manager, population.Finance: &c.finance, population.Credit: &c.credit, population.Owner: &c.owner,
		population.Operator: &c.operator,
		population.Reviewer: &c.reviewer, population.Auditor: &c.auditor,
	} {
		var err error
		if *user, err = apiuser.New(base, population.DemoLogin(login)); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// signer returns who signs levels that ask for action.
func (c *cast) signer(action campaign.Action) (*apiuser.User, bool) {
	u, ok := map[campaign.Action]*apiuser.User{
		campaign.ActApprovalManager: c.manager, campaign.ActApprovalFinance: c.finance, campaign.ActApprovalCredit: c.credit,
		campaign.ActApprovalProgramme: c.owner,
	}[action]
	return u, ok
}

// begin takes up the campaigns that have not ended and makes those that are missing, in
// the order of the stories.
func (c *cast) begin(ctx context.Context, o Options) ([]*driver, error) {
	out := newPrinter(o.Out)
	var drivers []*driver
	for n, s := range stories() {
		d := &driver{cast: c, story: s, out: out.of(n + 1), plan: s.plan(o.Population), changes: make(chan struct{}, 1)}
		open, ended, err := c.earlier(ctx, d.plan.Name)
		switch {
		case err != nil:
			return nil, err
		case open != "":
			err = d.resume(ctx, open)
		case ended > 0 && !o.Again:
			continue
		default:
			err = d.create(ctx)
		}
		if err != nil {
			return nil, err
		}
		drivers = append(drivers, d)
	}
	return drivers, nil
}

// earlier finds the campaigns of a name: the id of one that has not ended, and how many
// have.
func (c *cast) earlier(ctx context.Context, name string) (open string, ended int, err error) {
	for found, err := range apiuser.Campaigns(ctx, c.planner, name) {
		switch {
		case err != nil:
			return "", 0, err
		case found.Stage.Final():
			ended++
		default:
			open = found.ID
		}
	}
	return open, ended, nil
}

// Conclude prints what became of each campaign.
func Conclude(w io.Writer, results []Result) {
	slices.SortFunc(results, func(a, b Result) int { return int(a.Number - b.Number) })
	_, _ = fmt.Fprintln(w)
	for _, r := range results {
		_, _ = fmt.Fprintf(w, "Campaign %d closed after %.0f s: %s. Spent %s of %s %s. Replay it yourself: muster replay %d\n", r.Number, r.Took.Seconds(), r.Name,
			amount(r.Report.Budget.Total.Actual), amount(r.Report.Budget.Total.Planned), r.Report.Currency, r.Number)
	}
	_, _ = fmt.Fprintln(w, "Run them again: muster demo --again")
}
