package campaign

// Purpose is the contact category: what a customer is contacted for. Caps, quiet hours,
// consents and opt-outs tell purposes apart; a budget line's Category is something else.
type Purpose string

// The purposes.
const (
	PurposeMarketing Purpose = "marketing" // acquisition, upsell, retention, channel migration
	PurposeCare      Purpose = "care"      // tariff care
	PurposeService   Purpose = "service"   // service care
)

// Purposes lists the purposes.
func Purposes() []Purpose { return []Purpose{PurposeMarketing, PurposeCare, PurposeService} }

// Purpose returns what a campaign of the type contacts customers for.
func (t Type) Purpose() Purpose {
	switch t {
	case TypeTariffCare:
		return PurposeCare
	case TypeServiceCare:
		return PurposeService
	}
	return PurposeMarketing
}

// Code is the one letter by which rows that are written by the million name a purpose, 0
// for one that is none. It never changes.
func (p Purpose) Code() byte {
	switch p {
	case PurposeMarketing:
		return 'm'
	case PurposeCare:
		return 'c'
	case PurposeService:
		return 's'
	}
	return 0
}

// Code is the one letter by which rows that are written by the million name a type, 0 for
// one that is none. It never changes.
func (t Type) Code() byte {
	switch t {
	case TypeAcquisition:
		return 'a'
	case TypeUpsell:
		return 'u'
	case TypeRetention:
		return 'r'
	case TypeChannelMigration:
		return 'm'
	case TypeTariffCare:
		return 't'
	case TypeServiceCare:
		return 's'
	}
	return 0
}

// Code is the one letter by which rows that are written by the million name a channel, 0
// for one that is none. It never changes.
func (c Channel) Code() byte {
	switch c {
	case ChannelSMS:
		return 's'
	case ChannelCall:
		return 'c'
	}
	return 0
}

// Buckets is how many buckets customers are divided into: whoever decides how often a
// customer may be contacted holds the bucket's lock.
const Buckets = 256

// Bucket is the bucket of a customer's id: its last byte, which is random.
func Bucket(customer [16]byte) int { return int(customer[15]) }
