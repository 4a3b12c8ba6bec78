package market

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const small = `{
  "seed": 7,
  "base_rate": {"core": 0.1, "basic": 0},
  "effect": {
    "sms": {"core": 0.2, "basic": 0.05}
  },
  "response_delay": {"mean": "36h", "max": "240h"}
}`

func TestParseTruth(t *testing.T) {
	truth, err := ParseTruth([]byte(small))
	require.NoError(t, err)
	require.Equal(t, Truth{
		Seed:          7,
		BaseRate:      map[string]float64{"core": 0.1, "basic": 0},
		Effect:        map[string]map[string]float64{"sms": {"core": 0.2, "basic": 0.05}},
		ResponseDelay: Delay{Mean: 36 * time.Hour, Max: 240 * time.Hour},
	}, truth)
	_, err = New(truth, "salt")
	require.NoError(t, err)
}

func TestDefaultIsATruth(t *testing.T) {
	truth := Default()
	require.Len(t, truth.BaseRate, 3)
	require.Contains(t, truth.Effect, "sms")
	require.Contains(t, truth.Effect, "call")
}

func TestParseTruthNamesLineAndField(t *testing.T) {
	for name, c := range map[string]struct{ old, new, want string }{
		"rate above one":       {`"core": 0.1`, `"core": 1.1`, "line 3: base_rate.core: 1.1 is not between 0 and 1"},
		"negative effect":      {`"core": 0.2`, `"core": -0.2`, "line 5: effect.sms.core: -0.2 is not between 0 and 1"},
		"sum above one":        {`"core": 0.2`, `"core": 0.95`, "line 3: base_rate.core: base rate and the effects of all channels add up to 1.05, more than 1"},
		"effect left out":      {`, "basic": 0.05`, ``, "line 5: effect.sms: names no effect on tier basic"},
		"tier without rate":    {`"basic": 0.05`, `"basic": 0.05, "new": 0`, "line 5: effect.sms.new: tier has no base rate"},
		"no tiers":             {`{"core": 0.1, "basic": 0}`, `{}`, "line 3: base_rate: needs at least one tier"},
		"dot in tier":          {`"basic": 0}`, `"ba.sic": 0}`, "no such field"},
		"dot in channel":       {`"sms"`, `"sm.s"`, "no such field"},
		"channel without name": {`"sms"`, `""`, "a channel's name is not empty"},
		"unknown field":        {`"seed": 7,`, `"seed": 7, "sead": 8,`, "line 2: sead: no such field"},
		"other case":           {`"seed"`, `"Seed"`, "line 2: Seed: no such field"},
		"unknown delay":        {`"mean"`, `"median"`, "line 7: response_delay.median: no such field"},
		"missing":              {"  \"seed\": 7,\n", ``, "seed: is missing"},
		"missing in part":      {`, "max": "240h"`, ``, "line 7: response_delay.max: is missing"},
		"duplicate":            {`"seed": 7,`, `"seed": 7, "seed": 8,`, "line 2: seed: is given twice"},
		"duplicate tier":       {`"core": 0.2`, `"core": 0.2, "core": 0.3`, "line 5: effect.sms.core: is given twice"},
		"null":                 {`0.2`, `null`, "line 5: effect.sms.core: is null"},
		"list":                 {`0.2`, `[0.2]`, "line 5: effect.sms.core: is a list"},
		"text for number":      {`0.2`, `"0.2"`, "line 5: effect.sms.core: string is of the wrong type"},
		"negative seed":        {`7`, `-7`, "line 2: seed: number -7 is of the wrong type"},
		"not a duration":       {`"36h"`, `"36 hours"`, `line 7: response_delay.mean: "36 hours" is not a duration`},
		"negative delay":       {`"36h"`, `"-1s"`, "line 7: response_delay.mean: -1s is negative"},
		"max below mean":       {`"240h"`, `"1h"`, "line 7: response_delay.max: 1h0m0s is less than the mean of 36h0m0s"},
		"syntax":               {`0.05}`, `0.05,}`, "line 5: "},
		"cut off":              {"\n}", "", "line 7: unexpected EOF"},
		"trailing":             {"\n}", "\n}\n{}", "line 9: something follows the truth"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := strings.Replace(small, c.old, c.new, 1)
			require.NotEqual(t, small, changed)
			_, err := ParseTruth([]byte(changed))
			require.ErrorContains(t, err, c.want)
			require.IsType(t, Errors{}, err)
		})
	}
	_, err := ParseTruth(nil)
	require.ErrorContains(t, err, "unexpected EOF")
	_, err = ParseTruth([]byte(`7`))
	require.Error(t, err)
}

func TestParseTruthFindsAllFaultsInOrder(t *testing.T) {
	_, err := ParseTruth([]byte(strings.NewReplacer(`"core": 0.1`, `"core": 2`, `0.05`, `-1`, `"240h"`, `"1h"`).Replace(small)))
	var errs Errors
	require.ErrorAs(t, err, &errs)
	var fields []string
	for _, e := range errs {
		fields = append(fields, e.Field)
	}
	require.Equal(t, []string{"base_rate.core", "effect.sms.basic", "response_delay.max"}, fields)
}

func TestNewRefusesWhatNoFileCouldSay(t *testing.T) {
	truth := Default()
	truth.Effect["sms"]["core"] = math.NaN()
	_, err := New(truth, "salt")
	require.EqualError(t, err, "market truth: effect.sms.core: NaN is not between 0 and 1")
	_, err = New(Truth{}, "salt")
	require.ErrorContains(t, err, "base_rate: needs at least one tier")
}

func TestSumsThatRoundAboveOneAreAccepted(t *testing.T) {
	truth := Truth{BaseRate: map[string]float64{"t": 0.1}, Effect: map[string]map[string]float64{"a": {"t": 0.3}, "b": {"t": 0.6}}}
	sum := 0.1
	sum += 0.3
	sum += 0.6
	truth.Effect["c"] = map[string]float64{"t": math.Nextafter(1, 2) - sum}
	_, err := New(truth, "")
	require.NoError(t, err)
}
