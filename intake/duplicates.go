package intake

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"slices"
	"sync"
)

// duplicates finds rows that are about the same key or number, in memory that does not grow
// with the file: fingerprints go to a file by their first byte, and are compared a
// 256th part at a time at the end. A fingerprint has 96 bits; that two of ten million rows
// share one by chance has a probability of 10^-15.
type duplicates struct {
	seeds   [2]maphash.Seed
	mu      sync.Mutex
	file    *os.File
	size    int64
	buckets [256]bucket
}

// bucket holds the fingerprints of one first byte: the newest in memory, the others in
// chunks of the file.
type bucket struct {
	rows   []byte
	chunks []int64
}

const (
	fingerprintSize = 16 // 8 and 4 bytes of hashes, 4 of the line
	chunkSize       = 256 * fingerprintSize
)

// fingerprint is a row's key or number, and its line.
type fingerprint [fingerprintSize]byte

// newDuplicates keeps what memory should not hold in a temporary file in folder, which is
// gone when the process is.
func newDuplicates(folder string) (*duplicates, error) {
	f, err := os.CreateTemp(folder, "import-*.fingerprints")
	if err != nil {
		return nil, fmt.Errorf("look for duplicates: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil { // the open file goes on to exist until it is closed
		return nil, errors.Join(fmt.Errorf("look for duplicates: %w", err), f.Close())
	}
	return &duplicates{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, file: f}, nil
}

// of returns the fingerprint of a row's text.
func (d *duplicates) of(text []byte, line int64) (f fingerprint) {
	binary.LittleEndian.PutUint64(f[:], maphash.Bytes(d.seeds[0], text))
	binary.LittleEndian.PutUint32(f[8:], uint32(maphash.Bytes(d.seeds[1], text)))
	binary.LittleEndian.PutUint32(f[12:], uint32(line))
	return f
}

// add takes the fingerprints of some rows. It may be called by several goroutines.
func (d *duplicates) add(rows []fingerprint) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range rows {
		b := &d.buckets[rows[i][0]]
		if b.rows == nil {
			b.rows = make([]byte, 0, chunkSize)
		}
		b.rows = append(b.rows, rows[i][:]...)
		if len(b.rows) < chunkSize {
			continue
		}
		if _, err := d.file.WriteAt(b.rows, d.size); err != nil {
			return fmt.Errorf("look for duplicates: %w", err)
		}
		b.chunks = append(b.chunks, d.size)
		d.size += chunkSize
		b.rows = b.rows[:0]
	}
	return nil
}

// repeated is a row whose text an earlier one has.
type repeated struct{ line, first int64 }

// find tells each about every row but the first of those that share a text; rows that skip
// reports do not count.
func (d *duplicates) find(skip func(line int64) bool, each func(repeated) error) error {
	var rows []byte
	var all []fingerprint
	for i := range d.buckets {
		b := &d.buckets[i]
		rows = append(rows[:0], b.rows...)
		for _, at := range b.chunks {
			from := len(rows)
			rows = slices.Grow(rows, chunkSize)[:from+chunkSize]
			if _, err := d.file.ReadAt(rows[from:], at); err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("look for duplicates: %w", err)
			}
		}
		all = all[:0]
		for at := 0; at < len(rows); at += fingerprintSize {
			if f := fingerprint(rows[at:]); !skip(f.line()) {
				all = append(all, f)
			}
		}
		slices.SortFunc(all, func(a, b fingerprint) int {
			if c := compare(binary.LittleEndian.Uint64(a[:]), binary.LittleEndian.Uint64(b[:])); c != 0 {
				return c
			}
			if c := compare(uint64(binary.LittleEndian.Uint32(a[8:])), uint64(binary.LittleEndian.Uint32(b[8:]))); c != 0 {
				return c
			}
			return compare(uint64(a.line()), uint64(b.line()))
		})
		first := 0
		for j := 1; j < len(all); j++ {
			if [12]byte(all[j][:12]) != [12]byte(all[first][:12]) {
				first = j
				continue
			}
			if err := each(repeated{line: all[j].line(), first: all[first].line()}); err != nil {
				return err
			}
		}
	}
	return nil
}

// lines is a set of lines, a bit for each of the file.
type lines struct{ bits []uint64 }

func (l *lines) add(line int64) {
	at := int(line >> 6)
	if at >= len(l.bits) {
		l.bits = append(l.bits, make([]uint64, at+1-len(l.bits))...)
	}
	l.bits[at] |= 1 << (line & 63)
}

func (l *lines) has(line int64) bool {
	at := int(line >> 6)
	return at < len(l.bits) && l.bits[at]&(1<<(line&63)) != 0
}

func (f fingerprint) line() int64 { return int64(binary.LittleEndian.Uint32(f[12:])) }

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (d *duplicates) close() error { return d.file.Close() }
