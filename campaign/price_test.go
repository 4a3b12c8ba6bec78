package campaign_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/campaign"
)

func TestWhatUnitsCost(t *testing.T) {
	linear := campaign.Price{Kind: campaign.PriceLinear, UnitCost: 5}
	flat := campaign.Price{Kind: campaign.PriceFlat, Flat: 30_000}
	stepped := campaign.Price{
		Kind: campaign.PriceStepped, UnitCost: 10,
		Steps: []campaign.PriceStep{{Above: 100, UnitCost: 8}, {Above: 1000, UnitCost: 6}},
	}
	free := campaign.Price{Kind: campaign.PriceStepped, Steps: []campaign.PriceStep{{Above: 50, UnitCost: 3}}}
	for _, tt := range []struct {
		name             string
		price            campaign.Price
		counted, n, want int64
	}{
		{"linear", linear, 0, 7, 35},
		{"linear does not remember", linear, 1000, 7, 35},
		{"nothing", stepped, 99, 0, 0},
		{"flat", flat, 0, 1, 30_000},
		{"flat, any count", flat, 0, 1_000_000, 30_000},
		{"flat, once", flat, 1, 10, 0},
		{"flat, for nothing", flat, 0, 0, 0},
		{"below the first step", stepped, 0, 100, 1000},
		{"the last of the first", stepped, 99, 1, 10},
		{"the first above", stepped, 100, 1, 8},
		{"over two steps", stepped, 0, 1001, 1000 + 7200 + 6},
		{"from the middle of a step", stepped, 900, 200, 800 + 600},
		{"beyond all", stepped, 5000, 2, 12},
		{"free at first", free, 49, 3, 6},
	} {
		got, err := tt.price.Cost(tt.counted, tt.n)
		require.NoError(t, err, tt.name)
		require.Equal(t, tt.want, got, tt.name)
	}
	for name, fails := range map[string]func() (int64, error){
		"product":      func() (int64, error) { return linear.Cost(0, math.MaxInt64/4) },
		"counts":       func() (int64, error) { return flat.Cost(math.MaxInt64, 1) },
		"negative":     func() (int64, error) { return linear.Cost(0, -1) },
		"negative sum": func() (int64, error) { return stepped.Cost(-1, 1) },
		"stepped":      func() (int64, error) { return stepped.Cost(0, math.MaxInt64) },
		"largest": func() (int64, error) {
			return campaign.PriceList{linear}.Largest("2026-01-01", "2026-01-02", math.MaxInt64)
		},
		"no largest": func() (int64, error) { return campaign.PriceList{linear}.Largest("2026-01-01", "2026-01-02", -1) },
	} {
		_, err := fails()
		require.Equal(t, campaign.CodeAmountOutOfRange, campaign.CodeOf(err), name)
	}
}

// genPrices draws a valid list over January 2026, one price every four days.
func genPrices(t *rapid.T) campaign.PriceList {
	cost := rapid.Int64Range(0, 9)
	var l campaign.PriceList
	for i := range rapid.IntRange(1, 4).Draw(t, "prices") {
		p := campaign.Price{
			From: campaign.NewDate(2026, time.January, 1+4*i), Until: campaign.NewDate(2026, time.January, 4+4*i),
			Kind: rapid.SampledFrom([]campaign.PriceKind{campaign.PriceLinear, campaign.PriceStepped, campaign.PriceFlat}).Draw(t, "kind"),
		}
		switch p.Kind {
		case campaign.PriceLinear:
			p.UnitCost = 1 + cost.Draw(t, "unit")
		case campaign.PriceFlat:
			p.Flat = rapid.Int64Range(1, 40).Draw(t, "flat")
		case campaign.PriceStepped:
			p.UnitCost = cost.Draw(t, "unit")
			var above int64
			for range rapid.IntRange(1, 3).Draw(t, "steps") {
				above += rapid.Int64Range(1, 5).Draw(t, "more")
				p.Steps = append(p.Steps, campaign.PriceStep{Above: above, UnitCost: cost.Draw(t, "step")})
			}
			p.Steps[0].UnitCost++
		}
		l = append(l, p)
	}
	l[0].From, l[len(l)-1].Until = "", ""
	require.NoError(t, l.Validate())
	return l
}

func TestCostDoesNotDependOnHowUnitsAreCounted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := genPrices(t)
		day := campaign.NewDate(2026, time.January, rapid.IntRange(1, 31).Draw(t, "day"))
		count := rapid.Int64Range(0, 20)
		counted, a, b := count.Draw(t, "counted"), count.Draw(t, "a"), count.Draw(t, "b")
		cost := func(counted, n int64) int64 {
			p, err := l.On(day)
			require.NoError(t, err)
			c, err := p.Cost(counted, n)
			require.NoError(t, err)
			require.GreaterOrEqual(t, c, int64(0))
			return c
		}
		require.Equal(t, cost(counted, a+b), cost(counted, a)+cost(counted+a, b))
	})
}

// TestLargestCostIsTheDearestDivision tries every way to divide the units.
func TestLargestCostIsTheDearestDivision(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := genPrices(t)
		n := rapid.Int64Range(0, 14).Draw(t, "n")
		first := rapid.IntRange(1, 16).Draw(t, "first day")
		from := campaign.NewDate(2026, time.January, first)
		until := campaign.NewDate(2026, time.January, rapid.IntRange(first, 16).Draw(t, "last day"))
		var valid campaign.PriceList
		for day := from; day <= until; day = day.AddDays(1) {
			p, err := l.On(day)
			require.NoError(t, err)
			if len(valid) == 0 || valid[len(valid)-1].From != p.From {
				valid = append(valid, p)
			}
		}
		var dearest func(l campaign.PriceList, n int64) int64
		dearest = func(l campaign.PriceList, n int64) (most int64) {
			if len(l) == 0 {
				return 0
			}
			for k := range n + 1 {
				cost, err := l[0].Cost(0, k)
				require.NoError(t, err)
				most = max(most, cost+dearest(l[1:], n-k))
			}
			return most
		}
		got, err := l.Largest(from, until, n)
		require.NoError(t, err)
		require.Equal(t, dearest(valid, n), got, "%d units from %s to %s", n, from, until)
	})
}

// TestLargestCostOfLongLists takes lists with too many steps to try every division: the
// exact figure is found price by price, and must not be undercut.
func TestLargestCostOfLongLists(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l campaign.PriceList
		var dearestUnit int64
		for month := range 12 {
			p := campaign.Price{
				From: campaign.NewDate(2026, time.January+time.Month(month), 1), Until: campaign.NewDate(2026, time.February+time.Month(month), 0),
				Kind: campaign.PriceStepped, UnitCost: rapid.Int64Range(0, 1000).Draw(t, "unit"),
			}
			dearestUnit = max(dearestUnit, p.UnitCost)
			var above int64
			for range 10 {
				above += rapid.Int64Range(1, 50).Draw(t, "more")
				p.Steps = append(p.Steps, campaign.PriceStep{Above: above, UnitCost: rapid.Int64Range(1, 1000).Draw(t, "step")})
				dearestUnit = max(dearestUnit, p.Steps[len(p.Steps)-1].UnitCost)
			}
			l = append(l, p)
		}
		require.NoError(t, l.Validate())
		n := rapid.IntRange(0, 500).Draw(t, "n")
		exact := make([]int64, n+1)
		var costs [][]int64
		for _, p := range l {
			cost := make([]int64, n+1)
			for k := range cost {
				var err error
				cost[k], err = p.Cost(0, int64(k))
				require.NoError(t, err)
			}
			for units := n; units >= 0; units-- {
				for k := range units + 1 {
					exact[units] = max(exact[units], exact[units-k]+cost[k])
				}
			}
			costs = append(costs, cost)
		}
		got, err := l.Largest("2026-01-01", "2026-12-31", int64(n))
		require.NoError(t, err)
		require.LessOrEqual(t, exact[n], got)
		require.LessOrEqual(t, got, dearestUnit*int64(n), "no unit costs more than the dearest")
		// Duality: n units at any one price for all, and on top what each price list gains
		// over that at its best count, cost no less than the largest cost.
		for range 20 {
			each := rapid.Int64Range(0, dearestUnit).Draw(t, "each")
			bound := each * int64(n)
			for _, cost := range costs {
				var gain int64
				for k := range cost {
					gain = max(gain, cost[k]-each*int64(k))
				}
				bound += gain
			}
			require.LessOrEqual(t, got, bound, "at %d a unit", each)
		}
	})
}

// TestLargestCostOfHugeCounts goes where a product of two figures needs 128 bits.
func TestLargestCostOfHugeCounts(t *testing.T) {
	var l campaign.PriceList
	for month := range 12 {
		p := campaign.Price{
			From: campaign.NewDate(2026, time.January+time.Month(month), 1), Until: campaign.NewDate(2026, time.February+time.Month(month), 0),
			Kind: campaign.PriceStepped, UnitCost: 1,
		}
		for step := range int64(10) {
			p.Steps = append(p.Steps, campaign.PriceStep{Above: (step + 1) * (900_000_000_001 + int64(month)*1_000_003*(step+1)), UnitCost: 1000 + step%3})
		}
		l = append(l, p)
	}
	require.NoError(t, l.Validate())
	const n = 800_000_000_000_000
	got, err := l.Largest("2026-01-01", "2026-12-31", n)
	require.NoError(t, err)
	alone, err := l[0].Cost(0, n)
	require.NoError(t, err)
	require.GreaterOrEqual(t, got, alone)
	require.LessOrEqual(t, got, int64(n)*1002)
}

func TestAGapIsRefusedForTheDaysOfACampaign(t *testing.T) {
	l := campaign.PriceList{
		{Until: "2026-03-31", Kind: campaign.PriceLinear, UnitCost: 5},
		{From: "2026-04-01", Until: "2026-06-30", Kind: campaign.PriceLinear, UnitCost: 6},
		{From: "2026-07-02", Until: "2026-12-31", Kind: campaign.PriceLinear, UnitCost: 7},
	}
	require.NoError(t, l.Validate())
	require.NoError(t, l.Covers("2020-01-01", "2026-06-30"))
	require.NoError(t, l.Covers("2026-07-02", "2026-07-02"))
	for _, tt := range []struct {
		from, until campaign.Date
		day         string
	}{
		{"2026-01-01", "2026-07-02", "2026-07-01"},
		{"2026-07-01", "2026-07-01", "2026-07-01"},
		{"2026-12-01", "2027-01-01", "2027-01-01"},
		{"2026-07-02", "2026-07-01", "not a period"},
		{"", "2026-07-01", "not a period"},
	} {
		err := l.Covers(tt.from, tt.until)
		require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(err))
		require.ErrorContains(t, err, tt.day)
		_, err = l.Largest(tt.from, tt.until, 1)
		require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(err))
	}
	_, err := l.On("2026-07-01")
	require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(err))
	last, err := l.On("2026-06-30")
	require.NoError(t, err)
	require.Equal(t, l[1], last, "the last day is within")
	most, err := l.Largest("2026-03-01", "2026-04-01", 10)
	require.NoError(t, err)
	require.Equal(t, int64(60), most)
}

func TestEachPriceFaultIsNamedAtItsField(t *testing.T) {
	valid := func() campaign.PriceList {
		return campaign.PriceList{
			{Until: "2026-03-31", Kind: campaign.PriceLinear, UnitCost: 5},
			{From: "2026-04-01", Until: "2026-06-30", Kind: campaign.PriceStepped, UnitCost: 6, Steps: []campaign.PriceStep{{Above: 10, UnitCost: 5}, {Above: 20, UnitCost: 4}}},
			{From: "2026-07-01", Kind: campaign.PriceFlat, Flat: 100},
		}
	}
	require.NoError(t, valid().Validate())
	for _, tt := range []struct {
		field string
		code  campaign.Code
		spoil func(campaign.PriceList)
	}{
		{"prices[0].kind", campaign.CodeInvalidParameter, func(l campaign.PriceList) { l[0].Kind = "cheap" }},
		{"prices[0].unit_cost", campaign.CodeAmountOutOfRange, func(l campaign.PriceList) { l[0].UnitCost = 0 }},
		{"prices[0].flat", campaign.CodeInvalidParameter, func(l campaign.PriceList) { l[0].Flat = 1 }},
		{"prices[0].steps", campaign.CodeInvalidParameter, func(l campaign.PriceList) { l[0].Steps = l[1].Steps }},
		{"prices[1].steps", campaign.CodeInvalidParameter, func(l campaign.PriceList) { l[1].Steps = nil }},
		{"prices[1].steps", campaign.CodeInvalidParameter, func(l campaign.PriceList) { l[1].Steps = make([]campaign.PriceStep, 11) }},
		{"prices[1].steps[0].above", campaign.CodeInvalidParameter, func(l campaign.PriceList) { l[1].Steps[0].Above = 0 }},
		{"prices[1].steps[1].above", campaign.CodeInvalidParameter, func(l campaign.PriceList) { l[1].Steps[1].Above = 10 }},
		{"prices[1].steps[1].unit_cost", campaign.CodeAmountOutOfRange, func(l campaign.PriceList) { l[1].Steps[1].UnitCost = -1 }},
		{"prices[1].unit_cost", campaign.CodeAmountOutOfRange, func(l campaign.PriceList) {
			l[1].UnitCost, l[1].Steps = 0, []campaign.PriceStep{{Above: 1}}
		}},
		{"prices[2].flat", campaign.CodeAmountOutOfRange, func(l campaign.PriceList) { l[2].Flat = 0 }},
		{"prices[2].unit_cost", campaign.CodeInvalidParameter, func(l campaign.PriceList) { l[2].UnitCost = 1 }},
		{"prices[1].from", campaign.CodeInvalidParameter, func(l campaign.PriceList) { l[1].From = "2026-03-31" }},
		{"prices[1].from", campaign.CodeInvalidParameter, func(l campaign.PriceList) { l[1].From = "" }},
		{"prices[1].from", campaign.CodeInvalidParameter, func(l campaign.PriceList) { l[0].Until = "" }},
		{"prices[1].from", campaign.CodeInvalidParameter, func(l campaign.PriceList) { l[1].From = "April" }},
		{"prices[1].until", campaign.CodeInvalidParameter, func(l campaign.PriceList) { l[1].Until = "2026-06-31" }},
		{"prices[1].until", campaign.CodeInvalidParameter, func(l campaign.PriceList) { l[1].Until = "2026-03-31" }},
	} {
		l := valid()
		tt.spoil(l)
		var e *campaign.Error
		require.ErrorAs(t, l.Validate(), &e, tt.field)
		require.Equal(t, campaign.CodeInvalidParameter, e.Code)
		require.Contains(t, fields(e), tt.field+" "+string(tt.code))
	}
	for _, l := range []campaign.PriceList{nil, make(campaign.PriceList, 13)} {
		var e *campaign.Error
		require.ErrorAs(t, l.Validate(), &e)
		require.Contains(t, fields(e), "prices "+string(campaign.CodeInvalidParameter))
	}
}
