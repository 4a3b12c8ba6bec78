package smsc

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Accepted is one submit_sm that the SMS centre took.
type Accepted struct {
	// ContactID and Epoch are the client reference; empty and 0 for clients
	// that send none.
	ContactID string `json:"contact_id,omitempty"`
	Epoch     int32  `json:"epoch,omitempty"`
	MessageID string `json:"message_id"`
	To        string `json:"to"`
	From      string `json:"from,omitempty"`
	// Part is the number of this part of a concatenated message, from 1; 0 for
	// a message submitted whole.
	Part int `json:"part,omitempty"`
	// Parts is how many SMS parts this submit is charged as.
	Parts int `json:"parts"`
	// TextSHA is the beginning (16 hex digits) of the SHA-256 of the text.
	TextSHA string `json:"text_sha"`
	// Receipt tells whether the client asked for a delivery receipt.
	Receipt bool      `json:"receipt,omitempty"`
	At      time.Time `json:"at"`
}

// line is one line of the journal: an accepted message, or the client's
// confirmation of a message's receipt.
type line struct {
	Simulated bool   `json:"simulated"`
	Kind      string `json:"kind"`
	*Accepted
	ReceiptFor  string     `json:"receipt_for,omitempty"`
	Stat        string     `json:"stat,omitempty"`
	ConfirmedAt *time.Time `json:"confirmed_at,omitempty"`
}

const (
	kindAccepted = "accepted"
	kindReceipt  = "receipt"
)

func (l line) append(lines []byte) []byte {
	l.Simulated = true
	octets, err := json.Marshal(l)
	if err != nil {
		panic(err) // strings, numbers and times always marshal
	}
	return append(append(lines, octets...), '\n')
}

// Journal is what an SMS centre accepted, read back.
type Journal struct {
	// Accepted holds the accepted submits in the order of acceptance.
	Accepted []Accepted
	// Receipts maps message ids to the stat that the client confirmed.
	Receipts map[string]string
}

// ReadJournal reads a journal, also one that is being written: an unfinished
// last line is no accepted message yet and is left out.
func ReadJournal(path string) (*Journal, error) {
	j, _, err := readJournal(path)
	return j, err
}

// readJournal also returns the length of the file's complete lines.
func readJournal(path string) (*Journal, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = f.Close() }()
	j := &Journal{Receipts: map[string]string{}}
	in := bufio.NewReaderSize(f, 1<<20)
	var complete int64
	for number := 1; ; number++ {
		octets, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return j, complete, nil
		}
		if err != nil {
			return nil, 0, err
		}
		var l line
		if err := json.Unmarshal(octets, &l); err != nil {
			return nil, 0, fmt.Errorf("%s:%d: %w", path, number, err)
		}
		switch {
		case l.Kind == kindAccepted && l.Accepted != nil:
			j.Accepted = append(j.Accepted, *l.Accepted)
		case l.Kind == kindReceipt && l.ReceiptFor != "":
			j.Receipts[l.ReceiptFor] = l.Stat
		default:
			return nil, 0, fmt.Errorf("%s:%d: not a line of an SMS centre's journal", path, number)
		}
		complete += int64(len(octets))
	}
}

// Times tells how many times each contact's message was accepted; the parts of
// a concatenated message count as one.
func (j *Journal) Times() map[string]int {
	type part struct {
		contact string
		part    int
	}
	byPart := map[part]int{}
	times := map[string]int{}
	for _, a := range j.Accepted {
		key := part{a.ContactID, a.Part}
		byPart[key]++
		times[a.ContactID] = max(times[a.ContactID], byPart[key])
	}
	return times
}

// Duplicates lists, sorted, the contacts whose message was accepted more than
// once.
func (j *Journal) Duplicates() []string {
	var twice []string
	for contact, n := range j.Times() {
		if n > 1 && contact != "" {
			twice = append(twice, contact)
		}
	}
	slices.Sort(twice)
	return twice
}

// journalFile appends lines. Each append is one write to the operating system
// and nothing is held back, so what append has returned for outlives the
// process. Durability against power loss is not the simulator's business.
type journalFile struct {
	mu sync.Mutex
	f  *os.File
}

// openJournal opens or creates a journal, reads it, and cuts off a line that a
// killed process left unfinished: its message was never answered.
func openJournal(path string) (*journalFile, *Journal, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, err
	}
	past, complete, err := readJournal(path)
	if err == nil {
		err = f.Truncate(complete)
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return &journalFile{f: f}, past, nil
}

func (j *journalFile) append(lines []byte) error {
	if len(lines) == 0 {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	_, err := io.Copy(j.f, bytes.NewReader(lines))
	return err
}

func (j *journalFile) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.f.Close()
}

// Message ids show everywhere that they come from a simulator.
const idPrefix = "sim-"

func messageID(n uint64) string { return fmt.Sprintf("%s%010d", idPrefix, n) }

// lastID is the highest number used in a journal.
func (j *Journal) lastID() (last uint64) {
	for _, a := range j.Accepted {
		if n, err := strconv.ParseUint(strings.TrimPrefix(a.MessageID, idPrefix), 10, 64); err == nil {
			last = max(last, n)
		}
	}
	return last
}
