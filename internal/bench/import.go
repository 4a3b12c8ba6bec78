package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/dataset"
	"github.com/musterhq/muster/internal/population"
	"github.com/musterhq/muster/store"
)

const importDatabase = "import"

// Import compares Muster's import of rows generated customers with a COPY of the same
// rows, encoded beforehand, into a bare table.
func (s *Suite) Import(ctx context.Context, rows int) (_ *Report, err error) {
	report := s.report("import", map[string]any{"rows": rows, "seed": s.Seed})
	// Left by a bench that was interrupted: nothing in it is of use.
	if err := s.Engines.drop(ctx, importDatabase); err != nil {
		return nil, err
	}
	st, err := s.Engines.database(ctx, importDatabase)
	if err != nil {
		return nil, err
	}
	defer func() {
		st.Close()
		err = errors.Join(err, s.Engines.drop(context.WithoutCancel(ctx), importDatabase))
	}()
	bare, err := s.newBareCopy(ctx, st, rows)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, bare.close()) }()
	report.Sides, err = s.alternate(ctx, "import", "rows", []side{
		{
			name: "bare COPY", run: bare.run,
			what: fmt.Sprintf("one binary COPY of rows encoded beforehand (%d bytes each) into a table of the same columns and the number in clear; primary key, no other index",
				bare.bytes/int64(rows)),
		},
		{
			name: "muster import",
			what: "Muster's import of the same rows: generates, checks and encodes them, seals and hashes each number into the phone vault, unique customer id and number index, one transaction, ANALYZE",
			run:  func(ctx context.Context, w *stopwatch) (int64, error) { return s.importOnce(ctx, w, st, rows) },
		},
	})
	if err != nil {
		return nil, err
	}
	report.Ratios = []Ratio{ratio(report.Sides[1], report.Sides[0])}
	return report, nil
}

func (s *Suite) importOnce(ctx context.Context, w *stopwatch, st *store.Store, rows int) (int64, error) {
	if _, err := st.Pool().Exec(ctx, "TRUNCATE customer, phone_vault, customer_import"); err != nil {
		return 0, err
	}
	if err := w.start(); err != nil {
		return 0, err
	}
	loaded, err := population.Generate(ctx, st, rows, s.Seed, nil)
	if err = errors.Join(err, w.stop()); err != nil {
		return 0, err
	}
	var customers, numbers int64
	err = st.Pool().QueryRow(ctx, "SELECT (SELECT count(*) FROM customer), (SELECT count(*) FROM phone_vault)").Scan(&customers, &numbers)
	if err != nil {
		return 0, err
	}
	if want := int64(rows); loaded.Customers != want || customers != want || numbers != want {
		return 0, wrong("%d customers were imported; the tables hold %d and %d numbers", loaded.Customers, customers, numbers)
	}
	return loaded.Customers, nil
}

// wrong is a bench whose result is not what it must be.
func wrong(format string, args ...any) error {
	return campaign.Errorf(campaign.CodeAssertionMismatch, "the result is wrong: "+format, args...)
}

// bareCopy is a file of rows in PostgreSQL's binary COPY format and the table for them.
type bareCopy struct {
	pool    *store.Store
	file    *os.File
	bytes   int64
	rows    int
	columns string
}

// newBareCopy makes the bare table, of the customer table's columns, and encodes the rows.
func (s *Suite) newBareCopy(ctx context.Context, st *store.Store, rows int) (_ *bareCopy, err error) {
	set, err := dataset.Operator(dataset.OperatorOptions{Size: rows, Seed: s.Seed, Units: population.OperatorUnits})
	if err != nil {
		return nil, err
	}
	// The import declares the attributes, which makes the customer table's columns.
	if _, err := population.Generate(ctx, st, 1, s.Seed, nil); err != nil {
		return nil, err
	}
	if _, err := st.Pool().Exec(ctx, "CREATE TABLE bare (LIKE customer INCLUDING DEFAULTS, msisdn text, PRIMARY KEY (id))"); err != nil {
		return nil, fmt.Errorf("make bare table: %w", err)
	}
	b := &bareCopy{pool: st, rows: rows}
	names := []string{"id", "external_id", "org_unit", "time_zone", "simulated", "msisdn"}
	for _, a := range set.Attributes {
		names = append(names, pgx.Identifier{a.Name}.Sanitize())
	}
	b.columns = strings.Join(names, ", ")
	types, err := columnTypes(ctx, st, b.columns)
	if err != nil {
		return nil, err
	}
	if b.file, err = os.CreateTemp(s.Engines.Folder.Path(), "bench-import-*.copy"); err != nil {
		return nil, fmt.Errorf("keep encoded rows: %w", err)
	}
	if err := b.encode(set, types); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func columnTypes(ctx context.Context, st *store.Store, columns string) ([]uint32, error) {
	rows, err := st.Pool().Query(ctx, "SELECT "+columns+" FROM bare")
	if err != nil {
		return nil, fmt.Errorf("read bare table: %w", err)
	}
	rows.Close()
	var types []uint32
	for _, f := range rows.FieldDescriptions() {
		types = append(types, f.DataTypeOID)
	}
	return types, rows.Err()
}

// encode writes every row of set to the file.
func (b *bareCopy) encode(set *dataset.Set, types []uint32) error {
	out := bufio.NewWriterSize(b.file, 1<<20)
	buf := []byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	m := pgtype.NewMap()
	for stream := set.Stream(0, set.Size); stream.Next(); {
		c := stream.Customer()
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		values := append([]any{[16]byte(id), c.ExternalID, c.OrgUnit, c.TimeZone, set.Simulated, c.MSISDN}, c.Values...)
		buf = binary.BigEndian.AppendUint16(buf, uint16(len(values)))
		for i, v := range values {
			at := len(buf)
			buf = append(buf, 0xff, 0xff, 0xff, 0xff) // NULL, until there is a value
			with, err := m.Encode(types[i], pgtype.BinaryFormatCode, v, buf)
			if err != nil {
				return fmt.Errorf("encode rows: %w", err)
			}
			if with != nil {
				buf = with
				binary.BigEndian.PutUint32(buf[at:], uint32(len(buf)-at-4))
			}
		}
		if _, err := out.Write(buf); err != nil {
			return fmt.Errorf("keep encoded rows: %w", err)
		}
		b.bytes += int64(len(buf))
		buf = buf[:0]
	}
	_, err := out.Write([]byte{0xff, 0xff})
	if err = errors.Join(err, out.Flush()); err != nil {
		return fmt.Errorf("keep encoded rows: %w", err)
	}
	return nil
}

func (b *bareCopy) close() error { return errors.Join(b.file.Close(), os.Remove(b.file.Name())) }

func (b *bareCopy) run(ctx context.Context, w *stopwatch) (int64, error) {
	if _, err := b.pool.Pool().Exec(ctx, "TRUNCATE bare"); err != nil {
		return 0, err
	}
	if _, err := b.file.Seek(0, io.SeekStart); err != nil {
		return 0, fmt.Errorf("read encoded rows: %w", err)
	}
	conn, err := b.pool.Pool().Acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Release()
	if err := w.start(); err != nil {
		return 0, err
	}
	tag, err := conn.Conn().PgConn().CopyFrom(ctx, bufio.NewReaderSize(b.file, 1<<16), "COPY bare ("+b.columns+") FROM STDIN (FORMAT binary)")
	if err = errors.Join(err, w.stop()); err != nil {
		return 0, err
	}
	if tag.RowsAffected() != int64(b.rows) {
		return 0, wrong("%d of %d rows were copied", tag.RowsAffected(), b.rows)
	}
	return tag.RowsAffected(), nil
}
