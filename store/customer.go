package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/musterhq/muster/campaign"
)

// Customer is one row of an import.
type Customer struct {
	ExternalID string // the operator's own id, unique
	MSISDN     string // any usual form; empty when the customer has no number
	OrgUnit    string
	TimeZone   string // IANA name
	Values     []any  // in the order of CustomerImport.Attributes; nil means unknown
}

// CustomerImport describes a set of customers to import.
type CustomerImport struct {
	Name       string
	Digest     string // identifies the content: the same one lands once
	Simulated  bool   // the customers are generated
	Attributes []Attribute
}

// Imported is the result of an import.
type Imported struct {
	Rows           int64
	Updated        int64 // of those, customers known before
	InvalidNumbers int64 // of those, imported without a number because theirs is none
	Already        bool  // the same content landed before; nothing was done
}

// importChunk is the number of customers that are encoded and copied at a time.
const importChunk = 10_000

// ImportCustomers declares the attributes and imports all rows in one transaction: all
// of them land or none. Unknown customers are copied straight into the table; known
// ones, by external id, are updated and keep their id and opt-out; those who were erased are left
// out. The row handed out by
// rows may be overwritten by the next one. progress, when not nil, is told the rows
// copied so far. It fails with CodeInvalidParameter on a malformed row, on a customer
// that comes twice, and when the store has no vault.
func (s *Store) ImportCustomers(ctx context.Context, in CustomerImport, rows iter.Seq2[*Customer, error], progress func(rows int64)) (Imported, error) {
	if s.vault == nil {
		return Imported{}, campaign.Errorf(campaign.CodeInvalidParameter, "customers cannot be imported without the key of the phone vault")
	}
	if err := s.DeclareAttributes(ctx, campaign.Actor{}, in.Attributes); err != nil {
		return Imported{}, err
	}
	var result Imported
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		result = Imported{}
		if err := lockImports(ctx, tx); err != nil {
			return err
		}
		err := tx.QueryRow(ctx, `SELECT rows FROM customer_import WHERE digest = $1`, in.Digest).Scan(&result.Rows)
		if err == nil {
			result.Already = true
			return nil
		} else if !errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("read imports: %w", err)
		}
		if err := settleFresh(ctx, tx, ""); err != nil { // what another import left unfinished goes on into tables that hold customers
			return err
		}
		erased, err := s.erasedIDs(ctx)
		if err != nil {
			return err
		}
		started := time.Now()
		var populated bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM customer)`).Scan(&populated); err != nil {
			return fmt.Errorf("read customers: %w", err)
		}
		job := newImportJob(s, in, populated)
		job.erased = erased.checker()
		load := func() error { return job.run(ctx, tx, rows, progress) }
		if populated {
			err = load()
		} else {
			err = withoutIndexes(ctx, tx, []string{"customer_external", "phone_vault_lookup"}, load)
		}
		if err != nil {
			return importFault(err)
		}
		result.Rows, result.Updated, result.InvalidNumbers = job.rows, job.updated, job.encoder.invalidNumbers
		if err := createUnits(ctx, tx, job.encoder.units); err != nil {
			return err
		}
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO customer_import (id, name, digest, simulated, rows, started_at, finished_at)
			VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp())`, id, in.Name, in.Digest, in.Simulated, job.rows, started)
		if err != nil {
			return fmt.Errorf("record import: %w", err)
		}
		return nil
	})
	if err != nil {
		return Imported{}, err
	}
	if !result.Already {
		return result, s.analyseCustomers(ctx)
	}
	return result, nil
}

// analyseCustomers tells the planner of the next selection about new rows.
func (s *Store) analyseCustomers(ctx context.Context) error {
	if _, err := s.pool.Exec(ctx, `SELECT analyse_customers()`); err != nil {
		return fmt.Errorf("analyse customers: %w", err)
	}
	return nil
}

// withoutIndexes fills tables that nobody has read yet: it drops the indexes, runs fill and
// builds them as they were, which takes a fraction of what it costs to fill them at random
// places.
func withoutIndexes(ctx context.Context, tx pgx.Tx, names []string, fill func() error) error {
	rows, err := tx.Query(ctx, `SELECT pg_get_indexdef(n::regclass) FROM unnest($1::text[]) n`, names)
	if err != nil {
		return fmt.Errorf("read indexes: %w", err)
	}
	definitions, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("read indexes: %w", err)
	}
	if _, err := tx.Exec(ctx, `SET LOCAL maintenance_work_mem = '256MB'; DROP INDEX `+strings.Join(names, ", ")); err != nil {
		return fmt.Errorf("drop indexes: %w", err)
	}
	if err := fill(); err != nil {
		return err
	}
	for _, definition := range definitions {
		if _, err := tx.Exec(ctx, definition); err != nil {
			return fmt.Errorf("build index: %w", err)
		}
	}
	return nil
}

func importFault(err error) error {
	if uniqueViolation(err, "") {
		return &campaign.Error{Code: campaign.CodeInvalidParameter, Message: "a customer comes twice in the import; external ids must be unique", Err: err}
	}
	return err
}

// EnsureUnits makes sure that every unit and the units above it exist.
func (s *Store) EnsureUnits(ctx context.Context, units []string) error {
	all := map[string]bool{}
	for _, u := range units {
		all[u] = true
	}
	return s.inTx(ctx, func(tx pgx.Tx) error { return createUnits(ctx, tx, all) })
}

// createUnits makes sure that every unit and the units above it exist.
func createUnits(ctx context.Context, tx pgx.Tx, units map[string]bool) error {
	seen := map[campaign.OrgUnit]bool{}
	var paths []string
	for u := range units {
		for _, above := range campaign.OrgUnit(u).Chain() {
			if !seen[above] {
				seen[above] = true
				paths = append(paths, string(above))
			}
		}
	}
	slices.Sort(paths)
	_, err := tx.Exec(ctx, `INSERT INTO org_unit (path, name) SELECT p, substring(p FROM '[^/]+$') FROM unnest($1::text[]) p
		ON CONFLICT (path) DO NOTHING`, paths)
	if err != nil {
		return fmt.Errorf("create org units: %w", err)
	}
	return nil
}

// importJob streams encoded chunks from a goroutine that reads rows to one that copies
// them, so that encoding and PostgreSQL work at the same time.
type importJob struct {
	store     *Store
	encoder   *customerEncoder
	populated bool // the table has customers, so each chunk must be looked up
	columns   string
	update    string // SET list of an update
	seen      map[uuid.UUID]bool
	erased    func(tenant campaign.OrgUnit, externalID []byte) bool // they are left out
	rows      int64
	updated   int64
}

// encodedChunk is a number of rows ready to be copied.
type encodedChunk struct {
	customers, phones, keys copyBuffer
	rows, known             int
}

func newImportJob(s *Store, in CustomerImport, populated bool) *importJob {
	job := &importJob{
		store: s, encoder: newCustomerEncoder(newPhoneEncoder(s.vault, s.region), in), populated: populated, seen: map[uuid.UUID]bool{},
		columns: "id, external_id, org_unit, time_zone, simulated",
		update:  "org_unit = EXCLUDED.org_unit, time_zone = EXCLUDED.time_zone, simulated = EXCLUDED.simulated",
	}
	for _, a := range in.Attributes {
		name := pgx.Identifier{a.Name}.Sanitize()
		job.columns += ", " + name
		job.update += ", " + name + " = EXCLUDED." + name
	}
	return job
}

func (j *importJob) run(ctx context.Context, tx pgx.Tx, rows iter.Seq2[*Customer, error], progress func(int64)) error {
	const inFlight = 3
	empty, full := make(chan *encodedChunk, inFlight), make(chan *encodedChunk, inFlight)
	for range inFlight {
		empty <- &encodedChunk{}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(full)
		return j.encode(ctx, rows, empty, full)
	})
	g.Go(func() error {
		for c := range full {
			if err := j.copy(ctx, tx, c); err != nil {
				return err
			}
			j.rows += int64(c.rows)
			j.updated += int64(c.known)
			if progress != nil {
				progress(j.rows)
			}
			empty <- c
		}
		return ctx.Err()
	})
	return g.Wait()
}

// encode reads rows, finds the ids of customers that are known, and encodes.
func (j *importJob) encode(ctx context.Context, rows iter.Seq2[*Customer, error], empty <-chan *encodedChunk, full chan<- *encodedChunk) error {
	width := len(j.encoder.types)
	batch := make([]Customer, 0, importChunk)
	values := make([]any, 0, importChunk*width)
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		known, err := j.known(ctx, batch)
		if err != nil {
			return err
		}
		var c *encodedChunk
		select {
		case c = <-empty:
		case <-ctx.Done():
			return ctx.Err()
		}
		c.rows, c.known = len(batch), len(known)
		c.customers.reset()
		c.phones.reset()
		c.keys.reset()
		for i := range batch {
			if err := j.encoder.add(c, &batch[i], known); err != nil {
				return err
			}
		}
		batch, values = batch[:0], values[:0]
		select {
		case full <- c:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	n := 0
	for row, err := range rows {
		if err != nil {
			return err
		}
		n++
		if j.erased(campaign.OrgUnit(row.OrgUnit).Tenant(), []byte(row.ExternalID)) {
			continue
		}
		if len(row.Values) != width {
			return campaign.Errorf(campaign.CodeInvalidParameter, "row %d has %d values for %d attributes", n, len(row.Values), width)
		}
		c := *row
		from := len(values)
		values = append(values, row.Values...)
		c.Values = values[from:len(values):len(values)]
		batch = append(batch, c)
		if len(batch) == importChunk {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// known returns the ids of those customers of the batch that the table had before this import.
func (j *importJob) known(ctx context.Context, batch []Customer) (map[string]uuid.UUID, error) {
	if !j.populated {
		return nil, nil
	}
	external := make([]string, len(batch))
	for i := range batch {
		external[i] = batch[i].ExternalID
	}
	rows, err := j.store.pool.Query(ctx, `SELECT external_id, id FROM customer WHERE external_id = ANY($1)`, external)
	if err != nil {
		return nil, fmt.Errorf("look up customers: %w", err)
	}
	known := map[string]uuid.UUID{}
	var name string
	var id uuid.UUID
	_, err = pgx.ForEachRow(rows, []any{&name, &id}, func() error {
		if j.seen[id] {
			return campaign.Errorf(campaign.CodeInvalidParameter, "customer %q comes twice in the import", name)
		}
		j.seen[id] = true
		known[name] = id
		return nil
	})
	return known, err
}

func (j *importJob) copy(ctx context.Context, tx pgx.Tx, c *encodedChunk) error {
	into := func(table, columns string, b *copyBuffer) error {
		_, err := tx.Conn().PgConn().CopyFrom(ctx, b.reader(), "COPY "+table+" ("+columns+") FROM STDIN (FORMAT binary)")
		return err
	}
	customers, phones, keys := "customer", "phone_vault", "phone_key"
	if c.known > 0 {
		customers, phones, keys = "customer_staging", "phone_staging", "key_staging"
		_, err := tx.Exec(ctx, `
			CREATE TEMP TABLE IF NOT EXISTS customer_staging (LIKE customer INCLUDING DEFAULTS) ON COMMIT DROP;
			CREATE TEMP TABLE IF NOT EXISTS phone_staging (LIKE phone_vault) ON COMMIT DROP;
			CREATE TEMP TABLE IF NOT EXISTS key_staging (LIKE phone_key) ON COMMIT DROP;
			TRUNCATE customer_staging, phone_staging, key_staging`)
		if err != nil {
			return fmt.Errorf("stage customers: %w", err)
		}
	}
	if err := into(customers, j.columns, &c.customers); err != nil {
		return fmt.Errorf("copy customers: %w", err)
	}
	if err := into(phones, phoneColumns, &c.phones); err != nil {
		return fmt.Errorf("copy phone numbers: %w", err)
	}
	if err := into(keys, keyColumns, &c.keys); err != nil {
		return fmt.Errorf("copy keys of phone numbers: %w", err)
	}
	if c.known == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, "INSERT INTO customer ("+j.columns+") SELECT "+j.columns+" FROM customer_staging ON CONFLICT (id) DO UPDATE SET "+j.update)
	if err != nil {
		return fmt.Errorf("update customers: %w", err)
	}
	_, err = tx.Exec(ctx, `INSERT INTO phone_vault (customer_id, sealed, lookup) SELECT customer_id, sealed, lookup FROM phone_staging
		ON CONFLICT (customer_id) DO UPDATE SET sealed = EXCLUDED.sealed, lookup = EXCLUDED.lookup;
		INSERT INTO phone_key (customer_id, wrapped) SELECT customer_id, wrapped FROM key_staging
		ON CONFLICT (customer_id) DO UPDATE SET wrapped = EXCLUDED.wrapped`)
	if err != nil {
		return fmt.Errorf("update phone numbers: %w", err)
	}
	return nil
}
