package evaluation

import "math"

// The incomplete gamma and beta functions, by series and continued fraction (Lentz's
// method; Abramowitz and Stegun 6.5.29, 6.5.31, 26.5.8). Relative accuracy about 1e-13.

const (
	epsilon    = 1e-16
	tiny       = 1e-300
	iterations = 10_000
)

// gammaP returns the regularised lower incomplete gamma function P(a, x), a > 0, x ≥ 0,
// and its complement Q(a, x), each computed without cancellation where it is small.
func gammaP(a, x float64) (p, q float64) {
	if x <= 0 {
		return 0, 1
	}
	if math.IsInf(x, 1) {
		return 1, 0
	}
	lg, _ := math.Lgamma(a)
	front := math.Exp(a*math.Log(x) - x - lg)
	if x < a+1 {
		term := 1 / a
		sum := term
		for n := a + 1; term > sum*epsilon; n++ {
			term *= x / n
			sum += term
		}
		p = min(1, front*sum)
		return p, 1 - p
	}
	b := x + 1 - a
	c, d := 1/tiny, 1/b
	h := d
	for i := 1.0; i < iterations; i++ {
		an := -i * (i - a)
		b += 2
		d = an*d + b
		if math.Abs(d) < tiny {
			d = tiny
		}
		c = b + an/c
		if math.Abs(c) < tiny {
			c = tiny
		}
		d = 1 / d
		h *= d * c
		if math.Abs(d*c-1) < epsilon {
			break
		}
	}
	q = min(1, front*h)
	return 1 - q, q
}

// chiSquareTail returns P(X ≥ x) for a chi-square variable with df degrees of freedom.
func chiSquareTail(x, df float64) float64 {
	_, q := gammaP(df/2, x/2)
	return q
}

func logBeta(a, b float64) float64 {
	x, _ := math.Lgamma(a)
	y, _ := math.Lgamma(b)
	z, _ := math.Lgamma(a + b)
	return x + y - z
}

// betaI returns the regularised incomplete beta function I_x(a, b), a, b > 0, and its
// complement, each computed without cancellation where it is small.
func betaI(a, b, x float64) (i, complement float64) {
	if x <= 0 {
		return 0, 1
	}
	if x >= 1 {
		return 1, 0
	}
	log := a*math.Log(x) + b*math.Log1p(-x) - logBeta(a, b)
	if x < (a+1)/(a+b+2) {
		i = min(1, math.Exp(log-math.Log(a))*betaFraction(a, b, x))
		return i, 1 - i
	}
	complement = min(1, math.Exp(log-math.Log(b))*betaFraction(b, a, 1-x))
	return 1 - complement, complement
}

// logBetaTail returns ln(1 − I_x(a, b)) without underflow.
func logBetaTail(a, b, x float64) float64 {
	if i, _ := betaI(a, b, x); x < (a+1)/(a+b+2) {
		return math.Log1p(-i)
	}
	return a*math.Log(x) + b*math.Log1p(-x) - logBeta(a, b) - math.Log(b) + math.Log(betaFraction(b, a, 1-x))
}

func betaFraction(a, b, x float64) float64 {
	c, d := 1.0, 1-(a+b)*x/(a+1)
	if math.Abs(d) < tiny {
		d = tiny
	}
	d = 1 / d
	h := d
	for m := 1.0; m < iterations; m++ {
		step := 1.0
		for _, n := range [2]float64{
			m * (b - m) * x / ((a + 2*m - 1) * (a + 2*m)),
			-(a + m) * (a + b + m) * x / ((a + 2*m) * (a + 2*m + 1)),
		} {
			if d = 1 + n*d; math.Abs(d) < tiny {
				d = tiny
			}
			if c = 1 + n/c; math.Abs(c) < tiny {
				c = tiny
			}
			d = 1 / d
			step = d * c
			h *= step
		}
		if math.Abs(step-1) < epsilon {
			break
		}
	}
	return h
}

// betaQuantile returns x with I_x(a, b) = p, by bisection.
func betaQuantile(a, b, p float64) float64 {
	low, high := 0.0, 1.0
	for range 200 {
		middle := (low + high) / 2
		if middle == low || middle == high {
			break
		}
		if i, _ := betaI(a, b, middle); i < p {
			low = middle
		} else {
			high = middle
		}
	}
	return (low + high) / 2
}
