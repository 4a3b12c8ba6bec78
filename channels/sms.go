package channels

import (
	"encoding/binary"
	"unicode/utf16"
	"unicode/utf8"
)

// Encoding is the alphabet in which an SMS travels.
type Encoding string

const (
	// GSM7 is the GSM 7-bit default alphabet with its extension table
	// (3GPP TS 23.038, 6.2.1): 160 septets in one part, 153 in each of several.
	GSM7 Encoding = "GSM-7"
	// UCS2 is UTF-16, big endian, for everything else: 70 code units in one
	// part, 67 in each of several.
	UCS2 Encoding = "UCS-2"
)

// The alphabet in code order; the escape at 0x1B stands for itself.
const gsm7Basic = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ" +
	" !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"

const gsm7Escape = 0x1B

var gsm7Extension = map[rune]byte{
	'\f': 0x0A, '^': 0x14, '{': 0x28, '}': 0x29, '\\': 0x2F,
	'[': 0x3C, '~': 0x3D, ']': 0x3E, '|': 0x40, '€': 0x65,
}

// gsm7Code holds code+1 of the basic characters; 0 means not in the alphabet.
// All of them lie below U+0400.
var gsm7Code = func() (table [0x400]byte) {
	code := byte(0)
	for _, r := range gsm7Basic {
		if r != gsm7Escape {
			table[r] = code + 1
		}
		code++
	}
	return table
}()

// Parts returns how many SMS parts the operator will carry and charge for the
// text, and in which alphabet. An empty text has no parts.
//
// A text with a single character outside GSM-7 travels as UCS-2 as a whole.
// GSM-7 extension characters (^{}\[~]|€ and form feed) count as two, characters
// beyond the basic plane (most emoji) as two UCS-2 units, and neither is ever
// cut by the end of a part, so a part may be left one unit short.
func Parts(text string) (parts int, enc Encoding) {
	enc = encodingOf(text)
	split(text, enc, func(string) { parts++ })
	return parts, enc
}

// Segments returns the text as octets, one slice per part: unpacked septets
// (one octet each, as SMPP carries them) for GSM-7, big endian for UCS-2.
func Segments(text string) (segments [][]byte, enc Encoding) {
	enc = encodingOf(text)
	split(text, enc, func(part string) {
		octets := make([]byte, 0, 2*len(part))
		for _, r := range part {
			octets = appendRune(octets, r, enc)
		}
		segments = append(segments, octets)
	})
	return segments, enc
}

func encodingOf(text string) Encoding {
	for _, r := range text {
		if gsm7Width(r) == 0 {
			return UCS2
		}
	}
	return GSM7
}

func gsm7Width(r rune) int {
	if r < rune(len(gsm7Code)) && gsm7Code[r] != 0 {
		return 1
	}
	if _, ok := gsm7Extension[r]; ok {
		return 2
	}
	return 0
}

func width(r rune, enc Encoding) int {
	if enc == GSM7 {
		return gsm7Width(r)
	}
	return utf16.RuneLen(r)
}

// split calls part with each part of the text in order.
func split(text string, enc Encoding, part func(string)) {
	if text == "" {
		return
	}
	whole, each := 160, 153
	if enc == UCS2 {
		whole, each = 70, 67
	}
	total := 0
	for _, r := range text {
		total += width(r, enc)
	}
	if total <= whole {
		part(text)
		return
	}
	start, used := 0, 0
	for at := 0; at < len(text); {
		r, size := utf8.DecodeRuneInString(text[at:])
		w := width(r, enc)
		if used+w > each {
			part(text[start:at])
			start, used = at, 0
		}
		used += w
		at += size
	}
	part(text[start:])
}

func appendRune(octets []byte, r rune, enc Encoding) []byte {
	if enc == UCS2 {
		for _, unit := range utf16.AppendRune(nil, r) {
			octets = binary.BigEndian.AppendUint16(octets, unit)
		}
		return octets
	}
	if r < rune(len(gsm7Code)) && gsm7Code[r] != 0 {
		return append(octets, gsm7Code[r]-1)
	}
	return append(octets, gsm7Escape, gsm7Extension[r])
}
