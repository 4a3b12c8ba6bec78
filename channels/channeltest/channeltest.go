// Package channeltest is the conformance suite of push channels: the promises of
// channels.Sender, tried against a simulated provider that refuses, throttles,
// loses answers, dies in the middle and repeats receipts. Every adapter passes it.
package channeltest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/channels"
)

// Behaviour scripts the provider. Shares are between 0 and 1; which messages they
// hit is up to the provider.
type Behaviour struct {
	// AckDelay is the time from a message to its answer, ReceiptDelay from its
	// acceptance to its receipt.
	AckDelay, ReceiptDelay time.Duration
	// Refused is the share refused for good, Throttled the share refused for
	// the moment, drawn anew for each epoch, LostAcks the share accepted without
	// an answer.
	Refused, Throttled, LostAcks float64
	// RepeatedReceipts is the share of receipts sent twice.
	RepeatedReceipts float64
}

// Provider is a running simulated provider.
type Provider interface {
	// Accepted tells how many times each contact's message was accepted, in
	// this run and all earlier ones of the same channel.
	Accepted() map[string]int
	// Stop ends the provider without a word, as a crash would.
	Stop()
}

// Channel is what the suite needs of an adapter and its provider.
type Channel struct {
	// Start starts the provider; after a Stop it starts again at the same
	// address and with the same memory.
	Start func(t *testing.T, b Behaviour) Provider
	// Open makes a sender for the provider, which may not be running. Answers
	// are waited for as long as timeout, a provider as long as patience.
	Open func(t *testing.T, inbox channels.Inbox, timeout, patience time.Duration) channels.Sender
	// Recipient returns the n-th valid recipient.
	Recipient func(n int) string
}

// Long enough for anything that the suite waits for on a busy machine.
const patient = 30 * time.Second

// Run runs the suite. Each case gets its own channel from open.
func Run(t *testing.T, open func(t *testing.T) Channel) {
	for _, c := range []struct {
		name string
		try  func(*testing.T, *bench)
	}{
		{"accepted", accepted},
		{"refused", refused},
		{"throttled", throttled},
		{"answer lost", answerLost},
		{"everything at once", everythingAtOnce},
		{"provider killed and started again", providerKilled},
		{"provider away", providerAway},
		{"receipt before the answer", receiptFirst},
		{"receipts repeated", receiptsRepeated},
		{"receipts for an earlier sender", receiptsLate},
		{"receipts brought again after trouble", receiptsKept},
		{"stopped in the middle", stoppedInTheMiddle},
		{"stopped before the beginning", stoppedBefore},
		{"closed in the middle", closedInTheMiddle},
		{"several sends at a time", severalSends},
		{"messages that cannot leave", cannotLeave},
		{"nothing to send", nothingToSend},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.try(t, &bench{t: t, Channel: open(t), inbox: &inbox{}})
		})
	}
}

// bench is one case's set-up.
type bench struct {
	Channel
	t     *testing.T
	inbox *inbox
	made  int
}

func (b *bench) open(timeout, patience time.Duration) channels.Sender {
	sender := b.Channel.Open(b.t, b.inbox, timeout, patience)
	b.t.Cleanup(func() { require.NoError(b.t, sender.Close()) })
	return sender
}

func (b *bench) messages(n int) []channels.Message {
	batch := make([]channels.Message, n)
	for i := range batch {
		batch[i] = channels.Message{
			ContactID: uuid.NewString(), Epoch: 1, To: b.Recipient(b.made), From: "10086",
			Text: fmt.Sprintf("Offer %d for you. Reply T to opt out.", b.made),
		}
		b.made++
	}
	return batch
}

// sent collects the verdicts of one Send and fails on a second one for the same
// message.
type sent struct {
	t       *testing.T
	mu      sync.Mutex
	batch   []channels.Message
	results map[string]channels.Result
	changed chan struct{}
}

func (b *bench) newSent(batch []channels.Message) *sent {
	return &sent{t: b.t, batch: batch, results: map[string]channels.Result{}, changed: make(chan struct{}, 1)}
}

func (s *sent) done(i int, r channels.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.batch[i].ContactID
	if _, twice := s.results[id]; twice {
		s.t.Errorf("message %d got a second verdict: %s", i, r.Verdict)
	}
	if r.At.IsZero() {
		s.t.Errorf("message %d: the verdict has no time", i)
	}
	if (r.Verdict == channels.Accepted) != (r.Reason == "") {
		s.t.Errorf("message %d: %s with reason %q", i, r.Verdict, r.Reason)
	}
	s.results[id] = r
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// await waits until n verdicts are in.
func (s *sent) await(n int) {
	deadline := time.After(patient)
	for {
		s.mu.Lock()
		have := len(s.results)
		s.mu.Unlock()
		if have >= n {
			return
		}
		select {
		case <-s.changed:
		case <-deadline:
			s.t.Errorf("only %d of %d verdicts came", have, n)
			return
		}
	}
}

// of returns the messages with a verdict.
func (s *sent) of(v channels.Verdict) (batch []channels.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.batch {
		if s.results[m.ContactID].Verdict == v {
			batch = append(batch, m)
		}
	}
	return batch
}

func (s *sent) result(m channels.Message) channels.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.results[m.ContactID]
}

// complete checks that each message has exactly one of the four verdicts.
func (s *sent) complete() {
	s.t.Helper()
	total := 0
	for _, v := range []channels.Verdict{channels.Accepted, channels.Refused, channels.NotSent, channels.Unknown} {
		total += len(s.of(v))
	}
	require.Equal(s.t, len(s.batch), total, "messages with a verdict")
}

// truthful checks the verdicts against what the provider really accepted.
func (s *sent) truthful(provider Provider) {
	s.t.Helper()
	s.complete()
	took := provider.Accepted()
	for _, m := range s.batch {
		n, v := took[m.ContactID], s.result(m).Verdict
		require.LessOrEqual(s.t, n, 1, "the provider accepted a message twice (%s)", v)
		switch v {
		case channels.Accepted:
			require.Equal(s.t, 1, n, "reported accepted, but the provider does not have it")
		case channels.Refused, channels.NotSent:
			require.Zero(s.t, n, "reported %s, but the provider has it: %s", v, s.result(m).Reason)
		}
	}
}

// send sends a batch and returns when all verdicts are in.
func (b *bench) send(ctx context.Context, sender channels.Sender, batch []channels.Message) (*sent, error) {
	s := b.newSent(batch)
	err := sender.Send(ctx, batch, s.done)
	s.complete()
	return s, err
}

// again returns messages as the next claim would: with a new epoch.
func again(batch []channels.Message) []channels.Message {
	next := make([]channels.Message, len(batch))
	for i, m := range batch {
		m.Epoch++
		next[i] = m
	}
	return next
}

// inbox collects what comes back; troubled, it keeps nothing.
type inbox struct {
	mu       sync.Mutex
	receipts []channels.Receipt
	replies  []channels.Reply
	troubled bool
	turned   int
}

// Receipts implements channels.Inbox.
func (in *inbox) Receipts(_ context.Context, receipts []channels.Receipt) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.troubled {
		in.turned += len(receipts)
		return errors.New("the inbox is in trouble")
	}
	in.receipts = append(in.receipts, receipts...)
	return nil
}

// Replies implements channels.Inbox.
func (in *inbox) Replies(_ context.Context, replies []channels.Reply) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.replies = append(in.replies, replies...)
	return nil
}

func (in *inbox) set(troubled bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.troubled = troubled
}

func (in *inbox) turnedAway() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.turned
}

// byID counts the receipts of each provider id.
func (in *inbox) byID() map[string]int {
	in.mu.Lock()
	defer in.mu.Unlock()
	count := map[string]int{}
	for _, r := range in.receipts {
		count[r.ProviderID]++
	}
	return count
}

func (b *bench) eventually(condition func() bool, what string) {
	b.t.Helper()
	require.Eventually(b.t, condition, patient, 5*time.Millisecond, what)
}
