package smsc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"github.com/linxGnu/gosmpp/data"
	"github.com/linxGnu/gosmpp/pdu"

	"github.com/musterhq/muster/channels"
)

// Stats counts since the start. All counts are of submit_sm and deliver_sm.
type Stats struct {
	Bound             int64 // sessions bound now
	Submitted         int64
	Accepted          int64
	Refused           int64
	Throttled         int64
	LostAcks          int64 // accepted, but never answered
	ReceiptsSent      int64 // repetitions included
	ReceiptsConfirmed int64 // repetitions included
}

type counters struct {
	bound, submitted, accepted, refused, throttled, lostAcks, receiptsSent, receiptsConfirmed atomic.Int64
}

// Server is a running SMS centre.
type Server struct {
	opt      Options
	log      *slog.Logger
	listener net.Listener
	journal  *journalFile
	lastID   atomic.Uint64
	count    counters
	timeline timeline
	tasks    sync.WaitGroup
	ctx      context.Context
	cancel   context.CancelFunc
	stopped  sync.Once

	mu    sync.Mutex
	conns map[*conn]struct{}
	ready []*receipt // due, waiting for a bound client with room
}

// Start starts an SMS centre. It serves until ctx ends or Stop is called.
// Receipts that an earlier run on the same journal owes are sent as soon as a
// client binds.
func Start(ctx context.Context, opt Options) (*Server, error) {
	if err := opt.check(); err != nil {
		return nil, err
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", opt.Addr)
	if err != nil {
		return nil, fmt.Errorf("smsc: %w", err)
	}
	journal, past, err := openJournal(opt.Journal)
	if err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("smsc: journal: %w", err)
	}
	s := &Server{
		opt: opt, log: opt.Log, listener: listener, journal: journal,
		conns: map[*conn]struct{}{},
	}
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.timeline.wake = make(chan struct{}, 1)
	s.lastID.Store(past.lastID())
	owed := 0
	for i := range past.Accepted {
		if a := &past.Accepted[i]; a.Receipt && past.Receipts[a.MessageID] == "" {
			s.scheduleReceipt(a)
			owed++
		}
	}
	s.tasks.Go(func() { s.timeline.run(s.ctx) })
	s.tasks.Go(s.accept)
	context.AfterFunc(s.ctx, s.Stop)
	s.log.Info("simulated SMS centre: listening", "addr", s.Addr(), "journal", opt.Journal,
		"accepted_before", len(past.Accepted), "receipts_owed", owed)
	return s, nil
}

// Addr is the address that the server listens on.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Stats returns the counts so far.
func (s *Server) Stats() Stats {
	c := &s.count
	return Stats{
		Bound: c.bound.Load(), Submitted: c.submitted.Load(), Accepted: c.accepted.Load(),
		Refused: c.refused.Load(), Throttled: c.throttled.Load(), LostAcks: c.lostAcks.Load(),
		ReceiptsSent: c.receiptsSent.Load(), ReceiptsConfirmed: c.receiptsConfirmed.Load(),
	}
}

// Stop drops all connections at once and without a word, as a crash would, and
// frees the resources. The journal is complete at any time.
func (s *Server) Stop() {
	s.stopped.Do(func() {
		s.cancel()
		_ = s.listener.Close()
		s.mu.Lock()
		for c := range s.conns {
			_ = c.net.Close()
		}
		s.mu.Unlock()
		s.tasks.Wait()
		_ = s.journal.close()
	})
}

func (s *Server) accept() {
	for {
		nc, err := s.listener.Accept()
		if err != nil {
			if s.ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				s.log.Error("simulated SMS centre: accept", "error", err)
			}
			return
		}
		c := newConn(s, nc)
		s.mu.Lock()
		if s.ctx.Err() != nil {
			s.mu.Unlock()
			_ = nc.Close()
			return
		}
		s.conns[c] = struct{}{}
		s.mu.Unlock()
		s.tasks.Go(c.serve)
	}
}

// ErrNoClient means that no client that receives messages is bound.
var ErrNoClient = errors.New("smsc: no client is bound to receive")

// Reply delivers a text from a customer's number to a bound client, once.
func (s *Server) Reply(from, to, text string) error {
	segments, enc := channels.Segments(text)
	coding := data.GSM7BIT
	if enc == channels.UCS2 {
		coding = data.UCS2
	}
	if len(segments) != 1 {
		return fmt.Errorf("smsc: a reply of %d parts; one is supported", len(segments))
	}
	unit := pdu.NewDeliverSM().(*pdu.DeliverSM)
	_ = unit.SourceAddr.SetAddress(from)
	_ = unit.DestAddr.SetAddress(to)
	_ = unit.Message.SetMessageDataWithEncoding(segments[0], coding)

	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.receives {
			c.sequence++
			unit.SetSequenceNumber(c.sequence)
			c.send(marshal(unit))
			return nil
		}
	}
	return ErrNoClient
}
