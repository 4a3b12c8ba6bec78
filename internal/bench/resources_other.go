//go:build !linux

package bench

// Only Linux tells what other processes use; elsewhere rates alone are reported.

func usage([]role) map[string]used { return nil }

func parentOf(int) (int, bool) { return 0, false }

func companions(int) []role { return nil }

func (*Machine) fill() {}
