package smpp_test

import (
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/channels"
	"github.com/musterhq/muster/channels/channeltest"
	"github.com/musterhq/muster/channels/smpp"
	"github.com/musterhq/muster/internal/sim/smsc"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// simulated is a simulator on one address and journal, started again and again.
type simulated struct {
	addr, journal string
	server        *smsc.Server
}

func newSimulated(t *testing.T) *simulated {
	return &simulated{addr: "127.0.0.1:0", journal: filepath.Join(t.TempDir(), "smsc.jsonl")}
}

func (s *simulated) start(t testing.TB, opt smsc.Options) *smsc.Server {
	opt.Addr, opt.Journal, opt.Log = s.addr, s.journal, quiet
	server, err := smsc.Start(t.Context(), opt)
	require.NoError(t, err)
	t.Cleanup(server.Stop)
	s.addr, s.server = server.Addr(), server
	return server
}

type provider struct {
	t *testing.T
	*simulated
	server *smsc.Server
}

func (p provider) Stop() { p.server.Stop() }

func (p provider) Accepted() map[string]int {
	journal, err := smsc.ReadJournal(p.journal)
	require.NoError(p.t, err)
	return journal.Times()
}

func TestConformance(t *testing.T) {
	for name, configure := range map[string]func(*smpp.Config){
		"one session":    func(*smpp.Config) {},
		"three sessions": func(c *smpp.Config) { c.Binds = 3; c.Window = 50 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			channeltest.Run(t, func(t *testing.T) channeltest.Channel {
				sim := newSimulated(t)
				return channeltest.Channel{
					Start: func(t *testing.T, b channeltest.Behaviour) channeltest.Provider {
						server := sim.start(t, smsc.Options{
							AckDelay:     smsc.Range{Min: b.AckDelay, Max: b.AckDelay},
							ReceiptDelay: smsc.Range{Min: b.ReceiptDelay, Max: b.ReceiptDelay},
							Refused:      b.Refused, Throttled: b.Throttled, LostAcks: b.LostAcks,
							RepeatedReceipts: b.RepeatedReceipts,
						})
						return provider{t, sim, server}
					},
					Open: func(t *testing.T, inbox channels.Inbox, timeout, patience time.Duration) channels.Sender {
						cfg := smpp.Config{Addr: sim.addr, ResponseTimeout: timeout, Patience: patience, Log: quiet}
						configure(&cfg)
						sender, err := smpp.New(t.Context(), cfg, inbox)
						require.NoError(t, err)
						return sender
					},
					Recipient: func(n int) string { return fmt.Sprintf("86139%08d", n) },
				}
			})
		})
	}
}
