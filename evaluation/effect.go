package evaluation

import "math"

// Arm holds the sufficient statistics of one arm: every customer assigned to it counts,
// contacted or not (intention to treat).
type Arm struct {
	Members int64 `json:"members"`
	// Observed says that a member's outcome would be known whether contacted or not. A source
	// that reports only on contacted customers knows nothing of a control group.
	Observed   bool    `json:"observed"`
	Sum        float64 `json:"sum"`         // Σy over the members
	SumSquares float64 `json:"sum_squares"` // Σy²
}

// Converted returns the arm of a yes/no outcome.
func Converted(members, conversions int64, observed bool) Arm {
	return Arm{Members: members, Observed: observed, Sum: float64(conversions), SumSquares: float64(conversions)}
}

// binary says that every outcome is 0 or 1, so that Sum counts conversions.
func (a Arm) binary() bool { return a.Sum == a.SumSquares && a.Sum == math.Trunc(a.Sum) }

func (a Arm) mean() float64 { return a.Sum / float64(a.Members) }

// meanVariance returns the variance of the mean, s²/n.
func (a Arm) meanVariance() float64 {
	n := float64(a.Members)
	return max(0, (a.SumSquares-a.Sum*a.Sum/n)/(n-1)/n)
}

// Method names how an interval was made.
type Method string

// The methods.
const (
	// MethodWelch: the difference by Welch's standard error, the ratio by Fieller.
	MethodWelch Method = "welch_fieller"
	// MethodExact: fewer than ten conversions in an arm. The ratio by Clopper-Pearson,
	// conditional on the total; the difference by Newcombe's Wilson-score interval.
	MethodExact Method = "newcombe_conditional"
)

// Effect is the effect of being assigned to the campaign. All intervals are 95 %.
type Effect struct {
	Method      Method   `json:"method,omitempty"`
	Treated     Estimate `json:"treated_mean"`
	Control     Estimate `json:"control_mean"`
	Difference  Estimate `json:"difference"`               // treated − control, per customer
	Error       *float64 `json:"standard_error,omitempty"` // Welch's, of Difference; absent when not estimable
	Incremental Estimate `json:"incremental"`              // Difference × treated customers
	Relative    Estimate `json:"relative"`                 // treated / control − 1
}

// fewConversions is the count below which normal intervals are not used.
const fewConversions = 10

// IntentionToTreat compares the treated arm with the control arm (decision science: final
// evaluation).
func IntentionToTreat(treated, control Arm) Effect {
	e := Effect{Treated: meanOf(treated, ReasonTreatedOutcomesNotObserved), Control: meanOf(control, ReasonControlOutcomesNotObserved)}
	if reason := notComparable(treated, control); reason != ReasonNone {
		none := NotEstimable(reason)
		e.Difference, e.Incremental, e.Relative = none, none, none
		return e
	}
	binary := treated.binary() && control.binary()
	n := float64(treated.Members)
	d := treated.mean() - control.mean()
	se := math.Sqrt(treated.meanVariance() + control.meanVariance())
	low, high := d-z95*se, d+z95*se
	e.Method, e.Error = MethodWelch, &se
	if binary && min(treated.Sum, control.Sum) < fewConversions {
		e.Method = MethodExact
		low, high = newcombe(treated, control)
		e.Relative = conditionalRatio(treated, control)
	} else {
		e.Relative = fieller(treated, control)
	}
	e.Difference = estimated(d, low, high)
	e.Incremental = estimated(n*d, n*low, n*high)
	return e
}

func meanOf(a Arm, unobserved Reason) Estimate {
	switch {
	case a.Members <= 0:
		return NotEstimable(ReasonEmptyArm)
	case !a.Observed:
		return NotEstimable(unobserved)
	case a.binary():
		return Wilson(int64(a.Sum), a.Members)
	case a.Members == 1:
		return NotEstimable(ReasonTooFewObservations)
	}
	half := z95 * math.Sqrt(a.meanVariance())
	return estimated(a.mean(), a.mean()-half, a.mean()+half)
}

func notComparable(treated, control Arm) Reason {
	n := float64(treated.Members + control.Members)
	sum := treated.Sum + control.Sum
	binary := treated.binary() && control.binary()
	switch {
	case treated.Members <= 0 || control.Members <= 0:
		return ReasonEmptyArm
	case !control.Observed:
		return ReasonControlOutcomesNotObserved
	case !treated.Observed:
		return ReasonTreatedOutcomesNotObserved
	case binary && (treated.Sum > float64(treated.Members) || control.Sum > float64(control.Members)),
		treated.SumSquares < 0 || control.SumSquares < 0,
		math.IsNaN(sum) || math.IsInf(sum, 0) || math.IsNaN(treated.SumSquares+control.SumSquares) ||
			math.IsInf(treated.SumSquares+control.SumSquares, 0):
		return ReasonInconsistentCounts
	case treated.SumSquares+control.SumSquares == 0:
		return ReasonNoConversions
	case binary && sum == n:
		return ReasonAllConverted
	case treated.Members == 1 || control.Members == 1:
		return ReasonTooFewObservations
	case treated.meanVariance()+control.meanVariance() == 0 && !binary:
		return ReasonNoVariation
	}
	return ReasonNone
}

// fieller returns treated/control − 1 with Fieller's interval, unbounded when the control
// mean is not proven to differ from zero (g ≥ 1).
func fieller(treated, control Arm) Estimate {
	yc, vt, vc := control.mean(), treated.meanVariance(), control.meanVariance()
	if yc == 0 {
		return NotEstimable(ReasonZeroControlMean)
	}
	m := treated.mean() / yc
	g := z95 * z95 * vc / (yc * yc)
	if g >= 1 {
		return estimated(m-1, math.Inf(-1), math.Inf(1))
	}
	half := z95 / math.Abs(yc) * math.Sqrt(vt*(1-g)+m*m*vc)
	return estimated(m-1, (m-half)/(1-g)-1, (m+half)/(1-g)-1)
}

// newcombe returns the hybrid Wilson score interval of a difference of two rates (Newcombe
// 1998, method 10): it holds its level at few conversions, where Welch's does not.
func newcombe(treated, control Arm) (low, high float64) {
	pt, pc := treated.mean(), control.mean()
	lt, ht := wilson(treated.Sum, float64(treated.Members))
	lc, hc := wilson(control.Sum, float64(control.Members))
	d := pt - pc
	return d - math.Hypot(pt-lt, hc-pc), d + math.Hypot(ht-pt, pc-lc)
}

// conditionalRatio returns treated/control − 1 by Clopper-Pearson on S_t given S_t + S_c:
// π of the conversions are the treated arm's, and the ratio is π/(1−π)·n_c/n_t.
func conditionalRatio(treated, control Arm) Estimate {
	st, sc := treated.Sum, control.Sum
	scale := float64(control.Members) / float64(treated.Members)
	if sc == 0 {
		return NotEstimable(ReasonZeroControlMean)
	}
	const alpha = 0.05
	low := 0.0
	if st > 0 {
		low = betaQuantile(st, sc+1, alpha/2)
	}
	high := betaQuantile(st+1, sc, 1-alpha/2)
	ratio := func(pi float64) float64 { return pi / (1 - pi) * scale }
	return estimated(ratio(st/(st+sc))-1, ratio(low)-1, ratio(high)-1)
}

// SampleRatio is the test that customers were assigned to arms as planned.
type SampleRatio struct {
	Estimable  bool     `json:"estimable"`
	Reason     Reason   `json:"reason,omitempty"`
	ChiSquare  *float64 `json:"chi_square,omitempty"`
	Freedom    int      `json:"degrees_of_freedom,omitempty"`
	P          *float64 `json:"p,omitempty"`
	Mismatched bool     `json:"mismatched"` // P < 0.001: results must not be shown until explained
}

// SampleRatioTest compares assigned head-counts with the planned weights by χ². Arms with
// weight zero are left out, and so are their degrees of freedom.
func SampleRatioTest(observed []int64, weights []float64) SampleRatio {
	if len(observed) != len(weights) {
		return SampleRatio{Reason: ReasonInconsistentCounts}
	}
	var n, weight float64
	arms := 0
	for i, w := range weights {
		switch {
		case w < 0 || observed[i] < 0 || math.IsNaN(w) || math.IsInf(w, 0) || w == 0 && observed[i] > 0:
			return SampleRatio{Reason: ReasonInconsistentCounts}
		case w > 0:
			arms++
			n += float64(observed[i])
			weight += w
		}
	}
	switch {
	case arms < 2:
		return SampleRatio{Reason: ReasonNoArms}
	case n == 0:
		return SampleRatio{Reason: ReasonNoTrials}
	}
	var chi float64
	for i, w := range weights {
		if w > 0 {
			expected := n * w / weight
			chi += (float64(observed[i]) - expected) * (float64(observed[i]) - expected) / expected
		}
	}
	p := chiSquareTail(chi, float64(arms-1))
	return SampleRatio{Estimable: true, ChiSquare: &chi, Freedom: arms - 1, P: &p, Mismatched: p < 0.001}
}
