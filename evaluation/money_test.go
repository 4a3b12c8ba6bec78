package evaluation

import (
	"encoding/json"
	"math"
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func minor(n int64) Amount { return Amount{Estimable: true, Minor: &n} }

func TestVarianceFixture(t *testing.T) {
	// N 1000 → 1200, shares (.6, .4) → (.5, .5), prices (.1, 4) → (.12, 3.8).
	v := Decompose([]CostCell{
		{Channel: "sms", PlannedUnits: 600, ActualUnits: 600, PlannedCost: 60, ActualCost: 72},
		{Channel: "call", PlannedUnits: 400, ActualUnits: 600, PlannedCost: 1600, ActualCost: 2280},
	})
	require.True(t, v.Estimable)
	require.Equal(t, []int64{332, 468, -108, 692}, []int64{*v.Volume, *v.Mix, *v.Rate, *v.Total})
}

func TestVarianceOfAChannelThatWasNotPlannedIsMix(t *testing.T) {
	v := Decompose([]CostCell{
		{Channel: "sms", PlannedUnits: 100, ActualUnits: 50, PlannedCost: 1000, ActualCost: 500},
		{Channel: "push", ActualUnits: 50, ActualCost: 200},
	})
	require.Equal(t, []int64{0, -300, 0, -300}, []int64{*v.Volume, *v.Mix, *v.Rate, *v.Total})
}

func TestVarianceIsExactlyAdditive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var cells []CostCell
		var total int64
		for range rapid.IntRange(1, 6).Draw(t, "channels") {
			c := CostCell{
				PlannedUnits: rapid.Int64Range(0, 1<<40).Draw(t, "planned units"),
				ActualUnits:  rapid.Int64Range(0, 1<<40).Draw(t, "actual units"),
				PlannedCost:  rapid.Int64Range(0, 1<<50).Draw(t, "planned cost"),
				ActualCost:   rapid.Int64Range(0, 1<<50).Draw(t, "actual cost"),
			}
			cells = append(cells, c)
			total += c.ActualCost - c.PlannedCost
		}
		v := Decompose(cells)
		if !v.Estimable {
			require.Contains(t, []Reason{ReasonNoPlannedUnits, ReasonOutOfRange}, v.Reason)
			return
		}
		require.Equal(t, total, *v.Total)
		require.Equal(t, total, *v.Volume+*v.Mix+*v.Rate)
	})
}

func TestRoundingGoesToTheLargestRemainder(t *testing.T) {
	for _, tc := range []struct {
		total int64
		parts []*big.Rat
		want  []int64
	}{
		{1, []*big.Rat{big.NewRat(1, 6), big.NewRat(1, 2), big.NewRat(1, 3)}, []int64{0, 1, 0}},
		{-1, []*big.Rat{big.NewRat(-3, 4), big.NewRat(-1, 4)}, []int64{-1, 0}},
		{0, []*big.Rat{big.NewRat(1, 2), big.NewRat(-1, 2)}, []int64{1, -1}},
	} {
		got, ok := roundTo(big.NewInt(tc.total), tc.parts...)
		require.True(t, ok)
		require.Equal(t, tc.want, got)
	}
}

func TestVarianceThatCannotBeSplit(t *testing.T) {
	for _, tc := range []struct {
		cells  []CostCell
		reason Reason
	}{
		{nil, ReasonNoPlannedUnits},
		{[]CostCell{{ActualUnits: 3, ActualCost: 5}}, ReasonNoPlannedUnits},
		{[]CostCell{{PlannedUnits: -1}}, ReasonInconsistentCounts},
		{[]CostCell{{PlannedUnits: 1, ActualUnits: math.MaxInt64, PlannedCost: math.MaxInt64}}, ReasonOutOfRange},
	} {
		require.Equal(t, Variance{Reason: tc.reason}, Decompose(tc.cells))
	}
}

func TestBudgetAgainstActual(t *testing.T) {
	lines, total := BudgetAgainstActual([]BudgetLine{
		{Line: "calls", Category: "contact_cost", Planned: 100_00, Committed: 10_00, Actual: 80_00},
		{Line: "gifts", Category: "goods", Planned: 0, Committed: 0, Actual: 5_00},
	})
	require.Equal(t, int64(-20_00), lines[0].Variance)
	require.Equal(t, int64(10_00), lines[0].Remaining)
	require.InDelta(t, 0.8, *lines[0].UsedShare.Value, 1e-15)
	require.Equal(t, NotEstimable(ReasonNoCost), lines[1].UsedShare)
	require.Equal(t, BudgetLine{Planned: 100_00, Committed: 10_00, Actual: 85_00}, total.BudgetLine)
	require.Equal(t, int64(-15_00), total.Variance)
}

func TestEvaluate(t *testing.T) {
	e := Evaluate(30, 500_00, 4_000_00, estimated(20, 12, 28))
	require.Equal(t, minor(133_33), e.CostPerSuccess)
	require.Equal(t, minor(15_000_00), e.Benefit)
	require.Equal(t, minor(11_000_00), e.Net)
	require.InDelta(t, 2.75, *e.Return.Value, 1e-12)
	require.Equal(t, int64(6_000_00), *e.IncrementalNet.Minor)
	require.Equal(t, int64(2_000_00), *e.IncrementalNet.Low)
	require.Equal(t, int64(10_000_00), *e.IncrementalNet.High)
	require.Equal(t, int64(200_00), *e.CostPerIncremental.Minor)
	require.Equal(t, int64(142_86), *e.CostPerIncremental.Low)
	require.Equal(t, int64(333_33), *e.CostPerIncremental.High)
	require.Equal(t, VerdictProfit, e.Verdict)

	e = Evaluate(30, 500_00, 20_000_00, estimated(20, -5, 28))
	require.Equal(t, VerdictLoss, e.Verdict)
	require.Nil(t, e.CostPerIncremental.High, "not proven, so unbounded")

	e = Evaluate(30, 500_00, 4_000_00, estimated(20, -5, 28))
	require.Equal(t, VerdictInconclusive, e.Verdict)

	e = Evaluate(30, 500_00, 4_000_00, estimated(-3, -5, 28))
	require.Equal(t, Amount{Reason: ReasonNoIncrementalSuccesses}, e.CostPerIncremental)

	e = Evaluate(30, 500_00, 4_000_00, NotEstimable(ReasonControlOutcomesNotObserved))
	require.Equal(t, VerdictNotEstimable, e.Verdict)
	require.Equal(t, Amount{Reason: ReasonControlOutcomesNotObserved}, e.IncrementalNet)
	require.Equal(t, minor(11_000_00), e.Net, "what was seen needs no control group")

	e = Evaluate(0, 500_00, 0, NotEstimable(ReasonEmptyArm))
	require.Equal(t, Amount{Reason: ReasonNoSuccesses}, e.CostPerSuccess)
	require.Equal(t, NotEstimable(ReasonNoCost), e.Return)

	e = Evaluate(math.MaxInt64, math.MaxInt64, 1, estimated(1e300, 1, 1e301))
	require.Equal(t, Amount{Reason: ReasonOutOfRange}, e.Benefit)
	require.Equal(t, Amount{Reason: ReasonOutOfRange}, e.IncrementalNet)
	_, err := json.Marshal(e)
	require.NoError(t, err)

	require.Equal(t, Amount{Reason: ReasonInconsistentCounts}, Evaluate(-1, 1, 1, Estimate{}).Benefit)
}

func TestAmountsRoundHalvesAwayFromZero(t *testing.T) {
	for _, tc := range []struct{ cost, successes, want int64 }{{5, 2, 3}, {1, 3, 0}, {2, 3, 1}, {7, 2, 4}} {
		require.Equal(t, minor(tc.want), Evaluate(tc.successes, 0, tc.cost, Estimate{}).CostPerSuccess)
	}
}
