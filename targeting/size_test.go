package targeting

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// The figures are those of decision science: control groups.
func TestSizes(t *testing.T) {
	for _, c := range []struct {
		base, lifted, ratio float64
		treated, control    int64
	}{
		{.02, .025, 1, 13_807, 13_807},
		{.02, .025, 1. / 9, 63_035, 7_004},
		{.01, .012, 1. / 9, 198_098, 22_011},
		{.05, .055, 1. / 19, 299_663, 15_772},
	} {
		treated, control, err := StandardTest().Sizes(c.base, c.lifted, c.ratio)
		require.NoError(t, err)
		// As printed there, rounded to the nearest.
		require.InDelta(t, c.treated, treated, 1)
		require.InDelta(t, c.control, control, 1)
		least, err := StandardTest().Detectable(c.base, treated, control)
		require.NoError(t, err)
		require.InDelta(t, c.lifted-c.base, least, 1e-6)
	}
	plain, _, err := StandardTest().Sizes(.02, .025, 1)
	require.NoError(t, err)
	less, _, err := Test{Alpha: .05, Power: .8, CUPED: .6}.Sizes(.02, .025, 1)
	require.NoError(t, err)
	require.InDelta(t, float64(plain)*.64, float64(less), 2)
}

func TestWhatCannotBeSized(t *testing.T) {
	for _, c := range [][3]float64{{.02, .02, 1}, {-.1, .2, 1}, {.1, 1.2, 1}, {.1, .2, 0}, {math.NaN(), .2, 1}, {.1, math.NaN(), 1}, {.1, .2, math.Inf(1)}} {
		_, _, err := StandardTest().Sizes(c[0], c[1], c[2])
		require.ErrorIs(t, err, ErrNotEstimable, "%v", c)
	}
	for _, test := range []Test{{Alpha: 0, Power: .8}, {Alpha: .05, Power: 1}, {Alpha: .05, Power: .8, CUPED: 1}} {
		_, _, err := test.Sizes(.1, .2, 1)
		require.ErrorIs(t, err, ErrNotEstimable)
	}
	_, err := StandardTest().Detectable(.5, 3, 3)
	require.ErrorIs(t, err, ErrNotEstimable)
	_, err = StandardTest().Detectable(.02, 0, 100)
	require.ErrorIs(t, err, ErrNotEstimable)
}

func TestSampleRatio(t *testing.T) {
	for _, c := range []struct {
		observed []int64
		weights  []float64
		chi2, p  float64
		digits   float64
	}{
		{[]int64{600, 400}, []float64{1, 1}, 40, 2.54e-10, 5e-13},
		{[]int64{90_300, 9_700}, []float64{90, 10}, 10.000, .001565, 5e-7},
		{[]int64{21_387, 21_306, 21_307}, []float64{1, 1, 1}, .2025, .9037, 5e-5},
		// An arm without weight is no degree of freedom.
		{[]int64{90_300, 9_700, 0}, []float64{90, 10, 0}, 10.000, .001565, 5e-7},
		{[]int64{500, 500}, []float64{1, 1}, 0, 1, 0},
	} {
		chi2, p, err := SampleRatio(c.observed, c.weights)
		require.NoError(t, err)
		require.InDelta(t, c.chi2, chi2, 5e-5)
		require.InDelta(t, c.p, p, c.digits)
	}
	for _, c := range []struct {
		observed []int64
		weights  []float64
	}{{[]int64{0, 0}, []float64{1, 1}}, {[]int64{5}, []float64{1}}, {[]int64{5, 5}, []float64{1, 0}}, {[]int64{5, 5}, []float64{1}}, {[]int64{5, -1}, []float64{1, 1}}, {[]int64{5, 1}, []float64{1, math.NaN()}}} {
		_, _, err := SampleRatio(c.observed, c.weights)
		require.ErrorIs(t, err, ErrNotEstimable, "%v", c)
	}
}

// Known quantiles of χ² at 5 % for 1 to 10 degrees of freedom.
func TestChiSquareTail(t *testing.T) {
	for i, x := range []float64{3.841459, 5.991465, 7.814728, 9.487729, 11.070498, 12.591587, 14.067140, 15.507313, 16.918978, 18.307038} {
		require.InDelta(t, .05, chiSquareTail(x, i+1), 1e-7, "df %d", i+1)
	}
	rapid.Check(t, func(t *rapid.T) {
		df := rapid.IntRange(1, 60).Draw(t, "df")
		x := rapid.Float64Range(0, 200).Draw(t, "x")
		p := chiSquareTail(x, df)
		require.True(t, p >= 0 && p <= 1+1e-12, "%v", p)
		require.LessOrEqual(t, chiSquareTail(x+1, df), p+1e-12)
		require.GreaterOrEqual(t, chiSquareTail(x, df+1), p-1e-12)
	})
}

func TestTwoProportions(t *testing.T) {
	z, p, err := TwoProportions(120, 1_000, 100, 1_000)
	require.NoError(t, err)
	require.InDelta(t, 1.4293, z, 5e-5)
	require.InDelta(t, .1529, p, 5e-5)
	z, p, err = TwoProportions(0, 10, 0, 20)
	require.NoError(t, err)
	require.Equal(t, []float64{0, 1}, []float64{z, p})
	_, _, err = TwoProportions(0, 0, 1, 2)
	require.ErrorIs(t, err, ErrNotEstimable)
}
