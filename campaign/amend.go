package campaign

import (
	"fmt"
	"reflect"
	"slices"
)

// CheckAmendment says whether plan next may replace plan now while the campaign is in
// flight: what was frozen or has happened stays as it is. It returns nil or one Error
// of CodeInvalidPlan with every field at fault. frozen means that targets are
// selected; waves is the campaign's progress.
func CheckAmendment(now, next *Plan, frozen bool, waves []WaveRun) error {
	v := &planCheck{}
	fixed := func(field string, a, b any) {
		if !reflect.DeepEqual(a, b) {
			v.add(field, CodeStateConflict, "cannot change any more: stop this campaign and plan another")
		}
	}
	fixed("unit", now.Unit, next.Unit)
	fixed("currency", now.Currency, next.Currency)
	fixed("programme_id", now.ProgrammeID, next.ProgrammeID)
	fixed("type", now.Type, next.Type)
	fixed("goal.outcome", now.Goal.Outcome, next.Goal.Outcome)
	fixed("simulated", now.Simulated, next.Simulated)
	if frozen {
		fixed("audience", now.Audience, next.Audience)
		if len(now.Waves) != len(next.Waves) {
			v.add("waves", CodeStateConflict, "the number of waves cannot change once targets are frozen")
		}
	}
	for _, w := range waves {
		i := w.Number - 1
		if i >= len(now.Waves) || i >= len(next.Waves) {
			continue
		}
		if frozen {
			fixed(waveField(i, "tiers"), now.Waves[i].Tiers, next.Waves[i].Tiers)
			fixed(waveField(i, "share_percent"), now.Waves[i].Share, next.Waves[i].Share)
			fixed(waveField(i, "linkage"), now.Waves[i].Linkage, next.Waves[i].Linkage)
			fixed(waveField(i, "follow_up"), now.Waves[i].FollowUp, next.Waves[i].FollowUp)
		}
		if w.Begun {
			fixed(waveField(i, ""), now.Waves[i], next.Waves[i])
		}
	}
	for _, l := range now.Budget {
		if kept := lineNamed(next.Budget, l.Line); kept == nil {
			v.add("budget", CodeStateConflict, "line "+l.Line+" cannot be removed any more: money is reserved on it")
		} else if kept.Driver != l.Driver || kept.Channel != l.Channel || kept.CountedUnit() != l.CountedUnit() {
			v.add("budget", CodeStateConflict, "line "+l.Line+" cannot change its driver, channel or unit any more")
		} else {
			v.keptCredit(l, *kept)
		}
	}
	if len(v.fields) == 0 {
		return nil
	}
	return &Error{Code: CodeInvalidPlan, Message: "the change touches what has happened already", Fields: v.fields}
}

// keptCredit checks that what customers may have been promised is not taken back.
func (v *planCheck) keptCredit(l, kept BudgetLine) {
	switch {
	case l.Credit == nil && kept.Credit == nil:
	case l.Credit == nil || kept.Credit == nil || !l.Credit.Alike(*kept.Credit):
		v.add("budget", CodeStateConflict, "line "+l.Line+" cannot change any more whether it gives prepaid credit, which and from where")
	case kept.Credit.Customers < l.Credit.Customers:
		v.add("budget", CodeStateConflict, "line "+l.Line+" cannot give prepaid credit to fewer customers than it may have promised it to")
	}
}

// NeedsApproval reports whether plan next says anything that was not signed for with
// plan now. Free to change is only what does less of the same: a wave later or with
// fewer of its channels, a shorter run, a lower budget line or contingency, prices that
// cost no more on a line whose amount falls by as much, so that it pays for nobody more.
func NeedsApproval(now, next *Plan) bool {
	return !reflect.DeepEqual(*now, unchanged(now, next))
}

// Added returns by how many minor units plan next raises the budget lines and the
// contingency of plan now, and whether that is all that needs an approval in it. What other
// lines fall by is not set off: each line was signed for what it is for. Prepaid credit is
// not just money, so more of it is not added.
func Added(now, next *Plan) (int64, bool) {
	same := unchanged(now, next)
	var added int64
	raise := func(from, to *int64) bool {
		more := *to - *from
		*to = *from
		sum, err := AddMinor(added, more)
		added = sum
		return more > 0 && err == nil
	}
	for i := range same.Budget {
		l := &same.Budget[i]
		signed := lineNamed(now.Budget, l.Line)
		if signed == nil || l.Amount == signed.Amount {
			continue
		}
		if l.Category == CategoryPrepaid || !raise(&signed.Amount, &l.Amount) {
			return 0, false
		}
	}
	if same.Contingency != now.Contingency && !raise(&now.Contingency, &same.Contingency) {
		return 0, false
	}
	return added, added > 0 && reflect.DeepEqual(*now, same)
}

// unchanged returns plan next with everything that is free to change as it is in plan now.
func unchanged(now, next *Plan) Plan {
	less := *next
	less.Waves = slices.Clone(next.Waves)
	less.Budget = slices.Clone(next.Budget)
	for i := range min(len(less.Waves), len(now.Waves)) {
		w, signed := &less.Waves[i], now.Waves[i]
		if w.StartAfter >= signed.StartAfter {
			w.StartAfter = signed.StartAfter
		}
		if len(w.Channels) > 0 && subsequence(w.Channels, signed.Channels) {
			w.Channels = signed.Channels
		}
	}
	if less.Schedule.RunFor <= now.Schedule.RunFor {
		less.Schedule.RunFor = now.Schedule.RunFor
	}
	for i := range less.Budget {
		l := &less.Budget[i]
		signed := lineNamed(now.Budget, l.Line)
		if signed == nil {
			continue
		}
		if l.CountedUnit() == signed.CountedUnit() && l.PriceList().neverDearer(signed.PriceList()) && l.paysNoMore(*signed) {
			l.Unit, l.UnitCost, l.Prices = signed.Unit, signed.UnitCost, signed.Prices
		}
		if l.Amount <= signed.Amount {
			l.Amount = signed.Amount
		}
	}
	if less.Contingency <= now.Contingency {
		less.Contingency = now.Contingency
	}
	return less
}

// subsequence reports whether part is whole with some elements left out.
func subsequence(part, whole []Channel) bool {
	for _, c := range whole {
		if len(part) > 0 && part[0] == c {
			part = part[1:]
		}
	}
	return len(part) == 0
}

func waveField(i int, part string) string {
	field := fmt.Sprintf("waves[%d]", i)
	if part != "" {
		field += "." + part
	}
	return field
}

func lineNamed(lines []BudgetLine, name string) *BudgetLine {
	for i := range lines {
		if lines[i].Line == name {
			return &lines[i]
		}
	}
	return nil
}
