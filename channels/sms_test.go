package channels_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/channels"
)

func TestParts(t *testing.T) {
	const (
		a     = "a"
		han   = "中"
		emoji = "😀"
	)
	for _, tc := range []struct {
		name  string
		text  string
		parts int
		enc   channels.Encoding
	}{
		{"empty", "", 0, channels.GSM7},
		{"one character", a, 1, channels.GSM7},
		{"160 fill one part", strings.Repeat(a, 160), 1, channels.GSM7},
		{"161 need two", strings.Repeat(a, 161), 2, channels.GSM7},
		{"306 fill two", strings.Repeat(a, 306), 2, channels.GSM7},
		{"307 need three", strings.Repeat(a, 307), 3, channels.GSM7},
		{"extension counts two", strings.Repeat("€", 80), 1, channels.GSM7},
		{"extension over the limit", strings.Repeat("€", 81), 2, channels.GSM7},
		{"all extension characters", "^{}\\[~]|€\f", 1, channels.GSM7},
		{"extension is not cut: 152+2+152", strings.Repeat(a, 152) + "€" + strings.Repeat(a, 152), 3, channels.GSM7},
		{"accents of the alphabet", "Çà et là, où? ¿Señor Ñ? Grüße: £5 Δ", 1, channels.GSM7},
		{"lower c cedilla is outside", "ç", 1, channels.UCS2},
		{"grave accent is outside", "`", 1, channels.UCS2},
		{"70 fill one part", strings.Repeat(han, 70), 1, channels.UCS2},
		{"71 need two", strings.Repeat(han, 71), 2, channels.UCS2},
		{"134 fill two", strings.Repeat(han, 134), 2, channels.UCS2},
		{"135 need three", strings.Repeat(han, 135), 3, channels.UCS2},
		{"one outsider turns the whole text", strings.Repeat(a, 70) + han, 2, channels.UCS2},
		{"emoji counts two", strings.Repeat(emoji, 35), 1, channels.UCS2},
		{"emoji over the limit", strings.Repeat(emoji, 36), 2, channels.UCS2},
		{"emoji is not cut: 66+2+66", strings.Repeat(han, 66) + emoji + strings.Repeat(han, 66), 3, channels.UCS2},
		{"escape itself cannot travel", "\x1b", 1, channels.UCS2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			parts, enc := channels.Parts(tc.text)
			require.Equal(t, tc.parts, parts)
			require.Equal(t, tc.enc, enc)
		})
	}
}

// A part that is not the last could not have taken the next character.
func TestSegmentsWasteNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(161, 2000).Draw(t, "n")
		parts, _ := channels.Parts(strings.Repeat("x", n))
		require.Equal(t, (n+152)/153, parts)
		parts, _ = channels.Parts(strings.Repeat("界", n))
		require.Equal(t, (n+66)/67, parts)
	})
}
