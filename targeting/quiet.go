package targeting

import (
	"fmt"
	"strings"
	"time"

	"github.com/musterhq/muster/campaign"
)

// codeQuiet begins the codes of quiet hours and blackouts.
const codeQuiet = "quiet:"

// clock reads a time of day as minutes after midnight.
func clock(text string) (minutes int, ok bool) {
	t, err := time.Parse("15:04", text)
	if err != nil || len(text) != 5 {
		return 0, false
	}
	return t.Hour()*60 + t.Minute(), true
}

// holds reports whether the clock shows quiet hours at a time after midnight.
func (q QuietHours) holds(since time.Duration) bool {
	from, _ := clock(q.From)
	to, _ := clock(q.To)
	start, end := time.Duration(from)*time.Minute, time.Duration(to)*time.Minute
	if start < end {
		return start <= since && since < end
	}
	return start <= since || since < end
}

// Location returns the time zone of a customer, or the policy's where it is not known.
func (p ContactPolicy) Location(zone string) *time.Location {
	for _, name := range []string{zone, p.TimeZone} {
		if name != "" && name != "Local" {
			if loc, err := time.LoadLocation(name); err == nil {
				return loc
			}
		}
	}
	return time.UTC
}

// QuietUntil returns the rule that keeps contacts of a campaign type through a channel from
// being made at an instant, and the first instant after it at which none does. The rule is
// empty when they may be made at once.
//
// Hours and days are those that the clock in loc shows: an hour that a change to summer time
// leaves out is not waited for, and one that comes twice is quiet twice.
func (p ContactPolicy) QuietUntil(c campaign.Channel, t campaign.Type, at time.Time, loc *time.Location) (rule string, until time.Time) {
	until = at
	// Each step passes an end of quiet hours, a midnight or a change of the zone's offset.
	for range 4 * maximumDays {
		code, next := p.quiet(c, t, until, loc)
		if code == "" {
			return rule, until
		}
		if rule == "" {
			rule = code
		}
		until = next
	}
	return rule, until
}

func (p ContactPolicy) quiet(c campaign.Channel, t campaign.Type, at time.Time, loc *time.Location) (string, time.Time) {
	local := at.In(loc)
	since := sinceMidnight(local)
	// next is the instant at which the clock shows a time of day again, or is put forward or back.
	next := func(of time.Duration) time.Time {
		wait := of - since
		if wait <= 0 {
			wait += day
		}
		to := at.Add(wait)
		if _, end := local.ZoneBounds(); !end.IsZero() && end.Before(to) {
			return end
		}
		return to
	}
	date := campaign.DateOf(local)
	for _, b := range p.Blackouts {
		if b.Covers(c, t) && b.From <= date && date <= b.To {
			return codeQuiet + b.Name, next(0)
		}
	}
	for _, q := range p.Quiet {
		if q.Covers(c, t) && q.holds(since) {
			to, _ := clock(q.To)
			return codeQuiet + q.Name, next(time.Duration(to) * time.Minute)
		}
	}
	return "", at
}

func sinceMidnight(local time.Time) time.Duration {
	h, m, s := local.Clock()
	return time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(s)*time.Second + time.Duration(local.Nanosecond())
}

// never reports whether quiet hours leave no minute of a day.
func (p ContactPolicy) never(c campaign.Channel, t campaign.Type) bool {
	for since := time.Duration(0); since < day; since += time.Minute {
		quiet := false
		for _, q := range p.Quiet {
			quiet = quiet || q.Covers(c, t) && q.holds(since)
		}
		if !quiet {
			return false
		}
	}
	return true
}

// QuietSQL returns an SQL expression of type text that is the code of the rule by which QuietUntil
// keeps contacts of a campaign type through a channel from being made at the trusted SQL
// expression at, in the zone that the expression zone names; NULL when none does.
func (p ContactPolicy) QuietSQL(c campaign.Channel, t campaign.Type, at, zone string) string {
	local := fmt.Sprintf("(%s AT TIME ZONE coalesce(nullif(%s, ''), %s))", at, zone, literal(p.TimeZone))
	var b strings.Builder
	for _, x := range p.Blackouts {
		if x.Covers(c, t) {
			fmt.Fprintf(&b, " WHEN %s::date BETWEEN date %s AND date %s THEN %s", local, literal(string(x.From)), literal(string(x.To)), literal(codeQuiet+x.Name))
		}
	}
	for _, q := range p.Quiet {
		if q.Covers(c, t) {
			join := "OR"
			if q.From < q.To {
				join = "AND"
			}
			fmt.Fprintf(&b, " WHEN %[1]s::time >= time %[2]s %[3]s %[1]s::time < time %[4]s THEN %[5]s", local, literal(q.From), join, literal(q.To), literal(codeQuiet+q.Name))
		}
	}
	if b.Len() == 0 {
		return "NULL::text"
	}
	return "CASE" + b.String() + " END"
}

// literal quotes a text. No statement that holds one is renumbered, so that a dollar sign in it
// is a dollar sign. Backslashes are made plain whatever standard_conforming_strings says.
func literal(text string) string {
	quoted := "'" + strings.ReplaceAll(text, "'", "''") + "'"
	if strings.Contains(text, `\`) {
		return "E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}
