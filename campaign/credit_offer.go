package campaign

import (
	"fmt"
	"time"
)

// CreditOffer is the application for prepaid credit that a budget line makes: who gets it
// is the audience, for which offer is the plan's, and here is how many, how much and from
// which pool.
type CreditOffer struct {
	PoolID    string         `json:"pool_id"`   // UUID
	Schedule  CreditSchedule `json:"schedule"`  // for each customer
	Customers int64          `json:"customers"` // at most; whoever is first
	// ValidDays is how long granted credit can be used; 0 means for ever.
	ValidDays int64 `json:"valid_days,omitempty"`
	// MonthSeconds is the length of a month in a demonstration, and a thirtieth of it that
	// of a day; 0 means months and days of the calendar, in UTC.
	MonthSeconds int64 `json:"month_seconds,omitempty"`
}

const (
	maxValidDays    = 3660
	maxMonthSeconds = 31 * 24 * 3600
	daysOfMonth     = 30 // in a demonstration
)

// Most returns what the offer costs at most, in minor units, or CodeAmountOutOfRange.
func (o CreditOffer) Most() (int64, error) { return MulMinor(o.Schedule.Total, o.Customers) }

// Alike reports whether both promise the same to each customer and from the same pool.
func (o CreditOffer) Alike(other CreditOffer) bool {
	o.Customers = other.Customers
	return o == other
}

// DueAt returns when instalment no is due to a customer whose anchor is that moment: the
// first at once, the others when their day begins.
func (o CreditOffer) DueAt(anchor time.Time, no int) time.Time {
	switch {
	case no <= 1:
		return anchor
	case o.MonthSeconds > 0:
		return anchor.Add(time.Duration(no-1) * Seconds(o.MonthSeconds))
	}
	day, _ := o.Schedule.DueOn(DateOf(anchor.UTC()), no).midnight()
	return day
}

// DecidedBy returns when instalment no is decided at the latest. A month whose use nobody
// has reported by the time the next instalment is due counts as one without use.
func (o CreditOffer) DecidedBy(anchor time.Time, no int) time.Time {
	if no > 1 && o.Schedule.FollowsUse() {
		no++
	}
	return o.DueAt(anchor, no)
}

// ExpiresAt returns when credit that is granted at that moment lapses; zero for never.
func (o CreditOffer) ExpiresAt(granted time.Time) time.Time {
	switch {
	case o.ValidDays == 0:
		return time.Time{}
	case o.MonthSeconds > 0:
		return granted.Add(time.Duration(o.ValidDays) * Seconds(o.MonthSeconds) / daysOfMonth)
	}
	return granted.Add(time.Duration(o.ValidDays) * 24 * time.Hour)
}

// Pulse is how often it is worth to look for what may come at any moment: new customers,
// and the use of a month.
func (o CreditOffer) Pulse() time.Duration {
	if o.MonthSeconds > 0 {
		return min(max(Seconds(o.MonthSeconds)/daysOfMonth, time.Second), time.Hour)
	}
	return time.Hour
}

// FollowsUse reports whether what a month grants depends on the use of the month before.
func (s CreditSchedule) FollowsUse() bool { return s.ShareOfUse != 0 || s.MinimumSpend != 0 }

// Last is the number of the last instalment.
func (s CreditSchedule) Last() int { return s.Months + 1 }

// Rest returns the most that instalment next and those after it may still grant, when
// granted was granted before: what must stay held.
func (s CreditSchedule) Rest(next int, granted int64) int64 {
	if next > s.Last() {
		return 0
	}
	if s.ShareOfUse != 0 {
		return s.Total - granted
	}
	var rest int64
	for no := max(next, 1); no <= s.Last(); no++ {
		rest += s.part(no)
	}
	return min(rest, s.Total-granted)
}

// CreditAmounts says what became of the prepaid credit that was promised to one customer,
// or to all of a line, in minor units.
type CreditAmounts struct {
	Promised   int64 `json:"promised"` // may still be granted
	Granted    int64 `json:"granted"`
	Used       int64 `json:"used"`
	Expired    int64 `json:"expired"`
	ClawedBack int64 `json:"clawed_back"`
}

// Outstanding is what is in the customer's account: granted, and not used, lapsed or taken
// back.
func (a CreditAmounts) Outstanding() int64 { return a.Granted - a.Used - a.Expired - a.ClawedBack }

// State names where a customer's credit stands as a whole; clawedBack says that the
// contract was broken, which takes back what is there and promises nothing more.
func (a CreditAmounts) State(clawedBack bool) CreditState {
	switch {
	case clawedBack && a.Granted > 0:
		return CreditClawedBack
	case a.Granted == 0 && a.Promised > 0:
		return CreditReserved
	case a.Promised > 0 || a.Outstanding() > 0:
		return CreditGranted
	case a.Used > 0:
		return CreditUsed
	}
	return CreditExpired
}

// CreditFigures is where the prepaid credit of a budget line stands. Amounts are minor
// units of Currency.
type CreditFigures struct {
	Line      string `json:"line"`
	PoolID    string `json:"pool_id"`
	Currency  string `json:"currency"`
	Customers int64  `json:"customers"` // who have been promised credit
	Most      int64  `json:"most"`      // customers that the plan allows
	Reserved  int64  `json:"reserved"`  // held in the pool and not granted yet
	CreditAmounts
	Outstanding int64 `json:"outstanding"` // the liability
	Owed        int64 `json:"owed"`        // used by customers from whom credit was clawed back
}

// CreditStep is prepaid credit of a budget line that goes on to a state.
type CreditStep struct {
	Key        string // of the ledger, new for each step
	CampaignID string
	Line       string
	To         CreditState
	Money      Money
}

// CreditInput starts the release of a campaign's prepaid credit.
type CreditInput struct {
	CampaignID string `json:"campaign_id"`
}

// CreditReleased is what one turn of the release came to.
type CreditReleased struct {
	Customers   int64 `json:"customers"`   // who were promised credit
	Instalments int64 `json:"instalments"` // decided
	Granted     int64 `json:"granted"`     // minor units
	Expired     int64 `json:"expired"`     // minor units
	// Wait is when to look again, in whole seconds from now; 0 when nothing is left to come.
	Wait int64 `json:"wait_seconds"`
}

// PaysCredit reports whether a line of the plan gives prepaid credit.
func (p *Plan) PaysCredit() bool {
	for _, l := range p.Budget {
		if l.Credit != nil {
			return true
		}
	}
	return false
}

// CreditOutcome returns the outcome by which a customer earns the credit of a line.
func (p *Plan) CreditOutcome(l BudgetLine) OutcomeKind {
	if l.Driver == DriverPerActivation {
		return OutcomeActivated
	}
	return p.Goal.Outcome
}

// credit checks a line's application for prepaid credit.
func (v *planCheck) credit(at string, l BudgetLine, simulated bool) {
	if l.UnitCost != 0 {
		v.add(at+"unit_cost", CodeInvalidParameter, "prepaid credit has no unit cost: its schedule says what a customer gets")
	}
	if len(l.Prices) > 0 {
		v.add(at+"prices", CodeInvalidParameter, "prepaid credit has no prices: its schedule says what a customer gets")
	}
	if l.Driver != DriverPerOrder && l.Driver != DriverPerActivation {
		v.fields = append(v.fields, FieldError{
			Field: at + "driver", Code: CodeInvalidParameter, Allowed: []any{string(DriverPerOrder), string(DriverPerActivation)},
			Message: "prepaid credit goes to customers who order or activate",
		})
	} else if allowed := l.units(); l.CountedUnit() != allowed[0] {
		oneOf(v, at+"unit", l.CountedUnit(), allowed)
	}
	line, at := at, at+"credit."
	if l.Credit == nil {
		v.add(line+"credit", CodeInvalidPlan, "prepaid credit needs the pool, the schedule and the number of customers that it is applied for")
		return
	}
	o := *l.Credit
	if !uuidShaped(o.PoolID) {
		v.add(at+"pool_id", CodeInvalidParameter, "must be the id of a pool of prepaid credit")
	}
	v.creditSchedule(at+"schedule.", o.Schedule)
	v.between(at+"customers", o.Customers, 1, maxAmount)
	v.between(at+"valid_days", o.ValidDays, 0, maxValidDays)
	v.between(at+"month_seconds", o.MonthSeconds, 0, maxMonthSeconds)
	if o.MonthSeconds != 0 && !simulated {
		v.add(at+"month_seconds", CodeInvalidParameter, "is for simulated plans; real months are those of the calendar")
	}
	if most, err := o.Most(); err != nil || most != l.Amount {
		message := "must be customers × schedule.total"
		if err == nil && most >= 1 && most <= maxAmount {
			message = fmt.Sprintf("%s, which is %d", message, most)
		}
		v.add(line+"amount", CodeInvalidParameter, message)
	}
}

func uuidShaped(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, r := range []byte(s) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		hex := r >= '0' && r <= '9' || r >= 'a' && r <= 'f'
		if dash != (r == '-') || !dash && !hex {
			return false
		}
	}
	return true
}
