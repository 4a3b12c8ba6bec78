package smpp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/linxGnu/gosmpp/data"
	smpperrors "github.com/linxGnu/gosmpp/errors"
	"github.com/linxGnu/gosmpp/pdu"

	"github.com/musterhq/muster/channels"
)

const (
	firstBackoff = 50 * time.Millisecond
	lastBackoff  = 10 * time.Second
	// A session on which this many submits in a row timed out, with no answer in
	// between, is bound again: it would turn a whole campaign unknown.
	stuckAfter = 16
	// Answers that come later than this are not waited for any more.
	latest = 10 * time.Minute
	// Time for the SMS centre to answer our unbind.
	farewell = time.Second
)

// session is one bound transceiver connection. The sender's mutex guards
// everything below wake.
type session struct {
	s    *Sender
	conn net.Conn
	in   *bufio.Reader

	wake     *sync.Cond
	sequence int32
	control  [][]byte
	pending  map[int32]part
	late     map[int32]part // judged unknown, but an answer would still tell
	leaving  bool           // takes no more messages
	dead     bool
	timeouts int // in a row, without any answer between
	answered bool
}

// flight is a message under way: one submit_sm, or several parts.
type flight struct {
	job   *job
	i     int
	parts int

	judged, accepted, unknown int
	last                      channels.Result // the last part's
	objection                 channels.Result // the gravest that is not acceptance
}

type part struct {
	flight *flight
	n      int
	sentAt time.Time
}

type frame struct {
	octets   []byte
	sequence int32
}

// judge adds a part's result. When it was the last one, it returns the
// message's: accepted if every part was, unknown if any part is, and never
// "not sent" once a part was accepted.
func (f *flight) judge(p part, r channels.Result) (channels.Result, bool) {
	f.judged++
	if p.n == f.parts-1 {
		f.last = r
	}
	switch r.Verdict {
	case channels.Accepted:
		f.accepted++
	case channels.Unknown:
		f.unknown++
		f.objection = r
	case channels.Refused:
		if f.unknown == 0 {
			f.objection = r
		}
	default:
		if f.objection.Verdict == "" {
			f.objection = r
		}
	}
	if f.judged < f.parts {
		return channels.Result{}, false
	}
	switch {
	case f.accepted == f.parts:
		return f.last, true
	case f.unknown > 0 || f.accepted == 0:
		return f.objection, true
	}
	return channels.Result{
		Verdict: channels.Refused,
		Reason:  fmt.Sprintf("only %d of %d parts were accepted: %s", f.accepted, f.parts, f.objection.Reason),
	}, true
}

// keepBound binds, runs the session until it is lost, and binds again.
func (s *Sender) keepBound() {
	backoff := firstBackoff
	for s.ctx.Err() == nil {
		healthy := false
		ss, err := s.bind()
		if err == nil {
			s.cfg.Log.Info("smpp: bound", "smsc", s.cfg.Addr)
			healthy, err = ss.run()
		}
		if s.ctx.Err() != nil {
			return
		}
		if healthy {
			backoff = firstBackoff
		}
		s.cfg.Log.Warn("smpp: not bound", "smsc", s.cfg.Addr, "error", err, "retry_in", backoff)
		select {
		case <-s.ctx.Done():
		case <-time.After(backoff/2 + rand.N(backoff/2+1)): //nolint:gosec // the spread of retries is no secret
		}
		backoff = min(2*backoff, lastBackoff)
	}
}

func (s *Sender) bind() (*session, error) {
	ctx, cancel := context.WithTimeout(s.ctx, min(s.cfg.ResponseTimeout, 10*time.Second))
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()

	request := pdu.NewBindRequest(pdu.Transceiver)
	request.SystemID, request.Password, request.SystemType = s.cfg.SystemID, s.cfg.Password, s.cfg.SystemType
	request.SetSequenceNumber(1)
	ss := &session{
		s: s, conn: conn, sequence: 1,
		in:      bufio.NewReaderSize(&idleReader{conn, s.cfg.EnquireLink + s.cfg.ResponseTimeout}, 64<<10),
		wake:    sync.NewCond(&s.mu),
		pending: map[int32]part{}, late: map[int32]part{},
	}
	if err := ss.handshake(request); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("bind: %w", err)
	}
	return ss, nil
}

// handshake binds. The caller closes the connection when it takes too long.
func (ss *session) handshake(request *pdu.BindRequest) error {
	if _, err := ss.conn.Write(marshal(request)); err != nil {
		return err
	}
	for {
		p, err := pdu.Parse(ss.in)
		if p == nil && err != nil {
			return err
		}
		// A refusal may come without a body, which the library reports as an error.
		if answer, ok := p.(*pdu.BindResp); ok {
			if answer.CommandStatus != data.ESME_ROK {
				return fmt.Errorf("refused by the SMS centre: %s (%s)", answer.CommandStatus.Desc(), answer.CommandStatus)
			}
			return nil
		}
	}
}

// idleReader fails when nothing arrives for the given time.
type idleReader struct {
	conn net.Conn
	idle time.Duration
}

func (r *idleReader) Read(b []byte) (int, error) {
	if err := r.conn.SetReadDeadline(time.Now().Add(r.idle)); err != nil {
		return 0, err
	}
	return r.conn.Read(b)
}

// run serves the session until it is lost. It tells whether the session was of
// any use: if not, the next bind waits longer.
func (ss *session) run() (healthy bool, err error) {
	s := ss.s
	began := time.Now()
	s.mu.Lock()
	s.sessions[ss] = struct{}{}
	s.downSince = time.Time{}
	s.mu.Unlock()

	var lost atomic.Pointer[error]
	fail := func(err error) {
		lost.CompareAndSwap(nil, &err)
		s.mu.Lock()
		ss.dead = true
		ss.wake.Broadcast()
		s.mu.Unlock()
		_ = ss.conn.Close()
	}
	over := make(chan struct{})
	var loops sync.WaitGroup
	loops.Go(func() { fail(ss.write()) })
	loops.Go(func() { fail(ss.watch(over)) })
	fail(ss.read())
	close(over)
	loops.Wait()

	var verdicts []verdict
	s.mu.Lock()
	delete(s.sessions, ss)
	if len(s.sessions) == 0 {
		s.downSince = time.Now()
	}
	for seq, p := range ss.pending {
		verdicts = ss.giveUp(verdicts, seq, p, "the session was lost before the SMS centre answered")
	}
	healthy = ss.answered || time.Since(began) > lastBackoff
	s.mu.Unlock()
	settle(verdicts...)
	return healthy, *lost.Load()
}

// giveUp judges a part without proof. An answer that still comes is reported as
// a receipt, if it can speak for the whole message. The mutex is held.
func (ss *session) giveUp(verdicts []verdict, seq int32, p part, reason string) []verdict {
	delete(ss.pending, seq)
	if p.flight.parts == 1 {
		ss.late[seq] = p
	}
	return appendJudged(verdicts, p, channels.Result{Verdict: channels.Unknown, Reason: reason})
}

func appendJudged(verdicts []verdict, p part, r channels.Result) []verdict {
	if whole, complete := p.flight.judge(p, r); complete {
		verdicts = append(verdicts, verdict{p.flight.job, p.flight.i, whole})
	}
	return verdicts
}

// write is the only one who writes: control units first, then messages, as many
// as are ready in one system call.
func (ss *session) write() error {
	s := ss.s
	var buf []byte
	for {
		var frames []frame
		var verdicts []verdict
		s.mu.Lock()
		for {
			if ss.dead {
				s.mu.Unlock()
				return nil
			}
			if !ss.leaving {
				frames, verdicts = s.take(ss)
			}
			if len(ss.control) > 0 || len(frames) > 0 || len(verdicts) > 0 {
				break
			}
			ss.wake.Wait()
		}
		control := ss.control
		ss.control = nil
		s.mu.Unlock()
		settle(verdicts...)

		buf = buf[:0]
		for _, octets := range control {
			buf = append(buf, octets...)
		}
		ends := len(buf)
		for _, f := range frames {
			buf = append(buf, f.octets...)
		}
		if len(buf) == 0 {
			continue
		}
		_ = ss.conn.SetWriteDeadline(time.Now().Add(s.cfg.ResponseTimeout))
		if n, err := ss.conn.Write(buf); err != nil {
			ss.neverLeft(frames, ends, n)
			return err
		}
	}
}

// neverLeft judges the frames that were not written in full: n octets were
// written, and the first frame begins at offset start.
func (ss *session) neverLeft(frames []frame, start, n int) {
	var verdicts []verdict
	ss.s.mu.Lock()
	end := start
	for _, f := range frames {
		end += len(f.octets)
		if p, ok := ss.pending[f.sequence]; ok && end > n {
			delete(ss.pending, f.sequence)
			verdicts = appendJudged(verdicts, p, channels.Result{
				Verdict: channels.NotSent, Reason: "the session was lost before the message left",
			})
		}
	}
	ss.s.mu.Unlock()
	settle(verdicts...)
}

func (ss *session) respond(p pdu.PDU) {
	octets := marshal(p)
	ss.s.mu.Lock()
	ss.control = append(ss.control, octets)
	ss.wake.Signal()
	ss.s.mu.Unlock()
}

// read serves what the SMS centre sends.
func (ss *session) read() error {
	for {
		p, err := pdu.Parse(ss.in)
		if p == nil {
			// An unknown command has been read in full; the stream goes on.
			if errors.Is(err, smpperrors.ErrUnknownCommandID) {
				continue
			}
			if errors.Is(err, io.EOF) {
				err = errors.New("the SMS centre closed the connection")
			}
			return err
		}
		switch p := p.(type) {
		case *pdu.SubmitSMResp:
			ss.answer(p.Header, p.MessageID)
		case *pdu.GenericNack:
			ss.answer(p.Header, "")
		case *pdu.DeliverSM:
			if err != nil {
				ss.reject(p, data.ESME_RX_P_APPN)
				continue
			}
			ss.receive(p)
		case *pdu.Unbind:
			ss.s.mu.Lock()
			ss.leaving = true
			ss.s.mu.Unlock()
			ss.respond(p.GetResponse())
			time.AfterFunc(min(lastAnswers, ss.s.cfg.ResponseTimeout), func() { _ = ss.conn.Close() })
		case *pdu.UnbindResp:
			return errors.New("unbound")
		default:
			if p.CanResponse() && err == nil {
				ss.respond(p.GetResponse())
			}
		}
	}
}

// answer judges the submit that the SMS centre answers.
func (ss *session) answer(header pdu.Header, id string) {
	result := judge(header.CommandStatus)
	if header.CommandID == data.GENERIC_NACK && result.Verdict == channels.Accepted {
		return // a refusal without a status refuses nothing that we know of
	}
	if result.Verdict == channels.Accepted {
		result.ProviderID = id
	}
	s := ss.s
	var verdicts []verdict
	s.mu.Lock()
	p, ok := ss.pending[header.SequenceNumber]
	tooLate := false
	if ok {
		delete(ss.pending, header.SequenceNumber)
		ss.timeouts, ss.answered = 0, true
		verdicts = appendJudged(verdicts, p, result)
		ss.wake.Signal()
	} else if p, tooLate = ss.late[header.SequenceNumber]; tooLate {
		delete(ss.late, header.SequenceNumber)
		ss.timeouts, ss.answered = 0, true
	}
	s.mu.Unlock()
	settle(verdicts...)
	if tooLate {
		ss.reportLate(p, result)
	}
}

// watch keeps the session alive, times out submits, and takes leave at the end.
func (ss *session) watch(over <-chan struct{}) error {
	s := ss.s
	sweep := time.NewTicker(min(max(s.cfg.ResponseTimeout/10, 5*time.Millisecond), time.Second))
	defer sweep.Stop()
	enquire := time.NewTicker(s.cfg.EnquireLink)
	defer enquire.Stop()
	for {
		select {
		case <-over:
			return nil
		case <-sweep.C:
			if err := ss.sweep(time.Now()); err != nil {
				return err
			}
		case <-enquire.C:
			ss.request(pdu.NewEnquireLink())
		case <-s.ctx.Done():
			s.mu.Lock()
			ss.leaving = true
			s.mu.Unlock()
			ss.request(pdu.NewUnbind())
			select {
			case <-over:
			case <-time.After(farewell):
			}
			return context.Cause(s.ctx)
		}
	}
}

// request sends a unit of ours under a sequence number of this session.
func (ss *session) request(p pdu.PDU) {
	ss.s.mu.Lock()
	ss.sequence++
	if ss.sequence < 0 {
		ss.sequence = 1
	}
	p.SetSequenceNumber(ss.sequence)
	ss.control = append(ss.control, marshal(p))
	ss.wake.Signal()
	ss.s.mu.Unlock()
}

func (ss *session) sweep(now time.Time) error {
	s := ss.s
	var verdicts []verdict
	s.mu.Lock()
	for seq, p := range ss.pending {
		if now.Sub(p.sentAt) > s.cfg.ResponseTimeout {
			ss.timeouts++
			verdicts = ss.giveUp(verdicts, seq, p, "the SMS centre did not answer in time")
		}
	}
	for seq, p := range ss.late {
		if now.Sub(p.sentAt) > latest {
			delete(ss.late, seq)
		}
	}
	stuck := ss.timeouts >= stuckAfter || ss.timeouts > 0 && !ss.answered
	ss.leaving = ss.leaving || stuck
	ss.wake.Signal()
	s.mu.Unlock()
	settle(verdicts...)
	if stuck {
		return errors.New("the SMS centre answers no submits")
	}
	return nil
}
