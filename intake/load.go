package intake

import (
	"context"

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
	units   unitRule
	skipped lines // that the first pass rejected for what the row itself does not tell
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
		reader, err := newRowReader(l.columns, l.options, l.region, l.units)
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
		writers, landed := make(chan struct{}, into.Writers()), make(chan struct{})
		close(landed)
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
			writers <- struct{}{}
			before, after := landed, make(chan struct{})
			landed = after
			g.Go(func() error {
				defer func() { <-writers }()
				err := into.Write(ctx, p.batch, before)
				if err != nil {
					return err
				}
				progress(into.Job())
				spare <- p
				close(after)
				return nil
			})
		}
		return ctx.Err()
	})
	return g.Wait()
}

// fill encodes a run of rows.
func (l *load) fill(ctx context.Context, r *rowReader, p *piece) error {
	b := p.batch
	b.Reset()
	for _, block := range p.run.blocks[:p.run.used] {
		for block.Next(&r.row) {
			if r.row.Fault == nil && r.row.Blank() {
				continue
			}
			b.Rows++
			_, ok := r.read(nil)
			if !ok || l.skipped.has(r.row.Line) { // listed by the first pass
				b.Rejected++
				continue
			}
			b.Begin(r.row.Line, r.key, r.number, r.unit, r.where)
			for i := range l.columns {
				if l.columns[i].isAttribute() {
					put(b, r.values[i], r.row.Fields[i])
				}
			}
		}
	}
	b.Next = campaign.ImportPosition{Offset: p.run.end.Offset, Line: p.run.end.Line}
	b.Bytes = p.run.bytes
	return b.Prepare(ctx)
}

// put adds the value that was read from field.
func put(b *store.CustomerBatch, v value, field []byte) {
	switch v.kind {
	case isInt:
		b.Int(v.whole)
	case isFloat:
		b.Float(v.float())
	case isText:
		b.Text(field)
	case isBool:
		b.Bool(v.whole != 0)
	case isTime:
		b.Time(v.whole)
	default:
		b.Null()
	}
}
