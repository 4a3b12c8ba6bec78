package intake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
	"github.com/musterhq/muster/tabular"
)

const (
	previewRows = 20
	newUnits    = 100 // that are told of
	sampleSize  = 8   // different values of a column that are shown
	sampleRows  = 500 // rows that each worker looks for them in
	faultSize   = 5   // bad values of a column that are shown
	// hopeless is how many rows must be bad before a pass gives up that has too many.
	hopeless = 100_000
	// maxRejects is how many rejected rows are listed of a file: each is a row of the database.
	maxRejects = 1_000_000
	// rejectsAtOnce is how many duplicates are listed at a time.
	rejectsAtOnce = 5_000
)

// check is the first pass over a file.
type check struct {
	file    *File
	options campaign.ImportOptions
	columns []column
	region  string
	units   unitRule
	rejects func([]store.ImportReject) error
	erased  func() func(tenant campaign.OrgUnit, externalID []byte) bool // for a goroutine

	keys, numbers  *duplicates
	rows, rejected atomic.Int64
	gone, noUnit   atomic.Int64 // of those rejected: about customers who were erased, and of units that are not there
	bytes          atomic.Int64

	mu         sync.Mutex
	stats      []columnStats
	preview    [][]any
	newUnits   []string
	duplicates int64
}

// columnStats is what one worker finds out about a column.
type columnStats struct {
	empty, bad int64
	sample     []string
	faults     []string
	types      typeSet // that all values so far are of; of a column whose type is to be guessed
	seen       bool    // there was a value
}

type typeSet byte

// guessable are the types in the order in which they are preferred: text is what is left.
var guessable = []store.AttributeType{store.AttributeInt, store.AttributeFloat, store.AttributeBool, store.AttributeTimestamp}

const anyType typeSet = 1<<4 - 1

// run reads the whole file. With a fault in the mapping it reads its beginning only, to
// show it.
func (c *check) run(ctx context.Context, mapped bool) (err error) {
	folder := filepath.Dir(c.file.path)
	if c.keys, err = newDuplicates(folder); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.keys.close()) }()
	if c.numbers, err = newDuplicates(folder); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.numbers.close()) }()

	c.stats = make([]columnStats, len(c.columns))
	for i := range c.stats {
		c.stats[i].types = anyType
	}
	g, ctx := errgroup.WithContext(ctx)
	free, full := make(chan *run, inFlight), make(chan *run, inFlight)
	for range inFlight {
		free <- &run{}
	}
	g.Go(func() error {
		defer close(full)
		return readRuns(ctx, c.file.reader, free, func(r *run) (bool, error) {
			c.bytes.Store(c.file.reader.Consumed())
			select {
			case full <- r:
			case <-ctx.Done():
				return false, ctx.Err()
			}
			return mapped, nil
		})
	})
	for range workers {
		reader, err := newRowReader(c.columns, c.options, c.region, c.units)
		if err != nil {
			return err
		}
		g.Go(func() error { return c.work(ctx, reader, free, full) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if mapped {
		return c.findDuplicates()
	}
	return nil
}

// work checks runs of rows until there are none.
func (c *check) work(ctx context.Context, reader *rowReader, free chan<- *run, full <-chan *run) error {
	w := checkWorker{check: c, rowReader: reader, stats: make([]columnStats, len(c.columns)), wasErased: c.erased()}
	w.keyAt = slices.IndexFunc(c.columns, func(col column) bool { return col.target == campaign.ImportKey })
	for i := range w.stats {
		w.stats[i].types = anyType
	}
	for r := range full {
		if err := w.check1(r); err != nil {
			return err
		}
		select {
		case free <- r:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.stats {
		c.stats[i].merge(w.stats[i])
	}
	if c.units.fresh {
		for _, u := range reader.fresh {
			c.newUnits = keepFew(c.newUnits, u, newUnits)
		}
	}
	return nil
}

func (s *columnStats) merge(o columnStats) {
	s.empty, s.bad, s.seen, s.types = s.empty+o.empty, s.bad+o.bad, s.seen || o.seen, s.types&o.types
	for _, v := range o.sample {
		s.sample = keepFew(s.sample, v, sampleSize)
	}
	for _, v := range o.faults {
		s.faults = keepFew(s.faults, v, faultSize)
	}
}

func keepFew(few []string, v string, most int) []string {
	if len(few) >= most || slices.Contains(few, v) {
		return few
	}
	return append(few, v)
}

// checkWorker checks rows in one goroutine.
type checkWorker struct {
	*check
	*rowReader
	stats     []columnStats
	keyAt     int // column of the customer's own id; -1 without one
	wasErased func(tenant campaign.OrgUnit, externalID []byte) bool
	looked    int // rows in which samples were looked for
	keysOf    []fingerprint
	numbersOf []fingerprint
	faulty    []store.ImportReject
}

// check1 checks one run of rows.
func (w *checkWorker) check1(r *run) error {
	w.keysOf, w.numbersOf, w.faulty = w.keysOf[:0], w.numbersOf[:0], w.faulty[:0]
	var rows, gone, noUnit int64
	tell := w.tell
	for _, b := range r.blocks[:r.used] {
		for b.Next(&w.row) {
			if w.row.Fault == nil && w.row.Blank() {
				continue
			}
			rows++
			if w.keyAt >= 0 && w.keyAt < len(w.row.Fields) && w.wasErased(w.check.options.Unit.Tenant(), trim(w.row.Fields[w.keyAt])) {
				gone++ // and nothing of the row is written down
				w.faulty = append(w.faulty, store.ImportReject{Line: w.row.Line, Code: campaign.CodeErased, Reason: "the customer has been erased and does not come back"})
				continue
			}
			w.looked++
			reject, ok := w.read(tell)
			if r.number == 0 && len(w.preview) < previewRows && w.row.Fault == nil {
				w.preview = append(w.preview, w.show())
			}
			if !ok {
				if reject.Code == campaign.CodeUnknownUnit {
					noUnit++
				}
				w.faulty = append(w.faulty, reject)
				continue
			}
			w.keysOf = append(w.keysOf, w.keys.of(w.key, w.row.Line))
			if len(w.number) > 0 {
				w.numbersOf = append(w.numbersOf, w.numbers.of(w.number, w.row.Line))
			}
		}
	}
	if err := errors.Join(w.keys.add(w.keysOf), w.numbers.add(w.numbersOf)); err != nil {
		return err
	}
	w.rows.Add(rows)
	w.gone.Add(gone)
	w.noUnit.Add(noUnit)
	w.rejected.Add(int64(len(w.faulty)))
	if len(w.faulty) > 0 {
		if err := w.rejects(w.faulty); err != nil {
			return err
		}
	}
	return w.judge(hopeless)
}

// tell learns what became of a field.
func (w *checkWorker) tell(i int, v value) {
	s, c := &w.stats[i], &w.check.columns[i]
	switch v.kind {
	case unknown:
		s.empty++
		return
	case bad:
		s.bad++
		if len(s.faults) < faultSize {
			s.faults = keepFew(s.faults, shown(w.row.Fields[i], c.masked()), faultSize)
		}
		return
	}
	s.seen = true
	if c.isAttribute() && c.attribute.Type == "" {
		for t, typ := range guessable {
			if s.types&(1<<t) != 0 && parse(typ, w.row.Fields[i], w.zone).kind == bad {
				s.types &^= 1 << t
			}
		}
	}
	if len(s.sample) < sampleSize && w.looked <= sampleRows {
		s.sample = keepFew(s.sample, shown(w.row.Fields[i], c.masked()), sampleSize)
	}
}

// show is the row as it would land, with what identifies people masked.
func (w *checkWorker) show() []any {
	all := make([]any, len(w.values))
	for i, v := range w.values {
		switch c := w.check.columns[i]; {
		case v.kind == bad || c.masked() && v.kind != unknown || v.kind == isText && c.target != campaign.ImportKey:
			all[i] = shown(w.row.Fields[i], c.masked())
		default:
			all[i] = v.plain(trim(w.row.Fields[i]), w.zone)
		}
	}
	return all
}

// findDuplicates rejects rows whose key or number an earlier row has.
func (c *check) findDuplicates() error {
	var rejected lines
	var found []store.ImportReject
	flush := func() error {
		if len(found) == 0 {
			return nil
		}
		err := c.rejects(found)
		found = found[:0]
		return err
	}
	reject := func(code campaign.Code, reason string) func(repeated) error {
		return func(r repeated) error {
			rejected.add(r.line)
			c.duplicates++
			c.rejected.Add(1)
			if err := c.judge(hopeless); err != nil {
				return err
			}
			if found = append(found, store.ImportReject{Line: r.line, Code: code, Reason: fmt.Sprintf(reason, r.first)}); len(found) < rejectsAtOnce {
				return nil
			}
			return flush()
		}
	}
	err := c.keys.find(rejected.has, reject(campaign.CodeDuplicateKey, "is about the same customer as line %d, which is the one that counts"))
	if err == nil {
		err = c.numbers.find(rejected.has, reject(campaign.CodeDuplicateNumber, "has the same phone number as line %d"))
	}
	return errors.Join(err, flush())
}

// judge refuses a file with more rejected rows than can be listed, or more than enough bad ones
// which are more than allowed. That a customer was erased is no fault of the file.
func (c *check) judge(enough int64) error {
	rejected, share := c.rejected.Load(), c.options.BadShare
	bad := rejected - c.gone.Load()
	rows := c.rows.Load() // last: no worker rejects a row before it has counted it
	switch {
	case rejected > maxRejects:
		return campaign.Errorf(campaign.CodeImportRefused, "more than %d rows are rejected, which are too many to list; nothing was loaded. The rejected rows say what is wrong with each", maxRejects).
			With("rows", rows).With("rejected", rejected)
	case bad > enough && float64(bad) > share*float64(rows):
		return campaign.Errorf(campaign.CodeImportRefused, "%d of %d rows are bad, more than the %.4g %% that are allowed; nothing was loaded. The rejected rows say what is wrong with each", bad, rows, 100*share).
			With("rows", rows).With("rejected", rejected).With("bad_share", share)
	}
	return nil
}

// settle makes the types of guessed columns from what was found, and the report.
func (c *check) settle(layout tabular.Layout, catalogue []store.Attribute) campaign.ImportReport {
	report := campaign.ImportReport{
		Format: string(layout.Format), Encoding: string(layout.Encoding), Columns: []campaign.ImportColumn{}, Preview: c.preview,
		Rows: c.rows.Load(), Rejected: c.rejected.Load(), Duplicates: c.duplicates, NewUnits: slices.Sorted(slices.Values(c.newUnits)),
	}
	if layout.Comma != 0 {
		report.Delimiter = string(rune(layout.Comma))
	}
	if report.Preview == nil {
		report.Preview = [][]any{}
	}
	for i := range c.columns {
		col, s := &c.columns[i], &c.stats[i]
		if col.isAttribute() && col.attribute.Type == "" {
			col.attribute.Type = s.guess()
		}
		shownAs := campaign.ImportColumn{
			Column: col.header, Target: col.target, Type: string(col.attribute.Type), New: col.isNew, Masked: col.masked(),
			Empty: s.empty, Bad: s.bad, Sample: s.sample, Faults: s.faults,
		}
		if shownAs.Sample == nil {
			shownAs.Sample = []string{}
		}
		if col.target == "" && c.options.Columns[col.header] != "-" {
			shownAs.Nearest = nearest(plainName(col.header), catalogue)
		}
		report.Columns = append(report.Columns, shownAs)
	}
	return report
}

// guess is the narrowest type that all values are of.
func (s *columnStats) guess() store.AttributeType {
	if s.seen {
		for t, typ := range guessable {
			if s.types&(1<<t) != 0 {
				return typ
			}
		}
	}
	return store.AttributeText
}

// digest identifies what an import makes of customers: the file, what its columns mean, and how
// many of its rows are of units that were not there. Units stay once they are made: another
// number of such rows means other units.
func digest(content []byte, o campaign.ImportOptions, columns []campaign.ImportColumn, noUnit int64) (string, error) {
	type is struct{ Column, Target, Type string }
	meaning := struct {
		Content   string
		Unit      campaign.OrgUnit
		TimeZone  string
		Simulated bool
		Format    []string
		Columns   []is
		NoUnit    int64 `json:",omitempty"`
	}{hex.EncodeToString(content), o.Unit, o.TimeZone, o.Simulated, []string{o.Format, o.Encoding, o.Delimiter, o.Sheet}, nil, noUnit}
	for _, c := range columns {
		meaning.Columns = append(meaning.Columns, is{c.Column, c.Target, c.Type})
	}
	text, err := json.Marshal(meaning)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// sha256Of reads all of a file.
func sha256Of(ctx context.Context, src io.ReaderAt, size int64) ([]byte, error) {
	h := sha256.New()
	buffer := make([]byte, 1<<20)
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := src.ReadAt(buffer[:min(int64(len(buffer)), size-at)], at)
		if err != nil && !errors.Is(err, io.EOF) || n == 0 {
			return nil, fmt.Errorf("read file: %w", errors.Join(err, io.ErrUnexpectedEOF))
		}
		h.Write(buffer[:n])
		at += int64(n)
	}
	return h.Sum(nil), nil
}
