package api

import (
	"context"
	"errors"
	"fmt"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// openTasksCounted bounds the count of open tasks.
const openTasksCounted = 10_000

func taskOf(t store.Task) Task {
	return Task{
		ID: t.ID, CampaignID: t.CampaignID, Campaign: t.Campaign, Channel: t.Channel, Unit: t.Unit, Wave: t.Wave, Tier: t.Tier, Script: t.Script,
		Attempt: t.Attempt, MaximumAttempts: t.MaximumAttempts, LeaseUntil: t.LeaseUntil, NotAfter: t.NotAfter, Simulated: t.Simulated,
		Customer: TaskCustomer{ID: t.CustomerID, ExternalID: t.ExternalID, TimeZone: t.TimeZone, Phone: t.Phone, Attributes: t.Attributes},
	}
}

// ListTasks implements the operation.
func (s *Server) ListTasks(ctx context.Context, _ ListTasksRequestObject) (ListTasksResponseObject, error) {
	r := requestOf(ctx)
	mine, err := s.store.ClaimedTasks(ctx, r.user.ID)
	if err != nil {
		return nil, err
	}
	list := TaskList{Items: []Task{}}
	for _, t := range mine {
		list.Items = append(list.Items, taskOf(t))
	}
	if list.Open, err = s.store.OpenTasks(ctx, r.units, openTasksCounted); err != nil {
		return nil, err
	}
	return ListTasks200JSONResponse(list), nil
}

// ClaimTasks implements the operation.
func (s *Server) ClaimTasks(ctx context.Context, in ClaimTasksRequestObject) (ClaimTasksResponseObject, error) {
	r := requestOf(ctx)
	claimed, err := s.store.ClaimTasks(ctx, store.TaskClaim{
		AgentID: r.user.ID, Units: r.units, Channel: in.Body.Channel, CampaignID: in.Body.CampaignID, Limit: in.Body.Limit,
		Lease: campaign.Seconds(int64(in.Body.LeaseSeconds)),
	})
	if err != nil {
		return nil, err
	}
	list := ClaimedTasks{Items: []Task{}}
	for _, t := range claimed {
		list.Items = append(list.Items, taskOf(t))
	}
	return ClaimTasks200JSONResponse(list), nil
}

func reportOf(field, taskID string, result campaign.OutcomeKind, seconds int, note string, outcomes []TaskOutcome) (store.TaskReport, error) {
	report := store.TaskReport{TaskID: taskID, Result: result, Seconds: int64(seconds), Note: note}
	seen := map[campaign.OutcomeKind]bool{campaign.OutcomeConnected: true, campaign.OutcomeNoAnswer: true}
	for i, o := range outcomes {
		if seen[o.Kind] {
			return report, faults([]campaign.FieldError{{
				Field: fmt.Sprintf("%soutcomes[%d].kind", field, i), Code: campaign.CodeInvalidParameter,
				Message: "is told by the result or by another outcome already",
			}})
		}
		seen[o.Kind] = true
		report.Outcomes = append(report.Outcomes, store.Outcome{Kind: o.Kind, Value: o.Value, At: o.At})
	}
	return report, nil
}

// CompleteTask implements the operation.
func (s *Server) CompleteTask(ctx context.Context, in CompleteTaskRequestObject) (CompleteTaskResponseObject, error) {
	r, b := requestOf(ctx), in.Body
	report, err := reportOf("", in.TaskID, b.Result, b.CallSeconds, b.Note, b.Outcomes)
	if err != nil {
		return nil, err
	}
	results, err := s.store.CompleteTasks(ctx, r.user.ID, r.units, r.key, []store.TaskReport{report})
	if err != nil {
		return nil, err
	}
	if results[0].Fault != nil {
		return nil, results[0].Fault
	}
	return CompleteTask200JSONResponse{TaskID: results[0].TaskID, State: results[0].State, Attempts: results[0].Attempts}, nil
}

// CompleteTasks implements the operation.
func (s *Server) CompleteTasks(ctx context.Context, in CompleteTasksRequestObject) (CompleteTasksResponseObject, error) {
	r := requestOf(ctx)
	reports := make([]store.TaskReport, len(in.Body.Reports))
	for i, b := range in.Body.Reports {
		var err error
		if reports[i], err = reportOf(fmt.Sprintf("reports[%d].", i), b.TaskID, b.Result, b.CallSeconds, b.Note, b.Outcomes); err != nil {
			return nil, err
		}
	}
	results, err := s.store.CompleteTasks(ctx, r.user.ID, r.units, r.key, reports)
	if err != nil {
		return nil, err
	}
	list := TaskResultList{Items: []TaskResult{}}
	for i, result := range results {
		item := TaskResult{TaskID: result.TaskID, State: result.State, Attempts: result.Attempts}
		var fault *campaign.Error
		if errors.As(result.Fault, &fault) {
			item.Fault = &campaign.FieldError{Field: fmt.Sprintf("reports[%d]", i), Code: fault.Code, Message: fault.Message}
		}
		list.Items = append(list.Items, item)
	}
	return CompleteTasks200JSONResponse(list), nil
}

// RecordOutcomes implements the operation.
func (s *Server) RecordOutcomes(ctx context.Context, in RecordOutcomesRequestObject) (RecordOutcomesResponseObject, error) {
	c := requestOf(ctx).campaign
	if c.Stage != campaign.StageRunning && c.Stage != campaign.StageSettlement {
		return nil, campaign.Errorf(campaign.CodeStateConflict, "the campaign is in %s; outcomes are accepted from the start of running to the end of settlement", c.Stage)
	}
	batch := make([]store.Outcome, len(in.Body.Outcomes))
	for i, o := range in.Body.Outcomes {
		batch[i] = store.Outcome{
			CustomerID: o.CustomerID, ContactID: o.ContactID, Kind: o.Kind, Value: o.Value, At: o.At, Source: o.Source, SourceID: o.SourceID,
		}
	}
	landed, err := s.store.RecordOutcomes(ctx, c.ID, c.Simulated, batch)
	if err != nil {
		return nil, err
	}
	return RecordOutcomes200JSONResponse{Accepted: landed.Accepted, Duplicate: landed.Duplicate, Faults: landed.Faults}, nil
}
