package channeltest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/channels"
)

// Time-outs of the cases: long where an answer is sure to come, short where it
// is sure not to.
const (
	answerSure = patient
	answerNone = 300 * time.Millisecond
)

func accepted(t *testing.T, b *bench) {
	provider := b.Start(t, Behaviour{})
	s, err := b.send(t.Context(), b.open(answerSure, patient), b.messages(1000))
	require.NoError(t, err)
	require.Len(t, s.of(channels.Accepted), 1000)
	s.truthful(provider)

	ids := map[string]bool{}
	for _, m := range s.batch {
		ids[s.result(m).ProviderID] = true
	}
	require.Len(t, ids, 1000, "provider ids are not unique")
	b.eventually(func() bool { return len(b.inbox.byID()) == 1000 }, "not all receipts came")
	for _, r := range b.inbox.receipts {
		require.True(t, ids[r.ProviderID], "receipt for an id that was never given")
		require.Equal(t, channels.StateDelivered, r.State)
		require.NotEmpty(t, r.Raw)
		require.False(t, r.At.IsZero())
	}
}

func refused(t *testing.T, b *bench) {
	provider := b.Start(t, Behaviour{Refused: 1})
	s, err := b.send(t.Context(), b.open(answerSure, patient), b.messages(100))
	require.NoError(t, err)
	require.Len(t, s.of(channels.Refused), 100)
	s.truthful(provider)
}

func throttled(t *testing.T, b *bench) {
	provider := b.Start(t, Behaviour{Throttled: 0.5})
	sender := b.open(answerSure, patient)
	batch := b.messages(200)
	for round := 0; len(batch) > 0; round++ {
		require.Less(t, round, 100, "throttled messages never get through")
		s, err := b.send(t.Context(), sender, batch)
		require.NoError(t, err)
		s.truthful(provider)
		held := s.of(channels.NotSent)
		require.Equal(t, len(batch), len(held)+len(s.of(channels.Accepted)))
		if round == 0 {
			require.NotEmpty(t, held)
		}
		for _, m := range held {
			require.Positive(t, s.result(m).RetryAfter)
		}
		batch = again(held)
	}
	require.Len(t, provider.Accepted(), 200)
}

func answerLost(t *testing.T, b *bench) {
	provider := b.Start(t, Behaviour{LostAcks: 0.5})
	s, err := b.send(t.Context(), b.open(answerNone, patient), b.messages(40))
	require.NoError(t, err)
	s.truthful(provider)
	require.NotEmpty(t, s.of(channels.Unknown))
	require.NotEmpty(t, s.of(channels.Accepted))
	require.Len(t, provider.Accepted(), 40, "the bytes did leave")
}

func everythingAtOnce(t *testing.T, b *bench) {
	provider := b.Start(t, Behaviour{
		AckDelay: time.Millisecond, Refused: 0.1, Throttled: 0.1, LostAcks: 0.02, RepeatedReceipts: 0.3,
	})
	s, err := b.send(t.Context(), b.open(2*time.Second, patient), b.messages(2000))
	require.NoError(t, err)
	s.truthful(provider)
	for _, v := range []channels.Verdict{channels.Accepted, channels.Refused, channels.NotSent, channels.Unknown} {
		require.NotEmpty(t, s.of(v), "no message was %s", v)
	}
}

func providerKilled(t *testing.T, b *bench) {
	provider := b.Start(t, Behaviour{AckDelay: 2 * time.Millisecond})
	sender := b.open(answerSure, patient)
	batch := b.messages(3000)
	s := b.newSent(batch)
	result := make(chan error, 1)
	go func() { result <- sender.Send(t.Context(), batch, s.done) }()
	for _, n := range []int{500, 1500} {
		s.await(n)
		provider.Stop()
		provider = b.Start(t, Behaviour{AckDelay: 2 * time.Millisecond})
	}
	require.NoError(t, <-result)
	s.truthful(provider)
	require.NotEmpty(t, s.of(channels.Accepted))

	// What did not leave is sent by a later claim; nothing is accepted twice.
	unknown := len(s.of(channels.Unknown))
	for rest := s.of(channels.NotSent); len(rest) > 0; {
		s, err := b.send(t.Context(), sender, again(rest))
		require.NoError(t, err)
		s.truthful(provider)
		unknown += len(s.of(channels.Unknown))
		rest = s.of(channels.NotSent)
	}
	took := provider.Accepted()
	require.LessOrEqual(t, len(batch)-len(took), unknown, "a message was lost without being unknown")
}

func providerAway(t *testing.T, b *bench) {
	provider := b.Start(t, Behaviour{})
	provider.Stop()
	sender := b.open(answerSure, 200*time.Millisecond)
	s, err := b.send(t.Context(), sender, b.messages(20))
	require.ErrorIs(t, err, channels.ErrUnavailable)
	require.Len(t, s.of(channels.NotSent), 20)
	for _, m := range s.batch {
		require.Positive(t, s.result(m).RetryAfter)
	}

	provider = b.Start(t, Behaviour{})
	b.eventually(func() bool {
		s, err = b.send(t.Context(), sender, again(s.batch))
		return err == nil
	}, "the sender did not find the provider again")
	s.truthful(provider)
	require.Len(t, s.of(channels.Accepted), 20)
}

func receiptFirst(t *testing.T, b *bench) {
	b.Start(t, Behaviour{AckDelay: time.Second})
	batch := b.messages(10)
	s := b.newSent(batch)
	var early sync.Map
	err := b.open(answerSure, patient).Send(t.Context(), batch, func(i int, r channels.Result) {
		early.Store(r.ProviderID, b.inbox.byID()[r.ProviderID])
		s.done(i, r)
	})
	require.NoError(t, err)
	require.Len(t, s.of(channels.Accepted), 10)
	early.Range(func(_, receipts any) bool {
		require.Equal(t, 1, receipts, "the receipt was not handed on before the answer")
		return true
	})
}

func receiptsRepeated(t *testing.T, b *bench) {
	b.Start(t, Behaviour{RepeatedReceipts: 1})
	s, err := b.send(t.Context(), b.open(answerSure, patient), b.messages(50))
	require.NoError(t, err)
	require.Len(t, s.of(channels.Accepted), 50)
	b.eventually(func() bool {
		count := b.inbox.byID()
		for _, m := range s.batch {
			if count[s.result(m).ProviderID] != 2 {
				return false
			}
		}
		return true
	}, "not every receipt was handed on twice")
}

func receiptsLate(t *testing.T, b *bench) {
	b.Start(t, Behaviour{ReceiptDelay: 500 * time.Millisecond})
	first := b.Open(t, &inbox{}, answerSure, patient)
	s, err := b.send(t.Context(), first, b.messages(50))
	require.NoError(t, err)
	require.NoError(t, first.Close())
	require.Len(t, s.of(channels.Accepted), 50)

	b.open(answerSure, patient)
	b.eventually(func() bool {
		count := b.inbox.byID()
		for _, m := range s.batch {
			if count[s.result(m).ProviderID] == 0 {
				return false
			}
		}
		return true
	}, "the next sender did not get the receipts")
}

func receiptsKept(t *testing.T, b *bench) {
	b.Start(t, Behaviour{})
	b.inbox.set(true)
	s, err := b.send(t.Context(), b.open(answerSure, patient), b.messages(20))
	require.NoError(t, err)
	require.Len(t, s.of(channels.Accepted), 20)
	b.eventually(func() bool { return b.inbox.turnedAway() >= 20 }, "the receipts did not come")
	b.inbox.set(false)
	b.eventually(func() bool { return len(b.inbox.byID()) == 20 }, "receipts that were not kept did not come again")
}

func stoppedInTheMiddle(t *testing.T, b *bench) {
	provider := b.Start(t, Behaviour{AckDelay: 2 * time.Millisecond})
	sender := b.open(answerSure, patient)
	batch := b.messages(5000)
	s := b.newSent(batch)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- sender.Send(ctx, batch, s.done) }()
	s.await(500)
	cancel()
	require.ErrorIs(t, <-result, context.Canceled)
	s.truthful(provider)
	require.NotEmpty(t, s.of(channels.NotSent))
	require.NotEmpty(t, s.of(channels.Accepted))
	require.Empty(t, s.of(channels.Unknown), "answers that come soon are waited for")

	rest, err := b.send(t.Context(), sender, again(s.of(channels.NotSent)))
	require.NoError(t, err)
	rest.truthful(provider)
	require.Len(t, provider.Accepted(), 5000)
}

func stoppedBefore(t *testing.T, b *bench) {
	provider := b.Start(t, Behaviour{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s, err := b.send(ctx, b.open(answerSure, patient), b.messages(100))
	require.ErrorIs(t, err, context.Canceled)
	require.Len(t, s.of(channels.NotSent), 100)
	s.truthful(provider)
}

func closedInTheMiddle(t *testing.T, b *bench) {
	provider := b.Start(t, Behaviour{AckDelay: 2 * time.Millisecond})
	sender := b.open(answerSure, patient)
	batch := b.messages(5000)
	s := b.newSent(batch)
	result := make(chan error, 1)
	go func() { result <- sender.Send(t.Context(), batch, s.done) }()
	s.await(500)
	require.NoError(t, sender.Close())
	require.ErrorIs(t, <-result, channels.ErrClosed)
	s.truthful(provider)
	require.NotEmpty(t, s.of(channels.NotSent))

	after, err := b.send(t.Context(), sender, b.messages(3))
	require.ErrorIs(t, err, channels.ErrClosed)
	require.Len(t, after.of(channels.NotSent), 3)
	after.truthful(provider)
	require.NoError(t, sender.Close(), "closing twice")
}

func severalSends(t *testing.T, b *bench) {
	provider := b.Start(t, Behaviour{AckDelay: time.Millisecond})
	sender := b.open(answerSure, patient)
	var all []*sent
	var sends sync.WaitGroup
	for range 8 {
		s := b.newSent(b.messages(300))
		all = append(all, s)
		sends.Go(func() {
			if err := sender.Send(t.Context(), s.batch, s.done); err != nil {
				t.Error(err)
			}
		})
	}
	sends.Wait()
	for _, s := range all {
		s.truthful(provider)
		require.Len(t, s.of(channels.Accepted), 300)
	}
}

func cannotLeave(t *testing.T, b *bench) {
	provider := b.Start(t, Behaviour{})
	batch := b.messages(4)
	batch[1].Text = ""
	batch[2].To = "not a recipient"
	s, err := b.send(t.Context(), b.open(answerSure, patient), batch)
	require.NoError(t, err)
	s.truthful(provider)
	for i, want := range []channels.Verdict{channels.Accepted, channels.Refused, channels.Refused, channels.Accepted} {
		require.Equal(t, want, s.result(batch[i]).Verdict, "message %d", i)
	}
}

func nothingToSend(t *testing.T, b *bench) {
	b.Start(t, Behaviour{})
	s, err := b.send(t.Context(), b.open(answerSure, patient), nil)
	require.NoError(t, err)
	require.Empty(t, s.results)
}
