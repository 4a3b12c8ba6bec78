package tabular

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/campaign"
)

// What encoding/csv writes is read back, whatever is in the fields.
func TestWellFormedTextIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		comma := rapid.SampledFrom([]byte(",;\t|")).Draw(t, "comma")
		columns := rapid.IntRange(1, 6).Draw(t, "columns")
		field := rapid.StringOfN(rapid.SampledFrom([]rune("ab1 ,;\t|\"\n张é")), 0, 8, -1)
		rows := rapid.SliceOfN(rapid.SliceOfN(field, columns, columns), 1, 30).Draw(t, "rows")
		for _, row := range rows {
			if columns == 1 && row[0] == "" {
				row[0] = "x" // an empty line is no row
			}
		}
		var b bytes.Buffer
		w := csv.NewWriter(&b)
		w.Comma, w.UseCRLF = rune(comma), rapid.Bool().Draw(t, "CRLF")
		require.NoError(t, w.WriteAll(rows))
		o := Options{Encoding: UTF8, Comma: comma, Header: HeaderAbsent, Limits: Limits{block: rapid.IntRange(1, 200).Draw(t, "block")}}
		r, err := Open(bytes.NewReader(b.Bytes()), int64(b.Len()), o)
		if foreignText(b.Bytes()) {
			t.Skip("begins like another format")
		}
		require.NoError(t, err)
		var got [][]string
		require.NoError(t, drain(r, func(row *Row) {
			require.Nil(t, row.Fault)
			got = append(got, textsOf(row))
		}))
		require.Equal(t, rows, got)
	})
}

func foreignText(content []byte) bool {
	return refuseForeign(content, false) != nil
}

// Blocks that goroutines take apart give what reading in order gives.
func TestBlocksInParallelGiveAllRows(t *testing.T) {
	require.Equal(t, benchRows, inParallel(t, wideTable(true), 2))
}

func TestBlocksAreNumberedAndMeet(t *testing.T) {
	content := []byte(customers(500) + "C,\"un\nclosed,1\r\n" + customers(500))
	r, err := Open(bytes.NewReader(content), int64(len(content)), Options{Limits: Limits{block: 1000}})
	require.NoError(t, err)
	end := Position{Offset: int64(len("id,姓名,phone\r\n")), Line: 2}
	var b Block
	n := int64(0)
	for ; ; n++ {
		err := r.Read(&b)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.Equal(t, n, b.Number)
		require.Equal(t, end, b.Start())
		end = b.End
		require.LessOrEqual(t, r.Consumed(), int64(len(content)))
	}
	require.Greater(t, n, int64(10))
	require.Equal(t, Position{Offset: int64(len(content)), Line: lineEnds(content) + 1}, end)
	require.Equal(t, int64(len(content)), r.Consumed())
}

// A line of a gigabyte is one row that cannot be read; the rows around it can.
func TestALineOfAGigabyteIsOneFault(t *testing.T) {
	src := endless{before: "id,name\n1,x\n2,\"", length: 1 << 30, after: "\"\n3,y\n"}
	if testing.Short() {
		src.length = 1 << 24
	}
	r, err := Open(src, src.size(), Options{})
	require.NoError(t, err)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var lines []int64
	var codes []campaign.Code
	require.NoError(t, drain(r, func(row *Row) {
		lines = append(lines, row.Line)
		if row.Fault != nil {
			codes = append(codes, row.Fault.Code)
		}
	}))
	runtime.ReadMemStats(&after)
	require.Equal(t, []int64{2, 3, 4}, lines)
	require.Equal(t, []campaign.Code{campaign.CodeRowTooLong}, codes)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16<<20), "bytes allocated, freed ones counted too")
}

// Reading more rows takes no more memory.
func TestMemoryDoesNotGrowWithTheFile(t *testing.T) {
	rows := func(content []byte) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r, err := Open(bytes.NewReader(content), int64(len(content)), Options{})
		require.NoError(t, err)
		require.NoError(t, drain(r, func(*Row) {}))
		require.NoError(t, r.Close())
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	plain, quoted := customers(100_000), wideTable(true)[:8<<20]
	for name, files := range map[string][2][]byte{
		"text":     {[]byte(plain[:len(plain)/8]), []byte(plain)},
		"quoted":   {quoted[:1<<20], quoted},
		"GBK":      {gbk(t, plain[:len(plain)/8]), gbk(t, plain)},
		"gzip":     {zipped(t, []byte(plain[:len(plain)/8])), zipped(t, []byte(plain))},
		"workbook": {book(t, inline(1, "a", "b")+manyRows(2, 2_500)), book(t, inline(1, "a", "b")+manyRows(2, 20_000))},
	} {
		small, large := rows(files[0]), rows(files[1])
		require.Lessf(t, large, 2*small+1<<20, "%s: %d bytes allocated for an eighth of the file, %d for all of it", name, small, large)
	}
}

func TestLayoutTellsWhatWasFound(t *testing.T) {
	content := []byte("\uFEFFid;Name ;born\n1;张三;2000-01-01\n2;\"a;b\";\nbroken\n")
	layout, err := Sniff(bytes.NewReader(content), int64(len(content)), Options{})
	require.NoError(t, err)
	require.Equal(t, Layout{Format: CSV, Encoding: UTF8, BOM: true, Comma: ';', HasHeader: true, Columns: []string{"id", "Name", "born"},
		Rows: -1, Sample: [][]string{{"1", "张三", "2000-01-01"}, {"2", "a;b", ""}}}, layout)
}

func TestHeaderIsFoundByWhatIsBelow(t *testing.T) {
	tests := map[string]struct {
		text   string
		header HeaderRow
		want   []string
	}{
		"names":                      {"id,age\n1,30\n", HeaderAuto, []string{"id", "age"}},
		"numbers where numbers are":  {"C1,30\nC2,31\n", HeaderAuto, []string{"A", "B"}},
		"a year above texts":         {"id,2026\nC1,yes\nC2,no\n", HeaderAuto, []string{"id", "2026"}},
		"one row":                    {"id,age\n", HeaderAuto, []string{"id", "age"}},
		"one row of data":            {"C1,2026-01-01\n", HeaderAuto, []string{"A", "B"}},
		"texts only, said to be row": {"a,b\nc,d\n", HeaderAbsent, []string{"A", "B"}},
		"numbers, said to be names":  {"1,2\n3,4\n", HeaderPresent, []string{"1", "2"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			layout, err := Sniff(strings.NewReader(tt.text), int64(len(tt.text)), Options{Header: tt.header})
			require.NoError(t, err)
			require.Equal(t, tt.want, layout.Columns)
		})
	}
	require.Equal(t, []string{"Z", "AA", "AZ", "BA", "ZZ", "AAA"}, []string{letters(25), letters(26), letters(51), letters(52), letters(701), letters(702)})
}

func TestBlankRowsAreTold(t *testing.T) {
	require.True(t, (&Row{Fields: [][]byte{{}, []byte(" \t")}}).Blank())
	require.False(t, (&Row{Fields: [][]byte{{}, []byte(" 0")}}).Blank())
}

func TestOpenFileClosesWhatItOpened(t *testing.T) {
	name := filepath.Join(t.TempDir(), "customers.csv")
	require.NoError(t, os.WriteFile(name, []byte(customers(3)), 0o600))
	r, err := OpenFile(name, Options{})
	require.NoError(t, err)
	n := 0
	require.NoError(t, drain(r, func(*Row) { n++ }))
	require.Equal(t, 3, n)
	require.NoError(t, r.Close())
	require.ErrorIs(t, r.Close(), os.ErrClosed)

	require.NoError(t, os.WriteFile(name, nil, 0o600))
	_, err = OpenFile(name, Options{})
	require.Equal(t, campaign.CodeEmptyFile, campaign.CodeOf(err))
	_, err = OpenFile(name+".no", Options{})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestFaultsSayWhere(t *testing.T) {
	require.EqualError(t, &Fault{Line: 3, Column: 2, Message: "no"}, "line 3, column 2: no")
	require.EqualError(t, &Fault{Line: 3, Message: "no"}, "line 3: no")
}
