package tabular

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/musterhq/muster/campaign"
)

// Format is the kind of a file.
type Format string

// The formats that are read.
const (
	CSV     Format = "csv" // any delimited text, also gzipped
	XLSX    Format = "xlsx"
	Parquet Format = "parquet"
)

// Encoding is how a text file stores characters.
type Encoding string

// The encodings that are read. GB18030 reads GBK and GB2312 too, which are parts of it.
const (
	UTF8    Encoding = "utf-8"
	GB18030 Encoding = "gb18030"
	UTF16LE Encoding = "utf-16le"
	UTF16BE Encoding = "utf-16be"
)

// HeaderRow says whether the first row names the columns.
type HeaderRow int

// HeaderAuto looks at the first rows, see Layout.HasHeader.
const (
	HeaderAuto HeaderRow = iota
	HeaderPresent
	HeaderAbsent
)

// Options say what is known about a file. What is left out is found out.
type Options struct {
	Format   Format
	Encoding Encoding  // of a text file
	Comma    byte      // between the fields of a text file: , ; TAB or |
	Header   HeaderRow //
	Sheet    string    // of a workbook; the first one when empty
	From     Position  // the rows before are skipped; Block.End of an earlier reading
	Limits   Limits
}

// Limits keep a file from taking more than its share. Zero means the default.
type Limits struct {
	Bytes   int64 // of the rows' text, unpacked; 16 GiB. A workbook's shared texts may have 128 MiB of it
	Ratio   int64 // unpacked to packed bytes, once 64 MiB are unpacked; 250
	Rows    int64 // lines of text, rows of a sheet; 100 million
	Columns int   // 1,600, what a database table can have
	Row     int   // bytes of a row; 1 MiB. So far an opening quote is followed to find the closing one
	Field   int   // bytes of a field; 64 KiB

	// What is no matter of a user's; tests have small ones.
	block    int   // bytes of a block
	harmless int64 // bytes that may be unpacked before the ratio counts
	texts    int   // bytes of the texts that the cells of a workbook share, which are kept in memory
}

// blockSize is about how much text a block has: large enough that handing it from one
// goroutine to another costs nothing, small enough to stay in a processor's cache.
const blockSize = 256 << 10

func (l Limits) orDefault() Limits {
	fill := func(n *int64, preset int64) {
		if *n <= 0 {
			*n = preset
		}
	}
	fill(&l.Bytes, 16<<30)
	fill(&l.Ratio, 250)
	fill(&l.Rows, 100_000_000)
	fill(&l.harmless, 64<<20)
	if l.Columns <= 0 {
		l.Columns = 1600
	}
	if l.Row <= 0 {
		l.Row = 1 << 20
	}
	if l.block <= 0 {
		l.block = blockSize
	}
	if l.texts <= 0 {
		l.texts = 128 << 20
	}
	if l.Field <= 0 {
		l.Field = 64 << 10
	}
	return l
}

// Position is a place between two rows, from which reading can go on.
type Position struct {
	Offset int64 `json:"offset"` // bytes of the text unpacked and in UTF-8, or rows of a sheet or table
	Line   int64 `json:"line"`   // 1-based line of text or row of the sheet that begins here
}

// Row is one row. Its memory is used again for the next one.
type Row struct {
	Line   int64    // 1-based line of text at which it begins, or its number in the sheet
	Offset int64    // where it begins, see Position
	Fields [][]byte // UTF-8 without the quotes; as far as they could be told apart when there is a Fault
	Fault  *Fault   // why the row cannot be used, nil for a good one
}

// Blank reports whether no field holds anything but blanks, as the rows that
// spreadsheets write below their data.
func (r *Row) Blank() bool {
	for _, f := range r.Fields {
		if !blank(f) {
			return false
		}
	}
	return true
}

func blank(field []byte) bool {
	for _, c := range field {
		if c != ' ' && c != '\t' {
			return false
		}
	}
	return true
}

// Fault says what is wrong with one row and what would be right. It holds nothing of
// what stands in the row.
type Fault struct {
	Code    campaign.Code
	Line    int64 // 1-based, as Row.Line
	Column  int   // 1-based number of the field at fault, 0 when it is the whole row
	Message string
}

// Error returns the message with its place.
func (f *Fault) Error() string {
	if f.Column == 0 {
		return fmt.Sprintf("line %d: %s", f.Line, f.Message)
	}
	return fmt.Sprintf("line %d, column %d: %s", f.Line, f.Column, f.Message)
}

// Layout is how a file is laid out.
type Layout struct {
	Format    Format
	Gzip      bool     // the text is compressed
	Encoding  Encoding // of a text file
	BOM       bool     // a text file begins with a byte order mark
	Comma     byte     // of a text file
	Sheet     string   // of a workbook: the one that is read
	Sheets    []string // of a workbook: all of them
	HasHeader bool
	Columns   []string   // names from the header, trimmed; A, B, C … without one
	Faults    []Fault    // of the header: columns without a name, names that are there twice
	Rows      int64      // in the file, where it says so itself; else -1
	Sample    [][]string // the first good rows, at most 20
}

// table is an opened file of any format.
type table interface {
	// rows begins to read at a place.
	rows(from Position) (source, error)
}

// source hands out the rows of a table, from one goroutine.
type source interface {
	// read fills b with the next rows. It returns io.EOF when there are none.
	read(b *Block) error
	// consumed is how many bytes of the file have been read.
	consumed() int64
	close() error
}

// Reader reads the rows of a file in order. It is used from one goroutine; its blocks
// may be taken apart by others.
type Reader struct {
	layout Layout
	limits Limits
	source source
	number int64
	block  Block
	file   io.Closer
}

// Open opens size bytes of src. It reads as much of the beginning as it needs to find
// out what options do not say.
//
// It fails with a campaign.Error: CodeFormatUnsupported, CodeEncodingUnsupported,
// CodeArchiveRejected, CodeFileTooLarge, CodeEmptyFile, CodeTooManyColumns,
// CodeInvalidFile for a damaged one, CodeInvalidParameter for options that do not fit
// the file.
func Open(src io.ReaderAt, size int64, options Options) (*Reader, error) {
	limits := options.Limits.orDefault()
	layout, file, err := lookAt(src, size, options, limits)
	if err != nil {
		return nil, err
	}
	from := options.From
	if from.Offset <= layout.begin.Offset {
		from = layout.begin
	}
	rows, err := file.rows(from)
	if err != nil {
		return nil, err
	}
	return &Reader{layout: layout.Layout, limits: limits, source: rows}, nil
}

// OpenFile opens the file called name, see Open. Close closes it.
func OpenFile(name string, options Options) (*Reader, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	r, err := Open(f, info.Size(), options)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	r.file = f
	return r, nil
}

// Sniff tells how a file is laid out without reading more than its beginning. It fails
// as Open does.
func Sniff(src io.ReaderAt, size int64, options Options) (Layout, error) {
	layout, _, err := lookAt(src, size, options, options.Limits.orDefault())
	return layout.Layout, err
}

// Layout tells how the file is laid out.
func (r *Reader) Layout() Layout { return r.layout }

// Header returns the names of the columns, see Layout.Columns.
func (r *Reader) Header() []string { return r.layout.Columns }

// Consumed returns how many bytes of the file have been read so far.
func (r *Reader) Consumed() int64 { return r.source.consumed() }

// Read fills b with the next rows. What b held before is gone. It returns io.EOF when
// there are no more rows, and fails as Open does where the file turns out to be damaged
// or too large; the rows before that place have been handed out.
func (r *Reader) Read(b *Block) error {
	b.reset()
	b.columns, b.limits = len(r.layout.Columns), r.limits
	if err := r.source.read(b); err != nil {
		b.reset()
		return err
	}
	if b.End.Line > r.limits.Rows+1 {
		b.reset()
		return campaign.Errorf(campaign.CodeFileTooLarge, "the file has more than %d lines; split it", r.limits.Rows).With("line", r.limits.Rows)
	}
	b.Number = r.number
	r.number++
	return nil
}

// Next reads the next row, header excluded. It is Read for those who need no parallel
// work, and returns what Read returns.
func (r *Reader) Next(row *Row) error {
	for !r.block.Next(row) {
		if err := r.Read(&r.block); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the reading.
func (r *Reader) Close() error {
	err := r.source.close()
	if r.file != nil {
		err = errors.Join(err, r.file.Close())
	}
	return err
}
