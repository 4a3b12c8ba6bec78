package smpp

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/musterhq/muster/channels"
)

// Messages under way get this long for their answers after their Send was
// cancelled or the sender closed, or the response timeout if that is shorter.
const lastAnswers = 5 * time.Second

// Sender sends over the sessions of one route. Make it with New.
//
// Messages wait in the job of their Send until a session with room in its
// window takes them, so that a message belongs either to a job (it has not
// left) or to one session (it may have). One mutex guards both sides.
type Sender struct {
	cfg     Config
	inbox   channels.Inbox
	limiter *rate.Limiter

	ctx     context.Context
	cancel  context.CancelFunc
	closing chan struct{}
	sends   sync.WaitGroup
	tasks   sync.WaitGroup
	inbound chan inbound

	mu        sync.Mutex
	jobs      []*job // that still have messages to take, oldest first
	sessions  map[*session]struct{}
	downSince time.Time // when the last session was lost; zero while one is bound
	closed    bool
}

// job is one Send under way.
type job struct {
	ctx      context.Context
	batch    []channels.Message
	done     func(int, channels.Result)
	out      []outgoing
	ready    int // out[:ready] is encoded
	next     int // batch[:next] has been taken by a session, refused or withdrawn
	open     atomic.Int64
	finished chan struct{}
}

// verdict is a result on its way to the caller; given outside of the mutex.
type verdict struct {
	job *job
	i   int
	channels.Result
}

// New returns a sender that binds in the background and keeps binding until it
// is closed; ctx gives it values but does not end it. Receipts and replies go to
// inbox. It fails only on a wrong configuration.
func New(ctx context.Context, cfg Config, inbox channels.Inbox) (*Sender, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if inbox == nil {
		return nil, errors.New("smpp: no inbox for receipts and replies")
	}
	s := &Sender{
		cfg: cfg, inbox: inbox, limiter: newLimiter(cfg.Rate),
		closing: make(chan struct{}), inbound: make(chan inbound, inboundQueue),
		sessions: map[*session]struct{}{}, downSince: time.Now(),
	}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.tasks.Go(s.deliver)
	for range cfg.Binds {
		s.tasks.Go(s.keepBound)
	}
	return s, nil
}

// newLimiter returns a bucket that lets no second pass more than perSecond: what
// may leave in a burst is taken off the refill rate. Small rates have no burst.
func newLimiter(perSecond float64) *rate.Limiter {
	if perSecond == 0 {
		return nil
	}
	burst := int(perSecond / 100)
	if burst <= 1 {
		return rate.NewLimiter(rate.Limit(perSecond), 1)
	}
	return rate.NewLimiter(rate.Limit(perSecond-float64(burst)), burst)
}

// Send implements channels.Sender.
func (s *Sender) Send(ctx context.Context, batch []channels.Message, done func(i int, r channels.Result)) error {
	if len(batch) == 0 {
		return nil
	}
	j := &job{
		ctx: ctx, batch: batch, done: done,
		out: make([]outgoing, len(batch)), finished: make(chan struct{}),
	}
	j.open.Store(int64(len(batch)))

	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.withdraw(j, "the channel is closed", 0)
		return channels.ErrClosed
	}
	s.sends.Add(1)
	defer s.sends.Done()
	s.jobs = append(s.jobs, j)
	s.mu.Unlock()

	s.encode(j)
	return s.await(j)
}

// encode readies the batch in strides, so that the first messages are under way
// while the rest is encoded.
func (s *Sender) encode(j *job) {
	const stride = 64
	for from := 0; from < len(j.batch) && j.ctx.Err() == nil; from += stride {
		to := min(from+stride, len(j.batch))
		for i := from; i < to; i++ {
			j.out[i] = s.cfg.encode(j.batch[i])
		}
		s.mu.Lock()
		j.ready = to
		s.wakeAll()
		s.mu.Unlock()
	}
}

func (s *Sender) await(j *job) error {
	impatience := time.NewTicker(max(s.cfg.Patience/10, time.Millisecond))
	defer impatience.Stop()
	var unavailable error
	for {
		select {
		case <-j.finished:
			return unavailable
		case <-j.ctx.Done():
			s.withdraw(j, "sending was stopped", 0)
			s.lastCall(j)
			return context.Cause(j.ctx)
		case <-s.closing:
			s.withdraw(j, "the channel is closed", 0)
			s.lastCall(j)
			return channels.ErrClosed
		case <-impatience.C:
			if s.downFor() > s.cfg.Patience {
				if s.withdraw(j, "the SMS centre cannot be reached", s.cfg.Patience) {
					unavailable = channels.ErrUnavailable
				}
			}
		}
	}
}

// withdraw takes back the messages of a job that no session has taken, and tells
// whether there were any.
func (s *Sender) withdraw(j *job, reason string, retryAfter time.Duration) bool {
	s.mu.Lock()
	from := j.next
	j.next = len(j.batch)
	if i := slices.Index(s.jobs, j); i >= 0 {
		s.jobs = slices.Delete(s.jobs, i, i+1)
		s.wakeAll() // for the jobs behind it
	}
	s.mu.Unlock()

	for i := from; i < len(j.batch); i++ {
		result := channels.Result{Verdict: channels.NotSent, Reason: reason, RetryAfter: retryAfter}
		if refusal := j.out[i].refusal; refusal != "" {
			result = channels.Result{Verdict: channels.Refused, Reason: refusal}
		}
		settle(verdict{j, i, result})
	}
	return from < len(j.batch)
}

// lastCall waits a little for the answers to what is under way, then gives up.
func (s *Sender) lastCall(j *job) {
	timer := time.NewTimer(min(lastAnswers, s.cfg.ResponseTimeout))
	defer timer.Stop()
	select {
	case <-j.finished:
		return
	case <-timer.C:
	}
	var verdicts []verdict
	s.mu.Lock()
	for ss := range s.sessions {
		for seq, p := range ss.pending {
			if p.flight.job == j {
				verdicts = ss.giveUp(verdicts, seq, p, "sending was stopped before the SMS centre answered")
			}
		}
		ss.wake.Signal()
	}
	s.mu.Unlock()
	settle(verdicts...)
	<-j.finished
}

// settle gives verdicts to their callers. Never call it with the mutex held.
func settle(verdicts ...verdict) {
	now := time.Now()
	for _, v := range verdicts {
		v.Result.At = now
		v.job.done(v.i, v.Result)
		if v.job.open.Add(-1) == 0 {
			close(v.job.finished)
		}
	}
}

// take hands the session as many messages as its window and the rate allow, at
// most a write's worth. It returns the verdicts of those that cannot leave.
func (s *Sender) take(ss *session) (frames []frame, verdicts []verdict) {
	const most = 128
	now := time.Now()
	window := s.cfg.Window
	if !ss.answered {
		// The first message of a session is a probe: an SMS centre that binds but
		// never answers makes one message unknown, not a window's worth.
		window = 1
	}
	for len(s.jobs) > 0 && len(frames) < most {
		j := s.jobs[0]
		if j.next == len(j.batch) {
			s.jobs = s.jobs[1:]
			continue
		}
		// The oldest job may still be encoding; order among jobs is no promise,
		// but one that waits here waits for microseconds.
		if j.next == j.ready || j.ctx.Err() != nil {
			break
		}
		i := j.next
		out := &j.out[i]
		if out.refusal != "" {
			j.next++
			verdicts = append(verdicts, verdict{j, i, channels.Result{Verdict: channels.Refused, Reason: out.refusal}})
			continue
		}
		if len(ss.pending) > 0 && len(ss.pending)+len(out.frames) > window {
			break
		}
		if wait := s.pace(now, out.parts); wait > 0 {
			time.AfterFunc(wait, func() {
				s.mu.Lock()
				ss.wake.Signal()
				s.mu.Unlock()
			})
			break
		}
		j.next++
		f := &flight{job: j, i: i, parts: len(out.frames)}
		for n, octets := range out.frames {
			ss.sequence++
			if ss.sequence < 0 {
				ss.sequence = 1
			}
			setSequence(octets, ss.sequence)
			ss.pending[ss.sequence] = part{flight: f, n: n, sentAt: now}
			frames = append(frames, frame{octets, ss.sequence})
		}
		out.frames = nil
	}
	return frames, verdicts
}

// pace takes parts from the bucket, or tells how long to wait for it. The parts
// of one message leave together: those that the bucket lacks are owed by the
// messages after it.
func (s *Sender) pace(now time.Time, parts int) time.Duration {
	if s.limiter == nil {
		return 0
	}
	first := s.limiter.ReserveN(now, 1)
	if wait := first.DelayFrom(now); wait > 0 {
		first.CancelAt(now)
		return wait
	}
	for range parts - 1 {
		s.limiter.ReserveN(now, 1)
	}
	return 0
}

func (s *Sender) wakeAll() {
	for ss := range s.sessions {
		ss.wake.Signal()
	}
}

func (s *Sender) downFor() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.downSince.IsZero() {
		return 0
	}
	return time.Since(s.downSince)
}

// Close implements channels.Sender.
func (s *Sender) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.closing)
	s.mu.Unlock()

	s.sends.Wait()
	s.cancel()
	s.tasks.Wait()
	return nil
}
