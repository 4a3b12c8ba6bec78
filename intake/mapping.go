package intake

import (
	"fmt"
	"slices"
	"strings"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// column is what a column of a file is.
type column struct {
	header    string
	target    string          // an attribute, or one of campaign's names for what is none; empty when it is left out
	attribute store.Attribute // its type is empty while it is to be guessed
	isNew     bool            // the attribute is to be declared
	allowed   map[string]bool // nil for any
}

// masked reports whether the column's values identify people, or may do so: nobody has said
// what a column that is left out holds.
func (c column) masked() bool {
	return c.target == campaign.ImportNumber || c.target == "" || c.attribute.PII
}

// isAttribute reports whether the column is neither left out nor one of campaign's names.
func (c column) isAttribute() bool { return c.target != "" && c.attribute.Name != "" }

// allow indexes the values that the attribute may have.
func (c *column) allow() {
	if len(c.attribute.Allowed) == 0 {
		return
	}
	c.allowed = map[string]bool{}
	for _, v := range c.attribute.Allowed {
		c.allowed[v] = true
	}
}

// aliases are what columns are called elsewhere.
var aliases = map[string]string{
	"external_id": campaign.ImportKey, "customer_id": campaign.ImportKey, "客户编号": campaign.ImportKey, "客户编码": campaign.ImportKey, "用户编号": campaign.ImportKey, "客户id": campaign.ImportKey,
	"msisdn": campaign.ImportNumber, "phone": campaign.ImportNumber, "phone_number": campaign.ImportNumber, "mobile": campaign.ImportNumber, "mobile_number": campaign.ImportNumber,
	"手机": campaign.ImportNumber, "手机号": campaign.ImportNumber, "手机号码": campaign.ImportNumber, "电话": campaign.ImportNumber, "号码": campaign.ImportNumber,
	"org_unit": campaign.ImportUnit, "机构": campaign.ImportUnit, "所属机构": campaign.ImportUnit,
	"time_zone": campaign.ImportZone, "timezone": campaign.ImportZone, "时区": campaign.ImportZone,
}

var builtin = []string{campaign.ImportKey, campaign.ImportNumber, campaign.ImportUnit, campaign.ImportZone}

// plainName is a header as attributes are called.
func plainName(header string) string {
	return strings.Trim(strings.Map(func(r rune) rune {
		switch r {
		case ' ', '-', '.', '/', '\t', '　', '\u00a0':
			return '_'
		}
		return r
	}, strings.ToLower(strings.TrimSpace(header))), "_")
}

// resolve finds out what each column of a header is. What cannot be found out is told by
// the faults, with the most similar attribute: nothing is left out that nobody said to
// leave out, and nothing is declared by those who may not.
func resolve(header []string, o campaign.ImportOptions, catalogue []store.Attribute, mayDeclare bool) ([]column, []campaign.FieldError) {
	var faults []campaign.FieldError
	fault := func(header string, code campaign.Code, allowed []any, format string, args ...any) {
		faults = append(faults, campaign.FieldError{Field: "columns." + header, Code: code, Message: fmt.Sprintf(format, args...), Allowed: allowed})
	}
	said := map[string]string{}
	for name, is := range o.Columns {
		said[name] = is
	}
	if o.Key != "" {
		said[o.Key] = campaign.ImportKey
	}
	byName := map[string]store.Attribute{}
	for _, a := range catalogue {
		byName[a.Name] = a
	}
	taken := map[string]string{}
	columns := make([]column, len(header))
	for i, name := range header {
		c := column{header: name}
		is, explicit := said[name]
		delete(said, name)
		switch {
		case explicit && is == "-":
		case explicit && strings.HasPrefix(is, "+"):
			c.isNew = true
			attribute, typ, _ := strings.Cut(is[1:], ":")
			typ, open, said := strings.Cut(typ, ":")
			if said && open != "plain" {
				fault(name, campaign.CodeInvalidParameter, []any{"plain"}, "behind the type may stand :plain, for what identifies nobody")
			}
			if attribute == "" {
				attribute = plainName(name)
			}
			if known, ok := byName[attribute]; ok { // declared by an earlier try
				c.isNew, c.attribute = false, known
			} else {
				if !mayDeclare {
					fault(name, campaign.CodeForbidden, nil, "there is no attribute %q, and declaring one takes the right to do so: ask an administrator", attribute)
				}
				c.attribute = store.Attribute{Name: attribute, Type: store.AttributeType(typ), Meaning: name, Source: "import", PII: open != "plain"}
				check := c.attribute
				if typ == "" { // to be guessed
					check.Type = store.AttributeText
				}
				if err := check.Check(); err != nil {
					fault(name, campaign.CodeInvalidParameter, nil, "%s", err.Error())
				}
			}
			c.target = attribute
		case explicit && slices.Contains(builtin, is):
			c.target = is
		case explicit:
			known, ok := byName[is]
			if !ok {
				fault(name, campaign.CodeUnknownField, suggest(is, catalogue), "there is no attribute %q", is)
			}
			c.target, c.attribute = is, known
		default:
			c.target, c.attribute = byHeader(name, byName, catalogue)
			if c.target == "" {
				fault(name, campaign.CodeUnknownField, suggest(plainName(name), catalogue),
					"nothing is known by this column: map it to an attribute, declare one with \"+name:type\", or leave it out with \"-\"")
			}
		}
		if c.target != "" {
			if other, twice := taken[c.target]; twice {
				fault(name, campaign.CodeDuplicateField, nil, "is %s, which column %q is already", c.target, other)
			}
			taken[c.target] = name
		}
		c.allow()
		columns[i] = c
	}
	for name := range said {
		fault(name, campaign.CodeUnknownField, anyOf(header), "the file has no column of this name")
	}
	if _, ok := taken[campaign.ImportKey]; !ok {
		faults = append(faults, campaign.FieldError{
			Field: "key", Code: campaign.CodeKeyMissing, Allowed: anyOf(header),
			Message: "no column is the operator's own customer id: name it external_id, or say which one it is",
		})
	}
	return columns, faults
}

// byHeader finds what a column is by its header alone: an attribute of the name, or of the
// meaning, or one of the other names for what is no attribute.
func byHeader(header string, byName map[string]store.Attribute, catalogue []store.Attribute) (string, store.Attribute) {
	name := plainName(header)
	if slices.Contains(builtin, name) {
		return name, store.Attribute{}
	}
	if a, ok := byName[name]; ok {
		return name, a
	}
	if is, ok := aliases[name]; ok {
		return is, store.Attribute{}
	}
	for _, a := range catalogue {
		if strings.EqualFold(strings.TrimSpace(header), a.Meaning) || strings.TrimSpace(header) == a.MeaningZh {
			return a.Name, a
		}
	}
	return "", store.Attribute{}
}

func anyOf[T any](values []T) []any {
	all := make([]any, len(values))
	for i, v := range values {
		all[i] = v
	}
	return all
}

func suggest(name string, catalogue []store.Attribute) []any {
	if n := nearest(name, catalogue); n != "" {
		return []any{n}
	}
	return nil
}

// nearest returns the attribute, or name of what is none, that takes the fewest letters to
// be changed; empty when more than half of them differ.
func nearest(name string, catalogue []store.Attribute) string {
	best, found := len([]rune(name))/2+1, ""
	try := func(candidate string) {
		if d := distance(name, candidate); d < best {
			best, found = d, candidate
		}
	}
	for _, b := range builtin {
		try(b)
	}
	for _, a := range catalogue {
		try(a.Name)
	}
	return found
}

// distance is Levenshtein's: the fewest letters inserted, deleted and replaced.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	row := make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i := range x {
		diagonal := row[0]
		row[0] = i + 1
		for j := range y {
			cost := diagonal
			if x[i] != y[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(y)]
}
