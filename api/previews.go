package api

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/musterhq/muster/audience"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/channels"
	"github.com/musterhq/muster/store"
	"github.com/musterhq/muster/targeting"
)

const (
	exactWithin  = 2 * time.Second // what takes longer is estimated first
	countWithin  = 2 * time.Minute // what takes longer is given up
	previewsKept = 10 * time.Minute
	countsOpen   = 2 // of one user at once, previews and all else: each holds a connection
	previewsMost = 500
)

// previews are the previews that this process counts or has counted lately.
type previews struct {
	mu     sync.Mutex
	all    map[string]*preview
	open   map[string]int // what each user has counted now
	closed bool
}

// turn lets a user count something large, no more than countsOpen at once: more is
// CodeRateLimited. leave is called when it is counted.
func (all *previews) turn(user string) (leave func(), err error) {
	all.mu.Lock()
	defer all.mu.Unlock()
	return all.take(user)
}

// take is turn for those who hold the lock.
func (all *previews) take(user string) (leave func(), err error) {
	if n := all.open[user]; n >= countsOpen {
		return nil, campaign.Errorf(campaign.CodeRateLimited,
			"%d previews, dry runs, simulations or routes of yours are being counted; wait for one, or cancel a preview", n)
	}
	if all.open == nil {
		all.open = map[string]int{}
	}
	all.open[user]++
	return func() {
		all.mu.Lock()
		defer all.mu.Unlock()
		if all.open[user]--; all.open[user] == 0 {
			delete(all.open, user)
		}
	}, nil
}

// preview is one that is counted in the background.
type preview struct {
	id, owner string
	asked     *audience.Preview
	began     time.Time
	cancel    context.CancelFunc
	counted   chan struct{} // closed when the exact counts are there, or will not come
	done      chan struct{} // closed when nothing more will come

	mu  sync.Mutex
	out AudiencePreview
}

// snapshot is the preview as it stands.
func (p *preview) snapshot() AudiencePreview {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out
}

func (p *preview) update(change func(out *AudiencePreview)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.out)
}

func (p *preview) finished() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// start counts a preview in the background, as long as countWithin, whatever becomes of the
// request that asked for it. It takes one of the owner's turns.
func (all *previews) start(ctx context.Context, st *store.Store, owner string, asked *audience.Preview) (*preview, error) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for id, p := range all.all {
		if p.finished() && (time.Since(p.began) > previewsKept || len(all.all) >= previewsMost) {
			delete(all.all, id)
		}
	}
	switch {
	case all.closed:
		return nil, campaign.Errorf(campaign.CodeDraining, "this process is about to end; ask again")
	case len(all.all) >= previewsMost:
		return nil, campaign.Errorf(campaign.CodeRateLimited, "%d previews are being counted; ask again", previewsMost)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	leave, err := all.take(owner)
	if err != nil {
		return nil, err
	}
	p := &preview{
		id: id.String(), owner: owner, asked: asked, began: time.Now(), counted: make(chan struct{}), done: make(chan struct{}),
		out: AudiencePreview{ID: id.String(), State: previewCounting, AsOf: time.Now(), PolicyVersion: asked.Policy.Version, Uses: asked.Uses()},
	}
	counting, cancel := context.WithTimeout(context.WithoutCancel(ctx), countWithin)
	p.cancel = cancel
	all.all[p.id] = p
	go func() {
		defer cancel()
		defer leave()
		p.count(counting, st)
	}()
	return p, nil
}

// The states of a preview.
const (
	previewCounting  = "counting"
	previewDone      = "done"
	previewCancelled = "cancelled"
	previewFailed    = "failed"
)

// count counts exactly: the figures first, then what channels reach, then examples.
func (p *preview) count(ctx context.Context, st *store.Store) {
	defer close(p.done)
	err := func() error {
		defer close(p.counted)
		began := time.Now()
		counts, err := p.asked.Count(ctx, st)
		if err != nil {
			return err
		}
		return p.tell(counts, began, false)
	}()
	if err == nil {
		err = p.look(ctx, st)
	}
	p.update(func(out *AudiencePreview) {
		switch {
		case err == nil:
			out.State = previewDone
		case errors.Is(ctx.Err(), context.Canceled):
			out.State = previewCancelled
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			out.State, out.Reason = previewFailed, "counting took too long; the estimate is what there is"
		default:
			e := asError(err)
			out.State, out.Reason = previewFailed, e.Message
		}
	})
}

func (p *preview) look(ctx context.Context, st *store.Store) error {
	withNumber, reach, err := p.asked.Reach(ctx, st)
	if err != nil {
		return err
	}
	out := &AudienceReach{WithNumber: withNumber, Channels: []ChannelReach{}}
	for _, r := range reach {
		out.Channels = append(out.Channels, ChannelReach{Channel: r.Channel, Customers: r.Customers})
	}
	p.update(func(o *AudiencePreview) { o.Reach = out })
	found, err := p.asked.Examples(ctx, st, p.snapshot().Counts.Eligible.Customers)
	if err != nil {
		return err
	}
	examples := []AudienceExample{}
	for _, x := range found {
		examples = append(examples, AudienceExample{CustomerID: x.CustomerID, ExternalID: x.External, Unit: campaign.OrgUnit(x.Unit), Values: x.Values})
	}
	p.update(func(o *AudiencePreview) { o.Examples = examples })
	return nil
}

// tell makes figures known, with what they would cost. An estimate never takes the place of
// what was counted.
func (p *preview) tell(counts targeting.PreviewCounts, at time.Time, estimated bool) error {
	cost, err := p.asked.Cost(counts, campaign.DateOf(at), func(c campaign.ChannelPlan) int {
		n, _ := channels.Parts(c.Text)
		return n
	})
	if err != nil {
		return err
	}
	p.update(func(out *AudiencePreview) {
		if estimated && out.Counts != nil {
			return
		}
		out.AsOf, out.Estimated, out.Counts, out.Cost = at, estimated, countsOf(counts), costOf(cost)
	})
	return nil
}

func (all *previews) find(id, owner string) (*preview, error) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if p := all.all[id]; p != nil && p.owner == owner {
		return p, nil
	}
	return nil, campaign.Errorf(campaign.CodeNotFound, "there is no such preview: it is kept for %d minutes, by the process that counted it", int(previewsKept.Minutes()))
}

// close cancels what is being counted and lets nothing begin.
func (all *previews) close() {
	all.mu.Lock()
	defer all.mu.Unlock()
	all.closed = true
	for _, p := range all.all {
		p.cancel()
	}
}

// PreviewAudience implements the operation.
func (s *Server) PreviewAudience(ctx context.Context, in PreviewAudienceRequestObject) (PreviewAudienceResponseObject, error) {
	r, b := requestOf(ctx), in.Body
	asked, err := audience.Ask(ctx, s.store, audience.Question{
		CampaignID: b.CampaignID, Plan: b.Plan, Unit: b.Unit, Filter: b.Filter, Tree: b.Tree, Type: b.Type, Channels: b.Channels,
	}, time.Now())
	if err != nil {
		return nil, err
	}
	if asked.Unit != b.Unit {
		return nil, faults([]campaign.FieldError{{Field: "unit", Code: campaign.CodeInvalidParameter, Message: "must be the plan's"}})
	}
	p, err := s.previews.start(ctx, s.store, r.user.ID, asked)
	if err != nil {
		return nil, err
	}
	late := time.NewTimer(s.exactWithin)
	defer late.Stop()
	select {
	case <-p.done:
	case <-late.C:
		if p.snapshot().Counts == nil {
			began := time.Now()
			counts, err := asked.Estimate(ctx, s.store)
			if err == nil {
				err = p.tell(counts, began, true)
			}
			if err != nil {
				p.cancel()
				return nil, err
			}
		}
	case <-ctx.Done():
		p.cancel()
		return nil, ctx.Err()
	}
	return PreviewAudience200JSONResponse(p.snapshot()), nil
}

// GetPreview implements the operation.
func (s *Server) GetPreview(ctx context.Context, in GetPreviewRequestObject) (GetPreviewResponseObject, error) {
	p, err := s.previews.find(in.PreviewID, requestOf(ctx).user.ID)
	if err != nil {
		return nil, err
	}
	wait := time.NewTimer(time.Duration(in.Params.Wait) * time.Second)
	defer wait.Stop()
	select {
	case <-p.done:
	case <-wait.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return GetPreview200JSONResponse(p.snapshot()), nil
}

// CancelPreview implements the operation.
func (s *Server) CancelPreview(ctx context.Context, in CancelPreviewRequestObject) (CancelPreviewResponseObject, error) {
	p, err := s.previews.find(in.PreviewID, requestOf(ctx).user.ID)
	if err != nil {
		return nil, err
	}
	p.cancel()
	select {
	case <-p.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return CancelPreview200JSONResponse(p.snapshot()), nil
}

func figureOf(f targeting.Figure) Figure {
	return Figure{Customers: f.Customers, StandardError: f.StandardError}
}

func figuresOf(all []targeting.NamedFigure) []NamedFigure {
	out := make([]NamedFigure, len(all))
	for i, f := range all {
		out[i] = NamedFigure{Name: f.Name, Customers: f.Customers, StandardError: f.StandardError}
	}
	return out
}

func quietOf(all []targeting.QuietFigure) []QuietFigure {
	out := []QuietFigure{}
	for _, q := range all {
		out = append(out, QuietFigure{Rule: q.Rule, Deferred: q.Deferred, TooLate: q.TooLate})
	}
	return out
}

func countsOf(c targeting.PreviewCounts) *AudienceCounts {
	return &AudienceCounts{
		InUnit: figureOf(c.InUnit), Conditions: figuresOf(c.Conditions), Suppressed: figuresOf(c.Suppressed), Quiet: quietOf(c.Quiet), NoTier: figureOf(c.NoTier), Tiers: figuresOf(c.Tiers),
		Units: figuresOf(c.Units), Eligible: figureOf(c.Eligible), Targets: c.Targets, Control: c.Control, Sampled: c.Sampled,
	}
}

// costOf sums up what lines would cost.
func costOf(lines []campaign.LineEstimate) *AudienceCost {
	if lines == nil {
		return nil
	}
	cost := &AudienceCost{Lines: []LineCost{}}
	for _, l := range lines {
		cost.Lines = append(cost.Lines, LineCost{Line: l.Line, Category: l.Category, Units: l.Units, Cost: l.Cost, Amount: l.Amount})
		cost.Total += l.Cost
		if l.Category == campaign.CategoryPrepaid {
			cost.Credit += l.Cost
		}
	}
	return cost
}
