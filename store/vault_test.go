package store_test

import (
	"bytes"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/store"
)

func TestVaultOpensOnlyWhatItSealed(t *testing.T) {
	_, err := store.NewVault(make([]byte, 16))
	require.Error(t, err)
	v, err := store.NewVault(bytes.Repeat([]byte{1}, store.VaultKeySize))
	require.NoError(t, err)
	other, err := store.NewVault(bytes.Repeat([]byte{2}, store.VaultKeySize))
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.StringMatching(`[1-9][0-9]{7,14}`).Draw(t, "number")
		a, b := uuid.New(), uuid.New()
		sealed := v.Seal(a, number)
		require.NotContains(t, string(sealed), number)
		opened, err := v.Open(a, sealed)
		require.NoError(t, err)
		require.Equal(t, number, opened)
		require.NotEqual(t, sealed, v.Seal(a, number), "two seals of one number must not be comparable")
		_, err = v.Open(b, sealed)
		require.Error(t, err, "a number moved to another customer")
		_, err = other.Open(a, sealed)
		require.Error(t, err, "another key")
		i := rapid.IntRange(0, len(sealed)-1).Draw(t, "byte")
		sealed[i] ^= 1
		_, err = v.Open(a, sealed)
		require.Error(t, err, "an altered byte")
		require.Equal(t, v.Lookup(number), v.Lookup(number))
		require.NotEqual(t, v.Lookup(number), other.Lookup(number))
	})
}

func TestNormaliseMSISDN(t *testing.T) {
	for in, want := range map[string]string{
		"+86 138-0013-8000":   "8613800138000",
		"008613800138000":     "8613800138000",
		"８６１３８００１３８０００":       "8613800138000",
		"＋86 (138) 0013.8000": "8613800138000",
		"99912345678":         "99912345678",
		"1.38E+10":            "",
		"0138":                "",
		"01380013800":         "",
		"1234567":             "",
		"1234567890123456":    "",
		"abc":                 "",
		"":                    "",
	} {
		require.Equal(t, want, store.NormaliseMSISDN(in), "%q", in)
	}
}
