package tabular

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"github.com/musterhq/muster/campaign"
)

// columnar is an opened Parquet file.
type columnar struct {
	meter  *metered
	size   int64
	file   *parquet.File
	write  []cellWriter
	limits Limits
}

// cellWriter appends a value as text. It reports false for what is no text or number.
type cellWriter func(to []byte, v parquet.Value) ([]byte, bool)

// guard turns a panic of the Parquet library into an error. The library panics where a
// file's metadata contradict each other, on purpose and in hundreds of places, so no check
// before it can be complete.
func guard(err *error) {
	if p := recover(); p != nil {
		*err = damaged(fmt.Errorf("parquet: %v", p))
	}
}

func openParquet(src io.ReaderAt, size int64, options Options, limits Limits) (f found, t table, err error) {
	defer guard(&err)
	f = found{Layout: Layout{Format: Parquet, HasHeader: true}, begin: Position{Line: 1}}
	if options.Encoding != "" || options.Comma != 0 || options.Sheet != "" {
		return f, nil, campaign.Errorf(campaign.CodeInvalidParameter, "a Parquet file has neither encoding nor delimiter nor sheets")
	}
	c := &columnar{meter: &metered{src: src}, size: size, limits: limits}
	if err := c.checkFooter(); err != nil {
		return f, nil, err
	}
	c.file, err = parquet.OpenFile(c.meter, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return f, nil, damaged(err)
	}
	if f.Rows = c.file.NumRows(); f.Rows > limits.Rows {
		return f, nil, campaign.Errorf(campaign.CodeFileTooLarge, "the file has %d rows; %d are allowed", f.Rows, limits.Rows)
	}
	if err := c.checkPages(); err != nil {
		return f, nil, err
	}
	var names []string
	for _, column := range c.file.Root().Columns() {
		if !column.Leaf() || column.Repeated() {
			return f, nil, campaign.Errorf(campaign.CodeFormatUnsupported, "column %q is nested; give each of its values a column of its own", column.Name())
		}
		write := writerOf(column.Type())
		if write == nil {
			return f, nil, campaign.Errorf(campaign.CodeFormatUnsupported, "column %q has the type %s, which is not read; write it as text", column.Name(), column.Type())
		}
		names = append(names, column.Name())
		c.write = append(c.write, write)
	}
	if len(names) == 0 {
		return f, nil, emptyFile()
	}
	sample, err := c.sample()
	if err != nil {
		return f, nil, err
	}
	return f, c, f.name(names, sample, 0, HeaderPresent, limits)
}

// sample reads the first rows, as far as they are good.
func (c *columnar) sample() ([][]string, error) {
	rows, err := c.rows(Position{})
	if err != nil {
		return nil, err
	}
	b := &Block{limits: c.limits}
	if err := rows.read(b); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, rows.close())
	}
	var sample [][]string
	for row := (Row{}); len(sample) < shownRows && b.Next(&row); {
		if row.Fault == nil {
			sample = append(sample, textsOf(&row))
		}
	}
	return sample, rows.close()
}

func (c *columnar) rows(from Position) (source, error) {
	return &rowGroupReader{table: c, groups: c.file.RowGroups(), row: from.Offset, skip: from.Offset}, nil
}

// rowGroupReader reads the rows of one group after the other.
type rowGroupReader struct {
	table  *columnar
	groups []parquet.RowGroup
	rows   parquet.Rows // of the group that is being read
	row    int64        // how many rows are before the next
	skip   int64        // of them, those in groups not yet passed
	buffer []parquet.Row
	have   []parquet.Row // of buffer, those not yet handed out
	failed error
}

func (r *rowGroupReader) consumed() int64 { return min(r.table.meter.n.Load(), r.table.size) }

func (r *rowGroupReader) close() (err error) {
	defer guard(&err)
	if r.rows == nil {
		return nil
	}
	rows := r.rows
	r.rows = nil
	if err := rows.Close(); err != nil {
		return damaged(err)
	}
	return nil
}

func (r *rowGroupReader) read(b *Block) error {
	if r.buffer == nil {
		r.buffer = make([]parquet.Row, 128)
	}
	b.at = Position{Offset: r.row, Line: r.row + 1}
	for r.failed == nil && len(b.entries) < blockRows && len(b.cells) < r.table.limits.block {
		if len(r.have) == 0 {
			r.failed = r.fetch()
			continue
		}
		r.take(b, r.have[0])
		r.have = r.have[1:]
	}
	b.End = Position{Offset: r.row, Line: r.row + 1}
	if len(b.entries) == 0 {
		return r.failed
	}
	return nil
}

// fetch reads the next rows into have. It returns io.EOF after the last group.
func (r *rowGroupReader) fetch() (err error) {
	defer guard(&err)
	for r.rows == nil {
		if len(r.groups) == 0 {
			return io.EOF
		}
		group := r.groups[0]
		r.groups = r.groups[1:]
		if n := group.NumRows(); r.skip >= n && r.skip > 0 {
			r.skip -= n
			continue
		}
		r.rows = group.Rows()
		if r.skip > 0 {
			if err := r.rows.SeekToRow(r.skip); err != nil {
				return damaged(err)
			}
			r.skip = 0
		}
	}
	n, err := r.rows.ReadRows(r.buffer)
	r.have = r.buffer[:n]
	switch {
	case errors.Is(err, io.EOF) && n > 0: // closing would take the values away
	case errors.Is(err, io.EOF):
		return r.close()
	case err == nil && n == 0:
		return damaged(io.ErrNoProgress)
	case err != nil:
		return damaged(err)
	}
	return nil
}

func (r *rowGroupReader) take(b *Block, values parquet.Row) {
	e := entry{at: Position{Offset: r.row, Line: r.row + 1}, first: len(b.ends)}
	r.row++
	begin := len(b.cells)
	fail := func(code campaign.Code, column int, message string) {
		if e.fault == nil {
			e.fault = &Fault{Code: code, Line: e.at.Line, Column: column + 1, Message: message}
		}
	}
	for i, write := range r.table.write {
		if i < len(values) && !values[i].IsNull() {
			before := len(b.cells)
			var ok bool
			b.cells, ok = write(b.cells, values[i])
			size := len(b.cells) - before
			switch {
			case !ok:
				fail(campaign.CodeCellError, i, "the value is no text, number, date or truth value")
			case size > r.table.limits.Field:
				fail(campaign.CodeFieldTooLong, i, fmt.Sprintf("the value has %d bytes; %d are allowed", size, r.table.limits.Field))
			case len(b.cells)-begin > r.table.limits.Row:
				fail(campaign.CodeRowTooLong, i, fmt.Sprintf("the row has more than %d bytes", r.table.limits.Row))
			}
			if e.fault != nil {
				b.cells = b.cells[:before]
			}
		}
		b.ends = append(b.ends, len(b.cells))
	}
	e.last = len(b.ends)
	b.entries = append(b.entries, e)
}

// writerOf returns how values of a type become text, nil for a type that is none of a
// customer's attributes.
func writerOf(t parquet.Type) cellWriter {
	var logical format.LogicalTypeValue
	if l := t.LogicalType(); l != nil {
		logical = l.Value
	}
	switch l := logical.(type) {
	case *format.DecimalType:
		return decimalWriter(t.Kind(), int(l.Scale))
	case *format.DateType:
		return func(to []byte, v parquet.Value) ([]byte, bool) {
			return instantText(to, time.Unix(int64(v.Int32())*86400, 0), time.DateOnly)
		}
	case *format.TimeType:
		unit := l.Unit.Value.Duration()
		return func(to []byte, v parquet.Value) ([]byte, bool) {
			return instantText(to, time.Unix(0, 0).Add(time.Duration(integer(v))*unit), "15:04:05.999999999")
		}
	case *format.TimestampType:
		layout := "2006-01-02T15:04:05.999999999"
		if l.IsAdjustedToUTC {
			layout += "Z"
		}
		perSecond := int64(time.Second / l.Unit.Value.Duration())
		return func(to []byte, v parquet.Value) ([]byte, bool) {
			n := integer(v)
			seconds, rest := n/perSecond, n%perSecond
			return instantText(to, time.Unix(seconds, rest*(int64(time.Second)/perSecond)), layout)
		}
	case *format.UUIDType:
		return func(to []byte, v parquet.Value) ([]byte, bool) {
			id, err := uuid.FromBytes(v.ByteArray())
			return append(to, id.String()...), err == nil
		}
	case *format.IntType:
		if !l.IsSigned {
			return func(to []byte, v parquet.Value) ([]byte, bool) {
				if v.Kind() == parquet.Int32 {
					return strconv.AppendUint(to, uint64(v.Uint32()), 10), true
				}
				return strconv.AppendUint(to, v.Uint64(), 10), true
			}
		}
	case nil, *format.StringType, *format.EnumType, *format.JsonType:
	default:
		return nil
	}
	switch t.Kind() {
	case parquet.Boolean:
		return func(to []byte, v parquet.Value) ([]byte, bool) {
			if v.Boolean() {
				return append(to, "TRUE"...), true
			}
			return append(to, "FALSE"...), true
		}
	case parquet.Int32, parquet.Int64:
		return func(to []byte, v parquet.Value) ([]byte, bool) { return strconv.AppendInt(to, integer(v), 10), true }
	case parquet.Float:
		return func(to []byte, v parquet.Value) ([]byte, bool) { return floatText(to, float64(v.Float()), 32) }
	case parquet.Double:
		return func(to []byte, v parquet.Value) ([]byte, bool) { return floatText(to, v.Double(), 64) }
	case parquet.Int96:
		return func(to []byte, v parquet.Value) ([]byte, bool) {
			// Nanoseconds of the day, then the Julian day, as older programs store instants.
			i := v.Int96()
			nanoseconds, day := int64(i[1])<<32|int64(i[0]), int64(i[2])
			return instantText(to, time.Unix((day-2440588)*86400, nanoseconds), "2006-01-02T15:04:05.999999999Z")
		}
	case parquet.ByteArray, parquet.FixedLenByteArray:
		return func(to []byte, v parquet.Value) ([]byte, bool) {
			text := v.ByteArray()
			for _, c := range text {
				if c == 0 {
					return to, false
				}
			}
			return append(to, text...), utf8.Valid(text)
		}
	}
	return nil
}

func integer(v parquet.Value) int64 {
	if v.Kind() == parquet.Int32 {
		return int64(v.Int32())
	}
	return v.Int64()
}

func floatText(to []byte, f float64, bits int) ([]byte, bool) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return to, false
	}
	return strconv.AppendFloat(to, f, 'f', -1, bits), true
}

// instantText writes an instant, if its year has four digits.
func instantText(to []byte, at time.Time, layout string) ([]byte, bool) {
	at = at.UTC()
	return at.AppendFormat(to, layout), at.Year() >= 1 && at.Year() <= 9999
}

// mostScale is what the places of a decimal can be: it has 38 digits at most.
const mostScale = 38

func decimalWriter(kind parquet.Kind, scale int) cellWriter {
	if scale < 0 || scale > mostScale {
		return nil
	}
	return func(to []byte, v parquet.Value) ([]byte, bool) {
		var digits string
		switch kind {
		case parquet.Int32, parquet.Int64:
			digits = strconv.FormatInt(integer(v), 10)
		default:
			text := v.ByteArray()
			if len(text) == 0 || len(text) > 32 {
				return to, false
			}
			n := new(big.Int).SetBytes(text)
			if text[0] >= 0x80 { // two's complement
				n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(text))))
			}
			digits = n.Text(10)
		}
		if digits[0] == '-' {
			to, digits = append(to, '-'), digits[1:]
		}
		for len(digits) <= scale {
			digits = "0" + digits
		}
		to = append(to, digits[:len(digits)-scale]...)
		if scale > 0 {
			to = append(append(to, '.'), digits[len(digits)-scale:]...)
		}
		return to, true
	}
}
