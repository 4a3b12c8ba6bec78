package store_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/store"
)

func secret(n byte) []byte { return bytes.Repeat([]byte{n}, store.VaultKeySize) }

func vaultOf(t *testing.T, key []byte, newer ...[]byte) *store.Vault {
	t.Helper()
	v, err := store.NewVault(key, newer...)
	require.NoError(t, err)
	return v
}

// sealedBefore seals a number as versions did whose numbers had no keys of their own.
func sealedBefore(t *testing.T, secret []byte, customer uuid.UUID, number string) []byte {
	t.Helper()
	derived := func(use string, n int) []byte {
		key, err := hkdf.Key(sha256.New, secret, nil, "muster vault: "+use, n)
		require.NoError(t, err)
		return key
	}
	block, err := aes.NewCipher(derived("seal", 32))
	require.NoError(t, err)
	aead, err := cipher.NewGCM(block)
	require.NoError(t, err)
	nonce := bytes.Repeat([]byte{5}, 12)
	return aead.Seal(append(derived("id", 1), nonce...), nonce, []byte(number), customer[:])
}

func TestVault(t *testing.T) {
	_, err := store.NewVault(make([]byte, 16))
	require.Error(t, err)
	_, err = store.NewVault(secret(1), make([]byte, 31))
	require.Error(t, err)
	v := vaultOf(t, secret(1))
	id := uuid.New()
	sealed, wrapped := v.Seal(id, "8613800138000")
	require.NotContains(t, string(sealed), "138")
	again, other := v.Seal(id, "8613800138000")
	require.NotEqual(t, sealed, again, "each number has a key of its own")
	require.NotEqual(t, wrapped, other)

	number, err := v.Open(id, sealed, wrapped)
	require.NoError(t, err)
	require.Equal(t, "8613800138000", number)
	for name, open := range map[string]func() (string, error){
		"another customer's row": func() (string, error) { return v.Open(uuid.New(), sealed, wrapped) },
		"another number's key":   func() (string, error) { return v.Open(id, sealed, other) },
		"no key":                 func() (string, error) { return v.Open(id, sealed, nil) },
		"half a key":             func() (string, error) { return v.Open(id, sealed, wrapped[:40]) },
		"no number":              func() (string, error) { return v.Open(id, nil, wrapped) },
		"another vault":          func() (string, error) { return vaultOf(t, secret(2)).Open(id, sealed, wrapped) },
	} {
		_, err := open()
		require.Error(t, err, name)
	}
	for at := range sealed {
		altered := bytes.Clone(sealed)
		altered[at] ^= 1
		_, err := v.Open(id, altered, wrapped)
		require.Error(t, err, at)
	}
	for at := range wrapped {
		altered := bytes.Clone(wrapped)
		altered[at] ^= 1
		_, err := v.Open(id, sealed, altered)
		require.Error(t, err, at)
	}
	require.Len(t, v.Lookup("8613800138000"), 32)
	require.NotEqual(t, v.Lookup("8613800138000"), v.Lookup("8613800138001"))
	require.NotEqual(t, v.Lookup("8613800138000"), vaultOf(t, secret(2)).Lookup("8613800138000"))
}

// What was sealed stays readable and findable while keys come, and what a new key wraps is
// closed to those who have the old one alone.
func TestVaultKeysFollowEachOther(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		number := rapid.StringMatching(`[1-9][0-9]{7,14}`).Draw(r, "number")
		id := uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(r, "id"))
		var ring [][]byte
		var sealed, wrapped [][]byte
		for n := range rapid.IntRange(1, 4).Draw(r, "keys") {
			ring = append(ring, secret(byte(n+1)))
			v := vaultOf(t, ring[0], ring[1:]...)
			s, w := v.Seal(id, number)
			sealed, wrapped = append(sealed, s), append(wrapped, w)
			for i := range sealed {
				got, err := v.Open(id, sealed[i], wrapped[i])
				require.NoError(t, err)
				require.Equal(t, number, got)
			}
			got, err := v.Open(id, sealedBefore(t, ring[0], id, number), nil)
			require.NoError(t, err)
			require.Equal(t, number, got)
			require.Equal(t, vaultOf(t, ring[0]).Lookup(number), v.Lookup(number))
			if n > 0 {
				_, err = vaultOf(t, ring[0], ring[1:n]...).Open(id, s, w)
				require.Error(t, err)
			}
		}
	})
}
