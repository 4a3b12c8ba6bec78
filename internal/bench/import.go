package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/intake"
	"github.com/musterhq/muster/internal/dataset"
	"github.com/musterhq/muster/internal/population"
	"github.com/musterhq/muster/store"
)

const (
	importDatabase = "import"
	// plainColumns are the columns of a file that are no attributes.
	plainColumns = 4
)

// ImportOptions says what is imported.
type ImportOptions struct {
	Rows    int
	Columns int   // of the file, with four that are no attributes
	Memory  int64 // bytes that Muster's process may have in use at most; 0 for any
}

// Import compares Muster's import of a CSV file with PostgreSQL's own COPY of the same file
// into a table of the same columns and indexes.
func (s *Suite) Import(ctx context.Context, o ImportOptions) (_ *Report, err error) {
	report := s.report("import", map[string]any{"rows": o.Rows, "columns": o.Columns, "seed": s.Seed})
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
	file, err := s.newCustomerFile(ctx, st, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.close()) }()
	report.Input["bytes"] = file.size
	report.Sides, err = s.alternate(ctx, "import", "rows", []side{
		{
			name: "COPY", run: file.copyInto(st, "same"),
			what: fmt.Sprintf("one COPY of the file (%d bytes a row, %d columns) into a table with the columns and indexes of Muster's: an own ascending id, a unique external id and the number, which is in clear there", file.size/int64(o.Rows), o.Columns),
		},
		{
			name: "muster import",
			what: "Muster's import of the file, as its API and command do it: both passes, numbers sealed and hashed into the phone vault, own ids, unique external ids and a number index, committed batches, ANALYZE",
			run:  func(ctx context.Context, w *stopwatch) (int64, error) { return s.importOnce(ctx, w, st, file) },
		},
		{name: "COPY, one key", run: file.copyInto(st, "keyed"), what: "the same COPY into a table of the file's columns alone, with a primary key on the external id"},
	})
	if err != nil {
		return nil, err
	}
	report.Ratios = []Ratio{ratio(report.Sides[1], report.Sides[0]), ratio(report.Sides[1], report.Sides[2])}
	for _, run := range report.Sides[1].Runs {
		if peak := run.Peak["muster"]; o.Memory > 0 && peak > o.Memory {
			report.Print(s.Out)
			return nil, wrong("the import had %d MB in use, more than %d", peak>>20, o.Memory>>20)
		}
	}
	return report, nil
}

func (s *Suite) importOnce(ctx context.Context, w *stopwatch, st *store.Store, file *customerFile) (int64, error) {
	if _, err := st.Pool().Exec(ctx, "TRUNCATE customer, phone_vault, phone_key, import_job, import_reject"); err != nil {
		return 0, err
	}
	job := store.ImportJob{
		ID: uuid.Must(uuid.NewV7()).String(), Unit: population.OperatorUnit, Name: "bench", Path: file.Name(), TotalBytes: file.size,
		Options: campaign.ImportOptions{Unit: population.OperatorUnit, TimeZone: "Asia/Shanghai", BadShare: campaign.DefaultBadShare, Simulated: true},
	}
	if err := w.start(); err != nil {
		return 0, err
	}
	began := time.Now()
	err := st.CreateImport(ctx, job)
	var done store.ImportJob
	var checked time.Time
	if err == nil {
		done, err = intake.Run(ctx, st, job.ID, "", func(j store.ImportJob) {
			if j.State == campaign.ImportLoading && checked.IsZero() {
				checked = *j.PassAt
			}
		})
	}
	ended := time.Now()
	if err = errors.Join(err, w.stop()); err != nil {
		return 0, err
	}
	var customers, numbers int64
	err = st.Pool().QueryRow(ctx, "SELECT (SELECT count(*) FROM customer), (SELECT count(*) FROM phone_vault JOIN phone_key USING (customer_id))").Scan(&customers, &numbers)
	if err != nil {
		return 0, err
	}
	if want := int64(file.rows); done.State != campaign.ImportDone || done.Created != want || customers != want || numbers != want {
		return 0, wrong("the import is %s with %d of %d customers; the tables hold %d and %d numbers (%v)", done.State, done.Created, want, customers, numbers, done.Error)
	}
	w.run.Also = map[string]float64{"check s": checked.Sub(began).Seconds(), "load s": ended.Sub(checked).Seconds()}
	return done.Created, nil
}

// wrong is a bench whose result is not what it must be.
func wrong(format string, args ...any) error {
	return campaign.Errorf(campaign.CodeAssertionMismatch, "the result is wrong: "+format, args...)
}

// customerFile is a CSV file of generated customers.
type customerFile struct {
	*os.File
	size    int64
	rows    int
	columns []string
}

// newCustomerFile writes the file, declares its attributes and makes the bare tables for it.
func (s *Suite) newCustomerFile(ctx context.Context, st *store.Store, o ImportOptions) (_ *customerFile, err error) {
	set, err := dataset.Operator(dataset.OperatorOptions{Size: o.Rows, Seed: s.Seed, Units: population.OperatorUnits})
	if err != nil {
		return nil, err
	}
	var attributes []store.Attribute
	for _, a := range set.Attributes[:min(len(set.Attributes), max(0, o.Columns-plainColumns))] {
		attributes = append(attributes, store.Attribute{Name: a.Name, Type: store.AttributeType(a.Type), Meaning: a.Meaning})
	}
	for i := len(attributes) + plainColumns; i < o.Columns; i++ {
		attributes = append(attributes, store.Attribute{Name: fmt.Sprintf("bill_%d", i), Type: store.AttributeInt, Meaning: fmt.Sprintf("Bill of an earlier month, %d", i)})
	}
	if err := st.DeclareAttributes(ctx, campaign.Actor{}, attributes); err != nil {
		return nil, err
	}
	if err := st.EnsureUnits(ctx, population.OperatorUnits); err != nil {
		return nil, err
	}
	names := []string{"external_id", "msisdn", "org_unit", "time_zone"}
	columns := "external_id, NULL::text AS msisdn, org_unit, time_zone"
	for _, a := range attributes {
		names = append(names, a.Name)
		columns += ", " + pgx.Identifier{a.Name}.Sanitize()
	}
	// The ids of same ascend, as Muster's do: random ones would slow the bare side down.
	_, err = st.Pool().Exec(ctx, "CREATE TABLE keyed AS SELECT "+columns+` FROM customer WITH NO DATA; ALTER TABLE keyed ADD PRIMARY KEY (external_id);
		CREATE SEQUENCE same_id CACHE 1000;
		CREATE TABLE same (LIKE customer INCLUDING DEFAULTS, msisdn text, PRIMARY KEY (id));
		ALTER TABLE same ALTER id SET DEFAULT lpad(to_hex(nextval('same_id')), 32, '0')::uuid;
		CREATE UNIQUE INDEX same_external ON same (external_id); CREATE INDEX same_number ON same (msisdn)`)
	if err != nil {
		return nil, fmt.Errorf("make bare tables: %w", err)
	}
	f := &customerFile{rows: o.Rows, columns: names}
	if f.File, err = os.CreateTemp(s.Engines.Folder.Path(), "bench-import-*.csv"); err != nil {
		return nil, fmt.Errorf("keep customers: %w", err)
	}
	if err := f.write(set); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

func (f *customerFile) write(set *dataset.Set) error {
	out := bufio.NewWriterSize(f.File, 1<<20)
	line := []byte(strings.Join(f.columns, ",") + "\n")
	given := min(len(set.Attributes), len(f.columns)-plainColumns)
	made := len(f.columns) - plainColumns - given
	for stream := set.Stream(0, set.Size); ; {
		if _, err := out.Write(line); err != nil {
			return fmt.Errorf("keep customers: %w", err)
		}
		f.size += int64(len(line))
		if !stream.Next() {
			break
		}
		c := stream.Customer()
		line = append(append(append(append(line[:0], c.ExternalID...), ','), c.MSISDN...), ',')
		line = append(append(append(line, c.OrgUnit...), ','), c.TimeZone...)
		var last int64
		for _, v := range c.Values[:given] {
			line = append(line, ',')
			switch v := v.(type) {
			case int64:
				line, last = strconv.AppendInt(line, v, 10), v
			case float64:
				line = strconv.AppendFloat(line, v, 'g', -1, 64)
			case string:
				line = append(line, v...)
			case bool:
				line = strconv.AppendBool(line, v)
			case time.Time:
				line = v.AppendFormat(line, time.RFC3339)
			}
		}
		for i := range made {
			line = strconv.AppendInt(append(line, ','), last*131+int64(i)*977, 10)
		}
		line = append(line, '\n')
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("keep customers: %w", err)
	}
	return nil
}

func (f *customerFile) close() error { return errors.Join(f.Close(), os.Remove(f.Name())) }

// copyInto copies the file into a bare table.
func (f *customerFile) copyInto(st *store.Store, table string) func(context.Context, *stopwatch) (int64, error) {
	var columns string
	for i, name := range f.columns {
		if i > 0 {
			columns += ", "
		}
		columns += pgx.Identifier{name}.Sanitize()
	}
	return func(ctx context.Context, w *stopwatch) (int64, error) {
		if _, err := st.Pool().Exec(ctx, "TRUNCATE keyed, same"); err != nil {
			return 0, err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return 0, fmt.Errorf("read customers: %w", err)
		}
		conn, err := st.Pool().Acquire(ctx)
		if err != nil {
			return 0, err
		}
		defer conn.Release()
		if err := w.start(); err != nil {
			return 0, err
		}
		tag, err := conn.Conn().PgConn().CopyFrom(ctx, bufio.NewReaderSize(f, 1<<16), "COPY "+table+" ("+columns+") FROM STDIN (FORMAT csv, HEADER)")
		if err = errors.Join(err, w.stop()); err != nil {
			return 0, err
		}
		if tag.RowsAffected() != int64(f.rows) {
			return 0, wrong("%d of %d rows were copied", tag.RowsAffected(), f.rows)
		}
		return tag.RowsAffected(), nil
	}
}
