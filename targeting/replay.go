package targeting

import (
	"time"

	"github.com/musterhq/muster/campaign"
)

// Kept counts contacts that a policy would have let through, and those that it would not.
type Kept struct{ Kept, Suppressed int64 }

// Replay tells what a policy would have done to contacts that were made. They come customer
// by customer and in order of time; one that the policy would not have let through leaves
// room for those after it.
type Replay struct {
	policy ContactPolicy
	from   time.Time
	limits map[campaign.Type][]Limit

	customer [16]byte
	counted  bool
	kept     []Contact
	full     map[string]bool // limits that the customer at hand has reached

	Total     Kept
	Delayed   int64 // contacts that quiet hours would have put off, whatever else
	Customers int64
	ByRule    map[string]int64
	ByChannel map[campaign.Channel]Kept
	ByMonth   map[string]Kept  // 2027-02, by the customer's calendar
	AtCap     map[string]int64 // customers who at some time had as many as a rule lets them have
}

// NewReplay begins a replay. What was before from only stands in the way of what comes after.
func NewReplay(p ContactPolicy, from time.Time) *Replay {
	return &Replay{
		policy: p, from: from, limits: map[campaign.Type][]Limit{}, full: map[string]bool{},
		ByRule: map[string]int64{}, ByChannel: map[campaign.Channel]Kept{}, ByMonth: map[string]Kept{}, AtCap: map[string]int64{},
	}
}

// Reach is how far before a contact others lie that matter for it.
func (p ContactPolicy) Reach() time.Duration {
	var reach time.Duration
	for _, t := range campaign.Types() {
		for _, l := range p.Limits(t) {
			reach = max(reach, l.Reach())
		}
	}
	return reach
}

// Add replays the next contact. zone is the customer's, an IANA name.
func (r *Replay) Add(customer [16]byte, zone string, at time.Time, channel campaign.Channel, kind campaign.Type) {
	if customer != r.customer {
		r.customer, r.counted, r.kept = customer, false, r.kept[:0]
		clear(r.full)
	}
	loc := r.policy.Location(zone)
	c := Contact{At: at, Day: campaign.DateOf(at.In(loc)), Channel: channel, Type: kind}
	if at.Before(r.from) {
		r.kept = append(r.kept, c)
		return
	}
	if !r.counted {
		r.counted = true
		r.Customers++
	}
	if rule, _ := r.policy.QuietUntil(channel, kind, at, loc); rule != "" {
		r.Delayed++
		r.ByRule[rule]++
	}
	limits, known := r.limits[kind]
	if !known {
		limits = r.policy.Limits(kind)
		r.limits[kind] = limits
	}
	for _, l := range limits {
		if !l.Admits(c, r.kept) {
			r.ByRule[l.Code]++
			r.note(c, Kept{Suppressed: 1})
			return
		}
	}
	r.kept = append(r.kept, c)
	r.note(c, Kept{Kept: 1})
	for _, l := range limits {
		if !r.full[l.Code] && l.Covers(channel, kind) && !l.Admits(c, r.kept) {
			// Another one beside it would be too many.
			r.full[l.Code] = true
			r.AtCap[l.Code]++
		}
	}
}

func (r *Replay) note(c Contact, n Kept) {
	add := func(k Kept) Kept { return Kept{k.Kept + n.Kept, k.Suppressed + n.Suppressed} }
	month := string(c.Day[:len("2027-02")])
	r.Total, r.ByChannel[c.Channel], r.ByMonth[month] = add(r.Total), add(r.ByChannel[c.Channel]), add(r.ByMonth[month])
}
