package tabular

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go"

	"github.com/musterhq/muster/campaign"
)

// taken is a row as it was read, kept.
type taken struct {
	line, offset int64
	fields       []string
	fault        Fault
}

func readAll(t testing.TB, content []byte, o Options) ([]taken, error) {
	t.Helper()
	r, err := Open(bytes.NewReader(content), int64(len(content)), o)
	if err != nil {
		return nil, err
	}
	var rows []taken
	err = drain(r, func(row *Row) { rows = append(rows, keep(row)) })
	return rows, errors.Join(err, r.Close())
}

func drain(r *Reader, each func(*Row)) error {
	var row Row
	for {
		err := r.Next(&row)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		each(&row)
	}
}

func keep(row *Row) taken {
	k := taken{line: row.Line, offset: row.Offset, fields: textsOf(row)}
	if row.Fault != nil {
		k.fault = *row.Fault
	}
	return k
}

func sameRows(a, b []taken) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].line != b[i].line || a[i].offset != b[i].offset || a[i].fault != b[i].fault || strings.Join(a[i].fields, "\x1f") != strings.Join(b[i].fields, "\x1f") {
			return false
		}
	}
	return true
}

// refused reports whether err is one that a caller can show.
func refused(err error) bool {
	var known *campaign.Error
	return errors.As(err, &known) && known.Code != "" && known.Message != ""
}

func FuzzCSV(f *testing.F) {
	for _, seed := range []string{
		"a,b\n1,2\n", "a;b\r\n\"x\";\"y\"\"z\"\r\n", "a\tb\rc\td\r", "id,name\n1,\"un\nclosed\n2,x\n", "\uFEFFa,b\n\x00,\xff\n", "sep=;\na;b\n",
		"a,b\n\"q\"x,2\n3,4", "\"\"\"\",\"\r\n\"\r\n", "\xd0\xd5\xc3\xfb,\xb5\xe7\xbb\xb0\n\xd5\xc5\xc8\xfd,1\n", "\xff\xfea\x00,\x00b\x00\n\x00", "a|b\n\n\n,\n|\n",
		"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xffJ\xd4I\xe2\x02\x04\x00\x00\xff\xff", "x\n" + strings.Repeat("long", 40) + "\ny\n",
	} {
		f.Add([]byte(seed), uint8(3), uint8(60), uint8(1))
	}
	encodings := []Encoding{"", UTF8, GB18030, UTF16LE, UTF16BE}
	f.Fuzz(func(t *testing.T, content []byte, block, limit, encoding uint8) {
		o := Options{Encoding: encodings[int(encoding)%len(encodings)], Comma: ',', Header: HeaderAbsent}
		o.Limits.block = 1 + int(block)
		whole, err := readAll(t, content, o)
		if err != nil && !refused(err) {
			t.Fatalf("unknown error %v", err)
		}
		o.Limits.block = 0
		if again, errAgain := readAll(t, content, o); !sameRows(whole, again) || (err == nil) != (errAgain == nil) {
			t.Fatalf("blocks of %d bytes give\n%+v %v\nlarge ones\n%+v %v", 1+int(block), whole, err, again, errAgain)
		}
		if o.Encoding == UTF8 && err == nil {
			likeTheStandard(t, content, whole)
		}
		// A row limit that bites, and resuming at every row.
		o.Limits = Limits{Row: 1 + int(limit), block: 1 + int(block)}
		short, err := readAll(t, content, o)
		if err != nil {
			return
		}
		for i := range short[:min(len(short), 40)] {
			o.From = Position{Offset: short[i].offset, Line: short[i].line}
			rest, err := readAll(t, content, o)
			if err != nil || !sameRows(rest, short[i:]) {
				t.Fatalf("from row %d at %+v:\n%+v %v\nwhole\n%+v", i, o.From, rest, err, short[i:])
			}
		}
	})
}

// likeTheStandard compares with encoding/csv what that accepts. The two differ on
// purpose: a lone carriage return ends a line here, and marks and sep= lines are known.
func likeTheStandard(t *testing.T, content []byte, rows []taken) {
	t.Helper()
	if bytes.Contains(bytes.ReplaceAll(content, []byte("\r\n"), nil), []byte{'\r'}) || bytes.IndexByte(content, 0) >= 0 || !utf8.Valid(content) ||
		hasMark(content) || bytes.HasPrefix(bytes.ToLower(content), []byte("sep=")) || bytes.HasPrefix(content, magicGzip) {
		return
	}
	want, err := csv.NewReader(bytes.NewReader(content)).ReadAll()
	if err != nil {
		return
	}
	if len(want) != len(rows) {
		t.Fatalf("%d rows, encoding/csv has %d: %+v", len(rows), len(want), rows)
	}
	for i, row := range rows {
		if row.fault.Code != "" || strings.Join(row.fields, "\x1f") != strings.Join(want[i], "\x1f") {
			t.Fatalf("row %d is %+v, for encoding/csv %q", i, row, want[i])
		}
	}
}

// readable checks that a file is refused with a message or read to its end, within limits,
// twice the same.
func readable(t *testing.T, content []byte) {
	t.Helper()
	o := Options{Limits: Limits{Bytes: 8 << 20, Rows: 100_000, Row: 64 << 10}}
	rows, err := readAll(t, content, o)
	if err != nil && !refused(err) {
		t.Fatalf("unknown error %v", err)
	}
	if err != nil {
		return
	}
	for i := 1; i < min(len(rows), 4); i++ {
		o.From = Position{Offset: rows[i].offset, Line: rows[i].line}
		if rest, err := readAll(t, content, o); err != nil || !sameRows(rest, rows[i:]) {
			t.Fatalf("from row %d at %+v:\n%+v %v\nwhole\n%+v", i, o.From, rest, err, rows[i:])
		}
	}
}

func FuzzXLSX(f *testing.F) {
	f.Add(inline(1, "id", "name")+inline(2, "1", "x"), "", "")
	f.Add(`<row><c t="s"><v>0</v></c><c t="s"><v>1</v></c></row><row><c s="1"><v>45000.5</v></c><c t="e"><v>#N/A</v></c></row>`,
		`<sst><si><t>a</t></si><si><r><t xml:space="preserve">b </t></r><rPh><t>x</t></rPh></si></sst>`,
		`<styleSheet><numFmts><numFmt numFmtId="164" formatCode="yyyy\-mm&quot;x&quot;[h]"/></numFmts><cellXfs><xf numFmtId="0"/><xf numFmtId="164"/></cellXfs></styleSheet>`)
	f.Add(`<row r="3"><c r="B3"><f>1+1</f><v>2E+3</v></c></row><!-- > --><row r="4"><c r="B4" t="str"><v><![CDATA[<&>]]></v></c><c t="b"><v>1</v></c><c t="inlineStr"><is><t>_x000D_&#x4e2d;</t></is></c></row>`, `<sst/>`, `<?xml version='1.0'?><x a='>'/>`)
	f.Fuzz(func(t *testing.T, rows, texts, styles string) {
		readable(t, book(t, rows, file{"xl/sharedStrings.xml", texts}, file{"xl/styles.xml", styles}))
	})
}

// FuzzArchive has the bytes of the archive itself changed.
func FuzzArchive(f *testing.F) {
	f.Add(book(f, inline(1, "id", "name")+inline(2, "1", "x")))
	f.Add(archived(f, file{"mimetype", ""}, file{"content.xml", ""}))
	f.Add(zipped(f, []byte("id,name\n1,x\n")))
	f.Fuzz(func(t *testing.T, content []byte) { readable(t, content) })
}

func FuzzParquet(f *testing.F) {
	rows := parquetCustomers(20)
	f.Add(parquetOf(f, rows))
	f.Add(parquetOf(f, rows, parquet.Compression(&parquet.Snappy), parquet.PageBufferSize(100), parquet.MaxRowsPerRowGroup(7)))
	f.Add(parquetOf(f, rows, parquet.Compression(&parquet.Gzip), parquet.DataPageVersion(1)))
	f.Fuzz(func(t *testing.T, content []byte) { readable(t, content) })
}
