//go:build !linux

package embedded

import "syscall"

// setDeathSignal does nothing: only Linux offers it. Elsewhere the next start
// stops what a killed one left behind.
func setDeathSignal(*syscall.SysProcAttr, syscall.Signal) {}
