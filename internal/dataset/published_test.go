package dataset

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// published returns the real file, or skips.
func published(tb testing.TB) []byte {
	tb.Helper()
	dir := os.Getenv("MUSTER_DATA")
	if dir == "" {
		tb.Skip("MUSTER_DATA names no folder with the public data sets: skipped")
	}
	found, err := Locate(tb.Context(), BankMarketing, LocateOptions{DataDir: dir})
	require.NoError(tb, err)
	require.Equal(tb, FromFolder, found.Origin)
	return found.Data
}

func TestPublishedBankMarketing(t *testing.T) {
	bank, err := ParseBank(published(t))
	require.NoError(t, err)
	require.Len(t, bank.records, 41_188)

	units := []string{"a", "b", "c"}
	history, err := bank.History(units)
	require.NoError(t, err)
	population, err := bank.Population(units)
	require.NoError(t, err)
	require.Equal(t, 32_950, history.Size)
	require.Equal(t, 8_238, population.Size)

	subscribed := func(records []Recorded) (n int) {
		for _, r := range records {
			if r.Subscribed {
				n++
			}
		}
		return n
	}
	require.Equal(t, 4_640, subscribed(bank.records))
	require.InDelta(t, 0.1127, float64(subscribed(bank.records))/41_188, 0.00005)
	require.Equal(t, 2_100, subscribed(bank.PastContacts()))

	ids, phones, perUnit := map[string]bool{}, map[string]bool{}, map[string]int{}
	var neverContacted int
	for _, set := range []*Set{history, population} {
		for s := set.Stream(0, set.Size); s.Next(); {
			c := s.Customer()
			require.Regexp(t, `^\+9991\d{8}$`, c.MSISDN)
			ids[c.ExternalID], phones[c.MSISDN] = true, true
			perUnit[c.OrgUnit]++
			if c.Values[11] == nil {
				neverContacted++
			}
			r, ok := bank.Recorded(c.ExternalID)
			require.True(t, ok)
			require.Equal(t, c.Values[10], int64(r.Attempts))
			require.Equal(t, c.Values[8], months[r.CalledOn.Month()-1])
			require.Equal(t, c.Values[9], weekdays[r.CalledOn.Weekday()])
		}
	}
	require.Len(t, ids, 41_188)
	require.Len(t, phones, 41_188)
	require.Equal(t, map[string]int{"a": 13_730, "b": 13_729, "c": 13_729}, perUnit)
	require.Equal(t, 39_673, neverContacted)

	require.Equal(t, "2008-05-05", bank.records[0].CalledOn.Format("2006-01-02"))
	require.Equal(t, "2010-11-26", bank.records[41_187].CalledOn.Format("2006-01-02"))
	last := bank.records[0].CalledOn
	for _, r := range bank.records {
		require.False(t, r.CalledOn.Before(last), r.ExternalID)
		last = r.CalledOn
	}
}

func BenchmarkParseBank(b *testing.B) {
	data := published(b)
	for b.Loop() {
		_, err := ParseBank(data)
		require.NoError(b, err)
	}
}
