package dataset

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func operator(tb testing.TB, size int, seed uint64) *Set {
	tb.Helper()
	set, err := Operator(OperatorOptions{Size: size, Seed: seed, Units: []string{"east", "west", "north"}})
	require.NoError(tb, err)
	return set
}

func TestOperatorRowsDependOnSeedAndNumberAlone(t *testing.T) {
	whole := collect(operator(t, 3000, 7).Stream(0, 3000))
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.IntRange(0, 3000).Draw(t, "from")
		to := rapid.IntRange(from, min(3000, from+50)).Draw(t, "to")
		set, err := Operator(OperatorOptions{Size: to, Seed: 7, Units: []string{"east", "west", "north"}})
		require.NoError(t, err)
		part := collect(set.Stream(from, to))
		require.Len(t, part, to-from)
		for i := range part {
			require.Equal(t, whole[from+i], part[i])
		}
	})
	other := collect(operator(t, 3000, 8).Stream(0, 3000))
	var same int
	for i := range whole {
		require.Equal(t, whole[i].ExternalID, other[i].ExternalID)
		if whole[i].Values[colARPU] == other[i].Values[colARPU] {
			same++
		}
	}
	require.Less(t, same, 30)
}

// A golden row: a change of the generator changes what a seed means, and that
// must not happen unseen.
func TestOperatorGoldenRow(t *testing.T) {
	s := operator(t, 10, 42).Stream(3, 4)
	require.True(t, s.Next())
	c := copyOf(s.Customer())
	require.Equal(t, "gen-000000004", c.ExternalID)
	require.Equal(t, "+9992000000004", c.MSISDN)
	require.Equal(t, "Asia/Shanghai", c.TimeZone)
	require.Equal(t, "east", c.OrgUnit)
	require.Equal(t, []any{
		int64(36), "self_employed", "suburban", false, true, true, int64(108), time.Date(2003, time.May, 1, 0, 0, 0, 0, time.UTC),
		int64(19101), false, "standard", nil, int64(65), int64(606), int64(39), int64(9), int64(2), int64(38), int64(0), int64(11),
		int64(2), false, false, false, int64(0), int64(1), 1.0, false, false,
	}, c.Values)
}

func TestOperatorIDs(t *testing.T) {
	for i, want := range map[int]string{0: "000000001", 8: "000000009", 9: "000000010", 999_999_998: "999999999"} {
		id, phone := operatorIDs(i)
		require.Equal(t, "gen-"+want, id)
		require.Equal(t, "+9992"+want, phone)
	}
}

// within fails unless hits of n is a plausible draw at the given rate: five
// standard errors either way.
func within(t *testing.T, rate float64, hits, n int, what string) {
	t.Helper()
	se := math.Sqrt(rate * (1 - rate) / float64(n))
	require.InDelta(t, rate, float64(hits)/float64(n), 5*se, what)
}

func TestOperatorHasThePublishedMarginals(t *testing.T) {
	const n = 1_000_000
	var both, mobileOnly, broadbandOnly, bothTakers, mobileTakers, takersYoung int
	var young, adult, local, vip, mms, optOutSMS, optOutCall int
	units := map[string]int{}
	for s := operator(t, n, 20120531).Stream(0, n); s.Next(); {
		c := s.Customer()
		v := c.Values
		units[c.OrgUnit]++
		mobile, broadband, taken := v[colHasMobile].(bool), v[colHasBroadband].(bool), v[colPromotedPhone].(bool)
		age := v[colAge].(int64)
		switch {
		case mobile && broadband:
			both++
			if taken {
				bothTakers++
			}
		case mobile:
			mobileOnly++
			if taken {
				mobileTakers++
			}
		case broadband:
			broadbandOnly++
			require.False(t, taken)
		default:
			require.Fail(t, "a customer without any service")
		}
		if mobile && age >= 24 && age < 37 {
			young++
			if taken {
				takersYoung++
			}
		}
		if mobile && (age >= 18 && age < 24 || age >= 37 && age < 46) {
			adult++
		}
		for col, count := range map[int]*int{colLocal: &local, colVIP: &vip, colMMSPack: &mms, colOptOutSMS: &optOutSMS, colOptOutCall: &optOutCall} {
			if v[col].(bool) {
				*count++
			}
		}
	}
	within(t, 778_092.0/3_453_127, both, n, "mobile and broadband")
	within(t, 995_035.0/3_453_127, mobileOnly, n, "mobile only")
	within(t, 1_680_000.0/3_453_127, broadbandOnly, n, "broadband only")
	within(t, 0.00191, bothTakers, both, "phone taken, mobile and broadband")
	within(t, 0.00149, mobileTakers, mobileOnly, "phone taken, mobile only")
	within(t, 0.33, young, both+mobileOnly, "aged 24 to 36")
	within(t, 0.34, adult, both+mobileOnly, "aged 18 to 23 or 37 to 45")
	within(t, 20*.33/(20*.33+7*.34+2*.33), takersYoung, bothTakers+mobileTakers, "takers aged 24 to 36")
	within(t, 0.78, local, n, "local residents")
	within(t, 0.04, vip, n, "VIP")
	within(t, 0.10, mms, both+mobileOnly, "MMS pack")
	within(t, 0.06, optOutSMS, n, "opted out of SMS")
	within(t, 0.045, optOutCall, n, "opted out of calls")
	for unit, count := range units {
		within(t, 1.0/3, count, n, unit)
	}
}

// The sample above is too small to tell neighbouring rare rates apart; the
// rates by age band must average to the published ones.
func TestTakenRatesAverageToThePublishedOnes(t *testing.T) {
	for broadband, want := range map[bool]float64{true: 0.00191, false: 0.00149} {
		const n = 200_000
		var sum float64
		for i := range n {
			sum += float64(takenRate(mobileAges.at(int64(i)*ppm/n), broadband)) / ppb
		}
		require.InDelta(t, want, sum/n, 1e-8)
	}
}

func TestOperatorRowsAreConsistent(t *testing.T) {
	var takers, complaining int
	seen := map[any]bool{}
	for s := operator(t, 50_000, 5).Stream(0, 50_000); s.Next(); {
		v := s.Customer().Values
		seen[v[colSegment]] = true
		age, tenure := v[colAge].(int64), v[colTenure].(int64)
		require.GreaterOrEqual(t, age, int64(14))
		require.Less(t, age, int64(86))
		require.LessOrEqual(t, tenure, (age-13)*12)
		require.Positive(t, v[colARPU])
		if v[colComplaints].(int64) > 0 {
			complaining++
		}
		mobile := v[colHasMobile].(bool)
		for _, col := range mobileColumns {
			if col != colContractLeft {
				require.Equal(t, mobile, v[col] != nil, operatorAttributes[col].Name)
			}
		}
		require.Equal(t, v[colHasBroadband], v[colBroadbandSpeed] != nil)
		if mobile {
			require.Equal(t, v[colDataMB].(int64) > 0, v[colDataMonths].(int64) > 0)
			require.LessOrEqual(t, v[colDataMonths], int64(6))
		}
		if v[colPromotedPhone].(bool) {
			takers++
			require.LessOrEqual(t, v[colDeviceAge], int64(2))
			require.Equal(t, int64(24), v[colDeviceAge].(int64)+v[colContractLeft].(int64))
		}
	}
	require.Positive(t, takers)
	require.Positive(t, complaining)
	require.Len(t, seen, 10, "ten customer groups")
}

func TestNearKeepsTheDistributionAndGoesAlong(t *testing.T) {
	const n, bins = 400_000, 20
	d := newDraw(1, 1)
	var count [bins]int
	var sxy, sx, sy, sxx, syy float64
	for range n {
		u := d.rank()
		w := d.near(u)
		require.True(t, w >= 0 && w < ppm)
		count[w*bins/ppm]++
		x, y := float64(u)/ppm, float64(w)/ppm
		sx, sy, sxy, sxx, syy = sx+x, sy+y, sxy+x*y, sxx+x*x, syy+y*y
	}
	for bin, c := range count {
		within(t, 1.0/bins, c, n, string(rune('a'+bin)))
	}
	r := (n*sxy - sx*sy) / math.Sqrt((n*sxx-sx*sx)*(n*syy-sy*sy))
	require.Greater(t, r, 0.5)
	require.Less(t, r, 0.9)
}

func TestCurve(t *testing.T) {
	c := curve{{0, 10}, {500_000, 10}, {750_000, 20}, {ppm, 60}}
	for u, want := range map[int64]int64{0: 10, 499_999: 10, 500_000: 10, 625_000: 15, 749_999: 19, 750_000: 20, 875_000: 40, 999_999: 59} {
		require.Equal(t, want, c.at(u), u)
	}
	require.Equal(t, int64(750_000), c.share(20))
	require.Panics(t, func() { c.share(30) })
}

func BenchmarkOperator(b *testing.B) {
	set := operator(b, 999_999_999, 1)
	b.ReportAllocs()
	s := set.Stream(0, set.Size)
	for b.Loop() {
		s.Next()
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
