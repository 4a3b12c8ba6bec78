package smsc

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/linxGnu/gosmpp/data"
	smpperrors "github.com/linxGnu/gosmpp/errors"
	"github.com/linxGnu/gosmpp/pdu"

	"github.com/musterhq/muster/channels"
	"github.com/musterhq/muster/channels/smpp"
)

const (
	headerLen = 16
	// A client that takes nothing for this long is dropped.
	writeTimeout = 10 * time.Second
	// So many submits at most share one write to the journal.
	journalBatch = 256
)

// conn is one client's connection.
type conn struct {
	s   *Server
	net net.Conn
	in  *bufio.Reader

	// Known to the reader alone.
	bound   bool
	listens bool // bound to receive

	// Guarded by the server's mutex.
	receives    bool
	sequence    int32
	outstanding map[int32]*receipt

	wmu    sync.Mutex
	wake   *sync.Cond
	out    []byte
	closed bool
	last   bool // close when out is written
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{s: s, net: nc, in: bufio.NewReaderSize(nc, 128<<10), outstanding: map[int32]*receipt{}}
	c.wake = sync.NewCond(&c.wmu)
	return c
}

// serve runs the connection until it ends; its receipts go to other clients, or
// wait for the next.
func (c *conn) serve() {
	var writer sync.WaitGroup
	writer.Go(c.write)
	c.finish(c.read())
	writer.Wait()
	_ = c.net.Close()

	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if c.bound {
		s.count.bound.Add(-1)
	}
	for _, r := range c.outstanding {
		s.ready = append(s.ready, r)
	}
	c.receives = false
	s.pump()
}

// send queues octets for the client and never blocks.
func (c *conn) send(octets []byte) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.out = append(c.out, octets...)
	c.wake.Signal()
}

// finish ends the writer: after the queue is written, or at once.
func (c *conn) finish(graceful bool) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.last, c.closed = graceful, !graceful
	c.wake.Signal()
}

func (c *conn) write() {
	var spare []byte
	for {
		c.wmu.Lock()
		for len(c.out) == 0 && !c.closed && !c.last {
			c.wake.Wait()
		}
		if c.closed || len(c.out) == 0 {
			c.wmu.Unlock()
			_ = c.net.Close()
			return
		}
		octets := c.out
		c.out = spare[:0]
		c.wmu.Unlock()
		_ = c.net.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := c.net.Write(octets); err != nil {
			_ = c.net.Close()
			return
		}
		spare = octets
	}
}

// answer is a response on its way: it leaves only after the journal was written.
type answer struct {
	octets []byte
	delay  time.Duration
}

// read serves requests in groups: all that have arrived in full are journalled
// with one write, then answered. It tells whether the client took its leave.
func (c *conn) read() (graceful bool) {
	s := c.s
	var lines []byte
	var answers []answer
	var accepted []*Accepted
	respond := func(p pdu.PDU) { answers = append(answers, answer{octets: marshal(p)}) }
	for !graceful {
		header, err := c.in.Peek(headerLen)
		if err != nil {
			return false
		}
		sequence := int32(binary.BigEndian.Uint32(header[12:]))
		p, err := pdu.Parse(c.in)
		switch {
		case errors.Is(err, smpperrors.ErrUnknownCommandID):
			respond(nack(sequence, data.ESME_RINVCMDID))
		case p != nil && err != nil:
			respond(nack(sequence, data.ESME_RINVCMDLEN))
		case err != nil:
			return false
		}
		if err == nil {
			switch p := p.(type) {
			case *pdu.SubmitSM:
				a, response, delay := c.submit(p)
				if a != nil {
					lines = line{Kind: kindAccepted, Accepted: a}.append(lines)
					accepted = append(accepted, a)
				}
				if response != nil {
					answers = append(answers, answer{marshal(response), delay})
				}
			case *pdu.DeliverSMResp:
				lines = s.confirmed(c, p, lines)
			case *pdu.BindRequest:
				respond(c.bind(p))
			case *pdu.Unbind:
				respond(p.GetResponse())
				graceful = true
			default:
				if p.CanResponse() {
					respond(p.GetResponse())
				}
			}
		}
		if !graceful && len(answers) < journalBatch && len(accepted) < journalBatch && c.another() {
			continue
		}

		if err := s.journal.append(lines); err != nil {
			s.log.Error("simulated SMS centre: journal", "error", err)
			return false
		}
		s.count.accepted.Add(int64(len(accepted)))
		c.flush(answers)
		for _, a := range accepted {
			if a.Receipt {
				s.scheduleReceipt(a)
			}
		}
		if c.listens && !graceful {
			c.startReceipts()
		}
		lines, answers, accepted = lines[:0], answers[:0], accepted[:0]
	}
	return graceful
}

func nack(sequence int32, status data.CommandStatusType) pdu.PDU {
	p := pdu.NewGenericNack().(*pdu.GenericNack)
	p.SetSequenceNumber(sequence)
	p.CommandStatus = status
	return p
}

// startReceipts lets receipts flow to this client, after the answer to its bind.
func (c *conn) startReceipts() {
	c.listens = false
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.receives = true
	c.s.pump()
}

// another tells whether a whole unit is waiting in the buffer.
func (c *conn) another() bool {
	if c.in.Buffered() < headerLen {
		return false
	}
	length, _ := c.in.Peek(4)
	return uint32(c.in.Buffered()) >= binary.BigEndian.Uint32(length)
}

func (c *conn) flush(answers []answer) {
	var now []byte
	for _, a := range answers {
		if a.delay == 0 {
			now = append(now, a.octets...)
			continue
		}
		c.s.timeline.add(time.Now().Add(a.delay), func() { c.send(a.octets) })
	}
	if len(now) > 0 {
		c.send(now)
	}
}

func (c *conn) bind(p *pdu.BindRequest) *pdu.BindResp {
	response := p.GetResponse().(*pdu.BindResp)
	s := c.s
	switch {
	case c.bound:
		response.CommandStatus = data.ESME_RALYBND
	case s.opt.SystemID != "" && p.SystemID != s.opt.SystemID:
		response.CommandStatus = data.ESME_RINVSYSID
	case s.opt.Password != "" && p.Password != s.opt.Password:
		response.CommandStatus = data.ESME_RINVPASWD
	default:
		response.SystemID = "MUSTER-SIM"
		c.bound = true
		s.count.bound.Add(1)
		c.listens = p.BindingType != pdu.Transmitter
	}
	return response
}

// submit decides on a message. It returns the accepted message, if it is, and
// the response after its delay, if one shall be given.
func (c *conn) submit(p *pdu.SubmitSM) (a *Accepted, response *pdu.SubmitSMResp, delay time.Duration) {
	s := c.s
	s.count.submitted.Add(1)
	response = p.GetResponse().(*pdu.SubmitSMResp)
	if !c.bound {
		response.CommandStatus = data.ESME_RINVBNDSTS
		return nil, response, 0
	}
	key := reference(p)
	delay = s.opt.ackDelay(key)
	var epoch int32
	if tlv, ok := p.OptionalParameters[smpp.TagEpoch]; ok && len(tlv.Data) == 4 {
		epoch = int32(binary.BigEndian.Uint32(tlv.Data))
	}
	switch {
	case s.opt.refuses(key):
		s.count.refused.Add(1)
		response.CommandStatus = data.ESME_RINVDSTADR
		return nil, response, delay
	case s.opt.throttles(key, epoch):
		s.count.throttled.Add(1)
		response.CommandStatus = data.ESME_RTHROTTLED
		return nil, response, delay
	}
	response.MessageID = messageID(s.lastID.Add(1))
	text, part, parts := content(p)
	sum := sha256.Sum256([]byte(text))
	a = &Accepted{
		Epoch: epoch, MessageID: response.MessageID,
		To: p.DestAddr.Address(), From: p.SourceAddr.Address(),
		Part: part, Parts: parts, TextSHA: hex.EncodeToString(sum[:8]),
		Receipt: p.RegisteredDelivery&data.SM_SMSC_RECEIPT_MASK == data.SM_SMSC_RECEIPT_REQUESTED,
		At:      time.Now().UTC(),
	}
	if tlv, ok := p.OptionalParameters[smpp.TagContactID]; ok {
		a.ContactID = tlv.String()
	}
	if s.opt.losesAck(key) {
		s.count.lostAcks.Add(1)
		return a, nil, 0
	}
	return a, response, delay
}

func reference(p *pdu.SubmitSM) string {
	if tlv, ok := p.OptionalParameters[smpp.TagContactID]; ok {
		return tlv.String()
	}
	return p.DestAddr.Address()
}

// content returns a submit's text, its number in a concatenated message (0 if
// it is none) and the parts that it is charged as.
func content(p *pdu.SubmitSM) (text string, part, parts int) {
	octets, _ := p.Message.GetMessageData()
	if payload, ok := p.OptionalParameters[pdu.TagMessagePayload]; ok {
		octets = payload.Data
	}
	text = string(octets)
	if enc := p.Message.Encoding(); enc != nil {
		if decoded, err := enc.Decode(octets); err == nil {
			text = decoded
		}
	}
	text = strings.ToValidUTF8(text, "�")
	if _, number, _, ok := p.Message.UDH().GetConcatInfo(); ok {
		return text, int(number), 1
	}
	parts, _ = channels.Parts(text)
	return text, 0, parts
}

func marshal(p pdu.PDU) []byte {
	buf := pdu.NewBuffer(make([]byte, 0, 256))
	p.Marshal(buf)
	return buf.Bytes()
}
