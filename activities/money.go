package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/ledger"
	"github.com/musterhq/muster/store"
)

// Reserve allocates and holds every budget line up to its ceiling, from the plan's programme
// where it is inside one. For a later revision it adds the differences and gives back what
// lines fall by; one that would fall below what it has spent is CodeBudgetInsufficient.
func (a *Activities) Reserve(ctx context.Context, in campaign.PlanRef) error {
	plan, err := a.Store.LoadPlan(ctx, in)
	if err != nil {
		return failure(ctx, err)
	}
	if err := a.enter(ctx, in, plan.Plan); err != nil {
		return failure(ctx, err)
	}
	err = a.till(ctx, in.CampaignID, plan.Plan.Currency, func(t *till) error { return t.fit(ctx, &plan.Plan) })
	if err != nil {
		return failure(ctx, err)
	}
	for _, l := range store.CreditLines(in.CampaignID, &plan.Plan) {
		if err := a.Store.OpenCredit(ctx, l); err != nil {
			return failure(ctx, err)
		}
	}
	return nil
}

// CaptureChannel spends, in the ledger, what the channel has cost so far.
func (a *Activities) CaptureChannel(ctx context.Context, in campaign.ChannelRef) error {
	return failure(ctx, alive(ctx, func() error {
		plan, err := a.Store.LoadPlan(ctx, campaign.PlanRef{CampaignID: in.CampaignID, Revision: in.Revision})
		if err != nil {
			return err
		}
		line, _, err := a.contactLine(ctx, in)
		if err != nil {
			return err
		}
		return a.till(ctx, in.CampaignID, plan.Plan.Currency, func(t *till) error {
			cost, err := a.cost(ctx, in.CampaignID, line, plan.Plan.Goal.Outcome, a.Store.ChannelSpend)
			if err != nil {
				return err
			}
			return t.spend(ctx, line, cost.spent)
		})
	}))
}

// Settle closes the money: what every line has cost is spent, what messages of unknown
// fate would cost and what customers are promised as prepaid credit stays held, the rest is
// released and goes back to where it came from.
func (a *Activities) Settle(ctx context.Context, in campaign.PlanRef) error {
	return failure(ctx, alive(ctx, func() error { return a.settle(ctx, in) }))
}

func (a *Activities) settle(ctx context.Context, in campaign.PlanRef) error {
	plan, err := a.Store.LoadPlan(ctx, in)
	if err != nil {
		return err
	}
	treated, _, err := a.Store.Arms(ctx, in.CampaignID, plan.Plan.Goal.Outcome)
	if err != nil {
		return err
	}
	return a.till(ctx, in.CampaignID, plan.Plan.Currency, func(t *till) error {
		for _, l := range store.CreditLines(in.CampaignID, &plan.Plan) {
			if err := t.settleCredit(ctx, l); err != nil {
				return err
			}
		}
		for _, line := range plan.Plan.Budget {
			if line.Credit != nil {
				continue
			}
			cost, err := a.cost(ctx, in.CampaignID, line, plan.Plan.Goal.Outcome, a.Store.SettleChannel)
			if err != nil {
				return err
			}
			if line.Driver == campaign.DriverFixed && treated.Contacted == 0 {
				cost.spent = 0 // the campaign was stopped before it contacted anybody
			}
			if err := t.bring(ctx, line, cost); err != nil {
				return err
			}
		}
		return t.finish(ctx)
	})
}

// receiptsWithin is how late a receipt may come. A message without one by then is told:
// only the operator's bill can say what became of it.
const receiptsWithin = 7 * 24 * time.Hour

// SettleUnknown goes on with the money that closed campaigns hold for messages of unknown
// fate: a message that was taken after all is paid for, the money of one that was not goes
// back to where it came from. Without proof the money stays held, however long: to release it might leave a bill
// without a budget, to spend it might pay for nothing. What has no proof for longer than a
// receipt takes is told once, also of campaigns that still run. It may run at any time and
// as often as wanted.
func (a *Activities) SettleUnknown(ctx context.Context) error {
	open, err := a.Store.OpenSettlements(ctx)
	if err != nil {
		return err
	}
	var faults []error
	for _, in := range open {
		faults = append(faults, a.settleUnknown(ctx, in))
	}
	return errors.Join(append(faults, a.Store.TellUnknown(ctx, receiptsWithin))...)
}

// settleUnknown brings the lines of a settled campaign to what has become of its unknown
// messages. Everything else was priced when the campaign was settled, and stays so.
func (a *Activities) settleUnknown(ctx context.Context, in campaign.PlanRef) error {
	plan, err := a.Store.LoadPlan(ctx, in)
	if err != nil {
		return err
	}
	return a.till(ctx, in.CampaignID, plan.Plan.Currency, func(t *till) error {
		spent, err := a.Store.SettledSpend(ctx, in.CampaignID)
		if err != nil {
			return err
		}
		for channel, n := range spent {
			// A channel that an amendment took out of the plan has no line to be settled.
			if line, ok := plan.Plan.ContactLine(channel); ok {
				cost, err := channelCost(line, n)
				if err != nil {
					return err
				}
				if err := t.bring(ctx, line, cost); err != nil {
					return err
				}
			}
			if len(n.Unknown) > 0 {
				continue
			}
			if err := a.Store.EndSettlement(ctx, in.CampaignID, channel); err != nil {
				return err
			}
		}
		return t.finish(ctx)
	})
}

// lineCost is what a budget line has cost, and what it may cost yet, in minor units.
type lineCost struct{ spent, possible int64 }

// cost works out a line's cost from what happened: attempts and messages as channel counts
// them, customers with the goal's outcome or who activated, or its whole amount.
func (a *Activities) cost(
	ctx context.Context, campaignID string, line campaign.BudgetLine, goal campaign.OutcomeKind,
	channel func(context.Context, string, campaign.BudgetLine) (store.ChannelSpend, error),
) (c lineCost, err error) {
	if line.Credit != nil {
		return c, nil // spent by instalments
	}
	var happened campaign.Counts
	switch line.Driver {
	case campaign.DriverPerContact:
		n, err := channel(ctx, campaignID, line)
		if err != nil {
			return c, err
		}
		return channelCost(line, n)
	case campaign.DriverPerOrder:
		happened, err = a.Store.Successes(ctx, campaignID, goal)
	case campaign.DriverPerActivation:
		happened, err = a.Store.Successes(ctx, campaignID, campaign.OutcomeActivated)
	}
	if err != nil {
		return c, err
	}
	c.spent, err = line.Cost(happened)
	return c, err
}

// used returns, for every line that has less by a plan than by the ledger, what the plan must
// leave it at least, in minor units: what it has spent and what may be billed yet, but no more
// than it has. Prepaid credit is not taken back.
func (a *Activities) used(ctx context.Context, campaignID string, plan *campaign.Plan) (map[string]int64, error) {
	balances, err := a.Ledger.Balances(ctx, campaignID)
	if err != nil {
		return nil, err
	}
	used := map[string]int64{}
	for _, b := range balances {
		i := slices.IndexFunc(plan.Budget, func(l campaign.BudgetLine) bool { return l.Line == b.Line })
		if i < 0 || plan.Budget[i].Credit != nil {
			continue
		}
		line, err := a.Store.Funded(ctx, campaignID, plan.Budget[i])
		if err != nil {
			return nil, err
		}
		has := b.Allocated - b.Returned
		if line.Amount >= has {
			continue
		}
		cost, err := a.cost(ctx, campaignID, line, plan.Goal.Outcome, a.Store.ChannelSpend)
		if err != nil {
			return nil, err
		}
		used[b.Line] = min(has, max(b.Captured, cost.spent+cost.possible))
	}
	return used, nil
}

// leavesEnough makes sure that a plan leaves to its campaign's lines, and of its contingency,
// what is spent: CodeInvalidPlan with every field at fault.
func (a *Activities) leavesEnough(ctx context.Context, in campaign.PlanRef) error {
	plan, err := a.Store.LoadPlan(ctx, in)
	if err != nil {
		return err
	}
	used, err := a.used(ctx, in.CampaignID, &plan.Plan)
	if err != nil {
		return err
	}
	draws, err := a.Store.ContingencyDraws(ctx, in.CampaignID)
	if err != nil {
		return err
	}
	var fields []campaign.FieldError
	atLeast := func(field string, amount, least int64) {
		if amount < least {
			fields = append(fields, campaign.FieldError{Field: field, Code: campaign.CodeBudgetInsufficient,
				Message: fmt.Sprintf("must be at least %s, which is spent or may be billed yet", campaign.Money{Minor: least, Currency: plan.Plan.Currency})})
		}
	}
	drawn := map[string]int64{}
	var all int64
	for _, d := range draws {
		drawn[d.Line] += d.Amount
		all += d.Amount
	}
	for i, l := range plan.Plan.Budget {
		atLeast(fmt.Sprintf("budget[%d].amount", i), l.Amount, used[l.Line]-drawn[l.Line])
	}
	atLeast("contingency", plan.Plan.Contingency, all)
	if len(fields) > 0 {
		return &campaign.Error{Code: campaign.CodeInvalidPlan, Message: "the plan takes away money that is spent", Fields: fields}
	}
	return nil
}

// channelCost works out what the line of a channel's contacts has cost. What messages of
// unknown fate may cost yet depends on what was counted before them.
func channelCost(line campaign.BudgetLine, n store.ChannelSpend) (c lineCost, err error) {
	if c.spent, err = line.Cost(n.Billable); err != nil {
		return c, err
	}
	most, err := line.Cost(n.Billable.Plus(n.Unknown))
	c.possible = most - c.spent
	return c, err
}

// till brings a campaign's lines in the ledger to what they should be. Amounts are
// compared with the ledger and not counted up, so a repetition finds nothing to do.
type till struct {
	*Activities
	campaignID, currency string
}

// till runs f while nobody else brings the campaign's lines up to date.
func (a *Activities) till(ctx context.Context, campaignID, currency string, f func(*till) error) error {
	return a.Store.Exclusive(ctx, "till:"+campaignID, func(context.Context) error { return f(&till{a, campaignID, currency}) })
}

func (t *till) balance(ctx context.Context, line string) (ledger.LineBalance, error) {
	all, err := t.Ledger.Balances(ctx, t.campaignID)
	if err != nil {
		return ledger.LineBalance{}, err
	}
	for _, b := range all {
		if b.Line == line {
			return b, nil
		}
	}
	return ledger.LineBalance{Line: line, Currency: t.currency}, nil
}

func (t *till) money(minor int64) campaign.Money {
	return campaign.Money{Minor: minor, Currency: t.currency}
}

// fit brings the ledger to a plan, see Reserve.
func (t *till) fit(ctx context.Context, plan *campaign.Plan) error {
	used, err := t.used(ctx, t.campaignID, plan)
	if err != nil {
		return err
	}
	budget := ledger.Budget{CampaignID: t.campaignID, Currency: plan.Currency, Programme: plan.ProgrammeID, Contingency: plan.Contingency}
	for _, l := range plan.Budget {
		c := ledger.Ceiling{Line: l.Line, Category: l.Category, Amount: l.Amount, Keep: used[l.Line]}
		if l.Credit != nil {
			c.Pool = l.Credit.PoolID
		}
		budget.Lines = append(budget.Lines, c)
	}
	_, err = t.Ledger.ReserveAll(ctx, budget)
	return err
}

// spend captures until total is spent. No line is overspent: what was reserved, and what line
// has by the plan in force and by draws, is the most that is captured, and the rest is
// recorded as exceeding the budget.
func (t *till) spend(ctx context.Context, line campaign.BudgetLine, total int64) error {
	b, err := t.balance(ctx, line.Line)
	if err != nil {
		return err
	}
	due := total - b.Captured
	most := max(min(b.Held, line.Amount-b.Captured), 0)
	if over := due - most; over > 0 {
		due = most
		key := fmt.Sprintf("%s:exceeded:%s:%d", t.campaignID, line.Line, total)
		err := t.Store.RecordOnce(ctx, store.CampaignEvent(t.campaignID, key, "budget.exceeded", campaign.Actor{},
			map[string]any{"line": line.Line, "cost": total, "exceeds_by": over}))
		if err != nil {
			return err
		}
	}
	if due <= 0 {
		return nil
	}
	_, err = t.Ledger.Capture(ctx, fmt.Sprintf("capture:%s:%s:%d", t.campaignID, line.Line, b.Captured+due), t.campaignID, line.Line, t.money(due))
	return err
}

// bring spends what a line has cost and keeps what it may cost yet.
func (t *till) bring(ctx context.Context, line campaign.BudgetLine, cost lineCost) error {
	line, err := t.Store.Funded(ctx, t.campaignID, line)
	if err != nil {
		return err
	}
	if err := t.spend(ctx, line, cost.spent); err != nil {
		return err
	}
	return t.keep(ctx, line.Line, cost.possible)
}

// finish returns what the campaign will not spend any more to where it came from, so that a
// programme can give it to others.
func (t *till) finish(ctx context.Context) error {
	if _, err := t.Ledger.Finish(ctx, t.campaignID); err != nil {
		return err
	}
	return t.handBack(ctx, t.campaignID)
}

// keep releases all of a line but amount, and closes it when nothing is kept.
func (t *till) keep(ctx context.Context, line string, amount int64) error {
	b, err := t.balance(ctx, line)
	if err != nil || b.Allocated == 0 {
		return err
	}
	if amount == 0 {
		_, err := t.Ledger.Close(ctx, fmt.Sprintf("close:%s:%s", t.campaignID, line), t.campaignID, line, t.currency)
		if campaign.CodeOf(err) == campaign.CodeHoldClosed {
			return nil
		}
		return err
	}
	if b.Held <= amount {
		return nil
	}
	_, err = t.Ledger.Release(ctx, fmt.Sprintf("release:%s:%s:%d", t.campaignID, line, b.Held), t.campaignID, line, t.money(b.Held-amount))
	return err
}
