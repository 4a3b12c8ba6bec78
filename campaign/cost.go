package campaign

import "slices"

// Counts says how many units each day had. Days are those of UTC.
type Counts map[Date]int64

// Plus returns the sum of both, day by day.
func (c Counts) Plus(o Counts) Counts {
	sum := Counts{}
	for _, part := range []Counts{c, o} {
		for day, n := range part {
			sum[day] += n
		}
	}
	return sum
}

// maxRoom bounds the room of a line whose further units cost nothing.
const maxRoom = int64(1) << 40

// CountedUnit is the unit that the line's price is for: the one it names, or else its
// driver's usual one. A fixed line has none.
func (l BudgetLine) CountedUnit() CountUnit {
	if l.Unit != "" {
		return l.Unit
	}
	if allowed := l.units(); len(allowed) > 0 {
		return allowed[0]
	}
	return ""
}

// units lists what the line may count, the usual one first.
func (l BudgetLine) units() []CountUnit {
	switch l.Driver {
	case DriverPerContact:
		switch l.Channel {
		case ChannelSMS:
			return []CountUnit{UnitPart, UnitMessage}
		case ChannelCall:
			return []CountUnit{UnitAttempt, UnitMinute}
		}
	case DriverPerOrder:
		return []CountUnit{UnitOrder}
	case DriverPerActivation:
		return []CountUnit{UnitActivation}
	}
	return nil
}

// UnitsPerContact is how many units one contact takes at most, when its message goes
// out in so many parts.
func (l BudgetLine) UnitsPerContact(c ChannelPlan, parts int) int64 {
	switch l.CountedUnit() {
	case UnitPart:
		return int64(max(parts, 1))
	case UnitMinute:
		return int64(max(c.MaximumMinutes, 1))
	}
	return 1
}

// PriceList returns the line's prices; a unit cost is short for one that always holds.
func (l BudgetLine) PriceList() PriceList {
	if len(l.Prices) > 0 {
		return l.Prices
	}
	return PriceList{{Kind: PriceLinear, UnitCost: l.UnitCost}}
}

// Cost returns what the units that happened cost in all, in minor units; a fixed line
// costs its whole amount. It fails with CodeAmountOutOfRange on overflow.
func (l BudgetLine) Cost(happened Counts) (int64, error) {
	if l.Driver == DriverFixed {
		return l.Amount, nil
	}
	cost, _, err := l.PriceList().spend(happened)
	return cost, err
}

// Most returns what the line costs at most, in minor units, when open more units may come on
// the days from from until until after those that happened.
func (l BudgetLine) Most(happened Counts, open int64, from, until Date) (int64, error) {
	cost, further, err := l.PriceList().spend(happened)
	if err != nil {
		return 0, err
	}
	most, err := further.Largest(from, max(from, until), open)
	if err != nil {
		return 0, err
	}
	return AddMinor(cost, most)
}

// Room returns how many more units the line's amount pays for, on whichever of the days
// from from until until they come, when open others may come on those days as well.
func (l BudgetLine) Room(happened Counts, open int64, from, until Date) (int64, error) {
	fits := func(n int64) (bool, error) {
		most, err := l.Most(happened, open+n, from, until)
		if CodeOf(err) == CodeAmountOutOfRange {
			return false, nil
		}
		return err == nil && most <= l.Amount, err
	}
	room, beyond := int64(0), maxRoom
	for room+1 < beyond {
		middle := room + (beyond-room)/2
		ok, err := fits(middle)
		if err != nil {
			return 0, err
		}
		if ok {
			room = middle
		} else {
			beyond = middle
		}
	}
	return room, nil
}

// spend returns what counts cost, and the prices of the units that come after them.
func (l PriceList) spend(counts Counts) (cost int64, further PriceList, err error) {
	counted := make([]int64, len(l))
	for day, n := range counts {
		i := l.index(day)
		if i < 0 {
			return 0, nil, noPrice(day)
		}
		if counted[i], err = AddMinor(counted[i], n); err != nil {
			return 0, nil, err
		}
	}
	further = slices.Clone(l)
	for i, p := range l {
		part, err := p.Cost(0, counted[i])
		if err != nil {
			return 0, nil, err
		}
		if cost, err = AddMinor(cost, part); err != nil {
			return 0, nil, err
		}
		further[i] = p.after(counted[i])
	}
	return cost, further, nil
}

// after returns the price of the units that come after the first counted ones.
func (p Price) after(counted int64) Price {
	if counted <= 0 {
		return p
	}
	rest := Price{From: p.From, Until: p.Until, Kind: PriceLinear, UnitCost: p.UnitCost}
	switch p.Kind {
	case PriceFlat:
		rest.UnitCost = 0
	case PriceStepped:
		for _, s := range p.Steps {
			if s.Above <= counted {
				rest.UnitCost = s.UnitCost
			} else {
				rest.Kind, rest.Steps = PriceStepped, append(rest.Steps, PriceStep{Above: s.Above - counted, UnitCost: s.UnitCost})
			}
		}
	}
	return rest
}

// neverDearer reports whether l provably costs no more than other, whatever is counted on
// whichever days: prices of the same days and kinds, none of whose amounts is higher.
func (l PriceList) neverDearer(other PriceList) bool {
	return slices.EqualFunc(l, other, func(p, o Price) bool {
		return p.From == o.From && p.Until == o.Until && p.Kind == o.Kind && p.UnitCost <= o.UnitCost && p.Flat <= o.Flat &&
			slices.EqualFunc(p.Steps, o.Steps, func(s, t PriceStep) bool { return s.Above == t.Above && s.UnitCost <= t.UnitCost })
	})
}

// paysNoMore reports whether l provably pays for no more units than other, whose prices are
// neverDearer: its amount falls at least as steeply as the price that falls most.
func (l BudgetLine) paysNoMore(other BudgetLine) bool {
	amount := division{units: other.Amount, cost: l.Amount}
	within := func(price, was int64) bool { return steeper(amount, division{units: was, cost: price}) <= 0 }
	return slices.EqualFunc(l.PriceList(), other.PriceList(), func(p, o Price) bool {
		return within(p.UnitCost, o.UnitCost) && within(p.Flat, o.Flat) &&
			slices.EqualFunc(p.Steps, o.Steps, func(s, t PriceStep) bool { return within(s.UnitCost, t.UnitCost) })
	})
}
