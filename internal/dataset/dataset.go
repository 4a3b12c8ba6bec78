// Package dataset provides customer populations as streams of typed rows: the
// published UCI Bank Marketing data with its recorded outcomes, and a seeded
// generator of a telecom operator's customer base. It knows nothing of the
// database that the rows end up in.
package dataset

import (
	"errors"
	"fmt"
)

// Type is the type of an attribute's values.
type Type string

// The types of attributes, each with the Go type that its values have in
// Customer.Values. Any value may also be nil, which means unknown or not
// applicable.
const (
	Int       Type = "int"       // int64
	Float     Type = "float"     // float64
	Text      Type = "text"      // string
	Bool      Type = "bool"      // bool
	Timestamp Type = "timestamp" // time.Time in UTC
)

// Attribute describes one column of a customer population.
type Attribute struct {
	Name      string // snake_case, neither an SQL key word nor a core column of the customer table
	Type      Type
	Unit      string // unit of a number, empty for a bare count or category
	Meaning   string
	MeaningZh string
	// PostContact marks what is known only once the campaign has contacted the
	// customer. Such an attribute must never be used to choose or to score.
	PostContact bool
	// PII marks what identifies a person by itself.
	PII bool
}

// Customer is one row of a population.
type Customer struct {
	ExternalID string
	// MSISDN is always simulated here: no data set of this package contains a
	// real phone number. It starts with country code 999, which is assigned to
	// nobody, and is unique within and across the sets of this package.
	MSISDN   string
	OrgUnit  string
	TimeZone string // IANA name
	Values   []any  // in the order of Set.Attributes
}

// Set describes a customer population and gives access to its rows.
type Set struct {
	Name        string // stable identifier, e.g. "bank-marketing-population"
	Title       string // for people
	Description string // what it is and which part of it is simulated
	Licence     string
	Citation    string
	Simulated   bool // the customers themselves are generated
	Attributes  []Attribute
	Size        int // number of customers

	// fill writes customer i into c, whose Values has the length of
	// Attributes. It only reads shared state, so that ranges can be streamed
	// in parallel.
	fill func(i int, c *Customer)
}

// Stream returns the customers from <= i < to. Streams over the same or
// different ranges may be used at the same time, each by one goroutine.
// It panics when the range does not lie within the set, as slicing does.
func (s *Set) Stream(from, to int) *Stream {
	if from < 0 || to < from || to > s.Size {
		panic(fmt.Sprintf("dataset: range %d to %d of %d customers", from, to, s.Size))
	}
	return &Stream{fill: s.fill, next: from, to: to, row: Customer{Values: make([]any, len(s.Attributes))}}
}

// Stream walks over a range of customers:
//
//	for s := set.Stream(0, set.Size); s.Next(); {
//		use(s.Customer())
//	}
type Stream struct {
	fill     func(int, *Customer)
	next, to int
	row      Customer
}

// Next moves to the next customer and reports whether there is one.
func (s *Stream) Next() bool {
	if s.next >= s.to {
		return false
	}
	s.fill(s.next, &s.row)
	s.next++
	return true
}

// Customer returns the current row. It and its Values are overwritten by the
// next call of Next, which is what keeps a stream of millions cheap.
func (s *Stream) Customer() *Customer { return &s.row }

var errNoUnits = errors.New("dataset: at least one org unit is needed to spread the customers over")
