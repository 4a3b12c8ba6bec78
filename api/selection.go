package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/musterhq/muster/audience"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/targeting"
)

// DryRunSelection implements the operation.
func (s *Server) DryRunSelection(ctx context.Context, in DryRunSelectionRequestObject) (DryRunSelectionResponseObject, error) {
	leave, err := s.previews.turn(requestOf(ctx).user.ID)
	if err != nil {
		return nil, err
	}
	defer leave()
	plan, err := s.store.LoadPlan(ctx, campaign.PlanRef{CampaignID: in.ID, Revision: requestOf(ctx).campaign.DraftRevision})
	if err != nil {
		return nil, err
	}
	sel, err := audience.Signed(ctx, s.store, in.ID, plan)
	if err != nil {
		return nil, err
	}
	policy, err := s.store.ContactPolicy(ctx, plan.Plan.Unit)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	dry, err := s.store.DryRun(ctx, audience.Under(sel, in.ID, plan.Plan, policy, now, audience.Estimated))
	if err != nil {
		return nil, err
	}
	dry.Uses = sel.Uses
	dry.Revision, dry.Audience, dry.Currency, dry.PolicyVersion = plan.Revision, plan.Plan.Digests().Audience, plan.Plan.Currency, policy.Version
	if dry.Cost, err = firstContacts(plan.Plan, dry.Cells, now); err != nil {
		return nil, err
	}
	return DryRunSelection200JSONResponse(dry), nil
}

// firstContacts prices one contact of each treated target through the channel that contacts
// them first, on the day on which their wave begins as planned.
func firstContacts(plan campaign.Plan, cells []campaign.DryRunCell, now time.Time) (int64, error) {
	planned := map[campaign.Channel]campaign.Counts{}
	for _, c := range cells {
		line, ok := plan.ContactLine(c.Channel)
		if c.Control || !ok {
			continue
		}
		if planned[c.Channel] == nil {
			planned[c.Channel] = campaign.Counts{}
		}
		channel, _ := plan.Channel(c.Channel)
		day := campaign.DateOf(now.Add(campaign.Seconds(plan.Waves[c.Wave-1].StartAfter)).UTC())
		planned[c.Channel][day] += c.Targets * line.UnitsPerContact(channel, 1)
	}
	var total int64
	for channel, counts := range planned {
		line, _ := plan.ContactLine(channel)
		cost, err := line.Cost(counts)
		if err != nil {
			return 0, err
		}
		if total, err = campaign.AddMinor(total, cost); err != nil {
			return 0, err
		}
	}
	return total, nil
}

// ListSelections implements the operation.
func (s *Server) ListSelections(ctx context.Context, in ListSelectionsRequestObject) (ListSelectionsResponseObject, error) {
	all, err := s.store.Selections(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return ListSelections200JSONResponse{Items: append([]SelectionRecord{}, all...)}, nil
}

// GetControl implements the operation.
func (s *Server) GetControl(ctx context.Context, in GetControlRequestObject) (GetControlResponseObject, error) {
	report, err := s.store.ControlReport(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return GetControl200JSONResponse(report), nil
}

// smallList is below how many customers the share of a control group is kept exactly.
const smallList = 20_000

// SizeExperiment implements the operation.
func (s *Server) SizeExperiment(_ context.Context, in SizeExperimentRequestObject) (SizeExperimentResponseObject, error) {
	answer, err := sizeExperiment(*in.Body)
	if errors.Is(err, targeting.ErrNotEstimable) {
		return nil, campaign.Errorf(campaign.CodeInvalidParameter, "%s", err.Error())
	}
	if err != nil {
		return nil, err
	}
	return SizeExperiment200JSONResponse(answer), nil
}

func sizeExperiment(q campaign.SizeRequest) (campaign.SizeAnswer, error) {
	test := targeting.StandardTest()
	if test.CUPED = q.Correlation; q.Alpha != 0 {
		test.Alpha = q.Alpha
	}
	if q.Power != 0 {
		test.Power = q.Power
	}
	share := q.ControlPercent / 100
	if !(share > 0 && share <= 0.5) || q.List < 0 {
		return campaign.SizeAnswer{}, fmt.Errorf("%w: control_percent lies above 0 and up to 50, list is not negative", targeting.ErrNotEstimable)
	}
	var a campaign.SizeAnswer
	var err error
	if a.Treated, a.Control, err = test.Sizes(q.Base, q.Lifted, share/(1-share)); err != nil {
		return a, err
	}
	held := a.Control
	if q.List > 0 {
		held = int64(float64(q.List) * share)
		a.Enough = q.List >= a.Treated+a.Control
		// That the list shows no increase at all is an answer and no fault.
		if a.Detectable, err = test.Detectable(q.Base, q.List-held, held); err != nil && !errors.Is(err, targeting.ErrNotEstimable) {
			return a, err
		}
	}
	a.ControlConversions = float64(held) * q.Base
	a.Measurable = a.ControlConversions >= targeting.Measurable
	a.Cost = int64(float64(held) * (q.Lifted - q.Base) * float64(q.ConversionGain))
	if a.Method = campaign.ControlByHash; q.List > 0 && q.List < smallList {
		a.Method = campaign.ControlExact
	}
	return a, nil
}
