package bench

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ticksPerSecond is the unit of times in /proc, fixed in Linux's interface to programs.
const ticksPerSecond = 100

type process struct {
	parent int
	ticks  int64 // of itself and of the children it has outlived
}

func readProcess(pid int) (p process, ok bool) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return p, false // it has ended
	}
	// The name, in brackets, may hold anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 15 {
		return p, false
	}
	p.parent, _ = strconv.Atoi(fields[1])
	for _, f := range fields[11:15] { // user and system, own and of children
		n, _ := strconv.ParseInt(f, 10, 64)
		p.ticks += n
	}
	return p, true
}

func processes() map[int]process {
	all := map[int]process{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return all
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if p, ok := readProcess(pid); ok {
				all[pid] = p
			}
		}
	}
	return all
}

// usage says what each role has used. The CPU time of processes that a family's root
// has outlived is in the root's own account.
func usage(roles []role) map[string]used {
	all := processes()
	use := map[string]used{}
	for _, r := range roles {
		var u used
		var shared int64
		for pid, p := range all {
			if pid != r.pid && (!r.family || !descends(all, pid, r.pid)) {
				continue
			}
			if r.family {
				u.cpu += float64(p.ticks) / ticksPerSecond
			} else {
				u.cpu += ownCPU(pid, p)
			}
			private, common := resident(pid)
			u.resident += private
			shared = max(shared, common)
		}
		u.resident += shared
		use[r.name] = u
	}
	return use
}

// ownCPU is a process without its children: for this one, finer than /proc tells.
func ownCPU(pid int, p process) float64 {
	if pid != os.Getpid() {
		return float64(p.ticks) / ticksPerSecond
	}
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return seconds(r.Utime) + seconds(r.Stime)
}

func descends(all map[int]process, pid, root int) bool {
	for range all {
		p, ok := all[pid]
		if !ok || p.parent == 0 {
			return false
		}
		if p.parent == root {
			return true
		}
		pid = p.parent
	}
	return false
}

// resident returns a process's private and shared memory in bytes. Pages of files are
// the system's and not counted.
func resident(pid int) (private, shared int64) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, 0
	}
	return kilobytes(string(text), "RssAnon:"), kilobytes(string(text), "RssShmem:")
}

func kilobytes(text, key string) int64 {
	_, after, ok := strings.Cut(text, key)
	if !ok {
		return 0
	}
	n, _ := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
	return n << 10
}

// parentOf returns the parent of a PostgreSQL backend of this machine: the server.
func parentOf(backend int) (pid int, ok bool) {
	p, ok := readProcess(backend)
	if !ok || !strings.Contains(commandLine(backend), "postgres") {
		return 0, false
	}
	return p.parent, true
}

func commandLine(pid int) string {
	text, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	return strings.ReplaceAll(string(text), "\x00", " ")
}

// companions are the programs that this process runs beside itself, other than except.
func companions(except int) []role {
	var found []role
	for pid, p := range processes() {
		if p.parent != os.Getpid() || pid == except {
			continue
		}
		switch line := commandLine(pid); {
		case strings.Contains(line, " sim smsc "):
			found = append(found, role{name: "SMS centre", pid: pid, family: true})
		case strings.Contains(line, "temporal"):
			found = append(found, role{name: "Temporal", pid: pid, family: true})
		}
	}
	return found
}

func (m *Machine) fill() {
	read := func(path string) string {
		text, _ := os.ReadFile(path)
		return strings.TrimSpace(string(text))
	}
	if info := read("/proc/meminfo"); info != "" {
		m.MemoryBytes = kilobytes(info, "MemTotal:")
	}
	if kernel := read("/proc/sys/kernel/osrelease"); kernel != "" {
		m.System += ", kernel " + kernel
	}
	if load := strings.Fields(read("/proc/loadavg")); len(load) > 0 {
		m.Load, _ = strconv.ParseFloat(load[0], 64)
	}
}
