// Package assertion is what the API signs and the workers verify: that a person, whom
// the API had authenticated, made a decision about exactly this plan, or gave exactly
// this command. A workflow that is told of a decision by anybody who reaches Temporal
// believes none of it until an activity has verified the assertion.
//
// An assertion is a compact JWS (RFC 7515) over Ed25519 (RFC 8037) with the key's id
// and one type for each kind of claims. Verify says that it is genuine; Matches says
// that it is about what it is shown for. Both are needed.
//
// Keys live in a folder: keys.json lists the public keys and when each was valid, and
// beside it are the private keys of those that still sign. A process that only verifies
// needs keys.json alone. Nothing here reads the clock: the caller says what time it is.
package assertion
