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
	At         time.Time        // when; the zero value means now
	Simulated  bool             // the campaign's clock is not its customers'
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
// customer's reason is told: opt-outs, consents, do-not-contact lists, quarantine. They hold
// until the moment of contact.
func (p ContactPolicy) Lists(in Intent) []Suppression {
	channel, purpose := "''", literal(string(in.Type.Purpose()))
	if in.Channel != "" {
		channel = "'', " + literal(string(in.Channel))
	}
	all := []Suppression{{Code: CodeOptedOut, Condition: fmt.Sprintf(
		"(c.opted_out OR EXISTS (SELECT FROM opt_out o WHERE o.customer_id = c.id AND o.lifted_at IS NULL AND o.channel IN (%s) AND o.purpose IN ('', %s)))", channel, purpose)}}
	if in.Channel != "" {
		// A refusal counts also where no consent is needed.
		given, negate := "NOT s.given", ""
		if slices.Contains(p.Consent, ConsentRule{in.Channel, in.Type.Purpose()}) {
			given, negate = "s.given", "NOT "
		}
		all = append(all, Suppression{Code: CodeNoConsent, Condition: fmt.Sprintf(
			"%sEXISTS (SELECT FROM consent s WHERE s.customer_id = c.id AND s.channel = %s AND s.purpose = %s AND %s)", negate, literal(string(in.Channel)), purpose, given)})
	}
	all = append(all, Suppression{Code: CodeDoNotContact, Condition: fmt.Sprintf(
		"EXISTS (SELECT FROM phone_vault n JOIN do_not_contact d ON d.lookup = n.lookup WHERE n.customer_id = c.id AND d.tenant = %s)", literal(string(in.Tenant)))})
	if about(p.Quarantine.Purposes, in.Type.Purpose()) {
		quarantine := "EXISTS (SELECT FROM quarantine q WHERE q.customer_id = c.id AND q.until > now())"
		if days := p.Quarantine.Days; days > 0 {
			quarantine += fmt.Sprintf(` OR EXISTS (SELECT FROM outcome o WHERE o.customer_id = c.id AND o.kind = 'complained' AND o.at > now() - interval '%[1]d days')
				OR EXISTS (SELECT FROM contact_history h WHERE h.customer_id = c.id AND h.kind = 'complaint' AND h.at > now() - interval '%[1]d days')`, days)
		}
		all = append(all, Suppression{Code: CodeQuarantine, Condition: "(" + quarantine + ")"})
	}
	return all
}

// Suppressions are all that may keep customers from being contacted, in the order in which a
// customer's reason is told: Lists, the universal holdout, campaigns that have them already,
// caps and gaps. Of caps and gaps they are an estimate, made without a lock: the reservation
// decides.
func (p ContactPolicy) Suppressions(in Intent) []Suppression {
	all := p.Lists(in)
	purpose := in.Type.Purpose()
	if p.Holdout.Covers(purpose) {
		all = append(all, Suppression{Code: CodeUniversalHoldout, Condition: fmt.Sprintf(
			"EXISTS (SELECT FROM universal_holdout h WHERE h.salt = %s AND h.customer_id = c.id)", literal(p.Holdout.Salt))})
	}
	if in.Simulated {
		return all
	}
	at := "now()"
	if !in.At.IsZero() {
		at = fmt.Sprintf("timestamptz '%s'", in.At.UTC().Format("2006-01-02 15:04:05.999999Z07:00"))
	}
	live := LiveSQL("l")
	if in.CampaignID != "" {
		live += " AND l.campaign_id <> " + literal(in.CampaignID)
	}
	if slices.Contains(p.Exclusive, purpose) {
		all = append(all, Suppression{Code: CodeOtherCampaign, Condition: fmt.Sprintf(
			"EXISTS (SELECT FROM contact_ledger l WHERE %s AND l.purpose = '%c' AND l.state = 'R' AND %s)", LedgerOfSQL("l", "c.id"), purpose.Code(), live)})
	}
	for _, l := range p.Limits(in.Type) {
		if in.Channel == "" && len(l.Channels) > 0 || in.Channel != "" && !l.Covers(in.Channel, in.Type) {
			continue
		}
		near := fmt.Sprintf("l.at > %[1]s - interval '%[2]d seconds' AND l.at < %[1]s + interval '%[2]d seconds'", at, int64(l.Reach()/time.Second))
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
