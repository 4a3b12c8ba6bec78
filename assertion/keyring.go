package assertion

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/musterhq/muster/campaign"
)

const (
	// maxToken is far above what any claims need.
	maxToken = 8 << 10
	// clockSkew is how far the signer's clock may be ahead of the verifier's.
	clockSkew = time.Minute
	// RecordedWithin is the longest from when an assertion is made to when it is recorded or
	// acted on. What a stolen key signs later cannot pass for what was signed before.
	RecordedWithin = 10 * time.Minute
)

// Fault says why an assertion was refused; it is the detail "fault" of the error.
type Fault string

// The faults.
const (
	FaultMalformed  Fault = "malformed"   // not a compact JWS, or claims that are not what they should be
	FaultAlgorithm  Fault = "algorithm"   // not EdDSA
	FaultHeader     Fault = "header"      // more in the header than there should be
	FaultType       Fault = "type"        // another kind of assertion
	FaultUnknownKey Fault = "unknown_key" // no such key here, perhaps one that was added since the keyring was loaded
	FaultKeyTime    Fault = "key_time"    // the key was not valid yet or any more when it says it was made
	FaultSignature  Fault = "signature"   // not made with that key, or changed since
	FaultFuture     Fault = "future"      // made later than it was recorded
	FaultStale      Fault = "stale"       // made long before it was recorded
	FaultRevoked    Fault = "revoked"     // recorded after its key was revoked
)

// key is a public key and when it may sign.
type key struct {
	id        string
	public    ed25519.PublicKey
	notBefore time.Time
	retiredAt time.Time          // zero while it is not to be retired
	revokedAt time.Time          // zero while it is in the right hands
	private   ed25519.PrivateKey // nil when this machine does not sign with it
}

func (k key) validAt(t time.Time) bool {
	return !t.Before(k.notBefore) && (k.retiredAt.IsZero() || t.Before(k.retiredAt)) && !k.revokedBy(t)
}

func (k key) revokedBy(t time.Time) bool { return !k.revokedAt.IsZero() && !t.Before(k.revokedAt) }

// Keyring holds the keys of a folder as they were when it was loaded. It never changes
// and is safe for concurrent use; load it again to see a rotation.
type Keyring struct{ keys []key } // in the order of notBefore

// KeyID returns the id of a public key: the first 16 hex digits of the SHA-256 of its
// SubjectPublicKeyInfo in DER.
func KeyID(public ed25519.PublicKey) (string, error) {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("key id: %w", err)
	}
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])[:16], nil
}

// Sign returns the assertion of claims, signed with the newest key that is valid when
// they say they are issued. It fails with CodeInvalidParameter on claims that lack what
// they are about, and with CodeInternal when no such key can sign here.
func Sign[C Claims](ring *Keyring, claims C) (string, error) {
	if name := missing(claims); name != "" {
		return "", campaign.Errorf(campaign.CodeInvalidParameter, "an assertion needs %s", name)
	}
	at := time.Unix(claims.issuedAt(), 0)
	signer, ok := ring.signer(at)
	if !ok {
		return "", campaign.Errorf(campaign.CodeInternal, "no signing key is valid at %s", at.UTC().Format(time.RFC3339))
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	with := jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: signer.private, KeyID: signer.id}}
	s, err := jose.NewSigner(with, (&jose.SignerOptions{}).WithType(jose.ContentType(claims.header())))
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	signed, err := s.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	return signed.CompactSerialize()
}

// Verify returns the claims of a genuine assertion: signed with a key of the ring that
// was valid when they were issued, which was within RecordedWithin of when the assertion
// was recorded; for what is acted on and not recorded yet, that is now. What was recorded
// before its key was revoked stays valid. Any other assertion fails with
// CodeForgedDecision and the detail "fault". What the claims are about is for Matches.
func Verify[C Claims](ring *Keyring, token string, recorded time.Time) (C, error) {
	var none C
	if !canonical(token) {
		return none, forged(FaultMalformed)
	}
	// The algorithm is looked at before the key is: no key is ever used for another.
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		if other := (*jose.ErrUnexpectedSignatureAlgorithm)(nil); errors.As(err, &other) {
			return none, forged(FaultAlgorithm)
		}
		return none, forged(FaultMalformed)
	}
	header := signed.Signatures[0].Protected
	if typ := header.ExtraHeaders[jose.HeaderType]; typ != none.header() {
		return none, forged(FaultType)
	}
	if len(header.ExtraHeaders) != 1 || header.JSONWebKey != nil || header.Nonce != "" {
		return none, forged(FaultHeader)
	}
	signer, ok := ring.named(header.KeyID)
	if !ok {
		return none, forged(FaultUnknownKey)
	}
	payload, err := signed.Verify(signer.public)
	if err != nil {
		return none, forged(FaultSignature)
	}
	claims, err := decode[C](payload)
	if err != nil || missing(claims) != "" {
		return none, forged(FaultMalformed)
	}
	at := time.Unix(claims.issuedAt(), 0)
	switch {
	case signer.revokedBy(recorded):
		return none, forged(FaultRevoked)
	case !signer.validAt(at):
		return none, forged(FaultKeyTime)
	case at.After(recorded.Add(clockSkew)):
		return none, forged(FaultFuture)
	case at.Before(recorded.Add(-RecordedWithin)):
		return none, forged(FaultStale)
	}
	return claims, nil
}

func (r *Keyring) named(id string) (key, bool) {
	for _, k := range r.keys {
		if k.id == id {
			return k, true
		}
	}
	return key{}, false
}

func forged(fault Fault) error {
	return campaign.Errorf(campaign.CodeForgedDecision, "this was not signed by Muster as it stands").With("fault", string(fault))
}

// canonical reports whether token is three parts of base64url, each written in the only
// way there is. Go's decoder passes over line breaks and spare bits, which would let
// one assertion be written in many ways.
func canonical(token string) bool {
	if len(token) > maxToken || strings.ContainsAny(token, "\r\n") {
		return false
	}
	parts := strings.Split(token, ".")
	for _, part := range parts {
		if _, err := base64.RawURLEncoding.Strict().DecodeString(part); err != nil {
			return false
		}
	}
	return len(parts) == 3
}

func decode[C Claims](payload []byte) (claims C, err error) {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(&claims); err != nil {
		return claims, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return claims, errors.New("more than one value")
	}
	return claims, nil
}
