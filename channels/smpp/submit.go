package smpp

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"github.com/linxGnu/gosmpp/data"
	"github.com/linxGnu/gosmpp/pdu"

	"github.com/musterhq/muster/channels"
)

// A message is as long as this at most: message_payload stays below the 32 KiB
// that every SMPP library can read, and a part number fits its octet.
const maxParts = 200

// outgoing is a message in the form in which it leaves: one marshalled
// submit_sm or several, whose sequence numbers the session fills in, or the
// reason why it cannot leave at all.
type outgoing struct {
	frames  [][]byte
	parts   int
	refusal string
}

// reference numbers concatenated messages; handsets join the parts by it.
var reference atomic.Uint32

func (c *Config) encode(m channels.Message) outgoing {
	refuse := func(reason string) outgoing { return outgoing{refusal: reason} }
	if !isNumber(m.To) {
		return refuse("recipient number not valid: 5 to 15 digits are needed")
	}
	if len(m.From) > 20 {
		return refuse("sender is longer than 20 characters")
	}
	segments, enc := channels.Segments(m.Text)
	switch {
	case len(segments) == 0:
		return refuse("the message has no text")
	case len(segments) > maxParts:
		return refuse(fmt.Sprintf("the message has %d parts; at most %d can be sent", len(segments), maxParts))
	}

	out := outgoing{parts: len(segments)}
	coding := data.GSM7BIT
	if enc == channels.UCS2 {
		coding = data.UCS2
	}
	if len(segments) == 1 || !c.Concatenate {
		submit := newSubmit(m)
		submit.RegisteredDelivery = data.SM_SMSC_RECEIPT_REQUESTED
		if len(segments) == 1 {
			_ = submit.Message.SetMessageDataWithEncoding(segments[0], coding)
		} else {
			_ = submit.Message.SetMessageDataWithEncoding(nil, coding)
			var payload []byte
			for _, segment := range segments {
				payload = append(payload, segment...)
			}
			submit.RegisterOptionalParam(pdu.Field{Tag: pdu.TagMessagePayload, Data: payload})
		}
		out.frames = [][]byte{marshal(submit)}
		return out
	}
	ref := byte(reference.Add(1))
	for i, segment := range segments {
		submit := newSubmit(m)
		submit.EsmClass |= data.SM_UDH_GSM
		_ = submit.Message.SetMessageDataWithEncoding(segment, coding)
		submit.Message.SetUDH(pdu.UDH{pdu.NewIEConcatMessage(byte(len(segments)), byte(i+1), ref)})
		if i == len(segments)-1 {
			submit.RegisteredDelivery = data.SM_SMSC_RECEIPT_REQUESTED
		}
		out.frames = append(out.frames, marshal(submit))
	}
	return out
}

func newSubmit(m channels.Message) *pdu.SubmitSM {
	submit := pdu.NewSubmitSM().(*pdu.SubmitSM)
	submit.SourceAddr = source(m.From)
	submit.DestAddr = pdu.NewAddressWithTonNpi(data.GSM_TON_INTERNATIONAL, data.GSM_NPI_E164)
	_ = submit.DestAddr.SetAddress(m.To)
	if m.ContactID != "" {
		submit.RegisterOptionalParam(pdu.Field{Tag: TagContactID, Data: []byte(m.ContactID)})
		submit.RegisterOptionalParam(pdu.Field{Tag: TagEpoch, Data: binary.BigEndian.AppendUint32(nil, uint32(m.Epoch))})
	}
	return submit
}

// source types the sender: a name, a full number, or a service number that
// means something only inside the operator's network.
func source(from string) pdu.Address {
	ton, npi := data.GSM_TON_ALPHANUMERIC, data.GSM_NPI_UNKNOWN
	switch {
	case from == "":
		ton = data.GSM_TON_UNKNOWN
	case isDigits(from) && len(from) > 8:
		ton, npi = data.GSM_TON_INTERNATIONAL, data.GSM_NPI_E164
	case isDigits(from):
		ton, npi = data.GSM_TON_UNKNOWN, data.GSM_NPI_E164
	}
	address := pdu.NewAddressWithTonNpi(ton, npi)
	_ = address.SetAddress(from)
	return address
}

func isNumber(s string) bool { return len(s) >= 5 && len(s) <= 15 && isDigits(s) }

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func marshal(p pdu.PDU) []byte {
	buf := pdu.NewBuffer(make([]byte, 0, 256))
	p.Marshal(buf)
	return buf.Bytes()
}

// setSequence writes the sequence number into a marshalled frame.
func setSequence(frame []byte, seq int32) { binary.BigEndian.PutUint32(frame[12:16], uint32(seq)) }
