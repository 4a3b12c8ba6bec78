package campaign

import "slices"

// LineEstimate is what a budget line would cost at a given audience.
type LineEstimate struct {
	Line     string
	Category Category
	Units    int64 // of what the line counts; 0 for a fixed line
	Cost     int64 // minor units
	Amount   int64 // the line's ceiling, minor units
}

// EstimateCost returns what each budget line would cost if so many customers of each tier were
// contacted, all from the day on which the campaign begins. parts tells in how many parts a
// channel's message goes out.
//
// Every customer of a wave is counted in each of its channels, as if none were reached by the
// one before: what is contacted costs at most this much. Successes are expected as the plan
// says: each customer's by the wave's channel with the best rate. A follow-up wave depends on
// outcomes and is left out. It fails with CodeAmountOutOfRange on overflow.
func (p *Plan) EstimateCost(treated map[Tier]int64, begin Date, parts func(ChannelPlan) int) ([]LineEstimate, error) {
	contacts := map[Channel]int64{}
	var successes float64
	for _, w := range p.Waves {
		if w.FollowUp != nil {
			continue
		}
		var people int64
		for _, t := range w.Tiers {
			n := treated[t]
			if w.Share > 0 {
				n = int64(float64(n) * w.Share / 100)
			}
			people += n
		}
		best := 0.0
		for _, c := range w.Channels {
			contacts[c] += people
			if cp, ok := p.Channel(c); ok {
				best = max(best, cp.SuccessRate)
			}
		}
		successes += float64(people) * best
	}
	all := make([]LineEstimate, len(p.Budget))
	for i, l := range p.Budget {
		e := LineEstimate{Line: l.Line, Category: l.Category, Amount: l.Amount}
		switch l.Driver {
		case DriverFixed:
		case DriverPerContact:
			cp, _ := p.Channel(l.Channel)
			e.Units = contacts[l.Channel] * l.UnitsPerContact(cp, parts(cp))
		default:
			e.Units = int64(successes + 0.5)
		}
		var err error
		if e.Cost, err = l.Cost(Counts{begin: e.Units}); err != nil {
			return nil, err
		}
		if l.Driver != DriverFixed && l.Credit != nil {
			e.Cost = min(e.Cost, l.Amount)
		}
		all[i] = e
	}
	return all, nil
}

// Reached lists the channels in which a plan contacts customers, in the order of its waves.
func (p *Plan) Reached() (channels []Channel) {
	for _, w := range p.Waves {
		for _, c := range w.Channels {
			if !slices.Contains(channels, c) {
				channels = append(channels, c)
			}
		}
	}
	return channels
}
