package audience

import (
	"math"
	"slices"
	"strconv"
	"strings"
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

// A frozen selection leaves caps and gaps to the reservation, which decides them; what only
// counts estimates them.
const (
	Decided   Estimate = false
	Estimated Estimate = true
)

// Under holds the selection of a plan's audience to a contact policy, for waves that begin as
// planned after at.
func Under(sel targeting.Selection, campaignID string, plan campaign.Plan, policy targeting.ContactPolicy, at time.Time, how Estimate) targeting.Selection {
	sel.Starts = map[int]targeting.Start{}
	for _, w := range plan.Waves {
		start := targeting.Start{Channel: w.Channels[0], At: at.Add(campaign.Seconds(w.StartAfter)), Preferred: w.Linkage == campaign.LinkagePreferred}
		for _, c := range w.Channels {
			line, _ := plan.ContactLine(c)
			cost, err := line.Cost(campaign.Counts{campaign.DateOf(at): 1})
			if err != nil {
				cost = math.MaxInt64 // a price that no contact can have is the last to be chosen
			}
			start.Channels = append(start.Channels, targeting.Choice{Channel: c, Cost: cost})
		}
		sel.Starts[w.Number] = start
	}
	// What is about a channel is about those whom it contacts first; where that is not known
	// by the tier alone, it is looked at when they are contacted.
	tiers := map[campaign.Channel][]int{}
	var channels []campaign.Channel
	for i, t := range sel.Tiers {
		channel := sel.Starts[t.Wave].Channel
		for _, w := range append([]targeting.WaveShare{{Wave: t.Wave}}, t.Further...) {
			if start := sel.Starts[w.Wave]; start.Preferred || start.Channel != channel {
				channel = ""
			}
		}
		if !slices.Contains(channels, channel) {
			channels = append(channels, channel)
		}
		tiers[channel] = append(tiers[channel], i+1)
	}
	sel.Suppressions, sel.ByTier = nil, nil
	for _, channel := range channels {
		for _, x := range policy.Suppressions(targeting.Intent{
			CampaignID: campaignID, Tenant: plan.Unit.Tenant(), Type: plan.Type, Channel: channel, At: at, Simulated: plan.Simulated,
		}) {
			switch {
			case how == Decided && (strings.HasPrefix(x.Code, "cap:") || strings.HasPrefix(x.Code, "gap:")):
			case len(channels) == 1:
				sel.Suppressions = append(sel.Suppressions, x)
			default:
				sel.ByTier = append(sel.ByTier, targeting.TierSuppression{Suppression: x, Tiers: tiers[channel]})
			}
		}
	}
	return sel
}
