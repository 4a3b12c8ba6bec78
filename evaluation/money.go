package evaluation

import (
	"math/big"
	"slices"
)

// BudgetLine is one line of budget against actual, in minor units.
type BudgetLine struct {
	Line      string `json:"line"`
	Category  string `json:"category"`
	Planned   int64  `json:"planned"`
	Committed int64  `json:"committed"` // reserved and not yet spent or released
	Actual    int64  `json:"actual"`
}

// BudgetResult is a line with what the figures say.
type BudgetResult struct {
	BudgetLine
	Variance  int64    `json:"variance"`   // actual − planned: above zero is overspent
	Remaining int64    `json:"remaining"`  // planned − committed − actual: what is free
	UsedShare Estimate `json:"used_share"` // actual / planned, no interval
}

// BudgetAgainstActual returns the lines with their variances and their total, whose line and
// category are empty.
func BudgetAgainstActual(lines []BudgetLine) (results []BudgetResult, total BudgetResult) {
	var sum BudgetLine
	for _, l := range lines {
		results = append(results, l.result())
		sum.Planned += l.Planned
		sum.Committed += l.Committed
		sum.Actual += l.Actual
	}
	return results, sum.result()
}

func (l BudgetLine) result() BudgetResult {
	return BudgetResult{
		BudgetLine: l, Variance: l.Actual - l.Planned, Remaining: l.Planned - l.Committed - l.Actual,
		UsedShare: quotient(float64(l.Actual), float64(l.Planned), ReasonNoCost),
	}
}

// quotient returns a/b without an interval.
func quotient(a, b float64, reason Reason) Estimate {
	if b == 0 {
		return NotEstimable(reason)
	}
	value := a / b
	return Estimate{Estimable: true, Value: &value}
}

// CostCell is one channel's share of a cost: units (contacts, orders) and what they cost, in
// minor units.
type CostCell struct {
	Channel      string `json:"channel"`
	PlannedUnits int64  `json:"planned_units"`
	ActualUnits  int64  `json:"actual_units"`
	PlannedCost  int64  `json:"planned_cost"`
	ActualCost   int64  `json:"actual_cost"`
}

// Variance splits actual − planned cost into three parts that add up exactly.
type Variance struct {
	Estimable bool   `json:"estimable"`
	Reason    Reason `json:"reason,omitempty"`
	Volume    *int64 `json:"volume,omitempty"` // more or fewer units than planned
	Mix       *int64 `json:"mix,omitempty"`    // other channels than planned
	Rate      *int64 `json:"rate,omitempty"`   // another price per unit than planned
	Total     *int64 `json:"total,omitempty"`  // actual − planned
}

// Decompose splits the cost variance over channels (decision science: budget variance), with
// N units, shares s, prices r, B planned and A actual:
//
//	volume (N_A−N_B)·Σ s_B·r_B,  mix N_A·Σ (s_A−s_B)·r_B,  rate N_A·Σ s_A·(r_A−r_B)
//
// The parts are exact fractions, rounded to minor units by largest remainder so that they
// still add up. A channel without planned units has no planned price: its actual price is
// taken, so all of its cost is mix.
func Decompose(cells []CostCell) Variance {
	var plannedUnits, actualUnits big.Int
	var planned, actual big.Int
	atPlannedPrice := new(big.Rat) // Σ u_A·r_B
	for _, c := range cells {
		if c.PlannedUnits < 0 || c.ActualUnits < 0 {
			return Variance{Reason: ReasonInconsistentCounts}
		}
		plannedUnits.Add(&plannedUnits, big.NewInt(c.PlannedUnits))
		actualUnits.Add(&actualUnits, big.NewInt(c.ActualUnits))
		planned.Add(&planned, big.NewInt(c.PlannedCost))
		actual.Add(&actual, big.NewInt(c.ActualCost))
		if c.PlannedUnits == 0 {
			atPlannedPrice.Add(atPlannedPrice, new(big.Rat).SetInt64(c.ActualCost))
			continue
		}
		price := big.NewRat(c.PlannedCost, c.PlannedUnits)
		atPlannedPrice.Add(atPlannedPrice, price.Mul(price, new(big.Rat).SetInt64(c.ActualUnits)))
	}
	if plannedUnits.Sign() == 0 {
		return Variance{Reason: ReasonNoPlannedUnits}
	}
	scaled := new(big.Rat).SetFrac(&actualUnits, &plannedUnits) // the plan's cost at the actual volume
	scaled.Mul(scaled, new(big.Rat).SetInt(&planned))
	total := new(big.Int).Sub(&actual, &planned)
	parts, ok := roundTo(total,
		new(big.Rat).Sub(scaled, new(big.Rat).SetInt(&planned)),
		new(big.Rat).Sub(atPlannedPrice, scaled),
		new(big.Rat).Sub(new(big.Rat).SetInt(&actual), atPlannedPrice))
	if !ok {
		return Variance{Reason: ReasonOutOfRange}
	}
	sum := total.Int64()
	return Variance{Estimable: true, Volume: &parts[0], Mix: &parts[1], Rate: &parts[2], Total: &sum}
}

// roundTo rounds parts, whose exact sum is total, to whole numbers with the same sum: each is
// rounded down and the units left over go to the largest remainders, the first on a tie.
func roundTo(total *big.Int, parts ...*big.Rat) ([]int64, bool) {
	if !total.IsInt64() {
		return nil, false
	}
	whole, order := make([]*big.Int, len(parts)), make([]int, len(parts))
	remainders := make([]*big.Rat, len(parts))
	left := new(big.Int).Set(total)
	for i, p := range parts {
		whole[i] = new(big.Int).Div(p.Num(), p.Denom()) // Euclidean: down, as the denominator is positive
		remainders[i] = new(big.Rat).Sub(p, new(big.Rat).SetInt(whole[i]))
		left.Sub(left, whole[i])
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return remainders[b].Cmp(remainders[a]) })
	for i := range left.Int64() {
		whole[order[i]].Add(whole[order[i]], big.NewInt(1))
	}
	rounded := make([]int64, len(parts))
	for i, w := range whole {
		if !w.IsInt64() {
			return nil, false
		}
		rounded[i] = w.Int64()
	}
	return rounded, true
}

// Verdict is what can be said about profit.
type Verdict string

// The verdicts. A campaign is never called a success on its response rate.
const (
	VerdictProfit       Verdict = "proven_profit"
	VerdictLoss         Verdict = "proven_loss"
	VerdictInconclusive Verdict = "inconclusive"
	VerdictNotEstimable Verdict = "not_estimable" // without a control group's outcomes nothing is proven
)

// Amount is a sum of money in minor units, or the reason why there is none.
type Amount struct {
	Estimable bool   `json:"estimable"`
	Reason    Reason `json:"reason,omitempty"`
	Minor     *int64 `json:"minor,omitempty"`
	// Low and High bound the 95 % interval where there is one; a missing bound means unbounded.
	Low  *int64 `json:"low,omitempty"`
	High *int64 `json:"high,omitempty"`
}

// Economics sets benefit against cost, in minor units.
type Economics struct {
	Cost           int64    `json:"cost"`
	Successes      int64    `json:"successes"`
	CostPerSuccess Amount   `json:"cost_per_success"` // of all successes, caused or not
	Benefit        Amount   `json:"benefit"`          // all successes × unit benefit: what was seen, not what was caused
	Net            Amount   `json:"net"`              // benefit − cost
	Return         Estimate `json:"return_on_spend"`  // net / cost, no interval
	// Of the incremental successes only, i.e. those that would not have come by themselves:
	CostPerIncremental Amount  `json:"cost_per_incremental_success"`
	IncrementalNet     Amount  `json:"incremental_net"`
	Verdict            Verdict `json:"verdict"`
}

// Evaluate returns the economics of successes that are worth unitBenefit each and cost cost
// together, both in minor units and not negative. incremental is Effect.Incremental. Amounts
// are rounded to the nearest minor unit, halves away from zero.
func Evaluate(successes, unitBenefit, cost int64, incremental Estimate) Economics {
	e := Economics{Cost: cost, Successes: successes, Verdict: VerdictNotEstimable}
	if successes < 0 || unitBenefit < 0 || cost < 0 {
		none := Amount{Reason: ReasonInconsistentCounts}
		e.CostPerSuccess, e.Benefit, e.Net, e.CostPerIncremental, e.IncrementalNet = none, none, none, none, none
		e.Return = NotEstimable(ReasonInconsistentCounts)
		return e
	}
	benefit := new(big.Int).Mul(big.NewInt(successes), big.NewInt(unitBenefit))
	net := new(big.Int).Sub(benefit, big.NewInt(cost))
	e.Benefit, e.Net = amountOf(new(big.Rat).SetInt(benefit)), amountOf(new(big.Rat).SetInt(net))
	e.CostPerSuccess = Amount{Reason: ReasonNoSuccesses}
	if successes > 0 {
		e.CostPerSuccess = amountOf(big.NewRat(cost, successes))
	}
	returned, _ := new(big.Rat).SetInt(net).Float64()
	e.Return = quotient(returned, float64(cost), ReasonNoCost)

	if !incremental.Estimable {
		e.CostPerIncremental = Amount{Reason: incremental.Reason}
		e.IncrementalNet = Amount{Reason: incremental.Reason}
		return e
	}
	netOf := func(more *float64) *int64 {
		if more == nil {
			return nil
		}
		r := new(big.Rat).SetFloat64(*more)
		r.Mul(r, new(big.Rat).SetInt64(unitBenefit))
		return amountOf(r.Sub(r, new(big.Rat).SetInt64(cost))).Minor
	}
	perIncremental := func(more *float64) *int64 {
		if more == nil || *more <= 0 {
			return nil
		}
		r := new(big.Rat).SetFloat64(*more)
		return amountOf(r.Quo(new(big.Rat).SetInt64(cost), r)).Minor
	}
	e.IncrementalNet = Amount{
		Estimable: true, Minor: netOf(incremental.Value), Low: netOf(incremental.Low), High: netOf(incremental.High),
	}
	if e.IncrementalNet.Minor == nil {
		e.IncrementalNet = Amount{Reason: ReasonOutOfRange}
	}
	e.CostPerIncremental = Amount{Reason: ReasonNoIncrementalSuccesses}
	if minor := perIncremental(incremental.Value); minor != nil {
		// More successes make each cheaper, so the bounds change places; a lower bound of the
		// effect at or below zero leaves the cost per success without an upper bound.
		e.CostPerIncremental = Amount{
			Estimable: true, Minor: minor, Low: perIncremental(incremental.High), High: perIncremental(incremental.Low),
		}
	}
	e.Verdict = VerdictInconclusive
	if low := e.IncrementalNet.Low; low != nil && *low > 0 {
		e.Verdict = VerdictProfit
	} else if high := e.IncrementalNet.High; high != nil && *high < 0 {
		e.Verdict = VerdictLoss
	}
	return e
}

// amountOf rounds r to whole minor units.
func amountOf(r *big.Rat) Amount {
	twice := new(big.Int).Mul(new(big.Int).Abs(r.Num()), big.NewInt(2))
	twice.Add(twice, r.Denom())
	n := twice.Quo(twice, new(big.Int).Mul(r.Denom(), big.NewInt(2)))
	if r.Sign() < 0 {
		n.Neg(n)
	}
	if !n.IsInt64() {
		return Amount{Reason: ReasonOutOfRange}
	}
	minor := n.Int64()
	return Amount{Estimable: true, Minor: &minor}
}
