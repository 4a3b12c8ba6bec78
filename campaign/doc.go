// Package campaign is Muster's vocabulary: the plan of a marketing campaign and
// its validation, the stages a campaign passes, the states of a contact, money,
// roles and actions, error codes, and the names and payloads of every message
// that travels between the API, the workflows and the activities.
//
// It does no I/O and imports only the standard library, so that every other
// package may build on it.
package campaign
