package tabular

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"github.com/musterhq/muster/campaign"
)

// Block is a run of whole rows. Reader.Read fills it, Next takes it apart; the two may be
// done by different goroutines, one after the other. Its memory is kept for the next rows.
type Block struct {
	Number int64    // 0, 1, 2 … in the order of the file
	End    Position // of the first row after it: all of the block is before

	columns int
	limits  Limits

	// Of a text file.
	text    []byte
	comma   byte
	decoded bool // from another encoding, so that U+FFFD stands for bytes that were none
	at      Position
	long    bool // the first row is too long, and not in text
	pos     int
	checked bool
	clean   bool // no NUL and nothing but UTF-8
	quote   int  // next quote at or after pos
	cr      int  // next carriage return at or after pos
	lf      int  // next line feed at or after pos
	list    fieldList

	// Of a workbook or Parquet file.
	cells   []byte
	ends    []int // of each cell in cells
	entries []entry
	next    int
}

// entry is a row whose cells are known.
type entry struct {
	at    Position
	first int // index of its first cell in ends
	last  int // and of the first one after it
	fault *Fault
}

// Start returns where the block begins.
func (b *Block) Start() Position { return b.at }

func (b *Block) reset() {
	*b = Block{text: b.text[:0], list: fieldList{doubled: b.list.doubled}, cells: b.cells[:0], ends: b.ends[:0], entries: b.entries[:0]}
}

// Next takes the next row of the block. It reports false when there is none.
func (b *Block) Next(row *Row) bool {
	if b.long {
		b.long = false
		b.failLong(row)
		return true
	}
	if b.next < len(b.entries) {
		b.unpack(row)
		return true
	}
	if !b.checked {
		b.check()
	}
	for b.pos < len(b.text) {
		if b.quote < b.pos {
			b.quote = indexFrom(b.text, b.pos, '"')
		}
		if b.cr < b.pos {
			b.cr = indexFrom(b.text, b.pos, '\r')
		}
		if b.lf < b.pos {
			b.lf = indexFrom(b.text, b.pos, '\n')
		}
		line, next := b.lf, b.lf+1
		if b.cr < line {
			line, next = b.cr, b.cr+1
			if next < len(b.text) && b.text[next] == '\n' {
				next++
			}
		}
		next = min(next, len(b.text))
		if line == b.pos { // an empty line is no row
			b.at.Offset += int64(next - b.pos)
			b.at.Line++
			b.pos = next
			continue
		}
		b.takeLine(row, line, next)
		return true
	}
	return false
}

// indexFrom finds c at or after from; len(text) when there is none.
func indexFrom(text []byte, from int, c byte) int {
	if i := bytes.IndexByte(text[from:], c); i >= 0 {
		return from + i
	}
	return len(text)
}

func (b *Block) check() {
	b.checked = true
	b.quote, b.cr, b.lf = -1, -1, -1
	b.clean = bytes.IndexByte(b.text, 0) < 0 && utf8.Valid(b.text) && (!b.decoded || !bytes.Contains(b.text, replacement))
}

var replacement = []byte("\uFFFD")

// takeLine takes the row that begins at b.pos, whose first line ends at line and is
// followed by another one at next.
func (b *Block) takeLine(row *Row, line, next int) {
	start := b.pos
	row.Line, row.Offset, row.Fault = b.at.Line, b.at.Offset, nil
	row.Fields = row.Fields[:0]
	lines := int64(1)
	switch {
	case line-start > b.limits.Row:
		b.failLong(row)
	case b.quote >= line:
		row.Fields = splitPlain(row.Fields, b.text[start:line], b.comma)
		b.verify(row, b.text[start:line])
	default:
		b.list.fields, b.list.doubled = row.Fields, b.list.doubled[:0]
		quoted := walkQuoted(b.text[start:], b.comma, b.limits.Row, &b.list)
		if quoted.state != closed {
			b.failQuote(row, quoted, line-start)
			break
		}
		line = start + quoted.end
		next = afterLineEnd(b.text, line)
		content := b.text[start:line]
		if !b.clean {
			b.verifyText(row, content)
		}
		lines = lineEnds(b.text[start:next])
		b.list.finish(content)
		row.Fields = b.list.fields
		b.verifyShape(row, len(content))
	}
	b.pos = next
	b.at.Offset += int64(next - start)
	b.at.Line += lines
}

// splitPlain appends the fields of a line without quotes.
func splitPlain(fields [][]byte, line []byte, comma byte) [][]byte {
	begin := 0
	for i, c := range line {
		if c == comma {
			fields = append(fields, line[begin:i:i])
			begin = i + 1
		}
	}
	return append(fields, line[begin:len(line):len(line)])
}

func (b *Block) verify(row *Row, content []byte) {
	if !b.clean {
		b.verifyText(row, content)
	}
	b.verifyShape(row, len(content))
}

// verifyShape looks at the number and length of the fields.
func (b *Block) verifyShape(row *Row, size int) {
	if row.Fault != nil {
		return
	}
	if n := len(row.Fields); b.columns > 0 && n != b.columns {
		what := "are missing at the end, or a quoted field lacks its closing quote"
		if n > b.columns {
			what = "are too many: is a field with the delimiter in it not quoted?"
		}
		b.fail(row, Position{Line: row.Line, Offset: row.Offset}, campaign.CodeFieldCount, min(n, b.columns)+1,
			"the row has %d fields and the table %d columns; fields %s", n, b.columns, what)
		return
	}
	if size <= b.limits.Field {
		return
	}
	for i, f := range row.Fields {
		if len(f) > b.limits.Field {
			b.fail(row, Position{Line: row.Line, Offset: row.Offset}, campaign.CodeFieldTooLong, i+1, "the field has %d bytes; %d are allowed", len(f), b.limits.Field)
			return
		}
	}
}

// verifyText looks for bytes that are no text.
func (b *Block) verifyText(row *Row, content []byte) {
	nul := bytes.IndexByte(content, 0)
	bad := firstInvalid(content)
	if b.decoded {
		bad = bytes.Index(content, replacement)
	}
	at := Position{Line: row.Line, Offset: row.Offset}
	switch {
	case nul >= 0 && (bad < 0 || nul < bad):
		b.fail(row, at, campaign.CodeNULByte, fieldAt(content, nul, b.comma), "the field has a NUL byte in it; export the file again as text")
	case bad >= 0:
		b.fail(row, at, campaign.CodeInvalidBytes, fieldAt(content, bad, b.comma), "the field has bytes that are no characters in the encoding of the file; save it as UTF-8, or say which encoding it has")
	}
}

// firstInvalid returns where text stops being UTF-8, or -1.
func firstInvalid(text []byte) int {
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

// fieldAt returns the 1-based number of the field of a row in which the byte at i is.
func fieldAt(content []byte, i int, comma byte) int {
	n, inside := 1, false
	for _, c := range content[:i] {
		switch {
		case c == '"':
			inside = !inside
		case c == comma && !inside:
			n++
		}
	}
	return n
}

func (b *Block) failLong(row *Row) {
	row.Fields = row.Fields[:0]
	b.fail(row, b.at, campaign.CodeRowTooLong, 0, "the row has more than %d bytes; does it lack its line ending?", b.limits.Row)
}

func (b *Block) failQuote(row *Row, quoted quotedRow, line int) {
	if quoted.state == stray && quoted.end < line {
		b.fail(row, b.at, campaign.CodeBadQuote, quoted.field,
			"a quote stands in the middle of the field; a field with quotes in it begins and ends with one, and those in between are doubled")
		return
	}
	b.fail(row, b.at, campaign.CodeUnclosedQuote, walkQuoted(b.text[b.pos:b.pos+line], b.comma, line, nil).field,
		"the field begins with a quote and nothing ends it within %d bytes; close it, or double a quote that is part of the text", b.limits.Row)
}

func (b *Block) fail(row *Row, at Position, code campaign.Code, column int, message string, args ...any) {
	row.Line, row.Offset = at.Line, at.Offset
	row.Fault = &Fault{Code: code, Line: at.Line, Column: column, Message: fmt.Sprintf(message, args...)}
}

// unpack takes a row whose cells are known.
func (b *Block) unpack(row *Row) {
	e := b.entries[b.next]
	b.next++
	row.Line, row.Offset, row.Fault = e.at.Line, e.at.Offset, e.fault
	row.Fields = row.Fields[:0]
	begin := 0
	if e.first > 0 {
		begin = b.ends[e.first-1]
	}
	for _, end := range b.ends[e.first:e.last] {
		row.Fields = append(row.Fields, b.cells[begin:end:end])
		begin = end
	}
	if row.Fault == nil {
		b.verifyShape(row, 0) // the reader has looked at the lengths
	}
}
