package targeting

import (
	"errors"
	"fmt"
	"math"
)

// Arms of an experiment of two are sized for a difference of proportions (decision science:
// control groups).

// Measurable is the least number of conversions that the control group must be expected to
// have: with fewer no effect of any use can be told from chance.
const Measurable = 100

// ErrNotEstimable means that a formula has no answer for its arguments.
var ErrNotEstimable = errors.New("not estimable")

// Test is how sure an experiment must be.
type Test struct {
	Alpha float64 // probability to see an effect where there is none, two-sided
	Power float64 // probability to see one that is there
	// CUPED is the correlation of the metric with what is known before, by whose square a
	// covariate reduces the sample; 0 for none.
	CUPED float64
}

// StandardTest is 5 % and 80 %.
func StandardTest() Test { return Test{Alpha: 0.05, Power: 0.8} }

// factor is (z_{1−α/2} + z_{1−β})², less what a covariate explains.
func (t Test) factor() (float64, error) {
	if !(t.Alpha > 0 && t.Alpha < 1 && t.Power > 0 && t.Power < 1 && t.CUPED > -1 && t.CUPED < 1) {
		return 0, fmt.Errorf("%w: alpha and power lie between 0 and 1, the correlation between -1 and 1", ErrNotEstimable)
	}
	z := normalQuantile(1-t.Alpha/2) + normalQuantile(t.Power)
	return z * z * (1 - t.CUPED*t.CUPED), nil
}

func normalQuantile(p float64) float64 { return math.Sqrt2 * math.Erfinv(2*p-1) }

// Sizes returns how many customers must be treated and held out to see the conversion rate
// go from base to lifted, with ratio customers held out for each one treated:
//
//	n_t = (z_{1−α/2}+z_{1−β})² (p₁q₁ + p₀q₀/κ) / (p₁−p₀)²,  n_c = κ n_t
//
// both rounded up. It is ErrNotEstimable when the rates are no probabilities or the same.
func (t Test) Sizes(base, lifted, ratio float64) (treated, control int64, err error) {
	factor, err := t.factor()
	if err != nil {
		return 0, 0, err
	}
	if !(base >= 0 && base <= 1 && lifted >= 0 && lifted <= 1 && ratio > 0) || base == lifted || math.IsInf(ratio, 1) {
		return 0, 0, fmt.Errorf("%w: two different rates from 0 to 1 and a positive ratio are needed", ErrNotEstimable)
	}
	d := lifted - base
	n := factor * (lifted*(1-lifted) + base*(1-base)/ratio) / (d * d)
	if !(n < 1e15) {
		return 0, 0, fmt.Errorf("%w: no list is as long", ErrNotEstimable)
	}
	return int64(math.Ceil(n)), int64(math.Ceil(ratio * n)), nil
}

// Detectable returns the least increase over base that treated and control customers can
// show: the d for which Sizes asks for just as many. It is ErrNotEstimable when even a rate of
// 1 could not be told from it.
func (t Test) Detectable(base float64, treated, control int64) (float64, error) {
	factor, err := t.factor()
	if err != nil {
		return 0, err
	}
	if !(base >= 0 && base < 1) || treated < 1 || control < 1 {
		return 0, fmt.Errorf("%w: both arms need customers and the rate must lie from 0 to below 1", ErrNotEstimable)
	}
	// d grows faster than what it must exceed, so that bisection finds where they cross.
	needed := func(d float64) float64 {
		p := base + d
		return d*d - factor*(p*(1-p)/float64(treated)+base*(1-base)/float64(control))
	}
	low, high := 0.0, 1-base
	if needed(high) < 0 {
		return 0, fmt.Errorf("%w: the arms are too small to see any increase over %v", ErrNotEstimable, base)
	}
	for range 200 {
		middle := (low + high) / 2
		if needed(middle) < 0 {
			low = middle
		} else {
			high = middle
		}
	}
	return high, nil
}

// SampleRatio returns the χ² of observed counts of customers beside the weights by which they
// were assigned, and the probability of one as large by chance (sample-ratio mismatch). Arms
// without weight count neither as customers nor as degrees of freedom; it is ErrNotEstimable
// with fewer than two others or without customers.
func SampleRatio(observed []int64, weights []float64) (chi2, p float64, err error) {
	if len(observed) != len(weights) {
		return 0, 0, fmt.Errorf("%w: %d arms and %d weights", ErrNotEstimable, len(observed), len(weights))
	}
	var n, sum float64
	arms := 0
	for i, w := range weights {
		if !(w >= 0) || math.IsInf(w, 1) || observed[i] < 0 {
			return 0, 0, fmt.Errorf("%w: weights and counts are not negative", ErrNotEstimable)
		}
		if w > 0 {
			arms++
			n, sum = n+float64(observed[i]), sum+w
		}
	}
	if arms < 2 || n == 0 {
		return 0, 0, fmt.Errorf("%w: two arms with customers are needed", ErrNotEstimable)
	}
	for i, w := range weights {
		if w > 0 {
			expected := n * w / sum
			d := float64(observed[i]) - expected
			chi2 += d * d / expected
		}
	}
	return chi2, chiSquareTail(chi2, arms-1), nil
}

// MismatchLevel is the probability below which a sample ratio is taken for broken: results
// are looked at every day.
const MismatchLevel = 0.0005

// chiSquareTail returns P(χ²_df > x) = Q(df/2, x/2). The half-integer incomplete gamma has a
// finite form: Q(a+1, y) = Q(a, y) + yᵃe⁻ʸ/Γ(a+1), from Q(½, y) = erfc(√y) and Q(1, y) = e⁻ʸ.
func chiSquareTail(x float64, df int) float64 {
	y := x / 2
	a, q := 1.0, math.Exp(-y)
	if df%2 == 1 {
		a, q = 0.5, math.Erfc(math.Sqrt(y))
	}
	for ; a < float64(df)/2; a++ {
		gamma, _ := math.Lgamma(a + 1)
		q += math.Exp(a*math.Log(y) - y - gamma)
	}
	return q
}

// TwoProportions returns the z of the difference between two shares, by their pooled variance,
// and its two-sided probability by chance: whether control and treated customers were
// contacted by others alike.
func TwoProportions(x1, n1, x2, n2 int64) (z, p float64, err error) {
	if n1 < 1 || n2 < 1 || x1 < 0 || x2 < 0 || x1 > n1 || x2 > n2 {
		return 0, 0, fmt.Errorf("%w: shares of two groups with customers are needed", ErrNotEstimable)
	}
	p1, p2 := float64(x1)/float64(n1), float64(x2)/float64(n2)
	pooled := float64(x1+x2) / float64(n1+n2)
	se := math.Sqrt(pooled * (1 - pooled) * (1/float64(n1) + 1/float64(n2)))
	if se == 0 {
		return 0, 1, nil // nobody was, or everybody
	}
	z = (p1 - p2) / se
	return z, math.Erfc(math.Abs(z) / math.Sqrt2), nil
}
