package campaign

// ContactState is where one contact (one customer, one campaign, one wave, one
// channel) stands. What the customer does is not a state but an outcome.
type ContactState string

// The states of a contact.
const (
	ContactPlanned    ContactState = "planned"    // frozen, nothing happened yet
	ContactClaimed    ContactState = "claimed"    // leased by a worker, or published as a task
	ContactSending    ContactState = "sending"    // intent row committed, bytes may be leaving
	ContactSent       ContactState = "sent"       // accepted by the provider
	ContactDelivered  ContactState = "delivered"  // proven to have reached the customer
	ContactFailed     ContactState = "failed"     // proven not to reach the customer, with a reason
	ContactUnknown    ContactState = "unknown"    // bytes may have left, no proof either way; never sent again by itself
	ContactExpired    ContactState = "expired"    // its window closed first
	ContactSuppressed ContactState = "suppressed" // a rule forbade it
	ContactCancelled  ContactState = "cancelled"  // withdrawn by a person or by the campaign's end
)

// ContactStates lists every state in the order of a contact's life.
func ContactStates() []ContactState {
	return []ContactState{
		ContactPlanned, ContactClaimed, ContactSending, ContactSent, ContactDelivered,
		ContactFailed, ContactUnknown, ContactExpired, ContactSuppressed, ContactCancelled,
	}
}

// contactSuccessors holds the legal transitions; the database refuses all others
// with the same table (store/migrations). claimed → planned needs proof that nothing
// was sent: an expired lease without an intent row. sending → planned needs an
// attempt whose outcome is not_sent. claimed → delivered and claimed → failed are
// the report of a person who worked a task: the report is the proof.
var contactSuccessors = map[ContactState][]ContactState{
	ContactPlanned: {ContactClaimed, ContactExpired, ContactSuppressed, ContactCancelled},
	ContactClaimed: {
		ContactPlanned, ContactSending, ContactDelivered, ContactFailed,
		ContactExpired, ContactSuppressed, ContactCancelled,
	},
	ContactSending: {ContactSent, ContactDelivered, ContactFailed, ContactUnknown, ContactPlanned},
	ContactSent:    {ContactDelivered, ContactFailed},
	ContactUnknown: {ContactSent, ContactDelivered, ContactFailed},
	ContactFailed:  {ContactDelivered},
	// Only whom the budget did not pay for, once it does.
	ContactSuppressed: {ContactPlanned},
}

// CanFollow reports whether a contact may pass from state s to next.
func (s ContactState) CanFollow(next ContactState) bool {
	for _, n := range contactSuccessors[s] {
		if n == next {
			return true
		}
	}
	return false
}

// Settled reports whether the dispatch engine has nothing left to do for a contact
// in state s: it was accepted, ended, or is unknown and must not be sent again.
func (s ContactState) Settled() bool {
	switch s {
	case ContactPlanned, ContactClaimed, ContactSending:
		return false
	}
	return true
}

// OutcomeKind is what came back from a customer.
type OutcomeKind string

// The outcomes that Muster counts.
const (
	OutcomeDelivered   OutcomeKind = "delivered"
	OutcomeRead        OutcomeKind = "read"
	OutcomeReplied     OutcomeKind = "replied"
	OutcomeConnected   OutcomeKind = "connected"
	OutcomeNoAnswer    OutcomeKind = "no_answer"
	OutcomeWilling     OutcomeKind = "willing"
	OutcomeDeclined    OutcomeKind = "declined"
	OutcomeAppointment OutcomeKind = "appointment"
	OutcomeOrdered     OutcomeKind = "ordered"
	OutcomeRedeemed    OutcomeKind = "redeemed"
	OutcomeActivated   OutcomeKind = "activated"
	OutcomeComplained  OutcomeKind = "complained"
	OutcomeOptedOut    OutcomeKind = "opted_out"
	OutcomeSurvey      OutcomeKind = "survey"
)

// OutcomeKinds lists every kind.
func OutcomeKinds() []OutcomeKind {
	return []OutcomeKind{
		OutcomeDelivered, OutcomeRead, OutcomeReplied, OutcomeConnected, OutcomeNoAnswer, OutcomeWilling,
		OutcomeDeclined, OutcomeAppointment, OutcomeOrdered, OutcomeRedeemed, OutcomeActivated,
		OutcomeComplained, OutcomeOptedOut, OutcomeSurvey,
	}
}

// Arm is the side of the experiment a target is on.
type Arm string

// A target is treated, or is in the control group and never contacted in this campaign.
const (
	ArmTreated Arm = "treated"
	ArmControl Arm = "control"
)

// Tier is the target level that decides a customer's treatment.
type Tier string

// The tiers, best first.
const (
	TierCore    Tier = "core"
	TierGeneral Tier = "general"
	TierBasic   Tier = "basic"
)

// Channel is a way to reach a customer.
type Channel string

// The channels that are built.
const (
	ChannelSMS  Channel = "sms"
	ChannelCall Channel = "call"
)

// Channels lists the channels that are built.
func Channels() []Channel { return []Channel{ChannelSMS, ChannelCall} }

// Pull reports whether people fetch the channel's work as tasks; otherwise Muster pushes.
func (c Channel) Pull() bool { return c == ChannelCall }
