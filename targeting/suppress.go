package targeting

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/musterhq/muster/campaign"
)

// Intent is what customers are to be contacted for.
type Intent struct {
	CampaignID string           // UUID, whose own reservations do not stand in its way; empty for none
	Tenant     campaign.OrgUnit // the topmost unit
	Type       campaign.Type
	Channel    campaign.Channel // empty: what holds whatever the channel
	At         time.Time        // when, at the earliest; the zero value means now
	// Planned is trusted SQL over c of when it is, not after Latest, where that is not the same
	// for all; empty means At.
	Planned   string
	Latest    time.Time
	Simulated bool // the campaign's clock is not its customers'
}

// The codes of suppressions that are no caps, gaps or quiet hours.
const (
	CodeOptedOut         = "opted_out"
	CodeNoConsent        = "no_consent"
	CodeDoNotContact     = "do_not_contact"
	CodeQuarantine       = "quarantine"
	CodeUniversalHoldout = "universal_holdout"
	CodeOtherCampaign    = "other_campaign"
)

// Lists are the suppressions that do not depend on other campaigns, in the order in which a
// customer's reason is told: opt-outs of theirs and of the tenant's others who have their
// number, consents, do-not-contact lists, quarantine. They hold until the moment of contact.
func (p ContactPolicy) Lists(in Intent) []Suppression {
	channel, purpose := "''", literal(string(in.Type.Purpose()))
	if in.Channel != "" {
		channel = "'', " + literal(string(in.Channel))
	}
	inForce := func(row string) string {
		return fmt.Sprintf("%[1]s.lifted_at IS NULL AND %[1]s.channel IN (%[2]s) AND %[1]s.purpose IN ('', %[3]s)", row, channel, purpose)
	}
	all := []Suppression{among(CodeOptedOut, "c.opted_out",
		Set{From: "opt_out s", Where: inForce("s")},
		// Who refuses may be known by several ids.
		Set{From: "opt_out o JOIN phone_vault m ON m.customer_id = o.customer_id JOIN phone_vault s ON s.lookup = m.lookup",
			Where: "o.tenant = " + literal(string(in.Tenant)) + " AND " + inForce("o")})}
	if in.Channel != "" {
		told := Set{From: "consent s", Where: fmt.Sprintf("s.channel = %s AND s.purpose = %s AND ", literal(string(in.Channel)), purpose)}
		if slices.Contains(p.Consent, ConsentRule{in.Channel, in.Type.Purpose()}) {
			told.Where += "s.given"
			all = append(all, Suppression{Code: CodeNoConsent, Condition: "NOT " + told.exists()})
		} else { // a refusal counts also where no consent is needed
			told.Where += "NOT s.given"
			all = append(all, among(CodeNoConsent, "", told))
		}
	}
	all = append(all, among(CodeDoNotContact, "",
		Set{From: "do_not_contact d JOIN phone_vault s ON s.lookup = d.lookup", Where: "d.tenant = " + literal(string(in.Tenant))}))
	if about(p.Quarantine.Purposes, in.Type.Purpose()) {
		sets := []Set{{From: "quarantine s", Where: "s.until > now()"}}
		if days := p.Quarantine.Days; days > 0 {
			since := fmt.Sprintf("s.at > now() - interval '%d days'", days)
			sets = append(sets, Set{From: "outcome s", Where: "s.kind = 'complained' AND " + since}, Set{From: "contact_history s", Where: "s.kind = 'complaint' AND " + since})
		}
		all = append(all, among(CodeQuarantine, "", sets...))
	}
	return all
}

// Suppressions are all that may keep customers from being contacted, in the order in which a
// customer's reason is told: Barred, then Crowded.
func (p ContactPolicy) Suppressions(in Intent) []Suppression {
	return append(p.Barred(in), p.Crowded(in)...)
}

// Barred are the suppressions that are no caps and gaps: Lists, the universal holdout, campaigns
// that have the customers already.
func (p ContactPolicy) Barred(in Intent) []Suppression {
	all := p.Lists(in)
	purpose := in.Type.Purpose()
	if p.Holdout.Covers(purpose) {
		all = append(all, among(CodeUniversalHoldout, "", Set{From: "universal_holdout s", Where: "s.salt = " + literal(p.Holdout.Salt)}))
	}
	if !in.Simulated && slices.Contains(p.Exclusive, purpose) {
		all = append(all, Suppression{Code: CodeOtherCampaign, Condition: fmt.Sprintf(
			"EXISTS (SELECT FROM contact_ledger l WHERE %s AND l.purpose = '%c' AND l.state = 'R' AND %s)", LedgerOfSQL("l", "c.id"), purpose.Code(), in.live())})
	}
	return all
}

// Crowded are the caps and gaps: an estimate, made without a lock, for the reservation decides.
// Reservations that the contact may take the place of do not count.
func (p ContactPolicy) Crowded(in Intent) (all []Suppression) {
	if in.Simulated {
		return nil
	}
	earliest, latest := instant(in.At), instant(in.At)
	at := earliest
	if in.Planned != "" {
		latest, at = instant(in.Latest), in.Planned
	}
	live := in.live()
	if class := p.Priorities[in.Type]; class > 0 {
		live += fmt.Sprintf(" AND NOT (l.state = 'R' AND l.priority < %d AND l.at > now() + interval '%d seconds')", class, p.Freeze)
	}
	for _, l := range p.Limits(in.Type) {
		if in.Channel == "" && len(l.Channels) > 0 || in.Channel != "" && !l.Covers(in.Channel, in.Type) {
			continue
		}
		near := fmt.Sprintf("l.at > %[1]s - interval '%[3]d seconds' AND l.at < %[2]s + interval '%[3]d seconds'", earliest, latest, int64(l.Reach()/time.Second))
		crowded := l.crowdedSQL("x.at", at)
		if l.Window == 0 {
			crowded = l.crowdedSQL("x.at", fmt.Sprintf("(%s AT TIME ZONE c.time_zone)::date", at))
		}
		all = append(all, Suppression{Code: l.Code, Condition: fmt.Sprintf(
			"EXISTS (SELECT FROM (SELECT %s AS at, %s AS first FROM contact_ledger l WHERE %s AND %s AND %s%s) x WHERE %s)",
			l.column("l"), l.firstSQL("l", ""), LedgerOfSQL("l", "c.id"), near, live, l.ScopeSQL("l"), crowded)})
	}
	return all
}

// Unassigned suppresses whom the list of arms does not name, where there is one.
func (c Control) Unassigned() []Suppression {
	if c.Method != ControlByList {
		return nil
	}
	return []Suppression{{Code: CodeNoArm, Condition: fmt.Sprintf(
		"NOT EXISTS (SELECT FROM customer_list_member a WHERE a.list_id = %s::uuid AND a.customer_id = c.id)", literal(c.List))}}
}

// live is the condition that a row l of the ledger counts beside the intent.
func (in Intent) live() string {
	if in.CampaignID == "" {
		return LiveSQL("l")
	}
	return LiveSQL("l") + " AND l.campaign_id <> " + literal(in.CampaignID)
}

// instant emits a moment, now for the zero value.
func instant(at time.Time) string {
	if at.IsZero() {
		return "now()"
	}
	return fmt.Sprintf("timestamptz '%s'", at.UTC().Format("2006-01-02 15:04:05.999999Z07:00"))
}

// Planned returns when the wave of a customer of the tier at i begins as planned, as trusted
// SQL over c, and the first and the last moment that it may be; empty SQL where there is only
// one.
func (sel Selection) Planned(i int) (sql string, first, last time.Time) {
	t := sel.Tiers[i]
	first = sel.Starts[t.Wave].At
	last = first
	starts := fmt.Sprintf(" WHEN %d THEN %s", t.Wave, instant(first))
	for _, f := range t.Further {
		at := sel.Starts[f.Wave].At
		starts += fmt.Sprintf(" WHEN %d THEN %s", f.Wave, instant(at))
		if at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
	}
	if first.Equal(last) {
		return "", first, last
	}
	// In a query of its own, so that the hash is worked out once.
	return fmt.Sprintf("(SELECT CASE %s%s END FROM (SELECT 1 AS tier, %s AS u OFFSET 0) drawn)",
		waveSQL([]Tier{t}, "tier", "u"), starts, DrawSQL(literal(sel.Salt), sel.Control.drawn())), first, last
}

// LedgerOfSQL is the condition that a row of contact_ledger is a customer's. It names the
// bucket, by which the ledger is divided and indexed.
func LedgerOfSQL(ledger, customer string) string {
	return fmt.Sprintf("%[1]s.bucket = get_byte(uuid_send(%[2]s), 15) AND %[1]s.customer_id = %[2]s", ledger, customer)
}

// LiveSQL is the condition that a row of contact_ledger counts: it was sent, or is reserved
// and has not lapsed.
func LiveSQL(ledger string) string {
	return fmt.Sprintf("(%[1]s.state IN ('S', 'D') OR %[1]s.state = 'R' AND %[1]s.expires_at > now()) AND NOT %[1]s.simulated", ledger)
}

// column is what a limit measures by: instants, or dates of the customer's calendar.
func (l Limit) column(ledger string) string {
	if l.Window > 0 {
		return ledger + ".at"
	}
	return ledger + ".day"
}

// firstSQL is where the crowd begins that a row of the ledger is the last of: Most-1 rows
// before it, NULL when there are not so many.
func (l Limit) firstSQL(ledger, partition string) string {
	return fmt.Sprintf("lag(%[1]s, %[2]d) OVER (%[3]sORDER BY %[1]s)", l.column(ledger), l.Most-1, partition)
}

// crowdedSQL is the condition that a contact at t does not fit between the crowd that ends at
// at and begins at first: then Most+1 would lie within the window.
func (l Limit) crowdedSQL(at, t string) string {
	span := fmt.Sprintf("interval '%d seconds'", int64(l.Window/time.Second))
	if l.Window == 0 {
		span = fmt.Sprint(l.Days)
	}
	return fmt.Sprintf("first IS NOT NULL AND greatest(%[1]s, %[2]s) - least(first, %[2]s) < %[3]s", at, t, span)
}

// ScopeSQL restricts rows of the ledger to those that a limit counts; empty for all.
func (l Limit) ScopeSQL(ledger string) string {
	var b strings.Builder
	letters := func(column string, codes []byte) {
		if len(codes) == 0 {
			return
		}
		quoted := make([]string, len(codes))
		for i, c := range codes {
			quoted[i] = fmt.Sprintf("'%c'", c)
		}
		fmt.Fprintf(&b, " AND %s.%s IN (%s)", ledger, column, strings.Join(quoted, ", "))
	}
	letters("channel", codesOf(l.Channels, campaign.Channel.Code))
	letters("purpose", codesOf(l.Purposes, campaign.Purpose.Code))
	letters("type", codesOf(l.Types, campaign.Type.Code))
	return b.String()
}

func codesOf[T any](all []T, code func(T) byte) []byte {
	out := make([]byte, len(all))
	for i, x := range all {
		out[i] = code(x)
	}
	return out
}

// CrowdedSQL returns a query for those of the contacts t that a limit has no room for, given
// pairs: a table of each contact's customer_id, instant t, date td and channel tc beside the
// live ledger rows at, day, channel, purpose, type of the same customer. Each customer has
// one contact in it.
func (l Limit) CrowdedSQL(pairs string) string {
	t := "t"
	if l.Window == 0 {
		t = "td"
	}
	among := ""
	if codes := codesOf(l.Channels, campaign.Channel.Code); len(codes) > 0 {
		quoted := make([]string, len(codes))
		for i, c := range codes {
			quoted[i] = fmt.Sprintf("'%c'", c)
		}
		among = fmt.Sprintf(" AND p.tc IN (%s)", strings.Join(quoted, ", "))
	}
	return fmt.Sprintf("SELECT customer_id FROM (SELECT p.customer_id, p.%s AS t, %s AS at, %s AS first FROM %s p WHERE true%s%s) x WHERE %s",
		t, l.column("p"), l.firstSQL("p", "PARTITION BY p.customer_id "), pairs, l.ScopeSQL("p"), among, l.crowdedSQL("at", "t"))
}

// SpanSQL is the audit of a limit: a column crowded that is true for a row of the ledger which
// is the last of too many in a window, one of them the campaign's and all admitted by a
// version of the policy.
func (l Limit) SpanSQL(ledger string, version int64, campaignID string) string {
	span := fmt.Sprintf("interval '%d seconds'", int64(l.Window/time.Second))
	if l.Window == 0 {
		span = fmt.Sprint(l.Days)
	}
	window := fmt.Sprintf("OVER (PARTITION BY %[1]s.customer_id ORDER BY %[2]s ROWS BETWEEN %[3]d PRECEDING AND CURRENT ROW)", ledger, l.column(ledger), l.Most)
	return fmt.Sprintf("%[1]s - lag(%[1]s, %[2]d) OVER (PARTITION BY %[3]s.customer_id ORDER BY %[1]s) < %[4]s AND bool_or(%[3]s.campaign_id = %[5]s) %[6]s AND bool_and(%[3]s.policy = %[7]d) %[6]s AS crowded",
		l.column(ledger), l.Most, ledger, span, campaignID, window, version)
}

// NearSQL is the condition that a row p of those pairs is one that the limit counts and that
// lies less than its window from the contact.
func (l Limit) NearSQL() string {
	near := "p.at > p.t - %[1]s AND p.at < p.t + %[1]s"
	span := fmt.Sprintf("interval '%d seconds'", int64(l.Window/time.Second))
	if l.Window == 0 {
		near, span = strings.ReplaceAll(strings.ReplaceAll(near, "p.at", "p.day"), "p.t ", "p.td "), fmt.Sprint(l.Days)
	}
	return fmt.Sprintf(near, span) + l.ScopeSQL("p")
}

// Contact is one contact as limits see it.
type Contact struct {
	At      time.Time
	Day     campaign.Date // of the customer's calendar
	Channel campaign.Channel
	Type    campaign.Type
}

// Admits says by definition whether a contact may be made amid others of the customer, in any
// order, which keep to the limit themselves: no window that it lies in would have more than
// Most. It is what CrowdedSQL is held to by the tests.
func (l Limit) Admits(c Contact, others []Contact) bool {
	if !l.Covers(c.Channel, c.Type) {
		return true
	}
	in := []Contact{c}
	for _, o := range others {
		if l.Covers(o.Channel, o.Type) {
			in = append(in, o)
		}
	}
	for _, start := range in {
		held, n := false, 0
		for i, o := range in {
			if l.within(start, o) {
				n++
				held = held || i == 0
			}
		}
		if held && n > l.Most {
			return false
		}
	}
	return true
}

// within reports whether o lies in the window that begins at start: half open, so that what
// is exactly a window apart is allowed.
func (l Limit) within(start, o Contact) bool {
	if l.Window > 0 {
		d := o.At.Sub(start.At)
		return d >= 0 && d < l.Window
	}
	return o.Day >= start.Day && o.Day < start.Day.AddDays(l.Days)
}
