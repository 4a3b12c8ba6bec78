package campaign

// ContactKind is what a contact with a customer was about.
type ContactKind string

// The kinds of contacts that a customer's contact view shows together.
const (
	ContactMarketing    ContactKind = "marketing"
	ContactCare         ContactKind = "care"
	ContactConsultation ContactKind = "consultation"
	ContactComplaint    ContactKind = "complaint"
	ContactHandling     ContactKind = "handling" // of an order, a fault or a request
)

// ContactKinds lists every kind.
func ContactKinds() []ContactKind {
	return []ContactKind{ContactMarketing, ContactCare, ContactConsultation, ContactComplaint, ContactHandling}
}

// Direction says who began a contact.
type Direction string

// A contact comes in from the customer or goes out to them.
const (
	DirectionIn  Direction = "in"
	DirectionOut Direction = "out"
)

// Origin says where an entry of the contact view is from.
type Origin string

// An entry of the contact view is told by another system, or is a contact or an outcome of
// a campaign.
const (
	OriginHistory Origin = "history"
	OriginContact Origin = "contact"
	OriginOutcome Origin = "outcome"
)
