package store_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

func TestNormaliseMSISDN(t *testing.T) {
	const number = "8613800138000"
	for in, want := range map[string]string{
		// As people and telephones write it.
		"13800138000":                 number,
		"8613800138000":               number,
		"+8613800138000":              number,
		"008613800138000":             number,
		"00 86 138 0013 8000":         number,
		"+86 138-0013-8000":           number,
		"+86 (138) 0013.8000":         number,
		"(+86)13800138000":            number,
		"86-138-0013-8000":            number,
		"138 0013 8000":               number,
		"138-0013-8000":               number,
		"  13800138000\t":             number,
		"013800138000":                number, // as it is dialled from another city
		"tel:+86-138-0013-8000":       number,
		"TEL:13800138000":             number,
		"+86\u00a0138\u20110013–8000": number,
		"\u202a+8613800138000\u202c":  number, // copied from a list of contacts
		"1380\u200b0138000":           number,
		// With the keys of a Chinese keyboard.
		"１３８００１３８０００":       number,
		"＋８６１３８００１３８０００":    number,
		"+86（138）0013－8000": number,
		"１３８　００１３　８０００":     number,
		// Out of spreadsheets.
		"'13800138000":       number,
		"13800138000.0":      number,
		"1.3800138E+10":      "", // 13800138000, but nobody can tell from 1.38001380004E+10 cut short
		"1.3800138000E+10":   number,
		"1.3800138000e10":    number,
		"8.613800138000E+12": number,
		"1.3800138000E10":    number,
		"1.38001380000E+10":  number,
		"1.38E+10":           "",
		"8.6138E+12":         "",
		"1.38001380001E+10":  "", // thirteen thousand million and a tenth
		"1E+10":              "",
		"13.800138000E+9":    "",
		"1.3800138000E+":     "",
		"1.38001E3800E+10":   "",
		// Other countries' and nobody's.
		"+1 202-555-0123":  "12025550123",
		"0044 7400 123456": "447400123456",
		"+852 5123 4567":   "85251234567",
		"447400123456":     "447400123456",
		"+9992000000004":   "9992000000004",
		"9992000000004":    "9992000000004",
		"99900000123":      "99900000123",
		// No mobile number.
		"010-62345678":            "",
		"+86 10 6234 5678":        "",
		"021 6234 5678":           "",
		"+44 20 7946 0958":        "",
		"4008123456":              "",
		"11111111111":             "",
		"+11111111111":            "",
		"00000000000":             "",
		"10086":                   "",
		"1380013800":              "",
		"138001380001":            "",
		"12800138000":             "",
		"1234567":                 "",
		"1234567890123456":        "",
		"+0013800138000":          "",
		"++8613800138000":         "",
		"13800138000+":            "",
		"13800138000/13900139000": "",
		"13800138000,13900139000": "",
		"13800138000 ext. 5":      "",
		"1380013800O":             "",
		"=13800138000":            "",
		"abc":                     "",
		"-":                       "",
		"":                        "",
	} {
		got, err := store.NormaliseMSISDN(in, "CN")
		require.Equal(t, want, got, "%q: %v", in, err)
		if want == "" {
			require.Equal(t, campaign.CodeInvalidMSISDN, campaign.CodeOf(err), "%q", in)
		}
		if want != "" { // is a fixed point, wherever the reader is
			for _, region := range []string{"CN", "", "GB"} {
				again, err := store.NormaliseMSISDN(want, region)
				require.NoError(t, err, "%q in %q", want, region)
				require.Equal(t, want, again, "%q in %q", in, region)
			}
		}
	}
}

func TestNormaliseMSISDNByRegion(t *testing.T) {
	for _, c := range []struct{ in, region, want string }{
		{"07400 123456", "GB", "447400123456"},
		{"07400 123456", "CN", ""},
		{"(202) 555-0123", "US", "12025550123"},
		{"13800138000", "US", ""},
		{"13800138000", "", ""},
		{"8613800138000", "", "8613800138000"},
		{"51234567", "HK", "85251234567"},
	} {
		got, _ := store.NormaliseMSISDN(c.in, c.region)
		require.Equal(t, c.want, got, "%q in %q", c.in, c.region)
	}
}

// Whatever is refused is shown masked: nobody can make a number of a customer out of it.
func TestRefusedNumbersAreMasked(t *testing.T) {
	_, err := store.NormaliseMSISDN("010-6234 5678", "CN")
	require.ErrorContains(t, err, `"010-**** **78" is no mobile number: it is a landline's`)
	_, err = store.NormaliseMSISDN("王小明 1380013", "CN")
	require.ErrorContains(t, err, `"??? *******"`)
	_, err = store.NormaliseMSISDN("1.38E+10", "CN")
	require.ErrorContains(t, err, "format the column as text")
	rapid.Check(t, func(r *rapid.T) {
		in := rapid.StringMatching(`[+ ]?[0-9]{4,24}[ /x]?[0-9]{0,12}`).Draw(r, "in")
		_, err := store.NormaliseMSISDN(in, "CN")
		if err == nil {
			return
		}
		shown := strings.Count(err.Error(), "") - 1
		require.Positive(t, shown)
		quoted, _, _ := strings.Cut(err.Error(), " is no mobile number")
		digits := 0
		for _, c := range quoted {
			if c >= '0' && c <= '9' {
				digits++
			}
		}
		require.LessOrEqual(t, digits, 5, "%s", quoted)
	})
}
