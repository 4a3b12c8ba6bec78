// Package smsc simulates an operator's SMS centre: an SMPP 3.4 server that
// accepts, delays, refuses and loses as told, sends delivery receipts, and
// writes every message it accepts to a journal before it answers, so that
// tests can count what really arrived. No message ever leaves the machine, and
// all that it makes is labelled as simulated.
//
// What becomes of a message is a function of the seed and the contact id alone,
// so a run can be repeated whatever the timing. The journal outlives a kill -9:
// the next start on the same file goes on with its message ids and sends the
// receipts that were not yet acknowledged.
package smsc

import (
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"
)

// Options tell the simulator how to behave. Shares are between 0 and 1.
type Options struct {
	// Addr is the host:port to listen on; port 0 takes a free one.
	Addr string
	// SystemID and Password are asked of clients; an empty one is not checked.
	SystemID, Password string
	// Journal is the file that accepted messages are appended to. Needed.
	Journal string
	// AckDelay is the time from a submit to its answer.
	AckDelay Range
	// ReceiptDelay is the time from acceptance to the delivery receipt.
	ReceiptDelay Range
	// Refused is the share of contacts whose number is not valid: refused for
	// good, at every try.
	Refused float64
	// Throttled is the share of submits refused for the moment; drawn anew for
	// each epoch of a contact.
	Throttled float64
	// LostAcks is the share of contacts whose message is accepted but never
	// answered.
	LostAcks float64
	// Failed and Expired are the shares of accepted contacts whose receipt says
	// so; the rest are delivered.
	Failed, Expired float64
	// RepeatedReceipts is the share of receipts that are sent twice.
	RepeatedReceipts float64
	// EchoReference puts the client reference into receipts, as some SMS
	// centres do.
	EchoReference bool
	// Seed makes one run differ from another.
	Seed uint64
	// Log gets the simulator's events; nil means slog.Default().
	Log *slog.Logger
}

func (o *Options) check() error {
	var errs []error
	if o.Journal == "" {
		errs = append(errs, errors.New("smsc: no journal file"))
	}
	for name, share := range map[string]float64{
		"refused": o.Refused, "throttled": o.Throttled, "lost acks": o.LostAcks,
		"failed plus expired": o.Failed + o.Expired, "repeated receipts": o.RepeatedReceipts,
	} {
		if share < 0 || share > 1 || math.IsNaN(share) {
			errs = append(errs, fmt.Errorf("smsc: share %s is %g, not between 0 and 1", name, share))
		}
	}
	for name, r := range map[string]Range{"ack delay": o.AckDelay, "receipt delay": o.ReceiptDelay} {
		if r.Min < 0 || r.Max < r.Min {
			errs = append(errs, fmt.Errorf("smsc: %s %s is not a range", name, r))
		}
	}
	return errors.Join(errs...)
}

// Range is a span of durations; its text form is "20ms-80ms" or "50ms".
type Range struct{ Min, Max time.Duration }

// UnmarshalText reads the text form.
func (r *Range) UnmarshalText(text []byte) error {
	low, high, both := strings.Cut(string(text), "-")
	if !both {
		high = low
	}
	var err error
	if r.Min, err = time.ParseDuration(low); err != nil {
		return fmt.Errorf("range %q: %w", text, err)
	}
	if r.Max, err = time.ParseDuration(high); err != nil {
		return fmt.Errorf("range %q: %w", text, err)
	}
	if r.Min < 0 || r.Max < r.Min {
		return fmt.Errorf("range %q: the end lies before the beginning", text)
	}
	return nil
}

// String gives the text form.
func (r Range) String() string {
	if r.Min == r.Max {
		return r.Min.String()
	}
	return r.Min.String() + "-" + r.Max.String()
}

func (r Range) at(share float64) time.Duration {
	return r.Min + time.Duration(share*float64(r.Max-r.Min))
}

// draw returns a number in [0,1) that depends on nothing but its arguments and
// the seed, and is independent from purpose to purpose.
func (o *Options) draw(purpose, contact string) float64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(strconv.FormatUint(o.Seed, 16) + "|" + purpose + "|" + contact))
	// FNV leaves the high bits of short, similar inputs alike; this mixes them
	// (the finalizer of SplitMix64, Steele, Lea and Flood 2014).
	x := h.Sum64()
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	x ^= x >> 31
	return float64(x>>11) / (1 << 53)
}

func (o *Options) refuses(contact string) bool { return o.draw("refuse", contact) < o.Refused }

func (o *Options) throttles(contact string, epoch int32) bool {
	return o.Throttled > 0 && o.draw("throttle/"+strconv.Itoa(int(epoch)), contact) < o.Throttled
}

func (o *Options) losesAck(contact string) bool { return o.draw("lose ack", contact) < o.LostAcks }

func (o *Options) repeatsReceipt(contact string) bool {
	return o.draw("repeat", contact) < o.RepeatedReceipts
}

func (o *Options) ackDelay(contact string) time.Duration {
	return o.AckDelay.at(o.draw("ack delay", contact))
}

func (o *Options) receiptDelay(contact string) time.Duration {
	return o.ReceiptDelay.at(o.draw("receipt delay", contact))
}

// outcome is the stat field of a contact's receipt.
func (o *Options) outcome(contact string) string {
	switch u := o.draw("outcome", contact); {
	case u < o.Failed:
		return "UNDELIV"
	case u < o.Failed+o.Expired:
		return "EXPIRED"
	}
	return "DELIVRD"
}
