package intake

import (
	"context"
	"errors"
	"io"
	"runtime"

	"github.com/musterhq/muster/tabular"
)

// run is some thousand rows that are worked on together, and land in one transaction.
type run struct {
	number int
	blocks []*tabular.Block
	used   int
	end    tabular.Position // of the first row after it
	bytes  int64            // of the file, read up to here
}

// A run ends with runBlocks blocks, which are about 2 MiB of text, or with the block that
// makes it runLines lines: of a narrow file, what is made of a row is far larger than the row.
const (
	runBlocks = 8
	runLines  = 10_000
)

// workers is how many goroutines take rows apart; what is in flight is one run for each,
// one being read and two being written.
var (
	workers  = max(2, min(runtime.GOMAXPROCS(0), 4))
	inFlight = workers + 3
)

// readRuns reads a file and hands out runs taken from free. It ends with the file, or when
// emit says that no more are wanted.
func readRuns(ctx context.Context, reader *tabular.Reader, free <-chan *run, emit func(*run) (more bool, err error)) error {
	for number := 0; ; number++ {
		var r *run
		select {
		case r = <-free:
		case <-ctx.Done():
			return ctx.Err()
		}
		r.number, r.used = number, 0
		ended, begin := false, int64(-1)
		for r.used < runBlocks && (begin < 0 || r.end.Line-begin < runLines) {
			if r.used == len(r.blocks) {
				r.blocks = append(r.blocks, &tabular.Block{})
			}
			b := r.blocks[r.used]
			err := reader.Read(b)
			if ended = errors.Is(err, io.EOF); ended {
				break
			} else if err != nil {
				return err
			}
			if begin < 0 {
				begin = b.Start().Line
			}
			r.used++
			r.end = b.End
		}
		r.bytes = reader.Consumed()
		if r.used > 0 {
			if more, err := emit(r); err != nil || !more {
				return err
			}
		}
		if ended {
			return nil
		}
	}
}
