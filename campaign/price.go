package campaign

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
)

// CountUnit is what a price is asked for.
type CountUnit string

// The units of count.
const (
	UnitMessage    CountUnit = "message"
	UnitPart       CountUnit = "part" // a long SMS goes out in several
	UnitAttempt    CountUnit = "attempt"
	UnitMinute     CountUnit = "minute" // of a call, begun minutes counted
	UnitOrder      CountUnit = "order"
	UnitActivation CountUnit = "activation"
)

// PriceKind says how a price grows with the count.
type PriceKind string

// The kinds of price.
const (
	PriceLinear  PriceKind = "linear"  // UnitCost for each unit
	PriceStepped PriceKind = "stepped" // UnitCost for the first units, then each step's own
	PriceFlat    PriceKind = "flat"    // Flat once, with the first unit, whatever the count
)

// PriceStep is the cost of the units that come after the first Above of them.
type PriceStep struct {
	Above    int64 `json:"above"`
	UnitCost int64 `json:"unit_cost"` // minor units
}

// Price is what units cost on the days from From until Until. Steps are marginal: units
// below a step keep their cost when the count passes it. Units are counted for each
// price on its own, so that what a line cost in all depends on how many units each
// price had, not on the order in which their reports came in.
type Price struct {
	From     Date        `json:"from,omitempty"`  // first day; ever before when empty
	Until    Date        `json:"until,omitempty"` // last day; ever after when empty
	Kind     PriceKind   `json:"kind"`
	UnitCost int64       `json:"unit_cost,omitempty"` // minor units; linear and stepped
	Steps    []PriceStep `json:"steps,omitempty"`     // stepped, in order
	Flat     int64       `json:"flat,omitempty"`      // minor units; flat
}

// PriceList holds the prices of one unit of count in the order of their days, which do
// not overlap.
type PriceList []Price

const (
	maxPrices = 12
	maxSteps  = 10
	// maxDivisions bounds the exact work of PriceList.Largest.
	maxDivisions = 256
)

// Cost returns what n more units cost when counted units of this price came before, in
// minor units, or CodeAmountOutOfRange on overflow and on a negative count.
func (p Price) Cost(counted, n int64) (int64, error) {
	if counted < 0 || n < 0 {
		return 0, Errorf(CodeAmountOutOfRange, "%d after %d: counts must not be negative", n, counted)
	}
	until, err := AddMinor(counted, n)
	if err != nil {
		return 0, err
	}
	switch p.Kind {
	case PriceFlat:
		if counted > 0 || n == 0 {
			return 0, nil
		}
		return p.Flat, nil
	case PriceStepped:
		return p.steppedCost(counted, until)
	}
	return MulMinor(p.UnitCost, n)
}

// steppedCost adds up the cost of the units after the first from, up to until.
func (p Price) steppedCost(from, until int64) (int64, error) {
	var sum int64
	unit := p.UnitCost
	for i := 0; from < until; i++ {
		end := until
		if i < len(p.Steps) {
			end = min(until, p.Steps[i].Above)
		}
		if end > from {
			cost, err := MulMinor(unit, end-from)
			if err != nil {
				return 0, err
			}
			if sum, err = AddMinor(sum, cost); err != nil {
				return 0, err
			}
			from = end
		}
		if i < len(p.Steps) {
			unit = p.Steps[i].UnitCost
		}
	}
	return sum, nil
}

// On returns the price of a day, or CodeInvalidParameter when there is none.
func (l PriceList) On(day Date) (Price, error) {
	i := l.index(day)
	if i < 0 {
		return Price{}, noPrice(day)
	}
	return l[i], nil
}

// index returns the place of the price of a day, or -1.
func (l PriceList) index(day Date) int {
	return slices.IndexFunc(l, func(p Price) bool { return p.From <= day && (p.Until == "" || day <= p.Until) })
}

func noPrice(day Date) error { return Errorf(CodeInvalidParameter, "there is no price for %s", day) }

// Covers returns nil, or CodeInvalidParameter with the first day from from until until
// that has no price.
func (l PriceList) Covers(from, until Date) error {
	if !from.Valid() || !until.Valid() || until < from {
		return Errorf(CodeInvalidParameter, "%s to %s is not a period", from, until)
	}
	for day := from; day <= until; {
		p, err := l.On(day)
		if err != nil {
			return err
		}
		if p.Until == "" {
			break
		}
		day = p.Until.AddDays(1)
	}
	return nil
}

// Largest returns the most that n units or fewer can cost on the days from from until
// until, on whichever days they come: what must be reserved for them. It is exact but
// for long lists of steps up and down, and never too low. It returns
// CodeInvalidParameter when a day has no price, CodeAmountOutOfRange on overflow.
func (l PriceList) Largest(from, until Date, n int64) (int64, error) {
	if err := l.Covers(from, until); err != nil {
		return 0, err
	}
	if n < 0 {
		return 0, Errorf(CodeAmountOutOfRange, "%d: counts must not be negative", n)
	}
	var prices PriceList
	for _, p := range l {
		if p.From <= until && (p.Until == "" || from <= p.Until) {
			prices = append(prices, p)
		}
	}
	// No unit makes the whole cheaper, so all n are used. Between two kinks a cost is a
	// straight line: of two prices off their kinks, moving units to the one that costs
	// more loses nothing. So in some dearest division all prices but one are at a kink.
	var most int64
	for i, rest := range prices {
		divisions := []division{{}}
		for j, p := range prices {
			if j == i {
				continue
			}
			var err error
			if divisions, err = extend(divisions, p, n); err != nil {
				return 0, err
			}
			if len(divisions) > maxDivisions {
				return prices.concaveLargest(n)
			}
		}
		for _, d := range divisions {
			cost, err := rest.Cost(0, n-d.units)
			if err != nil {
				return 0, err
			}
			if cost, err = AddMinor(cost, d.cost); err != nil {
				return 0, err
			}
			most = max(most, cost)
		}
	}
	return most, nil
}

// division is a number of units and what they cost.
type division struct{ units, cost int64 }

// extend returns the divisions of at most n units with price p at each of its kinks,
// without those that another beats with fewer units at a higher cost.
func extend(divisions []division, p Price, n int64) ([]division, error) {
	kinks, err := p.kinks(n)
	if err != nil {
		return nil, err
	}
	var all []division
	for _, d := range divisions {
		for _, k := range kinks {
			if k.units > n-d.units {
				continue
			}
			cost, err := AddMinor(d.cost, k.cost)
			if err != nil {
				return nil, err
			}
			all = append(all, division{d.units + k.units, cost})
		}
	}
	slices.SortFunc(all, func(a, b division) int { return cmp.Or(cmp.Compare(a.units, b.units), cmp.Compare(b.cost, a.cost)) })
	best := all[:1]
	for _, d := range all[1:] {
		if d.cost > best[len(best)-1].cost {
			best = append(best, d)
		}
	}
	return best, nil
}

// concaveLargest returns what n units cost at most when each price is replaced by the
// least concave one above it. It exceeds the exact figure by less than one price's
// distance from its own, and takes hardly any time.
func (l PriceList) concaveLargest(n int64) (int64, error) {
	var pieces []division
	for _, p := range l {
		points, err := p.kinks(n)
		if err != nil {
			return 0, err
		}
		whole, err := p.Cost(0, n)
		if err != nil {
			return 0, err
		}
		var hull []division // from one corner to the next, ever less steep
		at := division{}
		for _, end := range append(points[1:], division{n, whole}) {
			piece := division{end.units - at.units, end.cost - at.cost}
			at = end
			if piece.units == 0 {
				continue
			}
			for len(hull) > 0 && steeper(piece, hull[len(hull)-1]) > 0 {
				piece.units += hull[len(hull)-1].units
				piece.cost += hull[len(hull)-1].cost
				hull = hull[:len(hull)-1]
			}
			hull = append(hull, piece)
		}
		pieces = append(pieces, hull...)
	}
	slices.SortStableFunc(pieces, func(a, b division) int { return steeper(b, a) })
	var sum int64
	for _, piece := range pieces {
		cost := piece.cost
		if n < piece.units {
			// Less than all of it, so the quotient fits. What is rounded off is no whole unit of
			// money, and the figure it must not undercut is whole.
			hi, lo := bits.Mul64(uint64(piece.cost), uint64(n))
			part, _ := bits.Div64(hi, lo, uint64(piece.units))
			cost = int64(part)
		}
		var err error
		if sum, err = AddMinor(sum, cost); err != nil {
			return 0, err
		}
		if n -= min(n, piece.units); n == 0 {
			break
		}
	}
	return sum, nil
}

// steeper compares the cost of one unit of a with that of b.
func steeper(a, b division) int {
	aHi, aLo := bits.Mul64(uint64(a.cost), uint64(b.units))
	bHi, bLo := bits.Mul64(uint64(b.cost), uint64(a.units))
	return cmp.Or(cmp.Compare(aHi, bHi), cmp.Compare(aLo, bLo))
}

// kinks lists the counts up to n at which the cost of one more unit changes, with what
// so many cost; the first is none at all.
func (p Price) kinks(n int64) ([]division, error) {
	kinks := []division{{}}
	if p.Kind == PriceFlat && n > 0 {
		kinks = append(kinks, division{1, p.Flat})
	}
	if p.Kind == PriceStepped {
		for _, s := range p.Steps {
			if s.Above > n {
				break
			}
			cost, err := p.Cost(0, s.Above)
			if err != nil {
				return nil, err
			}
			kinks = append(kinks, division{s.Above, cost})
		}
	}
	return kinks, nil
}

// Validate checks l: it returns nil or one Error of CodeInvalidParameter with every
// field at fault. Whether a campaign's days all have a price is for Covers to say.
func (l PriceList) Validate() error {
	v := &planCheck{}
	v.prices("prices", l)
	if len(v.fields) == 0 {
		return nil
	}
	return &Error{Code: CodeInvalidParameter, Message: fmt.Sprintf("the prices have %d fault(s)", len(v.fields)), Fields: v.fields}
}

func (v *planCheck) prices(field string, l PriceList) {
	if len(l) == 0 || len(l) > maxPrices {
		v.add(field, CodeInvalidParameter, fmt.Sprintf("must have 1 to %d prices", maxPrices))
	}
	for i, p := range l {
		at := fmt.Sprintf("%s[%d].", field, i)
		v.price(at, p)
		if p.From != "" && !p.From.Valid() {
			v.add(at+"from", CodeInvalidParameter, "must be a date such as 2026-10-01")
		}
		if p.Until != "" && !p.Until.Valid() {
			v.add(at+"until", CodeInvalidParameter, "must be a date such as 2026-10-01")
		}
		if p.Until != "" && p.Until < p.From {
			v.add(at+"until", CodeInvalidParameter, "must not be before from")
		}
		if i == 0 {
			continue
		}
		switch before := l[i-1].Until; {
		case before == "":
			v.add(at+"from", CodeInvalidParameter, "overlaps the price above, which has no last day")
		case p.From == "":
			v.add(at+"from", CodeInvalidParameter, "must be given: only the first price may have no first day")
		case p.From <= before:
			v.add(at+"from", CodeInvalidParameter, fmt.Sprintf("overlaps the price above, which is valid until %s", before))
		}
	}
}

// everyDay makes sure that there is a price whenever the campaign runs: a plan has no dates
// of its own.
func (v *planCheck) everyDay(field string, l PriceList) {
	if len(l) == 0 {
		return
	}
	if l[0].From != "" {
		v.add(field+"[0].from", CodeInvalidParameter, "must be left out of the first price: a plan may run on any day, so each day needs a price")
	}
	if last := len(l) - 1; l[last].Until != "" {
		v.add(fmt.Sprintf("%s[%d].until", field, last), CodeInvalidParameter, "must be left out of the last price: a plan may run on any day, so each day needs a price")
	}
	for i, p := range l[1:] {
		if next := l[i].Until.AddDays(1); next != "" && p.From > next {
			v.add(fmt.Sprintf("%s[%d].from", field, i+1), CodeInvalidParameter, fmt.Sprintf("must be %s: the days before have no price", next))
		}
	}
}

func (v *planCheck) price(at string, p Price) {
	oneOf(v, at+"kind", p.Kind, []PriceKind{PriceLinear, PriceStepped, PriceFlat})
	if p.Kind == PriceFlat {
		v.amount(at+"flat", p.Flat, 1)
	} else if p.Flat != 0 {
		v.add(at+"flat", CodeInvalidParameter, "belongs to flat prices only")
	}
	if len(p.Steps) > 0 && p.Kind != PriceStepped {
		v.add(at+"steps", CodeInvalidParameter, "belong to stepped prices only")
	}
	switch p.Kind {
	case PriceLinear:
		v.amount(at+"unit_cost", p.UnitCost, 1)
	case PriceFlat:
		if p.UnitCost != 0 {
			v.add(at+"unit_cost", CodeInvalidParameter, "a flat price has no unit cost")
		}
	case PriceStepped:
		v.steps(at, p)
	}
}

func (v *planCheck) steps(at string, p Price) {
	if len(p.Steps) == 0 || len(p.Steps) > maxSteps {
		v.add(at+"steps", CodeInvalidParameter, fmt.Sprintf("must have 1 to %d steps", maxSteps))
	}
	// The first units may be free of charge, but not all of them.
	v.amount(at+"unit_cost", p.UnitCost, 0)
	free := p.UnitCost == 0
	var last int64
	for i, s := range p.Steps {
		step := fmt.Sprintf("%ssteps[%d].", at, i)
		if s.Above <= last {
			v.add(step+"above", CodeInvalidParameter, fmt.Sprintf("must be more than %d: steps come in order", last))
		}
		last = s.Above
		v.amount(step+"unit_cost", s.UnitCost, 0)
		free = free && s.UnitCost == 0
	}
	if free {
		v.add(at+"unit_cost", CodeAmountOutOfRange, "is 0 and so is that of every step")
	}
}
