package campaign

import (
	"fmt"
	"regexp"
	"slices"
)

// ProgrammeState is where a programme stands: proposed, then approved or rejected; an
// approved one is closed in the end.
type ProgrammeState string

// The states.
const (
	ProgrammeProposed ProgrammeState = "proposed"
	ProgrammeApproved ProgrammeState = "approved"
	ProgrammeRejected ProgrammeState = "rejected"
	ProgrammeClosed   ProgrammeState = "closed"
)

// ProgrammeTerms are what a programme is proposed and signed for: an umbrella budget, the
// campaigns that may be paid from it, and the person whose signature each of them needs.
// They never change.
type ProgrammeTerms struct {
	Name     string  `json:"name"`
	Unit     OrgUnit `json:"unit"`     // campaigns of this unit and those below it may be inside
	Owner    string  `json:"owner_id"` // user who signs for the campaigns inside
	Currency string  `json:"currency"` // ISO 4217
	Ceiling  int64   `json:"ceiling"`  // of all campaigns together, minor units
	// CampaignCeiling is the most that one campaign may spend, minor units.
	CampaignCeiling int64     `json:"campaign_ceiling"`
	Types           []Type    `json:"types,omitempty"`    // that campaigns may be of; every type when empty
	Channels        []Channel `json:"channels,omitempty"` // that campaigns may use; every channel when empty
	// MaximumAudience is the highest limit that a campaign may set its audience; 0 for none.
	MaximumAudience int64 `json:"maximum_audience,omitempty"`
	From            Date  `json:"from"`  // first day on which campaigns are taken in, UTC
	Until           Date  `json:"until"` // last day
}

// Programme is an umbrella budget that campaigns are paid from with one signature each.
type Programme struct {
	ID     string // UUID
	Number int64  // in its tenant, from 1
	State  ProgrammeState
	ProgrammeTerms
}

var uuidPattern = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// Validate returns nil or one Error of CodeInvalidParameter with every field at fault.
func (t ProgrammeTerms) Validate() error {
	v := &planCheck{}
	v.text("name", t.Name, 1, maxName)
	if !t.Unit.Valid() {
		v.add("unit", CodeInvalidParameter, "must be a path of org units such as operator/north/harbin")
	}
	if _, known := MinorDigits(t.Currency); !known {
		v.add("currency", CodeInvalidParameter, "must be the code of an active ISO 4217 currency such as CNY")
	}
	v.amount("ceiling", t.Ceiling, 1)
	v.amount("campaign_ceiling", t.CampaignCeiling, 1)
	if t.CampaignCeiling > t.Ceiling {
		v.add("campaign_ceiling", CodeAmountOutOfRange, "must not be more than the ceiling of the programme")
	}
	for i, x := range t.Types {
		oneOf(v, fmt.Sprintf("types[%d]", i), x, Types())
	}
	for i, x := range t.Channels {
		oneOf(v, fmt.Sprintf("channels[%d]", i), x, Channels())
	}
	v.between("maximum_audience", t.MaximumAudience, 0, maxAmount)
	for _, day := range []struct {
		field string
		date  Date
	}{{"from", t.From}, {"until", t.Until}} {
		if !day.date.Valid() {
			v.add(day.field, CodeInvalidParameter, "must be a day such as 2026-01-31")
		}
	}
	if t.Until < t.From {
		v.add("until", CodeInvalidParameter, "must not be before the first day")
	}
	if len(v.fields) == 0 {
		return nil
	}
	return &Error{Code: v.fields[0].Code, Message: fmt.Sprintf("the programme has %d fault(s)", len(v.fields)), Fields: v.fields}
}

// RoutedAs returns what decides who must sign for the programme: its whole ceiling, spent
// outside of any programme, once for each type of campaign that it allows. A route must
// be found for each of them.
func (t ProgrammeTerms) RoutedAs() []Facts {
	types, channels := t.Types, slices.Clone(t.Channels)
	if len(types) == 0 {
		types = Types()
	}
	if len(channels) == 0 {
		channels = Channels()
	}
	slices.Sort(channels)
	all := make([]Facts, len(types))
	for i, x := range types {
		all[i] = Facts{Amount: t.Ceiling, Currency: t.Currency, Audience: t.MaximumAudience, Type: x, Channels: channels, Unit: t.Unit}
		if t.MaximumAudience == 0 {
			all[i].Audience = maxAmount // no limit is more than any
		}
	}
	return all
}

// CheckSigner keeps duties apart: whoever signs for the campaigns inside does not decide
// about the programme. That its proposer does not, either, is the round's to say.
func (t ProgrammeTerms) CheckSigner(d Decide) error {
	if t.Owner == d.Actor.UserID || t.Owner == d.ActingFor {
		return Errorf(CodeSelfApproval, "the owner of a programme does not sign for its budget, nor does their delegate")
	}
	if d.Decision == DecisionReturn {
		return Errorf(CodeInvalidParameter, "a programme is approved or rejected; a changed one is another proposal")
	}
	return nil
}

// Admits says whether a plan may be carried out inside the programme on a day: CodeProgrammeClosed
// when it takes in no campaigns that day, CodeProgrammeNotAllowed with every field that it
// does not allow, CodeProgrammeCeiling when the plan asks for more than one campaign may.
// Whether the money is there is the ledger's to say.
func (p Programme) Admits(plan *Plan, today Date) error {
	switch {
	case p.State != ProgrammeApproved:
		return Errorf(CodeProgrammeClosed, "programme %d is %s: it takes in no campaigns", p.Number, p.State).With("state", string(p.State))
	case today < p.From || today > p.Until:
		return Errorf(CodeProgrammeClosed, "programme %d takes in campaigns from %s until %s", p.Number, p.From, p.Until).
			With("from", string(p.From)).With("until", string(p.Until))
	}
	v := &planCheck{}
	if !plan.Unit.Within(p.Unit) {
		v.add("unit", CodeProgrammeNotAllowed, fmt.Sprintf("must be %s or below", p.Unit))
	}
	if plan.Currency != p.Currency {
		v.add("currency", CodeProgrammeNotAllowed, "must be the programme's, "+p.Currency)
	}
	if len(p.Types) > 0 && !slices.Contains(p.Types, plan.Type) {
		v.add("type", CodeProgrammeNotAllowed, fmt.Sprintf("must be one of %v", p.Types))
	}
	for i, c := range plan.Channels {
		if len(p.Channels) > 0 && !slices.Contains(p.Channels, c.Channel) {
			v.add(fmt.Sprintf("channels[%d].channel", i), CodeProgrammeNotAllowed, fmt.Sprintf("must be one of %v", p.Channels))
		}
	}
	if most := plan.Audience.MaximumTargets; p.MaximumAudience > 0 && (most == 0 || most > p.MaximumAudience) {
		v.add("audience.maximum_targets", CodeProgrammeNotAllowed, fmt.Sprintf("must be from 1 to %d", p.MaximumAudience))
	}
	if len(v.fields) > 0 {
		return &Error{Code: CodeProgrammeNotAllowed, Message: fmt.Sprintf("programme %d does not allow %d thing(s) of the plan", p.Number, len(v.fields)), Fields: v.fields}
	}
	total, err := plan.BudgetTotal()
	if err != nil {
		return err
	}
	if total > p.CampaignCeiling {
		return Errorf(CodeProgrammeCeiling, "the plan asks for %s; a campaign of programme %d may spend %s at most",
			Money{Minor: total, Currency: p.Currency}, p.Number, Money{Minor: p.CampaignCeiling, Currency: p.Currency}).
			With("ceiling", p.CampaignCeiling).With("wanted", total)
	}
	return nil
}
