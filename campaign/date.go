package campaign

import "time"

// Date is a calendar day such as "2026-01-31", without a time and without a zone.
// Empty means that there is none. Dates compare in order as they are.
type Date string

// NewDate returns a day. Values outside their range carry over, as with time.Date.
func NewDate(year int, month time.Month, day int) Date {
	return Date(time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Format(time.DateOnly))
}

// DateOf returns the day that t is in, in t's own zone.
func DateOf(t time.Time) Date { return NewDate(t.Date()) }

// Valid reports whether d is a day of the years 1900 to 2999.
func (d Date) Valid() bool {
	t, ok := d.midnight()
	return ok && t.Year() >= 1900 && t.Year() <= 2999
}

// AddDays returns the day n days after d, or "" when d is not a day.
func (d Date) AddDays(n int) Date {
	t, ok := d.midnight()
	if !ok {
		return ""
	}
	return DateOf(t.AddDate(0, 0, n))
}

// AddMonths returns the same day n months after d, or that month's last day when it is
// shorter: 31 January and one month is 28 or 29 February, and two months 31 March. It
// returns "" when d is not a day.
func (d Date) AddMonths(n int) Date {
	t, ok := d.midnight()
	if !ok {
		return ""
	}
	last := time.Date(t.Year(), t.Month()+time.Month(n)+1, 0, 0, 0, 0, 0, time.UTC)
	return NewDate(last.Year(), last.Month(), min(t.Day(), last.Day()))
}

// midnight returns d's first moment in UTC and whether d is a day at all.
func (d Date) midnight() (time.Time, bool) {
	t, err := time.Parse(time.DateOnly, string(d))
	return t, err == nil
}
