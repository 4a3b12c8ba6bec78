package tabular

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"

	"github.com/musterhq/muster/campaign"
)

// mark is the byte order mark in UTF-8, into which those of other encodings are turned.
var mark = []byte("\uFEFF")

// text is a delimited text file.
type text struct {
	src      io.ReaderAt
	size     int64
	gzip     bool
	encoding Encoding
	comma    byte
	limits   Limits
}

// decoders are by encoding. UTF-8 needs none.
func decoderOf(e Encoding) *encoding.Decoder {
	switch e {
	case GB18030:
		return simplifiedchinese.GB18030.NewDecoder()
	case UTF16LE:
		return unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM).NewDecoder()
	case UTF16BE:
		return unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM).NewDecoder()
	}
	return nil
}

// unpacked reads the file from its beginning, decompressed and as it is encoded.
func (t *text) unpacked(packed *counter) (io.Reader, error) {
	if !t.gzip {
		return packed, nil
	}
	unzipped, err := gzip.NewReader(packed)
	if err != nil {
		return nil, damaged(err)
	}
	return &inflated{in: unzipped, packed: packed, limits: t.limits}, nil
}

func (t *text) rows(from Position) (source, error) {
	packed := &counter{in: io.NewSectionReader(t.src, 0, t.size)}
	decoder := decoderOf(t.encoding)
	s := &splitter{packed: packed, at: from, comma: t.comma, decoded: decoder != nil, limits: t.limits}
	if !t.gzip && decoder == nil {
		if from.Offset > t.size {
			return nil, campaign.Errorf(campaign.CodeInvalidParameter, "the file has %d bytes, fewer than the %d to go on from; is it another file?", t.size, from.Offset)
		}
		packed.in, packed.n = io.NewSectionReader(t.src, from.Offset, t.size-from.Offset), from.Offset
		s.in = packed
		return s, nil
	}
	in, err := t.unpacked(packed)
	if err != nil {
		return nil, err
	}
	if decoder != nil {
		in = transform.NewReader(in, decoder)
	}
	// What is packed or encoded can only be read from its beginning.
	if n, err := io.CopyN(io.Discard, in, from.Offset); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, campaign.Errorf(campaign.CodeInvalidParameter, "the file has %d bytes of text, fewer than the %d to go on from; is it another file?", n, from.Offset)
		}
		return nil, damaged(err)
	}
	s.in = in
	return s, nil
}

// counter counts what is read.
type counter struct {
	in io.Reader
	n  int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	c.n += int64(n)
	return n, err
}

// inflated stops a file that unpacks to far more than it is.
type inflated struct {
	in     io.Reader
	packed *counter
	n      int64
	limits Limits
}

func (r *inflated) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	r.n += int64(n)
	if r.n > r.limits.harmless && r.n/r.limits.Ratio > r.packed.n {
		return 0, campaign.Errorf(campaign.CodeArchiveRejected, "the file unpacks to more than %d times its size; send it unpacked", r.limits.Ratio)
	}
	return n, err
}

// damaged says that a file cannot be read to its end.
func damaged(err error) error {
	var known *campaign.Error
	if errors.As(err, &known) {
		return err
	}
	message := "the file is damaged; export it again"
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // a caller would take io.EOF for the end of the rows
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		message = "the file ends too early; send it again"
	}
	return &campaign.Error{Code: campaign.CodeInvalidFile, Message: message, Err: err}
}

// splitter cuts text into blocks of whole rows.
type splitter struct {
	packed  *counter
	in      io.Reader
	at      Position // of what comes next
	comma   byte
	decoded bool
	limits  Limits
	tail    []byte // read, but not yet in a block
	eof     bool
	failed  error // to be told after the rows before it
	begun   bool
}

func (s *splitter) consumed() int64 { return s.packed.n }

func (s *splitter) close() error { return nil }

func (s *splitter) read(b *Block) error {
	b.comma, b.decoded = s.comma, s.decoded
	b.text = append(b.text, s.tail...)
	s.tail = s.tail[:0]
	for want := s.limits.block; ; want += s.limits.block {
		b.text = s.fill(b.text, want)
		if !s.begun {
			s.begun = true
			if s.at.Offset == 0 && bytes.HasPrefix(b.text, mark) {
				b.text = b.text[:copy(b.text, b.text[len(mark):])]
				s.at.Offset = int64(len(mark))
			}
		}
		if len(b.text) == 0 && s.failed == nil {
			return io.EOF
		}
		b.at = s.at
		if cut := s.cut(b.text); cut > 0 {
			s.tail = append(s.tail, b.text[cut:]...)
			b.text = b.text[:cut]
			s.at.Offset += int64(cut)
			s.at.Line += lineEnds(b.text)
			break
		}
		if s.failed != nil {
			return s.failed
		}
		if len(b.text) > s.limits.Row+1 {
			if err := s.skipLine(b); err != nil {
				return err
			}
			break
		}
	}
	b.End = s.at
	if s.at.Offset > s.limits.Bytes {
		return campaign.Errorf(campaign.CodeFileTooLarge, "the file has more than %d bytes of text; split it", s.limits.Bytes).With("line", s.at.Line)
	}
	return nil
}

// fill reads until text has want bytes or there are no more.
func (s *splitter) fill(text []byte, want int) []byte {
	if !s.eof && s.failed == nil && cap(text) < want {
		text = append(make([]byte, 0, want), text...)
	}
	for idle := 0; !s.eof && s.failed == nil && len(text) < want; {
		n, err := s.in.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		switch {
		case errors.Is(err, io.EOF):
			s.eof = true
		case err != nil:
			s.failed = damaged(err)
		case n > 0:
			idle = 0
		default:
			if idle++; idle > 100 {
				s.failed = damaged(io.ErrNoProgress)
			}
		}
	}
	return text
}

// cut returns the length of the whole rows at the beginning of text, 0 when it has to
// read on to tell.
func (s *splitter) cut(text []byte) int {
	if s.eof || len(text) == 0 {
		return len(text)
	}
	if text[len(text)-1] == '\r' { // a line feed may follow
		text = text[:len(text)-1]
	}
	quote := bytes.IndexByte(text, '"')
	if quote < 0 {
		return afterLastLine(text)
	}
	// Before the first quote every line is a row.
	cut := afterLastLine(text[:quote])
	for cut < len(text) {
		line := lineEnd(text, cut) - cut
		if line < 0 {
			return cut
		}
		row := line
		if line <= s.limits.Row && bytes.IndexByte(text[cut:cut+line], '"') >= 0 {
			quoted := walkQuoted(text[cut:], s.comma, s.limits.Row, nil)
			if quoted.state != stray && quoted.end == len(text)-cut && quoted.end <= s.limits.Row {
				return cut // the next byte decides
			}
			if quoted.state == closed {
				row = quoted.end
			}
		}
		cut = afterLineEnd(text, cut+row)
	}
	return cut
}

// afterLastLine returns where the line after the last line ending begins, 0 without one.
func afterLastLine(text []byte) int {
	after := bytes.LastIndexByte(text, '\n') + 1
	return after + bytes.LastIndexByte(text[after:], '\r') + 1
}

// skipLine makes b the one row that is too long, and reads to the end of its line.
func (s *splitter) skipLine(b *Block) error {
	b.long = true
	chunk := b.text
	for {
		if i := lineEnd(chunk, 0); i >= 0 && (i+1 < len(chunk) || chunk[i] == '\n' || s.eof) {
			next := afterLineEnd(chunk, i)
			s.tail = append(s.tail, chunk[next:]...)
			s.at.Offset += int64(next)
			s.at.Line++
			break
		} else if i >= 0 { // the carriage return is the last byte read
			s.at.Offset += int64(i)
			chunk = chunk[:copy(chunk, chunk[i:])]
		} else {
			s.at.Offset += int64(len(chunk))
			chunk = chunk[:0]
		}
		if s.at.Offset > s.limits.Bytes {
			return campaign.Errorf(campaign.CodeFileTooLarge, "the file has more than %d bytes of text; split it", s.limits.Bytes).With("line", s.at.Line)
		}
		if s.eof {
			break
		}
		if s.failed != nil {
			return s.failed
		}
		chunk = s.fill(chunk, len(chunk)+s.limits.block)
	}
	b.text = b.text[:0]
	return nil
}
