package campaign

import "slices"

// Violation is one broken invariant and, in words, the row that breaks it.
type Violation struct {
	Invariant string // L: ledger, D: dispatch, T: targets, A: approvals; e.g. L1
	What      string
}

// Late reports whether the invariant promises that something happens in time: a machine
// that was off breaks it, and makes it good by itself. All others say that something is
// wrong which no waiting mends.
func (v Violation) Late() bool { return slices.Contains([]string{"D4", "D10", "D11"}, v.Invariant) }
