package intake

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/musterhq/muster/store"
)

// value is one typed value. Text is the field it was read from, and nothing of it is here:
// rows are read by the million, and a value fits into two registers.
type value struct {
	kind  kind
	whole int64 // of int, microseconds since 1970 of a timestamp, 1 for true, the bits of a float
}

type kind byte

const (
	unknown kind = iota // the field is empty
	isInt
	isFloat
	isText
	isBool
	isTime
	bad // the field holds something that is none of its type
)

func (v value) float() float64 { return math.Float64frombits(uint64(v.whole)) }

func floatValue(f float64) value { return value{kind: isFloat, whole: int64(math.Float64bits(f))} }

// plain is v, which was read from field, as a Go value; nil when it is unknown.
func (v value) plain(field []byte, zone *time.Location) any {
	switch v.kind {
	case isInt:
		return v.whole
	case isFloat:
		return v.float()
	case isText:
		return string(field)
	case isBool:
		return v.whole != 0
	case isTime:
		return time.UnixMicro(v.whole).In(zone).Format(time.RFC3339)
	}
	return nil
}

// parse reads a field as a value of type t. Times without a zone are of zone.
func parse(t store.AttributeType, field []byte, zone *time.Location) value {
	if len(field) == 0 || field[0] <= ' ' || field[len(field)-1] <= ' ' || field[0] >= utf8.RuneSelf || field[len(field)-1] >= utf8.RuneSelf {
		trimmed := trim(field)
		if t != store.AttributeText || len(trimmed) == 0 {
			field = trimmed
		}
	}
	if nothing(field) {
		return value{}
	}
	switch t {
	case store.AttributeInt:
		return parseInt(field)
	case store.AttributeFloat:
		return parseFloat(field)
	case store.AttributeText:
		return value{kind: isText}
	case store.AttributeBool:
		return parseBool(field)
	case store.AttributeTimestamp:
		return parseTime(field, zone)
	}
	return value{kind: bad}
}

// trim takes blanks of all kinds from both ends.
func trim(field []byte) []byte { return bytes.TrimSpace(field) }

// nothing reports whether a field says that its value is not known.
func nothing(field []byte) bool {
	switch len(field) {
	case 0:
		return true
	case 2:
		return field[0] == '\\' && field[1] == 'N'
	case 4:
		return field[0]|0x20 == 'n' && bytes.EqualFold(field, []byte("null"))
	}
	return false
}

// parseInt reads a whole number: with a sign, with thousands separated by commas, and as
// spreadsheets write it, with a fraction that is zero.
func parseInt(field []byte) value {
	if n, ok := digits(field); ok {
		return value{kind: isInt, whole: n}
	}
	text, ok := halfWidth(field)
	if !ok {
		return value{kind: bad}
	}
	if whole, fraction, found := strings.Cut(text, "."); found {
		if fraction == "" || strings.Trim(fraction, "0") != "" {
			return value{kind: bad}
		}
		text = whole
	}
	if strings.Contains(text, ",") {
		if !grouped(text) {
			return value{kind: bad}
		}
		text = strings.ReplaceAll(text, ",", "")
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return value{kind: bad}
	}
	return value{kind: isInt, whole: n}
}

// digits reads what nearly all whole numbers are.
func digits(field []byte) (n int64, ok bool) {
	negative := false
	if field[0] == '-' {
		negative, field = true, field[1:]
	}
	if len(field) == 0 || len(field) > 18 {
		return 0, false
	}
	for _, c := range field {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	if negative {
		n = -n
	}
	return n, true
}

// plainInt reads a field of digits alone.
func plainInt(field []byte) (int64, bool) {
	if len(field) == 0 {
		return 0, false
	}
	return digits(field)
}

// grouped reports whether commas stand where thousands end.
func grouped(text string) bool {
	parts := strings.Split(strings.TrimLeft(text, "+-"), ",")
	for i, p := range parts {
		if i == 0 && (len(p) < 1 || len(p) > 3 || p[0] == '0') || i > 0 && len(p) != 3 || strings.Trim(p, "0123456789") != "" {
			return false
		}
	}
	return true
}

func ascii(field []byte) bool {
	for _, c := range field {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// halfWidth turns full-width characters, which Chinese input methods make, into ASCII.
func halfWidth(field []byte) (string, bool) {
	if ascii(field) {
		return string(field), true
	}
	var b strings.Builder
	for _, r := range string(field) {
		switch {
		case r >= '！' && r <= '～':
			b.WriteByte(byte(r - '！' + '!'))
		case r < utf8.RuneSelf:
			b.WriteByte(byte(r))
		case r == '　' || r == '\u00a0' || r == '\u2009' || r == '\u202f':
			b.WriteByte(' ')
		case r == '−':
			b.WriteByte('-')
		default:
			return "", false
		}
	}
	return b.String(), true
}

// parseFloat reads a finite number, with a decimal point or a decimal comma. Where a comma
// may be either, as in 1,234, the value is bad: a guess would be wrong by a factor of 1,000.
func parseFloat(field []byte) value {
	if f, ok := decimal(field); ok {
		return floatValue(f)
	}
	text, ok := halfWidth(field)
	if !ok {
		return value{kind: bad}
	}
	if strings.ContainsAny(text, ",") {
		point, comma := strings.LastIndexByte(text, '.'), strings.LastIndexByte(text, ',')
		switch {
		case point > comma: // 1,234.5
			if !grouped(text[:point]) {
				return value{kind: bad}
			}
			text = strings.ReplaceAll(text, ",", "")
		case point >= 0: // 1.234,5
			if !grouped(strings.ReplaceAll(text[:comma], ".", ",")) {
				return value{kind: bad}
			}
			text = strings.ReplaceAll(text[:comma], ".", "") + "." + text[comma+1:]
		case strings.Count(text, ",") > 1: // 1,234,567
			if !grouped(text) {
				return value{kind: bad}
			}
			text = strings.ReplaceAll(text, ",", "")
		case grouped(text):
			return value{kind: bad}
		default:
			text = strings.Replace(text, ",", ".", 1)
		}
	}
	if strings.ContainsAny(text, "xXpP_iInN") { // what ParseFloat reads beside decimals
		return value{kind: bad}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return value{kind: bad}
	}
	return floatValue(f)
}

// decimal reads what nearly all numbers are: up to 15 digits, with or without a point. Such a
// number of digits, and the power of ten that it is divided by, are exact as floats, so that
// the quotient is the nearest one.
func decimal(field []byte) (f float64, ok bool) {
	negative := field[0] == '-'
	if negative {
		field = field[1:]
	}
	var n int64
	count, point := 0, -1
	for i, c := range field {
		switch {
		case c >= '0' && c <= '9':
			n = n*10 + int64(c-'0')
			count++
		case c == '.' && point < 0:
			point = i
		default:
			return 0, false
		}
	}
	if count == 0 || count > 15 {
		return 0, false
	}
	if negative {
		n = -n
	}
	f = float64(n)
	if point >= 0 {
		f /= powersOfTen[len(field)-1-point]
	}
	return f, true
}

var powersOfTen = [16]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}

var truths = map[string]bool{
	"1": true, "t": true, "true": true, "y": true, "yes": true, "on": true, "是": true, "有": true, "真": true,
	"0": false, "f": false, "false": false, "n": false, "no": false, "off": false, "否": false, "无": false, "無": false, "没有": false, "不是": false, "假": false,
}

func parseBool(field []byte) value {
	v, ok := truths[string(field)]
	if !ok {
		if v, ok = truths[strings.ToLower(string(field))]; !ok {
			return value{kind: bad}
		}
	}
	if v {
		return value{kind: isBool, whole: 1}
	}
	return value{kind: isBool}
}

// The years that a time may have: what is outside is a slip of the pen, or a number.
const firstYear, lastYear = 1800, 2200

// parseTime reads a date or a time: year, month and day with any of - / . 年月日 between
// them or nothing, or day and month first where points or a number above 12 tell them
// apart; then, if at all, hours, minutes, seconds and a zone.
func parseTime(field []byte, zone *time.Location) value {
	if at, ok := stamp(field); ok {
		return value{kind: isTime, whole: at}
	}
	text := string(field)
	if !ascii(field) {
		text = strings.NewReplacer("年", "-", "月", "-", "日", " ").Replace(text)
		narrow, ok := halfWidth([]byte(strings.TrimSpace(text)))
		if !ok {
			return value{kind: bad}
		}
		text = narrow
	}
	date, clock := text, ""
	if i := strings.IndexAny(text, " Tt"); i >= 0 {
		date, clock = text[:i], strings.TrimSpace(text[i+1:])
	}
	year, month, day, ok := parseDate(date)
	if !ok || year < firstYear || year > lastYear || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		return value{kind: bad}
	}
	if clock == "" {
		if zone == time.UTC {
			return value{kind: isTime, whole: daysSince1970(year, month, day) * 86_400_000_000}
		}
		return value{kind: isTime, whole: time.Date(year, time.Month(month), day, 0, 0, 0, 0, zone).UnixMicro()}
	}
	sinceMidnight, offset, zoned, ok := parseClock(clock)
	switch {
	case !ok:
		return value{kind: bad}
	case zoned:
		return value{kind: isTime, whole: daysSince1970(year, month, day)*86_400_000_000 + sinceMidnight - offset}
	case zone == time.UTC:
		return value{kind: isTime, whole: daysSince1970(year, month, day)*86_400_000_000 + sinceMidnight}
	}
	at := time.Date(year, time.Month(month), day, int(sinceMidnight/3_600_000_000), int(sinceMidnight/60_000_000%60), int(sinceMidnight/1_000_000%60), int(sinceMidnight%1_000_000)*1000, zone)
	return value{kind: isTime, whole: at.UnixMicro()}
}

// stamp reads the one form that programs write: 2019-05-04T03:02:01Z, or with +08:00.
func stamp(f []byte) (unixMicro int64, ok bool) {
	if len(f) != 20 && len(f) != 25 || f[4] != '-' || f[7] != '-' || f[10] != 'T' || f[13] != ':' || f[16] != ':' {
		return 0, false
	}
	var n [7]int64 // century, year, month, day, hours, minutes, seconds
	for i, at := range [...]int{0, 2, 5, 8, 11, 14, 17} {
		if n[i], ok = twoDigits(f[at:]); !ok {
			return 0, false
		}
	}
	year, month, day := int(n[0]*100+n[1]), int(n[2]), int(n[3])
	if year < firstYear || year > lastYear || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) || n[4] > 23 || n[5] > 59 || n[6] > 59 {
		return 0, false
	}
	seconds := daysSince1970(year, month, day)*86_400 + n[4]*3600 + n[5]*60 + n[6]
	if len(f) == 20 {
		return seconds * 1_000_000, f[19] == 'Z'
	}
	hours, fine := twoDigits(f[20:])
	minutes, fine2 := twoDigits(f[23:])
	if !fine || !fine2 || f[22] != ':' || hours > 14 || minutes > 59 {
		return 0, false
	}
	switch offset := hours*3600 + minutes*60; f[19] {
	case '+':
		return (seconds - offset) * 1_000_000, true
	case '-':
		return (seconds + offset) * 1_000_000, true
	}
	return 0, false
}

// parseClock reads hours, minutes and, if they are there, seconds with a fraction and a
// zone: Z, +08:00, +0800 or +08. All are in microseconds.
func parseClock(clock string) (sinceMidnight, offset int64, zoned, ok bool) {
	if i := strings.IndexAny(clock, "Zz+-"); i >= 0 {
		zone := clock[i:]
		clock, zoned = strings.TrimRight(clock[:i], " "), true
		if zone != "Z" && zone != "z" {
			digits := strings.Replace(zone[1:], ":", "", 1)
			if len(digits) == 2 {
				digits += "00"
			}
			hours, minutes, fits := int64(0), int64(0), len(digits) == 4
			if fits {
				hours, fits = twoDigits(digits)
			}
			if fits {
				minutes, fits = twoDigits(digits[2:])
			}
			if !fits || hours > 14 || minutes > 59 {
				return 0, 0, false, false
			}
			if offset = (hours*60 + minutes) * 60_000_000; zone[0] == '-' {
				offset = -offset
			}
		}
	}
	if len(clock) > 1 && clock[1] == ':' { // 3:02
		clock = "0" + clock
	}
	if len(clock) < 5 || clock[2] != ':' || len(clock) > 5 && (len(clock) < 8 || clock[5] != ':') {
		return 0, 0, false, false
	}
	hours, fine := twoDigits(clock)
	minutes, fine2 := twoDigits(clock[3:])
	seconds, fraction, fine3 := int64(0), int64(0), true
	if len(clock) > 5 {
		seconds, fine3 = twoDigits(clock[6:])
	}
	if len(clock) > 8 {
		if digits := clock[9:]; (clock[8] != '.' && clock[8] != ',') || digits == "" || len(digits) > 9 || strings.Trim(digits, "0123456789") != "" {
			return 0, 0, false, false
		}
		for i, scale := 9, int64(100_000); i < len(clock) && scale > 0; i, scale = i+1, scale/10 {
			fraction += int64(clock[i]-'0') * scale
		}
	}
	if !fine || !fine2 || !fine3 || hours > 23 || minutes > 59 || seconds > 59 {
		return 0, 0, false, false
	}
	return ((hours*60+minutes)*60+seconds)*1_000_000 + fraction, offset, zoned, true
}

// twoDigits reads the number that text begins with.
func twoDigits[T string | []byte](text T) (int64, bool) {
	a, b := text[0]-'0', text[1]-'0'
	return int64(a)*10 + int64(b), a <= 9 && b <= 9
}

// parseDate takes a date apart.
func parseDate(date string) (year, month, day int, ok bool) {
	var n [3]int
	var sizes [3]int
	var separator byte
	parts := 0
	for i := range len(date) {
		c := date[i]
		switch {
		case c >= '0' && c <= '9':
			if sizes[parts] == 8 {
				return 0, 0, 0, false
			}
			n[parts] = n[parts]*10 + int(c-'0')
			sizes[parts]++
		case (c == '-' || c == '/' || c == '.') && parts < 2 && sizes[parts] > 0 && (separator == 0 || c == separator):
			separator = c
			parts++
		case c == '-' && parts == 2 && i == len(date)-1: // 2020年5月4 with its 日 left out
		default:
			return 0, 0, 0, false
		}
	}
	switch {
	case parts == 0 && sizes[0] == 8:
		return n[0] / 10_000, n[0] / 100 % 100, n[0] % 100, true
	case parts != 2 || sizes[2] == 0:
		return 0, 0, 0, false
	case sizes[0] == 4 && sizes[1] <= 2 && sizes[2] <= 2:
		return n[0], n[1], n[2], true
	case sizes[2] != 4 || sizes[0] > 2 || sizes[1] > 2:
		return 0, 0, 0, false
	case separator == '.' || n[0] > 12: // 31.12.2019, 31/12/2019
		return n[2], n[1], n[0], true
	case n[1] > 12: // 12/31/2019
		return n[2], n[0], n[1], true
	}
	return 0, 0, 0, false
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// daysSince1970 counts days of the Gregorian calendar, whose years end with February here
// so that the leap day is a year's last.
func daysSince1970(year, month, day int) int64 {
	if month <= 2 {
		year, month = year-1, month+12
	}
	return int64(365*year + year/4 - year/100 + year/400 + (153*(month-3)+2)/5 + day - 719_469)
}

// shown is a field as people may see it: shortened, and masked whole where its column
// identifies people. What looks like a phone number, an account or an identity card is
// masked in any column: whoever swapped two columns must not publish one.
func shown(field []byte, masked bool) string {
	const most, visible = 80, 4
	text := strings.ToValidUTF8(string(field[:min(len(field), 4*most)]), "\uFFFD")
	runes := []rune(text)
	if len(runes) > most {
		runes = append(runes[:most], '…')
	}
	if masked {
		keep := 0
		if len(runes) > 2*visible {
			keep = visible
		}
		return strings.Repeat("*", min(len(runes)-keep, 8)) + string(runes[len(runes)-keep:])
	}
	const telling = 7 // digits in a row
	for i := 0; i < len(runes); {
		j := i
		for j < len(runes) && (runes[j] >= '0' && runes[j] <= '9' || runes[j] >= '０' && runes[j] <= '９') {
			j++
		}
		if j-i >= telling {
			for k := i; k < j-visible; k++ {
				runes[k] = '*'
			}
		}
		i = max(j, i+1)
	}
	return string(runes)
}
