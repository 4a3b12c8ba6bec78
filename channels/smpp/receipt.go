package smpp

import (
	"bytes"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/linxGnu/gosmpp/data"
	"github.com/linxGnu/gosmpp/pdu"

	"github.com/musterhq/muster/channels"
)

// The message type is in bits 2-5 of esm_class (SMPP 3.4, 5.2.12).
const esmTypeMask = 0x3C

// isReceipt tells a delivery receipt from a customer's message. Some SMS
// centres leave esm_class at 0 and are known by the TLV alone.
func isReceipt(d *pdu.DeliverSM) bool {
	switch d.EsmClass & esmTypeMask {
	case data.SM_SMSC_DLV_RCPT_TYPE, data.SM_INTMD_DLV_NOTIFY_TYPE:
		return true
	}
	_, ok := d.OptionalParameters[pdu.TagReceiptedMessageID]
	return ok
}

// receiptFields reads the customary text (SMPP 3.4, appendix B), whose names
// come in any case, up to where the quoted message begins: it may hold anything.
//
//	id:… sub:001 dlvrd:001 submit date:YYMMDDhhmm done date:YYMMDDhhmm stat:DELIVRD err:000 text:…
func receiptFields(raw string) (id, done, stat, fault string) {
	raw = " " + raw
	lower := []byte(raw) // of the same length, unlike strings.ToLower's
	for i, c := range lower {
		if 'A' <= c && c <= 'Z' {
			lower[i] = c + 'a' - 'A'
		}
	}
	if at := bytes.Index(lower, []byte(" text:")); at >= 0 {
		lower = lower[:at]
	}
	field := func(name string) string {
		at := bytes.Index(lower, []byte(name))
		if at < 0 {
			return ""
		}
		value := strings.TrimLeft(raw[at+len(name):len(lower)], " ")
		value, _, _ = strings.Cut(value, " ")
		return value
	}
	return field(" id:"), field(" done date:"), field(" stat:"), field(" err:")
}

// parseReceipt reads a receipt. The TLVs receipted_message_id and message_state
// win over the text, whose form is only custom.
func parseReceipt(d *pdu.DeliverSM, zone *time.Location, now time.Time) channels.Receipt {
	raw := strings.ToValidUTF8(string(body(d)), "�")
	id, done, stat, fault := receiptFields(raw)
	r := channels.Receipt{ProviderID: id, At: now, Raw: raw}
	if tlv, ok := d.OptionalParameters[pdu.TagReceiptedMessageID]; ok {
		r.ProviderID = tlv.String()
	}
	if tlv, ok := d.OptionalParameters[TagContactID]; ok {
		r.ContactID = tlv.String()
	}
	if at, ok := doneDate(done, zone); ok {
		r.At = at
	}

	stat = strings.ToUpper(stat)
	if tlv, ok := d.OptionalParameters[pdu.TagMessageStateOption]; ok && len(tlv.Data) == 1 {
		if name, known := messageStates[tlv.Data[0]]; known {
			stat = name
		}
	}
	known, ok := receiptStates[stat]
	if !ok {
		known = receiptState{channels.StateUnknown, "the SMS centre reported a state that SMPP does not define"}
	}
	r.State, r.Reason = known.state, known.reason
	if r.Reason != "" && strings.Trim(fault, "0") != "" {
		r.Reason += " (error " + fault + ")"
	}
	return r
}

type receiptState struct {
	state  channels.State
	reason string
}

var receiptStates = map[string]receiptState{
	"DELIVRD": {channels.StateDelivered, ""},
	"ENROUTE": {channels.StateAccepted, ""},
	"ACCEPTD": {channels.StateAccepted, ""},
	"EXPIRED": {channels.StateExpired, "not delivered within its validity"},
	"DELETED": {channels.StateFailed, "deleted at the SMS centre"},
	"UNDELIV": {channels.StateFailed, "could not be delivered"},
	"REJECTD": {channels.StateFailed, "rejected by the network"},
	"UNKNOWN": {channels.StateUnknown, "the SMS centre does not know what became of it"},
}

// messageStates are the values of the message_state TLV (SMPP 3.4, 5.2.28).
var messageStates = map[byte]string{
	data.SM_STATE_EN_ROUTE: "ENROUTE", data.SM_STATE_DELIVERED: "DELIVRD", data.SM_STATE_EXPIRED: "EXPIRED",
	data.SM_STATE_DELETED: "DELETED", data.SM_STATE_UNDELIVERABLE: "UNDELIV", data.SM_STATE_ACCEPTED: "ACCEPTD",
	data.SM_STATE_INVALID: "UNKNOWN", data.SM_STATE_REJECTED: "REJECTD",
}

// doneDate reads YYMMDDhhmm, with seconds if there are any.
func doneDate(s string, zone *time.Location) (time.Time, bool) {
	const layout = "060102150405"
	if len(s) != len(layout) && len(s) != len(layout)-2 {
		return time.Time{}, false
	}
	at, err := time.ParseInLocation(layout[:len(s)], s, zone)
	return at, err == nil
}

func body(d *pdu.DeliverSM) []byte {
	if payload, ok := d.OptionalParameters[pdu.TagMessagePayload]; ok {
		return payload.Data
	}
	octets, _ := d.Message.GetMessageData()
	return octets
}

func parseReply(d *pdu.DeliverSM, now time.Time) channels.Reply {
	octets := body(d)
	text, err := "", error(nil)
	if enc := d.Message.Encoding(); enc != nil {
		text, err = enc.Decode(octets)
	}
	if (text == "" || err != nil) && utf8.Valid(octets) {
		text = string(octets)
	}
	return channels.Reply{
		From: d.SourceAddr.Address(), To: d.DestAddr.Address(),
		Text: strings.ToValidUTF8(text, "�"), At: now,
	}
}
