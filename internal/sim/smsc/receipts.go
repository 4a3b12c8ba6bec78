package smsc

import (
	"fmt"
	"time"

	"github.com/linxGnu/gosmpp/data"
	"github.com/linxGnu/gosmpp/pdu"

	"github.com/musterhq/muster/channels/smpp"
)

const (
	// So many receipts a client may have outstanding.
	receiptWindow = 1000
	// A receipt that the client could not keep is brought again after this.
	bringAgain = time.Second
)

// receipt is one delivery receipt to be sent and confirmed.
type receipt struct {
	*Accepted
	stat   string
	doneAt time.Time
}

// scheduleReceipt plans the receipt of a message, or both if it is repeated.
func (s *Server) scheduleReceipt(a *Accepted) {
	key := a.key()
	at := a.At.Add(s.opt.receiptDelay(key))
	r := &receipt{Accepted: a, stat: s.opt.outcome(key), doneAt: at}
	times := 1
	if s.opt.repeatsReceipt(key) {
		times = 2
	}
	for range times {
		s.timeline.add(at, func() { s.offer(r) })
	}
}

// key is what a message's fate depends on: the client reference, or the number
// when the client gives none.
func (a *Accepted) key() string {
	if a.ContactID != "" {
		return a.ContactID
	}
	return a.To
}

func (s *Server) offer(r *receipt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = append(s.ready, r)
	s.pump()
}

// pump sends receipts that are due to clients that have room. The mutex is held.
func (s *Server) pump() {
	for len(s.ready) > 0 {
		// The order of a map changes from turn to turn: that spreads the receipts.
		var to *conn
		for c := range s.conns {
			if c.receives && len(c.outstanding) < receiptWindow {
				to = c
				break
			}
		}
		if to == nil {
			return
		}
		r := s.ready[0]
		s.ready[0] = nil
		s.ready = s.ready[1:]
		to.sequence++
		to.outstanding[to.sequence] = r
		to.send(marshal(r.unit(to.sequence, s.opt.EchoReference)))
		s.count.receiptsSent.Add(1)
	}
}

// unit writes the receipt in the customary form of SMPP 3.4, appendix B, with
// seconds in its dates.
func (r *receipt) unit(sequence int32, echo bool) *pdu.DeliverSM {
	const layout = "060102150405"
	state, fault, delivered := byte(data.SM_STATE_DELIVERED), "000", "001"
	switch r.stat {
	case "UNDELIV":
		state, fault, delivered = data.SM_STATE_UNDELIVERABLE, "011", "000"
	case "EXPIRED":
		state, fault, delivered = data.SM_STATE_EXPIRED, "027", "000"
	}
	text := fmt.Sprintf("id:%s sub:001 dlvrd:%s submit date:%s done date:%s stat:%s err:%s text:simulated",
		r.MessageID, delivered, r.At.UTC().Format(layout), r.doneAt.UTC().Format(layout), r.stat, fault)

	unit := pdu.NewDeliverSM().(*pdu.DeliverSM)
	unit.SetSequenceNumber(sequence)
	unit.EsmClass = data.SM_SMSC_DLV_RCPT_TYPE
	_ = unit.SourceAddr.SetAddress(r.To)
	_ = unit.DestAddr.SetAddress(r.From)
	_ = unit.Message.SetMessageDataWithEncoding([]byte(text), data.GSM7BIT)
	unit.RegisterOptionalParam(pdu.Field{Tag: pdu.TagReceiptedMessageID, Data: append([]byte(r.MessageID), 0)})
	unit.RegisterOptionalParam(pdu.Field{Tag: pdu.TagMessageStateOption, Data: []byte{state}})
	if echo && r.ContactID != "" {
		unit.RegisterOptionalParam(pdu.Field{Tag: smpp.TagContactID, Data: []byte(r.ContactID)})
	}
	return unit
}

// confirmed takes a client's answer to a receipt and returns the journal lines
// with it noted.
func (s *Server) confirmed(c *conn, answer *pdu.DeliverSMResp, lines []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := c.outstanding[answer.SequenceNumber]
	if !ok {
		return lines
	}
	delete(c.outstanding, answer.SequenceNumber)
	defer s.pump()
	switch answer.CommandStatus {
	case data.ESME_ROK:
		s.count.receiptsConfirmed.Add(1)
		now := time.Now().UTC()
		return line{Kind: kindReceipt, ReceiptFor: r.MessageID, Stat: r.stat, ConfirmedAt: &now}.append(lines)
	case data.ESME_RX_T_APPN, data.ESME_RMSGQFUL, data.ESME_RTHROTTLED:
		s.timeline.add(time.Now().Add(bringAgain), func() { s.offer(r) })
	}
	return lines
}
