package audience

import (
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/targeting"
)

// control finds the columns and the list by which a plan draws its control group.
func (w *Words) control(a campaign.Audience) (targeting.Control, []campaign.FieldError) {
	c := targeting.Control{Method: targeting.ControlMethod(a.ControlMethod)}
	var faults []campaign.FieldError
	column := func(field, name string) string {
		for _, x := range w.Attributes {
			if x.Name == name {
				return x.Column()
			}
		}
		faults = append(faults, campaign.FieldError{Field: field, Code: campaign.CodeInvalidFilter, Message: "customers have no attribute " + strconv.Quote(name) + " that may be used here"})
		return ""
	}
	for i, name := range a.ControlStrata {
		c.Strata = append(c.Strata, column("audience.control_strata["+strconv.Itoa(i)+"]", name))
	}
	if a.ControlAccount != "" {
		c.Account = column("audience.control_account", a.ControlAccount)
	}
	if a.ControlList != "" {
		list, ok := w.Names.Lists[a.ControlList]
		if c.List = list.ID; !ok {
			faults = append(faults, campaign.FieldError{Field: "audience.control_list", Code: campaign.CodeInvalidFilter, Message: "there is no list " + strconv.Quote(a.ControlList) + " in force"})
		}
	}
	return c, faults
}

// Estimate says what a selection is compiled for.
type Estimate bool

// What only counts estimates caps and gaps. A frozen selection leaves them to the reservation,
// which decides them; but where the plan limits its targets, those who are known to be at a cap
// take no place under the limit, whoever asks.
const (
	Decided   Estimate = false
	Estimated Estimate = true
)

// contact is how tiers are contacted first, as far as their customers have it in common.
type contact struct {
	channel       campaign.Channel // empty where it is not the same for all
	planned       string           // see targeting.Intent
	first, latest time.Time
}

// Under holds the selection of a plan's audience to a contact policy, for waves that begin as
// planned after at.
func Under(sel targeting.Selection, campaignID string, plan campaign.Plan, policy targeting.ContactPolicy, at time.Time, how Estimate) targeting.Selection {
	sel.Starts = map[int]targeting.Start{}
	for _, w := range plan.Waves {
		if len(w.Channels) == 0 {
			continue // of a plan that is still being written
		}
		start := targeting.Start{Channel: w.Channels[0], At: at.Add(campaign.Seconds(w.StartAfter)), Preferred: w.Linkage == campaign.LinkagePreferred}
		for _, c := range w.Channels {
			line, _ := plan.ContactLine(c)
			cost, err := line.Cost(campaign.Counts{campaign.DateOf(start.At.UTC()): 1})
			if err != nil {
				cost = math.MaxInt64 // a price that no contact can have is the last to be chosen
			}
			start.Channels = append(start.Channels, targeting.Choice{Channel: c, Cost: cost})
		}
		sel.Starts[w.Number] = start
	}
	// What is about a channel is about those whom it contacts first; where that is not known
	// by the tier alone, it is looked at when they are contacted.
	var channels groups[campaign.Channel]
	var contacts groups[contact]
	for i, t := range sel.Tiers {
		var k contact
		k.channel = sel.Starts[t.Wave].Channel
		for _, w := range append([]targeting.WaveShare{{Wave: t.Wave}}, t.Further...) {
			if start := sel.Starts[w.Wave]; start.Preferred || start.Channel != k.channel {
				k.channel = ""
			}
		}
		k.planned, k.first, k.latest = sel.Planned(i)
		channels.add(k.channel, i+1)
		contacts.add(k, i+1)
	}
	sel.Suppressions, sel.ByTier = nil, nil
	suppress := func(rules []targeting.Suppression, tiers []int) {
		for _, x := range rules {
			if len(tiers) == len(sel.Tiers) {
				sel.Suppressions = append(sel.Suppressions, x)
			} else {
				sel.ByTier = append(sel.ByTier, targeting.TierSuppression{Suppression: x, Tiers: tiers})
			}
		}
	}
	intent := targeting.Intent{CampaignID: campaignID, Tenant: plan.Unit.Tenant(), Type: plan.Type, Simulated: plan.Simulated}
	for i, channel := range channels.keys {
		intent.Channel = channel
		suppress(policy.Barred(intent), channels.tiers[i])
	}
	if how == Estimated || sel.Limit > 0 {
		for i, k := range contacts.keys {
			intent.Channel, intent.At, intent.Planned, intent.Latest = k.channel, k.first, k.planned, k.latest
			suppress(policy.Crowded(intent), contacts.tiers[i])
		}
	}
	if how == Estimated { // a frozen selection finds them as it reads the arms
		sel.ByTier = append(sel.ByTier, everywhere(sel.Control.Unassigned(), len(sel.Tiers))...)
	}
	return sel
}

// everywhere are suppressions of all tiers that are told after all others.
func everywhere(rules []targeting.Suppression, tiers int) (all []targeting.TierSuppression) {
	for _, x := range rules {
		every := targeting.TierSuppression{Suppression: x}
		for i := range tiers {
			every.Tiers = append(every.Tiers, i+1)
		}
		all = append(all, every)
	}
	return all
}

// groups are the numbers of tiers by what they have in common, in the order of the first ones.
type groups[K comparable] struct {
	keys  []K
	tiers [][]int
}

func (g *groups[K]) add(key K, tier int) {
	i := slices.Index(g.keys, key)
	if i < 0 {
		i = len(g.keys)
		g.keys, g.tiers = append(g.keys, key), append(g.tiers, nil)
	}
	g.tiers[i] = append(g.tiers[i], tier)
}

// quiet returns what the quiet hours of a policy do to a plan's first contacts, by tier and
// time zone. Nothing where its clock is not its customers'.
func quiet(sel targeting.Selection, plan campaign.Plan, policy targeting.ContactPolicy) func(tier int, zone string) []targeting.Quiet {
	if plan.Simulated || len(policy.Quiet)+len(policy.Blackouts) == 0 {
		return nil
	}
	const whole = 10_000
	return func(i int, zone string) (all []targeting.Quiet) {
		t := sel.Tiers[i]
		waves := append([]targeting.WaveShare{{Wave: t.Wave, Share: whole}}, t.Further...)
		for _, f := range t.Further {
			waves[0].Share -= f.Share
		}
		for _, w := range waves {
			start := sel.Starts[w.Wave]
			at := slices.IndexFunc(plan.Waves, func(p campaign.WavePlan) bool { return p.Number == w.Wave })
			if at < 0 || start.Channel == "" {
				continue
			}
			planned := plan.Waves[at]
			rule, until := policy.QuietUntil(start.Channel, plan.Type, start.At, policy.Location(zone))
			if rule == "" {
				continue
			}
			window := campaign.Seconds(min(planned.ChannelWindow, plan.Schedule.RunFor-planned.StartAfter))
			all = append(all, targeting.Quiet{Rule: rule, Share: float64(w.Share) / whole, TooLate: !until.Before(start.At.Add(window))})
		}
		return all
	}
}
