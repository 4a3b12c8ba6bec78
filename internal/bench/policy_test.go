package bench

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPolicyBenchKeepsTheCap(t *testing.T) {
	s, out := newSuite(t)
	report, err := s.Policy(t.Context(), 2_000, 3)
	require.NoError(t, err)
	require.Len(t, report.Sides, 2)
	require.EqualValues(t, 4_000, report.Sides[0].Runs[0].Items)
	require.EqualValues(t, 6_000, report.Sides[1].Runs[1].Items)
	require.EqualValues(t, 4_000, report.Sides[1].Runs[1].Also["reserved"])
	require.Contains(t, out.String(), "muster reserve")
}
