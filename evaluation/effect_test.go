package evaluation

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// printed formats to the digits that a published figure has.
func printed(t *testing.T, want string, got *float64) {
	t.Helper()
	require.NotNil(t, got)
	digits := 0
	for i := range want {
		if want[i] == '.' {
			digits = len(want) - i - 1
		}
	}
	require.Equal(t, want, fmt.Sprintf("%.*f", digits, *got))
}

func TestWilsonFixtures(t *testing.T) {
	for _, tc := range []struct {
		successes, trials int64
		low, high         string
	}{
		{0, 10, "0.0000", "0.2775"},
		{235, 1000, "0.2098", "0.2623"},
		{10, 10, "0.7225", "1.0000"},
	} {
		e := Wilson(tc.successes, tc.trials)
		printed(t, tc.low, e.Low)
		printed(t, tc.high, e.High)
	}
	require.Equal(t, NotEstimable(ReasonNoTrials), Wilson(0, 0))
	require.Equal(t, NotEstimable(ReasonInconsistentCounts), Wilson(3, 2))
	require.Equal(t, NotEstimable(ReasonInconsistentCounts), Wilson(-1, 2))
}

// Hillstrom's e-mail test: 21,306 controls, 21,307 in the mens arm, 21,387 in the womens.
var (
	visitControl = Converted(21306, 2262, true)
	visitMens    = Converted(21307, 3894, true)
	visitWomens  = Converted(21387, 3238, true)
	convControl  = Converted(21306, 122, true)
	convMens     = Converted(21307, 267, true)
	convWomens   = Converted(21387, 189, true)
)

func TestHillstromDifferences(t *testing.T) {
	for _, tc := range []struct {
		name             string
		treated, control Arm
		difference, se   string
	}{
		{"womens visit", visitWomens, visitControl, "0.045233", "0.003234"},
		{"mens visit", visitMens, visitControl, "0.076590", "0.003386"},
		{"womens conversion", convWomens, convControl, "0.003111", "0.000823"},
		{"mens conversion", convMens, convControl, "0.006805", "0.000921"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := IntentionToTreat(tc.treated, tc.control)
			require.Equal(t, MethodWelch, e.Method)
			printed(t, tc.difference, e.Difference.Value)
			printed(t, tc.se, e.Error)
			require.InDelta(t, *e.Difference.Value*float64(tc.treated.Members), *e.Incremental.Value, 1e-9)
			require.InDelta(t, *e.Difference.Value-1.959964**e.Error, *e.Difference.Low, 1e-9)
			require.InDelta(t, *e.Difference.High*float64(tc.treated.Members), *e.Incremental.High, 1e-9)
		})
	}
}

func TestHillstromRelativeByFieller(t *testing.T) {
	for _, tc := range []struct {
		name             string
		treated          Arm
		value, low, high string
	}{
		{"mens", convMens, "118.84", "78.0", "173.9"},
		{"womens", convWomens, "54.33", "23.4", "95.2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := IntentionToTreat(tc.treated, convControl).Relative
			percent := func(x *float64) *float64 { v := 100 * *x; return &v }
			printed(t, tc.value, percent(e.Value))
			printed(t, tc.low, percent(e.Low))
			printed(t, tc.high, percent(e.High))
		})
	}
}

func TestSmallSamplesUseTheSampleVariance(t *testing.T) {
	// {1, 3} against {2, 2, 5}: variances 2 and 3, so SE² = 2/2 + 3/3.
	e := IntentionToTreat(Arm{2, true, 4, 10}, Arm{3, true, 9, 33})
	require.InDelta(t, -1, *e.Difference.Value, 1e-12)
	require.InDelta(t, math.Sqrt2, *e.Error, 1e-12)
}

func TestFewConversionsUseTheConditionalInterval(t *testing.T) {
	// 9 of 12 conversions in arms of equal size: Clopper-Pearson of 9/12 is .4281 to .9451.
	e := IntentionToTreat(Converted(1000, 9, true), Converted(1000, 3, true))
	require.Equal(t, MethodExact, e.Method)
	require.InDelta(t, 2, *e.Relative.Value, 1e-12)
	require.InDelta(t, 0.42814/0.57186-1, *e.Relative.Low, 1e-3)
	require.InDelta(t, 0.94514/0.05486-1, *e.Relative.High, 1e-2)
	// Newcombe 1998, table II, example (a): 56/70 − 48/80 is .0524 to .3339 by method 10.
	low, high := newcombe(Converted(70, 56, true), Converted(80, 48, true))
	printed(t, "0.0524", &low)
	printed(t, "0.3339", &high)

	// No treated conversion: the ratio is 0 with an upper bound, the difference below 0.
	e = IntentionToTreat(Converted(1000, 0, true), Converted(1000, 8, true))
	require.InDelta(t, -1, *e.Relative.Value, 1e-12)
	require.InDelta(t, -1, *e.Relative.Low, 1e-12)
	require.Less(t, *e.Relative.High, 0.0)
	// No control conversion: a difference, but no ratio.
	e = IntentionToTreat(Converted(1000, 8, true), Converted(100, 0, true))
	require.True(t, e.Difference.Estimable)
	require.Equal(t, NotEstimable(ReasonZeroControlMean), e.Relative)
}

func TestFiellerIsUnboundedWhenTheControlMeanMayBeZero(t *testing.T) {
	treated := Arm{Members: 100, Observed: true, Sum: 500, SumSquares: 90_000}
	control := Arm{Members: 100, Observed: true, Sum: 10, SumSquares: 90_000}
	e := IntentionToTreat(treated, control).Relative
	require.True(t, e.Estimable)
	require.Nil(t, e.Low)
	require.Nil(t, e.High)
}

func TestWhatCannotBeEstimatedSaysWhy(t *testing.T) {
	for _, tc := range []struct {
		name             string
		treated, control Arm
		reason           Reason
	}{
		{"no control group", Converted(100, 3, true), Arm{}, ReasonEmptyArm},
		{"nobody treated", Converted(0, 0, true), Converted(9, 1, true), ReasonEmptyArm},
		{"outcomes of contacted customers only", Converted(100, 3, true), Converted(10, 0, false), ReasonControlOutcomesNotObserved},
		{"treated outcomes unknown", Converted(100, 0, false), Converted(10, 0, true), ReasonTreatedOutcomesNotObserved},
		{"nobody converted", Converted(100, 0, true), Converted(10, 0, true), ReasonNoConversions},
		{"everybody converted", Converted(100, 100, true), Converted(10, 10, true), ReasonAllConverted},
		{"one control", Converted(100, 50, true), Converted(1, 1, true), ReasonTooFewObservations},
		{"more conversions than customers", Converted(100, 101, true), Converted(10, 1, true), ReasonInconsistentCounts},
		{"constant value", Arm{2, true, 6, 18}, Arm{2, true, 4, 8}, ReasonNoVariation},
		{"not a number", Arm{2, true, math.NaN(), 18}, Arm{2, true, 4, 8}, ReasonInconsistentCounts},
		{"infinite", Arm{2, true, math.Inf(1), 18}, Arm{2, true, 4, 8}, ReasonInconsistentCounts},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := IntentionToTreat(tc.treated, tc.control)
			for _, got := range []Estimate{e.Difference, e.Incremental, e.Relative} {
				require.Equal(t, NotEstimable(tc.reason), got)
			}
			require.Nil(t, e.Error)
			text, err := json.Marshal(e.Difference)
			require.NoError(t, err)
			require.JSONEq(t, `{"estimable":false,"reason":"`+string(tc.reason)+`"}`, string(text))
		})
	}
}

// Whatever the counts, a result is a finite figure inside its interval or a reason.
func TestEffectIsFiniteOrHasAReason(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		arm := func(name string) Arm {
			n := rapid.Int64Range(0, 50).Draw(t, name+" members")
			return Converted(n, rapid.Int64Range(0, 50).Draw(t, name+" conversions"), rapid.IntRange(0, 9).Draw(t, name) > 0)
		}
		e := IntentionToTreat(arm("treated"), arm("control"))
		for _, x := range []Estimate{e.Treated, e.Control, e.Difference, e.Incremental, e.Relative} {
			require.Equal(t, x.Estimable, x.Reason == ReasonNone)
			require.Equal(t, x.Estimable, x.Value != nil)
			for _, v := range []*float64{x.Value, x.Low, x.High} {
				require.False(t, v != nil && (math.IsNaN(*v) || math.IsInf(*v, 0)))
			}
			const slack = 1e-9
			require.False(t, x.Low != nil && *x.Low > *x.Value+slack, "%v", x)
			require.False(t, x.High != nil && *x.High < *x.Value-slack, "%v", x)
		}
		_, err := json.Marshal(e)
		require.NoError(t, err)
	})
}

func TestSampleRatioFixtures(t *testing.T) {
	s := SampleRatioTest([]int64{600, 400}, []float64{1, 1})
	require.Equal(t, "2.54e-10", fmt.Sprintf("%.2e", *s.P))
	require.True(t, s.Mismatched)

	s = SampleRatioTest([]int64{90300, 9700}, []float64{90, 10})
	printed(t, "10.000", s.ChiSquare)
	printed(t, "0.001565", s.P)
	require.False(t, s.Mismatched)

	s = SampleRatioTest([]int64{21306, 21307, 21387}, []float64{1, 1, 1})
	printed(t, "0.2025", s.ChiSquare)
	printed(t, "0.9037", s.P)
	require.Equal(t, 2, s.Freedom)

	// An arm of weight zero takes no degree of freedom.
	require.Equal(t, 1, SampleRatioTest([]int64{600, 400, 0}, []float64{1, 1, 0}).Freedom)
	for _, tc := range []struct {
		observed []int64
		weights  []float64
		reason   Reason
	}{
		{[]int64{1}, []float64{1}, ReasonNoArms},
		{[]int64{0, 0}, []float64{1, 1}, ReasonNoTrials},
		{[]int64{1, 1}, []float64{1}, ReasonInconsistentCounts},
		{[]int64{1, 1}, []float64{1, 0}, ReasonInconsistentCounts},
		{[]int64{1, -1}, []float64{1, 1}, ReasonInconsistentCounts},
		{[]int64{1, 1}, []float64{1, math.NaN()}, ReasonInconsistentCounts},
	} {
		require.Equal(t, SampleRatio{Reason: tc.reason}, SampleRatioTest(tc.observed, tc.weights))
	}
}

func TestFunnel(t *testing.T) {
	rows := []FunnelRow{
		{2, "general", "sms", FunnelCounts{Planned: 1000, Sent: 900, Delivered: 800, Reached: 800, Positive: 8, Complained: 1}},
		{1, "core", "call", FunnelCounts{Planned: 200, Sent: 180, Reached: 90, Positive: 30}},
		{1, "core", "sms", FunnelCounts{Planned: 110, Sent: 100, Delivered: 100, Reached: 90, Positive: 2}},
	}
	by := FunnelBy(rows, ByRow)
	require.Equal(t, "call", by[0].Channel)
	require.Equal(t, Wilson(30, 90), by[0].Acceptance)
	require.Equal(t, Wilson(30, 180), by[0].Success)
	require.Equal(t, Wilson(0, 180), by[0].Delivery)

	by = FunnelBy(rows, ByChannel)
	require.Len(t, by, 2)
	require.Equal(t, FunnelRow{0, "", "sms", FunnelCounts{1110, 1000, 900, 890, 10, 1}}, by[1].FunnelRow)
	require.Equal(t, Wilson(890, 1000), by[1].Reach)

	total := FunnelBy(rows, Total)
	require.Len(t, total, 1)
	require.Equal(t, int64(1310), total[0].Planned)
	require.Len(t, FunnelBy(rows, ByWave), 2)
	require.Empty(t, FunnelBy(nil, Total))

	none := FunnelRow{Channel: "call", FunnelCounts: FunnelCounts{Planned: 5}}.Rates()
	require.Equal(t, NotEstimable(ReasonNoTrials), none.Success)
	require.Equal(t, Wilson(0, 5), none.Sending)
}
