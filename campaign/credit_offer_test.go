package campaign_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/campaign"
)

const poolID = "0190a000-0000-7000-8000-0000000000aa"

// creditPlan is the example with a line of 100 customers' credit.
func creditPlan(s campaign.CreditSchedule) campaign.Plan {
	p := validPlan()
	p.Budget = append(p.Budget, campaign.BudgetLine{
		Line: "credit", Category: campaign.CategoryPrepaid, Driver: campaign.DriverPerOrder, Amount: 100 * s.Total,
		Credit: &campaign.CreditOffer{PoolID: poolID, Schedule: s, Customers: 100, ValidDays: 90},
	})
	return p
}

func moment(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return t
}

func TestCreditIsDueWhenItsDayBegins(t *testing.T) {
	real := campaign.CreditOffer{Schedule: byMonth, ValidDays: 30}
	quick := campaign.CreditOffer{Schedule: followsUse, ValidDays: 30, MonthSeconds: 60}
	anchor := moment("2012-01-31T15:04:05Z")
	for _, tt := range []struct {
		offer        campaign.CreditOffer
		no           int
		due, decided string
	}{
		{real, 1, "2012-01-31T15:04:05Z", "2012-01-31T15:04:05Z"},
		// byMonth asks for a minimum, so a month waits to be reported.
		{real, 2, "2012-02-29T00:00:00Z", "2012-03-31T00:00:00Z"},
		{real, 13, "2013-01-31T00:00:00Z", "2013-02-28T00:00:00Z"},
		{quick, 1, "2012-01-31T15:04:05Z", "2012-01-31T15:04:05Z"},
		{quick, 2, "2012-01-31T15:05:05Z", "2012-01-31T15:06:05Z"},
		{quick, 25, "2012-01-31T15:28:05Z", "2012-01-31T15:29:05Z"},
	} {
		require.Equal(t, moment(tt.due), tt.offer.DueAt(anchor, tt.no))
		require.Equal(t, moment(tt.decided), tt.offer.DecidedBy(anchor, tt.no))
	}
	fixed := campaign.CreditOffer{Schedule: campaign.CreditSchedule{Total: 24, Months: 24}}
	require.Equal(t, moment("2012-02-29T00:00:00Z"), fixed.DecidedBy(anchor, 2), "nothing is waited for")
	// A day is that of UTC, whatever the zone that the anchor is told in.
	require.Equal(t, moment("2012-02-29T00:00:00Z"), real.DueAt(anchor.In(time.FixedZone("east", 12*3600)), 2))

	require.Equal(t, anchor.Add(30*24*time.Hour), real.ExpiresAt(anchor))
	require.Equal(t, anchor.Add(60*time.Second), quick.ExpiresAt(anchor))
	require.True(t, fixed.ExpiresAt(anchor).IsZero())
	require.Equal(t, time.Hour, real.Pulse())
	require.Equal(t, 2*time.Second, quick.Pulse())
	require.Equal(t, time.Second, campaign.CreditOffer{MonthSeconds: 3}.Pulse())
}

// What is still promised is what the remaining instalments can grant, to the unit.
func TestThePromiseCoversEveryInstalmentToCome(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := campaign.CreditSchedule{
			Total:        rapid.Int64Range(1, 1_000_000_000_000_000).Draw(t, "total"),
			Months:       rapid.IntRange(1, 360).Draw(t, "months"),
			ShareOfUse:   rapid.SampledFrom([]int64{0, 0, 1, 3500, 10_000}).Draw(t, "share"),
			MinimumSpend: rapid.SampledFrom([]int64{0, 4900}).Draw(t, "minimum"),
		}
		s.First = rapid.Int64Range(0, s.Total-1).Draw(t, "first")
		require.NoError(t, s.Validate())
		require.Equal(t, s.Total, s.Rest(1, 0))
		var granted int64
		earnedAll := true
		for no := 1; no <= s.Last(); no++ {
			rest := s.Rest(no, granted)
			use := rapid.SampledFrom([]int64{0, 4899, 4900, 1_000_000}).Draw(t, "use")
			due, err := s.Due(no, use, granted)
			require.NoError(t, err)
			require.LessOrEqual(t, due, rest, "never more than was held for it")
			granted += due
			after := s.Rest(no+1, granted)
			require.LessOrEqual(t, after, rest-due, "and never more again")
			earnedAll = earnedAll && (no == 1 || use >= s.MinimumSpend)
			if earnedAll && s.ShareOfUse == 0 {
				require.Equal(t, s.Total-granted, after)
			}
		}
		require.Zero(t, s.Rest(s.Last()+1, granted))
	})
}

// The states of a customer's credit follow each other as the table of transitions says,
// whatever happens to it.
func TestCreditStatesFollowTheirTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := campaign.CreditAmounts{Promised: rapid.Int64Range(0, 100).Draw(t, "promised")}
		if a.Promised == 0 {
			a.Granted = rapid.Int64Range(1, 100).Draw(t, "granted")
		}
		clawed := false
		was := a.State(clawed)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			part := func(of int64) int64 { return rapid.Int64Range(0, of).Draw(t, "part") }
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0:
				n := part(a.Promised)
				a.Promised, a.Granted = a.Promised-n, a.Granted+n
			case 1: // a month that earned nothing
				a.Promised -= part(a.Promised)
			case 2:
				a.Used += part(a.Outstanding())
			case 3:
				a.Expired += part(a.Outstanding())
			case 4:
				if to := campaign.CreditClawedBack; was.CanFollow(to) {
					clawed, a.ClawedBack, a.Promised = true, a.Outstanding(), 0
				}
			}
			now := a.State(clawed)
			require.True(t, now == was || was.CanFollow(now), "%s → %s: %+v", was, now, a)
			if !now.Outstanding() {
				require.Zero(t, a.Outstanding())
				require.Zero(t, a.Promised)
			}
			was = now
		}
	})
	require.Equal(t, campaign.CreditExpired, campaign.CreditAmounts{}.State(true), "nothing was granted that could be taken back")
}

func TestEachFaultOfACreditLineIsNamed(t *testing.T) {
	p := creditPlan(byMonth)
	require.NoError(t, p.Validate())
	require.True(t, p.PaysCredit())
	plain := validPlan()
	require.False(t, plain.PaysCredit())
	facts, err := campaign.FactsOf(&p)
	require.NoError(t, err)
	require.Equal(t, 100*byMonth.Total, facts.Credit)

	for name, tt := range map[string]struct {
		field string
		spoil func(*campaign.Plan, *campaign.BudgetLine)
	}{
		"no application":    {"credit", func(_ *campaign.Plan, l *campaign.BudgetLine) { l.Credit = nil }},
		"not a credit line": {"credit", func(_ *campaign.Plan, l *campaign.BudgetLine) { l.Category, l.UnitCost = campaign.CategoryGoods, 1 }},
		"unit cost":         {"unit_cost", func(_ *campaign.Plan, l *campaign.BudgetLine) { l.UnitCost = 1 }},
		"prices": {"prices", func(_ *campaign.Plan, l *campaign.BudgetLine) {
			l.Prices = campaign.PriceList{{Kind: campaign.PriceLinear, UnitCost: 1}}
		}},
		"fixed":        {"driver", func(_ *campaign.Plan, l *campaign.BudgetLine) { l.Driver = campaign.DriverFixed }},
		"another unit": {"unit", func(_ *campaign.Plan, l *campaign.BudgetLine) { l.Unit = campaign.UnitMinute }},
		"no pool":      {"credit.pool_id", func(_ *campaign.Plan, l *campaign.BudgetLine) { l.Credit.PoolID = "" }},
		"not a pool's id": {"credit.pool_id", func(_ *campaign.Plan, l *campaign.BudgetLine) {
			l.Credit.PoolID = "0190a000-0000-7000-8000-00000000000G"
		}},
		"a schedule":         {"credit.schedule.total", func(_ *campaign.Plan, l *campaign.BudgetLine) { l.Credit.Schedule.Total = 0 }},
		"nobody":             {"credit.customers", func(_ *campaign.Plan, l *campaign.BudgetLine) { l.Credit.Customers = 0 }},
		"negative validity":  {"credit.valid_days", func(_ *campaign.Plan, l *campaign.BudgetLine) { l.Credit.ValidDays = -1 }},
		"another amount":     {"amount", func(_ *campaign.Plan, l *campaign.BudgetLine) { l.Amount++ }},
		"an endless amount":  {"amount", func(_ *campaign.Plan, l *campaign.BudgetLine) { l.Credit.Customers = 1 << 62 }},
		"a month of seconds": {"credit.month_seconds", func(p *campaign.Plan, l *campaign.BudgetLine) { p.Simulated, l.Credit.MonthSeconds = false, 10 }},
		"a negative month":   {"credit.month_seconds", func(p *campaign.Plan, l *campaign.BudgetLine) { p.Simulated, l.Credit.MonthSeconds = true, -1 }},
	} {
		t.Run(name, func(t *testing.T) {
			p := creditPlan(byMonth)
			i := len(p.Budget) - 1
			tt.spoil(&p, &p.Budget[i])
			var e *campaign.Error
			require.ErrorAs(t, p.Validate(), &e)
			var named []string
			for _, f := range e.Fields {
				named = append(named, f.Field)
			}
			require.Contains(t, named, "budget["+string(rune('0'+i))+"]."+tt.field)
		})
	}
	p = creditPlan(byMonth)
	p.Simulated, p.Budget[len(p.Budget)-1].Credit.MonthSeconds = true, 10
	require.NoError(t, p.Validate())
}

func TestWhatWasPromisedIsNotAmended(t *testing.T) {
	for name, tt := range map[string]struct {
		change  func(*campaign.BudgetLine)
		refused bool
	}{
		"more customers":     {func(l *campaign.BudgetLine) { l.Credit.Customers, l.Amount = 200, 200*byMonth.Total }, false},
		"fewer customers":    {func(l *campaign.BudgetLine) { l.Credit.Customers, l.Amount = 50, 50*byMonth.Total }, true},
		"another pool":       {func(l *campaign.BudgetLine) { l.Credit.PoolID = "0190a000-0000-7000-8000-0000000000bb" }, true},
		"another schedule":   {func(l *campaign.BudgetLine) { l.Credit.Schedule.MinimumSpend = 0 }, true},
		"another validity":   {func(l *campaign.BudgetLine) { l.Credit.ValidDays = 0 }, true},
		"another month":      {func(l *campaign.BudgetLine) { l.Credit.MonthSeconds = 1 }, true},
		"no credit any more": {func(l *campaign.BudgetLine) { l.Credit, l.Category, l.UnitCost = nil, campaign.CategoryGoods, 1 }, true},
	} {
		t.Run(name, func(t *testing.T) {
			now, next := creditPlan(byMonth), creditPlan(byMonth)
			tt.change(&next.Budget[len(next.Budget)-1])
			err := campaign.CheckAmendment(&now, &next, false, nil)
			require.Equal(t, tt.refused, err != nil, "%v", err)
			require.True(t, campaign.NeedsApproval(&now, &next))
		})
	}
	now, next := validPlan(), creditPlan(byMonth)
	require.NoError(t, campaign.CheckAmendment(&now, &next, false, nil), "credit may be added")
	require.True(t, campaign.NeedsApproval(&now, &next), "and is signed for")
}
