package smpp_test

import (
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/linxGnu/gosmpp/data"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/channels"
)

// Our octets, decoded by an independent implementation, give the text back; no
// part is longer than the standard allows; Parts agrees with Segments.
func TestSegmentsDecodeToTheText(t *testing.T) {
	gsm := rapid.StringOfN(rapid.SampledFrom([]rune("@£$¥èéùìòÇ\nØøÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ ¤%09?¡AZÄÖÑÜ§¿azäöñüà^{}\\[~]|€")), 1, 800, -1)
	every := rapid.StringN(1, 300, -1)
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(gsm, every).Draw(t, "text")
		segments, enc := channels.Segments(text)
		parts, same := channels.Parts(text)
		require.Equal(t, enc, same)
		require.Len(t, segments, parts)

		limit, decoder := 160, data.GSM7BIT
		if parts > 1 {
			limit = 153
		}
		if enc == channels.UCS2 {
			limit, decoder = 140, data.UCS2
			if parts > 1 {
				limit = 134
			}
		}
		var whole strings.Builder
		for _, octets := range segments {
			require.LessOrEqual(t, len(octets), limit)
			require.NotEmpty(t, octets)
			part, err := decoder.Decode(octets)
			require.NoError(t, err)
			whole.WriteString(part)
		}
		require.Equal(t, string(utf16.Decode(utf16.Encode([]rune(text)))), whole.String())
	})
}
