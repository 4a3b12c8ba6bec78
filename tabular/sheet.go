package tabular

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/musterhq/muster/campaign"
)

// blockRows is how many rows of a workbook or a Parquet file a block has at most.
const blockRows = 1000

func (w *workbook) rows(from Position) (source, error) {
	in, err := w.open(w.sheet, w.limits.Bytes)
	if err != nil {
		return nil, err
	}
	return &sheetReader{book: w, in: in, xml: newXMLScanner(in, w.limits.Field), from: from.Line}, nil
}

// layout fills in what the first rows tell.
func (w *workbook) layout(f *found, header HeaderRow) error {
	rows, err := w.rows(Position{})
	if err != nil {
		return err
	}
	b := &Block{limits: w.limits}
	if err = rows.read(b); err != nil {
		err = errors.Join(err, rows.close())
		if errors.Is(err, io.EOF) {
			return emptyFile()
		}
		return err
	}
	if err := rows.close(); err != nil {
		return err
	}
	var row Row
	b.Next(&row)
	if row.Fault != nil {
		return &campaign.Error{Code: campaign.CodeInvalidFile, Message: "the first row, which should name the columns, cannot be read",
			Fields: []campaign.FieldError{{Field: "file", Code: row.Fault.Code, Message: row.Fault.Message, Line: int(row.Fault.Line), Column: row.Fault.Column}}}
	}
	first, line := textsOf(&row), row.Line
	w.width = len(first)
	var sample [][]string
	for len(sample) < sampleRows && b.Next(&row) {
		texts := textsOf(&row)
		if row.Fault == nil && len(texts) <= len(first) {
			sample = append(sample, append(texts, make([]string, len(first)-len(texts))...))
		}
	}
	if err := f.name(first, sample, line, header, w.limits); err != nil {
		return err
	}
	f.begin = Position{Offset: line - 1, Line: line}
	if f.HasHeader {
		f.begin = Position{Offset: line, Line: line + 1}
	}
	return nil
}

// sheetReader reads the rows of a sheet that hold anything.
type sheetReader struct {
	book *workbook
	in   *part
	xml  *xmlScanner
	from int64 // the first row wanted

	failed error // to be told after the rows before it
	within sheetPart
	row    int64
	cell   cell
	chars  textCollector
}

// sheetPart is how deep the reader is in a sheet.
type sheetPart int

const (
	noData sheetPart = iota
	inData
	inRow
	inCell
)

// enter goes from one part into the next. What stands beside the data is passed.
func (r *sheetReader) enter(from, to sheetPart) (bool, error) {
	if r.within == noData && from != noData {
		return false, nil
	}
	if r.within != from {
		return false, r.damaged("rows hold cells, and neither hold rows")
	}
	r.within = to
	return true, nil
}

// leave goes back, and reports whether it was in that part.
func (r *sheetReader) leave(from, to sheetPart) bool {
	if r.within != from {
		return false
	}
	r.within = to
	return true
}

// cell is the one that is being read.
type cell struct {
	column  int // from 0
	kind    string
	style   int
	formula bool
	inValue bool
	value   []byte
}

func (r *sheetReader) consumed() int64 { return min(r.book.meter.n.Load(), r.book.size) }

func (r *sheetReader) close() error { return r.in.Close() }

func (r *sheetReader) read(b *Block) error {
	for len(b.entries) < blockRows && len(b.cells) < r.book.limits.block {
		ok, err := r.nextRow(b)
		if err != nil {
			// The rows before the place where a file is damaged are handed out first.
			if r.failed = err; len(b.entries) > 0 {
				break
			}
			return err
		}
		if !ok {
			break
		}
	}
	if len(b.entries) == 0 {
		return io.EOF
	}
	b.at = b.entries[0].at
	b.End = Position{Offset: r.row, Line: r.row + 1}
	return nil
}

// nextRow appends the next row that holds anything. It reports false at the end of the
// sheet.
func (r *sheetReader) nextRow(b *Block) (bool, error) {
	if r.failed != nil {
		return false, r.failed
	}
	e := entry{first: len(b.ends)}
	begin := len(b.cells)
	for {
		kind, err := r.xml.next()
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if kind == xmlText {
			r.takeText(kind)
			continue
		}
		switch string(r.xml.name) {
		case "sheetData":
			if kind == xmlEnd {
				r.leave(inData, noData)
			} else if _, err := r.enter(noData, inData); err != nil {
				return false, err
			}
		case "row":
			if kind == xmlStart {
				entered, err := r.enter(inData, inRow)
				if entered {
					err = r.beginRow()
				}
				if err != nil {
					return false, err
				}
				e.at = Position{Offset: r.row - 1, Line: r.row}
				continue
			}
			if !r.leave(inRow, inData) {
				continue
			}
			if r.row < r.from || len(b.ends) == e.first && e.fault == nil {
				b.cells, b.ends = b.cells[:begin], b.ends[:e.first]
				e.fault = nil
				continue
			}
			for len(b.ends)-e.first < r.book.width {
				b.ends = append(b.ends, len(b.cells))
			}
			e.last = len(b.ends)
			b.entries = append(b.entries, e)
			return true, nil
		case "c":
			if kind == xmlStart {
				entered, err := r.enter(inRow, inCell)
				if entered {
					err = r.beginCell()
				}
				if err != nil {
					return false, err
				}
				continue
			}
			if r.leave(inCell, inRow) && r.row >= r.from {
				if err := r.endCell(b, &e, begin); err != nil {
					return false, err
				}
			}
		case "f":
			r.cell.formula = true
		case "v":
			r.cell.inValue = kind == xmlStart
		default:
			r.takeText(kind)
		}
	}
}

func (r *sheetReader) takeText(kind xmlKind) {
	longest := r.book.limits.Field
	if kind == xmlText && r.cell.inValue && len(r.cell.value) <= longest {
		r.cell.value = append(r.cell.value, r.xml.text...)
		return
	}
	if r.cell.kind == "inlineStr" {
		r.cell.value = r.chars.take(r.xml, kind, r.cell.value, longest)
	}
}

func (r *sheetReader) beginRow() error {
	number := r.row + 1
	if text, ok := attr(r.xml.attrs, "r"); ok {
		n, err := strconv.ParseInt(string(text), 10, 64)
		if err != nil || n < number || n > lastRow {
			return r.damaged("rows are numbered in order, from 1 to %d", lastRow)
		}
		number = n
	}
	r.row = number
	r.cell.column = -1
	return nil
}

func (r *sheetReader) damaged(right string, args ...any) error {
	err := campaign.Errorf(campaign.CodeInvalidFile, "the workbook is damaged after row %d: "+right+"; open it and save it again", append([]any{r.row}, args...)...)
	return err.With("line", r.row)
}

func (r *sheetReader) beginCell() error {
	column := r.cell.column + 1
	if ref, ok := attr(r.xml.attrs, "r"); ok {
		n := columnOf(ref)
		if n < column {
			return r.damaged("cells stand in order in their row")
		}
		column = n
	}
	if column >= lastColumn {
		return r.damaged("a row has at most %d cells", lastColumn)
	}
	kind, _ := attr(r.xml.attrs, "t")
	style := 0
	if number, ok := attr(r.xml.attrs, "s"); ok {
		n, err := strconv.Atoi(string(number))
		if err != nil {
			return r.damaged("a cell has a style by its number")
		}
		style = n
	}
	r.cell = cell{column: column, kind: cellKind(kind), style: style, value: r.cell.value[:0]}
	r.chars = textCollector{}
	return nil
}

// cellKind returns kind without making a string of it.
func cellKind(kind []byte) string {
	for _, known := range []string{"n", "s", "str", "inlineStr", "b", "e", "d"} {
		if string(kind) == known {
			return known
		}
	}
	return "n"
}

// columnOf reads the letters of a reference such as AB12. It returns -1 for what is none.
func columnOf(ref []byte) int {
	n := 0
	for i, c := range ref {
		if c < 'A' || c > 'Z' {
			break
		}
		if n = n*26 + int(c-'A') + 1; i > 3 {
			return -1
		}
	}
	return n - 1
}

// endCell appends the cell that was read to its row, if it holds anything.
func (r *sheetReader) endCell(b *Block, e *entry, begin int) error {
	c := &r.cell
	fail := func(code campaign.Code, message string) {
		if e.fault == nil {
			e.fault = &Fault{Code: code, Line: r.row, Column: c.column + 1, Message: message}
		}
	}
	text := c.value
	switch c.kind {
	case "s":
		if len(text) == 0 {
			break
		}
		var ok bool
		if text, ok = r.book.texts.at(text); !ok {
			return r.damaged("a cell refers to a text that is not there")
		}
	case "inlineStr", "str":
		text = unescape(text)
	case "b":
		switch string(text) {
		case "1":
			text = []byte("TRUE")
		case "0":
			text = []byte("FALSE")
		}
	case "e":
		fail(campaign.CodeCellError, "the cell shows an error such as #N/A; put a value there, or leave it empty")
		return nil
	case "n":
		if len(text) > 0 {
			var ok bool
			if text, ok = r.book.number(text, c.style); !ok {
				fail(campaign.CodeCellError, "the cell holds a number of more than 15 digits, of which the spreadsheet keeps 15; format the column as text and enter it again")
				return nil
			}
		}
	}
	if len(text) == 0 {
		if c.formula && c.kind == "n" {
			fail(campaign.CodeCellError, "the cell has a formula without a result; open the workbook in a spreadsheet program and save it")
		}
		return nil
	}
	switch {
	case len(text) > r.book.limits.Field:
		fail(campaign.CodeFieldTooLong, "the cell has more than "+strconv.Itoa(r.book.limits.Field)+" bytes")
		return nil
	case len(b.cells)-begin+len(text) > r.book.limits.Row:
		fail(campaign.CodeRowTooLong, "the row has more than "+strconv.Itoa(r.book.limits.Row)+" bytes")
		return nil
	case bytes.IndexByte(text, 0) >= 0:
		fail(campaign.CodeNULByte, "the cell has a NUL character in it")
		return nil
	case !utf8.Valid(text):
		fail(campaign.CodeInvalidBytes, "the cell has bytes that are no characters")
		return nil
	}
	for len(b.ends)-e.first < c.column {
		b.ends = append(b.ends, len(b.cells))
	}
	b.cells = append(b.cells, text...)
	b.ends = append(b.ends, len(b.cells))
	return nil
}

// style is how a cell shows its number.
type style struct {
	kind   styleKind
	digits int // of a number with leading zeros
}

type styleKind byte

const (
	plainNumber styleKind = iota
	leadingZeros
	date
	elapsed // hours beyond 24
)

// readStyles learns which styles show a date. The colours and fonts are no matter.
func (w *workbook) readStyles(part *zip.File) error {
	formats := map[int]style{}
	inCells := false
	return w.scan(part, 64<<20, func(s *xmlScanner, kind xmlKind) error {
		switch string(s.name) {
		case "cellXfs":
			inCells = kind == xmlStart
		case "numFmt":
			if id, err := strconv.Atoi(s.attrText("numFmtId")); err == nil && kind == xmlStart && len(formats) < mostStyles {
				formats[id] = styleOf(s.attrText("formatCode"))
			}
		case "xf":
			if !inCells || kind != xmlStart || len(w.styles) >= mostStyles {
				return nil
			}
			id, err := strconv.Atoi(s.attrText("numFmtId"))
			if err != nil {
				id = 0
			}
			f, own := formats[id]
			if !own {
				f = builtIn(id)
			}
			w.styles = append(w.styles, f)
		}
		return nil
	})
}

// builtIn is the style of a format that has a number and no text (ECMA-376, 18.8.30).
func builtIn(id int) style {
	switch {
	case id == 46:
		return style{kind: elapsed}
	case id >= 14 && id <= 22, id >= 27 && id <= 36, id == 45, id == 47, id >= 50 && id <= 58:
		return style{kind: date}
	}
	return style{}
}

// styleOf reads a format such as yyyy"年"m"月"d"日";@ or 00000000000.
func styleOf(format string) style {
	if format != "" && strings.Trim(format, "0") == "" && len(format) > 1 {
		return style{kind: leadingZeros, digits: len(format)}
	}
	format = strings.ToLower(format)
	for i := 0; i < len(format); i++ {
		switch c := format[i]; c {
		case ';':
			return style{}
		case '\\', '_', '*':
			i++
		case '"':
			i += 1 + max(0, strings.IndexByte(format[i+1:], '"'))
		case '[':
			if strings.HasPrefix(format[i:], "[h") || strings.HasPrefix(format[i:], "[m") || strings.HasPrefix(format[i:], "[s") {
				return style{kind: elapsed}
			}
			i += 1 + max(0, strings.IndexByte(format[i+1:], ']'))
		case 'y', 'd', 'h', 'm', 's':
			return style{kind: date}
		case 'g':
			if strings.HasPrefix(format[i:], "general") {
				return style{}
			}
		}
	}
	return style{}
}
