package campaign

import (
	"fmt"
	"math/bits"
)

// CreditState is where an amount of prepaid credit stands.
type CreditState string

// The states of prepaid credit.
const (
	CreditRequested  CreditState = "requested"   // applied for: who, for which offer, how many
	CreditApproved   CreditState = "approved"    // on its own approval route
	CreditReserved   CreditState = "reserved"    // held in the pool for one customer's schedule
	CreditGranted    CreditState = "granted"     // in the customer's account, a liability until used
	CreditUsed       CreditState = "used"        // spent by the customer
	CreditExpired    CreditState = "expired"     // refused, released or lapsed before it was used
	CreditClawedBack CreditState = "clawed_back" // taken back from a customer who broke the contract
)

// CreditStates lists every state in the order of a credit's life.
func CreditStates() []CreditState {
	return []CreditState{
		CreditRequested, CreditApproved, CreditReserved, CreditGranted, CreditUsed, CreditExpired, CreditClawedBack,
	}
}

// creditSuccessors holds the legal transitions. A customer who breaks the contract owes
// what was used as well, so used credit may be clawed back.
var creditSuccessors = map[CreditState][]CreditState{
	CreditRequested: {CreditApproved, CreditExpired},
	CreditApproved:  {CreditReserved, CreditExpired},
	CreditReserved:  {CreditGranted, CreditExpired},
	CreditGranted:   {CreditUsed, CreditExpired, CreditClawedBack},
	CreditUsed:      {CreditClawedBack},
}

// CanFollow reports whether credit may pass from state s to next.
func (s CreditState) CanFollow(next CreditState) bool {
	for _, n := range creditSuccessors[s] {
		if n == next {
			return true
		}
	}
	return false
}

// Outstanding reports whether credit in state s may still cost the operator money: it
// is promised to a customer or in the customer's account, and not used.
func (s CreditState) Outstanding() bool { return s == CreditReserved || s == CreditGranted }

// CreditSchedule is the promise of prepaid credit to one customer: First on the anchor
// date, and the rest month by month from a month later, either in equal parts or as a
// share of what the customer used in the month before. Amounts are minor units.
type CreditSchedule struct {
	Total  int64 `json:"total"`
	First  int64 `json:"first,omitempty"`  // of Total, instalment 1, on the anchor date
	Months int   `json:"months,omitempty"` // instalments after the first
	// ShareOfUse grants that many basis points of last month's use, 3500 for 35 %, until
	// Total is reached or Months are over; 0 spreads the rest over the Months.
	ShareOfUse int64 `json:"share_of_use,omitempty"`
	// MinimumSpend is the use without which a month earns nothing. What a month did not
	// earn is not made up for later.
	MinimumSpend int64 `json:"minimum_spend,omitempty"`
}

// Instalment is one grant of a schedule.
type Instalment struct {
	No     int   `json:"no"` // 1 on the anchor date, k+1 k months later
	DueOn  Date  `json:"due_on"`
	Amount int64 `json:"amount"` // minor units, at least 1
}

const (
	maxMonths   = 360
	basisPoints = 10_000
)

// Validate checks s: it returns nil or one Error of CodeInvalidParameter with every
// field at fault.
func (s CreditSchedule) Validate() error {
	v := &planCheck{}
	v.creditSchedule("", s)
	if len(v.fields) == 0 {
		return nil
	}
	return &Error{Code: CodeInvalidParameter, Message: fmt.Sprintf("the credit schedule has %d fault(s)", len(v.fields)), Fields: v.fields}
}

func (v *planCheck) creditSchedule(at string, s CreditSchedule) {
	v.amount(at+"total", s.Total, 1)
	v.amount(at+"first", s.First, 0)
	v.between(at+"months", int64(s.Months), 0, maxMonths)
	v.between(at+"share_of_use", s.ShareOfUse, 0, basisPoints)
	v.amount(at+"minimum_spend", s.MinimumSpend, 0)
	switch {
	case s.First > s.Total:
		v.add(at+"first", CodeAmountOutOfRange, "must not be more than total")
	case s.First < s.Total && s.Months == 0:
		v.add(at+"months", CodeInvalidParameter, "must be 1 at least: first leaves a rest to grant")
	case s.First == s.Total && s.Months > 0:
		v.add(at+"months", CodeInvalidParameter, "must be 0: first leaves no rest to grant")
	}
	if s.Months == 0 && s.ShareOfUse != 0 {
		v.add(at+"share_of_use", CodeInvalidParameter, "needs months to be granted in")
	}
	if s.Months == 0 && s.MinimumSpend != 0 {
		v.add(at+"minimum_spend", CodeInvalidParameter, "needs months to be spent in")
	}
}

// DueOn returns the day on which instalment no is due. Every day is counted from the
// anchor: after 31 January and 28 February comes 31 March.
func (s CreditSchedule) DueOn(anchor Date, no int) Date { return anchor.AddMonths(no - 1) }

// Instalments returns the grants of a schedule that does not depend on use, in order.
// They add up to Total; the monthly ones differ by one minor unit at most, the larger
// first (largest remainder); a month whose part would be nothing has no instalment. It
// returns CodeInvalidParameter for a schedule that Validate refuses, one that follows
// use, and an anchor that is no day.
func (s CreditSchedule) Instalments(anchor Date) ([]Instalment, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if !anchor.Valid() {
		return nil, Errorf(CodeInvalidParameter, "%q is not a date such as 2026-10-01", string(anchor))
	}
	if s.ShareOfUse != 0 {
		return nil, Errorf(CodeInvalidParameter, "the amounts follow each month's use and are not known before")
	}
	var all []Instalment
	for no := 1; no <= s.Months+1; no++ {
		if amount := s.part(no); amount > 0 {
			all = append(all, Instalment{No: no, DueOn: s.DueOn(anchor, no), Amount: amount})
		}
	}
	return all, nil
}

// part returns the amount of instalment no when nothing depends on use.
func (s CreditSchedule) part(no int) int64 {
	if no == 1 {
		return s.First
	}
	rest, months := s.Total-s.First, int64(s.Months)
	part := rest / months
	if int64(no-2) < rest%months {
		part++
	}
	return part
}

// Due returns what instalment no grants after a month in which the customer used
// lastMonthUse, when alreadyGranted was granted before: 0 when the month earned
// nothing, never more than what is left of Total. The first instalment asks for no
// use. A share is rounded down to the minor unit.
func (s CreditSchedule) Due(no int, lastMonthUse, alreadyGranted int64) (int64, error) {
	if err := s.Validate(); err != nil {
		return 0, err
	}
	switch {
	case no < 1 || no > s.Months+1:
		return 0, Errorf(CodeInvalidParameter, "instalment %d: there are 1 to %d", no, s.Months+1)
	case lastMonthUse < 0:
		return 0, Errorf(CodeAmountOutOfRange, "a use of %d: use must not be negative", lastMonthUse)
	case alreadyGranted < 0 || alreadyGranted > s.Total:
		return 0, Errorf(CodeAmountOutOfRange, "%d granted already: must be from 0 to %d", alreadyGranted, s.Total)
	}
	var due int64
	switch {
	case no == 1:
		due = s.First
	case lastMonthUse < s.MinimumSpend:
	case s.ShareOfUse != 0:
		// At most all of the use, so the quotient fits.
		hi, lo := bits.Mul64(uint64(lastMonthUse), uint64(s.ShareOfUse))
		share, _ := bits.Div64(hi, lo, basisPoints)
		due = int64(share)
	default:
		due = s.part(no)
	}
	return min(due, s.Total-alreadyGranted), nil
}
