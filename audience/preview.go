package audience

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
	"github.com/musterhq/muster/targeting"
)

// Question is what a preview is about: a plan, or a filter and channels.
type Question struct {
	CampaignID string              // of the plan, where it has one
	Plan       *campaign.Plan      // in place of the others
	Unit       campaign.OrgUnit    // whose customers
	Filter     string              // in the filter language
	Tree       *campaign.Condition // the form that Filter was made with, if it was
	Type       campaign.Type       // of the campaign; upsell when empty
	Channels   []campaign.Channel  // that may contact them
}

// Preview is a question that was understood, ready to be answered.
type Preview struct {
	Question
	Words    *Words
	Policy   targeting.ContactPolicy
	counted  targeting.Preview
	channels []campaign.Channel
	examples []targeting.Field
	seed     int32
	uses     []campaign.FilterUse // of a plan
}

// Reach is how many of the eligible a channel can contact.
type Reach struct {
	Channel   campaign.Channel `json:"channel"`
	Customers int64            `json:"customers"` // with a number, and nothing that keeps the channel from them
}

// Example is one of the eligible, without what identifies a person.
type Example struct {
	CustomerID string         `json:"customer_id"`
	External   string         `json:"external_id"` // masked
	Unit       string         `json:"unit"`
	Values     map[string]any `json:"values"` // of the attributes that the filter looks at
}

// Ask understands a question with the words and the contact policy of this moment. A filter
// that does not compile is CodeInvalidFilter with its field, line and column, and one that its
// tree does not generate CodeFilterMismatch.
func Ask(ctx context.Context, st *store.Store, q Question, now time.Time) (*Preview, error) {
	if q.Plan != nil {
		q.Unit, q.Filter, q.Tree, q.Type, q.Channels = q.Plan.Unit, q.Plan.Audience.Filter, q.Plan.Audience.Tree, q.Plan.Type, q.Plan.Reached()
	}
	if q.Type == "" {
		q.Type = campaign.TypeUpsell
	}
	p := &Preview{Question: q, channels: q.Channels}
	var err error
	if p.Words, err = Load(ctx, st, q.Unit.Tenant()); err != nil {
		return nil, err
	}
	if q.Plan != nil && q.CampaignID != "" {
		uses, err := st.SubmittedUses(ctx, q.CampaignID, q.Plan.Digests().Audience)
		if err != nil {
			return nil, err
		}
		if p.Words, err = p.Words.Pinned(ctx, st, uses); err != nil {
			return nil, err
		}
	}
	if p.Policy, err = st.ContactPolicy(ctx, q.Unit); err != nil {
		return nil, err
	}
	catalogue, err := p.Words.Catalogue()
	if err != nil {
		return nil, err
	}
	p.counted = targeting.Preview{Unit: string(q.Unit)}
	if p.counted.Conditions, err = conditions(catalogue, q.Filter, q.Tree); err != nil {
		return nil, err
	}
	// Everybody's sample is the same for the same question, and moves with every other.
	for _, c := range p.counted.Conditions {
		for _, r := range c.Text {
			p.seed = p.seed*31 + r
		}
	}
	p.seed &= 0x7fffffff
	if err := p.suppress(now); err != nil {
		return nil, err
	}
	p.show(catalogue)
	return p, nil
}

// conditions compiles a filter in the parts that a person wrote: of a tree each of its first
// level, of a text what its topmost && join.
func conditions(catalogue *targeting.Catalogue, filter string, tree *campaign.Condition) ([]targeting.Condition, error) {
	if faults := campaign.CheckTree(tree, filter); len(faults) > 0 {
		for i, f := range faults {
			faults[i].Field = strings.TrimSuffix("tree."+f.Field, ".")
		}
		return nil, &campaign.Error{Code: faults[0].Code, Message: "the filter and its tree do not fit", Fields: faults}
	}
	// The whole is compiled as well: its limits are of all parts together.
	if _, err := catalogue.Compile(filter); err != nil {
		return nil, Fault("filter", err)
	}
	if tree == nil || len(tree.All) == 0 {
		parts, err := catalogue.Conditions(filter)
		return parts, Fault("filter", err)
	}
	parts := make([]targeting.Condition, len(tree.All))
	for i, c := range tree.All {
		text, err := c.Filter()
		if err != nil {
			return nil, err
		}
		parts[i].Text = text
		if parts[i].Predicate, err = catalogue.Compile(text); err != nil {
			return nil, Fault(fmt.Sprintf("tree.all[%d]", i), err)
		}
	}
	return parts, nil
}

// Fault makes of a filter's error one of the field that it is in.
func Fault(field string, err error) error {
	var fault *targeting.FilterError
	if !errors.As(err, &fault) {
		return err
	}
	return &campaign.Error{Code: campaign.CodeInvalidFilter, Message: fault.Error(), Fields: []campaign.FieldError{FieldFault(field, fault)}}
}

// FieldFault tells where in a field a filter is wrong, and how.
func FieldFault(field string, fault *targeting.FilterError) campaign.FieldError {
	message := fault.Message
	if fault.Hint != "" {
		message += "; " + fault.Hint
	}
	return campaign.FieldError{Field: field, Code: campaign.CodeInvalidFilter, Message: message, Line: fault.Line, Column: fault.Column}
}

// suppress finds what keeps customers from being contacted, of a plan by the channel that
// contacts each tier first, and else what holds in every channel that is asked for.
func (p *Preview) suppress(now time.Time) error {
	if p.Plan != nil {
		loaded := campaign.LoadedPlan{Revision: 1, Plan: *p.Plan}
		sel, err := Selection(p.Words, p.CampaignID, loaded)
		if err != nil {
			return err
		}
		sel = Under(sel, p.CampaignID, *p.Plan, p.Policy, now, Estimated)
		p.uses = sel.Uses
		p.counted.Suppressions, p.counted.ByTier, p.counted.Tiers = sel.Suppressions, sel.ByTier, sel.Tiers
		p.counted.Quiet = quiet(sel, *p.Plan, p.Policy)
		p.counted.ControlShare, p.counted.Limit = sel.ControlShare, sel.Limit
		return nil
	}
	channel := campaign.Channel("")
	if len(p.channels) == 1 {
		channel = p.channels[0]
	}
	p.counted.Suppressions = p.Policy.Suppressions(p.intent(channel))
	return nil
}

func (p *Preview) intent(channel campaign.Channel) targeting.Intent {
	in := targeting.Intent{CampaignID: p.CampaignID, Tenant: p.Unit.Tenant(), Type: p.Type, Channel: channel}
	if p.Plan != nil {
		in.Simulated = p.Plan.Simulated
	}
	return in
}

// show chooses the attributes that examples are shown with: those that the filters look at.
func (p *Preview) show(catalogue *targeting.Catalogue) {
	const shown = 12
	var names []string
	for _, c := range p.counted.Conditions {
		names = append(names, c.Fields...)
	}
	for _, t := range p.counted.Tiers {
		names = append(names, t.Rule.Fields...)
	}
	for i, name := range names {
		if f, ok := catalogue.Field(name); ok && slices.Index(names, name) == i && len(p.examples) < shown {
			p.examples = append(p.examples, f)
		}
	}
}

// Count counts every customer.
func (p *Preview) Count(ctx context.Context, st *store.Store) (targeting.PreviewCounts, error) {
	sql, args := p.counted.SQL()
	cells, err := store.Count[targeting.PreviewCell](ctx, st, store.Query{SQL: sql, Args: args})
	return p.counted.Counts(cells, 0), err
}

// sampledBlocks is how much of the table an estimate reads: some ten thousand customers,
// which takes a fraction of a second however large the table is.
const sampledBlocks = 1500

// Estimate counts the customers of a sample of the table's blocks.
func (p *Preview) Estimate(ctx context.Context, st *store.Store) (targeting.PreviewCounts, error) {
	blocks, err := st.Blocks(ctx)
	if err != nil {
		return targeting.PreviewCounts{}, err
	}
	sql, args := p.counted.SampleSQL(min(100, 100*sampledBlocks/float64(max(blocks, 1))), p.seed)
	cells, err := store.Count[targeting.PreviewCell](ctx, st, store.Query{SQL: sql, Args: args})
	return p.counted.Counts(cells, blocks), err
}

// Reach counts whom of the eligible each channel can contact.
func (p *Preview) Reach(ctx context.Context, st *store.Store) (withNumber int64, reach []Reach, err error) {
	rules := make([][]targeting.Suppression, len(p.channels))
	for i, c := range p.channels {
		rules[i] = p.Policy.Suppressions(p.intent(c))
	}
	sql, args := p.counted.ReachSQL(rules)
	rows, err := store.Count[struct{ Counts []int64 }](ctx, st, store.Query{SQL: sql, Args: args})
	if err != nil {
		return 0, nil, err
	}
	reach = []Reach{}
	for i, c := range p.channels {
		reach = append(reach, Reach{c, rows[0].Counts[i+1]})
	}
	return rows[0].Counts[0], reach, nil
}

// Examples draws five of so many eligible by a hash.
func (p *Preview) Examples(ctx context.Context, st *store.Store, eligible int64) ([]Example, error) {
	const wanted = 5
	blocks, err := st.Blocks(ctx)
	if err != nil {
		return nil, err
	}
	type row struct {
		ID, External, Unit string
		Values             map[string]any
	}
	// Among many, five are found in a part of the table; only few call for all of it.
	percent := 100.0
	if eligible > 0 {
		percent = min(100, max(100*100*wanted/float64(eligible), 100*20/float64(max(blocks, 1))))
	}
	var rows []row
	for _, part := range []float64{percent, 100} {
		sql, args := p.counted.ExamplesSQL(p.examples, p.seed, part, wanted)
		if rows, err = store.Count[row](ctx, st, store.Query{SQL: sql, Args: args}); err != nil {
			return nil, err
		}
		if part == 100 || int64(len(rows)) >= min(wanted, eligible) {
			break
		}
	}
	examples := []Example{}
	for _, r := range rows {
		examples = append(examples, Example{r.ID, mask(r.External), r.Unit, r.Values})
	}
	return examples, nil
}

// mask leaves of an operator's own id what tells two apart at a glance, and no more.
func mask(id string) string {
	r := []rune(id)
	if len(r) <= 4 {
		return "***"
	}
	return "***" + string(r[len(r)-2:])
}

// Cost estimates what a plan's budget lines would cost at the counts, its best tiers filled
// first. begin is the day on which it would start, parts in how many parts a channel's message
// goes out. Without a plan there is nothing to price.
func (p *Preview) Cost(counts targeting.PreviewCounts, begin campaign.Date, parts func(campaign.ChannelPlan) int) ([]campaign.LineEstimate, error) {
	if p.Plan == nil {
		return nil, nil
	}
	treated, left := map[campaign.Tier]int64{}, counts.Targets
	for _, t := range counts.Tiers {
		n := min(t.Customers, left)
		left -= n
		treated[campaign.Tier(t.Name)] = n - targeting.ExpectedControl(n, p.counted.ControlShare)
	}
	return p.Plan.EstimateCost(treated, begin, parts)
}

// Uses lists what the filters name, as it was when they were understood.
func (p *Preview) Uses() []campaign.FilterUse {
	uses := append([]campaign.FilterUse{}, p.uses...)
	for _, c := range p.counted.Conditions {
		uses = added(uses, c.Uses...)
	}
	return uses
}
