package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/evaluation"
	"github.com/musterhq/muster/store"
)

// Findings is what a mid-course review found; it is kept as JSON.
type Findings struct {
	Summary   string                   `json:"summary"`
	Simulated bool                     `json:"simulated"`
	DoneWaves []int                    `json:"done_waves"`
	OpenWaves []int                    `json:"open_waves"`
	Channels  []evaluation.Finding     `json:"channels"`
	Funnel    []evaluation.FunnelRates `json:"funnel"` // by wave, tier and channel
}

// Recommendation is what a review recommends; it is kept as JSON.
type Recommendation struct {
	Waves []WaveChange `json:"waves"`
}

// WaveChange gives a wave that has not begun another series of channels.
type WaveChange struct {
	Number int                   `json:"number"`
	From   []campaign.Channel    `json:"from"`
	To     []campaign.Channel    `json:"to"`
	Why    []evaluation.MixEntry `json:"why"`
}

// complaintLimit is the rate of complaints per contact above which a channel is
// dropped, once that is proven.
const complaintLimit = 0.002

// Measure measures a campaign in mid-course and stores findings and recommendation,
// once.
func (a *Activities) Measure(ctx context.Context, in campaign.ReviewInput) (campaign.Measured, error) {
	var measured campaign.Measured
	err := alive(ctx, func() error {
		plan, err := a.Store.LoadPlan(ctx, campaign.PlanRef{CampaignID: in.CampaignID, Revision: in.Revision})
		if err != nil {
			return err
		}
		cells, err := a.Store.Funnel(ctx, in.CampaignID, plan.Plan.Goal.Outcome)
		if err != nil {
			return err
		}
		costs := map[campaign.Channel]int64{}
		for _, c := range plan.Plan.Channels {
			if line, ok := plan.Plan.ContactLine(c.Channel); ok {
				cost, err := a.cost(ctx, in.CampaignID, line, plan.Plan.Goal.Outcome, a.Store.ChannelSpend)
				if err != nil {
					return err
				}
				costs[c.Channel] = cost.spent
			}
		}
		findings, recommendation := review(plan.Plan, cells, costs, in)
		var recommended any
		if len(recommendation.Waves) > 0 {
			recommended = recommendation
		}
		stored, advice, err := a.Store.OpenReview(ctx, in, findings, recommended)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(stored, &findings); err != nil {
			return fmt.Errorf("read findings: %w", err)
		}
		measured = campaign.Measured{Recommends: len(advice) > 0, Summary: findings.Summary}
		return nil
	})
	return measured, failure(ctx, err)
}

// review judges the channels by what they have done so far and gives every wave that
// has not begun the series of channels that follows from it.
func review(plan campaign.Plan, cells []store.FunnelCell, costs map[campaign.Channel]int64, in campaign.ReviewInput) (Findings, Recommendation) {
	results := channelResults(plan, cells, costs)
	f := Findings{Simulated: plan.Simulated, DoneWaves: in.DoneWaves, OpenWaves: in.OpenWaves, Funnel: evaluation.FunnelBy(funnelRows(cells), evaluation.ByRow)}
	f.Channels = evaluation.Review(results, nil, plan.Goal.UnitBenefit, complaintLimit).Findings
	var words []string
	for _, x := range f.Channels {
		words = append(words, fmt.Sprintf("%s: %.0f contacts, %.0f successes, %s", x.Channel, x.Figures["contacts"], x.Figures["positive"], strings.ReplaceAll(string(x.Code), "_", " ")))
	}
	var r Recommendation
	for _, w := range plan.Waves {
		if !slices.Contains(in.OpenWaves, w.Number) {
			continue
		}
		mix := make([]evaluation.ChannelShare, len(w.Channels))
		for i, c := range w.Channels {
			mix[i].Channel = string(c)
		}
		advice := evaluation.Review(results, mix, plan.Goal.UnitBenefit, complaintLimit)
		switch advice.Decision {
		case evaluation.DecisionChange:
			change := WaveChange{Number: w.Number, From: w.Channels, Why: advice.Mix}
			for _, e := range advice.Mix {
				if e.Action != evaluation.ActionDrop {
					change.To = append(change.To, campaign.Channel(e.Channel))
				}
			}
			r.Waves = append(r.Waves, change)
			words = append(words, fmt.Sprintf("wave %d should use %s instead of %s", w.Number, series(change.To), series(change.From)))
		case evaluation.DecisionStop:
			words = append(words, fmt.Sprintf("no channel of wave %d is worth its cost; consider stopping", w.Number))
		}
	}
	f.Summary = strings.Join(words, "; ")
	return f, r
}

func series(channels []campaign.Channel) string {
	names := make([]string, len(channels))
	for i, c := range channels {
		names[i] = string(c)
	}
	return strings.Join(names, " then ")
}

func channelResults(plan campaign.Plan, cells []store.FunnelCell, costs map[campaign.Channel]int64) []evaluation.ChannelResult {
	results := make([]evaluation.ChannelResult, len(plan.Channels))
	for i, c := range plan.Channels {
		r := evaluation.ChannelResult{Channel: string(c.Channel), PlannedRate: c.SuccessRate, Cost: costs[c.Channel]}
		for _, cell := range cells {
			if cell.Channel == c.Channel {
				r.Contacts += cell.Sent
				r.Reached += cell.Delivered
				r.Positive += cell.Positive
				r.Complaints += cell.Complained
			}
		}
		results[i] = r
	}
	return results
}

func funnelRows(cells []store.FunnelCell) []evaluation.FunnelRow {
	rows := make([]evaluation.FunnelRow, len(cells))
	for i, c := range cells {
		rows[i] = evaluation.FunnelRow{Wave: c.Wave, Tier: string(c.Tier), Channel: string(c.Channel), FunnelCounts: evaluation.FunnelCounts{
			Planned: c.Contacts, Sent: c.Sent, Delivered: c.Delivered, Reached: c.Delivered, Positive: c.Positive, Complained: c.Complained,
		}}
	}
	return rows
}

// CloseReview records how a review was decided: by a command that a person gave, or by the
// deadline once it has come. Anything else is a forgery and recorded as one.
func (a *Activities) CloseReview(ctx context.Context, in campaign.ReviewOutcome) error {
	if !in.ByDefault {
		if err := a.decided(ctx, in); err != nil {
			return failure(ctx, err)
		}
	}
	left, err := a.Store.CloseReview(ctx, in)
	if err == nil && left > 0 {
		return again(campaign.CodeStateConflict, left, "the database's clock is behind")
	}
	return failure(ctx, err)
}

// decided verifies that a person decided a review so.
func (a *Activities) decided(ctx context.Context, in campaign.ReviewOutcome) error {
	order := in.Command
	if order == nil {
		order = &campaign.RecordReview{}
	}
	claim, err := claimOf(in.CampaignID, campaign.UpdateRecordReview, order)
	if err != nil {
		return err
	}
	given, err := a.Store.GivenAt(ctx, claim)
	if err == nil {
		err = a.proven(claim, given)
	}
	if err == nil && (order.Review != in.Review || order.Decision != in.Decision || order.Words != in.Words || order.Actor != in.Actor) {
		err = campaign.Errorf(campaign.CodeAssertionMismatch, "review %d was decided otherwise", in.Review)
	}
	return a.tellForged(ctx, claim, err)
}

// ApplyRecommendation writes the plan revision that a review recommends: the revision
// in force with other series of channels for waves that had not begun. Its editor is
// who decided, or, when the deadline decided, the editor of the revision in force. A
// review has at most one such revision.
func (a *Activities) ApplyRecommendation(ctx context.Context, in campaign.ReviewRef) (campaign.LoadedPlan, error) {
	plan, err := a.applyRecommendation(ctx, in)
	return plan, failure(ctx, err)
}

func (a *Activities) applyRecommendation(ctx context.Context, in campaign.ReviewRef) (campaign.LoadedPlan, error) {
	reviewed, advice, err := a.Store.Recommendation(ctx, in.CampaignID, in.Review)
	if err != nil {
		return campaign.LoadedPlan{}, err
	}
	var r Recommendation
	if err := json.Unmarshal(advice, &r); err != nil {
		return campaign.LoadedPlan{}, fmt.Errorf("read recommendation: %w", err)
	}
	inForce, err := a.Store.RevisionInForce(ctx, in.CampaignID)
	if err != nil {
		return campaign.LoadedPlan{}, err
	}
	// The read model may be a moment behind; it is never ahead.
	base, err := a.Store.LoadPlan(ctx, campaign.PlanRef{CampaignID: in.CampaignID, Revision: max(reviewed, inForce)})
	if err != nil {
		return base, err
	}
	plan := base.Plan
	plan.Waves = slices.Clone(plan.Waves)
	for _, w := range r.Waves {
		if w.Number >= 1 && w.Number <= len(plan.Waves) {
			plan.Waves[w.Number-1].Channels = w.To
		}
	}
	if err := plan.Validate(); err != nil {
		return base, err
	}
	editor := in.Actor.UserID
	if editor == "" {
		editor = base.EditorID
	}
	return a.Store.AddRevision(ctx, in.CampaignID, store.NewRevision{
		Plan: plan, EditorID: editor, Base: base.Revision, Request: store.RequestOfReview(in.Review),
		Note: fmt.Sprintf("recommendation of review %d", in.Review),
	})
}
