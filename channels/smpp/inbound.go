package smpp

import (
	"time"

	"github.com/linxGnu/gosmpp/data"
	"github.com/linxGnu/gosmpp/pdu"

	"github.com/musterhq/muster/channels"
)

const (
	// So many items may wait for the inbox; more are sent back as "queue full",
	// since a full queue must not hold up the answers to submits behind it.
	inboundQueue = 4096
	// So many items at most go to the inbox at once.
	inboundBatch = 500
)

// inbound is a receipt or reply that waits for the inbox, with the answer that
// the SMS centre waits for. Late answers of the SMS centre wait for none.
type inbound struct {
	ss      *session
	unit    *pdu.DeliverSM
	receipt *channels.Receipt
	reply   *channels.Reply
}

// receive queues what the SMS centre delivers.
func (ss *session) receive(d *pdu.DeliverSM) {
	now := time.Now()
	item := inbound{ss: ss, unit: d}
	if isReceipt(d) {
		r := parseReceipt(d, ss.s.cfg.Location, now)
		item.receipt = &r
	} else {
		r := parseReply(d, now)
		item.reply = &r
	}
	select {
	case ss.s.inbound <- item:
	default:
		ss.reject(d, data.ESME_RMSGQFUL)
	}
}

// reject sends a delivery back with a status: again later, or never.
func (ss *session) reject(d *pdu.DeliverSM, status data.CommandStatusType) {
	answer := d.GetResponse().(*pdu.DeliverSMResp)
	answer.CommandStatus = status
	ss.respond(answer)
}

// reportLate tells the inbox what became of a message judged unknown. Nobody
// brings it again, so if the queue is full the message stays unknown.
func (ss *session) reportLate(p part, result channels.Result) {
	r := channels.Receipt{
		ProviderID: result.ProviderID,
		ContactID:  p.flight.job.batch[p.flight.i].ContactID,
		At:         time.Now(),
	}
	switch result.Verdict {
	case channels.Accepted:
		r.State, r.Raw = channels.StateAccepted, "late submit_sm_resp: accepted"
	default:
		r.State, r.Reason, r.Raw = channels.StateRefused, result.Reason, "late submit_sm_resp: "+result.Reason
	}
	select {
	case ss.s.inbound <- inbound{ss: ss, receipt: &r}:
	default:
		ss.s.cfg.Log.Warn("smpp: late answer dropped, the inbox is behind")
	}
}

// deliver brings what waits to the inbox and answers the SMS centre after it was
// kept.
func (s *Sender) deliver() {
	for {
		var items []inbound
		select {
		case <-s.ctx.Done():
			return
		case item := <-s.inbound:
			items = append(items, item)
		}
	collect:
		for len(items) < inboundBatch {
			select {
			case item := <-s.inbound:
				items = append(items, item)
			default:
				break collect
			}
		}
		s.keep(items)
	}
}

func (s *Sender) keep(items []inbound) {
	var receipts []channels.Receipt
	var replies []channels.Reply
	for _, item := range items {
		if item.receipt != nil {
			receipts = append(receipts, *item.receipt)
		} else {
			replies = append(replies, *item.reply)
		}
	}
	var receiptsErr, repliesErr error
	if len(receipts) > 0 {
		receiptsErr = s.inbox.Receipts(s.ctx, receipts)
	}
	if len(replies) > 0 {
		repliesErr = s.inbox.Replies(s.ctx, replies)
	}
	if (receiptsErr != nil || repliesErr != nil) && s.ctx.Err() == nil {
		s.cfg.Log.Error("smpp: not kept, the SMS centre will bring it again",
			"receipts", len(receipts), "receipts_error", receiptsErr, "replies", len(replies), "replies_error", repliesErr)
	}
	for _, item := range items {
		switch {
		case item.unit == nil:
		case item.receipt != nil && receiptsErr != nil, item.reply != nil && repliesErr != nil:
			item.ss.reject(item.unit, data.ESME_RX_T_APPN)
		default:
			item.ss.respond(item.unit.GetResponse())
		}
	}
}
