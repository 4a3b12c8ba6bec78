package tabular

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/musterhq/muster/campaign"
)

// found is a layout with what only the reader needs.
type found struct {
	Layout
	begin Position // of the first row below the header
}

// The beginnings of files that are no text.
var (
	magicGzip    = []byte{0x1f, 0x8b}
	magicZip     = []byte("PK\x03\x04")
	magicNoZip   = []byte("PK\x05\x06") // a zip archive without files
	magicParquet = []byte("PAR1")
)

// foreign are the beginnings of files that people take for tables, and what to do.
var foreign = []struct {
	magic, what string
}{
	{"\xD0\xCF\x11\xE0", "an old Excel file (.xls) or one with a password; save it as .xlsx without a password"},
	{"%PDF", "a PDF; export the table as .csv or .xlsx"},
	{"<", "HTML or XML, whatever its name says; save it as .xlsx or .csv"},
	{"{", "JSON; export the table as .csv, .xlsx or Parquet"},
	{"7z\xBC\xAF", "a 7z archive; unpack it"},
	{"Rar!", "a RAR archive; unpack it"},
	{"BZh", "compressed with bzip2; unpack it, or use gzip"},
	{"\xFD7zXZ", "compressed with xz; unpack it, or use gzip"},
	{"\x28\xB5\x2F\xFD", "compressed with zstd; unpack it, or use gzip"},
	{"Obj\x01", "Avro; export the table as Parquet or .csv"},
	{"ORC", "ORC; export the table as Parquet or .csv"},
	{"ARROW1", "Arrow; export the table as Parquet or .csv"},
}

func lookAt(src io.ReaderAt, size int64, options Options, limits Limits) (found, table, error) {
	if size == 0 {
		return found{}, nil, emptyFile()
	}
	if size > limits.Bytes {
		return found{}, nil, campaign.Errorf(campaign.CodeFileTooLarge, "the file has %d bytes; %d are allowed", size, limits.Bytes)
	}
	head := make([]byte, 512)
	n, err := src.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return found{}, nil, err
	}
	head = head[:min(int64(n), size)]
	format := CSV
	switch {
	case bytes.HasPrefix(head, magicZip), bytes.HasPrefix(head, magicNoZip):
		format = XLSX
	case bytes.HasPrefix(head, magicParquet):
		format = Parquet
	}
	if options.Format != "" && options.Format != format {
		return found{}, nil, campaign.Errorf(campaign.CodeFormatUnsupported, "the file is said to be %s and is %s", options.Format, format)
	}
	switch format {
	case XLSX:
		return openWorkbook(src, size, options, limits)
	case Parquet:
		return openParquet(src, size, options, limits)
	}
	if options.Sheet != "" {
		return found{}, nil, campaign.Errorf(campaign.CodeInvalidParameter, "a text file has no sheets")
	}
	return openText(src, size, options, limits, bytes.HasPrefix(head, magicGzip))
}

func emptyFile() error {
	return campaign.Errorf(campaign.CodeEmptyFile, "the file is empty; its first row should name the columns")
}

// sampleSize is how much of the beginning is looked at.
const sampleSize = 256 << 10

func openText(src io.ReaderAt, size int64, options Options, limits Limits, zipped bool) (found, table, error) {
	t := &text{src: src, size: size, gzip: zipped, encoding: options.Encoding, limits: limits}
	raw, err := t.unpacked(&counter{in: io.NewSectionReader(src, 0, size)})
	if err != nil {
		return found{}, nil, err
	}
	sample, whole, err := readSample(raw)
	if err != nil {
		return found{}, nil, err
	}
	if err := refuseForeign(sample, zipped); err != nil {
		return found{}, nil, err
	}
	f := found{Layout: Layout{Format: CSV, Gzip: zipped, Rows: -1}}
	if f.BOM = hasMark(sample); t.encoding == "" {
		pieces := [][]byte{wholeLines(sample, whole)}
		if !zipped {
			pieces = append(pieces, piecesOf(src, size)...)
		}
		if t.encoding, err = detectEncoding(sample, pieces); err != nil {
			return found{}, nil, err
		}
	}
	if !known(t.encoding) {
		return found{}, nil, campaign.Errorf(campaign.CodeEncodingUnsupported, "there is no encoding %q; known are utf-8, gb18030 (also for GBK and GB2312), utf-16le and utf-16be", t.encoding)
	}
	f.Encoding = t.encoding
	decoded := decoderOf(t.encoding) != nil
	if decoded {
		// An error at the end is that of a character cut in two.
		if sample, err = decoderOf(t.encoding).Bytes(wholeLines(sample, whole)); err != nil {
			return found{}, nil, damaged(err)
		}
	}
	begin := Position{Line: 1}
	if bytes.HasPrefix(sample, mark) {
		begin.Offset = int64(len(mark))
	}
	sample = sample[begin.Offset:]
	if len(sample) == 0 {
		return found{}, nil, emptyFile()
	}
	t.comma = options.Comma
	if comma, n := declaredBySep(sample); n > 0 {
		begin.Offset, begin.Line, sample = begin.Offset+int64(n), begin.Line+1, sample[n:]
		if t.comma == 0 {
			t.comma = comma
		}
	}
	look := sampler{text: sample, whole: whole, decoded: decoded, at: begin, limits: limits}
	if t.comma == 0 {
		t.comma = look.comma()
	}
	f.Comma = t.comma
	if err := look.layout(&f, options.Header); err != nil {
		return found{}, nil, err
	}
	return f, t, nil
}

// readSample reads the beginning, and tells whether that was all.
func readSample(in io.Reader) (sample []byte, whole bool, err error) {
	sample, err = io.ReadAll(io.LimitReader(in, sampleSize))
	switch {
	case err != nil && (len(sample) == 0 || !errors.Is(err, io.ErrUnexpectedEOF)):
		return nil, false, damaged(err)
	case len(sample) == 0:
		return nil, false, emptyFile()
	}
	// Of a file that ends too early what is there is shown; reading on tells the rest.
	return sample, len(sample) < sampleSize, nil
}

func refuseForeign(sample []byte, zipped bool) error {
	if zipped {
		for _, magic := range [][]byte{magicGzip, magicZip, magicNoZip, magicParquet} {
			if bytes.HasPrefix(sample, magic) {
				return campaign.Errorf(campaign.CodeArchiveRejected, "the compressed file holds another archive or table; send that one, without gzip around it")
			}
		}
	}
	content := bytes.TrimLeft(bytes.TrimPrefix(sample, mark), " \t\r\n")
	for _, f := range foreign {
		if bytes.HasPrefix(content, []byte(f.magic)) {
			return campaign.Errorf(campaign.CodeFormatUnsupported, "the file is %s", f.what)
		}
	}
	if bytes.HasPrefix(content, []byte("[{")) {
		return campaign.Errorf(campaign.CodeFormatUnsupported, "the file is JSON; export the table as .csv, .xlsx or Parquet")
	}
	return nil
}

// declaredBySep reads the line by which spreadsheets declare a delimiter: sep=;
func declaredBySep(sample []byte) (comma byte, size int) {
	line := sample[:max(0, lineEnd(sample, 0))]
	if len(line) != 5 || !bytes.EqualFold(line[:4], []byte("sep=")) {
		return 0, 0
	}
	return line[4], afterLineEnd(sample, len(line))
}

// sampler looks at the beginning of a text, which is in UTF-8 by now.
type sampler struct {
	text    []byte
	whole   bool
	decoded bool
	at      Position
	limits  Limits
}

// block returns the sample as a block. A row that the sample cuts in two is left out.
func (s sampler) block(comma byte) *Block {
	cutter := splitter{comma: comma, limits: s.limits, eof: s.whole}
	text := s.text[:cutter.cut(s.text)]
	return &Block{text: bytes.Clone(text), comma: comma, decoded: s.decoded, at: s.at, limits: s.limits}
}

// sampleRows is how many rows tell the delimiter and the header.
const sampleRows = 100

// comma finds the delimiter: the one by which most rows have as many fields as the
// first; of several, the one with the most fields.
func (s sampler) comma() byte {
	best, bestScore := byte(','), 0
	for _, comma := range []byte(",;\t|") {
		b := s.block(comma)
		var row Row
		columns, like, rows := 0, 0, 0
		for ; rows < sampleRows && b.Next(&row); rows++ {
			if row.Fault != nil {
				continue
			}
			if columns == 0 {
				columns = len(row.Fields)
			}
			if len(row.Fields) == columns {
				like++
			}
		}
		if columns < 2 {
			continue
		}
		// A row in ten may be broken; then the number of fields speaks.
		score := columns
		if like*10 >= rows*9 {
			score += 1 << 20
		}
		if score > bestScore {
			best, bestScore = comma, score
		}
	}
	return best
}

// layout fills in what the first rows tell.
func (s sampler) layout(f *found, header HeaderRow) error {
	b := s.block(f.Comma)
	var row Row
	if !b.Next(&row) {
		if s.whole {
			return emptyFile()
		}
		return &campaign.Error{Code: campaign.CodeInvalidFile, Message: "the file cannot be read as a table",
			Fields: []campaign.FieldError{{Field: "file", Code: campaign.CodeRowTooLong, Message: fmt.Sprintf("the first row does not end within %d bytes; is the line ending right?", sampleSize), Line: int(s.at.Line)}}}
	}
	if row.Fault != nil {
		return &campaign.Error{Code: campaign.CodeInvalidFile, Message: "the first row, which should name the columns, cannot be read",
			Fields: []campaign.FieldError{{Field: "file", Code: row.Fault.Code, Message: row.Fault.Message, Line: int(row.Fault.Line), Column: row.Fault.Column}}}
	}
	first, line := textsOf(&row), row.Line
	below := b.at
	var sample [][]string
	b.columns = len(first)
	for len(sample) < sampleRows && b.Next(&row) {
		if row.Fault == nil {
			sample = append(sample, textsOf(&row))
		}
	}
	if err := f.name(first, sample, line, header, s.limits); err != nil {
		return err
	}
	if f.begin = s.at; f.HasHeader {
		f.begin = below
	}
	return nil
}

// textsOf copies a row.
func textsOf(row *Row) []string {
	texts := make([]string, len(row.Fields))
	for i, f := range row.Fields {
		texts[i] = string(f)
	}
	return texts
}

// shownRows is how many rows Layout.Sample has.
const shownRows = 20

// name decides whether the first row, which is at line, is a header, and names the columns.
func (f *found) name(first []string, sample [][]string, line int64, header HeaderRow, limits Limits) error {
	if len(first) > limits.Columns {
		return campaign.Errorf(campaign.CodeTooManyColumns, "the first row has %d columns; %d are allowed", len(first), limits.Columns).With("line", line)
	}
	f.HasHeader = header == HeaderPresent || header == HeaderAuto && looksLikeHeader(first, sample)
	if f.HasHeader {
		f.Columns, f.Faults = headerOf(first, line)
	} else {
		sample = append([][]string{first}, sample...)
		f.Columns = make([]string, len(first))
		for i := range f.Columns {
			f.Columns[i] = letters(i)
		}
	}
	f.Sample = sample[:min(len(sample), shownRows)]
	return nil
}

// looksLikeHeader reports whether the first row names columns: no column has a number or
// date in it where the rows below have one too.
func looksLikeHeader(first []string, sample [][]string) bool {
	for i, text := range first {
		if !looksLikeData(text) {
			continue
		}
		alike := 0
		for _, row := range sample {
			if i < len(row) && looksLikeData(row[i]) {
				alike++
			}
		}
		if alike*2 >= len(sample) {
			return false
		}
	}
	return true
}

// looksLikeData reports whether text is a number, a date or a time.
func looksLikeData(text string) bool {
	text = strings.TrimSpace(text)
	return strings.ContainsAny(text, "0123456789") && strings.Trim(text, "0123456789+-.,/: %TZEe") == ""
}

func headerOf(first []string, line int64) (names []string, faults []Fault) {
	seen := make(map[string]int, len(first))
	for i, name := range first {
		name = strings.TrimSpace(name)
		names = append(names, name)
		earlier, twice := seen[strings.ToLower(name)]
		switch {
		case name == "":
			faults = append(faults, Fault{Code: campaign.CodeBlankColumn, Line: line, Column: i + 1, Message: "the column has no name"})
		case twice:
			faults = append(faults, Fault{Code: campaign.CodeDuplicateColumn, Line: line, Column: i + 1, Message: fmt.Sprintf("the column has the name of column %d; names differ in more than case", earlier)})
		default:
			seen[strings.ToLower(name)] = i + 1
		}
	}
	return names, faults
}

// letters names the column at i as spreadsheets do: A … Z, AA …
func letters(i int) string {
	name := ""
	for i++; i > 0; i = (i - 1) / 26 {
		name = string(rune('A'+(i-1)%26)) + name
	}
	return name
}
