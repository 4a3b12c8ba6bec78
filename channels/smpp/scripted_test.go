package smpp_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linxGnu/gosmpp/data"
	"github.com/linxGnu/gosmpp/pdu"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/channels"
	"github.com/musterhq/muster/channels/smpp"
	"github.com/musterhq/muster/internal/sim/smsc"
)

const patient = 30 * time.Second

// collector is an inbox that keeps everything.
type collector struct {
	mu       sync.Mutex
	receipts []channels.Receipt
	replies  []channels.Reply
}

func (c *collector) Receipts(_ context.Context, r []channels.Receipt) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.receipts = append(c.receipts, r...)
	return nil
}

func (c *collector) Replies(_ context.Context, r []channels.Reply) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replies = append(c.replies, r...)
	return nil
}

func (c *collector) all() ([]channels.Receipt, []channels.Reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]channels.Receipt(nil), c.receipts...), append([]channels.Reply(nil), c.replies...)
}

// peer is an SMS centre that does what a test says, unit by unit. It binds
// everyone.
type peer struct {
	t     *testing.T
	net   net.Listener
	serve func(session int, conn net.Conn, unit pdu.PDU)
	tasks sync.WaitGroup
	mu    sync.Mutex
	binds int
}

func newPeer(t *testing.T, serve func(session int, conn net.Conn, unit pdu.PDU)) *peer {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &peer{t: t, net: listener, serve: serve}
	p.tasks.Go(p.accept)
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		p.tasks.Wait()
	})
	return p
}

func (p *peer) accept() {
	for {
		conn, err := p.net.Accept()
		if err != nil {
			return
		}
		p.tasks.Go(func() {
			defer func() { _ = conn.Close() }()
			session := 0
			for {
				unit, err := pdu.Parse(conn)
				if err != nil {
					return
				}
				switch unit := unit.(type) {
				case *pdu.BindRequest:
					p.mu.Lock()
					p.binds++
					session = p.binds
					p.mu.Unlock()
					write(conn, unit.GetResponse())
				case *pdu.Unbind:
					write(conn, unit.GetResponse())
					return
				default:
					p.serve(session, conn, unit)
				}
			}
		})
	}
}

func (p *peer) sessions() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.binds
}

func write(conn net.Conn, unit pdu.PDU) {
	buf := pdu.NewBuffer(nil)
	unit.Marshal(buf)
	_, _ = conn.Write(buf.Bytes())
}

func accept(submit *pdu.SubmitSM, id string) pdu.PDU {
	answer := submit.GetResponse().(*pdu.SubmitSMResp)
	answer.MessageID = id
	return answer
}

func open(t *testing.T, cfg smpp.Config, inbox channels.Inbox) *smpp.Sender {
	cfg.Log = quiet
	sender, err := smpp.New(t.Context(), cfg, inbox)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sender.Close()) })
	return sender
}

// send sends texts to numbers of their own and returns the verdicts.
func send(t *testing.T, sender *smpp.Sender, texts ...string) ([]channels.Result, error) {
	batch := make([]channels.Message, len(texts))
	for i, text := range texts {
		batch[i] = channels.Message{
			ContactID: fmt.Sprintf("contact-%d", i), Epoch: 1, To: fmt.Sprintf("86139%08d", i), From: "10086", Text: text,
		}
	}
	results := make([]channels.Result, len(batch))
	var mu sync.Mutex
	err := sender.Send(t.Context(), batch, func(i int, r channels.Result) {
		mu.Lock()
		defer mu.Unlock()
		results[i] = r
	})
	return results, err
}

func TestLateAnswerIsReported(t *testing.T) {
	release := make(chan struct{})
	p := newPeer(t, func(_ int, conn net.Conn, unit pdu.PDU) {
		submit, ok := unit.(*pdu.SubmitSM)
		if !ok {
			return
		}
		switch to := submit.DestAddr.Address(); {
		case strings.HasSuffix(to, "0"):
			write(conn, accept(submit, "m0"))
		default:
			go func() {
				<-release
				late := accept(submit, "m"+to[len(to)-1:]).(*pdu.SubmitSMResp)
				if strings.HasSuffix(to, "2") {
					late.MessageID, late.CommandStatus = "", data.ESME_RINVDSTADR
				}
				write(conn, late)
			}()
		}
	})
	in := &collector{}
	sender := open(t, smpp.Config{Addr: p.net.Addr().String(), ResponseTimeout: 100 * time.Millisecond, EnquireLink: time.Minute}, in)
	results, err := send(t, sender, "in time", "late", "late and refused")
	require.NoError(t, err)
	require.Equal(t, channels.Accepted, results[0].Verdict)
	require.Equal(t, channels.Unknown, results[1].Verdict)
	require.Equal(t, channels.Unknown, results[2].Verdict)

	close(release)
	require.Eventually(t, func() bool { r, _ := in.all(); return len(r) == 2 }, patient, 5*time.Millisecond)
	receipts, _ := in.all()
	for _, r := range receipts {
		switch r.ContactID {
		case "contact-1":
			require.Equal(t, channels.StateAccepted, r.State)
			require.Equal(t, "m1", r.ProviderID)
		case "contact-2":
			require.Equal(t, channels.StateRefused, r.State)
			require.Contains(t, r.Reason, "recipient number not valid")
		default:
			t.Fatalf("a receipt for %q", r.ContactID)
		}
	}
	require.Equal(t, 1, p.sessions())
}

// An SMS centre that binds, answers enquire_link and nothing else must not turn a
// campaign unknown: each session risks one message.
func TestSilentCentreMakesFewUnknown(t *testing.T) {
	p := newPeer(t, func(_ int, conn net.Conn, unit pdu.PDU) {
		if _, ok := unit.(*pdu.EnquireLink); ok {
			write(conn, unit.GetResponse())
		}
	})
	sender := open(t, smpp.Config{Addr: p.net.Addr().String(), ResponseTimeout: 20 * time.Millisecond}, &collector{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	batch := make([]channels.Message, 1000)
	for i := range batch {
		batch[i] = channels.Message{ContactID: "c", To: "8613900000000", Text: "x"}
	}
	verdicts := map[channels.Verdict]int{}
	var mu sync.Mutex
	err := sender.Send(ctx, batch, func(_ int, r channels.Result) {
		mu.Lock()
		defer mu.Unlock()
		verdicts[r.Verdict]++
	})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Positive(t, verdicts[channels.Unknown])
	require.LessOrEqual(t, verdicts[channels.Unknown], p.sessions())
	require.Equal(t, 1000, verdicts[channels.Unknown]+verdicts[channels.NotSent])
}

func TestSessionOutlivesOddUnits(t *testing.T) {
	p := newPeer(t, func(_ int, conn net.Conn, unit pdu.PDU) {
		submit, ok := unit.(*pdu.SubmitSM)
		if !ok {
			return
		}
		// A command that SMPP does not know, a response to nothing, a deliver_sm
		// whose TLV is cut short, then the answer.
		_, _ = conn.Write([]byte{0, 0, 0, 20, 0, 0, 0x0F, 0xFF, 0, 0, 0, 0, 0, 0, 0, 9, 1, 2, 3, 4})
		stray := pdu.NewSubmitSMResp().(*pdu.SubmitSMResp)
		stray.SetSequenceNumber(77_777)
		write(conn, stray)
		buf := pdu.NewBuffer(nil)
		pdu.NewDeliverSM().Marshal(buf)
		broken := append(buf.Bytes(), 0x00, 0x1E, 0x00)
		broken[3] = byte(len(broken))
		_, _ = conn.Write(broken)
		write(conn, pdu.NewEnquireLink())
		write(conn, accept(submit, "m"))
	})
	sender := open(t, smpp.Config{Addr: p.net.Addr().String()}, &collector{})
	results, err := send(t, sender, "a", "b", "c")
	require.NoError(t, err)
	for _, r := range results {
		require.Equal(t, channels.Accepted, r.Verdict)
	}
	require.Equal(t, 1, p.sessions())
}

func TestGenericNackIsARefusal(t *testing.T) {
	p := newPeer(t, func(_ int, conn net.Conn, unit pdu.PDU) {
		if _, ok := unit.(*pdu.SubmitSM); ok {
			nack := pdu.NewGenericNack().(*pdu.GenericNack)
			nack.SetSequenceNumber(unit.GetSequenceNumber())
			nack.CommandStatus = data.ESME_RINVCMDLEN
			write(conn, nack)
		}
	})
	results, err := send(t, open(t, smpp.Config{Addr: p.net.Addr().String()}, &collector{}), "x")
	require.NoError(t, err)
	require.Equal(t, channels.Refused, results[0].Verdict)
	require.Contains(t, results[0].Reason, "could not read the message")
}

func TestCentreTakesItsLeave(t *testing.T) {
	p := newPeer(t, func(session int, conn net.Conn, unit pdu.PDU) {
		switch unit := unit.(type) {
		case *pdu.SubmitSM:
			write(conn, accept(unit, fmt.Sprintf("s%d", session)))
			if session == 1 {
				write(conn, pdu.NewUnbind())
			}
		case *pdu.UnbindResp:
			_ = conn.Close()
		}
	})
	sender := open(t, smpp.Config{Addr: p.net.Addr().String(), Window: 1}, &collector{})
	results, err := send(t, sender, "a", "b", "c", "d")
	require.NoError(t, err)
	for _, r := range results {
		require.Contains(t, []channels.Verdict{channels.Accepted, channels.Unknown}, r.Verdict)
	}
	require.Equal(t, "s1", results[0].ProviderID)
	require.Equal(t, "s2", results[3].ProviderID)
}

func TestWrongPasswordKeepsMessagesBack(t *testing.T) {
	sim := newSimulated(t)
	server := sim.start(t, smsc.Options{SystemID: "muster", Password: "right"})
	sender := open(t, smpp.Config{Addr: sim.addr, SystemID: "muster", Password: "wrong", Patience: 200 * time.Millisecond}, &collector{})
	results, err := send(t, sender, "x")
	require.ErrorIs(t, err, channels.ErrUnavailable)
	require.Equal(t, channels.NotSent, results[0].Verdict)
	require.Zero(t, server.Stats().Bound)
}

func TestLongMessages(t *testing.T) {
	latin, han := strings.Repeat("Offer€ ", 60), strings.Repeat("流量包八折优惠", 30)
	for name, tc := range map[string]struct {
		text        string
		concatenate bool
		parts       int
	}{
		"GSM-7 as payload": {latin, false, 4}, "UCS-2 as payload": {han, false, 4},
		"GSM-7 in parts": {latin, true, 4}, "UCS-2 in parts": {han, true, 4},
	} {
		t.Run(name, func(t *testing.T) {
			sim := newSimulated(t)
			sim.start(t, smsc.Options{EchoReference: true})
			in := &collector{}
			sender := open(t, smpp.Config{Addr: sim.addr, Concatenate: tc.concatenate}, in)
			results, err := send(t, sender, tc.text)
			require.NoError(t, err)
			require.Equal(t, channels.Accepted, results[0].Verdict)

			journal, err := smsc.ReadJournal(sim.journal)
			require.NoError(t, err)
			charged := 0
			for _, a := range journal.Accepted {
				charged += a.Parts
			}
			require.Equal(t, tc.parts, charged)
			require.Equal(t, map[string]int{"contact-0": 1}, journal.Times())
			last := journal.Accepted[len(journal.Accepted)-1]
			require.Equal(t, last.MessageID, results[0].ProviderID)

			// One receipt for the whole, under the id that stands for it.
			require.Eventually(t, func() bool { r, _ := in.all(); return len(r) > 0 }, patient, 5*time.Millisecond)
			receipts, _ := in.all()
			require.Len(t, receipts, 1)
			require.Equal(t, results[0].ProviderID, receipts[0].ProviderID)
			require.Equal(t, "contact-0", receipts[0].ContactID)
		})
	}
}

func TestReplies(t *testing.T) {
	sim := newSimulated(t)
	server := sim.start(t, smsc.Options{})
	in := &collector{}
	open(t, smpp.Config{Addr: sim.addr}, in)
	texts := []string{"T", "退订。", "stop @ once_"}
	for i, text := range texts {
		require.Eventually(t, func() bool { return server.Reply("8613900000001", "10086", text) == nil }, patient, 5*time.Millisecond)
		require.Eventually(t, func() bool { _, r := in.all(); return len(r) == i+1 }, patient, 5*time.Millisecond)
	}
	_, replies := in.all()
	for i, r := range replies {
		require.Equal(t, texts[i], r.Text)
		require.Equal(t, "8613900000001", r.From)
		require.Equal(t, "10086", r.To)
	}
}
