package dataset

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bank is the UCI Bank Marketing data: people whom a Portuguese bank's call
// centre really called between May 2008 and November 2010, in the order of
// time. The first 80 % of the rows are history, the last 20 % the population of
// a campaign that is still to come.
//
// What the recorded campaign found out (the call's duration, whether the
// person subscribed) is kept apart from the customers, as Recorded.
type Bank struct {
	records []Recorded
	values  []any // len(bankAttributes) a row
	split   int   // rows of history
}

// The channel and the outcomes of the recorded contacts.
const (
	ChannelCall     = "call"
	OutcomeOrdered  = "ordered"   // subscribed the term deposit
	OutcomeDeclined = "declined"  // was reached and did not subscribe
	OutcomeNoAnswer = "no_answer" // the contact did not conclude
)

// Recorded is what the bank's own campaign recorded of one person.
type Recorded struct {
	ExternalID string
	// Attempts is how many contacts it took, the concluding one included.
	Attempts        int
	DurationSeconds int // of the concluding call
	Subscribed      bool
	// CalledOn is the day of the concluding call at 0:00 UTC. The file gives
	// month and weekday only; year and day follow from the order of the rows,
	// so two calls on the same weekday of neighbouring weeks may be merged
	// into one day.
	CalledOn time.Time
}

// Call is the result of one attempt to call.
type Call struct {
	Outcome         string
	DurationSeconds int
}

// Attempt returns how the n-th call (from 1) of the person went: only the
// concluding one is recorded in detail, every other did not conclude.
func (r Recorded) Attempt(n int) Call {
	if n != r.Attempts {
		return Call{Outcome: OutcomeNoAnswer}
	}
	return Call{Outcome: r.Outcome(), DurationSeconds: r.DurationSeconds}
}

// Outcome returns the outcome of the concluding call. A call of no duration
// was never answered.
func (r Recorded) Outcome() string {
	switch {
	case r.Subscribed:
		return OutcomeOrdered
	case r.DurationSeconds == 0:
		return OutcomeNoAnswer
	default:
		return OutcomeDeclined
	}
}

// ParseBank reads bank-additional-full.csv. Errors name the line and column.
func ParseBank(data []byte) (*Bank, error) {
	r := csv.NewReader(bytes.NewReader(data))
	r.Comma = ';'
	r.ReuseRecord = true
	header, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("bank marketing data: %w", err)
	}
	if !slices.Equal(header, bankHeader) {
		return nil, fmt.Errorf("bank marketing data: columns %q expected, %q found", bankHeader, header)
	}
	b := &Bank{}
	intern := make([]map[string]any, len(bankAttributes))
	for a := range intern {
		intern[a] = map[string]any{}
	}
	var day calendar
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("bank marketing data: %w", err)
		}
		fail := func(column int, err error) error {
			line, _ := r.FieldPos(column)
			return fmt.Errorf("bank marketing data: line %d: %s: %w", line, bankHeader[column], err)
		}
		for a, attr := range bankAttributes {
			cell := row[attr.column]
			v, known := intern[a][cell]
			if !known {
				if v, err = attr.parse(cell); err != nil {
					return nil, fail(attr.column, err)
				}
				intern[a][strings.Clone(cell)] = v
			}
			b.values = append(b.values, v)
		}
		rec := Recorded{ExternalID: bankID(len(b.records))}
		if rec.Attempts, err = strconv.Atoi(row[bankCampaign]); err != nil {
			return nil, fail(bankCampaign, err)
		}
		if rec.DurationSeconds, err = strconv.Atoi(row[bankDuration]); err != nil {
			return nil, fail(bankDuration, err)
		}
		switch row[bankY] {
		case "yes":
			rec.Subscribed = true
		case "no":
		default:
			return nil, fail(bankY, fmt.Errorf("yes or no expected, %q found", row[bankY]))
		}
		if rec.CalledOn, err = day.advance(row[bankMonth], row[bankDayOfWeek]); err != nil {
			return nil, fail(bankMonth, err)
		}
		b.records = append(b.records, rec)
	}
	b.split = len(b.records) * 80 / 100
	return b, nil
}

// History returns the people of the first 80 % of the rows, as customers of
// the given org units.
func (b *Bank) History(units []string) (*Set, error) {
	return b.set("bank-marketing-history", "Bank Marketing, called May 2008 to May 2009 (first 80 %)", 0, b.split, units)
}

// Population returns the people of the last 20 % of the rows, as customers of
// the given org units.
func (b *Bank) Population(units []string) (*Set, error) {
	return b.set("bank-marketing-population", "Bank Marketing, called May 2009 to November 2010 (last 20 %)", b.split, len(b.records), units)
}

func (b *Bank) set(name, title string, from, to int, units []string) (*Set, error) {
	if len(units) == 0 {
		return nil, errNoUnits
	}
	units = slices.Clone(units)
	width := len(bankAttributes)
	attributes := make([]Attribute, width)
	for a := range bankAttributes {
		attributes[a] = bankAttributes[a].Attribute
	}
	return &Set{
		Name:  name,
		Title: title,
		Description: "People really called by a Portuguese bank's call centre (UCI Machine Learning Repository, data set 222). " +
			"Their attributes and outcomes are recorded. Phone numbers and org units are simulated.",
		Licence: "CC BY 4.0",
		Citation: "S. Moro, P. Cortez and P. Rita. A Data-Driven Approach to Predict the Success of Bank Telemarketing. " +
			"Decision Support Systems (2014), doi:10.1016/j.dss.2014.03.001",
		Attributes: attributes,
		Size:       to - from,
		fill: func(i int, c *Customer) {
			row := from + i
			c.ExternalID = b.records[row].ExternalID
			c.MSISDN = fmt.Sprintf("+9991%08d", row+1)
			c.OrgUnit = units[row%len(units)]
			c.TimeZone = "Europe/Lisbon"
			copy(c.Values, b.values[row*width:(row+1)*width])
		},
	}, nil
}

// PastContacts returns the concluded call of everybody in History, in the
// order of time. The channel of each is ChannelCall.
func (b *Bank) PastContacts() []Recorded { return slices.Clone(b.records[:b.split]) }

// Recorded returns what was recorded of a person of either set.
func (b *Bank) Recorded(externalID string) (Recorded, bool) {
	digits, ok := strings.CutPrefix(externalID, bankIDPrefix)
	if !ok {
		return Recorded{}, false
	}
	number, err := strconv.Atoi(digits)
	if err != nil || number < 1 || number > len(b.records) || b.records[number-1].ExternalID != externalID {
		return Recorded{}, false
	}
	return b.records[number-1], true
}

const bankIDPrefix = "bank-"

func bankID(row int) string { return fmt.Sprintf(bankIDPrefix+"%06d", row+1) }

// calendar gives each row its day from month and weekday alone: the rows are
// in the order of time, so a change of weekday moves on to the next such day
// and a step back in the year's months starts the next year. On the published
// file every day so found lies in the month that its row names.
type calendar struct{ day time.Time }

var (
	months   = []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
	weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
)

const bankFirstYear = 2008

func (c *calendar) advance(month, weekday string) (time.Time, error) {
	m := time.Month(slices.Index(months, month) + 1)
	w := slices.Index(weekdays, weekday)
	if m == 0 || w < 0 {
		return time.Time{}, fmt.Errorf("month and weekday expected, %q and %q found", month, weekday)
	}
	switch {
	case c.day.IsZero():
		c.day = time.Date(bankFirstYear, m, 1, 0, 0, 0, 0, time.UTC)
	case m < c.day.Month():
		c.day = time.Date(c.day.Year()+1, m, 1, 0, 0, 0, 0, time.UTC)
	case m > c.day.Month():
		c.day = time.Date(c.day.Year(), m, 1, 0, 0, 0, 0, time.UTC)
	}
	next := c.day.AddDate(0, 0, (w-int(c.day.Weekday())+7)%7)
	if next.Month() != m {
		return time.Time{}, fmt.Errorf("rows out of the order of time at %s %s", weekday, month)
	}
	c.day = next
	return next, nil
}
