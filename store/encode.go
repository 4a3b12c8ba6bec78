package store

import (
	"bytes"
	"encoding/binary"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/musterhq/muster/campaign"
)

// copyBuffer holds rows in PostgreSQL's binary COPY format. Encoding by hand what has
// five types costs a fraction of a driver that asks each value for its type.
type copyBuffer struct{ b []byte }

var copyHeader = []byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00")

func (c *copyBuffer) reset() { c.b = append(c.b[:0], copyHeader...) }

// reader ends the rows and returns them.
func (c *copyBuffer) reader() *bytes.Reader {
	return bytes.NewReader(append(c.b, 0xff, 0xff))
}

// empty reports whether no row was begun.
func (c *copyBuffer) empty() bool { return len(c.b) <= len(copyHeader) }

func (c *copyBuffer) row(columns int) { c.b = binary.BigEndian.AppendUint16(c.b, uint16(columns)) }
func (c *copyBuffer) null()           { c.b = append(c.b, 0xff, 0xff, 0xff, 0xff) }
func (c *copyBuffer) size(n int)      { c.b = binary.BigEndian.AppendUint32(c.b, uint32(n)) }

func (c *copyBuffer) text(s string) {
	c.size(len(s))
	c.b = append(c.b, s...)
}

func (c *copyBuffer) bool(v bool) {
	c.size(1)
	if v {
		c.b = append(c.b, 1)
	} else {
		c.b = append(c.b, 0)
	}
}

func (c *copyBuffer) int64(v int64) {
	c.size(8)
	c.b = binary.BigEndian.AppendUint64(c.b, uint64(v))
}

func (c *copyBuffer) uuid(id uuid.UUID) { c.bytes(id[:]) }

func (c *copyBuffer) bytes(v []byte) {
	c.size(len(v))
	c.b = append(c.b, v...)
}

// epoch is the origin of PostgreSQL's time.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// customerEncoder turns customers into rows of customer, phone_vault and phone_key.
type customerEncoder struct {
	phones         *phoneEncoder
	attributes     []Attribute
	types          []AttributeType
	simulated      bool
	units          map[string]bool
	zones          map[string]bool
	rows           int
	invalidNumbers int64
}

func newCustomerEncoder(phones *phoneEncoder, in CustomerImport) *customerEncoder {
	e := &customerEncoder{
		phones: phones, attributes: in.Attributes, simulated: in.Simulated,
		units: map[string]bool{}, zones: map[string]bool{},
	}
	for _, a := range in.Attributes {
		e.types = append(e.types, a.Type)
	}
	return e
}

func (e *customerEncoder) fault(format string, args ...any) error {
	return campaign.Errorf(campaign.CodeInvalidParameter, "row %d: "+format, append([]any{e.rows}, args...)...)
}

func badText(s string) bool { return !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 }

// add appends one customer, with the id it has in known or else a new one.
func (e *customerEncoder) add(c *encodedChunk, row *Customer, known map[string]uuid.UUID) error {
	e.rows++
	if row.ExternalID == "" || len(row.ExternalID) > 200 || badText(row.ExternalID) {
		return e.fault("the external id must have 1 to 200 bytes of text")
	}
	if !e.units[row.OrgUnit] {
		if !campaign.OrgUnit(row.OrgUnit).Valid() {
			return e.fault("org unit %q is not a path such as operator/north", row.OrgUnit)
		}
		e.units[strings.Clone(row.OrgUnit)] = true
	}
	if !e.zones[row.TimeZone] {
		if _, err := time.LoadLocation(row.TimeZone); err != nil || row.TimeZone == "" || row.TimeZone == "Local" {
			return e.fault("time zone %q is not an IANA name such as Asia/Shanghai", row.TimeZone)
		}
		e.zones[strings.Clone(row.TimeZone)] = true
	}
	id, ok := known[row.ExternalID]
	if !ok {
		var err error
		if id, err = uuid.NewV7(); err != nil {
			return err
		}
	}
	b := &c.customers
	b.row(5 + len(e.types))
	b.uuid(id)
	b.text(row.ExternalID)
	b.text(row.OrgUnit)
	b.text(row.TimeZone)
	b.bool(e.simulated)
	for i, t := range e.types {
		if !e.value(b, t, row.Values[i]) {
			return e.fault("attribute %q is of type %s and cannot hold this %T", e.attributes[i].Name, t, row.Values[i])
		}
	}
	if row.MSISDN == "" {
		return nil
	}
	if err := e.phones.add(&c.phones, &c.keys, id, row.MSISDN); err != nil {
		e.invalidNumbers++
	}
	return nil
}

// value appends v as type t and reports whether it could.
func (e *customerEncoder) value(b *copyBuffer, t AttributeType, v any) bool {
	switch x := v.(type) {
	case nil:
		b.null()
	case int64:
		if t != AttributeInt {
			return false
		}
		b.int64(x)
	case float64:
		if t != AttributeFloat || math.IsNaN(x) || math.IsInf(x, 0) {
			return false
		}
		b.int64(int64(math.Float64bits(x)))
	case string:
		if t != AttributeText || badText(x) {
			return false
		}
		b.text(x)
	case bool:
		if t != AttributeBool {
			return false
		}
		b.bool(x)
	case time.Time:
		if t != AttributeTimestamp {
			return false
		}
		b.int64(x.UnixMicro() - epoch.UnixMicro())
	default:
		return false
	}
	return true
}
