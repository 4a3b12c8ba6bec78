package campaign

// PaidContacts says what PayContacts did for a wave's channel.
type PaidContacts struct {
	Planned int64        `json:"planned"`          // contacts that the budget pays for by now
	Shards  []ShardRange `json:"shards,omitempty"` // in which those are
	Unpaid  int64        `json:"unpaid"`           // those that still wait
	Needed  int64        `json:"needed"`           // minor units that the budget line lacks for them
}

// ShardRange is a part of a shard: seq from FromSeq to ToSeq inclusive.
type ShardRange struct {
	Shard   int   `json:"shard"`
	FromSeq int64 `json:"from_seq"`
	ToSeq   int64 `json:"to_seq"`
}

// Ranges lists the shards that have contacts, each as a whole.
func (b ContactBatch) Ranges() []ShardRange {
	var all []ShardRange
	for shard, contacts := range b.Shards {
		if contacts > 0 {
			all = append(all, ShardRange{Shard: shard, FromSeq: 1, ToSeq: contacts})
		}
	}
	return all
}

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
