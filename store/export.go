package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// ExportLasts is how long after it was asked for an export can be fetched.
const ExportLasts = 24 * time.Hour

// Export is customers' data that somebody may take out until it expires. Its rows are read
// when it is fetched.
type Export struct {
	ID        string
	Unit      campaign.OrgUnit
	ListID    string // of its customers; "" for those the filter holds for
	Filter    string
	Columns   []string
	Format    string
	BOM       bool
	QueryHash string // of unit, list or filter, and columns
	Rows      int64  // when it was asked for
	RowCap    int64  // rows that the person may take out in a day, over all files
	CreatedBy string
	CreatedAt time.Time
	ExpiresAt time.Time
}

// exportColumns are the customers' own columns that an export may have besides attributes.
var exportColumns = []string{"external_id", "org_unit", "time_zone", "opted_out"}

// ExportColumns returns the columns that an export may have, in their order: those that
// identify nobody beyond the operator's own id.
func ExportColumns(attributes []Attribute) []string {
	all := slices.Clone(exportColumns)
	for _, a := range attributes {
		if !a.PII {
			all = append(all, a.Name)
		}
	}
	return all
}

// ExportQuery says whose data an export is, in SQL.
type ExportQuery struct {
	Where string // trusted, over customers c; its placeholders begin at $1
	Args  []any
}

// ListMembers is the query of a list's members.
func ListMembers(listID string) ExportQuery {
	return ExportQuery{Where: `EXISTS (SELECT FROM customer_list_member m WHERE m.list_id = $1 AND m.customer_id = c.id)`, Args: []any{listID}}
}

// sql is a statement over the customers of an export.
func (q ExportQuery) sql(what string, unit campaign.OrgUnit) (string, []any) {
	n := len(q.Args)
	exact, patterns := below([]campaign.OrgUnit{unit})
	return `SELECT ` + what + ` FROM customer c WHERE (c.org_unit = ANY ($` + strconv.Itoa(n+1) + `) OR c.org_unit LIKE ANY ($` + strconv.Itoa(n+2) + `)) AND (` + q.Where + `)`,
		append(slices.Clone(q.Args), exact, patterns)
}

// CountExport counts the customers of an export.
func (s *Store) CountExport(ctx context.Context, unit campaign.OrgUnit, q ExportQuery) (int64, error) {
	sql, args := q.sql("count(*)", unit)
	var n int64
	if err := s.pool.QueryRow(ctx, sql, args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("count export: %w", err)
	}
	return n, nil
}

// CreateExport keeps an export under e.ID; keeping it again changes nothing. More rows than are
// left of RowCap this day, which begins in UTC, are CodeExportNotPermitted. They are used up
// when they are fetched.
func (s *Store) CreateExport(ctx context.Context, e Export, by campaign.Actor) (Export, error) {
	err := s.change(ctx, "create export", func(tx pgx.Tx) error {
		if err := permitRows(ctx, tx, e.Rows, e.RowCap, by); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `INSERT INTO export_job (id, tenant, unit, list_id, filter, columns, format, bom, query_hash, rows, row_cap, created_by, expires_at)
			VALUES ($1, $2, $3, nullif($4, '')::uuid, $5, $6, $7, $8, $9, $10, $11, $12, now() + $13 * interval '1 second') ON CONFLICT (id) DO NOTHING`,
			e.ID, e.Unit.Tenant(), e.Unit, e.ListID, e.Filter, e.Columns, e.Format, e.BOM, e.QueryHash, e.Rows, e.RowCap, by.UserID, ExportLasts.Seconds())
		if foreignKeyViolation(err, "export_job_unit_fkey") {
			return field("unit", fmt.Sprintf("there is no org unit %q", e.Unit))
		}
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return recordOnce(ctx, tx, byActor(by, "export.created", e.evidence(e.Rows)))
	})
	if err != nil {
		return e, err
	}
	return s.Export(ctx, e.ID)
}

// permitRows refuses rows that somebody may not take out beside those they took this day.
func permitRows(ctx context.Context, tx pgx.Tx, rows, limit int64, by campaign.Actor) error {
	taken, _, err := spent(ctx, tx, campaign.ActExportCreate, by)
	if err == nil && rows > limit-taken {
		err = campaign.Errorf(campaign.CodeExportNotPermitted, "the export has %d rows; of the %d that you may take out a day you have taken %d", rows, limit, taken).
			With("rows", rows).With("limit", limit).With("taken", taken)
	}
	return err
}

func (e Export) evidence(rows int64) map[string]any {
	return map[string]any{"export": e.ID, "unit": e.Unit, "columns": e.Columns, "format": e.Format, "rows": rows, "query_hash": e.QueryHash}
}

// Export returns one export, or CodeNotFound; also of one that has expired.
func (s *Store) Export(ctx context.Context, id string) (Export, error) {
	var e Export
	if uuid.Validate(id) != nil {
		return e, notFound(pgx.ErrNoRows, "export")
	}
	err := s.pool.QueryRow(ctx, `SELECT id::text, unit, coalesce(list_id::text, ''), filter, columns, format, bom, query_hash, rows, row_cap, created_by::text, created_at, expires_at
		FROM export_job WHERE id = $1 AND expires_at > now()`, id).
		Scan(&e.ID, &e.Unit, &e.ListID, &e.Filter, &e.Columns, &e.Format, &e.BOM, &e.QueryHash, &e.Rows, &e.RowCap, &e.CreatedBy, &e.CreatedAt, &e.ExpiresAt)
	if err != nil {
		return e, notFound(fmt.Errorf("read export: %w", err), "export")
	}
	return e, nil
}

// FetchExport reads an export's rows of this moment, in constant memory, and hands each to
// row, which must not keep it. Before the first the fetch is written down as evidence,
// and its rows count in those of the day; more than are left of RowCap are
// CodeExportNotPermitted. A column that may no longer be exported is CodeStateConflict.
func (s *Store) FetchExport(ctx context.Context, e Export, q ExportQuery, by campaign.Actor, row func([]any) error) error {
	attributes, err := s.CustomerAttributes(ctx)
	if err != nil {
		return err
	}
	may := ExportColumns(attributes)
	columns := make([]string, len(e.Columns))
	for i, name := range e.Columns {
		if !slices.Contains(may, name) {
			return campaign.Errorf(campaign.CodeStateConflict, "column %s may not be exported any more", name)
		}
		columns[i] = Attribute{Name: name}.Column()
	}
	return s.change(ctx, "fetch export", func(tx pgx.Tx) error {
		// One picture of the customers, so that what was counted is what is read.
		if _, err := tx.Exec(ctx, `SET TRANSACTION ISOLATION LEVEL REPEATABLE READ`); err != nil {
			return err
		}
		sql, args := q.sql("count(*)", e.Unit)
		var n int64
		if err := tx.QueryRow(ctx, sql, args...).Scan(&n); err != nil {
			return err
		}
		// By a connection of its own: what leaves counts and is written down whether or not all
		// of it arrives, and each time, for it may be others' rows than the last time.
		err := s.inTx(ctx, func(tx pgx.Tx) error {
			if err := permitRows(ctx, tx, n, e.RowCap, by); err != nil {
				return err
			}
			if err := spend(ctx, tx, campaign.ActExportCreate, n, by); err != nil {
				return err
			}
			return recordOnce(ctx, tx, byActor(by, "export.fetched", e.evidence(n)))
		})
		if err != nil {
			return err
		}
		sql, args = q.sql(strings.Join(columns, ", "), e.Unit)
		rows, err := tx.Query(ctx, sql+" ORDER BY c.external_id", args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			values, err := rows.Values()
			if err != nil {
				return err
			}
			if err := row(values); err != nil {
				return err
			}
		}
		return rows.Err()
	})
}
