package campaign

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxName       = 200
	maxText       = 2000
	maxLines      = 50
	maxWaves      = 50
	maxSeconds    = 3 * 366 * 24 * 3600
	maxAmount     = 1_000_000_000_000_000 // ten trillion currency units: far above any budget, far below overflow
	maxFilterSize = 10_000
)

// Validate checks everything about p that can be known without data: it returns nil
// or one Error of CodeInvalidPlan with every field at fault. Whether the audience
// filters compile is checked by the targeting package.
func (p *Plan) Validate() error {
	v := &planCheck{}
	v.text("name", p.Name, 1, maxName)
	oneOf(v, "type", p.Type, Types())
	if !p.Unit.Valid() {
		v.add("unit", CodeInvalidParameter, "must be a path of org units such as operator/north/harbin")
	}
	if _, known := MinorDigits(p.Currency); !known {
		v.add("currency", CodeInvalidParameter, "must be the code of an active ISO 4217 currency such as CNY")
	}
	v.goal(p.Goal)
	v.budget(p)
	if p.ProgrammeID != "" && !uuidPattern.MatchString(p.ProgrammeID) {
		v.add("programme_id", CodeProgrammeNotFound, "there is no such programme")
	}
	v.audience(p.Audience)
	v.text("offer.name", p.Offer.Name, 1, maxName)
	v.text("offer.product", p.Offer.Product, 1, maxName)
	v.text("offer.description", p.Offer.Description, 0, maxText)
	v.channels(p)
	v.waves(p)
	v.between("review.after_seconds", p.Review.After, 1, maxSeconds)
	v.between("review.decide_within_seconds", p.Review.DecideWithin, 1, maxSeconds)
	oneOf(v, "review.default", p.Review.Default, []ReviewDefault{ReviewDefaultKeep, ReviewDefaultAccept})
	v.between("schedule.run_for_seconds", p.Schedule.RunFor, 1, maxSeconds)
	v.between("schedule.settle_for_seconds", p.Schedule.SettleFor, 0, maxSeconds)
	if p.Review.After >= p.Schedule.RunFor {
		v.add("review.after_seconds", CodeInvalidParameter, "the review must come before running ends (schedule.run_for_seconds)")
	}
	oneOf(v, "measurement.coverage", p.Measurement.Coverage, []Coverage{CoverageEveryone, CoverageContacted})
	v.text("measurement.source", p.Measurement.Source, 1, maxName)
	if len(v.fields) == 0 {
		return nil
	}
	return &Error{Code: CodeInvalidPlan, Message: fmt.Sprintf("the plan has %d fault(s)", len(v.fields)), Fields: v.fields}
}

type planCheck struct{ fields []FieldError }

func (v *planCheck) add(field string, code Code, message string) {
	v.fields = append(v.fields, FieldError{Field: field, Code: code, Message: message})
}

func (v *planCheck) text(field, s string, minLen, maxLen int) {
	if fault := TextFault(s); fault != "" {
		v.add(field, CodeInvalidText, fault)
		return
	}
	if n := utf8.RuneCountInString(strings.TrimSpace(s)); n < minLen || n > maxLen {
		v.add(field, CodeInvalidText, fmt.Sprintf("must have %d to %d characters, has %d", minLen, maxLen, n))
	}
}

func (v *planCheck) between(field string, n, low, high int64) {
	if n < low || n > high {
		v.add(field, CodeInvalidParameter, fmt.Sprintf("must be from %d to %d, is %d", low, high, n))
	}
}

func (v *planCheck) amount(field string, n, low int64) {
	if n < low || n > maxAmount {
		v.add(field, CodeAmountOutOfRange, fmt.Sprintf("must be from %d to %d minor units, is %d", low, int64(maxAmount), n))
	}
}

func oneOf[T ~string](v *planCheck, field string, got T, allowed []T) {
	if slices.Contains(allowed, got) {
		return
	}
	names := make([]string, len(allowed))
	values := make([]any, len(allowed))
	for i, a := range allowed {
		names[i], values[i] = string(a), string(a)
	}
	v.fields = append(v.fields, FieldError{
		Field: field, Code: CodeInvalidParameter, Allowed: values,
		Message: "must be one of " + strings.Join(names, ", "),
	})
}

func (v *planCheck) goal(g Goal) {
	v.text("goal.metric", g.Metric, 1, maxName)
	oneOf(v, "goal.outcome", g.Outcome, OutcomeKinds())
	v.between("goal.target", g.Target, 1, maxAmount)
	v.amount("goal.unit_benefit", g.UnitBenefit, 1)
}

func (v *planCheck) budget(p *Plan) {
	if len(p.Budget) == 0 || len(p.Budget) > maxLines {
		v.add("budget", CodeInvalidPlan, fmt.Sprintf("must have 1 to %d lines", maxLines))
	}
	seen := map[string]bool{}
	perContact := map[Channel]bool{}
	for i, l := range p.Budget {
		at := fmt.Sprintf("budget[%d].", i)
		if !identifier(l.Line) {
			v.add(at+"line", CodeInvalidParameter, "must be a short name of lower-case letters, digits and _, starting with a letter")
		}
		if seen[l.Line] {
			v.add(at+"line", CodeInvalidParameter, "is already the name of another line")
		}
		seen[l.Line] = true
		oneOf(v, at+"category", l.Category, Categories())
		oneOf(v, at+"driver", l.Driver, Drivers())
		v.amount(at+"amount", l.Amount, 1)
		if l.Driver == DriverPerContact {
			oneOf(v, at+"channel", l.Channel, Channels())
			if perContact[l.Channel] {
				v.add(at+"channel", CodeInvalidParameter, "has a per-contact line already")
			}
			perContact[l.Channel] = true
		} else if l.Channel != "" {
			v.add(at+"channel", CodeInvalidParameter, "belongs to per_contact lines only")
		}
		if l.Category == CategoryPrepaid {
			v.credit(at, l, p.Simulated)
			continue
		}
		if l.Credit != nil {
			v.add(at+"credit", CodeInvalidParameter, "belongs to lines of prepaid_credit only")
		}
		v.pricing(at, l)
	}
	v.amount("contingency", p.Contingency, 0)
	if total, err := p.BudgetTotal(); err != nil || total > maxAmount {
		v.add("budget", CodeAmountOutOfRange, "the lines and the contingency add up to more than any budget can be")
	}
}

// pricing checks what a line counts and what that costs.
func (v *planCheck) pricing(at string, l BudgetLine) {
	if l.Driver == DriverFixed {
		if l.UnitCost != 0 {
			v.add(at+"unit_cost", CodeInvalidParameter, "a fixed line has no unit cost")
		}
		if l.Unit != "" {
			v.add(at+"unit", CodeInvalidParameter, "a fixed line counts nothing")
		}
		if len(l.Prices) > 0 {
			v.add(at+"prices", CodeInvalidParameter, "a fixed line has no prices")
		}
		return
	}
	if allowed := l.units(); len(allowed) > 0 {
		oneOf(v, at+"unit", l.CountedUnit(), allowed)
	}
	if len(l.Prices) == 0 {
		v.amount(at+"unit_cost", l.UnitCost, 1)
		return
	}
	if l.UnitCost != 0 {
		v.add(at+"unit_cost", CodeInvalidParameter, "cannot be given together with prices; it is short for one linear price for every day")
	}
	v.prices(at+"prices", l.Prices)
	v.everyDay(at+"prices", l.Prices)
}

func (v *planCheck) audience(a Audience) {
	v.filter("audience.filter", a.Filter)
	v.tree("audience.tree", a.Tree, a.Filter)
	if len(a.Tiers) == 0 {
		v.add("audience.tiers", CodeInvalidPlan, "needs at least one rule, e.g. tier general with filter true")
	}
	seen := map[Tier]bool{}
	for i, t := range a.Tiers {
		at := fmt.Sprintf("audience.tiers[%d].", i)
		oneOf(v, at+"tier", t.Tier, []Tier{TierCore, TierGeneral, TierBasic})
		if seen[t.Tier] {
			v.add(at+"tier", CodeInvalidParameter, "has a rule already; join the two filters with ||")
		}
		seen[t.Tier] = true
		v.filter(at+"filter", t.Filter)
		v.tree(at+"tree", t.Tree, t.Filter)
	}
	v.percent("audience.control_percent", a.ControlPercent, 50)
	v.text("audience.control_salt", a.ControlSalt, 0, 100)
	v.control(a)
	v.between("audience.maximum_targets", a.MaximumTargets, 0, maxAmount)
}

// maxStrata is by how many attributes an exact split may be divided.
const maxStrata = 5

// control checks how the control group is drawn.
func (v *planCheck) control(a Audience) {
	if a.ControlMethod != "" {
		oneOf(v, "audience.control_method", a.ControlMethod, ControlMethods())
	}
	if len(a.ControlStrata) > maxStrata {
		v.add("audience.control_strata", CodeInvalidParameter, fmt.Sprintf("has more than %d attributes", maxStrata))
	}
	if len(a.ControlStrata) > 0 && a.ControlMethod != ControlExact {
		v.add("audience.control_strata", CodeInvalidParameter, "belongs to the control method exact only")
	}
	if a.ControlAccount != "" && a.ControlMethod != "" && a.ControlMethod != ControlByHash {
		v.add("audience.control_account", CodeInvalidParameter, "belongs to the control method hash only")
	}
	if (a.ControlList != "") != (a.ControlMethod == ControlByList) {
		v.add("audience.control_list", CodeInvalidParameter, "belongs to the control method list, which needs it")
	}
	v.text("audience.control_list", a.ControlList, 0, 200)
	v.percent("audience.count_tolerance_percent", a.CountTolerance, 50)
}

// percent checks a share of at most so many percent, with at most two decimals.
func (v *planCheck) percent(field string, share, most float64) {
	hundredths := share * 100
	if !(share >= 0 && share <= most) || math.Abs(hundredths-math.Round(hundredths)) > 1e-9 {
		v.add(field, CodeInvalidParameter, fmt.Sprintf("must be from 0 to %g with at most two decimals", most))
	}
}

func (v *planCheck) filter(field, text string) {
	if fault := TextFault(text); fault != "" {
		v.add(field, CodeInvalidText, fault)
		return
	}
	switch {
	case strings.TrimSpace(text) == "":
		v.add(field, CodeInvalidFilter, "is empty; write true to mean every customer")
	case len(text) > maxFilterSize:
		v.add(field, CodeInvalidFilter, fmt.Sprintf("is longer than %d bytes", maxFilterSize))
	}
}

// tree checks that the tree of a filter generates its text.
func (v *planCheck) tree(field string, tree *Condition, text string) {
	for _, f := range CheckTree(tree, text) {
		at := field
		if f.Field != "" {
			at += "." + f.Field
		}
		v.add(at, f.Code, f.Message)
	}
}

func (v *planCheck) channels(p *Plan) {
	if len(p.Channels) == 0 {
		v.add("channels", CodeInvalidPlan, "needs at least one channel")
	}
	seen := map[Channel]bool{}
	for i, c := range p.Channels {
		at := fmt.Sprintf("channels[%d].", i)
		oneOf(v, at+"channel", c.Channel, Channels())
		if seen[c.Channel] {
			v.add(at+"channel", CodeInvalidParameter, "is planned already")
		}
		seen[c.Channel] = true
		v.text(at+"text", c.Text, 1, maxText)
		v.text(at+"sender", c.Sender, 0, 20)
		if !(c.SuccessRate >= 0 && c.SuccessRate <= 1) {
			v.add(at+"success_rate", CodeInvalidParameter, "must be from 0 to 1")
		}
		if c.Channel.Pull() {
			v.between(at+"maximum_attempts", int64(c.MaximumAttempts), 1, 20)
			v.between(at+"retry_after_seconds", c.RetryAfter, 0, maxSeconds)
		} else {
			v.between(at+"maximum_attempts", int64(c.MaximumAttempts), 0, 0)
			v.between(at+"per_second", int64(c.PerSecond), 0, 1_000_000)
		}
		line, ok := p.ContactLine(c.Channel)
		if !ok {
			v.add(at+"channel", CodeInvalidPlan, "has no per_contact budget line, so its cost cannot be reserved")
		}
		if line.CountedUnit() == UnitMinute {
			v.between(at+"maximum_minutes", int64(c.MaximumMinutes), 1, 24*60)
		} else if c.MaximumMinutes != 0 {
			v.add(at+"maximum_minutes", CodeInvalidParameter, "belongs to calls whose budget line is priced per minute only")
		}
	}
}

func (v *planCheck) waves(p *Plan) {
	if len(p.Waves) == 0 || len(p.Waves) > maxWaves {
		v.add("waves", CodeInvalidPlan, fmt.Sprintf("must have 1 to %d waves", maxWaves))
	}
	rules := map[Tier]bool{}
	for _, t := range p.Audience.Tiers {
		rules[t.Tier] = true
	}
	taken := map[Tier]float64{} // by waves that share it, the sum of their shares; 100 by one alone
	for i, w := range p.Waves {
		at := fmt.Sprintf("waves[%d].", i)
		if w.Number != i+1 {
			v.add(at+"number", CodeInvalidParameter, fmt.Sprintf("must be %d: waves are numbered from 1 in order", i+1))
		}
		if len(w.Tiers) == 0 && w.FollowUp == nil {
			v.add(at+"tiers", CodeInvalidPlan, "needs at least one tier")
		}
		v.percent(at+"share_percent", w.Share, 100)
		v.linked(at, w)
		for _, t := range w.Tiers {
			if !rules[t] {
				v.add(at+"tiers", CodeInvalidParameter, fmt.Sprintf("tier %q has no rule in audience.tiers", t))
			}
			share := w.Share
			if share == 0 {
				share = 100
			}
			if taken[t] += share; taken[t] > 100+1e-9 {
				v.add(at+"tiers", CodeInvalidParameter, fmt.Sprintf("tier %q is in an earlier wave; waves that share it need shares that add up to 100", t))
			}
		}
		v.between(at+"start_after_seconds", w.StartAfter, 0, p.Schedule.RunFor)
		v.between(at+"channel_window_seconds", w.ChannelWindow, 1, maxSeconds)
		if len(w.Channels) == 0 {
			v.add(at+"channels", CodeInvalidPlan, "needs at least one channel")
		}
		used := map[Channel]bool{}
		for _, c := range w.Channels {
			if _, ok := p.Channel(c); !ok {
				v.add(at+"channels", CodeInvalidParameter, fmt.Sprintf("channel %q is not planned in channels", c))
			}
			if used[c] {
				v.add(at+"channels", CodeInvalidParameter, fmt.Sprintf("channel %q appears twice", c))
			}
			used[c] = true
		}
	}
	for _, t := range p.Audience.Tiers {
		switch share := taken[t.Tier]; {
		case share == 0:
			v.add("waves", CodeInvalidPlan, fmt.Sprintf("no wave contacts tier %q", t.Tier))
		case share < 100-1e-9:
			v.add("waves", CodeInvalidPlan, fmt.Sprintf("the shares of tier %q add up to %g and not to 100", t.Tier, share))
		}
	}
}

// linked checks how a wave's channels work together and whom it follows up.
func (v *planCheck) linked(at string, w WavePlan) {
	if w.Linkage != "" {
		oneOf(v, at+"linkage", w.Linkage, []Linkage{LinkageSeries, LinkagePreferred})
	}
	if w.Linkage == LinkagePreferred && len(w.Channels) < 2 {
		v.add(at+"linkage", CodeInvalidParameter, "preferred needs two channels or more to choose from")
	}
	f := w.FollowUp
	if f == nil {
		return
	}
	if len(w.Tiers) > 0 || w.Share != 0 || w.Linkage == LinkagePreferred {
		v.add(at+"follow_up", CodeInvalidParameter, "a wave that follows up has no tiers, share or preferred channels of its own")
	}
	if len(f.Of) == 0 {
		v.add(at+"follow_up.of", CodeInvalidPlan, "needs at least one wave")
	}
	for _, n := range f.Of {
		if n < 1 || n >= w.Number {
			v.add(at+"follow_up.of", CodeInvalidParameter, "names waves before this one")
			break
		}
	}
	oneOf(v, at+"follow_up.outcome", f.Outcome, OutcomeKinds())
	if f.Without != "" {
		oneOf(v, at+"follow_up.without", f.Without, OutcomeKinds())
	}
	if f.Without == f.Outcome {
		v.add(at+"follow_up.without", CodeInvalidParameter, "is the outcome itself, so that nobody is left")
	}
	v.between(at+"follow_up.after_seconds", f.After, 0, maxSeconds)
}

// TextFault says what makes s unfit as text a person reads, or returns "": invalid
// UTF-8, control characters other than newline and tab, and bidirectional overrides,
// which can make an approver see something else than is stored.
func TextFault(s string) string {
	if !utf8.ValidString(s) {
		return "is not valid UTF-8"
	}
	for _, r := range s {
		switch {
		case r == '\n' || r == '\t':
		case unicode.IsControl(r):
			return fmt.Sprintf("has the control character U+%04X; remove it", r)
		case r >= 0x202A && r <= 0x202E, r >= 0x2066 && r <= 0x2069:
			return fmt.Sprintf("has the text-direction override U+%04X; remove it", r)
		}
	}
	return ""
}

func identifier(s string) bool {
	if s == "" || len(s) > 40 || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for _, r := range s {
		if r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9') {
			return false
		}
	}
	return true
}
