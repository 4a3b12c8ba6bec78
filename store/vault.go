package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"strings"

	"github.com/google/uuid"

	"github.com/musterhq/muster/campaign"
)

// VaultKeySize is the length of the vault's key in bytes.
const VaultKeySize = 32

// Vault seals phone numbers and makes them findable without opening them. A sealed
// number is bound to its customer: moved to another row it does not open. It is safe
// for concurrent use.
type Vault struct {
	keyID  byte
	seal   cipher.AEAD
	lookup []byte
}

// NewVault returns the vault of a secret key of VaultKeySize random bytes. The keys of
// sealing (AES-256-GCM) and of looking up (HMAC-SHA-256) are derived from it by HKDF.
func NewVault(key []byte) (*Vault, error) {
	if len(key) != VaultKeySize {
		return nil, campaign.Errorf(campaign.CodeInvalidParameter, "the vault key must have %d bytes, it has %d", VaultKeySize, len(key))
	}
	derive := func(use string, n int) ([]byte, error) {
		return hkdf.Key(sha256.New, key, nil, "muster vault: "+use, n)
	}
	sealKey, err := derive("seal", 32)
	if err != nil {
		return nil, fmt.Errorf("derive vault key: %w", err)
	}
	lookupKey, err := derive("look-up", 32)
	if err != nil {
		return nil, fmt.Errorf("derive vault key: %w", err)
	}
	id, err := derive("id", 1)
	if err != nil {
		return nil, fmt.Errorf("derive vault key: %w", err)
	}
	block, err := aes.NewCipher(sealKey)
	if err != nil {
		return nil, fmt.Errorf("make vault cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("make vault cipher: %w", err)
	}
	return &Vault{keyID: id[0], seal: aead, lookup: lookupKey}, nil
}

// Seal encrypts the normalised number of a customer: key id, nonce, ciphertext.
func (v *Vault) Seal(customer uuid.UUID, number string) []byte {
	return v.appendSealed(make([]byte, 0, 1+12+len(number)+16), customer, number)
}

func (v *Vault) appendSealed(dst []byte, customer uuid.UUID, number string) []byte {
	var nonce [12]byte
	rand.Read(nonce[:])
	dst = append(append(dst, v.keyID), nonce[:]...)
	return v.seal.Seal(dst, nonce[:], []byte(number), customer[:])
}

var errNotSealedHere = errors.New("a sealed number does not open with this vault key")

// Open decrypts a customer's number. It fails when the number was sealed with
// another key, for another customer, or was altered.
func (v *Vault) Open(customer uuid.UUID, sealed []byte) (string, error) {
	size := v.seal.NonceSize()
	if len(sealed) < 1+size || sealed[0] != v.keyID {
		return "", errNotSealedHere
	}
	number, err := v.seal.Open(nil, sealed[1:1+size], sealed[1+size:], customer[:])
	if err != nil {
		return "", errNotSealedHere
	}
	return string(number), nil
}

// Lookup returns the keyed hash by which a normalised number is found.
func (v *Vault) Lookup(number string) []byte { return v.lookups().of(number, nil) }

// lookups is a reusable hash for one goroutine.
type lookups struct{ mac hash.Hash }

func (v *Vault) lookups() lookups { return lookups{hmac.New(sha256.New, v.lookup)} }

func (l lookups) of(number string, dst []byte) []byte {
	l.mac.Reset()
	l.mac.Write([]byte(number))
	return l.mac.Sum(dst)
}

// NormaliseMSISDN returns the E.164 digits of a number without the plus sign, or ""
// when it is none: 8 to 15 digits, the first not 0. Spaces, hyphens, dots, brackets, a
// leading + or 00 and full-width digits are accepted.
func NormaliseMSISDN(number string) string {
	plain := true
	for i := range len(number) {
		plain = plain && number[i] >= '0' && number[i] <= '9'
	}
	digits := number
	if !plain {
		var b strings.Builder
		for i, r := range strings.TrimSpace(number) {
			switch {
			case r >= '0' && r <= '9':
				b.WriteRune(r)
			case r >= '０' && r <= '９':
				b.WriteRune(r - '０' + '0')
			case (r == '+' || r == '＋') && i == 0, r == ' ', r == '-', r == '.', r == '(', r == ')', r == '　':
			default:
				return ""
			}
		}
		digits = b.String()
	}
	digits = strings.TrimPrefix(digits, "00")
	if len(digits) < 8 || len(digits) > 15 || digits[0] == '0' {
		return ""
	}
	return digits
}
