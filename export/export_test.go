package export_test

import (
	"bytes"
	"encoding/csv"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/xuri/excelize/v2"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/export"
)

func write(t require.TestingT, o export.Options, rows ...[]any) []byte {
	var out bytes.Buffer
	w, err := export.New(&out, o)
	require.NoError(t, err)
	for _, row := range rows {
		require.NoError(t, w.Row(row))
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}

func TestCSV(t *testing.T) {
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.FixedZone("CST", 8*3600))
	got := write(t, export.Options{Format: export.CSV, BOM: true, Columns: []string{"id", "bill", "share", "vip", "since", "city"}, Watermark: "e1 anna"},
		[]any{"c-1", int64(-5), -0.25, true, at, nil},
		[]any{`a "b", c`, int64(math.MinInt64), 1e21, false, nil, "齐齐哈尔"})
	require.Equal(t, "\ufeffid,bill,share,vip,since,city,export\r\n"+
		"c-1,-5,-0.25,true,2026-05-03T19:02:01Z,,e1 anna\r\n"+
		"\"a \"\"b\"\", c\",-9223372036854775808,1e+21,false,,齐齐哈尔,e1 anna\r\n", string(got))
}

func TestFormulasAreText(t *testing.T) {
	for _, cell := range []string{
		`=HYPERLINK("http://x","y")`, "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1", "＋1", "－1", "＠a", " =1", "\u3000=1", "\ufeff=1",
	} {
		o := export.Options{Format: export.CSV, Columns: []string{"text"}, Watermark: "w"}
		got := string(write(t, o, []any{cell}))
		require.Equal(t, "text,export\r\n\"'"+strings.ReplaceAll(cell, `"`, `""`)+"\",w\r\n", got)
		o.Format = export.XLSX
		book, err := excelize.OpenReader(bytes.NewReader(write(t, o, []any{cell})))
		require.NoError(t, err)
		formula, err := book.GetCellFormula("Sheet1", "A2")
		require.NoError(t, err)
		require.Empty(t, formula)
		text, err := book.GetCellValue("Sheet1", "A2")
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(text, "'"), "%q", text)
	}
	for _, plain := range []string{"", "a=1", "138****1234", "x-y", "'=1"} {
		text, guarded := export.Guard(plain)
		require.Equal(t, plain, text)
		require.False(t, guarded)
	}
}

// Whatever the texts are, a reader gets them back, and none begins like a formula.
func TestCSVReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOfN(rapid.RuneFrom([]rune("=+-@\t ,\"';a1。＝\n")), 0, 12, -1)
		want := rapid.SliceOfN(text, 2, 2).Draw(t, "row")
		got := write(t, export.Options{Format: export.CSV, Columns: []string{"a", "b"}, Watermark: "w"}, []any{want[0], want[1]})
		rows, err := csv.NewReader(bytes.NewReader(got)).ReadAll()
		require.NoError(t, err)
		require.Len(t, rows, 2)
		for i, cell := range want {
			back := rows[1][i]
			if guarded, changed := export.Guard(cell); changed {
				require.Equal(t, guarded, back)
				continue
			}
			require.Equal(t, cell, back)
			require.NotContains(t, "=+-@\t\r\n＝", strings.TrimSpace(back + "x")[:1])
		}
	})
}

func TestXLSX(t *testing.T) {
	got := write(t, export.Options{Format: export.XLSX, Columns: []string{"id", "bill"}, Watermark: "e1"}, []any{"0012", int64(7)}, []any{nil, 2.5})
	book, err := excelize.OpenReader(bytes.NewReader(got))
	require.NoError(t, err)
	rows, err := book.GetRows("Sheet1")
	require.NoError(t, err)
	require.Equal(t, [][]string{{"id", "bill", "export"}, {"0012", "7", "e1"}, {"", "2.5", "e1"}}, rows)
}

func TestOtherThingsAreRefused(t *testing.T) {
	_, err := export.New(io.Discard, export.Options{Format: "pdf"})
	require.ErrorContains(t, err, "pdf")
	for _, f := range []export.Format{export.CSV, export.XLSX} {
		w, err := export.New(io.Discard, export.Options{Format: f, Columns: []string{"a"}})
		require.NoError(t, err)
		require.ErrorContains(t, w.Row([]any{[]int{1}}), "[]int")
	}
}

// What is held in memory does not grow with the rows.
func TestConstantMemory(t *testing.T) {
	for _, f := range []export.Format{export.CSV, export.XLSX} {
		w, err := export.New(io.Discard, export.Options{Format: f, Columns: []string{"id", "city", "bill"}, Watermark: strings.Repeat("w", 60)})
		require.NoError(t, err)
		held := func() uint64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		fill := func(n int) {
			for i := range n {
				require.NoError(t, w.Row([]any{strings.Repeat("x", 40), "齐齐哈尔", int64(i)}))
			}
		}
		fill(150_000) // by then a sheet lies in its temporary file
		before := held()
		fill(150_000)
		require.Less(t, held(), before+24<<20, f)
		require.NoError(t, w.Close())
	}
}
