package activities

import (
	"context"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/evaluation"
	"github.com/musterhq/muster/ledger"
	"github.com/musterhq/muster/store"
)

// Report is the final evaluation of a campaign; it is kept as JSON. Amounts are minor
// units of Currency.
type Report struct {
	Name      string       `json:"name"`
	Simulated bool         `json:"simulated"` // nothing left the machine and nobody was contacted
	Currency  string       `json:"currency"`
	Source    string       `json:"source"` // where outcomes come from
	Goal      GoalReport   `json:"goal"`
	Budget    BudgetReport `json:"budget"`
	// Credit is the prepaid credit of each line that gives some. What is promised is granted
	// after this report: it stays committed, and no part of what was spent.
	Credit    []campaign.CreditFigures `json:"credit,omitempty"`
	Targets   TargetReport             `json:"targets"`
	Funnel    FunnelReport             `json:"funnel"`
	Outcomes  map[string]int64         `json:"outcomes"` // recorded, by kind
	Control   ControlReport            `json:"control"`
	Economics evaluation.Economics     `json:"economics"`
}

// GoalReport sets the goal against what was reached.
type GoalReport struct {
	Metric      string               `json:"metric"`
	Outcome     campaign.OutcomeKind `json:"outcome"`
	Target      int64                `json:"target"`
	Actual      int64                `json:"actual"` // treated customers with the outcome
	Reached     bool                 `json:"reached"`
	UnitBenefit int64                `json:"unit_benefit"`
}

// BudgetReport sets the budget against what was spent, line by line.
type BudgetReport struct {
	Lines []evaluation.BudgetResult `json:"lines"`
	Total evaluation.BudgetResult   `json:"total"`
	// Exceeded is what the lines cost beyond their ceilings; the ledger captured none of it.
	Exceeded map[string]int64 `json:"exceeded,omitempty"`
}

// TargetReport puts every frozen target into one place.
type TargetReport struct {
	Frozen int64            `json:"frozen"`
	Places map[string]int64 `json:"places"` // control, not_contacted, or the furthest state of the customer's contacts
	AddsUp bool             `json:"adds_up"`
}

// FunnelReport counts the way from planned contacts to successes. Which contact a
// success is counted with is a description and not a cause.
type FunnelReport struct {
	Rows      []evaluation.FunnelRates `json:"rows"` // by wave, tier and channel
	ByWave    []evaluation.FunnelRates `json:"by_wave"`
	ByTier    []evaluation.FunnelRates `json:"by_tier"`
	ByChannel []evaluation.FunnelRates `json:"by_channel"`
	Total     []evaluation.FunnelRates `json:"total"`
}

// ControlReport compares the treated with the control group, by intention to treat.
type ControlReport struct {
	Coverage          campaign.Coverage      `json:"coverage"`
	Treated           int64                  `json:"treated"`
	Control           int64                  `json:"control"`
	TreatedSuccesses  int64                  `json:"treated_successes"`
	ControlSuccesses  int64                  `json:"control_successes"`
	ControlContacted  int64                  `json:"control_contacted"` // must be 0
	SampleRatio       evaluation.SampleRatio `json:"sample_ratio"`
	Effect            evaluation.Effect      `json:"effect"`
	IncrementalEffect string                 `json:"incremental_effect"` // "estimated" or "not_estimable"
	Reason            evaluation.Reason      `json:"reason,omitempty"`   // why it is not estimable
}

// Evaluate writes the final report, once.
func (a *Activities) Evaluate(ctx context.Context, in campaign.EvaluationInput) error {
	return failure(ctx, alive(ctx, func() error {
		report, err := a.evaluate(ctx, in)
		if err != nil {
			return err
		}
		return a.Store.StoreEvaluation(ctx, in, report)
	}))
}

func (a *Activities) evaluate(ctx context.Context, in campaign.EvaluationInput) (Report, error) {
	loaded, err := a.Store.LoadPlan(ctx, campaign.PlanRef{CampaignID: in.CampaignID, Revision: in.Revision})
	if err != nil {
		return Report{}, err
	}
	plan := loaded.Plan
	r := Report{
		Name: plan.Name, Simulated: plan.Simulated, Currency: plan.Currency, Source: plan.Measurement.Source, Outcomes: map[string]int64{},
		Goal: GoalReport{Metric: plan.Goal.Metric, Outcome: plan.Goal.Outcome, Target: plan.Goal.Target, UnitBenefit: plan.Goal.UnitBenefit},
	}
	treated, control, err := a.Store.Arms(ctx, in.CampaignID, plan.Goal.Outcome)
	if err != nil {
		return r, err
	}
	r.Goal.Actual = treated.Positive
	r.Goal.Reached = treated.Positive >= plan.Goal.Target
	if r.Budget, err = a.budget(ctx, in.CampaignID, plan); err != nil {
		return r, err
	}
	if r.Credit, err = a.Store.CreditFigures(ctx, in.CampaignID); err != nil {
		return r, err
	}
	r.Targets.Frozen = treated.Targets + control.Targets
	if r.Targets.Places, err = a.Store.TargetStates(ctx, in.CampaignID); err != nil {
		return r, err
	}
	var placed int64
	for _, n := range r.Targets.Places {
		placed += n
	}
	r.Targets.AddsUp = placed == r.Targets.Frozen
	cells, err := a.Store.Funnel(ctx, in.CampaignID, plan.Goal.Outcome)
	if err != nil {
		return r, err
	}
	rows := funnelRows(cells)
	r.Funnel = FunnelReport{
		Rows: evaluation.FunnelBy(rows, evaluation.ByRow), ByWave: evaluation.FunnelBy(rows, evaluation.ByWave),
		ByTier:    evaluation.FunnelBy(rows, func(f evaluation.FunnelRow) evaluation.FunnelRow { return evaluation.FunnelRow{Tier: f.Tier} }),
		ByChannel: evaluation.FunnelBy(rows, evaluation.ByChannel), Total: evaluation.FunnelBy(rows, evaluation.Total),
	}
	outcomes, err := a.Store.OutcomeCounts(ctx, in.CampaignID)
	if err != nil {
		return r, err
	}
	for _, o := range outcomes {
		r.Outcomes[string(o.Kind)] = o.Outcomes
	}
	r.Control = compare(plan, treated, control)
	cost := r.Budget.Total.Actual
	for _, over := range r.Budget.Exceeded {
		cost += over
	}
	r.Economics = evaluation.Evaluate(treated.Positive, plan.Goal.UnitBenefit, cost, r.Control.Effect.Incremental)
	return r, nil
}

// budget sets the plan's lines against the ledger.
func (a *Activities) budget(ctx context.Context, campaignID string, plan campaign.Plan) (BudgetReport, error) {
	balances, err := a.Ledger.Balances(ctx, campaignID)
	if err != nil {
		return BudgetReport{}, err
	}
	byLine := map[string]ledger.LineBalance{}
	for _, b := range balances {
		byLine[b.Line] = b
	}
	report := BudgetReport{Exceeded: map[string]int64{}}
	lines := make([]evaluation.BudgetLine, len(plan.Budget))
	for i, l := range plan.Budget {
		b := byLine[l.Line]
		lines[i] = evaluation.BudgetLine{Line: l.Line, Category: string(l.Category), Planned: l.Amount, Committed: b.Held, Actual: b.Captured}
		cost, err := a.cost(ctx, campaignID, l, plan.Goal.Outcome, a.Store.ChannelSpend)
		if err != nil {
			return report, err
		}
		if l.Driver != campaign.DriverFixed && cost.spent > b.Captured {
			report.Exceeded[l.Line] = cost.spent - b.Captured
		}
	}
	report.Lines, report.Total = evaluation.BudgetAgainstActual(lines)
	return report, nil
}

// compare estimates what the campaign caused. Where outcomes are seen only for those
// who were contacted, the control group's do not exist, and nothing can be estimated.
func compare(plan campaign.Plan, treated, control store.ArmCount) ControlReport {
	everyone := plan.Measurement.Coverage == campaign.CoverageEveryone
	share := plan.Audience.ControlPercent / 100
	c := ControlReport{
		Coverage: plan.Measurement.Coverage, Treated: treated.Targets, Control: control.Targets,
		TreatedSuccesses: treated.Positive, ControlSuccesses: control.Positive, ControlContacted: control.Contacted,
		SampleRatio: evaluation.SampleRatioTest([]int64{treated.Targets, control.Targets}, []float64{1 - share, share}),
		Effect: evaluation.IntentionToTreat(
			evaluation.Converted(treated.Targets, treated.Positive, everyone), evaluation.Converted(control.Targets, control.Positive, everyone)),
		IncrementalEffect: "estimated",
	}
	if !c.Effect.Incremental.Estimable {
		c.IncrementalEffect, c.Reason = "not_estimable", c.Effect.Incremental.Reason
	}
	return c
}
