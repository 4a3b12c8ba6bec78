package assertion

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/musterhq/muster/campaign"
)

const (
	// ReloadEvery is how often Follow reads the folder again. A rotation's notice must be
	// longer.
	ReloadEvery = 30 * time.Second
	// soonest bounds what assertions with made-up key ids can cost.
	soonest = time.Second
)

// Keys is the keyring of a folder as a running process sees it: it is read again at
// intervals, and when an assertion names a key that is not known yet.
type Keys struct {
	dir  string
	ring atomic.Pointer[Keyring]

	mu   sync.Mutex
	read time.Time
}

// Open loads a folder's keys, see Load.
func Open(dir string) (*Keys, error) {
	k := &Keys{dir: dir}
	return k, k.Reload()
}

// Ring returns the keys as they were last read.
func (k *Keys) Ring() *Keyring { return k.ring.Load() }

// Reload reads the folder again. When that fails the keys from before stay.
func (k *Keys) Reload() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.reload()
}

func (k *Keys) reload() error {
	k.read = time.Now()
	ring, err := Load(k.dir)
	if err != nil {
		return err
	}
	k.ring.Store(ring)
	return nil
}

// refresh is Reload, but not more often than soonest.
func (k *Keys) refresh() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Since(k.read) < soonest {
		return nil
	}
	return k.reload()
}

// Follow reads the folder again every ReloadEvery until ctx ends.
func (k *Keys) Follow(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(ReloadEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := k.Reload(); err != nil {
				log.WarnContext(ctx, "keys were not read again", "error", err)
			}
		}
	}
}

// VerifyBy is Verify with the keys of a folder, which are read again when the assertion
// names one that is unknown.
func VerifyBy[C Claims](keys *Keys, token string, recorded time.Time) (C, error) {
	claims, err := Verify[C](keys.Ring(), token, recorded)
	if FaultOf(err) != FaultUnknownKey {
		return claims, err
	}
	if failed := keys.refresh(); failed != nil {
		return claims, failed
	}
	return Verify[C](keys.Ring(), token, recorded)
}

// FaultOf returns why Verify refused an assertion, and "" for any other error.
func FaultOf(err error) Fault {
	var e *campaign.Error
	if !errors.As(err, &e) || e.Code != campaign.CodeForgedDecision {
		return ""
	}
	fault, _ := e.Details["fault"].(string)
	return Fault(fault)
}

// KeyInfo says what is known of a key.
type KeyInfo struct {
	ID        string
	NotBefore time.Time
	RetiredAt time.Time // zero while it is not to be retired
	RevokedAt time.Time // zero unless it was revoked
	Private   bool      // this folder can sign with it
}

// Keys lists the keys of the ring, the oldest first.
func (r *Keyring) Keys() []KeyInfo {
	all := make([]KeyInfo, len(r.keys))
	for i, k := range r.keys {
		all[i] = KeyInfo{ID: k.id, NotBefore: k.notBefore, RetiredAt: k.retiredAt, RevokedAt: k.revokedAt, Private: k.private != nil}
	}
	return all
}

// signer returns the newest key that can sign here at a time.
func (r *Keyring) signer(at time.Time) (key, bool) {
	for i := len(r.keys) - 1; i >= 0; i-- {
		if k := r.keys[i]; k.private != nil && k.validAt(at) {
			return k, true
		}
	}
	return key{}, false
}

// SignerID returns the id of the key that signs at a time, or "" when none can: the
// folder has no private key, as a worker's need not.
func (r *Keyring) SignerID(at time.Time) string {
	k, _ := r.signer(at)
	return k.id
}
