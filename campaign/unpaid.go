package campaign

import "math"

// PaidContacts says what PayContacts did for a wave's channel.
type PaidContacts struct {
	Planned int64 `json:"planned"`  // contacts that the budget pays for by now
	FromSeq int64 `json:"from_seq"` // of those; 0 when there are none
	ToSeq   int64 `json:"to_seq"`
	Unpaid  int64 `json:"unpaid"` // those that still wait
	Needed  int64 `json:"needed"` // minor units that the budget line lacks for them
}

// EveryContact is the range of a dispatch's first pass: all contacts that were planned.
func EveryContact() PaidContacts { return PaidContacts{FromSeq: 1, ToSeq: math.MaxInt64} }

// UnpaidChannel is a wave's channel whose budget line is too low for all its contacts. It
// takes no new ones until the line is raised.
type UnpaidChannel struct {
	Wave     int     `json:"wave"`
	Channel  Channel `json:"channel"`
	Contacts int64   `json:"contacts"` // that wait
	Needed   int64   `json:"needed"`   // minor units that the line lacks for them
}

// Ref names the channel that is dispatched.
func (in DispatchInput) Ref() ChannelRef {
	return ChannelRef{CampaignID: in.CampaignID, Wave: in.Wave, Revision: in.Revision, Channel: in.Channel}
}
