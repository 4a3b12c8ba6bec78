// Package export writes rows as a file that people open with a spreadsheet: CSV or XLSX, row
// by row in constant memory. No text in it becomes a formula, and each row bears the mark of
// who took it out.
package export

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/xuri/excelize/v2"
)

// Format is the form of a file.
type Format string

// The formats.
const (
	CSV  Format = "csv"
	XLSX Format = "xlsx"
)

// ContentType is the media type of files of the format.
func (f Format) ContentType() string {
	if f == XLSX {
		return "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
	}
	return "text/csv"
}

// MaximumRows is how many rows a file of the format can have, 0 for no bound.
func (f Format) MaximumRows() int64 {
	if f == XLSX {
		return excelize.TotalRows - 1 // the header's
	}
	return 0
}

// Options is what a file is to be.
type Options struct {
	Format    Format
	BOM       bool     // of CSV: begin with the mark by which old spreadsheets know UTF-8
	Columns   []string // the header
	Watermark string   // the last column of each row: who took it out, and when
}

// Writer writes one file. Close ends it: without that it is not one.
type Writer interface {
	// Row writes a row of string, int64, float64, bool, time.Time or nil, one for each column.
	Row(values []any) error
	Close() error
}

// watermarkColumn heads the column of the watermark.
const watermarkColumn = "export"

// New begins a file on w and writes its header.
func New(w io.Writer, o Options) (Writer, error) {
	header := make([]any, 0, len(o.Columns)+1)
	for _, c := range append(o.Columns[:len(o.Columns):len(o.Columns)], watermarkColumn) {
		header = append(header, c)
	}
	var file Writer
	var err error
	switch o.Format {
	case CSV:
		file, err = newCSV(w, o.BOM)
	case XLSX:
		file, err = newXLSX(w)
	default:
		err = fmt.Errorf("export: no format %q", o.Format)
	}
	if err != nil {
		return nil, err
	}
	return &marked{Writer: file, mark: o.Watermark}, file.Row(header)
}

// marked adds the watermark to each row.
type marked struct {
	Writer
	mark string
	row  []any
}

func (m *marked) Row(values []any) error {
	m.row = append(append(m.row[:0], values...), m.mark)
	return m.Writer.Row(m.row)
}

// Guard keeps text from being taken for a formula by whatever opens the file, and reports
// whether it had to: it begins with an apostrophe then. It looks past what spreadsheets trim.
func Guard(text string) (string, bool) {
	first, _ := utf8.DecodeRuneInString(strings.TrimLeft(text, " \u00a0\u3000\ufeff"))
	switch first {
	case '=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠':
		return "'" + text, true
	}
	return text, false
}

type csvFile struct {
	out  *bufio.Writer
	line []byte
}

func newCSV(w io.Writer, bom bool) (*csvFile, error) {
	f := &csvFile{out: bufio.NewWriterSize(w, 64<<10)}
	if bom {
		if _, err := f.out.WriteString("\ufeff"); err != nil {
			return nil, fmt.Errorf("write export: %w", err)
		}
	}
	return f, nil
}

func (f *csvFile) Row(values []any) error {
	f.line = f.line[:0]
	for i, v := range values {
		if i > 0 {
			f.line = append(f.line, ',')
		}
		switch v := v.(type) {
		case nil:
		case string:
			f.line = appendText(f.line, v)
		case int64:
			f.line = strconv.AppendInt(f.line, v, 10)
		case float64:
			f.line = strconv.AppendFloat(f.line, v, 'g', -1, 64)
		case bool:
			f.line = strconv.AppendBool(f.line, v)
		case time.Time:
			f.line = v.UTC().AppendFormat(f.line, time.RFC3339)
		default:
			return fmt.Errorf("export: a value of type %T", v)
		}
	}
	f.line = append(f.line, '\r', '\n')
	if _, err := f.out.Write(f.line); err != nil {
		return fmt.Errorf("write export: %w", err)
	}
	return nil
}

func appendText(line []byte, text string) []byte {
	text, guarded := Guard(text)
	if !guarded && !strings.ContainsAny(text, "\",\r\n") && strings.TrimSpace(text) == text {
		return append(line, text...)
	}
	line = append(line, '"')
	line = append(line, strings.ReplaceAll(text, `"`, `""`)...)
	return append(line, '"')
}

func (f *csvFile) Close() error {
	if err := f.out.Flush(); err != nil {
		return fmt.Errorf("write export: %w", err)
	}
	return nil
}

// xlsxFile keeps what does not fit into a few megabytes in a temporary file, because the
// archive can be written only when the sheet is whole.
type xlsxFile struct {
	to    io.Writer
	book  *excelize.File
	sheet *excelize.StreamWriter
	row   int
	cells []any
}

func newXLSX(w io.Writer) (*xlsxFile, error) {
	f := &xlsxFile{to: w, book: excelize.NewFile()}
	var err error
	if f.sheet, err = f.book.NewStreamWriter("Sheet1"); err != nil {
		return nil, fmt.Errorf("write export: %w", err)
	}
	return f, nil
}

func (f *xlsxFile) Row(values []any) error {
	f.cells = f.cells[:0]
	for _, v := range values {
		switch v := v.(type) {
		case string:
			text, _ := Guard(v)
			f.cells = append(f.cells, text)
		case time.Time:
			f.cells = append(f.cells, v.UTC().Format(time.RFC3339))
		case nil, int64, float64, bool:
			f.cells = append(f.cells, v)
		default:
			return fmt.Errorf("export: a value of type %T", v)
		}
	}
	f.row++
	if err := f.sheet.SetRow("A"+strconv.Itoa(f.row), f.cells); err != nil {
		return fmt.Errorf("write export: %w", err)
	}
	return nil
}

func (f *xlsxFile) Close() error {
	err := f.sheet.Flush()
	if err == nil {
		err = f.book.Write(f.to)
	}
	if closed := f.book.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("write export: %w", err)
	}
	return nil
}
