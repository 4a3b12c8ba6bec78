package campaign_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/campaign"
)

var monday = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

func level(n, stage int, name string, change ...func(*campaign.ApprovalLevel)) campaign.ApprovalLevel {
	l := campaign.ApprovalLevel{Level: n, Stage: stage, Name: name, Action: campaign.ActApprovalManager, DueAfter: 3600}
	for _, f := range change {
		f(&l)
	}
	return l
}

func needs(n int) func(*campaign.ApprovalLevel) {
	return func(l *campaign.ApprovalLevel) { l.Required = n }
}

func rejectsLate(l *campaign.ApprovalLevel) { l.OnExpiry = campaign.ExpiryReject }

func onlyBy(user string) func(*campaign.ApprovalLevel) {
	return func(l *campaign.ApprovalLevel) { l.UserID = user }
}

// testRoutes are routes of every shape.
var testRoutes = map[string][]campaign.ApprovalLevel{
	"one":       {level(1, 1, "a")},
	"two":       {level(1, 1, "a"), level(2, 2, "b")},
	"old":       {level(1, 0, "a"), level(2, 0, "b")}, // without stages
	"parallel":  {level(1, 1, "a"), level(2, 2, "b"), level(3, 2, "c")},
	"two of n":  {level(1, 1, "a", needs(2)), level(2, 2, "b")},
	"all":       {level(1, 1, "a", needs(2)), level(2, 1, "b"), level(3, 2, "c", needs(3)), level(4, 3, "d", rejectsLate)},
	"one owner": {level(1, 1, "a", onlyBy("owner"))},
}

func round(route string, change ...func(*campaign.Approval)) *campaign.Approval {
	a := campaign.Approval{Round: 1, Revision: 3, Digest: "d", Amount: 100, Credit: 7, Requester: "requester", Route: testRoutes[route]}
	for _, f := range change {
		f(&a)
	}
	return campaign.NewApproval(a, monday)
}

// say is a decision in short: who:level, who/for:level for a delegate, and after it
// ! to return, ? to reject.
func say(who string, actingFor string, n int, what campaign.Decision) campaign.Decide {
	d := campaign.Decide{Revision: 3, Digest: "d", Level: n, Decision: what, ActingFor: actingFor, SignOffID: who + actingFor}
	d.Actor = campaign.Actor{UserID: who, Name: who}
	if what != campaign.DecisionApprove {
		d.Words = "because"
	}
	return d
}

func waiting(a *campaign.Approval) (levels []int) {
	for _, w := range a.Waiting {
		levels = append(levels, w.Level)
	}
	return levels
}

func TestARoundGoesThroughItsStages(t *testing.T) {
	approve := campaign.DecisionApprove
	for name, steps := range map[string][]struct {
		who     string
		level   int
		code    campaign.Code
		waiting []int
	}{
		"one": {{"m", 1, "", nil}},
		"two": {{"m", 2, campaign.CodeStateConflict, []int{1}}, {"m", 1, "", []int{2}}, {"m", 2, campaign.CodeSameActor, []int{2}}, {"f", 2, "", nil}},
		"old": {{"m", 1, "", []int{2}}, {"f", 2, "", nil}},
		"all": {{"a", 2, "", []int{1}}, {"b", 1, "", []int{1}}, {"b", 1, campaign.CodeSameActor, []int{1}}, {"c", 1, "", []int{3}}, {"d", 3, "", []int{3}}, {"e", 3, "", []int{3}}, {"f", 3, "", []int{4}}, {"g", 4, "", nil}},
		"two of n": {
			{"a", 1, "", []int{1}}, {"a", 2, campaign.CodeSameActor, []int{1}}, {"b", 2, campaign.CodeStateConflict, []int{1}}, {"b", 1, "", []int{2}}, {"c", 2, "", nil},
		},
		"parallel":  {{"m", 1, "", []int{2, 3}}, {"x", 3, "", []int{2}}, {"x", 2, campaign.CodeSameActor, []int{2}}, {"y", 3, campaign.CodeStateConflict, []int{2}}, {"y", 2, "", nil}},
		"one owner": {{"m", 1, campaign.CodeForbidden, []int{1}}, {"owner", 1, "", nil}},
	} {
		a := round(name)
		for i, s := range steps {
			d := say(s.who, "", s.level, approve)
			err := a.Check(d)
			require.Equal(t, s.code, campaign.CodeOf(err), "%s, step %d: %v", name, i, err)
			if err == nil {
				a.Count(d, monday.Add(time.Minute))
			}
			require.Equal(t, s.waiting, waiting(a), "%s, step %d", name, i)
		}
		require.Equal(t, campaign.ApprovalApproved, a.Result, name)
		require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(a.Check(say("z", "", 1, approve))))
	}
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf((*campaign.Approval)(nil).Check(say("z", "", 1, approve))))
	outdated := round("one")
	require.True(t, outdated.Withdraw(campaign.ApprovalOutdated, ""))
	require.Equal(t, campaign.CodeAmendmentOutdated, campaign.CodeOf(outdated.Check(say("z", "", 1, approve))))
}

func TestWhoeverReturnsOrRejectsEndsTheRound(t *testing.T) {
	for what, result := range map[campaign.Decision]campaign.ApprovalResult{
		campaign.DecisionReturn: campaign.ApprovalReturned, campaign.DecisionReject: campaign.ApprovalRejected,
	} {
		a := round("parallel")
		a.Count(say("m", "", 1, campaign.DecisionApprove), monday)
		mute := say("x", "", 3, what)
		mute.Words = ""
		require.Equal(t, campaign.CodeReasonRequired, campaign.CodeOf(a.Check(mute)))
		d := say("x", "", 3, what)
		d.Fields = []campaign.FieldNote{{Field: "budget[0].amount", Words: "half of it"}}
		require.Equal(t, what == campaign.DecisionReturn, a.Check(d) == nil, "only a return has fields")
		a.Count(d, monday)
		require.Equal(t, result, a.Result)
		require.Empty(t, a.Waiting)
		require.Equal(t, d.Fields, a.Signatures[1].Fields)
		_, open := a.Current()
		require.False(t, open)
	}
	require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(round("one").Check(say("m", "", 1, "perhaps"))))
}

func TestDutiesStaySeparateAlsoByDelegation(t *testing.T) {
	for name, c := range map[string]struct {
		who, actingFor string
		level          int
		change         func(*campaign.Decide)
		code           campaign.Code
	}{
		"another person":                 {"x", "", 2, nil, ""},
		"another person's delegate":      {"x", "y", 2, nil, ""},
		"the requester":                  {"requester", "", 2, nil, campaign.CodeSelfApproval},
		"the requester as a delegate":    {"requester", "y", 2, nil, campaign.CodeSelfApproval},
		"the requester's delegate":       {"x", "requester", 2, nil, campaign.CodeSelfApproval},
		"who signed":                     {"m", "", 2, nil, campaign.CodeSameActor},
		"who signed, as a delegate":      {"m", "y", 2, nil, campaign.CodeSameActor},
		"the delegate of who signed":     {"x", "m", 2, nil, campaign.CodeSameActor},
		"for whom somebody signed":       {"away", "", 2, nil, campaign.CodeSameActor},
		"another delegate of theirs":     {"x", "away", 2, nil, campaign.CodeSameActor},
		"another plan":                   {"x", "", 2, func(d *campaign.Decide) { d.Digest = "e" }, campaign.CodeVersionChanged},
		"another revision":               {"x", "", 2, func(d *campaign.Decide) { d.Revision = 4 }, campaign.CodeVersionChanged},
		"no level":                       {"x", "", 9, nil, campaign.CodeStateConflict},
		"level zero":                     {"x", "", 0, nil, campaign.CodeStateConflict},
		"the level that is done":         {"x", "", 1, nil, campaign.CodeStateConflict},
		"twice, though the level's done": {"m", "", 1, nil, campaign.CodeSameActor},
	} {
		a := round("parallel")
		a.Count(say("m", "away", 1, campaign.DecisionApprove), monday)
		d := say(c.who, c.actingFor, c.level, campaign.DecisionApprove)
		if c.change != nil {
			c.change(&d)
		}
		require.Equal(t, c.code, campaign.CodeOf(a.Check(d)), name)
	}
}

func TestDueTimesAreWorkingTime(t *testing.T) {
	friday := time.Date(2026, 11, 27, 16, 30, 0, 0, time.UTC)
	office := []campaign.Window{{From: "09:00", To: "17:00"}}
	week := &campaign.Calendar{Name: "office", Zone: "UTC", Week: campaign.Week{Monday: office, Tuesday: office, Wednesday: office, Thursday: office, Friday: office}}
	a := campaign.NewApproval(campaign.Approval{Route: testRoutes["two"], Calendar: week}, friday)
	require.Equal(t, time.Date(2026, 11, 30, 9, 30, 0, 0, time.UTC), a.DueAt(), "half an hour on Friday, half an hour on Monday")
	remind, due, expire := a.Route[0].Clock(week, friday)
	require.Equal(t, []time.Time{friday.Add(30 * time.Minute), a.DueAt(), a.DueAt().Add(time.Hour)}, []time.Time{remind, due, expire})
	a.Count(say("m", "", 1, campaign.DecisionApprove), time.Date(2026, 11, 30, 9, 0, 0, 0, time.UTC))
	require.Equal(t, time.Date(2026, 11, 30, 10, 0, 0, 0, time.UTC), a.DueAt(), "the next stage begins when the one before is done")
	require.Equal(t, friday.Add(time.Hour), campaign.NewApproval(campaign.Approval{Route: testRoutes["two"]}, friday).DueAt(), "round the clock")
}

func TestLateLevelsEscalateAndExpireAndAreNeverApproved(t *testing.T) {
	a := round("all")
	require.True(t, a.Escalate(2))
	_, w, _ := a.At(2)
	require.True(t, w.Escalated)
	require.Equal(t, monday.Add(2*time.Hour), w.DueAt, "as long again")
	_, w, _ = a.At(1)
	require.False(t, w.Escalated, "the level beside it has its own time")
	require.Equal(t, monday.Add(time.Hour), a.DueAt(), "the most urgent")
	require.False(t, a.Escalate(3))
	require.False(t, a.Expire(3), "a level that does not wait cannot expire")
	require.True(t, a.Expire(1))
	require.Equal(t, campaign.ApprovalExpired, a.Result)
	require.Equal(t, 1, a.Expired)
	require.False(t, a.Expire(2), "once")

	last := round("all", func(a *campaign.Approval) { a.Route = []campaign.ApprovalLevel{level(1, 1, "d", rejectsLate)} })
	require.True(t, last.Expire(1))
	require.Equal(t, campaign.ApprovalRejected, last.Result, "as the level says")

	taken := round("parallel")
	require.True(t, taken.Withdraw(campaign.ApprovalWithdrawn, "a mistake"))
	require.False(t, taken.Withdraw(campaign.ApprovalOutdated, ""))
	require.Equal(t, "a mistake", taken.Words)
	require.True(t, taken.DueAt().IsZero())
}

func TestALevelSignsForItsMoney(t *testing.T) {
	a := round("one")
	require.EqualValues(t, 100, a.AmountOf(campaign.ApprovalLevel{}))
	require.EqualValues(t, 7, a.AmountOf(campaign.ApprovalLevel{Kind: campaign.LevelCredit}))
}

// TestNobodyCanBendARound lets people, delegates, clocks and edits do whatever they like
// to a round and holds it to its rules:
//
//	A1 it is approved only when each level has its signatures, for this very plan
//	A2 nobody who asked for it, nor for whom or by whom a requester acts, has signed
//	A3 nobody is behind two signatures
func TestNobodyCanBendARound(t *testing.T) {
	shapes := []string{"one", "two", "old", "parallel", "two of n", "all", "one owner"}
	people := []string{"requester", "owner", "a", "b", "c", "d", "e", "f", "g", "h"}
	rapid.Check(t, func(t *rapid.T) {
		a := round(rapid.SampledFrom(shapes).Draw(t, "route"))
		now, stale := monday, false
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 90).Draw(t, "minutes")) * time.Minute)
			before := *a
			before.Signatures = slices.Clone(a.Signatures)
			switch rapid.IntRange(0, 20).Draw(t, "what") {
			case 0:
				stale = true // the plan is edited: what is signed for it no longer fits the round
			case 1:
				a.Escalate(rapid.IntRange(0, 5).Draw(t, "level"))
			case 2:
				if rapid.IntRange(0, 9).Draw(t, "rarely") == 0 {
					a.Expire(rapid.IntRange(1, 5).Draw(t, "level"))
				}
			case 3:
				if rapid.IntRange(0, 9).Draw(t, "rarely") == 0 {
					a.Withdraw(campaign.ApprovalWithdrawn, "x")
				}
			default:
				what := campaign.DecisionApprove
				if rapid.IntRange(0, 30).Draw(t, "no") == 0 {
					what = rapid.SampledFrom([]campaign.Decision{campaign.DecisionReturn, campaign.DecisionReject}).Draw(t, "decision")
				}
				actingFor := ""
				if rapid.Bool().Draw(t, "delegate") {
					actingFor = rapid.SampledFrom(people).Draw(t, "for")
				}
				n := rapid.IntRange(0, 5).Draw(t, "level")
				if len(a.Waiting) > 0 && rapid.IntRange(0, 3).Draw(t, "mostly") > 0 {
					n = a.Waiting[0].Level
				}
				d := say(rapid.SampledFrom(people).Draw(t, "who"), actingFor, n, what)
				if stale {
					d.Digest = "edited"
				}
				stale = stale && rapid.Bool().Draw(t, "still")
				if a.Check(d) == nil {
					a.Count(d, now)
				}
			}
			holds(t, &before, a)
		}
	})
}

func holds(t *rapid.T, before, a *campaign.Approval) {
	behind := map[string]int{}
	approvals := map[int]int{}
	for _, s := range a.Signatures {
		who := []string{s.UserID}
		if s.ActingFor != "" && s.ActingFor != s.UserID {
			who = append(who, s.ActingFor)
		}
		for _, u := range who {
			if behind[u]++; behind[u] > 1 || u == a.Requester {
				t.Fatalf("A2, A3: %s is behind %d signatures", u, behind[u])
			}
		}
		if s.Decision == campaign.DecisionApprove {
			approvals[s.Level]++
		}
	}
	done := true
	for i, l := range a.Route {
		enough := approvals[l.Level] >= l.Needs()
		if approvals[l.Level] > l.Needs() {
			t.Fatalf("level %d has %d signatures and needs %d", l.Level, approvals[l.Level], l.Needs())
		}
		done = done && enough
		if i > 0 && approvals[l.Level] > 0 && (l.Stage == 0 || l.Stage != a.Route[i-1].Stage) {
			for _, earlier := range a.Route[:i] {
				if approvals[earlier.Level] < earlier.Needs() {
					t.Fatalf("level %d was signed before level %d was done", l.Level, earlier.Level)
				}
			}
		}
	}
	switch {
	case (a.Result == campaign.ApprovalApproved) != done:
		t.Fatalf("A1: result %q, all levels done: %v", a.Result, done)
	case a.Open() == (a.Result != ""):
		t.Fatalf("a round waits or has a result: %v %q", waiting(a), a.Result)
	case before.Result != "" && fmt.Sprint(*before) != fmt.Sprint(*a):
		t.Fatalf("a round that ended changed")
	}
}
