package evaluation

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Whole shapes have closed forms: Q(n, x) is a Poisson sum, I_x(a, b) a binomial one.
func poissonBelow(n int, x float64) float64 {
	sum, term := 0.0, math.Exp(-x)
	for k := range n {
		if k > 0 {
			term *= x / float64(k)
		}
		sum += term
	}
	return sum
}

func binomialFrom(a, n int, x float64) float64 {
	sum := 0.0
	for k := a; k <= n; k++ {
		lg := func(m int) float64 { v, _ := math.Lgamma(float64(m + 1)); return v }
		sum += math.Exp(lg(n) - lg(k) - lg(n-k) + float64(k)*math.Log(x) + float64(n-k)*math.Log1p(-x))
	}
	return sum
}

func TestIncompleteGammaAgainstThePoissonSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, x := rapid.IntRange(1, 60).Draw(t, "n"), rapid.Float64Range(0.01, 120).Draw(t, "x")
		p, q := gammaP(float64(n), x)
		want := poissonBelow(n, x)
		require.InDelta(t, want, q, 1e-12)
		require.InDelta(t, 1-want, p, 1e-12)
	})
}

func TestIncompleteBetaAgainstTheBinomialSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.IntRange(1, 60).Draw(t, "a"), rapid.IntRange(1, 60).Draw(t, "b")
		x := rapid.Float64Range(0.001, 0.999).Draw(t, "x")
		i, complement := betaI(float64(a), float64(b), x)
		want := binomialFrom(a, a+b-1, x)
		require.InDelta(t, want, i, 1e-11)
		require.InDelta(t, 1-want, complement, 1e-11)
		if complement > 1e-9 {
			require.InDelta(t, math.Log(complement), logBetaTail(float64(a), float64(b), x), 1e-6)
		}
	})
}

func TestKnownValues(t *testing.T) {
	p, _ := gammaP(0.5, 0.5) // erf(√½)
	require.InDelta(t, 0.6826894921370859, p, 1e-14)
	require.InDelta(t, 0.05, chiSquareTail(3.841458820694124, 1), 1e-13)
	require.InDelta(t, 0.001, chiSquareTail(27.877164871256575, 9), 1e-13)
	i, _ := betaI(0.5, 0.5, 0.25) // arcsine law: 2/π·asin(√x)
	require.InDelta(t, 1.0/3, i, 1e-14)
	_, tail := betaI(2, 500, 0.2) // far tail, a sum of two terms
	require.InEpsilon(t, math.Pow(0.8, 501)+501*0.2*math.Pow(0.8, 500), tail, 1e-9)
	require.InDelta(t, math.Pow(0.05, 0.1), betaQuantile(10, 1, 0.05), 1e-14)
	for _, x := range []float64{0, math.Inf(1)} {
		p, q := gammaP(3, x)
		require.Equal(t, 1.0, p+q)
	}
}
