package intake

import (
	"context"
	"fmt"
	"time"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
	"github.com/musterhq/muster/tabular"
)

// rowReader reads rows as customers, for one goroutine. Both passes use it, so that they
// agree on which rows are good.
type rowReader struct {
	columns []column
	options campaign.ImportOptions
	known   unitRule
	region  string // of numbers without a country code
	zone    *time.Location
	zones   map[string]word
	units   map[string]word
	fresh   []string // some units of rows that nobody has made

	row    tabular.Row
	values []value // of attributes, in the order of columns; unknown for the others
	key    []byte
	number []byte // E.164 digits, empty when there is none
	unit   string
	where  string // time zone
}

// word is a text that many rows share, kept once.
type word struct {
	text  string
	good  bool
	fresh bool // of a unit: nobody has made it
}

// unitRule says which units rows may name.
type unitRule struct {
	there map[campaign.OrgUnit]bool
	fresh bool // others too, which the import makes
}

// unitsOf is the rule of an import.
func unitsOf(ctx context.Context, st *store.Store, j store.ImportJob) (unitRule, error) {
	rule := unitRule{there: map[campaign.OrgUnit]bool{}, fresh: j.May(campaign.ActUnitAdminister)}
	all, err := st.Units(ctx, []campaign.OrgUnit{j.Options.Unit})
	for _, u := range all {
		rule.there[u.Path] = true
	}
	return rule, err
}

func newRowReader(columns []column, o campaign.ImportOptions, region string, known unitRule) (*rowReader, error) {
	zone, err := time.LoadLocation(o.TimeZone)
	if err != nil || o.TimeZone == "" || o.TimeZone == "Local" {
		return nil, campaign.Errorf(campaign.CodeInvalidParameter, "time zone %q is not an IANA name such as Asia/Shanghai", o.TimeZone)
	}
	return &rowReader{
		columns: columns, options: o, known: known, region: region, zone: zone,
		zones: map[string]word{}, units: map[string]word{}, values: make([]value, len(columns)),
	}, nil
}

// maxWords is how many words are kept: a column may hold as many as the file has rows.
const maxWords = 10_000

// keep keeps a word, for as long as there are few.
func keep(words map[string]word, w word) {
	if len(words) == maxWords {
		clear(words)
	}
	words[w.text] = w
}

// maxKey is how long the operator's own customer ids may be.
const maxKey = 200

// read takes the row apart and returns what is wrong with it: one fault, its first. told,
// when not nil, learns what became of each field, and then all of them are looked at.
func (r *rowReader) read(told func(column int, v value)) (store.ImportReject, bool) {
	if f := r.row.Fault; f != nil {
		reject := store.ImportReject{Line: r.row.Line, Code: f.Code, Reason: f.Message}
		if i := f.Column - 1; i >= 0 && i < len(r.columns) {
			reject.Column = r.columns[i].header
			if i < len(r.row.Fields) {
				reject.Value = shown(r.row.Fields[i], r.columns[i].masked())
			}
		}
		return reject, false
	}
	r.key, r.number, r.unit, r.where = nil, r.number[:0], string(r.options.Unit), r.options.TimeZone
	good := true
	var first store.ImportReject
	for i := range r.columns {
		c := &r.columns[i]
		if c.target == "" && told == nil {
			continue
		}
		if c.attribute.Type == store.AttributeInt { // most columns of most rows, without the way through field
			if n, ok := plainInt(r.row.Fields[i]); ok {
				r.values[i] = value{kind: isInt, whole: n}
				if told != nil {
					told(i, r.values[i])
				}
				continue
			}
		}
		v, code, reason := r.field(c, r.row.Fields[i])
		r.values[i] = v
		if told != nil {
			told(i, v)
		}
		if v.kind == bad && good {
			good = false
			first = store.ImportReject{Line: r.row.Line, Column: c.header, Value: shown(r.row.Fields[i], c.masked()), Code: code, Reason: reason}
			if told == nil {
				return first, false
			}
		}
	}
	return first, good
}

// field reads one field.
func (r *rowReader) field(c *column, field []byte) (v value, code campaign.Code, reason string) {
	refuse := func(code campaign.Code, format string, args ...any) (value, campaign.Code, string) {
		return value{kind: bad}, code, fmt.Sprintf(format, args...)
	}
	switch {
	case c.isAttribute() && c.attribute.Type != "":
		v = parse(c.attribute.Type, field, r.zone)
		switch {
		case v.kind == bad:
			return refuse(campaign.CodeInvalidValue, "%s", wanted[c.attribute.Type])
		case v.kind == isText && c.allowed != nil && !c.allowed[string(field)]:
			return refuse(campaign.CodeValueNotAllowed, "is none of the values that %s may have", c.attribute.Name)
		}
		return v, "", ""
	case c.target == campaign.ImportKey:
		r.key = trim(field)
		switch {
		case len(r.key) == 0:
			return refuse(campaign.CodeKeyMissing, "the row does not say which customer it is about")
		case len(r.key) > maxKey:
			return refuse(campaign.CodeInvalidValue, "must have at most %d bytes", maxKey)
		}
		return value{kind: isText}, "", ""
	case c.target == campaign.ImportNumber:
		if field = trim(field); nothing(field) {
			return value{}, "", ""
		}
		var err error
		if r.number, err = store.AppendMSISDN(r.number[:0], field, r.region); err != nil {
			return refuse(campaign.CodeInvalidMSISDN, "%s", err.Error())
		}
		return value{kind: isText}, "", ""
	case c.target == campaign.ImportUnit:
		if field = trim(field); len(field) == 0 {
			return value{}, "", ""
		}
		unit, seen := r.units[string(field)]
		if !seen {
			u := campaign.OrgUnit(field)
			unit = word{text: string(u), good: u.Valid() && u.Within(r.options.Unit), fresh: !r.known.there[u]}
			keep(r.units, unit)
			if unit.good && unit.fresh {
				r.fresh = keepFew(r.fresh, unit.text, newUnits)
			}
		}
		if unit.good && unit.fresh && !r.known.fresh {
			return refuse(campaign.CodeUnknownUnit, "there is no such unit; whoever administers units can make it")
		}
		if !unit.good {
			return refuse(campaign.CodeOtherUnit, "must be %s or a unit below it, such as %s/east", r.options.Unit, r.options.Unit)
		}
		r.unit = unit.text
		return value{kind: isText}, "", ""
	case c.target == campaign.ImportZone:
		if field = trim(field); len(field) == 0 {
			return value{}, "", ""
		}
		zone, seen := r.zones[string(field)]
		if !seen {
			_, err := time.LoadLocation(string(field))
			zone = word{text: string(field), good: err == nil && string(field) != "Local"}
			keep(r.zones, zone)
		}
		if !zone.good {
			return refuse(campaign.CodeInvalidValue, "must be an IANA name such as Asia/Shanghai")
		}
		r.where = zone.text
		return value{kind: isText}, "", ""
	}
	return parse(store.AttributeText, field, r.zone), "", ""
}

// wanted says what a value of each type looks like.
var wanted = map[store.AttributeType]string{
	store.AttributeInt:       "must be a whole number such as 1200 or -3",
	store.AttributeFloat:     "must be a number such as 12.5 or 12,5; 1,234 could be read in two ways",
	store.AttributeText:      "must be text",
	store.AttributeBool:      "must be yes or no: true/false, 1/0, y/n, 是/否, 有/无",
	store.AttributeTimestamp: "must be a date or time such as 2019-05-04, 2019/5/4 or 2019-05-04T03:02:01+08:00; 04/05/2019 could be read in two ways",
}
