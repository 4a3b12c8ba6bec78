package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

func person(id string, u *store.User) Person {
	p := Person{ID: id}
	if u != nil {
		p.Name = u.Name
	}
	return p
}

func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// holdOf is whether dispatch may go on; empty once the campaign has ended, as nothing is
// left that could.
func holdOf(c store.Campaign) campaign.Hold {
	if c.Stage.Final() {
		return ""
	}
	return c.Hold
}

func summary(c store.Campaign) CampaignSummary {
	return CampaignSummary{
		ID: c.ID, Number: c.Number, Name: c.Name, Unit: c.Unit, Planner: person(c.PlannerID, c.Planner), Stage: c.Stage, Hold: holdOf(c),
		Simulated: c.Simulated, Revision: c.Revision, DraftRevision: c.DraftRevision, WaitingOn: c.Status.WaitingOn,
		WaitAction: c.WaitAction, DueAt: timeOf(c.DueAt), CreatedAt: c.CreatedAt, UpdatedAt: c.UpdatedAt,
	}
}

// etag names a plan revision in HTTP's form.
func etag(revision int, digest string) string {
	return fmt.Sprintf(`"r%d-%.16s"`, revision, digest)
}

func revisionOf(r store.PlanRevision) Revision {
	return Revision{
		Revision: r.Revision, Digest: r.Digest, Etag: etag(r.Revision, r.Digest), Plan: r.Plan, Editor: person(r.EditorID, r.Editor),
		Base: baseOf(r), Note: r.Note, CreatedAt: r.CreatedAt,
	}
}

func baseOf(r store.PlanRevision) int {
	if r.Base == nil {
		return 0
	}
	return *r.Base
}

// ListCampaigns implements the operation.
func (s *Server) ListCampaigns(ctx context.Context, in ListCampaignsRequestObject) (ListCampaignsResponseObject, error) {
	r, p := requestOf(ctx), in.Params
	f := store.CampaignFilter{Units: r.units, Stage: p.Stage, WaitAction: p.WaitAction, Text: p.Q, Programme: strings.ToLower(p.ProgrammeID), Limit: limitOf(p.Limit) + 1}
	if p.Mine {
		f.PlannerID = r.user.ID
	}
	if fault := campaign.TextFault(p.Q); fault != "" {
		return nil, faults([]campaign.FieldError{{Field: "q", Code: campaign.CodeInvalidText, Message: fault}})
	}
	list := fmt.Sprintf("campaigns %s %s %q %v %s", p.Stage, p.WaitAction, p.Q, p.Mine, f.Programme)
	if _, err := decodeCursor(list, p.Cursor, &f.Before); err != nil {
		return nil, err
	}
	all, err := s.store.Campaigns(ctx, f)
	if err != nil {
		return nil, err
	}
	page := CampaignPage{Items: []CampaignSummary{}}
	if len(all) == f.Limit {
		all = all[:f.Limit-1]
		if page.Next, err = encodeCursor(list, all[len(all)-1].Number); err != nil {
			return nil, err
		}
	}
	for _, c := range all {
		page.Items = append(page.Items, summary(c))
	}
	return ListCampaigns200JSONResponse(page), nil
}

// CreateCampaign implements the operation. The workflow is started right away; when
// the orchestrator is away, a worker starts it later.
func (s *Server) CreateCampaign(ctx context.Context, in CreateCampaignRequestObject) (CreateCampaignResponseObject, error) {
	r := requestOf(ctx)
	if err := s.checkPlan(ctx, in.Body.Plan); err != nil {
		return nil, inPlan(err)
	}
	c, err := s.store.CreateCampaign(ctx, r.resultID, in.Body.Plan, r.user.Actor())
	if err != nil {
		return nil, inPlan(err)
	}
	if err := s.ensureStarted(ctx, c); err != nil {
		s.log.WarnContext(ctx, "campaign not started yet", "campaign_id", c.ID, "error", err)
	}
	detail, err := s.detail(ctx, c)
	if err != nil {
		return nil, err
	}
	return CreateCampaign201JSONResponse{Body: detail, Headers: CreateCampaign201ResponseHeaders{ETag: detail.Draft.Etag}}, nil
}

func (s *Server) ensureStarted(ctx context.Context, c store.Campaign) error {
	if c.Started {
		return nil
	}
	if err := s.orchestrator.StartCampaign(ctx, c.ID); err != nil {
		return err
	}
	return s.store.MarkStarted(ctx, c.ID)
}

// checkPlan refuses a plan with any fault that can be known now, so that every stored
// plan could be submitted.
func (s *Server) checkPlan(ctx context.Context, p campaign.Plan) error {
	fault := p.Validate()
	var plan *campaign.Error
	if fault != nil && !errors.As(fault, &plan) {
		return fault
	}
	found, err := s.filterFaults(ctx, p)
	if err != nil {
		return err
	}
	if plan == nil {
		plan = &campaign.Error{Code: campaign.CodeInvalidPlan}
	}
	if p.ProgrammeID != "" && !slices.ContainsFunc(plan.Fields, func(f campaign.FieldError) bool { return f.Field == "programme_id" }) {
		_, err := s.store.ProgrammeOf(ctx, &p)
		var unknown *campaign.Error
		if err != nil && !errors.As(err, &unknown) {
			return err
		} else if err != nil {
			found = append(found, unknown.Fields...)
		}
	}
	pools, err := s.store.CreditFaults(ctx, p)
	if err != nil {
		return err
	}
	found = append(found, pools...)
	if s.simulated && !p.Simulated {
		found = append(found, campaign.FieldError{
			Field: "simulated", Code: campaign.CodeInvalidPlan, Message: "must be true: every channel of this installation is a simulator", Allowed: []any{true},
		})
	}
	if plan.Fields = append(plan.Fields, found...); len(plan.Fields) == 0 {
		return nil
	}
	// A fault that has a code of its own says more than that the plan is invalid.
	for _, code := range []campaign.Code{campaign.CodeInvalidFilter, campaign.CodeAmountOutOfRange, campaign.CodeInvalidText, campaign.CodeProgrammeNotFound, campaign.CodeCreditPoolNotFound, campaign.CodeCurrencyMismatch} {
		if plan.Fields[0].Code == code {
			plan.Code = code
		}
	}
	plan.Message = fmt.Sprintf("the plan has %d fault(s)", len(plan.Fields))
	return plan
}

// GetCampaign implements the operation.
func (s *Server) GetCampaign(ctx context.Context, _ GetCampaignRequestObject) (GetCampaignResponseObject, error) {
	detail, err := s.detail(ctx, requestOf(ctx).campaign)
	if err != nil {
		return nil, err
	}
	return GetCampaign200JSONResponse{Body: detail, Headers: GetCampaign200ResponseHeaders{ETag: detail.Draft.Etag}}, nil
}

func (s *Server) detail(ctx context.Context, c store.Campaign) (CampaignDetail, error) {
	u := requestOf(ctx).user
	lent, err := s.lent(ctx, u.ID)
	if err != nil {
		return CampaignDetail{}, err
	}
	authors, err := s.waitingAuthors(ctx, c)
	if err != nil {
		return CampaignDetail{}, err
	}
	detail := CampaignDetail{
		Campaign: summary(c), Status: c.Status, ArchivedRuns: c.ArchiveRuns, ArchivedAt: timeOf(c.ArchivedAt),
		Actions: s.actions(u, lent, authors, c),
	}
	// The hold takes effect in its own column before the workflow's status shows it.
	detail.Status.Hold = holdOf(c)
	unpaid, err := s.store.UnpaidChannels(ctx, c.ID)
	if err != nil {
		return detail, err
	}
	detail.Status.Unpaid = unpaid
	draft, err := s.store.Revision(ctx, c.ID, offeredRevision(c))
	if err != nil {
		return detail, err
	}
	newest := revisionOf(draft)
	detail.Draft = &newest
	if c.Revision > 0 {
		inForce, err := s.store.Revision(ctx, c.ID, c.Revision)
		if err != nil {
			return detail, err
		}
		r := revisionOf(inForce)
		detail.InForce = &r
	}
	return detail, nil
}

// offeredRevision is the one to go on from: a draft's newest; of a campaign in flight the
// amendment that waits for its approval, or else the plan in force. A refused amendment left
// a revision behind that is neither.
func offeredRevision(c store.Campaign) int {
	switch a := c.Status.Approval; {
	case c.Stage == campaign.StageDraft || c.Revision == 0:
		return c.DraftRevision
	case a.Open():
		return a.Revision
	default:
		return c.Revision
	}
}

// ListRevisions implements the operation.
func (s *Server) ListRevisions(ctx context.Context, in ListRevisionsRequestObject) (ListRevisionsResponseObject, error) {
	all, err := s.store.Revisions(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	list := RevisionList{Items: []Revision{}}
	for _, r := range all {
		list.Items = append(list.Items, revisionOf(r))
	}
	return ListRevisions200JSONResponse(list), nil
}

// PutPlan implements the operation.
func (s *Server) PutPlan(ctx context.Context, in PutPlanRequestObject) (PutPlanResponseObject, error) {
	r := requestOf(ctx)
	c := r.campaign
	if in.Params.IfMatch == "" {
		return nil, campaign.Errorf(campaign.CodePreconditionRequired, "send If-Match with the ETag of the revision that you changed")
	}
	if c.Stage != campaign.StageDraft {
		return nil, campaign.Errorf(campaign.CodeStateConflict, "the campaign is in %s; its plan is changed by an amendment", c.Stage)
	}
	if err := s.checkSuccessor(ctx, c, *in.Body); err != nil {
		return nil, err
	}
	r.preconditioned = true
	// The revision that If-Match names, which a repeated request names again after its
	// first try wrote the next one.
	after := 0
	for _, revision := range []int{c.DraftRevision, c.DraftRevision - 1} {
		if revision < 1 {
			continue
		}
		was, err := s.store.Revision(ctx, c.ID, revision)
		if err != nil {
			return nil, err
		}
		if etag(was.Revision, was.Digest) == in.Params.IfMatch {
			after = was.Revision
			break
		}
	}
	if after == 0 {
		return nil, campaign.Errorf(campaign.CodeVersionChanged, "the plan was changed meanwhile; read it again and apply your change to it").
			With("revision", c.DraftRevision)
	}
	written, err := s.store.WriteRevision(ctx, c.ID, after, *in.Body, r.user.Actor(), "")
	if err != nil {
		return nil, err
	}
	revision := revisionOf(written)
	return PutPlan200JSONResponse{Body: revision, Headers: PutPlan200ResponseHeaders{ETag: revision.Etag}}, nil
}

// checkSuccessor checks a plan that is to follow the plans of a campaign.
func (s *Server) checkSuccessor(ctx context.Context, c store.Campaign, p campaign.Plan) error {
	if err := s.checkPlan(ctx, p); err != nil {
		return err
	}
	var fields []campaign.FieldError
	if p.Unit != c.Unit {
		fields = append(fields, campaign.FieldError{Field: "unit", Code: campaign.CodeInvalidPlan, Message: "cannot change; create another campaign", Allowed: []any{c.Unit}})
	}
	if p.Simulated != c.Simulated {
		fields = append(fields, campaign.FieldError{Field: "simulated", Code: campaign.CodeInvalidPlan, Message: "cannot change; create another campaign", Allowed: []any{c.Simulated}})
	}
	return faults(fields)
}

// SubmitCampaign implements the operation.
func (s *Server) SubmitCampaign(ctx context.Context, in SubmitCampaignRequestObject) (SubmitCampaignResponseObject, error) {
	r := requestOf(ctx)
	r.command = campaign.UpdateSubmit
	if in.Body.Revision != r.campaign.DraftRevision {
		return nil, s.refuse(ctx, r, in.ID, campaign.Errorf(campaign.CodeVersionChanged, "revision %d is the newest, not revision %d", r.campaign.DraftRevision, in.Body.Revision).
			With("revision", r.campaign.DraftRevision))
	}
	plan, err := s.store.LoadPlan(ctx, campaign.PlanRef{CampaignID: in.ID, Revision: in.Body.Revision})
	if err != nil {
		return nil, s.refuse(ctx, r, in.ID, err)
	}
	if in.Body.Digest != "" && in.Body.Digest != plan.Digest {
		return nil, s.refuse(ctx, r, in.ID, campaign.Errorf(campaign.CodeVersionChanged, "revision %d is not the plan with that digest; read it again", in.Body.Revision))
	}
	status, err := s.update(ctx, r, campaign.UpdateSubmit, &campaign.Submit{Command: s.command(r), Revision: plan.Revision, Digest: plan.Digest})
	if err != nil {
		return nil, err
	}
	return SubmitCampaign200JSONResponse{CampaignID: in.ID, Status: status}, nil
}

// AmendCampaign implements the operation.
func (s *Server) AmendCampaign(ctx context.Context, in AmendCampaignRequestObject) (AmendCampaignResponseObject, error) {
	r := requestOf(ctx)
	c := r.campaign
	r.command = campaign.UpdateAmend
	if err := s.checkSuccessor(ctx, c, in.Body.Plan); err != nil {
		return nil, inPlan(err)
	}
	if err := admits(c, campaign.ActCampaignAmend); err != nil {
		return nil, s.refuse(ctx, r, c.ID, err)
	}
	base := in.Body.BaseRevision
	if base == 0 {
		base = c.Revision
	}
	// Whether another plan came in force is the campaign's to say: this may be a request
	// that took effect and is tried again.
	if base > c.DraftRevision {
		return nil, faults([]campaign.FieldError{{
			Field: "base_revision", Code: campaign.CodeInvalidParameter, Message: fmt.Sprintf("revision %d is the newest", c.DraftRevision),
		}})
	}
	plan, err := s.store.AddRevision(ctx, c.ID, store.NewRevision{
		Plan: in.Body.Plan, EditorID: r.user.ID, Base: base, Request: r.resultID, Note: in.Body.Reason,
	})
	if err != nil {
		return nil, err
	}
	status, err := s.update(ctx, r, campaign.UpdateAmend, &campaign.Amend{
		Command: s.command(r), Revision: plan.Revision, Digest: plan.Digest, Reason: in.Body.Reason,
	})
	if err != nil {
		return nil, inPlan(err)
	}
	return AmendCampaign200JSONResponse{CampaignID: in.ID, Status: status}, nil
}

// PauseCampaign implements the operation.
func (s *Server) PauseCampaign(ctx context.Context, in PauseCampaignRequestObject) (PauseCampaignResponseObject, error) {
	status, err := s.changeHold(ctx, campaign.UpdatePause, in.Body.Reason)
	return PauseCampaign200JSONResponse{CampaignID: in.ID, Status: status}, err
}

// ResumeCampaign implements the operation.
func (s *Server) ResumeCampaign(ctx context.Context, in ResumeCampaignRequestObject) (ResumeCampaignResponseObject, error) {
	status, err := s.changeHold(ctx, campaign.UpdateResume, in.Body.Reason)
	return ResumeCampaign200JSONResponse{CampaignID: in.ID, Status: status}, err
}

// StopCampaign implements the operation.
func (s *Server) StopCampaign(ctx context.Context, in StopCampaignRequestObject) (StopCampaignResponseObject, error) {
	status, err := s.changeHold(ctx, campaign.UpdateStop, in.Body.Reason)
	return StopCampaign200JSONResponse{CampaignID: in.ID, Status: status}, err
}

func (s *Server) changeHold(ctx context.Context, name, reason string) (campaign.Status, error) {
	r := requestOf(ctx)
	return s.update(ctx, r, name, &campaign.ChangeHold{Command: s.command(r), Reason: reason})
}

// update sends an update to the request's campaign. A refusal leaves no trace in the
// workflow's history, so it is recorded here.
func (s *Server) update(ctx context.Context, r *request, name string, order campaign.Order) (campaign.Status, error) {
	r.command = name
	status, err := s.ask(ctx, r, name, order)
	return status, s.refuse(ctx, r, r.campaign.ID, err)
}

// ask signs an order, sends it as an update and records nothing.
func (s *Server) ask(ctx context.Context, r *request, name string, order campaign.Order) (campaign.Status, error) {
	if err := s.ensureStarted(ctx, r.campaign); err != nil {
		return campaign.Status{}, err
	}
	if err := s.sign(r, name, order); err != nil {
		return campaign.Status{}, err
	}
	return s.orchestrator.Update(ctx, r.campaign.ID, r.key, name, order)
}

// rawJSON gives a missing JSON column the form of an empty object.
func rawJSON(text json.RawMessage) json.RawMessage {
	if len(text) == 0 {
		return json.RawMessage("{}")
	}
	return text
}
