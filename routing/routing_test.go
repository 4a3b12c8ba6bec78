package routing

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

func TestEachSignatureNeedsAPersonOfItsOwn(t *testing.T) {
	for name, c := range map[string]struct {
		signatures [][]string
		want       bool
	}{
		"none":                  {nil, true},
		"nobody":                {[][]string{{}}, false},
		"one for two":           {[][]string{{"a"}, {"a"}}, false},
		"the first gives way":   {[][]string{{"a", "b"}, {"a"}}, true},
		"a chain gives way":     {[][]string{{"a", "b"}, {"b", "c"}, {"a"}, {"c", "d"}}, true},
		"three among two":       {[][]string{{"a", "b"}, {"a", "b"}, {"a", "b"}}, false},
		"three of three people": {[][]string{{"a", "b", "c"}, {"a", "b", "c"}, {"b"}}, true},
	} {
		require.Equal(t, c.want, distinct(c.signatures), name)
	}
}

func TestDueTimesAddUpOverStages(t *testing.T) {
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	level := func(stage int, hours int64) campaign.ApprovalLevel {
		return campaign.ApprovalLevel{Stage: stage, DueAfter: hours * 3600}
	}
	in := func(hours ...int) (at []time.Time) {
		for _, h := range hours {
			at = append(at, now.Add(time.Duration(h)*time.Hour))
		}
		return at
	}
	for name, c := range map[string]struct {
		route []campaign.ApprovalLevel
		want  []time.Time
	}{
		"one after the other": {[]campaign.ApprovalLevel{level(1, 2), level(2, 3)}, in(2, 5)},
		"side by side":        {[]campaign.ApprovalLevel{level(1, 2), level(2, 3), level(2, 1), level(3, 1)}, in(2, 5, 3, 6)},
		"without stages":      {[]campaign.ApprovalLevel{level(0, 2), level(0, 3)}, in(2, 5)},
	} {
		require.Equal(t, c.want, Due(campaign.Routed{Route: c.route}, now), name)
	}
}
