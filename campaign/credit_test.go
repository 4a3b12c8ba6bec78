package campaign_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/campaign"
)

// Two published policies for one phone, in fen.
var (
	// A handset at ¥4,699 with ¥3,100 of credit: ¥100 in the first month, then 35 % of
	// last month's use with a minimum of ¥49 a month.
	followsUse = campaign.CreditSchedule{Total: 310_000, First: 10_000, Months: 35, ShareOfUse: 3500, MinimumSpend: 4_900}
	// ¥5,160 with ¥1,168: ¥100 first, then 12 × ¥89 with a minimum of ¥89.
	byMonth = campaign.CreditSchedule{Total: 116_800, First: 10_000, Months: 12, MinimumSpend: 8_900}
)

func TestPublishedPolicyByMonth(t *testing.T) {
	got, err := byMonth.Instalments("2012-01-31")
	require.NoError(t, err)
	require.Len(t, got, 13)
	require.Equal(t, campaign.Instalment{No: 1, DueOn: "2012-01-31", Amount: 10_000}, got[0])
	days := []campaign.Date{
		"2012-02-29", "2012-03-31", "2012-04-30", "2012-05-31", "2012-06-30", "2012-07-31",
		"2012-08-31", "2012-09-30", "2012-10-31", "2012-11-30", "2012-12-31", "2013-01-31",
	}
	for i, day := range days {
		require.Equal(t, campaign.Instalment{No: i + 2, DueOn: day, Amount: 8_900}, got[i+1])
	}
	for _, tt := range []struct {
		no                 int
		use, granted, want int64
	}{
		{1, 0, 0, 10_000},
		{2, 8_900, 10_000, 8_900},
		{2, 8_899, 10_000, 0}, // the minimum was not reached
		{13, 20_000, 107_900, 8_900},
		{13, 20_000, 110_000, 6_800}, // never more than is left
	} {
		due, err := byMonth.Due(tt.no, tt.use, tt.granted)
		require.NoError(t, err)
		require.Equal(t, tt.want, due, "instalment %d", tt.no)
	}
}

func TestPublishedPolicyThatFollowsUse(t *testing.T) {
	require.NoError(t, followsUse.Validate())
	for _, tt := range []struct {
		no                 int
		use, granted, want int64
	}{
		{1, 0, 0, 10_000},
		{2, 4_900, 10_000, 1_715},
		{2, 4_899, 10_000, 0},
		{3, 12_345, 11_715, 4_320},    // 4,320.75 rounded down
		{4, 100_000, 300_000, 10_000}, // 35,000 earned, 10,000 left
		{36, 100_000, 310_000, 0},     // all granted
		{5, math.MaxInt64, 10_000, 300_000},
	} {
		due, err := followsUse.Due(tt.no, tt.use, tt.granted)
		require.NoError(t, err)
		require.Equal(t, tt.want, due, "instalment %d", tt.no)
	}
	_, err := followsUse.Instalments("2012-01-31")
	require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(err), "amounts that follow use are not known before")
	require.Equal(t, campaign.Date("2012-02-29"), followsUse.DueOn("2012-01-31", 2))
	for name, fails := range map[campaign.Code][]func() (int64, error){
		campaign.CodeInvalidParameter: {
			func() (int64, error) { return followsUse.Due(0, 1, 0) },
			func() (int64, error) { return followsUse.Due(37, 1, 0) },
			func() (int64, error) { return campaign.CreditSchedule{}.Due(1, 1, 0) },
		},
		campaign.CodeAmountOutOfRange: {
			func() (int64, error) { return followsUse.Due(2, -1, 0) },
			func() (int64, error) { return followsUse.Due(2, 1, -1) },
			func() (int64, error) { return followsUse.Due(2, 1, 310_001) },
		},
	} {
		for _, f := range fails {
			_, err := f()
			require.Equal(t, name, campaign.CodeOf(err))
		}
	}
}

// M6 of the design: the total to the unit, parts that differ by one at most, dates in order.
func TestInstalmentsAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := campaign.CreditSchedule{
			Total:  rapid.Int64Range(1, 1_000_000_000_000_000).Draw(t, "total"),
			Months: rapid.IntRange(1, 360).Draw(t, "months"),
		}
		s.First = rapid.Int64Range(0, s.Total-1).Draw(t, "first")
		anchor := campaign.NewDate(1900, time.January, 1).AddDays(rapid.IntRange(0, 390_000).Draw(t, "days"))
		require.True(t, anchor.Valid())
		got, err := s.Instalments(anchor)
		require.NoError(t, err)
		again, err := s.Instalments(anchor)
		require.NoError(t, err)
		require.Equal(t, got, again)

		var sum, smallest, largest int64 = 0, math.MaxInt64, 0
		day := time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)
		for i, in := range got {
			sum += in.Amount
			require.Positive(t, in.Amount)
			due, err := time.Parse(time.DateOnly, string(in.DueOn))
			require.NoError(t, err)
			require.True(t, due.After(day), "%s after %s", in.DueOn, day)
			day = due
			start, err := time.Parse(time.DateOnly, string(anchor))
			require.NoError(t, err)
			require.Equal(t, in.No-1, (due.Year()-start.Year())*12+int(due.Month()-start.Month()), "one a month")
			require.True(t, due.Day() == start.Day() || due.Day() < start.Day() && due.AddDate(0, 0, 1).Day() == 1, "the anchor's day, or the month's last")
			if in.No > 1 {
				smallest, largest = min(smallest, in.Amount), max(largest, in.Amount)
			}
			if i > 0 {
				require.Greater(t, in.No, got[i-1].No)
			}
			earned, err := s.Due(in.No, 0, sum-in.Amount)
			require.NoError(t, err)
			require.Equal(t, in.Amount, earned, "what was promised is what is due")
		}
		require.Equal(t, s.Total, sum)
		require.LessOrEqual(t, largest-smallest, int64(1))
		monthly := len(got)
		if s.First > 0 {
			monthly--
			require.Equal(t, campaign.Instalment{No: 1, DueOn: anchor, Amount: s.First}, got[0])
		}
		require.Equal(t, int(min(int64(s.Months), s.Total-s.First)), monthly)
	})
}

func TestWhatFollowsUseNeverPassesTheTotal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := campaign.CreditSchedule{
			Total:        rapid.Int64Range(2, 1_000_000_000_000_000).Draw(t, "total"),
			Months:       rapid.IntRange(1, 60).Draw(t, "months"),
			ShareOfUse:   rapid.Int64Range(1, 10_000).Draw(t, "share"),
			MinimumSpend: rapid.Int64Range(0, 1_000_000).Draw(t, "minimum"),
		}
		s.First = rapid.Int64Range(0, s.Total-1).Draw(t, "first")
		var granted int64
		for no := 1; no <= s.Months+1; no++ {
			use := rapid.Int64Min(0).Draw(t, "use")
			due, err := s.Due(no, use, granted)
			require.NoError(t, err)
			require.GreaterOrEqual(t, due, int64(0))
			if no > 1 {
				require.LessOrEqual(t, due, use)
				require.True(t, due == 0 || use >= s.MinimumSpend)
			}
			granted += due
			require.LessOrEqual(t, granted, s.Total)
		}
	})
}

func TestEachCreditFaultIsNamedAtItsField(t *testing.T) {
	for _, tt := range []struct {
		field string
		code  campaign.Code
		spoil func(*campaign.CreditSchedule)
	}{
		{"total", campaign.CodeAmountOutOfRange, func(s *campaign.CreditSchedule) { s.Total = 0 }},
		{"total", campaign.CodeAmountOutOfRange, func(s *campaign.CreditSchedule) { s.Total = math.MaxInt64 }},
		{"first", campaign.CodeAmountOutOfRange, func(s *campaign.CreditSchedule) { s.First = -1 }},
		{"first", campaign.CodeAmountOutOfRange, func(s *campaign.CreditSchedule) { s.First = s.Total + 1 }},
		{"months", campaign.CodeInvalidParameter, func(s *campaign.CreditSchedule) { s.Months = 361 }},
		{"months", campaign.CodeInvalidParameter, func(s *campaign.CreditSchedule) { s.Months = 0 }},
		{"months", campaign.CodeInvalidParameter, func(s *campaign.CreditSchedule) { s.First = s.Total }},
		{"share_of_use", campaign.CodeInvalidParameter, func(s *campaign.CreditSchedule) { s.ShareOfUse = 10_001 }},
		{"share_of_use", campaign.CodeInvalidParameter, func(s *campaign.CreditSchedule) { s.First, s.Months = s.Total, 0 }},
		{"minimum_spend", campaign.CodeInvalidParameter, func(s *campaign.CreditSchedule) { s.First, s.Months = s.Total, 0 }},
		{"minimum_spend", campaign.CodeAmountOutOfRange, func(s *campaign.CreditSchedule) { s.MinimumSpend = -1 }},
	} {
		s := followsUse
		tt.spoil(&s)
		var e *campaign.Error
		require.ErrorAs(t, s.Validate(), &e, tt.field)
		require.Contains(t, fields(e), tt.field+" "+string(tt.code))
		_, err := s.Instalments("2026-01-31")
		require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(err))
	}
	_, err := byMonth.Instalments("2026-02-30")
	require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(err))
	at, err := campaign.CreditSchedule{Total: 5, First: 5}.Instalments("2026-02-28")
	require.NoError(t, err)
	require.Equal(t, []campaign.Instalment{{No: 1, DueOn: "2026-02-28", Amount: 5}}, at)
}

func TestCreditIsNeverGrantedWithoutApprovalNorTwice(t *testing.T) {
	before := map[campaign.CreditState][]campaign.CreditState{}
	for _, from := range campaign.CreditStates() {
		for _, to := range campaign.CreditStates() {
			if from.CanFollow(to) {
				before[to] = append(before[to], from)
			}
		}
		require.False(t, from.CanFollow(from))
		require.Equal(t, from == campaign.CreditReserved || from == campaign.CreditGranted, from.Outstanding())
	}
	require.Equal(t, map[campaign.CreditState][]campaign.CreditState{
		campaign.CreditApproved:   {campaign.CreditRequested},
		campaign.CreditReserved:   {campaign.CreditApproved},
		campaign.CreditGranted:    {campaign.CreditReserved},
		campaign.CreditUsed:       {campaign.CreditGranted},
		campaign.CreditExpired:    {campaign.CreditRequested, campaign.CreditApproved, campaign.CreditReserved, campaign.CreditGranted},
		campaign.CreditClawedBack: {campaign.CreditGranted, campaign.CreditUsed},
	}, before)
}
