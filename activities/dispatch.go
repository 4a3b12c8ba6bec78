package activities

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"
	"golang.org/x/time/rate"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/channels"
	"github.com/musterhq/muster/store"
)

const (
	// Verdicts are written while the batch is still under way, so many at a time or
	// after so long, whichever comes first.
	flushSize  = 50
	flushAfter = 20 * time.Millisecond
	// leastRetry keeps a message that did not leave from being tried again at once.
	leastRetry = 200 * time.Millisecond
	// maxNap bounds how long a chunk with nothing to do waits before it looks again.
	maxNap = time.Second
)

// DispatchChunk sends the planned contacts of a chunk, or publishes them as tasks. A
// second attempt reads from the database what is left to do, so it never sends twice:
// what the first one left in the middle of sending becomes unknown.
func (a *Activities) DispatchChunk(ctx context.Context, in campaign.ChunkInput) (campaign.ChunkResult, error) {
	c := &chunk{Activities: a, in: in}
	var result campaign.ChunkResult
	err := aliveAt(ctx, c.settled.Load, func() (err error) {
		result, err = c.run(ctx)
		return err
	})
	return result, failure(ctx, err)
}

// chunk is one attempt at dispatching a chunk.
type chunk struct {
	*Activities
	in       campaign.ChunkInput
	plan     campaign.ChannelPlan
	dispatch *store.Dispatch
	sender   channels.Sender
	settled  atomic.Int64
}

func (c *chunk) run(ctx context.Context) (campaign.ChunkResult, error) {
	var none campaign.ChunkResult
	plan, err := c.signed(ctx)
	if err != nil {
		return none, err
	}
	var ok bool
	if c.plan, ok = plan.Plan.Channel(c.in.Channel); !ok {
		return none, campaign.Errorf(campaign.CodeInvalidPlan, "channel %s is not in plan revision %d", c.in.Channel, c.in.Revision)
	}
	if err := c.Store.RefuseFrozen(ctx, c.in.CampaignID); err != nil {
		return none, c.refuseDispatch(ctx, "", campaign.ChannelRef{CampaignID: c.in.CampaignID, Wave: c.in.Wave, Revision: c.in.Revision, Channel: c.in.Channel}, c.in.Revision, err)
	}
	owner := c.Instance + "/" + uuid.NewString()
	if c.dispatch, err = c.Store.Dispatch(c.in, owner, c.Tuning.Lease); err != nil {
		return none, err
	}
	if c.in.Channel.Pull() {
		held, err := c.dispatch.PublishTasks(ctx, c.plan)
		return campaign.ChunkResult{Settled: c.in.ToSeq - c.in.FromSeq + 1, Held: held}, err
	}
	if c.sender = c.Senders[c.in.Channel]; c.sender == nil {
		return none, campaign.Errorf(campaign.CodeChannelUnavailable, "this worker has no sender for channel %s", c.in.Channel)
	}
	if plan.Plan.Simulated != c.Simulated {
		return none, campaign.Errorf(campaign.CodeChannelUnavailable,
			"a simulated campaign is only sent to a simulator, a real one only to a real provider; campaign simulated: %t, channel %s simulated: %t",
			plan.Plan.Simulated, c.in.Channel, c.Simulated)
	}
	working, release := untilStopped(ctx)
	defer release()
	return c.push(ctx, working)
}

// signed loads the plan that the contacts were made by, if that is the one that is asked
// for and it was signed; whatever is sent is what it says. A rule's refusal is recorded.
func (c *chunk) signed(ctx context.Context) (campaign.LoadedPlan, error) {
	plan, err := c.Store.BatchPlan(ctx, campaign.ChannelRef{CampaignID: c.in.CampaignID, Wave: c.in.Wave, Revision: c.in.Revision, Channel: c.in.Channel}, c.authoriseSigned)
	if rule := ruleOf(err); rule != nil {
		told := c.tellRefused(ctx, "chunk:"+callKey(ctx), c.in.CampaignID, "dispatch.refused", rule, map[string]any{
			"wave": c.in.Wave, "channel": c.in.Channel, "revision": c.in.Revision, "shard": c.in.Shard, "from_seq": c.in.FromSeq,
		})
		if told != nil {
			return plan, told
		}
	}
	return plan, err
}

// push sends until nothing of the chunk is open, the campaign is held, or working ends.
func (c *chunk) push(ctx, working context.Context) (campaign.ChunkResult, error) {
	for {
		count, err := c.dispatch.Count(ctx)
		if err != nil {
			return campaign.ChunkResult{}, err
		}
		c.settled.Store(count.Settled)
		result := campaign.ChunkResult{Settled: count.Settled, Held: count.Held}
		switch {
		case count.Open() == 0:
			result.Held = false
			return result, nil
		case count.Held:
			return result, nil
		case working.Err() != nil:
			return result, stopping(ctx)
		case count.Ready == 0:
			nap(working, min(max(count.Wait, 10*time.Millisecond), maxNap))
			continue
		}
		if err := c.drain(ctx, working); err != nil {
			return result, err
		}
	}
}

// drain claims and sends batch after batch until no contact is due or the campaign is held.
func (c *chunk) drain(ctx, working context.Context) error {
	for working.Err() == nil {
		n, err := c.pace.take(working, c.in.CampaignID, c.plan, c.Tuning.ClaimSize)
		if err != nil {
			return nil //nolint:nilerr // working has ended, which is no fault
		}
		claims, err := c.dispatch.Claim(ctx, n)
		if err != nil || len(claims) == 0 {
			return err
		}
		held, err := c.send(ctx, working, claims)
		if err != nil || held {
			return err
		}
	}
	return nil
}

// send commits the intent to send a batch, sends it, and writes the verdicts while
// they come in.
func (c *chunk) send(ctx, working context.Context, claims []store.Claim) (held bool, err error) {
	out, held, err := c.dispatch.Intend(ctx, claims, string(c.in.Channel), parts(c.plan))
	if err != nil || held {
		// Whatever the fault was: what has no intent has not left. Contacts whose intent
		// was committed after all are not touched by this.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.Tuning.Lease)
		defer cancel()
		return held, errors.Join(err, c.dispatch.GiveBack(ctx, claims))
	}
	if len(out) == 0 {
		return false, nil
	}
	j := newJournal(ctx, c, out)
	var batch []channels.Message
	var sent []store.Outgoing
	for _, o := range out {
		if o.Number == "" {
			j.verdict(o, channels.Result{Verdict: channels.Refused, Reason: "the number cannot be read"})
			continue
		}
		sent = append(sent, o)
		batch = append(batch, channels.Message{
			ContactID: o.ContactID.String(), Epoch: o.Epoch, To: o.Number, From: c.plan.Sender, Text: c.plan.Text,
		})
	}
	sendErr := c.sender.Send(working, batch, func(i int, r channels.Result) { j.verdict(sent[i], r) })
	if err := j.close(); err != nil {
		return false, err
	}
	if sendErr != nil && working.Err() == nil {
		return false, &campaign.Error{Code: campaign.CodeChannelUnavailable, Message: fmt.Sprintf("channel %s cannot be reached; what has not left is sent later", c.in.Channel), Err: sendErr}
	}
	return false, nil
}

// journal writes the verdicts of a batch in small sets while the rest is under way, and
// renews the leases of what has none yet.
type journal struct {
	chunk    *chunk
	ctx      context.Context
	verdicts chan store.Completion
	ended    chan struct{}
	waiting  map[uuid.UUID]bool
	err      error
}

func newJournal(ctx context.Context, c *chunk, out []store.Outgoing) *journal {
	j := &journal{
		chunk: c, verdicts: make(chan store.Completion, len(out)), ended: make(chan struct{}), waiting: map[uuid.UUID]bool{},
		// What is known of bytes that left must be written, also when the activity is
		// cancelled.
		ctx: context.WithoutCancel(ctx),
	}
	for _, o := range out {
		j.waiting[o.ContactID] = true
	}
	go j.write()
	return j
}

// verdict takes the verdict of one message. It never blocks: there is room for all.
func (j *journal) verdict(o store.Outgoing, r channels.Result) {
	j.verdicts <- store.Completion{
		ContactID: o.ContactID, Epoch: o.Epoch, Outcome: string(r.Verdict), ProviderID: r.ProviderID, Reason: r.Reason,
		RetryAfter: max(r.RetryAfter, leastRetry),
	}
}

// close writes what is left, and returns the first fault.
func (j *journal) close() error {
	close(j.verdicts)
	<-j.ended
	return j.err
}

func (j *journal) write() {
	defer close(j.ended)
	lease := j.chunk.Tuning.Lease
	renew := time.NewTicker(lease / 3)
	defer renew.Stop()
	var set []store.Completion
	var timer <-chan time.Time
	flush := func() {
		timer = nil
		if len(set) == 0 {
			return
		}
		for _, c := range set {
			delete(j.waiting, c.ContactID)
		}
		if err := persist(j.ctx, lease, func(ctx context.Context) error { return j.chunk.dispatch.Complete(ctx, set) }); err != nil && j.err == nil {
			j.err = err
		}
		set = set[:0]
	}
	for {
		select {
		case c, open := <-j.verdicts:
			if !open {
				flush()
				return
			}
			set = append(set, c)
			// What came in during the last write goes with it.
			if len(set) >= flushSize && len(j.verdicts) == 0 {
				flush()
			} else if timer == nil {
				timer = time.After(flushAfter)
			}
		case <-timer:
			flush()
		case <-renew.C:
			ctx, cancel := context.WithTimeout(j.ctx, lease/3)
			// A lease that is not renewed ends: the contact becomes unknown, and its verdict
			// still proves what it proves.
			if err := j.chunk.dispatch.Extend(ctx, slices.Collect(maps.Keys(j.waiting))); err != nil && j.err == nil {
				j.err = err
			}
			cancel()
		}
	}
}

// persist tries f again and again for as long as patience lasts: a verdict that is not
// written leaves its contact unknown for good.
func persist(ctx context.Context, patience time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := f(ctx)
		if err == nil || defect(err) || ctx.Err() != nil {
			return err
		}
		nap(ctx, 200*time.Millisecond)
	}
}

// untilStopped returns a context that ends with ctx or as soon as the worker is asked
// to stop: then nothing new is claimed, what has not left comes back, and verdicts are
// still written.
func untilStopped(ctx context.Context) (context.Context, context.CancelFunc) {
	working, cancel := context.WithCancel(ctx)
	if !activity.IsActivity(ctx) {
		return working, cancel
	}
	stop := activity.GetWorkerStopChannel(ctx)
	go func() {
		select {
		case <-stop:
			cancel()
		case <-working.Done():
		}
	}()
	return working, cancel
}

// stopping is the end of an attempt whose worker stops: another worker goes on.
func stopping(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return again(campaign.CodeLeaseLost, time.Millisecond, "the worker stops; another one goes on")
}

func nap(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// pace holds a plan's own limit of messages per second, shared by all chunks that this
// process runs. What the provider allows is the sender's business.
type pace struct {
	mu       sync.Mutex
	limiters map[string]*rate.Limiter
}

// take waits until n messages of a campaign's channel may be sent, or as many as its
// limit lets out at a time, and returns how many.
func (p *pace) take(ctx context.Context, campaignID string, plan campaign.ChannelPlan, n int) (int, error) {
	if plan.PerSecond <= 0 {
		return n, ctx.Err()
	}
	key := campaignID + "/" + string(plan.Channel)
	// What may leave in a burst is taken off the refill, so that no second passes the limit.
	burst := max(plan.PerSecond/10, 1)
	refill := rate.Limit(max(plan.PerSecond-burst, 1))
	p.mu.Lock()
	l := p.limiters[key]
	if l == nil || l.Limit() != refill {
		if p.limiters == nil {
			p.limiters = map[string]*rate.Limiter{}
		}
		l = rate.NewLimiter(refill, burst)
		p.limiters[key] = l
	}
	p.mu.Unlock()
	n = min(n, l.Burst())
	return n, l.WaitN(ctx, n)
}
