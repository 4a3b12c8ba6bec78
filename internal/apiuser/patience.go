package apiuser

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/musterhq/muster/campaign"
)

// patience is what the users of one command share: since when the API has not answered
// any of them, and how long they bear that.
type patience struct {
	limit   time.Duration
	waiting func(base string)

	mu    sync.Mutex
	since time.Time // start of the first try that failed after the last answer; zero while it answers
}

type patienceKey struct{}

// WithPatience bounds how long the users who call the API under the returned context
// repeat what nobody answers, or what is answered by passing trouble only. Each time
// that it begins waiting is told, once for all of them, with the API's address. Past
// limit without an answer their calls fail with CodeNotFound, in plain words. Without it they wait for as long as their context lives.
func WithPatience(ctx context.Context, limit time.Duration, waiting func(base string)) context.Context {
	return context.WithValue(ctx, patienceKey{}, &patience{limit: limit, waiting: waiting})
}

func patienceOf(ctx context.Context) *patience {
	p, _ := ctx.Value(patienceKey{}).(*patience)
	return p
}

// bound is how long one try may take.
func (p *patience) bound() time.Duration {
	if p == nil {
		return answerWithin
	}
	return min(answerWithin, p.limit)
}

// answered notes that the API is there.
func (p *patience) answered() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since = time.Time{}
}

// failed notes a try that began at that time, and fails when there were enough of them.
func (p *patience) failed(base string, began time.Time, cause error) error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.IsZero() {
		p.since = began
		p.waiting(base)
	}
	if time.Since(p.since) < p.limit {
		return nil
	}
	var trouble *campaign.Error
	if errors.As(cause, &trouble) {
		return campaign.Errorf(trouble.Code, "%s has been in trouble for %.0f s and says: %s", base, p.limit.Seconds(), trouble.Message)
	}
	return campaign.Errorf(campaign.CodeNotFound,
		"nothing has answered at %s for %.0f s: start it with 'muster up', or name another address with --api", base, p.limit.Seconds())
}
