package smpp

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/linxGnu/gosmpp/data"
	"github.com/linxGnu/gosmpp/pdu"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/channels"
)

// cutConn takes n octets and then fails, as a lost connection does.
type cutConn struct {
	net.Conn
	n int
}

func (c cutConn) Write(b []byte) (int, error) {
	if len(b) <= c.n {
		return len(b), nil
	}
	return c.n, errors.New("connection lost")
}

func (c cutConn) SetWriteDeadline(time.Time) error { return nil }

// However a write is cut: a message with all its octets written stays open (it
// may have been read), any other is proven not to have left.
func TestCutWriteProvesWhatNeverLeft(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lengths := rapid.SliceOfN(rapid.IntRange(17, 200), 1, 20).Draw(t, "lengths")
		control := rapid.IntRange(0, 40).Draw(t, "control octets")
		total := control
		for _, n := range lengths {
			total += n
		}
		cut := rapid.IntRange(0, total-1).Draw(t, "cut")

		results := make([]channels.Result, len(lengths))
		s := &Sender{cfg: Config{Window: 100, ResponseTimeout: time.Second}, sessions: map[*session]struct{}{}}
		j := &job{
			ctx: t.Context(), batch: make([]channels.Message, len(lengths)), ready: len(lengths), finished: make(chan struct{}),
			done: func(i int, r channels.Result) { results[i] = r },
		}
		for _, n := range lengths {
			j.out = append(j.out, outgoing{frames: [][]byte{make([]byte, n)}, parts: 1})
		}
		j.open.Store(int64(len(lengths)))
		s.jobs = []*job{j}
		ss := &session{
			s: s, conn: cutConn{n: cut}, wake: sync.NewCond(&s.mu), answered: true,
			pending: map[int32]part{}, late: map[int32]part{},
		}
		if control > 0 {
			ss.control = [][]byte{make([]byte, control)}
		}
		require.Error(t, ss.write())

		end := control
		for i, n := range lengths {
			end += n
			want := channels.Verdict("")
			if end > cut {
				want = channels.NotSent
			}
			require.Equal(t, want, results[i].Verdict, "message %d ends at %d, cut at %d", i, end, cut)
		}
	})
}

// A stop holds from the moment it is given, not from when its Send notices.
func TestNothingIsTakenAfterStop(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &Sender{cfg: Config{Window: 100}}
	j := &job{ctx: ctx, batch: make([]channels.Message, 2), ready: 2}
	for range j.batch {
		j.out = append(j.out, outgoing{frames: [][]byte{make([]byte, 20)}, parts: 1})
	}
	s.jobs = []*job{j}
	ss := &session{s: s, pending: map[int32]part{}}
	frames, _ := s.take(ss)
	require.Len(t, frames, 1, "the first message of a session is a probe")
	ss.answered = true
	cancel()
	frames, _ = s.take(ss)
	require.Empty(t, frames)
}

func TestVerdictOfSeveralParts(t *testing.T) {
	ok := func(id string) channels.Result {
		return channels.Result{Verdict: channels.Accepted, ProviderID: id}
	}
	refused := channels.Result{Verdict: channels.Refused, Reason: "no"}
	notSent := channels.Result{Verdict: channels.NotSent, Reason: "slow", RetryAfter: 1}
	unknown := channels.Result{Verdict: channels.Unknown, Reason: "silence"}
	for name, tc := range map[string]struct {
		parts []channels.Result
		want  channels.Result
	}{
		"all accepted":            {[]channels.Result{ok("1"), ok("2"), ok("3")}, ok("3")},
		"all refused":             {[]channels.Result{refused, refused}, refused},
		"none taken":              {[]channels.Result{notSent, notSent}, notSent},
		"refused weighs more":     {[]channels.Result{notSent, refused}, refused},
		"one unknown":             {[]channels.Result{ok("1"), unknown}, unknown},
		"unknown beside refused":  {[]channels.Result{unknown, refused}, unknown},
		"never again once a part": {[]channels.Result{ok("1"), notSent}, channels.Result{Verdict: channels.Refused, Reason: "only 1 of 2 parts were accepted: slow"}},
	} {
		t.Run(name, func(t *testing.T) {
			// Answers come in any order.
			for _, backwards := range []bool{false, true} {
				f := &flight{parts: len(tc.parts)}
				for k := range tc.parts {
					n := k
					if backwards {
						n = len(tc.parts) - 1 - k
					}
					got, complete := f.judge(part{flight: f, n: n}, tc.parts[n])
					require.Equal(t, k == len(tc.parts)-1, complete)
					if complete {
						require.Equal(t, tc.want, got)
					}
				}
			}
		})
	}
}

// In no second do more parts leave than the rate says, and without outages not
// much fewer either.
func TestRateHoldsInEverySecond(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		perSecond := float64(rapid.IntRange(1, 3000).Draw(t, "rate"))
		s := &Sender{limiter: newLimiter(perSecond)}
		start := time.Unix(1_700_000_000, 0)
		end := start.Add(10 * time.Second)
		outages := rapid.Bool().Draw(t, "outages")
		total := 0
		var left []time.Time
		for now := start; now.Before(end); {
			if outages && rapid.IntRange(0, 999).Draw(t, "outage") == 0 {
				now = now.Add(2 * time.Second) // an outage, in which tokens must not pile up
			}
			wait := s.pace(now, 1)
			if wait > 0 {
				now = now.Add(wait)
				continue
			}
			total++
			left = append(left, now)
			from := 0
			for left[from].Before(now.Add(-time.Second + time.Microsecond)) {
				from++
			}
			left = left[from:]
			require.LessOrEqual(t, float64(len(left)), perSecond)
		}
		if !outages {
			require.GreaterOrEqual(t, float64(total), 9.8*perSecond)
		}
	})
}

func TestLongMessagesOweTheirParts(t *testing.T) {
	s := &Sender{limiter: newLimiter(10)}
	now := time.Unix(1_700_000_000, 0)
	require.Zero(t, s.pace(now, 4), "the parts of one message leave together")
	require.InDelta(t, 400*time.Millisecond, s.pace(now, 1), float64(time.Millisecond))
}

func TestJudge(t *testing.T) {
	for status, want := range map[data.CommandStatusType]channels.Verdict{
		data.ESME_ROK:         channels.Accepted,
		data.ESME_RTHROTTLED:  channels.NotSent,
		data.ESME_RMSGQFUL:    channels.NotSent,
		data.ESME_RSYSERR:     channels.NotSent,
		data.ESME_RX_T_APPN:   channels.NotSent,
		data.ESME_RINVBNDSTS:  channels.NotSent,
		data.ESME_RINVDSTADR:  channels.Refused,
		data.ESME_RINVSRCADR:  channels.Refused,
		data.ESME_RSUBMITFAIL: channels.Refused,
		0x0400:                channels.Refused, // a vendor's own
	} {
		r := judge(status)
		require.Equal(t, want, r.Verdict, "status 0x%08X", uint32(status))
		require.Equal(t, want == channels.NotSent, r.RetryAfter > 0)
		require.Equal(t, want == channels.Accepted, r.Reason == "")
	}
	require.Equal(t, "recipient number not valid (SMPP status 0x0000000B)", judge(data.ESME_RINVDSTADR).Reason)
	require.Equal(t, "refused by the SMS centre (SMPP status 0x00000400)", judge(0x400).Reason)
}

func TestParseReceipt(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	shanghai := time.FixedZone("CST", 8*3600)
	for name, tc := range map[string]struct {
		text string
		tlvs []pdu.Field
		want channels.Receipt
	}{
		"delivered": {
			text: "id:0123456789 sub:001 dlvrd:001 submit date:2603011130 done date:2603011131 stat:DELIVRD err:000 text:Hello",
			want: channels.Receipt{ProviderID: "0123456789", State: channels.StateDelivered, At: time.Date(2026, 3, 1, 11, 31, 0, 0, shanghai)},
		},
		"with seconds, capitals and spaces": {
			text: "ID: ab-1_x Sub:001 Dlvrd:000 Submit Date:260301113000 Done Date:260301113159 Stat:UNDELIV Err:045 Text:",
			want: channels.Receipt{ProviderID: "ab-1_x", State: channels.StateFailed, Reason: "could not be delivered (error 045)", At: time.Date(2026, 3, 1, 11, 31, 59, 0, shanghai)},
		},
		"expired": {
			text: "id:7 done date:2603011131 stat:EXPIRED err:000",
			want: channels.Receipt{ProviderID: "7", State: channels.StateExpired, Reason: "not delivered within its validity", At: time.Date(2026, 3, 1, 11, 31, 0, 0, shanghai)},
		},
		"rejected, no date": {
			text: "id:7 stat:REJECTD err:",
			want: channels.Receipt{ProviderID: "7", State: channels.StateFailed, Reason: "rejected by the network", At: now},
		},
		"on its way": {
			text: "id:7 stat:ENROUTE", want: channels.Receipt{ProviderID: "7", State: channels.StateAccepted, At: now},
		},
		"a date that is none": {
			text: "id:7 done date:9999999999 stat:DELIVRD", want: channels.Receipt{ProviderID: "7", State: channels.StateDelivered, At: now},
		},
		"fields inside the quoted text do not count": {
			text: "id:7 stat:DELIVRD text:id:8 stat:UNDELIV", want: channels.Receipt{ProviderID: "7", State: channels.StateDelivered, At: now},
		},
		"TLVs win": {
			text: "id:7 stat:DELIVRD err:011",
			tlvs: []pdu.Field{
				{Tag: pdu.TagReceiptedMessageID, Data: []byte("8\x00")}, {Tag: pdu.TagMessageStateOption, Data: []byte{data.SM_STATE_UNDELIVERABLE}},
				{Tag: TagContactID, Data: []byte("c-1")},
			},
			want: channels.Receipt{ProviderID: "8", ContactID: "c-1", State: channels.StateFailed, Reason: "could not be delivered (error 011)", At: now},
		},
		"a state that nobody defines": {
			text: "id:7 stat:MELTED", want: channels.Receipt{ProviderID: "7", State: channels.StateUnknown, Reason: "the SMS centre reported a state that SMPP does not define", At: now},
		},
		"nothing at all": {
			want: channels.Receipt{State: channels.StateUnknown, Reason: "the SMS centre reported a state that SMPP does not define", At: now},
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := pdu.NewDeliverSM().(*pdu.DeliverSM)
			d.EsmClass = data.SM_SMSC_DLV_RCPT_TYPE
			require.NoError(t, d.Message.SetMessageDataWithEncoding([]byte(tc.text), data.GSM7BIT))
			for _, tlv := range tc.tlvs {
				d.RegisterOptionalParam(tlv)
			}
			require.True(t, isReceipt(d))
			tc.want.Raw = tc.text
			got := parseReceipt(d, shanghai, now)
			require.True(t, tc.want.At.Equal(got.At), "%s is not %s", got.At, tc.want.At)
			got.At = tc.want.At
			require.Equal(t, tc.want, got)
		})
	}
}

func TestParseReceiptTakesAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := pdu.NewDeliverSM().(*pdu.DeliverSM)
		raw := rapid.OneOf(
			rapid.SliceOfN(rapid.Byte(), 0, 200),
			rapid.Map(rapid.StringMatching(`( ?(id|ID|stat|err|done date|text|İ):? ?[A-Z0-9]{0,12}){0,8}`), func(s string) []byte { return []byte(s) }),
		).Draw(t, "raw")
		require.NoError(t, d.Message.SetMessageDataWithEncoding(raw, data.GSM7BIT))
		parseReceipt(d, time.UTC, time.Now())
		parseReply(d, time.Now())
	})
}

func TestEncode(t *testing.T) {
	cfg := Config{}
	m := channels.Message{ContactID: "0198c0de-0000-7000-8000-000000000001", Epoch: 3, To: "8613900000001", From: "10086", Text: "Hi €5"}
	decode := func(t *testing.T, octets []byte) *pdu.SubmitSM {
		p := pdu.NewSubmitSM().(*pdu.SubmitSM)
		require.NoError(t, p.Unmarshal(pdu.NewBuffer(octets)))
		return p
	}
	t.Run("short", func(t *testing.T) {
		out := cfg.encode(m)
		require.Empty(t, out.refusal)
		require.Len(t, out.frames, 1)
		p := decode(t, out.frames[0])
		text, err := p.Message.GetMessage()
		require.NoError(t, err)
		require.Equal(t, "Hi €5", text)
		require.EqualValues(t, data.SM_SMSC_RECEIPT_REQUESTED, p.RegisteredDelivery)
		require.Equal(t, "8613900000001", p.DestAddr.Address())
		require.Equal(t, data.GSM_TON_INTERNATIONAL, p.DestAddr.Ton())
		require.Equal(t, []byte(m.ContactID), p.OptionalParameters[TagContactID].Data)
		require.Equal(t, []byte{0, 0, 0, 3}, p.OptionalParameters[TagEpoch].Data)
	})
	t.Run("sender", func(t *testing.T) {
		for from, ton := range map[string]byte{
			"10086": data.GSM_TON_UNKNOWN, "8613900000001": data.GSM_TON_INTERNATIONAL, "Muster": data.GSM_TON_ALPHANUMERIC, "": data.GSM_TON_UNKNOWN,
		} {
			m.From = from
			p := decode(t, cfg.encode(m).frames[0])
			require.Equal(t, from, p.SourceAddr.Address())
			require.Equal(t, ton, p.SourceAddr.Ton(), "sender %q", from)
		}
	})
	t.Run("refused before sending", func(t *testing.T) {
		long := make([]byte, 153*maxParts+1)
		for i := range long {
			long[i] = 'x'
		}
		for name, broken := range map[string]channels.Message{
			"no text":           {To: m.To},
			"plus sign":         {To: "+8613900000001", Text: "x"},
			"too short":         {To: "8613", Text: "x"},
			"too long a number": {To: "8613900000001234", Text: "x"},
			"too long a sender": {To: m.To, From: "123456789012345678901", Text: "x"},
			"too many parts":    {To: m.To, Text: string(long)},
		} {
			out := cfg.encode(broken)
			require.NotEmpty(t, out.refusal, name)
			require.Empty(t, out.frames, name)
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	good := Config{Addr: "127.0.0.1:2775"}
	_, err := good.withDefaults()
	require.NoError(t, err)
	for name, spoil := range map[string]func(*Config){
		"no address":        func(c *Config) { c.Addr = "" },
		"long password":     func(c *Config) { c.Password = "123456789" },
		"negative rate":     func(c *Config) { c.Rate = -1 },
		"negative window":   func(c *Config) { c.Window = -1 },
		"negative patience": func(c *Config) { c.Patience = -1 },
	} {
		bad := good
		spoil(&bad)
		_, err := bad.withDefaults()
		require.Error(t, err, name)
	}
	_, err = New(t.Context(), good, nil)
	require.Error(t, err)
}
