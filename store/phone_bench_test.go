package store

import (
	"bytes"
	"testing"

	"github.com/google/uuid"
)

// What it costs to seal a customer's number for an import: normalise it, draw a key, seal,
// wrap, and look-up value.
func BenchmarkPhoneEncoder(b *testing.B) {
	vault, err := NewVault(bytes.Repeat([]byte{7}, VaultKeySize))
	if err != nil {
		b.Fatal(err)
	}
	for _, number := range []string{"13800138000", "+86 138-0013-8000", "+9992000000004"} {
		b.Run(number, func(b *testing.B) {
			e, id := newPhoneEncoder(vault, "CN"), uuid.New()
			var phones, keys copyBuffer
			b.ReportAllocs()
			for i := range b.N {
				if i%importChunk == 0 {
					phones.reset()
					keys.reset()
				}
				if err := e.add(&phones, &keys, id, number); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
