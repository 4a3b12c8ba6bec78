package tabular

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/text/encoding/unicode"

	"github.com/musterhq/muster/campaign"
)

// oddFile is a file as people, programs and attackers send them, and what comes of it.
type oddFile struct {
	name    string
	content []byte
	options Options
	code    campaign.Code // of the whole file, when it is refused at once
	inside  campaign.Code // of what stands in the refusal's field
	later   campaign.Code // when it is refused while it is read
	line    int64         // that the refusal names
	good    int           // rows without a fault
	faults  []Fault       // the others, without their messages
	header  []Fault       // of the header, without their messages
}

// tight are limits that small bombs exceed too.
var tight = Options{Limits: Limits{harmless: 1 << 20, texts: 1 << 20}}

func fault(code campaign.Code, line int64, column int) Fault {
	return Fault{Code: code, Line: line, Column: column}
}

func textFiles(t *testing.T) []oddFile {
	good := customers(3)
	many := strings.TrimSuffix(strings.Repeat("c,", 10_000), ",") + "\n"
	small := Options{Limits: Limits{Row: 50, Field: 20}}
	return []oddFile{
		{name: "UTF-8", content: []byte(good), good: 3},
		{name: "UTF-8 with a byte order mark", content: []byte("\uFEFF" + good), good: 3},
		{name: "no line ending at the end", content: []byte("a,b\nx,y"), good: 1},
		{name: "mixed line endings", content: []byte("a,b\r\nx,y\nx,y\rx,y\n\rx,y"), good: 4},
		{name: "carriage returns only", content: []byte("a,b\rx,y\rx,\xFF\rx,y\r"), options: Options{Encoding: UTF8}, good: 2, faults: []Fault{fault(campaign.CodeInvalidBytes, 3, 2)}},
		{name: "blank lines", content: []byte("\n\na,b\n\nx,y\r\n\r\nx\n"), good: 1, faults: []Fault{fault(campaign.CodeFieldCount, 7, 2)}},
		{name: "quoted line breaks and doubled quotes", content: []byte("a,b\n\"x\r\ny\",\"he said \"\"no\"\"\"\nx\n"), good: 1, faults: []Fault{fault(campaign.CodeFieldCount, 4, 2)}},
		{name: "semicolons", content: []byte("a;b\n1,5;2\n"), good: 1},
		{name: "tabs", content: []byte("a\tb, c\n1,5\t2\n"), good: 1},
		{name: "bars", content: []byte("a|b\n1|2\n"), good: 1},
		{name: "sep= line", content: []byte("sep=|\r\na|b\r\n1|2\r\n1|2|3"), good: 1, faults: []Fault{fault(campaign.CodeFieldCount, 4, 3)}},
		{name: "one column", content: []byte("phone\n1\n2\n"), good: 2},
		{name: "header only", content: []byte("a,b\n")},
		{name: "no header", content: []byte("C1,13800138000\nC2,13800138001\n"), good: 2},
		{name: "header twice the same", content: []byte("a,B,b\n1,2,3\n"), good: 1, header: []Fault{fault(campaign.CodeDuplicateColumn, 1, 3)}},
		{name: "header with blanks", content: []byte("a, ,\nx,y,z\n"), good: 1, header: []Fault{fault(campaign.CodeBlankColumn, 1, 2), fault(campaign.CodeBlankColumn, 1, 3)}},
		{name: "formulas are text", content: []byte("a,b\n=HYPERLINK(1),@x\n"), good: 1},
		{name: "empty", content: nil, code: campaign.CodeEmptyFile},
		{name: "byte order mark only", content: []byte("\uFEFF"), code: campaign.CodeEmptyFile},
		{name: "line endings only", content: []byte("\r\n\n\r"), code: campaign.CodeEmptyFile},
		{name: "10,000 columns", content: []byte(many + many), code: campaign.CodeTooManyColumns, line: 1},
		{name: "ragged rows", content: []byte("a,b,c\n1,2\n1,2,3\n1,2,3,4\n\"1\",2\n"), good: 1,
			faults: []Fault{fault(campaign.CodeFieldCount, 2, 3), fault(campaign.CodeFieldCount, 4, 4), fault(campaign.CodeFieldCount, 5, 3)}},
		{name: "quote within a field", content: []byte("a,b\n1,5\" display\n1,2\n"), good: 1, faults: []Fault{fault(campaign.CodeBadQuote, 2, 2)}},
		{name: "text after a closing quote", content: []byte("a,b\n\"1\" ,2\n1,2\n"), good: 1, faults: []Fault{fault(campaign.CodeBadQuote, 2, 1)}},
		{name: "unclosed quote at the end", content: []byte("a,b\n1,2\n1,\"2\n"), good: 1, faults: []Fault{fault(campaign.CodeUnclosedQuote, 3, 2)}},
		{name: "unclosed quote in the middle", content: []byte("a,b\n\"1,2\n1,2\n\"1\",\"2\"\n1,2\n"), good: 3, faults: []Fault{fault(campaign.CodeUnclosedQuote, 2, 1)}},
		{name: "unclosed quote in the header", content: []byte("a,\"b\n1,2\n"), code: campaign.CodeInvalidFile, inside: campaign.CodeUnclosedQuote, line: 1},
		{name: "a quoted field without end", content: []byte("a,b\n1,\"" + strings.Repeat("x\n", 40) + "\"\n"), options: small, good: 0,
			faults: append(append([]Fault{fault(campaign.CodeUnclosedQuote, 2, 2)}, ragged(3, 41)...), fault(campaign.CodeUnclosedQuote, 42, 1))},
		{name: "long row", content: []byte("a,b\n1," + strings.Repeat("x", 60) + "\n1,2\n"), options: small, good: 1, faults: []Fault{fault(campaign.CodeRowTooLong, 2, 0)}},
		{name: "long field", content: []byte("a,b\n1," + strings.Repeat("x", 21) + "\n1,2\n"), options: small, good: 1, faults: []Fault{fault(campaign.CodeFieldTooLong, 2, 2)}},
		{name: "NUL bytes", content: []byte("a,b\n1,2\x00\n1,2\n"), good: 1, faults: []Fault{fault(campaign.CodeNULByte, 2, 2)}},
		{name: "a bad byte in UTF-8", content: []byte("姓名,b\n张三,2\n1,\"x,\xFFy\"\n李四,2\n王五,3\n"), good: 3, faults: []Fault{fault(campaign.CodeInvalidBytes, 3, 2)}},
		{name: "Latin-1", content: []byte("name,city\nJos\xE9,M\xFCnchen\nRen\xE9e,K\xF6ln\n"), code: campaign.CodeEncodingUnsupported, line: 2},
		{name: "GBK", content: gbk(t, good), good: 3},
		{name: "GBK with one bad byte", content: replaced(gbk(t, customers(40)), "\xD5\xC5\xC8\xFD,13800130007", "\xFF\xC5\xC8\xFD,13800130007"), good: 39, faults: []Fault{fault(campaign.CodeInvalidBytes, 9, 2)}},
		{name: "GBK declared, ASCII found", content: []byte("a,b\n1,2\n"), options: Options{Encoding: GB18030}, good: 1},
		{name: "GBK with bars and bytes like bars", content: gbk(t, "名|b\n亅|1\n診|2\n"), options: Options{Encoding: GB18030}, good: 2},
		{name: "GBK first seen far into the file", content: append([]byte("a,b\n"+strings.Repeat("plain,text\n", 60_000)), gbk(t, strings.Repeat("张三,李四\n", 6_000))...), good: 66_000},
		{name: "UTF-16LE with a mark", content: utf16(t, unicode.LittleEndian, unicode.UseBOM, good), good: 3},
		{name: "UTF-16BE with a mark", content: utf16(t, unicode.BigEndian, unicode.UseBOM, good), good: 3},
		{name: "UTF-16LE without a mark", content: utf16(t, unicode.LittleEndian, unicode.IgnoreBOM, "a,b\nx,y\n"), code: campaign.CodeEncodingUnsupported, line: 1},
		{name: "UTF-16LE declared", content: utf16(t, unicode.LittleEndian, unicode.IgnoreBOM, good), options: Options{Encoding: UTF16LE}, good: 3},
		{name: "UTF-16 cut in a character", content: utf16(t, unicode.LittleEndian, unicode.UseBOM, "a,b\nx,y\nx,y")[:23], good: 1, faults: []Fault{fault(campaign.CodeInvalidBytes, 3, 2)}},
		{name: "UTF-32", content: []byte("\xFF\xFE\x00\x00a\x00\x00\x00"), code: campaign.CodeEncodingUnsupported, line: 1},
		{name: "an encoding nobody knows", content: []byte(good), options: Options{Encoding: "ebcdic"}, code: campaign.CodeEncodingUnsupported},
		{name: "more bytes than allowed", content: []byte(good), options: Options{Limits: Limits{Bytes: 20}}, code: campaign.CodeFileTooLarge},
		{name: "more rows than allowed", content: []byte(good), options: Options{Limits: Limits{Rows: 3}}, later: campaign.CodeFileTooLarge, line: 3},
		{name: "a delimiter as sheet", content: []byte(good), options: Options{Sheet: "x"}, code: campaign.CodeInvalidParameter},
		{name: "resumed behind the end", content: []byte(good), options: Options{From: Position{Offset: 999}}, code: campaign.CodeInvalidParameter},

		{name: "gzip", content: zipped(t, []byte(good)), good: 3},
		{name: "gzip in several members", content: append(zipped(t, []byte(good[:40])), zipped(t, []byte(good[40:]))...), good: 3},
		{name: "gzip of GBK", content: zipped(t, gbk(t, good)), good: 3},
		{name: "gzip cut off", content: zipped(t, []byte(customers(20_000)))[:40_000], later: campaign.CodeInvalidFile},
		{name: "gzip cut off in its header", content: zipped(t, []byte(good))[:5], code: campaign.CodeInvalidFile},
		{name: "gzip with a wrong sum", content: flipped(zipped(t, []byte(customers(20_000))), -6), later: campaign.CodeInvalidFile},
		{name: "gzip and then rubbish", content: append(zipped(t, []byte(customers(20_000))), "rubbish"...), later: campaign.CodeInvalidFile},
		{name: "gzip of nothing", content: zipped(t, nil), code: campaign.CodeEmptyFile},
		{name: "gzip of gzip", content: zipped(t, zipped(t, []byte(good))), code: campaign.CodeArchiveRejected},
		{name: "gzip of a zip archive", content: zipped(t, archived(t, file{"a.csv", good})), code: campaign.CodeArchiveRejected},
		{name: "gzip bomb", content: zipped(t, bytes.Repeat([]byte("a,b\n"), 1<<20)), options: tight, later: campaign.CodeArchiveRejected},
		{name: "gzip of more than allowed", content: zipped(t, []byte(customers(20_000))), options: Options{Limits: Limits{Bytes: 300_000}}, later: campaign.CodeFileTooLarge},

		{name: "old Excel, or one with a password", content: []byte("\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1"), code: campaign.CodeFormatUnsupported},
		{name: "HTML called .xls", content: []byte("\r\n<html><table>"), code: campaign.CodeFormatUnsupported},
		{name: "JSON", content: []byte(`[{"a": 1}]`), code: campaign.CodeFormatUnsupported},
		{name: "PDF", content: []byte("%PDF-1.7\n"), code: campaign.CodeFormatUnsupported},
		{name: "a program", content: append([]byte("\x7FELF\x02\x01\x01"), make([]byte, 200)...), code: campaign.CodeEncodingUnsupported},
		{name: "wrong extension: text said to be a workbook", content: []byte(good), options: Options{Format: XLSX}, code: campaign.CodeFormatUnsupported},
	}
}

// ragged are the faults of lines with too few fields.
func ragged(from, to int64) []Fault {
	var faults []Fault
	for line := from; line <= to; line++ {
		faults = append(faults, fault(campaign.CodeFieldCount, line, 2))
	}
	return faults
}

// flipped has one bit changed; a place below zero counts from the end.
func flipped(content []byte, at int) []byte {
	content = bytes.Clone(content)
	content[(at+len(content))%len(content)] ^= 1
	return content
}

func workbooks(t *testing.T) []oddFile {
	head := inline(1, "id", "name")
	two := head + inline(2, "1", "x")
	shared := func(rows string) string { return strings.ReplaceAll(rows, "S", `t="s"`) }
	entity := `<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>`
	with := func(from, to string) []byte { return archived(t, swapped(bookFiles(two), from, to)...) }
	entries := bookFiles(two)
	for i := range 100_000 {
		entries = append(entries, file{fmt.Sprintf("x%d", i), ""})
	}
	good := book(t, two)
	return []oddFile{
		{name: "workbook", content: good, good: 1},
		{name: "rows and cells without references", content: book(t, `<row><c t="str"><v>a</v></c><c t="str"><v>b</v></c></row><row><c><v>1</v></c><c><v>2</v></c></row>`), good: 1},
		{name: "a million empty rows", content: book(t, two+strings.Repeat(`<row s="1"><c s="1"/></row>`, 1_000_000)+inline(1_000_003, "2", "y")), good: 2},
		{name: "cells beyond the last column", content: book(t, two+inline(3, "1", "x", "", "y")+inline(4, "1", "x", "", "")), good: 2, faults: []Fault{fault(campaign.CodeFieldCount, 3, 3)}},
		{name: "short rows are filled up", content: book(t, two+inline(3, "1")+inline(9, "", "y")), good: 3},
		{name: "a cell that shows #N/A", content: book(t, two+`<row r="3"><c r="A3"><v>1</v></c><c r="B3" t="e"><v>#N/A</v></c></row>`), good: 1, faults: []Fault{fault(campaign.CodeCellError, 3, 2)}},
		{name: "a formula without a result", content: book(t, two+`<row r="3"><c r="A3"><f>1+1</f></c></row>`), good: 1, faults: []Fault{fault(campaign.CodeCellError, 3, 1)}},
		{name: "a formula with its result", content: book(t, two+`<row r="3"><c r="A3"><f>1+1</f><v>2</v></c></row>`), good: 2},
		{name: "a number that has lost digits", content: book(t, two+`<row r="3"><c r="A3"><v>4.40106199001011E+17</v></c></row>`), good: 1, faults: []Fault{fault(campaign.CodeCellError, 3, 1)}},
		{name: "a long cell", content: book(t, two+inline(3, "1", strings.Repeat("x", 70_000))+inline(4, "1")), good: 2, faults: []Fault{fault(campaign.CodeFieldTooLong, 3, 2)}},
		{name: "bytes that are no characters", content: book(t, two+inline(3, "\xFF")), good: 1, faults: []Fault{fault(campaign.CodeInvalidBytes, 3, 1)}},
		{name: "a NUL character", content: book(t, two+inline(3, "_x0000_")), good: 1, faults: []Fault{fault(campaign.CodeNULByte, 3, 1)}},
		{name: "shared texts", content: book(t, shared(`<row><c S><v>0</v></c><c S><v>1</v></c></row><row><c><v>1</v></c><c S><v>1</v></c></row>`), file{"xl/sharedStrings.xml", `<sst><si><t>a</t></si><si><t>b</t></si></sst>`}), good: 1},
		{name: "shared texts missing", content: book(t, shared(`<row><c S><v>0</v></c></row>`)), code: campaign.CodeInvalidFile, line: 1},
		{name: "a shared text missing", content: book(t, two+shared(`<row r="7"><c S><v>2</v></c></row>`), file{"xl/sharedStrings.xml", `<sst><si><t>a</t></si></sst>`}), later: campaign.CodeInvalidFile, line: 7, good: 1},
		{name: "an empty sheet", content: book(t, ""), code: campaign.CodeEmptyFile},
		{name: "a sheet that is not there", content: good, options: Options{Sheet: "x"}, code: campaign.CodeInvalidParameter},
		{name: "an encoding for a workbook", content: good, options: Options{Encoding: UTF8}, code: campaign.CodeInvalidParameter},
		{name: "a workbook cut off", content: good[:len(good)/2], code: campaign.CodeInvalidFile},
		{name: "a sheet cut off", content: with("</row></sheetData></worksheet>", ""), later: campaign.CodeInvalidFile, good: 0},
		{name: "a sheet with a wrong sum", content: flippedSum(t, bookFiles(head+manyRows(2, 4000))), later: campaign.CodeInvalidFile, good: 4000},
		{name: "rows out of order", content: book(t, two+inline(9, "1")+inline(4, "2")), later: campaign.CodeInvalidFile, line: 9, good: 2},
		{name: "a row beyond the last", content: book(t, two+inline(1<<20+1, "1")), later: campaign.CodeInvalidFile, line: 2, good: 1},
		{name: "a column beyond the last", content: book(t, two+`<row r="3"><c r="ZZZ3"><v>1</v></c></row>`), later: campaign.CodeInvalidFile, line: 3, good: 1},
		{name: "external entity", content: with("<worksheet>", `<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><worksheet>`), code: campaign.CodeArchiveRejected},
		{name: "entities that grow", content: with("<worksheet>", entity+"<worksheet>"), code: campaign.CodeArchiveRejected},
		{name: "an entity nobody declared", content: book(t, head+inline(2, "&b;")), later: campaign.CodeInvalidFile},
		{name: "path out of the archive", content: book(t, two, file{"../../etc/cron.d/x", "x"}), code: campaign.CodeArchiveRejected},
		{name: "path out of the archive, the other way round", content: book(t, two, file{`xl\..\..\x`, "x"}), code: campaign.CodeArchiveRejected},
		{name: "path from the root", content: book(t, two, file{"/etc/x", "x"}), code: campaign.CodeArchiveRejected},
		{name: "two files of one name", content: book(t, two, file{"xl/workbook.xml", "x"}), code: campaign.CodeArchiveRejected},
		{name: "a sheet in the internet", content: with(`Target="worksheets/sheet1.xml"`, `TargetMode="External" Target="http://127.0.0.1/"`), code: campaign.CodeInvalidFile},
		{name: "100,000 entries", content: archived(t, entries...), code: campaign.CodeArchiveRejected},
		{name: "zip bomb", content: book(t, two+strings.Repeat(" ", 4<<20)), options: tight, later: campaign.CodeArchiveRejected},
		{name: "texts beyond all measure", content: book(t, two, file{"xl/sharedStrings.xml", "<sst>" + strings.Repeat("<si/>", 100_000) + "</sst>"}), options: tight, code: campaign.CodeFileTooLarge},
		{name: "zip archive of a text", content: archived(t, file{"customers.csv", customers(3)}), code: campaign.CodeArchiveRejected},
		{name: "zip archive of nothing", content: archived(t), code: campaign.CodeArchiveRejected},
		{name: "OpenDocument", content: archived(t, file{"mimetype", ""}, file{"content.xml", ""}), code: campaign.CodeFormatUnsupported},
		{name: "binary workbook", content: archived(t, file{"xl/workbook.bin", ""}), code: campaign.CodeFormatUnsupported},
		{name: "wrong extension: workbook said to be text", content: good, options: Options{Format: CSV}, code: campaign.CodeFormatUnsupported},
	}
}

func manyRows(from, n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(inline(from+i, "1", "x"))
	}
	return b.String()
}

func swapped(files []file, from, to string) []file {
	for i := range files {
		files[i].content = strings.Replace(files[i].content, from, to, 1)
	}
	return files
}

// flippedSum changes the check sum of the sheet, the last file.
func flippedSum(t *testing.T, files []file) []byte {
	content := archived(t, files...)
	at := bytes.LastIndex(content, []byte("PK\x01\x02"))
	require.Positive(t, at)
	content[at+16] ^= 1
	return content
}

func parquetFiles(t *testing.T) []oddFile {
	good := parquetOf(t, parquetCustomers(2000))
	type address struct{ City string }
	hugePage := bytes.Clone(good)
	binary.LittleEndian.PutUint32(hugePage[len(hugePage)-8:], 1<<30)
	bad := parquetCustomers(3)
	bad[1].ID = "\xFF"
	bad[2].Born = 1 << 30
	return []oddFile{
		{name: "Parquet", content: good, good: 2000},
		{name: "Parquet without rows", content: parquetOf(t, parquetCustomers(0))},
		{name: "Parquet with values that are none", content: parquetOf(t, bad), good: 1, faults: []Fault{fault(campaign.CodeCellError, 2, 1), fault(campaign.CodeCellError, 3, 7)}},
		{name: "Parquet cut off", content: good[:len(good)-300], code: campaign.CodeInvalidFile},
		{name: "Parquet of its beginning only", content: good[:8], code: campaign.CodeInvalidFile},
		{name: "Parquet with a footer longer than the file", content: hugePage, code: campaign.CodeInvalidFile},
		{name: "Parquet with a list", content: parquetOf(t, []struct{ Tags []string }{{[]string{"a"}}}), code: campaign.CodeFormatUnsupported},
		{name: "Parquet with a group", content: parquetOf(t, []struct{ Home address }{{address{"广州"}}}), code: campaign.CodeFormatUnsupported},
		{name: "Parquet encrypted", content: append(bytes.Clone(good[:len(good)-4]), "PARE"...), code: campaign.CodeFormatUnsupported},
		{name: "Parquet with more rows than allowed", content: good, options: Options{Limits: Limits{Rows: 1999}}, code: campaign.CodeFileTooLarge},
		{name: "Parquet with pages of zeros", content: zeroed(good, 200, 4000), code: campaign.CodeInvalidFile},
		{name: "a delimiter for Parquet", content: good, options: Options{Comma: ','}, code: campaign.CodeInvalidParameter},
	}
}

func zeroed(content []byte, from, to int) []byte {
	content = bytes.Clone(content)
	clear(content[from:to])
	return content
}

func TestOddFiles(t *testing.T) {
	files := append(append(textFiles(t), workbooks(t)...), parquetFiles(t)...)
	require.Greater(t, len(files), 100)
	for _, f := range files {
		t.Run(f.name, func(t *testing.T) {
			r, err := Open(bytes.NewReader(f.content), int64(len(f.content)), f.options)
			if f.code != "" {
				requireRefusal(t, err, f.code, f.inside, f.line)
				return
			}
			require.NoError(t, err)
			var header []Fault
			for _, fault := range r.Layout().Faults {
				require.NotEmpty(t, fault.Message)
				fault.Message = ""
				header = append(header, fault)
			}
			require.Equal(t, f.header, header)
			good, faults := 0, []Fault(nil)
			err = drain(r, func(row *Row) {
				if row.Fault == nil {
					good++
					require.Len(t, row.Fields, len(r.Header()))
					return
				}
				require.NotEmpty(t, row.Fault.Message)
				require.Equal(t, row.Line, row.Fault.Line)
				faults = append(faults, fault(row.Fault.Code, row.Fault.Line, row.Fault.Column))
			})
			require.NoError(t, r.Close())
			if f.later != "" {
				requireRefusal(t, err, f.later, "", f.line)
				if f.good > 0 {
					require.Equal(t, f.good, good, "the rows before the damage")
				}
				return
			}
			require.NoError(t, err)
			require.Equal(t, f.faults, faults)
			require.Equal(t, f.good, good)
		})
	}
}

func requireRefusal(t *testing.T, err error, code, inside campaign.Code, line int64) {
	t.Helper()
	var refusal *campaign.Error
	require.True(t, errors.As(err, &refusal), "%v", err)
	require.Equal(t, code, refusal.Code, refusal.Message)
	require.NotEmpty(t, refusal.Message)
	switch {
	case inside != "":
		require.Len(t, refusal.Fields, 1)
		require.Equal(t, inside, refusal.Fields[0].Code)
		require.EqualValues(t, line, refusal.Fields[0].Line)
	case line > 0:
		require.Equal(t, line, refusal.Details["line"])
	}
}
