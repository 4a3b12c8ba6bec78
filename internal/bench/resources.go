package bench

import (
	"sync"
	"time"
)

// role is a process whose use of the machine is measured, with its children when it is
// a family.
type role struct {
	name   string
	pid    int
	family bool
}

// used is what a role has used so far, or uses at this moment.
type used struct {
	cpu      float64 // seconds since its start
	resident int64   // bytes: private memory, and the largest share of shared memory
}

// meter measures what roles use between its start and its end. Peaks are sampled.
type meter struct {
	roles  []role
	before map[string]used
	stop   chan struct{}
	done   sync.WaitGroup
	peak   map[string]int64
}

// sampleEvery keeps sampling, which reads all of /proc, at about a hundredth of a core.
const sampleEvery = 500 * time.Millisecond

func startMeter(roles []role) *meter {
	m := &meter{roles: roles, before: usage(roles), stop: make(chan struct{}), peak: map[string]int64{}}
	m.sample(m.before)
	m.done.Go(func() {
		tick := time.NewTicker(sampleEvery)
		defer tick.Stop()
		for {
			select {
			case <-m.stop:
				return
			case <-tick.C:
				m.sample(usage(roles))
			}
		}
	})
	return m
}

func (m *meter) sample(now map[string]used) {
	for name, u := range now {
		m.peak[name] = max(m.peak[name], u.resident)
	}
}

// end returns CPU seconds and peak bytes by role.
func (m *meter) end() (cpu map[string]float64, peak map[string]int64) {
	close(m.stop)
	m.done.Wait()
	now := usage(m.roles)
	m.sample(now)
	cpu = map[string]float64{}
	for name, u := range now {
		cpu[name] = u.cpu - m.before[name].cpu
	}
	return cpu, m.peak
}
