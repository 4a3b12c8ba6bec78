package campaign_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/campaign"
)

// callsByTheMinute is a line with a price per minute that changes on a day.
func callsByTheMinute() campaign.BudgetLine {
	return campaign.BudgetLine{
		Line: "calls", Category: campaign.CategoryContact, Driver: campaign.DriverPerContact, Channel: campaign.ChannelCall, Unit: campaign.UnitMinute, Amount: 2_000_000,
		Prices: campaign.PriceList{
			{Until: "2026-10-31", Kind: campaign.PriceLinear, UnitCost: 30},
			{From: "2026-11-01", Kind: campaign.PriceStepped, UnitCost: 40, Steps: []campaign.PriceStep{{Above: 100, UnitCost: 20}}},
		},
	}
}

func TestALineIsPricedAsItSays(t *testing.T) {
	for _, tt := range []struct {
		field string
		code  campaign.Code
		spoil func(*campaign.Plan)
	}{
		{"contingency", campaign.CodeAmountOutOfRange, func(p *campaign.Plan) { p.Contingency = -1 }},
		{"budget", campaign.CodeAmountOutOfRange, func(p *campaign.Plan) { p.Contingency = 1_000_000_000_000_000 }},
		{"budget[0].unit", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Budget[0].Unit = campaign.UnitPart }},
		{"budget[0].unit_cost", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Budget[0].UnitCost = 30 }},
		{"budget[0].prices[0].from", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Budget[0].Prices[0].From = "2026-10-01" }},
		{"budget[0].prices[1].from", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Budget[0].Prices[1].From = "2026-11-02" }},
		{"budget[0].prices[1].until", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Budget[0].Prices[1].Until = "2026-12-31" }},
		{"budget[0].prices[1].steps", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Budget[0].Prices[1].Steps = nil }},
		{"budget[0].prices[0].unit_cost", campaign.CodeAmountOutOfRange, func(p *campaign.Plan) { p.Budget[0].Prices[0].UnitCost = 0 }},
		{"budget[1].unit_cost", campaign.CodeAmountOutOfRange, func(p *campaign.Plan) { p.Budget[1].UnitCost = 0 }},
		{"budget[2].unit", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Budget[2].Unit = campaign.UnitActivation }},
		{"budget[3].unit", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Budget[3].Unit = campaign.UnitOrder }},
		{"budget[3].prices", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Budget[3].Prices = p.Budget[0].Prices }},
		{"channels[0].maximum_minutes", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Channels[0].MaximumMinutes = 0 }},
		{"channels[1].maximum_minutes", campaign.CodeInvalidParameter, func(p *campaign.Plan) { p.Channels[1].MaximumMinutes = 3 }},
	} {
		p := validPlan()
		p.Budget[0], p.Channels[0].MaximumMinutes = callsByTheMinute(), 5
		require.NoError(t, p.Validate())
		tt.spoil(&p)
		var e *campaign.Error
		require.ErrorAs(t, p.Validate(), &e)
		require.Contains(t, fields(e), tt.field+" "+string(tt.code))
	}
}

// A plan without the newer fields reads as before, so its digest stays.
func TestNewPriceFieldsLeaveOldPlansAlone(t *testing.T) {
	p := validPlan()
	text, err := json.Marshal(p)
	require.NoError(t, err)
	for _, name := range []string{"contingency", "prices", `"unit":""`, "maximum_minutes"} {
		require.NotContains(t, string(text), name)
	}
	require.True(t, strings.Contains(string(text), `"driver":"per_contact","channel":"call","unit_cost":250,"amount":2000000`))
	total, err := p.BudgetTotal()
	require.NoError(t, err)
	p.Contingency = 7
	more, err := p.BudgetTotal()
	require.NoError(t, err)
	require.Equal(t, total+7, more, "it is signed for as well")
}

func TestTheUsualUnits(t *testing.T) {
	for _, tt := range []struct {
		line campaign.BudgetLine
		want campaign.CountUnit
	}{
		{campaign.BudgetLine{Driver: campaign.DriverPerContact, Channel: campaign.ChannelSMS}, campaign.UnitPart},
		{campaign.BudgetLine{Driver: campaign.DriverPerContact, Channel: campaign.ChannelCall}, campaign.UnitAttempt},
		{campaign.BudgetLine{Driver: campaign.DriverPerOrder}, campaign.UnitOrder},
		{campaign.BudgetLine{Driver: campaign.DriverPerActivation}, campaign.UnitActivation},
		{campaign.BudgetLine{Driver: campaign.DriverFixed}, ""},
		{callsByTheMinute(), campaign.UnitMinute},
	} {
		require.Equal(t, tt.want, tt.line.CountedUnit())
	}
	sms := campaign.BudgetLine{Driver: campaign.DriverPerContact, Channel: campaign.ChannelSMS}
	require.EqualValues(t, 3, sms.UnitsPerContact(campaign.ChannelPlan{}, 3))
	sms.Unit = campaign.UnitMessage
	require.EqualValues(t, 1, sms.UnitsPerContact(campaign.ChannelPlan{}, 3))
	require.EqualValues(t, 8, callsByTheMinute().UnitsPerContact(campaign.ChannelPlan{MaximumMinutes: 8}, 1))
}

func TestWhatALineCosts(t *testing.T) {
	line := callsByTheMinute()
	for _, tt := range []struct {
		name     string
		happened campaign.Counts
		want     int64
	}{
		{"nothing", nil, 0},
		{"the old price", campaign.Counts{"2026-10-01": 10, "2026-10-31": 5}, 450},
		{"both prices", campaign.Counts{"2026-10-31": 5, "2026-11-01": 5}, 350},
		{"a step across days", campaign.Counts{"2026-11-01": 90, "2026-11-02": 20}, 100*40 + 10*20},
	} {
		cost, err := line.Cost(tt.happened)
		require.NoError(t, err, tt.name)
		require.Equal(t, tt.want, cost, tt.name)
	}
	fixed := campaign.BudgetLine{Driver: campaign.DriverFixed, Amount: 900}
	cost, err := fixed.Cost(nil)
	require.NoError(t, err)
	require.EqualValues(t, 900, cost)
	simple := campaign.BudgetLine{Driver: campaign.DriverPerOrder, UnitCost: 7}
	cost, err = simple.Cost(campaign.Counts{"2026-11-01": 3, "1999-01-01": 1})
	require.NoError(t, err)
	require.EqualValues(t, 28, cost)
	_, err = simple.Cost(campaign.Counts{"2026-11-01": math.MaxInt64})
	require.Equal(t, campaign.CodeAmountOutOfRange, campaign.CodeOf(err))
}

func TestRoomUsesTheDearestPriceThatMayStillCome(t *testing.T) {
	line := callsByTheMinute()
	line.Amount = 1000
	for _, tt := range []struct {
		name        string
		happened    campaign.Counts
		open        int64
		from, until campaign.Date
		want        int64
	}{
		{"before the change", nil, 0, "2026-10-01", "2026-10-31", 33},
		{"across it", nil, 0, "2026-10-01", "2026-11-01", 25},
		{"what was spent at the old price", campaign.Counts{"2026-10-31": 20}, 0, "2026-11-01", "2026-11-02", 10},
		{"others may still come", nil, 20, "2026-10-01", "2026-11-01", 5},
		{"nothing left", nil, 26, "2026-10-01", "2026-11-01", 0},
		{"a window that has closed", nil, 0, "2026-10-31", "2026-10-01", 33},
	} {
		room, err := line.Room(tt.happened, tt.open, tt.from, tt.until)
		require.NoError(t, err, tt.name)
		require.Equal(t, tt.want, room, tt.name)
	}
	line.Prices = campaign.PriceList{{Kind: campaign.PriceFlat, Flat: 1001}}
	room, err := line.Room(nil, 0, "2026-10-01", "2026-10-02")
	require.NoError(t, err)
	require.Zero(t, room, "a flat price is due with the first unit")
	line.Amount = 1001
	room, err = line.Room(nil, 0, "2026-10-01", "2026-10-02")
	require.NoError(t, err)
	require.Greater(t, room, int64(1_000_000_000), "and no more with the others")
}

// Whatever is planned within its room, and on whichever of the days it comes, no line costs
// more than its amount; one unit more could.
func TestALineIsNeverOverspent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		line := campaign.BudgetLine{Driver: campaign.DriverPerContact, Channel: campaign.ChannelSMS, Prices: genPrices(t), Amount: rapid.Int64Range(1, 300).Draw(t, "amount")}
		day := rapid.Custom(func(t *rapid.T) campaign.Date { return campaign.NewDate(2026, 1, rapid.IntRange(1, 17).Draw(t, "day")) })
		from, happened := campaign.Date("2026-01-01"), campaign.Counts{}
		for range rapid.IntRange(1, 6).Draw(t, "batches") {
			from = max(from, day.Draw(t, "from"))
			until := max(from, day.Draw(t, "until"))
			room, err := line.Room(happened, 0, from, until)
			require.NoError(t, err)
			if room < 1_000_000 { // else further units are free
				next, err := line.Most(happened, room+1, from, until)
				require.NoError(t, err)
				require.Greater(t, next, line.Amount, "there was room for one more")
			}
			for range min(room, rapid.Int64Range(0, 40).Draw(t, "units")) {
				on := campaign.NewDate(2026, 1, rapid.IntRange(dayOf(from), dayOf(until)).Draw(t, "on"))
				happened[on]++
				from = max(from, on)
			}
			cost, err := line.Cost(happened)
			require.NoError(t, err)
			require.LessOrEqual(t, cost, line.Amount)
		}
	})
}

func dayOf(d campaign.Date) int { return int(d[8]-'0')*10 + int(d[9]-'0') }

// The order in which reports come in does not change what a line costs.
func TestTheOrderOfReportsDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		line := campaign.BudgetLine{Driver: campaign.DriverPerOrder, Prices: genPrices(t)}
		days := rapid.SliceOfN(rapid.IntRange(1, 17), 0, 40).Draw(t, "days")
		shuffled := rapid.Permutation(days).Draw(t, "shuffled")
		cost := func(days []int) int64 {
			var total int64
			counts := campaign.Counts{}
			for _, d := range days {
				counts = counts.Plus(campaign.Counts{campaign.NewDate(2026, 1, d): 1})
				now, err := line.Cost(counts)
				require.NoError(t, err)
				require.GreaterOrEqual(t, now, total, "a report makes nothing cheaper")
				total = now
			}
			return total
		}
		require.Equal(t, cost(days), cost(shuffled))
	})
}

func TestDearerPricesNeedASignature(t *testing.T) {
	priced := func(change func(*campaign.Plan)) campaign.Plan {
		p := validPlan()
		p.Contingency = 500
		p.Budget[0], p.Channels[0].MaximumMinutes = callsByTheMinute(), 5
		p.Budget[0].Prices[1].Steps = append([]campaign.PriceStep{}, p.Budget[0].Prices[1].Steps...)
		if change != nil {
			change(&p)
		}
		require.NoError(t, p.Validate())
		return p
	}
	now := priced(nil)
	for _, tt := range []struct {
		name  string
		next  func(*campaign.Plan)
		needs bool
	}{
		{"the same", nil, false},
		{"less contingency", func(p *campaign.Plan) { p.Contingency = 0 }, false},
		{"more contingency", func(p *campaign.Plan) { p.Contingency++ }, true},
		{"cheaper", func(p *campaign.Plan) { p.Budget[0].Prices[0].UnitCost-- }, true},
		{"cheaper, for as much less", func(p *campaign.Plan) {
			l := &p.Budget[0]
			l.Amount = l.Amount * (l.Prices[0].UnitCost - 1) / l.Prices[0].UnitCost
			l.Prices[0].UnitCost--
		}, false},
		{"cheaper, for not enough less", func(p *campaign.Plan) {
			l := &p.Budget[0]
			l.Amount = l.Amount*(l.Prices[0].UnitCost-1)/l.Prices[0].UnitCost + 1
			l.Prices[0].UnitCost--
		}, true},
		{"dearer", func(p *campaign.Plan) { p.Budget[0].Prices[0].UnitCost++ }, true},
		{"one cheaper, one dearer", func(p *campaign.Plan) { p.Budget[0].Prices[0].UnitCost--; p.Budget[0].Prices[1].UnitCost++ }, true},
		{"a cheaper step", func(p *campaign.Plan) { p.Budget[0].Prices[1].Steps[0].UnitCost-- }, true},
		{"a cheaper step, for half", func(p *campaign.Plan) { p.Budget[0].Amount /= 2; p.Budget[0].Prices[1].Steps[0].UnitCost-- }, false},
		{"a later step", func(p *campaign.Plan) { p.Budget[0].Prices[1].Steps[0].Above++ }, true},
		{"other days", func(p *campaign.Plan) {
			p.Budget[0].Prices[0].Until, p.Budget[0].Prices[1].From = "2026-10-30", "2026-10-31"
		}, true},
		{"another kind", func(p *campaign.Plan) {
			p.Budget[0].Prices = campaign.PriceList{{Kind: campaign.PriceFlat, Flat: 1}}
		}, true},
		{"a unit cost as a price", func(p *campaign.Plan) {
			p.Budget[1].UnitCost, p.Budget[1].Prices = 0, campaign.PriceList{{Kind: campaign.PriceLinear, UnitCost: 5}}
		}, false},
		{"the usual unit by its name", func(p *campaign.Plan) { p.Budget[1].Unit = campaign.UnitPart }, false},
		{"longer calls", func(p *campaign.Plan) { p.Channels[0].MaximumMinutes++ }, true},
	} {
		next := priced(tt.next)
		require.Equal(t, tt.needs, campaign.NeedsApproval(&now, &next), tt.name)
		require.NoError(t, campaign.CheckAmendment(&now, &next, true, nil), tt.name)
	}
	next := priced(func(p *campaign.Plan) { p.Budget[1].Unit = campaign.UnitMessage })
	require.Equal(t, campaign.CodeInvalidPlan, campaign.CodeOf(campaign.CheckAmendment(&now, &next, true, nil)), "what was counted cannot be counted otherwise")
}

// Prices that count as no dearer cost no more, and the line pays for nobody more, whatever
// comes.
func TestNoDearerIsProvable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		was := genPrices(t)
		next := append(campaign.PriceList{}, was...)
		i := rapid.IntRange(0, len(next)-1).Draw(t, "which")
		next[i].Steps = append([]campaign.PriceStep(nil), next[i].Steps...)
		change := rapid.Int64Range(-3, 3)
		switch next[i].Kind {
		case campaign.PriceFlat:
			next[i].Flat = max(1, next[i].Flat+change.Draw(t, "flat"))
		default:
			next[i].UnitCost = max(1, next[i].UnitCost+change.Draw(t, "unit"))
		}
		for j := range next[i].Steps {
			next[i].Steps[j].UnitCost = max(0, next[i].Steps[j].UnitCost+change.Draw(t, "step"))
		}
		now, then := validPlan(), validPlan()
		now.Budget[1].UnitCost, now.Budget[1].Prices = 0, was
		then.Budget[1].UnitCost, then.Budget[1].Prices = 0, next
		now.Budget[1].Amount = 100
		then.Budget[1].Amount = rapid.Int64Range(1, 100).Draw(t, "amount")
		if campaign.NeedsApproval(&now, &then) {
			return
		}
		counts := campaign.Counts{}
		for range rapid.IntRange(0, 20).Draw(t, "units") {
			counts[campaign.NewDate(2026, 1, rapid.IntRange(1, 17).Draw(t, "day"))]++
		}
		before, err := now.Budget[1].Cost(counts)
		require.NoError(t, err)
		after, err := then.Budget[1].Cost(counts)
		require.NoError(t, err)
		require.LessOrEqual(t, after, before)
		if before > now.Budget[1].Amount {
			require.Greater(t, after, then.Budget[1].Amount, "what was not paid for is not paid for now")
		}
	})
}
