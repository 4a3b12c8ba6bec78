// Package channels is the boundary between Muster and the providers that carry
// messages to customers. A push channel (SMS, e-mail, web push) is one adapter
// behind [Sender]; what comes back from the provider goes to an [Inbox].
//
// The contract exists to make one promise possible: no customer gets the same
// message twice, and none is left without a state. So an adapter never says
// "error"; it says what is proven about the bytes of each message. The package
// channeltest holds the suite that every adapter must pass.
package channels

import (
	"context"
	"errors"
	"time"
)

// Message is one contact's message, ready to leave. Its intent (contact and
// epoch) has been committed by the caller before the adapter sees it.
type Message struct {
	// ContactID is the contact's UUID. Adapters hand it to the provider as the
	// client reference wherever the protocol has room for one.
	ContactID string
	// Epoch counts the claims of this contact; it travels with the reference.
	Epoch int32
	// To is the recipient: for SMS the E.164 digits without the plus sign.
	To string
	// From is the sender that the customer sees.
	From string
	// Text is the full text; the adapter encodes and splits it.
	Text string
}

// Verdict says what is proven about a message's bytes.
type Verdict string

const (
	// Accepted: the provider confirmed that it took the message.
	Accepted Verdict = "accepted"
	// Refused: the provider, or a check before sending, proved that this
	// message will not be delivered, and trying again would not help.
	Refused Verdict = "refused"
	// NotSent: the bytes provably never left, or the provider proved that it
	// did not take them for a passing reason. Safe to plan again, not before
	// Result.RetryAfter.
	NotSent Verdict = "not_sent"
	// Unknown: the bytes may have left and there is no proof either way. Such a
	// message must never be sent again by itself.
	Unknown Verdict = "unknown"
)

// Result is the one answer that each message gets.
type Result struct {
	Verdict Verdict
	// ProviderID is the provider's id of an accepted message: the key by which
	// its receipts come back. Empty when the provider gave none.
	ProviderID string
	// Reason tells a person why, in words; empty when accepted.
	Reason string
	// RetryAfter is how long a NotSent message should wait; 0 means no wait.
	RetryAfter time.Duration
	// At is when the verdict was reached, by this machine's clock.
	At time.Time
}

// State is what a provider reports of a message after taking it.
type State string

const (
	// StateAccepted: on its way. Not final. Also how a late answer to a message
	// already judged Unknown is reported.
	StateAccepted State = "accepted"
	// StateDelivered: reached the customer's device. Final.
	StateDelivered State = "delivered"
	// StateFailed: will not reach the customer. Final.
	StateFailed State = "failed"
	// StateExpired: was not delivered within its validity. Final.
	StateExpired State = "expired"
	// StateRefused: the provider did not take it, and will not charge for it: a late
	// answer to a message already judged Unknown. Final.
	StateRefused State = "refused"
	// StateUnknown: the provider itself cannot tell. Final, and no proof.
	StateUnknown State = "unknown"
)

// Receipt is a provider's later word on a message. Receipts come at least
// once: repeated, out of order, years late, and sometimes before the verdict of
// their own message. Adapters hand them on as they come.
type Receipt struct {
	// ProviderID is the id given in Result.ProviderID.
	ProviderID string
	// ContactID is set when the provider echoes the client reference, or when
	// the receipt is a late answer to a known message; otherwise empty.
	ContactID string
	State     State
	// Reason tells why a message failed or expired, in words.
	Reason string
	// At is the provider's time of the event, or the time of arrival when the
	// provider gave none.
	At time.Time
	// Raw is the receipt as received, for evidence.
	Raw string
}

// Reply is a message that a customer sent to one of our numbers. A long reply
// may come as several.
type Reply struct {
	From, To, Text string
	// At is the time of arrival.
	At time.Time
}

// Inbox keeps what comes back. Adapters tell the provider that an item was
// received only after the Inbox returned nil, so an item is lost by no crash;
// after an error the provider is asked to bring the items again. Methods may
// be called from several goroutines.
type Inbox interface {
	Receipts(ctx context.Context, receipts []Receipt) error
	Replies(ctx context.Context, replies []Reply) error
}

// Sender is one push channel. It is safe for concurrent use.
type Sender interface {
	// Send sends a batch and returns when every message has its verdict. It
	// calls done exactly once for each index of the batch, from any goroutine
	// and for several messages at the same time; done should be quick.
	//
	// When ctx ends, messages that have not left come back NotSent at once and
	// those under way get a few seconds for their answers before they are
	// Unknown. The error tells why messages were held back (the context's
	// cause, ErrUnavailable, ErrClosed); verdicts are complete in every case.
	Send(ctx context.Context, batch []Message, done func(i int, r Result)) error
	// Close withdraws what has not left, waits for running Sends, takes leave
	// of the provider and frees all resources. Receipts that were not yet kept
	// will be brought again by the provider.
	Close() error
}

var (
	// ErrUnavailable means that the provider could not be reached for longer
	// than the channel's patience; the messages came back NotSent.
	ErrUnavailable = errors.New("channel: provider not reachable")
	// ErrClosed means that the sender was closed; the messages came back NotSent.
	ErrClosed = errors.New("channel: sender closed")
)
