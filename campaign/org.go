package campaign

import (
	"regexp"
	"strings"
)

// OrgUnit is a node of the organisation tree (group → province → city → district
// → outlet), written as the path from the root, e.g. "operator/north/harbin". The
// root is the tenant.
type OrgUnit string

var orgUnitPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}(/[a-z0-9][a-z0-9-]{0,39}){0,7}$`)

// Valid reports whether u is a well-formed path of at most eight lower-case parts.
func (u OrgUnit) Valid() bool { return orgUnitPattern.MatchString(string(u)) }

// Within reports whether u is the unit ancestor or lies below it.
func (u OrgUnit) Within(ancestor OrgUnit) bool {
	return u == ancestor || strings.HasPrefix(string(u), string(ancestor)+"/")
}

// Chain returns u and all units above it, nearest first.
func (u OrgUnit) Chain() []OrgUnit {
	var chain []OrgUnit
	for p := string(u); p != ""; {
		chain = append(chain, OrgUnit(p))
		i := strings.LastIndexByte(p, '/')
		if i < 0 {
			break
		}
		p = p[:i]
	}
	return chain
}

// Tenant returns the root of u's tree.
func (u OrgUnit) Tenant() OrgUnit {
	root, _, _ := strings.Cut(string(u), "/")
	return OrgUnit(root)
}
