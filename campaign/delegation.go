package campaign

import (
	"slices"
	"time"
)

// DelegationLongest is the longest time that authority may be lent for.
const DelegationLongest = 90 * 24 * time.Hour

// Delegation lends one person's authority to sign to another, for a time. What it is
// worth is decided when somebody signs by it: no more than From may sign themselves at
// that moment, by roles of their own.
type Delegation struct {
	ID         string   // UUID
	From       string   // user whose authority it is
	FromName   string   //
	To         string   // user who signs in their stead
	ToName     string   //
	Actions    []Action // of SigningActions
	Unit       OrgUnit  // at and below which it holds
	Limit      *int64   // minor units; nil for as much as From may sign
	ValidFrom  time.Time
	ValidUntil time.Time // exclusive
	Reason     string
	CreatedAt  time.Time
	RevokedAt  *time.Time
	RevokedBy  *string // user who ended it early
	Valid      bool    // at the moment it was read, by the database's clock
}

// Covers reports whether the delegation lends act at unit, at whatever time.
func (d Delegation) Covers(act Action, unit OrgUnit) bool {
	return slices.Contains(d.Actions, act) && unit.Within(d.Unit)
}
