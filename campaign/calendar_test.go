package campaign_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/campaign"
)

func windows(times ...campaign.TimeOfDay) (all []campaign.Window) {
	for i := 0; i < len(times); i += 2 {
		all = append(all, campaign.Window{From: times[i], To: times[i+1]})
	}
	return all
}

func everyDay(w []campaign.Window) campaign.Week {
	return campaign.Week{Monday: w, Tuesday: w, Wednesday: w, Thursday: w, Friday: w, Saturday: w, Sunday: w}
}

// officeHours are a Chinese office's in the autumn of 2026: the National Day holidays
// from 1 to 7 October are paid for with Sunday 20 September and Saturday 10 October.
func officeHours() campaign.Calendar {
	day := windows("09:00", "12:00", "13:30", "18:00")
	return campaign.Calendar{
		Name: "Province office", Zone: "Asia/Shanghai",
		Week: campaign.Week{Monday: day, Tuesday: day, Wednesday: day, Thursday: day, Friday: day},
		Holidays: []campaign.Date{
			"2026-10-01", "2026-10-02", "2026-10-03", "2026-10-04", "2026-10-05", "2026-10-06", "2026-10-07",
		},
		Workdays: []campaign.Workday{{Date: "2026-09-20"}, {Date: "2026-10-10", Hours: windows("09:00", "12:00")}},
	}
}

func at(t require.TestingT, zone, wall string) time.Time {
	loc, err := time.LoadLocation(zone)
	require.NoError(t, err)
	moment, err := time.ParseInLocation("2006-01-02 15:04", wall, loc)
	require.NoError(t, err)
	return moment
}

func TestDueTimesCountWorkingTimeOnly(t *testing.T) {
	c := officeHours()
	require.NoError(t, c.Validate())
	for _, tt := range []struct {
		from    string
		working time.Duration
		want    string
	}{
		{"2026-11-02 09:00", time.Hour, "2026-11-02 10:00"},
		{"2026-11-02 11:30", time.Hour, "2026-11-02 14:00"},     // over the midday break
		{"2026-11-02 12:15", time.Minute, "2026-11-02 13:31"},   // asked in the break
		{"2026-11-02 09:00", 3 * time.Hour, "2026-11-02 12:00"}, // due when the window ends, not when the next begins
		{"2026-11-02 09:00", 7*time.Hour + 30*time.Minute, "2026-11-02 18:00"},
		{"2026-11-06 17:00", 2 * time.Hour, "2026-11-09 10:00"},             // over a weekend
		{"2026-11-07 10:00", time.Hour, "2026-11-09 10:00"},                 // asked on Saturday
		{"2026-09-19 10:00", time.Hour, "2026-09-20 10:00"},                 // Sunday is worked, with Monday's hours
		{"2026-09-30 17:00", 2 * time.Hour, "2026-10-08 10:00"},             // over the holidays
		{"2026-10-09 17:00", 4 * time.Hour, "2026-10-10 12:00"},             // Saturday is worked in the morning
		{"2026-10-09 17:00", 4*time.Hour + time.Minute, "2026-10-12 09:01"}, // and not later
		{"2026-11-07 10:00", 0, "2026-11-07 10:00"},
		{"2026-11-07 10:00", -time.Hour, "2026-11-07 10:00"},
	} {
		from, want := at(t, c.Zone, tt.from), at(t, c.Zone, tt.want)
		require.Equal(t, want.String(), c.After(from, tt.working).String(), "%s and %s", tt.from, tt.working)
		require.Equal(t, max(tt.working, 0), c.Between(from, want), "%s and %s", tt.from, tt.working)
	}
	require.Equal(t, 4*time.Hour, c.Between(at(t, c.Zone, "2026-10-09 17:00"), at(t, c.Zone, "2026-10-11 00:00")))
	require.Equal(t, -4*time.Hour, c.Between(at(t, c.Zone, "2026-10-11 00:00"), at(t, c.Zone, "2026-10-09 17:00")))
	utc := at(t, c.Zone, "2026-11-02 09:00").UTC()
	require.Equal(t, time.UTC, c.After(utc, time.Hour).Location(), "the answer is in the question's zone")
}

func TestClocksThatChange(t *testing.T) {
	night := campaign.Calendar{Name: "Night shift", Week: everyDay(windows("00:30", "03:30"))}
	for _, tt := range []struct {
		zone, from, to string
		want           time.Duration
	}{
		{"Europe/Berlin", "2026-03-28 00:00", "2026-03-29 00:00", 3 * time.Hour},
		{"Europe/Berlin", "2026-03-29 00:00", "2026-03-30 00:00", 2 * time.Hour},                      // 02:00 to 03:00 is skipped
		{"Europe/Berlin", "2026-10-25 00:00", "2026-10-26 00:00", 4 * time.Hour},                      // 02:00 to 03:00 comes twice
		{"Australia/Lord_Howe", "2026-10-04 00:00", "2026-10-05 00:00", 2*time.Hour + 30*time.Minute}, // by half an hour
		{"America/Sao_Paulo", "2018-11-03 23:59", "2018-11-04 04:00", 2*time.Hour + 30*time.Minute},   // midnight is skipped
		{"Pacific/Apia", "2011-12-29 12:00", "2011-12-31 12:00", 3 * time.Hour},                       // a whole day is skipped
	} {
		c := night
		c.Zone = tt.zone
		require.NoError(t, c.Validate())
		require.Equal(t, tt.want, c.Between(at(t, tt.zone, tt.from), at(t, tt.zone, tt.to)), "%s %s", tt.zone, tt.from)
	}
}

func genCalendar(t *rapid.T) campaign.Calendar {
	clock := func(minute int) campaign.TimeOfDay {
		return campaign.TimeOfDay(fmt.Sprintf("%02d:%02d", minute/60, minute%60))
	}
	genDay := rapid.Custom(func(t *rapid.T) (day []campaign.Window) {
		for last := 0; len(day) < 3 && last < 1380 && rapid.Bool().Draw(t, "another"); {
			from := rapid.IntRange(last, 1439).Draw(t, "from")
			to := rapid.IntRange(from+1, 1440).Draw(t, "to")
			day = append(day, campaign.Window{From: clock(from), To: clock(to)})
			last = to
		}
		return day
	})
	c := campaign.Calendar{
		Name: "drawn",
		Zone: rapid.SampledFrom([]string{
			"Asia/Shanghai", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "America/St_Johns", "UTC",
		}).Draw(t, "zone"),
		Week: campaign.Week{
			Monday:  append(windows("00:00", "01:00"), windows("02:15", "03:45")...),
			Tuesday: genDay.Draw(t, "tuesday"), Wednesday: genDay.Draw(t, "wednesday"), Thursday: genDay.Draw(t, "thursday"),
			Friday: genDay.Draw(t, "friday"), Saturday: genDay.Draw(t, "saturday"), Sunday: genDay.Draw(t, "sunday"),
		},
	}
	day := campaign.NewDate(2026, time.January, 1)
	for range rapid.IntRange(0, 8).Draw(t, "exceptions") {
		day = day.AddDays(rapid.IntRange(1, 60).Draw(t, "days later"))
		if rapid.Bool().Draw(t, "holiday") {
			c.Holidays = append(c.Holidays, day)
		} else {
			c.Workdays = append(c.Workdays, campaign.Workday{Date: day, Hours: genDay.Draw(t, "hours")})
		}
	}
	require.NoError(t, c.Validate())
	return c
}

func genMoment(t *rapid.T, label string) time.Time {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return start.Add(time.Duration(rapid.Int64Range(0, int64(366*24*time.Hour)).Draw(t, label)))
}

func TestWorkingTimeAddsUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := genCalendar(t)
		from := genMoment(t, "from")
		d := time.Duration(rapid.Int64Range(0, int64(200*time.Hour)).Draw(t, "working"))
		due := c.After(from, d)
		require.Equal(t, d, c.Between(from, due))
		require.False(t, due.Before(from))
		if d > 0 {
			require.Less(t, c.Between(from, due.Add(-1)), d, "it is the first such moment")
		}
		more := d + time.Duration(rapid.Int64Range(0, int64(20*time.Hour)).Draw(t, "more"))
		require.False(t, c.After(from, more).Before(due), "more time is not due earlier")
		later := from.Add(time.Duration(rapid.Int64Range(0, int64(20*24*time.Hour)).Draw(t, "later")))
		require.False(t, c.After(later, d).Before(due), "what begins later is not due earlier")
		end := later.Add(time.Duration(rapid.Int64Range(0, int64(20*24*time.Hour)).Draw(t, "end")))
		require.Equal(t, c.Between(from, end), c.Between(from, later)+c.Between(later, end))
	})
}

// TestWorkingTimeIsWhatTheWallClockSays counts minute by minute what a person with a
// clock on the wall and the calendar beside it would count.
func TestWorkingTimeIsWhatTheWallClockSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := genCalendar(t)
		zone, err := time.LoadLocation(c.Zone)
		require.NoError(t, err)
		near := genMoment(t, "anywhere")
		if _, change := near.In(zone).ZoneBounds(); !change.IsZero() && rapid.Bool().Draw(t, "near a change of the clocks") {
			near = change
		}
		start := near.Truncate(time.Minute).Add(-time.Duration(rapid.IntRange(0, 1500).Draw(t, "before")) * time.Minute)
		end := start.Add(time.Duration(rapid.IntRange(0, 4000).Draw(t, "minutes")) * time.Minute)
		var counted time.Duration
		for m := start; m.Before(end); m = m.Add(time.Minute) {
			wall := m.In(zone)
			for _, w := range hoursOn(c, wall) {
				if clock := campaign.TimeOfDay(wall.Format("15:04")); w.From <= clock && clock < w.To {
					counted += time.Minute
				}
			}
		}
		require.Equal(t, counted, c.Between(start, end), "%s from %s to %s", c.Zone, start.In(zone), end.In(zone))
	})
}

func hoursOn(c campaign.Calendar, wall time.Time) []campaign.Window {
	day := campaign.DateOf(wall)
	for _, h := range c.Holidays {
		if h == day {
			return nil
		}
	}
	for _, w := range c.Workdays {
		if w.Date == day {
			if len(w.Hours) == 0 {
				return c.Week.Monday
			}
			return w.Hours
		}
	}
	week := c.Week
	return [][]campaign.Window{
		week.Sunday, week.Monday, week.Tuesday, week.Wednesday, week.Thursday, week.Friday, week.Saturday,
	}[wall.Weekday()]
}

func TestRoundTheClockIsPlainTime(t *testing.T) {
	for _, c := range []campaign.Calendar{
		{},
		{Name: "Always"},
		{Name: "Always", Zone: "Europe/Berlin"},
		{Name: "Always, said in full", Zone: "Europe/Berlin", Week: everyDay(windows("00:00", "24:00"))},
	} {
		require.NoError(t, c.Validate())
		rapid.Check(t, func(t *rapid.T) {
			from := genMoment(t, "from")
			d := time.Duration(rapid.Int64Range(0, int64(400*24*time.Hour)).Draw(t, "d"))
			require.True(t, from.Add(d).Equal(c.After(from, d)))
			require.Equal(t, d, c.Between(from, from.Add(d)))
		})
	}
}

func TestEachCalendarFaultIsNamedAtItsField(t *testing.T) {
	for _, tt := range []struct {
		field string
		spoil func(*campaign.Calendar)
	}{
		{"name", func(c *campaign.Calendar) { c.Name = "" }},
		{"zone", func(c *campaign.Calendar) { c.Zone = "" }},
		{"zone", func(c *campaign.Calendar) { c.Zone = "Local" }},
		{"zone", func(c *campaign.Calendar) { c.Zone = "../etc/passwd" }},
		{"zone", func(c *campaign.Calendar) { *c = campaign.Calendar{Name: "x", Zone: "Mars/Olympus"} }},
		{"week", func(c *campaign.Calendar) { c.Week = campaign.Week{} }},
		{"week", func(c *campaign.Calendar) { c.Week = campaign.Week{Monday: windows("09:00", "09:59")} }},
		{"week.monday[0].from", func(c *campaign.Calendar) { c.Week.Monday = windows("9:00", "12:00") }},
		{"week.monday[0].from", func(c *campaign.Calendar) { c.Week.Monday = windows("24:00", "24:00") }},
		{"week.monday[0].to", func(c *campaign.Calendar) { c.Week.Monday = windows("09:00", "24:01") }},
		{"week.monday[0].to", func(c *campaign.Calendar) { c.Week.Monday = windows("22:00", "06:00") }},
		{"week.friday[1].from", func(c *campaign.Calendar) { c.Week.Friday = windows("09:00", "12:00", "11:59", "18:00") }},
		{"week.friday", func(c *campaign.Calendar) { c.Week.Friday = make([]campaign.Window, 13) }},
		{"holidays[1]", func(c *campaign.Calendar) { c.Holidays[1] = "2026-02-29" }},
		{"holidays[1]", func(c *campaign.Calendar) { c.Holidays[1] = c.Holidays[0] }},
		{"holidays", func(c *campaign.Calendar) { c.Holidays = make([]campaign.Date, 1001) }},
		{"workdays[0].date", func(c *campaign.Calendar) { c.Workdays[0].Date = c.Holidays[0] }},
		{"workdays[0].hours", func(c *campaign.Calendar) { c.Week.Monday = nil }},
		{"workdays[1].hours[0].to", func(c *campaign.Calendar) { c.Workdays[1].Hours = windows("09:00", "") }},
		{"workdays", func(c *campaign.Calendar) { c.Workdays = make([]campaign.Workday, 1001) }},
	} {
		c := officeHours()
		tt.spoil(&c)
		var e *campaign.Error
		require.ErrorAs(t, c.Validate(), &e, tt.field)
		require.Contains(t, fields(e), tt.field+" "+string(codeOfField(e, tt.field)))
		require.NotEmpty(t, codeOfField(e, tt.field), tt.field)
	}
	broken := officeHours()
	broken.Zone = "Mars/Olympus"
	from := at(t, "UTC", "2026-11-07 10:00")
	require.Equal(t, from.Add(time.Hour), broken.After(from, time.Hour))
	require.Equal(t, time.Hour, broken.Between(from, from.Add(time.Hour)))
	unnamed := officeHours()
	unnamed.Name = ""
	require.Equal(t, time.Duration(0), unnamed.Between(from, from.Add(time.Hour)), "a name counts no hours")
}

func codeOfField(e *campaign.Error, field string) campaign.Code {
	for _, f := range e.Fields {
		if f.Field == field {
			return f.Code
		}
	}
	return ""
}

func TestCalendarSurvivesStorage(t *testing.T) {
	c := officeHours()
	body, err := json.Marshal(c)
	require.NoError(t, err)
	var back campaign.Calendar
	require.NoError(t, json.Unmarshal(body, &back))
	require.Equal(t, c, back)
}

func TestDates(t *testing.T) {
	for _, tt := range []struct {
		from   campaign.Date
		months int
		want   campaign.Date
	}{
		{"2026-01-31", 0, "2026-01-31"},
		{"2026-01-31", 1, "2026-02-28"},
		{"2028-01-31", 1, "2028-02-29"},
		{"2026-01-31", 2, "2026-03-31"},
		{"2026-01-31", 3, "2026-04-30"},
		{"2026-08-30", 6, "2027-02-28"},
		{"2024-02-29", 12, "2025-02-28"},
		{"2024-02-29", 48, "2028-02-29"},
		{"2026-12-31", 2, "2027-02-28"},
		{"2026-03-31", -1, "2026-02-28"},
		{"yesterday", 1, ""},
	} {
		require.Equal(t, tt.want, tt.from.AddMonths(tt.months), "%s and %d months", tt.from, tt.months)
	}
	require.Equal(t, campaign.Date("2027-01-01"), campaign.Date("2026-12-31").AddDays(1))
	require.Empty(t, campaign.Date("").AddDays(1))
	require.Equal(t, campaign.Date("2026-11-23"), campaign.DateOf(at(t, "Asia/Shanghai", "2026-11-23 07:00")))
	for _, bad := range []campaign.Date{"", "2026-1-1", "2026-02-29", "2026-01-01 ", "20260101", "1899-12-31", "3000-01-01"} {
		require.False(t, bad.Valid(), string(bad))
	}
}
