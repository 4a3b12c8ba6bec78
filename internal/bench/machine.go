package bench

import (
	"fmt"
	"runtime"
	"strings"
)

// Machine says what a report was measured on.
type Machine struct {
	Cores       int     `json:"cores"`
	MemoryBytes int64   `json:"memory_bytes,omitempty"`
	System      string  `json:"system"`
	Go          string  `json:"go"`
	PostgreSQL  string  `json:"postgresql"`
	Durable     string  `json:"durable"` // the settings that make a commit survive
	Load        float64 `json:"load"`    // runnable processes over the last minute, before the bench
}

// String is one line.
func (m Machine) String() string {
	memory := ""
	if m.MemoryBytes > 0 {
		memory = fmt.Sprintf(", %.0f GiB", float64(m.MemoryBytes)/(1<<30))
	}
	return fmt.Sprintf("%d cores%s, %s, %s, PostgreSQL %s (%s), load before %.1f", m.Cores, memory, m.System, m.Go, m.PostgreSQL, m.Durable, m.Load)
}

func (e *Engines) machine() Machine {
	m := Machine{
		Cores: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH, Go: strings.Replace(runtime.Version(), "go", "Go ", 1),
		PostgreSQL: e.version, Durable: e.durable,
	}
	m.fill()
	return m
}
