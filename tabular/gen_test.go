package tabular

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/stretchr/testify/require"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/unicode"
)

// What follows makes files: good ones, and such as people and attackers send.

func zipped(t testing.TB, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(content)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

func gbk(t testing.TB, text string) []byte {
	t.Helper()
	encoded, err := simplifiedchinese.GBK.NewEncoder().Bytes([]byte(text))
	require.NoError(t, err)
	return encoded
}

func utf16(t testing.TB, order unicode.Endianness, marked unicode.BOMPolicy, text string) []byte {
	t.Helper()
	encoded, err := unicode.UTF16(order, marked).NewEncoder().Bytes([]byte(text))
	require.NoError(t, err)
	return encoded
}

func replaced(content []byte, from, to string) []byte {
	return bytes.Replace(content, []byte(from), []byte(to), 1)
}

// customers is a text of n rows with a header, three columns and CRLF at the end.
func customers(n int) string {
	var b strings.Builder
	b.WriteString("id,姓名,phone\r\n")
	for i := range n {
		fmt.Fprintf(&b, "C%d,张三,1380013%04d\r\n", i, i)
	}
	return b.String()
}

// file is one of an archive.
type file struct{ name, content string }

func archived(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range files {
		part, err := w.Create(f.name)
		require.NoError(t, err)
		_, err = io.WriteString(part, f.content)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

const xmlDeclaration = `<?xml version="1.0" encoding="UTF-8" standalone="yes"?>` + "\n"

// bookFiles is the least that makes a workbook, with rows as they stand in sheetData.
func bookFiles(rows string, more ...file) []file {
	relation := "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
	return append([]file{
		{"_rels/.rels", xmlDeclaration + `<Relationships><Relationship Id="rId1" Type="` + relation + `/officeDocument" Target="xl/workbook.xml"/></Relationships>`},
		{"xl/workbook.xml", xmlDeclaration + `<workbook xmlns:r="` + relation + `"><sheets><sheet name="客户" sheetId="1" r:id="rId1"/></sheets></workbook>`},
		{"xl/_rels/workbook.xml.rels", xmlDeclaration + `<Relationships><Relationship Id="rId1" Type="` + relation + `/worksheet" Target="worksheets/sheet1.xml"/>` +
			`<Relationship Id="rId2" Type="` + relation + `/styles" Target="styles.xml"/><Relationship Id="rId3" Type="` + relation + `/sharedStrings" Target="sharedStrings.xml"/></Relationships>`},
		{"xl/worksheets/sheet1.xml", xmlDeclaration + `<worksheet><sheetData>` + rows + `</sheetData></worksheet>`},
	}, more...)
}

func book(t testing.TB, rows string, more ...file) []byte {
	t.Helper()
	return archived(t, bookFiles(rows, more...)...)
}

// inline is a row of text cells.
func inline(row int, texts ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<row r="%d">`, row)
	for i, text := range texts {
		fmt.Fprintf(&b, `<c r="%s%d" t="inlineStr"><is><t>%s</t></is></c>`, letters(i), row, text)
	}
	b.WriteString("</row>")
	return b.String()
}

type parquetCustomer struct {
	ID     string     `parquet:"id"`
	Name   *string    `parquet:"name,optional"`
	Age    int32      `parquet:"age"`
	Spend  float64    `parquet:"spend"`
	Credit int64      `parquet:"credit,decimal(2:18)"`
	Active bool       `parquet:"active"`
	Born   int32      `parquet:"born,date"`
	Seen   time.Time  `parquet:"seen,timestamp(millisecond)"`
	Key    [16]byte   `parquet:"key,uuid"`
	Left   *time.Time `parquet:"left,optional,timestamp(microsecond:local)"`
}

func parquetOf[T any](t testing.TB, rows []T, options ...parquet.WriterOption) []byte {
	t.Helper()
	var b bytes.Buffer
	w := parquet.NewGenericWriter[T](&b, options...)
	_, err := w.Write(rows)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

func parquetCustomers(n int) []parquetCustomer {
	rows := make([]parquetCustomer, n)
	for i := range rows {
		name := fmt.Sprintf("张三%d", i)
		left := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
		rows[i] = parquetCustomer{ID: fmt.Sprintf("C%d", i), Age: int32(i), Spend: 0.1 + float64(i), Credit: -5 + int64(i)*100, Active: i%2 == 0, Born: 10957, Seen: left, Key: [16]byte{15: byte(i)}}
		if i%2 == 0 {
			rows[i].Name, rows[i].Left = &name, &left
		}
	}
	return rows
}

// endless is a file made as it is read: a header, rows, and within them one line of any
// length.
type endless struct {
	before, after string
	length        int64 // of the line between
}

func (e endless) size() int64 { return int64(len(e.before)) + e.length + int64(len(e.after)) }

func (e endless) ReadAt(p []byte, at int64) (int, error) {
	if at >= int64(len(e.before)) && at+int64(len(p)) <= int64(len(e.before))+e.length {
		for n := copy(p, "x"); n < len(p); n *= 2 {
			copy(p[n:], p[:n])
		}
		return len(p), nil
	}
	for i := range p {
		switch at := at + int64(i); {
		case at < int64(len(e.before)):
			p[i] = e.before[at]
		case at < int64(len(e.before))+e.length:
			p[i] = 'x'
		case at < e.size():
			p[i] = e.after[at-int64(len(e.before))-e.length]
		default:
			return i, io.EOF
		}
	}
	return len(p), nil
}
