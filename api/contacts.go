package api

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// GetTargets implements the operation.
func (s *Server) GetTargets(ctx context.Context, in GetTargetsRequestObject) (GetTargetsResponseObject, error) {
	out := TargetSummary{Tiers: []TierCount{}}
	f, err := s.store.Targets(ctx, in.ID)
	if campaign.CodeOf(err) == campaign.CodeNotFound {
		return GetTargets200JSONResponse(out), nil
	}
	if err != nil {
		return nil, err
	}
	out.Selected, out.Revision, out.FrozenAt, out.Counts = true, f.Revision, f.FrozenAt, &f.Counts
	for _, t := range f.Tiers {
		out.Tiers = append(out.Tiers, TierCount{Wave: t.Wave, Tier: t.Tier, Arm: t.Arm, Targets: t.Targets})
	}
	return GetTargets200JSONResponse(out), nil
}

// ListContacts implements the operation.
func (s *Server) ListContacts(ctx context.Context, in ListContactsRequestObject) (ListContactsResponseObject, error) {
	p := in.Params
	f := store.ContactFilter{Wave: p.Wave, Channel: p.Channel, State: p.State, Limit: limitOf(p.Limit) + 1}
	list := fmt.Sprintf("contacts %s %d %s %s", in.ID, p.Wave, p.Channel, p.State)
	if _, err := decodeCursor(list, p.Cursor, &f.After); err != nil {
		return nil, err
	}
	all, err := s.store.Contacts(ctx, in.ID, f)
	if err != nil {
		return nil, err
	}
	page := ContactPage{Items: []Contact{}}
	if len(all) == f.Limit {
		all = all[:f.Limit-1]
		last := all[len(all)-1]
		if page.Next, err = encodeCursor(list, store.ContactKey{Wave: last.Wave, Channel: last.Channel, CustomerID: last.CustomerID}); err != nil {
			return nil, err
		}
	}
	for _, k := range all {
		page.Items = append(page.Items, Contact{
			ID: k.ID, CustomerID: k.CustomerID, Wave: k.Wave, Channel: k.Channel, Tier: k.Tier, State: k.State, Reason: k.Reason,
			Attempts: k.Attempts, UpdatedAt: k.UpdatedAt, NotAfter: k.NotAfter,
		})
	}
	return ListContacts200JSONResponse(page), nil
}

// ListTargets implements the operation.
func (s *Server) ListTargets(ctx context.Context, in ListTargetsRequestObject) (ListTargetsResponseObject, error) {
	limit := limitOf(in.Params.Limit) + 1
	list, after := "targets "+in.ID, ""
	if _, err := decodeCursor(list, in.Params.Cursor, &after); err != nil {
		return nil, err
	}
	all, err := s.store.TargetMembers(ctx, in.ID, after, limit)
	if err != nil {
		return nil, err
	}
	page := TargetPage{Items: []Target{}}
	if len(all) == limit {
		all = all[:limit-1]
		if page.Next, err = encodeCursor(list, all[len(all)-1].CustomerID); err != nil {
			return nil, err
		}
	}
	for _, t := range all {
		page.Items = append(page.Items, Target{CustomerID: t.CustomerID, Wave: t.Wave, Tier: t.Tier, Arm: t.Arm})
	}
	return ListTargets200JSONResponse(page), nil
}

// SummariseContacts implements the operation.
func (s *Server) SummariseContacts(ctx context.Context, in SummariseContactsRequestObject) (SummariseContactsResponseObject, error) {
	out := ContactSummary{Items: []ContactCount{}, Outcomes: []OutcomeCount{}}
	contacts, err := s.store.ContactCounts(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	for _, n := range contacts {
		out.Items = append(out.Items, ContactCount{Wave: n.Wave, Channel: n.Channel, State: n.State, Contacts: n.Contacts})
	}
	outcomes, err := s.store.OutcomeCounts(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	for _, n := range outcomes {
		out.Outcomes = append(out.Outcomes, OutcomeCount{Kind: n.Kind, Outcomes: n.Outcomes})
	}
	return SummariseContacts200JSONResponse(out), nil
}

// ListReviews implements the operation.
func (s *Server) ListReviews(ctx context.Context, in ListReviewsRequestObject) (ListReviewsResponseObject, error) {
	all, err := s.store.Reviews(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	list := ReviewList{Items: []Review{}}
	for _, v := range all {
		review := Review{
			Number: v.Number, Revision: v.Revision, Findings: rawJSON(v.Findings), Recommendation: v.Recommendation, DueAt: v.DueAt,
			Decision: v.Decision, ByDefault: v.ByDefault, Words: v.Words, DecidedAt: timeOf(v.DecidedAt), CreatedAt: v.CreatedAt,
		}
		if v.DecidedBy != nil {
			by := person(*v.DecidedBy, v.Decider)
			review.DecidedBy = &by
		}
		list.Items = append(list.Items, review)
	}
	return ListReviews200JSONResponse(list), nil
}

// DecideReview implements the operation.
func (s *Server) DecideReview(ctx context.Context, in DecideReviewRequestObject) (DecideReviewResponseObject, error) {
	r := requestOf(ctx)
	status, err := s.update(ctx, r, campaign.UpdateRecordReview, &campaign.RecordReview{
		Command: s.command(r), Review: in.Number, Decision: in.Body.Decision, Words: in.Body.Words,
	})
	if err != nil {
		return nil, err
	}
	return DecideReview200JSONResponse{CampaignID: in.ID, Status: status}, nil
}

// GetEvaluation implements the operation.
func (s *Server) GetEvaluation(ctx context.Context, in GetEvaluationRequestObject) (GetEvaluationResponseObject, error) {
	e, err := s.store.Evaluation(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return GetEvaluation200JSONResponse{Revision: e.Revision, Report: rawJSON(e.Report), Digest: e.Digest, CreatedAt: e.CreatedAt}, nil
}

// ListHistory implements the operation.
func (s *Server) ListHistory(ctx context.Context, in ListHistoryRequestObject) (ListHistoryResponseObject, error) {
	limit := limitOf(in.Params.Limit) + 1
	list, after := "history "+in.ID, int64(0)
	if _, err := decodeCursor(list, in.Params.Cursor, &after); err != nil {
		return nil, err
	}
	all, err := s.store.Events(ctx, in.ID, after, limit)
	if err != nil {
		return nil, err
	}
	page := HistoryPage{Items: []HistoryEvent{}}
	if len(all) == limit {
		all = all[:limit-1]
		if page.Next, err = encodeCursor(list, all[len(all)-1].Seq); err != nil {
			return nil, err
		}
	}
	for _, e := range all {
		data, err := json.Marshal(e.Data)
		if err != nil {
			return nil, fmt.Errorf("write event: %w", err)
		}
		event := HistoryEvent{Seq: e.Seq, At: e.At, Event: e.Event, Actor: e.Actor, Allowed: e.Allowed, Data: data}
		if e.ActorID != nil {
			event.ActorID = *e.ActorID
		}
		page.Items = append(page.Items, event)
	}
	return ListHistory200JSONResponse(page), nil
}

// ListArchive implements the operation.
func (s *Server) ListArchive(ctx context.Context, in ListArchiveRequestObject) (ListArchiveResponseObject, error) {
	all, err := s.store.ArchivedRuns(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	list := ArchiveList{Items: []ArchivedRun{}}
	for _, a := range all {
		list.Items = append(list.Items, ArchivedRun{
			WorkflowID: a.WorkflowID, RunID: a.RunID, Type: a.Type, Events: a.Events, StartedAt: a.StartedAt, ClosedAt: a.ClosedAt,
			Sha256: a.SHA256, BuildID: a.BuildID, ArchivedAt: a.ArchivedAt,
		})
	}
	return ListArchive200JSONResponse(list), nil
}

// ReplayCampaign implements the operation.
func (s *Server) ReplayCampaign(ctx context.Context, in ReplayCampaignRequestObject) (ReplayCampaignResponseObject, error) {
	r := requestOf(ctx)
	if r.campaign.ArchiveRuns == 0 {
		return nil, campaign.Errorf(campaign.CodeNotArchived, "the campaign has no archive yet: histories are archived when it is closed")
	}
	report, err := s.orchestrator.Replay(ctx, in.ID, r.resultID)
	if err != nil {
		return nil, err
	}
	return ReplayCampaign200JSONResponse(report), nil
}
