package store

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"

	"github.com/google/uuid"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/musterhq/muster/campaign"
)

// VaultKeySize is the length of a key of the vault in bytes.
const VaultKeySize = 32

const (
	dataKeySize = 32
	nonceSize   = 12
	tagSize     = 16
	keyIDSize   = 4
	wrappedSize = keyIDSize + nonceSize + dataKeySize + tagSize
)

// Vault seals phone numbers and makes them findable without opening them. Each number has
// a random key of its own, under which it is sealed by ChaCha20-Poly1305, a cipher that
// needs no schedule to be computed for each key; the vault's newest key wraps it. With its
// key a number is gone for good, also from copies of the database. A sealed number and a wrapped key are
// bound to their customer: moved to another row they do not open. It is safe for
// concurrent use.
type Vault struct {
	keys   []vaultKey // in the order they came; the last one wraps
	lookup []byte
}

// vaultKey is what is derived from one secret of the vault.
type vaultKey struct {
	id      [keyIDSize]byte
	wrap    cipher.AEAD // of data keys
	oldID   byte
	oldSeal cipher.AEAD // of numbers that earlier versions sealed
}

// NewVault returns the vault of a secret key of VaultKeySize random bytes, and of those
// that came after it, the newest last. The newest one wraps keys (AES-256-GCM); all of
// them unwrap. Numbers are looked up (HMAC-SHA-256) by the first for ever, since a look-up
// value that must outlive its number cannot be made anew. What is used is derived from the
// secrets by HKDF.
func NewVault(key []byte, newer ...[]byte) (*Vault, error) {
	v := &Vault{}
	for _, secret := range append([][]byte{key}, newer...) {
		if len(secret) != VaultKeySize {
			return nil, campaign.Errorf(campaign.CodeInvalidParameter, "the vault key must have %d bytes, it has %d", VaultKeySize, len(secret))
		}
		k, err := newVaultKey(secret)
		if err != nil {
			return nil, fmt.Errorf("derive vault key: %w", err)
		}
		v.keys = append(v.keys, k)
	}
	var err error
	if v.lookup, err = derive(key, "look-up", 32); err != nil {
		return nil, fmt.Errorf("derive vault key: %w", err)
	}
	return v, nil
}

func derive(secret []byte, use string, n int) ([]byte, error) {
	return hkdf.Key(sha256.New, secret, nil, "muster vault: "+use, n)
}

func newVaultKey(secret []byte) (k vaultKey, err error) {
	aead := func(use string) (cipher.AEAD, error) {
		key, err := derive(secret, use, 32)
		if err != nil {
			return nil, err
		}
		return newGCM(key)
	}
	if k.wrap, err = aead("wrap"); err != nil {
		return k, err
	}
	if k.oldSeal, err = aead("seal"); err != nil {
		return k, err
	}
	id, err := derive(secret, "wrap id", keyIDSize)
	if err != nil {
		return k, err
	}
	copy(k.id[:], id)
	if id, err = derive(secret, "id", 1); err != nil {
		return k, err
	}
	k.oldID = id[0]
	return k, nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (v *Vault) newest() *vaultKey { return &v.keys[len(v.keys)-1] }

// Seal encrypts the normalised number of a customer under a new key of its own, and
// returns it and the wrapped key.
func (v *Vault) Seal(customer uuid.UUID, number string) (sealed, wrapped []byte) {
	var random [sealRandom]byte
	rand.Read(random[:])
	return v.appendSealed(nil, nil, &random, customer, []byte(number))
}

// sealRandom is how many random bytes it takes to seal a number: its key, and the nonce
// that wraps it.
const sealRandom = dataKeySize + nonceSize

// onlyNonce is the nonce of every number: a key seals one, once.
var onlyNonce [nonceSize]byte

// appendSealed appends the sealed number to one buffer and its wrapped key to another.
func (v *Vault) appendSealed(sealed, wrapped []byte, random *[sealRandom]byte, customer uuid.UUID, number []byte) ([]byte, []byte) {
	key, nonce := random[:dataKeySize], random[dataKeySize:]
	aead, err := chacha20poly1305.New(key)
	if err != nil {
		panic(err) // the key's size is right
	}
	sealed = aead.Seal(sealed, onlyNonce[:], number, customer[:]) //nolint:gosec // see onlyNonce
	return sealed, v.appendWrapped(wrapped, key, nonce, customer)
}

func (v *Vault) appendWrapped(dst, key, nonce []byte, customer uuid.UUID) []byte {
	k := v.newest()
	dst = append(append(dst, k.id[:]...), nonce...)
	return k.wrap.Seal(dst, nonce, key, customer[:])
}

var errNotSealedHere = errors.New("a sealed number does not open with the vault's keys")

// Open decrypts a customer's number with its wrapped key; an earlier version sealed
// without one. It fails when the number was sealed under another vault, for another
// customer, or was altered.
func (v *Vault) Open(customer uuid.UUID, sealed, wrapped []byte) (string, error) {
	if wrapped == nil {
		return v.openOld(customer, sealed)
	}
	key, err := v.unwrap(customer, wrapped)
	if err != nil {
		return "", err
	}
	aead, err := chacha20poly1305.New(key)
	if err != nil {
		return "", err
	}
	number, err := aead.Open(nil, onlyNonce[:], sealed, customer[:])
	if err != nil {
		return "", errNotSealedHere
	}
	return string(number), nil
}

func (v *Vault) unwrap(customer uuid.UUID, wrapped []byte) ([]byte, error) {
	if len(wrapped) == wrappedSize {
		id, nonce, body := wrapped[:keyIDSize], wrapped[keyIDSize:keyIDSize+nonceSize], wrapped[keyIDSize+nonceSize:]
		for _, k := range v.keys {
			if bytes.Equal(k.id[:], id) {
				if key, err := k.wrap.Open(nil, nonce, body, customer[:]); err == nil {
					return key, nil
				}
			}
		}
	}
	return nil, errNotSealedHere
}

// openOld opens a number as versions without keys of their own sealed it: key id, nonce,
// ciphertext.
func (v *Vault) openOld(customer uuid.UUID, sealed []byte) (string, error) {
	if len(sealed) > 1+nonceSize {
		for _, k := range v.keys {
			if sealed[0] == k.oldID {
				if number, err := k.oldSeal.Open(nil, sealed[1:1+nonceSize], sealed[1+nonceSize:], customer[:]); err == nil {
					return string(number), nil
				}
			}
		}
	}
	return "", errNotSealedHere
}

// rewrap wraps a customer's key by the vault's newest.
func (v *Vault) rewrap(customer uuid.UUID, wrapped []byte) ([]byte, error) {
	key, err := v.unwrap(customer, wrapped)
	if err != nil {
		return nil, err
	}
	var nonce [nonceSize]byte
	rand.Read(nonce[:])
	return v.appendWrapped(make([]byte, 0, wrappedSize), key, nonce[:], customer), nil
}

// Lookup returns the keyed hash by which a normalised number is found.
func (v *Vault) Lookup(number string) []byte { return v.lookups().of([]byte(number), nil) }

// lookups is a reusable hash for one goroutine.
type lookups struct{ mac hash.Hash }

func (v *Vault) lookups() lookups { return lookups{hmac.New(sha256.New, v.lookup)} }

func (l lookups) of(number, dst []byte) []byte {
	l.mac.Reset()
	l.mac.Write(number)
	return l.mac.Sum(dst)
}
