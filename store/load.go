package store

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/musterhq/muster/campaign"
)

// CustomerColumns says what the rows of a load hold besides the customer's own id.
type CustomerColumns struct {
	Attributes []Attribute
	// Whether the rows themselves say where customers belong and in which zone they live:
	// else that is said for new customers only. Numbers are never taken away.
	Unit, Zone bool
	Simulated  bool // new customers are made up
}

// CustomerLoad writes the customers of one import, a batch a transaction. Each batch moves
// the import's place in the file with it: whatever happens, a batch has landed whole and once, or not.
type CustomerLoad struct {
	store   *Store
	job     ImportJob
	conns   chan *pgxpool.Conn // idle ones
	columns CustomerColumns
	fresh   bool // nobody was known when the import began
	erased  erasedIDs
	units   map[string]bool
	insert  string
	merge   string
}

// freshWriters is how many batches are written at a time into tables that nobody else knows
// the rows of: PostgreSQL works on a connection in one process. Elsewhere it is one, for rows
// that exist can be locked by others, and whoever waits for its turn holds locks too.
const freshWriters = 2

// LoadCustomers runs f with a load that goes on where the import stands, while no other
// import runs, and then builds the indexes that the load went without. It fails with
// CodeStateConflict when the import is not loading.
func (s *Store) LoadCustomers(ctx context.Context, importID string, columns CustomerColumns, f func(context.Context, *CustomerLoad) error) error {
	if s.vault == nil {
		return campaign.Errorf(campaign.CodeInvalidParameter, "customers cannot be imported without the key of the phone vault")
	}
	return s.Exclusive(ctx, customerImports, func(ctx context.Context) error {
		job, err := s.beginLoad(ctx, importID)
		if err != nil {
			return err
		}
		erased, err := s.erasedIDs(ctx)
		if err != nil {
			return err
		}
		l := &CustomerLoad{store: s, job: job, erased: erased, conns: make(chan *pgxpool.Conn, freshWriters), columns: columns, fresh: job.Fresh, units: map[string]bool{}}
		l.statements()
		for range l.Writers() {
			conn, err := s.pool.Acquire(ctx)
			if err != nil {
				return fmt.Errorf("load customers: %w", err)
			}
			defer conn.Release()
			l.conns <- conn
		}
		err = f(ctx, l)
		switch {
		case err == nil:
			return l.finish(ctx)
		case ctx.Err() != nil: // somebody else goes on with it
			return err
		}
		return errors.Join(err, l.abandon(ctx))
	})
}

// customerImports names the lock under which customers are imported.
const customerImports = "customer import"

// beginLoad reads the import, and decides when it begins whether it fills an empty table. What
// an earlier try decided that then landed nothing is decided again: others may have been here.
func (s *Store) beginLoad(ctx context.Context, importID string) (ImportJob, error) {
	var job ImportJob
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		var err error
		if job, err = readImport(ctx, tx, importID, " FOR UPDATE"); err != nil {
			return err
		}
		if job.State != campaign.ImportLoading {
			return campaign.Errorf(campaign.CodeStateConflict, "the import is %s and not loading", job.State)
		}
		if job.Next == (campaign.ImportPosition{}) {
			if err := tx.QueryRow(ctx, `SELECT drop_customer_indexes()`).Scan(&job.Fresh); err != nil {
				return fmt.Errorf("begin load: %w", err)
			}
		}
		if !job.Fresh {
			if err := settleFresh(ctx, tx, ""); err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, `UPDATE import_job SET fresh = $2, pass_at = clock_timestamp(), pass_rows = rows, changed_at = clock_timestamp(), version = version + 1 WHERE id = $1`,
			importID, job.Fresh)
		return err
	})
	return job, err
}

// settleFresh builds the indexes that an import which was interrupted went without, of all
// such imports when id is empty. What is left of it goes on into tables that hold customers.
func settleFresh(ctx context.Context, tx pgx.Tx, id string) error {
	tag, err := tx.Exec(ctx, `UPDATE import_job SET fresh = false WHERE fresh AND ($1 = '' OR id::text = $1)`, id)
	if err != nil {
		return fmt.Errorf("settle imports: %w", err)
	}
	if tag.RowsAffected() > 0 {
		if _, err := tx.Exec(ctx, `SELECT build_customer_indexes()`); err != nil {
			return fmt.Errorf("build indexes: %w", err)
		}
	}
	return nil
}

// Writers is how many batches may be written at a time.
func (l *CustomerLoad) Writers() int {
	if l.fresh {
		return freshWriters
	}
	return 1
}

// Job is the import as it stands after the last Write: rows before its place have landed.
func (l *CustomerLoad) Job() ImportJob { return l.job }

// statements writes the SQL of the load's columns.
func (l *CustomerLoad) statements() {
	names := []string{"id", "external_id", "org_unit", "time_zone", "simulated"}
	var given []string
	if l.columns.Unit {
		given = append(given, "org_unit")
	}
	if l.columns.Zone {
		given = append(given, "time_zone")
	}
	for _, a := range l.columns.Attributes {
		name := pgx.Identifier{a.Name}.Sanitize()
		names, given = append(names, name), append(given, name)
	}
	l.insert = strings.Join(names, ", ")
	changed := ""
	if len(given) > 0 {
		before, after := "c."+strings.Join(given, ", c."), "s."+strings.Join(given, ", s.")
		changed = fmt.Sprintf(`changed AS (UPDATE customer c SET (%s) = ROW(%s) FROM customer_staging s
			WHERE c.id = s.id AND (%s) IS DISTINCT FROM (%s) RETURNING c.id), `, strings.Join(given, ", "), after, before, after)
	}
	l.merge = `WITH ` + changed + `numbers AS (SELECT p.* FROM phone_staging p LEFT JOIN phone_vault v USING (customer_id) WHERE v.lookup IS DISTINCT FROM p.lookup),
		keys AS (INSERT INTO phone_key (` + keyColumns + `) SELECT ` + keyColumns + ` FROM key_staging JOIN numbers n USING (customer_id)
			ON CONFLICT (customer_id) DO UPDATE SET wrapped = EXCLUDED.wrapped),
		sealed AS (INSERT INTO phone_vault (` + phoneColumns + `) SELECT ` + phoneColumns + ` FROM numbers
			ON CONFLICT (customer_id) DO UPDATE SET sealed = EXCLUDED.sealed, lookup = EXCLUDED.lookup RETURNING customer_id)
		SELECT count(*) FROM (SELECT customer_id FROM sealed`
	if changed != "" {
		l.merge += ` UNION SELECT id FROM changed`
	}
	l.merge += `) every`
}

// CustomerBatch holds encoded customers. Begin starts one; its attributes follow in the
// load's order. A batch is filled and prepared by one goroutine at a time and used again
// after Reset.
type CustomerBatch struct {
	Next     campaign.ImportPosition // of the first row of the file that comes after the batch
	Rows     int64                   // that it deals with, those that were rejected before included
	Rejected int64                   // of those
	Bytes    int64                   // of the file, read up to here
	// Rejects are rows to be listed; Prepare adds to them those that only the database knows
	// to be bad, which also count as Rejected then.
	Rejects []ImportReject

	load    *CustomerLoad
	rows    copyBuffer
	starts  []int
	lines   []int64
	numbers []byte
	ends    []int // of each customer's number in numbers
	units   map[string]bool
	phone   *phoneEncoder

	known, unknown encodedCustomers // of those rows, by whether the customer is known
	merged         int64            // rows of known customers
	refused        int64            // rows of known customers that belong elsewhere
}

// encodedCustomers are customers ready to be copied into the three tables.
type encodedCustomers struct{ rows, phones, keys copyBuffer }

// NewBatch returns an empty batch.
func (l *CustomerLoad) NewBatch() *CustomerBatch {
	b := &CustomerBatch{load: l, units: map[string]bool{}, phone: newPhoneEncoder(l.store.vault, l.store.region)}
	b.Reset()
	return b
}

// Reset empties the batch and keeps its memory.
func (b *CustomerBatch) Reset() {
	b.Next, b.Rows, b.Rejected, b.Bytes, b.merged, b.refused = campaign.ImportPosition{}, 0, 0, 0, 0, 0
	b.Rejects, b.starts, b.lines, b.numbers, b.ends = b.Rejects[:0], b.starts[:0], b.lines[:0], b.numbers[:0], b.ends[:0]
	clear(b.units)
	for _, buffer := range []*copyBuffer{&b.rows, &b.known.rows, &b.known.phones, &b.known.keys, &b.unknown.rows, &b.unknown.phones, &b.unknown.keys} {
		buffer.reset()
	}
}

// Len is the number of customers begun.
func (b *CustomerBatch) Len() int { return len(b.starts) }

// idAt and keyAt are where a row's id and own id begin: after the number of columns and
// their sizes.
const (
	idAt  = 2 + 4
	keyAt = idAt + 16 + 4
)

// Begin starts a customer: the operator's own id, the number as NormaliseMSISDN returns it or
// nothing, and where the customer belongs. Unit and zone are checked by the caller.
func (b *CustomerBatch) Begin(line int64, key, number []byte, unit, zone string) {
	b.starts = append(b.starts, len(b.rows.b))
	b.lines = append(b.lines, line)
	r := &b.rows
	r.row(5 + len(b.load.columns.Attributes))
	r.uuid(uuid.UUID{}) // until Prepare knows it
	r.bytes(key)
	r.text(unit)
	r.text(zone)
	r.bool(b.load.columns.Simulated)
	b.numbers = append(b.numbers, number...)
	b.ends = append(b.ends, len(b.numbers))
	b.units[unit] = true
}

// Null says that the next attribute is not known.
func (b *CustomerBatch) Null() { b.rows.null() }

// Int is the next attribute's value.
func (b *CustomerBatch) Int(v int64) { b.rows.int64(v) }

// Float is the next attribute's value, a finite number.
func (b *CustomerBatch) Float(v float64) { b.rows.int64(int64(math.Float64bits(v))) }

// Text is the next attribute's value, valid UTF-8 without NUL.
func (b *CustomerBatch) Text(v []byte) { b.rows.bytes(v) }

// Bool is the next attribute's value.
func (b *CustomerBatch) Bool(v bool) { b.rows.bool(v) }

// Time is the next attribute's value, by its microseconds since 1970.
func (b *CustomerBatch) Time(unixMicro int64) { b.rows.int64(unixMicro - epoch.UnixMicro()) }

func (b *CustomerBatch) end(i int) int {
	if i+1 < len(b.starts) {
		return b.starts[i+1]
	}
	return len(b.rows.b)
}

func (b *CustomerBatch) key(i int) []byte {
	at := b.starts[i] + keyAt
	size := int(binary.BigEndian.Uint32(b.rows.b[at-4:]))
	return b.rows.b[at : at+size]
}

func (b *CustomerBatch) number(i int) []byte {
	from := 0
	if i > 0 {
		from = b.ends[i-1]
	}
	return b.numbers[from:b.ends[i]]
}

// Prepare finds out who of the batch is known, gives the others ids and seals the numbers.
// Customers who were erased or are of a unit that the import is not for become Rejects. Several
// batches may be prepared at the same time, if no two of them hold the same customer.
func (b *CustomerBatch) Prepare(ctx context.Context) error {
	known, err := b.lookUp(ctx)
	if err != nil {
		return err
	}
	refuse := func(i int, code campaign.Code, reason string) {
		b.Rejected++
		b.refused++
		b.Rejects = append(b.Rejects, ImportReject{Line: b.lines[i], Code: code, Loading: true, Reason: reason})
	}
	gone := b.load.erased.among(b)
	apart := len(known)+len(gone) > 0 // else the rows are as they are to be copied
	ids := newIDs(b.Len())
	for i, start := range b.starts {
		id := ids[i]
		row := b.rows.b[start:b.end(i)]
		into := &b.unknown
		if gone[i] {
			refuse(i, campaign.CodeErased, "the customer has been erased and does not come back")
			continue
		}
		if k, ok := known[string(b.key(i))]; ok {
			if !campaign.OrgUnit(k.unit).Within(b.load.job.Unit) {
				refuse(i, campaign.CodeOtherUnit, "the customer belongs to a unit that this import is not for")
				continue
			}
			into, id = &b.known, k.id
			b.merged++
		}
		copy(row[idAt:], id[:])
		if apart {
			into.rows.b = append(into.rows.b, row...)
		}
		if number := b.number(i); len(number) > 0 {
			b.phone.seal(&into.phones, &into.keys, id, number)
		}
	}
	if !apart {
		b.rows, b.unknown.rows = b.unknown.rows, b.rows
	}
	return nil
}

type knownCustomer struct {
	id   uuid.UUID
	unit string
}

func (b *CustomerBatch) lookUp(ctx context.Context) (map[string]knownCustomer, error) {
	if b.load.fresh || b.Len() == 0 {
		return nil, nil
	}
	keys := make([]string, b.Len())
	for i := range keys {
		keys[i] = string(b.key(i))
	}
	rows, err := b.load.store.pool.Query(ctx, `SELECT external_id, id, org_unit FROM customer WHERE external_id = ANY($1)`, keys)
	if err != nil {
		return nil, fmt.Errorf("look up customers: %w", err)
	}
	known := map[string]knownCustomer{}
	var key string
	var k knownCustomer
	_, err = pgx.ForEachRow(rows, []any{&key, &k.id, &k.unit}, func() error { known[key] = k; return nil })
	if err != nil {
		return nil, fmt.Errorf("look up customers: %w", err)
	}
	return known, nil
}

// Write lands a prepared batch. Up to Writers of them may be on their way: each is given the
// channel that the one before it in the file closes when it has landed, and moves the import's
// place only then. It fails with CodeLeaseLost when the import was cancelled, or when another
// process has gone on with it.
func (l *CustomerLoad) Write(ctx context.Context, b *CustomerBatch, before <-chan struct{}) error {
	var conn *pgxpool.Conn
	select {
	case conn = <-l.conns:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { l.conns <- conn }()
	var after ImportJob
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		updated, err := l.land(ctx, tx, b)
		if err != nil {
			return err
		}
		select {
		case <-before:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := l.createUnits(ctx, tx, b.units); err != nil {
			return err
		}
		if err := keepRejects(ctx, tx, l.job.ID, b.Rejects); err != nil {
			return err
		}
		created := int64(b.Len()) - b.merged - b.refused
		err = tx.QueryRow(ctx, `UPDATE import_job SET next_offset = $3, next_line = $10, rows = rows + $4, created = created + $5, updated = updated + $6,
			    unchanged = unchanged + $7, rejected = rejected + $8, bytes = $9, changed_at = clock_timestamp(), version = version + 1
			WHERE id = $1 AND state = 'loading' AND next_offset = $2 RETURNING rows, created, updated, unchanged, rejected`,
			l.job.ID, l.job.Next.Offset, b.Next.Offset, b.Rows, created, updated, b.merged-updated, b.Rejected, b.Bytes, b.Next.Line).
			Scan(&after.Rows, &after.Created, &after.Updated, &after.Unchanged, &after.Rejected)
		if errors.Is(err, pgx.ErrNoRows) {
			return campaign.Errorf(campaign.CodeLeaseLost, "the import was cancelled, or another process goes on with it")
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("load customers: %w", err)
	}
	l.job.Next, l.job.Bytes = b.Next, b.Bytes
	l.job.Rows, l.job.Created, l.job.Updated, l.job.Unchanged, l.job.Rejected = after.Rows, after.Created, after.Updated, after.Unchanged, after.Rejected
	for u := range b.units {
		l.units[u] = true
	}
	return nil
}

func (l *CustomerLoad) createUnits(ctx context.Context, tx pgx.Tx, units map[string]bool) error {
	fresh := map[string]bool{}
	for u := range units {
		if !l.units[u] {
			fresh[u] = true
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	return createUnits(ctx, tx, fresh)
}

// land copies a batch and returns how many of the known customers it changed.
func (l *CustomerLoad) land(ctx context.Context, tx pgx.Tx, b *CustomerBatch) (updated int64, err error) {
	copyInto := func(customers, phones, keys string, e *encodedCustomers) error {
		for _, part := range []struct {
			table, columns string
			rows           *copyBuffer
		}{{customers, l.insert, &e.rows}, {phones, phoneColumns, &e.phones}, {keys, keyColumns, &e.keys}} {
			if part.rows.empty() {
				continue
			}
			_, err := tx.Conn().PgConn().CopyFrom(ctx, part.rows.reader(), "COPY "+part.table+" ("+part.columns+") FROM STDIN (FORMAT binary)")
			if err != nil {
				return fmt.Errorf("copy into %s: %w", part.table, err)
			}
		}
		return nil
	}
	if err := copyInto("customer", "phone_vault", "phone_key", &b.unknown); err != nil || b.merged == 0 {
		return 0, err
	}
	// The tables are the connection's, so that a load of many batches does not make them again.
	_, err = tx.Exec(ctx, `
		CREATE TEMP TABLE IF NOT EXISTS customer_staging ON COMMIT DELETE ROWS AS SELECT `+l.insert+` FROM customer WITH NO DATA;
		CREATE TEMP TABLE IF NOT EXISTS phone_staging ON COMMIT DELETE ROWS AS SELECT `+phoneColumns+` FROM phone_vault WITH NO DATA;
		CREATE TEMP TABLE IF NOT EXISTS key_staging ON COMMIT DELETE ROWS AS SELECT `+keyColumns+` FROM phone_key WITH NO DATA`)
	if err != nil {
		return 0, fmt.Errorf("stage customers: %w", err)
	}
	if err := copyInto("customer_staging", "phone_staging", "key_staging", &b.known); err != nil {
		return 0, err
	}
	if err := tx.QueryRow(ctx, l.merge).Scan(&updated); err != nil {
		return 0, fmt.Errorf("update customers: %w", err)
	}
	return updated, nil
}

// abandon builds what the load went without, if nobody is to go on with it.
func (l *CustomerLoad) abandon(ctx context.Context) error {
	if !l.fresh {
		return nil
	}
	return l.store.inTx(ctx, func(tx pgx.Tx) error {
		j, err := readImport(ctx, tx, l.job.ID, " FOR UPDATE")
		if err != nil || !j.State.Ended() {
			return err
		}
		return settleFresh(ctx, tx, l.job.ID)
	})
}

// finish builds what the load went without and ends the import.
func (l *CustomerLoad) finish(ctx context.Context) error {
	g, within := errgroup.WithContext(ctx)
	if l.fresh {
		g.Go(func() error {
			if _, err := l.store.pool.Exec(within, `SELECT build_number_index()`); err != nil {
				return fmt.Errorf("build indexes: %w", err)
			}
			return nil
		})
	}
	g.Go(func() error {
		if l.fresh {
			if _, err := l.store.pool.Exec(within, `SELECT build_customer_index()`); err != nil {
				return fmt.Errorf("build indexes: %w", err)
			}
		}
		return l.store.analyseCustomers(within)
	})
	if err := g.Wait(); err != nil {
		return err
	}
	return l.store.inTx(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `UPDATE import_job SET state = 'done', fresh = false, bytes = total_bytes, finished_at = clock_timestamp(),
			changed_at = clock_timestamp(), version = version + 1 WHERE id = $1 AND state = 'loading' AND next_offset = $2`, l.job.ID, l.job.Next.Offset)
		if err != nil {
			return fmt.Errorf("end import: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return campaign.Errorf(campaign.CodeLeaseLost, "the import was cancelled, or another process goes on with it")
		}
		return recordImport(ctx, tx, l.job.ID)
	})
}

// newIDs returns n new UUIDs of version 7 that ascend, so that they land at the end of every
// index, made of one read of randomness: of a million at a time, each by itself would cost
// as much as the rest of its row.
func newIDs(n int) []uuid.UUID {
	ids := make([]uuid.UUID, n)
	random := make([]byte, 8*n)
	rand.Read(random)
	now := uint64(time.Now().UnixMilli())
	for i := range ids {
		id := &ids[i]
		ms, count := now+uint64(i)>>12, uint16(i)&0xfff
		binary.BigEndian.PutUint64(id[:], ms<<16|0x7000|uint64(count))
		copy(id[8:], random[8*i:])
		id[8] = id[8]&0x3f | 0x80
	}
	return ids
}
