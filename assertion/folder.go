package assertion

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/musterhq/muster/campaign"
)

const (
	listName = "keys.json"
	lockName = "keys.json.lock"

	pemPrivate = "PRIVATE KEY"
	maxKeyFile = 1 << 20
)

// listedKey is a key in keys.json.
type listedKey struct {
	ID        string    `json:"id"`
	PublicKey []byte    `json:"public_key"` // SubjectPublicKeyInfo in DER, base64
	NotBefore time.Time `json:"not_before"`
	RetiredAt time.Time `json:"retired_at,omitzero"`
	RevokedAt time.Time `json:"revoked_at,omitzero"`
}

func privateFile(dir, id string) string { return filepath.Join(dir, id+".pem") }

// Load reads the keys of a folder that Generate made, or of a copy of its keys.json. It
// fails when others may change the list or read a private key, when a key is not what
// its id says, and when a private key does not belong to its public one.
func Load(dir string) (*Keyring, error) {
	listed, err := readList(dir)
	if err != nil {
		return nil, err
	}
	ring := &Keyring{}
	for _, l := range listed {
		k, err := l.open(dir)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", l.ID, err)
		}
		if _, twice := ring.named(k.id); twice {
			return nil, fmt.Errorf("key %s is listed twice", k.id)
		}
		ring.keys = append(ring.keys, k)
	}
	if len(ring.keys) == 0 {
		return nil, fmt.Errorf("%s lists no key", filepath.Join(dir, listName))
	}
	slices.SortStableFunc(ring.keys, func(a, b key) int { return a.notBefore.Compare(b.notBefore) })
	return ring, nil
}

// Generate makes a folder with a first key, valid from now on, readable by its owner
// only. It never overwrites anything: it fails with fs.ErrExist when there are keys.
func Generate(dir string, now time.Time) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return change(dir, func() ([]listedKey, error) {
		_, err := os.Lstat(filepath.Join(dir, listName))
		if err == nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, listName), fs.ErrExist)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		first, err := newKey(dir, now)
		return []listedKey{first}, err
	})
}

// Rotate adds a key that signs from notice later on, and retires the others after
// another notice. A process that loads the keys again at least once per notice
// therefore knows the new key before it is used, and no process still signs with an old
// one when that is retired. With no notice the change is at once. Private keys that were
// retired by now are deleted; what they signed stays valid.
func Rotate(dir string, now time.Time, notice time.Duration) error {
	if notice < 0 {
		return fmt.Errorf("a notice of %s: it must not be negative", notice)
	}
	if _, err := Load(dir); err != nil {
		return err
	}
	var listed []listedKey
	err := change(dir, func() ([]listedKey, error) {
		var err error
		if listed, err = readList(dir); err != nil {
			return nil, err
		}
		retired := seconds(now.Add(2 * notice))
		for i := range listed {
			if r := listed[i].RetiredAt; r.IsZero() || retired.Before(r) {
				listed[i].RetiredAt = retired
			}
		}
		next, err := newKey(dir, now.Add(notice))
		listed = append(listed, next)
		return listed, err
	})
	if err != nil {
		return err
	}
	for _, l := range listed {
		if l.RetiredAt.IsZero() || now.Before(l.RetiredAt) {
			continue
		}
		if err := os.Remove(privateFile(dir, l.ID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Revoke ends a key that got into the wrong hands: from now on nothing is signed or
// verified with it but what was recorded before. When it was the one that signs, a new key
// signs at once. Its private half is deleted. It fails with CodeNotFound on a key that is
// not listed; one that was revoked before stays so from then on.
func Revoke(dir, id string, now time.Time) error {
	ring, err := Load(dir)
	if err != nil {
		return err
	}
	if _, listed := ring.named(id); !listed {
		return campaign.Errorf(campaign.CodeNotFound, "there is no key %s", id)
	}
	signs := ring.SignerID(now) != ""
	for i := range ring.keys {
		if k := &ring.keys[i]; k.id == id && k.revokedAt.IsZero() {
			k.revokedAt = seconds(now)
		}
	}
	err = change(dir, func() ([]listedKey, error) {
		listed, err := readList(dir)
		if err != nil {
			return nil, err
		}
		for i := range listed {
			if l := &listed[i]; l.ID == id && l.RevokedAt.IsZero() {
				l.RevokedAt = seconds(now)
			}
		}
		if signs && ring.SignerID(now) == "" {
			next, err := newKey(dir, now)
			return append(listed, next), err
		}
		return listed, nil
	})
	if err != nil {
		return err
	}
	if err := os.Remove(privateFile(dir, id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// seconds is what claims can tell apart.
func seconds(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// newKey makes a key pair and writes its private half.
func newKey(dir string, notBefore time.Time) (listedKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return listedKey{}, err
	}
	id, err := KeyID(public)
	if err != nil {
		return listedKey{}, err
	}
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return listedKey{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return listedKey{}, err
	}
	listed := listedKey{ID: id, PublicKey: spki, NotBefore: seconds(notBefore)}
	f, err := create(privateFile(dir, id))
	if err != nil {
		return listedKey{}, err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: pemPrivate, Bytes: der})
	return listed, errors.Join(write(f, block), f.Close())
}

// change replaces keys.json by what list returns, in one step. The new list is written
// to a file that only one can create, so that two changes cannot lose each other's key.
func change(dir string, list func() ([]listedKey, error)) error {
	lock := filepath.Join(dir, lockName)
	f, err := create(lock)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: somebody else changes the keys, or was interrupted; in that case delete the file", err)
	}
	if err != nil {
		return err
	}
	keys, err := list()
	if err == nil {
		err = writeList(f, keys)
	}
	if err == nil {
		err = os.Rename(lock, filepath.Join(dir, listName))
	}
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(lock))
	}
	return errors.Join(f.Close(), syncFolder(dir))
}

func writeList(f *os.File, keys []listedKey) error {
	body, err := json.MarshalIndent(keys, "", "  ")
	if err != nil {
		return err
	}
	return write(f, append(body, '\n'))
}

func create(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

func write(f *os.File, content []byte) error {
	if _, err := f.Write(content); err != nil {
		return err
	}
	return f.Sync()
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func readList(dir string) ([]listedKey, error) {
	// Who may add a key may sign anything.
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return nil, fmt.Errorf("%s has permissions %#o: only its owner may change it", dir, info.Mode().Perm())
	}
	body, err := readFile(filepath.Join(dir, listName), 0o022, "only its owner may change it")
	if err != nil {
		return nil, err
	}
	var listed []listedKey
	if err := json.Unmarshal(body, &listed); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, listName), err)
	}
	return listed, nil
}

// readFile reads a file that has none of the forbidden permissions.
func readFile(name string, forbidden fs.FileMode, rule string) (content []byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&forbidden != 0 {
		return nil, fmt.Errorf("%s has permissions %#o: %s", name, info.Mode().Perm(), rule)
	}
	if info.Size() > maxKeyFile {
		return nil, fmt.Errorf("%s is too large for a file of keys", name)
	}
	return io.ReadAll(f)
}

// open checks a listed key and reads its private half, if that is here.
func (l listedKey) open(dir string) (key, error) {
	parsed, err := x509.ParsePKIXPublicKey(l.PublicKey)
	if err != nil {
		return key{}, err
	}
	public, ok := parsed.(ed25519.PublicKey)
	if !ok {
		return key{}, errors.New("is not an Ed25519 key")
	}
	if id, err := KeyID(public); err != nil || id != l.ID {
		return key{}, errors.Join(err, fmt.Errorf("is the key %s", id))
	}
	k := key{id: l.ID, public: public, notBefore: l.NotBefore, retiredAt: l.RetiredAt, revokedAt: l.RevokedAt}
	body, err := readFile(privateFile(dir, l.ID), 0o077, "only its owner may read it")
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err != nil {
		return key{}, err
	}
	block, rest := pem.Decode(body)
	if block == nil || block.Type != pemPrivate || len(rest) > 0 {
		return key{}, errors.New("its private key is not one PEM block of PKCS #8")
	}
	secret, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return key{}, err
	}
	private, ok := secret.(ed25519.PrivateKey)
	if !ok || !public.Equal(private.Public()) {
		return key{}, errors.New("its private key belongs to another")
	}
	k.private = private
	return k, nil
}
