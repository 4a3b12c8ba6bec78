package smsc

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// timeline runs actions when they are due, one after another.
type timeline struct {
	wake chan struct{}
	mu   sync.Mutex
	due  schedule
}

type action struct {
	at  time.Time
	run func()
}

// schedule is a heap with the earliest action first.
type schedule []action

// Len implements sort.Interface.
func (s schedule) Len() int { return len(s) }

// Less implements sort.Interface.
func (s schedule) Less(i, j int) bool { return s[i].at.Before(s[j].at) }

// Swap implements sort.Interface.
func (s schedule) Swap(i, j int) { s[i], s[j] = s[j], s[i] }

// Push implements heap.Interface.
func (s *schedule) Push(x any) { *s = append(*s, x.(action)) }

// Pop implements heap.Interface.
func (s *schedule) Pop() any {
	old := *s
	last := old[len(old)-1]
	old[len(old)-1] = action{}
	*s = old[:len(old)-1]
	return last
}

// add never blocks.
func (t *timeline) add(at time.Time, run func()) {
	t.mu.Lock()
	heap.Push(&t.due, action{at, run})
	first := t.due[0].at.Equal(at)
	t.mu.Unlock()
	if first {
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
}

func (t *timeline) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
		case <-timer.C:
		}
		for ctx.Err() == nil {
			t.mu.Lock()
			if len(t.due) == 0 {
				t.mu.Unlock()
				break
			}
			if wait := time.Until(t.due[0].at); wait > 0 {
				t.mu.Unlock()
				timer.Reset(wait)
				break
			}
			next := heap.Pop(&t.due).(action)
			t.mu.Unlock()
			next.run()
		}
	}
}
