package market

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var channelNames = []string{"call", "email", "sms"}

// truths draws valid truths with tiers core and basic and three channels.
var truths = rapid.Custom(func(t *rapid.T) Truth {
	share := func(name string) float64 { return rapid.Float64Range(0, 0.25).Draw(t, name) }
	truth := Truth{
		Seed:     rapid.Uint64().Draw(t, "seed"),
		BaseRate: map[string]float64{"core": share("core"), "basic": share("basic")},
		Effect:   map[string]map[string]float64{},
	}
	for _, c := range channelNames {
		truth.Effect[c] = map[string]float64{"core": share(c + " core"), "basic": share(c + " basic")}
	}
	truth.ResponseDelay.Mean = time.Duration(rapid.Int64Range(0, int64(30*24*time.Hour)).Draw(t, "mean"))
	truth.ResponseDelay.Max = truth.ResponseDelay.Mean * time.Duration(rapid.IntRange(1, 10).Draw(t, "max"))
	return truth
})

func market(t rapid.TB, truth Truth, salt string) *Market {
	t.Helper()
	m, err := New(truth, salt)
	require.NoError(t, err)
	return m
}

func TestContactsNeverUndoAConversion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := market(t, truths.Draw(t, "truth"), rapid.String().Draw(t, "salt"))
		tier := rapid.SampledFrom([]string{"core", "basic"}).Draw(t, "tier")
		fewer := rapid.SliceOfDistinct(rapid.SampledFrom(channelNames), rapid.ID[string]).Draw(t, "fewer")
		more := append(slices.Clone(fewer), rapid.SliceOf(rapid.SampledFrom(channelNames)).Draw(t, "more")...)
		for i := range 50 {
			id := strconv.Itoa(i)
			none, err := m.Responds(id, tier, nil)
			require.NoError(t, err)
			few, err := m.Responds(id, tier, fewer)
			require.NoError(t, err)
			many, err := m.Responds(id, tier, more)
			require.NoError(t, err)

			require.False(t, none.Incremental)
			require.True(t, few.Responds || !none.Responds)
			require.True(t, many.Responds || !few.Responds)
			require.Equal(t, few.Responds && !none.Responds, few.Incremental)
			require.Equal(t, many.Responds && !none.Responds, many.Incremental)
			if few.Responds {
				require.Equal(t, few.After, many.After)
			}
			if !many.Responds {
				require.Equal(t, Answer{}, many)
			}
			require.GreaterOrEqual(t, many.After, time.Duration(0))
			require.LessOrEqual(t, many.After, m.truth.ResponseDelay.Max)
		}
	})
}

func TestAnswersAreDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		truth := truths.Draw(t, "truth")
		salt, id := rapid.String().Draw(t, "salt"), rapid.String().Draw(t, "id")
		channels := rapid.SliceOf(rapid.SampledFrom(channelNames)).Draw(t, "channels")
		shuffled := rapid.Permutation(channels).Draw(t, "shuffled")
		once := append([]string(nil), slices.Compact(slices.Sorted(slices.Values(channels)))...)

		m := market(t, truth, salt)
		first, err := m.Responds(id, "core", channels)
		require.NoError(t, err)
		for _, same := range [][]string{channels, shuffled, once} {
			for _, again := range []*Market{m, market(t, truth, salt)} {
				a, err := again.Responds(id, "core", same)
				require.NoError(t, err)
				require.Equal(t, first, a)
			}
		}
	})
}

// A change of the draw changes every simulated campaign, and that must not
// happen unseen.
func TestGoldenAnswers(t *testing.T) {
	truth := Default()
	truth.BaseRate["core"], truth.Effect["call"]["core"] = 0.3, 0.4
	m := market(t, truth, "camp-42")
	var got []string
	for id := range 12 {
		a, err := m.Responds(strconv.Itoa(id), "core", []string{"call"})
		require.NoError(t, err)
		got = append(got, fmt.Sprintf("%v %v %s", a.Responds, a.Incremental, a.After))
	}
	require.Equal(t, []string{
		"true true 4.718s", "true true 780ms", "false false 0s", "true true 5.041s", "false false 0s", "true true 284ms",
		"false false 0s", "true true 1.986s", "true true 4.686s", "false false 0s", "true false 5.059s", "true true 3.415s",
	}, got)
}

func TestTheMarketOwnsItsTruth(t *testing.T) {
	truth := Default()
	m := market(t, truth, "")
	truth.BaseRate["core"], truth.Effect["sms"]["core"] = 1, 1
	require.Equal(t, Default(), m.truth)
}

func TestUnknownNamesAreErrors(t *testing.T) {
	m := market(t, Default(), "")
	_, err := m.Responds("1", "gold", nil)
	require.ErrorContains(t, err, `tier "gold"`)
	_, err = m.Responds("1", "core", []string{"sms", "pigeon"})
	require.ErrorContains(t, err, `channel "pigeon"`)
	_, err = m.TrueEffect(slices.Values([]Treated{{CustomerID: "1", Tier: "core"}, {CustomerID: "2", Tier: "core", ContactedBy: []string{"pigeon"}}}))
	require.ErrorContains(t, err, "customer 2: ")
}

// assignment contacts customers 0..n-1 by turns with nothing, one channel and
// both.
func assignment(n int) []Treated {
	turns := [][]string{nil, {"sms"}, {"call"}, {"sms", "call"}}
	tiers := []string{"core", "general", "basic"}
	all := make([]Treated, n)
	for i := range all {
		all[i] = Treated{CustomerID: strconv.Itoa(i), Tier: tiers[i%len(tiers)], ContactedBy: turns[i/len(tiers)%len(turns)]}
	}
	return all
}

// deviation is |hits - expected| in standard errors of n draws.
func deviation(hits int, p float64, n int) float64 {
	return math.Abs(float64(hits)-p*float64(n)) / math.Sqrt(float64(n)*p*(1-p))
}

func TestRatesAreThoseOfTheTruth(t *testing.T) {
	truth := Default()
	m := market(t, truth, "rates")
	const n = 200_000
	for tier, base := range truth.BaseRate {
		for _, c := range []struct {
			channels []string
			p        float64
		}{
			{nil, base},
			{[]string{"sms"}, base + truth.Effect["sms"][tier]},
			{[]string{"call"}, base + truth.Effect["call"][tier]},
			{[]string{"call", "sms", "call"}, base + truth.Effect["sms"][tier] + truth.Effect["call"][tier]},
		} {
			var hits int
			for i := range n {
				a, err := m.Responds(strconv.Itoa(i), tier, c.channels)
				require.NoError(t, err)
				if a.Responds {
					hits++
				}
			}
			require.Less(t, deviation(hits, c.p, n), 4.0, "%s %v: %d of %d at %v", tier, c.channels, hits, n, c.p)
		}
	}
}

func TestTrueEffect(t *testing.T) {
	truth := Default()
	m := market(t, truth, "effect")
	const n = 120_000
	all := assignment(n)
	e, err := m.TrueEffect(slices.Values(all))
	require.NoError(t, err)
	require.Equal(t, n, e.Customers)

	// By hand: a quarter of each tier is contacted by sms, a quarter by call,
	// a quarter by both.
	var base, incremental float64
	for tier, b := range truth.BaseRate {
		base += b * n / 3
		incremental += (truth.Effect["sms"][tier] + truth.Effect["call"][tier]) * n / 3 / 2
	}
	require.InDelta(t, incremental, e.ExpectedIncremental, 1e-6)
	require.InDelta(t, base+incremental, e.ExpectedResponses, 1e-6)

	require.Less(t, deviation(e.RealisedResponses, e.ExpectedResponses/n, n), 4.0)
	require.Less(t, deviation(e.RealisedIncremental, e.ExpectedIncremental/n, n), 4.0)

	// The realised effect is the difference between the two worlds.
	var with, without int
	for _, c := range all {
		a, err := m.Responds(c.CustomerID, c.Tier, c.ContactedBy)
		require.NoError(t, err)
		b, err := m.Responds(c.CustomerID, c.Tier, nil)
		require.NoError(t, err)
		if a.Responds {
			with++
		}
		if b.Responds {
			without++
		}
	}
	require.Equal(t, with, e.RealisedResponses)
	require.Equal(t, with-without, e.RealisedIncremental)
}

func TestNobodyContactedHasNoEffect(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := market(t, truths.Draw(t, "truth"), "none")
		n := rapid.IntRange(0, 200).Draw(t, "customers")
		all := make([]Treated, n)
		for i := range all {
			all[i] = Treated{CustomerID: strconv.Itoa(i), Tier: "basic"}
		}
		e, err := m.TrueEffect(slices.Values(all))
		require.NoError(t, err)
		require.Equal(t, n, e.Customers)
		require.Zero(t, e.ExpectedIncremental)
		require.Zero(t, e.RealisedIncremental)
	})
}

// The control group is drawn from a hash of a salt and the customer's id, too.
// Were the two draws the same, the group would consist of who responds.
func TestAnswersAreIndependentOfAControlGroupWithTheSameSalt(t *testing.T) {
	const salt, n, share = "camp-42", 200_000, 0.1
	truth := Default()
	truth.BaseRate["core"] = 0.1
	m := market(t, truth, salt)
	var control, responses int
	for i := range n {
		id := strconv.Itoa(i)
		digest := sha256.Sum256([]byte(salt + ":" + id))
		if float64(binary.BigEndian.Uint64(digest[:8])>>12)/(1<<52) >= share {
			continue
		}
		control++
		a, err := m.Responds(id, "core", nil)
		require.NoError(t, err)
		if a.Responds {
			responses++
		}
	}
	require.Less(t, deviation(control, share, n), 4.0)
	require.Less(t, deviation(responses, 0.1, control), 4.0)
}

func TestCampaignsAndSeedsAreIndependent(t *testing.T) {
	truth := Default()
	truth.BaseRate["core"] = 0.5
	reseeded := truth
	reseeded.Seed++
	const n = 40_000
	first := market(t, truth, "a")
	for name, other := range map[string]*Market{"salt": market(t, truth, "b"), "seed": market(t, reseeded, "a")} {
		var agree int
		for i := range n {
			x, err := first.Responds(strconv.Itoa(i), "core", nil)
			require.NoError(t, err)
			y, err := other.Responds(strconv.Itoa(i), "core", nil)
			require.NoError(t, err)
			if x.Responds == y.Responds {
				agree++
			}
		}
		require.Less(t, deviation(agree, 0.5, n), 4.0, name)
	}
}

func TestDelaysFollowTheDistribution(t *testing.T) {
	d := Delay{Mean: 10 * time.Hour, Max: 20 * time.Hour}
	require.Zero(t, d.at(0))
	require.LessOrEqual(t, d.at(math.Nextafter(1, 0)), d.Max)
	require.Zero(t, Delay{Max: time.Hour}.at(0.5))

	const n = 100_000
	var sum time.Duration
	for i := range n {
		x := d.at((float64(i) + 0.5) / n)
		sum += x
	}
	// Mean of an exponential of mean m cut off at b: m - b/(e^(b/m) - 1).
	want := 10 - 20/math.Expm1(2)
	require.InDelta(t, want, sum.Hours()/n, 0.001)
}

func BenchmarkResponds(b *testing.B) {
	m, err := New(Default(), "bench")
	require.NoError(b, err)
	channels := []string{"sms", "call"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Responds("0197a3f2-7c11-7cc0-9b7e-8f8a9d0c1e2f", "core", channels); err != nil {
			b.Fatal(err)
		}
	}
}
