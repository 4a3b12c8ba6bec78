package campaign

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func conditionOf(t *testing.T, text string) Condition {
	var c Condition
	require.NoError(t, json.Unmarshal([]byte(text), &c), text)
	return c
}

func TestConditionGeneratesItsFilter(t *testing.T) {
	for text, want := range map[string]string{
		`{"field":"age","operator":">=","values":[18]}`:                                                             `age >= 18`,
		`{"field":"age","operator":"between","values":[18,30]}`:                                                     `age >= 18 && age <= 30`,
		`{"not":{"field":"age","operator":"between","values":[18,30]}}`:                                             `!(age >= 18 && age <= 30)`,
		`{"field":"arpu","operator":"in","values":[0.5,-1.25,1.0]}`:                                                 `arpu in [0.5, -1.25, 1.0]`,
		`{"field":"city","operator":"not_in","values":["a\"b\\","北京\n\u0007"]}`:                                     `!(city in ["a\"b\\", "北京\n\u0007"])`,
		`{"field":"city","operator":"starts_with","values":["x"]}`:                                                  `city.startsWith("x")`,
		`{"field":"city","operator":"is_empty"}`:                                                                    `city == null`,
		`{"field":"joined_at","operator":"<","values":[{"days_ago":30}]}`:                                           `joined_at < now - days(30)`,
		`{"field":"joined_at","operator":"<","values":[{"time":"2026-01-31T00:00:00Z"}]}`:                           `joined_at < timestamp("2026-01-31T00:00:00Z")`,
		`{"function":"contacted","values":["sms",{"days":30}]}`:                                                     `contacted("sms", days(30))`,
		`{"all":[{"any":[{"field":"a","operator":"==","values":[true]},{"function":"f"}]}]}`:                        `a == true || f()`,
		`{"all":[{"all":[{"any":[{"function":"f"},{"function":"g"}]}]},{"function":"h"}]}`:                          `(f() || g()) && h()`,
		`{"any":[{"field":"age","operator":"between","values":[1,2]},{"all":[{"function":"f"},{"function":"g"}]}]}`: `(age >= 1 && age <= 2) || (f() && g())`,
	} {
		c := conditionOf(t, text)
		got, err := c.Filter()
		require.NoError(t, err, text)
		require.Equal(t, want, got)
		require.Empty(t, CheckTree(&c, want))
		require.Equal(t, CodeFilterMismatch, CheckTree(&c, want+" ")[0].Code)
		back, err := json.Marshal(c)
		require.NoError(t, err)
		require.JSONEq(t, text, string(back))
	}
	require.Empty(t, CheckTree(nil, "anything"), "a text without a tree stays a text")
}

func TestConditionFaults(t *testing.T) {
	for text, field := range map[string]string{
		`{}`:                           "",
		`{"field":"a","function":"f"}`: "",
		`{"all":[]}`:                   "all",
		`{"all":[{"any":[]}]}`:         "all[0].any",
		`{"all":[{"function":"f"},{"field":"a","operator":"~"}]}`:                    "all[1].operator",
		`{"field":"a","operator":"between","values":[1]}`:                            "values",
		`{"field":"a","operator":"is_empty","values":[1]}`:                           "values",
		`{"not":{"field":"a || true","operator":"==","values":[1]}}`:                 "not.field",
		`{"function":"f() || g"}`:                                                    "function",
		`{"all":[{"function":"f"}],"operator":"=="}`:                                 "operator",
		`{"all":[{"function":"f"}],"values":[1]}`:                                    "values",
		strings.Repeat(`{"not":`, 13) + `{"function":"f"}` + strings.Repeat("}", 13): strings.TrimSuffix(strings.Repeat("not.", 12), "."),
	} {
		_, err := conditionOf(t, text).Filter()
		var e *Error
		require.ErrorAs(t, err, &e, text)
		require.Equal(t, field, e.Fields[0].Field, text)
		require.Equal(t, CodeInvalidFilter, e.Fields[0].Code)
	}
	for _, value := range []string{`null`, `[1]`, `1e3`, `-0`, `-0.0`, `{"days":1.5}`, `{"days":1,"time":"x"}`, `{"time":"yesterday"}`, `{"days":"1"}`, `{"weeks":1}`, `{}`} {
		require.Error(t, new(Value).UnmarshalJSON([]byte(value)), value)
	}
}

// A plan with a tree that does not generate its filter is refused at the tree.
func TestPlanHoldsTreeAndFilterTogether(t *testing.T) {
	check := &planCheck{}
	c := conditionOf(t, `{"all":[{"field":"age","operator":">","values":[3]}]}`)
	check.tree("audience.tree", &c, "age > 3")
	require.Empty(t, check.fields)
	check.tree("audience.tree", &c, "age > 4")
	require.Equal(t, CodeFilterMismatch, check.fields[0].Code)
	require.Equal(t, "audience.tree", check.fields[0].Field)
}

func TestEstimateCost(t *testing.T) {
	p := Plan{
		Channels: []ChannelPlan{{Channel: ChannelSMS, SuccessRate: 0.02}, {Channel: ChannelCall, SuccessRate: 0.1}},
		Waves: []WavePlan{
			{Number: 1, Tiers: []Tier{TierCore}, Channels: []Channel{ChannelCall, ChannelSMS}},
			{Number: 2, Tiers: []Tier{TierGeneral}, Channels: []Channel{ChannelSMS}, Share: 50},
			{Number: 3, Channels: []Channel{ChannelSMS}, FollowUp: &FollowUp{Of: []int{1}}},
		},
		Budget: []BudgetLine{
			{Line: "calls", Driver: DriverPerContact, Channel: ChannelCall, UnitCost: 150, Amount: 1},
			{Line: "sms", Driver: DriverPerContact, Channel: ChannelSMS, UnitCost: 5, Amount: 2},
			{Line: "orders", Driver: DriverPerOrder, UnitCost: 1000, Amount: 3},
			{Line: "posters", Driver: DriverFixed, Amount: 7000},
		},
	}
	got, err := p.EstimateCost(map[Tier]int64{TierCore: 100, TierGeneral: 1000, TierBasic: 9}, "2026-01-05", func(c ChannelPlan) int {
		return map[Channel]int{ChannelSMS: 2, ChannelCall: 1}[c.Channel]
	})
	require.NoError(t, err)
	require.Equal(t, []LineEstimate{
		{Line: "calls", Units: 100, Cost: 15000, Amount: 1},
		{Line: "sms", Units: 1200, Cost: 6000, Amount: 2},   // (100 + 500) of two parts
		{Line: "orders", Units: 20, Cost: 20000, Amount: 3}, // 100 × 0.1 + 500 × 0.02
		{Line: "posters", Cost: 7000, Amount: 7000},
	}, got)
	require.Equal(t, []Channel{ChannelCall, ChannelSMS}, p.Reached())
}
