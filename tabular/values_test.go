package tabular

import (
	"bytes"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/stretchr/testify/require"
	"github.com/xuri/excelize/v2"
)

func goodRows(t *testing.T, content []byte, o Options) ([]string, [][]string) {
	t.Helper()
	r, err := Open(bytes.NewReader(content), int64(len(content)), o)
	require.NoError(t, err)
	var rows [][]string
	require.NoError(t, drain(r, func(row *Row) {
		require.Nil(t, row.Fault)
		rows = append(rows, textsOf(row))
	}))
	return r.Header(), rows
}

// A spreadsheet library writes, this package reads.
func TestWorkbookCellsAreWhatTheirAuthorMeans(t *testing.T) {
	f := excelize.NewFile()
	const sheet = "Sheet1"
	format := func(code string) int {
		id, err := f.NewStyle(&excelize.Style{CustomNumFmt: &code})
		require.NoError(t, err)
		return id
	}
	builtIn := func(n int) int {
		id, err := f.NewStyle(&excelize.Style{NumFmt: n})
		require.NoError(t, err)
		return id
	}
	at := time.Date(2026, 2, 28, 13, 14, 15, 0, time.UTC)
	day := time.Date(2026, 2, 28, 0, 0, 0, 0, time.UTC)
	cells := []struct {
		value any
		style int
		want  string
	}{
		{"张三 & <Söhne>", 0, "张三 & <Söhne>"},
		{"two\nlines", 0, "two\nlines"},
		{"=no formula", 0, "=no formula"},
		{"00138", 0, "00138"},
		{13800138000, 0, "13800138000"},
		{int64(8613800138000), 0, "8613800138000"},
		{8613800138000.0, builtIn(11), "8613800138000"}, // shown as 8.61E+12
		{0.1 + 0.2, 0, "0.3"},
		{1234.5678, builtIn(4), "1234.5678"}, // shown as 1,234.57
		{0.125, builtIn(10), "0.125"},        // shown as 12.50%
		{1e-7, 0, "0.0000001"},
		{-42, 0, "-42"},
		{true, 0, "TRUE"},
		{false, 0, "FALSE"},
		{day, builtIn(14), "2026-02-28"},
		{day, format(`yyyy"年"m"月"d"日";@`), "2026-02-28"},
		{at, format("dd.mm.yyyy hh:mm:ss"), "2026-02-28T13:14:15"},
		{0.5, builtIn(20), "12:00:00"},
		{1.5, builtIn(46), "36:00:00"},
		{59.0, builtIn(14), "1900-02-28"},
		{61.0, builtIn(14), "1900-03-01"},
		{42, format("00000000"), "00000042"},
		{42, format(`0"天"`), "42"},
		{42, format(`[Red]0;[Blue]-0`), "42"},
		{42, format(`#,##0\d`), "42"},
		{nil, 0, ""},
	}
	var header, want []string
	for i, c := range cells {
		column := letters(i)
		header = append(header, "c"+column)
		want = append(want, c.want)
		require.NoError(t, f.SetCellStr(sheet, column+"1", "c"+column))
		if c.value != nil {
			require.NoError(t, f.SetCellValue(sheet, column+"2", c.value))
		}
		require.NoError(t, f.SetCellStyle(sheet, column+"2", column+"2", c.style))
	}
	_, err := f.NewSheet("第二")
	require.NoError(t, err)
	require.NoError(t, f.SetSheetRow("第二", "B3", &[]any{"a", "b"}))
	require.NoError(t, f.SetSheetRow("第二", "B5", &[]any{1, 2}))
	buffer, err := f.WriteToBuffer()
	require.NoError(t, err)

	names, rows := goodRows(t, buffer.Bytes(), Options{})
	require.Equal(t, header, names)
	require.Equal(t, [][]string{want}, rows)

	names, rows = goodRows(t, buffer.Bytes(), Options{Sheet: "第二"})
	require.Equal(t, []string{"", "a", "b"}, names)
	require.Equal(t, [][]string{{"", "1", "2"}}, rows)

	layout, err := Sniff(bytes.NewReader(buffer.Bytes()), int64(buffer.Len()), Options{Sheet: "第二"})
	require.NoError(t, err)
	require.Equal(t, []string{sheet, "第二"}, layout.Sheets)
	require.Equal(t, "第二", layout.Sheet)
}

func TestParquetValuesAreWrittenAsInText(t *testing.T) {
	rows := parquetCustomers(3000)
	for name, content := range map[string][]byte{
		"snappy":            parquetOf(t, rows, parquet.Compression(&parquet.Snappy)),
		"zstd, small pages": parquetOf(t, rows, parquet.Compression(&parquet.Zstd), parquet.PageBufferSize(1000), parquet.MaxRowsPerRowGroup(700)),
		"gzip, version 1":   parquetOf(t, rows, parquet.Compression(&parquet.Gzip), parquet.DataPageVersion(1)),
	} {
		t.Run(name, func(t *testing.T) {
			header, got := goodRows(t, content, Options{})
			require.Equal(t, []string{"id", "name", "age", "spend", "credit", "active", "born", "seen", "key", "left"}, header)
			require.Len(t, got, len(rows))
			require.Equal(t, []string{"C0", "张三0", "0", "0.1", "-0.05", "TRUE", "2000-01-01", "2026-01-02T03:04:05Z", "00000000-0000-0000-0000-000000000000", "2026-01-02T03:04:05.000006"}, got[0])
			require.Equal(t, []string{"C1", "", "1", "1.1", "0.95", "FALSE", "2000-01-01", "2026-01-02T03:04:05Z", "00000000-0000-0000-0000-000000000001", ""}, got[1])
			for i, row := range got {
				require.Equal(t, rows[i].ID, row[0])
				if rows[i].Name != nil {
					require.Equal(t, *rows[i].Name, row[1])
				}
			}
			layout, err := Sniff(bytes.NewReader(content), int64(len(content)), Options{})
			require.NoError(t, err)
			require.Equal(t, int64(len(rows)), layout.Rows)

			_, rest := goodRows(t, content, Options{From: Position{Offset: 1234, Line: 1235}})
			require.Equal(t, got[1234:], rest)
		})
	}
}
