package tabular

import "bytes"

type quoteState int

const (
	closed quoteState = iota // the row ends where quotedRow.end says
	stray                    // a quote where none may be
	open                     // the text ends within a quoted field
)

// quotedRow is what walkQuoted found.
type quotedRow struct {
	state quoteState
	end   int // of the row without its line ending, or where the stray quote is noticed
	field int // 1-based, where it is noticed
}

// fieldList takes the fields that walkQuoted passes.
type fieldList struct {
	fields  [][]byte
	doubled []int // indexes of those with doubled quotes
}

// walkQuoted finds the end of the row with which text begins, some of whose fields may
// be quoted. It looks no further than a row of limit bytes can reach, so that one quote
// too many does not swallow a file. It changes nothing in text; the fields go to list,
// which may be nil, without the quotes around them.
func walkQuoted(text []byte, comma byte, limit int, list *fieldList) quotedRow {
	text = text[:min(len(text), limit+1)]
	for i, field := 0, 1; ; field++ {
		begin := i
		var end int
		if i < len(text) && text[i] == '"' {
			closing, doubled := closingQuote(text, i+1)
			if closing < 0 {
				return quotedRow{state: open, end: len(text), field: field}
			}
			if doubled && list != nil {
				list.doubled = append(list.doubled, len(list.fields))
			}
			begin, end, i = i+1, closing, closing+1
		} else {
			for i < len(text) && text[i] != comma && text[i] != '\n' && text[i] != '\r' {
				if text[i] == '"' {
					return quotedRow{state: stray, end: i, field: field}
				}
				i++
			}
			end = i
		}
		if list != nil {
			list.fields = append(list.fields, text[begin:end:end])
		}
		switch {
		case i > limit:
			return quotedRow{state: open, end: len(text), field: field}
		case i == len(text) || text[i] == '\n' || text[i] == '\r':
			return quotedRow{state: closed, end: i, field: field}
		case text[i] != comma:
			return quotedRow{state: stray, end: i, field: field}
		}
		i++
	}
}

// closingQuote finds the quote that ends a field whose content begins at i, -1 without
// one, and tells whether there are doubled ones before.
func closingQuote(text []byte, i int) (end int, doubled bool) {
	for {
		n := bytes.IndexByte(text[i:], '"')
		if n < 0 {
			return -1, doubled
		}
		i += n
		if i+1 == len(text) || text[i+1] != '"' {
			return i, doubled
		}
		doubled = true
		i += 2
	}
}

// finish makes doubled quotes single ones, in place, and line endings within the fields
// of content \n.
func (l *fieldList) finish(content []byte) {
	for _, i := range l.doubled {
		l.fields[i] = unquote(l.fields[i])
	}
	if bytes.IndexByte(content, '\r') < 0 {
		return
	}
	for i, f := range l.fields {
		l.fields[i] = lineFeeds(f)
	}
}

func unquote(field []byte) []byte {
	out := field[:0]
	for i := 0; i < len(field); i++ {
		if field[i] == '"' {
			i++ // the second of two
		}
		out = append(out, field[i])
	}
	return out
}

func lineFeeds(field []byte) []byte {
	out := field[:0]
	for i, c := range field {
		switch {
		case c != '\r':
			out = append(out, c)
		case i+1 == len(field) || field[i+1] != '\n':
			out = append(out, '\n')
		}
	}
	return out
}

// lineEnd returns where the line that begins at i ends, -1 when it does not.
func lineEnd(text []byte, i int) int {
	lf := bytes.IndexByte(text[i:], '\n')
	if lf < 0 {
		lf = len(text) - i
	}
	if cr := bytes.IndexByte(text[i:i+lf], '\r'); cr >= 0 {
		return i + cr
	}
	if i+lf == len(text) {
		return -1
	}
	return i + lf
}

// afterLineEnd returns where the line after the one that ends at i begins.
func afterLineEnd(text []byte, i int) int {
	switch {
	case i >= len(text):
		return len(text)
	case text[i] == '\r' && i+1 < len(text) && text[i+1] == '\n':
		return i + 2
	}
	return i + 1
}

// lineEnds counts the line endings of text: \n, \r and \r\n.
func lineEnds(text []byte) int64 {
	n := bytes.Count(text, []byte{'\n'})
	if cr := bytes.Count(text, []byte{'\r'}); cr > 0 {
		n += cr - bytes.Count(text, []byte("\r\n"))
	}
	return int64(n)
}
