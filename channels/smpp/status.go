package smpp

import (
	"fmt"
	"time"

	"github.com/linxGnu/gosmpp/data"

	"github.com/musterhq/muster/channels"
)

// How long a message waits after a passing refusal.
const (
	retryThrottled = time.Second
	retryBusy      = 5 * time.Second
	retryFault     = 30 * time.Second
)

// judge turns the command status of a submit_sm_resp or generic_nack into a
// verdict. A status other than 0 says that the message was not taken (SMPP 3.4,
// 5.1.3); throttling, full queues, temporary faults and a wrong bind state say
// nothing against the message itself, so it may be planned again. The
// provider's id is for the caller to fill in.
func judge(status data.CommandStatusType) channels.Result {
	notSent := func(after time.Duration, reason string) channels.Result {
		return channels.Result{Verdict: channels.NotSent, RetryAfter: after, Reason: reason}
	}
	switch status {
	case data.ESME_ROK:
		return channels.Result{Verdict: channels.Accepted}
	case data.ESME_RTHROTTLED:
		return notSent(retryThrottled, "the SMS centre asks for a slower pace")
	case data.ESME_RMSGQFUL:
		return notSent(retryBusy, "the SMS centre's queue is full")
	case data.ESME_RSYSERR:
		return notSent(retryFault, "the SMS centre has a system error")
	case data.ESME_RX_T_APPN:
		return notSent(retryFault, "the SMS centre has a temporary fault")
	case data.ESME_RINVBNDSTS:
		return notSent(retryBusy, "the SMS centre does not take messages on this session")
	}
	reason, ok := refusals[status]
	if !ok {
		reason = "refused by the SMS centre"
	}
	return channels.Result{
		Verdict: channels.Refused,
		Reason:  fmt.Sprintf("%s (SMPP status 0x%08X)", reason, uint32(status)),
	}
}

var refusals = map[data.CommandStatusType]string{
	data.ESME_RINVMSGLEN:       "message length not allowed",
	data.ESME_RINVCMDLEN:       "the SMS centre could not read the message",
	data.ESME_RINVCMDID:        "the SMS centre does not know this kind of message",
	data.ESME_RINVPRTFLG:       "priority not allowed",
	data.ESME_RINVREGDLVFLG:    "receipts not allowed",
	data.ESME_RINVSRCADR:       "sender number not allowed",
	data.ESME_RINVDSTADR:       "recipient number not valid",
	data.ESME_RINVSERTYP:       "service type not allowed",
	data.ESME_RINVESMCLASS:     "message class not allowed",
	data.ESME_RSUBMITFAIL:      "submission failed",
	data.ESME_RINVSRCTON:       "type of the sender number not allowed",
	data.ESME_RINVSRCNPI:       "numbering plan of the sender number not allowed",
	data.ESME_RINVDSTTON:       "type of the recipient number not allowed",
	data.ESME_RINVDSTNPI:       "numbering plan of the recipient number not allowed",
	data.ESME_RPROVNOTALLWD:    "service not provided to this customer",
	data.ESME_RX_P_APPN:        "permanent fault at the SMS centre",
	data.ESME_RX_R_APPN:        "rejected by the SMS centre",
	data.ESME_RINVOPTPARSTREAM: "optional parameters not readable",
	data.ESME_ROPTPARNOTALLWD:  "optional parameter not allowed",
	data.ESME_RINVPARLEN:       "parameter length not allowed",
	data.ESME_RMISSINGOPTPARAM: "optional parameter missing",
	data.ESME_RINVOPTPARAMVAL:  "optional parameter value not allowed",
	data.ESME_RUNKNOWNERR:      "refused by the SMS centre without a reason",
}
