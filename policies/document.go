package policies

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"slices"

	"github.com/musterhq/muster/campaign"
)

var (
	//go:embed policy.csv
	policyText string
	//go:embed routes.json
	routesText string
)

// Standard is the policy that Muster comes with, as version 1. It holds wherever a tenant
// has none of its own.
func Standard() campaign.PolicyDocument {
	return campaign.PolicyDocument{
		Version: 1, Policy: policyText, Routes: routesText, Digest: campaign.PolicyDigest(policyText, routesText),
	}
}

// Fixed is a source of documents, for New, that never change.
func Fixed(documents ...campaign.PolicyDocument) func(context.Context) ([]campaign.PolicyDocument, error) {
	return func(context.Context) ([]campaign.PolicyDocument, error) { return documents, nil }
}

// document is a policy document that was read and found sound.
type document struct {
	campaign.PolicyDocument
	table  []permission
	routes Routes
}

// Check says why a stored document cannot be decided by: it does not say what it said when
// it was stored, or Lint refuses it.
func Check(d campaign.PolicyDocument) error {
	_, err := read(d)
	return err
}

// read reads a document that is to be decided by.
func read(d campaign.PolicyDocument) (*document, error) {
	table, routes, err := lint(d.Policy, d.Routes)
	if err != nil {
		return nil, err
	}
	if d.Digest != campaign.PolicyDigest(d.Policy, d.Routes) {
		return nil, campaign.Errorf(campaign.CodePolicyRejected, "it does not say what it said when it was stored")
	}
	return &document{PolicyDocument: d, table: table, routes: routes}, nil
}

// Difference is what another policy document changes. A permission whose limit or effect
// changes is one that is removed and one that is added.
type Difference struct {
	PermissionsAdded   []string // rows such as "role:manager, approval.manager, 5000000000, allow"
	PermissionsRemoved []string
	Rules              []Change // approval routes, by name
	Calendars          []Change
}

// How a part of a document changes.
const (
	Added   = "added"
	Removed = "removed"
	Changed = "changed"
	Moved   = "moved" // to another place among the rules, of which the first that fits wins
)

// Change is how a named part of a document changes.
type Change struct {
	Name string
	How  string
}

// Diff says what after changes in before, both of which are documents that Lint takes.
func Diff(before, after campaign.PolicyDocument) (Difference, error) {
	oldTable, oldRoutes, err := lint(before.Policy, before.Routes)
	if err != nil {
		return Difference{}, err
	}
	newTable, newRoutes, err := lint(after.Policy, after.Routes)
	if err != nil {
		return Difference{}, err
	}
	var d Difference
	for _, p := range newTable {
		if !slices.Contains(oldTable, p) {
			d.PermissionsAdded = append(d.PermissionsAdded, p.String())
		}
	}
	for _, p := range oldTable {
		if !slices.Contains(newTable, p) {
			d.PermissionsRemoved = append(d.PermissionsRemoved, p.String())
		}
	}
	ruleName := func(r Rule) string { return r.Name }
	d.Rules = changes(oldRoutes.Rules, newRoutes.Rules, ruleName)
	d.Rules = append(d.Rules, moved(oldRoutes.Rules, newRoutes.Rules, ruleName)...)
	d.Calendars = changes(oldRoutes.Calendars, newRoutes.Calendars, func(c campaign.Calendar) string { return c.Name })
	return d, nil
}

// changes compares parts by name.
func changes[T any](before, after []T, name func(T) string) []Change {
	var all []Change
	old := map[string]T{}
	for _, part := range before {
		old[name(part)] = part
	}
	for _, part := range after {
		was, there := old[name(part)]
		switch {
		case !there:
			all = append(all, Change{name(part), Added})
		case !alike(was, part):
			all = append(all, Change{name(part), Changed})
		}
		delete(old, name(part))
	}
	for _, part := range before {
		if _, gone := old[name(part)]; gone {
			all = append(all, Change{name(part), Removed})
		}
	}
	return all
}

// alike compares by what is written, as a limit is a pointer.
func alike(a, b any) bool {
	x, err := json.Marshal(a)
	if err != nil {
		return false
	}
	y, err := json.Marshal(b)
	return err == nil && bytes.Equal(x, y)
}

// moved lists the parts of both whose order among these is another one.
func moved[T any](before, after []T, name func(T) string) []Change {
	names := func(all, others []T) (kept []string) {
		for _, part := range all {
			if slices.ContainsFunc(others, func(o T) bool { return name(o) == name(part) }) {
				kept = append(kept, name(part))
			}
		}
		return kept
	}
	var all []Change
	was := names(before, after)
	for i, n := range names(after, before) {
		if was[i] != n {
			all = append(all, Change{n, Moved})
		}
	}
	return all
}
