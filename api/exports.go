package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/musterhq/muster/audience"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/export"
	"github.com/musterhq/muster/store"
)

func exportOf(e store.Export) Export {
	return Export{
		ID: e.ID, Unit: e.Unit, ListID: e.ListID, Filter: e.Filter, Columns: e.Columns, Format: e.Format, Rows: e.Rows, RowCap: e.RowCap,
		QueryHash: e.QueryHash, CreatedAt: e.CreatedAt, ExpiresAt: e.ExpiresAt, File: "/v1/exports/" + e.ID + "/file",
	}
}

// CreateExport implements the operation.
func (s *Server) CreateExport(ctx context.Context, in CreateExportRequestObject) (CreateExportResponseObject, error) {
	r, b := requestOf(ctx), in.Body
	e := store.Export{ID: r.resultID, Unit: b.Unit, ListID: b.ListID, Filter: b.Filter, Columns: b.Columns, Format: b.Format, BOM: b.Bom}
	if (e.ListID == "") == (e.Filter == "") {
		return nil, faults([]campaign.FieldError{{Field: "list_id", Code: campaign.CodeInvalidParameter, Message: "give list_id or filter, one of them"}})
	}
	attributes, err := s.store.CustomerAttributes(ctx)
	if err != nil {
		return nil, err
	}
	may := store.ExportColumns(attributes)
	if len(e.Columns) == 0 {
		e.Columns = may
	}
	var unknown []campaign.FieldError
	for i, name := range e.Columns {
		if !slices.Contains(may, name) || slices.Contains(e.Columns[:i], name) {
			unknown = append(unknown, campaign.FieldError{Field: fmt.Sprintf("columns[%d]", i), Code: campaign.CodeInvalidParameter, Message: "is no column that may be exported, or comes twice"})
		}
	}
	if len(unknown) > 0 {
		return nil, faults(unknown)
	}
	query, err := s.exportQuery(ctx, e)
	if err != nil {
		return nil, err
	}
	if e.QueryHash, err = queryHash(e, query); err != nil {
		return nil, err
	}
	if e.Rows, err = s.store.CountExport(ctx, e.Unit, query); err != nil {
		return nil, err
	}
	if e.RowCap, err = s.permitExport(ctx, r, e, e.Rows); err != nil {
		return nil, err
	}
	if e, err = s.store.CreateExport(ctx, e, r.user.Actor()); err != nil {
		return nil, s.refuse(ctx, r, "", err)
	}
	return CreateExport201JSONResponse(exportOf(e)), nil
}

// permitExport returns how many rows the caller's roles let them take out. More than that is
// refused, and written down.
func (s *Server) permitExport(ctx context.Context, r *request, e store.Export, rows int64) (int64, error) {
	authority, err := s.policies.Require(r.user.ID, campaign.ActExportCreate, e.Unit, rows)
	if campaign.CodeOf(err) == campaign.CodeLimitExceeded {
		err = campaign.Errorf(campaign.CodeExportNotPermitted, "the export has %d rows, more than your roles let you take out", rows).With("rows", rows)
		var known *campaign.Error
		if errors.As(err, &known) {
			r.command = "export " + e.QueryHash
		}
	}
	if err != nil {
		return 0, s.refuse(ctx, r, "", err)
	}
	most := int64(math.MaxInt64)
	if limit, err := strconv.ParseInt(authority.Limit, 10, 64); err == nil {
		most = limit
	}
	if format := export.Format(e.Format).MaximumRows(); format > 0 {
		most = min(most, format)
	}
	if rows > most {
		return 0, campaign.Errorf(campaign.CodeExportNotPermitted, "a file of format %s has %d rows at most; this is about %d", e.Format, most, rows).With("rows", rows).With("limit", most)
	}
	return most, nil
}

// exportQuery is whom an export is about.
func (s *Server) exportQuery(ctx context.Context, e store.Export) (store.ExportQuery, error) {
	if e.ListID != "" {
		l, err := s.store.List(ctx, e.ListID)
		if err != nil {
			return store.ExportQuery{}, err
		}
		if _, err := s.policies.Require(requestOf(ctx).user.ID, campaign.ActListRead, l.Unit, 0); err != nil {
			return store.ExportQuery{}, campaign.Errorf(campaign.CodeNotFound, "there is no such list")
		}
		return store.ListMembers(l.ID), nil
	}
	c, err := s.catalogue(ctx, e.Unit.Tenant())
	if err != nil {
		return store.ExportQuery{}, err
	}
	filter, err := c.Compile(e.Filter)
	if err != nil {
		return store.ExportQuery{}, audience.Fault("filter", err)
	}
	return store.ExportQuery{Where: filter.SQL(1), Args: filter.Args}, nil
}

// queryHash names what an export asks for, down to the statement.
func queryHash(e store.Export, q store.ExportQuery) (string, error) {
	text, err := json.Marshal([]any{e.Unit, e.ListID, e.Filter, e.Columns, q.Where, q.Args})
	if err != nil {
		return "", fmt.Errorf("hash query: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// reachExport returns an export of the caller's own, which is all that anybody may fetch.
func (s *Server) reachExport(ctx context.Context, id string) (store.Export, error) {
	r := requestOf(ctx)
	e, err := s.store.Export(ctx, id)
	if err == nil && (e.CreatedBy != r.user.ID || !within(e.Unit, r.units)) {
		err = campaign.Errorf(campaign.CodeNotFound, "there is no such export")
	}
	return e, s.refuse(ctx, r, "", err)
}

// GetExport implements the operation.
func (s *Server) GetExport(ctx context.Context, in GetExportRequestObject) (GetExportResponseObject, error) {
	e, err := s.reachExport(ctx, in.ExportID)
	if err != nil {
		return nil, err
	}
	return GetExport200JSONResponse(exportOf(e)), nil
}

// DownloadExport implements the operation.
func (s *Server) DownloadExport(ctx context.Context, in DownloadExportRequestObject) (DownloadExportResponseObject, error) {
	r := requestOf(ctx)
	e, err := s.reachExport(ctx, in.ExportID)
	if err != nil {
		return nil, err
	}
	query, err := s.exportQuery(ctx, e)
	if err != nil {
		return nil, err
	}
	// What the caller's roles let them take out may be less by now.
	most, err := s.permitExport(ctx, r, e, 0)
	if err != nil {
		return nil, err
	}
	e.RowCap = min(e.RowCap, most)
	return exportFile{ctx: ctx, s: s, e: e, query: query, by: r.user}, nil
}

// exportFile writes an export as it is read.
type exportFile struct {
	ctx   context.Context //nolint:containedctx // the generated interface has no place for it
	s     *Server
	e     store.Export
	query store.ExportQuery
	by    store.User
}

// VisitDownloadExportResponse implements DownloadExportResponseObject. Nothing is sent before
// the rows were counted, and a file that breaks off breaks the connection: nobody shall take
// it for whole.
func (f exportFile) VisitDownloadExportResponse(w http.ResponseWriter) error {
	format, peer, begun := export.Format(f.e.Format), http.NewResponseController(w), false
	var file export.Writer
	begin := func() (err error) {
		if begun {
			return nil
		}
		begun = true
		h := w.Header()
		h.Set("Content-Type", format.ContentType())
		h.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="muster-%s.%s"`, f.e.ID, f.e.Format))
		w.WriteHeader(http.StatusOK)
		file, err = export.New(patientWriter{w, peer}, export.Options{
			Format: format, BOM: f.e.BOM, Columns: f.e.Columns,
			Watermark: fmt.Sprintf("%s %s %s", f.e.ID, f.by.Login, time.Now().UTC().Format(time.RFC3339)),
		})
		return err
	}
	err := f.s.store.FetchExport(f.ctx, f.e, f.query, f.by.Actor(), func(values []any) error {
		if err := begin(); err != nil {
			return err
		}
		return file.Row(values)
	})
	if err != nil && !begun {
		return f.s.refuse(f.ctx, requestOf(f.ctx), "", err)
	}
	if err == nil {
		err = begin()
	}
	if err == nil {
		err = file.Close()
	}
	if err != nil && begun {
		f.s.log.WarnContext(f.ctx, "export broke off", "export", f.e.ID, "error", err)
		panic(http.ErrAbortHandler)
	}
	return err
}

// patientWriter lets each piece take its time to leave, and not all of them together.
type patientWriter struct {
	http.ResponseWriter
	peer *http.ResponseController
}

func (p patientWriter) Write(b []byte) (int, error) {
	if err := p.peer.SetWriteDeadline(time.Now().Add(slowPeer)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return p.ResponseWriter.Write(b)
}
