package bench

import (
	"math"
	"slices"
)

// Summary sums up the figures of several runs.
type Summary struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// summarise returns the zero Summary for no figures. The median of an even number of
// figures is the mean of the two in the middle.
func summarise(figures []float64) Summary {
	if len(figures) == 0 {
		return Summary{}
	}
	sorted := slices.Sorted(slices.Values(figures))
	n := len(sorted)
	return Summary{Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Min: sorted[0], Max: sorted[n-1]}
}

func rates(runs []Run) []float64 {
	all := make([]float64, len(runs))
	for i, r := range runs {
		all[i] = r.PerSecond
	}
	return all
}

// Ratio compares two sides run by run: those of the same round met the same machine.
type Ratio struct {
	Of   string  `json:"of"`
	To   string  `json:"to"`
	Rate Summary `json:"rate"` // of items a second
	// CPU compares items per CPU second of all processes, which a busy machine disturbs
	// less; zero where the operating system does not tell.
	CPU Summary `json:"cpu"`
}

func ratio(of, to Side) Ratio {
	var rate, cpu []float64
	for i := range min(len(of.Runs), len(to.Runs)) {
		a, b := of.Runs[i], to.Runs[i]
		rate = append(rate, a.PerSecond/b.PerSecond)
		if ca, cb := a.perCPU(), b.perCPU(); ca > 0 && cb > 0 {
			cpu = append(cpu, ca/cb)
		}
	}
	return Ratio{Of: of.Name, To: to.Name, Rate: summarise(rate), CPU: summarise(cpu)}
}

// perCPU is items per CPU second of all processes together, 0 when it is not known.
func (r Run) perCPU() float64 {
	var total float64
	for _, seconds := range r.CPU {
		total += seconds
	}
	if total == 0 {
		return 0
	}
	return float64(r.Items) / total
}

// Growth says how a side's time grows with the amount of work.
type Growth struct {
	Side  string `json:"side"`
	Sizes []Size `json:"sizes"`
	// Exponent is the slope of log time over log rows, by least squares: 1 is linear.
	Exponent float64 `json:"exponent"`
}

// Size is one point of a growth.
type Size struct {
	Rows    int     `json:"rows"`
	Seconds float64 `json:"seconds"` // median
}

func exponent(sizes []Size) float64 {
	n := float64(len(sizes))
	var sx, sy, sxx, sxy float64
	for _, s := range sizes {
		x, y := math.Log(float64(s.Rows)), math.Log(s.Seconds)
		sx, sy, sxx, sxy = sx+x, sy+y, sxx+x*x, sxy+x*y
	}
	return (n*sxy - sx*sy) / (n*sxx - sx*sx)
}
