// Package evaluation holds the statistics by which a campaign is judged: the funnel, the
// effect over the control group, money against budget, and what a mid-course review
// recommends. Everything is a pure function of sufficient statistics. What the data cannot
// answer is "not estimable" with a reason; it is never 0 and never NaN.
package evaluation

import "math"

// Reason says why something is not estimable. Reasons are stable codes.
type Reason string

// The reasons.
const (
	ReasonNone                       Reason = ""
	ReasonControlOutcomesNotObserved Reason = "control_outcomes_not_observed" // outcomes exist only for those who were contacted
	ReasonTreatedOutcomesNotObserved Reason = "treated_outcomes_not_observed"
	ReasonEmptyArm                   Reason = "empty_arm"            // an arm has no members
	ReasonTooFewObservations         Reason = "too_few_observations" // an arm of one member has no variance
	ReasonNoConversions              Reason = "no_conversions"       // neither arm converted
	ReasonAllConverted               Reason = "all_converted"        // every member of both arms converted
	ReasonNoVariation                Reason = "no_variation"         // every value in both arms is the same
	ReasonZeroControlMean            Reason = "zero_control_mean"    // a relative effect has nothing to relate to
	ReasonNoTrials                   Reason = "no_trials"            // a rate of nothing
	ReasonInconsistentCounts         Reason = "inconsistent_counts"  // negative, or more successes than trials
	ReasonNoCost                     Reason = "no_cost"
	ReasonNoSuccesses                Reason = "no_successes"
	ReasonNoPlannedUnits             Reason = "no_planned_units"
	ReasonNoIncrementalSuccesses     Reason = "no_incremental_successes" // the estimate is zero or below
	ReasonOutOfRange                 Reason = "out_of_range"             // an amount does not fit in 64 bits
	ReasonNoArms                     Reason = "no_arms"                  // fewer than two arms with a weight
)

// Estimate is a figure with its interval, or the reason why there is none.
type Estimate struct {
	Estimable bool     `json:"estimable"`
	Reason    Reason   `json:"reason,omitempty"` // set iff not estimable
	Value     *float64 `json:"value,omitempty"`  // set iff estimable
	// Low and High bound the interval at the level its producer states. A missing bound of
	// an estimable figure means unbounded on that side: the data do not limit it.
	Low  *float64 `json:"low,omitempty"`
	High *float64 `json:"high,omitempty"`
}

// NotEstimable returns an Estimate without a figure.
func NotEstimable(reason Reason) Estimate { return Estimate{Reason: reason} }

// estimated returns an Estimate; an infinite bound becomes a missing one.
func estimated(value, low, high float64) Estimate {
	return Estimate{Estimable: true, Value: &value, Low: finite(low), High: finite(high)}
}

func finite(x float64) *float64 {
	if math.IsInf(x, 0) || math.IsNaN(x) {
		return nil
	}
	return &x
}

// z95 is the two-sided 95 % point of the normal distribution.
const z95 = 1.959963984540054

// Wilson returns the rate successes/trials with its Wilson 95 % score interval.
func Wilson(successes, trials int64) Estimate {
	switch {
	case trials < 0 || successes < 0 || successes > trials:
		return NotEstimable(ReasonInconsistentCounts)
	case trials == 0:
		return NotEstimable(ReasonNoTrials)
	}
	low, high := wilson(float64(successes), float64(trials))
	return estimated(float64(successes)/float64(trials), low, high)
}

func wilson(successes, trials float64) (low, high float64) {
	const z2 = z95 * z95
	p := successes / trials
	centre := p + z2/(2*trials)
	half := z95 * math.Sqrt(p*(1-p)/trials+z2/(4*trials*trials))
	scale := 1 + z2/trials
	return max(0, (centre-half)/scale), min(1, (centre+half)/scale)
}
