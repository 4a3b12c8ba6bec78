package tabular

import (
	"bytes"
	"io"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding/simplifiedchinese"

	"github.com/musterhq/muster/campaign"
)

// The byte order marks of the encodings.
var (
	markUTF16LE = []byte{0xFF, 0xFE}
	markUTF16BE = []byte{0xFE, 0xFF}
	markUTF32LE = []byte{0xFF, 0xFE, 0, 0}
	markUTF32BE = []byte{0, 0, 0xFE, 0xFF}
	markGB18030 = []byte{0x84, 0x31, 0x95, 0x33}
)

func known(e Encoding) bool {
	return e == UTF8 || decoderOf(e) != nil
}

func hasMark(text []byte) bool {
	for _, m := range [][]byte{mark, markUTF16LE, markUTF16BE, markGB18030} {
		if bytes.HasPrefix(text, m) {
			return true
		}
	}
	return false
}

// wholeLines leaves out what the end of a sample may have cut in two.
func wholeLines(sample []byte, whole bool) []byte {
	if whole {
		return sample
	}
	if n := afterLastLine(sample); n > 0 {
		// In UTF-16 the other half of the line feed may follow.
		if bytes.HasPrefix(sample, markUTF16LE) {
			n += n % 2
		}
		return sample[:min(n, len(sample))]
	}
	return sample
}

// pieceSize is how much is looked at in each of the places further on.
const pieceSize = 64 << 10

// piecesOf reads whole lines from places all over a file, because the first character
// that tells the encoding may come late.
func piecesOf(src io.ReaderAt, size int64) [][]byte {
	var pieces [][]byte
	if size <= sampleSize {
		return nil
	}
	for _, at := range []int64{sampleSize, size / 4, size / 2, size / 4 * 3, size - pieceSize} {
		piece := make([]byte, pieceSize)
		n, err := src.ReadAt(piece, at)
		if err != nil && n == 0 {
			continue
		}
		begin := bytes.IndexByte(piece[:n], '\n') + 1
		end := afterLastLine(piece[:n])
		if begin > 0 && begin < end {
			pieces = append(pieces, piece[begin:end])
		}
	}
	return pieces
}

// detectEncoding tells the encoding of a text from its byte order mark or from what its
// bytes could be.
func detectEncoding(head []byte, pieces [][]byte) (Encoding, error) {
	switch {
	case bytes.HasPrefix(head, markUTF32LE), bytes.HasPrefix(head, markUTF32BE):
		return "", campaign.Errorf(campaign.CodeEncodingUnsupported, "the file is in UTF-32; save it as UTF-8").With("line", int64(1))
	case bytes.HasPrefix(head, mark):
		return UTF8, nil
	case bytes.HasPrefix(head, markUTF16LE):
		return UTF16LE, nil
	case bytes.HasPrefix(head, markUTF16BE):
		return UTF16BE, nil
	case bytes.HasPrefix(head, markGB18030):
		return GB18030, nil
	}
	if nuls := bytes.Count(head, []byte{0}); nuls*10 > len(head) {
		return "", campaign.Errorf(campaign.CodeEncodingUnsupported, "the file is no text, or UTF-16 without a byte order mark; save it as UTF-8, or say that it is utf-16le or utf-16be").With("line", int64(1))
	}
	var asUTF8, asGB tally
	for _, piece := range pieces {
		asUTF8.countUTF8(piece)
		asGB.countGB18030(piece)
	}
	switch {
	case asUTF8.bad == 0, asUTF8.good > 8*asUTF8.bad:
		return UTF8, nil
	case asGB.good > 8*asGB.bad && asGB.han*2 > asGB.good:
		return GB18030, nil
	}
	line := int64(1)
	if i := firstInvalid(head); i >= 0 {
		line += lineEnds(head[:i])
	}
	return "", campaign.Errorf(campaign.CodeEncodingUnsupported, "the file is neither UTF-8 nor GB18030 from line %d on; save it as UTF-8", line).With("line", line)
}

// tally counts the characters beyond ASCII in a text read in one encoding.
type tally struct {
	good, bad, han int
}

func (t *tally) countUTF8(text []byte) {
	for len(text) > 0 {
		if text[0] < utf8.RuneSelf {
			text = text[1:]
			continue
		}
		r, size := utf8.DecodeRune(text)
		t.count(r, size == 1)
		text = text[size:]
	}
}

func (t *tally) countGB18030(text []byte) {
	decoded, err := simplifiedchinese.GB18030.NewDecoder().Bytes(text)
	if err != nil {
		t.bad += len(text)
		return
	}
	for _, r := range string(decoded) {
		if r >= utf8.RuneSelf {
			t.count(r, r == utf8.RuneError)
		}
	}
}

func (t *tally) count(r rune, bad bool) {
	switch {
	case bad:
		t.bad++
	case unicode.Is(unicode.Han, r) || r >= 0x3000 && r <= 0x303F || r >= 0xFF00 && r <= 0xFFEF:
		t.han++
		t.good++
	default:
		t.good++
	}
}
