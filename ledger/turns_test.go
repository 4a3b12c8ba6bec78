package ledger

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

func TestTurns(t *testing.T) {
	queue := &turns{lines: map[string]*turn{}}
	var at, most atomic.Int32
	var steps sync.WaitGroup
	for range 200 {
		steps.Go(func() {
			leave, err := queue.take(t.Context(), "hot")
			if err != nil {
				t.Error(err)
				return
			}
			if now := at.Add(1); now > stepsAtALine {
				most.Store(now)
			}
			runtime.Gosched()
			at.Add(-1)
			leave()
		})
	}
	steps.Wait()
	if n := most.Load(); n > 0 {
		t.Errorf("%d steps were at the line at once", n)
	}
	if len(queue.lines) != 0 {
		t.Errorf("a line nobody is at is still kept")
	}
}

func TestTurnsEndWithTheirContext(t *testing.T) {
	queue := &turns{lines: map[string]*turn{}}
	var leave []func()
	for range stepsAtALine {
		l, err := queue.take(t.Context(), "full")
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, l)
	}
	if other, err := queue.take(t.Context(), "another"); err != nil {
		t.Errorf("a full line held up another one: %v", err)
	} else {
		other()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := queue.take(ctx, "full"); !errors.Is(err, context.Canceled) {
		t.Errorf("a step whose caller is gone waits on: %v", err)
	}
	for _, l := range leave {
		l()
	}
	if len(queue.lines) != 0 {
		t.Errorf("a line nobody is at is still kept")
	}
}
