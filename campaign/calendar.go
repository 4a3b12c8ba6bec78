package campaign

import (
	"fmt"
	"iter"
	"slices"
	"time"
	_ "time/tzdata" // zones by name, also on a machine that has none installed
)

// TimeOfDay is a wall-clock time such as "09:00", to the minute. "24:00" ends a day.
type TimeOfDay string

// Window is a part of a day in which people work: from From up to, not including, To.
// Work past midnight is two windows, one on each day.
type Window struct {
	From TimeOfDay `json:"from"`
	To   TimeOfDay `json:"to"`
}

// Week holds the windows of each weekday, in order; none is a day off.
type Week struct {
	Monday    []Window `json:"monday,omitempty"`
	Tuesday   []Window `json:"tuesday,omitempty"`
	Wednesday []Window `json:"wednesday,omitempty"`
	Thursday  []Window `json:"thursday,omitempty"`
	Friday    []Window `json:"friday,omitempty"`
	Saturday  []Window `json:"saturday,omitempty"`
	Sunday    []Window `json:"sunday,omitempty"`
}

// Workday is a date with hours of its own, such as a weekend day worked in exchange
// for a holiday.
type Workday struct {
	Date  Date     `json:"date"`
	Hours []Window `json:"hours,omitempty"` // Monday's when empty
}

// Calendar says when people work: due times count its working time only. A moment is
// working time when the wall clock in Zone then reads a time in one of the day's
// windows, so that an hour the clocks skip is none and an hour they repeat is two.
// A calendar without hours, holidays and workdays is round the clock.
type Calendar struct {
	Name     string    `json:"name"`
	Zone     string    `json:"zone"` // IANA name, e.g. "Asia/Shanghai"
	Week     Week      `json:"week"`
	Holidays []Date    `json:"holidays,omitempty"`
	Workdays []Workday `json:"workdays,omitempty"`
}

const (
	maxCalendarDays = 1000
	maxWindows      = 12
	// minWeek keeps a search for working time short.
	minWeek   = time.Hour
	fullDay   = 24 * time.Hour
	daySecond = 24 * 3600
)

// RoundTheClock reports whether every moment is working time.
func (c Calendar) RoundTheClock() bool {
	return len(c.Holidays) == 0 && len(c.Workdays) == 0 && !slices.ContainsFunc(c.Week.days(), func(d weekday) bool { return len(d.hours) > 0 })
}

// Validate checks c: it returns nil or one Error of CodeInvalidParameter with every
// field at fault. The calendar of zero value is valid and round the clock.
func (c Calendar) Validate() error {
	v := &planCheck{}
	if !c.RoundTheClock() || c.Name != "" || c.Zone != "" {
		v.text("name", c.Name, 1, maxName)
	}
	_, faults := c.compile()
	if v.fields = append(v.fields, faults...); len(v.fields) == 0 {
		return nil
	}
	return &Error{Code: CodeInvalidParameter, Message: fmt.Sprintf("the calendar has %d fault(s)", len(v.fields)), Fields: v.fields}
}

// After returns the first moment at which so much working time has passed since from,
// in from's zone; from itself when working is not positive. A calendar whose hours
// Validate refuses counts round the clock.
func (c Calendar) After(from time.Time, working time.Duration) time.Time {
	h, faults := c.compile()
	if working <= 0 || h == nil || len(faults) > 0 {
		return from.Add(max(working, 0))
	}
	at := from
	for start, end := range h.since(from) {
		if at = start.Add(working); !at.After(end) {
			break
		}
		working -= end.Sub(start)
	}
	return at.In(from.Location())
}

// Between returns the working time from a to b, negative when b is before a. A
// calendar whose hours Validate refuses counts round the clock.
func (c Calendar) Between(a, b time.Time) time.Duration {
	if b.Before(a) {
		return -c.Between(b, a)
	}
	h, faults := c.compile()
	if h == nil || len(faults) > 0 {
		return b.Sub(a)
	}
	var sum time.Duration
	for start, end := range h.since(a) {
		if !start.Before(b) {
			break
		}
		sum += earlier(end, b).Sub(start)
	}
	return sum
}

type weekday struct {
	name  string
	hours []Window
}

// days lists the week as time.Weekday counts it, Sunday first.
func (w Week) days() []weekday {
	return []weekday{
		{"sunday", w.Sunday},
		{"monday", w.Monday},
		{"tuesday", w.Tuesday},
		{"wednesday", w.Wednesday},
		{"thursday", w.Thursday},
		{"friday", w.Friday},
		{"saturday", w.Saturday},
	}
}

// span is a window as time since the day's midnight on the wall clock.
type span struct{ from, to time.Duration }

// workingHours is a calendar ready to count with.
type workingHours struct {
	zone *time.Location
	week [7][]span
	days map[int64][]span // exceptions, by days since 1970-01-01
}

// compile returns c ready to count with, nil when it is round the clock, and every
// fault that counting would meet.
func (c Calendar) compile() (*workingHours, []FieldError) {
	if c.RoundTheClock() && c.Zone == "" {
		return nil, nil
	}
	v := &planCheck{}
	h := &workingHours{zone: zoneNamed(v, c.Zone), days: map[int64][]span{}}
	if c.RoundTheClock() {
		return nil, v.fields
	}
	var week time.Duration
	for i, d := range c.Week.days() {
		h.week[i] = spans(v, "week."+d.name, d.hours)
		for _, s := range h.week[i] {
			week += s.to - s.from
		}
	}
	if week < minWeek {
		v.add("week", CodeInvalidParameter, "must have an hour of working time at least; leave out holidays and workdays too to mean round the clock")
	}
	if len(c.Holidays) > maxCalendarDays {
		v.add("holidays", CodeInvalidParameter, fmt.Sprintf("must be %d dates at most", maxCalendarDays))
	}
	for i, d := range c.Holidays {
		h.except(v, fmt.Sprintf("holidays[%d]", i), d, nil)
	}
	if len(c.Workdays) > maxCalendarDays {
		v.add("workdays", CodeInvalidParameter, fmt.Sprintf("must be %d dates at most", maxCalendarDays))
	}
	for i, d := range c.Workdays {
		at := fmt.Sprintf("workdays[%d].", i)
		hours := h.week[time.Monday]
		if len(d.Hours) > 0 {
			hours = spans(v, at+"hours", d.Hours)
		} else if len(c.Week.Monday) == 0 {
			v.add(at+"hours", CodeInvalidParameter, "must be given, for Monday has none to take over")
		}
		h.except(v, at+"date", d.Date, hours)
	}
	return h, v.fields
}

func zoneNamed(v *planCheck, name string) *time.Location {
	zone, err := time.LoadLocation(name)
	// "" and "Local" load as well, but do not say which zone they mean.
	if err != nil || name == "" || name == "Local" {
		v.add("zone", CodeInvalidParameter, "must be the IANA name of a time zone such as Asia/Shanghai")
		return time.UTC
	}
	return zone
}

func (h *workingHours) except(v *planCheck, field string, d Date, hours []span) {
	midnight, _ := d.midnight()
	day := midnight.Unix() / daySecond
	switch _, taken := h.days[day]; {
	case !d.Valid():
		v.add(field, CodeInvalidParameter, "must be a date such as 2026-10-01")
	case taken:
		v.add(field, CodeInvalidParameter, "is among the holidays or workdays already")
	default:
		h.days[day] = hours
	}
}

func spans(v *planCheck, field string, windows []Window) []span {
	if len(windows) > maxWindows {
		v.add(field, CodeInvalidParameter, fmt.Sprintf("must have %d windows at most", maxWindows))
		return nil
	}
	var all []span
	var last time.Duration
	for i, w := range windows {
		at := fmt.Sprintf("%s[%d].", field, i)
		from, okFrom := w.From.since()
		to, okTo := w.To.since()
		if !okFrom || from == fullDay {
			v.add(at+"from", CodeInvalidParameter, "must be a time of day from 00:00 to 23:59")
		}
		if !okTo {
			v.add(at+"to", CodeInvalidParameter, "must be a time of day from 00:01 to 24:00")
		}
		switch {
		case !okFrom || !okTo:
			continue
		case to <= from:
			v.add(at+"to", CodeInvalidParameter, "must be later than from; work past midnight is two windows, one on each day")
		case from < last:
			v.add(at+"from", CodeInvalidParameter, "must not be before the end of the window above")
		}
		last = to
		all = append(all, span{from, to})
	}
	return all
}

// since returns the time since midnight and whether t is a time of day.
func (t TimeOfDay) since() (time.Duration, bool) {
	if t == "24:00" {
		return fullDay, true
	}
	clock, err := time.Parse("15:04", string(t))
	if err != nil || len(t) != len("15:04") {
		return 0, false
	}
	return time.Duration(clock.Hour())*time.Hour + time.Duration(clock.Minute())*time.Minute, true
}

// since goes through all working time after from, in order and without an end. Within
// a stretch without a change of the clocks a local day is plain arithmetic; at a change
// the day is begun again with the new offset.
func (h *workingHours) since(from time.Time) iter.Seq2[time.Time, time.Time] {
	return func(yield func(start, end time.Time) bool) {
		for at := from; ; {
			local := at.In(h.zone)
			_, offset := local.Zone()
			wall := at.Unix() + int64(offset)
			day := (wall - (wall%daySecond+daySecond)%daySecond) / daySecond
			midnight := time.Unix(day*daySecond-int64(offset), 0)
			next := midnight.Add(fullDay)
			if _, change := local.ZoneBounds(); !change.IsZero() {
				next = earlier(next, change)
			}
			for _, s := range h.on(day) {
				start, end := midnight.Add(s.from), earlier(midnight.Add(s.to), next)
				if start.Before(at) {
					start = at
				}
				if start.Before(end) && !yield(start, end) {
					return
				}
			}
			at = next
		}
	}
}

// on returns the windows of a day, counted from 1970-01-01, a Thursday.
func (h *workingHours) on(day int64) []span {
	if hours, ok := h.days[day]; ok {
		return hours
	}
	return h.week[((day+int64(time.Thursday))%7+7)%7]
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
