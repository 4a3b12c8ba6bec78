package campaign

import (
	"crypto/sha256"
	"encoding/hex"
)

// PolicyKind is what a policy document is about.
type PolicyKind string

// The kinds of policy documents. A document that names none is about access.
const (
	PolicyAccess  PolicyKind = "access"  // what the roles may do, and who must sign for a plan
	PolicyContact PolicyKind = "contact" // how often, when and whether customers may be contacted
)

// PolicyDocument is a version of a tenant's policy of one kind. A version never changes;
// another one takes its place.
type PolicyDocument struct {
	Version int64      // 1 and up, over all tenants and kinds
	Kind    PolicyKind // access when empty
	Tenant  OrgUnit    // the topmost unit it is for; empty for the standard, which holds where there is no other
	Policy  string     // of access the table of permissions, as package policies reads it; of contact the rules in JSON, as package targeting does
	Routes  string     // of access the approval routes and calendars, in JSON
	Digest  string     // as it was stored: see PolicyDigest
}

// PolicyDigest is the SHA-256, in hex, of what a policy document says.
func PolicyDigest(policy, routes string) string {
	policySum, routesSum := sha256.Sum256([]byte(policy)), sha256.Sum256([]byte(routes))
	sum := sha256.Sum256(append(policySum[:], routesSum[:]...))
	return hex.EncodeToString(sum[:])
}

// PolicyState is where a policy document is on its way.
type PolicyState string

// The states of a policy document.
const (
	PolicyProposed   PolicyState = "proposed"   // waits for a second person
	PolicyActive     PolicyState = "active"     // what is decided by
	PolicySuperseded PolicyState = "superseded" // was active until another one was
	PolicyRejected   PolicyState = "rejected"
	PolicyWithdrawn  PolicyState = "withdrawn" // by whoever proposed it
)
