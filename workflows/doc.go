// Package workflows orchestrates a campaign's loop, deterministically: the Campaign
// entity, and the stages it starts (approval, selection, waves with their dispatch,
// review, settlement, evaluation, archive).
//
// A campaign lives for months, so it continues as new. Its stages are abandoned
// children with fixed ids that report by signal; so neither side minds when the
// other begins a new run. Only the root coroutine receives signals: a receiver in
// another goroutine would lose what it holds when the run is continued.
//
// Workflows hold counts, cursors and sums, never people.
package workflows
