package dataset

import (
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// copyOf keeps a row beyond the next call of Next.
func copyOf(c *Customer) Customer {
	kept := *c
	kept.Values = slices.Clone(c.Values)
	return kept
}

func collect(s *Stream) []Customer {
	var all []Customer
	for s.Next() {
		all = append(all, copyOf(s.Customer()))
	}
	return all
}

// taken are names that a column must not have: reserved in SQL or in CEL, or
// likely core columns of a customer table.
var taken = strings.Fields(`
	all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean both case cast char
	character check coalesce collate collation column concurrently constraint create cross current_catalog current_date
	current_role current_schema current_time current_timestamp current_user day dec decimal default deferrable desc distinct
	do else end except exists extract false fetch filter float for foreign freeze from full grant greatest group grouping having
	hour ilike in initially inner inout int integer intersect interval into is isnull join lateral leading least left like
	limit localtime localtimestamp minute month national natural nchar none normalize not notnull null nullif numeric offset
	on only or order out outer over overlaps overlay placing position precision primary real references returning right row
	second select session_user setof similar smallint some substring symmetric system_user table tablesample then time
	timestamp to trailing treat trim true union unique user using values varchar variadic varying verbose when where window
	with within without year
	break const continue function if import let loop package namespace return var void while
	id customer_id external_id msisdn phone org_unit org_unit_id time_zone created_at updated_at deleted_at tenant attributes
`)

func TestSetsAreWellDescribed(t *testing.T) {
	bank, err := ParseBank([]byte(smallBank))
	require.NoError(t, err)
	history, err := bank.History([]string{"u"})
	require.NoError(t, err)
	population, err := bank.Population([]string{"u"})
	require.NoError(t, err)
	operator, err := Operator(OperatorOptions{Size: 2000, Seed: 1, Units: []string{"u"}})
	require.NoError(t, err)

	name := regexp.MustCompile(`^[a-z][a-z0-9_]{2,40}$`)
	for _, set := range []*Set{history, population, operator} {
		t.Run(set.Name, func(t *testing.T) {
			require.NotEmpty(t, set.Title)
			require.NotEmpty(t, set.Description)
			require.NotEmpty(t, set.Licence)
			seen := map[string]bool{}
			for _, a := range set.Attributes {
				require.Regexp(t, name, a.Name)
				require.NotContains(t, taken, a.Name)
				require.False(t, seen[a.Name], a.Name)
				seen[a.Name] = true
				require.NotEmpty(t, a.Meaning, a.Name)
				require.NotEmpty(t, a.MeaningZh, a.Name)
			}
			for s := set.Stream(0, set.Size); s.Next(); {
				c := s.Customer()
				require.Len(t, c.Values, len(set.Attributes))
				for i, v := range c.Values {
					if v != nil {
						require.Equal(t, set.Attributes[i].Type, typeOf(v), set.Attributes[i].Name)
					}
				}
			}
		})
	}
	require.False(t, population.Simulated)
	require.True(t, operator.Simulated)
}

func typeOf(v any) Type {
	switch v.(type) {
	case int64:
		return Int
	case float64:
		return Float
	case string:
		return Text
	case bool:
		return Bool
	case time.Time:
		return Timestamp
	}
	return "?"
}

func TestStreamRefusesRangesOutsideTheSet(t *testing.T) {
	set, err := Operator(OperatorOptions{Size: 10, Units: []string{"u"}})
	require.NoError(t, err)
	for _, r := range [][2]int{{-1, 2}, {3, 2}, {0, 11}} {
		require.Panics(t, func() { set.Stream(r[0], r[1]) }, r)
	}
	require.False(t, set.Stream(10, 10).Next())
}

func TestStreamsRunSideBySide(t *testing.T) {
	set, err := Operator(OperatorOptions{Size: 4000, Seed: 3, Units: []string{"u", "v"}})
	require.NoError(t, err)
	parts := make([][]Customer, 4)
	var wg sync.WaitGroup
	for p := range parts {
		wg.Go(func() { parts[p] = collect(set.Stream(p*1000, (p+1)*1000)) })
	}
	wg.Wait()
	require.Equal(t, collect(set.Stream(0, 4000)), slices.Concat(parts...))
}

func TestSetsNeedOrgUnits(t *testing.T) {
	bank, err := ParseBank([]byte(smallBank))
	require.NoError(t, err)
	_, err = bank.Population(nil)
	require.ErrorIs(t, err, errNoUnits)
	_, err = Operator(OperatorOptions{Size: 1})
	require.ErrorIs(t, err, errNoUnits)
	_, err = Operator(OperatorOptions{Size: -1, Units: []string{"u"}})
	require.Error(t, err)
}
