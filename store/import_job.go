package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/musterhq/muster/campaign"
)

// ImportJob is an import of a customer file.
type ImportJob struct {
	ID         string
	Unit       campaign.OrgUnit
	Name       string // of the file, as its owner calls it
	Path       string // where the workers find it
	Options    campaign.ImportOptions
	State      campaign.ImportState
	Digest     string                 // of the content and what its columns mean; empty until it is checked
	Report     *campaign.ImportReport // of the first pass; nil until it has ended
	Error      *campaign.Error        // why it was refused or failed
	Already    *string                // the import by which the same content landed before
	Fresh      bool                   // it fills empty tables, and their indexes are still to be built
	Next       campaign.ImportPosition
	Rows       int64 // of those created, updated, unchanged and rejected
	Created    int64
	Updated    int64
	Unchanged  int64
	Rejected   int64
	Bytes      int64 // read in this pass
	TotalBytes int64
	CreatedBy  *string // user; nil for whoever has the database
	StartedBy  *string // user who let it be loaded after a dry run; nil for its maker
	// Rights are those that whoever makes or starts the import has beside that of importing:
	// ActAttributeDeclare for columns that become attributes, ActUnitAdminister for units that
	// nobody has made.
	Rights     []campaign.Action
	CreatedAt  time.Time
	PassAt     *time.Time // when the work of this pass began or was taken up again, and
	PassRows   int64      // the rows that were done then
	ChangedAt  time.Time
	FinishedAt *time.Time
}

// May reports whether the import's people have a right beside that of importing.
func (j ImportJob) May(act campaign.Action) bool { return slices.Contains(j.Rights, act) }

// PerSecond is how many rows a second the running pass deals with; 0 while that is not known.
func (j ImportJob) PerSecond() float64 {
	if j.PassAt == nil {
		return 0
	}
	spent := j.ChangedAt.Sub(*j.PassAt).Seconds()
	if spent <= 0 {
		return 0
	}
	return float64(j.Rows-j.PassRows) / spent
}

// Left is how long the running pass will take at the rate so far; 0 when that cannot be told.
func (j ImportJob) Left() time.Duration {
	if j.State.Ended() || j.PassAt == nil || j.Bytes <= 0 || j.Rows <= j.PassRows || j.Rows == 0 {
		return 0
	}
	// Bytes stand for rows: how many of those are still to come, only the file knows.
	done := float64(j.Bytes) * float64(j.Rows-j.PassRows) / float64(j.Rows)
	spent := j.ChangedAt.Sub(*j.PassAt)
	return time.Duration(float64(spent) * float64(j.TotalBytes-j.Bytes) / done)
}

const importColumns = `id::text, unit, name, path, options, state, coalesce(digest, ''), report, error, already::text, fresh, next_offset, next_line,
	rows, created, updated, unchanged, rejected, bytes, total_bytes, created_by::text, started_by::text, rights, created_at, pass_at, pass_rows, changed_at, finished_at`

func scanImport(row pgx.CollectableRow) (j ImportJob, err error) {
	err = row.Scan(&j.ID, &j.Unit, &j.Name, &j.Path, &j.Options, &j.State, &j.Digest, &j.Report, &j.Error, &j.Already, &j.Fresh, &j.Next.Offset, &j.Next.Line,
		&j.Rows, &j.Created, &j.Updated, &j.Unchanged, &j.Rejected, &j.Bytes, &j.TotalBytes, &j.CreatedBy, &j.StartedBy, &j.Rights, &j.CreatedAt, &j.PassAt, &j.PassRows, &j.ChangedAt, &j.FinishedAt)
	return j, err
}

type queryer interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func readImport(ctx context.Context, q queryer, id, lock string) (ImportJob, error) {
	if uuid.Validate(id) != nil {
		return ImportJob{}, notFound(pgx.ErrNoRows, "import")
	}
	rows, err := q.Query(ctx, `SELECT `+importColumns+` FROM import_job WHERE id = $1`+lock, id)
	if err != nil {
		return ImportJob{}, fmt.Errorf("read import: %w", err)
	}
	j, err := pgx.CollectExactlyOneRow(rows, scanImport)
	if err != nil {
		return ImportJob{}, notFound(err, "import")
	}
	return j, nil
}

// CreateImport keeps a new import that nobody has begun. It fails with CodeAlreadyExists
// when its id is taken.
func (s *Store) CreateImport(ctx context.Context, j ImportJob) error {
	_, err := s.pool.Exec(ctx, `INSERT INTO import_job (id, tenant, unit, name, path, options, total_bytes, created_by, rights) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, coalesce($9::text[], '{}'))`,
		j.ID, j.Unit.Tenant(), j.Unit, j.Name, j.Path, j.Options, j.TotalBytes, j.CreatedBy, j.Rights)
	switch {
	case uniqueViolation(err, "import_job_pkey"):
		return campaign.Errorf(campaign.CodeAlreadyExists, "there is an import with this id")
	case foreignKeyViolation(err, "import_job_unit_fkey"):
		return campaign.Errorf(campaign.CodeInvalidParameter, "there is no org unit %q", j.Unit)
	case err != nil:
		return fmt.Errorf("keep import: %w", err)
	}
	return nil
}

// Import returns an import. It fails with CodeNotFound.
func (s *Store) Import(ctx context.Context, id string) (ImportJob, error) {
	return readImport(ctx, s.pool, id, "")
}

// Imports returns up to limit imports at the units or below, the newest first, those
// before the id given.
func (s *Store) Imports(ctx context.Context, units []campaign.OrgUnit, before string, limit int) ([]ImportJob, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+importColumns+` FROM import_job
		WHERE ($2 = '' OR id < $2::uuid) AND EXISTS (SELECT FROM unnest($1::text[]) u WHERE unit = u OR starts_with(unit, u || '/'))
		ORDER BY id DESC LIMIT $3`, units, before, limit)
	if err != nil {
		return nil, fmt.Errorf("list imports: %w", err)
	}
	all, err := pgx.CollectRows(rows, scanImport)
	if err != nil {
		return nil, fmt.Errorf("list imports: %w", err)
	}
	return all, nil
}

// WaitingImportBytes returns how many bytes the uploaded files have that a tenant's imports
// wait for, those of an import left out.
func (s *Store) WaitingImportBytes(ctx context.Context, tenant campaign.OrgUnit, without string) (bytes int64, err error) {
	err = s.pool.QueryRow(ctx, `SELECT coalesce(sum(total_bytes), 0)::bigint FROM import_job WHERE tenant = $1 AND id::text <> $2 AND created_by IS NOT NULL
		AND state IN ('waiting', 'checking', 'checked', 'loading')`, tenant, without).Scan(&bytes)
	if err != nil {
		return 0, fmt.Errorf("read imports: %w", err)
	}
	return bytes, nil
}

// changeImport writes to an import in one of the states given, and fails with
// CodeStateConflict when it is in another.
func (s *Store) changeImport(ctx context.Context, q interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}, id string, from []campaign.ImportState, set string, args ...any) error {
	tag, err := q.Exec(ctx, `UPDATE import_job SET `+set+`, changed_at = clock_timestamp(), version = version + 1 WHERE id = $1 AND state = ANY($2)`,
		append([]any{id, from}, args...)...)
	if err != nil {
		return fmt.Errorf("change import: %w", err)
	}
	if tag.RowsAffected() > 0 {
		return nil
	}
	j, err := s.Import(ctx, id)
	if err != nil {
		return err
	}
	return campaign.Errorf(campaign.CodeStateConflict, "the import is %s", j.State).With("state", j.State)
}

var checkable = []campaign.ImportState{campaign.ImportWaiting, campaign.ImportChecking}

// BeginCheck says that the first pass begins, or begins again with nothing found.
func (s *Store) BeginCheck(ctx context.Context, id string) error {
	return s.inTx(ctx, func(tx pgx.Tx) error {
		err := s.changeImport(ctx, tx, id, checkable, `state = 'checking', rows = 0, rejected = 0, bytes = 0, pass_at = clock_timestamp(), pass_rows = 0`)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM import_reject WHERE job_id = $1`, id); err != nil {
			return fmt.Errorf("begin check: %w", err)
		}
		return nil
	})
}

// CheckProgress says how far the first pass has come. It fails with CodeStateConflict when
// the import was cancelled.
func (s *Store) CheckProgress(ctx context.Context, id string, rows, rejected, bytes int64) error {
	return s.changeImport(ctx, s.pool, id, checkable, `rows = $3, rejected = $4, bytes = $5`, rows, rejected, bytes)
}

// AddRejects lists rows that the first pass rejected.
func (s *Store) AddRejects(ctx context.Context, id string, rejects []ImportReject) error {
	return s.inTx(ctx, func(tx pgx.Tx) error { return keepRejects(ctx, tx, id, rejects) })
}

// EndCheck keeps what the first pass found out. With a refusal the import ends.
func (s *Store) EndCheck(ctx context.Context, id, digest string, report campaign.ImportReport, refusal *campaign.Error) error {
	state := campaign.ImportChecked
	if refusal != nil {
		state = campaign.ImportRefused
	}
	return s.inTx(ctx, func(tx pgx.Tx) error {
		err := s.changeImport(ctx, tx, id, checkable, `state = $3, digest = nullif($4, ''), report = $5, rows = $6, rejected = $7, error = $8,
			bytes = CASE WHEN $8::jsonb IS NULL THEN total_bytes ELSE bytes END, finished_at = CASE WHEN $8::jsonb IS NOT NULL THEN clock_timestamp() END`,
			state, digest, report, report.Rows, report.Rejected, refusal)
		if err != nil || refusal == nil {
			return err
		}
		return recordImport(ctx, tx, id)
	})
}

// StartLoad lets the second pass of a checked import begin; one that is loading goes on.
// When the same content landed before, the import ends as that one did, and tells which it
// was. What another import of the same content left unfinished, this one goes on with: the
// other one is cancelled.
func (s *Store) StartLoad(ctx context.Context, id string) (ImportJob, error) {
	var j ImportJob
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		var err error
		if j, err = readImport(ctx, tx, id, " FOR UPDATE"); err != nil {
			return err
		}
		if j.State == campaign.ImportLoading || j.State == campaign.ImportDone {
			return nil
		}
		if j.State != campaign.ImportChecked {
			return campaign.Errorf(campaign.CodeStateConflict, "the import is %s and cannot be loaded", j.State).With("state", j.State)
		}
		// Two imports of the same content begin one after the other.
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('import ' || $1, 0))`, j.Digest); err != nil {
			return fmt.Errorf("start import: %w", err)
		}
		var other string
		var state campaign.ImportState
		err = tx.QueryRow(ctx, `SELECT id::text, state FROM import_job WHERE tenant = $1 AND digest = $2 AND state IN ('loading', 'done') AND already IS NULL FOR UPDATE`,
			j.Unit.Tenant(), j.Digest).Scan(&other, &state)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			_, err = tx.Exec(ctx, `UPDATE import_job SET state = 'loading', next_offset = 0, next_line = 0, rows = 0, created = 0, updated = 0, unchanged = 0, rejected = 0,
				bytes = 0, pass_at = clock_timestamp(), pass_rows = 0, changed_at = clock_timestamp(), version = version + 1 WHERE id = $1`, id)
		case err != nil:
		case state == campaign.ImportDone:
			_, err = tx.Exec(ctx, `UPDATE import_job j SET state = 'done', already = o.id, rows = o.rows, created = o.created, updated = o.updated, unchanged = o.unchanged,
				rejected = o.rejected, finished_at = clock_timestamp(), changed_at = clock_timestamp(), version = j.version + 1
				FROM import_job o WHERE j.id = $1 AND o.id = $2`, id, other)
			if err == nil {
				err = recordImport(ctx, tx, id)
			}
		default:
			err = takeOver(ctx, tx, id, other)
		}
		if err != nil {
			return fmt.Errorf("start import: %w", err)
		}
		j, err = readImport(ctx, tx, id, "")
		return err
	})
	return j, err
}

// takeOver lets an import go on with what another one of the same content left unfinished.
func takeOver(ctx context.Context, tx pgx.Tx, id, other string) error {
	_, err := tx.Exec(ctx, `UPDATE import_job SET state = 'cancelled', finished_at = clock_timestamp(), changed_at = clock_timestamp(), version = version + 1,
		error = jsonb_build_object('code', 'state_conflict', 'message', 'import ' || $2 || ' of the same content went on with it') WHERE id = $1`, other, id)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE import_job j SET state = 'loading', fresh = o.fresh, next_offset = o.next_offset, next_line = o.next_line, rows = o.rows, created = o.created,
		updated = o.updated, unchanged = o.unchanged, rejected = o.rejected, bytes = o.bytes, pass_at = clock_timestamp(), pass_rows = o.rows,
		changed_at = clock_timestamp(), version = j.version + 1 FROM import_job o WHERE j.id = $1 AND o.id = $2`, id, other)
	if err != nil {
		return err
	}
	if _, err = tx.Exec(ctx, `UPDATE import_job SET fresh = false WHERE id = $1`, other); err != nil {
		return err
	}
	if err := recordImport(ctx, tx, other); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO import_reject (job_id, line, name, value, code, reason, loading)
		SELECT $1, line, name, value, code, reason, true FROM import_reject WHERE job_id = $2 AND loading ON CONFLICT DO NOTHING`, id, other)
	return err
}

// EndDryRun lets a checked import that was only to be checked be loaded, by a user who has
// rights beside that of importing.
func (s *Store) EndDryRun(ctx context.Context, id, by string, rights []campaign.Action) error {
	return s.changeImport(ctx, s.pool, id, []campaign.ImportState{campaign.ImportChecked}, `options = options || '{"dry_run": false}', started_by = $3, rights = coalesce($4::text[], '{}')`, by, rights)
}

// importActor is who makes or starts an import.
func importActor(ctx context.Context, q queryer, j ImportJob) (campaign.Actor, error) {
	by := j.StartedBy
	if by == nil {
		by = j.CreatedBy
	}
	if by == nil {
		return campaign.Actor{Name: "muster import"}, nil
	}
	rows, err := q.Query(ctx, `SELECT id::text, login, name FROM app_user WHERE id = $1`, *by)
	if err != nil {
		return campaign.Actor{}, fmt.Errorf("read user of import: %w", err)
	}
	a, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (a campaign.Actor, err error) {
		return a, row.Scan(&a.UserID, &a.Login, &a.Name)
	})
	if err != nil {
		return a, fmt.Errorf("read user of import: %w", err)
	}
	return a, nil
}

// ImportActor is who makes or starts an import; without an id for whoever has the database.
func (s *Store) ImportActor(ctx context.Context, j ImportJob) (campaign.Actor, error) {
	return importActor(ctx, s.pool, j)
}

// recordImport writes down how an import ended: who, which content, and what became of it.
func recordImport(ctx context.Context, tx pgx.Tx, id string) error {
	j, err := readImport(ctx, tx, id, "")
	if err != nil {
		return err
	}
	by, err := importActor(ctx, tx, j)
	if err != nil {
		return err
	}
	key := "import:" + id
	e := AuditEvent{EventKey: &key, Actor: by.Name, Event: "import." + string(j.State), Allowed: j.State != campaign.ImportRefused, Data: map[string]any{
		"import": j.ID, "unit": j.Unit, "file": j.Name, "digest": j.Digest, "bytes": j.TotalBytes,
		"rows": j.Rows, "created": j.Created, "updated": j.Updated, "unchanged": j.Unchanged, "rejected": j.Rejected,
	}}
	if by.UserID != "" {
		e.ActorID = &by.UserID
	}
	if j.Already != nil {
		e.Data["already"] = *j.Already
	}
	if j.Error != nil {
		e.Data["code"] = j.Error.Code
	}
	return recordOnce(ctx, tx, e)
}

// NeglectedImports returns uploaded imports that should be worked on and have not changed for
// as long as idle: nobody was told of them, or whoever was is gone.
func (s *Store) NeglectedImports(ctx context.Context, idle time.Duration, limit int) ([]string, error) {
	rows, err := s.pool.Query(ctx, `SELECT id::text FROM import_job WHERE created_by IS NOT NULL AND changed_at < now() - $1 * interval '1 second'
		AND (state IN ('waiting', 'checking', 'loading') OR state = 'checked' AND NOT coalesce((options->>'dry_run')::boolean, false)) ORDER BY id LIMIT $2`, idle.Seconds(), limit)
	if err != nil {
		return nil, fmt.Errorf("read imports: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read imports: %w", err)
	}
	return ids, nil
}

// UnstartedImports returns uploaded imports that were only to be checked, and have waited as
// long as idle for somebody to load them.
func (s *Store) UnstartedImports(ctx context.Context, idle time.Duration, limit int) ([]ImportJob, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+importColumns+` FROM import_job WHERE created_by IS NOT NULL AND state = 'checked'
		AND changed_at < now() - $1 * interval '1 second' AND (options->>'dry_run')::boolean ORDER BY id LIMIT $2`, idle.Seconds(), limit)
	if err != nil {
		return nil, fmt.Errorf("read imports: %w", err)
	}
	all, err := pgx.CollectRows(rows, scanImport)
	if err != nil {
		return nil, fmt.Errorf("read imports: %w", err)
	}
	return all, nil
}

// FailImport ends an import that cannot be brought to its end.
func (s *Store) FailImport(ctx context.Context, id string, why *campaign.Error) error {
	return s.endImport(ctx, id, campaign.ImportFailed, why)
}

// CancelImport ends an import. What has landed stays.
func (s *Store) CancelImport(ctx context.Context, id string) error {
	return s.endImport(ctx, id, campaign.ImportCancelled, nil)
}

func (s *Store) endImport(ctx context.Context, id string, state campaign.ImportState, why *campaign.Error) error {
	return s.inTx(ctx, func(tx pgx.Tx) error {
		err := s.changeImport(ctx, tx, id, []campaign.ImportState{campaign.ImportWaiting, campaign.ImportChecking, campaign.ImportChecked, campaign.ImportLoading},
			`state = $3, error = $4, finished_at = clock_timestamp()`, state, why)
		if err != nil {
			return err
		}
		if err := recordImport(ctx, tx, id); err != nil {
			return err
		}
		// A process that is loading finds out at its next batch, and sees to the indexes itself.
		var idle bool
		if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))`, customerImports).Scan(&idle); err != nil || !idle {
			return err
		}
		return settleFresh(ctx, tx, id)
	})
}

// ImportReject is a row that did not land.
type ImportReject struct {
	Line    int64
	Column  string // header of the column at fault; empty when it is the whole row
	Value   string // masked where it identifies a person
	Code    campaign.Code
	Reason  string
	Loading bool // found by the second pass
}

func keepRejects(ctx context.Context, tx pgx.Tx, importID string, rejects []ImportReject) error {
	if len(rejects) == 0 {
		return nil
	}
	id, err := uuid.Parse(importID)
	if err != nil {
		return err
	}
	_, err = tx.CopyFrom(ctx, pgx.Identifier{"import_reject"}, []string{"job_id", "line", "name", "value", "code", "reason", "loading"},
		pgx.CopyFromSlice(len(rejects), func(i int) ([]any, error) {
			r := rejects[i]
			return []any{id, r.Line, r.Column, r.Value, string(r.Code), r.Reason, r.Loading}, nil
		}))
	if err != nil {
		return fmt.Errorf("keep rejected rows: %w", err)
	}
	return nil
}

// ImportRejects hands the rejected rows of an import to each, in the order of the file.
func (s *Store) ImportRejects(ctx context.Context, id string, each func(ImportReject) error) error {
	if _, err := s.Import(ctx, id); err != nil {
		return err
	}
	rows, err := s.pool.Query(ctx, `SELECT line, name, value, code, reason, loading FROM import_reject WHERE job_id = $1 ORDER BY line`, id)
	if err != nil {
		return fmt.Errorf("read rejected rows: %w", err)
	}
	var r ImportReject
	_, err = pgx.ForEachRow(rows, []any{&r.Line, &r.Column, &r.Value, &r.Code, &r.Reason, &r.Loading}, func() error { return each(r) })
	return err
}

// SkippedLines hands to each the rows that the first pass rejected because of an earlier row,
// of the units that there were or of who was erased: what the row says by itself does not tell.
func (s *Store) SkippedLines(ctx context.Context, id string, each func(line int64)) error {
	rows, err := s.pool.Query(ctx, `SELECT line FROM import_reject WHERE job_id = $1 AND NOT loading AND code IN ($2, $3, $4, $5)`,
		id, campaign.CodeDuplicateKey, campaign.CodeDuplicateNumber, campaign.CodeUnknownUnit, campaign.CodeErased)
	if err != nil {
		return fmt.Errorf("read rejected rows: %w", err)
	}
	var line int64
	if _, err = pgx.ForEachRow(rows, []any{&line}, func() error { each(line); return nil }); err != nil {
		return fmt.Errorf("read rejected rows: %w", err)
	}
	return nil
}

// ImportOwner is the unit of an import, for whom live events tell.
func (s *Store) ImportOwner(ctx context.Context, id string) (campaign.OrgUnit, error) {
	var unit campaign.OrgUnit
	err := s.pool.QueryRow(ctx, `SELECT unit FROM import_job WHERE id::text = $1`, id).Scan(&unit)
	if err != nil {
		return "", notFound(err, "import")
	}
	return unit, nil
}
