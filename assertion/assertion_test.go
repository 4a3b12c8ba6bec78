package assertion_test

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/assertion"
	"github.com/musterhq/muster/campaign"
)

var now = time.Date(2026, time.November, 23, 10, 0, 0, 0, time.UTC)

func signOff() assertion.SignOff {
	return assertion.SignOff{
		ID: "5b1f8a0e-0000-4000-8000-000000000001", UserID: "5b1f8a0e-0000-4000-8000-0000000000aa", Tenant: "operator",
		CampaignID: "5b1f8a0e-0000-4000-8000-0000000000c1", Revision: 3, Round: 2, Level: 1, Party: "finance",
		Decision: campaign.DecisionApprove, WordsDigest: "w", PlanDigest: "p", ContentDigest: "c", AudienceDigest: "a", BudgetDigest: "b",
		Amount: 1_234_567, Currency: "CNY", Role: campaign.RoleFinance, Unit: "operator/north", Limit: "5000000", RouteDigest: "r",
		ActingFor: "5b1f8a0e-0000-4000-8000-0000000000bb", DelegationID: "5b1f8a0e-0000-4000-8000-0000000000dd",
		PolicyVersion: "7", AuthTime: now.Add(-time.Hour).Unix(), IssuedAt: now.Unix(),
	}
}

func command() assertion.Command {
	return assertion.Command{
		ID: "key-1", UserID: "5b1f8a0e-0000-4000-8000-0000000000aa", CampaignID: "5b1f8a0e-0000-4000-8000-0000000000c1",
		Name: campaign.UpdateStop, PayloadDigest: "d", IssuedAt: now.Unix(),
	}
}

func generated(t testing.TB) (string, *assertion.Keyring) {
	dir := filepath.Join(t.TempDir(), "keys")
	require.NoError(t, assertion.Generate(dir, now.Add(-24*time.Hour)))
	return dir, load(t, dir)
}

func load(t testing.TB, dir string) *assertion.Keyring {
	ring, err := assertion.Load(dir)
	require.NoError(t, err)
	return ring
}

func signed[C assertion.Claims](t testing.TB, ring *assertion.Keyring, claims C) string {
	token, err := assertion.Sign(ring, claims)
	require.NoError(t, err)
	return token
}

func requireForged[C assertion.Claims](t require.TestingT, ring *assertion.Keyring, token string, fault assertion.Fault) {
	claims, err := assertion.Verify[C](ring, token, now)
	require.Equal(t, campaign.CodeForgedDecision, campaign.CodeOf(err))
	var e *campaign.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, string(fault), e.Details["fault"])
	require.Zero(t, claims, "nothing of a forgery is handed on")
}

func TestWhatIsSignedIsVerified(t *testing.T) {
	_, ring := generated(t)
	gotSignOff, err := assertion.Verify[assertion.SignOff](ring, signed(t, ring, signOff()), now)
	require.NoError(t, err)
	require.Equal(t, signOff(), gotSignOff)
	require.NoError(t, assertion.Matches(gotSignOff, signOff()))
	gotCommand, err := assertion.Verify[assertion.Command](ring, signed(t, ring, command()), now.Add(assertion.RecordedWithin))
	require.NoError(t, err, "it is acted on a little later")
	require.Equal(t, command(), gotCommand)
	require.NoError(t, assertion.Matches(gotCommand, command()))
}

func TestClaimsMustSayWhatTheyAreAbout(t *testing.T) {
	_, ring := generated(t)
	c := signOff()
	c.BudgetDigest = ""
	_, err := assertion.Sign(ring, c)
	require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(err))
	require.ErrorContains(t, err, "budget_digest")
	_, err = assertion.Sign(ring, assertion.Command{IssuedAt: now.Unix()})
	require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(err))
}

// TestEveryClaimIsCompared changes one claim at a time: a genuine assertion shown for
// another campaign, round, amount or person, or an edited row.
func TestEveryClaimIsCompared(t *testing.T) {
	compare(t, signOff())
	compare(t, command())
}

func compare[C assertion.Claims](t *testing.T, claims C) {
	of := reflect.TypeOf(claims)
	for i := range of.NumField() {
		want := claims
		switch f := reflect.ValueOf(&want).Elem().Field(i); f.Kind() {
		case reflect.String:
			f.SetString(f.String() + "x")
		default:
			f.SetInt(f.Int() + 1)
		}
		err := assertion.Matches(claims, want)
		require.Equal(t, campaign.CodeAssertionMismatch, campaign.CodeOf(err), of.Field(i).Name)
		var e *campaign.Error
		require.ErrorAs(t, err, &e)
		require.Len(t, e.Fields, 1)
		name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
		require.Equal(t, name, e.Fields[0].Field)
	}
}

func TestAnAssertionReplayedOnAnotherCampaignIsFound(t *testing.T) {
	_, ring := generated(t)
	claims, err := assertion.Verify[assertion.SignOff](ring, signed(t, ring, signOff()), now)
	require.NoError(t, err, "it is genuine")
	want := signOff()
	want.CampaignID = "5b1f8a0e-0000-4000-8000-0000000000c2"
	require.Equal(t, campaign.CodeAssertionMismatch, campaign.CodeOf(assertion.Matches(claims, want)))
}

// forge makes a token by hand: any header, any signature.
func forge(t testing.TB, header map[string]any, claims any, sign func([]byte) []byte) string {
	h, err := json.Marshal(header)
	require.NoError(t, err)
	p, err := json.Marshal(claims)
	require.NoError(t, err)
	return forgeRaw(string(h), string(p), sign)
}

func forgeRaw(header, payload string, sign func([]byte) []byte) string {
	input := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	return input + "." + base64.RawURLEncoding.EncodeToString(sign([]byte(input)))
}

// keyOf reads the keys of a folder as somebody with all rights on the machine could.
func keyOf(t testing.TB, dir string) (id string, private ed25519.PrivateKey) {
	files, err := filepath.Glob(filepath.Join(dir, "*.pem"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	body, err := os.ReadFile(files[0])
	require.NoError(t, err)
	block, _ := pem.Decode(body)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	require.NoError(t, err)
	return strings.TrimSuffix(filepath.Base(files[0]), ".pem"), parsed.(ed25519.PrivateKey)
}

func TestForgeriesAreRefused(t *testing.T) {
	dir, ring := generated(t)
	id, private := keyOf(t, dir)
	public := private.Public().(ed25519.PublicKey)
	spki, err := x509.MarshalPKIXPublicKey(public)
	require.NoError(t, err)
	_, stranger, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)

	const typ = "muster-sign-off+jws"
	header := func(changes ...any) map[string]any {
		h := map[string]any{"alg": "EdDSA", "kid": id, "typ": typ}
		for i := 0; i < len(changes); i += 2 {
			if h[changes[i].(string)] = changes[i+1]; changes[i+1] == nil {
				delete(h, changes[i].(string))
			}
		}
		return h
	}
	with := func(key ed25519.PrivateKey) func([]byte) []byte {
		return func(input []byte) []byte { return ed25519.Sign(key, input) }
	}
	hs256 := func(secret []byte) func([]byte) []byte {
		return func(input []byte) []byte {
			mac := hmac.New(sha256.New, secret)
			mac.Write(input)
			return mac.Sum(nil)
		}
	}
	nothing := func([]byte) []byte { return nil }
	genuine := signed(t, ring, signOff())
	parts := strings.Split(genuine, ".")
	other := signOff()
	other.Amount *= 10
	changed := strings.Split(forge(t, header(), other, nothing), ".")[1]
	future := signOff()
	future.IssuedAt = now.Add(2 * time.Minute).Unix()
	stale := signOff()
	stale.IssuedAt = now.Add(-assertion.RecordedWithin - time.Second).Unix()
	early := signOff()
	early.IssuedAt = now.Add(-48 * time.Hour).Unix()
	nobody := signOff()
	nobody.UserID = ""

	_, err = assertion.Verify[assertion.SignOff](ring, forge(t, header(), signOff(), with(private)), now)
	require.NoError(t, err, "made by hand with the right key it is genuine, so what follows fails for its own reason")
	for name, tt := range map[string]struct {
		token string
		fault assertion.Fault
	}{
		"empty":                         {"", assertion.FaultMalformed},
		"dots":                          {"..", assertion.FaultAlgorithm},
		"many dots":                     {strings.Repeat(".", 1000), assertion.FaultMalformed},
		"a megabyte":                    {strings.Repeat("A", 1<<20), assertion.FaultMalformed},
		"JSON serialization":            {`{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`, assertion.FaultMalformed},
		"a fourth part":                 {genuine + ".AA", assertion.FaultMalformed},
		"a line break":                  {parts[0] + "." + parts[1] + "\n." + parts[2], assertion.FaultMalformed},
		"padding":                       {genuine + "==", assertion.FaultMalformed},
		"payload changed":               {parts[0] + "." + changed + "." + parts[2], assertion.FaultSignature},
		"signature cut off":             {parts[0] + "." + parts[1] + ".", assertion.FaultSignature},
		"signature of other claims":     {parts[0] + "." + parts[1] + "." + strings.Split(signed(t, ring, other), ".")[2], assertion.FaultSignature},
		"another person's key":          {forge(t, header(), signOff(), with(stranger)), assertion.FaultSignature},
		"no algorithm":                  {forge(t, header("alg", nil), signOff(), with(private)), assertion.FaultAlgorithm},
		"none":                          {forge(t, header("alg", "none"), signOff(), nothing), assertion.FaultAlgorithm},
		"None":                          {forge(t, header("alg", "None"), signOff(), nothing), assertion.FaultAlgorithm},
		"eddsa in small letters":        {forge(t, header("alg", "eddsa"), signOff(), with(private)), assertion.FaultAlgorithm},
		"HS256 with the public key":     {forge(t, header("alg", "HS256"), signOff(), hs256(public)), assertion.FaultAlgorithm},
		"HS256 with the public SPKI":    {forge(t, header("alg", "HS256"), signOff(), hs256(spki)), assertion.FaultAlgorithm},
		"EdDSA said, HS256 done":        {forge(t, header(), signOff(), hs256(public)), assertion.FaultSignature},
		"no key id":                     {forge(t, header("kid", nil), signOff(), with(private)), assertion.FaultUnknownKey},
		"unknown key id":                {forge(t, header("kid", "0123456789abcdef"), signOff(), with(stranger)), assertion.FaultUnknownKey},
		"a path for a key id":           {forge(t, header("kid", "../"+id), signOff(), with(private)), assertion.FaultUnknownKey},
		"its own key along":             {forge(t, header("jwk", jwk(stranger)), signOff(), with(stranger)), assertion.FaultHeader},
		"a critical extension":          {forge(t, header("crit", []string{"b64"}, "b64", false), signOff(), with(private)), assertion.FaultHeader},
		"no type":                       {forge(t, header("typ", nil), signOff(), with(private)), assertion.FaultType},
		"another type":                  {forge(t, header("typ", "JWT"), signOff(), with(private)), assertion.FaultType},
		"a type that is no text":        {forge(t, header("typ", map[string]any{}), signOff(), with(private)), assertion.FaultType},
		"a command as a sign-off":       {signed(t, ring, command()), assertion.FaultType},
		"a command dressed up":          {forge(t, header(), command(), with(private)), assertion.FaultMalformed},
		"a claim too many":              {forgeRaw(`{"alg":"EdDSA","kid":"`+id+`","typ":"`+typ+`"}`, `{"jti":"1","admin":true}`, with(private)), assertion.FaultMalformed},
		"two values":                    {forgeRaw(`{"alg":"EdDSA","kid":"`+id+`","typ":"`+typ+`"}`, payloadOf(t, signOff())+"{}", with(private)), assertion.FaultMalformed},
		"no value":                      {forgeRaw(`{"alg":"EdDSA","kid":"`+id+`","typ":"`+typ+`"}`, "null", with(private)), assertion.FaultMalformed},
		"nobody":                        {forge(t, header(), nobody, with(private)), assertion.FaultMalformed},
		"from the future":               {forge(t, header(), future, with(private)), assertion.FaultFuture},
		"from long ago":                 {forge(t, header(), stale, with(private)), assertion.FaultStale},
		"from before the key was valid": {forge(t, header(), early, with(private)), assertion.FaultKeyTime},
	} {
		t.Run(name, func(t *testing.T) { requireForged[assertion.SignOff](t, ring, tt.token, tt.fault) })
	}
	requireForged[assertion.Command](t, ring, genuine, assertion.FaultType)
	_, elsewhere := generated(t)
	requireForged[assertion.SignOff](t, elsewhere, genuine, assertion.FaultUnknownKey)
}

func payloadOf(t testing.TB, claims any) string {
	p, err := json.Marshal(claims)
	require.NoError(t, err)
	return string(p)
}

func jwk(key ed25519.PrivateKey) map[string]any {
	return map[string]any{"kty": "OKP", "crv": "Ed25519", "x": base64.RawURLEncoding.EncodeToString(key.Public().(ed25519.PublicKey))}
}

// TestNoCharacterCanBeChanged holds also for the spare bits at the end of a part.
func TestNoCharacterCanBeChanged(t *testing.T) {
	_, ring := generated(t)
	genuine := signed(t, ring, signOff())
	rapid.Check(t, func(t *rapid.T) {
		token := []byte(genuine)
		if i := rapid.IntRange(-8, len(token)-1).Draw(t, "at"); i >= 0 {
			token[i] = rapid.Byte().Draw(t, "byte")
		} else {
			token[len(token)+i%2-1] = rapid.SampledFrom([]byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")).Draw(t, "last")
		}
		claims, err := assertion.Verify[assertion.SignOff](ring, string(token), now)
		if string(token) == genuine {
			require.NoError(t, err)
			return
		}
		require.Equal(t, campaign.CodeForgedDecision, campaign.CodeOf(err))
		require.Zero(t, claims)
	})
}

func FuzzVerify(f *testing.F) {
	_, ring := generated(f)
	genuine := signed(f, ring, signOff())
	f.Add(genuine)
	f.Add(signed(f, ring, command()))
	f.Add(strings.Replace(genuine, ".", "..", 1))
	f.Add(forgeRaw(`{"alg":"none"}`, `{}`, func([]byte) []byte { return nil }))
	f.Add(forgeRaw(`{"alg":"EdDSA","kid":[],"typ":{}}`, `[]`, func([]byte) []byte { return make([]byte, 64) }))
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := assertion.Verify[assertion.SignOff](ring, token, now); token == genuine {
			require.NoError(t, err)
		} else {
			require.Equal(t, campaign.CodeForgedDecision, campaign.CodeOf(err))
		}
	})
}

func TestRotation(t *testing.T) {
	const notice = time.Hour
	dir, before := generated(t)
	issued := func(ago time.Duration) assertion.SignOff {
		c := signOff()
		c.IssuedAt = now.Add(-ago).Unix()
		return c
	}
	old := signed(t, before, issued(20*time.Hour))
	rotatedAt := now.Add(-10 * time.Hour)
	require.NoError(t, assertion.Rotate(dir, rotatedAt, notice))
	ring := load(t, dir)

	kid := func(token string) string {
		h, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
		require.NoError(t, err)
		var header struct{ Kid string }
		require.NoError(t, json.Unmarshal(h, &header))
		return header.Kid
	}
	for _, token := range []string{
		old,
		signed(t, before, issued(10*time.Hour-time.Minute)), // by a process that has not heard of it yet
		signed(t, ring, issued(10*time.Hour-time.Minute)),
		signed(t, before, issued(8*time.Hour+time.Second)), // up to the last second
		signed(t, ring, issued(9*time.Hour)),
		signed(t, ring, issued(0)),
	} {
		require.NoError(t, recorded(ring, token))
	}
	require.Equal(t, kid(old), kid(signed(t, ring, issued(9*time.Hour+time.Second))), "the new key waits for its notice")
	require.NotEqual(t, kid(old), kid(signed(t, ring, issued(9*time.Hour))), "then it signs, though the old one still could")

	require.Equal(t, assertion.FaultKeyTime, assertion.FaultOf(recorded(ring, signed(t, before, issued(8*time.Hour)))))
	requireForged[assertion.SignOff](t, ring, old, assertion.FaultStale)
	requireForged[assertion.SignOff](t, ring, signed(t, before, issued(0)), assertion.FaultKeyTime)
	requireForged[assertion.SignOff](t, before, signed(t, ring, issued(0)), assertion.FaultUnknownKey)

	require.FileExists(t, filepath.Join(dir, kid(old)+".pem"), "it had still to sign when the rotation began")
	require.NoError(t, assertion.Rotate(dir, now, 0))
	require.NoFileExists(t, filepath.Join(dir, kid(old)+".pem"))
	require.NoFileExists(t, filepath.Join(dir, kid(signed(t, ring, issued(0)))+".pem"), "without notice the change is at once")
	last := load(t, dir)
	require.NoError(t, recorded(last, old), "what a deleted key has signed stays valid")
	_, err := assertion.Sign(last, issued(time.Second))
	require.Equal(t, campaign.CodeInternal, campaign.CodeOf(err), "no key can sign for the past any more")
	_, err = assertion.Verify[assertion.SignOff](last, signed(t, last, issued(0)), now)
	require.NoError(t, err)
	requireForged[assertion.SignOff](t, last, signed(t, ring, issued(0)), assertion.FaultKeyTime)
	require.Error(t, assertion.Rotate(dir, now, -time.Second))
}

// recorded verifies a sign-off that was recorded when it says it was made.
func recorded(ring *assertion.Keyring, token string) error {
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		return err
	}
	var c assertion.SignOff
	if err := json.Unmarshal(payload, &c); err != nil {
		return err
	}
	_, err = assertion.Verify[assertion.SignOff](ring, token, time.Unix(c.IssuedAt, 0))
	return err
}

// A stolen key is good for nothing once it is revoked; what it signed in the right hands
// and was recorded then stays valid.
func TestRevocation(t *testing.T) {
	dir, ring := generated(t)
	id := ring.SignerID(now)
	token := signed(t, ring, signOff())
	revoked := now.Add(2 * time.Minute)
	require.NoError(t, assertion.Revoke(dir, id, revoked))
	after := load(t, dir)
	fault := func(token string, recorded time.Time) assertion.Fault {
		_, err := assertion.Verify[assertion.SignOff](after, token, recorded)
		return assertion.FaultOf(err)
	}
	require.Empty(t, fault(token, revoked.Add(-time.Second)), "recorded before")
	require.Equal(t, assertion.FaultRevoked, fault(token, revoked), "shown later")
	later := signOff()
	later.IssuedAt = revoked.Unix()
	stolen := signed(t, ring, later)
	require.Equal(t, assertion.FaultRevoked, fault(stolen, revoked))
	require.Equal(t, assertion.FaultKeyTime, fault(stolen, revoked.Add(-time.Second)), "dated back in the rows")

	require.NoFileExists(t, filepath.Join(dir, id+".pem"))
	require.NotEqual(t, id, after.SignerID(revoked), "another signs at once")
	require.Empty(t, fault(signed(t, after, later), revoked))
	require.Equal(t, revoked, after.Keys()[0].RevokedAt)
	require.NoError(t, assertion.Revoke(dir, id, revoked.Add(time.Hour)))
	require.Equal(t, revoked, load(t, dir).Keys()[0].RevokedAt, "since when does not move")
	require.Len(t, load(t, dir).Keys(), 2)
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(assertion.Revoke(dir, "0123456789abcdef", now)))
}

func TestAVerifierNeedsNoPrivateKey(t *testing.T) {
	dir, ring := generated(t)
	body, err := os.ReadFile(filepath.Join(dir, "keys.json"))
	require.NoError(t, err)
	copied := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(copied, "keys.json"), body, 0o644))
	verifier := load(t, copied)
	_, err = assertion.Verify[assertion.Command](verifier, signed(t, ring, command()), now)
	require.NoError(t, err)
	_, err = assertion.Sign(verifier, command())
	require.Equal(t, campaign.CodeInternal, campaign.CodeOf(err))
}

func TestKeysAreNeverOverwritten(t *testing.T) {
	dir, ring := generated(t)
	contents := func() map[string]string {
		all := map[string]string{}
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, e := range entries {
			body, err := os.ReadFile(filepath.Join(dir, e.Name()))
			require.NoError(t, err)
			all[e.Name()] = string(body)
		}
		return all
	}
	before := contents()
	require.ErrorIs(t, assertion.Generate(dir, now), fs.ErrExist)
	require.Equal(t, before, contents())

	lock := filepath.Join(dir, "keys.json.lock")
	require.NoError(t, os.WriteFile(lock, nil, 0o600))
	require.ErrorIs(t, assertion.Rotate(dir, now, 0), fs.ErrExist)
	require.NoError(t, os.Remove(lock))
	require.Equal(t, before, contents(), "an interrupted change leaves the keys as they were")
	require.ErrorIs(t, assertion.Rotate(t.TempDir(), now, 0), fs.ErrNotExist)

	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { errs[i] = assertion.Rotate(dir, now.Add(-time.Hour), time.Minute) })
	}
	wg.Wait()
	rotated := 0
	for _, err := range errs {
		if err == nil {
			rotated++
		} else {
			require.ErrorIs(t, err, fs.ErrExist)
		}
	}
	var listed []struct{ ID string }
	require.NoError(t, json.Unmarshal([]byte(contents()["keys.json"]), &listed))
	require.Len(t, listed, 1+rotated, "no rotation loses another's key")
	require.NotContains(t, contents(), "keys.json.lock")
	c := signOff()
	c.IssuedAt = now.Add(-2 * time.Hour).Unix()
	require.NoError(t, recorded(load(t, dir), signed(t, ring, c)))
}

func TestFilesAreForTheirOwnerOnly(t *testing.T) {
	dir, _ := generated(t)
	require.NoError(t, assertion.Rotate(dir, now, time.Hour))
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o700), info.Mode().Perm())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 3)
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o600), info.Mode().Perm(), e.Name())
	}
}

func TestKeysThatCannotBeTrustedAreNotLoaded(t *testing.T) {
	pemFile := func(t *testing.T, dir string) string {
		id, _ := keyOf(t, dir)
		return filepath.Join(dir, id+".pem")
	}
	list := func(dir string) string { return filepath.Join(dir, "keys.json") }
	replace := func(t *testing.T, file, old, by string) {
		body, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Contains(t, string(body), old)
		require.NoError(t, os.WriteFile(file, []byte(strings.Replace(string(body), old, by, 1)), 0o600))
	}
	for name, spoil := range map[string]func(*testing.T, string){
		"private key others can read": func(t *testing.T, dir string) { require.NoError(t, os.Chmod(pemFile(t, dir), 0o640)) },
		"list others can change":      func(t *testing.T, dir string) { require.NoError(t, os.Chmod(list(dir), 0o602)) },
		"folder others can change":    func(t *testing.T, dir string) { require.NoError(t, os.Chmod(dir, 0o770)) },
		"no list":                     func(t *testing.T, dir string) { require.NoError(t, os.Remove(list(dir))) },
		"no folder":                   func(t *testing.T, dir string) { require.NoError(t, os.RemoveAll(dir)) },
		"empty list":                  func(t *testing.T, dir string) { require.NoError(t, os.WriteFile(list(dir), []byte("[]"), 0o600)) },
		"broken list":                 func(t *testing.T, dir string) { require.NoError(t, os.WriteFile(list(dir), []byte("[{"), 0o600)) },
		"huge list": func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(list(dir), make([]byte, 2<<20), 0o600))
		},
		"private key that is none": func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(pemFile(t, dir), []byte("secret"), 0o600))
		},
		"private key under another tag": func(t *testing.T, dir string) { replace(t, pemFile(t, dir), "BEGIN PRIVATE", "BEGIN PUBLIC") },
		"private key with a tail": func(t *testing.T, dir string) {
			replace(t, pemFile(t, dir), "-----END PRIVATE KEY-----", "-----END PRIVATE KEY-----\nmore")
		},
		"id of another key": func(t *testing.T, dir string) {
			id, _ := keyOf(t, dir)
			replace(t, list(dir), id, "0123456789abcdef")
		},
		"private key of another": func(t *testing.T, dir string) {
			elsewhere, _ := generated(t)
			body, err := os.ReadFile(pemFile(t, elsewhere))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(pemFile(t, dir), body, 0o600))
		},
		"a key twice": func(t *testing.T, dir string) {
			body, err := os.ReadFile(list(dir))
			require.NoError(t, err)
			one := strings.Trim(strings.TrimSpace(string(body)), "[]")
			require.NoError(t, os.WriteFile(list(dir), []byte("["+one+","+one+"]"), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := generated(t)
			spoil(t, dir)
			_, err := assertion.Load(dir)
			require.Error(t, err)
		})
	}
}

func TestKeyIDIsTheFingerprintOfThePublicKey(t *testing.T) {
	dir, _ := generated(t)
	id, private := keyOf(t, dir)
	got, err := assertion.KeyID(private.Public().(ed25519.PublicKey))
	require.NoError(t, err)
	require.Equal(t, id, got)
	require.Len(t, id, 16)
}
