package smpp_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/channels"
	"github.com/musterhq/muster/channels/smpp"
	"github.com/musterhq/muster/internal/sim/smsc"
)

type noInbox struct{ receipts atomic.Int64 }

func (n *noInbox) Receipts(_ context.Context, r []channels.Receipt) error {
	n.receipts.Add(int64(len(r)))
	return nil
}

func (n *noInbox) Replies(context.Context, []channels.Reply) error { return nil }

// BenchmarkSend sends through a loopback connection to the simulator, which
// writes its journal and sends receipts meanwhile, in batches as the dispatcher
// does.
func BenchmarkSend(b *testing.B) {
	for _, c := range []struct {
		name string
		text string
	}{
		{"gsm7", "Dear customer, 20% off the data pack until Sunday. Reply Y to order. Reply T to opt out."},
		{"ucs2", "【点兵】尊敬的客户，流量包八折优惠至本周日，回复Y即可办理，拒收请回复T。"},
	} {
		b.Run(c.name, func(b *testing.B) {
			dir := b.TempDir()
			server, err := smsc.Start(b.Context(), smsc.Options{Addr: "127.0.0.1:0", Journal: dir + "/smsc.jsonl", Log: quiet})
			require.NoError(b, err)
			defer server.Stop()
			sender, err := smpp.New(b.Context(), smpp.Config{Addr: server.Addr(), Log: quiet}, &noInbox{})
			require.NoError(b, err)
			defer func() { _ = sender.Close() }()

			messages := make([]channels.Message, b.N)
			for i := range messages {
				messages[i] = channels.Message{
					ContactID: uuid.NewString(), Epoch: 1, To: fmt.Sprintf("86139%08d", i), From: "10086", Text: c.text,
				}
			}
			var took atomic.Int64
			b.ResetTimer()
			for from := 0; from < len(messages); from += 2000 {
				batch := messages[from:min(from+2000, len(messages))]
				err := sender.Send(b.Context(), batch, func(_ int, r channels.Result) {
					if r.Verdict == channels.Accepted {
						took.Add(1)
					}
				})
				require.NoError(b, err)
			}
			b.StopTimer()
			require.EqualValues(b, b.N, took.Load())
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}
