package bench

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSummarise(t *testing.T) {
	for _, c := range []struct {
		figures []float64
		want    Summary
	}{
		{nil, Summary{}},
		{[]float64{3}, Summary{3, 3, 3}},
		{[]float64{4, 1}, Summary{2.5, 1, 4}},
		{[]float64{9, 1, 2}, Summary{2, 1, 9}},
	} {
		require.Equal(t, c.want, summarise(c.figures))
	}
}

func TestRatioComparesRunsOfTheSameRound(t *testing.T) {
	slowing := func(name string, perSecond ...float64) Side {
		s := Side{Name: name}
		for _, r := range perSecond {
			s.Runs = append(s.Runs, Run{PerSecond: r})
		}
		return s
	}
	a, b := slowing("a", 50, 20, 5), slowing("b", 100, 40, 20)
	r := ratio(a, b)
	require.Equal(t, Ratio{Of: "a", To: "b", Rate: Summary{Median: .5, Min: .25, Max: .5}}, r)

	a.Runs[0].Items, a.Runs[0].CPU = 100, map[string]float64{"muster": 2, "PostgreSQL": 3}
	b.Runs[0].Items, b.Runs[0].CPU = 100, map[string]float64{"PostgreSQL": 1}
	require.Equal(t, Summary{Median: .2, Min: .2, Max: .2}, ratio(a, b).CPU, "20 a CPU second against 100")
}

func TestExponent(t *testing.T) {
	require.InDelta(t, 1, exponent([]Size{{1000, 2}, {2000, 4}, {4000, 8}}), 1e-9)
	require.InDelta(t, 2, exponent([]Size{{10, 1}, {20, 4}, {40, 16}}), 1e-9)
	require.InDelta(t, 0, exponent([]Size{{10, 3}, {100, 3}}), 1e-9)
}

func TestGrouped(t *testing.T) {
	for x, want := range map[float64]string{0: "0", 999.6: "1,000", 12: "12", 123456: "123,456", 1e6: "1,000,000"} {
		require.Equal(t, want, grouped(x))
	}
}
