package campaign

import "slices"

// Violation is one broken invariant and, in words, the row that breaks it.
type Violation struct {
	Invariant  string // L: ledger, D: dispatch, T: targets, A: approvals, P: programmes, C: credit; e.g. L1
	What       string
	CampaignID string // the campaign it is about; empty for the ledger
}

// Late reports whether the invariant promises that something happens in time: a machine
// that was off breaks it, and makes it good by itself. All others say that something is
// wrong which no waiting mends.
func (v Violation) Late() bool { return slices.Contains([]string{"D4", "D10", "D11"}, v.Invariant) }

// Past reports whether what breaks the invariant was done once for all, a message that left
// or a signature that was given: nothing mends it, and people can only take note of it.
func (v Violation) Past() bool {
	return slices.Contains([]string{"D3", "D6", "D7", "A1", "A2", "A3", "A4", "A5", "A6"}, v.Invariant)
}
