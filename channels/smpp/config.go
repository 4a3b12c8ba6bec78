// Package smpp is the SMS channel over SMPP 3.4: one or more transceiver
// sessions to an operator's SMS centre, each with a window of outstanding
// submits, kept alive by enquire_link and bound again after a loss.
//
// # What counts as proof
//
//   - A submit_sm_resp with status 0 is acceptance; any other status is the SMS
//     centre's word that it did not take the message (see [judge]).
//   - When a session is lost, a message whose submit_sm had not been handed to
//     the operating system in full never left: SMPP frames carry their length,
//     so a cut frame cannot have been read. All others are unknown.
//   - A submit_sm without an answer within the response timeout is unknown. If
//     the answer comes later after all, it is reported to the Inbox as a
//     receipt that carries the contact's id.
//
// # Client reference
//
// Each submit_sm carries two vendor-specific TLVs (SMPP 3.4, 5.3.2 reserves
// 0x1400-0x3FFF for vendors), so that accepted messages can be counted and
// reconciled at the SMS centre:
//
//	0x1400  contact id, as its 36-character UUID text
//	0x1401  epoch, 4 octets, big endian
//
// The protocol's own user_message_reference has 16 bits, too few to tell the
// contacts of one campaign apart. SMPP 3.4, 3.3 obliges a peer to ignore TLVs
// that it does not know.
//
// # Why a session of its own
//
// The protocol data units are gosmpp's. Its Session is not used: its Submit
// queues a unit and returns before it is written, drops queued units without a
// word when the connection ends and has no deadline on binding, so it cannot
// tell "never left" from "unknown". It also limits the window to 255.
package smpp

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/linxGnu/gosmpp/pdu"

	"github.com/musterhq/muster/channels"
)

const (
	// TagContactID is the TLV that carries the contact's UUID as text.
	TagContactID = pdu.Tag(0x1400)
	// TagEpoch is the TLV that carries the epoch as 4 octets, big endian.
	TagEpoch = pdu.Tag(0x1401)
)

// Config describes one route to an SMS centre.
type Config struct {
	// Addr is the SMS centre's host:port.
	Addr string
	// SystemID, Password and SystemType are the bind credentials (at most 15, 8
	// and 12 octets in SMPP 3.4).
	SystemID, Password, SystemType string
	// Binds is the number of parallel transceiver sessions; 0 means 1.
	Binds int
	// Window is the most submits a session has outstanding; 0 means 500. Agree
	// it with the operator. It bounds how many messages one lost session can
	// leave unknown.
	Window int
	// ResponseTimeout is how long a submit may stay without an answer before
	// its message is unknown; 0 means 30 s.
	ResponseTimeout time.Duration
	// EnquireLink is the time between two enquire_link; 0 means 30 s. A session
	// silent for EnquireLink + ResponseTimeout is taken for lost.
	EnquireLink time.Duration
	// Patience is how long messages wait for a session before they come back
	// not sent with channels.ErrUnavailable; 0 means 5 s.
	Patience time.Duration
	// Rate is the most parts a second, over all sessions of this sender; 0
	// means no limit. No second holds more, save that the parts of one message
	// leave together.
	Rate float64
	// Concatenate sends a long message as several submit_sm with user data
	// headers, for SMS centres that do not take message_payload. Only the last
	// part asks for a receipt, and its id stands for the message.
	Concatenate bool
	// Location is the time zone of the SMS centre's receipts; nil means UTC.
	Location *time.Location
	// Log gets session events, without personal data; nil means slog.Default().
	Log *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	if c.Binds == 0 {
		c.Binds = 1
	}
	if c.Window == 0 {
		c.Window = 500
	}
	if c.ResponseTimeout == 0 {
		c.ResponseTimeout = 30 * time.Second
	}
	if c.EnquireLink == 0 {
		c.EnquireLink = 30 * time.Second
	}
	if c.Patience == 0 {
		c.Patience = 5 * time.Second
	}
	if c.Location == nil {
		c.Location = time.UTC
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	var errs []error
	refuse := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf("smpp: "+format, args...))
		}
	}
	refuse(c.Addr == "", "no address of the SMS centre")
	refuse(len(c.SystemID) > 15, "system id is longer than 15 octets")
	refuse(len(c.Password) > 8, "password is longer than 8 octets")
	refuse(len(c.SystemType) > 12, "system type is longer than 12 octets")
	refuse(c.Binds < 0, "binds is negative: %d", c.Binds)
	refuse(c.Window < 0, "window is negative: %d", c.Window)
	refuse(c.ResponseTimeout < 0, "response timeout is negative: %s", c.ResponseTimeout)
	refuse(c.EnquireLink < 0, "enquire link is negative: %s", c.EnquireLink)
	refuse(c.Patience < 0, "patience is negative: %s", c.Patience)
	refuse(c.Rate < 0, "rate is negative: %g", c.Rate)
	return c, errors.Join(errs...)
}

var _ channels.Sender = (*Sender)(nil)
