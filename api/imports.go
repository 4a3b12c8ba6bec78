package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/export"
	"github.com/musterhq/muster/intake"
	"github.com/musterhq/muster/store"
)

func importOf(j store.ImportJob) Import {
	out := Import{
		ID: j.ID, Unit: j.Unit, Name: j.Name, State: string(j.State), Options: j.Options, Report: j.Report, Rows: j.Rows, Created: j.Created, Updated: j.Updated,
		Unchanged: j.Unchanged, Rejected: j.Rejected, Bytes: j.Bytes, TotalBytes: j.TotalBytes, CreatedAt: j.CreatedAt, FinishedAt: j.FinishedAt,
		RowsPerSecond: j.PerSecond(), SecondsLeft: int64(j.Left().Seconds()),
	}
	if j.Already != nil {
		out.Already = *j.Already
	}
	if j.Error != nil {
		out.Error = &ImportProblem{Code: string(j.Error.Code), Message: j.Error.Message, Fields: j.Error.Fields}
	}
	return out
}

// ImportCustomers implements the operation. The file waits in the spool folder, where the
// workers find it.
func (s *Server) ImportCustomers(ctx context.Context, in ImportCustomersRequestObject) (ImportCustomersResponseObject, error) {
	r, p := requestOf(ctx), in.Params
	o := campaign.ImportOptions{
		Format: p.Format, Encoding: p.Encoding, Delimiter: p.Delimiter, Sheet: p.Sheet, Key: p.Key, Unit: p.Unit, TimeZone: p.TimeZone,
		BadShare: campaign.DefaultBadShare, Simulated: p.Simulated, DryRun: p.DryRun, Columns: map[string]string{},
	}
	if p.BadShare != nil {
		o.BadShare = *p.BadShare
	}
	for _, m := range p.Map {
		at := strings.LastIndexByte(m, '=') // a header may have one in it, what it means has none
		if at < 0 {
			return nil, faults([]campaign.FieldError{{Field: "map", Code: campaign.CodeInvalidParameter, Message: "must be column=attribute"}})
		}
		o.Columns[m[:at]] = m[at+1:]
	}
	if err := intake.CheckOptions(o); err != nil {
		return nil, err
	}
	if err := intake.Look(r.upload.Name(), o); err != nil { // what its beginning tells needs no import
		return nil, err
	}
	if err := s.mayWait(ctx, o.Unit, r.resultID, r.upload.size); err != nil { // others may have come meanwhile
		return nil, err
	}
	path := filepath.Join(filepath.Dir(r.upload.Name()), "import-"+r.resultID)
	if err := os.Rename(r.upload.Name(), path); err != nil {
		return nil, err
	}
	j := store.ImportJob{ID: r.resultID, Unit: o.Unit, Name: p.Name, Path: path, Options: o, TotalBytes: r.upload.size, CreatedBy: &r.user.ID, Rights: s.importRights(r, o.Unit)}
	if err := s.store.CreateImport(ctx, j); err != nil && campaign.CodeOf(err) != campaign.CodeAlreadyExists { // an earlier try came that far
		return nil, errors.Join(err, os.Remove(path))
	}
	if err := s.beginImport(ctx, j.ID); err != nil {
		return nil, err
	}
	j, err := s.store.Import(ctx, j.ID)
	if err != nil {
		return nil, err
	}
	return ImportCustomers202JSONResponse(importOf(j)), nil
}

// recordLanded writes down who brought which content about customers, and what became of it.
func (s *Server) recordLanded(ctx context.Context, event string, counts map[string]any) error {
	r := requestOf(ctx)
	sum := sha256.Sum256(r.body)
	counts["digest"], counts["request_id"] = hex.EncodeToString(sum[:]), r.id
	return s.record(ctx, store.AuditEvent{ActorID: &r.user.ID, Actor: r.user.Name, Event: event, Allowed: true, Data: counts})
}

// importRights are those that the caller has beside that of importing. Attributes are
// everybody's of the tenant, units those below a unit.
func (s *Server) importRights(r *request, unit campaign.OrgUnit) (rights []campaign.Action) {
	for act, at := range map[campaign.Action]campaign.OrgUnit{campaign.ActAttributeDeclare: unit.Tenant(), campaign.ActUnitAdminister: unit} {
		if _, err := s.policies.Require(r.user.ID, act, at, 0); err == nil {
			rights = append(rights, act)
		}
	}
	return rights
}

// mayStart refuses an import that was checked for somebody who may more than the caller.
func (s *Server) mayStart(r *request, j store.ImportJob) error {
	if j.Report == nil {
		return nil
	}
	if slices.ContainsFunc(j.Report.Columns, func(c campaign.ImportColumn) bool { return c.New }) {
		if _, err := s.policies.Require(r.user.ID, campaign.ActAttributeDeclare, j.Unit.Tenant(), 0); err != nil {
			return err
		}
	}
	if len(j.Report.NewUnits) > 0 {
		if _, err := s.policies.Require(r.user.ID, campaign.ActUnitAdminister, j.Unit, 0); err != nil {
			return err
		}
	}
	return nil
}

// beginImport has a worker take the import up. When none can be told now, a worker finds the
// import by itself a little later.
func (s *Server) beginImport(ctx context.Context, id string) error {
	err := s.orchestrator.StartImport(ctx, id)
	if campaign.CodeOf(err) == campaign.CodeOrchestratorAway {
		s.log.WarnContext(ctx, "an import waits for the orchestrator", "import", id, "error", err)
		return nil
	}
	return err
}

// ListImports implements the operation.
func (s *Server) ListImports(ctx context.Context, in ListImportsRequestObject) (ListImportsResponseObject, error) {
	limit, before := limitOf(in.Params.Limit)+1, ""
	if _, err := decodeCursor("imports", in.Params.Cursor, &before); err != nil {
		return nil, err
	}
	all, err := s.store.Imports(ctx, requestOf(ctx).units, before, limit)
	if err != nil {
		return nil, err
	}
	page := ImportPage{Items: []Import{}}
	if len(all) == limit {
		all = all[:limit-1]
		if page.Next, err = encodeCursor("imports", all[len(all)-1].ID); err != nil {
			return nil, err
		}
	}
	for _, j := range all {
		page.Items = append(page.Items, importOf(j))
	}
	return ListImports200JSONResponse(page), nil
}

// reachImport returns an import of the units where the caller may import. Any other is not
// found, as one that does not exist.
func (s *Server) reachImport(ctx context.Context, id string) (store.ImportJob, error) {
	r := requestOf(ctx)
	j, err := s.store.Import(ctx, id)
	if err == nil && !within(j.Unit, r.units) {
		err = campaign.Errorf(campaign.CodeNotFound, "there is no such import")
	}
	return j, s.refuse(ctx, r, "", err)
}

// GetImport implements the operation.
func (s *Server) GetImport(ctx context.Context, in GetImportRequestObject) (GetImportResponseObject, error) {
	j, err := s.reachImport(ctx, in.ImportID)
	if err != nil {
		return nil, err
	}
	return GetImport200JSONResponse(importOf(j)), nil
}

// StartImport implements the operation.
func (s *Server) StartImport(ctx context.Context, in StartImportRequestObject) (StartImportResponseObject, error) {
	r := requestOf(ctx)
	j, err := s.reachImport(ctx, in.ImportID)
	if err == nil {
		err = s.refuse(ctx, r, "", s.mayStart(r, j))
	}
	if err == nil {
		err = s.store.EndDryRun(ctx, j.ID, r.user.ID, s.importRights(r, j.Unit))
	}
	if err == nil {
		err = s.beginImport(ctx, j.ID)
	}
	if err == nil {
		j, err = s.store.Import(ctx, j.ID)
	}
	if err != nil {
		return nil, err
	}
	return StartImport202JSONResponse(importOf(j)), nil
}

// CancelImport implements the operation.
func (s *Server) CancelImport(ctx context.Context, in CancelImportRequestObject) (CancelImportResponseObject, error) {
	j, err := s.reachImport(ctx, in.ImportID)
	if err == nil {
		err = s.store.CancelImport(ctx, j.ID)
	}
	if err != nil {
		return nil, err
	}
	if j.CreatedBy != nil { // it was uploaded; a worker that reads it holds it open
		if err := os.Remove(intake.Place(s.spoolDir, j.Path)); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.log.WarnContext(ctx, "the file of a cancelled import was not removed", "import", j.ID, "error", err)
		}
	}
	if j, err = s.store.Import(ctx, j.ID); err != nil {
		return nil, err
	}
	return CancelImport200JSONResponse(importOf(j)), nil
}

// GetImportRejects implements the operation.
func (s *Server) GetImportRejects(ctx context.Context, in GetImportRejectsRequestObject) (GetImportRejectsResponseObject, error) {
	j, err := s.reachImport(ctx, in.ImportID)
	if err != nil {
		return nil, err
	}
	return rejectsFile{ctx: ctx, s: s, importID: j.ID, by: requestOf(ctx).user.Login}, nil
}

// rejectsFile writes the rejected rows of an import as they are read.
type rejectsFile struct {
	ctx          context.Context //nolint:containedctx // the generated interface has no place for it
	s            *Server
	importID, by string
}

// VisitGetImportRejectsResponse implements GetImportRejectsResponseObject. A file that breaks
// off breaks the connection: nobody shall take it for whole.
func (f rejectsFile) VisitGetImportRejectsResponse(w http.ResponseWriter) error {
	h := w.Header()
	h.Set("Content-Type", export.CSV.ContentType())
	h.Set("Content-Disposition", `attachment; filename="rejected-`+f.importID+`.csv"`)
	w.WriteHeader(http.StatusOK)
	err := intake.WriteRejects(f.ctx, f.s.store, f.importID, f.by, patientWriter{w, http.NewResponseController(w)})
	if err != nil {
		f.s.log.WarnContext(f.ctx, "rejected rows broke off", "import", f.importID, "error", err)
		panic(http.ErrAbortHandler)
	}
	return nil
}
