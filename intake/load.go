package intake

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// load is the second pass over a file.
type load struct {
	file    *File
	options campaign.ImportOptions
	columns []column
	region  string
	skipped []int64 // lines that the first pass rejected because of another line, ascending
}

// piece is a run on its way through the workers. They may be done in any order; batches are
// written in the order of the file.
type piece struct {
	run   *run
	batch *store.CustomerBatch
	done  chan error
}

// run writes customers until the file has no more rows.
func (l *load) run(ctx context.Context, into *store.CustomerLoad, progress func(store.ImportJob)) error {
	g, ctx := errgroup.WithContext(ctx)
	free, spare := make(chan *run, inFlight), make(chan *piece, inFlight)
	for range inFlight {
		free <- &run{}
		spare <- &piece{batch: into.NewBatch(), done: make(chan error, 1)}
	}
	work, order := make(chan *piece, inFlight), make(chan *piece, inFlight)
	g.Go(func() error {
		defer close(work)
		defer close(order)
		return readRuns(ctx, l.file.reader, free, func(r *run) (bool, error) {
			var p *piece
			select {
			case p = <-spare:
			case <-ctx.Done():
				return false, ctx.Err()
			}
			p.run = r
			order <- p
			work <- p
			return true, nil
		})
	})
	for range workers {
		reader, err := newRowReader(l.columns, l.options, l.region)
		if err != nil {
			return err
		}
		g.Go(func() error {
			for p := range work {
				p.done <- l.fill(ctx, reader, p)
			}
			return nil
		})
	}
	g.Go(func() error {
		for p := range order {
			var err error
			select {
			case err = <-p.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			free <- p.run
			if err != nil {
				return err
			}
			if err := into.Write(ctx, p.batch); err != nil {
				return err
			}
			if progress != nil {
				progress(into.Job())
			}
			spare <- p
		}
		return ctx.Err()
	})
	return g.Wait()
}

// fill encodes a run of rows.
func (l *load) fill(ctx context.Context, r *rowReader, p *piece) error {
	b := p.batch
	b.Reset()
	var number []byte
	for _, block := range p.run.blocks[:p.run.used] {
		for block.Next(&r.row) {
			if r.row.Fault == nil && r.row.Blank() {
				continue
			}
			b.Rows++
			_, ok := r.read(nil)
			if ok && len(l.skipped) > 0 {
				_, found := slices.BinarySearch(l.skipped, r.row.Line)
				ok = !found
			}
			if !ok { // listed by the first pass
				b.Rejected++
				continue
			}
			if number = number[:0]; r.number != "" {
				number = append(append(number, '+'), r.number...)
			}
			b.Begin(r.row.Line, r.key, number, r.unit, r.where)
			for i := range l.columns {
				if l.columns[i].isAttribute() {
					put(b, r.values[i])
				}
			}
		}
	}
	b.Next = campaign.ImportPosition{Offset: p.run.end.Offset, Line: p.run.end.Line}
	b.Bytes = p.run.bytes
	return b.Prepare(ctx)
}

func put(b *store.CustomerBatch, v value) {
	switch v.kind {
	case isInt:
		b.Int(v.whole)
	case isFloat:
		b.Float(v.float)
	case isText:
		b.Text(v.text)
	case isBool:
		b.Bool(v.whole != 0)
	case isTime:
		b.Time(v.whole)
	default:
		b.Null()
	}
}
