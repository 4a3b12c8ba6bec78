package store

import (
	"bytes"
	"strings"
	"unicode"

	"github.com/nyaruka/phonenumbers"

	"github.com/musterhq/muster/campaign"
)

// simulatedCountry is a country code that nobody has: generated customers have it, so that
// nothing written to them could reach a person.
const simulatedCountry = "999"

// NormaliseMSISDN returns the E.164 digits, without the plus sign, of a mobile number in
// any form people and spreadsheets write it. Digits without a country code are taken as a
// number of the region (ISO 3166, such as CN), and where they are none there, or the region
// is empty, as international ones, which is how networks give them. It fails with
// CodeInvalidMSISDN on what is no mobile number, a landline's among them; the message has
// the number masked.
func NormaliseMSISDN(number, region string) (string, error) {
	digits, international := number, false
	if !plain(number) {
		var fault string
		if digits, international, fault = cleaned(number); fault != "" {
			return "", invalidMSISDN(number, fault)
		}
	}
	switch {
	case len(digits) < 7:
		return "", invalidMSISDN(number, "it has too few digits")
	case len(digits) > 15:
		return "", invalidMSISDN(number, "it has more than 15 digits")
	case strings.Count(digits, digits[:1]) == len(digits):
		return "", invalidMSISDN(number, "all of its digits are the same")
	}
	if country, ok := direct(digits, international, region); ok {
		return country + digits, nil
	}
	if !international && region != "" {
		if found, fault := parsed(digits, region); fault == "" {
			return found, nil
		} else if fault == landline {
			return "", invalidMSISDN(number, fault)
		}
	}
	found, fault := parsed("+"+digits, "")
	if fault != "" {
		return "", invalidMSISDN(number, fault)
	}
	return found, nil
}

// AppendMSISDN is NormaliseMSISDN for those who have many numbers: it appends the digits to
// dst, and allocates nothing for most mobile numbers of the mainland.
func AppendMSISDN(dst, number []byte, region string) ([]byte, error) {
	digits, international := number, len(number) > 0 && number[0] == '+'
	if international {
		digits = number[1:]
	}
	if plain(digits) && (len(digits) == 11 || len(digits) == 13) && bytes.Count(digits, digits[:1]) < len(digits) {
		if country, ok := direct(digits, international, region); ok {
			return append(append(dst, country...), digits...), nil
		}
	}
	found, err := NormaliseMSISDN(string(number), region)
	return append(dst, found...), err
}

// direct tells of the digits of most numbers that they are a mobile number's, and which
// country code they lack.
func direct[T string | []byte](digits T, international bool, region string) (country string, ok bool) {
	switch {
	case len(digits) < 11:
		return "", false
	case string(digits[:3]) == simulatedCountry:
		return "", true
	case !international && region == "CN" && chineseMobile(digits):
		return "86", true
	}
	return "", string(digits[:2]) == "86" && chineseMobile(digits[2:])
}

// plain reports whether s has digits alone and does not begin with 0.
func plain[T string | []byte](s T) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return len(s) > 0 && s[0] != '0'
}

// chineseMobile reports whether national digits have the form of a Chinese mobile number.
// The ranges behind the second digit are handed out faster than any list of them is kept.
func chineseMobile[T string | []byte](digits T) bool {
	return len(digits) == 11 && digits[0] == '1' && digits[1] >= '3'
}

const landline = "it is a landline's, and a mobile number is needed"

// parsed looks a number up in the numbering plans of all countries.
func parsed(number, region string) (digits, fault string) {
	n, err := phonenumbers.Parse(number, region)
	if err != nil || !phonenumbers.IsValidNumber(n) {
		return "", "no numbering plan has it"
	}
	switch phonenumbers.GetNumberType(n) {
	case phonenumbers.MOBILE, phonenumbers.FIXED_LINE_OR_MOBILE:
		return phonenumbers.Format(n, phonenumbers.E164)[1:], ""
	case phonenumbers.FIXED_LINE:
		return "", landline
	}
	return "", "it is not a mobile number"
}

// cleaned takes away what people, telephones and spreadsheets put around and between the
// digits of a number, and says whether it begins with an international prefix.
func cleaned(number string) (digits string, international bool, fault string) {
	if rest, ok := strings.CutPrefix(number, "+"); ok && plain(rest) { // most of those that are not plain
		return rest, true, ""
	}
	s := strings.Map(func(r rune) rune {
		switch {
		case r >= '！' && r <= '～': // the full-width forms of ASCII
			return r - '！' + '!'
		case unicode.IsSpace(r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Pd, r) && r != '-', r == '−':
			return ' ' // directions and joints that were copied along, and the dashes of typesetters
		}
		return r
	}, number)
	s = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(s), "'"))
	if len(s) > 4 && strings.EqualFold(s[:4], "tel:") {
		s = s[4:]
	}
	if mantissa, exponent, ok := strings.Cut(strings.ToUpper(s), "E"); ok {
		digits, fault = unfolded(mantissa, exponent)
		return digits, false, fault
	}
	s = strings.TrimSuffix(s, ".0") // of a number that a program took for a quantity
	var b strings.Builder
	for _, r := range s {
		switch {
		case r >= '0' && r <= '9':
			b.WriteRune(r)
		case r == '+' && b.Len() == 0 && !international:
			international = true
		case r == ' ', r == '-', r == '.', r == '(', r == ')':
		default:
			return "", false, "it has other characters than digits"
		}
	}
	digits = b.String()
	if rest, ok := strings.CutPrefix(digits, "00"); ok && !international {
		return rest, true, ""
	}
	return digits, international, ""
}

// unfolded is the number that a spreadsheet shows as a power of ten, if none of its digits
// are lost.
func unfolded(mantissa, exponent string) (digits, fault string) {
	const lost = "a spreadsheet has lost its last digits: format the column as text and export it again"
	whole, fraction, _ := strings.Cut(mantissa, ".")
	exponent = strings.TrimPrefix(exponent, "+")
	if len(whole) != 1 || !plain(whole) || fraction != "" && strings.Trim(fraction, "0123456789") != "" || len(exponent) > 2 || strings.Trim(exponent, "0123456789") != "" || exponent == "" {
		return "", "it has other characters than digits"
	}
	places := 0
	for _, r := range exponent {
		places = 10*places + int(r-'0')
	}
	if len(fraction) > places { // what lies behind the point is nothing
		if strings.Trim(fraction[places:], "0") != "" {
			return "", "it is no whole number"
		}
		fraction = fraction[:places]
	}
	if len(fraction) < places {
		return "", lost
	}
	return whole + fraction, ""
}

func invalidMSISDN(number, fault string) error {
	return campaign.Errorf(campaign.CodeInvalidMSISDN, "%q is no mobile number: %s", maskedInput(number), fault)
}

// maskedInput is what may be shown of something that was given as a number: its shape, and
// of a long one the first three and last two digits.
func maskedInput(number string) string {
	runes := []rune(number)
	if len(runes) > 24 {
		runes = append(runes[:23], '…')
	}
	digits := 0
	for _, r := range runes {
		if unicode.IsDigit(r) {
			digits++
		}
	}
	at := 0
	for i, r := range runes {
		switch {
		case unicode.IsDigit(r):
			at++
			if digits < 9 || at > 3 && at <= digits-2 {
				runes[i] = '*'
			}
		case unicode.IsLetter(r) && r != 'E' && r != 'e':
			runes[i] = '?'
		}
	}
	return string(runes)
}
