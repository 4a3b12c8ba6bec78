// Package arch holds tests of the repository itself: who imports whom, and what its
// text may say.
package arch
