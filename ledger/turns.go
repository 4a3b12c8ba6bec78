package ledger

import (
	"context"
	"sync"
)

// stepsAtALine is how many steps of one process are at the same budget line at a time: one
// that holds its row until it is committed, and one that has everything ready to follow.
// PostgreSQL wakes all others that wait for a row whenever it is let go, which costs more
// than their work, and each of them would keep a connection from everybody else.
const stepsAtALine = 2

// turns is the queue before each budget line that steps are going to.
type turns struct {
	mu    sync.Mutex
	lines map[string]*turn
}

type turn struct {
	places chan struct{}
	steps  int // that wait or are at the line; guarded by turns.mu
}

// take waits for a place at a line, and returns how to give it back. It fails when ctx ends
// before.
func (t *turns) take(ctx context.Context, line string) (leave func(), err error) {
	t.mu.Lock()
	at := t.lines[line]
	if at == nil {
		at = &turn{places: make(chan struct{}, stepsAtALine)}
		t.lines[line] = at
	}
	at.steps++
	t.mu.Unlock()
	gone := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if at.steps--; at.steps == 0 {
			delete(t.lines, line)
		}
	}
	select {
	case at.places <- struct{}{}:
		return func() { <-at.places; gone() }, nil
	case <-ctx.Done():
		gone()
		return nil, ctx.Err()
	}
}
