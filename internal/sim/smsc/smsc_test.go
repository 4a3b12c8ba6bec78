package smsc_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
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

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// Run with these set, the test binary is an SMS centre in a process of its own,
// to be killed.
const (
	envJournal = "SMSC_TEST_JOURNAL"
	envAddr    = "SMSC_TEST_ADDR"
)

func TestMain(m *testing.M) {
	journal := os.Getenv(envJournal)
	if journal == "" {
		os.Exit(m.Run())
	}
	server, err := smsc.Start(context.Background(), smsc.Options{
		Addr: os.Getenv(envAddr), Journal: journal, Log: quiet,
		ReceiptDelay: smsc.Range{Max: 300 * time.Millisecond},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(server.Addr())
	select {}
}

// startProcess starts an SMS centre of its own and returns its address.
func startProcess(t *testing.T, addr, journal string) (*exec.Cmd, string) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envJournal+"="+journal, envAddr+"="+addr)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	at, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	return cmd, strings.TrimSpace(at)
}

type inbox struct {
	mu     sync.Mutex
	count  map[string]int
	states map[channels.State]int
}

func newInbox() *inbox {
	return &inbox{count: map[string]int{}, states: map[channels.State]int{}}
}

func (in *inbox) Receipts(_ context.Context, receipts []channels.Receipt) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, r := range receipts {
		in.count[r.ProviderID]++
		in.states[r.State]++
	}
	return nil
}

func (in *inbox) Replies(context.Context, []channels.Reply) error { return nil }

func (in *inbox) got(id string) int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.count[id]
}

func messages(n, epoch int) []channels.Message {
	batch := make([]channels.Message, n)
	for i := range batch {
		batch[i] = channels.Message{
			ContactID: fmt.Sprintf("contact-%05d", i), Epoch: int32(epoch), To: fmt.Sprintf("86139%08d", i), From: "10086", Text: "Hello",
		}
	}
	return batch
}

func sendAll(t *testing.T, sender *smpp.Sender, batch []channels.Message) []channels.Result {
	results := make([]channels.Result, len(batch))
	var mu sync.Mutex
	require.NoError(t, sender.Send(t.Context(), batch, func(i int, r channels.Result) {
		mu.Lock()
		defer mu.Unlock()
		results[i] = r
	}))
	return results
}

// Kill -9 of the SMS centre's process, twice in a run: what it answered is in
// the journal, nothing is there twice, and every receipt comes in the end.
func TestJournalAndReceiptsOutliveKill(t *testing.T) {
	journalPath := filepath.Join(t.TempDir(), "smsc.jsonl")
	process, addr := startProcess(t, "127.0.0.1:0", journalPath)
	in := newInbox()
	sender, err := smpp.New(t.Context(), smpp.Config{Addr: addr, Log: quiet, Window: 100}, in)
	require.NoError(t, err)
	defer func() { require.NoError(t, sender.Close()) }()

	batch := messages(6000, 1)
	results := make([]channels.Result, len(batch))
	var mu sync.Mutex
	have := 0
	sent := make(chan error, 1)
	go func() {
		sent <- sender.Send(t.Context(), batch, func(i int, r channels.Result) {
			mu.Lock()
			defer mu.Unlock()
			results[i] = r
			have++
		})
	}()
	for _, n := range []int{1500, 4000} {
		require.Eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return have >= n }, patient, time.Millisecond)
		require.NoError(t, process.Process.Kill())
		_ = process.Wait()
		process, _ = startProcess(t, addr, journalPath)
	}
	require.NoError(t, <-sent)

	journal, err := smsc.ReadJournal(journalPath)
	require.NoError(t, err)
	require.Empty(t, journal.Duplicates())
	times := journal.Times()
	ids := map[string]bool{}
	for _, a := range journal.Accepted {
		require.False(t, ids[a.MessageID], "message id %s was given twice", a.MessageID)
		ids[a.MessageID] = true
	}
	for i, r := range results {
		switch r.Verdict {
		case channels.Accepted:
			require.Equal(t, 1, times[batch[i].ContactID])
			require.True(t, ids[r.ProviderID])
		case channels.Unknown:
			require.LessOrEqual(t, times[batch[i].ContactID], 1)
		default:
			require.Zero(t, times[batch[i].ContactID], "%s: %s", r.Verdict, r.Reason)
		}
	}
	require.Eventually(t, func() bool {
		for id := range ids {
			if in.got(id) == 0 {
				return false
			}
		}
		return true
	}, patient, 10*time.Millisecond, "a receipt never came")
}

func TestConfirmedReceiptsAreNotOwedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "smsc.jsonl")
	first, err := smsc.Start(t.Context(), smsc.Options{Addr: "127.0.0.1:0", Journal: path, Log: quiet})
	require.NoError(t, err)
	sender, err := smpp.New(t.Context(), smpp.Config{Addr: first.Addr(), Log: quiet}, newInbox())
	require.NoError(t, err)
	sendAll(t, sender, messages(10, 1))
	require.Eventually(t, func() bool {
		journal, err := smsc.ReadJournal(path)
		return err == nil && len(journal.Receipts) == 10
	}, patient, time.Millisecond)
	require.NoError(t, sender.Close())
	first.Stop()

	second, err := smsc.Start(t.Context(), smsc.Options{Addr: "127.0.0.1:0", Journal: path, Log: quiet})
	require.NoError(t, err)
	defer second.Stop()
	in := newInbox()
	sender, err = smpp.New(t.Context(), smpp.Config{Addr: second.Addr(), Log: quiet}, in)
	require.NoError(t, err)
	defer func() { require.NoError(t, sender.Close()) }()
	results := sendAll(t, sender, messages(1, 2))
	require.Eventually(t, func() bool { return in.got(results[0].ProviderID) == 1 }, patient, time.Millisecond)
	require.EqualValues(t, 1, second.Stats().ReceiptsSent)
}

func TestFateFollowsTheSeed(t *testing.T) {
	run := func(seed uint64) map[string]channels.Verdict {
		server, err := smsc.Start(t.Context(), smsc.Options{
			Addr: "127.0.0.1:0", Journal: filepath.Join(t.TempDir(), "smsc.jsonl"), Log: quiet,
			Refused: 0.2, Throttled: 0.2, Seed: seed,
		})
		require.NoError(t, err)
		defer server.Stop()
		sender, err := smpp.New(t.Context(), smpp.Config{Addr: server.Addr(), Log: quiet, Binds: 2}, newInbox())
		require.NoError(t, err)
		defer func() { require.NoError(t, sender.Close()) }()
		batch := messages(2000, 1)
		verdicts := map[string]channels.Verdict{}
		count := map[channels.Verdict]int{}
		for i, r := range sendAll(t, sender, batch) {
			verdicts[batch[i].ContactID] = r.Verdict
			count[r.Verdict]++
		}
		// Binomial with n = 2000: five standard deviations are below 90.
		require.InDelta(t, 400, count[channels.Refused], 90)
		require.InDelta(t, 320, count[channels.NotSent], 90)
		stats := server.Stats()
		require.EqualValues(t, 2000, stats.Submitted)
		require.EqualValues(t, count[channels.Accepted], stats.Accepted)
		require.EqualValues(t, count[channels.Refused], stats.Refused)
		require.EqualValues(t, count[channels.NotSent], stats.Throttled)
		return verdicts
	}
	one := run(1)
	require.Equal(t, one, run(1))
	require.NotEqual(t, one, run(2))
}

func TestReceiptsFollowTheShares(t *testing.T) {
	server, err := smsc.Start(t.Context(), smsc.Options{
		Addr: "127.0.0.1:0", Journal: filepath.Join(t.TempDir(), "smsc.jsonl"), Log: quiet, Failed: 0.3, Expired: 0.2, Seed: 7,
	})
	require.NoError(t, err)
	defer server.Stop()
	in := newInbox()
	sender, err := smpp.New(t.Context(), smpp.Config{Addr: server.Addr(), Log: quiet}, in)
	require.NoError(t, err)
	defer func() { require.NoError(t, sender.Close()) }()
	sendAll(t, sender, messages(2000, 1))
	require.Eventually(t, func() bool { return server.Stats().ReceiptsConfirmed == 2000 }, patient, time.Millisecond)
	in.mu.Lock()
	defer in.mu.Unlock()
	// Binomial with n = 2000: five standard deviations are below 115.
	require.InDelta(t, 1000, in.states[channels.StateDelivered], 115)
	require.InDelta(t, 600, in.states[channels.StateFailed], 115)
	require.InDelta(t, 400, in.states[channels.StateExpired], 115)
}

func TestJournalIsLabelledAndComplete(t *testing.T) {
	path := filepath.Join(t.TempDir(), "smsc.jsonl")
	server, err := smsc.Start(t.Context(), smsc.Options{Addr: "127.0.0.1:0", Journal: path, Log: quiet})
	require.NoError(t, err)
	defer server.Stop()
	sender, err := smpp.New(t.Context(), smpp.Config{Addr: server.Addr(), Log: quiet}, newInbox())
	require.NoError(t, err)
	defer func() { require.NoError(t, sender.Close()) }()
	batch := messages(1, 7)
	batch[0].Text = strings.Repeat("流量包", 30)
	result := sendAll(t, sender, batch)[0]
	require.True(t, strings.HasPrefix(result.ProviderID, "sim-"))

	octets, err := os.ReadFile(path)
	require.NoError(t, err)
	first, _, _ := strings.Cut(string(octets), "\n")
	var line map[string]any
	require.NoError(t, json.Unmarshal([]byte(first), &line))
	delete(line, "at")
	require.Equal(t, map[string]any{
		"simulated": true, "kind": "accepted", "contact_id": "contact-00000", "epoch": 7.0, "message_id": result.ProviderID,
		"to": "8613900000000", "from": "10086", "parts": 2.0, "receipt": true,
		"text_sha": "003cb1eff2249877",
	}, line)
}

func TestUnfinishedLineIsCutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "smsc.jsonl")
	whole := `{"simulated":true,"kind":"accepted","contact_id":"a","message_id":"sim-0000000041","to":"1","parts":1,"text_sha":"","at":"2026-03-01T00:00:00Z"}` + "\n"
	require.NoError(t, os.WriteFile(path, []byte(whole+whole[:40]), 0o600))
	journal, err := smsc.ReadJournal(path)
	require.NoError(t, err)
	require.Len(t, journal.Accepted, 1)

	server, err := smsc.Start(t.Context(), smsc.Options{Addr: "127.0.0.1:0", Journal: path, Log: quiet})
	require.NoError(t, err)
	sender, err := smpp.New(t.Context(), smpp.Config{Addr: server.Addr(), Log: quiet}, newInbox())
	require.NoError(t, err)
	result := sendAll(t, sender, messages(1, 1))[0]
	require.NoError(t, sender.Close())
	server.Stop()
	require.Equal(t, "sim-0000000042", result.ProviderID, "ids go on where they were")
	journal, err = smsc.ReadJournal(path)
	require.NoError(t, err)
	require.Len(t, journal.Accepted, 2)
}

func TestForeignJournalIsRefused(t *testing.T) {
	for _, content := range []string{"not json\n", `{"kind":"something"}` + "\n"} {
		path := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		_, err := smsc.Start(t.Context(), smsc.Options{Addr: "127.0.0.1:0", Journal: path, Log: quiet})
		require.ErrorContains(t, err, "file:1:")
		after, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, content, string(after))
	}
}

func TestDuplicatesAreCounted(t *testing.T) {
	j := smsc.Journal{Accepted: []smsc.Accepted{
		{ContactID: "once"}, {ContactID: "twice"}, {ContactID: "twice"},
		{ContactID: "parts", Part: 1}, {ContactID: "parts", Part: 2},
		{ContactID: "parts twice", Part: 1}, {ContactID: "parts twice", Part: 2}, {ContactID: "parts twice", Part: 2},
	}}
	require.Equal(t, []string{"parts twice", "twice"}, j.Duplicates())
	require.Equal(t, map[string]int{"once": 1, "twice": 2, "parts": 1, "parts twice": 2}, j.Times())
}

func TestOptionsAreChecked(t *testing.T) {
	for name, opt := range map[string]smsc.Options{
		"no journal":        {},
		"share above one":   {Journal: "x", Refused: 1.1},
		"negative share":    {Journal: "x", Throttled: -0.1},
		"outcomes over one": {Journal: "x", Failed: 0.6, Expired: 0.6},
		"backward range":    {Journal: "x", AckDelay: smsc.Range{Min: 2, Max: 1}},
	} {
		_, err := smsc.Start(t.Context(), opt)
		require.Error(t, err, name)
	}
}

func TestRange(t *testing.T) {
	var r smsc.Range
	require.NoError(t, r.UnmarshalText([]byte("20ms-1.5s")))
	require.Equal(t, smsc.Range{Min: 20 * time.Millisecond, Max: 1500 * time.Millisecond}, r)
	require.Equal(t, "20ms-1.5s", r.String())
	require.NoError(t, r.UnmarshalText([]byte("50ms")))
	require.Equal(t, "50ms", r.String())
	for _, wrong := range []string{"", "x", "1s-", "2s-1s", "-1s"} {
		require.Error(t, r.UnmarshalText([]byte(wrong)), wrong)
	}
}

// The protocol's corners, spoken by hand.
func TestProtocol(t *testing.T) {
	server, err := smsc.Start(t.Context(), smsc.Options{
		Addr: "127.0.0.1:0", Journal: filepath.Join(t.TempDir(), "smsc.jsonl"), Log: quiet, SystemID: "muster", Password: "secret",
	})
	require.NoError(t, err)
	defer server.Stop()
	conn, err := net.Dial("tcp", server.Addr())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patient)))
	ask := func(octets []byte) pdu.PDU {
		_, err := conn.Write(octets)
		require.NoError(t, err)
		answer, err := pdu.Parse(conn)
		if answer == nil {
			require.NoError(t, err)
		}
		return answer
	}
	unit := func(p pdu.PDU) []byte {
		buf := pdu.NewBuffer(nil)
		p.Marshal(buf)
		return buf.Bytes()
	}
	bind := func(id, password string) data.CommandStatusType {
		request := pdu.NewBindRequest(pdu.Transmitter)
		request.SystemID, request.Password = id, password
		return ask(unit(request)).GetHeader().CommandStatus
	}

	require.Equal(t, data.ESME_RINVBNDSTS, ask(unit(pdu.NewSubmitSM())).GetHeader().CommandStatus)
	require.Equal(t, data.ESME_RINVSYSID, bind("other", "secret"))
	require.Equal(t, data.ESME_RINVPASWD, bind("muster", "guess"))
	require.Equal(t, data.ESME_ROK, bind("muster", "secret"))
	require.Equal(t, data.ESME_RALYBND, bind("muster", "secret"))
	require.ErrorIs(t, server.Reply("1", "2", "x"), smsc.ErrNoClient, "a transmitter does not receive")

	unknown := []byte{0, 0, 0, 16, 0, 0, 0x0F, 0xFF, 0, 0, 0, 0, 0, 0, 0, 9}
	nack := ask(unknown)
	require.True(t, nack.GetHeader().CommandID == data.GENERIC_NACK)
	require.EqualValues(t, 9, nack.GetSequenceNumber())
	require.Equal(t, data.ESME_RINVCMDID, nack.GetHeader().CommandStatus)

	// Two requests and a half in one write: the two are answered without
	// waiting for the rest of the third.
	enquire := unit(pdu.NewEnquireLink())
	submit := unit(pdu.NewSubmitSM())
	_, err = conn.Write(append(append(append([]byte{}, enquire...), submit...), enquire[:7]...))
	require.NoError(t, err)
	for _, want := range []data.CommandIDType{data.ENQUIRE_LINK_RESP, data.SUBMIT_SM_RESP} {
		answer, err := pdu.Parse(conn)
		require.NoError(t, err)
		require.Equal(t, want, answer.GetHeader().CommandID)
	}
	require.Equal(t, data.ENQUIRE_LINK_RESP, ask(enquire[7:]).GetHeader().CommandID)

	require.Equal(t, data.UNBIND_RESP, ask(unit(pdu.NewUnbind())).GetHeader().CommandID)
	_, err = conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}
