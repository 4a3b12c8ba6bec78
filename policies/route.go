package policies

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/musterhq/muster/campaign"
)

// Routes say who must sign for a plan: ordered rules, of which the first that fits a
// plan wins, and the calendars that their due times are counted in.
type Routes struct {
	Calendars []campaign.Calendar `json:"calendars,omitempty"`
	Rules     []Rule              `json:"rules"`
}

// Rule is an approval route and the plans it is for.
type Rule struct {
	Name   string                   `json:"name"`
	When   When                     `json:"when"`
	Levels []campaign.ApprovalLevel `json:"levels"`
	// CreditLevels sign as well when the plan has prepaid credit. A rule without them fits
	// no such plan.
	CreditLevels []campaign.ApprovalLevel `json:"credit_levels,omitempty"`
	Calendar     string                   `json:"calendar,omitempty"` // by name; round the clock without
}

// When says which plans a rule is for. What is left out does not matter.
type When struct {
	Currency     string             `json:"currency,omitempty"` // ISO 4217, of the limits
	AmountUpTo   *int64             `json:"amount_up_to,omitempty"`
	CreditUpTo   *int64             `json:"credit_up_to,omitempty"`
	AudienceUpTo *int64             `json:"audience_up_to,omitempty"` // customers
	Types        []campaign.Type    `json:"types,omitempty"`
	ChannelsAny  []campaign.Channel `json:"channels_any,omitempty"` // one of them at least
	Units        []campaign.OrgUnit `json:"units,omitempty"`        // one of them, or below it
	// Programme is true for plans inside a programme, whose owner then is the one person who
	// signs the levels, and false for plans outside.
	Programme *bool `json:"programme,omitempty"`
}

const (
	maxLevels = 20
	maxPeople = 20
)

// ReadRoutes parses a route document strictly and numbers the levels and stages. It
// returns one Error with every field at fault, such as rules[2].levels[0].action.
func ReadRoutes(text []byte) (Routes, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var r Routes
	if err := d.Decode(&r); err != nil {
		fault := &campaign.Error{Code: campaign.CodeInvalidParameter, Message: "the approval routes cannot be read", Err: err}
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			fault.Fields = []campaign.FieldError{{Field: wrong.Field, Code: campaign.CodeInvalidParameter, Message: "cannot be a " + wrong.Value}}
		}
		return Routes{}, fault
	}
	if _, err := d.Token(); err != io.EOF {
		return Routes{}, campaign.Errorf(campaign.CodeInvalidParameter, "the approval routes have text after their end")
	}
	if len(r.Rules) == 0 {
		return Routes{}, campaign.Errorf(campaign.CodeEmptyPolicy, "there is no approval route: no campaign could ever be approved")
	}
	if len(r.Rules) > maxRules || len(r.Calendars) > maxCalendars {
		return Routes{}, campaign.Errorf(campaign.CodeInvalidParameter, "the approval routes have more than %d rules or %d calendars", maxRules, maxCalendars)
	}
	var v routeCheck
	v.calendars(r.Calendars)
	for i := range r.Rules {
		v.rule(fmt.Sprintf("rules[%d]", i), r, i)
	}
	if len(v.fields) > 0 {
		return Routes{}, &campaign.Error{Code: campaign.CodeInvalidParameter, Message: fmt.Sprintf("the approval routes have %d fault(s)", len(v.fields)), Fields: v.fields}
	}
	return r, nil
}

type routeCheck struct{ fields []campaign.FieldError }

func (v *routeCheck) add(field, format string, args ...any) {
	v.fields = append(v.fields, campaign.FieldError{Field: field, Code: campaign.CodeInvalidParameter, Message: fmt.Sprintf(format, args...)})
}

func (v *routeCheck) calendars(all []campaign.Calendar) {
	for i, c := range all {
		at := fmt.Sprintf("calendars[%d]", i)
		var faults *campaign.Error
		if errors.As(c.Validate(), &faults) {
			for _, f := range faults.Fields {
				f.Field = at + "." + f.Field
				v.fields = append(v.fields, f)
			}
		}
		if c.Name == "" || slices.ContainsFunc(all[:i], func(b campaign.Calendar) bool { return b.Name == c.Name }) {
			v.add(at+".name", "must be a name that no calendar above has")
		}
	}
}

func (v *routeCheck) rule(at string, all Routes, i int) {
	r := &all.Rules[i]
	if r.Name == "" || slices.ContainsFunc(all.Rules[:i], func(b Rule) bool { return b.Name == r.Name }) {
		v.add(at+".name", "must be a name that no rule above has")
	}
	v.when(at+".when.", r.When)
	if r.Calendar != "" && !slices.ContainsFunc(all.Calendars, func(c campaign.Calendar) bool { return c.Name == r.Calendar }) {
		v.add(at+".calendar", "must be the name of one of the calendars")
	}
	if len(r.Levels) == 0 {
		v.add(at+".levels", "must have a level: an approval that nobody gives is none")
	}
	last := v.levels(at+".levels", r.Levels, campaign.LevelPlan, 0)
	v.levels(at+".credit_levels", r.CreditLevels, campaign.LevelCredit, last)
	for _, b := range all.Rules[:i] {
		if b.covers(*r) {
			v.add(at+".when", "never matters: whatever fits it fits the rule %q above", b.Name)
			break
		}
	}
}

func (v *routeCheck) when(at string, w When) {
	if _, known := campaign.MinorDigits(w.Currency); !known && w.Currency != "" {
		v.add(at+"currency", "must be the ISO 4217 code of an active currency")
	}
	for _, limit := range []struct {
		name  string
		value *int64
		money bool
	}{{"amount_up_to", w.AmountUpTo, true}, {"credit_up_to", w.CreditUpTo, true}, {"audience_up_to", w.AudienceUpTo, false}} {
		switch {
		case limit.value == nil:
		case *limit.value < 0:
			v.add(at+limit.name, "must not be negative")
		case limit.money && w.Currency == "":
			v.add(at+"currency", "must be given with %s: nothing is converted", limit.name)
		}
	}
	for i, x := range w.Types {
		if !slices.Contains(campaign.Types(), x) {
			v.add(fmt.Sprintf("%stypes[%d]", at, i), "must be one of the campaign types")
		}
	}
	for i, x := range w.ChannelsAny {
		if !slices.Contains(campaign.Channels(), x) {
			v.add(fmt.Sprintf("%schannels_any[%d]", at, i), "must be one of the channels")
		}
	}
	for i, x := range w.Units {
		if !x.Valid() {
			v.add(fmt.Sprintf("%sunits[%d]", at, i), "must be a path of org units such as operator/north")
		}
	}
}

// levels checks a rule's levels of a kind and gives those without a stage one of their
// own, after stage. It returns the last stage.
func (v *routeCheck) levels(at string, levels []campaign.ApprovalLevel, kind campaign.LevelKind, stage int) int {
	if len(levels) > maxLevels {
		v.add(at, "must be %d at most", maxLevels)
	}
	first := stage
	for i := range levels {
		l := &levels[i]
		at := fmt.Sprintf("%s[%d].", at, i)
		signing := slices.DeleteFunc(campaign.SigningActions(), func(a campaign.Action) bool {
			return (a == campaign.ActApprovalCredit) != (kind == campaign.LevelCredit)
		})
		if l.Level != 0 || l.UserID != "" || l.Kind != "" {
			v.add(at+"level", "is given by its place: level, kind and user_id are left out")
		}
		l.Kind = kind
		if l.Name == "" {
			v.add(at+"name", "must be given")
		}
		if !slices.Contains(signing, l.Action) {
			v.add(at+"action", "must be one of %v", signing)
		}
		if l.EscalateTo != "" && (l.EscalateTo == l.Action || !slices.Contains(campaign.SigningActions(), l.EscalateTo)) {
			v.add(at+"escalate_to", "must be another action that signs")
		}
		if l.DueAfter <= 0 {
			v.add(at+"due_after_seconds", "must be positive: without time nobody can decide")
		}
		if l.Required < 0 || l.Required > maxPeople {
			v.add(at+"required", "must be 0 to %d people", maxPeople)
		}
		if l.OnExpiry != "" && l.OnExpiry != campaign.ExpiryReturn && l.OnExpiry != campaign.ExpiryReject {
			v.add(at+"on_expiry", "must be return or reject; an expiry never approves")
		}
		switch {
		case l.Stage == 0:
			stage++
			l.Stage = stage
		case kind == campaign.LevelCredit && i == 0 && l.Stage >= 1 && l.Stage <= first+1:
			stage = l.Stage // beside a level of the plan
		case l.Stage != stage && l.Stage != stage+1 || l.Stage < 1:
			v.add(at+"stage", "must be %d, beside the level above, or %d, after it", stage, stage+1)
		default:
			stage = l.Stage
		}
	}
	return stage
}

// covers reports whether every plan that fits rule b fits r as well.
func (r Rule) covers(b Rule) bool {
	w, x := r.When, b.When
	atLeast := func(limit, other *int64) bool { return limit == nil || other != nil && *limit >= *other }
	return (len(r.CreditLevels) > 0 || len(b.CreditLevels) == 0) &&
		(w.Currency == "" || w.Currency == x.Currency) &&
		atLeast(w.AmountUpTo, x.AmountUpTo) && atLeast(w.CreditUpTo, x.CreditUpTo) && atLeast(w.AudienceUpTo, x.AudienceUpTo) &&
		takesIn(w.Types, x.Types) && takesIn(w.ChannelsAny, x.ChannelsAny) &&
		(len(w.Units) == 0 || len(x.Units) > 0 && !slices.ContainsFunc(x.Units, func(u campaign.OrgUnit) bool { return !slices.ContainsFunc(w.Units, u.Within) })) &&
		(w.Programme == nil || x.Programme != nil && *w.Programme == *x.Programme)
}

// takesIn reports whether all, the values that matter or none for any, takes in some.
func takesIn[T comparable](all, some []T) bool {
	return len(all) == 0 || len(some) > 0 && !slices.ContainsFunc(some, func(x T) bool { return !slices.Contains(all, x) })
}

// fits says why a plan with these facts, counted for amount, does not fit the rule; ""
// when it does.
func (r Rule) fits(f campaign.Facts, amount int64) string {
	w := r.When
	over := func(limit *int64, value int64) bool { return value < 0 || limit != nil && value > *limit }
	switch {
	case w.Programme != nil && *w.Programme != (f.Owner != ""):
		return "programme"
	case w.Currency != "" && w.Currency != f.Currency:
		return "currency"
	case len(w.Units) > 0 && !slices.ContainsFunc(w.Units, f.Unit.Within):
		return "unit"
	case len(w.Types) > 0 && !slices.Contains(w.Types, f.Type):
		return "type"
	case len(w.ChannelsAny) > 0 && !slices.ContainsFunc(f.Channels, func(c campaign.Channel) bool { return slices.Contains(w.ChannelsAny, c) }):
		return "channels"
	case over(w.AudienceUpTo, f.Audience):
		return "audience"
	case over(w.CreditUpTo, f.Credit) || f.Credit > 0 && len(r.CreditLevels) == 0:
		return "credit"
	case over(w.AmountUpTo, amount):
		return "amount"
	}
	return ""
}

// Route returns the route of the first rule of the unit's tenant that fits. The amount that is compared is
// the plan's with the campaigns counted together. No rule is CodeNoRoute, or
// CodeAggregateLimit when the plan alone would fit one: nothing is approved by default,
// and nothing is converted.
func (e *Enforcer) Route(f campaign.Facts) (campaign.Routed, error) {
	amount, err := f.Counted()
	if err != nil {
		return campaign.Routed{}, err
	}
	in := e.now.Load().of(f.Unit)
	if r, ok := in.routes.first(f, amount); ok {
		return in.routed(r, f), nil
	}
	money := campaign.Money{Minor: amount, Currency: f.Currency}
	if _, alone := in.routes.first(f, f.Amount); alone && !f.Alone && len(f.Together) > 0 {
		return campaign.Routed{}, campaign.Errorf(campaign.CodeAggregateLimit,
			"together with %d other campaign(s) of the last 30 days this is about %s, for which there is no approval route", len(f.Together), money).
			With("amount", amount).With("currency", f.Currency).With("together", f.Together)
	}
	var why []string
	for _, r := range in.routes.Rules {
		why = append(why, fmt.Sprintf("%s: %s", r.Name, r.fits(f, amount)))
	}
	return campaign.Routed{}, campaign.Errorf(campaign.CodeNoRoute, "no approval route fits %s at %s (%s)", money, f.Unit, strings.Join(why, "; ")).
		With("amount", amount).With("credit", f.Credit).With("currency", f.Currency).With("audience", f.Audience)
}

// RouteUnder is Route by a policy that decisions are marked with as version and that need
// not be in force any more; d is what it said. It fails with CodePolicyRejected when that
// is another version or is not what was stored.
func RouteUnder(version string, d campaign.PolicyDocument, f campaign.Facts) (campaign.Routed, error) {
	if d.Digest == "" || d.Digest != campaign.PolicyDigest(d.Policy, d.Routes) || !strings.HasPrefix(version, marked(d)) {
		return campaign.Routed{}, campaign.Errorf(campaign.CodePolicyRejected, "the policy version %s is not known", version)
	}
	routes, err := ReadRoutes([]byte(d.Routes))
	if err != nil {
		return campaign.Routed{}, err
	}
	amount, err := f.Counted()
	if err != nil {
		return campaign.Routed{}, err
	}
	r, ok := routes.first(f, amount)
	if !ok {
		return campaign.Routed{}, campaign.Errorf(campaign.CodeNoRoute, "no approval route of policy version %d fits", d.Version)
	}
	in := ruling{document: &document{PolicyDocument: d, routes: routes}, version: version}
	return in.routed(r, f), nil
}

func (r Routes) first(f campaign.Facts, amount int64) (Rule, bool) {
	for _, rule := range r.Rules {
		if rule.fits(f, amount) == "" {
			return rule, true
		}
	}
	return Rule{}, false
}

// routed is a copy of the rule's route for a plan, in the order of its stages.
func (in *ruling) routed(r Rule, f campaign.Facts) campaign.Routed {
	out := campaign.Routed{Facts: f, Rule: r.Name, Route: slices.Clone(r.Levels), PolicyVersion: in.version}
	if f.Credit > 0 {
		out.Route = append(out.Route, r.CreditLevels...)
	}
	slices.SortStableFunc(out.Route, func(a, b campaign.ApprovalLevel) int { return cmp.Compare(a.Stage, b.Stage) })
	for i := range out.Route {
		l := &out.Route[i]
		l.Level = i + 1
		if r.When.Programme != nil && *r.When.Programme && l.Kind == campaign.LevelPlan {
			l.UserID = f.Owner
		}
	}
	for _, c := range in.routes.Calendars {
		if c.Name == r.Calendar {
			out.Calendar = &c
		}
	}
	return out
}
