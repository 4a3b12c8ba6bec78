package tabular

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/stretchr/testify/require"
	"github.com/xuri/excelize/v2"
	"golang.org/x/text/encoding/simplifiedchinese"
)

const benchRows = 50_000

// wideTable is what a customer export looks like: 40 columns of short texts, numbers,
// dates and empty fields.
func wideTable(quote bool) []byte {
	random := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for i := range 40 {
		fmt.Fprintf(&b, "column_%d%c", i+1, ",\n"[i/39])
	}
	q := ""
	if quote {
		q = `"`
	}
	for row := range benchRows {
		for i := range 40 {
			b.WriteString(q)
			switch i % 8 {
			case 0:
				fmt.Fprintf(&b, "C%08d", row)
			case 1:
				fmt.Fprintf(&b, "138%08d", random.IntN(1e8))
			case 2, 3:
				fmt.Fprintf(&b, "%d", random.IntN(500))
			case 4:
				fmt.Fprintf(&b, "%d.%02d", random.IntN(300), random.IntN(100))
			case 5:
				fmt.Fprintf(&b, "20%02d-%02d-%02d", random.IntN(27), 1+random.IntN(12), 1+random.IntN(28))
			case 6:
				b.WriteString([]string{"广州", "深圳", "Shanghai", "是", "no"}[random.IntN(5)])
			}
			b.WriteString(q)
			b.WriteByte(",\n"[i/39])
		}
	}
	return b.Bytes()
}

func report(b *testing.B, size int) {
	b.SetBytes(int64(size))
	b.ReportMetric(float64(benchRows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkCSV(b *testing.B) {
	plain, quoted := wideTable(false), wideTable(true)
	gbk, err := simplifiedchinese.GB18030.NewEncoder().Bytes(plain)
	require.NoError(b, err)
	for _, file := range []struct {
		name    string
		content []byte
	}{{"plain", plain}, {"quoted", quoted}, {"gbk", gbk}, {"gzip", zipped(b, plain)}} {
		b.Run(file.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r, err := Open(bytes.NewReader(file.content), int64(len(file.content)), Options{})
				require.NoError(b, err)
				n := 0
				require.NoError(b, drain(r, func(*Row) { n++ }))
				require.Equal(b, benchRows, n)
			}
			report(b, len(file.content))
		})
	}
	b.Run("plain in parallel", func(b *testing.B) {
		for b.Loop() {
			require.Equal(b, benchRows, inParallel(b, plain, 2))
		}
		report(b, len(plain))
	})
	for name, content := range map[string][]byte{"plain": plain, "quoted": quoted} {
		b.Run("encoding/csv/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := csv.NewReader(bytes.NewReader(content))
				r.ReuseRecord = true
				n := -1
				for {
					if _, err := r.Read(); errors.Is(err, io.EOF) {
						break
					}
					n++
				}
				require.Equal(b, benchRows, n)
			}
			report(b, len(content))
		})
	}
}

// inParallel takes blocks apart in as many goroutines and counts the rows.
func inParallel(t testing.TB, content []byte, workers int) int {
	r, err := Open(bytes.NewReader(content), int64(len(content)), Options{})
	require.NoError(t, err)
	blocks, free := make(chan *Block, workers), make(chan *Block, 2*workers)
	for range 2 * workers {
		free <- &Block{}
	}
	counts := make([]int, workers)
	var group sync.WaitGroup
	for i := range workers {
		group.Go(func() {
			var row Row
			for b := range blocks {
				for b.Next(&row) {
					counts[i]++
				}
				free <- b
			}
		})
	}
	for {
		b := <-free
		if err = r.Read(b); err != nil {
			break
		}
		blocks <- b
	}
	require.ErrorIs(t, err, io.EOF)
	close(blocks)
	group.Wait()
	sum := 0
	for _, n := range counts {
		sum += n
	}
	return sum
}

func BenchmarkWorkbook(b *testing.B) {
	const rows = 10_000
	f := excelize.NewFile()
	w, err := f.NewStreamWriter("Sheet1")
	require.NoError(b, err)
	for row := range rows + 1 {
		cells := make([]any, 40)
		for i := range cells {
			if cells[i] = fmt.Sprintf("text %d", row%1000); row == 0 {
				cells[i] = fmt.Sprintf("column_%d", i)
			} else if i%2 == 0 {
				cells[i] = row * i
			}
		}
		require.NoError(b, w.SetRow(fmt.Sprintf("A%d", row+1), cells))
	}
	require.NoError(b, w.Flush())
	buffer, err := f.WriteToBuffer()
	require.NoError(b, err)
	b.Run("tabular", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r, err := Open(bytes.NewReader(buffer.Bytes()), int64(buffer.Len()), Options{})
			require.NoError(b, err)
			n := 0
			require.NoError(b, drain(r, func(*Row) { n++ }))
			require.Equal(b, rows, n)
		}
		b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	})
	b.Run("excelize", func(b *testing.B) {
		for b.Loop() {
			f, err := excelize.OpenReader(bytes.NewReader(buffer.Bytes()))
			require.NoError(b, err)
			lines, err := f.Rows("Sheet1")
			require.NoError(b, err)
			n := -1
			for ; lines.Next(); n++ {
				_, err := lines.Columns()
				require.NoError(b, err)
			}
			require.Equal(b, rows, n)
		}
		b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	})
}

func BenchmarkParquet(b *testing.B) {
	const rows = 100_000
	content := parquetOf(b, parquetCustomers(rows), parquet.Compression(&parquet.Snappy))
	b.ReportAllocs()
	for b.Loop() {
		r, err := Open(bytes.NewReader(content), int64(len(content)), Options{})
		require.NoError(b, err)
		n := 0
		require.NoError(b, drain(r, func(*Row) { n++ }))
		require.Equal(b, rows, n)
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
