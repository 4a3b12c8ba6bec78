package evaluation

import (
	"math"
	"slices"
)

// ChannelResult is what one channel did in the waves so far. Only matured contacts count:
// those whose time to answer is over.
type ChannelResult struct {
	Channel     string  `json:"channel"`
	Contacts    int64   `json:"contacts"`
	Reached     int64   `json:"reached"`
	Positive    int64   `json:"positive"`
	Complaints  int64   `json:"complaints"`
	Cost        int64   `json:"cost"`         // minor units
	PlannedRate float64 `json:"planned_rate"` // planned successes per contact, 0 to 1
}

// ChannelShare is one channel's place in the plan for the remaining waves.
type ChannelShare struct {
	Channel string `json:"channel"`
	Share   int    `json:"share"` // basis points of the contacts; 0 throughout where channels follow one another in series
}

// FindingCode names a finding; the reader's language has a sentence for each.
type FindingCode string

// The findings.
const (
	FindingNotContacted FindingCode = "not_contacted"      // nothing was sent through the channel yet
	FindingCollecting   FindingCode = "collecting"         // fewer than 20 successes were to be expected so far: no verdict
	FindingOnPlan       FindingCode = "on_plan"            // nothing is proven against the channel
	FindingUnderPlan    FindingCode = "success_below_plan" // P(success < 0.8 × plan) > 0.9
	FindingLoss         FindingCode = "loss_per_contact"   // P(value of a contact < its cost) > 0.95
	FindingComplaints   FindingCode = "complaints"         // the complaint rate is proven above its limit
	FindingBadCounts    FindingCode = "inconsistent_counts"
)

// Finding is one statement about a channel with the figures it rests on: contacts, reached,
// positive, expected (successes planned for these contacts), performance (posterior mean of
// success ÷ plan), probability_below_plan, net_per_contact and probability_loss, and for
// complaints their count, limit and evidence (natural logarithm of the e-value).
type Finding struct {
	Channel string             `json:"channel"`
	Code    FindingCode        `json:"code"`
	Figures map[string]float64 `json:"figures"`
}

// Action is what is recommended for a channel.
type Action string

// The actions.
const (
	ActionKeep   Action = "keep"
	ActionReduce Action = "reduce" // half the share, and behind the channels that are kept
	ActionDrop   Action = "drop"
)

// MixEntry is one channel of the recommended mix.
type MixEntry struct {
	Channel  string        `json:"channel"`
	Share    int           `json:"share"`    // basis points, recommended
	Previous int           `json:"previous"` // basis points, in the plan
	Action   Action        `json:"action"`
	Reasons  []FindingCode `json:"reasons"`
}

// Decision is what a review recommends for the campaign as a whole.
type Decision string

// The decisions.
const (
	DecisionKeep   Decision = "keep"
	DecisionChange Decision = "change"
	DecisionStop   Decision = "stop" // no channel is left
)

// Recommendation is the outcome of a review, for a person to accept or not.
type Recommendation struct {
	Decision Decision   `json:"decision"`
	Findings []Finding  `json:"findings"`
	Mix      []MixEntry `json:"mix"` // in order of use; dropped channels last
}

// The limits of decision science: mid-course review.
const (
	fewExpected       = 20.0 // successes planned so far; below, no verdict
	underPlan         = 0.8  // of the plan
	underPlanSure     = 0.9
	lossSure          = 0.95
	complaintAlpha    = 0.05
	leastRate         = 1e-6 // planned or tolerated; below, the figures would drown in rounding
	defaultPrior      = 5.0  // prior weight in expected successes, with fewer than four channels
	explorationFloor  = 500  // basis points a live channel keeps
	channelsForMoment = 4
)

// Review compares each channel with the plan and recommends a mix for the remaining waves.
// mix is the current one in order of use; unitBenefit is the worth of a success in minor
// units; complaintLimit is the tolerated share of complaining contacts, 0 for none.
//
// A channel's success ÷ plan is θ, whose posterior is a gamma distribution drawn towards the
// mean of all channels. A proven loss or proven complaints drop a channel; success proven
// below 0.8 × plan halves its share, never under 5 %, and moves it behind the others, when
// another channel can take over. Shares given up go to the kept channels in proportion.
// Nothing changes without proof.
func Review(results []ChannelResult, mix []ChannelShare, unitBenefit int64, complaintLimit float64) Recommendation {
	r := Recommendation{Decision: DecisionKeep, Findings: []Finding{}, Mix: []MixEntry{}}
	prior := priorOf(results)
	reasons := map[string][]FindingCode{}
	for _, c := range results {
		for _, f := range prior.findings(c, unitBenefit, complaintLimit) {
			r.Findings = append(r.Findings, f)
			reasons[c.Channel] = append(reasons[c.Channel], f.Code)
		}
	}
	for _, m := range mix {
		e := MixEntry{Channel: m.Channel, Share: m.Share, Previous: m.Share, Action: ActionKeep, Reasons: reasons[m.Channel]}
		switch {
		case e.Reasons == nil:
			e.Reasons = []FindingCode{FindingNotContacted}
		case slices.Contains(e.Reasons, FindingLoss), slices.Contains(e.Reasons, FindingComplaints):
			e.Action, e.Share = ActionDrop, 0
		case slices.Contains(e.Reasons, FindingUnderPlan):
			e.Action, e.Share = ActionReduce, max(m.Share/2, min(m.Share, explorationFloor))
		}
		r.Mix = append(r.Mix, e)
	}
	if !canTake(r.Mix) {
		for i, e := range r.Mix {
			if e.Action == ActionReduce {
				r.Mix[i].Action, r.Mix[i].Share = ActionKeep, e.Previous
			}
		}
	}
	rank := map[Action]int{ActionKeep: 0, ActionReduce: 1, ActionDrop: 2}
	slices.SortStableFunc(r.Mix, func(a, b MixEntry) int { return rank[a.Action] - rank[b.Action] })
	redistribute(r.Mix)
	for i, e := range r.Mix {
		if e.Share != e.Previous || e.Action == ActionDrop || e.Channel != mix[i].Channel { //nolint:gosec // r.Mix has an entry for each of mix
			r.Decision = DecisionChange
		}
	}
	if len(r.Mix) > 0 && r.Mix[0].Action == ActionDrop {
		r.Decision = DecisionStop
	}
	return r
}

// canTake says whether some kept channel can take over contacts: without one there is
// nothing better to move them to, and reducing a channel would change nothing.
func canTake(mix []MixEntry) bool {
	total := 0
	for _, e := range mix {
		total += e.Previous
	}
	return slices.ContainsFunc(mix, func(e MixEntry) bool {
		return e.Action == ActionKeep && (e.Share > 0 || total == 0)
	})
}

// redistribute gives the shares given up to the kept channels in proportion to their own.
func redistribute(mix []MixEntry) {
	freed, base := 0, 0
	for _, e := range mix {
		freed += e.Previous - e.Share
		if e.Action == ActionKeep {
			base += e.Share
		}
	}
	if base == 0 {
		return
	}
	given, cumulative := 0, 0
	for i, e := range mix {
		if e.Action == ActionKeep {
			cumulative += e.Share
			upTo := freed * cumulative / base
			mix[i].Share += upTo - given
			given = upTo
		}
	}
}

// prior is the gamma distribution of θ over channels: weight a (in expected successes at
// mean), mean θ̄.
type prior struct{ a, mean float64 }

// priorOf estimates the prior from the channels by moments; with fewer than four channels
// its weight is 5.
func priorOf(results []ChannelResult) prior {
	var y, e, e2 float64
	channels := 0
	for _, c := range results {
		if c.expected() <= 0 {
			continue
		}
		channels++
		expected := c.expected()
		y += float64(c.Positive)
		e += expected
		e2 += expected * expected
	}
	p := prior{a: defaultPrior, mean: 1}
	if e == 0 {
		return p
	}
	p.mean = max(y, 0.5) / e
	if channels < channelsForMoment {
		return p
	}
	var excess float64
	for _, c := range results {
		if c.expected() > 0 {
			d := float64(c.Positive) - p.mean*c.expected()
			excess += d*d - p.mean*c.expected()
		}
	}
	p.a = 200
	if excess > 0 {
		p.a = min(max(p.mean*p.mean*e2/excess, 2), 200)
	}
	return p
}

// expected returns the successes planned for the contacts so far.
func (c ChannelResult) expected() float64 {
	if c.PlannedRate < leastRate {
		return 0
	}
	return float64(c.Contacts) * c.PlannedRate
}

// posterior returns the mean of θ after y successes where e were expected, and the
// probability that θ is below a bound.
func (p prior) posterior(y, e float64) (mean float64, below func(bound float64) float64) {
	shape, rate := p.a+y, p.a/p.mean+e
	return shape / rate, func(bound float64) float64 {
		lower, _ := gammaP(shape, rate*bound)
		return lower
	}
}

func (p prior) findings(c ChannelResult, unitBenefit int64, complaintLimit float64) []Finding {
	figures := map[string]float64{
		"contacts": float64(c.Contacts), "reached": float64(c.Reached), "positive": float64(c.Positive),
	}
	one := func(code FindingCode) []Finding { return []Finding{{c.Channel, code, figures}} }
	switch {
	case c.Contacts < 0 || c.Positive < 0 || c.Complaints < 0 || c.Cost < 0 || c.Positive > c.Contacts ||
		c.Complaints > c.Contacts || !(c.PlannedRate >= 0 && c.PlannedRate <= 1):
		return one(FindingBadCounts)
	case c.Contacts == 0:
		return one(FindingNotContacted)
	}
	contacts, expected := float64(c.Contacts), c.expected()
	cost, benefit := float64(c.Cost)/contacts, float64(unitBenefit)
	mean, below := p.posterior(float64(c.Positive), expected)
	// A contact loses money when θ × planned rate × benefit < cost.
	loss := 0.0
	if cost > 0 {
		loss = 1
		if worth := c.PlannedRate * benefit; worth > 0 {
			loss = below(cost / worth)
		}
	}
	figures["expected"] = expected
	figures["performance"] = mean
	figures["probability_below_plan"] = below(underPlan)
	figures["net_per_contact"] = mean*c.PlannedRate*benefit - cost
	figures["probability_loss"] = loss

	var found []Finding
	if complaintLimit > 0 && complaintLimit < 1 {
		evidence := ExcessEvidence(c.Complaints, c.Contacts, max(complaintLimit, leastRate))
		if evidence >= -math.Log(complaintAlpha) {
			found = append(found, Finding{c.Channel, FindingComplaints, map[string]float64{
				"contacts": contacts, "complaints": float64(c.Complaints), "limit": complaintLimit, "evidence": evidence,
			}})
		}
	}
	if expected < fewExpected {
		return append(found, one(FindingCollecting)...)
	}
	if loss > lossSure {
		found = append(found, one(FindingLoss)...)
	}
	if figures["probability_below_plan"] > underPlanSure {
		found = append(found, one(FindingUnderPlan)...)
	}
	if len(found) == 0 {
		return one(FindingOnPlan)
	}
	return found
}

// ExcessEvidence returns the natural logarithm of the e-value against "the rate of events is
// at most limit" after events in trials, 0 < limit < 1 (decision science: guardrails). It may
// be looked at any number of times: under a rate within the limit it ever reaches ln(1/α)
// with probability at most α.
func ExcessEvidence(events, trials int64, limit float64) float64 {
	s, f := float64(events), float64(trials-events)
	a, b := 1.0, 1/limit-1
	return logBeta(a+s, b+f) - logBeta(a, b) + logBetaTail(a+s, b+f, limit) - logBetaTail(a, b, limit) -
		s*math.Log(limit) - f*math.Log1p(-limit)
}
